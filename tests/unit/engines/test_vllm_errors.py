from datetime import UTC, datetime

import aiohttp
import orjson
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey

from hybridserve_llm.engines.vllm_errors import (
    error_of_object,
    http_error,
    retry_after_s,
    transport_errors,
)
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
)

# As vLLM 0.32 words them (renderers/params.py, v1/engine/input_processor.py, api_utils.py), then
# older vLLM, then other servers of the OpenAI API.
TOO_LONG = [
    "This model's maximum context length is 512 tokens. However, your prompt contains at least "
    "513 input tokens, which exceeds this limit even without any output tokens.",
    "This model's maximum context length is 512 tokens. However, your prompt contains 90000 "
    "characters (more than 5120 characters, which is the upper bound for 512 input tokens).",
    "max_tokens=600 cannot be greater than max_model_len=512. Please request fewer output tokens.",
    "The decoder prompt (length 600) is longer than the maximum model length of 512.",
    "The decoder prompt (length 512) plus the number of requested output tokens (at least 1) is "
    "longer than the maximum model length of 512.",
    "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
    "Input length (600) exceeds model's maximum context length (512).",
    "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum context "
    "length is 512 tokens and your request has 100 input tokens.",
    "max_tokens must be at most 100, got 500.",
    "max_completion_tokens is too large: 500.",
    "the request exceeds the available context size (512 tokens)",
    "prompt is too long: 600 tokens > 512 maximum",
]


def body(message: str, **parts: object) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "BadRequestError", **parts}})


@pytest.mark.parametrize("message", TOO_LONG)
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_every_wording_of_too_long_is_context_length_exceeded(message, status):
    error = http_error("e", status, body(message, param="input_tokens"))
    assert type(error) is ContextLengthExceeded
    assert error.parameter == "input_tokens"
    assert str(error) == message


def test_the_openai_error_code_is_enough_for_context_length_exceeded():
    error = http_error("e", 400, body("no luck", code="context_length_exceeded"))
    assert type(error) is ContextLengthExceeded


@pytest.mark.parametrize("status", [400, 413, 422])
def test_other_client_faults_keep_the_engines_message_and_parameter(status):
    message = "temperature must be non-negative, got -1.0."
    error = http_error("e", status, body(message, param="temperature"))
    assert type(error) is InvalidRequest
    assert str(error) == message
    assert error.parameter == "temperature"


@pytest.mark.parametrize(
    "message", ["max_tokens must be at least 1, got -1.", "stop must be at most 4 strings"]
)
def test_other_limits_are_not_taken_for_the_context_length(message):
    assert type(http_error("e", 400, body(message))) is InvalidRequest


@pytest.mark.parametrize("status", [401, 403, 404, 405, 500, 501, 502, 504])
def test_a_mis_set_tier_or_a_server_error_is_the_engines_failure(status):
    error = http_error("unix:/e", status, body("The model `x` does not exist."))
    assert type(error) is EngineFailed
    assert str(error) == f"engine unix:/e answered with status {status}"
    assert error.detail == "The model `x` does not exist."


def test_a_server_error_that_mentions_the_context_length_is_not_the_clients_fault():
    assert type(http_error("e", 500, body(TOO_LONG[0]))) is EngineFailed


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limited"), (503, "refused")])
def test_an_engine_that_refuses_is_unavailable_and_alive(status, kind):
    error = http_error("e", status, body("busy"))
    assert isinstance(error, EngineUnavailable)
    assert (error.kind, error.is_alive, error.retry_after_s) == (kind, True, None)


def test_an_engine_that_refuses_may_say_for_how_long():
    error = http_error("e", 429, body("busy"), {"retry-after": "37"})
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after_s == 37.0


NOON = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)
WAITS = [
    ("0", 0.0),
    (" 5 ", 5.0),
    ("Tue, 01 Dec 2026 12:01:30 GMT", 90.0),
    ("Tue, 01 Dec 2026 11:59:00 GMT", 0.0),
    ("9" * 400, 86_400.0),
    ("-1", None),
    ("1.5", None),
    ("soon", None),
    ("", None),
    (None, None),
]


@pytest.mark.parametrize(("header", "wait_s"), WAITS)
def test_the_time_to_wait_is_read_as_seconds_or_as_a_date(header, wait_s):
    assert retry_after_s(header, now=NOON) == wait_s


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": "flat", "type": "x"}', "flat"),
        (b"[]", "[]"),
        (b'{"error": {}}', "no message"),
        (b'{"error": "plain words"}', "plain words"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_understands_errors_that_are_not_openais(content, said):
    error = http_error("e", 500, content)
    assert isinstance(error, EngineFailed)
    assert said in str(error.detail)
    assert str(error) == "engine e answered with status 500"
    assert said in error.with_detail


def test_shows_a_very_long_message_in_part():
    assert len(str(http_error("e", 400, body("x" * 10_000)))) == 500


def test_an_error_in_mid_stream_is_judged_by_its_own_code():
    assert type(error_of_object("e", {"message": "m", "code": 400}, None)) is InvalidRequest
    assert type(error_of_object("e", {"message": "m", "code": 503}, None)) is EngineUnavailable
    assert type(error_of_object("e", {"message": "m"}, None)) is EngineFailed


CONNECTION_KEY = ConnectionKey(
    "h", 80, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
TRANSPORT = [
    (aiohttp.ClientConnectorError(CONNECTION_KEY, OSError(111, "refused")), "unreachable"),
    (
        UnixClientConnectorError("/s", CONNECTION_KEY, FileNotFoundError(2, "no socket")),
        "unreachable",
    ),
    (aiohttp.ConnectionTimeoutError(), "unreachable"),
    (aiohttp.ServerDisconnectedError(), "lost"),
    (aiohttp.ClientOSError(104, "reset by peer"), "lost"),
    (aiohttp.ClientPayloadError("not completed"), "lost"),
]


@pytest.mark.parametrize(("raised", "kind"), TRANSPORT)
def test_connection_errors_are_engine_unavailable(raised, kind):
    with pytest.raises(EngineUnavailable, match="engine e") as caught, transport_errors("e"):
        raise raised
    assert caught.value.kind == kind
    assert caught.value.detail in (str(raised), repr(raised))
    assert caught.value.__cause__ is raised


def test_what_is_not_http_is_the_engines_failure():
    with pytest.raises(EngineFailed, match="did not answer in HTTP"), transport_errors("e"):
        raise aiohttp.ClientError("bad status line")


def test_an_expired_timeout_is_deadline_exceeded():
    with pytest.raises(DeadlineExceeded, match="before the deadline"), transport_errors("e"):
        raise TimeoutError
