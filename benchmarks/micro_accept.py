"""What a new connection costs before its first byte of HTTP: own accept against uvloop's create_server.

Usage: python -m benchmarks.micro_accept [--connections 3000] [--rounds 15]

The server accepts, makes a transport with a protocol that writes one byte, and sees the client close. Measured is the
CPU time of the server's process (user and system, so the kernel's share is in it) for each connection; the client is
another process. The ways alternate within each round, and medians are printed: on a small shared machine single numbers
lie.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import platform
import selectors
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from edgeq.config.schema import Listener
from edgeq.listener.accept_io import Acceptor
from edgeq.listener.peer import Peer
from edgeq.observe.refusals import Refusals

CONCURRENT = 32
Way = Callable[["Bench"], Awaitable[None]]


class Greeter(asyncio.Protocol):
    """Writes one byte and waits for the client to leave."""

    __slots__ = ("bench",)

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One byte, so that the client knows that it was served."""
        transport.write(b"x")  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        """Count."""
        self.bench.one_is_done()


class PeerGreeter(Greeter):
    """The same behind edgeq's acceptor."""

    __slots__ = ("acceptor", "peer")

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and count."""
        self.acceptor.released(self.peer)
        self.bench.one_is_done()

    acceptor: Acceptor
    peer: Peer


class OpenGate:
    """Admits everybody; counting is measured elsewhere."""

    def try_open(self, listener: str, client_host: str) -> str | None:
        """Come in."""
        return None

    def close(self, listener: str, client_host: str) -> None:
        """Goodbye."""


class NoLog:
    """Nothing is logged in a good case."""

    def debug(self, event: str, **fields: Any) -> None:
        """Nothing."""

    info = warning = error = debug


class Bench:
    """The listening socket, the client, and the count of one run."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.loop = asyncio.get_running_loop()
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(1024)
        self.sock.setblocking(False)
        self.left = 0
        self.finished = self.loop.create_future()
        self.orders, theirs = multiprocessing.Pipe()
        self.client = multiprocessing.Process(target=client, args=(self.sock.getsockname()[1], connections, theirs))
        self.client.start()

    def greeter(self) -> Greeter:
        """A protocol."""
        return Greeter(self)

    def one_is_done(self) -> None:
        """A connection has ended."""
        self.left -= 1
        if self.left == 0:
            self.finished.set_result(None)

    async def measure(self, way: Way) -> float:
        """CPU microseconds for each connection."""
        self.left = self.connections
        self.finished = self.loop.create_future()
        start = time.process_time()
        await way(self)
        return (time.process_time() - start) / self.connections * 1e6

    async def serve(self) -> None:
        """Let the client go, and wait until all its connections have ended."""
        self.orders.send(True)
        await self.finished

    async def serve_by_reader(self, on_readable: Callable[[], None]) -> None:
        """The same with our own accept."""
        self.loop.add_reader(self.sock.fileno(), on_readable)
        await self.serve()
        self.loop.remove_reader(self.sock.fileno())

    def close(self) -> None:
        """End the client."""
        self.orders.send(False)
        self.client.join()
        self.sock.close()


def client(port: int, connections: int, orders: Connection) -> None:
    """Open so many connections, a few at once, from many addresses (closed ones block their port for a minute)."""
    number = 0
    while orders.recv():
        selector = selectors.DefaultSelector()
        unopened = connections

        def open_one(selector: selectors.BaseSelector = selector) -> None:
            nonlocal number
            number += 1
            connection = socket.socket()
            connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            connection.bind((f"127.0.{number // 200 % 200}.{2 + number % 200}", 0))
            connection.connect(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_READ)

        for _ in range(min(CONCURRENT, unopened)):
            unopened -= 1
            open_one()
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                connection.recv(1)
                selector.unregister(connection)
                connection.close()
                if unopened:
                    unopened -= 1
                    open_one()
        selector.close()


async def create_server(bench: Bench) -> None:
    """uvloop accepts: no budget, no pause, no look at a connection before its transport."""
    server = await bench.loop.create_server(bench.greeter, sock=bench.sock.dup())
    await bench.serve()
    server.close()


async def own_task(bench: Bench) -> None:
    """add_reader, and a Task for connect_accepted_socket."""
    tasks = set()

    def on_readable() -> None:
        for _ in range(64):
            try:
                connection, _ = bench.sock.accept()
            except BlockingIOError:
                return
            task = bench.loop.create_task(bench.loop.connect_accepted_socket(bench.greeter, connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    await bench.serve_by_reader(on_readable)


async def own_callback(bench: Bench) -> None:
    """add_reader, the coroutine stepped by hand, its second step by the future's callback."""

    def on_readable() -> None:
        for _ in range(64):
            try:
                connection, _ = bench.sock.accept()
            except BlockingIOError:
                return
            opening = bench.loop.connect_accepted_socket(bench.greeter, connection)

            def collect(_: object, opening: Any = opening) -> None:
                with contextlib.suppress(StopIteration):
                    opening.send(None)

            opening.send(None).add_done_callback(collect)

    await bench.serve_by_reader(on_readable)


async def own_batch(bench: Bench) -> None:
    """The same with one callback for all second steps of a turn."""
    opened: list[Any] = []

    def collect() -> None:
        for opening in opened:
            with contextlib.suppress(StopIteration):
                opening.send(None)
        opened.clear()

    def on_readable() -> None:
        for _ in range(64):
            try:
                connection, _ = bench.sock.accept()
            except BlockingIOError:
                break
            opening = bench.loop.connect_accepted_socket(bench.greeter, connection)
            opening.send(None)
            opened.append(opening)
        if opened:
            bench.loop.call_soon(collect)

    await bench.serve_by_reader(on_readable)


async def acceptor(bench: Bench) -> None:
    """edgeq's Acceptor as it is: budget, gate, Peer, backlog, bare descriptors, stream handles."""

    def make(peer: Peer) -> PeerGreeter:
        greeter = PeerGreeter(bench)
        greeter.peer = peer
        greeter.acceptor = accepting
        return greeter

    config = Listener(address="127.0.0.1:0")
    sock = bench.sock.dup()
    accepting = Acceptor(bench.loop, config, sock, make, OpenGate(), lambda *_: b"", None, NoLog(), Refusals())
    accepting.start()
    await bench.serve()
    accepting.close()


WAYS: dict[str, Way] = {
    "create_server(sock=dup)": create_server,
    "add_reader, Task": own_task,
    "add_reader, stepped, future's callback": own_callback,
    "add_reader, stepped, one callback a turn": own_batch,
    "edgeq Acceptor": acceptor,
}


async def main(connections: int, rounds: int) -> None:
    """Alternate, and print medians."""
    bench = Bench(connections)
    costs: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            cost = await bench.measure(way)
            if number:  # the first round warms up
                costs[name].append(cost)
    bench.close()
    print(
        f"{time.strftime('%Y-%m-%d')}  {platform.system()} {platform.release()}  {os.cpu_count()} CPUs  "
        f"Python {platform.python_version()}  uvloop {version('uvloop')}  "
        f"{rounds} rounds of {connections} connections, {CONCURRENT} at once"
    )
    print(f"{'CPU microseconds per connection':42} median  ratio   min   max")
    base = statistics.median(costs["create_server(sock=dup)"])
    for name, values in costs.items():
        median = statistics.median(values)
        print(f"{name:42} {median:6.1f} {median / base:6.2f} {min(values):5.1f} {max(values):5.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(options.connections, options.rounds))
