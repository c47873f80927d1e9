"""`hs-eval measure`: a cascade asked in every way, with what its engines used, block by block."""

import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from eval.asking.cascade_counters import CascadeCounters, Counters, used_between
from eval.asking.collect import CascadeDescription, describe_cascade
from eval.asking.measure import Measurement
from eval.cli import main
from eval.questions.graders import Exact
from eval.questions.prompts import PromptSet, read_prompts
from eval.recorded.attempts import AttemptsHeader
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    MeasuredRun,
    RunFile,
    RunHeader,
    is_run,
    read_run,
)
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.load.metrics_text import Samples
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import create_fake_vllm_app, serving

CONFIG = parse_config(
    {
        "tiers": [
            {"name": "small", "model": "org/s", "accept": {"score_at_least": -1.0}},
            {"name": "giant", "model": "org/g"},
        ],
        "energy": {"enabled": False},
    },
    source="test",
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    """The project's own front end over fake vLLM servers."""
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {}
        for name in ("small", "giant"):
            app = create_fake_vllm_app(model=name)
            address = await stack.enter_async_context(serving(app, tmp_path / f"{name}.sock"))
            endpoints[name] = [address]
        front_end = build_app(CONFIG, Serving(endpoints=endpoints))
        await stack.enter_async_context(front_end.router.lifespan_context(front_end))
        transport = httpx.ASGITransport(app=front_end)
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport))
        yield AsyncOpenAI(base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0)


@pytest.fixture
def prompts(tmp_path: Path) -> PromptSet:
    """Five questions, of which the fake, which reverses its prompt, gets the last one wrong."""
    path = tmp_path / "prompts.jsonl"
    lines = [
        {
            "prompt": text,
            "reference": text[::-1] if text != "eeff" else "no",
            "id": text,
            "endpoint": "completions",
            "request": {"max_tokens": len(text)},
        }
        for text in ("ab", "abc", "abcd", "ddcc", "eeff")
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return read_prompts(path, Exact())


def header_of(cascade: CascadeDescription, prompts: PromptSet, **changes: Any) -> RunHeader:
    asked = AttemptsHeader(
        created="2026-11-24T00:00:00+00:00",
        tiers=cascade.tiers,
        fingerprint=cascade.fingerprint,
        sampling={"temperature": 0},
        endpoints=("/v1/completions",),
        data_sha256=prompts.sha256,
        labels=prompts.labels,
        grader=None,
    )
    values: dict[str, Any] = {
        "asked": asked,
        "served_model_name": cascade.served_model_name,
        "certificate": cascade.certificate,
        "command": "hs-eval measure",
        "project_version": "0",
        "commit": None,
        "hardware": "a test",
        "concurrency": 2,
        "block_questions": 3,
        "state": cascade.state,
        "thresholds": cascade.thresholds,
    }
    return RunHeader(**values | changes)


async def measured(
    client: AsyncOpenAI, prompts: PromptSet, path: Path, **changes: Any
) -> MeasuredRun:
    header = header_of(await describe_cascade(client), prompts, **changes)
    with RunFile(path, header) as file:
        counters = CascadeCounters(client, is_patient=False)
        told: list[Any] = []
        await Measurement(
            client, prompts, file, counters=counters, on_block=lambda *line: told.append(line)
        ).run(idle_s=0.0)
    return read_run(path)


async def test_every_question_is_asked_in_every_way(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    run = await measured(client, prompts, tmp_path / "run.jsonl")
    # Five questions in blocks of three: two blocks for each of four ways; the second turn begins
    # with the way after the first.
    assert [(block.way, block.index) for block in run.blocks] == [
        *((way, 0) for way in ("small", "giant", ALONE, CASCADE)),
        *((way, 1) for way in ("giant", ALONE, CASCADE, "small")),
    ]
    assert len(run.idle) == 2
    assert run.header.state == "uncertified"
    assert run.header.thresholds is not None
    assert [rule["score_at_least"] for rule in run.header.thresholds] == [-1.0]
    answers = [answer for block in run.of_way(CASCADE) for answer in block.answers]
    assert [answer.query_id for answer in answers] == ["ab", "abc", "abcd", "ddcc", "eeff"]
    assert [answer.correct for answer in answers] == [True, True, True, True, False]
    assert all(answer.attempts[0].tier == "small" for answer in answers)
    assert all(answer.attempts[0].score is not None for answer in answers)
    alone = [answer for block in run.of_way(ALONE) for answer in block.answers]
    assert {attempt.tier for answer in alone for attempt in answer.attempts} == {"giant"}
    assert {attempt.score for answer in alone for attempt in answer.attempts} == {None}
    recorded = run.attempts().by_question
    assert set(recorded[None, "abc"]) == {"small", "giant"}
    assert recorded[None, "abc"]["small"].features is not None


async def test_asked_as_streams_the_answers_are_the_same_and_first_tokens_are_timed(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    whole = await measured(client, prompts, tmp_path / "whole.jsonl")
    run = await measured(client, prompts, tmp_path / "streamed.jsonl", is_streamed=True)
    for way in (ALONE, CASCADE):
        asked = [answer for block in run.of_way(way) for answer in block.answers]
        before = [answer for block in whole.of_way(way) for answer in block.answers]
        assert [a.ttft_s for a in before] == [None] * 5
        assert all(a.ttft_s is not None and 0 <= a.ttft_s <= a.latency_s for a in asked)
        for one, other in zip(asked, before, strict=True):
            assert (one.query_id, one.answer, one.tier) == (
                other.query_id,
                other.answer,
                other.tier,
            )
            counts = [(a.tier, a.decision, a.completion_tokens) for a in one.attempts]
            assert counts == [(a.tier, a.decision, a.completion_tokens) for a in other.attempts]
    with pytest.raises(ConfigError, match=r"other is_streamed \(True there, False now\)"):
        await measured(client, prompts, tmp_path / "streamed.jsonl")


async def test_what_is_not_metered_is_unknown_and_not_0(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    run = await measured(client, prompts, tmp_path / "run.jsonl")
    for block in run.blocks:
        assert {use.cpu_s for use in block.used.values()} == {None}
        assert {use.active_j for use in block.used.values()} == {None}


async def test_a_run_goes_on_where_it_was_stopped(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    whole = await measured(client, prompts, path)
    lines = path.read_bytes().splitlines(keepends=True)
    # Header, idle window, three blocks, and half of the fourth, as a kill leaves it.
    path.write_bytes(b"".join(lines[:5]) + lines[5][:100])
    again = await measured(client, prompts, path)
    assert {(b.way, b.index) for b in again.blocks} == {(b.way, b.index) for b in whole.blocks}
    assert again.blocks[:3] == whole.blocks[:3]
    assert is_run(path)


async def test_another_concurrency_or_block_is_another_run(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    await measured(client, prompts, path)
    with pytest.raises(ConfigError, match=r"measured with other concurrency \(2 there, 4 now\)"):
        await measured(client, prompts, path, concurrency=4)


async def test_a_model_that_is_not_there_ends_the_run(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    with pytest.raises(CannotBeDone, match="model 'gone' does not exist"):
        await measured(client, prompts, tmp_path / "run.jsonl", served_model_name="gone")
    assert read_run(tmp_path / "run.jsonl").of_way("small")


async def test_a_server_without_metrics_is_no_front_end() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404))
    async with httpx.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )
        with pytest.raises(CannotBeDone, match="http://hs/metrics gives no metrics"):
            await CascadeCounters(client).read()


async def reading_at_rest(busy: list[int], **options: Any) -> Counters:
    """The counters at rest of a server whose engines have so many requests, reading by reading."""

    def metrics(_: httpx.Request) -> httpx.Response:
        n = busy.pop(0) if len(busy) > 1 else busy[0]
        return httpx.Response(200, text=f'hybridserve_outstanding_requests{{tier="giant"}} {n}\n')

    async with httpx.AsyncClient(transport=httpx.MockTransport(metrics)) as http:
        client = openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )
        return await CascadeCounters(client, is_patient=False, **options).at_rest()


async def test_a_window_ends_when_no_engine_has_a_request() -> None:
    busy = [2, 1, 0]
    found = await reading_at_rest(busy)
    assert busy == [0]
    assert found.total("hybridserve_outstanding_requests") == 0


async def test_engines_that_never_rest_say_that_somebody_else_asks() -> None:
    with pytest.raises(CannotBeDone, match="somebody else uses the cascade"):
        await reading_at_rest([1], max_rest_s=0.0)


def counters(**samples: float) -> Counters:
    """Of the tier small: CPU-seconds, joules by booking, and seconds without a meter."""
    cpu = samples.pop("cpu", None)
    unknown = samples.pop("unknown", 0.0)
    own = (("component", "gpu"), ("tier", "small"))
    found = {
        ("hybridserve_energy_joules_total", (("booking", kind), *own, ("source", "nvml_energy"))): j
        for kind, j in samples.items()
    }
    found = {(name, tuple(sorted(labels))): j for (name, labels), j in found.items()}
    found["hybridserve_energy_unknown_seconds_total", own] = unknown
    if cpu is not None:
        found["hybridserve_engine_cpu_seconds_total", (("tier", "small"),)] = cpu
    return Counters(at_s=0.0, samples=Samples(found))


def test_joules_are_told_apart_by_what_they_were_for() -> None:
    before = counters(cpu=2.0, user=100.0, idle=50.0)
    after = counters(cpu=5.0, user=130.0, shadow=4.0, idle=58.0, others=9.0)
    use = used_between(before, after, ("small",))["small"]
    # 30 J for users and 4 J for shadows; what others used of the machine is not the tier's.
    assert (use.cpu_s, use.active_j, use.idle_j) == (3.0, 34.0, 8.0)
    assert use.energy_source == "nvml_energy"


def test_a_span_without_a_meter_makes_joules_unknown_and_not_0() -> None:
    before, after = counters(user=1.0), counters(user=2.0, unknown=0.5)
    use = used_between(before, after, ("small",))["small"]
    assert (use.cpu_s, use.active_j, use.idle_j, use.energy_source) == (None, None, None, None)


def test_a_counter_that_went_back_says_that_the_server_was_started_anew() -> None:
    with pytest.raises(CannotBeDone, match="started anew"):
        used_between(counters(cpu=5.0), counters(cpu=1.0), ("small",))


def test_a_file_of_something_else_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"schema": "hybridserve-attempts/1"}\n')
    assert not is_run(path)
    with pytest.raises(ConfigError, match=r"other\.jsonl is no measured run"):
        read_run(path)


def test_a_file_that_is_not_json_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("tiers:\n")
    with pytest.raises(ConfigError, match=r"\(hybridserve-run/1\), line 1: JSON is malformed"):
        read_run(path)


def test_labels_by_agreement_are_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "ab", "id": "1", "grader": {"type": "agrees"}}) + "\n")
    run = tmp_path / "run.jsonl"
    nobody = "http://127.0.0.1:9/v1"  # asking would be status 3
    assert main(["measure", str(path), "--base-url", nobody, "--run", str(run)]) == 2
    assert "not 'agrees'" in capsys.readouterr().err
    assert not run.exists()


def test_programs_are_run_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "def f():", "entry_point": "f", "test": "def check(f): pass", "task_id": "1"}
    path.write_text(json.dumps(row) + "\n")
    arguments = ["measure", str(path), "--format", "humaneval", "--run", str(tmp_path / "r.jsonl")]
    arguments += ["--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH_KEY"]
    assert main(arguments) == 2
    assert "--run-code" in capsys.readouterr().err
    assert main([*arguments, "--run-code"]) == 2  # the prompts are read, and the key is missing
    assert "NO_SUCH_KEY" in capsys.readouterr().err


async def test_a_slow_grader_holds_up_no_other_question(
    client: AsyncOpenAI, prompts: PromptSet, tmp_path: Path
) -> None:
    together = threading.Barrier(2, timeout=20)  # passes where two answers are graded at a time

    def slow(answer: str) -> bool:
        together.wait()
        return True

    first_four = tuple(replace(prompt, grader=slow) for prompt in prompts.prompts[:4])
    found = replace(prompts, prompts=first_four)
    run = await measured(client, found, tmp_path / "run.jsonl", block_questions=2)
    assert all(answer.correct for block in run.blocks for answer in block.answers)
