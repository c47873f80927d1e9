"""Grade answers by their references; all is pure, but for `code`, which runs the answer.

A grade is True, False or None. None means that the answer cannot be judged by this grader (two
options named, `1.234,56` for a number): such a question is left out and counted. An answer that
says nothing of the kind asked for, an empty one included, is wrong: to leave out what a small model
failed to say would make every certificate too rosy.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from eval.questions.choices_in_text import chosen_labels
from eval.questions.code_in_text import code_in, program_in
from eval.questions.code_runs import RunLimits, ends_well
from eval.questions.numbers_in_text import NumberInText, last_number
from hybridserve_llm.confidence.agreement import normal_form
from hybridserve_llm.errors import ConfigError

Grade = bool | None
Grader = Callable[[str], Grade]
"""The grade of an answer's text."""

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL | re.IGNORECASE)


class _Spec(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def grader(self, reference: object) -> Grader:
        """Return the grader for one question.

        Raises:
            ConfigError: The reference is not of the kind that this grader compares with.
        """


class Exact(_Spec):
    """Accept an answer whose normal form, as in judging agreement, equals an accepted one's."""

    type: Literal["exact"] = "exact"

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        accepted = frozenset(filter(None, map(normal_form, _texts(reference, "exact"))))
        if not accepted:
            raise ConfigError(f"reference = {reference!r:.80}: says nothing; nothing equals it")
        return lambda answer: normal_form(answer) in accepted


class Numeric(_Spec):
    """Accept a last number within max(absolute, relative * |reference|) of an accepted number."""

    type: Literal["numeric"] = "numeric"
    relative_tolerance: float = Field(1e-6, ge=0, allow_inf_nan=False)
    absolute_tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False)

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        accepted = [_number(text) for text in _texts(reference, "numeric")]
        relative, absolute = Fraction(self.relative_tolerance), Fraction(self.absolute_tolerance)
        return lambda answer: grade_number(answer, accepted, relative=relative, absolute=absolute)


class MultipleChoice(_Spec):
    """Accept an answer that settles on one option, where that option is an accepted one."""

    type: Literal["multiple_choice"] = "multiple_choice"
    options: tuple[str, ...] | dict[str, str] = ("A", "B", "C", "D", "E")

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: tuple[str, ...] | dict[str, str]) -> Any:
        if len({label.casefold() for label in value}) < max(2, len(value)):
            raise ValueError("at least two labels, each once, upper and lower case being the same")
        if any(re.fullmatch(r"\w+", label) is None for label in value):
            raise ValueError("labels are letters and digits; texts go in an object, label to text")
        return value

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        texts: Mapping[str, str | None] = (
            self.options if isinstance(self.options, dict) else dict.fromkeys(self.options)
        )
        labels = {label.casefold(): label for label in texts}
        accepted = set()
        for text in _texts(reference, "multiple_choice"):
            if text.strip().casefold() not in labels:
                raise ConfigError(
                    f"reference = {text!r:.80}: not one of the options {', '.join(texts)}"
                )
            accepted.add(labels[text.strip().casefold()])
        return lambda answer: grade_choice(answer, texts, frozenset(accepted))


class Regex(_Spec):
    """Accept an answer in which a pattern is found, or with `fullmatch` one that it matches whole.

    With `in_code` only the first fenced block is looked at, where there is one.
    """

    type: Literal["regex"] = "regex"
    fullmatch: bool = False
    in_code: bool = False

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        patterns = [_pattern(text) for text in _texts(reference, "regex")]
        tests = [p.fullmatch if self.fullmatch else p.search for p in patterns]
        part = code_in if self.in_code else str
        return lambda answer: any(test(part(answer).strip()) is not None for test in tests)


class Code(_Spec):
    """Accept an answer whose function passes the tests of the reference; this runs the code.

    Whoever reads prompts decides whether that is allowed (`read_prompts`, `run_code`).
    """

    type: Literal["code"] = "code"
    timeout_s: int = Field(10, ge=1, le=600)
    memory_mib: int = Field(1024, ge=128)

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        try:
            task = _CODE_TASK.validate_python(reference)
        except ValidationError as exc:
            raise ConfigError(
                f"reference = {reference!r:.80}: grader code takes an object with prompt, "
                "entry_point and test, all texts"
            ) from exc
        limits = RunLimits(timeout_s=self.timeout_s, memory_mib=self.memory_mib)
        return lambda answer: ends_well(task.program(answer), limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CodeTask:
    """Hold a question of HumanEval: `test` defines `check`, which takes the function."""

    prompt: str
    entry_point: str
    test: str

    def program(self, answer: str) -> str:
        code = program_in(answer, prompt=self.prompt, entry_point=self.entry_point)
        return f"{code}\n\n{self.test}\n\ncheck({self.entry_point})\n"


_CODE_TASK = TypeAdapter(_CodeTask)


class JsonEqual(_Spec):
    """Accept JSON that equals the reference; with `fenced` inside ``` marks, too."""

    type: Literal["json"] = "json"
    fenced: bool = False

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        return lambda answer: grade_json(answer, reference, fenced=self.fenced)


class Agrees(_Spec):
    """Accept an answer that agrees with the last tier's, once all tiers are asked."""

    type: Literal["agrees"] = "agrees"

    def grader(self, reference: object) -> Grader:  # noqa: D102 - as the base says
        del reference
        return lambda answer: None


GraderSpec = Exact | Numeric | MultipleChoice | Regex | JsonEqual | Code | Agrees
GRADER_TYPES = ("exact", "numeric", "multiple_choice", "regex", "json", "code", "agrees")
_SPEC: TypeAdapter[GraderSpec] = TypeAdapter(Annotated[GraderSpec, Field(discriminator="type")])


def grader_spec(value: object) -> GraderSpec:
    """Return the grader that `value` names: its type, or an object with `type` and settings.

    Raises:
        ConfigError: There is no such grader, or a setting is not allowed.
    """
    settings = {"type": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or settings.get("type") not in GRADER_TYPES:
        raise ConfigError(f"grader = {value!r:.80}: allowed types: {', '.join(GRADER_TYPES)}")
    try:
        return _SPEC.validate_python(settings)
    except ValidationError as exc:
        fault = exc.errors()[0]
        key = str(fault["loc"][1]) if len(fault["loc"]) > 1 else "grader"
        message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        raise ConfigError(
            f"grader {settings['type']}: {key} = {settings.get(key)!r:.80}: {message}"
        ) from exc


def grade_number(
    answer: str, accepted: list[NumberInText], *, relative: Fraction, absolute: Fraction
) -> Grade:
    """Return True where the last number is close to an accepted one; None if unreadable."""
    number = last_number(answer)
    if isinstance(number, str):
        return None
    return number is not None and any(
        number.is_close(other, relative=relative, absolute=absolute) for other in accepted
    )


def grade_choice(answer: str, options: Mapping[str, str | None], accepted: frozenset[str]) -> Grade:
    """Return True where the answer settles on an accepted option; None where it leaves that open.

    Several options of which none is accepted are wrong, whichever of them is meant.
    """
    chosen = chosen_labels(answer, options)
    if chosen & accepted and not chosen <= accepted:
        return None
    return bool(chosen & accepted)


def grade_json(answer: str, reference: object, *, fenced: bool) -> bool:
    """Return True where the answer parses to the reference; 1 equals 1.0, true does not equal 1."""
    text = answer.strip()
    inside = _FENCED.fullmatch(text) if fenced else None
    try:
        return _is_equal(orjson.loads(inside[1] if inside else text), reference)
    except orjson.JSONDecodeError:
        return False


def _is_equal(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _texts(reference: object, grader: str) -> list[str]:
    """Return the accepted answers as texts: of a string, a number, or a list of these."""
    several = reference if isinstance(reference, list) else [reference]
    if not several or any(
        isinstance(one, bool) or not isinstance(one, str | int | float) for one in several
    ):
        raise ConfigError(
            f"reference = {reference!r:.80}: grader {grader} takes a string, a number or a list "
            "of these"
        )
    return [one if isinstance(one, str) else orjson.dumps(one).decode() for one in several]


def _number(text: str) -> NumberInText:
    number = last_number(text)
    if not isinstance(number, NumberInText):
        raise ConfigError(f"reference = {text!r:.80}: no number that can be read")
    return number


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as exc:
        raise ConfigError(f"reference = {text!r:.80}: not a regular expression: {exc}") from exc
