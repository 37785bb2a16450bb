"""Upstreams with slots (`slots.py`), one per port, for the benchmark of overload.

    python -m benchmarks.peer_slots_io '[{"port": 9000, "slots": 16, "mean_s": 0.02, "shape": "constant"}, ...]'

Any path takes a slot and is answered with 200 and a short body. Exceptions:
  /hang      takes no slot and is never answered (a handler that waits for something else);
  /_set?slots=8&mean_s=0.2&failing=1   changes this upstream as it runs; failing: answers 500 at once, without a slot;
  /_status   JSON: arrivals by tenths of a second of the monotonic clock, how many were worked on, how many wait,
             and how late answers were sent because this process did not get the processor.
Only a gateway and the harness talk to it, so requests are read without suspicion; they have no bodies.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from functools import partial
from typing import cast
from urllib.parse import parse_qsl

import uvloop

from benchmarks.peer_upstream_io import answer
from benchmarks.slots import BUCKETS_PER_S, Service, Slots, service_time
from benchmarks.timer_io import Timer

OK = answer(b"x" * 200)
FAILED = answer(b"").replace(b"200 OK", b"500 Internal Server Error", 1)


class Upstream:
    """One port: its service, its slots, what it has seen."""

    __slots__ = ("_chance", "_timer", "arrived", "failing", "finished", "lags_s", "service", "slots")

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.failing = False
        self.arrived: dict[int, int] = {}
        self.finished = 0
        self.lags_s: list[float] = []
        self._chance = random.Random(seed)
        self.slots: Slots[Connection] = Slots(service.slots, lambda: service_time(self.service, self._chance))
        self._timer = Timer()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._timer.fd, self._due)

    def work(self, connection: Connection) -> None:
        """A request that takes a slot, or waits for one."""
        now = time.monotonic()
        bucket = int(now * BUCKETS_PER_S)
        self.arrived[bucket] = self.arrived.get(bucket, 0) + 1
        if self.failing:
            connection.send(FAILED)
            return
        self._finish(now)
        self.slots.arrive(connection, now)
        self._timer.set(self.slots.next_end)

    def change(self, settings: dict[str, str]) -> None:
        old = self.service
        slots, mean_s = int(settings.get("slots", old.slots)), float(settings.get("mean_s", old.mean_s))
        self.service = Service(slots, mean_s, old.shape)
        self.failing = settings.get("failing", "1" if self.failing else "0") == "1"
        now = time.monotonic()
        self._finish(now)
        self.slots.slots = slots
        self._finish(now)
        self._timer.set(self.slots.next_end)

    def status(self) -> bytes:
        lags = sorted(self.lags_s) or [0.0]
        found = {
            "arrived": self.arrived,
            "finished": self.finished,
            "waiting": self.slots.waiting,
            "lag_p99_s": lags[len(lags) * 99 // 100],
        }
        return json.dumps(found).encode()

    def _due(self) -> None:
        self._timer.clear()
        self._finish(time.monotonic())
        self._timer.set(self.slots.next_end)

    def _finish(self, now: float) -> None:
        for end, connection in self.slots.finished(now):
            self.finished += 1
            self.lags_s.append(now - end)
            connection.send(OK)


class Connection(asyncio.Protocol):
    """One connection of the gateway: one request at a time."""

    __slots__ = ("_close", "_head", "_transport", "_upstream")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._head = b""
        self._close = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        head, self._head = self._head, b""
        request = head.split(b"\r\n", 1)[0]
        target = request.split(b" ")[1]
        self._close = b"\r\nconnection: close" in head.lower() or request.endswith(b"HTTP/1.0")
        if target.endswith(b"/hang"):
            return
        if target.startswith(b"/_set?"):
            self._upstream.change(dict(parse_qsl(target.partition(b"?")[2].decode())))
            self.send(OK)
        elif target == b"/_status":
            self.send(answer(self._upstream.status()))
        else:
            self._upstream.work(self)

    def send(self, data: bytes) -> None:
        """Answer, if anybody still listens."""
        if self._transport is not None:
            self._transport.write(data)
            if self._close:
                self._transport.close()


async def serve(upstreams: list[tuple[int, Service]]) -> None:
    loop = asyncio.get_running_loop()
    for index, (port, service) in enumerate(upstreams):
        upstream = Upstream(service, seed=index)
        upstream.start(loop)
        await loop.create_server(partial(Connection, upstream), "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvloop.run(serve([(each["port"], Service(each["slots"], each["mean_s"], each["shape"])) for each in given]))
