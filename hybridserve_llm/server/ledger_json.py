"""Write a request's ledger as the JSON that its client sees."""

from typing import Any

import msgspec

from hybridserve_llm.values.ledger import Attempt, Ledger

_SHOWN = (
    *("tier", "model", "decision", "reason", "score", "confidence", "risk"),
    *("prompt_tokens", "cached_tokens", "completion_tokens"),
    *("ttft_s", "latency_s", "energy_j", "energy_source"),
)
"""Fields of an attempt that clients see, in this order; the class of an error stays in records."""
_TOTALLED = ("prompt_tokens", "cached_tokens", "completion_tokens", "latency_s", "energy_j")


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger as the body field `hybridserve` shows it; absent is null."""
    return {
        "tier": ledger.tier,
        "confidence": ledger.confidence,
        "certified": ledger.certified,
        "uncovered": None if ledger.uncovered is None else msgspec.structs.asdict(ledger.uncovered),
        "attempts": [_attempt_json(attempt) for attempt in ledger.attempts],
        "totals": {name: _total(ledger, name) for name in _TOTALLED},
        "energy_settled": False,
        "energy_reason": ledger.energy_reason,
    }


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    shown = {name: getattr(attempt, name) for name in _SHOWN}
    known = attempt.assessment
    if known is not None:
        shown |= {
            "no_score_reason": known.reason,
            "features": None if known.features is None else dict(known.features),
            "output_type": known.output_type,
            "answer_key": known.answer_key,
        }
    return shown


def _total(ledger: Ledger, name: str) -> float | None:
    """Return the sum over all attempts; None where the figure of one of them is unknown."""
    values = [getattr(attempt, name) for attempt in ledger.attempts]
    return None if not values or any(value is None for value in values) else sum(values)
