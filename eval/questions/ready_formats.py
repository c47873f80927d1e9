"""Turn rows of GSM8K, MMLU, ARC, TriviaQA and HumanEval into labelled prompts.

A row is a JSON object as the sets' own files and their exports on the Hugging Face hub have it. The
wording of a prompt asks for what its grader looks for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hybridserve_llm.errors import ConfigError

Row = Mapping[str, Any]
LineOf = Callable[[Row], dict[str, Any]]
"""From a row to an object of a file of labelled prompts."""

_LETTERS = "ABCDEFGHIJ"


def gsm8k(row: Row) -> dict[str, Any]:
    """Read `question`, and `answer` with its number after `####`. Source: hub, openai/gsm8k."""
    _, mark, number = str(_value(row, "answer")).rpartition("####")
    if not mark:
        raise ConfigError("answer has no '####' before its number, as GSM8K's have")
    return {
        "prompt": f"{_value(row, 'question')}\nGive the number that is the answer last.",
        "reference": number.strip(),
        "grader": "numeric",
    }


def mmlu(row: Row) -> dict[str, Any]:
    """Read `question`, `choices` (a list) and `answer` (an index). Source: hub, cais/mmlu."""
    choices, answer = _value(row, "choices"), _value(row, "answer")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(_LETTERS):
        raise ConfigError(f"choices = {choices!r:.80}: not a list of 2 to {len(_LETTERS)}")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ConfigError(f"answer = {answer!r:.80}: not an index of choices")
    labels = _LETTERS[: len(choices)]
    return _choice(str(_value(row, "question")), labels, choices, labels[answer])


def arc(row: Row) -> dict[str, Any]:
    """Read `question`, `choices` with `label` and `text`, and `answerKey`.

    Source: hub, allenai/ai2_arc.
    """
    choices, key = _value(row, "choices"), str(_value(row, "answerKey"))
    if not isinstance(choices, Mapping):
        raise ConfigError(f"choices = {choices!r:.80}: not an object with label and text")
    labels, texts = _value(choices, "label"), _value(choices, "text")
    if key not in labels or len(labels) != len(texts):
        raise ConfigError(f"answerKey = {key!r}: not one of the labels {labels!r:.80}")
    line = _choice(str(_value(row, "question")), labels, texts, key)
    return line | ({"id": row["id"]} if "id" in row else {})


def triviaqa(row: Row) -> dict[str, Any]:
    """Read `question`, `answer` with `value` and `aliases`. Source: hub, mandarjoshi/trivia_qa."""
    answer = _value(row, "answer")
    if not isinstance(answer, Mapping):
        raise ConfigError(f"answer = {answer!r:.80}: not an object with value and aliases")
    line = {
        "prompt": f"{_value(row, 'question')}\nAnswer with the name or number alone.",
        "reference": [_value(answer, "value"), *answer.get("aliases", ())],
        "grader": "exact",
    }
    return line | ({"id": row["question_id"]} if "question_id" in row else {})


def humaneval(row: Row) -> dict[str, Any]:
    """Read `prompt`, `entry_point` and `test`, or `prompt` and `regex`.

    Source: hub, openai/openai_humaneval.


    Its own way of grading runs the code that was written; with `regex` the code has to match that
    pattern instead, and nothing is run.
    """
    head = str(_value(row, "prompt"))
    line: dict[str, Any] = {
        "prompt": "Complete this Python function. Answer with the whole function in one code "
        f"block.\n```python\n{head.strip()}\n```",
    }
    if row.get("regex") is not None:
        line |= {"reference": row["regex"], "grader": {"type": "regex", "in_code": True}}
    else:
        task = {name: _value(row, name) for name in ("entry_point", "test")}
        line |= {"reference": {"prompt": head, **task}, "grader": "code"}
    return line | ({"id": row["task_id"]} if "task_id" in row else {})


READY_FORMATS: Mapping[str, LineOf] = {
    "arc": arc,
    "gsm8k": gsm8k,
    "humaneval": humaneval,
    "mmlu": mmlu,
    "triviaqa": triviaqa,
}


def _choice(
    question: str, labels: Sequence[str], texts: Sequence[Any], right: str
) -> dict[str, Any]:
    options = {label: str(text) for label, text in zip(labels, texts, strict=True)}
    listed = "\n".join(f"{label}. {text}" for label, text in options.items())
    return {
        "prompt": f"{question}\n{listed}\nAnswer with the letter of the right option alone.",
        "reference": right,
        "grader": {"type": "multiple_choice", "options": options},
    }


def _value(row: Row, key: str) -> Any:
    if key not in row:
        raise ConfigError(f"no {key!r} in this row; it has {', '.join(map(str, row))}")
    return row[key]
