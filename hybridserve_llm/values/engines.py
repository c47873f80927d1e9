"""Hold what engines report of themselves, and the work that their replicas do."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from hybridserve_llm.values.answers import Usage


class Work(msgspec.Struct, array_like=True, eq=False, gc=False):
    """Hold one replica's work on one request; the replica set keeps it up to date.

    Attributes:
        replica: As `tier/number`.
        number: Differs from that of the replica's other work, also on the same request.
        is_shadow: No client asked for it; `is_calibration`: the request wants to be assessed.
        start_s: Monotonic, like the other two.
        end_s: None while it goes on; set also when it fails.
        first_token_s: When its first token came; None where that was not seen.
        usage: The tokens that the engine reported.
    """

    request_id: str
    tier: str
    replica: str
    number: int
    is_shadow: bool
    is_calibration: bool
    start_s: float
    end_s: float | None = None
    first_token_s: float | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Hold what a running engine reports of itself; None where it does not."""

    model: str
    max_model_len: int | None = None


HealthState = Literal["unknown", "up", "down"]
