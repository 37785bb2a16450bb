"""A gateway between a raw client and a scripted upstream: what most tests from outside need."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from tests.support.gateway import Gateway, Settings, running
from tests.support.raw_client import RawClient
from tests.support.scripted_upstream import Handler, Script, ScriptedUpstream, echo, serve, upstream


@dataclasses.dataclass(slots=True)
class Bench:
    """One gateway, one upstream; each test sets the upstream's script."""

    gateway: Gateway
    upstream: ScriptedUpstream

    def play(self, script: Script) -> ScriptedUpstream:
        """From now on each new upstream connection follows `script`; old ones are dropped and forgotten."""
        self.upstream.script = script  # first: one that comes meanwhile is a new one
        self.upstream.drop_idle()
        self.upstream.connections.clear()
        return self.upstream

    def handle(self, handler: Handler = echo) -> ScriptedUpstream:
        """From now on each request is answered by `handler`."""
        return self.play(serve(handler))

    def connect(self, timeout_s: float = 30.0, receive_buffer_bytes: int = 0) -> RawClient:
        return RawClient(self.gateway.address, timeout_s, receive_buffer_bytes)

    def still_serves(self) -> bool:
        """A fresh client gets a plain answer."""
        self.handle()
        with self.connect() as client:
            return client.ask(b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n").get(b"x-path") == b"/alive"


@contextlib.contextmanager
def bench(settings: Settings | None = None, send_buffer_bytes: int = 0) -> Iterator[Bench]:
    """A running bench."""
    with upstream(send_buffer_bytes=send_buffer_bytes) as server, running(server.port, settings) as gateway:
        yield Bench(gateway, server)


def head(method: str = "GET", path: str = "/", *fields: str) -> bytes:
    """A request head with a Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode("latin-1")
