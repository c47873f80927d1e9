"""Writes `docs/config.md` from the configuration's models: `python docs/generate_config.py`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridserve_llm.config.cascade import CascadeConfig

TARGET = Path(__file__).with_name("config.md")

_HEAD = """# Configuration

<!-- Written by docs/generate_config.py from hybridserve_llm/config/; do not edit. -->

One YAML file, `hs-launch --config FILE`. Unknown keys are errors. `[]` marks an entry of a list. A
tier's `model` that begins with `./` or `../` is relative to the file's folder, and so are
`tiers[].profiles`, `certificate`, `server.api_keys_file`, `launch.run_folder`, `watch.state_file`
and `records.file` when they are not absolute. Whole files are in [examples/](../examples).

Without a `certificate`, every tier but the last needs `accept`; with one, `accept` and `skip` are
left out or not used. The last tier has neither, as its answers are always taken. A band of `skip`
names a tier beyond the next one.
"""
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "{} or more characters",
    "maxLength": "{} characters or fewer",
    "minItems": "{} or more",
    "pattern": "`{}`",
}
Schema = dict[str, Any]


def config_page() -> str:
    """The whole page, as Markdown."""
    schema = CascadeConfig.model_json_schema()
    return "\n".join([_HEAD, *_sections(schema, schema, "", "The file")])


def _sections(model: Schema, root: Schema, prefix: str, title: str) -> Iterator[str]:
    """The table of `model`, then the tables of the models inside it."""
    yield f"## {title}\n\n{' '.join(model['description'].split())}\n"
    yield "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"
    inner: list[tuple[str, Schema]] = []
    for name, schema in model["properties"].items():
        key, nested = f"{prefix}{name}", _nested(schema, root)
        if nested is not None:
            path = key + ("[]" if schema.get("type") == "array" else "")
            inner.append((path, nested))
        yield _row(key, schema, nested, is_required=name in model.get("required", ()))
    yield ""
    for path, nested in inner:
        yield from _sections(nested, root, f"{path}.", f"`{path}`")


def _row(key: str, schema: Schema, nested: Schema | None, *, is_required: bool) -> str:
    meaning = schema.get("description") or (nested or {}).get("description", "")
    default = "required" if is_required else _default(schema, nested)
    cells = (f"`{key}`", _type(schema), default, _bounds(schema), " ".join(meaning.split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _alternatives(schema: Schema) -> list[Schema]:
    """The forms a value may have, null left out."""
    return [form for form in schema.get("anyOf", [schema]) if form.get("type") != "null"]


def _nested(schema: Schema, root: Schema) -> Schema | None:
    """The model that a value, or every entry of a list, is of; None for a plain value."""
    for form in _alternatives(schema):
        reference = form.get("$ref") or form.get("items", {}).get("$ref")
        if reference is not None:
            found: Schema = root["$defs"][reference.rsplit("/", 1)[-1]]
            return found
    return None


def _type(schema: Schema) -> str:
    """The type in words, what is in a list or mapping included."""
    names = []
    for form in _alternatives(schema):
        if "$ref" in form:
            names.append("mapping, see below")
        elif form["type"] == "array":
            item = form["items"]
            names.append(f"list of {'mappings, see below' if '$ref' in item else _type(item)}")
        elif form["type"] == "object":
            names.append(f"mapping of text to {_type(form['additionalProperties'])}")
        else:
            names.append("path" if form.get("format") == "path" else _TYPES[form["type"]])
    return " or ".join(names)


def _default(schema: Schema, nested: Schema | None) -> str:
    """The default in words; pydantic writes none into the schema where a factory makes it."""
    value = schema.get("default")
    if "default" not in schema and nested is not None:
        return "see below"
    if "default" not in schema:
        # A factory fills a number from others; the meaning says how.
        is_number = any(form.get("type") == "integer" for form in _alternatives(schema))
        return "see meaning" if is_number else "empty"
    if value == []:
        return "empty"
    if value is None:
        return "none"
    return f"`{_number(value) if isinstance(value, float) else _plain(value)}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _bounds(schema: Schema) -> str:
    bounds = [
        text.format(_number(form[name]))
        for form in _alternatives(schema)
        for name, text in _BOUNDS.items()
        if name in form
    ]
    return ", ".join(bounds) or "-"


if __name__ == "__main__":
    TARGET.write_text(config_page(), encoding="utf-8")
