"""Parts of an answer that come mixed, told one after the other.

Chunks may speak of several calls of tools in turn, by their index; events may not. So one part is open, and is passed
on as it comes; what comes of another meanwhile waits. A text is over when something else begins, a call when its
arguments are a whole JSON object; those without that mark wait until all is over.
"""

from __future__ import annotations

import orjson

from edgeq.llm.message import DELTA, PART_END, PART_START, TOOL_USE, Event


class OpenPart:
    """A part that has begun and is not known to be over."""

    __slots__ = ("arguments", "id", "kind", "name", "waiting")

    def __init__(self, kind: int, call_id: str = "", name: str = "") -> None:
        self.kind: int = kind
        self.id: str = call_id
        self.name: str = name
        self.arguments: list[str] = []
        """TOOL_USE: all that has come."""
        self.waiting: list[str] = []
        """What has not been passed on."""

    def is_over(self) -> bool:
        """Nothing more of it can come, given that something else has."""
        if self.kind != TOOL_USE:
            return True
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            orjson.loads("".join(self.arguments))
        except orjson.JSONDecodeError:
            return False
        return True


class Sequence:
    """The parts of one stream. What is told goes to `events`."""

    __slots__ = ("_index", "_parts")

    def __init__(self) -> None:
        self._parts: list[OpenPart] = []
        """The first is open and passed on, the rest wait."""
        self._index: int = -1
        """Of the open part, or the last one."""

    def open(self, part: OpenPart, events: list[Event]) -> None:
        """A part begins: at once if the one before is over, otherwise in its turn."""
        self._parts.append(part)
        if len(self._parts) == 1:
            self._start_first(events)
        else:
            self._go_on(events)

    def add(self, part: OpenPart, text: str, events: list[Event]) -> None:
        """More of a part that was opened."""
        if part.kind == TOOL_USE:
            part.arguments.append(text)
        if part is not self._parts[0]:
            part.waiting.append(text)
            return
        events.append(Event(DELTA, self._index, part.kind, text))
        if len(self._parts) > 1:
            self._go_on(events)

    def add_text(self, kind: int, text: str, events: list[Event]) -> None:
        """More text of this kind: of the last part, or of a new one if that is another."""
        part = self._parts[-1] if self._parts else None
        if part is None or part.kind != kind:
            part = OpenPart(kind)
            self.open(part, events)
        self.add(part, text, events)

    def close(self, events: list[Event]) -> None:
        """All parts are over."""
        while self._parts:
            self._close_first(events)
            if self._parts:
                self._start_first(events)

    def _go_on(self, events: list[Event]) -> None:
        """Close what is over, and open what has waited for it."""
        while len(self._parts) > 1 and self._parts[0].is_over():
            self._close_first(events)
            self._start_first(events)

    def _start_first(self, events: list[Event]) -> None:
        part = self._parts[0]
        self._index += 1
        start = Event(PART_START, self._index, part.kind)
        start.id = part.id
        start.name = part.name
        events.append(start)
        if part.waiting:
            events.append(Event(DELTA, self._index, part.kind, "".join(part.waiting)))
            part.waiting = []

    def _close_first(self, events: list[Event]) -> None:
        part = self._parts.pop(0)
        events.append(Event(PART_END, self._index, part.kind))
