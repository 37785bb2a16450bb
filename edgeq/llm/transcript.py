"""What a client gets, for the log of accounts.log_prompts: a whole answer as it is sent; of a stream what it says, put
together. Piece by piece nobody could read it, and no secret in it would be seen to be one: they are cut into tokens.

A stream becomes one JSON object of its texts, whichever dialect they are in, each by the name that it has there, with
the number of its choice or part before it if that is not the first: {"content": "Hello"}.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.sse import EventReader

MAX_LOGGED: Final = 256 * 1024
"""Bytes of a prompt or an answer, about; the log keeps 64 Ki characters of each."""
_MAX_NAME: Final = 256
_FRAMING: Final = frozenset(("id", "index", "role", "signature", "type", "obfuscation"))
"""Texts that nobody says."""


class Transcript:
    """Of one exchange."""

    __slots__ = ("_reader", "_size", "_texts", "_whole")

    def __init__(self) -> None:
        self._whole = b""
        self._reader: EventReader | None = EventReader()
        """None: what comes is of no use any more."""
        self._texts: dict[str, list[str]] = {}
        self._size: int = 0

    def whole(self, body: bytes) -> None:
        """All of an answer."""
        self._whole = body

    def add(self, data: bytes) -> None:
        """Bytes of a stream, cut anywhere."""
        reader = self._reader
        if reader is None:
            return
        try:
            for event in reader.feed(data):
                self._hear(event.data)
        except (ValueError, RecursionError):  # an event that is too long, or nested too deep
            self._reader = None
        if self._size >= MAX_LOGGED:
            self._reader = None

    def text(self) -> bytes:
        """What there is of it; empty if there is nothing."""
        if not self._texts:
            return self._whole[:MAX_LOGGED]
        return orjson.dumps({name: "".join(pieces) for name, pieces in self._texts.items()})

    def _hear(self, data: bytes) -> None:
        if data == b"[DONE]":
            return
        try:
            said: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if not isinstance(said, dict):
            return
        choices = said.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._take("", choice.get("index"), choice.get("delta"))
            return
        number = said.get("index", said.get("output_index"))
        delta = said.get("delta")
        if isinstance(delta, str):  # of responses, which say all once more when it is complete
            self._take(str(said.get("type")).removeprefix("response.").removesuffix(".delta"), number, delta)
        else:
            self._take("", number, delta)
            for name in ("content_block", "error"):
                self._take("", number, said.get(name))
            item = said.get("item")
            if said.get("type") == "response.output_item.added" and isinstance(item, dict):
                self._take("name", number, item.get("name"))

    def _take(self, name: str, number: object, value: object) -> None:
        """Texts in `value`, in the order in which they are said."""
        if isinstance(value, str):
            if value:
                if isinstance(number, int) and number:
                    name = f"{number}.{name}"
                if self._size >= MAX_LOGGED:
                    return
                pieces = self._texts.get(name)
                if pieces is None:
                    name = name[:_MAX_NAME]
                    pieces = self._texts.setdefault(name, [])
                    self._size += len(name)
                value = value[:MAX_LOGGED]
                pieces.append(value)
                self._size += len(value)
        elif isinstance(value, dict):
            for key, one in value.items():
                if key not in _FRAMING:
                    self._take(f"{name}.{key}" if name else key, number, one)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                told = one.get("index", place) if isinstance(one, dict) else place
                self._take(f"{name}.{told}", number, one)
