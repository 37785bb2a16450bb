"""Server-sent events, and which of them is a token: those come one after another, the others with their neighbour."""

from __future__ import annotations

from typing import Final

import orjson

Frame = tuple[bytes, bool]
"""One event with its empty line; and whether it brings a token."""

DONE: Final[Frame] = (b"data: [DONE]\n\n", False)


def data(value: object, token: bool = False) -> Frame:
    """An event without a name."""
    return b"data: " + orjson.dumps(value) + b"\n\n", token


def named(name: str, value: object, token: bool = False) -> Frame:
    """An event with one."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n", token


def halves(text: str) -> tuple[str, str]:
    """`text` in two, as models send the arguments of a tool: cut where no JSON ends."""
    middle = len(text) // 2
    return text[:middle], text[middle:]
