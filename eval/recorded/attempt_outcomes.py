"""Turn recorded attempts into outcomes: which questions count, who was right, what it costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.questions.prompts import Question
from eval.recorded.attempts import Attempts, RecordedAttempt
from hybridserve_llm.calibration.outcomes import Floats, Outcomes, draws_of, equal_numbers
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES
from hybridserve_llm.errors import ConfigError

Rows = list[list[RecordedAttempt]]
"""Attempts by question and tier of the chain, [n_questions][n_tiers]."""

_BILLION = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAttempts:
    """Hold what can be calibrated on, and how many questions were left out for which reason.

    Attributes:
        cost_source: In words, where `outcomes.costs` come from.
        n_unanswered: Questions that some tier of the chain has not answered.
        n_ungraded: Questions that all answered, where a grader could not decide.
    """

    outcomes: Outcomes
    cost_source: str
    n_unanswered: int
    n_ungraded: int


def outcomes_of_attempts(
    attempts: Attempts, chain: Sequence[str], given_costs: Mapping[str, float]
) -> GradedAttempts:
    """Return outcomes of the questions that every tier of `chain` answered and a grader judged.

    Questions come in the order of split and id, since attempts end in another order each time. With
    labels by agreement, right is who agrees with the last tier of `chain`, and that tier always is.

    Raises:
        ConfigError: No question is left; the features are not those that this version computes; or
            a cost cannot be found (`costs_of_attempts`).
    """
    answered = _answered(attempts, chain)
    by_agreement = attempts.header.labels == "agreement"
    rows = [row for row in answered if by_agreement or all(a.correct is not None for a in row)]
    if not rows:
        raise ConfigError(_nothing_left(attempts, chain, len(answered)))
    costs, cost_source = costs_of_attempts(attempts, rows, chain, given_costs)
    return GradedAttempts(
        outcomes=_outcomes(rows, chain, costs, by_agreement=by_agreement),
        cost_source=cost_source,
        n_unanswered=len(attempts.by_question) - len(answered),
        n_ungraded=len(answered) - len(rows),
    )


def _answered(attempts: Attempts, chain: Sequence[str]) -> Rows:
    """Return attempts at the questions that all of `chain` answered, in order of split and id."""
    return [
        [by_tier[name] for name in chain]
        for question, by_tier in sorted(attempts.by_question.items(), key=_place)
        if all(attempts.has_answer(question, name) for name in chain)
    ]


def _outcomes(
    rows: Rows, chain: Sequence[str], costs: Sequence[float], *, by_agreement: bool
) -> Outcomes:
    keys = [equal_numbers([attempt.answer_key for attempt in row]) for row in rows]
    answers = np.array(keys, dtype=np.int64)
    is_right = np.array([[bool(attempt.correct) for attempt in row] for row in rows])
    return Outcomes(
        tiers=tuple(chain),
        is_right=answers == answers[:, -1:] if by_agreement else is_right,
        scores=np.array([[_or_nan(attempt.score) for attempt in row] for row in rows]).clip(max=0),
        answers=answers,
        costs=np.asarray(costs, dtype=np.float64),
        prompt_features=np.array([_prompt_row(row[-1]) for row in rows], dtype=np.float64),
        prompt_feature_names=PROMPT_FEATURE_NAMES,
        answer_features=np.array([[_answer_row(a) for a in row] for row in rows], dtype=np.float64),
        answer_feature_names=FEATURE_NAMES,
        questions=tuple(row[0].question for row in rows),
        draws=_draws(rows),
        groups=tuple(row[0].group for row in rows),
    )


def _draws(rows: Rows) -> Floats:
    """Return the server's draws; in older files, which have none, those by the question's name."""
    by_name = draws_of(tuple(row[0].question for row in rows))
    known = [row[-1].prompt_draw for row in rows]
    return np.array([x if d is None else d for d, x in zip(known, by_name, strict=True)])


def costs_of_attempts(
    attempts: Attempts, rows: Rows, chain: Sequence[str], given: Mapping[str, float]
) -> tuple[tuple[float, ...], str]:
    """Return the mean cost of a request per tier of `chain`, and in words where it comes from.

    Given costs, where every tier has one; without any, joules where every attempt has them; else
    prompt and output tokens times active parameters, in 1e9.

    Raises:
        ConfigError: Some tiers have a given cost and some not; or joules are missing, and so are
            a tier's active parameters or its tokens.
    """
    if given:
        unpriced = [name for name in chain if name not in given]
        if unpriced:
            raise ConfigError(f"no --cost for {unpriced[0]!r}; give one for every tier or for none")
        return tuple(given[name] for name in chain), "as given, per request"
    by_tier = list(zip(*rows, strict=True))
    joules = [_mean([attempt.energy_j for attempt in tier]) for tier in by_tier]
    if all(a.energy_j is not None for row in rows for a in row) and min(joules) > 0:
        sources = {attempt.energy_source or "source unknown" for row in rows for attempt in row}
        return tuple(joules), f"joules per request ({', '.join(sorted(sources))})"
    active = {tier.name: tier.active_parameters for tier in attempts.header.tiers}
    costs = []
    for name, tier in zip(chain, by_tier, strict=True):
        tokens = _mean([_tokens(attempt) for attempt in tier])
        parameters = active[name]
        if parameters is None or not tokens > 0:  # NaN where no attempt has them
            missing = "active parameters are" if parameters is None else "tokens are"
            raise ConfigError(
                f"no --cost for {name!r}, not every attempt has joules, and its {missing} unknown"
            )
        costs.append(parameters / _BILLION * tokens)
    return tuple(costs), "tokens x active parameters (1e9), as the cascade reports them"


def _place(entry: tuple[Question, object]) -> tuple[bool, str, str]:
    split, query_id = entry[0]
    return split is not None, split or "", query_id


def _nothing_left(attempts: Attempts, chain: Sequence[str], n_answered: int) -> str:
    names = ", ".join(chain)
    if n_answered:
        return f"{n_answered} questions were answered by all of {names}, and none could be graded"
    failed = [
        f"; {attempt.tier} failed first with: {attempt.reason}"
        for by_tier in attempts.by_question.values()
        for attempt in by_tier.values()
        if attempt.has_failed and attempt.tier in chain
    ]
    return f"no question was answered by all of {names}" + "".join(failed[:1])


def _prompt_row(attempt: RecordedAttempt) -> list[float]:
    _check_names(attempt, attempt.prompt_features, PROMPT_FEATURE_NAMES, "prompt_features")
    return [attempt.prompt_features[name] for name in PROMPT_FEATURE_NAMES]


def _answer_row(attempt: RecordedAttempt) -> Floats:
    """Return [n_features]; NaN where the answer has no features, or not this one."""
    if attempt.features is None:
        return np.full(len(FEATURE_NAMES), np.nan)
    _check_names(attempt, attempt.features, FEATURE_NAMES, "features")
    return np.array([_or_nan(attempt.features[name]) for name in FEATURE_NAMES])


def _check_names(
    attempt: RecordedAttempt, found: Mapping[str, object], names: tuple[str, ...], what: str
) -> None:
    if differing := sorted(found.keys() ^ set(names)):
        raise ConfigError(
            f"question {attempt.query_id!r}, tier {attempt.tier!r}: {what} are those of another "
            f"version ({differing[0]!r} is in one of both alone); collect the attempts anew"
        )


def _tokens(attempt: RecordedAttempt) -> float | None:
    if attempt.prompt_tokens is None or attempt.completion_tokens is None:
        return None
    return float(attempt.prompt_tokens + attempt.completion_tokens)


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that are known; NaN without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
