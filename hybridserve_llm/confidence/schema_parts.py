"""Leave out of a JSON schema what cannot be compiled, so that the rest can still be checked.

Schemas come from generators: one pattern with look-around, one `"description": null` or one
reference to another document makes the whole schema invalid. What is left after such parts are
taken out must never reject what the whole schema would accept. So the keywords that turn around
what is below them (`not`, `if`, `oneOf`, `unevaluatedProperties`, …) go too, or become weaker,
once anything else is left out.

Source of the keywords: JSON Schema, draft 2020-12, and the earlier drafts back to 4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_MAX_LEVELS = 100
_ONE_SCHEMA = frozenset(
    {"additionalProperties", "additionalItems", "contains", "items", "propertyNames"}
)
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS_BY_NAME = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_ANNOTATIONS = frozenset(
    {"$comment", "$defs", "definitions", "default", "deprecated", "description", "examples"}
    | {"format", "readOnly", "title", "writeOnly", "contentEncoding", "contentMediaType"}
)
"""Keywords that reject nothing: a slip in one of them leaves every check as it is."""
_TURNED_AROUND = frozenset(
    {"not", "if", "then", "else", "maxContains", "unevaluatedProperties", "unevaluatedItems"}
    | {"dependencies"}
)
"""Keywords that may reject more when a part below them, or next to them, is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckableSchema:
    """Hold a schema that compiles, and the places (JSON pointers) of the checks it lost."""

    schema: Any
    left_out: tuple[str, ...] = ()


def checkable_part(schema: Any, compiles: Callable[[Any], bool]) -> CheckableSchema:
    """Return `schema` without what does not compile; it accepts all that `schema` accepts.

    Args:
        schema: Any JSON value, as a client sent it.
        compiles: Returns whether a schema compiles.
    """
    if compiles(schema):
        return CheckableSchema(schema=schema)
    dialect = schema.get("$schema") if isinstance(schema, Mapping) else None
    given = {} if dialect is None else {"$schema": dialect}
    for keeps_references in (True, False):
        reading = _Reading(compiles, given if compiles(given) else {}, keeps_references)
        kept = reading.part(schema, "", 0)
        if reading.left_out:  # and not only annotations, which check nothing
            kept = _weaker(kept, reading.left_out)
        if compiles(kept):
            return CheckableSchema(schema=kept, left_out=tuple(reading.left_out))
    return CheckableSchema(schema={}, left_out=("",))


@dataclass(slots=True)
class _Reading:
    """Read one schema from its root, and note the places of what is left out."""

    compiles: Callable[[Any], bool]
    dialect: Mapping[str, Any]
    keeps_references: bool
    left_out: list[str] = field(default_factory=list)

    def part(self, schema: Any, place: str, level: int) -> Any:
        """Return the part of `schema` that compiles by itself; `{}`, which accepts all, if none."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping) or level > _MAX_LEVELS:
            self.left_out.append(place)
            return {}
        kept: dict[str, Any] = {}
        for keyword, value in schema.items():
            part = self._keyword(keyword, value, f"{place}/{keyword}", level + 1)
            if part is not None:
                kept |= part
            elif keyword not in _ANNOTATIONS:
                self.left_out.append(f"{place}/{keyword}")
        lists_of_names = ("properties", "patternProperties")
        if any(_names(kept, one) != _names(schema, one) for one in lists_of_names):
            kept.pop("additionalProperties", None)  # it would reject the names that were left out
        return kept

    def _keyword(self, keyword: str, value: Any, place: str, level: int) -> dict[str, Any] | None:
        """Return the keyword with what is kept of its value; None where it is left out."""
        if keyword in ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$anchor"):
            # Whether a reference leads somewhere shows only when the whole is compiled.
            is_kept = self.keeps_references and isinstance(value, str)
            return {keyword: value} if is_kept else None
        if keyword == "items" and isinstance(value, list):
            is_older = self._compiles({"items": [{}]})  # draft 2019-09 and earlier
            name = "items" if is_older else "prefixItems"
            return {name: [self.part(one, f"{place}/{i}", level) for i, one in enumerate(value)]}
        if keyword in _ONE_SCHEMA:
            return {keyword: self.part(value, place, level)}
        if keyword in _SCHEMA_LISTS and isinstance(value, list) and value:
            return {keyword: [self.part(one, f"{place}/{i}", level) for i, one in enumerate(value)]}
        if keyword in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            named = {
                name: self.part(one, f"{place}/{name}", level)
                for name, one in value.items()
                if keyword != "patternProperties" or self._compiles({"pattern": name})
            }
            self.left_out += [f"{place}/{name}" for name in value.keys() - named.keys()]
            return {keyword: named}
        return {keyword: value} if self._compiles({keyword: value}) else None

    def _compiles(self, part: Mapping[str, Any]) -> bool:
        return self.compiles({**self.dialect, **part})


def _names(schema: Mapping[str, Any], keyword: str) -> Any:
    """Return the names that `keyword` lists; an empty list, as PHP writes an object, has none."""
    value = schema.get(keyword) or {}
    return value.keys() if isinstance(value, Mapping) else value


def _weaker(schema: Any, left_out: list[str], place: str = "") -> Any:
    """Return `schema` without the keywords that turn around what is below them; note them."""
    if isinstance(schema, list):
        return [_weaker(one, left_out, f"{place}/{i}") for i, one in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    weaker: dict[str, Any] = {}
    branches: list[Any] = []
    for keyword, value in schema.items():
        at = f"{place}/{keyword}"
        if keyword in _TURNED_AROUND:
            left_out.append(at)
        elif keyword == "oneOf":  # one branch of several, each weaker: more may fit now
            left_out.append(at)
            branches = [{"anyOf": _weaker(value, left_out, at)}]
        elif keyword in _SCHEMAS_BY_NAME:
            weaker[keyword] = {
                name: _weaker(one, left_out, f"{at}/{name}") for name, one in value.items()
            }
        elif keyword in _ONE_SCHEMA | _SCHEMA_LISTS:
            weaker[keyword] = _weaker(value, left_out, at)
        else:
            weaker[keyword] = value
    if branches:
        weaker["allOf"] = [*weaker.get("allOf", []), *branches]
    return weaker
