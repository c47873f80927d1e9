"""The rival that decides before anything is generated: a router fitted to prompts alone.

For each tier below the last, the probability that its answer would do harm is fitted to the
prompt's features; prompts below a threshold go to that tier, the others to the last one, and each
prompt is answered by the tier it went to.
"""

from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import JudgedPath, done_without_risk, judged, measured
from hybridserve_llm.calibration.logistic import Logistic, fit_logistic
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Replay

RIDGE = 20.0
"""As the gate's (`calibration/gate.py`)."""
N_STEPS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRouter:
    """Sends prompts whose predicted harm is at most `send_at_most` to `tier`, else to the last."""

    tier: int
    harm: Logistic
    send_at_most: float

    def replay(self, outcomes: Outcomes) -> Replay:
        """What it does on the questions of `outcomes`."""
        is_sent = self.harm.predict(outcomes.prompt_features) <= self.send_at_most
        answering = np.where(is_sent, self.tier, outcomes.last)
        was_asked = np.arange(len(outcomes.tiers)) == answering[:, None]
        return done_without_risk(answering, was_asked)


def router_paths(fit: Outcomes, loss: Loss) -> list[JudgedPath[PromptRouter]]:
    """For each tier below the last its routers, from one that sends nothing to one that sends all.

    Judged on the rows they were fitted to, as the thresholds of raw scores are (`raw_score.py`).
    """
    paths = []
    for tier in range(fit.last):
        harm = fit_logistic(fit.prompt_features, fit.harmful(tier), RIDGE)
        seen = np.quantile(harm.predict(fit.prompt_features), np.linspace(0, 1, N_STEPS))
        bounds = [-1.0, *np.unique(seen)]
        ways = [PromptRouter(tier=tier, harm=harm, send_at_most=float(at)) for at in bounds]
        figures = [measured(way.replay(fit), fit) for way in ways]
        paths.append(judged(ways, figures, n_tiers=2, loss=loss))
    return paths
