"""What a request cost in a measured run, each way of it, in one way of counting."""

import math
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import perfect_chain
from eval.judging.intervals import LEVEL, Interval
from eval.recorded.measured_run import ALONE, CASCADE
from eval.recorded.run_outcomes import PooledRun, RunOutcomes, Use
from hybridserve_llm.calibration.outcomes import Floats

N_BLOCK_RESAMPLES = 2000
FEWEST_BLOCKS = 10
"""With fewer a ratio has no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFigures:
    """What a request cost in one way of counting; `ratio` is alone over cascade.

    Attributes:
        ratio_interval: 95 %, bootstrap over blocks, both ways' block of a number drawn together.
        share_of_perfect: Saving against the last tier alone over the perfect chain's on the same
            questions; None where the perfect chain saves nothing.
        wasted: Part of `cascade` for answers that were not taken.
        shadows: Part of `cascade` for answers that the watch had given again, by tokens.
    """

    cascade: float
    alone: float
    perfect_chain: float
    ratio: float
    ratio_interval: Interval | None
    share_of_perfect: float | None
    wasted: float
    shadows: float
    tiers: dict[str, float]
    cascade_by_tier: dict[str, float]


def cost_figures(run: PooledRun, data: RunOutcomes, use: Use, seed: int) -> CostFigures:
    """Means over the questions that count; the ratio's interval is over whole blocks."""
    was_asked = perfect_chain(data.outcomes).was_asked
    perfect = float((was_asked * data.costs).sum(axis=1).mean())
    cascade, alone = float(data.cascade_costs.sum(axis=1).mean()), float(data.costs[:, -1].mean())
    taken = np.arange(len(run.tiers)) == data.answering[:, None]
    return CostFigures(
        cascade=cascade,
        alone=alone,
        perfect_chain=perfect,
        ratio=alone / cascade,
        ratio_interval=_ratio_interval(run, use, seed),
        share_of_perfect=(alone - cascade) / (alone - perfect) if alone > perfect else None,
        wasted=float((data.cascade_costs * (data.was_asked & ~taken)).sum(axis=1).mean()),
        shadows=_shadow_cost(run, use) / sum(len(b.answers) for _, b in run.of_way(CASCADE)),
        tiers=by_tier(run.tiers, data.costs.mean(axis=0)),
        cascade_by_tier=by_tier(run.tiers, data.cascade_costs.mean(axis=0)),
    )


def _shadow_cost(run: PooledRun, use: Use) -> float:
    """What shadows cost the last tier, block by block in proportion to tokens."""
    last, total = run.tiers[-1], 0.0
    for _, block in run.of_way(CASCADE):
        attempts = [a for answer in block.answers for a in answer.attempts if a.tier == last]
        own = sum((a.prompt_tokens or 0) + (a.completion_tokens or 0) for a in attempts)
        if block.shadow_tokens:
            share = block.shadow_tokens / (block.shadow_tokens + own)
            total += share * use(last, block.used[last], block.duration_s)
    return total


def _ratio_interval(run: PooledRun, use: Use, seed: int) -> Interval | None:
    """Of alone over cascade, cost a question, from the sums of whole blocks."""
    last = run.tiers[-1]

    def costs(way: str, tiers: tuple[str, ...]) -> dict[tuple[int, int], tuple[float, int]]:
        return {
            (number, block.index): (
                math.fsum(use(tier, block.used[tier], block.duration_s) for tier in tiers),
                len(block.answers),
            )
            for number, block in run.of_way(way)
        }

    ours, theirs = costs(CASCADE, run.tiers), costs(ALONE, (last,))
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < FEWEST_BLOCKS:
        return None
    pairs = np.array([(*ours[key], *theirs[key]) for key in both])
    rng = np.random.default_rng(seed)
    drawn = pairs[rng.integers(0, len(pairs), (N_BLOCK_RESAMPLES, len(pairs)))].sum(axis=1)
    ratios = (drawn[:, 2] / drawn[:, 3]) / (drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def by_tier(tiers: tuple[str, ...], values: Floats) -> dict[str, float]:
    """The values under the tiers' names."""
    return {name: float(value) for name, value in zip(tiers, values, strict=True)}
