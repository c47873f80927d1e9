"""The front end over scripted engines: endpoints, headers, errors, admission, keep-alive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import openai
import orjson
import pytest
from prometheus_client import CollectorRegistry

from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.engines.replica_set import ReplicaSet
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
)
from hybridserve_llm.promise.fingerprint import fingerprint_of
from hybridserve_llm.promise.standing import standing_of
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.server.app import create_app
from hybridserve_llm.server.auth import ApiKeys
from hybridserve_llm.server.error_responses import STATUS
from hybridserve_llm.server.parts import InFlight, Parts
from hybridserve_llm.telemetry.journal import Journal
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer

BODY = {"model": "hybridserve", "messages": [{"role": "user", "content": "?"}]}
UNSURE = scripted_answer("small", logprobs=(-1.0, -1.0))


def parts_over(engines: Mapping[str, FakeEngine], **changes: Any) -> Parts:
    clock = FakeClock()
    metrics = Metrics(CollectorRegistry())
    sets = {name: ReplicaSet(name, [engine], clock=clock) for name, engine in engines.items()}
    tiers = [
        Tier(
            name=name,
            model=f"m-{name}",
            engine=sets[name],
            scorer=DayZeroScorer(),
        )
        for name in engines
    ]
    *lower, last = engines
    accepting = [{"name": n, "model": n, "accept": {"score_at_least": -0.5}} for n in lower]
    config = parse_config({"tiers": [*accepting, {"name": last, "model": last}]}, source="test")
    fingerprint = fingerprint_of(config, {}, {})
    standing = standing_of(config, None, fingerprint, allow_uncertified=False)
    policies = Policies(default=standing.default, last_only=standing.last_only)
    journal = Journal([metrics], clock=clock)
    parts = Parts(
        config=ServerConfig(),
        router=CascadeRouter(tiers, policies, journal=journal, clock=clock),
        tiers=sets,
        clock=clock,
        registry=metrics.registry,
        catch_up=journal.deliver,
        in_flight=InFlight(4),
        started_at_s=1,
        cascade=CascadeView(
            models={name: f"m-{name}" for name in engines},
            active_parameters=dict.fromkeys(engines),
            fingerprint=fingerprint,
            standing=standing,
        ),
    )
    return replace(parts, **changes)


@contextlib.asynccontextmanager
async def client_of(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    @contextlib.asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        yield parts

    app = create_app(open_parts)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hs") as client,
    ):
        yield client


def sure() -> dict[str, FakeEngine]:
    return {"small": FakeEngine("5"), "giant": FakeEngine("giant says")}


def escalating(**giant: Any) -> dict[str, FakeEngine]:
    return {"small": FakeEngine(UNSURE), "giant": FakeEngine("giant says", **giant)}


async def test_answer_headers_and_ledger() -> None:
    async with client_of(parts_over(sure())) as client:
        response = await client.post(
            "/v1/chat/completions", json=BODY, headers={"x-request-id": "mine"}
        )
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["x-hybridserve-tier"] == "small"
    assert "x-hybridserve-confidence" not in response.headers
    body = response.json()
    assert body["model"] == "m-small"
    assert body["hybridserve"]["attempts"][0]["decision"] == "accept"


async def test_the_tier_header_can_be_switched_off() -> None:
    parts = parts_over(sure(), config=ServerConfig(show_tier_header=False))
    async with client_of(parts) as client:
        response = await client.post("/v1/chat/completions", json=BODY)
    assert "x-hybridserve-tier" not in response.headers


async def test_the_openai_client_streams_a_held_and_a_live_answer() -> None:
    for engines, text, tier in ((sure(), "5", "small"), (escalating(), "giant says", "giant")):
        async with client_of(parts_over(engines)) as http:
            client = openai.AsyncOpenAI(base_url="http://hs/v1", api_key="k", http_client=http)
            stream = await client.chat.completions.create(
                **BODY, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        told = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert told == text
        assert chunks[-1].usage is not None
        assert chunks[-1].model_extra["hybridserve"]["tier"] == tier
        assert {chunk.model for chunk in chunks} == {f"m-{tier}"}


async def test_a_live_stream_names_its_tier_in_the_headers() -> None:
    async with client_of(parts_over(escalating())) as client:
        response = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert response.headers["x-hybridserve-tier"] == "giant"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    assert "small" not in response.text.split("hybridserve")[0]


async def test_a_tier_named_as_model_answers_alone() -> None:
    engines = escalating()
    async with client_of(parts_over(engines)) as client:
        response = await client.post("/v1/chat/completions", json={**BODY, "model": "small"})
    assert response.json()["hybridserve"]["tier"] == "small"
    assert not engines["giant"].requests


async def test_keep_alive_comments_come_while_an_answer_is_decided() -> None:
    gate = asyncio.Event()
    engines = {"small": FakeEngine("5", gate=gate), "giant": FakeEngine("g")}
    parts = parts_over(engines, config=ServerConfig(sse_keepalive_s=0.01))

    async def open_later() -> None:
        await engines["small"].is_waiting.wait()
        await asyncio.sleep(0.05)
        gate.set()

    async with client_of(parts) as client:
        opening = asyncio.ensure_future(open_later())
        response = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
        await opening
    assert response.text.startswith(": ")
    data = [line for line in response.text.splitlines() if line.startswith("data: {")]
    assert orjson.loads(data[-1][6:])["hybridserve"]["tier"] == "small"


async def test_an_error_after_the_stream_began_is_its_last_event_with_the_ledger() -> None:
    broken = escalating(n_chunks_before_gate=2, error_after_chunks=EngineFailed("lost its way"))
    async with client_of(parts_over(broken)) as client:
        response = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
    events = [line for line in response.text.splitlines() if line]
    last = orjson.loads(events[-1][6:])
    assert last["error"]["message"] == "lost its way"
    assert [one["decision"] for one in last["hybridserve"]["attempts"]] == ["escalate", "fail"]
    assert last["hybridserve"]["tier"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ContextLengthExceeded("too long"), 400, None),
        (EngineFailed("odd"), 502, None),
        (EngineUnavailable("down"), 503, "5"),
        (EngineUnavailable("down", kind="refused", retry_after_s=6.2), 503, "7"),
        (EngineUnavailable("busy", kind="rate_limited", retry_after_s=37.0), 429, "37"),
        (EngineUnavailable("busy", kind="rate_limited"), 429, "5"),
        (DeadlineExceeded("late"), 504, None),
    ],
)
async def test_errors_keep_their_status_before_a_stream_begins(
    error: HybridServeError, status: int, retry: str | None, stream: bool
) -> None:
    engines = {"small": FakeEngine(error), "giant": FakeEngine(error)}
    async with client_of(parts_over(engines)) as client:
        response = await client.post("/v1/chat/completions", json={**BODY, "stream": stream})
    assert response.status_code == status
    assert response.headers.get("retry-after") == retry
    assert response.headers["x-request-id"]
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("change", "status", "param", "needle"),
    [
        ({"model": "none"}, 404, "model", "allowed: hybridserve, small, giant"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "hi"}, 400, "messages", "list"),
        ({"messages": [{"content": "no role"}]}, 400, "messages.0.role", "required"),
        ({"temperature": -0.1}, 400, "temperature", "temperature = -0.1"),
        ({"temperature": "hot"}, 400, "temperature", "hot"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"max_tokens": 0}, 400, "max_tokens", "max_tokens = 0"),
        ({"n": 0}, 400, "n", "n = 0"),
        ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs", "20"),
        ({"top_logprobs": 2}, 400, None, "only with logprobs"),
        ({"stream_options": {}}, 400, None, "only with stream"),
        ({"hybridserve": {"min_teir": "x"}}, 400, "hybridserve.min_teir", "Extra"),
        ({"hybridserve": {"policy": "wild"}}, 400, "hybridserve.policy", "'default'"),
        ({"hybridserve": {"min_confidence": 2}}, 400, "hybridserve.min_confidence", "= 2"),
    ],
)
async def test_bad_fields_are_named_before_any_engine_is_asked(
    change: dict[str, Any], status: int, param: str | None, needle: str
) -> None:
    engines = sure()
    async with client_of(parts_over(engines)) as client:
        response = await client.post("/v1/chat/completions", json={**BODY, **change})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert needle in error["message"]
    assert not engines["small"].requests


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"3", b"\xff\xfe", b'{"model": 1}'])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_body_that_is_no_request_is_a_400(content: bytes, path: str) -> None:
    async with client_of(parts_over(sure())) as client:
        response = await client.post(path, content=content)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_over_the_limit_is_refused() -> None:
    parts = parts_over(sure(), config=ServerConfig(max_body_mib=1))
    async with client_of(parts) as client:
        response = await client.post("/v1/chat/completions", content=b" " * (1024 * 1024 + 1))
    assert response.status_code == 400
    assert "larger than 1048576 bytes" in response.json()["error"]["message"]


async def test_unknown_paths_and_methods_are_openai_errors() -> None:
    async with client_of(parts_over(sure())) as client:
        missing = await client.get("/v1/nothing")
        wrong = await client.get("/v1/chat/completions")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["message"] == "GET /v1/nothing: Not Found"


async def test_a_bug_is_a_500_without_its_traceback() -> None:
    def bug(request: Any) -> str:
        raise RuntimeError("secret detail")

    async with client_of(
        parts_over({"small": FakeEngine(bug), "giant": FakeEngine("g")})
    ) as client:
        response = await client.post("/v1/chat/completions", json=BODY)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error"


async def test_more_requests_than_the_limit_are_429() -> None:
    gate = asyncio.Event()
    engines = {"small": FakeEngine("5", gate=gate), "giant": FakeEngine("g")}
    parts = parts_over(engines, in_flight=InFlight(1))
    async with client_of(parts) as client:
        first = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY))
        await engines["small"].is_waiting.wait()
        second = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
        gate.set()
        assert (await first).status_code == 200
        third = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    assert third.status_code == 200
    assert parts.in_flight.count == 0


async def test_keys_guard_everything_under_v1_and_nothing_else() -> None:
    parts = parts_over(sure(), api_keys=ApiKeys(keys=(b"secret",)))
    async with client_of(parts) as client:
        refused = [
            (await client.post("/v1/chat/completions", json=BODY)).status_code,
            (await client.post("/v1/completions", json={})).status_code,
            (await client.get("/v1/models")).status_code,
            (await client.get("/v1/models/small")).status_code,
        ]
        header = {"authorization": "Bearer secret"}
        allowed = await client.post("/v1/chat/completions", json=BODY, headers=header)
        health = await client.get("/health")
    assert refused == [401] * 4
    assert (allowed.status_code, health.status_code) == (200, 200)


async def test_models_are_the_cascade_and_its_tiers() -> None:
    async with client_of(parts_over(sure())) as client:
        listed = (await client.get("/v1/models")).json()
        one = await client.get("/v1/models/giant")
        none = await client.get("/v1/models/huge")
    assert [model["id"] for model in listed["data"]] == ["hybridserve", "small", "giant"]
    assert one.json()["id"] == "giant"
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


async def test_ready_means_every_tier_has_a_healthy_replica() -> None:
    engines = sure()
    parts = parts_over(engines)
    async with client_of(parts) as client:
        before = await client.get("/ready")
        for replica_set in parts.tiers.values():
            assert isinstance(replica_set, ReplicaSet)
            await replica_set.check_health()
        after = await client.get("/ready")
    assert (before.status_code, after.status_code) == (503, 200)
    assert after.json() == {"ready": True, "tiers": {"small": True, "giant": True}}


async def test_metrics_count_attempts_and_requests() -> None:
    async with client_of(parts_over(escalating())) as client:
        await client.post("/v1/chat/completions", json=BODY)
        text = (await client.get("/metrics")).text
    attempts = 'hybridserve_attempts_total{decision="%s",kind="cascade",tier="%s"} 1.0'
    assert attempts % ("escalate", "small") in text
    assert attempts % ("accept", "giant") in text
    requests = 'hybridserve_requests_total{end="answered",kind="cascade",tier="giant"} 1.0'
    assert requests in text


def n_responses(parts: Parts) -> dict[str, float]:
    (family,) = parts.responses.collect()
    return {sample.labels["status"]: sample.value for sample in family.samples}


async def test_responses_that_no_tier_was_asked_for_are_counted_by_status() -> None:
    parts = parts_over(
        {"small": FakeEngine(UNSURE), "giant": FakeEngine(EngineUnavailable("giant is down"))},
        in_flight=InFlight(1),
        api_keys=ApiKeys(keys=(b"secret",)),
    )
    header = {"authorization": "Bearer secret"}
    async with client_of(parts) as client:
        url = "/v1/chat/completions"
        await client.post(url, json=BODY)
        await client.post(url, json={}, headers=header)
        await client.post(url, json={**BODY, "model": "other"}, headers=header)
        await client.post(url, json=BODY, headers=header)
        await client.post(url, json={**BODY, "model": "small"}, headers=header)
        with parts.in_flight.admit():
            await client.post(url, json=BODY, headers=header)
        await client.get("/v1/models", headers=header)  # generates nothing: not counted
    assert n_responses(parts) == {"401": 1, "400": 1, "404": 1, "503": 1, "200": 1, "429": 1}


async def test_a_bug_is_counted_as_a_500() -> None:
    def bug(request: Any) -> str:
        raise RuntimeError("secret detail")

    parts = parts_over({"small": FakeEngine(bug), "giant": FakeEngine("g")})
    async with client_of(parts) as client:
        await client.post("/v1/chat/completions", json=BODY)
    assert n_responses(parts) == {"500": 1}


async def test_a_client_that_leaves_while_it_sends_is_no_bug() -> None:
    parts = parts_over(sure())

    @contextlib.asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        yield parts

    app, sent = create_app(open_parts), []
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [],
        "query_string": b"",
    }
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert n_responses(parts) == {"499": 1}


def test_every_status_in_the_table_is_an_error_status() -> None:
    assert all(400 <= status < 600 for status, _, _ in STATUS.values())
