"""Say which requests a certificate covers: those like the questions that it was made from.

Every field of a body is of one of four kinds, and only listed fields are known:

    harmless     changes nothing in what a model writes (`user`, `seed`, a limit of tokens)
    setting      changes it, and must have the value of the calibration (`temperature`)
    demand       narrows or widens what may be written (`response_format`, `tools`): covered in
                 the combinations that the calibration's questions had
    unknown      anything else: covers nothing, since nobody knows what it does

Sources: the request bodies of vLLM 0.32 (`entrypoints/openai/*/protocol.py`) and OpenAI's
reference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hybridserve_llm.values.ledger import Gap, Uncovered
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, Rescoring, other_content

Demands = frozenset[str]
"""Name every demand that a request makes on the form of its answer: `structured_outputs.choice`."""

HARMLESS_FIELDS = frozenset(
    {"messages", "prompt", "n", "seed", "max_tokens", "max_completion_tokens"}
    | {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
    | {"prompt_cache_retention", "prediction", "request_id", "session_id", "priority"}
    | {"cache_salt", "include_reasoning", "return_tokens_as_token_ids", "stream_interval"}
    | {"return_prompt_text", "return_token_offsets", "prompt_logprobs", "echo"}
)
"""Body fields that change nothing in what a model writes to a prompt.

A seed picks one of the answers that the settings allow. A limit of tokens changes nothing unless it
cuts the answer, which is seen at its end. Log-probabilities of the prompt and `echo` are refused
before, and `n` is checked as a setting too.
"""
SAMPLING_FIELDS = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "bad_words",
        "best_of",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "early_stopping",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "length_penalty",
        "logit_bias",
        "media_io_kwargs",
        "min_p",
        "min_tokens",
        "mm_processor_kwargs",
        "modalities",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "repetition_detection",
        "repetition_penalty",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "suffix",
        "temperature",
        "thinking_token_budget",
        "top_k",
        "top_p",
        "truncate_prompt_tokens",
        "truncation_side",
        "use_beam_search",
        "verbosity",
        "vllm_xargs",
        "watermarking",
    }
)
"""Body fields that change how a model answers the same prompt."""
DEMAND_FIELDS = frozenset(
    {"response_format", "structured_outputs", "tools", "tool_choice", "parallel_tool_calls"}
)
"""Body fields that set the form of the answer."""
_AS_ABSENT: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "bad_words": ([],),
    "continue_final_message": (False,),
    "early_stopping": (False,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "use_beam_search": (False,),
}
"""Values that mean the same as no value. A model's own defaults (`generation_config.json`) may set
temperature, top_k, top_p, min_p and the penalties, so no value of those is listed."""
_STRUCTURED_KINDS = frozenset(
    {"choice", "grammar", "json", "json_object", "regex", "structural_tag"}
)
_FORMAT_KINDS = frozenset({"json_object", "json_schema", "structural_tag"})
_TOOL_KINDS = frozenset({"custom", "function"})
_CHOICE_KINDS = frozenset({"allowed_tools", "custom", "function", "none", "required"})
_PART_KINDS = frozenset({"audio_url", "file", "image_url", "input_audio", "refusal", "video_url"})
_FREE_DEMANDS = frozenset(
    {"tools", "tool_choice.none", "parallel_tool_calls.false"}
    | {f"messages.{kind}" for kind in (*_PART_KINDS, "unknown")}
)
"""Demands that leave the model free to write any text, outside of calls."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Hold the endpoints, settings and demands of the questions that a certificate is made from."""

    endpoints: frozenset[Endpoint]
    sampling: Mapping[str, Any]
    demands: frozenset[Demands] = frozenset({Demands()})

    def gap(self, request: GenerateRequest) -> Uncovered | None:
        """Return why the certificate does not cover the request; None where it does."""
        payload = request.payload
        unknown = unknown_fields(payload)
        if unknown:
            name = repr(unknown[0])[:_SHOWN_CHARACTERS]
            reason = f"the field {name} is not known to leave the answer as it is"
            return Uncovered(gap=Gap.UNKNOWN_FIELD, reason=reason)
        demands = demands_of(payload)
        is_known = not any(demand.endswith(".unknown") for demand in demands)
        if demands not in self.demands or not is_known:
            asked = " with ".join(sorted(demands)) or "an answer in free form"
            reason = f"no question of the calibration asked for {asked}"
            return Uncovered(gap=Gap.DEMAND, reason=reason)
        if request.endpoint not in self.endpoints:
            reason = f"no question of the calibration went to {request.endpoint}"
            return Uncovered(gap=Gap.ENDPOINT, reason=reason)
        return self._other_setting(sampling_of(payload))

    def _other_setting(self, sampling: Mapping[str, Any]) -> Uncovered | None:
        for name in sorted(sampling.keys() | self.sampling.keys()):
            asked, calibrated = sampling.get(name), self.sampling.get(name)
            if asked != calibrated:
                reason = (
                    f"{name} is {_shown(asked)}; in the calibration it was {_shown(calibrated)}"
                )
                return Uncovered(gap=Gap.SETTING, reason=reason)
        return None


def sampling_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling settings of a request's body, without those that ask for nothing."""
    return {
        key: value
        for key, value in payload.items()
        if key in SAMPLING_FIELDS and value is not None and value not in _AS_ABSENT.get(key, ())
    }


def unknown_fields(payload: Mapping[str, Any]) -> list[str]:
    """Return the fields of a request's body that may change the answer in a way nobody knows."""
    known = HARMLESS_FIELDS | SAMPLING_FIELDS | DEMAND_FIELDS
    return sorted(key for key, value in payload.items() if value is not None and key not in known)


def demands_of(payload: Mapping[str, Any]) -> Demands:
    """Return what a request's body demands of the form of the answer; empty for free text."""
    return frozenset(_demands(payload))


def rescoring_of(payload: Mapping[str, Any]) -> Rescoring:
    """Return which answers may have been written under a constraint of the request.

    vLLM 0.32 constrains calls of its own accord where a tool is strict or its parser knows the
    model's format (`tool_parsers/structural_tag_registry.py`).
    """
    demands = demands_of(payload)
    if unknown_fields(payload) or not demands <= _FREE_DEMANDS:
        return Rescoring.ALWAYS
    has_calls = "tools" in demands and "tool_choice.none" not in demands
    return Rescoring.OF_CALLS if has_calls else Rescoring.NEVER


def _demands(payload: Mapping[str, Any]) -> Iterator[str]:
    wanted = payload.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    if kind not in (None, "text"):
        yield f"response_format.{_known(kind, _FORMAT_KINDS)}"
    structured = payload.get("structured_outputs")
    if isinstance(structured, Mapping):
        given = (
            key for key, value in structured.items() if value is not None and value is not False
        )
        yield from (f"structured_outputs.{_known(key, _STRUCTURED_KINDS)}" for key in given)
    elif structured is not None:
        yield "structured_outputs.unknown"
    if payload.get("tools"):
        yield from _tool_demands(payload, payload["tools"])
    for part in other_content(payload.get("messages")):
        yield f"messages.{_known(part, _PART_KINDS)}"


def _tool_demands(payload: Mapping[str, Any], tools: Any) -> Iterator[str]:
    yield "tools"
    for tool in tools if isinstance(tools, list) else [None]:
        kind = _known(tool.get("type") if isinstance(tool, Mapping) else None, _TOOL_KINDS)
        if kind != "function":
            yield f"tools.{kind}"
    choice = payload.get("tool_choice")
    if choice not in (None, "auto"):
        form = choice.get("type") if isinstance(choice, Mapping) else choice
        yield f"tool_choice.{_known(form, _CHOICE_KINDS)}"
    if payload.get("parallel_tool_calls") is False:
        yield "parallel_tool_calls.false"


def _known(kind: Any, kinds: frozenset[str]) -> str:
    """Return `kind` if it is listed, so that no text of a client gets into ledgers."""
    return kind if isinstance(kind, str) and kind in kinds else "unknown"


def _shown(value: Any) -> str:
    """Return a setting for a ledger; only a number, as other values may hold text of a prompt."""
    if value is None:
        return "not set"
    return str(value) if isinstance(value, bool | int | float) else "another value"
