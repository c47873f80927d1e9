"""Recorded attempts: a JSONL file of what every tier answered to every question.

The first line is the header: which cascade was asked, with what prompts and sampling. Every other
line is one tier's attempt at one question. Lines are added as attempts end, so a file that was left
in the middle can be gone on with; a failed attempt is a line too, and a later one takes its place.
Where joules are filled in afterwards, the whole file is written anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from eval.questions.prompts import Labels, Question
from hybridserve_llm.errors import ConfigError

SCHEMA: Literal["hybridserve-attempts/1"] = "hybridserve-attempts/1"

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Score = Annotated[float, Field(le=1e-6, allow_inf_nan=False)]
"""A log-probability, which rounding may lift a little above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTier:
    """One tier of the cascade that was asked; `active_parameters` is None where unknown."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    name: str
    model: str
    active_parameters: Annotated[int, Field(gt=0)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsHeader:
    """What the attempts of a file have in common.

    Attributes:
        created: When the file was begun, ISO 8601.
        tiers: All tiers of the cascade, cheapest first, whether they were asked or not.
        fingerprint: Of the cascade, as it told; None where it told none.
        sampling: Body fields that were sent with every prompt.
        endpoints: Where the prompts were sent.
        data_sha256: Of the prompts file.
        grader: Of prompts that name none, with its settings; None where there was none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    schema: Literal["hybridserve-attempts/1"] = SCHEMA
    created: str
    tiers: tuple[RecordedTier, ...]
    fingerprint: dict[str, Any] | None
    sampling: dict[str, Any]
    endpoints: tuple[Literal["/v1/chat/completions", "/v1/completions"], ...]
    data_sha256: str
    labels: Labels
    grader: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAttempt:
    """One tier's attempt at one question; None is what is not known.

    Attributes:
        correct: Grade of the answer; None where the grader could not tell, where labels are
            agreement, and where the attempt failed.
        answer: Text of the answer; None where the attempt failed, and `reason` says why.
        answer_key: Normal form: equal keys mean agreeing answers.
        features: Of the answer, by name; None where it has none.
        prompt_draw: A number in [0, 1) made from the prompt, which policies that take a share of
            the prompts go by; None in files from before there were any.
        prompt_features: Of the prompt, by name.
        energy_j: Active joules. They are settled after the answer and filled in from the server's
            records, where those were named; `energy_reason` says why they are None then.
        energy_source: The meter, as the server names it; None where no server settled them.
        request_id: As in the response's `x-request-id`; None where it had none, and in files from
            before ids were kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    split: str | None
    query_id: str
    group: str | None
    tier: str
    model: str
    correct: bool | None
    answer: str | None
    answer_key: str | None
    score: Score | None
    reason: str | None
    features: dict[str, Number | None] | None
    output_type: str | None
    prompt_features: dict[str, Number]
    prompt_tokens: Count | None
    cached_tokens: Count | None
    completion_tokens: Count | None
    latency_s: Amount | None
    energy_j: Amount | None
    energy_source: str | None
    prompt_draw: Share | None = None
    energy_reason: str | None = None
    request_id: str | None = None

    @property
    def question(self) -> Question:
        """The question's split and id."""
        return self.split, self.query_id

    @property
    def has_failed(self) -> bool:
        """Whether there is no answer."""
        return self.answer is None


@dataclass(slots=True, kw_only=True)
class Attempts:
    """A file's content: of each question and tier the attempt that counts."""

    header: AttemptsHeader
    by_question: dict[Question, dict[str, RecordedAttempt]] = field(default_factory=dict)

    def has_answer(self, question: Question, tier: str) -> bool:
        """Whether the tier has answered this question."""
        attempt = self.by_question.get(question, {}).get(tier)
        return attempt is not None and not attempt.has_failed

    def add(self, attempt: RecordedAttempt) -> None:
        """Takes the attempt in, in place of a failed one.

        Raises:
            ConfigError: The tier is not one of the header's, or has answered the question before.
        """
        if attempt.tier not in [tier.name for tier in self.header.tiers]:
            raise ConfigError(f"tier {attempt.tier!r} is not in the header")
        if self.has_answer(attempt.question, attempt.tier):
            raise ConfigError(
                f"a second answer of tier {attempt.tier!r} to question {attempt.query_id!r} of "
                f"split {attempt.split!r}"
            )
        self.by_question.setdefault(attempt.question, {})[attempt.tier] = attempt


_HEADER = TypeAdapter(AttemptsHeader)
_ATTEMPT = TypeAdapter(RecordedAttempt)


def read_attempts(path: Path) -> Attempts:
    """The attempts in a file; a last line that a killed program left torn is no line.

    Raises:
        ConfigError: The file cannot be read, has no header or one of another schema, or a line is
            not an attempt; the message names file and line.
    """
    try:
        return parse_attempts(path.read_bytes(), path)[0]
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc


def parse_attempts(data: bytes, path: Path) -> tuple[Attempts, int]:
    """The attempts in a file's bytes, and how many bytes their whole lines take.

    Raises:
        ConfigError: As in `read_attempts`; `path` names the file there.
    """
    lines = data.split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    attempts = Attempts(header=_header(lines[0] if lines else b"", path))
    for number, line in enumerate(lines[1:], start=2):
        try:
            attempts.add(_ATTEMPT.validate_json(line))
        except ValidationError as exc:
            raise ConfigError(f"{path}, line {number}: {_fault(exc)}") from exc
        except ConfigError as exc:
            raise ConfigError(f"{path}, line {number}: {exc}") from exc
    return attempts, sum(len(line) + 1 for line in lines)


def _header(line: bytes, path: Path) -> AttemptsHeader:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    schema = value.get("schema") if isinstance(value, Mapping) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"{path} is not a file of attempts: its first line has no schema {SCHEMA!r}"
            + (f" but {schema!r}" if schema is not None else "")
        )
    try:
        return _HEADER.validate_json(line)
    except ValidationError as exc:
        raise ConfigError(f"{path}, line 1: {_fault(exc)}") from exc


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    return f"{key} = {fault['input']!r:.80}: {fault['msg']}" if key else fault["msg"]
