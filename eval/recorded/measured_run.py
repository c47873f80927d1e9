"""Keep a measured run: one cascade's answers, and what its engines used for them, as JSON lines.

The first line is the header, as that of recorded attempts; every other line is a block or an idle
window. A block is some questions asked in one way: of one tier by its name with `assess`, of the
cascade, or of the last tier alone as a plain user asks it. A block's line is written when the block
is over, so a run that was stopped leaves whole blocks and can go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from eval.questions.prompts import Question
from eval.recorded.attempts import Attempts, AttemptsHeader, RecordedAttempt, differing_headers
from eval.recorded.line_file import Line, LineFile, decoded_line, whole_lines
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.files import read_bytes
from hybridserve_llm.values.ledger import Amount, Attempt, Count

SCHEMA: Literal["hybridserve-run/1"] = "hybridserve-run/1"
CASCADE, ALONE = "cascade", "alone"
"""Ways that a block is asked: of the cascade, of the last tier alone; else it is a tier's name."""

_KEPT = (
    *("tier", "decision", "reason", "score", "confidence", "risk"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "latency_s"),
)
"""Keys that the file keeps of each attempt of a served request."""


class EngineUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what a tier's engines used in a window; None is what nobody measured.

    Attributes:
        cpu_s: CPU-seconds of their process trees, idle polling included.
        active_j: Joules booked to requests, shadows and calibration.
        idle_j: Joules booked to idle time.
        energy_source: The meters of both, as the server names them.
    """

    cpu_s: Amount | None
    active_j: Amount | None
    idle_j: Amount | None
    energy_source: str | None


class ServedAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what a request over HTTP gave, with the attempts of its ledger.

    `latency_s` is the client's, from sending to the last byte, and `ttft_s` to the first token. The
    latter is None where the answer was not asked as a stream, or has no token. `answer` is None
    where the request failed, and `fault` says why.
    """

    split: str | None
    query_id: str
    correct: bool | None
    answer: str | None
    fault: str | None
    tier: str | None
    certified: bool | None
    latency_s: Amount
    attempts: tuple[Attempt, ...]
    ttft_s: Amount | None = None

    @property
    def question(self) -> Question:
        """Return the question's split and id."""
        return self.split, self.query_id


class MeasuredBlock(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="block",
):
    """Hold questions asked in one way, and what every tier's engines used from start to rest.

    Attributes:
        way: A tier's name, CASCADE or ALONE.
        index: Which part of the questions it is, from 0.
        started: ISO 8601.
        duration_s: From the first reading of the counters to the second.
        n_shadowed: Accepted answers that the watch drew to ask the last tier again. That work is in
            `used`, and its prompt and output tokens are `shadow_tokens`.
        answers: Of CASCADE and ALONE.
        recorded: Of a tier's own block.
    """

    way: str
    index: Count
    started: str
    duration_s: Amount
    used: dict[str, EngineUse]
    n_shadowed: Count
    shadow_tokens: Count
    answers: tuple[ServedAnswer, ...] = ()
    recorded: tuple[RecordedAttempt, ...] = ()


class IdleWindow(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="idle",
):
    """Hold what engines used in a window in which nobody asked anything."""

    started: str
    duration_s: Amount
    used: dict[str, EngineUse]


class RunHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold how the run was made; `asked` is what recorded attempts would have as their header.

    Attributes:
        certificate: Summary of the cascade's certificate, as its server gave it; None without one.
        hardware: In words, of the machine that measured, or as its user named it.
        concurrency: Questions asked at a time.
        block_questions: Questions of a block.
        state: What the cascade might promise; None in files from before this was kept.
        thresholds: The rules that it decided by; None in files from before this was kept.
        is_streamed: The cascade and the last tier alone were asked as streams.
    """

    schema: Literal["hybridserve-run/1"] = SCHEMA
    asked: AttemptsHeader
    served_model_name: str
    certificate: dict[str, Any] | None
    command: str
    project_version: str
    commit: str | None
    hardware: str
    concurrency: Annotated[int, msgspec.Meta(gt=0)]
    block_questions: Annotated[int, msgspec.Meta(gt=0)]
    state: str | None = None
    thresholds: list[dict[str, Any]] | None = None
    is_streamed: bool = False

    @property
    def is_of_seen_questions(self) -> bool:
        """Return True where the cascade's certificate was made from this run's questions."""
        certificate = self.certificate
        return certificate is not None and certificate.get("data_sha256") == self.asked.data_sha256


@dataclass(slots=True, kw_only=True)
class MeasuredRun:
    """Hold a run's content."""

    header: RunHeader
    blocks: list[MeasuredBlock]
    idle: list[IdleWindow]

    def add(self, line: MeasuredBlock | IdleWindow) -> None:
        """Take a block or an idle window in."""
        if isinstance(line, MeasuredBlock):
            self.blocks.append(line)
        else:
            self.idle.append(line)

    def has_block(self, way: str, index: int) -> bool:
        """Return True where this part of the questions was asked in this way."""
        return any((block.way, block.index) == (way, index) for block in self.blocks)

    def of_way(self, way: str) -> list[MeasuredBlock]:
        """Return the blocks of one way, by their index."""
        found = [block for block in self.blocks if block.way == way]
        return sorted(found, key=lambda block: block.index)

    def attempts(self) -> Attempts:
        """Return the tiers' own blocks as recorded attempts."""
        attempts = Attempts(header=self.header.asked)
        for tier in self.header.asked.tiers:
            for block in self.of_way(tier.name):
                for attempt in block.recorded:
                    attempts.add(attempt)
        return attempts


_HEADERS = msgspec.json.Decoder(RunHeader)
_LINES: msgspec.json.Decoder[MeasuredBlock | IdleWindow] = msgspec.json.Decoder(
    MeasuredBlock | IdleWindow
)


def is_run(path: Path) -> bool:
    """Return True where the file's first line says that it is a measured run."""
    try:
        with path.open("rb") as file:
            value = msgspec.json.decode(file.readline())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(value, dict) and value.get("schema") == SCHEMA


def read_run(path: Path) -> MeasuredRun:
    """Return the run in a file; a last line that a killed program left torn is ignored.

    Raises:
        ConfigError: The file cannot be read or is no measured run; the message names the line.
    """
    return _parsed(read_bytes(path), path)


def _parsed(data: bytes, path: Path) -> MeasuredRun:
    first, *others = whole_lines(data) or [b""]
    run = MeasuredRun(header=_decoded(first, _HEADERS, path, 1), blocks=[], idle=[])
    for number, line in enumerate(others, start=2):
        run.add(_decoded(line, _LINES, path, number))
    return run


def _decoded(line: bytes, decoder: msgspec.json.Decoder[Line], path: Path, number: int) -> Line:
    try:
        return decoded_line(line, decoder)
    except ConfigError as exc:
        raise ConfigError(f"{path} is no measured run ({SCHEMA}), line {number}: {exc}") from exc


class RunFile:
    """Write a run's file, so that a stopped run can go on; a context manager."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin the file, or go on with it and cut a torn last line off.

        Raises:
            ConfigError: The file cannot be opened, another process writes it, it holds something
                else, or it was begun with another cascade, other prompts or other settings.
        """
        self.path = path
        self._file = LineFile(path)
        try:
            self.run = self._begin_or_go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _begin_or_go_on(self, header: RunHeader) -> MeasuredRun:
        data = self._file.read()
        if not data:
            self._file.write(header)
            return MeasuredRun(header=header, blocks=[], idle=[])
        run = _parsed(data, self.path)
        if differing := differing_runs([run.header, header]):
            raise ConfigError(
                f"{self.path} was measured with other {differing}; name another file, or go on "
                "with what it was measured with"
            )
        self._file.cut_torn_line()
        return run

    def add(self, line: MeasuredBlock | IdleWindow) -> None:
        """Write a block or an idle window; `run` holds it then.

        Raises:
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        self._file.write(_line_of(line))
        self.run.add(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _line_of(line: MeasuredBlock | IdleWindow) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(line)
    for answer in value.get("answers", ()):
        answer["attempts"] = [{key: one[key] for key in _KEPT} for one in answer["attempts"]]
    return value


def differing_runs(headers: Sequence[RunHeader], *, same_prompts: bool = True) -> str:
    """Return in words what a first header and a later one differ in; empty where nothing does."""
    first = headers[0]
    for other in headers[1:]:
        found = differing_headers(first.asked, other.asked, same_prompts=same_prompts)
        keys = ("served_model_name", "hardware", "concurrency", "block_questions", "is_streamed")
        found += [
            f"{key} ({getattr(first, key)!r} there, {getattr(other, key)!r} now)"
            for key in keys
            if getattr(first, key) != getattr(other, key)
        ]
        found += _differing_policies(first, other)
        if found:
            return ", ".join(found)
    return ""


def _differing_policies(there: RunHeader, now: RunHeader) -> list[str]:
    """Return what the two cascades decided by, where both files say it and it differs."""
    found = []
    old, new = there.certificate, now.certificate
    if old is None or new is None:
        is_same = old is new
    else:
        is_same = all(old[key] == new[key] for key in old.keys() & new.keys())
    if not is_same:
        found.append(f"certificate ({_made(old)} there, {_made(new)} now)")
    if None not in (there.state, now.state) and there.state != now.state:
        found.append(f"state ({there.state} there, {now.state} now)")
    if None not in (there.thresholds, now.thresholds) and there.thresholds != now.thresholds:
        found.append("thresholds of the cascade")
    return found


def _made(certificate: dict[str, Any] | None) -> str:
    return "none" if certificate is None else f"made {certificate.get('created')}"
