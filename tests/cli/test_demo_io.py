"""The demo upstream, spoken to as any HTTP client would."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from edgeq import demo_io
from edgeq.config.address import ListenAddress


def over(client: Callable[[int], object]) -> None:
    """Run a blocking client against the server."""
    talk(lambda port: asyncio.to_thread(client, port))


def talk(client: Callable[[int], Awaitable[object]]) -> None:
    """Run a client against the server on a free port."""

    async def run() -> None:
        server = await asyncio.start_server(demo_io.handle, "127.0.0.1", 0)
        async with server:
            await asyncio.wait_for(client(server.sockets[0].getsockname()[1]), 60)

    asyncio.run(run())


def test_many_on_one_connection() -> None:
    """Every path answers as its description says, and the connection stays."""

    def client(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def ask(method: str, target: str, body: bytes | None = None) -> tuple[int, bytes, http.client.HTTPMessage]:
            connection.request(method, target, body, {"X-Case": "Kept"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers

        assert ask("GET", "/")[1].startswith(b"GET / HTTP/1.1\nHost: 127.0.0.1:")
        assert b"X-Case: Kept\n" in ask("POST", "/", b"x" * 100_000)[1]
        sock = connection.sock
        assert ask("HEAD", "/bytes/5")[1] == b""
        assert ask("GET", "/slow?ms=1")[0] == 200
        status, body, headers = ask("GET", "/stream?chunks=3&ms=1")
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert body == b"chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n"
        assert len(ask("GET", "/bytes/200001")[1]) == 200_001
        assert ask("GET", "/bytes/0")[1] == b""
        assert [ask("GET", f"/status/{status}")[0] for status in (204, 304, 404, 599)] == [204, 304, 404, 599]
        assert ask("POST", "/echo", b"y" * 300_000)[1] == b"y" * 300_000
        assert ask("GET", "/nowhere")[0] == 404
        for wrong in (
            "/bytes/x",
            "/bytes/9999999999",
            "/status/199",
            "/slow?ms=-1",
            "/stream?chunks=x",
            "/bytes/%C2%B2",
        ):
            assert ask("GET", wrong)[0] == 400
        assert connection.sock is sock
        connection.close()

    over(client)


def test_continue_is_sent() -> None:
    """A client that expects 100-continue is told to go on."""

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert await reader.readline() == b"\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()

    talk(client)


@pytest.mark.parametrize("request_bytes", [b"\x00\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /"])
def test_nonsense_ends_the_connection(request_bytes: bytes) -> None:
    """What is no HTTP is answered by closing, without a trace on standard error."""

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    talk(client)


def test_a_body_does_not_wait_for_the_head_to_be_acknowledged() -> None:
    """On a connection that is kept, Nagle's algorithm and a delayed acknowledgement would cost each answer 40 ms."""
    with (
        demo_io.bind(ListenAddress("ipv4", "127.0.0.1", 0, "")) as sock,
        socket.create_connection(sock.getsockname()),
        sock.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_it_ends_with_its_parent() -> None:
    """The child of `edgeq serve --demo` ends when its standard input does, even while a connection is open."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        child = subprocess.Popen(
            [sys.executable, "-m", "edgeq", "demo", "--fd", str(sock.fileno())],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[sock.fileno()],
        )
        connection = http.client.HTTPConnection("127.0.0.1", sock.getsockname()[1], timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"GET /")
        _, errors = child.communicate(timeout=60)
        connection.close()
    assert (child.returncode, errors) == (0, b"")
