"""The `websockets` library through the tunnel, on both ends of it."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from socket import SHUT_RDWR

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.peers.chat import Chat, chat
from tests.peers.conftest import Site
from tests.support import gateway
from tests.support.gateway import Gateway, Settings

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000, 8_000_000)
TIMEOUT_S = 30


def opened(site: Site, path: str, compression: str | None = "deflate") -> ClientConnection:
    """A connection through the gateway."""
    url = f"ws://127.0.0.1:{site.port}{path}"
    return connect(url, compression=compression, max_size=2**25, open_timeout=TIMEOUT_S, proxy=None)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_echo_of_many_sizes(site: Site, compression: str | None) -> None:
    """Text and bytes of every length field's size come back, one at a time and many on the way at once."""
    with opened(site, "/ws/echo", compression) as socket:
        for size in SIZES:
            for message in ("é" * (size // 2), bytes(index & 255 for index in range(min(size, 256))) * (size // 256)):
                socket.send(message)
                assert socket.recv(TIMEOUT_S) == message
        for number in range(500):
            socket.send(f"message {number}")
        assert [socket.recv(TIMEOUT_S) for _ in range(500)] == [f"message {number}" for number in range(500)]


def test_fragmentation(site: Site) -> None:
    """Frames keep their borders in both directions."""
    pieces = ["a" * size for size in (1, 0, 1000, 70_000, 3)]
    found = []
    for url in (f"ws://127.0.0.1:{site.chat.port}", f"ws://127.0.0.1:{site.port}"):  # without and with the gateway
        with connect(f"{url}/ws/frames", open_timeout=TIMEOUT_S, proxy=None) as socket:
            socket.send(pieces)
            found.append(json.loads(socket.recv(TIMEOUT_S)))
    assert found[0] == found[1]
    assert [size for size in found[1] if size] == [1, 1000, 70_000, 3]
    with opened(site, "/ws/fragments") as socket:
        socket.send("abcdef")
        assert "".join(piece for piece in socket.recv_streaming(decode=True)) == "abcdef"


def test_ping_and_pong(site: Site) -> None:
    """Each ping gets its own pong, between messages."""
    with opened(site, "/ws/echo") as socket:
        for number in range(50):
            payload = f"ping {number}".encode()
            pong = socket.ping(payload)
            assert pong.wait(TIMEOUT_S)
            socket.send(payload)
            assert socket.recv(TIMEOUT_S) == payload


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going away"), (3000, "é"), (4999, "x" * 123)])
def test_close_codes(site: Site, code: int, reason: str) -> None:
    """Code and reason of a client reach the server, and the closing handshake is answered."""
    path = f"/ws/echo?code={code}"
    with opened(site, path) as socket:
        socket.close(code, reason)
        assert (socket.close_code, socket.close_reason) == (code, reason)
    assert site.chat.wait_end(path) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1012, "restart"), (4001, "enough")])
def test_server_closes_first(site: Site, code: int, reason: str) -> None:
    """Code and reason of the server reach the client."""
    with opened(site, f"/ws/close/{code}/{reason}") as socket:
        with pytest.raises(ConnectionClosedOK if code == 1000 else ConnectionClosedError):
            socket.recv(TIMEOUT_S)
        assert (socket.close_code, socket.close_reason) == (code, reason)


def test_server_breaks_off(site: Site) -> None:
    """An end without a closing handshake is seen as one: nothing is made up."""
    with opened(site, "/ws/cut") as socket:
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(TIMEOUT_S)
        assert caught.value.rcvd is None


def test_client_breaks_off(site: Site) -> None:
    """The server learns at once that its client is gone."""
    path = "/ws/echo?broken"
    with opened(site, path) as socket:
        socket.send("still here")
        assert socket.recv(TIMEOUT_S) == "still here"
        socket.socket.shutdown(SHUT_RDWR)
        assert site.chat.wait_end(path) == (1006, "")


def test_a_refused_handshake(site: Site) -> None:
    """The server's 403 and its words reach the client."""
    with pytest.raises(InvalidStatus) as caught:
        opened(site, "/ws/forbidden")
    assert (caught.value.response.status_code, caught.value.response.body) == (403, b"not you\n")


def test_through_tls(site: Site) -> None:
    """wss: the tunnel begins within TLS and is closed in an orderly way."""
    context = ssl.create_default_context(cafile=site.certificate.path)
    url = f"wss://127.0.0.1:{site.tls}/ws/echo?tls"

    async def main() -> int | None:
        # Not the synchronous client: it reads and writes one SSL object in two threads, which CPython 3.11 does not
        # lock, and now and then takes a session ticket for the end of the connection.
        async with connect_async(url, ssl=context, max_size=2**25, open_timeout=TIMEOUT_S, proxy=None) as socket:
            for size in SIZES:
                await socket.send(b"x" * size)
                assert await asyncio.wait_for(socket.recv(), TIMEOUT_S) == b"x" * size
        return socket.close_code

    assert asyncio.run(main()) == 1000
    assert site.chat.wait_end("/ws/echo?tls") == (1000, "")


def test_many_at_once(site: Site) -> None:
    """Fifty tunnels with fifty messages each do not mix; all are closed in an orderly way."""

    async def one(number: int) -> None:
        url = f"ws://127.0.0.1:{site.port}/ws/echo?many={number}"
        async with connect_async(url, open_timeout=TIMEOUT_S, proxy=None) as socket:
            for index in range(50):
                message = f"{number}/{index}" * (index * 20 + 1)
                await socket.send(message)
                assert await asyncio.wait_for(socket.recv(), TIMEOUT_S) == message

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(50)))

    asyncio.run(main())
    for number in range(50):
        assert site.chat.wait_end(f"/ws/echo?many={number}") == (1000, "")


@pytest.fixture
def hasty() -> Iterator[tuple[Gateway, Chat]]:
    """A gateway all of whose time-outs are short, but for that of tunnels."""
    with chat() as server:
        made = Settings(head_s=0.2, body_s=0.2, keepalive_s=0.2, first_byte_s=0.3, answer_body_s=0.3)
        with gateway.running(server.port, made) as started:
            yield started, server


def test_a_silent_tunnel_stays(hasty: tuple[Gateway, Chat]) -> None:
    """Neither time-outs of requests nor of answers end a tunnel in which nothing is said."""
    started, _ = hasty
    gone = threading.Event()
    with connect(f"ws://127.0.0.1:{started.address[1]}/ws/echo", open_timeout=TIMEOUT_S, proxy=None) as socket:

        def listen() -> None:
            try:
                assert socket.recv(TIMEOUT_S) == "are you there"
            except (ConnectionClosed, TimeoutError):
                gone.set()

        thread = threading.Thread(target=listen)
        thread.start()
        assert not gone.wait(1.0)
        socket.send("are you there")
        thread.join(TIMEOUT_S)
        assert not gone.is_set()
