"""Small tables of outcomes, made by hand or drawn from a world whose truth is known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hybridserve_llm.calibration.outcomes import Floats, Outcomes

N_WRONG_ANSWERS = 3


def table(
    is_right: Sequence[Sequence[int]],
    *,
    scores: Sequence[Sequence[float]] | None = None,
    answers: Sequence[Sequence[int]] | None = None,
    costs: Sequence[float] | None = None,
    questions: Sequence[object] | None = None,
    groups: Sequence[str | None] | None = None,
) -> Outcomes:
    """Outcomes from rows of 0 and 1; costs are 1, 10, 100, ... and scores -1 unless told."""
    right = np.array(is_right, dtype=bool)
    n, n_tiers = right.shape
    return Outcomes(
        tiers=tuple(f"t{i}" for i in range(n_tiers)),
        is_right=right,
        scores=np.full((n, n_tiers), -1.0) if scores is None else np.array(scores, dtype=float),
        answers=np.where(right, 0, 1) if answers is None else np.array(answers),
        costs=10.0 ** np.arange(n_tiers) if costs is None else np.array(costs, dtype=float),
        prompt_features=np.zeros((n, 1)),
        prompt_feature_names=("length",),
        answer_features=np.empty((n, n_tiers, 0)),
        answer_feature_names=(),
        questions=tuple(range(n)) if questions is None else tuple(questions),
        draws=np.random.default_rng(n).random(n),
        groups=(None,) * n if groups is None else tuple(groups),
    )


def drawn(
    n: int,
    *,
    seed: int,
    skills: Sequence[float] = (0.6, 0.95),
    costs: Sequence[float] = (1.0, 10.0),
    score_noise: float = 0.08,
) -> Outcomes:
    """Questions of difficulty d ~ U(0, 1): a tier is right with probability sigmoid(8 (skill - d)).

    Its score is the logarithm of that probability, seen through noise; wrong answers are of
    `N_WRONG_ANSWERS` kinds, so that agreement tells something.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.random((n, 1))
    p_right: Floats = 1 / (1 + np.exp(-8 * (np.array(skills) - difficulty)))
    is_right = rng.random(p_right.shape) < p_right
    seen = np.clip(p_right + rng.normal(0.0, score_noise, p_right.shape), 0.01, 0.99)
    return table(
        is_right,
        scores=np.log(seen),
        answers=np.where(is_right, 0, rng.integers(1, N_WRONG_ANSWERS + 1, p_right.shape)),
        costs=costs,
    )


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Outcomes]:
    """`table`, for tests; a folder of tests cannot be imported from."""
    return table


@pytest.fixture(scope="session")
def make_world() -> Callable[..., Outcomes]:
    """`drawn`, for tests."""
    return drawn
