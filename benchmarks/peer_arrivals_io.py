"""The clients of the benchmark of overload: open loop, a deadline each, honest about their own lag.

    python -m benchmarks.peer_arrivals_io JSON

JSON: port; seed; deadline_s; streams: [{"path", "fields": "x-api-key: a\\r\\n", "rates": [[seconds, per_s], ...]}];
changes: [{"at_s", "port", "path"}], requests that change an upstream at an instant.

A request takes a kept connection, or opens one when none is idle. Latency and deadline count from the instant at which
the request should have been sent; at the deadline the client closes. A kept connection that closes before the first
byte of an answer is replaced by a new one once, as every HTTP client does.
Prints one line of JSON: start (monotonic), records (the fields of `arrivals.Record`), refusals (texts by index),
lag_p99_s and lag_max_s (how late requests were sent), connections opened.
One epoll loop on plain sockets: an event loop's connections would cost more than the gateway spends on them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import select
import socket
import sys
import time
from collections import deque
from typing import Any

from benchmarks.arrivals import Outcome, refusal, schedule
from benchmarks.processes_io import prefer
from benchmarks.timer_io import Timer

CLIENTS = 16
"""Addresses of clients. A gateway may keep connections whose client has closed (HAProxy does, until the upstream has
answered), and their ports stay taken: one address has too few, and the search for a free one stopped the clients."""
IP_BIND_ADDRESS_NO_PORT = 24
"""From linux/in.h: the port is chosen by connect(2), which knows the destination."""
READABLE = select.EPOLLIN | select.EPOLLRDHUP


class Connection:
    """A client's connection; `request` is the index of the request under way, or -1."""

    __slots__ = ("answer", "kept", "open", "request", "sent", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.request = -1
        self.answer = b""
        self.sent = False
        self.kept = False
        self.open = True


class Load:
    """All requests of one run: scheduled, under way, done."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._address = ("127.0.0.1", int(plan["port"]))
        self._deadline_s = float(plan["deadline_s"])
        self._schedule = schedule([each["rates"] for each in plan["streams"]], plan["seed"])
        self._requests = [
            f"GET {each['path']} HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n{each['fields']}\r\n".encode()
            for each in plan["streams"]
        ]
        self._changes = deque(sorted((each["at_s"], each["port"], each["path"]) for each in plan["changes"]))
        self._next = 0
        """Index of the next request to send."""
        self._oldest = 0
        """Index of the first one that has no outcome. Deadlines have the order of the schedule."""
        self._under_way: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._by_descriptor: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._timer = Timer()
        self._start = 0.0
        self._lags_s: list[float] = []
        self._records: list[tuple[float, int, int, float, int, bool] | None] = [None] * len(self._schedule)
        self._refusals: dict[str, int] = {"": 0}
        self._opened = 0
        self._held: list[socket.socket] = []

    def run(self) -> dict[str, Any]:
        """Send everything, wait for the last answer or deadline."""
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._start = time.monotonic() + 0.05
        self._timer.set(self._start)
        while self._next < len(self._schedule) or self._under_way:
            for descriptor, _events in self._epoll.poll():
                if descriptor == self._timer.fd:
                    self._timer.clear()
                elif (connection := self._by_descriptor.get(descriptor)) is not None:
                    self._ready(connection)
            self._due()
        lags = sorted(self._lags_s) or [0.0]
        return {
            "start": self._start,
            "records": self._records,
            "refusals": list(self._refusals),
            "lag_p99_s": lags[len(lags) * 99 // 100],
            "lag_max_s": lags[-1],
            "opened": self._opened,
        }

    def _due(self) -> None:
        """Whatever should have happened by now: changes, deadlines, requests; then set the timer for what is next."""
        now = time.monotonic() - self._start
        while self._changes and self._changes[0][0] <= now:
            _, port, path = self._changes.popleft()
            changing = socket.create_connection(("127.0.0.1", port))
            changing.sendall(f"GET {path} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode())
            self._held.append(changing)
        while self._oldest < self._next:
            if self._records[self._oldest] is None:
                if self._schedule[self._oldest][0] + self._deadline_s > now:
                    break
                self._close(self._under_way[self._oldest])
                self._done(self._oldest, Outcome.LATE)
            self._oldest += 1
        while self._next < len(self._schedule) and self._schedule[self._next][0] <= now:
            self._lags_s.append(time.monotonic() - self._start - self._schedule[self._next][0])
            self._begin(self._next, self._kept() or self._connect())
            self._next += 1
        following: list[float] = []
        if self._oldest < self._next:
            following.append(self._schedule[self._oldest][0] + self._deadline_s)
        if self._next < len(self._schedule):
            following.append(self._schedule[self._next][0])
        if self._changes:
            following.append(self._changes[0][0])
        self._timer.set(self._start + min(following) if following else None)

    def _kept(self) -> Connection | None:
        """The connection that became idle last, if it is still open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    def _begin(self, index: int, connection: Connection) -> None:
        connection.request = index
        connection.answer = b""
        connection.sent = False
        self._under_way[index] = connection
        self._write(connection)

    def _connect(self) -> Connection:
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        opened.bind((f"127.0.1.{1 + self._opened % CLIENTS}", 0))
        opened.connect_ex(self._address)
        connection = Connection(opened)
        self._opened += 1
        self._by_descriptor[opened.fileno()] = connection
        # Writable is only reported until the request is sent.
        self._epoll.register(opened.fileno(), READABLE)
        return connection

    def _write(self, connection: Connection) -> bool:
        """Send the request at once where the connection is established, as it is on loopback; else when it is."""
        stream = self._schedule[connection.request][1]
        try:
            connection.socket.send(self._requests[stream])
        except BlockingIOError:
            self._epoll.modify(connection.socket.fileno(), READABLE | select.EPOLLOUT)
        except OSError:
            self._lost(connection)
        else:
            connection.sent = True
        return connection.sent

    def _ready(self, connection: Connection) -> None:
        if connection.request >= 0 and not connection.sent:
            if self._write(connection):
                self._epoll.modify(connection.socket.fileno(), READABLE)
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection.request < 0:
            self._lost(connection)
            return
        connection.answer += data
        self._read(connection)

    def _read(self, connection: Connection) -> None:
        """Look whether the answer is complete."""
        head, found, body = connection.answer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = head.lower()
        _, found, length = fields.partition(b"\r\ncontent-length:")
        if found:
            complete = len(body) >= int(length.split(b"\r\n", 1)[0])
        else:
            complete = body.endswith(b"0\r\n\r\n")  # chunked; a body that ends with its connection is not expected
        if not complete:
            return
        index, connection.request = connection.request, -1
        if b"\r\nconnection: close" in fields or fields.startswith(b"http/1.0"):
            self._close(connection)
        else:
            connection.kept = True
            self._idle.append(connection)
        if head.split(b" ", 2)[1] == b"200":
            self._done(index, Outcome.GOOD)
        else:
            said, explained = refusal(head, body)
            self._done(index, Outcome.REFUSED, self._refusals.setdefault(said, len(self._refusals)), explained)

    def _lost(self, connection: Connection) -> None:
        """The gateway closed it."""
        self._close(connection)
        index = connection.request
        if index < 0:
            return
        if connection.kept and not connection.answer:
            self._begin(index, self._connect())
        else:
            self._done(index, Outcome.BROKEN)

    def _close(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            del self._by_descriptor[connection.socket.fileno()]
            connection.socket.close()

    def _done(self, index: int, outcome: Outcome, refusal_index: int = 0, explained: bool = False) -> None:
        del self._under_way[index]
        at, stream = self._schedule[index]
        latency = time.monotonic() - self._start - at
        if outcome is Outcome.GOOD and latency > self._deadline_s:
            outcome = Outcome.LATE
        self._records[index] = (at, stream, outcome.value, latency, refusal_index, explained)


if __name__ == "__main__":
    prefer("self")
    load = Load(json.loads(sys.argv[1]))
    # Nothing here is cyclic, and a collection of so many records would be seen as lag.
    gc.disable()
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(load.run()))
