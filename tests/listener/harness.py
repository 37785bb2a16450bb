"""An acceptor with a trivial protocol on a real listening socket, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from edgeq.config.schema import Listener
from edgeq.listener.accept_io import Acceptor
from edgeq.listener.peer import Peer
from edgeq.listener.tls_io import TlsContexts
from edgeq.observe.refusals import Refusals

TIMEOUT_S = 20.0
"""For events that must happen: generous, because it is only reached by a failure."""


class LocalGate:
    """Counts in this process."""

    def __init__(self, max_connections: int = 0, max_per_client: int = 0) -> None:
        self.max_connections = max_connections
        self.max_per_client = max_per_client
        self.open: Counter[str] = Counter()

    def try_open(self, listener: str, client_host: str) -> str | None:
        """The client's limit is looked at first."""
        if 0 < self.max_per_client <= self.open[client_host]:
            return "conn_limit_client"
        if 0 < self.max_connections <= self.open.total():
            return "conn_limit_listener"
        self.open[client_host] += 1
        return None

    def close(self, listener: str, client_host: str) -> None:
        """A place is given back once."""
        assert self.open[client_host] > 0
        self.open[client_host] -= 1


class RecordingLog:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        """Keep."""
        self.events.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        """Keep."""
        self.events.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        """Keep."""
        self.events.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        """Keep."""
        self.events.append(("error", event, fields))

    def reasons(self) -> list[str]:
        """The reasons of all refusals."""
        return [fields["reason"] for _, event, fields in self.events if event == "connection_refused"]


class Echo(asyncio.Protocol):
    """Greets with "hello\\n", echoes, and says when it is gone."""

    def __init__(self, site: Site, peer: Peer) -> None:
        self.site = site
        self.peer = peer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are no asyncio.Transport
        self.site.connected.append(self)
        self.site.changed.set()
        assert self.transport is not None
        self.transport.write(b"hello\n")

    def data_received(self, data: bytes) -> None:
        """Echo."""
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.site.lost.append(self)
        self.site.acceptor.released(self.peer)
        self.site.changed.set()


class Site:
    """One acceptor and what happened at it."""

    def __init__(
        self,
        config: Listener,
        gate: LocalGate | None = None,
        tls: TlsContexts | None = None,
        bind: str = "127.0.0.1",
        lag_s: Callable[[], float] = lambda: 0.0,
        make: Callable[[Site, Peer], asyncio.BaseProtocol] = Echo,
        backlog: int = 512,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.gate = gate or LocalGate()
        self.log = RecordingLog()
        self.refusals = Refusals()
        self.connected: list[Echo] = []
        self.lost: list[Echo] = []
        self.changed = asyncio.Event()
        self.emptied = asyncio.Event()
        family = socket.AF_UNIX if "/" in bind else socket.AF_INET6 if ":" in bind else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.bind(bind if "/" in bind else (bind, 0))
        self.sock.listen(backlog)
        self.address: Any = self.sock.getsockname()
        self.family = family
        self.acceptor = Acceptor(
            loop,
            config,
            self.sock,
            lambda peer: make(self, peer),
            self.gate,
            refusal,
            tls,
            self.log,
            self.refusals,
            lag_s,
        )

    def client(self, host: str = "") -> Client:
        """A connection to it; the kernel completes it before anybody accepts."""
        connection = socket.socket(self.family)
        address = (host, self.address[1]) if host else self.address
        connection.connect(address)
        connection.setblocking(False)
        return Client(connection)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a connection event brings about."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def refused(self) -> dict[str, int]:
        """Counts by reason."""
        return {reason: sum(counts.values()) for reason, counts in self.refusals.snapshot().items()}


class Client:
    """A client socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.port = connection.getsockname()[1] if connection.family != socket.AF_UNIX else 0

    async def send(self, data: bytes) -> None:
        """All of it."""
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.socket, data), TIMEOUT_S)

    async def read(self, size: int = 65536) -> bytes:
        """Something; nothing at the end."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, size), TIMEOUT_S)

    async def read_all(self) -> bytes:
        """Up to the end."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    async def expect(self, data: bytes) -> None:
        """Exactly these bytes."""
        got = b""
        while len(got) < len(data):
            more = await self.read(len(data) - len(got))
            assert more, got
            got += more
        assert got == data

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def refusal(reason: str, resource: str) -> bytes:
    """A recognisable answer."""
    return f"HTTP/1.1 503 {reason}\r\nconnection: close\r\ncontent-length: 0\r\nx-resource: {resource}\r\n\r\n".encode()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on uvloop; nothing may reach the loop's exception handler, and no socket may stay open."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        before = _open_sockets()
        try:
            await scenario()
            await soon(lambda: _open_sockets() <= before)  # what was closed last may need some turns of the loop
            gc.collect()  # "exception was never retrieved" is said by destructors
        except BaseException:
            # uvloop warns of each open transport when it closes; as an error this would keep the loop from ending.
            warnings.simplefilter("ignore", ResourceWarning)
            raise

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert complaints == []


async def soon(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that no event tells."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


def _open_sockets() -> set[str]:
    links = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            links.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in links if link.startswith("socket:")}


def trusting(certificate: Path) -> ssl.SSLContext:
    """A client context that trusts just this self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    return context
