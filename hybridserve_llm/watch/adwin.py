"""A warning that the input changes: ADWIN over a tier's scores and over how often it accepts.

It decides nothing. Other questions than at calibration move scores, and the accept rate with them,
while the loss may stay within its budget; and answers that turn wrong at the same score move
neither. What the loss does is seen by `watch/eprocess.py` alone.
"""

import importlib
import math
from typing import Protocol

from hybridserve_llm.values.answers import Assessment


class _Detector(Protocol):
    """What is used of river's drift detectors."""

    drift_detected: bool

    def update(self, x: float, /) -> object:
        """Takes one value."""


class InputDrift:
    """Two ADWIN windows of one tier: its scores, and 1 or 0 for accepted or not.

    A score counts as its exponential where it is a log-probability, and as the confidence where
    there is one: ADWIN's bound is for values in [0, 1].

    Source: Bifet, Gavalda, Learning from Time-Changing Data with Adaptive Windowing (SIAM 2007),
    ADWIN2, as river implements it. river is the optional extra `drift`; without it nothing warns
    and `is_installed` is False. Windows are not kept over a restart.
    """

    def __init__(self, *, delta: float = 0.002) -> None:
        """Loads river, which takes a second or more: to be called before serving."""
        self._scores = _new_adwin(delta)
        self._accepts = _new_adwin(delta)
        self.n_score_warnings = 0
        self.n_accept_warnings = 0

    @property
    def is_installed(self) -> bool:
        """Whether river was found."""
        return self._scores is not None

    def update(self, assessment: Assessment, *, is_accepted: bool) -> bool:
        """Takes one decision of the tier; whether it completed the evidence for a change.

        An answer without a score is left out of the scores, and counts as not accepted.
        """
        if self._scores is None or self._accepts is None:
            return False
        is_change = False
        value = _unit_value(assessment)
        if value is not None:
            self._scores.update(value)
            self.n_score_warnings += self._scores.drift_detected
            is_change = self._scores.drift_detected
        self._accepts.update(1.0 if is_accepted else 0.0)
        self.n_accept_warnings += self._accepts.drift_detected
        return is_change or self._accepts.drift_detected


def _new_adwin(delta: float) -> _Detector | None:
    # Imported late: an optional dependency, whose numpy and scipy take 100 MB where it is used.
    try:
        module = importlib.import_module("river.drift")
    except ImportError:
        return None
    detector: _Detector = module.ADWIN(delta=delta)
    return detector


def _unit_value(assessment: Assessment) -> float | None:
    """The assessment as one number in [0, 1]; None without a score."""
    if assessment.confidence is not None:
        return assessment.confidence
    if assessment.score is None or math.isnan(assessment.score):
        return None
    return math.exp(min(0.0, assessment.score))
