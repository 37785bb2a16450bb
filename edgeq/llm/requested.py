"""A request that passes to a provider of its own dialect: what is looked at in it, and its model's name put in."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import orjson

from edgeq.llm.dialects.base import why_not_json
from edgeq.llm.message import Unmappable
from edgeq.llm.shapes import Peek, as_named, as_peek

TOO_DEEP: Final = "the body is nested too deeply"

_MAX_OUTPUT: Final = 10**8
"""More than any model says: what a client allows beyond it is reckoned as this much."""
_MAX_ANSWERS: Final = 1000
"""More than any provider takes."""

_BACKSLASH: Final = 92

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
"""How msgspec says where something is wrong."""

_TYPE: Final = re.compile(r"Expected `(\w+)(?: \| null)?`, got `\w+`")
_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
"""What it wants there, in the words that the dialects have for it (dialects/base.py)."""

_EACH_USAGE: Final = "continuous_usage_stats"
"""vLLM's option: each chunk tells the usage so far. There it means nothing without include_usage."""

_MODEL: Final = re.compile(rb'("model"\s*:\s*)("(?:[^"\\]|\\.)*")')


def requested(dialect: str, body: bytes) -> Peek:
    """What edgeq must know of a client's request.

    Raises: Unmappable if the body is no JSON object, or one of these is of a wrong type.
    """
    try:
        return as_peek.decode(body)
    except msgspec.ValidationError as error:
        said = str(error)
        place = _PLACE.search(said)
        param = place[1] if place is not None else ""
        message = said[: place.start()] if place is not None else said
        wanted = _TYPE.fullmatch(message)
        if wanted is None:
            told = f": {message[:1].lower()}{message[1:]}"
        elif param:
            told = f" must be {_TYPES.get(wanted[1], wanted[1])}"
        else:
            told = " must be a JSON object"
        raise Unmappable(param, (param or "the body") + told) from None
    except msgspec.DecodeError as broken:
        raise why_not_json(body, str(broken)) from None
    except RecursionError:
        raise Unmappable("", TOO_DEEP) from None
    except UnicodeDecodeError:
        raise Unmappable("", "the body is not UTF-8") from None


# Not properties of Peek, whose class msgspec makes: these are asked for by every request, and compiled.


def output_tokens(peek: Peek) -> int:
    """The longest answer that it allows, for one choice; 0 if it does not say."""
    most = peek.max_tokens or 0
    other = peek.max_completion_tokens or 0
    if other > most:
        most = other
    other = peek.max_output_tokens or 0
    if other > most:
        most = other
    if most > _MAX_OUTPUT:
        most = _MAX_OUTPUT
    return most


def answers(peek: Peek) -> int:
    """How many it asks for at once."""
    count = peek.n or 1
    if count < 1:
        return 1
    return count if count < _MAX_ANSWERS else _MAX_ANSWERS  # noqa: FURB136 - a call when compiled


def wants_usage(peek: Peek) -> bool:
    """A stream shall tell its usage."""
    options = peek.stream_options
    return options is not None and options.include_usage is True


def with_model(body: bytes, peek: Peek, model: str, include_usage: bool) -> bytes:
    """The same request for the provider's `model`, and with its usage told at the end of a stream if `include_usage`.

    The name is put in where the old one stood, so that all else stays byte for byte. If it is not plain where that is
    (the word "model" more than once, or written with escapes, so that two parsers might see two models) the body is
    written anew: a provider must see the model that edgeq has seen, or limits could be passed by.
    """
    adds_usage = include_usage and peek.stream is True and not wants_usage(peek)
    if adds_usage and peek.stream_options is not None:
        return _anew(body, model, adds_usage)
    if body.count(b'"model"') != 1 or (_BACKSLASH in body and body.find(b"\\u006") >= 0):
        return _anew(body, model, adds_usage)
    if peek.model != model:
        match = _MODEL.match(body, body.index(b'"model"'))
        if match is None:
            return _anew(body, model, adds_usage)
        spliced = body[: match.start(2)] + orjson.dumps(model) + body[match.end(2) :]
        if as_named.decode(spliced).model != model:
            # It was the name of something deeper.
            return _anew(body, model, adds_usage)
        body = spliced
    if adds_usage:
        if b'"stream_options"' in body:
            return _anew(body, model, adds_usage)
        start = body.index(b"{") + 1
        body = body[:start] + b'"stream_options":{"include_usage":true},' + body[start:]
    return body


def without_stream_options(body: bytes) -> bytes:
    """The same request for a provider that refuses them. Raises: Unmappable if it is none."""
    asked = _read(body)
    asked.pop("stream_options", None)
    return orjson.dumps(asked)


def _read(body: bytes) -> dict[str, Any]:
    try:
        asked: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise why_not_json(body, str(error)) from None
    return asked


def _anew(body: bytes, model: str, adds_usage: bool) -> bytes:
    asked = _read(body)
    asked["model"] = model
    if adds_usage:
        options = {**(asked.get("stream_options") or {}), "include_usage": True}
        options.pop(_EACH_USAGE, None)
        asked["stream_options"] = options
    return orjson.dumps(asked)
