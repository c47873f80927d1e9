"""Small files of recorded answers, and a cascade to ask."""

import asyncio
import csv
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from eval.recorded.attempts import RecordedAttempt
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES

COLUMNS = (
    "split",
    "query_id",
    "model",
    "correct",
    "raw_confidence",
    "prompt_tokens",
    "completion_tokens",
    "answer_key",
)

Row = dict[str, Any]


def recorded(query_id: object, model: str, /, **changes: object) -> Row:
    """One row: right, with a score of -0.5, 90 + 10 tokens and the answer "yes"."""
    row = {
        "split": "test",
        "query_id": query_id,
        "model": model,
        "correct": 1,
        "raw_confidence": -0.5,
        "prompt_tokens": 90,
        "completion_tokens": 10,
        "answer_key": "yes",
    }
    return row | changes


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes rows as CSV; the columns are those of the first row, or of the format without any."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys() if rows else COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def cascade_rows(n: int, *, skills: Mapping[str, float], seed: int = 0) -> list[Row]:
    """Questions of difficulty d ~ U(0, 1): right with probability p = sigmoid(8 (skill - d)).

    The score is the logarithm of p, seen through noise. Ids repeat in the two splits.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        difficulty = rng.random()
        for model, skill in skills.items():
            p_right = 1 / (1 + np.exp(-8 * (skill - difficulty)))
            is_right = rng.random() < p_right
            seen = np.clip(p_right + rng.normal(0.0, 0.05), 0.01, 0.99)
            rows.append(
                recorded(
                    i // 2,
                    model,
                    split=("train", "test")[i % 2],
                    correct=int(is_right),
                    raw_confidence=f"{np.log(seen):.4f}",
                    answer_key="right" if is_right else f"wrong{rng.integers(3)}",
                )
            )
    return rows


def recorded_attempt(query_id: str, tier: str, /, **changes: Any) -> RecordedAttempt:
    """An attempt that is right, with a score of -0.5, 90 + 10 tokens and the answer "yes"."""
    values: dict[str, Any] = {
        "split": None,
        "query_id": query_id,
        "group": None,
        "tier": tier,
        "model": f"m-{tier}",
        "correct": True,
        "answer": "yes",
        "answer_key": "yes",
        "score": -0.5,
        "reason": "the final tier",
        "features": dict.fromkeys(FEATURE_NAMES, 0.0),
        "output_type": "short",
        "prompt_features": dict.fromkeys(PROMPT_FEATURE_NAMES, 0.0),
        "prompt_tokens": 90,
        "cached_tokens": 0,
        "completion_tokens": 10,
        "latency_s": 0.1,
        "energy_j": None,
        "energy_source": None,
    }
    return RecordedAttempt(**values | changes)


@pytest.fixture(scope="session")
def make_attempt() -> Callable[..., RecordedAttempt]:
    """`recorded_attempt`, for tests."""
    return recorded_attempt


@pytest.fixture(scope="session")
def record() -> Callable[..., Row]:
    """`recorded`, for tests."""
    return recorded


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """SIGINT as a terminal's process has it: one that a shell put in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[Iterable[Mapping[str, Any]]], Path]:
    """Writes rows to a file of its own and gives its path."""
    written_so_far: list[Path] = []

    def write(rows: Iterable[Mapping[str, Any]]) -> Path:
        path = written(tmp_path / f"records{len(written_so_far)}.csv", rows)
        written_so_far.append(path)
        return path

    return write


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Row]]:
    """`cascade_rows`, for tests."""
    return cascade_rows


@pytest.fixture(scope="session")
def cascade_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 questions to three models; accepting the small answers that look right pays."""
    rows = cascade_rows(1000, skills={"small-1b": 0.5, "mid-8b": 0.8, "big-70b": 1.0})
    return written(tmp_path_factory.mktemp("records") / "cascade.csv", rows)


class FakeCascade:
    """A front end as `hs-calibrate prompts` needs it, which answers as it is told.

    Attributes:
        tiers: Name to billions of active parameters, or None where they are unknown.
        answer: Text of a tier's answer to a prompt.
        reply: In place of an answer: what to say to (tier, prompt, requests so far), or None.
        key_of: Normal form of an answer.
        changes: Fields of the ledger's last attempt, in place of the usual ones.
        settles: Told the id and the tier of a request that was answered.
        hold_after: Requests beyond so many wait until the server ends; None holds none.
        is_holding: Set when one waits.
        bodies: Every generation request, in the order of coming.
        base_url: Known while it serves.
    """

    def __init__(self) -> None:
        self.tiers: dict[str, int | None] = {"small": 1, "big": 70}
        self.answer: Callable[[str, str], str] = lambda tier, prompt: f"{tier} says {prompt}"
        self.reply: Callable[[str, str, int], web.Response | None] = lambda *_: None
        self.key_of: Callable[[str], str | None] = lambda text: text.casefold()
        self.changes: Mapping[str, Any] = {}
        self.settles: Callable[[str, str], None] = lambda request_id, tier: None
        self.fingerprint: dict[str, Any] | None = {"hash": "f1", "parts": {"scorer": "s1"}}
        self.hold_after: int | None = None
        self.is_holding = threading.Event()
        self.released = asyncio.Event()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.n_running = self.most_running = 0
        self.base_url = ""

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Tier and prompt of every generation request."""
        return [(body["model"], _prompt_of(body)) for body in self.bodies]

    def app(self) -> web.Application:
        """The application, for a server."""
        app = web.Application()
        app.router.add_get("/v1/cascade", self._describe)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        return app

    async def _describe(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        tiers = [
            {
                "name": name,
                "model": f"m-{name}",
                "active_parameters": b and b * 10**9,
                "ready": True,
            }
            for name, b in self.tiers.items()
        ]
        body = {"served_model_name": "hybridserve", "tiers": tiers, "fingerprint": self.fingerprint}
        return web.json_response(body)

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.n_running += 1
        self.most_running = max(self.most_running, self.n_running)
        try:
            await asyncio.sleep(0)  # so that the requests of other workers come in
            if self.hold_after is not None and len(self.bodies) > self.hold_after:
                self.is_holding.set()
                await self.released.wait()
            tier, prompt = body["model"], _prompt_of(body)
            said = self.reply(tier, prompt, len(self.bodies))
            if said is not None:
                return said
            answered = self._answered(tier, prompt, is_chat="messages" in body)
            answered.headers["x-request-id"] = request.headers["x-request-id"]
            self.settles(request.headers["x-request-id"], tier)
            return answered
        finally:
            self.n_running -= 1

    def _answered(self, tier: str, prompt: str, *, is_chat: bool) -> web.Response:
        text = self.answer(tier, prompt)
        attempt = {
            "tier": tier,
            "model": f"m-{tier}",
            "decision": "accept",
            "reason": "the final tier",
            "score": -0.5,
            "confidence": None,
            "prompt_tokens": 90,
            "cached_tokens": 16,
            "completion_tokens": 10,
            "ttft_s": None,
            "latency_s": 0.25,
            "energy_j": None,
            "energy_source": None,
            "no_score_reason": None,
            "features": dict.fromkeys(FEATURE_NAMES, -0.5) | {"mean_margin": None},
            "output_type": "short",
            "answer_key": self.key_of(text),
        }
        choice = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        changes = self.changes(tier, prompt) if callable(self.changes) else self.changes
        ledger = {"tier": tier, "attempts": [attempt | dict(changes)]}
        return web.json_response({"choices": [choice], "hybridserve": ledger})


def _prompt_of(body: Mapping[str, Any]) -> str:
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


@pytest.fixture
def cascade() -> Iterator[FakeCascade]:
    """A `FakeCascade` that serves on the loopback address, in a thread of its own."""
    fake = FakeCascade()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(fake.app())

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield fake
    loop.call_soon_threadsafe(fake.released.set)
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
