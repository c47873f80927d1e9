"""Find the JSON schemas that a request sets for its answer, and check instances against them.

A schema may have parts that cannot be checked: they are invalid, refer to a document elsewhere, or
are patterns with look-around or back-references. The schema of an *answer* then lets nothing
through, since engines refuse such schemas, and a check that was asked for and not made counts as
failed. The schema of a *tool* is checked without those parts: engines do not compile it where the
model is free to call the tool or not, and generators of schemas write such parts often.

Schemas come from clients. So nothing is fetched (`$ref` to a URL fails), patterns run on a
linear-time engine, and a fault names the place in the schema, never the answer's content. `format`
is an annotation, as in draft 2020-12, and is not checked.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from hybridserve_llm.confidence.schema_parts import checkable_part
from hybridserve_llm.values.requests import GenerateRequest

log = logging.getLogger(__name__)

_MAX_VALIDATORS = 256
_SHOWN_PLACES = 5


def answer_schema(request: GenerateRequest) -> Any:
    """Return the JSON schema (object, boolean or JSON text) of the request's answer, or None.

    It is read from `response_format`, as OpenAI has it, and from vLLM's `structured_outputs.json`
    and its older name `guided_json`.
    """
    payload = request.payload
    wanted = _mapping(payload.get("response_format"))
    if wanted.get("type") == "json_schema":
        return _mapping(wanted.get("json_schema")).get("schema")
    structured = _mapping(payload.get("structured_outputs")).get("json")
    return payload.get("guided_json") if structured is None else structured


def expects_json(request: GenerateRequest) -> bool:
    """Return True where the client asked for an answer in JSON, with or without a schema."""
    wants_json = request.json_answer or expects_object(request)
    return wants_json or answer_schema(request) is not None


def expects_object(request: GenerateRequest) -> bool:
    """Return True where the client asked for a JSON object, whatever is in it."""
    structured = _mapping(request.payload.get("structured_outputs"))
    wanted = _mapping(request.payload.get("response_format")).get("type")
    return structured.get("json_object") is True or wanted == "json_object"


def tool_schema(request: GenerateRequest, name: str) -> Any:
    """Return the schema of tool `name`'s arguments; None where the client gave none."""
    for tool in request.payload.get("tools") or ():
        function = _mapping(_mapping(tool).get("function"))
        if function.get("name") == name:
            return function.get("parameters")
    return None


def takes_no_arguments(schema: Any) -> bool:
    """Return True where the schema of a tool names no argument."""
    return schema is None or (isinstance(schema, Mapping) and not schema.get("properties"))


def schema_fault(
    subject: str, schema: Any, instance: Any, *, must_be_whole: bool = True
) -> str | None:
    """Return why the parsed `instance` is not known to fit `schema`, None where it fits.

    Args:
        subject: The subject of the returned sentence, e.g. "the answer".
        schema: As a client gave it; None (no schema) fits everything.
        instance: Parsed by orjson, so at most 1024 levels deep.
        must_be_whole: Whether a schema of which parts cannot be checked lets nothing through.
    """
    if schema is None:
        return None
    validator, left_out = _validator(_schema_text(schema))
    if left_out and must_be_whole:
        return f"{subject} cannot be checked: its JSON schema is invalid or not supported"
    try:
        validator.validate(instance)
    except jsonschema_rs.ValidationError as exc:
        return f"{subject} did not pass the JSON schema at {_pointer(exc.evaluation_path)}"
    return None


def _schema_text(schema: Any) -> str:
    """Return the schema as JSON text; an unwritable one becomes text that does not compile."""
    try:
        return schema if isinstance(schema, str) else orjson.dumps(schema).decode()
    except orjson.JSONEncodeError:
        return ""


@lru_cache(maxsize=_MAX_VALIDATORS)
def _validator(schema: str) -> tuple[jsonschema_rs.Validator, tuple[str, ...]]:
    """Return what can be checked of a schema, kept across requests, and the places of the rest.

    It takes text in place of an object, since text can be a key of the cache and the parser bounds
    its depth.
    """
    try:
        return _compiled(schema), ()
    except ValueError:
        pass
    try:
        parsed: Any = orjson.loads(schema)
    except orjson.JSONDecodeError:
        parsed = None
    checkable = checkable_part(parsed, _compiles)
    if checkable.left_out:
        log.warning(
            "a client's JSON schema cannot be checked whole; left out: %s",
            ", ".join(place or "all of it" for place in checkable.left_out[:_SHOWN_PLACES]),
        )
    return _compiled(_schema_text(checkable.schema)), checkable.left_out


def _compiled(schema: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True
    )


def _compiles(schema: Any) -> bool:
    try:
        _compiled(_schema_text(schema))
    except ValueError:
        return False
    return True


def _pointer(path: list[str | int]) -> str:
    """Return `path` as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is an object, else an empty one; engines reject what is no object."""
    return value if isinstance(value, Mapping) else {}
