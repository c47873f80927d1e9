"""Hold what engines report of themselves, and the work that their replicas do."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from hybridserve_llm.values.answers import Usage


class Work(msgspec.Struct, array_like=True, eq=False, gc=False):
    """One replica's work on one request, kept up to date by whoever has it done.

    Attributes:
        replica: As `tier/number`.
        number: Tells it from the replica's other work, that of the same request too.
        is_shadow: No client asked for it; `is_calibration`: the request wants to be assessed.
        start_s: Monotonic, like the other two.
        end_s: None while it goes on, whatever comes of it then.
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
    """What a running engine says of itself; None where it does not say."""

    model: str
    max_model_len: int | None = None


HealthState = Literal["unknown", "up", "down"]
