"""Times the features of one answer: `python tests/benchmarks/bench_confidence.py`.

Prints the median and the 99th percentile in microseconds of one core, after a warm-up. The target
for 100 tokens of text is 40 us, so that features and a logistic model stay under 50 us.
"""

import random
import sys
import time
from collections.abc import Callable

import orjson

from hybridserve_llm.confidence.day_zero import ALL, DayZeroScorer
from hybridserve_llm.confidence.features import answer_features
from hybridserve_llm.confidence.risk_models import (
    LinearModel,
    RiskModels,
    StateModel,
    state_feature_names,
)
from hybridserve_llm.engines.vllm_wire import completion_of
from hybridserve_llm.values.answers import Answer, Assessment, Completion, Seen, Usage
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

REPEATS = 3000
END_THINK = 6
TEXT_REQUEST = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={})
SCHEMA = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
JSON_REQUEST = GenerateRequest(
    request_id="r",
    endpoint=Endpoint.CHAT,
    payload={"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
    json_answer=True,
)


def drawn_logprobs(n_tokens: int, seed: int = 0) -> tuple[float, ...]:
    draw = random.Random(seed)
    return tuple(-draw.expovariate(4.0) for _ in range(n_tokens))


def text_answer(n_tokens: int) -> Answer:
    return Answer(
        text="word " * n_tokens,
        finish_reason="stop",
        logprobs=drawn_logprobs(n_tokens),
        margins=tuple(-value for value in drawn_logprobs(n_tokens, seed=1)),
        token_bytes=(b"word ",) * n_tokens,
    )


def json_answer(n_tokens: int) -> Answer:
    """Tokens of three bytes each, keys and numbers and strings in turn."""
    text, n_pairs = "{}", 0
    while len(text) < 3 * n_tokens:
        n_pairs += 1
        pairs = {f"key{i}": "value" if i % 2 else i for i in range(n_pairs)}
        text = orjson.dumps(pairs).decode()
    pieces = tuple(text[i : i + 3].encode() for i in range(0, len(text), 3))
    return Answer(
        text=text,
        finish_reason="stop",
        logprobs=drawn_logprobs(len(pieces)),
        token_bytes=pieces,
    )


def reasoning_answer(n_tokens: int) -> Answer:
    """Nine tenths of it reasoning."""
    ids = [50] * n_tokens
    ids[n_tokens * 9 // 10] = END_THINK
    return Answer(
        text="word",
        finish_reason="stop",
        logprobs=drawn_logprobs(n_tokens),
        token_ids=tuple(ids),
    )


def chat_json(n_tokens: int, n_alternatives: int = 5) -> dict[str, object]:
    entries = [
        {
            "token": "word ",
            "logprob": logprob,
            "bytes": list(b"word "),
            "top_logprobs": [
                {"token": "word ", "logprob": logprob - i, "bytes": list(b"word ")}
                for i in range(n_alternatives)
            ],
        }
        for logprob in drawn_logprobs(n_tokens)
    ]
    choice = {
        "message": {"content": "word " * n_tokens},
        "finish_reason": "stop",
        "logprobs": {"content": entries},
    }
    return {"choices": [choice]}


def percentiles_us(call: Callable[[], object]) -> tuple[float, float]:
    times: list[int] = []
    for _ in range(REPEATS):
        start_ns = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start_ns)
    times = sorted(times[REPEATS // 10 :])  # the first tenth warms up
    return times[len(times) // 2] / 1e3, times[len(times) * 99 // 100] / 1e3


def features_call(request: GenerateRequest, answer: Answer, **tier: object) -> Callable[[], object]:
    options = {"is_reasoning": False, "reasoning_end_id": None, **tier}
    result = answer_features(request, answer, Usage(), **options)  # type: ignore[arg-type]  # options
    if isinstance(result, str):
        raise SystemExit(f"no features: {result}")
    return lambda: answer_features(request, answer, Usage(), **options)  # type: ignore[arg-type]  # options


def risk_models() -> RiskModels:
    """Models that read all there is of a request whose third tier has answered."""
    n_features = len(state_feature_names(("a", "b", "c"), (0, 1, 2)))
    columns, ones = tuple(range(n_features)), (0.1,) * n_features
    linear = LinearModel(intercept=-1.0, columns=columns, slopes=ones, means=ones)
    return RiskModels(states={(0, 1, 2): StateModel(wrong=linear, last_right=linear)})


def judged_call(completion: Completion) -> Callable[[], object]:
    """Score, features, normal form, confidence and risk: all that a certified tier costs."""
    scorer, models = DayZeroScorer(reads=ALL), risk_models()
    before = [Seen(tier=i, assessment=Assessment(score=-0.5, answer_key="x")) for i in range(2)]

    def judge() -> object:
        assessment = scorer.assess(TEXT_REQUEST, completion)
        return models.judge([*before, Seen(tier=2, assessment=assessment)])

    return judge


def main() -> None:
    """Prints one row per case."""
    for n_tokens in (100, 500):
        text = text_answer(n_tokens)
        whole = Completion(answers=(text,), usage=Usage(), body={})
        body = chat_json(n_tokens)
        cases: dict[str, Callable[[], object]] = {
            "features of text": features_call(TEXT_REQUEST, text),
            "features of reasoning": features_call(
                TEXT_REQUEST,
                reasoning_answer(n_tokens),
                is_reasoning=True,
                reasoning_end_id=END_THINK,
            ),
            "features of JSON with a schema": features_call(JSON_REQUEST, json_answer(n_tokens)),
            "day-0 score of text": lambda whole=whole: DayZeroScorer().assess(TEXT_REQUEST, whole),  # type: ignore[misc]  # bound in a loop
            "all of it: confidence and risk": judged_call(whole),
            "reading vLLM's answer, 5 alternatives": lambda body=body: completion_of(  # type: ignore[misc]  # bound in a loop
                body, Endpoint.CHAT, engine="e"
            ),
        }
        for name, call in cases.items():
            median_us, p99_us = percentiles_us(call)
            sys.stdout.write(
                f"{n_tokens} tokens  {name:38} median {median_us:6.1f} us  p99 {p99_us:8.1f} us\n"
            )


if __name__ == "__main__":
    main()
