"""Asking a cascade through the real client: what is sent, recorded, retried, and gone on with."""

import asyncio
import io
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console
from rich.text import Text

from eval.asking.collect import cascade_client, collect, describe_cascade
from eval.asking.collect_progress import CollectProgress
from eval.questions.graders import Exact, GraderSpec
from eval.questions.prompts import PromptSet, read_prompts
from eval.recorded.attempts import Attempts, AttemptsFile, AttemptsHeader, read_attempts
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.errors import CannotBeDone

Ask = Callable[..., Any]


def error(status: int, message: str = "no", **headers: str) -> web.Response:
    body = {"error": {"message": message, "type": "t", "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)


class Collection:
    """A prompts file, an attempts file and a cascade."""

    def __init__(self, folder: Path, cascade: Any) -> None:
        self.folder = folder
        self.path = folder / "attempts.jsonl"
        self.cascade = cascade
        self.said = ""

    def prompts(self, *lines: dict[str, Any], grader: GraderSpec | None = None) -> PromptSet:
        path = self.folder / "prompts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_prompts(path, grader or Exact())

    async def run(
        self,
        prompts: PromptSet,
        *,
        chain: Sequence[str] = ("small", "big"),
        sampling: dict[str, Any] | None = None,
        concurrency: int = 4,
        max_retries: int = 0,
    ) -> Attempts:
        """Asks, and gives what the file holds then."""
        stderr = io.StringIO()
        try:
            async with cascade_client(
                self.cascade.base_url, "key", max_retries=max_retries
            ) as client:
                described = await describe_cascade(client)
                header = AttemptsHeader(
                    created="now",
                    tiers=described.tiers,
                    fingerprint=described.fingerprint,
                    sampling=sampling or {},
                    endpoints=("/v1/chat/completions",),
                    data_sha256=prompts.sha256,
                    labels=prompts.labels,
                    grader=None,
                )
                progress = CollectProgress(Console(file=stderr))
                with AttemptsFile(self.path, header) as file, progress:
                    await collect(
                        client,
                        prompts,
                        file,
                        chain=chain,
                        concurrency=concurrency,
                        progress=progress,
                    )
        finally:
            self.said = stderr.getvalue()
        return read_attempts(self.path)


@pytest.fixture
def collection(tmp_path: Path, cascade: Any) -> Collection:
    return Collection(tmp_path, cascade)


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "reference": f"big says {prompt}", "id": prompt, **more}


async def test_a_cascade_is_described(cascade: Any) -> None:
    cascade.tiers = {"small": 1, "big": None}
    async with cascade_client(cascade.base_url, "secret", max_retries=0) as client:
        found = await describe_cascade(client)
    assert [(t.name, t.model, t.active_parameters) for t in found.tiers] == [
        ("small", "m-small", 10**9),
        ("big", "m-big", None),
    ]
    assert found.fingerprint == {"hash": "f1", "parts": {"scorer": "s1"}}
    assert cascade.headers[0]["authorization"] == "Bearer secret"


async def test_no_key_of_another_service_is_sent(
    cascade: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for-somebody-else")
    async with cascade_client(cascade.base_url, None, max_retries=0) as client:
        await describe_cascade(client)
    assert cascade.headers[0]["authorization"] == "Bearer none"


async def test_what_is_sent(collection: Collection) -> None:
    prompts = collection.prompts(
        asked("a", request={"max_tokens": 5}), asked("b", endpoint="completions")
    )
    await collection.run(prompts, sampling={"temperature": 0}, concurrency=1)
    chat, completion = collection.cascade.bodies[:2]
    assert chat == {
        "model": "small",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 5,
        "temperature": 0,
        "hybridserve": {"assess": True},
    }
    assert completion == {
        "model": "small",
        "prompt": "b",
        "temperature": 0,
        "hybridserve": {"assess": True},
    }


async def test_what_is_recorded(collection: Collection) -> None:
    prompts = collection.prompts(asked("a", split="test", group="user"))
    found = await collection.run(prompts)
    small, big = (found.by_question["test", "a"][tier] for tier in ("small", "big"))
    assert (small.answer, small.correct) == ("small says a", False)
    assert (big.answer, big.correct) == ("big says a", True)
    assert (big.tier, big.model, big.group) == ("big", "m-big", "user")
    assert (big.score, big.reason, big.answer_key) == (-0.5, "the final tier", "big says a")
    assert big.features is not None
    assert big.features["mean_logprob"] == -0.5
    assert big.features["mean_margin"] is None
    assert (big.prompt_tokens, big.cached_tokens, big.completion_tokens) == (90, 16, 10)
    assert (big.latency_s, big.energy_j, big.output_type) == (0.25, None, "short")
    assert big.prompt_features["log_turns"] == pytest.approx(0.6931, abs=1e-4)  # log(1 + 1)


async def test_every_request_has_an_id_of_its_own_that_is_kept_with_its_answer(
    collection: Collection,
) -> None:
    collection.cascade.reply = lambda tier, prompt, n: (
        error(502, **{"retry-after": "0.01"}) if n == 1 else None
    )
    found = await collection.run(collection.prompts(asked("a")), max_retries=1, concurrency=1)
    _, refused, again, big = (h.get("x-request-id") for h in collection.cascade.headers)
    assert len({refused, again, big}) == 3
    assert found.by_question[None, "a"]["small"].request_id == again
    assert found.by_question[None, "a"]["big"].request_id == big


async def test_an_answer_without_a_score_says_why(collection: Collection) -> None:
    collection.cascade.changes = {
        "score": None,
        "features": None,
        "output_type": None,
        "answer_key": None,
        "no_score_reason": "the answer is empty",
    }
    found = await collection.run(collection.prompts(asked("a")))
    attempt = found.by_question[None, "a"]["small"]
    assert not attempt.has_failed
    assert (attempt.score, attempt.reason) == (None, "the answer is empty")


async def test_tool_calls_are_graded_as_json(collection: Collection) -> None:
    call = {"name": "weather", "arguments": '{"city": "Paris", "days": 1}'}
    broken = {"name": "weather", "arguments": '{"city": '}
    for calls, is_right in (([call], True), ([call, call], False), ([broken], False)):
        message = {"content": None, "tool_calls": [{"function": one} for one in calls]}
        ledger = json.loads(collection.cascade._answered("small", "a", is_chat=True).body)
        ledger["choices"] = [{"message": message}]
        collection.cascade.reply = lambda *_, body=ledger: web.json_response(body)
        reference = [["weather", {"days": 1, "city": "Paris"}]]
        line = {"prompt": "a", "grader": "json", "reference": reference, "id": str(len(calls))}
        found = await collection.run(collection.prompts(line), chain=("small",))
        assert found.by_question[None, line["id"]]["small"].correct is is_right
        collection.path.unlink()


async def test_tiers_are_asked_one_after_the_other_in_the_files_order(
    collection: Collection,
) -> None:
    names = [f"q{i}" for i in (3, 1, 2)]
    await collection.run(collection.prompts(*map(asked, names)), concurrency=1)
    expected = [(tier, name) for tier in ("small", "big") for name in names]
    assert collection.cascade.asked == expected


async def test_no_more_are_asked_at_a_time_than_allowed(collection: Collection) -> None:
    prompts = collection.prompts(*(asked(str(i)) for i in range(40)))
    await collection.run(prompts, concurrency=3)
    assert 1 < collection.cascade.most_running <= 3
    assert len(set(collection.cascade.asked)) == 80


async def test_a_chain_may_leave_tiers_out_and_be_widened_later(collection: Collection) -> None:
    collection.cascade.tiers = {"small": 1, "mid": 8, "big": 70}
    prompts = collection.prompts(asked("a"), asked("b"))
    await collection.run(prompts, chain=("small", "big"), concurrency=1)
    assert {tier for tier, _ in collection.cascade.asked} == {"small", "big"}
    found = await collection.run(prompts, chain=("small", "mid", "big"), concurrency=1)
    assert collection.cascade.asked[4:] == [("mid", "a"), ("mid", "b")]
    assert set(found.by_question[None, "a"]) == {"small", "mid", "big"}


async def test_a_stopped_collection_is_gone_on_with(collection: Collection) -> None:
    prompts = collection.prompts(*(asked(str(i)) for i in range(10)))
    cascade = collection.cascade
    cascade.hold_after = 12
    collecting = asyncio.create_task(collection.run(prompts, concurrency=2))
    await asyncio.to_thread(cascade.is_holding.wait)
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    # The 13th waits; the answer to the 12th may have been on its way.
    n_there = len(collection.path.read_text().splitlines()) - 1
    assert n_there in (11, 12)
    cascade.hold_after = None
    cascade.bodies.clear()
    found = await collection.run(prompts)
    # By question, since the request that was held may have come through only now.
    assert len(set(cascade.asked)) == 20 - n_there
    assert all(set(by_tier) == {"small", "big"} for by_tier in found.by_question.values())
    assert len(collection.path.read_text().splitlines()) == 1 + 20  # nothing twice


async def test_nothing_is_asked_twice(collection: Collection) -> None:
    prompts = collection.prompts(asked("a"))
    await collection.run(prompts)
    before = collection.path.read_bytes()
    await collection.run(prompts)
    assert len(collection.cascade.bodies) == 2
    assert collection.path.read_bytes() == before


@pytest.mark.parametrize("status", [429, 503, 502])
async def test_a_busy_server_is_asked_again_after_the_time_it_names(
    collection: Collection, status: int
) -> None:
    collection.cascade.reply = lambda tier, prompt, n: (
        error(status, **{"retry-after": "0.01"}) if n <= 2 else None
    )
    found = await collection.run(collection.prompts(asked("a")), max_retries=2)
    assert len(collection.cascade.bodies) == 4
    assert found.has_answer((None, "a"), "small")


async def test_a_failed_attempt_is_recorded_and_made_again_later(collection: Collection) -> None:
    prompts = collection.prompts(asked("a"), asked("b"))
    collection.cascade.reply = lambda tier, prompt, n: (
        error(400, "the prompt is too long") if (tier, prompt) == ("small", "b") else None
    )
    found = await collection.run(prompts, concurrency=1)
    failed = found.by_question[None, "b"]["small"]
    assert failed.has_failed
    assert (failed.reason, failed.correct, failed.score) == (
        "HTTP 400: the prompt is too long",
        None,
        None,
    )
    assert found.has_answer((None, "b"), "big")
    assert "small: 1 failed, the first: HTTP 400: the prompt is too long" in collection.said
    collection.cascade.reply = lambda *_: None
    found = await collection.run(prompts)
    assert collection.cascade.asked[4:] == [("small", "b")]
    assert found.has_answer((None, "b"), "small")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
async def test_what_no_prompt_would_fare_better_with_ends_the_collection(
    collection: Collection, status: int
) -> None:
    collection.cascade.reply = lambda tier, prompt, n: error(status, "not now") if n > 2 else None
    prompts = collection.prompts(*(asked(str(i)) for i in range(10)))
    with pytest.raises(CannotBeDone, match=f"tier 'small': HTTP {status}: not now"):
        await collection.run(prompts, concurrency=1)
    assert len(collection.cascade.bodies) == 3
    assert len(read_attempts(collection.path).by_question) == 2


@pytest.mark.parametrize(("n", "n_asked"), [(3, 3), (50, 20)])
async def test_a_tier_that_fails_at_everything_ends_the_collection(
    collection: Collection, n: int, n_asked: int
) -> None:
    collection.cascade.reply = lambda *_: error(400, "unknown field")
    prompts = collection.prompts(*(asked(str(i)) for i in range(n)))
    words = f"tier 'small' failed at each of the first {n_asked} prompts: HTTP 400: unknown field"
    with pytest.raises(CannotBeDone, match=words):
        await collection.run(prompts, concurrency=1)
    assert len(collection.cascade.bodies) == n_asked


async def test_prompts_that_always_fail_do_not_end_a_later_run(collection: Collection) -> None:
    prompts = collection.prompts(*(asked(str(i)) for i in range(3)))
    collection.cascade.reply = lambda tier, prompt, n: error(400) if prompt == "1" else None
    for _ in range(2):
        found = await collection.run(prompts)
        assert found.by_question[None, "1"]["big"].has_failed
    assert found.has_answer((None, "2"), "big")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"choices": []},
            "not that of an assessed request: Object missing required field `hybridserve`",
        ),
        ({"choices": [], "hybridserve": {"attempts": []}}, "0 answers and 0 attempts in one resp"),
        (["x"], "not that of an assessed request"),
    ],
)
async def test_a_server_that_does_not_assess(
    collection: Collection, body: object, words: str
) -> None:
    collection.cascade.reply = lambda *_: web.json_response(body)
    with pytest.raises(CannotBeDone, match=words):
        await collection.run(collection.prompts(asked("a")))


async def test_an_answer_that_is_no_json(collection: Collection) -> None:
    collection.cascade.reply = lambda *_: web.Response(text="<html>")
    with pytest.raises(
        CannotBeDone, match="not that of an assessed request: Expected `object`, got `str`"
    ):
        await collection.run(collection.prompts(asked("a")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": {"older": 1.0}}, "the server computes features of another version"),
        ({"score": 0.5}, "score: Expected `float` <= 1e-06"),
        (
            {"features": dict.fromkeys(FEATURE_NAMES, "x")},
            r"features\[...\]: Expected `float \| null`, got `str`",
        ),
    ],
)
async def test_assessments_of_another_version(
    collection: Collection, changes: dict[str, Any], words: str
) -> None:
    collection.cascade.changes = changes
    with pytest.raises(CannotBeDone, match=words):
        await collection.run(collection.prompts(asked("a")))


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    async with cascade_client(base_url, None, max_retries=0) as client:
        with pytest.raises(CannotBeDone, match=r"/v1/cascade: Connection error\. \(.+\)"):
            await describe_cascade(client)


async def test_a_base_url_without_v1(cascade: Any) -> None:
    async with cascade_client(cascade.base_url.removesuffix("/v1"), None, max_retries=0) as client:
        with pytest.raises(
            CannotBeDone, match="cascade does not exist: --base-url must name a Hybrid"
        ):
            await describe_cascade(client)


async def test_a_cascade_that_is_no_cascade(cascade: Any) -> None:
    cascade.fingerprint = "f1"
    async with cascade_client(cascade.base_url, None, max_retries=0) as client:
        with pytest.raises(CannotBeDone, match="describe a cascade: fingerprint: Expected `object"):
            await describe_cascade(client)


async def test_progress_without_a_terminal_is_a_line_now_and_then(collection: Collection) -> None:
    prompts = collection.prompts(*(asked(str(i)) for i in range(30)))
    await collection.run(prompts, concurrency=1)
    lines = collection.said.splitlines()
    # 0, then every tenth part: 3, 6, ... 30
    assert lines == [f"{t}: {n} of 30" for t in ("small", "big") for n in range(0, 31, 3)]


def test_progress_on_a_terminal_is_a_bar_per_tier(make_attempt: Ask) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with CollectProgress(console) as progress:
        for tier in ("small", "big[int4]"):
            progress.begin(tier, n=3, n_done=1)
            progress.advance(make_attempt("q", tier))
            progress.advance(make_attempt("r", tier, answer=None, correct=None, reason="lost"))
            progress.end()
    shown = Text.from_ansi(console.file.getvalue()).plain
    assert "small" in shown
    assert "big[int4]" in shown
    assert "3/3 1 failed" in shown
    assert "small: 1 failed, the first: lost" in shown
