"""The main rival: the best chain with one threshold per tier on the tier's own raw score.

It reads neither agreement nor a fitted model. The thresholds of a chain follow one price of harm,
as ours do: at each price they are set by coordinate descent to the least cost + price * harm seen
on the fit split, none stricter than at the price before. Between two prices, and from "takes
nothing" to the first price, the numbers of answers taken are interpolated, so that the path has a
step wherever a walk may have to stop. For a chain of two tiers this is every threshold there is.

Chosen among other families by what it certified on the four public files in 8 seeds: equal
quantiles at all tiers certify much less in chains of three tiers (mean log of the cost ratio 0.7
instead of 2.0 on llm_records/gsm8k_llama.csv, net loss, epsilon 0.02); the prices without
interpolation start with a jump to "no harm seen", which often fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import JudgedPath, first_accepted, judged, measured
from hybridserve_llm.calibration.choice import RESCUE_SHRINKAGE
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes
from hybridserve_llm.calibration.policies import Replay
from hybridserve_llm.calibration.risk_models import states_below

N_PRICES, N_STEPS = 60, 150
HIGHEST_PRICE, LOWEST_PRICE = 300.0, 0.75
"""Prices of one harm, in costs of asking the last tier."""
SAVING_PER_TIER = 0.05
"""Share of the last tier's cost that a further tier must save.

More than for ours: these thresholds are tuned on the rows that chains are judged on. With 0.02 the
rival certified less (8 seeds, four files).
"""
_N_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChain:
    """Asks the tiers of `chain` in turn and takes the first answer whose score is high enough.

    `thresholds` are the least scores taken, one for each tier below the last; infinity takes none.
    An answer without a score is not taken.
    """

    chain: tuple[int, ...]
    thresholds: tuple[float, ...]

    def replay(self, outcomes: Outcomes) -> Replay:
        """What it does on the questions of `outcomes`."""
        accepts = outcomes.scores[:, list(self.chain[:-1])] >= np.array(self.thresholds)
        return first_accepted(accepts, self.chain, outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ByScore:
    """The fit split's answers of one tier by falling score.

    Attributes:
        rows: Indices of the questions, [n_scored].
        scores: Their scores, [n_scored].
        cuts: Numbers of answers that some threshold takes: 0 and every end of equal scores.
    """

    rows: Ints
    scores: Floats
    cuts: Ints

    def threshold(self, n_taken: int) -> float:
        """The threshold that takes the first `n_taken` answers, and those that tie with them."""
        return float(self.scores[n_taken - 1]) if n_taken else np.inf

    def takes(self, n_taken: int, n_questions: int) -> Bools:
        """Which questions are among the first `n_taken`, [n_questions]."""
        taken = np.zeros(n_questions, dtype=bool)
        taken[self.rows[:n_taken]] = True
        return taken


def raw_score_paths(fit: Outcomes, loss: Loss) -> list[JudgedPath[ScoreChain]]:
    """The path of every chain of two tiers or more."""
    paths = []
    for state in states_below(fit.last):
        chain = (*state, fit.last)
        ways = raw_score_path(chain, fit, loss)
        figures = [measured(way.replay(fit), fit) for way in ways]
        paths.append(judged(ways, figures, n_tiers=len(chain), loss=loss))
    return paths


def raw_score_path(chain: Sequence[int], fit: Outcomes, loss: Loss) -> list[ScoreChain]:
    """Different ways of one chain, strict to lax, the first taking nothing."""
    tiers = [_by_score(fit.scores[:, tier]) for tier in chain[:-1]]
    counts = _evenly_spaced(_counts_by_price(chain, tiers, fit, loss))
    path: list[ScoreChain] = []
    for n_taken in counts:
        pairs = zip(tiers, n_taken, strict=True)
        thresholds = tuple(tier.threshold(int(count)) for tier, count in pairs)
        if not path or path[-1].thresholds != thresholds:
            path.append(ScoreChain(chain=tuple(chain), thresholds=thresholds))
    return path


def _by_score(scores: Floats) -> _ByScore:
    scored = np.flatnonzero(~np.isnan(scores))
    rows = scored[np.argsort(-scores[scored], kind="stable")]
    falling = scores[rows]
    is_end = np.append(falling[1:] != falling[:-1], True) if len(rows) else np.zeros(0, dtype=bool)
    return _ByScore(rows=rows, scores=falling, cuts=np.append(0, np.flatnonzero(is_end) + 1))


def _counts_by_price(
    chain: Sequence[int], tiers: Sequence[_ByScore], fit: Outcomes, loss: Loss
) -> Ints:
    """How many answers each lower tier takes, [n_prices + 1, n_lower]; the first row is zero.

    "Takes" is counted over all questions, whether or not they get as far as this tier.
    """
    lower, last_is_right = list(chain[:-1]), fit.is_right[:, [fit.last]]
    rescues = fit.is_right[:, lower] & ~last_is_right
    shrinkage = RESCUE_SHRINKAGE if loss == "net" else 0.0
    harm = (~fit.is_right[:, lower] & last_is_right) - shrinkage * rescues
    last_cost = float(fit.costs[fit.last])
    counts = [np.zeros(len(lower), dtype=np.int64)]
    for price in np.geomspace(HIGHEST_PRICE, LOWEST_PRICE, N_PRICES) * last_cost:
        counts.append(_descended(counts[-1], tiers, price * harm, fit.costs[lower], last_cost))
    return np.array(counts)


def _descended(
    at_least: Ints, tiers: Sequence[_ByScore], harm: Floats, costs: Floats, last_cost: float
) -> Ints:
    """Numbers taken of least cost + harm, none below `at_least`, by passes from the last tier down.

    `harm`, in units of cost, is of shape [n_questions, n_lower]. The first pass sets each tier as
    if all questions reached it, the others for the questions that do.
    """
    n = len(harm)
    counts = at_least.copy()
    takes = [tier.takes(int(count), n) for tier, count in zip(tiers, counts, strict=True)]
    for n_pass in range(_N_PASSES):
        onward = np.full(n, last_cost)
        for k in reversed(range(len(tiers))):
            is_reached = np.ones(n, dtype=bool)
            if n_pass > 0 and k > 0:
                is_reached = ~np.any(takes[:k], axis=0)
            gain = np.where(is_reached, harm[:, k] - onward, 0.0)[tiers[k].rows]
            totals = np.append(0.0, np.cumsum(gain))
            cuts = tiers[k].cuts[tiers[k].cuts >= at_least[k]]
            counts[k] = cuts[np.argmin(totals[cuts])]
            takes[k] = tiers[k].takes(int(counts[k]), n)
            onward = costs[k] + np.where(takes[k], harm[:, k], onward)
    return counts


def _evenly_spaced(counts: Ints) -> Ints:
    """`counts`, [n, n_lower], interpolated to N_STEPS steps of equal greatest change."""
    change = np.abs(np.diff(counts, axis=0)).max(axis=1)
    is_new = np.append(True, change > 0)
    corners, way = counts[is_new], np.append(0, np.cumsum(change))[is_new]
    steps = np.linspace(0, way[-1], N_STEPS)
    columns = [np.interp(steps, way, column) for column in corners.T]
    return np.asarray(np.rint(np.stack(columns, axis=1)), dtype=np.int64)
