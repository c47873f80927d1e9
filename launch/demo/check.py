"""Start the demo, ask it fresh test questions over HTTP, stop it, and report how it did.

`python -m launch.demo.check [--seed N] [--questions N]`; the last line of stdout is one JSON
object. Every question is asked of the cascade and, by its own name, of the giant alone, greedily.
"""

import argparse
import asyncio
import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import orjson
from openai import AsyncOpenAI

from launch.demo.questions import Question, distinct_questions

_CASCADE = "hybridserve"
_CONCURRENCY = 16
_STOP_TIMEOUT_S = 60.0


def running_demo(*arguments: str) -> AbstractContextManager[str]:
    """Run a cascade with the demo's configuration until the block ends."""
    return running_cascade("--demo", *arguments)


@contextmanager
def running_cascade(*arguments: str) -> Iterator[str]:
    """Run a cascade with `hs-launch` until the block ends, and yield its base URL.

    Raises:
        RuntimeError: It ended before it was ready, or left with an error.
    """
    port = free_port()
    command = [sys.executable, "-m", "launch.cli", "--port", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert process.stdout is not None  # noqa: S101 - asked for a pipe
    try:
        for line in process.stdout:
            sys.stderr.write(line)
            if line.startswith("ready:"):
                break
        else:
            raise RuntimeError(f"hs-launch ended before it was ready, exit code {process.wait()}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        sys.stderr.write(process.communicate(timeout=_STOP_TIMEOUT_S)[0])
    if process.returncode != 0:
        raise RuntimeError(f"hs-launch stopped with exit code {process.returncode}")


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask_all(
    client: AsyncOpenAI, model: str, questions: list[Question], *, logprobs: bool = False
) -> list[dict[str, Any]]:
    """Return the response bodies to `questions`, in their order, 16 asked at a time, greedily."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def ask(question: Question) -> dict[str, Any]:
        async with slots:
            completion = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question.prompt}],
                temperature=0,
                logprobs=logprobs,
            )
        return completion.model_dump()

    return await asyncio.gather(*map(ask, questions))


def answer_of(body: dict[str, Any]) -> str:
    """Return the answer's text; empty where the model wrote none."""
    return (body["choices"][0]["message"]["content"] or "").strip()


async def check(base_url: str, questions: list[Question]) -> dict[str, Any]:
    """Ask the cascade and the giant, and return the report that `main` prints."""
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        models = [model.id async for model in client.models.list()]
        tiers = [name for name in models if name != _CASCADE]
        giant = await ask_all(client, tiers[-1], questions)
        cascade = await ask_all(client, _CASCADE, questions)
    rows = [
        _row(question, body, giant_body)
        for question, body, giant_body in zip(questions, cascade, giant, strict=True)
    ]
    n = len(rows)
    giant_right = sum(row["giant_answer"] == row["expected"] for row in rows)
    return {
        "questions": rows,
        "tiers": tiers,
        "accuracy": sum(row["correct"] for row in rows) / n,
        "giant_accuracy": giant_right / n,
        "below_giant": sum(row["tier"] != tiers[-1] for row in rows) / n,
    }


def _row(question: Question, body: dict[str, Any], giant_body: dict[str, Any]) -> dict[str, Any]:
    ledger = body["hybridserve"]
    answer = answer_of(body)
    return {
        "question": question.prompt,
        "expected": question.answer,
        "answer": answer,
        "correct": answer == question.answer,
        "tier": ledger["tier"],
        "score": ledger["attempts"][-1]["score"],
        "confidence": ledger["confidence"],
        "giant_answer": answer_of(giant_body),
    }


def main() -> None:
    """Run the check and print its report as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the test questions")
    parser.add_argument("--questions", type=int, default=300, help="how many to ask")
    arguments = parser.parse_args()
    stream = distinct_questions("test", seed=arguments.seed)
    questions = list(itertools.islice(stream, arguments.questions))
    with running_demo() as base_url:
        report = asyncio.run(check(base_url, questions))
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    main()
