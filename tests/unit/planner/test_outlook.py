"""A replica by its table alone; figures worked out from M/M/1 and M/M/2 queues."""

from typing import Any

import pytest
from builders import profile_of

from hybridserve_llm.planner.outlook import MeasuredLoad, ReplicaDemand, measured_load
from hybridserve_llm.profiles.profile_file import Profile


def profile(n_points: int = 1, **changes: Any) -> Profile:
    """10 tokens of 0.1 s for each request, however many are in flight: 1 request/s for each."""
    points = [
        {
            "concurrency": n,
            "step_time_s": 0.1,
            "output_tokens_per_s": 10 * n,
            "ttft_s": 0.2 + 0.1 * n,
            "itl_s": 0.08,
            **({"power_w": 300.0} if "idle_w" in changes else {}),
        }
        for n in range(1, n_points + 1)
    ]
    sizes = {"prompt_tokens": 64, "output_tokens": 10}
    values = {"points": points, "gpu": None, "hardware": "a CPU", **sizes, **changes}
    return profile_of(**values)


def load(found: Profile, rate: float, **changes: Any) -> MeasuredLoad:
    values = {"prompt_tokens": 64.0, "output_tokens": 10.0, "max_num_seqs": 1, **changes}
    return measured_load(found, ReplicaDemand(requests_per_s=rate, **values))


def test_one_at_a_time_is_an_m_m_1_queue() -> None:
    found = load(profile(), 0.5)
    # Half busy; waits 0.5 / (1 - 0.5) = 1 s, then 10 steps, the first token after 0.3 s.
    assert found.utilisation == pytest.approx(0.5)
    assert found.latency_s == pytest.approx(2.0)
    assert found.ttft_s == pytest.approx(1.3)
    assert found.itl_s == pytest.approx(0.08)
    assert found.power_w is None
    assert found.unknown == ("power_w: its profile has no power_w",)


def test_watts_are_those_of_work_and_of_waiting() -> None:
    found = load(profile(idle_w=100.0), 0.5)
    assert found.power_w == pytest.approx(0.5 * 100 + 0.5 * 300)
    assert found.unknown == ()


def test_requests_that_come_to_others_take_as_long_as_was_measured_then() -> None:
    # M/M/2 at 1/s: pi(0) = 1/3, pi(1) = 1/3, two or more 1/3; waits 1/3 s. Of those that come one
    # in three finds nobody, 0.3 s to its first token; the others make it two, 0.4 s.
    found = load(profile(2), 1.0, max_num_seqs=2)
    assert found.ttft_s == pytest.approx(1 / 3 + 0.3 / 3 + 0.4 * 2 / 3)


@pytest.mark.parametrize(
    ("rate", "changes", "reason"),
    [
        (0.5, {"prompt_tokens": 128.0}, "measured with prompt_tokens 64, not 128"),
        (0.5, {"output_tokens": 11.0}, "measured with output_tokens 10, not 11"),
        (1.5, {}, r"1.5 requests/s on each replica are more .* up to 1 requests at a time, 1 req"),
        # Above the last point vLLM would run more at a time than anybody measured.
        (0.5, {"max_num_seqs": 64}, "more than its profile covers"),
        (0.5, {"max_num_seqs": None}, "more than its profile covers"),
    ],
)
def test_what_was_not_measured_is_unknown(
    rate: float, changes: dict[str, Any], reason: str
) -> None:
    found = load(profile(), rate, **changes)
    assert (found.utilisation, found.power_w, found.latency_s) == (None, None, None)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.unknown[0])


def test_a_little_load_stays_inside_a_table_that_ends_before_the_engine_does() -> None:
    found = load(profile(8), 1.0, max_num_seqs=64)
    # 8 at a time, 8 requests/s, were measured.
    assert found.utilisation == pytest.approx(1 / 8)


def test_a_table_that_begins_above_one_says_nothing() -> None:
    points = [{"concurrency": 2, "step_time_s": 0.1, "output_tokens_per_s": 20}]
    found = load(profile(points=points), 0.1, max_num_seqs=2)
    assert found.utilisation is None
    assert "a table alone is not extrapolated" in found.unknown[0]
