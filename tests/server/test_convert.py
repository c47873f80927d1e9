"""Answers and ledgers become JSON: what is trimmed, what the ledger shows."""

from typing import Any

import pytest
from builders import attempt_of

from hybridserve_llm.promise.fingerprint import checkpoint_name
from hybridserve_llm.server.convert import to_response
from hybridserve_llm.server.ledger_json import ledger_json
from hybridserve_llm.values.answers import Completion, Usage
from hybridserve_llm.values.ledger import Ledger, Outcome
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "small",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "5"},
            "finish_reason": "stop",
            "token_ids": [17],
            "logprobs": {
                "content": [
                    {
                        "token": "5",
                        "logprob": -0.1,
                        "top_logprobs": [{"token": str(i), "logprob": -0.1} for i in range(5)],
                    }
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}


def responded(*, body: dict[str, Any] = BODY, **asked: Any) -> dict[str, Any]:
    ledger = Ledger(request_id="r1", attempts=(attempt_of(),), tier="small", model="tiny-1b")
    completion = Completion(answers=(), usage=Usage(), body=body)
    request = GenerateRequest(request_id="r1", endpoint=Endpoint.CHAT, payload={}, **asked)
    return to_response(Outcome(completion=completion, ledger=ledger), request)


def test_the_response_names_the_checkpoint_and_carries_the_ledger() -> None:
    body = responded()
    assert body["model"] == "tiny-1b"
    assert body["usage"] == BODY["usage"]
    assert body["hybridserve"]["tier"] == "small"
    assert body["hybridserve"]["energy_settled"] is False


def test_the_scorers_log_probabilities_do_not_reach_a_client_that_asked_for_none() -> None:
    choice = responded()["choices"][0]
    assert choice["logprobs"] is None
    assert "token_ids" not in choice


def test_a_client_that_asked_for_token_ids_gets_them() -> None:
    body = responded(wants_token_ids=True, body={**BODY, "prompt_token_ids": [1, 2]})
    assert body["choices"][0]["token_ids"] == [17]
    assert body["prompt_token_ids"] == [1, 2]


def test_log_probabilities_of_another_shape_pass_as_they_came() -> None:
    odd = {"content": [1, {"token": "5"}, {"top_logprobs": "x"}]}
    choice = {**BODY["choices"][0], "logprobs": odd}
    body = responded(client_top_logprobs=1, body={**BODY, "choices": [choice]})
    assert body["choices"][0]["logprobs"] == odd


def test_a_client_gets_as_many_alternatives_as_it_asked_for() -> None:
    choice = responded(client_top_logprobs=2)["choices"][0]
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
    bare = responded(client_top_logprobs=0)["choices"][0]
    assert bare["logprobs"]["content"][0]["top_logprobs"] == []


def test_totals_sum_every_attempt_and_are_null_when_one_is_unknown() -> None:
    both = (
        attempt_of(prompt_tokens=10, completion_tokens=2, latency_s=0.5, cached_tokens=None),
        attempt_of(prompt_tokens=12, completion_tokens=3, latency_s=0.25, cached_tokens=4),
    )
    totals = ledger_json(Ledger(request_id="r", attempts=both))["totals"]
    assert totals["prompt_tokens"] == 22
    assert totals["completion_tokens"] == 5
    assert totals["latency_s"] == 0.75
    assert totals["cached_tokens"] is None
    assert totals["energy_j"] is None


@pytest.mark.parametrize(
    ("model", "shown"),
    [("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"), ("/models/giant", "giant"), ("/models/giant/", "giant")],
)
def test_local_folders_are_shown_by_name_alone(model: str, shown: str) -> None:
    assert checkpoint_name(model) == shown
