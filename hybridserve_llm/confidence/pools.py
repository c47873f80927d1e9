"""Pool the log-probabilities of an answer's tokens, shape [n_tokens], into one number.

They are natural logarithms, each <= 0. Every pool is pure Python: the hot path of a request loads
no numpy. A margin is the likeliest token's probability minus the next one's, in [0, 1], shape
[n_tokens].

Pools of no tokens are not defined: they raise ValueError, ZeroDivisionError or IndexError, and
never return a number.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import sub

_LOG_HALF = math.log(0.5)


def sum_logprob(logprobs: Sequence[float]) -> float:
    """Return the log-probability of the whole sequence: sum_t lp_t (Chow-Sum, MSP).

    Source: Gupta et al., Language Model Cascades, ICLR 2024 (arXiv 2404.10136), section 3.
    """
    return math.fsum(logprobs)


def mean_logprob(logprobs: Sequence[float]) -> float:
    """Return the mean per token: (1/T) sum_t lp_t (Chow-Average; minus the log of perplexity).

    Source: Gupta et al., arXiv 2404.10136, section 3.
    """
    return math.fsum(logprobs) / len(logprobs)


def min_logprob(logprobs: Sequence[float]) -> float:
    """Return the log-probability of the least likely token: min_t lp_t (Chow-Quantile at 0).

    Source: Gupta et al., arXiv 2404.10136, section 4.1.
    """
    return min(logprobs)


def quantile_logprob(logprobs: Sequence[float], quantile: float) -> float:
    """Return the `quantile` of the log-probabilities (Chow-Quantile); 0 gives the minimum.

    The inverse of the empirical distribution function: the k-th smallest of n with
    k = max(1, ceil(quantile * n)); no interpolation, so that the value is one token's own.

    Source: Gupta et al., arXiv 2404.10136, section 4.1; deviation: they interpolate.

    Raises:
        ValueError: `logprobs` is empty.
    """
    return quantile_of_sorted(sorted(logprobs), quantile)


def quantile_of_sorted(ordered: Sequence[float], quantile: float) -> float:
    """Return the `quantile_logprob` of ascending values, so that several share one sort.

    Raises:
        ValueError: `ordered` is empty.
    """
    if not ordered:
        raise ValueError("the quantile of no tokens is not defined")
    return ordered[max(1, math.ceil(quantile * len(ordered))) - 1]


def unsure_share_of_sorted(ordered: Sequence[float]) -> float:
    """Return the share of tokens sampled at less than even odds: (1/T) #{t: p_t < 1/2}.

    At p_t > 1/2 a token is certainly the likeliest one, for any vocabulary. So this bounds the
    share of tokens at which the model preferred another token.

    Source: our choice, from no paper.

    Args:
        ordered: Log-probabilities in ascending order, so that they are counted by bisection.
    """
    return bisect_left(ordered, _LOG_HALF) / len(ordered)


def lowest_window_mean(logprobs: Sequence[float], width: int) -> float:
    """Return the mean of the worst window: min_s (1/w) sum_{s<=t<s+w} lp_t, w = `width`.

    It is the mean of all tokens where T <= w.

    Source: lowest group confidence of Fu et al., Deep Think with Confidence (arXiv 2508.15260),
    section 3.1. Deviations: they pool each token's mean over its top-k alternatives, we the sampled
    token's own log-probability, which needs no alternatives. Their windows are 1024 or 2048 tokens
    of reasoning, ours fit answers.
    """
    if len(logprobs) <= width:
        return mean_logprob(logprobs)
    # sums[t] is the sum of the first t values. Each is <= 0, so sums never rise, rounded or not,
    # and no window's mean is above 0.
    sums = list(accumulate(logprobs, initial=0.0))
    lowest: float = min(map(sub, sums[width:], sums))
    return lowest / width


def tail_mean(logprobs: Sequence[float], width: int) -> float:
    """Return the mean of the last w = `width` tokens, where a conclusion is; of all where T <= w.

    Source: tail confidence of Fu et al., arXiv 2508.15260, section 3.1; deviations as in
    `lowest_window_mean`.
    """
    return mean_logprob(logprobs[-width:])


def first_logprob(logprobs: Sequence[float]) -> float:
    """Return lp_1 of the first token: the whole answer where that is a label or letter.

    Source: Kadavath et al., Language Models (Mostly) Know What They Know (arXiv 2207.05221),
    section 2. Deviation: theirs is renormalised over the options offered, ours is not.
    """
    return logprobs[0]


def log_length(n_tokens: int) -> float:
    """Return log(1 + T), by which a model undoes the bias of sums and means by length.

    Source: that bias, Gupta et al., arXiv 2404.10136, section 3; the logarithm is our choice.
    """
    return math.log1p(n_tokens)


def mean_margin(margins: Sequence[float]) -> float:
    """Return the mean over tokens of the margin: (1/T) sum_t (p_(1),t - p_(2),t).

    Source: the margin is Settles, Active Learning Literature Survey (TR 1648, 2009), section 3.1;
    UCCI (arXiv 2605.18796) takes its mean over tokens as the score of a cascade.
    """
    return math.fsum(margins) / len(margins)


def min_margin(margins: Sequence[float]) -> float:
    """Return the smallest margin: min_t (p_(1),t - p_(2),t).

    Source: as `mean_margin`; the minimum over tokens is our choice.
    """
    return min(margins)


def first_margin(margins: Sequence[float]) -> float:
    """Return the margin of the first token, p_(1),1 - p_(2),1.

    Source: as `first_logprob`, with the margin of `mean_margin` in place of the probability.
    """
    return margins[0]
