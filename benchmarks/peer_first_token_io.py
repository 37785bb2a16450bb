"""Clients in open loop: how long until the first token of a stream, from the instant at which it was due.

    python -m benchmarks.peer_first_token_io PORT REQUEST-FILE RATE SECONDS

RATE requests a second arrive at random (Poisson) and take a kept connection that is free, or a new one. Prints one line
of JSON: answers, errors, seconds, and of the times to the first event p50_ms, p99_ms, max_ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.timer_io import Timer

EVENT = b"data: "
LAST_CHUNK = b"0\r\n\r\n"
WARM_UP_S = 0.3
"""Connections are opened in this time; it is not counted."""


class Load:
    """What all clients share."""

    def __init__(self, request: bytes, port: int) -> None:
        self.request = request
        self.port = port
        self.free: deque[Client] = deque()
        self.times_s: list[float] = []
        self.errors = 0
        self.open = 0
        self.begins = 0.0
        self.idle = asyncio.Event()

    def ended(self) -> None:
        """One less is open."""
        self.open -= 1
        if not self.open:
            self.idle.set()

    async def send(self, due: float) -> None:
        """One request that was due at `due`."""
        self.open += 1
        self.idle.clear()
        if self.free:
            self.free.popleft().ask(due)
            return
        try:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
        except OSError:
            self.errors += 1
            self.ended()
            return
        client.ask(due)


class Client(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_due", "_load", "_seen", "_tail", "_transport")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due = 0.0
        self._seen = False
        self._tail = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, due: float) -> None:
        """Send a request."""
        if self._transport is None or self._transport.is_closing():
            self._load.errors += 1
            self._load.ended()
            return
        self._due = due
        self._seen = False
        self._tail = b""
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        load = self._load
        if not self._seen and EVENT in data:
            self._seen = True
            if self._due >= load.begins:
                load.times_s.append(time.monotonic() - self._due)
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._seen and self._tail == LAST_CHUNK:
            self._due = 0.0
            load.free.append(self)
            load.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._due:
            self._due = 0.0
            self._load.errors += 1
            self._load.ended()


async def run(port: int, request: bytes, rate: float, seconds: float) -> None:
    load = Load(request, port)
    started = time.monotonic()
    load.begins = started + WARM_UP_S
    chance = random.Random(7)
    due = started
    tasks = set[asyncio.Task[None]]()
    # The loop counts in milliseconds: with its own timers all who are due within one would come at once.
    timer = Timer()
    arrives = asyncio.Event()

    def wake() -> None:
        timer.clear()
        arrives.set()

    asyncio.get_running_loop().add_reader(timer.fd, wake)
    while due < started + WARM_UP_S + seconds:
        due += chance.expovariate(rate)
        if due > time.monotonic():
            arrives.clear()
            timer.set(due)
            await arrives.wait()
        task = asyncio.create_task(load.send(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(load.idle.wait(), 30)
    times = sorted(load.times_s) or [0.0]
    result = {
        "answers": len(load.times_s),
        "errors": load.errors + load.open,
        "seconds": time.monotonic() - load.begins,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "max_ms": times[-1] * 1000,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    gc.disable()  # what it stops for would be counted as time of the gateway's
    uvloop.run(run(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), float(sys.argv[3]), float(sys.argv[4])))
