"""The clients of event streams: a fixed number of whole answers on a fixed number of kept connections.

    python -m benchmarks.peer_streams_io PORT CONNECTIONS ANSWERS EVENTS GAP_MS [REQUEST-FILE MARK]

Each connection asks for ANSWERS event streams one after another, with the bytes of REQUEST-FILE where it is given;
MARK stands once in each event of those answers, of which gateways may make a few more than EVENTS. Prints one line of
JSON: answers, errors, reads that brought more than one event (a proxy that holds chunks back shows here), seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.peer_upstream_io import EVENT_MARK
from benchmarks.rows import REQUEST_HEADERS

SPARE_EVENTS = 3
"""Of a gateway that tells the beginning or the end of an answer in events of their own."""
LAST_CHUNK = b"0\r\n\r\n"
REQUEST = (
    "GET /events HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in REQUEST_HEADERS) + "\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked, and how an answer is known to be whole."""

    request: bytes
    mark: bytes
    """Once in each event."""
    events: range
    """How many an answer may have."""


class Totals:
    """What all streams have seen."""

    __slots__ = ("answers", "errors", "events", "merged_reads", "open", "reads")

    def __init__(self) -> None:
        self.answers = self.errors = self.events = self.merged_reads = self.open = self.reads = 0


class Stream(asyncio.Protocol):
    """One connection that reads event streams."""

    __slots__ = ("_answers_left", "_ask", "_done", "_events", "_tail", "_totals", "_transport")

    def __init__(self, totals: Totals, ask: Ask, answers: int, done: asyncio.Event) -> None:
        self._totals = totals
        self._ask = ask
        self._answers_left = answers
        self._events = 0
        self._tail = b""
        self._done = done
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._totals.open += 1
        self._transport.write(self._ask.request)

    def data_received(self, data: bytes) -> None:
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            assert self._transport is not None
            self._transport.close()  # the answers that it does not get count as errors
            return
        found = data.count(self._ask.mark)
        self._events += found
        self._totals.reads += 1
        if found > 1:
            self._totals.merged_reads += 1
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        # A head of its own may end like the last chunk (with a request id that ends in 0), but it has no event.
        if self._events and self._tail == LAST_CHUNK:
            self._finish()

    def _finish(self) -> None:
        assert self._transport is not None
        self._totals.answers += 1
        self._totals.events += self._events
        if self._events not in self._ask.events:
            self._totals.errors += 1
        self._events = 0
        self._tail = b""
        self._answers_left -= 1
        if self._answers_left:
            self._transport.write(self._ask.request)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._totals.errors += self._answers_left
        self._totals.open -= 1
        if self._totals.open == 0:
            self._done.set()


async def run(port: int, connections: int, answers: int, ask: Ask, gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    totals = Totals()
    done = asyncio.Event()
    started = time.monotonic()
    for index in range(connections):
        # Spread over the gap, so that chunks of all streams arrive as an even flow and not in one burst per gap.
        await asyncio.sleep(started + index * gap_s / connections - time.monotonic())
        await loop.create_connection(lambda: Stream(totals, ask, answers, done), "127.0.0.1", port)
    await asyncio.wait_for(done.wait(), 60 + 3 * answers * ask.events.start * gap_s)
    result = {name: getattr(totals, name) for name in ("answers", "errors", "events", "reads", "merged_reads")}
    print(json.dumps({**result, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    port, connections, answers, events = map(int, sys.argv[1:5])
    wanted = Ask(REQUEST, EVENT_MARK, range(events, events + 1))
    if len(sys.argv) > 6:
        wanted = Ask(Path(sys.argv[6]).read_bytes(), sys.argv[7].encode(), range(events, events + 1 + SPARE_EVENTS))
    uvloop.run(run(port, connections, answers, wanted, float(sys.argv[5]) / 1000))
