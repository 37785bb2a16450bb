"""Clients in open loop: how long until the first token of a stream, from the instant at which it was due.

    python -m benchmarks.peer_first_token_io PORT REQUEST-FILE RATE SECONDS

RATE requests a second arrive at random (Poisson) and take a kept connection that is free, or a new one. Prints one line
of JSON: answers, errors, seconds, and of the times to the first event p50_ms, p99_ms, max_ms.

It shares a processor with the provider, and whoever waits for that is counted as waiting for a token: so it has no
event loop, only epoll(7), and costs some 20 us a request (on asyncio's protocols it was 70).
"""

from __future__ import annotations

import gc
import json
import random
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.timer_io import Timer

EVENT = b"data: "
LENGTH = b"content-length:"
DONE = b"[DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
READ = 65536
WARM_UP_S = 0.3
"""Connections are opened in this time; it is not counted."""
PATIENCE_S = 30.0
"""For the last answers."""


class Client:
    """One connection."""

    __slots__ = ("due", "end", "socket", "tail")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.end = b""
        """How the answer ends; nothing yet: its first event has not come."""
        self.tail = b""

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due at `due`. Raises: OSError."""
        self.due = due
        self.end = self.tail = b""
        self.socket.sendall(request)

    def read(self) -> bool:
        """Read what has come. Returns: this is the first event. Raises: OSError."""
        data = self.socket.recv(READ)
        if not data:
            raise ConnectionResetError
        self.tail = (self.tail + data)[-READ:]
        if self.end or EVENT not in self.tail:
            return False
        head = self.tail[: self.tail.index(b"\r\n\r\n")].lower()
        self.end = DONE if LENGTH in head else DONE + b"\r\n" + LAST_CHUNK
        return True

    def is_done(self) -> bool:
        """Has all of the answer come?"""
        return self.end != b"" and self.tail.endswith(self.end)


class Load:
    """All clients."""

    def __init__(self, request: bytes, port: int) -> None:
        self.request = request
        self.port = port
        self.free: list[Client] = []
        self.busy: dict[int, Client] = {}
        self.times_s: list[float] = []
        self.errors = 0
        self.poll = select.epoll()
        self.timer = Timer()
        self.poll.register(self.timer.fd, select.EPOLLIN)

    def run(self, arrivals: Iterator[float], begins: float) -> None:
        """Send a request at each of these instants, and read what comes; times from `begins` on are kept."""
        due = next(arrivals, None)
        until = 0.0
        while due is not None or self.busy:
            now = time.monotonic()
            while due is not None and due <= now:
                self.send(due)
                due = next(arrivals, None)
                until = now + PATIENCE_S
            if due is not None:
                self.timer.set(due)
            elif now > until:
                break
            for fd, _events in self.poll.poll(1.0):
                if fd == self.timer.fd:
                    self.timer.clear()
                else:
                    self.receive(self.busy.get(fd), begins)
        self.errors += len(self.busy)

    def send(self, due: float) -> None:
        """One request."""
        try:
            if self.free:
                client = self.free.pop()
            else:
                client = Client(self.port)
                self.poll.register(client.socket.fileno(), select.EPOLLIN)
            client.ask(self.request, due)
        except OSError:
            self.errors += 1
            return
        self.busy[client.socket.fileno()] = client

    def receive(self, client: Client | None, begins: float) -> None:
        """Something has come for it."""
        if client is None:  # an idle one has been closed; or it will be found so when it is used
            return
        fd = client.socket.fileno()
        try:
            if client.read() and client.due >= begins:
                self.times_s.append(time.monotonic() - client.due)
            if client.is_done():
                del self.busy[fd]
                self.free.append(client)
        except OSError:
            del self.busy[fd]
            client.socket.close()
            self.errors += 1


def arrivals(rate: float, first: float, last: float) -> Iterator[float]:
    """Instants between two, at random."""
    chance = random.Random(7)
    at = first + chance.expovariate(rate)
    while at < last:
        yield at
        at += chance.expovariate(rate)


def main(port: int, request: bytes, rate: float, seconds: float) -> None:
    load = Load(request, port)
    started = time.monotonic()
    begins = started + WARM_UP_S
    load.run(arrivals(rate, started, begins + seconds), begins)
    times = sorted(load.times_s) or [0.0]
    result = {
        "answers": len(load.times_s),
        "errors": load.errors,
        "seconds": time.monotonic() - begins,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "max_ms": times[-1] * 1000,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    gc.disable()  # what it stops for would be counted as time of the gateway's
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), float(sys.argv[3]), float(sys.argv[4]))
