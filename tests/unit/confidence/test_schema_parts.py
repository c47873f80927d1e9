"""A schema without its uncompilable parts never rejects an instance that the whole accepts."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.schema_parts import CheckableSchema, checkable_part


def compiles(schema: Any) -> bool:
    try:
        jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())
    except ValueError:
        return False
    return True


LOOK_AHEAD = {"type": "string", "pattern": "^(?!x)"}


def test_a_schema_that_compiles_is_kept_as_it_is() -> None:
    schema = {"oneOf": [{"type": "string"}, {"not": {"type": "null"}}]}
    assert checkable_part(schema, compiles) == CheckableSchema(schema=schema)


@pytest.mark.parametrize(
    ("slip", "kept"),
    [
        ({"description": None}, {}),
        ({"title": 3, "deprecated": "no"}, {}),
        ({"$defs": None}, {}),
    ],
)
def test_a_slip_in_what_checks_nothing_leaves_every_check(slip: Any, kept: Any) -> None:
    rest = {"type": "object", "not": {"required": ["a"]}}
    assert checkable_part({**rest, **slip}, compiles) == CheckableSchema(schema={**rest, **kept})


LEFT_OUT: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "pattern": (LOOK_AHEAD, {"type": "string"}, ("/pattern",)),
    "null": ({"type": "string", "enum": None}, {"type": "string"}, ("/enum",)),
    "draft 3": (
        {"properties": {"a": {"type": "string", "required": True}}},
        {"properties": {"a": {"type": "string"}}},
        ("/properties/a/required",),
    ),
    "not a schema": (
        {"properties": {"a": None}, "required": ["a"]},
        {"properties": {"a": {}}, "required": ["a"]},
        ("/properties/a",),
    ),
    "pattern of a name": (
        {"patternProperties": {"(?=a)": True, "b": True}, "additionalProperties": False},
        {"patternProperties": {"b": True}},
        ("/patternProperties/(?=a)",),
    ),
    "reference": (
        {"allOf": [{"$ref": "http://h/x.json"}, {"type": "object"}]},
        {"allOf": [{}, {"type": "object"}]},
        ("/allOf/0/$ref",),
    ),
    "dialect": ({"$schema": "urn:x", "type": "object"}, {"type": "object"}, ("/$schema",)),
    "tuple of draft 7": (
        {"items": [{"type": "string"}], "minItems": 1},
        {"prefixItems": [{"type": "string"}], "minItems": 1},
        (),
    ),
    "not": (
        {"type": "object", "not": {"properties": {"a": LOOK_AHEAD}}},
        {"type": "object"},
        ("/not",),
    ),
    "below one of": (
        {"oneOf": [LOOK_AHEAD, {"type": "null"}]},
        {"allOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}]},
        ("/oneOf/0/pattern", "/oneOf"),
    ),
    "anywhere": (5, {}, ("",)),
    "text": ("x", {}, ("",)),
}


@pytest.mark.parametrize(("schema", "kept", "left_out"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_only_what_does_not_compile_is_left_out(schema: Any, kept: Any, left_out: Any) -> None:
    assert checkable_part(schema, compiles) == CheckableSchema(schema=kept, left_out=left_out)


def test_the_keywords_of_the_schemas_own_dialect_are_kept() -> None:
    draft_4 = "http://json-schema.org/draft-04/schema#"
    schema = {"$schema": draft_4, "items": [{"type": "string"}], "enum": None}
    kept = checkable_part(schema, compiles)
    assert kept.schema == {"$schema": draft_4, "items": [{"type": "string"}]}


def test_a_schema_without_a_floor_ends() -> None:
    schema: dict[str, Any] = LOOK_AHEAD
    for _ in range(500):
        schema = {"properties": {"a": schema}}
    assert checkable_part(schema, compiles).left_out


# `multipleOf: 2` stands for a keyword that our compiler does not know and another one does.
def knows_no_multiples(schema: Any) -> bool:
    return "multipleOf" not in str(schema) and compiles(schema)


leaves = st.sampled_from(
    [{"multipleOf": 2}, {"type": "integer"}, {"type": "string"}, {"const": 4}, {"required": ["a"]}]
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries(
            {
                "oneOf": st.lists(inner, min_size=1, max_size=2),
                "allOf": st.lists(inner, min_size=1, max_size=1),
            }
        ),
        st.fixed_dictionaries(
            {"properties": st.fixed_dictionaries({"a": inner}), "additionalProperties": inner}
        ),
        st.fixed_dictionaries(
            {
                "properties": st.fixed_dictionaries({"b": inner}),
                "unevaluatedProperties": st.just(False),
            }
        ),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        st.fixed_dictionaries({"contains": inner, "maxContains": st.just(1)}),
        st.fixed_dictionaries(
            {
                "$defs": st.fixed_dictionaries({"d": inner}),
                "properties": st.just({"a": {"$ref": "#/$defs/d"}}),
            }
        ),
    ),
    max_leaves=6,
)
scalars = st.sampled_from([3, 4, "x", None])
instances = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), scalars, max_size=2),
)


@given(schemas, instances)
def test_what_is_left_accepts_all_that_the_whole_accepts(schema: Any, instance: Any) -> None:
    kept = checkable_part(schema, knows_no_multiples).schema
    if compiles(schema) and jsonschema_rs.is_valid(schema, instance):
        assert jsonschema_rs.is_valid(kept, instance)
