"""Count tokens of recorded answers by question: what a request costs, and how long it is."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.recorded.records_csv import Records, complete_rows
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionTokens:
    """Hold tokens of each tier at each question, [n_questions, n_tiers]; `row_of` finds a row."""

    row_of: Mapping[Hashable, int]
    prompt: Floats
    completion: Floats

    @classmethod
    def of_records(cls, records: Records, chain: Sequence[str]) -> "QuestionTokens":
        """Return those of the questions that all of `chain` answered; a mean where unknown.

        Raises:
            ConfigError: A model has the tokens of no row, or no question was answered by all.
        """
        complete = complete_rows(records, chain)
        rows = list(complete.values())
        prompt = np.array([[answer.prompt_tokens for answer in row] for row in rows])
        completion = np.array([[answer.completion_tokens for answer in row] for row in rows])
        return cls(
            row_of={question: i for i, question in enumerate(complete)},
            prompt=_filled(prompt, chain, "prompt_tokens"),
            completion=_filled(completion, chain, "completion_tokens"),
        )

    def mean_tokens(self, prompt_weight: float) -> Floats:
        """Return mean tokens of a request to each tier, prompt tokens weighted, [n_tiers]."""
        return np.asarray((prompt_weight * self.prompt + self.completion).mean(axis=0))

    def energies_j(self, outcomes: Outcomes, per_token_j: Floats, prompt_weight: float) -> Floats:
        """Return joules of each tier at each question of `outcomes`, [n_questions, n_tiers].

        An output token costs `per_token_j`, [n_tiers], and a prompt token `prompt_weight` of that.
        """
        rows = self._rows(outcomes)
        tokens = prompt_weight * self.prompt[rows] + self.completion[rows]
        return np.asarray(tokens * per_token_j)

    def scored_by_length(self, outcomes: Outcomes) -> Outcomes:
        """Return `outcomes` with lengths in place of scores: the shorter an answer, the surer."""
        return replace(outcomes, scores=-np.log1p(self.completion[self._rows(outcomes)]))

    def _rows(self, outcomes: Outcomes) -> list[int]:
        return [self.row_of[question] for question in outcomes.questions]


def _filled(tokens: Floats, chain: Sequence[str], column: str) -> Floats:
    is_known = ~np.isnan(tokens)
    n_known = is_known.sum(axis=0, dtype=np.int64)
    for i, name in enumerate(chain):
        if not n_known[i]:
            raise ConfigError(f"no row of {name!r} has its {column}")
    return np.where(is_known, tokens, np.nansum(tokens, axis=0) / n_known)
