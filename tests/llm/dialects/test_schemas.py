"""Schemas of one provider as another takes them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.demo.checks import Refusal, a_closed_schema, a_strict_schema
from edgeq.llm.dialects.schemas import for_anthropic, is_strict
from edgeq.llm.message import Losses, Unmappable

CLOSED = {"type": "object", "additionalProperties": False}
WORDS = ["type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "enum", "format"]
WORDS += ["minItems", "minimum", "default", "$defs", "$ref", "description", "other"]


@pytest.mark.parametrize(
    ("schema", "there", "lost"),
    [
        ({"type": "object"}, CLOSED, []),
        ({"type": "object", "additionalProperties": True}, CLOSED, []),
        ({"type": ["object", "null"]}, {"type": ["object", "null"], "additionalProperties": False}, []),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, CLOSED, ["s.additionalProperties"]),
        (
            {"type": "integer", "minimum": 1, "maximum": 9, "description": "Of years."},
            {"type": "integer", "description": 'Of years.\n\n{"minimum":1,"maximum":9}'},
            ["s.minimum", "s.maximum"],
        ),
        ({"type": "string", "default": "a"}, {"type": "string", "description": '{"default":"a"}'}, []),
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}, []),
        (
            {"type": "string", "format": "color"},
            {"type": "string", "description": '{"format":"color"}'},
            ["s.format"],
        ),
        (
            {"type": "array", "items": {"type": "object"}, "minItems": 1},
            {"type": "array", "items": CLOSED, "minItems": 1},
            [],
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 2},
            {"type": "array", "items": {"type": "string"}, "description": '{"minItems":2}'},
            ["s.minItems"],
        ),
        ({"oneOf": [{"type": "object"}, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}, []),
        (
            {"$ref": "#/$defs/a", "title": "A", "$defs": {"a": {"type": "object"}}},
            {"$ref": "#/$defs/a", "$defs": {"a": CLOSED}},
            [],
        ),
        (
            {"type": "object", "properties": {"minimum": {"type": "object"}, "type": {"enum": ["a", None]}}},
            {**CLOSED, "properties": {"minimum": CLOSED, "type": {"enum": ["a", None]}}},
            [],
        ),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}, CLOSED, []),
        ({"properties": {"a": True}}, {"properties": {"a": True}, "additionalProperties": False}, []),
    ],
)
def test_as_anthropic_takes_it(schema: dict[str, Any], there: dict[str, Any], lost: list[str]) -> None:
    """Closed, without bounds, which are told to the model; and what it says is none the worse for the original."""
    losses = Losses(strict=False)
    assert for_anthropic(schema, "s", losses) == there
    assert losses.dropped == lost
    a_closed_schema(there, "s")
    if lost:
        with pytest.raises(Unmappable):
            for_anthropic(schema, "s", Losses(strict=True))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["object", "string", "uuid"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(WORDS), JSON, max_size=5))
def test_what_is_no_schema_at_all(schema: dict[str, Any]) -> None:
    """Whatever the client has written, the provider may say what is wrong with it."""
    orjson.dumps(for_anthropic(schema, "s", Losses(strict=False)))
    is_strict(schema)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({"type": "object"}, False),
        ({**CLOSED, "properties": {"a": {"type": "string"}}, "required": ["a"]}, True),
        ({**CLOSED, "properties": {"a": {"type": "string"}}, "required": []}, False),
        ({**CLOSED, "properties": {"a": {"type": "string"}}}, False),
        ({**CLOSED, "properties": {"default": {"type": "string"}}, "required": ["default"]}, True),
        ({**CLOSED, "properties": {"a": {"type": "object"}}, "required": ["a"]}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [CLOSED, {"type": "object"}]}, False),
        ({"$defs": {"a": {"type": "object"}}, "$ref": "#/$defs/a"}, False),
        ({"enum": [{"type": "object"}]}, True),
        ({"type": "string", "default": "a"}, False),
    ],
)
def test_as_openai_takes_it(schema: dict[str, Any], strict: bool) -> None:
    """Strict is what has all properties required, and no others."""
    assert is_strict(schema) is strict
    if strict:
        a_strict_schema(schema, "s")


def test_the_demo_provider_is_as_strict() -> None:
    """It refuses what the providers refuse."""
    for schema in ({"type": "object"}, {**CLOSED, "properties": {"a": {"type": "integer", "minimum": 1}}}):
        with pytest.raises(Refusal):
            a_closed_schema(schema, "s")
    for schema in ({"type": "object"}, {**CLOSED, "properties": {"a": {"type": "integer"}}}):
        with pytest.raises(Refusal):
            a_strict_schema(schema, "s")
