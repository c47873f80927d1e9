"""Profiles, corrections, curves and memory."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from builders import profile_of

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.correction import corrected_time_s, correction_factor
from hybridserve_llm.profiles.curve import BatchCurve, batch_curve, curve_of_profile
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.memory import kv_capacity_sequences, kv_capacity_tokens, memory_use
from hybridserve_llm.profiles.profile_file import Profile, read_profile, write_profile
from hybridserve_llm.profiles.throughput import output_tokens_per_s
from hybridserve_llm.units import GIB

FACTS = known_model_facts("meta-llama/Llama-3.1-8B-Instruct")
H100 = gpu_type("H100")


def profile(**changes: Any) -> Profile:
    points = [
        {"concurrency": 1, "step_time_s": 0.008, "output_tokens_per_s": 125, "power_w": 400},
        {"concurrency": 8, "step_time_s": 0.009, "output_tokens_per_s": 889, "power_w": 450},
        {"concurrency": 64, "step_time_s": 0.016, "output_tokens_per_s": 4000, "power_w": 600},
    ]
    return profile_of(**{"points": points, **changes})


def curve(max_num_seqs: int = 64, **rest: Any) -> BatchCurve:
    assert FACTS is not None
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    lengths = {"context_tokens": 400.0, "prefill_ratio": 0.5}
    return batch_curve(FACTS, H100, max_num_seqs=max_num_seqs, **{**sizes, **lengths, **rest})


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    write_profile(profile(), tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile()
    assert orjson.loads((tmp_path / "p.json").read_bytes())["schema"] == "hybridserve-profile/1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "model: Field required"),
        (profile().to_json().replace("profile/1", "profile/9"), "schema: Input should be"),
        (profile().to_json().replace("0.016", "16.0"), "check units"),
        (profile().to_json().replace('"power_w": 400.0', '"power_w": null'), "at every point"),
        (profile().to_json().replace('"concurrency": 8.0', '"concurrency": 1.0'), "each once"),
        (profile().to_json().replace("0.016", "-0.016"), "greater than 0"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_profile(tmp_path / "p.json")


def test_a_profile_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read profile .*No such file"):
        read_profile(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot write profile"):
        write_profile(profile(), tmp_path / "none" / "p.json")


def test_a_corrected_time_meets_its_points_and_is_linear_between() -> None:
    # Modelled 1 + b, measured 2 + 2 b at 1 and 9: differences of 2 and 10, so 6 halfway.
    batch = np.array([1.0, 5.0, 9.0, 19.0])
    corrected = corrected_time_s(
        batch, 1 + batch, at=[1.0, 9.0], measured=[4.0, 20.0], modelled_at=[2.0, 10.0]
    )
    # At 19, beyond the last point, the ratio stays 2.
    assert corrected == pytest.approx([4.0, 12.0, 20.0, 40.0])


def test_a_power_factor_is_linear_in_logarithms() -> None:
    factor = correction_factor(
        [1.0, 2.0, 4.0, 8.0], at=[1.0, 4.0], measured=[1, 4], modelled=[1, 1]
    )
    assert factor == pytest.approx([1, 2, 4, 4])


def test_a_curve_without_a_profile_is_graded_by_where_it_was_fitted() -> None:
    assert FACTS is not None
    assert curve().grade == "fleet-fit"
    on_l4 = batch_curve(
        FACTS,
        gpu_type("L4"),
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        max_num_seqs=4,
        context_tokens=400,
        prefill_ratio=0.5,
    )
    assert on_l4.grade == "datasheet"
    assert list(on_l4.batch) == [1, 2, 3, 4]


def test_a_profile_is_met_at_its_own_lengths() -> None:
    # Mean context of the profile: 200 + 400 / 2 tokens; 200 / 400 prompt tokens per output token.
    met = curve(profile=profile())
    assert met.grade == "measured"
    assert met.step_time_s[[0, 7, 63]] == pytest.approx([0.008, 0.009, 0.016])
    assert met.power_w is not None
    assert met.power_w[[0, 7, 63]] == pytest.approx([400, 450, 600])


def test_inside_a_table_the_planner_reads_what_the_profiler_checks() -> None:
    met, alone = curve(128, profile=profile()), curve_of_profile(profile())
    assert met.step_time_s[:64] == pytest.approx(alone.step_time_s, rel=1e-12)
    assert met.power_w is not None
    assert alone.power_w is not None
    assert met.power_w[:64] == pytest.approx(alone.power_w, rel=1e-12)
    # Halfway from 8 to 64 at a time, 9 and 16 ms.
    assert output_tokens_per_s(met, 36) == pytest.approx(36 / 0.0125)
    assert output_tokens_per_s(alone, 36) == pytest.approx(36 / 0.0125)


def test_beyond_a_table_the_model_goes_on_by_the_last_ratio() -> None:
    modelled, met = curve(128), curve(128, profile=profile())
    ratio = 0.016 / modelled.step_time_s[63]
    assert met.step_time_s[64:] == pytest.approx(ratio * modelled.step_time_s[64:])
    assert (met.grade, met.measured_to) == ("calibrated-2pt", 64)


def test_a_table_of_other_lengths_is_carried_over_and_no_longer_measured() -> None:
    # Twice the prompt and the answer: twice the context, as many prompt tokens per output token.
    longer = profile(prompt_tokens=400, output_tokens=800)
    met = curve(profile=longer)
    assert (met.grade, met.measured_to) == ("calibrated-2pt", 0)
    own, modelled = curve(context_tokens=800.0), curve()
    ratio = modelled.step_time_s[7] / own.step_time_s[7]
    assert met.step_time_s[7] == pytest.approx(0.009 * ratio)


def test_two_points_or_a_longer_curve_are_less_than_measured() -> None:
    two = [point.model_dump() for point in profile().points[::2]]
    assert curve(profile=profile(points=two)).grade == "calibrated-2pt"
    assert curve(128, profile=profile()).grade == "calibrated-2pt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": None}, "measured on a CPU"),
        ({"gpu": "L4"}, "measured on L4"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size 2"),
    ],
)
def test_a_profile_of_other_hardware_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        curve(profile=profile(**changes))


def test_a_table_alone_makes_a_curve_without_power_on_a_cpu() -> None:
    points = [
        {"concurrency": n, "step_time_s": 0.01 * n**0.5, "output_tokens_per_s": 100 * n**0.5}
        for n in (1, 4)
    ]
    alone = curve_of_profile(profile(gpu=None, points=points))
    # From 10 to 20 ms on a straight line.
    assert alone.step_time_s == pytest.approx([0.01, 0.04 / 3, 0.05 / 3, 0.02])
    assert (alone.power_w, alone.grade) == (None, "measured")
    assert (alone.ttft_s, alone.itl_s, alone.measured_to) == (None, None, 4)
    with pytest.raises(ConfigError, match="does not cover 1 to 5; a table alone is not extrap"):
        curve_of_profile(profile(gpu=None, points=points), 5)


SMALL = ModelFacts(
    n_parameters=GIB, n_layers=4, hidden_size=64, n_heads=4, n_kv_heads=4, head_dim=16
)


def test_memory_is_weights_overhead_and_cache() -> None:
    sizes = {"tensor_parallel_size": 2, "pipeline_parallel_size": 1}
    use = memory_use(SMALL, memory_bytes_per_gpu=8 * GIB, overhead_bytes=3 * GIB, **sizes)
    assert use.weight_bytes == GIB  # 2 bytes each, on 2 GPUs
    assert use.overhead_bytes == 3 * GIB + 384 * 1024**2  # with NCCL's buffers
    assert use.weight_bytes + use.overhead_bytes + use.kv_bytes == 8 * GIB


def test_the_cache_holds_what_is_left_over() -> None:
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "overhead_bytes": 0}
    # A token: K and V * 4 layers * 4 heads * 16 numbers * 2 bytes = 1 KiB; 1 GiB is left.
    assert kv_capacity_tokens(SMALL, memory_bytes_per_gpu=3 * GIB, **sizes) == 1024**2
    held = kv_capacity_sequences(SMALL, context_tokens=1024, memory_bytes_per_gpu=3 * GIB, **sizes)
    assert held == 1024


def test_weights_that_do_not_fit_leave_nothing() -> None:
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    assert kv_capacity_tokens(SMALL, memory_bytes_per_gpu=2 * GIB, **sizes) < 0
