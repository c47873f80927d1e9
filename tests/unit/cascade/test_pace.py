"""How long a tier is waited for."""

import pytest

from hybridserve_llm.cascade.pace import Pace


def pace_of(*latencies_s: float) -> Pace:
    pace = Pace()
    for latency_s in latencies_s:
        pace.took(latency_s)
    return pace


def test_nothing_is_known_of_a_tier_that_has_just_started() -> None:
    assert pace_of(*[1.0] * 19).patience_s is None


@pytest.mark.parametrize(("longest_s", "patience_s"), [(0.5, 10.0), (2.0, 10.0), (6.0, 30.0)])
def test_patience_is_five_times_the_longest_recent_answer_and_ten_seconds_at_least(
    longest_s: float, patience_s: float
) -> None:
    assert pace_of(*[0.1] * 19, longest_s).patience_s == patience_s


def test_old_answers_are_forgotten() -> None:
    assert pace_of(60.0, *[3.0] * 200).patience_s == 15.0
