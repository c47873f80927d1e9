"""The documentation says what the code does: pages are compared with what they describe."""

import ast
import importlib.util
import json
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from hybridserve_llm.books.energy_report import energy_report_of
from hybridserve_llm.books.meter_sites import Metered, Probes
from hybridserve_llm.books.metering import Metering, metering_of
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.config.load import load_config, parse_config
from hybridserve_llm.promise.standing import CERTIFICATE_STATUSES, STATES
from hybridserve_llm.server.energy_metrics import EnergyCollector, energy_json
from hybridserve_llm.server.error_responses import STATUS
from hybridserve_llm.server.ledger_json import ledger_json
from hybridserve_llm.server.protocol import CascadeOverrides
from hybridserve_llm.server.watch_metrics import WatchCollector
from hybridserve_llm.telemetry.engine_metrics import EngineCollector, EngineReport
from hybridserve_llm.telemetry.json_lines import DroppedRecords
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.telemetry.spans import LeftOutSpans
from hybridserve_llm.testing import FakeClock, ScriptedNvml
from hybridserve_llm.values.answers import Assessment
from hybridserve_llm.values.joules import ComponentEnergy, Flag, SettledEnergy, Source
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Gap, Ledger, Uncovered, Verdict
from hybridserve_llm.watch.snapshot import (
    MonitorSnapshot,
    TierSnapshot,
    WatchCounts,
    WatchSnapshot,
)
from launch.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ("docs", "launch", "examples", "tests")
            for page in (ROOT / folder).rglob("*.md")
        ),
    ]
)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
ATTEMPT = Attempt(
    tier="small",
    model="tiny",
    decision=Verdict.ACCEPT,
    reason="score -0.1 >= -0.3",
    prompt_tokens=3,
    completion_tokens=2,
    ttft_s=0.1,
    confidence=0.9,
    latency_s=0.5,
)
FAILED = Attempt(
    tier="small", decision=Verdict.FAIL, reason="late", error="DeadlineExceeded", latency_s=1.0
)
UNCOVERED = Uncovered(gap=Gap.NO_CERTIFICATE, reason="no certificate")
LEDGER = Ledger(
    request_id="r",
    attempts=(ATTEMPT,),
    tier="small",
    model="tiny",
    uncovered=UNCOVERED,
    ttft_s=0.1,
)
WATCHED = WatchSnapshot(
    status="ok",
    level="normal",
    reasons=(),
    alarm=None,
    monitors=(
        MonitorSnapshot(
            name="all tiers",
            budget=0.04,
            labels=10,
            losses=1.0,
            e_value=0.5,
            alarm_at=2000.0,
            is_alarm=False,
        ),
    ),
    tiers=(TierSnapshot(tier="small", counts=WatchCounts(), score_warnings=0, accept_warnings=0),),
    adwin="on",
    state_notes=(),
    n_acknowledged=0,
    shadow_prompt_tokens=0,
    shadow_completion_tokens=0,
)


SETTLED = SettledEnergy(
    request_id="r",
    booking="user",
    tier="small",
    component="gpu",
    active_j=1.0,
    loaded_j=2.0,
    source="nvml_energy",
    reason=None,
    edge_j=0.1,
    flags=(),
    tiers={"small": 1.0},
    components={"gpu": ComponentEnergy(energy_j=1.0, source="nvml_energy")},
)


def metering_of_a_minute() -> Metering:
    """Meters over one GPU that were read for 70 s, and one replica that no meter sees."""
    clock = FakeClock()
    metering = metering_of(
        EnergyConfig(),
        Metered(
            replicas={"small/0": "small", "far/0": "far"},
            gpu_uuids={"small/0": ["GPU-1"]},
            sockets={"small/0": "/nowhere.sock"},
        ),
        clock=clock,
        on_settled=lambda _: None,
        probes=Probes(open_nvml=lambda: ScriptedNvml(clock=clock), powercap=Path("/nowhere")),
    )
    for _ in range(700):
        clock.advance(0.1)
        metering.sample()
    metering.books.settle()
    return metering


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows_after(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the first table after `heading`, without their back-quotes."""
    lines = page.partition(heading)[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")])
    return rows


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def test_every_metric_has_its_row_and_every_row_its_metric() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.watch_gauges(lambda: 1, {"small": lambda: 1}, {"small": lambda: 1})
    metrics.show_state("certified", STATES)
    metrics.show_certificate("valid", CERTIFICATE_STATUSES)
    metrics.show_cascade("giant", "gpu")
    metrics.registry.register(WatchCollector(lambda: WATCHED))
    metrics.registry.register(EnergyCollector(lambda: energy_report_of(metering_of_a_minute())))
    metrics.registry.register(DroppedRecords(lambda: 0))
    metrics.registry.register(LeftOutSpans(lambda: 0))
    engine = EngineReport(tier="small", replica="0", state="healthy", restarts=0)
    metrics.registry.register(EngineCollector(lambda: [engine]))
    passed_over = Ledger(request_id="r", attempts=(FAILED, ATTEMPT), tier="small")
    ended = [FinishedRequest(ledger, 0.5, 0.0) for ledger in (LEDGER, passed_over)]
    metrics.requests_finished(ended)
    metrics.responses.add(200)
    metrics.request_settled(SETTLED)
    in_code = []
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = ", ".join(sorted(labels)) or "-"
        in_code.append([name, family.type, shown, family.documentation])
    assert len(in_code) >= 23
    assert sorted(rows_after(text_of("docs/metrics.md"), "# Metrics")) == sorted(in_code)


def config_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_config", ROOT / "docs/generate_config.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_page_is_up_to_date() -> None:
    written = text_of("docs/config.md")
    assert written == config_generator().config_page(), "run: python docs/generate_config.py"


def test_every_configuration_key_has_a_meaning() -> None:
    rows = re.findall(r"^\| `(.+?)` \|.*\| (.*?) ?\|$", text_of("docs/config.md"), re.MULTILINE)
    assert len(rows) > 30
    assert [key for key, meaning in rows if not meaning] == []


def test_the_error_table_is_the_codes() -> None:
    shown = {
        name: (int(status), kind, None if code == "-" else code)
        for name, status, kind, code, _ in rows_after(text_of("docs/api.md"), "## Errors")
    }
    assert shown == {error.__name__: row for error, row in STATUS.items()}


def test_the_ledgers_fields_are_the_codes() -> None:
    page, ledger = text_of("docs/api.md"), ledger_json(LEDGER)
    assert [row[0] for row in rows_after(page, "## The ledger")] == list(ledger)
    fields = [
        name for row in rows_after(page, "An entry of `attempts`:") for name in row[0].split(", ")
    ]
    assert fields == list(ledger["attempts"][0])
    totals = re.search(r"^`totals` has (.*)\.$", page, flags=re.MULTILINE)
    assert totals is not None
    assert re.findall(r"`(\w+)`", totals[1]) == list(ledger["totals"])


def test_the_fields_of_an_assessed_attempt_are_the_codes() -> None:
    assessed = msgspec.structs.replace(ATTEMPT, assessment=Assessment(score=-0.1))
    (attempt,) = ledger_json(msgspec.structs.replace(LEDGER, attempts=(assessed,)))["attempts"]
    plain = ledger_json(LEDGER)["attempts"][0]
    page = text_of("docs/api.md")
    shown = [row[0] for row in rows_after(page, "With `assess` an answered entry")]
    assert shown == [name for name in attempt if name not in plain]


def test_the_fields_of_the_watch_are_the_codes() -> None:
    rows = rows_after(text_of("docs/api.md"), "Of `watch`:")
    shown = [name for row in rows for name in row[0].split(", ")]
    assert shown == [field.name for field in fields(WatchSnapshot)]


def test_the_fields_of_energy_are_the_codes() -> None:
    told = energy_json(energy_report_of(metering_of_a_minute()))
    page = text_of("docs/api.md")
    assert [row[0] for row in rows_after(page, "Of `energy`:")] == list(told)
    fields_of_a_tier = [row[0] for row in rows_after(page, "An entry of `energy.tiers`:")]
    assert fields_of_a_tier == list(told["tiers"]["small"])


def test_the_fields_of_a_settled_record_are_the_codes() -> None:
    shown = [
        name
        for row in rows_after(text_of("docs/energy.md"), "## Records")
        for name in row[0].split(", ")
    ]
    assert shown == list(SettledEnergy._fields)


def test_every_flag_and_source_of_joules_is_explained() -> None:
    page = text_of("docs/energy.md")
    sources = {row[0] for row in rows_after(page, "## Meters")}
    assert sources == {source.value for source in Source}
    flags = {row[0] for row in rows_after(page, "## Flags")}
    assert flags == {flag.value for flag in Flag}


def test_the_overrides_are_the_codes() -> None:
    shown = {row[0] for row in rows_after(text_of("docs/api.md"), "## Overrides")}
    assert shown == set(CascadeOverrides.model_fields)


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        ([], "# hs-launch"),
        (["status"], "## hs-launch status"),
        (["stop"], "## hs-launch stop"),
    ],
)
def test_every_option_of_the_launcher_has_its_row(
    capsys: pytest.CaptureFixture[str], command: list[str], heading: str
) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    shown = {row[0].split()[0] for row in rows_after(text_of("docs/launch.md"), heading)}
    assert shown == offered


def heading_anchors(page: str) -> set[str]:
    """Anchors as GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (
            anchor and anchor not in heading_anchors(file.read_text(encoding="utf-8"))
        ):
            broken.append(target)
    assert broken == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    files = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert files
    listed = re.findall(r"\]\((\d{3}-[\w-]+\.md)\)", text_of("docs/decisions/README.md"))
    assert listed == files


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_valid_configuration(path: Path) -> None:
    assert len(load_config(path).tiers) >= 2


def test_the_readmes_code_is_valid() -> None:
    readme = text_of("README.md")
    configs, programs = blocks(readme, "yaml"), blocks(readme, "python")
    ledgers = blocks(readme, "json")
    assert configs
    assert programs
    assert ledgers
    for config in configs:
        parse_config(yaml.safe_load(config), source="README.md")
    for program in programs:
        ast.parse(program)
    for shown in map(json.loads, ledgers):
        real = ledger_json(LEDGER)
        assert list(shown) == list(real)
        assert set(shown["totals"]) <= set(real["totals"])
        for attempt in shown["attempts"]:
            assert set(attempt) <= set(real["attempts"][0])


def test_the_tutorials_files_are_valid() -> None:
    tutorial = text_of("docs/tutorial.md")
    whole, addition = map(yaml.safe_load, blocks(tutorial, "yaml"))
    names = [tier.name for tier in parse_config(whole, source="docs/tutorial.md").tiers]
    assert names == ["small", "medium", "giant"]
    assert parse_config(whole | addition, source="docs/tutorial.md").certificate is not None
    (prompt,) = map(json.loads, blocks(tutorial, "json"))
    assert set(prompt) == {"prompt", "reference", "grader"}


def test_every_page_is_in_the_index() -> None:
    index = text_of("docs/README.md")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()


def messages_of(node: ast.AST) -> str:
    """The text of a string in the code, with `…` for each value that is put into it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            messages_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return ""


def test_every_message_on_the_troubleshooting_page_is_the_codes() -> None:
    said = "\n".join(
        re.sub(r"%(?:\.?\d*)?[sdgr]", "…", messages_of(node))
        for package in ("hybridserve_llm", "launch", "eval")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    )
    page = re.sub(
        r"^\| symptom .*\n\|---.*\n", "", text_of("docs/troubleshooting.md"), flags=re.MULTILINE
    )
    symptoms = [row.split(" | ")[0] for row in re.findall(r"^\| (.*)$", page, flags=re.MULTILINE)]
    quoted = [
        message for symptom in symptoms for message in re.findall(r"`([^`]+ [^`]+)`", symptom)
    ]
    assert len(symptoms) >= 25
    parts = {message: map(re.escape, message.strip("… ").split("…")) for message in quoted}
    assert [
        message for message, part in parts.items() if not re.search(".*".join(part), said)
    ] == []


def test_every_make_target_named_in_a_page_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets
