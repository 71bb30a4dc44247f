"""JSON schemas as Gemini takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.demo import rules
from gemproxy.gemini.translate.schemas import inlined, with_object_root
from tests.strategies import json_values

CITY = {"type": "string", "description": "of a city"}
DEFS = {"$defs": {"city": CITY}}


def test_a_reference_that_is_alone_stays():
    schema = DEFS | {"properties": {"a": {"$ref": "#/$defs/city"}, "const": {"const": 1}}}
    assert inlined(schema) == schema


@pytest.mark.parametrize(
    ("siblings", "becomes"),
    [
        ({"description": "mine"}, CITY | {"description": "mine"}),
        ({"default": "x"}, CITY | {"default": "x"}),
        ({"title": "T"}, CITY | {"title": "T"}),
    ],
)
@pytest.mark.parametrize("reference", ["#/$defs/city", "#/%24defs/city"])
def test_a_reference_with_siblings_is_inlined(siblings: Any, becomes: Any, reference: str):
    schema = DEFS | {"properties": {"a": {"$ref": reference} | siblings}}
    assert inlined(schema) == DEFS | {"properties": {"a": becomes}}


def test_references_within_references_are_inlined():
    schema = {
        "$defs": {"a": {"items": {"$ref": "#/$defs/b/c~1d/0", "title": "T"}}, "b": {"c/d": [CITY]}},
        "anyOf": [{"$ref": "#/$defs/a", "description": "x"}],
    }
    inner = {"items": CITY | {"title": "T"}}
    assert inlined(schema)["anyOf"] == [inner | {"description": "x"}]


def test_a_recursive_reference_loses_its_siblings():
    child = {"$ref": "#/$defs/node", "description": "d"}
    schema = {"$defs": {"node": {"type": "object", "properties": {"child": child}}}} | child
    node = {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}}
    got = inlined(schema)
    assert got["properties"] == node["properties"]
    assert got["description"] == "d"
    assert rules.fault("gemini-3.8-flash", request(got)) is None


def test_references_that_multiply_come_to_an_end():
    many = {
        f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}", "title": "t"}] * 9}
        for level in range(30)
    }
    schema = {"$defs": many, "$ref": "#/$defs/d0", "title": "t"}
    assert rules.fault("gemini-3.8-flash", request(inlined(schema))) is None


@pytest.mark.parametrize(
    "reference", ["#/$defs/none", "https://a.example/b.json", "#/$defs/city/1"]
)
def test_a_reference_to_nothing_is_dropped(reference: str):
    schema = DEFS | {"properties": {"a": {"$ref": reference, "title": "T"}}}
    assert inlined(schema)["properties"] == {"a": {"title": "T"}}


OBJECT = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("schema", "root"),
    [
        (None, OBJECT),
        ({}, OBJECT),
        ({"type": "object", "title": "T"}, {"type": "object", "title": "T"}),
        ({"type": None}, OBJECT),
        ({"type": ["object", "null"]}, OBJECT),
        ({"properties": {"a": CITY}}, {"type": "object", "properties": {"a": CITY}}),
        ({"anyOf": [{"type": "object"}]}, OBJECT | {"anyOf": [{"type": "object"}]}),
        (
            {"$defs": {"x": {"type": "object", "title": "T"}}, "$ref": "#/$defs/x"},
            {"type": "object", "title": "T", "$defs": {"x": {"type": "object", "title": "T"}}},
        ),
        ({"$ref": "#"}, OBJECT),
        ({"$ref": "#/nothing"}, {"type": "object"}),
    ],
)
def test_parameters_are_an_object(schema: Any, root: Any):
    assert with_object_root(schema) == root


def request(schema: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "f", "parametersJsonSchema": schema}
    return {
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        "tools": [{"functionDeclarations": [function]}],
    }


REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "x"])
SCHEMAS = st.recursive(
    st.just({"type": "string"}) | st.fixed_dictionaries({"$ref": REFERENCES}),
    lambda inner: st.dictionaries(
        st.sampled_from(["items", "title", "anyOf", "not"]), inner | st.lists(inner, max_size=2)
    ).flatmap(lambda it: st.just(it) | REFERENCES.map(lambda reference: it | {"$ref": reference})),
    max_leaves=8,
)


@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_google_takes_what_is_inlined(a: Any, b: Any, root: Any):
    schema = root | {"$defs": {"a": a, "b": b}, "properties": {"a": a}}
    for changed in (inlined(schema), inlined(with_object_root(schema))):
        assert rules.fault("gemini-3.8-flash", request(changed)) is None


@given(st.dictionaries(st.text(max_size=5), json_values("$ref", "$defs", "properties")))
def test_any_json_is_a_schema(schema: Any):
    assert with_object_root(inlined(schema))["type"] == "object"
