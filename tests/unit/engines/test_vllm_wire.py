import math
from typing import Any

import orjson
import pytest

from hybridserve_llm.engines.vllm_wire import chunk_of, completion_of, request_body
from hybridserve_llm.errors import EngineFailed, InvalidRequest
from hybridserve_llm.testing import chat_body, completion_body
from hybridserve_llm.values.answers import Answer, Completion, ToolCall, Usage
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest


def written(
    endpoint: Endpoint = Endpoint.CHAT, *, stream: bool = False, **wanted: Any
) -> dict[str, Any]:
    request = GenerateRequest(request_id="r", endpoint=endpoint, payload={"temperature": 0})
    asked = EngineRequest(request=request, **{"top_logprobs": None, **wanted})
    body: dict[str, Any] = orjson.loads(request_body(asked, model="m", stream=stream))
    return body


def answer_of(body: dict[str, Any], endpoint: Endpoint = Endpoint.CHAT) -> Answer:
    return completion_of(body, endpoint, engine="e").answers[0]


def test_asks_for_nothing_but_the_payload_model_and_stream_by_default():
    assert written() == {"temperature": 0, "model": "m", "stream": False}


def test_asks_for_usage_in_a_stream():
    assert written(stream=True)["stream_options"] == {"include_usage": True}


def test_asks_for_the_sampled_tokens_logprob_alone():
    body = written(top_logprobs=0)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 0)


def test_asks_the_completions_endpoint_for_logprobs_in_its_own_way():
    body = written(Endpoint.COMPLETIONS, top_logprobs=5)
    assert body["logprobs"] == 5
    assert "top_logprobs" not in body


def test_passes_on_what_the_client_wants_of_a_stream_and_asks_for_usage():
    wanted = {"include_usage": False, "continuous_usage_stats": True}
    request = GenerateRequest(
        request_id="r", endpoint=Endpoint.CHAT, payload={}, stream_options=wanted
    )
    body = request_body(EngineRequest(request=request, top_logprobs=None), model="m", stream=True)
    assert orjson.loads(body)["stream_options"] == {**wanted, "include_usage": True}


def test_leaves_the_limit_of_output_tokens_out_where_told_to():
    payload = {"max_tokens": 5, "max_completion_tokens": 5, "n": 1}
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload=payload)
    for drops, left in ((True, {"n": 1}), (False, payload)):
        asked = EngineRequest(request=request, top_logprobs=None, drops_output_limit=drops)
        body = orjson.loads(request_body(asked, model="m", stream=False))
        assert body == {**left, "model": "m", "stream": False}


def test_asks_for_token_ids_only_when_needed():
    assert written(needs_token_ids=True)["return_token_ids"] is True


def test_asks_for_token_ids_where_the_client_wants_them():
    request = GenerateRequest(
        request_id="r", endpoint=Endpoint.CHAT, payload={}, wants_token_ids=True
    )
    body = request_body(EngineRequest(request=request, top_logprobs=None), model="m", stream=False)
    assert orjson.loads(body)["return_token_ids"] is True


def test_payload_that_is_no_json_is_the_clients_fault():
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={"seed": 2**70})
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        request_body(EngineRequest(request=request, top_logprobs=None), model="m", stream=False)


def test_reads_a_chat_answer():
    body = chat_body("42", logprobs=[-0.5, 0.0], tokens=["4", "2"], token_ids=[7, 8])
    assert completion_of(body, Endpoint.CHAT, engine="e") == Completion(
        answers=(
            Answer(
                text="42",
                finish_reason="stop",
                logprobs=(-0.5, 0.0),
                token_ids=(7, 8),
                token_bytes=(b"4", b"2"),
            ),
        ),
        usage=Usage(prompt_tokens=10, completion_tokens=2),
        body=body,
    )


def test_reads_a_completions_answer():
    body = completion_body(
        "42", logprobs=[-0.5, None], tokens=["4", "2"], token_ids=[7, 8], finish_reason="length"
    )
    assert answer_of(body, Endpoint.COMPLETIONS) == Answer(
        text="42",
        finish_reason="length",
        logprobs=(-0.5, None),
        token_ids=(7, 8),
        token_bytes=(b"4", b"2"),
    )


def test_reads_every_choice():
    body = chat_body("a")
    body["choices"].append({**body["choices"][0], "message": {"content": "b"}})
    texts = [answer.text for answer in completion_of(body, Endpoint.CHAT, engine="e").answers]
    assert texts == ["a", "b"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_never_part_of_the_text(field):
    body = chat_body("42")
    body["choices"][0]["message"][field] = "six times seven"
    assert answer_of(body).text == "42"


def test_an_answer_without_text_is_empty():
    body = chat_body(None, tool_calls=[("add", '{"a": 1}')], finish_reason="tool_calls")
    answer = answer_of(body)
    assert answer.text == ""
    assert answer.tool_calls == (ToolCall(name="add", arguments='{"a": 1}'),)


# -9999.0 is what vLLM writes for a token whose log-probability it lacks; a missing field, null and
# text are what other servers do.
@pytest.mark.parametrize("given", [-9999.0, None, "-0.1", True])
def test_a_logprob_that_the_engine_lacks_is_none(given):
    body = chat_body("ab", logprobs=[-0.5, -0.25])
    body["choices"][0]["logprobs"]["content"][1]["logprob"] = given
    assert answer_of(body).logprobs == (-0.5, None)


def test_a_logprob_that_is_left_out_is_none():
    assert answer_of(chat_body("ab", logprobs=[-0.5, None])).logprobs == (-0.5, None)


def test_logprobs_that_nobody_asked_for_are_none():
    answer = answer_of(chat_body("ab"))
    assert answer.logprobs is None
    assert answer.token_ids is None


def body_with_entries(*entries: dict[str, Any]) -> dict[str, Any]:
    body = chat_body("x", logprobs=[-0.5] * len(entries))
    body["choices"][0]["logprobs"]["content"] = [{"logprob": -0.5, **entry} for entry in entries]
    return body


def with_alternatives(*logprobs: Any) -> dict[str, Any]:
    return {"top_logprobs": [{"token": "t", "logprob": logprob} for logprob in logprobs]}


def test_reads_halves_of_a_character_as_bytes():
    body = body_with_entries({"bytes": [0xC3]}, {"bytes": [0xA9]}, {"bytes": []})
    assert answer_of(body).token_bytes == (b"\xc3", b"\xa9", b"")


@pytest.mark.parametrize("given", [None, 5, "é", [256], [None], ["a"]])
def test_bytes_that_are_none_leave_all_of_them_out(given):
    body = body_with_entries({"bytes": [65]}, {"bytes": given})
    assert answer_of(body).token_bytes is None


# exp(log 0.5) - exp(log 0.25) = 0.25, whichever way the engine puts the three.
HALF, QUARTER, EIGHTH = math.log(0.5), math.log(0.25), math.log(0.125)


@pytest.mark.parametrize(
    "logprobs",
    [
        (HALF, QUARTER),
        (QUARTER, HALF),
        (HALF, QUARTER, EIGHTH),
        (EIGHTH, HALF, QUARTER),  # vLLM: the sampled token first, then by rank
        (QUARTER, HALF, EIGHTH),
        (HALF, QUARTER, EIGHTH, EIGHTH, EIGHTH),
    ],
)
def test_the_margin_is_between_the_two_likeliest(logprobs):
    body = body_with_entries(with_alternatives(*logprobs))
    assert answer_of(body).margins == (pytest.approx(0.25),)


def test_what_a_grammar_ruled_out_is_an_alternative_of_probability_zero():
    assert answer_of(body_with_entries(with_alternatives(0.0, -9999.0))).margins == (1.0,)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        with_alternatives(-0.5),
        with_alternatives(-0.5, None),
        with_alternatives(-0.5, "-0.7"),
        with_alternatives(1e9, -0.5),
        {"top_logprobs": [1, 2]},
        {"top_logprobs": [{}, {}]},
        {"top_logprobs": {"a": -0.5, "b": -0.7}},
    ],
)
def test_without_two_alternatives_a_margin_is_none(entry):
    body = body_with_entries(with_alternatives(HALF, QUARTER), entry)
    assert answer_of(body).margins == (pytest.approx(0.25), None)
    assert answer_of(body_with_entries(entry)).margins is None


def test_reads_margins_of_a_completions_answer():
    body = completion_body("ab", logprobs=[-0.5, -0.5])
    top = [{"a": QUARTER, "b": HALF}, None]
    body["choices"][0]["logprobs"]["top_logprobs"] = top
    margins = answer_of(body, Endpoint.COMPLETIONS).margins
    assert margins == (pytest.approx(0.25), None)


@pytest.mark.parametrize("tokens", [None, "ab", ["a", None]])
def test_texts_that_are_none_leave_the_bytes_of_a_completions_answer_out(tokens):
    body = completion_body("ab", logprobs=[-0.5, -0.5])
    body["choices"][0]["logprobs"]["tokens"] = tokens
    assert answer_of(body, Endpoint.COMPLETIONS).token_bytes is None


def test_reads_cached_tokens_where_the_engine_tells_them():
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    details = {**usage, "prompt_tokens_details": {"cached_tokens": 4}}
    told = completion_of(chat_body("a", usage=details), Endpoint.CHAT, engine="e")
    untold = completion_of(chat_body("a", usage=usage), Endpoint.CHAT, engine="e")
    assert told.usage == Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=2)
    assert untold.usage.cached_tokens is None


def test_usage_that_is_absent_is_unknown_and_not_zero():
    body = chat_body("a")
    del body["usage"]
    assert completion_of(body, Endpoint.CHAT, engine="e").usage == Usage()


BROKEN = {
    "sent no list of choices, but none": {},
    "sent no list of choices, but str": {"choices": "x"},
    "sent no list of choices, but list": {"choices": [1]},
    "sent an answer without a choice": {"choices": []},
    "did not end its answer .no finish_reason": {"choices": [{"message": {"content": "ha"}}]},
    "did not end its answer .finish_reason 'abort'": {"choices": [{"finish_reason": "abort"}]},
    "did not end its answer .finish_reason 'error'": {"choices": [{"finish_reason": "error"}]},
}


@pytest.mark.parametrize(("fault", "body"), BROKEN.items())
def test_an_answer_that_the_engine_did_not_end_is_its_failure(fault, body):
    with pytest.raises(EngineFailed, match=f"engine e {fault}"):
        completion_of(body, Endpoint.CHAT, engine="e")


UNREADABLE = {
    "message is NoneType, expected dict": {},
    "message.content is int, expected str": {"message": {"content": 1}},
    "message.content has a part that is no text": {"message": {"content": [{"type": "image"}]}},
    "tool call is int, expected dict": {"message": {"tool_calls": [1]}},
    "message.tool_calls is int, expected list": {"message": {"tool_calls": 1}},
    "function is NoneType, expected dict": {"message": {"tool_calls": [{"type": "custom"}]}},
    "function.arguments is dict, expected str": {
        "message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    },
}


@pytest.mark.parametrize(("what", "choice"), UNREADABLE.items())
def test_what_cannot_be_read_of_an_answer_is_noted_and_passes(what, choice):
    body = {"choices": [{**choice, "finish_reason": "stop"}]}
    completion = completion_of(body, Endpoint.CHAT, engine="e")
    assert completion.answers[0].unreadable == what
    assert completion.body is body


def test_a_completions_answer_without_text_is_unreadable():
    answer = answer_of({"choices": [{"finish_reason": "stop"}]}, Endpoint.COMPLETIONS)
    assert answer.unreadable == "text is NoneType, expected str"


def test_texts_of_content_parts_are_joined():
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    assert (answer_of(body).text, answer_of(body).unreadable) == ("42", None)


@pytest.mark.parametrize("logprobs", [[], "x", {"content": 1}, {"content": [1]}, {"content": None}])
def test_log_probabilities_of_another_shape_are_none(logprobs):
    body = {"choices": [{"message": {}, "logprobs": logprobs, "finish_reason": "stop"}]}
    assert answer_of(body).logprobs is None


def test_a_log_probability_above_zero_is_none_unless_by_rounding():
    assert answer_of(chat_body("ab", logprobs=[0.5, 1e-6])).logprobs == (None, 0.0)


@pytest.mark.parametrize("ids", ["1", [1, "2"], {}])
def test_token_ids_of_another_shape_are_none(ids):
    body = {"choices": [{"message": {}, "token_ids": ids, "finish_reason": "stop"}]}
    assert answer_of(body).token_ids is None


def test_a_finish_reason_of_another_type_is_kept_as_its_text():
    body = {"choices": [{"message": {}, "finish_reason": {"type": "stop"}}]}
    assert answer_of(body).finish_reason == "{'type': 'stop'}"


@pytest.mark.parametrize(
    ("count", "read"), [(2, 2), (2.0, 2), (2.5, None), ("2", None), (True, None), (-1, None)]
)
def test_a_count_that_is_no_number_of_tokens_is_unknown(count, read):
    completion = completion_of(
        chat_body("a", usage={"completion_tokens": count}), Endpoint.CHAT, engine="e"
    )
    assert completion.usage == Usage(completion_tokens=read)


@pytest.mark.parametrize("usage", [3, "x", [], {"prompt_tokens_details": 1}])
def test_usage_of_another_shape_is_unknown(usage):
    body = {**chat_body("a"), "usage": usage}
    assert completion_of(body, Endpoint.CHAT, engine="e").usage == Usage()


def test_only_the_chunk_with_the_usage_carries_it():
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert chunk_of({"choices": []}, engine="e").usage is None
    assert chunk_of({"choices": [], "usage": None}, engine="e").usage is None
    assert chunk_of({"usage": usage}, engine="e").usage == Usage(
        prompt_tokens=1, completion_tokens=2
    )


@pytest.mark.parametrize("body", [{}, {"usage": 1}, {"choices": "x"}, {"choices": [1]}])
def test_an_event_that_is_no_part_of_an_answer_is_the_engines_failure(body):
    with pytest.raises(EngineFailed, match="engine e sent no list of choices"):
        chunk_of(body, engine="e")


@pytest.mark.parametrize(
    ("choice", "has_tokens"),
    [
        ({"delta": {"role": "assistant", "content": ""}}, False),
        ({"delta": {"content": "4"}}, True),
        ({"delta": {"reasoning": "hm"}}, True),
        ({"delta": {"tool_calls": [{"index": 0}]}}, True),
        ({"delta": {}, "finish_reason": "stop"}, False),
        ({"text": ""}, False),
        ({"text": "4"}, True),
    ],
)
def test_an_event_brings_tokens_or_only_a_role_or_an_end(choice, has_tokens):
    chunk = chunk_of({"choices": [{"index": 1, **choice}]}, engine="e")
    assert chunk.has_tokens is has_tokens
    assert chunk.finish_reasons == {1: choice.get("finish_reason")}
