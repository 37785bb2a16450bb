"""Inputs of Anthropic's tools, and arguments of Ollama's, which are objects, with every digit of their numbers: to all
others they are text.

orjson reads a whole number of more than 64 bits, and one with a point or an exponent, as a double, which has 15 digits
for sure. So where an input has one that may have lost some, the body is read once more, by a parser that can leave
numbers as they are written; it takes ten times as long.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

_EXACT: Final = 2.0**53
"""Doubles up to it are exact as whole numbers."""
_DIGITS: Final = 17
"""Characters of the shortest text by which a double is known that perhaps is not all that was written."""
_DEEPEST: Final = 256
"""What is nested deeper cannot be written."""
_MOST_DIGITS: Final = 18
"""Of a whole number that surely fits 64 bits."""


def keep_digits(body: bytes, content: Any, messages: Any = None) -> None:
    """Put the inputs of `tool_use` blocks that may have lost digits back as they are written in `body`, if that was
    read as an object with this `content`, or with these `messages`, each with its own."""
    if not (_has_rounded(content) or (messages is not None and any(_has_rounded(_at(one)) for one in messages))):
        return
    written = _written(body)
    _replace(content, written.get("content"))
    for one, other in zip(messages or (), written.get("messages") or (), strict=False):
        _replace(_at(one), _at(other))


def keep_digits_of_calls(body: bytes, choices: list[Any], name: str) -> None:
    """The same of a chat completion's `choices`, each with a message or a delta (`name`): their `tool_calls`."""
    functions = _functions(choices, name)
    if any(_is_rounded(one.get("arguments"), 0) for one in functions):
        for one, other in zip(functions, _functions(_written(body).get("choices"), name), strict=False):
            one["arguments"] = other.get("arguments")


def _written(body: bytes) -> dict[str, Any]:
    """What was read as an object, its numbers as they are written."""
    try:
        written: dict[str, Any] = json.loads(body, parse_float=_fragment, parse_int=_whole)
    except (ValueError, RecursionError):  # the other parser's bounds: it has been read, so it goes as it is
        return {}
    return written


def _at(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) else None


def _functions(choices: Any, name: str) -> list[dict[str, Any]]:
    """What is called, call by call."""
    found: list[dict[str, Any]] = []
    for choice in choices if isinstance(choices, list) else ():
        said = choice.get(name) if isinstance(choice, dict) else None
        calls = said.get("tool_calls") if isinstance(said, dict) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                found.append(function)
    return found


def _inputs(content: Any) -> list[dict[str, Any]]:
    """The blocks that have one."""
    blocks = content if isinstance(content, list) else ()
    return [one for one in blocks if isinstance(one, dict) and one.get("type") == "tool_use"]


def _has_rounded(content: Any) -> bool:
    return any(_is_rounded(block.get("input"), 0) for block in _inputs(content))


def _is_rounded(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return not -_EXACT < value < _EXACT or len(repr(value)) >= _DIGITS
    if depth > _DEEPEST or not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return any(_is_rounded(one, depth + 1) for one in inner)


def _replace(content: Any, written: Any) -> None:
    for block, other in zip(_inputs(content), _inputs(written), strict=False):
        block["input"] = other.get("input")


def _fragment(text: str) -> orjson.Fragment:
    return orjson.Fragment(text.encode())


def _whole(text: str) -> int | orjson.Fragment:
    return int(text) if len(text) <= _MOST_DIGITS else _fragment(text)
