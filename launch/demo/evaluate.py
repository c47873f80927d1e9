"""Accuracy of each demo tier on fresh questions, and what an answer costs in CPU time.

`python -m launch.demo.evaluate --questions 2000` starts the demo, asks every tier by its own name,
greedily, 16 at a time, and prints one JSON object: per tier the accuracy over the whole task mix
and by task, and the CPU seconds that its engine spent on an answer.
"""

import argparse
import asyncio
import itertools
import sys
from collections import defaultdict
from typing import Any

import orjson
import psutil
from openai import AsyncOpenAI

from launch.demo.check import answer_of, ask_all, running_demo
from launch.demo.family import FAMILY
from launch.demo.questions import Question, Split, distinct_questions


def engine_cpu_s(tier: str) -> float:
    """CPU seconds so far of every process of this user's engine of `tier`, children included."""
    total = 0.0
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--served-model-name" in words and words[words.index("--served-model-name") + 1] == tier:
            for member in (process, *process.children(recursive=True)):
                times = member.cpu_times()
                total += times.user + times.system
            return total
    raise RuntimeError(f"no engine of tier {tier!r} runs")


async def evaluate_tier(
    client: AsyncOpenAI, tier: str, questions: list[Question]
) -> dict[str, Any]:
    """Accuracy by task and CPU seconds an answer of one tier, asked by its own name."""
    before_s = engine_cpu_s(tier)
    bodies = await ask_all(client, tier, questions)
    spent_s = engine_cpu_s(tier) - before_s
    by_task: dict[str, list[bool]] = defaultdict(list)
    for question, body in zip(questions, bodies, strict=True):
        by_task[question.task].append(answer_of(body) == question.answer)
    right = sum(map(sum, by_task.values()))
    output_tokens = sum(body["usage"]["completion_tokens"] for body in bodies)
    return {
        "accuracy": round(right / len(questions), 4),
        "by_task": {
            name: round(sum(values) / len(values), 3) for name, values in sorted(by_task.items())
        },
        "cpu_s_per_answer": round(spent_s / len(questions), 5),
        "output_tokens_per_answer": round(output_tokens / len(questions), 1),
    }


async def evaluate(base_url: str, questions: list[Question]) -> dict[str, Any]:
    """`evaluate_tier` of every tier, one after the other."""
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        warm_up = questions[:32]
        for tier in FAMILY:
            await ask_all(client, tier, warm_up)
        return {tier: await evaluate_tier(client, tier, questions) for tier in FAMILY}


def main() -> None:
    """Runs the evaluation and prints it as one line of JSON."""
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
