"""The catalogue of GPUs."""

import pytest

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.gpu_types import GPU_TYPES, gpu_type
from hybridserve_llm.profiles.grades import worst_grade


@pytest.mark.parametrize("gpu", GPU_TYPES, ids=lambda gpu: str(gpu.name))
def test_every_type_is_found_by_each_of_its_names_and_makes_sense(gpu: object) -> None:
    (found,) = (one for one in GPU_TYPES if one is gpu)
    assert all(gpu_type(name.lower()) is found for name in (found.name, *found.names))
    assert 0.93 * found.memory_bytes < found.usable_memory_bytes <= found.memory_bytes
    assert 0 < found.idle_bare_w < found.idle_awake_w < found.tdp_w
    assert found.flops_fp8_s is None or found.flops_fp8_s == pytest.approx(2 * found.flops_s, 0.02)
    assert found.source


def test_an_h100_by_nvmls_name() -> None:
    gpu = gpu_type("NVIDIA H100 80GB HBM3")
    assert (gpu.name, gpu.tdp_w, gpu.bandwidth_bytes_s) == ("H100-80GB", 700, 3.35e12)


def test_an_unknown_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"'TPU' is not known; allowed are A100-40GB, .*RTX-4090"):
        gpu_type("TPU")


def test_a_figure_made_of_others_is_worth_the_worst_of_them() -> None:
    assert worst_grade(["measured", "datasheet", "fleet-fit"]) == "datasheet"
