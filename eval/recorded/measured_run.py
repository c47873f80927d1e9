"""A measured run: what one cascade answered, and what its engines used for it, in one JSONL file.

The first line is the header, as that of recorded attempts; every other line is a block or an idle
window. A block is some questions asked in one way: of one tier by its name with `assess`, of the
cascade, or of the last tier alone as a plain user asks it. A block's line is written when the block
is over, so a file that was left in the middle holds whole blocks and can be gone on with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from eval.questions.prompts import Question
from eval.recorded.attempts import Amount, Attempts, AttemptsHeader, Count, RecordedAttempt
from hybridserve_llm.errors import ConfigError

SCHEMA: Literal["hybridserve-run/1"] = "hybridserve-run/1"
CASCADE, ALONE = "cascade", "alone"
"""Ways that a block is asked: of the cascade, of the last tier alone; else it is a tier's name."""

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """What a tier's engines used in a window; None is what nobody measured.

    Attributes:
        cpu_s: CPU-seconds of their process trees, idle polling included.
        active_j: Joules booked to requests, shadows and calibration.
        idle_j: Joules booked to idle time.
        energy_source: The meters of both, as the server names them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    cpu_s: Amount | None
    active_j: Amount | None
    idle_j: Amount | None
    energy_source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAttempt:
    """One attempt of a request's ledger."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    tier: str
    decision: str
    reason: str | None
    score: float | None
    confidence: float | None
    risk: float | None
    prompt_tokens: Count | None
    cached_tokens: Count | None
    completion_tokens: Count | None
    latency_s: Amount | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """What a request over HTTP gave; `latency_s` is the client's, from sending to the last byte.

    `answer` is None where the request failed, and `fault` says why. `ttft_s` is the client's too,
    to the first token; None where the answer was not asked as a stream, or has no token.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    split: str | None
    query_id: str
    correct: bool | None
    answer: str | None
    fault: str | None
    tier: str | None
    certified: bool | None
    latency_s: Amount
    attempts: tuple[ServedAttempt, ...]
    ttft_s: Amount | None = None

    @property
    def question(self) -> Question:
        """The question's split and id."""
        return self.split, self.query_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Questions asked in one way, and what every tier's engines used from start to rest.

    Attributes:
        way: A tier's name, CASCADE or ALONE.
        index: Which part of the questions it is, from 0.
        started: ISO 8601.
        duration_s: From the first reading of the counters to the second.
        n_shadowed: Accepted answers that the watch drew to ask the last tier again; that work is in
            `used`, and its prompt and output tokens are `shadow_tokens`.
        answers: Of CASCADE and ALONE.
        recorded: Of a tier's own block.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["block"] = "block"
    way: str
    index: Count
    started: str
    duration_s: Amount
    used: dict[str, EngineUse]
    n_shadowed: Count
    shadow_tokens: Count
    answers: tuple[ServedAnswer, ...] = ()
    recorded: tuple[RecordedAttempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleWindow:
    """A window in which nobody asked anything."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["idle"] = "idle"
    started: str
    duration_s: Amount
    used: dict[str, EngineUse]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """How the run was made; `asked` is what recorded attempts would have as their header.

    Attributes:
        certificate: Summary of the cascade's certificate, as it told; None without one.
        hardware: In words, of the machine that measured, or as its user named it.
        concurrency: Questions asked at a time.
        block_questions: Questions of a block.
        state: What the cascade might promise; None in files from before this was kept.
        thresholds: The rules that it decided by; None in files from before this was kept.
        is_streamed: Whether the cascade and the last tier alone were asked as streams.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    schema: Literal["hybridserve-run/1"] = SCHEMA
    asked: AttemptsHeader
    served_model_name: str
    certificate: dict[str, Any] | None
    command: str
    project_version: str
    commit: str | None
    hardware: str
    concurrency: Annotated[int, Field(gt=0)]
    block_questions: Annotated[int, Field(gt=0)]
    state: str | None = None
    thresholds: list[dict[str, Any]] | None = None
    is_streamed: bool = False

    @property
    def is_of_seen_questions(self) -> bool:
        """Whether the cascade's certificate was made from this run's questions."""
        told = self.certificate
        return told is not None and told.get("data_sha256") == self.asked.data_sha256


@dataclass(slots=True, kw_only=True)
class MeasuredRun:
    """A run's content."""

    header: RunHeader
    blocks: list[Block]
    idle: list[IdleWindow]

    def has_block(self, way: str, index: int) -> bool:
        """Whether this part of the questions was asked in this way."""
        return any((block.way, block.index) == (way, index) for block in self.blocks)

    def of_way(self, way: str) -> list[Block]:
        """The blocks of one way, by their index."""
        found = [block for block in self.blocks if block.way == way]
        return sorted(found, key=lambda block: block.index)

    def attempts(self) -> Attempts:
        """The tiers' own blocks as recorded attempts."""
        attempts = Attempts(header=self.header.asked)
        for tier in self.header.asked.tiers:
            for block in self.of_way(tier.name):
                for attempt in block.recorded:
                    attempts.add(attempt)
        return attempts


_HEADER = TypeAdapter(RunHeader)
_LINE: TypeAdapter[Block | IdleWindow] = TypeAdapter(
    Annotated[Block | IdleWindow, Field(discriminator="kind")]
)


def is_run(path: Path) -> bool:
    """Whether the file's first line says that it is a measured run."""
    try:
        with path.open("rb") as file:
            value = orjson.loads(file.readline())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(value, dict) and value.get("schema") == SCHEMA


def read_run(path: Path) -> MeasuredRun:
    """The run in a file; a last line that a killed program left torn is no line.

    Raises:
        ConfigError: The file cannot be read or is no measured run; the message names the line.
    """
    try:
        return parse_run(path.read_bytes(), path)[0]
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc


def parse_run(data: bytes, path: Path) -> tuple[MeasuredRun, int]:
    """The run in a file's bytes, and how many bytes its whole lines take.

    Raises:
        ConfigError: As in `read_run`; `path` names the file there.
    """
    lines = data.split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    number = 1  # of the line that is read, for the message
    try:
        run = MeasuredRun(
            header=_HEADER.validate_json(lines[0] if lines else b""), blocks=[], idle=[]
        )
        for line in lines[1:]:
            number += 1
            found = _LINE.validate_json(line)
            if isinstance(found, Block):
                run.blocks.append(found)
            else:
                run.idle.append(found)
    except ValidationError as exc:
        fault = exc.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ConfigError(
            f"{path} is no measured run ({SCHEMA}), line {number}: {where}: {fault['msg']}"
        ) from exc
    return run, sum(len(line) + 1 for line in lines)
