"""The demo provider in a thread of its own, for tests: `with running(...) as provider`.

Everything goes through its socket; only its counts are looked at from inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from edgeq import demo_io
from edgeq.config.address import ListenAddress
from edgeq.llm.demo import server_io
from edgeq.llm.demo.app import Options
from edgeq.llm.demo.behaviour import DEFAULT, parse

ANTHROPIC = {"anthropic-version": "2023-06-01"}


@dataclass(slots=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """Name ("" without one) and value of each event; "[DONE]" is a text."""
        found = []
        for block in self.body.replace(b"\r\n", b"\n").decode().strip("\n").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if fields:
                value = fields["data"]
                found.append((fields.get("event", ""), value if value == "[DONE]" else json.loads(value)))
        return found


@dataclass(slots=True)
class Provider:
    """A running one."""

    port: int
    inner: server_io.Provider
    tls_ports: tuple[int, ...] = ()
    """Where it speaks TLS, too: one for each context."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """POST `body` as JSON (bytes as they are), or GET without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, data, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stats(self) -> dict[str, dict[str, int]]:
        """By "KEY MODEL"; "-" for no key."""
        found: dict[str, dict[str, int]] = self.ask("/stats").json()
        return found

    def wait_stats(self, what: Callable[[dict[str, dict[str, int]]], bool]) -> dict[str, dict[str, int]]:
        """The first counts for which `what` holds: they follow a client's leaving a moment later. 30 s at most."""
        give_up = time.monotonic() + 30
        while not what(found := self.stats()):
            assert time.monotonic() < give_up, f"these counts did not change: {found}"
        return found

    def wait_metric(self, name: str, value: float) -> None:
        """Wait until /metrics says so; 30 s at most."""
        line = f'vllm:{name}{{engine="0",model_name="demo"}} {value}\n'.encode()
        give_up = time.monotonic() + 30
        while line not in (found := self.ask("/metrics").body):
            assert time.monotonic() < give_up, f"waited for {line!r} in {found!r}"


@contextlib.contextmanager
def running(behave: str = "", tls: Sequence[ssl.SSLContext] = (), **options: Any) -> Iterator[Provider]:
    """A provider on a free port, and on one more for each of `tls`.

    `behave`: directives for all requests; `options`: of `Options`.
    """
    sock = demo_io.bind(ListenAddress("ipv4", "127.0.0.1", 0, ""))
    port = sock.getsockname()[1]
    chosen = Options(behaviour=parse(behave, DEFAULT), **options)
    started = threading.Event()
    inner: list[server_io.Provider] = []
    loops: list[asyncio.AbstractEventLoop] = []
    stop = asyncio.Event()
    tls_ports: list[int] = []

    async def main() -> None:
        server, provider = await server_io.start(sock, chosen)
        servers = [server]
        inner.append(provider)
        loops.append(asyncio.get_running_loop())
        for context in tls:
            front = await loops[0].create_server(
                lambda: server_io.Connection(provider), "127.0.0.1", 0, ssl=context, ssl_shutdown_timeout=1
            )
            tls_ports.append(front.sockets[0].getsockname()[1])
            servers.append(front)
        started.set()
        await stop.wait()
        for each in servers:
            each.close()

    def serve() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield Provider(port, inner[0], tuple(tls_ports))
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)
