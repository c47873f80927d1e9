"""The empirical threshold of the demo: hand-worked cases."""

from launch.demo.thresholds import Scored, lowest_threshold


def answers(*pairs: tuple[float, bool]) -> list[Scored]:
    return [Scored(score=score, does_harm=harm) for score, harm in pairs]


def test_stops_before_the_answer_that_breaks_the_bound() -> None:
    # 4 answers, bound 0.25 * 4 = 1 harm: the second harm, at -3, is one too many.
    scored = answers((-1.0, False), (-2.0, True), (-3.0, True), (-4.0, False))
    assert lowest_threshold(scored, harm=0.25) == -2.0


def test_without_harm_everything_is_accepted() -> None:
    assert lowest_threshold(answers((-1.0, False), (-5.0, False)), harm=0.0) == -5.0


def test_equal_scores_stand_or_fall_together() -> None:
    scored = answers((-1.0, False), (-2.0, False), (-2.0, True))
    assert lowest_threshold(scored, harm=0.0) == -1.0


def test_no_threshold_when_the_surest_answer_does_harm() -> None:
    assert lowest_threshold(answers((-1.0, True), (-2.0, False)), harm=0.0) is None
