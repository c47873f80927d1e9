"""The best choice by mixed-integer programming with HiGHS, exact."""

from collections.abc import Sequence

import highspy
import numpy as np

# `highspy.Highs` is this class with callbacks, and greets on stdout when it is made (1.16.0), which
# must hold nothing but JSON.
from highspy._core import _Highs

from hybridserve_llm.planner.problem import SAME_POWER, FloatArray, Problem

_TOLERANCE = 1e-9


def solve_by_milp(problem: Problem) -> tuple[int, ...] | None:
    """The columns chosen, ascending; None where no choice keeps all bounds.

    The model: `min sum_k power_k x_k` with x binary, `sum_{k serves t} x_k = 1` for every tier t,
    `sum_k uses_kr x_k <= budget_r` for every budget r. The wishes that follow are solved in turn,
    each with those before it held at what they reached (lexicographic goal programming).
    """
    if not problem.n_columns:
        return None
    wishes: list[FloatArray] = [
        problem.power_w,
        problem.gpus.astype(np.float64),
        problem.latency_s,
        np.arange(problem.n_columns, dtype=np.float64),
    ]
    solver = _solver_of(problem)
    chosen: tuple[int, ...] | None = None
    for i, wish in enumerate(wishes):
        solver.changeColsCost(problem.n_columns, np.arange(problem.n_columns, dtype=np.int32), wish)
        found = _run(solver)
        if found is None or not problem.is_kept_by(found):
            # Only the first solve can be infeasible. Later ones start from a choice that keeps all
            # rows; should rounding say otherwise, that choice stands.
            return chosen
        chosen = found
        if i + 1 < len(wishes):
            reached = float(wish[list(chosen)].sum())
            _add_row(solver, wish, upper=reached + SAME_POWER * max(1.0, abs(reached)))
    return chosen


def _solver_of(problem: Problem) -> _Highs:
    solver = _Highs()
    for name, value in {
        "output_flag": False,
        "threads": 1,  # the same steps in the same order, whatever the machine
        "random_seed": 0,
        "mip_rel_gap": 0.0,
        "mip_abs_gap": _TOLERANCE,
        "mip_feasibility_tolerance": _TOLERANCE,
        "primal_feasibility_tolerance": _TOLERANCE,
    }.items():
        solver.setOptionValue(name, value)
    n = problem.n_columns
    solver.addVars(n, np.zeros(n), np.ones(n))
    integer = np.full(n, int(highspy.HighsVarType.kInteger), dtype=np.uint8)
    solver.changeColsIntegrality(n, np.arange(n, dtype=np.int32), integer)
    for tier in range(problem.n_tiers):
        serves = ((problem.serves >> tier) & 1).astype(np.float64)
        _add_row(solver, serves, lower=1.0, upper=1.0)
    for uses, budget in zip(problem.uses.T, problem.budgets, strict=True):
        _add_row(solver, uses.astype(np.float64), upper=float(budget))
    if problem.latency_limit_s is not None:
        _add_row(solver, problem.latency_s, upper=problem.latency_limit_s)
    return solver


def _add_row(
    solver: _Highs,
    factors: FloatArray,
    *,
    upper: float,
    lower: float = -highspy.kHighsInf,
) -> None:
    places = np.flatnonzero(factors)
    solver.addRow(lower, upper, len(places), places.astype(np.int32), factors[places])


def _run(solver: _Highs) -> tuple[int, ...] | None:
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    values: Sequence[float] = solver.getSolution().col_value
    return tuple(int(i) for i in np.flatnonzero(np.asarray(values) > 0.5))
