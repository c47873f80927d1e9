"""Splits: disjoint, whole in groups, drawn by the seed, refused where there is too little."""

from collections import Counter

import numpy as np
import pytest

from eval.recorded.splits import Splits, bootstrap_splits, disjoint_splits
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError


def asked(n: int, groups: list[str | None] | None = None) -> Outcomes:
    return Outcomes(
        tiers=("small", "big"),
        is_right=np.ones((n, 2), dtype=bool),
        scores=np.zeros((n, 2)),
        answers=np.zeros((n, 2), dtype=np.int64),
        costs=np.array([1.0, 10.0]),
        prompt_features=np.zeros((n, 1)),
        prompt_feature_names=("length",),
        answer_features=np.empty((n, 2, 0)),
        answer_feature_names=(),
        questions=tuple(range(n)),
        draws=np.zeros(n),
        groups=(None,) * n if groups is None else tuple(groups),
    )


def questions(splits: Splits) -> list[tuple[object, ...]]:
    return [splits.fit.questions, splits.certify.questions, splits.test.questions]


def test_without_groups_every_question_is_in_one_split() -> None:
    splits = disjoint_splits(asked(1000), 300, 600, seed=0)
    assert [len(part) for part in questions(splits)] == [300, 600, 100]
    assert sorted(sum(questions(splits), ())) == list(range(1000))


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (2000, [300, 600, 1100]),
        (1200, [300, 600, 300]),
        (400, [100, 200, 100]),  # a quarter and a half of a smaller file
        (10, [2, 5, 3]),
    ],
)
def test_sizes_that_are_not_asked_for(n: int, sizes: list[int]) -> None:
    assert [len(part) for part in questions(disjoint_splits(asked(n), None, None, 0))] == sizes


def test_one_size_may_be_given() -> None:
    assert [len(p) for p in questions(disjoint_splits(asked(400), 50, None, 0))] == [50, 200, 150]
    assert [len(p) for p in questions(disjoint_splits(asked(400), None, 50, 0))] == [100, 50, 250]


def test_the_seed_draws_the_splits() -> None:
    one = questions(disjoint_splits(asked(100), 30, 40, seed=5))
    assert one == questions(disjoint_splits(asked(100), 30, 40, seed=5))
    assert one != questions(disjoint_splits(asked(100), 30, 40, seed=6))
    assert list(one[0]) != sorted(one[0])  # drawn, not cut off the top of the file


# 60 conversations of 1 to 5 turns, and 40 questions that belong to nobody.
TURNS = [f"c{i}" for i in range(60) for _ in range(1 + i % 5)]
GROUPED = asked(len(TURNS) + 40, [*TURNS, *[None] * 40])


@pytest.mark.parametrize("seed", range(5))
def test_a_group_lies_in_one_split_as_a_whole(seed: int) -> None:
    splits = disjoint_splits(GROUPED, 60, 80, seed=seed)
    in_fit, in_certify, in_test = (
        {group for group in part.groups if group}
        for part in (splits.fit, splits.certify, splits.test)
    )
    assert not in_fit & in_certify
    assert not in_fit & in_test
    assert not in_certify & in_test
    assert in_fit | in_certify | in_test == set(TURNS)
    assert all(in_one for in_one in (in_fit, in_certify, in_test))
    sizes = Counter(TURNS)
    for part in (splits.fit, splits.test):
        assert all(n == sizes[group] for group, n in Counter(part.groups).items() if group)
    everyone = sum(questions(splits), ())
    assert len(set(everyone)) == len(everyone)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_certified_on_by_one_of_its_rows(seed: int) -> None:
    splits = disjoint_splits(GROUPED, 60, 80, seed=seed)
    groups = Counter(group for group in splits.certify.groups if group)
    assert set(groups.values()) == {1}
    assert splits.certify.n_questions < 80  # 80 rows lie in fewer groups
    assert splits.fit.n_questions >= 60


def test_the_certified_row_of_a_group_is_drawn() -> None:
    first_turn = {group: TURNS.index(group) for group in TURNS}
    turns = {
        question - first_turn[group]
        for seed in range(5)
        for part in (disjoint_splits(GROUPED, 60, 80, seed=seed).certify,)
        for question, group in zip(part.questions, part.groups, strict=True)
        if group
    }
    assert turns == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("n", "n_fit", "n_certify"),
    [
        (100, 50, 50),  # nothing left to test on
        (100, 101, 1),
        (100, 50, 60),
        (1, None, None),
        (3, None, None),  # a quarter of 3 is no question
    ],
)
def test_too_few_questions_are_refused(n: int, n_fit: int | None, n_certify: int | None) -> None:
    with pytest.raises(ConfigError, match=f"{n} questions in {n} groups are too few for"):
        disjoint_splits(asked(n), n_fit, n_certify, seed=0)


def test_groups_of_different_sizes_are_what_is_certified() -> None:
    pairs = [f"u{i // 2}" for i in range(100)]
    assert disjoint_splits(GROUPED, 60, 80, seed=0).is_of_groups
    assert not disjoint_splits(asked(100, [*pairs]), 30, 40, seed=0).is_of_groups
    assert not disjoint_splits(asked(100), 30, 40, seed=0).is_of_groups
    assert not bootstrap_splits(GROUPED, 60, 80, seed=0).is_of_groups  # draws single questions


def test_one_group_is_too_few() -> None:
    with pytest.raises(ConfigError, match="50 questions in 1 groups are too few"):
        disjoint_splits(asked(50, ["user"] * 50), 10, 10, seed=0)


def test_the_bootstrap_draws_with_replacement_and_tests_on_the_whole() -> None:
    outcomes = asked(500)
    splits = bootstrap_splits(outcomes, 300, 600, seed=0)
    assert (splits.fit.n_questions, splits.certify.n_questions) == (300, 600)
    assert splits.test is outcomes
    # Of 500 questions, 300 draws are expected to meet 500 (1 - (499/500)^300) = 226, 600 draws 350.
    assert len(set(splits.fit.questions)) == pytest.approx(226, abs=25)
    assert len(set(splits.certify.questions)) == pytest.approx(350, abs=30)


def test_the_bootstrap_may_draw_more_than_there_is() -> None:
    splits = bootstrap_splits(asked(20), 300, 600, seed=0)
    assert (splits.fit.n_questions, splits.certify.n_questions) == (300, 600)
    assert set(splits.certify.questions) == set(range(20))


def test_the_bootstraps_seed_draws_it() -> None:
    one = questions(bootstrap_splits(asked(100), 30, 40, seed=5))
    assert one == questions(bootstrap_splits(asked(100), 30, 40, seed=5))
    assert one != questions(bootstrap_splits(asked(100), 30, 40, seed=6))
