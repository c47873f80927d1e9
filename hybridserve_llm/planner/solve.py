"""Finds the best choice with whatever solver is there; the answer does not depend on which."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from hybridserve_llm.planner.labels import solve_by_labels
from hybridserve_llm.planner.problem import Problem
from hybridserve_llm.planner.pruning import worthwhile_columns

Solver: TypeAlias = Callable[[Problem], tuple[int, ...] | None]


def installed_solver() -> Solver:
    """HiGHS where it can be imported, else the dynamic program."""
    try:
        # A dependency of every installation, but a binary one: where no wheel fits the machine the
        # planner still plans.
        from hybridserve_llm.planner.milp import solve_by_milp
    except ImportError:
        return solve_by_labels
    return solve_by_milp


def best_choice(problem: Problem, solver: Solver) -> tuple[int, ...] | None:
    """The columns that are best by the wishes of `Problem`; None where none keep all bounds."""
    kept = worthwhile_columns(problem)
    found = solver(problem.subset(kept))
    return None if found is None else tuple(int(i) for i in np.sort(kept[list(found)]))
