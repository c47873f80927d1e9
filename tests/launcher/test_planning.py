"""`hs-launch --dry-run` on GPUs that are described, and on GPUs that a test says are there."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate, certified_reach
from hybridserve_llm.config.load import load_config, parse_config
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.planner.tabulate import ReplicaShape, Tables
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.profile_file import Profile, ProfilePoint
from launch.cli import main
from launch.demo.family import CHECKPOINTS
from launch.options import LaunchOptions, read_command_line
from launch.plans.model_config import stored_weight_bytes
from launch.plans.plan_report import plan_json
from launch.plans.planning import cluster_of, planned
from launch.plans.planning_demand import UnknownModel, demand_of, facts_of

EXAMPLES = Path(__file__).parents[2] / "examples"
QWEN = EXAMPLES / "qwen3-0.6b-8b-32b.yaml"
LLAMA = EXAMPLES / "llama-3.1-8b-70b-405b-fp8.yaml"
H100_GIB = 81559 / 1024  # what the driver reports of an H100, in GiB


def options(*words: str) -> LaunchOptions:
    read = read_command_line(["--demo", *words])
    assert isinstance(read, LaunchOptions)
    return read


def dry_run(
    capsys: pytest.CaptureFixture[str], config: Path, n_gpus: int, *words: str
) -> tuple[int, str, str]:
    status = main(
        [
            *("--dry-run", "--gpu-type", "H100-80GB", "--gpus", str(n_gpus)),
            *("--config", str(config), *words),
        ]
    )
    out, err = capsys.readouterr()
    return status, out, err


def check_report(report: dict[str, Any], n_gpus: int) -> None:
    """Holds a report that fits to what it says of itself."""
    assert report["fits"] is True
    tiers = report["tiers"]
    memory: dict[tuple[str, int], float] = {}
    for tier in tiers:
        n_each = tier["tensor_parallel_size"] * tier["pipeline_parallel_size"]
        assert len({place["replica"] for place in tier["placements"]}) == tier["replicas"]
        taken = [(p["node"], gpu) for p in tier["placements"] for gpu in p["gpus"]]
        assert len(taken) == len(set(taken)) == n_each * tier["replicas"]
        for gpu in taken:
            memory[gpu] = memory.get(gpu, 0.0) + tier["memory_gib_per_gpu"]
        assert 0 < tier["utilisation"] <= 0.8
        assert tier["grade"] in {"fleet-fit", "datasheet"}
    assert max(memory.values()) <= H100_GIB
    assert len(memory) == report["gpus_used"] <= n_gpus
    assert report["parked_power_w"] == 75 * (n_gpus - report["gpus_used"])
    total = sum(tier["power_w"] for tier in tiers) + report["parked_power_w"]
    assert report["power_w_total"] == pytest.approx(total)


@pytest.mark.parametrize(("config", "n_gpus"), [(QWEN, 8), (LLAMA, 16), (LLAMA, 64)])
def test_examples_fit_their_clusters_and_the_report_is_stable(
    capsys: pytest.CaptureFixture[str], config: Path, n_gpus: int
) -> None:
    status, out, err = dry_run(capsys, config, n_gpus, "--json", "--explain")
    assert (status, err) == (0, "")
    report = json.loads(out)
    check_report(report, n_gpus)
    plan = Plan.from_json(json.dumps(report["plan"]))
    assert len(plan.placements) == sum(tier["replicas"] for tier in report["tiers"])
    assert report["explanation"]["gears"]
    assert len(report["explanation"]["profile_off"]) == 4
    assert dry_run(capsys, config, n_gpus, "--json", "--explain")[1] == out


def test_one_gpu_is_too_few_for_the_three_and_holds_the_small_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = dry_run(capsys, QWEN, 1, "--json")
    assert status == 3
    report = json.loads(out)
    assert report["fits"] is False
    assert report["power_w_total"] is None
    assert "all together do not" in report["reason"]
    assert report["shortfall"]["missing_gpus"] == 1
    assert report["reason"] in err
    values = yaml.safe_load(QWEN.read_text())
    del values["tiers"][2], values["tiers"][0]["skip"], values["tiers"][1]["accept"]
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(values))
    status, out, _ = dry_run(capsys, path, 1, "--json")
    assert status == 0
    check_report(json.loads(out), 1)
    assert [tier["shares_gpus_with"] for tier in json.loads(out)["tiers"]] == [
        ["medium"],
        ["small"],
    ]


def test_what_cannot_fit_says_by_how_much_and_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = dry_run(capsys, LLAMA, 4, "--json", "--explain")
    assert status == 3
    report = json.loads(out)
    assert report["fits"] is False
    # 487.2e9 bytes of weights on four GPUs are 113.4 GiB each, of which an engine may take 71.7.
    assert "weights 113.4" in report["reason"]
    assert report["shortfall"]["missing_memory_gib"] > 4 * (113.4 - 71.7)
    assert err.splitlines()[-1] == f"hs-launch: error: {report['reason']}"


def test_text_fits_80_columns_and_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = dry_run(capsys, QWEN, 8, "--explain")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    for text in ("giant/0: H100-80GB at node-0 GPU", "why: the fewest watts", "load levels"):
        assert text in out
    assert "assumed: reach of medium is not given: 0.5 of requests" in out


def test_examples_have_the_facts_that_the_hub_has() -> None:
    for path in (QWEN, LLAMA):
        for tier in load_config(path).tiers:
            assert tier.facts == known_model_facts(tier.model)


@pytest.mark.parametrize(
    "words",
    [["--gpu-type", "L4"], ["--explain"], ["--dry-run", "--gpu-type", "L4", "--cpu"]],
)
def test_options_that_need_others_are_wrong_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--demo", *words])
    assert caught.value.code == 2
    assert "hs-launch: error: " in capsys.readouterr().err


def test_gpu_type_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--demo", "--dry-run", "--gpu-type", "GTX"]) == 2
    assert "GPU type 'GTX' is not known; allowed are A100-40GB" in capsys.readouterr().err


def cascade(*tiers: dict[str, Any], **settings: Any) -> CascadeConfig:
    values = [
        {"name": f"t{i}", "model": "Qwen/Qwen3-8B", "accept": {"score_at_least": -1.0}, **tier}
        for i, tier in enumerate(tiers)
    ]
    values[-1].pop("accept")
    return parse_config({"tiers": values, **settings}, source="test")


NODES = [
    {"name": "old", "gpu_type": "A100-80GB", "gpus": 4, "count": 2},
    {"name": "new", "gpu_type": "H100-80GB", "gpus": 8},
]


def test_described_nodes_are_planned_for_and_can_be_limited() -> None:
    config = cascade({}, {}, cluster={"nodes": NODES})
    found = planned(config, options("--dry-run"), None).searched
    assert found is not None
    assert [(n.name, len(n.gpus)) for n in found.cluster.nodes] == [
        ("old-0", 4),
        ("old-1", 4),
        ("new", 8),
    ]
    few = planned(config, options("--dry-run", "--gpus", "5"), None).searched
    assert few is not None
    assert [(n.name, len(n.gpus)) for n in few.cluster.nodes] == [("old-0", 4), ("old-1", 1)]


def test_faults_of_described_nodes_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = yaml.safe_load(QWEN.read_text())
    path = tmp_path / "cascade.yaml"
    path.write_text(yaml.safe_dump({**values, "cluster": {"nodes": NODES}}))
    assert main(["--config", str(path), "--dry-run", "--gpus", "17"]) == 3
    assert "17 GPUs asked for, 16 in cluster.nodes: 1 too few" in capsys.readouterr().err
    path.write_text(yaml.safe_dump({**values, "cluster": {"nodes": [NODES[1], NODES[1]]}}))
    assert main(["--config", str(path), "--dry-run"]) == 2
    assert "two nodes called 'new'" in capsys.readouterr().err


def gpu(name: str, *, index: int = 0, free: float | None = None) -> Gpu:
    memory = 80 * 2**30
    free_bytes = None if free is None else int(free * memory)
    return Gpu(uuid=f"GPU-{index}", name=name, memory_bytes=memory, free_bytes=free_bytes)


def test_gpus_that_are_there_are_taken_with_the_memory_that_is_free() -> None:
    h100 = "NVIDIA H100 80GB HBM3"
    found = Hardware(cpu_cores=(0,), gpus=(gpu(h100, index=0), gpu(h100, index=1, free=0.5004)))
    (node,) = cluster_of(found).nodes
    assert (node.name, node.gpus, node.memory_share) == ("localhost", ("GPU-0", "GPU-1"), 0.5)


def test_a_slower_link_makes_tensor_parallelism_slower_and_less_certain() -> None:
    demand, _ = demand_of(cascade({}, {"model": "Qwen/Qwen3-32B"}), None)
    tier = demand.tiers[1]
    linked = ReplicaShape(
        gpu_type=gpu_type("H100-80GB"),
        tensor_parallel_size=4,
        pipeline_parallel_size=1,
        max_num_seqs=64,
    )
    with_link = Tables().of(tier, linked)
    without = Tables().of(tier, replace(linked, is_linked=False))
    assert without.itl_s[-1] > with_link.itl_s[-1]
    assert (with_link.grade_at(0.1), without.grade_at(0.1)) == ("fleet-fit", "datasheet")
    # An L4 has no NVLink to miss.
    pcie = replace(linked, gpu_type=gpu_type("L4"))
    table = Tables().of(tier, replace(pcie, is_linked=False))
    assert table.itl_s.tolist() == Tables().of(tier, pcie).itl_s.tolist()


def test_weights_that_this_machines_memory_cannot_hold_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = tuple(replace(gpu("NVIDIA H100 80GB HBM3", index=i), index=i) for i in range(2))
    hardware = Hardware(cpu_cores=(0,), gpus=gpus, memory_bytes=10 * 2**30)
    monkeypatch.setattr("launch.plans.planning.probe", lambda **_: hardware)
    with caplog.at_level(logging.WARNING):
        found = planned(cascade({"model": "Qwen/Qwen3-0.6B"}, {}), options(), None)
    # 8.19e9 parameters of 2 bytes.
    (remark,) = json.loads(plan_json(found))["remarks"]
    assert remark.startswith("weights of t1, 15.3 GiB, are more than the 10.0 GiB of this machine")
    assert remark in caplog.text


def test_gpus_of_two_types_keep_the_drivers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [("NVIDIA L4", 22), ("NVIDIA H100 80GB HBM3", 79)] * 2
    gpus = tuple(
        Gpu(uuid=f"GPU-{i}", name=name, memory_bytes=gib * 2**30, index=i)
        for i, (name, gib) in enumerate(kinds)
    )
    hardware = Hardware(cpu_cores=(0,), gpus=gpus)
    small, large = cluster_of(hardware).nodes
    assert (small.gpus, small.numbers) == (("GPU-0", "GPU-2"), (0, 2))
    assert (large.gpus, large.numbers) == (("GPU-1", "GPU-3"), (1, 3))
    monkeypatch.setattr("launch.plans.planning.probe", lambda **_: hardware)
    pinned = {"tensor_parallel_size": 2, "replicas": 1}
    found = planned(cascade(pinned, {**pinned, "model": "Qwen/Qwen3-32B"}), options(), None)
    tiers = json.loads(plan_json(found))["tiers"]
    expected = {"L4": [0, 2], "H100-80GB": [1, 3]}
    for tier in tiers:
        assert [place["gpus"] for place in tier["placements"]] == [expected[tier["gpu_type"]]]
    assert {tier["gpu_type"] for tier in tiers} == {"L4", "H100-80GB"}


def test_gpus_that_nobody_knows_are_filled_as_configured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hardware = Hardware(cpu_cores=(0,), gpus=(gpu("Quadro"), gpu("Quadro", index=1)))
    monkeypatch.setattr("launch.plans.planning.probe", lambda **_: hardware)
    with caplog.at_level(logging.WARNING):
        found = planned(cascade({}, {}), options(), None)
    assert found.searched is None
    assert [p.gpu_uuids for p in found.checked().placements] == [("GPU-0",), ("GPU-1",)]
    report = json.loads(plan_json(found))
    assert (report["gpus"], report["gpus_used"], report["parked_power_w"]) == (2, 2, 0)
    assert [tier["placements"][0]["gpus"] for tier in report["tiers"]] == [[0], [0]]
    assert report["reason"].startswith("placed as the file says: GPU type 'Quadro' is not known")
    # 8.19e9 parameters of 2 bytes; how much an engine may take is left to vLLM.
    assert report["tiers"][0]["weight_gib_per_gpu"] == pytest.approx(15.26, abs=0.01)
    assert report["tiers"][0]["memory_gib_per_gpu"] is None
    assert "placed as configured, not searched: GPU type 'Quadro' is not known" in caplog.text


def test_gpus_that_are_there_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    gpus = tuple(gpu(name, index=i) for i, name in enumerate(names))
    hardware = Hardware(cpu_cores=(0,), gpus=gpus)
    monkeypatch.setattr("launch.plans.planning.probe", lambda **_: hardware)
    found = planned(cascade({}, {}), options(), None)
    report = json.loads(plan_json(found))
    assert report["fits"] is True
    for placement in found.checked().placements:
        assert placement.node == "localhost"
        assert placement.gpu_uuids[0] in {"GPU-0", "GPU-1"}
        assert placement.max_num_seqs is not None


def test_the_report_holds_what_the_search_was_given(tmp_path: Path) -> None:
    measured = Profile(
        model="Qwen/Qwen3-8B",
        gpu="H100-80GB",
        hardware="one H100",
        engine="vLLM 0.32.0",
        measured_on="2026-11-24",
        prompt_tokens=64.0,
        output_tokens=50.0,
        points=(ProfilePoint(concurrency=8, step_time_s=0.00912345678, output_tokens_per_s=876.9),),
        source="by hand",
    )
    path = tmp_path / "profile.json"
    path.write_text(measured.to_json(), encoding="utf-8")
    config = cascade(
        {"engine": {"max_model_len": 2048}, "profiles": [str(path)]},
        {"workload": {"reach": 1 / 3, "output_tokens": 2000}},
        planner={"workload": {"prompt_tokens": 64}},
    )
    found = planned(config, options("--dry-run", "--gpu-type", "H100-80GB"), None)
    report = json.loads(plan_json(found))
    assert [entry["linked_size"] for entry in report["cluster"]] == [None]
    demand = report["demand"]
    # 256 tokens of an answer are assumed, and told as such.
    assert (demand["prompt_tokens"], demand["output_tokens"]) == (64, 256)
    first, last = demand["tiers"]
    assert (first["name"], first["reach"], first["max_model_len"]) == ("t0", 1.0, 2048)
    assert (last["reach"], last["max_model_len"]) == (1 / 3, None)
    assert (last["prompt_tokens"], last["output_tokens"]) == (64, 2000)
    # Read again they are the same, to the last digit.
    assert ModelFacts(**first["facts"]) == known_model_facts("Qwen/Qwen3-8B")
    assert [Profile(**profile) for profile in first["profiles"]] == [measured]


def test_tiers_that_run_elsewhere_are_left_out() -> None:
    config = cascade({"endpoints": ["http://a:1"]}, {})
    found = planned(config, options("--dry-run", "--gpu-type", "H100-80GB"), None)
    assert found.searched is not None
    assert [tier.name for tier in found.searched.demand.tiers] == ["t1"]
    assert found.checked().tiers[0].endpoints == ("http://a:1",)


def test_a_model_that_nobody_knows_asks_for_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnknownModel, match=r"tier t0: the sizes of x/y are not known .* facts"):
        demand_of(cascade({"model": "x/y"}, {}), None)


def test_facts_are_those_given_else_the_catalogues_else_the_checkpoints() -> None:
    folder = str(CHECKPOINTS / "giant")
    given = known_model_facts("Qwen/Qwen3-0.6B")
    assert given is not None
    config = cascade({"model": folder, "facts": given.model_dump()}, {}, {"model": folder})
    own, catalogue, checkpoint = (facts_of(tier) for tier in config.tiers)
    assert own == given
    assert catalogue == known_model_facts("Qwen/Qwen3-8B")
    # What lies on the disk, not what a configuration implies.
    assert checkpoint.weight_bytes == stored_weight_bytes(CHECKPOINTS / "giant")


def test_the_demo_is_planned_for_gpus_by_its_checkpoints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--demo", "--dry-run", "--gpu-type", "L4", "--gpus", "1", "--json"]
    assert main([*words, "--allow-unprofitable"]) == 0
    report = json.loads(capsys.readouterr().out)
    # Three small models share the one GPU.
    assert [tier["shares_gpus_with"] for tier in report["tiers"]] == [
        ["medium", "giant"],
        ["small", "giant"],
        ["small", "medium"],
    ]


def test_what_is_not_given_is_assumed_and_told() -> None:
    demand, assumptions = demand_of(cascade({}, {}, {}), None)
    assert (demand.requests_per_s, demand.head_room) == (1.0, 0.2)
    assert [tier.reach for tier in demand.tiers] == [1.0, 0.5, 0.25]
    assert [tier.max_tokens for tier in demand.tiers] == [768] * 3
    # Rate, prompt, output; two reaches; three lengths.
    assert len(assumptions) == 8


def test_what_is_given_is_not_assumed() -> None:
    tier = {"engine": {"max_model_len": 2048}}
    config = cascade(
        {**tier, "workload": {"output_tokens": 8}},
        {**tier, "workload": {"reach": 0.3, "prompt_tokens": 64}},
        planner={
            "workload": {"requests_per_s": 5, "prompt_tokens": 100, "output_tokens": 50},
            "slo": {"ttft_s": 2.0, "p95_ttft_s": 3.0},
            "head_room": 0.1,
            "objective": "throughput",
        },
    )
    demand, assumptions = demand_of(config, None)
    assert assumptions == ()
    assert (demand.objective, demand.slo.ttft_s, demand.head_room) == ("throughput", 2.0, 0.1)
    assert demand.slo.of_tiers == (("ttft_s", 2.0), ("p95_ttft_s", 3.0))
    shapes = [(t.reach, t.prompt_tokens, t.output_tokens, t.max_tokens) for t in demand.tiers]
    assert shapes == [(1.0, 100, 8, 2048), (0.3, 64, 50, 2048)]


def test_percentiles_of_the_report_keep_their_bounds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = yaml.safe_load(QWEN.read_text())
    _, out, _ = dry_run(capsys, QWEN, 8, "--json")
    free = json.loads(out)["tiers"]
    keys = ("p95_ttft_s", "p95_itl_s", "p95_latency_s")
    for tier in free:
        assert tier["p95_ttft_s"] >= tier["ttft_s"]
        assert tier["p95_latency_s"] >= tier["latency_s"]
    # Bounds that the plan without any breaks.
    slo = {key: 0.9 * max(tier[key] for tier in free) for key in keys}
    values["planner"]["slo"] = slo
    path = tmp_path / "bounded.yaml"
    path.write_text(yaml.safe_dump(values))
    status, out, _ = dry_run(capsys, path, 8, "--json")
    assert status == 0
    report = json.loads(out)
    assert {key: report["slo"][key] for key in keys} == pytest.approx(slo, abs=1e-6)
    for tier in report["tiers"]:
        assert all(tier[key] <= slo[key] for key in keys)
    assert "p95_output_tokens of small is not given: all answers as long as the mean" in out
    status, out, _ = dry_run(capsys, path, 8)
    assert "95 % of small: first token in" in out
    assert max(map(len, out.splitlines())) <= 80


def test_reach_comes_from_the_certificate(
    certificate_values: Callable[..., dict[str, Any]],
) -> None:
    values = certificate_values(tiers=["t0", "t1", "t2"], chain=["t0", "t2"])
    text = json.dumps(values).replace('"small"', '"t0"').replace('"giant"', '"t2"')
    certificate = Certificate.model_validate_json(text)
    config = cascade({}, {}, {})
    reach = certified_reach(certificate, shadow_share=config.watch.shadow_share)
    # t0 answers half; the last gets the other half, and 2 % of the answers as shadows.
    assert reach == {"t0": 1.0, "t2": pytest.approx(0.5 + 0.02 * 0.5)}
    demand, _ = demand_of(config, certificate)
    assert [tier.reach for tier in demand.tiers] == [1.0, 0.0, pytest.approx(0.51)]


def test_only_the_certified_share_of_prompts_asks_the_tiers_below_the_last(
    certificate_values: Callable[..., dict[str, Any]],
) -> None:
    values = certificate_values()
    values["policy"] |= {"share": 0.6, "acceptance": {"small": 0.5}}
    certificate = Certificate.model_validate_json(json.dumps(values))
    reach = certified_reach(certificate, shadow_share=0.02)
    # Of 100 prompts 60 ask small, which answers 50; giant gets the other 10, the 40 that never
    # asked small, and one of the 50 answers as a shadow (2 %).
    assert reach == {"small": 0.6, "giant": pytest.approx(0.51)}


def test_all_go_to_the_last_tier_where_nothing_could_be_certified(
    certificate_values: Callable[..., dict[str, Any]],
) -> None:
    values = certificate_values(certified=False, policy=None)
    certificate = Certificate.model_validate_json(json.dumps(values))
    assert certified_reach(certificate, shadow_share=0.02) == {"giant": 1.0}
