"""Write the demo's questions as labelled prompts, one JSON object a line, for `hs-calibrate`.

`python -m launch.demo.export --split calibration --questions 2000 > questions.jsonl`
"""

import argparse
import itertools
import sys

import orjson

from launch.demo.questions import Question, distinct_questions


def line_of(question: Question, split: str) -> bytes:
    """Return the question as one line, graded by exact match."""
    values = {
        "split": split,
        "id": question.key,
        "prompt": question.prompt,
        "reference": question.answer,
        "grader": "exact",
    }
    return orjson.dumps(values) + b"\n"


def main() -> None:
    """Write the questions to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("calibration", "test"), default="calibration")
    parser.add_argument("--seed", type=int, default=0, help="seed of the questions")
    parser.add_argument("--questions", type=int, default=2000, help="how many")
    options = parser.parse_args()
    stream = distinct_questions(options.split, seed=options.seed)
    for question in itertools.islice(stream, options.questions):
        sys.stdout.write(line_of(question, options.split).decode())


if __name__ == "__main__":
    main()
