"""The composition root over fake vLLM servers: everything joined, spoken to over HTTP."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from hybridserve_llm.config.load import parse_config
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import create_fake_vllm_app, serving

BODY = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 6}


def config_of(accept: float, **small: Any) -> Any:
    tiers = [
        {"name": "small", "model": "/models/s", "accept": {"score_at_least": accept}, **small},
        {"name": "giant", "model": "org/g"},
    ]
    return parse_config({"tiers": tiers}, source="test")


@contextlib.asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hs") as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def fakes(folder: Path) -> AsyncIterator[tuple[dict[str, list[str]], dict[str, Any]]]:
    apps = {name: create_fake_vllm_app(model=name) for name in ("small", "giant")}
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {
            name: [await stack.enter_async_context(serving(app, folder / f"{name}.sock"))]
            for name, app in apps.items()
        }
        yield endpoints, {name: app.state.fake_vllm for name, app in apps.items()}


@pytest.mark.parametrize(("accept", "tier"), [(-1000.0, "small"), (-0.0, "giant")])
async def test_the_threshold_of_the_configuration_decides(
    tmp_path: Path, accept: float, tier: str
) -> None:
    async with (
        fakes(tmp_path) as (endpoints, _),
        running(build_app(config_of(accept), Serving(endpoints=endpoints))) as client,
    ):
        response = await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
        metrics = (await client.get("/metrics")).text
    ledger = response.json()["hybridserve"]
    assert ledger["tier"] == tier
    assert ledger["attempts"][0]["model"] == "s"
    assert "hybridserve_requests_in_flight 0.0" in metrics
    assert 'hybridserve_healthy_replicas{tier="small"} 1.0' in metrics


async def test_an_engine_that_is_gone_is_named_by_tier_and_replica_alone(tmp_path: Path) -> None:
    gone = {"small": ["http://127.0.0.1:9"], "giant": [f"unix:{tmp_path}/gone.sock"]}
    async with running(build_app(config_of(-0.0), Serving(endpoints=gone))) as client:
        response = await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
    assert response.status_code == 503
    assert "tier 'giant'" in response.json()["error"]["message"]
    reasons = [attempt["reason"] for attempt in response.json()["hybridserve"]["attempts"]]
    assert "tier 'small'" in reasons[0]
    assert "127.0.0.1" not in response.text
    assert str(tmp_path) not in response.text


async def test_the_cascade_tells_its_thresholds_and_who_answered(tmp_path: Path) -> None:
    tiers = [
        {
            "name": "small",
            "model": "/models/s",
            "accept": {"score_at_least": -1000.0},
            "skip": [{"score_below": -2000.0, "to": "giant"}],
        },
        {"name": "medium", "model": "/models/m", "accept": {"score_at_least": -0.5}},
        {"name": "giant", "model": "org/g"},
    ]
    config = parse_config({"tiers": tiers}, source="test")
    async with fakes(tmp_path) as (endpoints, _):
        endpoints["medium"] = endpoints["small"]
        app = build_app(config, Serving(endpoints=endpoints, gear="night"))
        async with running(app) as client:
            before = (await client.get("/v1/cascade")).json()
            for _ in range(3):
                await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
            await client.post("/v1/chat/completions", json={"model": "giant", **BODY})
            after = (await client.get("/v1/cascade")).json()
            metrics = (await client.get("/metrics")).text
    always = {"score_below": None, "risk_above": None}
    assert after["thresholds"] == [
        {
            "asked": ["small"],
            "score_at_least": -1000.0,
            "risk_at_most": None,
            "else_ask": [
                {"score_below": -2000.0, "risk_above": None, "tier": "giant"},
                {**always, "tier": "medium"},
            ],
        },
        {
            "asked": ["medium"],
            "score_at_least": -0.5,
            "risk_at_most": None,
            "else_ask": [{**always, "tier": "giant"}],
        },
    ]
    assert after["gear"] == "night"
    assert [(tier["answered"], tier["share"]) for tier in before["tiers"]] == [(0, None)] * 3
    # All 3 of the cascade's requests stay at the small tier; the giant's own is none of these.
    shares = [(tier["answered"], tier["share"]) for tier in after["tiers"]]
    assert shares == [(3, 1), (0, 0), (0, 0)]
    info = 'hybridserve_cascade_info{component="%s",last_tier="giant"} 1.0'
    assert any(info % component in metrics for component in ("gpu", "cpu"))


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ({"traceparent": PARENT, "tracestate": "a=1,b=2"},) * 2,
        ({"traceparent": PARENT},) * 2,
        ({"traceparent": PARENT, "tracestate": "a=" + 600 * "x"}, {"traceparent": PARENT}),
        ({"traceparent": "00-" + 32 * "0" + PARENT[35:]}, {}),  # a trace id of zeros is none
        ({"traceparent": PARENT.upper(), "tracestate": "a=1"}, {}),
        ({"tracestate": "a=1"}, {}),
    ],
)
async def test_engines_get_the_clients_trace_context(
    tmp_path: Path, sent: dict[str, str], passed_on: dict[str, str]
) -> None:
    async with (
        fakes(tmp_path) as (endpoints, engines),
        running(build_app(config_of(-0.0), Serving(endpoints=endpoints))) as client,
    ):
        body = {"model": "hybridserve", **BODY}
        await client.post("/v1/chat/completions", json=body, headers=sent)
    for name in ("small", "giant"):
        (headers,) = engines[name].headers
        found = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        assert found == passed_on


async def test_a_reasoning_tier_is_asked_for_token_ids_and_its_marker_is_looked_up(
    tmp_path: Path,
) -> None:
    config = config_of(-1000.0, engine={"reasoning_parser": "deepseek_r1"})
    async with (
        fakes(tmp_path) as (endpoints, engines),
        running(build_app(config, Serving(endpoints=endpoints))) as client,
    ):
        response = await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
    assert response.json()["hybridserve"]["attempts"][0]["score"] is not None
    assert engines["small"].bodies[0]["return_token_ids"] is True


async def test_without_a_single_end_token_no_answer_of_a_reasoning_tier_is_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"engine": {"reasoning_parser": "x"}, "reasoning_end_token": "two tokens"}
    async with (
        fakes(tmp_path) as (endpoints, _),
        running(build_app(config_of(-1000.0, **small), Serving(endpoints=endpoints))) as client,
    ):
        response = await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
    attempts = response.json()["hybridserve"]["attempts"]
    assert [attempt["decision"] for attempt in attempts] == ["escalate", "accept"]
    assert attempts[0]["reason"] == "the token that ends reasoning is not known"
    assert "is not one token" in caplog.text


async def test_a_tier_that_runs_elsewhere_is_asked_under_its_models_name(tmp_path: Path) -> None:
    async with fakes(tmp_path) as (endpoints, engines):
        address = endpoints["small"][0]
        small = {"model": "small", "endpoints": [address], "api_key_env": "HS_TEST_KEY"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HS_TEST_KEY", "secret")
            app = build_app(config_of(-1000.0, **small), Serving(endpoints=endpoints))
        async with running(app) as client:
            await client.post("/v1/chat/completions", json={"model": "hybridserve", **BODY})
    assert engines["small"].bodies[0]["model"] == "small"
    assert engines["small"].headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("small", "endpoints", "message"),
    [
        ({}, {"giant": ["unix:/g"]}, "tier 'small' has no endpoint"),
        (
            {"endpoints": ["http://a"], "api_key_env": "HS_ABSENT"},
            {"small": ["http://a"], "giant": ["unix:/g"]},
            "HS_ABSENT, which is not set",
        ),
    ],
)
def test_what_is_missing_is_told_before_anything_is_opened(
    small: dict[str, Any], endpoints: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_app(config_of(-1.0, **small), Serving(endpoints=endpoints))
