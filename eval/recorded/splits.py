"""Which questions are fitted on, which are certified on, and which only measure the result."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.outcomes import Ints, Outcomes
from hybridserve_llm.errors import ConfigError

DEFAULT_N_FIT = 300
DEFAULT_N_CERTIFY = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Fit and certify questions, and the set that the result is reported on.

    `is_of_groups`: groups differ in size and one row of each is certified on, so a certificate is
    about a random question of a random group, not about a random question.
    """

    fit: Outcomes
    certify: Outcomes
    test: Outcomes
    is_of_groups: bool = False


def bootstrap_splits(outcomes: Outcomes, n_fit: int, n_certify: int, seed: int) -> Splits:
    """Fit and certify rows drawn with replacement; the whole file is the truth to report on."""
    rng = np.random.default_rng(seed)
    return Splits(
        fit=outcomes.take(rng.integers(0, outcomes.n_questions, n_fit)),
        certify=outcomes.take(rng.integers(0, outcomes.n_questions, n_certify)),
        test=outcomes,
    )


def disjoint_splits(
    outcomes: Outcomes, n_fit: int | None, n_certify: int | None, seed: int
) -> Splits:
    """Disjoint splits; a group, where ids are given, lies in one split as a whole.

    Without numbers it is 300 rows to fit and 600 to certify, or a quarter and a half of a smaller
    file; the rest is for the test. Certified on is one random row of each group: a group's
    questions depend on each other, and the certificate's test needs independent ones.

    Raises:
        ConfigError: There are too few questions for the numbers asked for.
    """
    rng = np.random.default_rng(seed)
    n = outcomes.n_questions
    n_fit = n_fit if n_fit is not None else min(DEFAULT_N_FIT, n // 4)
    n_certify = n_certify if n_certify is not None else min(DEFAULT_N_CERTIFY, n // 2)
    groups = question_groups(outcomes)
    order = rng.permutation(len(groups))
    fit = _first(groups, order, n_fit)
    certify = _first(groups, order[fit.n_groups :], n_certify)
    rest = order[fit.n_groups + certify.n_groups :]
    if (
        min(n_fit, n_certify) < 1
        or fit.n_rows < n_fit
        or certify.n_rows < n_certify
        or len(rest) == 0
    ):
        raise ConfigError(
            f"{n} questions in {len(groups)} groups are too few for {n_fit} to fit, "
            f"{n_certify} to certify and some to test"
        )
    one_each = [int(rng.choice(groups[i])) for i in order[fit.n_groups :][: certify.n_groups]]
    return Splits(
        fit=outcomes.take(fit.rows),
        certify=outcomes.take(one_each),
        test=outcomes.take(np.concatenate([groups[i] for i in rest])),
        is_of_groups=len({len(rows) for rows in groups}) > 1,
    )


def question_groups(outcomes: Outcomes) -> list[Ints]:
    """Row indices of each group; a row without a group id is one of its own."""
    rows: dict[Hashable, list[int]] = {}
    for i, group in enumerate(outcomes.groups):
        rows.setdefault(("row", i) if group is None else ("group", group), []).append(i)
    return [np.asarray(indices, dtype=np.int64) for indices in rows.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    rows: Ints
    n_groups: int

    @property
    def n_rows(self) -> int:
        return len(self.rows)


def _first(groups: list[Ints], order: Ints, n_rows: int) -> _Taken:
    """The first groups of `order` that together hold at least `n_rows` rows."""
    taken: list[Ints] = []
    count = 0
    for i in order:
        if count >= n_rows:
            break
        taken.append(groups[i])
        count += len(groups[i])
    rows = np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)
    return _Taken(rows=rows, n_groups=len(taken))
