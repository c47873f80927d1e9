import numpy as np
import pytest

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import BatchCurve, curve_of_profile
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.throughput import output_tokens_per_s, requests_per_s

# At 1, 4 and 16 requests a step takes 10, 20 and 40 ms.
POINTS = (
    {"concurrency": 1, "step_time_s": 0.010, "output_tokens_per_s": 100},
    {"concurrency": 4, "step_time_s": 0.020, "output_tokens_per_s": 200},
    {"concurrency": 16, "step_time_s": 0.040, "output_tokens_per_s": 400},
)


def curve() -> BatchCurve:
    profile = Profile.model_validate(
        {
            "schema": "hybridserve-profile/1",
            "model": "tiny",
            "gpu": None,
            "hardware": "a CPU",
            "engine": "vllm 0.32.0",
            "measured_on": "2026-01-01",
            "prompt_tokens": 64,
            "output_tokens": 32,
            "source": "by hand",
            "points": POINTS,
        }
    )
    return curve_of_profile(profile)


@pytest.mark.parametrize(
    ("concurrency", "tokens_per_s"),
    [
        (1, 100.0),  # a point of the table
        (2.5, 2.5 / 0.015),  # halfway from 1 to 4, so from 10 to 20 ms
        (10, 10 / 0.030),  # halfway from 4 to 16, so from 20 to 40 ms
        (16, 400.0),
    ],
)
def test_throughput_is_concurrency_over_the_step_time(
    concurrency: float, tokens_per_s: float
) -> None:
    assert output_tokens_per_s(curve(), concurrency) == pytest.approx(tokens_per_s)


def test_between_two_batches_the_step_time_is_on_a_straight_line() -> None:
    # From 2 to 8 at a time, 10 to 40 ms: at 4 it is 20 ms, and 4 / 0.02 s = 200.
    two = BatchCurve(
        batch=np.array([2.0, 8.0]),
        step_time_s=np.array([0.01, 0.04]),
        power_w=None,
        prefill_token_s=None,
        grade="measured",
    )
    assert output_tokens_per_s(two, 4) == pytest.approx(200.0)


@pytest.mark.parametrize("concurrency", [0.5, 17])
def test_nothing_is_said_beyond_the_curve(concurrency: float) -> None:
    with pytest.raises(ConfigError, match=r"1 to 16 requests at a time does not cover"):
        output_tokens_per_s(curve(), concurrency)


def test_requests_per_second_are_tokens_per_second_over_the_tokens_of_one() -> None:
    rates = requests_per_s(curve(), 50.0)
    assert rates.tolist() == pytest.approx(
        [output_tokens_per_s(curve(), batch) / 50.0 for batch in range(1, 17)]
    )
