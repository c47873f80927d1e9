"""The endpoints. Each generation request: check → convert → cascade → convert back."""

import asyncio
import re
import uuid
from contextlib import ExitStack
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.errors import HybridServeError, InvalidRequest, ModelNotFound
from hybridserve_llm.server.cascade_json import cascade_json
from hybridserve_llm.server.convert import to_response
from hybridserve_llm.server.disconnect import ClientGone, unless_client_leaves
from hybridserve_llm.server.error_responses import status_of
from hybridserve_llm.server.parts import Parts
from hybridserve_llm.server.protocol import ChatBody, CompletionBody, GenerationBody
from hybridserve_llm.server.sse import EventStream, give_up
from hybridserve_llm.units import MIB
from hybridserve_llm.values.ledger import Outcome
from hybridserve_llm.values.requests import GenerateRequest, JsonObject

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_CLIENT_CLOSED_REQUEST = 499


def build_routes(parts: Parts) -> APIRouter:
    """The routes over `parts`."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await _counted(parts, request, ChatBody)

    @routes.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _counted(parts, request, CompletionBody)

    @routes.get("/v1/models")
    async def models(request: Request) -> Response:
        parts.api_keys.check(request.headers.get("authorization"))
        names = (parts.config.served_model_name, *parts.tiers)
        return JSONResponse({"object": "list", "data": [_model(parts, name) for name in names]})

    @routes.get("/v1/models/{name}")
    async def model(request: Request, name: str) -> Response:
        parts.api_keys.check(request.headers.get("authorization"))
        _tier_named(parts, name)
        return JSONResponse(_model(parts, name))

    @routes.get("/v1/cascade")
    async def cascade(request: Request) -> Response:
        parts.api_keys.check(request.headers.get("authorization"))
        parts.catch_up()
        return Response(orjson.dumps(cascade_json(parts)), media_type="application/json")

    @routes.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/ready")
    async def ready() -> Response:
        tiers = {name: tier.is_ready for name, tier in parts.tiers.items()}
        return JSONResponse(
            {"ready": all(tiers.values()), "tiers": tiers},
            status_code=200 if all(tiers.values()) else 503,
        )

    @routes.get("/metrics")
    async def metrics() -> Response:
        parts.catch_up()
        return Response(generate_latest(parts.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


async def _counted(parts: Parts, http: Request, body_type: type[GenerationBody]) -> Response:
    """The response, whose status is counted; a bug's is, too."""
    status = 500
    try:
        response = await _generate(parts, http, body_type)
        status = response.status_code
    except HybridServeError as exc:
        status = status_of(exc)
        raise
    except asyncio.CancelledError:  # the server stops: this request has no response
        status = _CLIENT_CLOSED_REQUEST
        raise
    finally:
        parts.responses.add(status)
    return response


async def _generate(parts: Parts, http: Request, body_type: type[GenerationBody]) -> Response:
    request_id = _request_id(http)
    http.state.request_id = request_id
    parts.api_keys.check(http.headers.get("authorization"))
    try:
        raw, body = await _read_body(http, body_type, parts.config.max_body_mib * MIB)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    request = body.to_request(
        raw,
        request_id=request_id,
        deadline_s=parts.clock.monotonic_s() + parts.config.request_timeout_s,
        only_tier=_tier_named(parts, body.model),
        trace=_trace_context(http),
    )
    with ExitStack() as admission:
        admission.enter_context(parts.in_flight.admit())
        try:
            if request.stream:
                return await _stream(parts, http, request, admission)
            outcome = await unless_client_leaves(http.receive, parts.router.answer(request))
        except ClientGone:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
    assert isinstance(outcome, Outcome)  # noqa: S101 - only a streamed request can go live
    body_json = orjson.dumps(to_response(outcome, request))
    headers = _headers(parts, request_id, outcome)
    return Response(body_json, media_type="application/json", headers=headers)


async def _stream(
    parts: Parts, http: Request, request: GenerateRequest, admission: ExitStack
) -> EventStream:
    """Return the response to a streamed request, once its answer is decided or time runs long.

    An answer decided within the keep-alive interval gets its true status and headers. After that
    the stream begins with comments, and an error becomes an event.
    """
    deciding = asyncio.ensure_future(parts.router.answer(request))
    keep_alive_s = parts.config.sse_keepalive_s
    try:
        waiting = asyncio.wait((deciding,), timeout=keep_alive_s)
        await unless_client_leaves(http.receive, waiting)
    except (ClientGone, asyncio.CancelledError):
        await give_up(deciding)
        raise
    return EventStream(
        deciding,
        request,
        headers=_headers(parts, request.request_id, deciding.result() if deciding.done() else None),
        keep_alive_s=keep_alive_s,
        admission=admission.pop_all(),
    )


async def _read_body(
    http: Request, body_type: type[GenerationBody], limit_bytes: int
) -> tuple[JsonObject, GenerationBody]:
    """The body as sent and as checked.

    Raises:
        InvalidRequest: Too large, not a JSON object, or a field is missing or out of range.
        ClientDisconnect: The client left before it had sent all.
    """
    data = bytearray()
    async for piece in http.stream():
        data += piece
        if len(data) > limit_bytes:
            raise InvalidRequest(f"the body is larger than {limit_bytes} bytes")
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"the body is not JSON: {exc}") from exc
    if not isinstance(raw, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type(raw).__name__}")
    try:
        return raw, body_type.model_validate(raw)
    except ValidationError as exc:
        raise _invalid(exc) from exc


def _invalid(exc: ValidationError) -> InvalidRequest:
    """The first fault, in words: which field, what it holds, what is allowed."""
    fault = exc.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or None
    message = fault["msg"].removeprefix("Value error, ")
    if where is None:
        return InvalidRequest(message)
    if fault["type"] == "missing":
        return InvalidRequest(f"{where} is required", parameter=where)
    return InvalidRequest(f"{where} = {fault['input']!r:.80}: {message}", parameter=where)


def _tier_named(parts: Parts, model: str) -> str | None:
    """The tier that `model` names, or None for the cascade.

    Raises:
        ModelNotFound: It names neither.
    """
    if model == parts.config.served_model_name:
        return None
    if model in parts.tiers:
        return model
    allowed = ", ".join((parts.config.served_model_name, *parts.tiers))
    raise ModelNotFound(f"model {model!r} is not there; allowed: {allowed}", parameter="model")


def _request_id(http: Request) -> str:
    given = http.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _trace_context(http: Request) -> dict[str, str] | None:
    """The client's trace context; None without one, or where it is malformed.

    Source: W3C Trace Context, section 3.2.2 (version 00; ids of zeros only are invalid) and 3.3.1.5
    (512 characters of `tracestate` must be passed on). A malformed header is ignored, as it says.
    """
    parent = http.headers.get("traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return None
    state = http.headers.get("tracestate", "")
    if not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _headers(parts: Parts, request_id: str, result: Outcome | LiveAnswer | None) -> dict[str, str]:
    """Response headers; tier and confidence where they are known when the response starts."""
    headers = {"x-request-id": request_id}
    if result is None or not parts.config.show_tier_header:
        return headers
    tier = result.tier if isinstance(result, LiveAnswer) else result.ledger.tier
    confidence = None if isinstance(result, LiveAnswer) else result.ledger.confidence
    if tier is not None:
        headers["x-hybridserve-tier"] = tier
    if confidence is not None:
        headers["x-hybridserve-confidence"] = f"{confidence:.6g}"
    return headers


def _model(parts: Parts, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": parts.started_at_s,
        "owned_by": "hybridserve",
    }
