"""What the variables of a prompt may be, and how they are written into its texts.

A value is checked against its declaration and becomes text: a string as it is, a number and a boolean as in JSON, a
list's items one a line. Whatever it holds, it stays a part of the message it stands in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.config.findings import did_you_mean
from edgeq.llm.dialects.base import why_not_json
from edgeq.llm.message import Unmappable

if TYPE_CHECKING:
    from edgeq.config.schema_llm import Variable

_SCHEMA_TYPES: Final = {"enum": "string", "list": "array"}


def read_values(body: bytes, variables: dict[str, Variable]) -> dict[str, str]:
    """The texts of all variables, by a request's body.

    Raises: Unmappable with the name of the field that is missing, unknown or wrong.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise why_not_json(body, str(error)) from None
    if not isinstance(given, dict):
        raise Unmappable("", "the body must be a JSON object of the prompt's variables")
    for name in given:
        if name not in variables:
            raise Unmappable(name, f"there is no variable {name}{did_you_mean(name, list(variables))}")
    values: dict[str, str] = {}
    for name, variable in variables.items():
        value = given.get(name)
        if value is None:  # null says nothing, as in the dialects
            value = variable.default
        if value is not None:
            values[name] = write_value(name, value, variable)
        elif variable.required:
            raise Unmappable(name, f"{name} is missing")
        else:
            values[name] = ""
    return values


def write_value(name: str, value: Any, variable: Variable) -> str:
    """The text of one value. Raises: Unmappable if it is not what its variable may be."""
    kind = variable.type
    if kind == "string":
        if not isinstance(value, str):
            raise _expected(name, "a string")
        _check_length(name, value, variable)
        return value
    if kind == "enum":
        if not isinstance(value, str) or value not in variable.values:
            hint = did_you_mean(value, list(variable.values)) if isinstance(value, str) else ""
            raise _expected(name, f"one of {', '.join(variable.values)}{hint}")
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _expected(name, "true or false")
        return "true" if value else "false"
    if kind == "list":
        if not isinstance(value, list | tuple):  # a default is a tuple
            raise _expected(name, "a list of strings")
        for item in value:
            if not isinstance(item, str):
                raise _expected(name, "a list of strings")
            _check_length(name, item, variable)
        _check_bounds(name, len(value), variable, "have", " items")
        return "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
        raise _expected(name, "an integer" if kind == "integer" else "a number")
    _check_bounds(name, value, variable, "be", "")
    return orjson.dumps(value).decode()


def schema_of(variables: dict[str, Variable]) -> dict[str, Any]:
    """The JSON Schema of a request's body."""
    required = [name for name, one in variables.items() if one.required and one.default is None]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema(one) for name, one in variables.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    return schema


def _schema(variable: Variable) -> dict[str, Any]:
    kind = variable.type
    schema: dict[str, Any] = {"type": _SCHEMA_TYPES.get(kind, kind)}
    if variable.help:
        schema["description"] = variable.help
    if variable.default is not None:
        schema["default"] = variable.default
    if kind == "enum":
        schema["enum"] = list(variable.values)
    elif kind == "string":
        schema["maxLength"] = variable.max_length
    elif kind == "list":
        schema["items"] = {"type": "string", "maxLength": variable.max_length}
    least, most = ("minItems", "maxItems") if kind == "list" else ("minimum", "maximum")
    if variable.min is not None:
        schema[least] = _plain(variable.min)
    if variable.max is not None:
        schema[most] = _plain(variable.max)
    return schema


def _check_length(name: str, text: str, variable: Variable) -> None:
    if len(text) > variable.max_length:
        what = f"an item of {name}" if variable.type == "list" else name
        raise Unmappable(name, f"{what} has {len(text)} characters, of {variable.max_length} at most")


def _check_bounds(name: str, number: float, variable: Variable, verb: str, unit: str) -> None:
    if variable.min is not None and number < variable.min:
        raise Unmappable(name, f"{name} must {verb} {_plain(variable.min)}{unit} at least")
    if variable.max is not None and number > variable.max:
        raise Unmappable(name, f"{name} must {verb} {_plain(variable.max)}{unit} at most")


def _plain(number: float) -> float:
    """Bounds are read as floats; nobody writes 5.0 items."""
    return int(number) if number == int(number) else number


def _expected(name: str, what: str) -> Unmappable:
    return Unmappable(name, f"{name} must be {what}")
