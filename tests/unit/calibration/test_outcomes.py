"""Tables of outcomes: rows taken, and what counts as harm."""

from collections.abc import Callable

from hybridserve_llm.calibration.outcomes import Outcomes


def test_rows_are_taken_in_order_and_may_repeat(make_table: Callable[..., Outcomes]) -> None:
    outcomes = make_table(
        [[1, 0], [0, 1], [1, 1]],
        scores=[[-0.1, -1], [-0.2, -2], [-0.3, -3]],
        questions="abc",
        groups=("u", None, "v"),
    )
    taken = outcomes.take([2, 0, 2])
    assert taken.n_questions == 3
    assert taken.questions == ("c", "a", "c")
    assert taken.groups == ("v", "u", "v")
    assert taken.is_right.tolist() == [[True, True], [True, False], [True, True]]
    assert taken.scores.tolist() == [[-0.3, -3], [-0.1, -1], [-0.3, -3]]
    assert taken.tiers == outcomes.tiers
    assert taken.costs is outcomes.costs


def test_harm_is_wrong_where_the_last_tier_is_right(make_table: Callable[..., Outcomes]) -> None:
    outcomes = make_table([[0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 0]])
    assert outcomes.harmful(0).tolist() == [True, False, False, False]
    assert outcomes.harmful(1).tolist() == [False, False, True, False]
    assert not outcomes.harmful(outcomes.last).any()
