"""Requests to simulate: overlaid traces, Poisson processes, and what is refused."""

import numpy as np
import pytest

from eval.simulator.workload import Requests, checked_requests, overlaid, poisson
from hybridserve_llm.errors import ConfigError

TRACE = checked_requests(np.array([10.0, 12.0, 20.0]), np.array([5, 6, 7]), np.array([1, 2, 3]))


def test_time_counts_from_the_first_arrival_in_order() -> None:
    found = checked_requests(np.array([3.0, 1.0]), np.array([30, 0]), np.array([4, 5]))
    assert found.arrival_s.tolist() == [0.0, 2.0]
    # The earlier one has no prompt tokens; an engine computes one at least.
    assert found.prompt_tokens.tolist() == [1, 30]


def test_one_copy_is_the_trace() -> None:
    assert overlaid(TRACE, 1, seed=3).arrival_s.tolist() == TRACE.arrival_s.tolist()


def test_copies_keep_all_requests_within_the_span() -> None:
    found = overlaid(TRACE, 50, seed=3)
    assert len(found) == 150
    assert found.span_s <= TRACE.span_s
    assert np.all(np.diff(found.arrival_s) >= 0)
    assert found.prompt_tokens.sum() == 50 * 18


def test_a_poisson_process_has_its_rate_and_the_traces_lengths() -> None:
    found = poisson(TRACE, requests_per_s=4.0, n_requests=20_000, seed=1)
    gaps_s = np.diff(found.arrival_s)
    # Mean 1/4 s, and as much standard deviation, as of an exponential; 20,000 gaps: 0.7 % each.
    assert gaps_s.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.25, rel=0.03)
    assert set(zip(found.prompt_tokens, found.output_tokens, strict=True)) == {
        (5, 1),
        (6, 2),
        (7, 3),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: checked_requests(np.empty(0), np.empty(0), np.empty(0)), "no requests"),
        (
            lambda: checked_requests(np.array([np.nan]), np.array([1]), np.array([1])),
            "not a finite number",
        ),
        (
            lambda: checked_requests(np.array([1.0]), np.array([-4]), np.array([1])),
            "has -4 tokens; 0 at least",
        ),
        (lambda: overlaid(TRACE, 0, seed=1), "0 copies of the trace; at least 1"),
        (
            lambda: poisson(TRACE, requests_per_s=0.0, n_requests=5, seed=1),
            "5 requests at 0 a second; both must be above 0",
        ),
    ],
)
def test_what_is_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_the_same_seed_gives_the_same_requests() -> None:
    def times(found: Requests) -> list[float]:
        return found.arrival_s.tolist()

    assert times(overlaid(TRACE, 3, seed=7)) == times(overlaid(TRACE, 3, seed=7))
    assert times(overlaid(TRACE, 3, seed=7)) != times(overlaid(TRACE, 3, seed=8))
