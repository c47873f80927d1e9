"""Keep recorded attempts: a JSONL file of what every tier answered to every question.

The first line is the header: which cascade was asked, with what prompts and sampling. Every other
line is one tier's attempt at one question. Lines are added as attempts end, so a collection that
was stopped can go on. A failed attempt is a line too, and a later one takes its place. Where joules
are filled in afterwards, the whole file is written anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from eval.questions.prompts import Labels, Question
from eval.recorded.line_file import LineFile, decoded_line, whole_lines
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.files import read_bytes
from hybridserve_llm.promise.fingerprint import differences
from hybridserve_llm.values.ledger import TierWork

SCHEMA: Literal["hybridserve-attempts/1"] = "hybridserve-attempts/1"

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
LogProbability = Annotated[float, msgspec.Meta(le=1e-6)]
"""Rounding may lift it a little above 0."""


class RecordedTier(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one tier of a cascade, as its server does; `active_parameters` is None if unknown.

    Other things that a server says of a tier are not read.
    """

    name: str
    model: str
    active_parameters: Annotated[int, msgspec.Meta(gt=0)] | None = None


class AttemptsHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what the attempts of a file have in common.

    Attributes:
        created: When the file was begun, ISO 8601.
        tiers: All tiers of the cascade, cheapest first, including those that were not asked.
        fingerprint: Of the cascade, as its server gave it; None where it gave none.
        sampling: Body fields that were sent with every prompt.
        demands: What the prompts demanded of the form of their answers, each combination once; the
            empty one is free text. Files from before there were any have free text alone.
        endpoints: Where the prompts were sent.
        data_sha256: Of the prompts file.
        grader: Of prompts that name none, with its settings; None where there was none.
    """

    schema: Literal["hybridserve-attempts/1"] = SCHEMA
    created: str
    tiers: tuple[RecordedTier, ...]
    fingerprint: dict[str, Any] | None
    sampling: dict[str, Any]
    demands: tuple[tuple[str, ...], ...] = ((),)
    endpoints: tuple[Literal["/v1/chat/completions", "/v1/completions"], ...]
    data_sha256: str
    labels: Labels
    grader: dict[str, Any] | None


class RecordedAttempt(TierWork, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold one tier's attempt at one question, with its answer and grade; None is unknown.

    Attributes:
        correct: Grade of the answer. None where the grader could not decide, where labels are
            agreement, and where the attempt failed.
        answer: Text of the answer; None where the attempt failed, and `reason` says why.
        answer_key: Normal form: equal keys mean agreeing answers.
        features: Of the answer, by name; None where it has none.
        prompt_draw: A number in [0, 1) made from the prompt. Policies that take a share of the
            prompts read it. None in files from before there were any.
        prompt_features: Of the prompt, by name.
        energy_reason: Why `energy_j` is None, where records of the server were read to fill it in.
        request_id: As in the response's `x-request-id`. None where the response had none, and in
            files from before ids were kept.
    """

    split: str | None
    query_id: str
    group: str | None
    model: str
    correct: bool | None
    answer: str | None
    answer_key: str | None
    score: LogProbability | None
    features: dict[str, float | None] | None
    output_type: str | None
    prompt_features: dict[str, float]
    prompt_draw: Share | None = None
    energy_reason: str | None = None
    request_id: str | None = None

    @property
    def question(self) -> Question:
        """Return the question's split and id."""
        return self.split, self.query_id

    @property
    def has_failed(self) -> bool:
        """Return True where there is no answer."""
        return self.answer is None


@dataclass(slots=True, kw_only=True)
class Attempts:
    """Hold a file's content: of each question and tier the attempt that counts."""

    header: AttemptsHeader
    by_question: dict[Question, dict[str, RecordedAttempt]] = field(default_factory=dict)

    def has_answer(self, question: Question, tier: str) -> bool:
        """Return True where the tier has answered this question."""
        attempt = self.by_question.get(question, {}).get(tier)
        return attempt is not None and not attempt.has_failed

    def add(self, attempt: RecordedAttempt) -> None:
        """Take the attempt in, in place of a failed one.

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


_HEADERS = msgspec.json.Decoder(AttemptsHeader)
_ATTEMPTS = msgspec.json.Decoder(RecordedAttempt)


def read_attempts(path: Path) -> Attempts:
    """Return the attempts in a file; a last line that a killed program left torn is ignored.

    Raises:
        ConfigError: The file cannot be read, has no header or one of another schema, or a line is
            not an attempt; the message names file and line.
    """
    return _parsed(read_bytes(path), path)


def _parsed(data: bytes, path: Path) -> Attempts:
    first, *others = whole_lines(data) or [b""]
    attempts = Attempts(header=_header(first, path))
    for number, line in enumerate(others, start=2):
        try:
            attempts.add(decoded_line(line, _ATTEMPTS))
        except ConfigError as exc:
            raise ConfigError(f"{path}, line {number}: {exc}") from exc
    return attempts


def _header(line: bytes, path: Path) -> AttemptsHeader:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError:
        value = None
    schema = value.get("schema") if isinstance(value, Mapping) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"{path} is not a file of attempts: its first line has no schema {SCHEMA!r}"
            + (f" but {schema!r}" if schema is not None else "")
        )
    try:
        return decoded_line(line, _HEADERS)
    except ConfigError as exc:
        raise ConfigError(f"{path}, line 1: {exc}") from exc


class AttemptsFile:
    """Write a file of attempts, so that a stopped collection can go on; a context manager.

    No other process can write the file meanwhile. Every attempt is handed to the operating system
    as a whole line before `add` returns, so a kill tears at most the line that is being written.
    """

    def __init__(self, path: Path, header: AttemptsHeader) -> None:
        """Begin the file, or go on with it and cut a torn last line off.

        Raises:
            ConfigError: The file cannot be opened, another process writes it, it holds something
                else, or its header differs in more than `created`.
        """
        self.path = path
        self._file = LineFile(path)
        try:
            self.attempts = self._begin_or_go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _begin_or_go_on(self, header: AttemptsHeader) -> Attempts:
        data = self._file.read()
        if not data:
            self._file.write(header)
            return Attempts(header=header)
        attempts = _parsed(data, self.path)
        if differing := differing_headers(attempts.header, header):
            raise ConfigError(
                f"{self.path} was recorded with other {', '.join(differing)}; name another file, "
                "or go on with what it was recorded with"
            )
        self._file.cut_torn_line()
        return attempts

    def add(self, attempt: RecordedAttempt) -> None:
        """Write one attempt; `attempts` holds it then.

        Raises:
            ConfigError: It does not fit the file (`Attempts.add`).
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        self.attempts.add(attempt)
        self._file.write(attempt)

    def change(self, changed: Sequence[RecordedAttempt]) -> None:
        """Put attempts in place of those of the same question and tier, in a file written anew.

        Even if the program is killed meanwhile, the file is the old one or the new one. Nothing is
        written where nothing differs.

        Raises:
            CannotBeDone: It cannot be written.
        """
        there, header = self.attempts.by_question, self.attempts.header
        if all(there[one.question][one.tier] == one for one in changed):
            return
        for one in changed:
            there[one.question][one.tier] = one
        attempts = [
            by_tier[tier.name]
            for tier in header.tiers
            for by_tier in there.values()
            if tier.name in by_tier
        ]
        self._file.replace([header, *attempts])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def differing_headers(
    there: AttemptsHeader, now: AttemptsHeader, *, same_prompts: bool = True
) -> list[str]:
    """Return in words what two headers differ in; empty where nothing that matters does.

    `same_prompts` says whether the file of prompts matters.
    """
    differing = [
        f"{words} ({key}: {getattr(there, key)!r:.60} there, {getattr(now, key)!r:.60} now)"
        for key, words in (
            ("data_sha256", "prompts"),
            ("labels", "labels"),
            ("grader", "grader"),
            ("sampling", "sampling"),
            ("demands", "demands on answers"),
        )
        if getattr(there, key) != getattr(now, key) and (same_prompts or key != "data_sha256")
    ]
    if there.tiers != now.tiers:
        old, new = (", ".join(f"{t.name}={t.model}" for t in h.tiers) for h in (there, now))
        differing.append(f"tiers ({old} there, {new} now)")
    old_print, new_print = there.fingerprint or {}, now.fingerprint or {}
    if old_print.get("hash") != new_print.get("hash"):
        parts = differences(old_print.get("parts") or {}, new_print.get("parts") or {})
        differing.append(f"fingerprint of the cascade ({'; '.join(parts[:3]) or 'hash'})")
    return differing
