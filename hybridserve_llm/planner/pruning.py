"""Drops columns that another one beats in everything, so that solvers see few of them."""

import numpy as np

from hybridserve_llm.planner.problem import BoolArray, FloatArray, IntArray, Problem


def worthwhile_columns(problem: Problem) -> IntArray:
    """Indices of the columns that some best choice may need, ascending.

    A column goes where another one that serves the same tiers takes no more of any budget, is as
    quick, and is wished for at least as much (watts, GPUs, latency, place). Exchanging it keeps
    every bound and every wish, so no best choice is lost (a dominance, or Pareto, filter).
    """
    kept = [
        rows[front_of(_bounded_by(problem, rows), _wish_order(problem, rows))]
        for block in np.unique(problem.serves)
        for rows in [np.flatnonzero((problem.serves == block) & _fits_alone(problem))]
    ]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.int64)


def front_of(bounded: FloatArray, order: IntArray) -> IntArray:
    """Places in `bounded` [n, n_bounds] that no earlier one in `order` is at most equal to in all.

    Walking in the order of wishes, a place is kept when each kept one is above it somewhere.
    """
    if bounded.shape[1] == 1:
        # One bound: a place stands out exactly where it undercuts all before it.
        values = bounded[order, 0]
        best_before = np.minimum.accumulate(values)
        stands_out = np.ones(len(order), dtype=np.bool_)
        stands_out[1:] = values[1:] < best_before[:-1]
        return np.asarray(order[stands_out], dtype=np.int64)
    kept = np.empty(len(order), dtype=np.int64)
    front = np.empty_like(bounded)
    n_kept = 0
    for place in order:
        if not (front[:n_kept] <= bounded[place]).all(axis=1).any():
            kept[n_kept], front[n_kept] = place, bounded[place]
            n_kept += 1
    return kept[:n_kept]


def wish_order(power_w: FloatArray, gpus: IntArray, latency_s: FloatArray) -> IntArray:
    """Places from most to least wished for; watts are compared to the microwatt.

    Without the rounding, sums that differ in their last bit alone would decide before the GPUs.
    """
    order = np.lexsort((np.arange(len(gpus)), latency_s, gpus, np.round(power_w, 6)))
    return np.asarray(order, dtype=np.int64)


def _fits_alone(problem: Problem) -> BoolArray:
    fits: BoolArray = np.asarray((problem.uses <= problem.budgets).all(axis=1))
    if problem.latency_limit_s is not None:
        fits &= problem.latency_s <= problem.latency_limit_s
    return fits


def _bounded_by(problem: Problem, rows: IntArray) -> FloatArray:
    bounded = problem.uses[rows].astype(np.float64)
    if problem.latency_limit_s is None:
        # A budget that nothing takes from cannot tell columns apart.
        used: BoolArray = np.asarray(bounded.any(axis=0))
        used[0] |= not used.any()
        return bounded[:, used]
    return np.column_stack([bounded, problem.latency_s[rows]])


def _wish_order(problem: Problem, rows: IntArray) -> IntArray:
    return wish_order(problem.power_w[rows], problem.gpus[rows], problem.latency_s[rows])
