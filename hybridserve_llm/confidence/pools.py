"""Pools: one number from the log-probabilities of an answer's tokens, shape [n_tokens].

Natural logarithms, each <= 0. Every pool is pure Python: the hot path of a request loads no numpy.
"""

import math
from collections.abc import Sequence


def sum_logprob(logprobs: Sequence[float]) -> float:
    """Log-probability of the whole sequence: sum_t lp_t (Chow-Sum, MSP).

    Source: Gupta et al., Language Model Cascades, ICLR 2024 (arXiv 2404.10136), section 3.
    """
    return math.fsum(logprobs)


def quantile_logprob(logprobs: Sequence[float], quantile: float) -> float:
    """The `quantile` of the tokens' log-probabilities (Chow-Quantile); 0 gives the minimum.

    The inverse of the empirical distribution function: the k-th smallest of n with
    k = max(1, ceil(quantile * n)); no interpolation, so that the value is one token's own.

    Source: Gupta et al., arXiv 2404.10136, section 4.1; deviation: they interpolate.

    Raises:
        ValueError: `logprobs` is empty.
    """
    if not logprobs:
        raise ValueError("the quantile of no tokens is not defined")
    rank = max(1, math.ceil(quantile * len(logprobs)))
    return sorted(logprobs)[rank - 1]
