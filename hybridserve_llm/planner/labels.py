"""The best choice by dynamic programming, exact, with numpy alone.

It stands in where HiGHS is not installed, and checks it in tests. Its labels grow with the number
of budgets that bind together: as quick as HiGHS for one or two, and without a bound for more.
"""

from dataclasses import dataclass

import numpy as np

from hybridserve_llm.planner.problem import FloatArray, IntArray, Problem
from hybridserve_llm.planner.pruning import front_of, wish_order


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labels:
    """Choices for some of the tiers that no other beats; all arrays [m] or [m, n_budgets].

    `column` is the last one chosen, `parent` the place of the label it was added to, in those of
    the tiers without it.
    """

    power_w: FloatArray
    gpus: IntArray
    latency_s: FloatArray
    uses: IntArray
    column: IntArray
    parent: IntArray

    def at(self, kept: IntArray) -> "_Labels":
        return _Labels(
            power_w=self.power_w[kept],
            gpus=self.gpus[kept],
            latency_s=self.latency_s[kept],
            uses=self.uses[kept],
            column=self.column[kept],
            parent=self.parent[kept],
        )


def solve_by_labels(problem: Problem) -> tuple[int, ...] | None:
    """The columns chosen, ascending; None where no choice keeps all bounds.

    Tiers are served from the first on: labels of a set of tiers come from those of every smaller
    set by a column that serves the first tier missing there. Of labels for the same tiers one goes
    where another takes no more of anything bounded and is wished for at least as much (Bellman's
    principle with several resources; Source: Kellerer, Pferschy, Pisinger, Knapsack Problems,
    2004, on multiple-choice and multi-dimensional knapsacks).
    """
    everything = (1 << problem.n_tiers) - 1
    blocks = [int(block) for block in np.unique(problem.serves)]
    labels = {0: _empty_label(len(problem.budgets))}
    for served in range(1, everything + 1):
        found = [
            _extended(problem, labels[rest], block)
            for block in blocks
            if block & ~served == 0 and (rest := served & ~block) in labels
            # Each choice in one order only: by the first tier of what is added.
            if _lowest_bit(~rest & everything) & block
        ]
        grown = _joined([part for part in found if len(part.gpus)])
        if grown is not None:
            labels[served] = _pruned(problem, grown)
    if everything not in labels:
        return None
    return _walk_back(problem, labels, everything)


def _lowest_bit(bits: int) -> int:
    return bits & -bits


def _empty_label(n_budgets: int) -> _Labels:
    none = np.full(1, -1, dtype=np.int64)
    return _Labels(
        power_w=np.zeros(1),
        gpus=np.zeros(1, dtype=np.int64),
        latency_s=np.zeros(1),
        uses=np.zeros((1, n_budgets), dtype=np.int64),
        column=none,
        parent=none,
    )


def _extended(problem: Problem, labels: _Labels, block: int) -> _Labels:
    """Every label with every column of `block`, as far as they keep the bounds."""
    columns = np.flatnonzero(problem.serves == block)
    parent = np.repeat(np.arange(len(labels.gpus)), len(columns))
    column = np.tile(columns, len(labels.gpus))
    uses = labels.uses[parent] + problem.uses[column]
    latency_s = labels.latency_s[parent] + problem.latency_s[column]
    fits = (uses <= problem.budgets).all(axis=1)
    if problem.latency_limit_s is not None:
        fits &= latency_s <= problem.latency_limit_s * (1 + 1e-12)
    parent, column = parent[fits], column[fits]
    return _Labels(
        power_w=labels.power_w[parent] + problem.power_w[column],
        gpus=labels.gpus[parent] + problem.gpus[column],
        latency_s=latency_s[fits],
        uses=uses[fits],
        column=column,
        parent=parent,
    )


def _joined(parts: list[_Labels]) -> _Labels | None:
    if not parts:
        return None
    return _Labels(
        power_w=np.concatenate([part.power_w for part in parts]),
        gpus=np.concatenate([part.gpus for part in parts]),
        latency_s=np.concatenate([part.latency_s for part in parts]),
        uses=np.concatenate([part.uses for part in parts]),
        column=np.concatenate([part.column for part in parts]),
        parent=np.concatenate([part.parent for part in parts]),
    )


def _pruned(problem: Problem, labels: _Labels) -> _Labels:
    bounded = labels.uses.astype(np.float64)
    if problem.latency_limit_s is not None:
        bounded = np.column_stack([bounded, labels.latency_s])
    order = wish_order(labels.power_w, labels.gpus, labels.latency_s)
    return labels.at(front_of(bounded, order))


def _walk_back(problem: Problem, labels: dict[int, _Labels], served: int) -> tuple[int, ...]:
    last = labels[served]
    place = int(wish_order(last.power_w, last.gpus, last.latency_s)[0])
    chosen = []
    while served:
        column, place = int(labels[served].column[place]), int(labels[served].parent[place])
        chosen.append(column)
        served &= ~int(problem.serves[column])
    return tuple(sorted(chosen))
