"""The demo cascade on real vLLM engines, spoken to by the official openai client."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import orjson
import psutil
import pytest

from launch.demo.check import check, running_demo
from launch.demo.questions import distinct_questions

pytestmark = pytest.mark.engine

EASY = [{"role": "user", "content": "Which is larger, 52 or 17?"}]
LONG_OUTPUT = {"min_tokens": 400, "ignore_eos": True}
N_LONG_ANSWERS = 128
"""Together many seconds of work, far more than it takes to notice that a client has left."""
N_CHECK_QUESTIONS = 60
UNFINISHED = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@dataclass(frozen=True)
class Demo:
    """A running demo: where it listens, and the sockets of its engines by tier."""

    base_url: str
    run_folder: Path
    sockets: dict[str, str]

    def engine_metric(self, tier: str, name: str) -> float:
        transport = httpx.HTTPTransport(uds=self.sockets[tier])
        with httpx.Client(transport=transport) as client:
            text = client.get("http://engine/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def client(self, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key="none", max_retries=0, **options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    run_folder = tmp_path_factory.mktemp("run")
    with running_demo("--run-folder", str(run_folder)) as base_url:
        endpoints = orjson.loads((run_folder / "endpoints.json").read_bytes())
        sockets = {
            tier: address.removeprefix("unix:")
            for tier, addresses in endpoints["tiers"].items()
            for address in addresses
        }
        yield Demo(base_url, run_folder, sockets)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(run_folder) in _words(p)]
    assert not left, "engine processes outlived the demo"
    assert not any(Path(socket).exists() for socket in sockets.values())


def _words(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])


def test_cascade_answers_and_shows_its_ledger(demo: Demo) -> None:
    with demo.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="hybridserve", messages=EASY, temperature=0
        )
    completion = raw.parse()
    ledger = completion.model_extra["hybridserve"]
    assert completion.choices[0].message.content == "52"
    assert completion.choices[0].logprobs is None
    assert raw.headers["x-hybridserve-tier"] == ledger["tier"]
    assert raw.headers["x-request-id"]
    assert completion.model == ledger["attempts"][-1]["model"]
    assert ledger["attempts"][-1]["decision"] == "accept"
    assert ledger["certified"] is True
    assert 0.5 < ledger["confidence"] <= 1
    assert raw.headers["x-hybridserve-confidence"] == f"{ledger['confidence']:.6g}"
    first = ledger["attempts"][0]
    assert 0 <= first["risk"] < 0.5
    assert first["tier"] == "small"
    assert first["score"] < 0
    assert first["completion_tokens"] > 0
    assert first["energy_j"] is None


def test_the_shipped_certificate_is_of_the_cascade_that_runs(demo: Demo) -> None:
    with demo.client() as client:
        cascade = client.get("/cascade", cast_to=httpx.Response).json()
    assert (cascade["state"], cascade["reasons"]) == ("certified", [])
    assert cascade["certificate"]["epsilon"] == 0.01
    assert cascade["watch"]["status"] == "ok"


def test_a_confidence_that_no_small_tier_reaches_asks_the_giant(demo: Demo) -> None:
    with demo.client() as client:
        completion = client.chat.completions.create(
            model="hybridserve",
            messages=EASY,
            temperature=0,
            extra_body={"hybridserve": {"min_confidence": 1}},
        )
    ledger = completion.model_extra["hybridserve"]
    assert ledger["tier"] == "giant"
    assert ledger["certified"] is True  # stricter than the policy, so still covered
    assert "which the request demands" in ledger["attempts"][0]["reason"]


def test_other_sampling_settings_than_the_certificates_are_answered_uncertified(
    demo: Demo,
) -> None:
    with demo.client() as client:
        completion = client.chat.completions.create(
            model="hybridserve", messages=EASY, temperature=0.7
        )
    assert completion.model_extra["hybridserve"]["certified"] is False


def test_easy_questions_stay_below_the_giant_and_accuracy_follows_it(demo: Demo) -> None:
    stream = distinct_questions("test", seed=11)
    questions = list(itertools.islice(stream, N_CHECK_QUESTIONS))
    report = asyncio.run(check(demo.base_url, questions))
    assert report["tiers"] == ["small", "medium", "giant"]
    assert report["below_giant"] > 0.3
    # 60 questions: the bound is loose here; `make demo-check` asks 300.
    assert report["accuracy"] >= report["giant_accuracy"] - 0.1


def test_giant_reasons_and_its_reasoning_is_no_part_of_the_answer(demo: Demo) -> None:
    with demo.client() as client:
        completion = client.chat.completions.create(model="giant", messages=EASY, temperature=0)
    message = completion.choices[0].message
    assert message.content.strip() == "52"
    assert message.model_extra["reasoning"]


def test_prompt_tokens_that_the_engine_had_cached_are_told(demo: Demo) -> None:
    """More than two blocks of 128 tokens, as vLLM caches them on the CPU."""
    prompt = "What is 12 + 30? " * 25
    with demo.client() as client:
        first, second = (
            client.completions.create(
                model="small", prompt=prompt, temperature=0, max_tokens=2
            ).hybridserve["attempts"][0]  # type: ignore[attr-defined]
            for _ in range(2)
        )
    assert first["cached_tokens"] == 0
    assert 0 < second["cached_tokens"] < second["prompt_tokens"]


def test_overrides_raise_and_bound_the_tiers(demo: Demo) -> None:
    with demo.client() as client:
        for override, tier in (
            ({"min_tier": "medium"}, "medium"),
            ({"max_tier": "small"}, "small"),
        ):
            completion = client.chat.completions.create(
                model="hybridserve", messages=EASY, extra_body={"hybridserve": override}
            )
            attempts = completion.model_extra["hybridserve"]["attempts"]
            assert tier in (attempts[0]["tier"], attempts[-1]["tier"])
            assert {a["tier"] for a in attempts} <= (
                {"medium", "giant"} if tier == "medium" else {"small"}
            )


def test_log_probabilities_are_the_clients_as_it_asked(demo: Demo) -> None:
    with demo.client() as client:
        for k in (0, 2):
            completion = client.chat.completions.create(
                model="hybridserve", messages=EASY, logprobs=True, top_logprobs=k
            )
            content = completion.choices[0].logprobs.content
            assert content
            assert all(len(token.top_logprobs) == k for token in content)


@pytest.mark.parametrize("tier", ["small", "giant"])
def test_streamed_answer_is_the_unstreamed_one(demo: Demo, tier: str) -> None:
    """`max_tier: small` holds nothing back and is live; the giant is live behind two held tiers."""
    override = {"hybridserve": {"max_tier": "small"} if tier == "small" else {"min_tier": "giant"}}
    with demo.client() as client:
        whole = client.chat.completions.create(
            model="hybridserve", messages=EASY, temperature=0, extra_body=override
        )
        chunks = list(
            client.chat.completions.create(
                model="hybridserve",
                messages=EASY,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=override,
            )
        )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    ledger = chunks[-1].model_extra["hybridserve"]
    assert ledger["tier"] == tier
    assert ledger["attempts"][-1]["ttft_s"] > 0
    assert all("hybridserve" not in (chunk.model_extra or {}) for chunk in chunks[:-1])


def test_held_stream_shows_only_the_accepted_answer(demo: Demo) -> None:
    with demo.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="hybridserve", messages=EASY, temperature=0, stream=True
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "52"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["hybridserve"]["tier"]
    assert {chunk.model for chunk in chunks} == {chunks[-1].model}


def test_completions_endpoint_whole_and_streamed(demo: Demo) -> None:
    prompt = "<|user|>Which is larger, 52 or 17?<|end|><|assistant|>"
    with demo.client() as client:
        whole = client.completions.create(model="hybridserve", prompt=prompt, temperature=0)
        chunks = list(
            client.completions.create(
                model="hybridserve", prompt=prompt, temperature=0, stream=True
            )
        )
    assert whole.choices[0].text == "52"
    assert whole.choices[0].logprobs is None
    assert "".join(chunk.choices[0].text for chunk in chunks) == "52"
    assert chunks[-1].model_extra["hybridserve"]["attempts"]


async def test_async_client_and_many_at_once(demo: Demo) -> None:
    async with openai.AsyncOpenAI(base_url=demo.base_url, api_key="none") as client:
        bodies = await asyncio.gather(
            *(
                client.chat.completions.create(model="hybridserve", messages=EASY, temperature=0)
                for _ in range(24)
            )
        )
    assert {body.choices[0].message.content for body in bodies} == {"52"}
    assert len({body.id for body in bodies}) == 24


def test_models_health_ready_metrics(demo: Demo) -> None:
    with demo.client() as client:
        names = [model.id for model in client.models.list()]
    assert names == ["hybridserve", "small", "medium", "giant"]
    root = demo.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").status_code == 200
    assert httpx.get(f"{root}/ready").json()["ready"] is True
    assert 'hybridserve_attempts_total{decision="accept",kind="cascade",tier="small"}' in (
        httpx.get(f"{root}/metrics").text
    )


@pytest.mark.parametrize(
    ("options", "error", "needle"),
    [
        ({"model": "gpt-none"}, openai.NotFoundError, "allowed: hybridserve, small"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"temperature": -1}, openai.BadRequestError, "temperature = -1"),
        ({"top_logprobs": 3}, openai.BadRequestError, "logprobs"),
        (
            {"messages": [{"role": "user", "content": "9" * 5000}]},
            openai.BadRequestError,
            "context",
        ),
        ({"max_tokens": 100_000}, openai.BadRequestError, "100000"),
        ({"extra_body": {"hybridserve": {"min_tier": "huge"}}}, openai.BadRequestError, "huge"),
        ({"extra_body": {"hybridserve": {"typo": 1}}}, openai.BadRequestError, "typo"),
        ({"extra_body": {"top_k": -7}}, openai.BadRequestError, "top_k"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_are_openai_errors(
    demo: Demo,
    options: dict[str, object],
    error: type[openai.APIStatusError],
    needle: str,
    stream: bool,
) -> None:
    with demo.client() as client, pytest.raises(error) as caught:
        client.chat.completions.create(
            **{"model": "hybridserve", "messages": EASY, "stream": stream, **options}
        )
    assert needle in caught.value.body["message"]
    assert caught.value.body["type"]


@pytest.mark.parametrize("body", [b"no json", b"[1]", b'{"model": "hybridserve"}', b"", b"\xff"])
def test_bodies_that_are_no_request_are_400(demo: Demo, body: bytes) -> None:
    response = httpx.post(f"{demo.base_url}/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def idle(demo: Demo, tier: str, *, within_s: float) -> None:
    """Wait until the tier's engine has no request, running or waiting."""
    async with asyncio.timeout(within_s):
        while any(demo.engine_metric(tier, name) for name in UNFINISHED):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("tier", "send"),
    [
        ("giant", lambda c, **o: next(iter(c.chat.completions.create(stream=True, **o)))),
        ("small", lambda c, **o: c.with_options(timeout=0.2).chat.completions.create(**o)),
        (
            "small",
            lambda c, **o: next(
                iter(c.with_options(timeout=0.2).chat.completions.create(stream=True, **o))
            ),
        ),
    ],
    ids=["live stream", "whole answer", "held stream"],
)
async def test_a_client_that_leaves_ends_the_engines_work(
    demo: Demo, tier: str, send: Callable[..., object]
) -> None:
    await idle(demo, tier, within_s=120)  # the watch still shadows answers of earlier tests
    generated = demo.engine_metric(tier, "vllm:generation_tokens_total")
    override = {"min_tier": tier} if tier == "giant" else {}
    with demo.client() as client, contextlib.suppress(openai.APITimeoutError):
        send(
            client,
            model="hybridserve",
            messages=EASY,
            max_tokens=400,
            n=N_LONG_ANSWERS,
            temperature=1,
            extra_body={**LONG_OUTPUT, "hybridserve": override},
        )
    await idle(demo, tier, within_s=10)
    assert (
        demo.engine_metric(tier, "vllm:generation_tokens_total") - generated < 400 * N_LONG_ANSWERS
    )


def test_a_tier_whose_engine_died_is_passed_over_and_the_ledger_says_so(demo: Demo) -> None:
    """Last in this file: the engine is started again, which takes longer than this test."""
    for process in psutil.process_iter(["cmdline"]):
        words = _words(process)
        is_guard = "--stop-timeout-s" in words
        if demo.sockets["small"] in words and "api_server" in words and not is_guard:
            process.kill()
    with demo.client() as client:
        completion = client.chat.completions.create(
            model="hybridserve", messages=EASY, temperature=0
        )
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="small", messages=EASY)
    assert completion.choices[0].message.content.strip() == "52"
    first, second, *_ = completion.model_extra["hybridserve"]["attempts"]
    assert (first["tier"], first["decision"]) == ("small", "fail")
    assert "small" in first["reason"]
    assert second["tier"] == "medium"
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"]
    ready = httpx.get(f"{demo.base_url.removesuffix('/v1')}/ready")
    assert (ready.status_code, ready.json()["tiers"]["small"]) == (503, False)
