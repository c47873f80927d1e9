"""Read labelled prompts, JSONL or CSV: what to ask, and what a right answer is."""

import contextlib
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.questions.graders import Agrees, Code, Grader, GraderSpec, grader_spec
from hybridserve_llm.cascade.coverage import SAMPLING_FIELDS, demands_of
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.faults import first_fault
from hybridserve_llm.values.requests import Endpoint, JsonObject

Labels = Literal["reference", "agreement"]
"""The way an answer is judged to be right: by a reference, or by agreement with the last tier."""

Question = tuple[str | None, str]
"""Split and id; together they name a question."""

SET_BY_COLLECTION = frozenset(
    {"model", "messages", "prompt", "stream", "stream_options", "n", "hybridserve"}
)
"""Body fields that neither a prompt's `request` nor the sampling may set."""

_LEAST_SHARE_OF_DEMANDS = 0.05

_Name = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrompt:
    """Hold one question: what to send, and how its answers are graded.

    Attributes:
        fields: The body's `messages` or `prompt`, and the line's own `request` fields.
        group: User or conversation; questions of one group depend on each other.
        grader: Grade of an answer's text; None of every answer where labels are agreement.
    """

    split: str | None
    query_id: str
    group: str | None
    endpoint: Endpoint
    fields: JsonObject
    grader: Grader

    @property
    def question(self) -> Question:
        """Return the split and the id, which name the question."""
        return self.split, self.query_id

    def body(self, sampling: JsonObject) -> dict[str, Any]:
        """Return the request's body without `model`; the line's own fields win over `sampling`."""
        return {**sampling, **self.fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Hold the prompts of a file, in its order; `sha256` is of its bytes."""

    prompts: tuple[LabelledPrompt, ...]
    sha256: str
    labels: Labels

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints that are asked, each once."""
        return tuple(sorted({prompt.endpoint for prompt in self.prompts}))

    def demands(self, sampling: JsonObject) -> tuple[tuple[str, ...], ...]:
        """Return what the prompts demand of the form of their answers, each combination once.

        A combination of less than a twentieth of the prompts is left out: a loss over all prompts
        says next to nothing about it.
        """
        counts = Counter(
            tuple(sorted(demands_of(prompt.body(sampling)))) for prompt in self.prompts
        )
        least = _LEAST_SHARE_OF_DEMANDS * len(self.prompts)
        return tuple(sorted(demands for demands, count in counts.items() if count >= least))


class _Line(BaseModel):
    """Hold one line of the file as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    endpoint: Literal["chat", "completions"] = "chat"
    reference: Any = None
    grader: str | dict[str, Any] | None = None
    id: _Name | None = None
    split: _Name | None = None
    group: _Name | None = None
    request: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "_Line":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("one of 'prompt' and 'messages' is needed, and not both")
        if self.endpoint == "completions" and self.prompt is None:
            raise ValueError("endpoint 'completions' takes a 'prompt', not 'messages'")
        if any(not isinstance(turn.get("role"), str) for turn in self.messages or ()):
            raise ValueError("every entry of 'messages' needs a 'role'")
        if taken := sorted(SET_BY_COLLECTION & self.request.keys()):
            raise ValueError(f"request.{taken[0]} is set by the collection; leave it out")
        if sampling := sorted(SAMPLING_FIELDS & self.request.keys()):
            # A certificate holds for one sampling, which is that of every prompt.
            raise ValueError(f"request.{sampling[0]}: give it to all prompts, with --sampling")
        return self

    def fields(self) -> dict[str, Any]:
        """Return the body's fields that this line sets."""
        if self.endpoint == "completions":
            return {"prompt": self.prompt, **self.request}
        messages = self.messages or [{"role": "user", "content": self.prompt}]
        return {"messages": messages, **self.request}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Hold rows to make prompts of, JSON lines or CSV; `name` is their source in messages."""

    name: str
    data: bytes
    is_csv: bool = False

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each row's line number and JSON; a row of CSV has the number of its last line."""
        data = self.data.removeprefix(b"\xef\xbb\xbf")
        if not self.is_csv:
            yield from enumerate(data.splitlines(), start=1)
            return
        try:
            reader = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
            for row in reader:
                filled = {key: cell for key, cell in row.items() if cell}
                yield reader.line_num, orjson.dumps(filled)
        except (UnicodeDecodeError, csv.Error, TypeError) as exc:
            raise ConfigError(f"{self.name} is not CSV in UTF-8: {exc}") from exc


def rows_of_file(path: Path) -> Rows:
    """Read the rows of a JSONL file, or of CSV if its name ends in `.csv`.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    return Rows(name=str(path), data=data, is_csv=path.suffix.lower() == ".csv")


def read_prompts(
    source: Path | Rows,
    default_grader: GraderSpec | None = None,
    *,
    line_of: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    run_code: bool = False,
) -> PromptSet:
    """Read the labelled prompts of a file or of rows; blank lines are counted and skipped.

    CSV has the same keys as columns, of which empty cells are absent (`_of_cells`). `line_of` makes
    labelled prompts of rows that are something else (`ready_formats.py`). `run_code` allows graders
    to run code that a model wrote.

    Raises:
        ConfigError: The file cannot be read or holds no prompt; a line is not what is allowed
            (the message names file, line and value), a grader that runs code included; two lines
            share split and id; some prompts are graded by agreement and others are not.
    """
    rows = rows_of_file(source) if isinstance(source, Path) else source
    first_line: dict[Question, int] = {}
    prompts: list[LabelledPrompt] = []
    n_agreement = 0
    is_cells = rows.is_csv and line_of is None
    for number, text in rows.lines():
        if not text.strip():
            continue
        try:
            line = _line(text, _of_cells(default_grader) if is_cells else line_of)
            spec = _spec(line, default_grader, run_code=run_code)
            prompt = _prompt(line, number, spec)
        except ConfigError as exc:
            raise ConfigError(f"{rows.name}, line {number}: {exc}") from exc
        other = first_line.setdefault(prompt.question, number)
        if other != number:
            raise ConfigError(
                f"{rows.name}, line {number}: id {prompt.query_id!r} of split {prompt.split!r} is "
                f"that of line {other} already"
            )
        prompts.append(prompt)
        n_agreement += isinstance(spec, Agrees)
    labels = _labels(rows.name, len(prompts), n_agreement)
    sha256 = hashlib.sha256(rows.data).hexdigest()
    return PromptSet(prompts=tuple(prompts), sha256=sha256, labels=labels)


def _labels(name: str, n: int, n_agreement: int) -> Labels:
    if n == 0:
        raise ConfigError(f"{name} holds no prompt")
    if 0 < n_agreement < n:
        raise ConfigError(
            f"{name}: {n_agreement} of {n} prompts have the grader 'agrees'; either all have it, "
            "or none: a certificate is about one kind of label"
        )
    return "agreement" if n_agreement else "reference"


def _spec(line: _Line, default_grader: GraderSpec | None, *, run_code: bool) -> GraderSpec:
    spec = grader_spec(line.grader) if line.grader is not None else default_grader
    if spec is None:
        raise ConfigError("no grader; give the line one, or all of them one with --grader")
    if not isinstance(spec, Agrees) and "reference" not in line.model_fields_set:
        raise ConfigError(f"no reference, and grader {spec.type!r} needs one")
    if isinstance(spec, Code) and not run_code:
        raise ConfigError(
            "grader 'code' runs what a model wrote; allow it with --run-code, or give the line a "
            "grader that runs nothing, such as regex"
        )
    return spec


def _prompt(line: _Line, number: int, spec: GraderSpec) -> LabelledPrompt:
    return LabelledPrompt(
        split=line.split,
        query_id=line.id if line.id is not None else str(number),
        group=line.group,
        endpoint=Endpoint.CHAT if line.endpoint == "chat" else Endpoint.COMPLETIONS,
        fields=line.fields(),
        grader=spec.grader(line.reference),
    )


def _line(text: bytes, line_of: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None) -> _Line:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"not JSON: {exc}") from exc
    if not isinstance(value, Mapping):
        raise ConfigError(f"{value!r:.80} is not a JSON object")
    try:
        return _Line.model_validate(value if line_of is None else line_of(value))
    except ValidationError as exc:
        raise ConfigError(_fault(exc)) from exc


def _of_cells(
    default_grader: GraderSpec | None,
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return a function that makes a line of a row whose cells are all texts.

    JSON are `messages` and `request`, a grader with settings, the reference of grader `json`, and
    a list of references; `["a", "b"]` is no list for a regular expression, and a
    text that is not JSON is none either.
    """

    def line_of(cells: Mapping[str, Any]) -> Mapping[str, Any]:
        found = dict(cells)
        for key in ("messages", "request", "grader"):
            if key in found and (key != "grader" or found[key].lstrip().startswith("{")):
                found[key] = _json_of(key, found[key])
        if "reference" in found:
            spec = default_grader if found.get("grader") is None else grader_spec(found["grader"])
            kind = None if spec is None else spec.type
            if kind == "json":
                found["reference"] = _json_of("reference", found["reference"])
            elif kind != "regex" and found["reference"].lstrip().startswith("["):
                with contextlib.suppress(orjson.JSONDecodeError):
                    found["reference"] = orjson.loads(found["reference"])
        return found

    return line_of


def _json_of(key: str, cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"{key} = {cell!r:.80}: not JSON: {exc}") from exc


def _fault(error: ValidationError) -> str:
    """Return the first fault: which key, its value, and what is allowed."""
    fault = error.errors()[0]
    if fault["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in fault["loc"])
        return f"unknown key {key!r}; allowed: {', '.join(_Line.model_fields)}"
    return first_fault(error, shows_value=True)
