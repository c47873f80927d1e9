"""A measured run of two tiers, small enough to work its figures out by hand."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.calibrate import main as calibrate
from eval.recorded.attempts import AttemptsHeader, RecordedAttempt, RecordedTier
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    Block,
    EngineUse,
    IdleWindow,
    RunHeader,
    ServedAnswer,
    ServedAttempt,
)
from eval.recorded.run_file import RunFile

Make = Callable[..., RecordedAttempt]
N, BLOCK = 240, 20
SMALL_S, GIANT_S, IDLE_RATE = 0.1, 1.0, 0.01
"""CPU-seconds of a question of the small tier and of the giant; of an idle engine, a second."""


def cpu_use(cpu_s: float) -> EngineUse:
    return EngineUse(cpu_s=cpu_s, active_j=None, idle_j=None, energy_source=None)


def is_easy(i: int) -> bool:
    """Of four questions three: the small tier is right at them, and sure of it."""
    return i % 4 != 0


def score_of(i: int) -> float:
    return -0.1 - 0.001 * (i % 7) if is_easy(i) else -1.5 - 0.001 * (i % 7)


def attempt(make: Make, i: int, tier: str) -> RecordedAttempt:
    is_right = tier == "giant" or is_easy(i)
    return make(
        f"q{i}",
        tier,
        correct=is_right,
        answer="yes" if is_right else "no",
        answer_key="yes" if is_right else "no",
        score=score_of(i) if tier == "small" else -0.01,
    )


def served(i: int, tiers: tuple[str, ...]) -> ServedAnswer:
    steps = tuple(
        ServedAttempt(
            tier=tier,
            decision="accept" if tier == tiers[-1] else "escalate",
            reason="",
            score=score_of(i) if tier == "small" else None,
            confidence=None,
            risk=None,
            prompt_tokens=90,
            cached_tokens=0,
            completion_tokens=10,
            latency_s=0.1,
        )
        for tier in tiers
    )
    return ServedAnswer(
        split=None,
        query_id=f"q{i}",
        correct=tiers[-1] == "giant" or is_easy(i),
        answer="yes",
        fault=None,
        tier=tiers[-1],
        certified=False,
        latency_s=0.5 if tiers[-1] == "giant" else 0.1,
        attempts=steps,
    )


def block_of(make: Make, way: str, index: int) -> Block:
    rows = range(index * BLOCK, (index + 1) * BLOCK)
    n_hard = sum(not is_easy(i) for i in rows)
    small_s, giant_s = {
        "small": (BLOCK * SMALL_S, 0.0),
        "giant": (0.0, BLOCK * GIANT_S * 1.1),  # assessing costs more
        ALONE: (0.0, BLOCK * GIANT_S),
        CASCADE: (BLOCK * SMALL_S, n_hard * GIANT_S),
    }[way]
    answers: tuple[ServedAnswer, ...] = ()
    recorded: tuple[RecordedAttempt, ...] = ()
    if way == ALONE:
        answers = tuple(served(i, ("giant",)) for i in rows)
    elif way == CASCADE:
        tiers = [("small",) if is_easy(i) else ("small", "giant") for i in rows]
        answers = tuple(served(i, asked) for i, asked in zip(rows, tiers, strict=True))
    else:
        recorded = tuple(attempt(make, i, way) for i in rows)
    return Block(
        way=way,
        index=index,
        started="2026-11-24T00:00:00+00:00",
        duration_s=10.0,
        used={"small": cpu_use(small_s), "giant": cpu_use(giant_s)},
        n_shadowed=1 if way == CASCADE else 0,
        # Five hard questions of 100 tokens each: a shadow of 100 is a sixth of the giant's work.
        shadow_tokens=100 if way == CASCADE else 0,
        answers=answers,
        recorded=recorded,
    )


HEADER = RunHeader(
    asked=AttemptsHeader(
        created="2026-11-24T00:00:00+00:00",
        tiers=(
            RecordedTier(name="small", model="m-small", active_parameters=10**9),
            RecordedTier(name="giant", model="m-giant", active_parameters=70 * 10**9),
        ),
        fingerprint=None,
        sampling={"temperature": 0},
        endpoints=("/v1/chat/completions",),
        data_sha256="0" * 64,
        labels="reference",
        grader=None,
    ),
    served_model_name="hybridserve",
    certificate=None,
    command="hs-eval measure prompts.jsonl",
    project_version="0.1.0",
    commit="abc1234",
    hardware="a <test> machine",
    concurrency=16,
    block_questions=BLOCK,
)


def written_run(
    make: Make, path: Path, *, change: Callable[[Block], Block] = lambda block: block
) -> Path:
    """240 questions in blocks of 20; the small tier is right at three of four, and sure of it."""
    with RunFile(path, HEADER) as file:
        idle = {tier: cpu_use(IDLE_RATE * 20) for tier in ("small", "giant")}
        file.add(IdleWindow(started="2026-11-24T00:00:00+00:00", duration_s=20.0, used=idle))
        for index in range(N // BLOCK):
            for way in ("small", "giant", ALONE, CASCADE):
                file.add(change(block_of(make, way, index)))
    return path


@pytest.fixture(scope="session")
def write_run(make_attempt: Make) -> Callable[..., Path]:
    """`written_run`, for tests."""
    return functools.partial(written_run, make_attempt)


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory, make_attempt: Make) -> Path:
    """A file of `written_run`."""
    return written_run(make_attempt, tmp_path_factory.mktemp("run") / "run.jsonl")


def certified_run(
    run_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], n_certify: int = 120
) -> tuple[Path, Path]:
    """The run as of a cascade that had a certificate, made from its own answers; and that one."""
    certificate = folder / "certificate.json"
    options = ["--n-fit", "80", "--n-certify", str(n_certify), "--epsilon", "0.1", "--loss", "harm"]
    flags = [*options, "--certificate", str(certificate)]
    assert calibrate(["records", str(run_path), *flags]) == 0
    capsys.readouterr()
    told = json.loads(certificate.read_text())
    path = folder / "certified.jsonl"
    return header_changed(run_path, path, certificate=told), certificate


def header_changed(run_path: Path, path: Path, **changes: Any) -> Path:
    """A copy of the run whose header has other values."""
    first, *others = run_path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | changes) + "\n" + "".join(others))
    return path


@pytest.fixture(scope="session")
def with_certificate() -> Callable[..., tuple[Path, Path]]:
    """`certified_run`, for tests."""
    return certified_run


@pytest.fixture(scope="session")
def with_header() -> Callable[..., Path]:
    """`header_changed`, for tests."""
    return header_changed
