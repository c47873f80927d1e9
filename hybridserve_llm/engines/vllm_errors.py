"""Map an engine's error answer, or a broken connection, to an error of this project, in one place.

The phrases are those of vLLM 0.32 (`renderers/params.py`, `v1/engine/input_processor.py`,
`entrypoints/serve/utils/api_utils.py`), of older versions of it, and of servers that speak the
OpenAI API. vLLM gives no error code of its own for a prompt that is too long, so the words decide.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
    InvalidRequest,
    UnavailableKind,
)

_SHOWN_CHARACTERS = 500
_LONGEST_WAIT_S = 86_400.0
_CLIENT_FAULTS = frozenset({400, 413, 422})
_REFUSALS: Mapping[int, UnavailableKind] = {429: "rate_limited", 503: "refused"}
_TOO_LONG = re.compile(
    r"context[ _](length|window|size)"
    r"|maximum model length|max_model_len"
    r"|longer than the maximum"
    r"|max_(completion_)?tokens\b.{0,80}(too large|must be at most)"
    r"|(prompt|input) is too long"
    # A prompt that fills the context to the last token: vLLM 0.32 lowers max_tokens to the room
    # left and then rejects its own 0. Clients cannot send 0, the front end refuses it.
    r"|max_tokens must be at least 1, got 0\b",
    re.IGNORECASE | re.DOTALL,
)


def http_error(
    engine: str, status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> HybridServeError:
    """Return the error for an answer with an error `status`, body `content` and its headers."""
    error = _error_of_content(engine, status, content)
    if isinstance(error, EngineUnavailable):
        error.retry_after_s = retry_after_s((headers or {}).get("retry-after"))
    return error


def retry_after_s(header: str | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for; None where it is no time.

    It holds seconds or a date. Source: RFC 9110, section 10.2.3. A date that has passed is 0, and
    more than a day is a day.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), _LONGEST_WAIT_S)
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return None
    if then.tzinfo is None:  # "-0000": the time is in UTC, as all dates of HTTP are
        then = then.replace(tzinfo=UTC)
    wait_s = (then - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, wait_s), _LONGEST_WAIT_S)


def _error_of_content(engine: str, status: int, content: bytes) -> HybridServeError:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        return error_of_object(engine, error_in(body) or body, status)
    text = content.decode("utf-8", errors="replace").strip()
    return _error(engine, status, text, code=None, parameter=None)


def error_in(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the error that `body` holds in place of an answer; None where it holds none.

    OpenAI and vLLM send `{"error": {…}}`, TGI and llama.cpp's older server `{"error": "text"}`,
    SGLang and older versions of vLLM `{"object": "error", …}`, FastAPI `{"detail": …}`.
    """
    error = body.get("error")
    if isinstance(error, Mapping):
        return error
    if error:
        return {**body, "message": str(error)}
    is_error = "error" in (body.get("object"), body.get("type"))
    is_message = "choices" not in body and not body.keys().isdisjoint({"message", "detail"})
    return body if is_error or is_message else None


def error_of_object(
    engine: str, error: Mapping[str, Any], status: int | None = None
) -> HybridServeError:
    """Return the error for an error object.

    `status` is None for an error inside a 200, where the object's own `code` is read instead;
    without a usable code it counts as a server error.
    """
    code = error.get("code")
    if status is None:
        status = code if isinstance(code, int) and code >= 400 else 500
    parameter = error.get("param")
    # FastAPI's own errors (an unknown path, say) carry `detail` where OpenAI's carry `message`.
    message = error.get("message") or error.get("detail") or error.get("type") or "no message"
    return _error(
        engine,
        status,
        str(message),
        code=code if isinstance(code, str) else None,
        parameter=parameter if isinstance(parameter, str) else None,
    )


def _error(
    engine: str, status: int, message: str, *, code: str | None, parameter: str | None
) -> HybridServeError:
    message = message[:_SHOWN_CHARACTERS]
    is_too_long = code == "context_length_exceeded" or _TOO_LONG.search(message) is not None
    if is_too_long and (status in _CLIENT_FAULTS or status == 404):
        return ContextLengthExceeded(message, parameter=parameter)
    if status in _CLIENT_FAULTS:
        return InvalidRequest(message, parameter=parameter)
    # What the engine says of its own faults (a path, a key) is for the operator.
    if status in _REFUSALS:
        return EngineUnavailable(
            f"engine {engine} refused with status {status}", kind=_REFUSALS[status], detail=message
        )
    # A wrong model name or key (401, 403, 404) is a mis-set tier, not the client's fault.
    return EngineFailed(f"engine {engine} answered with status {status}", detail=message)


@contextmanager
def transport_errors(engine: str) -> Iterator[None]:
    """Map every error that the HTTP client raises inside the block; most specific first.

    Raises:
        EngineUnavailable: No connection could be made, or it broke.
        EngineFailed: The answer is not HTTP.
        DeadlineExceeded: The block's own `asyncio.timeout` expired.
    """
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
        raise EngineUnavailable(f"no connection to engine {engine}", detail=str(exc)) from exc
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as exc:
        raise EngineUnavailable(
            f"engine {engine} broke the connection", kind="lost", detail=repr(exc)
        ) from exc
    except aiohttp.ClientError as exc:
        raise EngineFailed(f"engine {engine} did not answer in HTTP", detail=str(exc)) from exc
    except TimeoutError as exc:
        raise DeadlineExceeded(f"engine {engine} gave no answer before the deadline") from exc
