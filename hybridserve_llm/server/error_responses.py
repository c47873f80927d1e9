"""Map each error class to its HTTP status and its OpenAI error object, in one table."""

import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hybridserve_llm.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RequestError,
)
from hybridserve_llm.server.ledger_json import ledger_json
from hybridserve_llm.values.ledger import Ledger

log = logging.getLogger(__name__)

STATUS: dict[type[HybridServeError], tuple[int, str, str | None]] = {
    InvalidRequest: (400, "invalid_request_error", None),
    ContextLengthExceeded: (400, "invalid_request_error", "context_length_exceeded"),
    AuthenticationFailed: (401, "authentication_error", "invalid_api_key"),
    ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    Overloaded: (429, "rate_limit_error", "overloaded"),
    EngineFailed: (502, "server_error", "engine_failed"),
    EngineUnavailable: (503, "server_error", "engine_unavailable"),
    DeadlineExceeded: (504, "server_error", "deadline_exceeded"),
}
"""Error class → HTTP status, OpenAI error type, OpenAI error code."""

_RATE_LIMITED = (429, "rate_limit_error", "engine_rate_limited")
_BUG: tuple[int, str, str | None] = (500, "server_error", None)
_UNAVAILABLE_RETRY_AFTER_S = 5.0


def error_body(error: HybridServeError) -> dict[str, Any]:
    """Return the OpenAI error object of `error`, with the request's ledger where there is one.

    An error that the table lacks is a bug: 500.
    """
    _, kind, code = _row_of(error)
    parameter = error.parameter if isinstance(error, RequestError) else None
    about = {"message": str(error), "type": kind, "param": parameter, "code": code}
    if not isinstance(error.ledger, Ledger):
        return {"error": about}
    return {"error": about, "hybridserve": ledger_json(error.ledger)}


def status_of(error: HybridServeError) -> int:
    """Return the HTTP status of `error`; one that the table lacks is a bug: 500."""
    return _row_of(error)[0]


def _row_of(error: HybridServeError) -> tuple[int, str, str | None]:
    """Return status, type and code; those of an engine's own 429 reach the client."""
    if isinstance(error, EngineUnavailable) and error.kind == "rate_limited":
        return _RATE_LIMITED
    return STATUS.get(type(error), _BUG)


def error_response(error: HybridServeError, request_id: str | None) -> JSONResponse:
    """Return the HTTP response of `error`, with `Retry-After` where trying again makes sense."""
    headers = {"x-request-id": request_id} if request_id else {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif isinstance(error, EngineUnavailable):
        wanted_s = error.retry_after_s
        wait_s = _UNAVAILABLE_RETRY_AFTER_S if wanted_s is None else wanted_s
        headers["retry-after"] = str(math.ceil(wait_s))
    return JSONResponse(error_body(error), status_code=status_of(error), headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of `app` an OpenAI error object, also unknown paths and bugs."""

    async def ours(request: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HybridServeError)  # noqa: S101 - registered for this class alone
        return error_response(exc, getattr(request.state, "request_id", None))

    async def http(request: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HTTPException)  # noqa: S101 - registered for this class alone
        message = f"{request.method} {request.url.path}: {HTTPStatus(exc.status_code).phrase}"
        body = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return JSONResponse({"error": body}, status_code=exc.status_code, headers=exc.headers)

    async def bug(request: Request, exc: Exception) -> JSONResponse:
        log.error("bug while serving %s", request.url.path, exc_info=exc)
        body = {"message": "internal error", "type": "server_error", "param": None, "code": None}
        return JSONResponse({"error": body}, status_code=500)

    app.add_exception_handler(HybridServeError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)
