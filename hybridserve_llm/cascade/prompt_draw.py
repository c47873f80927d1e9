"""A number made from a prompt, for policies that take only a share of all prompts."""

import hashlib

import orjson

from hybridserve_llm.values.requests import JsonObject

_BITS = 48


def prompt_draw(payload: JsonObject) -> float:
    """A number in [0, 1) from the conversation or prompt of a request's body.

    It is as good as drawn at random, tells nothing of how hard the prompt is, and is the same
    whenever the prompt is the same: a client who asks again goes the same way, and so does a
    replay. Settings, tools and the like have no part in it.
    """
    asked = payload.get("messages", payload.get("prompt"))
    digest = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()
    return float(int.from_bytes(digest[: _BITS // 8]) / 2**_BITS)
