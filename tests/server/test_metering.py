"""Which devices are metered for whom, and what a front end shows of it."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.trace.export import SpanExportResult
from prometheus_client import CollectorRegistry

from hybridserve_llm.books.energy_report import report_of
from hybridserve_llm.books.meter_sites import (
    ELSEWHERE,
    Metered,
    PowerModel,
    Probes,
    groups_by_gpu,
)
from hybridserve_llm.books.metering import SETTLED_LATER, Metering, metering_of
from hybridserve_llm.books.sinks import open_sinks
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig, EnergyConfig, TracingConfig
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.errors import CannotBeDone, ConfigError, MeterFault
from hybridserve_llm.server.build import Serving, build_app, metered_of
from hybridserve_llm.server.energy_metrics import energy_json
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.testing import FakeClock, ScriptedNvml, create_fake_vllm_app, serving
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger

NO_RAPL = Path("/nowhere")


def no_driver() -> Any:
    raise MeterFault("no NVML: Driver Not Loaded")


class Bench:
    """Meters on a clock that starts at 1000 s."""

    def __init__(
        self, metered: Metered, *, powercap: Path = NO_RAPL, driver: bool = True, **config: float
    ) -> None:
        self.clock = FakeClock()
        self.nvml = ScriptedNvml(clock=self.clock, power_w=200)
        self.settled: list[SettledEnergy] = []
        probes = Probes(open_nvml=(lambda: self.nvml) if driver else no_driver, powercap=powercap)
        self.metering: Metering = metering_of(
            EnergyConfig(**config),
            metered,
            clock=self.clock,
            on_settled=self.settled.append,
            probes=probes,
        )

    def serve_for(self, seconds: float, tier: str = "small") -> SettledEnergy:
        """One request on the tier's first replica, then half a second of nothing."""
        books = self.metering.books
        stint = self.begin(f"on-{tier}", tier)
        self.read(seconds)
        stint.prompt_tokens = stint.output_tokens = 5
        stint.end_s = self.clock.monotonic_s()
        books.request_finished(stint.request_id, tier)
        self.read(0.5)
        books.settle()
        return self.settled[-1]

    def begin(self, request_id: str, tier: str = "small") -> Stint:
        stint = Stint(
            request_id=request_id,
            tier=tier,
            replica=f"{tier}/0",
            booking=Booking.USER,
            start_s=self.clock.monotonic_s(),
        )
        self.metering.books.begin(stint)
        return stint

    def read(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.metering.sample()


def test_replicas_are_grouped_by_the_gpus_they_share() -> None:
    groups = groups_by_gpu(
        {"a/0": ["G0"], "b/0": ["G1", "G2"], "c/0": ["G0"], "d/0": ["G3"], "e/0": ["G2", "G3"]}
    )
    assert groups == [
        (["a/0", "c/0"], ["G0"]),
        (["b/0", "d/0", "e/0"], ["G1", "G2", "G3"]),
    ]


def test_a_tensor_parallel_replica_pays_for_all_its_gpus() -> None:
    bench = Bench(
        Metered(
            replicas={"small/0": "small", "large/0": "large"},
            gpu_uuids={"small/0": ["G0"], "large/0": ["G1", "G2"]},
        )
    )
    # One scripted NVML has one counter, so each GPU is read by itself: power alone is used here.
    bench.nvml.missing = {"energy_mj"}
    assert bench.serve_for(1, "large").active_j == pytest.approx(400, rel=0.01)
    assert bench.serve_for(1, "small").active_j == pytest.approx(200, rel=0.01)
    assert bench.settled[-1].source == "nvml_power_integrated"
    assert bench.metering.reason == SETTLED_LATER
    told = energy_json(report_of(bench.metering))
    assert told["reason"] is None
    assert told["tiers"]["large"]["user_j"] == pytest.approx(400, rel=0.01)


def test_a_power_model_stands_in_where_there_is_no_driver() -> None:
    bench = Bench(
        Metered(
            replicas={"small/0": "small"},
            gpu_uuids={"small/0": ["G0"]},
            power_models={"small": PowerModel(batch=(0,), watts=(150,), grade="datasheet")},
        ),
        driver=False,
    )
    told = bench.serve_for(1)
    assert (told.active_j, told.source) == (pytest.approx(150), "model:datasheet")
    assert told.reason == "no NVML: Driver Not Loaded"


def test_without_a_driver_and_a_model_joules_are_null_with_the_reason() -> None:
    bench = Bench(
        Metered(replicas={"small/0": "small"}, gpu_uuids={"small/0": ["G0"]}), driver=False
    )
    told = bench.serve_for(1)
    assert (told.active_j, told.loaded_j) == (None, None)
    assert told.reason == bench.metering.reason == "no NVML: Driver Not Loaded"


def test_engines_elsewhere_are_not_metered_by_this_machines_counters() -> None:
    bench = Bench(
        Metered(replicas={"small/0": "small", "far/0": "far"}, gpu_uuids={"small/0": ["G0"]})
    )
    assert bench.serve_for(1, "far").reason == ELSEWHERE
    assert bench.serve_for(1).active_j == pytest.approx(200, rel=0.01)


def test_gpus_named_for_zeus_are_read_by_it_and_by_nothing_else() -> None:
    clock, settled = FakeClock(), list[SettledEnergy]()
    scripted = ScriptedNvml(clock=clock, power_w=200)
    asked: list[str] = []

    def open_zeus() -> ScriptedNvml:
        asked.append("zeus")
        return scripted

    metering = metering_of(
        EnergyConfig(zeus_gpus={"small": [[0]]}),
        Metered(replicas={"small/0": "small"}, gpu_uuids={"small/0": ["0"]}),
        clock=clock,
        on_settled=settled.append,
        probes=Probes(open_nvml=no_driver, open_zeus=open_zeus, powercap=NO_RAPL),
    )
    assert asked == ["zeus"]
    assert [gpu.uuid for gpu in metering.gpus] == ["0"]
    assert not metering.is_null


def test_endpoints_are_metered_where_their_gpus_are_named() -> None:
    config = parse_config(
        {
            "tiers": [
                {
                    "name": "small",
                    "model": "m/s",
                    "endpoints": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
                    "accept": {"score_at_least": 0},
                },
                {"name": "giant", "model": "m/g", "endpoints": ["http://127.0.0.1:3"]},
            ],
            "energy": {"zeus_gpus": {"small": [[0]], "giant": [[1, "soc"]]}},
        },
        source="test",
    )
    endpoints = {tier.name: tier.endpoints for tier in config.tiers}
    metered = metered_of(config, Serving(endpoints=endpoints, parked_gpu_uuids=["GPU-7"]))
    # The second replica of small has no GPU named, so it stays unmetered.
    assert metered.gpu_uuids == {"small/0": ["0"], "giant/0": ["1", "soc"]}
    assert (metered.parked_uuids, metered.sockets) == ((), {})


def test_gpus_named_for_no_tier_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"zeus_gpus names 'smal', which is no tier: small"):
        parse_config(
            {
                "tiers": [
                    {"name": "small", "model": "m/s", "accept": {"score_at_least": 0}},
                    {"name": "giant", "model": "m/g"},
                ],
                "energy": {"zeus_gpus": {"smal": [[0]]}},
            },
            source="test",
        )


def test_gpus_that_the_plan_parks_are_the_pools() -> None:
    metered = Metered(
        replicas={"small/0": "small"}, gpu_uuids={"small/0": ["G0"]}, parked_uuids=("G1", "G2")
    )
    bench = Bench(metered)
    bench.nvml.missing = {"energy_mj"}  # one scripted NVML has one counter for all GPUs
    told = bench.serve_for(1)
    assert told.active_j == pytest.approx(200, rel=0.01)
    shown = energy_json(report_of(bench.metering))
    # Two GPUs of 200 W for 1.5 s; no tier's idle time has them.
    assert shown["parked_j"] == pytest.approx(600, rel=0.01)
    assert shown["tiers"]["small"]["idle_j"] == pytest.approx(100, rel=0.01)


CPU = Metered(replicas={"small/0": "small"}, sockets={"small/0": "/run/small.sock"})


def test_a_machine_without_a_counter_has_null_joules_and_cpu_seconds() -> None:
    bench = Bench(CPU)
    told = bench.serve_for(1)
    assert (told.component, told.active_j, told.source) == ("cpu", None, "unavailable")
    assert told.reason == (
        "no energy counter: no RAPL counter in /nowhere; CPU-seconds are measured, and become "
        "joules where energy.watts_per_busy_core is set"
    )
    shown = energy_json(report_of(bench.metering))
    assert shown["reason"] == told.reason
    small = shown["tiers"]["small"]
    assert small["cpu_seconds"] == 0  # measured: no process of this machine names that socket
    joules = {name: value for name, value in small.items() if name.endswith("_j")}
    assert set(joules.values()) == {None}


def test_joules_from_the_users_watts_are_labelled_as_such() -> None:
    bench = Bench(CPU, watts_per_busy_core=8.0)
    told = bench.serve_for(1)
    assert (told.active_j, told.source) == (0, "model:user")  # no process used any CPU time


def test_a_measured_profile_stands_in_for_rapl() -> None:
    model = PowerModel(batch=(0, 1), watts=(10, 30), grade="measured")
    metered = Metered(replicas=CPU.replicas, sockets=CPU.sockets, power_models={"small": model})
    bench = Bench(metered)
    told = bench.serve_for(1)
    assert (told.active_j, told.source) == (pytest.approx(30), "model:measured")
    assert told.reason == "no RAPL counter in /nowhere"
    assert bench.metering.reason == SETTLED_LATER
    idle_j = energy_json(report_of(bench.metering))["tiers"]["small"]["idle_j"]
    assert idle_j == pytest.approx(5)  # half a second at 10 W
    named = Bench(metered, watts_per_busy_core=8.0)
    assert named.serve_for(1).source == "model:user"  # what a person said comes first


def test_rapl_is_split_by_cpu_time_and_dram_is_a_component_of_its_own(tmp_path: Path) -> None:
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(name)
        (tmp_path / folder / "max_energy_range_uj").write_text("262143328850")
        (tmp_path / folder / "energy_uj").write_text("0")
    bench = Bench(CPU, powercap=tmp_path)
    books = bench.metering.books
    stint = bench.begin("r")
    bench.clock.advance(1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50000000")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("4000000")
    bench.metering.sample()
    stint.prompt_tokens, stint.output_tokens, stint.end_s = 1, 1, bench.clock.monotonic_s()
    books.request_finished("r", "small")
    books.settle()
    (told,) = bench.settled
    assert (told.component, told.source) == ("cpu", "rapl")
    assert set(told.components) == {"cpu", "dram"}
    by_component = {
        component: sum(j for key, j in books.totals.joules.items() if key.component == component)
        for component in ("cpu", "dram")
    }
    assert by_component == {"cpu": pytest.approx(50), "dram": pytest.approx(4)}


def config_at(folder: Path, *, is_metered: bool = True) -> CascadeConfig:
    return parse_config(
        {
            "tiers": [
                {"name": "small", "model": "/m/s", "accept": {"score_at_least": -0.0}},
                {"name": "giant", "model": "/m/g"},
            ],
            "energy": {
                "enabled": is_metered,
                "sample_interval_s": 0.02,
                "settle_interval_s": 0.05,
            },
            "records": {"file": str(folder / "records.jsonl")},
        },
        source="test",
    )


@contextlib.asynccontextmanager
async def front_end(
    folder: Path, *, is_metered: bool = True, **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Two fake vLLM tiers, started for the cascade as far as it can tell."""
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {
            name: [
                await stack.enter_async_context(
                    serving(create_fake_vllm_app(model=name), folder / f"{name}.sock")
                )
            ]
            for name in ("small", "giant")
        }
        app = build_app(
            config_at(folder, is_metered=is_metered), Serving(endpoints=endpoints, **more)
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://hs")
        )


async def ask(client: httpx.AsyncClient) -> Any:
    body = {
        "model": "hybridserve",
        "messages": [{"role": "user", "content": "abc"}],
        "max_tokens": 6,
    }
    response = await client.post("/v1/chat/completions", json=body)
    return response.json()["hybridserve"]


def energy_lines(file: Path) -> list[Any]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "energy"]


async def metrics_with(client: httpx.AsyncClient, sample: str) -> str:
    """The metrics once they have the sample: books kept apart are told of as they settle."""
    async with asyncio.timeout(20):
        while sample not in (text := (await client.get("/metrics")).text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return text


async def settled_record(file: Path) -> Any:
    """The line of kind `energy`, waited for: meters are read in real time here."""
    async with asyncio.timeout(20):
        while True:
            if found := energy_lines(file):
                return found[0]
            await asyncio.sleep(0.02)


SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_bookkeeper.py")))
"""Its GPUs draw 100 W, as those of the test below do where it keeps books itself."""


@pytest.mark.parametrize("bookkeeper", [None, SCRIPTED], ids=["here", "apart"])
async def test_an_escalated_request_is_settled_in_records_metrics_and_cascade(
    tmp_path: Path, bookkeeper: Sequence[str] | None
) -> None:
    nvml = ScriptedNvml(clock=SystemClock(), power_w=100, tick_s=0.02)
    uuids = {"small": [["G0"]], "giant": [["G0"]]}
    probes = Probes(open_nvml=lambda: nvml, powercap=NO_RAPL)
    more = {"gpu_uuids": uuids, "probes": probes, "bookkeeper": bookkeeper}
    async with front_end(tmp_path, **more) as client:
        ledger = await ask(client)
        record = await settled_record(tmp_path / "records.jsonl")
        metrics = await metrics_with(
            client, 'hybridserve_request_energy_joules_count{tier="giant"}'
        )
        cascade = (await client.get("/v1/cascade")).json()
    assert [attempt["tier"] for attempt in ledger["attempts"]] == ["small", "giant"]
    assert ledger["energy_settled"] is False
    assert ledger["energy_reason"] == SETTLED_LATER
    assert ledger["totals"]["energy_j"] is None
    assert set(record["tiers"]) == {"small", "giant"}
    assert record["active_j"] == pytest.approx(sum(record["tiers"].values()))
    assert record["active_j"] > 0
    assert record["source"] == "nvml_energy"
    assert record["flags"] == ["allocated"]
    assert 'hybridserve_request_energy_joules_count{tier="giant"} 1.0' in metrics
    assert 'booking="idle",component="gpu",source="nvml_energy",tier="small"' in metrics
    assert cascade["energy"]["component"] == "gpu"
    assert cascade["energy"]["tiers"]["giant"]["user_j"] > 0


@pytest.mark.parametrize("bookkeeper", [None, SCRIPTED], ids=["here", "apart"])
async def test_without_a_counter_no_place_invents_a_joule(
    tmp_path: Path, bookkeeper: Sequence[str] | None
) -> None:
    more = {"probes": Probes(powercap=NO_RAPL), "bookkeeper": bookkeeper}
    async with front_end(tmp_path, **more) as client:
        ledger = await ask(client)
        record = await settled_record(tmp_path / "records.jsonl")
        metrics = await metrics_with(client, "hybridserve_energy_unknown_seconds_total{")
        cascade = (await client.get("/v1/cascade")).json()
    reason = "no energy counter: no RAPL counter in /nowhere; "
    assert ledger["energy_reason"].startswith(reason)
    assert {attempt["energy_j"] for attempt in ledger["attempts"]} == {None}
    for name in ("active_j", "loaded_j", "edge_j"):
        assert record[name] is None
    assert set(record["tiers"].values()) == {None}
    assert record["components"]["cpu"]["energy_j"] is None
    assert record["reason"].startswith(reason)
    assert "hybridserve_energy_joules_total{" not in metrics
    assert "hybridserve_request_energy_joules_count{" not in metrics
    assert "hybridserve_energy_unknown_seconds_total{" in metrics
    assert cascade["energy"]["reason"].startswith(reason)
    assert cascade["energy"]["sources"] == []
    for tier in cascade["energy"]["tiers"].values():
        assert {tier[name] for name in tier if name.endswith("_j")} == {None}


async def test_metering_can_be_switched_off(tmp_path: Path) -> None:
    async with front_end(tmp_path, is_metered=False) as client:
        ledger = await ask(client)
        metrics = (await client.get("/metrics")).text
        cascade = (await client.get("/v1/cascade")).json()
    assert ledger["energy_reason"] == "energy.enabled is false"
    assert cascade["energy"] is None
    assert "hybridserve_energy" not in metrics


@pytest.mark.parametrize("bookkeeper", [None, SCRIPTED], ids=["here", "apart"])
async def test_records_that_cannot_be_written_are_told_at_the_start(
    tmp_path: Path, bookkeeper: Sequence[str] | None
) -> None:
    (tmp_path / "records.jsonl").mkdir()
    endpoints = {name: [f"unix:{tmp_path}/{name}.sock"] for name in ("small", "giant")}
    app = build_app(config_at(tmp_path), Serving(endpoints=endpoints, bookkeeper=bookkeeper))
    with pytest.raises(CannotBeDone, match=r"records.file = .*: Is a directory"):
        async with app.router.lifespan_context(app):
            pass


async def test_spans_are_sent_where_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Exporter:
        """In OTLPSpanExporter's place, as nobody listens in a test."""

        def __init__(self, *, endpoint: str) -> None:
            seen.append(endpoint)

        def export(self, spans: Any) -> SpanExportResult:
            seen.extend(span.name for span in spans)
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            seen.append("shut down")

    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", Exporter)
    config = config_at(tmp_path)
    config = config.model_copy(
        update={"tracing": TracingConfig(otlp_endpoint="http://127.0.0.1:4318/v1/traces")}
    )
    stack = contextlib.AsyncExitStack()
    async with stack:
        ended = FinishedRequest(Ledger(request_id="r", attempts=()), 0.1, 1000.0)
        for sink in open_sinks(config, Metrics(CollectorRegistry()), stack):
            sink.requests_finished([ended])
    assert seen == ["http://127.0.0.1:4318/v1/traces", "chat hybridserve", "shut down"]


async def test_spans_without_opentelemetry_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    config = config_at(tmp_path).model_copy(
        update={"tracing": TracingConfig(otlp_endpoint="http://127.0.0.1:4318")}
    )
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(CannotBeDone, match=r"pip install 'hybridserve-llm\[otel\]'"):
            open_sinks(config, Metrics(CollectorRegistry()), stack)
