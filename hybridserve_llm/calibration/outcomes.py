"""Hold what every tier did on every question: the data of fitting and certifying."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

State = tuple[int, ...]
"""Indices of the tiers asked so far, rising; the last one's answer is on the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Hold the answers of all tiers to the same questions; every tier answered every one.

    Attributes:
        tiers: Names, cheapest first; the last is the one whose accuracy is to be kept.
        is_right: True where the tier's answer is right, shape [n_questions, n_tiers].
        scores: Log-probability score of the answer, <= 0, same shape; NaN where there is none.
        answers: Equal numbers mean equal normalised answers within a question; same shape.
        costs: Mean cost of one request per tier, shape [n_tiers], in any one unit.
        prompt_features: Cheap features of the prompt alone, shape [n_questions, n_prompt_features].
        prompt_feature_names: Their names, in order.
        answer_features: Features of each answer beyond its score, shape [n_questions, n_tiers,
            n_answer_features], NaN where absent; the last axis may be empty.
        answer_feature_names: Their names, in order.
        questions: A name for each question, e.g. (split, id); a repeated one was drawn again.
        draws: A number in [0, 1) for each question, as if drawn at random; made from it.
        groups: User or conversation of each question; questions of one group depend on each other.
    """

    tiers: tuple[str, ...]
    is_right: Bools
    scores: Floats
    answers: Ints
    costs: Floats
    prompt_features: Floats
    prompt_feature_names: tuple[str, ...]
    answer_features: Floats
    answer_feature_names: tuple[str, ...]
    questions: tuple[Hashable, ...]
    draws: Floats
    groups: tuple[Hashable, ...]

    @property
    def n_questions(self) -> int:
        """Return the number of rows."""
        return len(self.questions)

    @property
    def last(self) -> int:
        """Return the index of the last tier."""
        return len(self.tiers) - 1

    def take(self, rows: Sequence[int] | Ints) -> "Outcomes":
        """Return the questions at the indices `rows`, in that order, repeats allowed."""
        picked = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            is_right=self.is_right[picked],
            scores=self.scores[picked],
            answers=self.answers[picked],
            prompt_features=self.prompt_features[picked],
            answer_features=self.answer_features[picked],
            questions=tuple(self.questions[i] for i in picked),
            draws=self.draws[picked],
            groups=tuple(self.groups[i] for i in picked),
        )

    def harmful(self, tier: int) -> Bools:
        """Return True where `tier` is wrong and the last tier right, [n_questions].

        There it does harm to accept `tier`.
        """
        return ~self.is_right[:, tier] & self.is_right[:, self.last]


def draws_of(questions: Sequence[Hashable]) -> Floats:
    """Return a number in [0, 1) for each question, by a hash of its name, shape [n_questions].

    A policy that serves a share of the prompts takes those whose number is below the share. The
    same question always goes the same way, and the number says nothing of its answer.
    """
    digests = (hashlib.sha256(repr(question).encode()).digest() for question in questions)
    return np.array([int.from_bytes(digest[:6]) / 2**48 for digest in digests], dtype=np.float64)


def equal_numbers(keys: Sequence[str | None]) -> list[int]:
    """Return a number for each key of one question, equal for equal keys; None equals nothing."""
    return [keys.index(key) if key else -i for i, key in enumerate(keys, start=1)]
