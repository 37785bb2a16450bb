"""The tunnel after 101: transparent in both directions, and it ends when either side ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.raw_client import Asked, Ending, RawClient
from tests.support.scripted_upstream import UpstreamConnection

HANDSHAKE = head(
    "GET", "/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Bench]:
    """A gateway with default settings."""
    with bench() as running:
        yield running


def _opened(running: Bench, path: str = "/chat") -> RawClient:
    client = running.connect()
    client.send(HANDSHAKE.replace(b"/chat", path.encode()))
    while b"\r\n\r\n" not in client.received and client.read_some():
        pass
    (got,) = client.read_answers([Asked(upgrade=True)])
    assert got.status == 101
    del client.received[: client.received.index(b"\r\n\r\n") + 4]
    return client


def _echo(connection: UpstreamConnection) -> None:
    connection.read_head()
    connection.send(SWITCH)
    while data := connection.read_bytes(1):
        connection.send(data)


def test_bytes_pass_both_ways(tunnel: Bench) -> None:
    """Whatever is sent comes back unchanged, also bytes that look like HTTP."""
    tunnel.play(_echo)
    sent = bytes(range(256)) + b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"
    with _opened(tunnel) as client:
        client.send(sent)
        while len(client.received) < len(sent) and client.read_some():
            pass
        assert bytes(client.received) == sent


def test_large_transfer(tunnel: Bench) -> None:
    """Megabytes from the upstream arrive byte for byte."""
    body = hashlib.shake_128(b"tunnel").digest(4 * 1024 * 1024)

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(SWITCH + body)
        connection.read_to_end()

    tunnel.play(script)
    with _opened(tunnel) as client:
        while len(client.received) < len(body) and client.read_some():
            pass
        assert hashlib.sha256(client.received).digest() == hashlib.sha256(body).digest()


def test_upstream_closes(tunnel: Bench) -> None:
    """The upstream's FIN reaches the client."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(SWITCH + b"bye")

    tunnel.play(script)
    with _opened(tunnel) as client:
        client.read_to_end(5)
        assert client.ending is Ending.FIN
        assert bytes(client.received) == b"bye"


def test_client_half_closes(tunnel: Bench) -> None:
    """The client's FIN reaches the upstream, whose last words still reach the client."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(SWITCH)
        connection.read_to_end()
        connection.send(b"last words")

    tunnel.play(script)
    with _opened(tunnel) as client:
        client.send(b"data")
        client.half_close()
        client.read_to_end(5)
        assert bytes(client.received) == b"last words"


def test_client_resets(tunnel: Bench) -> None:
    """A client that resets ends the upstream's connection at once."""
    server = tunnel.play(_echo)
    with _opened(tunnel) as client:
        client.reset()
    server.wait_for(lambda: server.connections[0].ended.is_set(), 5, "the tunnel ends")


def test_client_resets_a_tunnel_that_stands_still(tunnel: Bench) -> None:
    """Also a client that is not read, as the upstream takes nothing, is noticed: not only when the tunnel times out."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(SWITCH)
        connection.stall()

    tunnel.play(script)
    with _opened(tunnel, "/still") as client:
        client.send_until_stuck(1_000_000_000)
        client.reset()
        kernel.wait_until(lambda: any("/still" in line for line in tunnel.gateway.log_lines()), 5, "the tunnel ends")


def test_upstream_resets(tunnel: Bench) -> None:
    """An upstream that resets ends the client's connection."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(SWITCH)
        connection.read_bytes(1)
        connection.reset()

    tunnel.play(script)
    with _opened(tunnel) as client:
        client.send(b"x")
        client.read_to_end(5)
        assert client.ending is not Ending.OPEN
