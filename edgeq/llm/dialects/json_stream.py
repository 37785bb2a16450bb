"""A provider's stream whose events are JSON objects: what its decoders have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from edgeq.llm.dialects.base import StreamDecoder, known_object
from edgeq.llm.dialects.errors import failure
from edgeq.llm.message import BROKEN
from edgeq.llm.sse import EventReader, is_whole

if TYPE_CHECKING:
    from edgeq.llm.message import Event
    from edgeq.llm.sse import SseEvent


class JsonStreamDecoder(StreamDecoder):
    """`StreamDecoder` that takes the events one by one."""

    def __init__(self) -> None:
        self._reader: EventReader = EventReader()
        self._is_over: bool = False
        """FINISH or FAILURE was told: nothing follows."""

    def feed(self, data: bytes) -> list[Event]:
        """See StreamDecoder. An event that is empty says nothing: some servers keep connections alive so."""
        events: list[Event] = []
        for event in self._reader.feed(data):
            if event.data and not self._is_over:
                self._try(event, events)
        return events

    def end(self) -> list[Event]:
        """See StreamDecoder. An answer that has told why it ended is whole, even without the dialect's last word; and
        some servers leave out the empty line after the last event: what is cut is no JSON."""
        events: list[Event] = []
        for event in self._reader.rest():
            if not self._is_over and is_whole(event.data):
                self._try(event, events)
        if not self._is_over:
            if self._has_reason():
                self._finish(events)
            else:
                self._fail(BROKEN, "the provider's stream ended before the answer did", events)
        return events

    def _try(self, event: SseEvent, events: list[Event]) -> None:
        try:
            self._take(event, events)
        except (TypeError, RecursionError) as error:
            # orjson reads four times as deep as it writes.
            if "ecursion" not in str(error):
                raise
            self._fail(BROKEN, "the provider's stream is broken: an event is nested too deeply", events)

    def _take(self, event: SseEvent, events: list[Event]) -> None:
        """One server-sent event: add what it tells to `events`."""
        raise NotImplementedError

    def _has_reason(self) -> bool:
        """The provider has told why the answer ended."""
        raise NotImplementedError

    def _finish(self, events: list[Event]) -> None:
        """Add what is left to tell, and FINISH."""
        raise NotImplementedError

    def _object(self, event: SseEvent, events: list[Event]) -> dict[str, Any] | None:
        """Its data. Returns: None if that is no object, which is the end."""
        try:
            said = known_object(orjson.loads(event.data))
        except orjson.JSONDecodeError:
            said = None
        if said is None:
            self._fail(BROKEN, "the provider's stream is broken: an event is no JSON object", events)
        return said

    def _fail(self, kind: str, message: str, events: list[Event]) -> None:
        self._is_over = True
        events.append(failure(kind, message))
