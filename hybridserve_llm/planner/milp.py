"""Find the best choice of columns: exact, by mixed-integer programming with HiGHS.

Columns that another one beats in everything are dropped first, so that the solver sees few.
"""

from collections.abc import Sequence

import highspy
import numpy as np

from hybridserve_llm.planner.problem import SAME_POWER, BoolArray, FloatArray, IntArray, Problem

_TOLERANCE = 1e-9


class _QuietSolver(highspy.Highs):
    """Run HiGHS without callbacks, which nothing here uses.

    Enabling them prints a greeting on stdout (highspy 1.16.0), where only JSON may be.
    """

    def enableCallbacks(self) -> None:  # noqa: N802 - highspy's name
        """Enable nothing."""


def best_choice(problem: Problem) -> tuple[int, ...] | None:
    """Return the columns that are best by the wishes of `Problem`, ascending.

    None means that no choice keeps all bounds.
    """
    kept = worthwhile_columns(problem)
    found = solve_by_milp(problem.subset(kept))
    return None if found is None else tuple(int(i) for i in np.sort(kept[list(found)]))


def solve_by_milp(problem: Problem) -> tuple[int, ...] | None:
    """Return the columns chosen, ascending; None where no choice keeps all bounds.

    The model: `min sum_k power_k x_k` with x binary, `sum_{k serves t} x_k = 1` for every tier t,
    `sum_k uses_kr x_k <= budget_r` for every budget r. The wishes that follow are solved in turn,
    each with those before it held at the value they reached (lexicographic goal programming).
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
            # rows. Should rounding say otherwise, that choice stands.
            return chosen
        chosen = found
        if i + 1 < len(wishes):
            reached = float(wish[list(chosen)].sum())
            _add_row(solver, wish, upper=reached + SAME_POWER * max(1.0, abs(reached)))
    return chosen


def worthwhile_columns(problem: Problem) -> IntArray:
    """Return the indices of the columns that some best choice may need, ascending.

    A column is dropped if another one serves the same tiers, takes no more of any budget, is as
    quick, and is preferred at least as much (watts, GPUs, latency, place). The exchange keeps
    every bound and every wish, so no best choice is lost (a dominance, or Pareto, filter).
    """
    kept = [
        rows[_front_of(_bounded_by(problem, rows), _wish_order(problem, rows))]
        for block in np.unique(problem.serves)
        for rows in [np.flatnonzero((problem.serves == block) & _fits_alone(problem))]
    ]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.int64)


def _solver_of(problem: Problem) -> _QuietSolver:
    solver = _QuietSolver()  # type: ignore[no-untyped-call] # highspy leaves it untyped
    for name, value in {
        "output_flag": False,
        "threads": 1,  # the same steps in the same order on every machine
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
    solver: _QuietSolver,
    factors: FloatArray,
    *,
    upper: float,
    lower: float = -highspy.kHighsInf,
) -> None:
    places = np.flatnonzero(factors)
    solver.addRow(lower, upper, len(places), places.astype(np.int32), factors[places])


def _run(solver: _QuietSolver) -> tuple[int, ...] | None:
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    values: Sequence[float] = solver.getSolution().col_value
    return tuple(int(i) for i in np.flatnonzero(np.asarray(values) > 0.5))


def _fits_alone(problem: Problem) -> BoolArray:
    fits: BoolArray = np.asarray((problem.uses <= problem.budgets).all(axis=1))
    if problem.latency_limit_s is not None:
        fits &= problem.latency_s <= problem.latency_limit_s
    return fits


def _bounded_by(problem: Problem, rows: IntArray) -> FloatArray:
    """Return all that is bounded of the columns `rows`, shape [n_rows, n_bounds]."""
    bounded = problem.uses[rows].astype(np.float64)
    if problem.latency_limit_s is None:
        # A budget that no column takes from makes no difference between columns.
        used: BoolArray = np.asarray(bounded.any(axis=0))
        used[0] |= not used.any()
        return bounded[:, used]
    return np.column_stack([bounded, problem.latency_s[rows]])


def _wish_order(problem: Problem, rows: IntArray) -> IntArray:
    """Return the places in `rows` from the most to the least preferred column.

    Watts are compared to the microwatt. Without the rounding, sums that differ only in their last
    bit would decide before the GPUs.
    """
    gpus, latency_s = problem.gpus[rows], problem.latency_s[rows]
    watts = np.round(problem.power_w[rows], 6)
    order = np.lexsort((np.arange(len(rows)), latency_s, gpus, watts))
    return np.asarray(order, dtype=np.int64)


def _front_of(bounded: FloatArray, order: IntArray) -> IntArray:
    """Return the places in `bounded` [n, n_bounds] that no earlier place in `order` dominates.

    One place dominates another if it is at most as large in every bound. Walking in the order of
    wishes, a place is kept when each kept one is above it in some bound.
    """
    if bounded.shape[1] == 1:
        # One bound: a place is kept exactly where it is below all before it.
        values = bounded[order, 0]
        best_before = np.minimum.accumulate(values)
        is_kept = np.ones(len(order), dtype=np.bool_)
        is_kept[1:] = values[1:] < best_before[:-1]
        return np.asarray(order[is_kept], dtype=np.int64)
    kept = np.empty(len(order), dtype=np.int64)
    front = np.empty_like(bounded)
    n_kept = 0
    for place in order:
        if not (front[:n_kept] <= bounded[place]).all(axis=1).any():
            kept[n_kept], front[n_kept] = place, bounded[place]
            n_kept += 1
    return kept[:n_kept]
