"""The collection against the project's own front end over fake vLLM servers: one contract."""

import contextlib
import io
import json
from pathlib import Path

import httpx
import openai
from rich.console import Console

from eval.attempts import AttemptsHeader, read_attempts
from eval.attempts_file import AttemptsFile
from eval.collect import collect, describe_cascade
from eval.collect_progress import CollectProgress
from eval.graders import Exact
from eval.prompts import read_prompts
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import create_fake_vllm_app, serving

CONFIG = parse_config(
    {
        "tiers": [
            {"name": "small", "model": "org/s", "accept": {"score_at_least": -1.0}},
            {"name": "giant", "model": "org/g"},
        ]
    },
    source="test",
)


async def test_the_front_end_tells_all_that_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    line = {"prompt": "abc", "request": {"max_tokens": 3}}
    lines = [
        {**line, "reference": "cba", "endpoint": "completions"},  # the fake reverses its prompt
        {**line, "reference": "no"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    prompts = read_prompts(path, Exact())
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {}
        for name in ("small", "giant"):
            app = create_fake_vllm_app(model=name)
            address = await stack.enter_async_context(serving(app, tmp_path / f"{name}.sock"))
            endpoints[name] = [address]
        front_end = build_app(CONFIG, Serving(endpoints=endpoints))
        await stack.enter_async_context(front_end.router.lifespan_context(front_end))
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app=front_end))
        )
        client = openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )
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
        with AttemptsFile(tmp_path / "attempts.jsonl", header) as file, progress:
            await collect(
                client, prompts, file, chain=("small", "giant"), concurrency=2, progress=progress
            )
    found = read_attempts(tmp_path / "attempts.jsonl")
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
            assert attempt.energy_j is None
