"""Define every error that this project raises on purpose, in one tree.

    HybridServeError
    ├── ConfigError                    a file or flag says something that is not allowed
    ├── CannotBeDone                   the wish is clear and cannot be met (port in use)
    │   ├── MeterFault                 an energy meter has no reading to give
    │   └── EngineStartError           an engine died or stayed unhealthy while it started
    ├── RequestError                   the client's request is at fault
    │   ├── InvalidRequest             malformed or out of range
    │   ├── ModelNotFound              names neither the cascade nor a tier
    │   ├── ContextLengthExceeded      longer than the tier (or every tier) holds
    │   └── AuthenticationFailed       no or wrong API key
    └── ServingError                   the request was fine, serving it failed
        ├── Overloaded                 more requests in flight than allowed
        ├── DeadlineExceeded           no answer within the time the request had
        ├── EngineUnavailable          no connection, or the replica is down
        └── EngineFailed               the engine answered with an error or with nonsense

`server/error_responses.py` holds the one table from these classes to HTTP statuses.
"""

from typing import Literal

UnavailableKind = Literal["unreachable", "lost", "refused", "rate_limited"]


class HybridServeError(Exception):
    """Be the base class of all errors that this project raises on purpose.

    Attributes:
        ledger: The `values.ledger.Ledger` of the request that ended with this error; None where no
            tier was to be asked. (This file is below `values`, so the type has no name here.)
    """

    ledger: object | None = None


class ConfigError(HybridServeError):
    """Report that a configuration file or flag holds something that is not allowed."""


class CannotBeDone(HybridServeError):  # noqa: N818 - reads as the sentence it stands for
    """Report that a well-formed request cannot be met; the message says what is in the way."""


class EngineStartError(CannotBeDone):
    """Report that an engine exited or stayed unhealthy while it started.

    Attributes:
        engine: Name of the engine (`tier/replica`).
        reason: The line of its log that shows why, or what was waited for in vain.
    """

    def __init__(self, engine: str, reason: str, log_path: str) -> None:
        super().__init__(f"engine {engine} did not start: {reason} (log: {log_path})")
        self.engine = engine
        self.reason = reason


class MeterFault(CannotBeDone):
    """Report that a meter cannot give a reading; the message says why."""


class RequestError(HybridServeError):
    """Report a fault in the client's request; `parameter` names the field, where one is."""

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class InvalidRequest(RequestError):  # noqa: N818 - the OpenAI error type's own word
    """Report that a field is malformed, out of range or not supported."""


class ModelNotFound(RequestError):  # noqa: N818 - the OpenAI error code's own words
    """Report that the named model is neither the cascade nor one of its tiers."""


class ContextLengthExceeded(RequestError):  # noqa: N818 - the OpenAI error code's own words
    """Report that the prompt, or prompt and output together, is too long for the tier."""


class AuthenticationFailed(RequestError):  # noqa: N818 - the OpenAI error code's own words
    """Report that the API key is missing or not one of the server's."""


class ServingError(HybridServeError):
    """Report that the request was fine and serving it failed.

    The message reaches clients. It names tiers and replicas, and nothing else of the inside.

    Attributes:
        detail: What only the operator may read: an engine's own words, a host, a path. None where
            there is no more to say.
    """

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail

    @property
    def with_detail(self) -> str:
        """Return the message with the detail, for logs and terminals."""
        return str(self) if self.detail is None else f"{self}: {self.detail}"


class Overloaded(ServingError):  # noqa: N818 - names the state
    """Report that more requests are in flight than allowed; try again in `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ServingError):  # noqa: N818 - the standard term
    """Report that no answer came within the time the request had."""


class EngineUnavailable(ServingError):  # noqa: N818 - names the state
    """Report that the engine has no connection, or that all replicas of the tier are down.

    Attributes:
        kind: `unreachable` (no connection), `lost` (it broke while the engine worked), `refused`
            (the engine is alive and said 503) or `rate_limited` (it said 429).
        retry_after_s: Seconds after which the engine wants to be asked again; None where it did
            not say.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: UnavailableKind = "unreachable",
        retry_after_s: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, detail=detail)
        self.kind = kind
        self.retry_after_s = retry_after_s

    @property
    def is_alive(self) -> bool:
        """Return True where the engine itself refused, so that it runs."""
        return self.kind in ("refused", "rate_limited")


class EngineFailed(ServingError):  # noqa: N818 - names the event
    """Report that the engine answered with a server error, or not in its protocol."""
