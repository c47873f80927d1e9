"""Fixed rules of other cascades: hand-set confidence, hand-set threshold, nothing certified.

Recorded answers hold one log-probability per answer, neither its tokens nor its text. So the mean
log-probability that these rules read is approximated by the answer's log-probability, as if it were
one token, and every signal taken from the text by the neutral 0.5. Both rules are asked of every
tier of the whole chain, cheapest first; cascadeflow itself has two tiers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import first_accepted
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.policies import Replay

_UNKNOWN_SIGNAL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRule:
    """Accepts where a fixed function of the score is at least a fixed threshold."""

    name: str
    confidence: Callable[[Floats], Floats]
    accept_at: float

    def replay(self, outcomes: Outcomes) -> Replay:
        """What it does on the questions of `outcomes`; an answer without a score is not taken."""
        chain = range(len(outcomes.tiers))
        accepts = self.confidence(outcomes.scores[:, : outcomes.last]) >= self.accept_at
        return first_accepted(accepts, chain, outcomes)


def linear_map(scores: Floats) -> Floats:
    """clip((mean log-probability + 3) / 3, 0, 1), of any shape.

    Source: vLLM Semantic Router, `looper/confidence.go`, method `avg_logprob` (commit 01c193f).
    """
    return np.clip((scores + 3.0) / 3.0, 0.0, 1.0)


def hand_weighted_mix(scores: Floats) -> Floats:
    """0.5 log-probabilities + 0.2 wording + 0.2 alignment + 0.1 easiness + 0.05, in [0.3, 0.98].

    The first signal is itself a mix of geometric mean, harmonic mean, least probability and an
    entropy term; for one token of probability p it is 0.85 p + 0.15 (1 + p ln p). The 0.05 is for
    an answer that ended by itself, and greedy decoding has no penalty.
    Source: cascadeflow, `quality/confidence.py`, provider "vllm" (commit 19703b0).
    """
    p = np.exp(scores)
    entropy = -p * np.where(p > 1e-10, np.log(np.maximum(p, 1e-300)), 0.0)
    signal = 0.85 * p + 0.15 * (1.0 - np.minimum(entropy, 1.0))
    from_text = (0.2 + 0.2 + 0.1) * _UNKNOWN_SIGNAL
    mixed = 0.5 * signal + from_text + 0.05
    return np.asarray(np.clip(mixed, 0.3, 0.98), dtype=np.float64)


PEER_RULES = (
    # Its default threshold for this method, which takes every answer that has a score.
    FixedRule(name="linear map, default (-1)", confidence=linear_map, accept_at=-1.0),
    FixedRule(name="linear map, 0.9", confidence=linear_map, accept_at=0.9),
    # Thresholds of cascadeflow's `for_cascade` and `for_production` at "moderate" complexity.
    FixedRule(name="weighted mix, 0.55", confidence=hand_weighted_mix, accept_at=0.55),
    FixedRule(name="weighted mix, 0.73", confidence=hand_weighted_mix, accept_at=0.73),
)
