"""Read what a calibration is made from: recorded answers (CSV), attempts or a run (JSONL)."""

import hashlib
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from eval.questions.prompts import Labels, Question
from eval.recorded.attempt_outcomes import outcomes_of_attempts
from eval.recorded.attempts import AttemptsHeader, read_attempts
from eval.recorded.measured_run import MeasuredRun, is_run, read_run
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.recorded_costs import costs_of_tiers
from eval.recorded.records_csv import Records, outcomes_of, read_records
from eval.recorded.run_outcomes import measured_costs, pooled, total_use
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.errors import CannotBeDone, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationData:
    """Hold outcomes, and all that is known of where they come from.

    Attributes:
        cost_source: In words, where `outcomes.costs` come from.
        n_unanswered: Questions left out, as some tier of the chain has not answered.
        n_ungraded: Questions left out, as a grader could not decide.
        data_sha256: Of the prompts file for attempts, of the CSV file for records.
        header: Cascade, fingerprint and sampling of attempts; None for CSV, which has none.
        answer_lengths: Output tokens of CSV rows, [n_questions, n_tiers]; None where a model has
            none, and for attempts, whose features hold them.
    """

    outcomes: Outcomes
    cost_source: str
    n_unanswered: int
    n_ungraded: int
    labels: Labels
    data_sha256: str
    header: AttemptsHeader | None
    answer_lengths: Floats | None = None

    def remarks(self) -> list[str]:
        """Return what a reader of the result has to know of the data."""
        lines = []
        if self.n_ungraded:
            lines.append(f"Left out, as the grader could not decide: {self.n_ungraded} questions.")
        if self.labels == "agreement":
            lines.append(
                "No labels: right means agreeing with the last tier, and so does every accuracy."
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the entries of the result that describe the data."""
        return {"n_ungraded": self.n_ungraded, "labels": self.labels}


def read_calibration_data(
    path: Path, wished_chain: tuple[str, ...] | None, given_costs: Mapping[str, float]
) -> CalibrationData:
    """Return the data in a file of either form, which its first line shows.

    Args:
        path: CSV, one row per question and model, a file of attempts, or a measured run.
        wished_chain: Tiers, cheapest first; None takes all: the models of a CSV file by cost, the
            tiers of a cascade in its own order.
        given_costs: Cost of a request by tier; empty where it is to be read off the data.

    Raises:
        ConfigError: The file cannot be read or is of neither form; a chain or a cost names a tier
            that does not exist; a cost cannot be found; or no question can be used.
    """
    if path.is_fifo():  # `records <(zcat …)`: it can be read once, and is needed more often
        with tempfile.NamedTemporaryFile(suffix="-piped") as copy:
            copy.write(path.read_bytes())
            copy.flush()
            return read_calibration_data(Path(copy.name), wished_chain, given_costs)
    return (_attempts if _is_jsonl(path) else _records)(path, wished_chain, given_costs)


def checked_chain(
    wished: tuple[str, ...] | None, given_costs: Mapping[str, float], tiers: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the chain to calibrate; `tiers` are all tiers, in the order of the cascade.

    Raises:
        ConfigError: A chain or a cost names an unknown tier, the chain is not in the order of the
            cascade, or it has fewer than two tiers.
    """
    chain = checked_names(tiers if wished is None else wished, given_costs, tiers)
    in_order = tuple(name for name in tiers if name in chain)
    if chain != in_order:
        raise ConfigError(
            f"--chain {','.join(chain)}: the cascade goes through its tiers in the order "
            f"{','.join(in_order)}"
        )
    return chain


def checked_names(
    wished: tuple[str, ...], given_costs: Mapping[str, float], names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return `wished`, where all of it and of the costs' names are among `names`.

    Raises:
        ConfigError: A name is unknown, fewer than two exist, or `wished` has fewer or one twice.
    """
    if len(names) < 2:
        there = f"{names[0]!r} alone is there" if names else "none is there"
        raise ConfigError(f"a cascade takes at least two tiers, and {there}")
    for name in given_costs:
        if name not in names:
            raise ConfigError(f"--cost {name}: no such model; {', '.join(names)}")
    for name in wished:
        if name not in names:
            raise ConfigError(f"--chain: no model {name!r}; {', '.join(names)}")
    if len(wished) < 2 or len(set(wished)) < len(wished):
        raise ConfigError(f"--chain {','.join(wished)}: at least two tiers, each once")
    return wished


def _is_jsonl(path: Path) -> bool:
    """Return True where the first line is a JSON object.

    Raises:
        ConfigError: The file cannot be read, or holds labelled prompts, which nobody answered yet.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    if isinstance(value, dict) and value.keys() & {"prompt", "messages"}:
        raise ConfigError(
            f"{path} holds prompts without answers; hs-calibrate prompts asks the tiers"
        )
    return isinstance(value, dict)


def _attempts(
    path: Path, wished: tuple[str, ...] | None, given: Mapping[str, float]
) -> CalibrationData:
    run = read_run(path) if is_run(path) else None
    attempts = read_attempts(path) if run is None else run.attempts()
    header = attempts.header
    chain = checked_chain(wished, given, tuple(tier.name for tier in header.tiers))
    measured = None if run is None or given else _measured_costs(run)
    stand_in = dict.fromkeys(chain, 1.0) if measured else given  # replaced below
    graded = outcomes_of_attempts(attempts, chain, stand_in)
    outcomes, cost_source = graded.outcomes, graded.cost_source
    if measured:
        by_tier, cost_source = measured
        means = [math.fsum(by_tier[t].values()) / len(by_tier[t]) for t in chain]
        outcomes = replace(outcomes, costs=np.array(means))
    return CalibrationData(
        outcomes=outcomes,
        cost_source=cost_source,
        n_unanswered=graded.n_unanswered,
        n_ungraded=graded.n_ungraded,
        labels=header.labels,
        data_sha256=header.data_sha256,
        header=header,
    )


def _measured_costs(run: MeasuredRun) -> tuple[dict[str, dict[Question, float]], str] | None:
    """Return the measured cost of each question by tier, and in words; None if a tier has none."""
    whole = pooled([run])
    try:
        unit = whole.unit
    except CannotBeDone:  # no meter: priced by tokens, as the result says
        return None
    costs = measured_costs(whole, total_use(unit))
    if any(math.fsum(of_tier.values()) <= 0 for of_tier in costs.values()):
        return None
    meters = f" ({whole.energy_sources})" if unit == "J" else ""
    return costs, f"{unit} per request{meters}, as measured in the tiers' own blocks"


def _records(
    path: Path, wished: tuple[str, ...] | None, given: Mapping[str, float]
) -> CalibrationData:
    records = read_records(path)
    chain = _chain_of_records(records, wished, given)
    costs, cost_source = costs_of_tiers(records, chain, given)
    outcomes, n_unanswered = outcomes_of(records, chain, costs)
    return CalibrationData(
        outcomes=outcomes,
        cost_source=cost_source,
        n_unanswered=n_unanswered,
        n_ungraded=0,
        labels="reference",
        data_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        header=None,
        answer_lengths=_lengths(records, chain),
    )


def _lengths(records: Records, chain: tuple[str, ...]) -> Floats | None:
    """Return output tokens by question and tier; a model's mean where unknown, None without any."""
    try:
        return QuestionTokens.of_records(records, chain).completion
    except ConfigError:  # a model has the tokens of no row
        return None


def _chain_of_records(
    records: Records, wished: tuple[str, ...] | None, given: Mapping[str, float]
) -> tuple[str, ...]:
    checked_names(records.models if wished is None else wished, given, records.models)
    if wished is not None:
        return wished
    costs, _ = costs_of_tiers(records, records.models, given)
    by_cost = dict(zip(records.models, costs, strict=True))
    return tuple(sorted(records.models, key=by_cost.__getitem__))
