"""The collection against the project's own front end over fake vLLM servers: one contract."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
from rich.console import Console

from eval.asking.attempt_joules import AttemptJoules
from eval.asking.collect import collect, describe_cascade
from eval.asking.collect_progress import CollectProgress
from eval.questions.graders import Exact
from eval.questions.prompts import read_prompts
from eval.recorded.attempts import Attempts, AttemptsHeader, read_attempts
from eval.recorded.attempts_file import AttemptsFile
from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import ScriptedNvml, create_fake_vllm_app, serving

TIERS = [
    {"name": "small", "model": "org/s", "accept": {"score_at_least": -1.0}},
    {"name": "giant", "model": "org/g"},
]


@contextlib.asynccontextmanager
async def front_end(
    folder: Path, *, gpu_uuids: dict[str, list[list[str]]]
) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of a front end that writes records; GPUs draw 300 W by a scripted NVML."""
    values = {
        "tiers": TIERS,
        "records": {"file": str(folder / "records.jsonl")},
        "energy": {"settle_interval_s": 0.05},
    }
    nvml = ScriptedNvml(clock=SystemClock())
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {}
        for name in ("small", "giant"):
            app = create_fake_vllm_app(model=name)
            address = await stack.enter_async_context(serving(app, folder / f"{name}.sock"))
            endpoints[name] = [address]
        app = build_app(
            parse_config(values, source="test"),
            Serving(
                endpoints=endpoints,
                gpu_uuids=gpu_uuids,
                probes=Probes(open_nvml=lambda: nvml, powercap=folder / "none"),
            ),
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
        )
        yield openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )


async def collected(client: openai.AsyncOpenAI, folder: Path) -> Attempts:
    """Two questions, asked of both tiers, with the joules of the records."""
    path = folder / "prompts.jsonl"
    line = {"prompt": "abc", "request": {"max_tokens": 3}}
    lines = [
        {**line, "reference": "cba", "endpoint": "completions"},  # the fake reverses its prompt
        {**line, "reference": "no"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    prompts = read_prompts(path, Exact())
    described = await describe_cascade(client)
    header = AttemptsHeader(
        created="now",
        tiers=described.tiers,
        fingerprint=described.fingerprint,
        sampling={"temperature": 0},
        endpoints=("/v1/chat/completions", "/v1/completions"),
        data_sha256=prompts.sha256,
        labels=prompts.labels,
        grader=None,
    )
    progress = CollectProgress(Console(file=io.StringIO()))
    with AttemptsFile(folder / "attempts.jsonl", header) as file, progress:
        await collect(
            client, prompts, file, chain=("small", "giant"), concurrency=2, progress=progress
        )
        await AttemptJoules(
            folder / "records.jsonl",
            file,
            clock=SystemClock(),
            sleep=lambda _: asyncio.sleep(0.02),  # meters are read ten times a second
        ).fill(progress.note)
    return read_attempts(folder / "attempts.jsonl")


async def test_the_front_end_tells_all_that_is_recorded(tmp_path: Path) -> None:
    async with front_end(tmp_path, gpu_uuids={}) as client:
        found = await collected(client, tmp_path)
    assert [(tier.name, tier.model) for tier in found.header.tiers] == [
        ("small", "org/s"),
        ("giant", "org/g"),
    ]
    assert set(found.header.fingerprint or {}) == {"hash", "parts"}
    for tier in ("small", "giant"):
        right, wrong = (found.by_question[None, query_id][tier] for query_id in ("1", "2"))
        assert (right.answer, right.correct, right.answer_key) == ("cba", True, "cba")
        assert (wrong.correct, wrong.has_failed) == (False, False)
        for attempt in (right, wrong):
            assert attempt.score is not None
            assert attempt.features is not None
            assert set(attempt.features) == set(FEATURE_NAMES)
            assert attempt.output_type == "short"
            assert attempt.completion_tokens == 3
            assert attempt.latency_s is not None
            # A machine without a counter, and engines without processes of their own.
            assert (attempt.energy_j, attempt.energy_source) == (None, "unavailable")
            assert attempt.energy_reason


@pytest.mark.timeout(60)
async def test_joules_of_gpus_are_found_under_the_answers_id(tmp_path: Path) -> None:
    gpu_uuids = {"small": [["GPU-1"]], "giant": [["GPU-2"]]}
    async with front_end(tmp_path, gpu_uuids=gpu_uuids) as client:
        found = await collected(client, tmp_path)
    attempts = [attempt for by_tier in found.by_question.values() for attempt in by_tier.values()]
    assert len(attempts) == 4
    for attempt in attempts:
        assert attempt.energy_source == "nvml_energy"
        assert attempt.energy_reason is None
        assert attempt.latency_s is not None
        # Two at a time share 300 W; meters are read ten times a second, so a little may spill over.
        assert attempt.energy_j is not None
        assert 0 < attempt.energy_j <= 300 * (attempt.latency_s + 0.2)
