"""Read recorded answers of several models to the same questions: CSV, a row per answer.

Columns, in any order: `query_id` and `split` (together they name the question), `model`, `correct`
(0 or 1), `raw_confidence` (log-probability of the answer, <= 0; empty where unknown),
`prompt_tokens`, `completion_tokens`, `answer_key` (equal keys mean equal normalised answers) and
`group` (user or conversation). A column that is missing and not needed is as one of empty cells.
Columns of other names are not read.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.recorded.model_names import active_billions
from hybridserve_llm.calibration.outcomes import Outcomes, draws_of, equal_numbers
from hybridserve_llm.errors import ConfigError

_NEEDED = ("query_id", "model", "correct", "raw_confidence")

Question = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer:
    """Hold one row of the file."""

    is_right: bool
    score: float
    prompt_tokens: float
    completion_tokens: float
    answer_key: str
    group: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Hold the rows of a file by question and model, in the file's order."""

    answers: Mapping[Question, Mapping[str, RecordedAnswer]]
    models: tuple[str, ...]

    def mean_tokens(self, model: str) -> float:
        """Return the mean of prompt plus output tokens over the model's rows that have both."""
        rows = [by_model[model] for by_model in self.answers.values() if model in by_model]
        totals = [row.prompt_tokens + row.completion_tokens for row in rows]
        known = [total for total in totals if not math.isnan(total)]
        return math.fsum(known) / len(known) if known else math.nan


def read_records(path: Path) -> Records:
    """Return the file's rows.

    Raises:
        ConfigError: The file cannot be read, a column is missing, a value is not what the column
            holds, or a question has two rows of one model.
    """
    answers: dict[Question, dict[str, RecordedAnswer]] = {}
    models: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path} has no column {missing[0]!r}; needed: {', '.join(_NEEDED)}"
                )
            for line, row in enumerate(reader, start=2):
                where = f"{path}, line {line}"
                question, model = _named(row, where)
                by_model = answers.setdefault(question, {})
                if model in by_model:
                    raise ConfigError(
                        f"{where}: a second row of model {model!r} for question {question[1]!r} of "
                        f"split {question[0]!r}"
                    )
                by_model[model] = _recorded_answer(row, where)
                models[model] = None
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"cannot read {path}: {exc}") from exc
    return Records(answers=answers, models=tuple(models))


def _named(row: Mapping[str, str | None], where: str) -> tuple[Question, str]:
    """Return the question and the model that a row is of."""
    query_id, model = ((row[name] or "").strip() for name in ("query_id", "model"))
    if not query_id or not model:
        raise ConfigError(f"{where}: {'model' if query_id else 'query_id'} is empty")
    return ((row.get("split") or "").strip(), query_id), model


def _recorded_answer(row: Mapping[str, str | None], where: str) -> RecordedAnswer:
    truth = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
    correct = (row["correct"] or "").strip().lower()
    if correct not in truth:
        raise ConfigError(f"{where}: correct is {row['correct']!r}; allowed: 0 or 1")
    score = _number(row, "raw_confidence", where)
    if score > 1e-6:
        raise ConfigError(f"{where}: raw_confidence is {score:g}; a log-probability is at most 0")
    return RecordedAnswer(
        is_right=truth[correct],
        score=min(score, 0.0) if not math.isnan(score) else math.nan,
        prompt_tokens=_tokens(row, "prompt_tokens", where),
        completion_tokens=_tokens(row, "completion_tokens", where),
        answer_key=(row.get("answer_key") or "").strip(),
        group=row.get("group") or None,
    )


def _tokens(row: Mapping[str, str | None], column: str, where: str) -> float:
    count = _number(row, column, where)
    if count < 0 or math.isinf(count):
        raise ConfigError(f"{where}: {column} is {count:g}; allowed: 0 or more")
    return count


def _number(row: Mapping[str, str | None], column: str, where: str) -> float:
    """Return the column's number; NaN, which is unknown, where it is empty or missing."""
    text = (row.get(column) or "").strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{where}: {column} is {text!r}, not a number") from None
    return max(value, -1e6)


def tier_costs(
    records: Records, chain: Sequence[str], given: Mapping[str, float]
) -> tuple[tuple[float, ...], str]:
    """Return the cost of a request per tier of `chain`, and in words where it comes from.

    Given costs are used where every tier has one; without any, tokens times active parameters,
    read from the models' names ("70b", or "a22b" for the active ones).

    Raises:
        ConfigError: Some tiers have a cost and some not, or a name does not say a size.
    """
    if given:
        unpriced = [name for name in chain if name not in given]
        if unpriced:
            raise ConfigError(f"no --cost for {unpriced[0]!r}; give one for every tier or for none")
        return tuple(given[name] for name in chain), "as given, per request"
    costs = []
    for name in chain:
        size = active_billions(name)
        if size is None:
            raise ConfigError(
                f"no --cost for {name!r}, and its name does not contain a size like 8b"
            )
        tokens = records.mean_tokens(name)
        if not tokens > 0:  # NaN where no row has them
            raise ConfigError(f"no --cost for {name!r}, and no row of it has its tokens")
        costs.append(size * tokens)
    return tuple(costs), "tokens x active parameters (1e9), by the models' names"


def complete_rows(records: Records, chain: Sequence[str]) -> dict[Question, list[RecordedAnswer]]:
    """Return the answers to every question that all of `chain` answered, in its order.

    Raises:
        ConfigError: No question was answered by all of them.
    """
    complete = {
        question: [by_model[name] for name in chain]
        for question, by_model in records.answers.items()
        if all(name in by_model for name in chain)
    }
    if not complete:
        raise ConfigError(f"no question was answered by all of {', '.join(chain)}")
    return complete


def outcomes_of(
    records: Records, chain: Sequence[str], costs: Sequence[float]
) -> tuple[Outcomes, int]:
    """Return outcomes of the questions that all of `chain` answered, and how many others exist.

    Raises:
        ConfigError: No question has an answer of every tier.
    """
    complete = complete_rows(records, chain)
    rows = list(complete.values())
    prompt_tokens = [[math.log1p(row[-1].prompt_tokens)] for row in rows]
    outcomes = Outcomes(
        tiers=tuple(chain),
        is_right=np.array([[answer.is_right for answer in row] for row in rows]),
        scores=np.array([[answer.score for answer in row] for row in rows]),
        answers=np.array([equal_numbers([answer.answer_key for answer in row]) for row in rows]),
        costs=np.asarray(costs, dtype=np.float64),
        prompt_features=np.asarray(prompt_tokens, dtype=np.float64),
        prompt_feature_names=("log_prompt_tokens",),
        answer_features=np.empty((len(rows), len(chain), 0)),
        answer_feature_names=(),
        questions=tuple(complete),
        draws=draws_of(tuple(complete)),
        groups=tuple(row[0].group for row in rows),
    )
    return outcomes, len(records.answers) - len(complete)
