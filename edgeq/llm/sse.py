"""Server-sent events, from bytes that are cut anywhere.

Source: WHATWG HTML, 9.2.6 (interpretation of an event stream): lines end with LF, CRLF or CR; one BOM at the very start
is skipped; a line that begins with a colon is a comment; several `data` lines are joined by LF; an event ends with an
empty line, and an event without `data` is none. `id` and `retry` are for browsers that connect again, and are skipped.

The usual event is one line `data: {...}`, perhaps after a line `event: name`; it is taken without a look at its lines.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""Of one event. A whole answer of a long response comes as one event in OpenAI's responses; nothing is longer."""

_LF: Final = 10
_CR: Final = 13
"""As numbers: see passing.py."""
_BOM: Final = b"\xef\xbb\xbf"

_D: Final = 100
"""With which nearly all events of OpenAI's and Gemini's begin."""
_SIGN_BEGINS: Final = (b":", b"event: ping", b"event:ping")
_SIGNS: Final = re.compile(rb'(?:(?::[^\r\n]*|event: ?ping|data: ?\{\s*"type"\s*:\s*"ping"[^\r\n]*)?(?:\r\n|\n|\r))+')


def is_sign_of_life(data: bytes) -> bool:
    """Whole comments, or Anthropic's pings, and nothing else: who sends them is there, and says nothing."""
    if not data or data[0] == _D:
        return False
    return data.startswith(_SIGN_BEGINS) and _SIGNS.fullmatch(data) is not None


class SseEvent:
    """One event. `event` is its name, empty if it has none."""

    __slots__ = ("data", "event")

    def __init__(self, event: bytes, data: bytes) -> None:
        self.event: bytes = event
        self.data: bytes = data


class EventReader:
    """One stream."""

    __slots__ = ("_after_cr", "_held", "_held_bytes", "_is_start", "_max_event_bytes")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes: int = max_event_bytes
        self._held: list[bytes] = []
        """Of an event that is not complete, in pieces, so that one that comes byte by byte is not copied each time."""
        self._held_bytes: int = 0
        self._after_cr: bool = False
        """The last byte was CR: an LF that follows belongs to it."""
        self._is_start: bool = True
        """What may be a BOM has not been passed."""

    def feed(self, data: bytes) -> list[SseEvent]:
        """More bytes. Returns: the events that are complete now.

        Raises: ValueError if one event is longer than `max_event_bytes`.
        """
        if self._after_cr or _CR in data:
            data = self._with_lf(data)
        if self._is_start:
            data = self._without_bom(data)
        if not data:
            return []
        if self._held:
            ends = b"\n\n" in data or (data.startswith(b"\n") and self._held[-1].endswith(b"\n"))
            if not ends:
                self._hold(data)
                return []
            self._held.append(data)
            data = b"".join(self._held)
            self._held = []
            self._held_bytes = 0
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        if rest:
            self._hold(rest)
        events: list[SseEvent] = []
        for block in blocks:
            event = _event(block)
            if event is not None:
                events.append(event)
        return events

    def rest(self) -> list[SseEvent]:
        """The stream has ended: what had come of an event that no empty line has ended.

        A browser ignores it; some providers leave out the last empty line, so the caller may look whether it is whole.
        """
        if not self._held:
            return []
        event = _event(b"".join(self._held))
        self._held = []
        self._held_bytes = 0
        return [] if event is None else [event]

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._max_event_bytes:
            raise ValueError(f"an event of more than {self._max_event_bytes} bytes")

    def _with_lf(self, data: bytes) -> bytes:
        """The same with LF at the end of each line."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, data: bytes) -> bytes:
        if self._held:
            data = self._held.pop() + data
            self._held_bytes = 0
        if len(data) < len(_BOM) and _BOM.startswith(data):
            if data:
                self._hold(data)
            return b""
        self._is_start = False
        return data.removeprefix(_BOM)


def _event(block: bytes) -> SseEvent | None:
    """Lines of one event, without the empty line at its end. Returns: None if it has no data."""
    if block.startswith(b"data: "):
        if _LF not in block:
            return SseEvent(b"", block[6:])
    elif block.startswith(b"event: "):
        end = block.find(b"\n")
        if block.startswith(b"data: ", end + 1) and block.find(b"\n", end + 1) < 0:
            return SseEvent(block[7:end], block[end + 7 :])
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return SseEvent(name, b"\n".join(data)) if data else None


def is_whole(data: bytes) -> bool:
    """Of an event that no empty line has ended: it was not cut."""
    if data == b"[DONE]":
        return True
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
