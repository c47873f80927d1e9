"""Measure each demo tier's accuracy on fresh questions, and the CPU time of an answer.

`python -m launch.demo.evaluate --questions 2000` starts the demo, asks every tier by its own name,
greedily, 16 at a time, and prints one JSON object: per tier the accuracy over the whole task mix
and by task, and the CPU seconds that its engine spent on an answer (median over batches of 100).
"""

import argparse
import asyncio
import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import orjson
import psutil
from openai import AsyncOpenAI

from launch.demo.check import answer_of, ask_all, running_demo
from launch.demo.family import FAMILY
from launch.demo.questions import Question, Split, distinct_questions

_WARM_UP_QUESTIONS = 32
_BATCH_QUESTIONS = 100


def engine_cpu_s(tier: str) -> float:
    """Return the CPU seconds so far of all processes of this user's engine of `tier`."""
    total = 0.0
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--served-model-name" in words and words[words.index("--served-model-name") + 1] == tier:
            for member in (process, *process.children(recursive=True)):
                times = member.cpu_times()
                total += times.user + times.system
            return total
    raise RuntimeError(f"no engine of tier {tier!r} runs")


@dataclass(slots=True)
class _Tally:
    """Hold what one tier did so far; one CPU figure for each batch."""

    by_task: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    cpu_s_per_answer: list[float] = field(default_factory=list)
    output_tokens: int = 0

    def report(self) -> dict[str, Any]:
        answers = [is_right for values in self.by_task.values() for is_right in values]
        return {
            "accuracy": round(sum(answers) / len(answers), 4),
            "by_task": {
                name: round(sum(values) / len(values), 3)
                for name, values in sorted(self.by_task.items())
            },
            "cpu_s_per_answer": round(median(self.cpu_s_per_answer), 5),
            "cpu_s_per_answer_by_batch": [round(value, 5) for value in self.cpu_s_per_answer],
            "output_tokens_per_answer": round(self.output_tokens / len(answers), 1),
        }


async def ask_batch(
    client: AsyncOpenAI, tier: str, questions: Sequence[Question], tally: _Tally
) -> None:
    """Ask one tier by its own name and add what came back to its tally."""
    before_s = engine_cpu_s(tier)
    bodies = await ask_all(client, tier, list(questions))
    tally.cpu_s_per_answer.append((engine_cpu_s(tier) - before_s) / len(questions))
    for question, body in zip(questions, bodies, strict=True):
        tally.by_task[question.task].append(answer_of(body) == question.answer)
        tally.output_tokens += body["usage"]["completion_tokens"]


async def evaluate(base_url: str, questions: list[Question]) -> dict[str, Any]:
    """Return every tier's report; tiers take turns by batch, as machines change their speed."""
    tallies = {tier: _Tally() for tier in FAMILY}
    async with AsyncOpenAI(base_url=base_url, api_key="none") as client:
        for tier in FAMILY:
            await ask_all(client, tier, questions[:_WARM_UP_QUESTIONS])
        for start in range(0, len(questions), _BATCH_QUESTIONS):
            batch = questions[start : start + _BATCH_QUESTIONS]
            for tier, tally in tallies.items():
                await ask_batch(client, tier, batch, tally)
    return {tier: tally.report() for tier, tally in tallies.items()}


def main() -> None:
    """Run the evaluation and print it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the questions")
    parser.add_argument("--questions", type=int, default=1000, help="how many to ask")
    parser.add_argument("--split", choices=("validation", "calibration", "test"), default="test")
    arguments = parser.parse_args()
    split: Split = arguments.split
    stream = distinct_questions(split, seed=arguments.seed)
    questions = list(itertools.islice(stream, arguments.questions))
    with running_demo() as base_url:
        report = asyncio.run(evaluate(base_url, questions))
    report = {"split": split, "seed": arguments.seed, "questions": len(questions), **report}
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    main()
