"""Clients of a gateway for models: many at once, that come back, read slowly, or leave in the middle.

    python -m benchmarks.peer_llm_io PLAN-FILE

The file is JSON: port; seed; until_s, after which nobody asks again; linger_s, how long what is open then may take; and
groups of clients: {"name", "requests": whole requests as texts, of which one is drawn each time, "arrivals": [s, ...],
one client each, with a connection of its own, "again": whether it asks again when it has been answered, "patience_s":
how long at most it then waits where a refusal says for how long, "leave_s": [s, ...], how long after each arrival it
leaves (empty: it stays), "slow": whether it reads a few KiB a second}.

Prints one line of JSON: start (monotonic); records, [group, asked at, first event at, ended at (all in seconds since
start, -1 for never), status (0: the connection broke), tokens by its usage (-1: not told), wait that a refusal asks for
in ms (-1: none), index of what was said]; said; events, by group how late events were that tell when they were written
(peer_stamps_io.py).
"""

from __future__ import annotations

import array
import asyncio
import json
import random
import re
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.arrivals import refusal
from benchmarks.overload_report import quantile

STAMP = re.compile(rb'"content":"([0-9]{12,})"')
TOTAL = re.compile(rb'"total_tokens":\s*([0-9]+)')
LAST_CHUNK = b"0\r\n\r\n"
TAIL_BYTES = 4096
"""Of an answer, in which its usage stands."""
SLOW_BUFFER_BYTES, SLOW_EVERY_S = 4096, 0.5
RESET = struct.pack("ii", 1, 0)
RETRY_S = 0.05
"""Until a client whose connection broke comes back."""
REFUSED, LEFT, UNFINISHED = -1, -2, -3
"""In place of a status: nobody listened; the client left; it did not end."""


class Group:
    """Clients of one kind."""

    def __init__(self, index: int, plan: dict[str, Any]) -> None:
        self.index = index
        self.name = str(plan["name"])
        self.requests = [text.encode() for text in plan["requests"]]
        self.arrivals: list[float] = plan["arrivals"]
        self.again = bool(plan.get("again", False))
        self.patience_s = float(plan.get("patience_s", 0.0))
        self.leaves: list[float] = plan.get("leave_s", [])
        self.slow = bool(plan.get("slow", False))
        self.late_s = array.array("d")


class Load:
    """All of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.port = int(plan["port"])
        self.until_s = float(plan["until_s"])
        self.linger_s = float(plan["linger_s"])
        self.chance = random.Random(plan["seed"])
        self.groups = [Group(index, each) for index, each in enumerate(plan["groups"])]
        self.records: list[tuple[int, float, float, float, int, int, int, int]] = []
        self.said: dict[str, int] = {"": 0}
        self.open: set[Client] = set()
        self.idle = asyncio.Event()
        self.start = 0.0
        self._are_all_here = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> dict[str, Any]:
        """Let everybody arrive, wait for the last answer, or until time is over."""
        arrivals = [
            (at, group, group.leaves[number] if group.leaves else 0.0)
            for group in self.groups
            for number, at in enumerate(group.arrivals)
        ]
        arrivals.sort(key=lambda each: each[0])
        self.start = time.monotonic() + 0.05
        for at, group, leave_s in arrivals:
            pause_s = self.start + at - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            client = Client(self, group, leave_s)
            self.open.add(client)
            client.ask(at)
        self._are_all_here = True
        if not self.open:
            self.idle.set()
        left_s = max(0.0, self.start + self.until_s - time.monotonic()) + self.linger_s
        try:
            await asyncio.wait_for(self.idle.wait(), left_s)
        except TimeoutError:
            for client in list(self.open):
                client.done(UNFINISHED)
                client.stop()
        await asyncio.sleep(0)
        events = {group.name: late(group.late_s) for group in self.groups if group.late_s}
        return {"start": self.start, "records": self.records, "said": list(self.said), "events": events}

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def connect(self, client: Client) -> None:
        """Give it a connection; it asks when it is there."""
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._tasks.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if client.group.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            await loop.create_connection(lambda: client, sock=sock)
        except OSError:
            sock.close()
            client.done(REFUSED)

    def gone(self, client: Client) -> None:
        """It does not ask again."""
        self.open.discard(client)
        if self._are_all_here and not self.open:
            self.idle.set()


class Client(asyncio.Protocol):
    """One client, with one request at a time."""

    __slots__ = (
        "_at",
        "_first",
        "_handle",
        "_head",
        "_leave_s",
        "_length",
        "_load",
        "_seen",
        "_status",
        "_stopped",
        "_tail",
        "_transport",
        "_waits",
        "group",
    )

    def __init__(self, load: Load, group: Group, leave_s: float) -> None:
        self._load = load
        self.group = group
        self._leave_s = leave_s
        self._transport: asyncio.Transport | None = None
        self._handle: asyncio.TimerHandle | None = None
        """Of what it does next by itself: leave, read on, ask again."""
        self._stopped = False
        self._waits = False
        """For an answer."""
        self._begin(0.0)

    def _begin(self, at: float) -> None:
        self._at = at
        self._first = -1.0
        self._head = b""
        self._status = 0
        self._length = -1
        """Of the body; -1: chunked."""
        self._seen = 0
        self._tail = b""

    def ask(self, at: float) -> None:
        """Send a request that was due at `at`."""
        self._begin(at)
        self._waits = True
        if self._leave_s:
            self._handle = asyncio.get_running_loop().call_later(self._leave_s, self.leave)
        if self._transport is None or self._transport.is_closing():
            self._load.connect(self)
        else:
            self._write()

    def _write(self) -> None:
        assert self._transport is not None
        self._transport.write(self._load.chance.choice(self.group.requests))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._stopped:
            self._transport.abort()
        elif self._waits:
            self._write()

    # -- what comes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._waits:
            return
        if self.group.slow and self._transport is not None:
            self._transport.pause_reading()
            self._handle = asyncio.get_running_loop().call_later(SLOW_EVERY_S, self._read_on)
        if not self._status:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._head = head
            fields = head.lower()
            self._status = int(head[9:12])
            _, found, length = fields.partition(b"\r\ncontent-length:")
            if found:
                self._length = int(length.split(b"\r\n", 1)[0])
        self._seen += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._status == 200:
            now_ns = time.monotonic_ns()
            if self._first < 0 and (b"data: " in data or self._length >= 0):
                self._first = now_ns / 1e9 - self._load.start
            if not self.group.slow:
                for stamp in STAMP.findall(data):
                    self.group.late_s.append((now_ns - int(stamp)) / 1e9)
        if self._seen >= self._length if self._length >= 0 else self._tail.endswith(LAST_CHUNK):
            self.done(self._status)

    def _read_on(self) -> None:
        self._handle = None
        if self._transport is not None and not self._stopped:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waits:
            self.done(0)

    # -- how it ends --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Close the connection, whatever is under way: with a reset, or without."""
        if not self._waits:
            return
        transport = self._transport
        if transport is not None and self._load.chance.random() < 0.5:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.done(LEFT)
        self.stop()

    def stop(self) -> None:
        """It is not there any more."""
        self._stopped = True
        self._waits = False
        if self._handle is not None:
            self._handle.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._load.gone(self)

    def done(self, status: int) -> None:
        """Its request has ended so; see what it does next."""
        if not self._waits:
            return
        self._waits = False
        load, group = self._load, self.group
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        wait_ms, said = -1, ""
        if status >= 300:
            found = re.search(rb"(?i)\r\nretry-after-ms:\s*([0-9]+)", self._head)
            wait_ms = int(found.group(1)) if found else -1
            said, _ = refusal(self._head, self._tail)
        used = TOTAL.findall(self._tail) if status == 200 else ()
        now = load.now()
        load.records.append(
            (
                group.index,
                round(self._at, 6),
                round(self._first, 6),
                round(now, 6),
                status,
                int(used[-1]) if used else -1,
                wait_ms,
                load.said.setdefault(said, len(load.said)),
            )
        )
        if not group.again or status in (LEFT, UNFINISHED) or now >= load.until_s:
            self.stop()
            return
        wait_s = min(group.patience_s, wait_ms / 1000) if wait_ms >= 0 else 0.0 if status == 200 else RETRY_S
        self._handle = asyncio.get_running_loop().call_later(wait_s, self._again)

    def _again(self) -> None:
        self._handle = None
        now = self._load.now()
        if now >= self._load.until_s:
            self.stop()
        else:
            self.ask(now)


def late(seconds: array.array[float]) -> dict[str, float]:
    """How many, and their quantiles."""
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "p50_ms": quantile(ordered, 0.5) * 1000,
        "p99_ms": quantile(ordered, 0.99) * 1000,
        "max_ms": ordered[-1] * 1000,
    }


if __name__ == "__main__":
    answer = uvloop.run(Load(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run())
    print(json.dumps(answer))
