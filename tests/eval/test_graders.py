"""Grades on cases that were judged by hand: right, wrong, and what cannot be told."""

from typing import Any

import pytest

from eval.questions.graders import GRADER_TYPES, Agrees, Exact, Grade, Regex, grader_spec
from hybridserve_llm.errors import ConfigError


def grade(grader: str | dict[str, Any], reference: object, answer: str) -> Grade:
    return grader_spec(grader).grader(reference)(answer)


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("Paris", "paris.", True),
        ("Paris", " **Paris** ", True),
        ("Paris", "It is Paris", False),
        ("1,000", "1000.0", True),
        (1000, "1,000", True),
        (0.5, "0.50", True),
        (["yes", "true"], "True", True),
        (["yes", "true"], "no", False),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ("Paris", "", False),
    ],
)
def test_exact(reference: object, answer: str, expected: Grade) -> None:
    assert grade("exact", reference, answer) is expected


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        (42, "The answer is 42.", True),
        (42, "41 or so", False),
        ("1,234.5", "$1234.50", True),
        ("#### 18", "She has 18 left", True),
        (0.75, "3/4", True),
        ("3/4", "0.75", True),
        (0.3333333, "1/3", True),  # off by 3.3e-8; 3.3e-7 is allowed (1e-6 of the reference)
        (0.33333, "1/3", False),  # off by 3.3e-6
        (0, "1e-10", True),
        (50, "50%", True),
        (0.5, "50 %", True),
        ([6, 7], "7", True),
        (42, "", False),
        (42, "forty-two", False),
        (42, "between 41-42", None),
        (42, "at 12:42", None),
        (1.5, "1,5", None),
    ],
)
def test_numeric(reference: object, answer: str, expected: Grade) -> None:
    assert grade("numeric", reference, answer) is expected


def test_numeric_tolerances() -> None:
    loose = {"type": "numeric", "relative_tolerance": 0.01}  # of 200: 2
    assert grade(loose, 200, "198") is True
    assert grade(loose, 200, "197.9") is False
    strict = {"type": "numeric", "relative_tolerance": 0, "absolute_tolerance": 0}
    assert grade(strict, 0.1, "0.1") is True  # decimal, as it is written
    assert grade(strict, 0.1, "0.1000000001") is False


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("B", "The answer is B.", True),
        ("b", "(B)", True),
        ("B", "A", False),
        ("B", "No idea", False),
        ("B", "", False),
        ("B", "A or B", None),
        ("C", "A or B", False),  # whichever is meant
        ("B", "The answer is B, C is wrong because it is older.", True),
        (["A", "B"], "A or B", True),
        (["A", "B"], "B or C", None),
    ],
)
def test_multiple_choice(reference: object, answer: str, expected: Grade) -> None:
    assert grade("multiple_choice", reference, answer) is expected


def test_multiple_choice_with_options() -> None:
    cities = {"type": "multiple_choice", "options": {"A": "Paris", "B": "Rome"}}
    assert grade(cities, "B", "It is Rome") is True
    assert grade(cities, "B", "Paris") is False
    numbers = {"type": "multiple_choice", "options": ["1", "2", "3"]}
    assert grade(numbers, 2, "Answer: 2") is True


@pytest.mark.parametrize(
    ("grader", "reference", "answer", "expected"),
    [
        ("regex", r"\bParis\b", "It is Paris, France", True),
        ("regex", r"\bParis\b", "Parisian", False),
        ("regex", [r"^yes", r"^ja"], "ja!", True),
        ({"type": "regex", "fullmatch": True}, r"\d{4}", " 2024\n", True),
        ({"type": "regex", "fullmatch": True}, r"\d{4}", "in 2024", False),
        ({"type": "regex", "fullmatch": True}, "a|ab", "ab", True),
        ({"type": "regex", "in_code": True}, r"sorted\(", "```python\nsorted(x)\n```", True),
        ({"type": "regex", "in_code": True}, "sort", "Use sort:\n```\nmin(x)\n```", False),
        ({"type": "regex", "in_code": True}, r"sorted\(", "sorted(x)", True),
    ],
)
def test_regex(grader: Any, reference: object, answer: str, expected: Grade) -> None:
    assert grade(grader, reference, answer) is expected


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, '{"b": [1, 2.0], "a": 1.0}', True),
        ({"a": 1}, '{"a": 1, "b": null}', False),
        ({"a": [1, 2]}, '{"a": [2, 1]}', False),
        ({"a": True}, '{"a": 1}', False),
        ({"a": 1}, '{"a": true}', False),
        ({"a": "1"}, '{"a": 1}', False),
        ([1, 2], "[1, 2]", True),  # a list is compared, and is not a list of accepted answers
        (None, "null", True),
        ("x", '"x"', True),
        ("x", "x", False),
        ({"a": 1}, "", False),
        ({"a": 1}, 'The JSON is {"a": 1}', False),
        ({"a": 1}, '```json\n{"a": 1}\n```', False),
    ],
)
def test_json(reference: object, answer: str, expected: Grade) -> None:
    assert grade("json", reference, answer) is expected


@pytest.mark.parametrize("answer", ['```json\n{"a": 1}\n```', '```\n{"a": 1}```', ' {"a": 1}'])
def test_json_in_a_fence(answer: str) -> None:
    assert grade({"type": "json", "fenced": True}, {"a": 1}, answer) is True


ADD = {
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("```python\ndef add(a, b):\n    return a + b\n```", True),
        ("    return a + b", True),
        ("```python\ndef add(a, b):\n    return a - b\n```", False),
        ("def add(a, b):\n    exit()", False),
        ("I cannot tell.", False),
        ("", False),
    ],
)
def test_code(answer: str, expected: Grade) -> None:
    assert grade("code", ADD, answer) is expected


def test_agreement_is_not_graded_one_by_one() -> None:
    assert grade("agrees", None, "anything") is None


def test_a_grader_is_named_or_described() -> None:
    assert grader_spec("exact") == Exact()
    assert grader_spec({"type": "regex", "fullmatch": True}) == Regex(fullmatch=True)
    assert grader_spec("agrees") == Agrees()
    assert [grader_spec(name).type for name in GRADER_TYPES] == list(GRADER_TYPES)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("fuzzy", "grader = 'fuzzy': allowed types: exact, numeric, multiple_choice"),
        ({"fullmatch": True}, "allowed types: exact"),
        (7, "grader = 7"),
        ({"type": "numeric", "relative_tolerance": -1}, "relative_tolerance = -1: Input should be"),
        ({"type": "numeric", "tolerance": 1}, "tolerance = 1: Extra inputs are not permitted"),
        ({"type": "multiple_choice", "options": ["A"]}, "at least two labels"),
        (
            {"type": "multiple_choice", "options": ["A", "a"]},
            "each once, upper and lower case being the same",
        ),
        ({"type": "multiple_choice", "options": ["in Paris", "B"]}, "letters and digits"),
        ({"type": "multiple_choice", "options": "AB"}, "options = 'AB': Input should be a valid l"),
    ],
)
def test_graders_that_are_not_there(value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        grader_spec(value)


@pytest.mark.parametrize(
    ("grader", "reference", "words"),
    [
        ("exact", True, "takes a string, a number or a list of these"),
        ("exact", [], "takes a string, a number or a list of these"),
        ("exact", {"a": 1}, "takes a string, a number or a list of these"),
        ("exact", " . ", "says nothing"),
        ("numeric", "seven", "reference = 'seven': no number that can be read"),
        ("numeric", "1.234,5", "no number that can be read"),
        ("multiple_choice", "F", "reference = 'F': not one of the options A, B, C, D, E"),
        ("code", "add", "takes an object with prompt, entry_point and test"),
        ("code", {"prompt": "def f():", "test": ""}, "takes an object with prompt, entry_point"),
        ("regex", "(", r"reference = '\(': not a regular expression: missing \)"),
    ],
)
def test_references_of_the_wrong_kind(grader: str, reference: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        grader_spec(grader).grader(reference)
