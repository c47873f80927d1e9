"""`hs-eval simulate`: from a plan's report and a trace to tables and JSON."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main
from launch.cli import main as hs_launch

LLAMA = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-70b-405b-fp8.yaml"
CONFIG = """
tiers:
  - name: small
    model: Qwen/Qwen3-0.6B
    accept: {score_at_least: -0.3}
    tensor_parallel_size: 1
    replicas: 1
    workload: {reach: 1.0}
  - name: giant
    model: Qwen/Qwen3-32B
    tensor_parallel_size: 2
    workload: {reach: 0.4}
planner:
  workload: {requests_per_s: 12, prompt_tokens: 400, output_tokens: 200}
  slo: {latency_s: 60}
"""
N = 120


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cascade.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A request every 80 ms: 12.5 a second."""
    rows = [f"{0.08 * i:.2f},{300 + 2 * i},{150 + i}" for i in range(N)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def planned_json(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plan of the configuration on eight GPUs, as `hs-launch --dry-run --json` prints it."""
    config = tmp_path_factory.mktemp("planned") / "cascade.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    options = ["--dry-run", "--json", "--gpu-type", "H100-80GB", "--gpus", "8"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert hs_launch([*options, "--config", str(config)]) == 0
    return out.getvalue()


@pytest.fixture
def report(tmp_path: Path, planned_json: str) -> Path:
    path = tmp_path / "report.json"
    path.write_text(planned_json, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["simulate", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def told_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    status, out, err = run(capsys, *arguments, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_report_is_simulated_and_compared(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    found = told_json(capsys, "--plan", report, "--trace", trace, "--overlay", 3)
    assert (found["schema"], found["requests"]) == ("hybridserve-simulation/1", 3 * N)
    assert found["bounds"] == {"ttft_s": None, "latency_s": 60.0}
    assert found["planned_for"] == {
        "requests_per_s": 12,
        "prompt_tokens": 400,
        "output_tokens": 200,
    }
    assert found["not_compared"] == {}
    assert list(found["cascades"]) == ["planned", "giant-only", "proportional"]
    planned = found["cascades"]["planned"]
    assert [tier["tier"] for tier in planned["tiers"]] == ["small", "giant"]
    assert planned["tiers"][0]["requests"] == 3 * N
    assert planned["failed"] == 0
    assert planned["good_share"] == 1.0
    assert [len(one["tiers"]) for one in found["cascades"].values()] == [2, 1, 2]
    # Three traces of 9.52 s laid over each other: without the first tenth.
    window_s = 9.52 - 0.952
    for one in found["cascades"].values():
        hours = one["gpu_hours"] + one["parked_gpu_hours"]
        assert one["window_ends_s"] == pytest.approx(9.52)
        assert one["window_ends_s"] - one["window_begins_s"] == pytest.approx(window_s)
        assert hours == pytest.approx(8 * window_s / 3600)
        parts = sum(tier["energy_j"] for tier in one["tiers"]) + one["parked_energy_j"]
        assert one["energy_j"] == pytest.approx(parts)


def test_the_same_seed_prints_the_same_json_with_any_number_of_processes(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    arguments = ("--plan", report, "--config", config, "--trace", trace, "--overlay", 2)
    alone = told_json(capsys, *arguments, "--seed", 4)
    shared = told_json(capsys, *arguments, "--seed", 4, "--processes", 2)
    assert alone == shared
    assert alone != told_json(capsys, *arguments, "--seed", 5)


def test_the_giant_alone_is_planned_for_the_load_also_where_it_breaks_the_slo(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    """12 a second are planned for; 8 GPUs would carry many more."""
    files = ("--plan", report, "--config", config, "--trace", trace, "--compare")
    found = {}
    for slo in ("slo: {latency_s: 60}", "slo: {latency_s: 0.1}", "slo: {}"):
        config.write_text(CONFIG.replace("slo: {latency_s: 60}", slo), encoding="utf-8")
        found[slo] = told_json(capsys, *files)["cascades"]["giant-only"]
        assert found[slo]["planned_for_per_s"] == 12
    kept, broken, free = found.values()
    assert (kept["keeps_slo"], broken["keeps_slo"], free["keeps_slo"]) == (True, False, None)
    assert broken["gpu_hours"] == free["gpu_hours"] <= kept["gpu_hours"]


def test_a_giant_that_cannot_carry_the_load_says_what_it_is_planned_for(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    config.write_text(CONFIG.replace("requests_per_s: 12", "requests_per_s: 480"))
    files = ("--plan", report, "--config", config, "--trace", trace, "--compare")
    giant = told_json(capsys, *files)["cascades"]["giant-only"]
    assert giant["planned_for_per_s"] < 480
    assert giant["parked_gpu_hours"] == pytest.approx(0)


def test_replicas_in_proportion_are_those_the_load_needs(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--config", config, "--trace", trace, "--compare")

    def found(n_gpus: int, workload: str) -> tuple[float, list[int]]:
        config.write_text(CONFIG.replace("requests_per_s: 12, ", workload), encoding="utf-8")
        on = ("--gpu-type", "H100-80GB", "--gpus", n_gpus)
        told = told_json(capsys, *files, *on)["cascades"]["proportional"]
        assert told["keeps_slo"] is None
        return told["planned_for_per_s"], [tier["replicas"] for tier in told["tiers"]]

    rate_per_s, few = found(8, "requests_per_s: 12, ")
    assert rate_per_s == 12
    # More GPUs are no reason for more replicas; more load is, until there are no more GPUs.
    assert found(64, "requests_per_s: 12, ") == (rate_per_s, few)
    rate_per_s, many = found(64, "requests_per_s: 4800, ")
    assert many > few
    assert rate_per_s < 4800
    # A file without a load means that of the report; where neither has one it is that of the
    # trace, 120 requests in 9.52 s.
    assert found(8, "")[0] == 12
    report.write_text(json.dumps(json.loads(report.read_text(encoding="utf-8"))["plan"]))
    assert found(8, "")[0] == pytest.approx(120 / 9.52)


def test_goodput_has_no_bound_on_ttft_unless_told(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    """The SLO's is of a tier's answers, of which the client sees none before it is accepted."""
    config.write_text(CONFIG.replace("latency_s: 60", "latency_s: 60, ttft_s: 0.2"))
    files = ("--plan", report, "--config", config, "--trace", trace)
    found = told_json(capsys, *files)
    assert found["bounds"] == {"ttft_s": None, "latency_s": 60.0}
    assert found["cascades"]["planned"]["good_share"] == 1.0
    strict = told_json(capsys, *files, "--ttft-s", 0.2)
    assert strict["cascades"]["planned"]["good_share"] < 1.0


def test_a_plan_without_gears_says_so(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--config", config, "--trace", trace)
    assert told_json(capsys, *files)["gears"] is None
    assert "gears: the plan's file has none" in run(capsys, *files)[1]
    status, _, err = run(capsys, *files, "--gears")
    assert status == 2
    assert "the plan's file has no gears" in err


@pytest.mark.slow
def test_gears_change_with_the_load(
    capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    """Two minutes of 10 a second, six of 40, six of 10; gears for 12, 24 and 48."""
    report = tmp_path / "report.json"
    options = ["--dry-run", "--json", "--explain", "--gpu-type", "H100-80GB", "--gpus", "32"]
    text = CONFIG.replace("    replicas: 1\n", "").replace("  slo", "  gears: [1, 2, 4]\n  slo")
    config.write_text(text, encoding="utf-8")
    assert hs_launch([*options, "--config", str(config)]) == 0
    report.write_text(capsys.readouterr().out, encoding="utf-8")
    times = [0.1 * i for i in range(1200)]
    times += [120 + i / 40 for i in range(14_400)] + [480 + 0.1 * i for i in range(3600)]
    trace = tmp_path / "trace.csv"
    rows = [f"{at_s:.3f},400,200" for at_s in times]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    files = ("--plan", report, "--config", config, "--trace", trace)
    found = told_json(capsys, *files, "--gears", "--gear-load-s", 60)
    assert [gear["requests_per_s"] for gear in found["gears"]] == [12, 24, 48]
    changes = [(change["gear"], change["at_s"]) for change in found["gear_changes"]]
    assert changes[0][0] == 0
    assert max(gear for gear, _ in changes) == 2
    assert changes[-1][0] == 0
    # Down again when a minute's mean is within bounds, and has been for five minutes.
    assert 780 <= changes[-1][1] <= 850
    geared, planned = found["cascades"]["geared"], found["cascades"]["planned"]
    assert geared["failed"] == 0
    assert geared["gpu_hours"] > planned["gpu_hours"]
    assert sum(tier["loading_energy_j"] for tier in geared["tiers"]) > 0
    assert "changed to 12 at 0 s" in run(capsys, *files, "--gears")[1]


def test_a_table_fits_80_columns(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--config", config, "--trace", trace)
    status, out, err = run(capsys, *files)
    assert status == 0
    assert "energy saved by the plan" in out
    assert "joules, goodput and GPU-hours: from 1 to 10 s" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert "requests a CPU-second" in err


def test_a_poisson_process_takes_the_traces_lengths(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--config", config, "--trace", trace)
    found = told_json(capsys, *files, "--requests-per-s", 20, "--requests", 500)
    assert found["requests"] == 500
    assert 500 / found["span_s"] == pytest.approx(20, rel=0.15)
    # Without a number ten minutes of them, 10,000 at least.
    found = told_json(capsys, *files, "--requests-per-s", 20)
    assert found["requests"] == 12_000


def test_a_bare_plan_needs_the_type_of_its_gpus(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    bare = report.with_name("plan.json")
    bare.write_text(json.dumps(json.loads(report.read_text(encoding="utf-8"))["plan"]))
    files = ("--plan", bare, "--config", config, "--trace", trace)
    status, _, err = run(capsys, *files)
    assert status == 2
    assert "does not say of what type its GPUs are: give --gpu-type" in err
    found = told_json(capsys, *files, "--gpu-type", "H100-80GB", "--gpus", 8)
    whole = told_json(capsys, "--plan", report, "--config", config, "--trace", trace)
    assert whole["cascades"]["planned"].pop("planned_for_per_s") == 12
    assert found["cascades"]["planned"].pop("planned_for_per_s") is None
    assert found["cascades"] == whole["cascades"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"--plan": "no.json"}, 2, "cannot read plan no.json: No such file"),
        ({"--trace": "no.csv"}, 2, "cannot read trace no.csv: No such file"),
        ({"--gpus": "8"}, 2, "--gpus needs --gpu-type"),
        ({"--gpu-type": "H100-80GB", "--gpus": "1"}, 2, "the plan uses 3 GPUs; there are 1"),
        ({"--requests-per-s": "5", "--overlay": "2"}, 2, "give one"),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    trace: Path,
    report: Path,
    changes: dict[str, str],
    status: int,
    message: str,
) -> None:
    options = {"--plan": report, "--config": config, "--trace": trace} | changes
    found, _, err = run(capsys, *(part for option in options.items() for part in option))
    assert (found, message in err) == (status, True), err


def test_what_a_plan_may_not_have(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path, tmp_path: Path
) -> None:
    told = json.loads(report.read_text(encoding="utf-8"))
    changed = tmp_path / "changed.json"
    options = ("--plan", changed, "--config", config, "--trace", trace)
    changed.write_text("{")
    assert "is not JSON" in run(capsys, *options)[2]
    changed.write_text(json.dumps(told | {"plan": None}))
    assert "it has no plan" in run(capsys, *options)[2]
    told["plan"]["tiers"][0]["tier"] = "tiny"
    told["plan"]["tiers"][0]["placements"][0]["name"] = "tiny/0"
    changed.write_text(json.dumps(told))
    status, _, err = run(capsys, *options)
    assert status == 2
    assert "the plan has the tiers tiny, giant, the configuration small, giant" in err


def test_the_plain_commands_on_an_example_show_what_the_plan_saves(
    capsys: pytest.CaptureFixture[str], trace: Path, tmp_path: Path
) -> None:
    options = ["--dry-run", "--json", "--gpu-type", "H100-80GB", "--gpus", "16"]
    assert hs_launch([*options, "--config", str(LLAMA)]) == 0
    report = tmp_path / "report.json"
    report.write_text(capsys.readouterr().out, encoding="utf-8")
    status, out, err = run(capsys, "--plan", report, "--trace", trace)
    assert status == 0, err
    assert "energy saved by the plan" in out
    assert "the plan is for 4 a second, 512 tokens in and 256 out" in out
    found = told_json(capsys, "--plan", report, "--trace", trace)
    assert list(found["cascades"]) == ["planned", "giant-only", "proportional"]
    tiers = found["cascades"]["planned"]["tiers"]
    assert [tier["tier"] for tier in tiers] == ["small", "medium", "giant"]
    # The first tier's reach is in no file: all ask it.
    assert tiers[0]["requests"] == N


def test_the_configuration_says_the_same_as_the_report(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--trace", trace)
    assert told_json(capsys, *files) == told_json(capsys, *files, "--config", config)
    config.write_text(CONFIG.replace("reach: 0.4", "reach: 0.9"), encoding="utf-8")
    changed = told_json(capsys, *files, "--config", config, "--no-compare")
    assert list(changed["cascades"]) == ["planned"]
    assert changed["cascades"]["planned"]["tiers"][1]["requests"] > 0.8 * N


def test_a_configuration_leaves_reaches_to_the_report(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    files = ("--plan", report, "--config", config, "--trace", trace, "--no-compare")
    whole = told_json(capsys, *files)
    text = CONFIG.replace("    workload: {reach: 0.4}\n", "")
    config.write_text(text.replace("    workload: {reach: 1.0}\n", ""), encoding="utf-8")
    assert told_json(capsys, *files) == whole


def test_a_reach_that_nobody_told(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    bare = report.with_name("plan.json")
    bare.write_text(json.dumps(json.loads(report.read_text(encoding="utf-8"))["plan"]))
    config.write_text(CONFIG.replace("    workload: {reach: 0.4}\n", ""), encoding="utf-8")
    files = ("--plan", bare, "--trace", trace, "--gpu-type", "H100-80GB")
    status, _, err = run(capsys, *files, "--config", config)
    assert status == 2
    assert "tier giant has no workload.reach" in err
    status, _, err = run(capsys, *files)
    assert status == 2
    assert "does not say what it was made for: give the whole report" in err


def test_what_the_plan_assumed_is_told(
    capsys: pytest.CaptureFixture[str], trace: Path, report: Path
) -> None:
    told = json.loads(report.read_text(encoding="utf-8"))
    told["assumptions"] = ["reach of giant is not given: 0.4 of requests"]
    report.write_text(json.dumps(told))
    files = ("--plan", report, "--trace", trace, "--no-compare")
    assert told_json(capsys, *files)["plan_assumptions"] == told["assumptions"]
    assert (
        "the plan assumed: reach of giant is not given: 0.4 of requests" in run(capsys, *files)[1]
    )


def test_a_tier_has_its_own_lengths(
    capsys: pytest.CaptureFixture[str], config: Path, trace: Path, report: Path
) -> None:
    """Giant's answers are 400 tokens on average where all have 200: twice those of the trace."""
    text = CONFIG.replace("reach: 0.4", "reach: 0.4, output_tokens: 400, prompt_tokens: 800")
    config.write_text(text, encoding="utf-8")
    files = ("--plan", report, "--config", config, "--trace", trace)
    found = told_json(capsys, *files)["cascades"]
    plain = told_json(capsys, "--plan", report, "--trace", trace)["cascades"]
    for name, place in (("planned", 1), ("giant-only", 0), ("proportional", 1)):
        for key in ("prompt_tokens", "output_tokens"):
            assert found[name]["tiers"][place][key] == 2 * plain[name]["tiers"][place][key]
    # The client is given the giant's tokens.
    assert found["giant-only"]["answer_tokens"] == 2 * plain["giant-only"]["answer_tokens"]
    small = found["planned"]["tiers"][0]
    assert small["output_tokens"] == plain["planned"]["tiers"][0]["output_tokens"]
    told = json.loads(report.read_text(encoding="utf-8"))
    told["demand"]["tiers"][1] |= {"prompt_tokens": 800, "output_tokens": 400}
    longer = report.with_name("longer.json")
    longer.write_text(json.dumps(told))
    assert told_json(capsys, "--plan", longer, "--trace", trace)["cascades"] == found
    config.write_text(text.replace("prompt_tokens: 400, ", ""), encoding="utf-8")
    bare = report.with_name("plan.json")
    bare.write_text(json.dumps(json.loads(report.read_text(encoding="utf-8"))["plan"]))
    files = ("--plan", bare, "--config", config, "--trace", trace, "--gpu-type", "H100-80GB")
    status, _, err = run(capsys, *files)
    assert status == 2
    assert "tier giant has workload.prompt_tokens 800, and planner.workload.prompt_tokens is" in err


def test_gpus_that_the_report_says_are_not_linked_are_slower(
    capsys: pytest.CaptureFixture[str], trace: Path, report: Path
) -> None:
    linked = told_json(capsys, "--plan", report, "--trace", trace)["cascades"]
    told = json.loads(report.read_text(encoding="utf-8"))
    told["cluster"][0]["linked_size"] = 1
    report.write_text(json.dumps(told))
    unlinked = told_json(capsys, "--plan", report, "--trace", trace)["cascades"]
    # The giant runs on pairs of GPUs, the small one on single ones.
    (small, giant), (small_before, giant_before) = (
        found["planned"]["tiers"] for found in (unlinked, linked)
    )
    assert small == small_before
    assert giant["latency_s"]["mean"] > giant_before["latency_s"]["mean"]
    assert (giant_before["grade"], giant["grade"]) == ("fleet-fit", "datasheet")


def test_what_cannot_be_compared_with_is_told_beside_the_plan(
    capsys: pytest.CaptureFixture[str], trace: Path, report: Path
) -> None:
    """No KV cache of 8 GPUs holds 40 million tokens, which a plan by the planner would have to."""
    told = json.loads(report.read_text(encoding="utf-8"))
    told["demand"]["tiers"][1]["max_model_len"] = 40_000_000
    report.write_text(json.dumps(told))
    found = told_json(capsys, "--plan", report, "--trace", trace)
    assert list(found["cascades"]) == ["planned"]
    assert sorted(found["not_compared"]) == ["giant-only", "proportional"]
    assert "giant alone does not fit" in found["not_compared"]["giant-only"]
    out = run(capsys, "--plan", report, "--trace", trace)[1]
    assert "not compared with giant-only: giant alone does not fit" in out


def test_a_plan_whose_tiers_share_gpus_ends_with_status_3(
    capsys: pytest.CaptureFixture[str], trace: Path, tmp_path: Path
) -> None:
    options = ["--dry-run", "--json", "--gpu-type", "H100-80GB", "--gpus", "1"]
    assert hs_launch(["--demo", *options, "--allow-unprofitable"]) == 0
    report = tmp_path / "report.json"
    report.write_text(capsys.readouterr().out, encoding="utf-8")
    status, _, err = run(capsys, "--plan", report, "--trace", trace)
    assert (status, "the plan has engines that share a GPU" in err) == (3, True), err


def test_a_plan_with_endpoints_ends_with_status_3(
    capsys: pytest.CaptureFixture[str], trace: Path, report: Path
) -> None:
    told = json.loads(report.read_text(encoding="utf-8"))
    told["plan"]["tiers"][1] |= {"placements": [], "endpoints": ["http://a:1"]}
    report.write_text(json.dumps(told))
    status, _, err = run(capsys, "--plan", report, "--trace", trace)
    assert (status, "giant runs at its endpoints" in err) == (3, True), err


def test_the_plan_of_a_cpu_ends_with_status_3(
    capsys: pytest.CaptureFixture[str], trace: Path, tmp_path: Path
) -> None:
    assert hs_launch(["--demo", "--cpu", "--dry-run", "--json", "--allow-unprofitable"]) == 0
    report = tmp_path / "report.json"
    report.write_text(capsys.readouterr().out, encoding="utf-8")
    status, _, err = run(capsys, "--plan", report, "--trace", trace)
    assert (status, "runs on the CPU" in err) == (3, True), err
