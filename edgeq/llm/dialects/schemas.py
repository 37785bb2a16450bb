"""JSON Schemas by which a model is held to write, where one provider takes less of them than another.

Anthropic, of answers and of strict tools: objects are closed, and bounds of numbers, texts and lists are not known.
What it refuses goes into the description, where the model reads it, as its own SDK does; and is called lost, since
nothing holds the model to it. OpenAI, where it is strict: every property is required, which Anthropic does not ask for.

Source: anthropics/anthropic-sdk-python, lib/_parse/_transform.py; platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from edgeq.llm.message import Losses

_NAMED: Final = frozenset(("$defs", "definitions", "properties"))
"""Schemas by name."""
_LISTED: Final[dict[str, str]] = {"anyOf": "anyOf", "allOf": "allOf", "oneOf": "anyOf"}
_AS_IT_IS: Final = frozenset(("$ref", "type", "title", "description", "enum", "const", "required"))
_HINTS: Final = frozenset(("default", "example", "examples"))
"""They bind nobody."""
_ABOUT: Final = frozenset(("$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly"))
"""For people."""
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
)
_NOT_STRICT: Final = frozenset(("allOf", "oneOf", "default"))


def for_anthropic(schema: dict[str, Any], at: str, losses: Losses) -> dict[str, Any]:
    """The same, as far as Anthropic takes it. Args: at is where the client has it, for what is lost.

    An object that says nothing of other properties is closed without a word: what the model writes fits it anyhow.
    """
    said: dict[str, Any] = {}
    left: dict[str, Any] = {}
    """For the description."""
    for key, value in schema.items():
        if key in _AS_IT_IS or _is_known(key, value):
            said[key] = value
        elif key in _NAMED and isinstance(value, dict):
            said[key] = {name: _inner(one, at, losses) for name, one in value.items()}
        elif key in _LISTED and isinstance(value, list):
            said[_LISTED[key]] = [_inner(one, at, losses) for one in value]
        elif key == "items" and isinstance(value, dict):
            said[key] = for_anthropic(value, at, losses)
        elif key == "additionalProperties":
            if value is not True and value is not False:
                losses.lose(f"{at}.{key}", f"{at}: the model's provider takes no properties whose names are not told")
        elif key not in _ABOUT:
            left[key] = value
            if key not in _HINTS:
                losses.lose(f"{at}.{key}", f"{at}: the model's provider does not know {key}")
    if "$ref" in said:  # beside which nothing else is taken
        return {key: value for key, value in said.items() if key == "$ref" or key in ("$defs", "definitions")}
    kind = said.get("type")
    if kind == "object" or "properties" in said or (isinstance(kind, list) and "object" in kind):
        said["additionalProperties"] = False
    if left:
        told = orjson.dumps(left).decode()
        described = said.get("description")
        said["description"] = f"{described}\n\n{told}" if described else told
    return said


def _is_known(key: str, value: Any) -> bool:
    """One of the few words of its kind that Anthropic takes."""
    if key == "format":
        return isinstance(value, str) and value in _FORMATS
    return key == "minItems" and (value == 0 or value == 1)


def _inner(schema: Any, at: str, losses: Losses) -> Any:
    return for_anthropic(schema, at, losses) if isinstance(schema, dict) else schema


def is_strict(schema: Any) -> bool:
    """Does OpenAI take it as strict: all objects closed, all their properties required?"""
    if isinstance(schema, list):
        return all(is_strict(one) for one in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        if schema.get("additionalProperties") is not False or not all(name in names for name in properties):
            return False
        if not all(is_strict(one) for one in properties.values()):
            return False
    elif schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    for key, value in schema.items():
        if key in _NOT_STRICT or (key not in ("properties", "enum", "const") and not is_strict(value)):
            return False
    return True
