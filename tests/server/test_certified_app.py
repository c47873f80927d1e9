"""The whole front end with a certificate, over fake vLLM servers: what is served, told and watched.

A fake engine's log-probabilities are made from the bytes it answers: "7" scores -0.12, whose
confidence is 0.9427 and whose risk is 0.0287 by the certificate of `tests/conftest.py`; "zz" scores
-0.58, with 0.1419 and 0.4291. Risks up to 0.1 are accepted.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.promise.fingerprint import CheckpointFacts
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import FakeVllm, create_fake_vllm_app, serving

pytestmark = pytest.mark.usefixtures("without_river")

Values = Callable[..., dict[str, Any]]
SURE, UNSURE = "7", "zz"
PATH = "/v1/chat/completions"
CHECKPOINTS = {"small": CheckpointFacts(content="sha256:s", active_parameters=14)}


@dataclass
class Cascade:
    """Two fake engines, and front ends over them."""

    endpoints: dict[str, list[str]]
    engines: dict[str, FakeVllm]
    folder: Path

    @contextlib.asynccontextmanager
    async def served(
        self, certificate: dict[str, Any] | None = None, *, config: Any = None, **more: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A front end, in the states that `more` of `Serving` makes."""
        app = build_app(
            config or config_of(),
            Serving(
                endpoints=self.endpoints,
                checkpoints=CHECKPOINTS,
                certificate=certificate and Certificate.model_validate(certificate),
                state_folder=self.folder,
                **more,
            ),
        )
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://hs") as client,
        ):
            yield client

    async def fingerprint(self) -> dict[str, Any]:
        """As a person would take it: from the running cascade."""
        async with self.served() as client:
            found: dict[str, Any] = (await client.get("/v1/cascade")).json()["fingerprint"]
            return found


def config_of(**more: Any) -> Any:
    tiers = [
        {"name": "small", "model": "/models/s", "accept": {"score_at_least": -9}},
        {"name": "giant", "model": "org/g"},
    ]
    return parse_config({"tiers": tiers, **more}, source="test")


@pytest.fixture
async def cascade(tmp_path: Path) -> AsyncIterator[Cascade]:
    apps = {name: create_fake_vllm_app(model=name) for name in ("small", "giant")}
    engines = {name: app.state.fake_vllm for name, app in apps.items()}
    for engine in engines.values():
        engine.answer = SURE
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {
            name: [await stack.enter_async_context(serving(app, tmp_path / f"{name}.sock"))]
            for name, app in apps.items()
        }
        yield Cascade(endpoints, engines, tmp_path)


def body(overrides: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    values = {
        "model": "hybridserve",
        "messages": [{"role": "user", "content": "abc"}],
        "temperature": 0,
        "hybridserve": overrides or {},
    }
    return {**values, **changes}


async def ledger(client: httpx.AsyncClient, *arguments: Any, **changes: Any) -> dict[str, Any]:
    response = await client.post(PATH, json=body(*arguments, **changes))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["hybridserve"]
    return found


async def told(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/cascade")).json()
    return found


async def test_the_certified_policy_is_served_and_its_answers_are_certified(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    async with cascade.served(certificate) as client:
        response = await client.post(PATH, json=body())
        cascade.engines["small"].answer = UNSURE
        escalated = await ledger(client)
    assert response.headers["x-hybridserve-tier"] == "small"
    # 1 / (1 + e^-2.8) = 0.94267582, told with six digits.
    assert response.headers["x-hybridserve-confidence"] == "0.942676"
    accepted = response.json()["hybridserve"]
    assert (accepted["tier"], accepted["certified"]) == ("small", True)
    assert accepted["confidence"] == pytest.approx(0.9426758, abs=1e-7)
    assert accepted["attempts"][0]["risk"] == pytest.approx(0.0286621, abs=1e-7)
    assert "features" not in accepted["attempts"][0]
    assert (escalated["tier"], escalated["certified"]) == ("giant", True)
    assert escalated["confidence"] is None
    # 1 / (1 + e^1.8) = 0.1418511
    assert escalated["attempts"][0]["confidence"] == pytest.approx(0.1418511, abs=1e-7)
    assert escalated["attempts"][0]["decision"] == "escalate"


async def test_the_cascade_tells_what_it_is_and_what_it_promises(
    cascade: Cascade, certificate_values: Values
) -> None:
    fingerprint = await cascade.fingerprint()
    async with cascade.served(certificate_values(fingerprint=fingerprint)) as client:
        await ledger(client)
        found = await told(client)
    assert list(found) == [
        "served_model_name",
        "state",
        "reasons",
        "tiers",
        "thresholds",
        "gear",
        "certificate",
        "fingerprint",
        "energy",
        "watch",
    ]
    assert (found["served_model_name"], found["state"]) == ("hybridserve", "certified")
    assert found["reasons"] == []
    small, giant = found["tiers"]
    assert small == {
        "name": "small",
        "model": "s",
        "active_parameters": 14,
        "ready": True,
        "in_chain": True,
        "answered": 1,
        "share": 1.0,
    }
    (rule,) = found["thresholds"]
    assert rule["asked"] == ["small"]
    assert rule["score_at_least"] is None
    assert rule["risk_at_most"] == certificate_values()["policy"]["rules"][0]["accept_at_risk"]
    assert rule["else_ask"] == [
        {"score_below": None, "risk_above": rule["risk_at_most"], "tier": "giant"}
    ]
    assert found["gear"] is None
    assert (giant["model"], giant["active_parameters"], giant["in_chain"]) == ("org/g", None, True)
    assert found["fingerprint"] == fingerprint
    tiers = fingerprint["parts"]["tiers"]
    assert tiers["small"]["checkpoint"] == "sha256:s"
    assert tiers["giant"]["engine_version"] == "0.0.0+fake"
    certificate = found["certificate"]
    assert certificate["fingerprint"] == fingerprint["hash"]
    assert (certificate["epsilon"], certificate["delta"], certificate["loss"]) == (0.02, 0.1, "net")
    assert (certificate["cost_ratio"], certificate["acceptance"]) == (2.5, {"small": 0.5})
    assert (certificate["sampling"], certificate["has_strict_policy"]) == (
        {"temperature": 0},
        False,
    )
    assert not {"models", "gate", "policy", "strict_policy"} & certificate.keys()
    watch = found["watch"]
    assert (watch["status"], watch["level"], watch["reasons"]) == ("ok", "normal", [])
    assert watch["tiers"][0]["counts"]["accepted"] == 1
    assert watch["monitors"][0]["budget"] == pytest.approx(0.04)


async def test_metrics_show_the_state_and_the_watch(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    async with cascade.served(certificate) as client:
        await ledger(client)
        metrics = (await client.get("/metrics")).text.splitlines()
    async with cascade.served() as client:
        without = (await client.get("/metrics")).text.splitlines()
    assert 'hybridserve_cascade_state{state="certified"} 1.0' in metrics
    assert 'hybridserve_cascade_state{state="last_tier_only"} 0.0' in metrics
    assert 'hybridserve_watch_status{status="ok"} 1.0' in metrics
    assert 'hybridserve_watch_level{level="normal"} 1.0' in metrics
    assert 'hybridserve_watch_accepted_total{tier="small"} 1.0' in metrics
    assert 'hybridserve_certificate_status{status="valid"} 1.0' in metrics
    assert 'hybridserve_cascade_state{state="uncertified"} 1.0' in without
    assert 'hybridserve_certificate_status{status="none"} 1.0' in without
    assert not [line for line in without if "hybridserve_watch" in line]


async def test_without_a_certificate_the_cascade_says_that_it_promises_nothing(
    cascade: Cascade,
) -> None:
    async with cascade.served() as client:
        found, answer = await told(client), await ledger(client)
    assert (found["state"], found["certificate"], found["watch"]) == ("uncertified", None, None)
    assert all(tier["in_chain"] for tier in found["tiers"])
    assert (answer["tier"], answer["certified"], answer["confidence"]) == ("small", False, None)


async def changed_fingerprint(cascade: Cascade) -> dict[str, Any]:
    """That of this cascade with another vLLM at small."""
    fingerprint = await cascade.fingerprint()
    fingerprint["parts"]["tiers"]["small"]["engine_version"] = "0.31.0"
    return {**fingerprint, "hash": "sha256:other"}


DIFFERENCE = 'fingerprint differs: tiers.small.engine_version was "0.31.0", is "0.0.0+fake"'


async def test_with_another_fingerprint_the_last_tier_answers_everything_and_says_why(
    cascade: Cascade, certificate_values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = certificate_values(fingerprint=await changed_fingerprint(cascade))
    async with cascade.served(certificate) as client:
        answer, found = await ledger(client), await told(client)
    assert [attempt["tier"] for attempt in answer["attempts"]] == ["giant"]
    assert not answer["certified"]
    assert (found["state"], found["reasons"]) == ("last_tier_only", [DIFFERENCE])
    assert found["watch"] is None
    assert f"certificate: {DIFFERENCE}" in caplog.text


async def test_with_another_fingerprint_a_person_may_have_the_policy_served_uncertified(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await changed_fingerprint(cascade))
    async with cascade.served(certificate, allow_uncertified=True) as client:
        answer, found = await ledger(client), await told(client)
    assert (answer["tier"], answer["certified"]) == ("small", False)
    assert answer["confidence"] == pytest.approx(0.9426758, abs=1e-7)
    assert (found["state"], found["reasons"], found["watch"]) == ("uncertified", [DIFFERENCE], None)


async def test_a_certificate_that_certifies_nothing_has_the_last_tier_answer_everything(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(
        fingerprint=await cascade.fingerprint(),
        certified=False,
        policy=None,
        chain=["giant"],
        models=[],
    )
    async with cascade.served(certificate) as client:
        answer, found = await ledger(client), await told(client)
    assert [attempt["tier"] for attempt in answer["attempts"]] == ["giant"]
    assert not answer["certified"]
    assert found["state"] == "last_tier_only"
    assert "nothing which pays can be certified" in found["reasons"][0]
    assert [tier["in_chain"] for tier in found["tiers"]] == [False, True]


async def test_a_certificate_for_other_tiers_is_refused_before_anything_is_opened(
    cascade: Cascade, certificate_values: Values
) -> None:
    tiers = ["small", "huge"]
    nothing = {"certified": False, "policy": None, "chain": ["huge"], "models": []}
    other = certificate_values(tiers=tiers, **nothing)
    with pytest.raises(ConfigError, match="certificate is for the tiers small, huge"):
        async with cascade.served(other):
            pass


async def test_requests_bound_a_certified_cascade(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    async with cascade.served(certificate) as client:
        reached = await ledger(client, {"min_confidence": 0.9})
        missed = await ledger(client, {"min_confidence": 0.95})
        last = await ledger(client, {"policy": "last"})
        capped = await ledger(client, {"max_tier": "small"})
        warm = await ledger(client, temperature=1)
        strict = await client.post(PATH, json=body({"policy": "strict"}))
    assert (reached["tier"], reached["certified"]) == ("small", True)
    assert (missed["tier"], missed["certified"]) == ("giant", True)
    assert missed["attempts"][0]["reason"] == "confidence 0.9427 < 0.95, which the request demands"
    assert [attempt["tier"] for attempt in last["attempts"]] == ["giant"]
    assert last["certified"]
    assert (capped["tier"], capped["certified"]) == ("small", False)
    assert (warm["tier"], warm["certified"]) == ("small", False)
    assert strict.status_code == 400
    assert strict.json()["error"]["param"] == "hybridserve.policy"


async def test_a_stricter_policy_is_served_to_those_who_ask_for_it(
    cascade: Cascade, certificate_values: Values, policy_values: Values
) -> None:
    # A risk of 0.0287 is above 0.02.
    certificate = certificate_values(
        fingerprint=await cascade.fingerprint(), strict_policy=policy_values(0.02, acceptance=0.2)
    )
    async with cascade.served(certificate) as client:
        strict, found = await ledger(client, {"policy": "strict"}), await told(client)
    assert (strict["tier"], strict["certified"]) == ("giant", True)
    assert strict["attempts"][0]["reason"] == "risk 0.02866 > 0.02"
    assert found["certificate"]["has_strict_policy"]


async def test_a_stream_tells_confidence_and_certificate_too(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    async with cascade.served(certificate) as client:
        response = await client.post(PATH, json=body(stream=True))
    assert response.headers["x-hybridserve-confidence"] == "0.942676"
    assert '"certified":true' in response.text


async def test_a_tier_can_be_asked_for_all_that_is_known_of_its_answer(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    async with cascade.served(certificate) as client:
        found = await ledger(client, {"assess": True}, model="small")
        last = await ledger(client, {"assess": True}, model="giant")
        bounded = body({"assess": True, "min_confidence": 0.5}, model="small")
        refused = await client.post(PATH, json=bounded)
    assert cascade.engines["small"].bodies[-1]["top_logprobs"] == 5
    (attempt,) = found["attempts"]
    assert (attempt["answer_key"], attempt["output_type"]) == ("7", "short")
    assert list(attempt["features"]) == list(FEATURE_NAMES)
    assert attempt["features"]["mean_logprob"] == pytest.approx(-0.12)
    # Alternatives are 1 nat apart: e^-0.12 (1 - e^-1) = 0.5606.
    assert attempt["features"]["mean_margin"] == pytest.approx(0.5606404, abs=1e-6)
    assert attempt["no_score_reason"] is None
    assert (attempt["score"], found["certified"]) == (pytest.approx(-0.12), False)
    assert last["attempts"][0]["score"] == pytest.approx(-0.12)
    assert last["attempts"][0]["confidence"] is None
    assert refused.status_code == 400
    assert "overrides are for the cascade" in refused.json()["error"]["message"]


async def test_an_answer_that_cannot_be_scored_tells_the_reason(cascade: Cascade) -> None:
    cascade.engines["small"].answer = "a longer answer"
    async with cascade.served() as client:
        fmt = {"response_format": {"type": "json_object"}}
        found = await ledger(client, {"assess": True}, model="small", **fmt)
    (attempt,) = found["attempts"]
    assert (attempt["score"], attempt["features"], attempt["output_type"]) == (None, None, None)
    assert "JSON" in attempt["no_score_reason"]
    assert attempt["answer_key"] == "a longer answer"


ALL_SHADOWED = {"shadow_share": 1.0}


async def asked_until_alarm(client: httpx.AsyncClient) -> int:
    """Requests until the watch raises its alarm; 40 at most."""
    for n in range(1, 41):
        await ledger(client)
        if (await told(client))["watch"]["alarm"] is not None:
            return n
    raise AssertionError("no alarm")


async def test_answers_that_disagree_with_the_last_tier_raise_an_alarm_that_stays(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    watching = config_of(watch=ALL_SHADOWED)
    cascade.engines["giant"].answer = "8"
    async with cascade.served(certificate, config=watching) as client:
        assert (await ledger(client))["tier"] == "small"
        # Eight losses in a row raise it (tests/unit/watch/test_control.py).
        assert await asked_until_alarm(client) >= 7
        answer, found = await ledger(client), await told(client)
        metrics = (await client.get("/metrics")).text
    assert (answer["tier"], answer["certified"]) == ("giant", True)
    assert [attempt["tier"] for attempt in answer["attempts"]] == ["giant"]
    watch = found["watch"]
    assert (watch["status"], watch["level"]) == ("alarm", "escalate")
    assert watch["alarm"]["monitor"] == "all tiers"
    assert watch["shadow_completion_tokens"] >= 8
    assert 'hybridserve_watch_status{status="alarm"} 1.0' in metrics

    # A restart does not lift it, agreement neither: only a person does.
    cascade.engines["giant"].answer = SURE
    async with cascade.served(certificate, config=watching) as client:
        assert (await told(client))["watch"]["level"] == "escalate"
        assert (await ledger(client))["tier"] == "giant"
    async with cascade.served(certificate, config=watching, acknowledged_by="Ada") as client:
        assert (await told(client))["watch"]["status"] == "ok"
        assert (await ledger(client))["tier"] == "small"


async def test_answers_that_agree_raise_no_alarm(
    cascade: Cascade, certificate_values: Values
) -> None:
    certificate = certificate_values(fingerprint=await cascade.fingerprint())
    cascade.engines["giant"].answer = "7."  # the same in normal form
    async with cascade.served(certificate, config=config_of(watch=ALL_SHADOWED)) as client:
        for _ in range(12):
            await ledger(client)
        found = await told(client)
    counts = found["watch"]["tiers"][0]["counts"]
    assert (found["watch"]["status"], counts["accepted"], counts["disagreed"]) == ("ok", 12, 0)
    assert counts["shadowed"] == 12


async def test_an_alarm_takes_the_stricter_policy_first(
    cascade: Cascade, certificate_values: Values, policy_values: Values
) -> None:
    certificate = certificate_values(
        fingerprint=await cascade.fingerprint(), strict_policy=policy_values(0.02, acceptance=0.2)
    )
    cascade.engines["giant"].answer = "8"
    async with cascade.served(certificate, config=config_of(watch=ALL_SHADOWED)) as client:
        await asked_until_alarm(client)
        assert (await told(client))["watch"]["level"] == "strict"
        answer = await ledger(client)
    assert answer["attempts"][0]["reason"] == "risk 0.02866 > 0.02"
    assert answer["certified"]


async def test_keys_guard_what_the_cascade_tells_of_itself(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HS_TEST_KEYS", "secret")
    config = config_of(server={"api_keys_env": "HS_TEST_KEYS"})
    async with cascade.served(config=config) as client:
        refused = await client.get("/v1/cascade")
        allowed = await client.get("/v1/cascade", headers={"authorization": "Bearer secret"})
    assert (refused.status_code, allowed.status_code) == (401, 200)
