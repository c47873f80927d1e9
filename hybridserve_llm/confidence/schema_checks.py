"""JSON schemas that a request holds its answer to, and whether an instance fits one.

A schema that cannot be checked (it is invalid, refers to a document elsewhere, or has a pattern
with look-around or back-references) lets no answer through: a check that was asked for and not made
is a failed one. Engines refuse such schemas where they compile them; where they do not, as for the
tools of `tool_choice: auto`, the answer escalates and the ledger says why.

Schemas come from clients. So nothing is fetched (`$ref` to a URL fails), patterns run on a
linear-time engine, and a fault names the place in the schema, never the answer's content. `format`
is an annotation, as in draft 2020-12, and is not checked.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from hybridserve_llm.values.requests import GenerateRequest

_MAX_VALIDATORS = 256


def answer_schema(request: GenerateRequest) -> Any:
    """The JSON schema (object, boolean or JSON text) of the request's answer; None without one.

    Read from `response_format`, as OpenAI has it, and from vLLM's `structured_outputs.json` and
    its older name `guided_json`.
    """
    payload = request.payload
    wanted = _mapping(payload.get("response_format"))
    if wanted.get("type") == "json_schema":
        return _mapping(wanted.get("json_schema")).get("schema")
    structured = _mapping(payload.get("structured_outputs")).get("json")
    return payload.get("guided_json") if structured is None else structured


def expects_json(request: GenerateRequest) -> bool:
    """Whether the client asked for an answer that parses as JSON, with or without a schema."""
    structured = _mapping(request.payload.get("structured_outputs"))
    wants_object = structured.get("json_object") is True
    return request.json_answer or wants_object or answer_schema(request) is not None


def tool_schema(request: GenerateRequest, name: str) -> Any:
    """The schema of tool `name`'s arguments; None where the client gave none."""
    for tool in request.payload.get("tools") or ():
        function = _mapping(_mapping(tool).get("function"))
        if function.get("name") == name:
            return function.get("parameters")
    return None


def schema_fault(subject: str, schema: Any, instance: Any) -> str | None:
    """Why the parsed `instance` is not known to fit `schema`, None where it fits.

    Args:
        subject: What the sentence is about, e.g. "the answer".
        schema: As a client gave it; None (no schema) fits everything.
        instance: Parsed by orjson, so at most 1024 levels deep.
    """
    if schema is None:
        return None
    validator = _validator(_schema_text(schema))
    if validator is None:
        return f"{subject} cannot be checked: its JSON schema is invalid or not supported"
    try:
        validator.validate(instance)
    except jsonschema_rs.ValidationError as exc:
        return f"{subject} did not pass the JSON schema at {_pointer(exc.evaluation_path)}"
    return None


def _schema_text(schema: Any) -> str:
    """The schema as JSON text; what cannot be written stays text that does not compile."""
    try:
        return schema if isinstance(schema, str) else orjson.dumps(schema).decode()
    except orjson.JSONEncodeError:
        return ""


@lru_cache(maxsize=_MAX_VALIDATORS)
def _validator(schema: str) -> jsonschema_rs.Validator | None:
    """The compiled schema, or None where it does not compile; remembered across requests.

    Text in place of an object: it can be a key, and its depth is bounded by the parser.
    """
    try:
        return jsonschema_rs.validator_for(
            schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except ValueError:
        return None


def _pointer(path: list[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object; engines reject what is not, so here it counts as absent."""
    return value if isinstance(value, Mapping) else {}
