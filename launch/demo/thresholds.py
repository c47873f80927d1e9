"""Choose the demo's day-0 thresholds on calibration questions. They certify nothing.

`python -m launch.demo.thresholds --questions 1000` starts the demo, asks every tier the same
questions of the calibration split, and prints one JSON object: for each tier below the last, the
lowest score at which the answers it would accept do harm to at most `--harm` of all questions.
This is the plain empirical threshold, which `hs-calibrate` is to replace by a certified one.
"""

import argparse
import asyncio
import itertools
import sys
from dataclasses import dataclass
from typing import Any

import orjson
from openai import AsyncOpenAI

from hybridserve_llm.confidence.day_zero import day_zero_score
from launch.demo.check import answer_of, ask_all, running_demo
from launch.demo.family import FAMILY
from launch.demo.questions import Question, distinct_questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Hold one answer of a tier below the last: its score, and whether accepting it does harm."""

    score: float
    does_harm: bool


def lowest_threshold(answers: list[Scored], *, harm: float) -> float | None:
    """Return the lowest score t such that accepting all answers with score >= t bounds the harm.

    Walks from the surest answer down and stops before the first one that would break the bound;
    answers of equal score stand or fall together. None when not even the surest may be accepted.
    """
    budget = harm * len(answers)
    harmed, threshold = 0, None
    ordered = sorted(answers, key=lambda answer: -answer.score)
    for score, group in itertools.groupby(ordered, key=lambda answer: answer.score):
        harmed += sum(answer.does_harm for answer in group)
        if harmed > budget:
            break
        threshold = score
    return threshold


def score_of(body: dict[str, Any]) -> float:
    """Return the day-0 score of an answer that came with its log-probabilities."""
    tokens = body["choices"][0]["logprobs"]["content"]
    return day_zero_score(tuple(token["logprob"] for token in tokens))


async def choose(base_url: str, questions: list[Question], harm: float) -> dict[str, Any]:
    """Return the threshold of every tier below the last, and what it accepts."""
    *lower, last = FAMILY
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        reference = [
            answer_of(body) == question.answer
            for question, body in zip(
                questions, await ask_all(client, last, questions), strict=True
            )
        ]
        chosen = {}
        for tier in lower:
            bodies = await ask_all(client, tier, questions, logprobs=True)
            answers = [
                Scored(
                    score=score_of(body),
                    does_harm=is_right_above and answer_of(body) != question.answer,
                )
                for question, body, is_right_above in zip(questions, bodies, reference, strict=True)
            ]
            threshold = lowest_threshold(answers, harm=harm)
            accepted = [a for a in answers if threshold is not None and a.score >= threshold]
            chosen[tier] = {
                "score_at_least": threshold,
                "accepts": round(len(accepted) / len(answers), 4),
            }
    return chosen


def main() -> None:
    """Choose the thresholds and print them as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the calibration questions")
    parser.add_argument("--questions", type=int, default=1000, help="how many to ask")
    parser.add_argument(
        "--harm", type=float, default=0.0075, help="share of questions a tier may harm"
    )
    arguments = parser.parse_args()
    stream = distinct_questions("calibration", seed=arguments.seed)
    questions = list(itertools.islice(stream, arguments.questions))
    with running_demo() as base_url:
        chosen = asyncio.run(choose(base_url, questions, arguments.harm))
    sys.stdout.write(orjson.dumps(chosen).decode() + "\n")


if __name__ == "__main__":
    main()
