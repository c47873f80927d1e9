"""When two answers say the same: they are brought to one form, and the forms are compared.

The form is part of every certificate's fingerprint, since agreement is a feature that models read
and, without labels, the loss itself. A change of what it does needs a new NORMALISER.
"""

import re
import unicodedata
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import orjson

from hybridserve_llm.values.answers import Answer, Completion, ToolCall

NORMALISER = "answer/1"

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[+-]?\.\d+")
_MAX_DIGITS = 64
_AROUND = " \t\n\"'`*"
_AFTER = _AROUND + ".!"


def agreement_key(completion: Completion) -> str | None:
    """The answer's normal form; None for several choices, or for one that holds nothing."""
    if len(completion.answers) != 1:
        return None
    answer = completion.answers[0]
    return _tool_key(answer) if answer.tool_calls else normal_form(answer.text)


def normal_form(text: str) -> str | None:
    """`text` in one form for answers that say the same; None where nothing is left.

    JSON objects and arrays are written with sorted keys; a number alone without its thousands'
    commas and trailing zeros; all else in lower case, NFKC, without quotes, emphasis and a full
    stop around it, and with single spaces. Long answers that differ in one word differ.
    """
    form, before = _folded(text), None
    while form is not None and form != before:  # what was inside quotes may have a form of its own
        form, before = _folded(form), form
    return form


def _folded(text: str) -> str | None:
    stripped = text.strip()
    if stripped.startswith(("{", "[")):
        try:
            return _canonical_json(orjson.loads(stripped))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested too deep
            pass
    folded = " ".join(unicodedata.normalize("NFKC", stripped).casefold().split())
    folded = folded.rstrip(_AFTER).lstrip(_AROUND)
    if _NUMBER.fullmatch(folded) and len(folded) <= _MAX_DIGITS:
        return _canonical_number(folded)
    return folded or None


def _canonical_number(text: str) -> str:
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:  # unreachable by _NUMBER, and no reason to fail a request
        return text
    # The context by default keeps 28 digits and rounds the others.
    return "0" if value == 0 else format(value.normalize(Context(prec=_MAX_DIGITS)), "f")


def _canonical_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _tool_key(answer: Answer) -> str:
    """Names and arguments of the calls, in their order; text beside them does not count."""
    return _canonical_json([[call.name, _arguments(call)] for call in answer.tool_calls])


def _arguments(call: ToolCall) -> Any:
    try:
        return orjson.Fragment(_canonical_json(orjson.loads(call.arguments)))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # compared as it was written
        return call.arguments
