"""The solver against brute force over all columns, not only those that pruning leaves."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.planner.milp import best_choice, solve_by_milp, worthwhile_columns
from hybridserve_llm.planner.problem import Problem

N_INSTANCES = 600


def random_problem(seed: int, *, n_types: int | None = None) -> Problem:
    """2 to 4 tiers, at most 40 columns for each, some of which share GPUs, at most 16 GPUs.

    About one in six has no solution. Some have an odd node, so that groups of four GPUs are
    scarcer than GPUs; some bound the mean latency.
    """
    rng = np.random.default_rng(seed)
    n_tiers = int(rng.integers(2, 5))
    n_types = int(rng.integers(1, 3)) if n_types is None else n_types
    # Brute force is the product over tiers: fewer columns where there are more tiers.
    n_own = int(rng.integers(1, {2: 40, 3: 25, 4: 9}[n_tiers]))
    serves = [1 << tier for tier in range(n_tiers) for _ in range(n_own)]
    for _ in range(int(rng.integers(0, 12))):
        sharing = rng.permutation(n_tiers)[: rng.integers(2, n_tiers + 1)]
        serves.append(int(sum(1 << int(tier) for tier in sharing)))
    n = len(serves)
    size, groups, kind = (
        2 ** rng.integers(0, 4, n),
        rng.integers(1, 5, n),
        rng.integers(0, n_types, n),
    )
    gpus = size * groups
    uses = np.zeros((n, 2 * n_types), dtype=np.int64)
    uses[np.arange(n), 2 * kind] = gpus
    uses[np.arange(n), 2 * kind + 1] = np.where(size >= 4, gpus // 4, 0)
    n_gpus = rng.integers(1, 17, n_types)
    budgets = np.column_stack([n_gpus, np.maximum(n_gpus // 4 - rng.integers(0, 2), 0)]).ravel()
    # Coarse values, so that ties are common.
    power_w = gpus * rng.choice([50.0, 100.0, 250.5], n) + rng.choice([0.0, 10.0, 33.25], n)
    latency_s = rng.choice([0.25, 0.5, 1.0, 2.0], n)
    return Problem(
        n_tiers=n_tiers,
        serves=np.array(serves),
        power_w=power_w,
        gpus=gpus,
        latency_s=latency_s,
        uses=uses,
        budgets=budgets,
        latency_limit_s=float(rng.uniform(0.5, 2) * n_tiers) if rng.random() < 0.5 else None,
    )


def partitions(problem: Problem, served: int = 0) -> Iterator[tuple[int, ...]]:
    """Every choice of raw columns that serves each tier once, whatever it takes."""
    missing = ~served & ((1 << problem.n_tiers) - 1)
    if not missing:
        yield ()
        return
    first = missing & -missing
    for i, block in enumerate(problem.serves.tolist()):
        if block & first and not block & served:
            for rest in partitions(problem, served | block):
                yield (i, *rest)


def wishes(problem: Problem, chosen: tuple[int, ...]) -> tuple[float, int, float]:
    rows = list(chosen)
    return (
        round(float(problem.power_w[rows].sum()), 6),
        int(problem.gpus[rows].sum()),
        round(float(problem.latency_s[rows].sum()), 6),
    )


def brute_force(problem: Problem) -> tuple[float, int, float] | None:
    """The wishes of the best of all choices, by adding up every one of them at once."""
    choices = list(partitions(problem))
    padded = np.array([(*c, *[-1] * (problem.n_tiers - len(c))) for c in choices], dtype=np.int64)
    if not len(padded):
        return None

    def total(values: np.ndarray) -> np.ndarray:
        # Index -1 is the zero appended.
        return np.concatenate([values, np.zeros_like(values[:1])])[padded].sum(axis=1)

    fits = (total(problem.uses) <= problem.budgets).all(axis=1)
    if problem.latency_limit_s is not None:
        fits &= total(problem.latency_s) <= problem.latency_limit_s
    if not fits.any():
        return None
    sums = zip(
        total(problem.power_w)[fits].round(6).tolist(),
        total(problem.gpus)[fits].tolist(),
        total(problem.latency_s)[fits].round(6).tolist(),
        strict=True,
    )
    return min(sums)


@pytest.mark.parametrize("first_seed", range(0, N_INSTANCES, 100))
def test_the_solver_equals_brute_force_over_raw_columns(first_seed: int) -> None:
    n_infeasible = n_sharing = 0
    for seed in range(first_seed, first_seed + 100):
        problem = random_problem(seed)
        expected = brute_force(problem)
        found = best_choice(problem)
        assert (found is None) == (expected is None), seed
        if found is not None and expected is not None:
            assert problem.is_kept_by(found), seed
            assert wishes(problem, found) == pytest.approx(expected, rel=1e-6), seed
            n_sharing += len(found) < problem.n_tiers
        n_infeasible += expected is None
    # The instances are of every kind, or the test would show little.
    assert 5 <= n_infeasible <= 60
    assert n_sharing >= 10


def test_answer_is_the_same_every_time() -> None:
    problem = random_problem(7)
    assert best_choice(problem) == best_choice(problem)


def one_tier(power_w: list[float], gpus: list[int], latency_s: list[float]) -> Problem:
    return Problem(
        n_tiers=1,
        serves=np.ones(len(gpus), dtype=np.int64),
        power_w=np.array(power_w),
        gpus=np.array(gpus),
        latency_s=np.array(latency_s),
        uses=np.array(gpus)[:, None],
        budgets=np.array([8]),
    )


@pytest.mark.parametrize(
    ("power_w", "gpus", "latency_s", "best"),
    [
        ([20.0, 10.0], [1, 2], [0.1, 0.9], 1),  # watts first
        ([10.0, 10.0], [2, 1], [0.1, 0.9], 1),  # then GPUs
        ([10.0, 10.0], [1, 1], [0.9, 0.1], 1),  # then latency
        ([10.0, 10.0], [1, 1], [0.1, 0.1], 0),  # then the order of columns
        ([1.0, 10.0], [9, 8], [0.1, 0.1], 1),  # nine GPUs are not there
    ],
)
def test_ties_go_to_fewer_gpus_then_lower_latency_then_order(
    power_w: list[float], gpus: list[int], latency_s: list[float], best: int
) -> None:
    problem = one_tier(power_w, gpus, latency_s)
    assert solve_by_milp(problem) == (best,)
    assert best_choice(problem) == (best,)


def test_no_columns_is_no_choice() -> None:
    assert best_choice(one_tier([], [], [])) is None


def test_a_tier_that_no_column_serves_is_no_choice() -> None:
    problem = one_tier([1.0], [1], [0.1])
    two = Problem(**{name: getattr(problem, name) for name in Problem.__slots__} | {"n_tiers": 2})
    assert best_choice(two) is None


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3))
def test_a_looser_bound_never_costs_more(seed: int, looser_s: float) -> None:
    problem = random_problem(seed, n_types=1)
    values = {name: getattr(problem, name) for name in Problem.__slots__}
    tight = Problem(**values | {"latency_limit_s": 2.0})
    loose = Problem(**values | {"latency_limit_s": 2.0 + looser_s})
    more = Problem(**values | {"latency_limit_s": 2.0, "budgets": problem.budgets + 1})
    found = best_choice(tight)
    if found is not None:
        for easier in (loose, more):
            better = best_choice(easier)
            assert better is not None
            assert easier.power_of(better) <= problem.power_of(found) + 1e-6


def test_pruning_drops_what_another_column_beats_and_keeps_the_order() -> None:
    # By watts: place 2 (10 W, 2 GPUs), place 0 (20 W, 1 GPU), place 1 (20 W, 2 GPUs; beaten),
    # place 3 (30 W, 9 GPUs; not there).
    problem = one_tier([20.0, 20.0, 10.0, 30.0], [1, 2, 2, 9], [0.1, 0.1, 0.1, 0.1])
    assert worthwhile_columns(problem).tolist() == [0, 2]


def test_the_solver_writes_nothing_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """Only JSON may be there."""
    assert best_choice(random_problem(7)) is not None
    assert capfd.readouterr().out == ""
