from hypothesis import given
from hypothesis import strategies as st

from launch.engines.restart import RestartRules, Restarts

RULES = RestartRules(limit=5, backoff_s=1.0, backoff_limit_s=5.0, forget_after_s=100.0)


def test_pauses_double_up_to_their_cap_and_end_at_the_limit() -> None:
    restarts = Restarts(RULES)
    # 1, 2, 4, then 8 and 16 cut to 5.
    pauses = [restarts.pause_s(healthy_s=0.0) for _ in range(7)]
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, None, None]
    assert (restarts.in_a_row, restarts.total) == (5, 5)


def test_a_healthy_time_starts_the_count_anew() -> None:
    restarts = Restarts(RULES)
    assert [restarts.pause_s(healthy_s=0.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert restarts.pause_s(healthy_s=99.9) == 5.0
    assert restarts.pause_s(healthy_s=100.0) == 1.0
    assert (restarts.in_a_row, restarts.total) == (1, 5)


def test_limit_zero_restarts_nothing_however_long_it_was_healthy() -> None:
    rules = RestartRules(limit=0, backoff_s=1.0, backoff_limit_s=5.0, forget_after_s=100.0)
    assert Restarts(rules).pause_s(healthy_s=1e9) is None


@given(
    limit=st.integers(0, 1000),
    backoff_s=st.floats(0, 1e6),
    backoff_limit_s=st.floats(0, 1e6),
    healthy_s=st.lists(st.floats(0, 1e6), max_size=50),
)
def test_pauses_stay_within_their_bounds_and_restarts_within_the_limit(
    limit: int, backoff_s: float, backoff_limit_s: float, healthy_s: list[float]
) -> None:
    restarts = Restarts(
        RestartRules(
            limit=limit,
            backoff_s=backoff_s,
            backoff_limit_s=backoff_limit_s,
            forget_after_s=1000.0,
        )
    )
    for seconds in [*healthy_s, *[0.0] * (limit + 1)]:
        pause_s = restarts.pause_s(healthy_s=seconds)
        assert pause_s is None or 0 <= pause_s <= backoff_limit_s
        assert restarts.in_a_row <= limit
    assert restarts.pause_s(healthy_s=0.0) is None
