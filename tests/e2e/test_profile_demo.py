"""`hs-profile` on a real engine: the smallest demo checkpoint at two loads."""

import json
from pathlib import Path

import pytest

from hybridserve_llm.profiles.curve import curve_of_profile
from hybridserve_llm.profiles.profile_file import read_profile
from hybridserve_llm.profiles.throughput import output_tokens_per_s
from launch.profiling.cli import main

pytestmark = pytest.mark.engine


def test_the_small_tier_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--demo", "--tier", "small", "--cpu", "--out", str(tmp_path), "--json"]
    load = ["--concurrency", "1,4", "--window-s", "2", "--repeats", "1"]
    assert main([*arguments, *load]) == 0
    (tier,) = json.loads(capsys.readouterr().out)["tiers"]
    for window in tier["windows"]:
        # Counted by the engine and by us: prompts of 64 tokens, answers of 32. A request may be
        # cut by either edge of the window.
        n_tokens = window["output_tokens_per_s"] * window["seconds"]
        assert abs(n_tokens / 32 - window["n_requests"]) <= 2 * window["concurrency"]
        assert window["prompt_tokens_per_s"] / window["output_tokens_per_s"] == pytest.approx(
            2.0, rel=0.35
        )
        assert 0 < window["itl_s"] <= window["concurrency"] / window["output_tokens_per_s"] * 1.5
        assert window["ttft_s"] > 0
    curve = curve_of_profile(read_profile(tmp_path / "small.json"))
    one, four = (output_tokens_per_s(curve, concurrency) for concurrency in (1, 4))
    assert one < output_tokens_per_s(curve, 2) < four
