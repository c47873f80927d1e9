"""Cheap features of a prompt alone, which a gate reads before anything is generated.

They are counts over the text: no tokenizer, no model, no language. What they tell is learnt from
labels or not used at all.
"""

import math
import re
from collections.abc import Iterator, Mapping

from hybridserve_llm.values.requests import JsonObject

PROMPT_FEATURES_VERSION = "prompt/1"
PROMPT_FEATURE_NAMES = (
    "log_characters",
    "log_last_turn_characters",
    "log_turns",
    "log_digits",
    "longest_number",
    "log_numbers",
    "log_lines",
    "mean_word_length",
    "non_ascii_share",
    "operator_count",
    "has_code",
    "asks_for_json",
    "has_tools",
)

_LIMIT = 20_000
"""Characters that are looked at; beyond, a prompt is "long" whatever it holds."""
_NUMBERS = re.compile(r"\d+")
_OPERATORS = re.compile(r"[-+*/=<>^%\u00d7\u00f7]")


def prompt_features(payload: JsonObject) -> tuple[float, ...]:
    """The features of a request's body, in the order of PROMPT_FEATURE_NAMES; all finite.

    Counts are taken as log(1 + count), since the second page of a prompt says less than the first.
    """
    turns = list(_turns(payload))
    whole = "\n".join(turns)[:_LIMIT]
    last = turns[-1][:_LIMIT] if turns else ""
    numbers = _NUMBERS.findall(whole)
    words = whole.split()
    n = max(len(whole), 1)
    return (
        math.log1p(sum(map(len, turns))),
        math.log1p(len(last)),
        math.log1p(len(turns)),
        math.log1p(sum(map(len, numbers))),
        float(min(max(map(len, numbers), default=0), 20)),
        math.log1p(len(numbers)),
        math.log1p(whole.count("\n")),
        sum(map(len, words)) / len(words) if words else 0.0,
        1.0 - len(whole.encode("ascii", "ignore")) / n if whole else 0.0,
        math.log1p(len(_OPERATORS.findall(whole))),
        float("```" in whole or "def " in whole or "#include" in whole),
        float(payload.get("response_format") is not None),
        float(bool(payload.get("tools"))),
    )


def _turns(payload: JsonObject) -> Iterator[str]:
    """The text of every turn; of a turn in parts its text parts."""
    prompt = payload.get("prompt")
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        yield from (part for part in prompt if isinstance(part, str))
    messages = payload.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield "".join(_part_text(part) for part in content)


def _part_text(part: object) -> str:
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else ""
