"""An upstream that answers early and resets: its answer was on the way, and reaches the client."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.upstream.probe_io import unread
from tests.support.fake_transport import FakeTransport, World, frozen_time

POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nthe beginning"
REFUSAL = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def reset_with(left: bytes, before: bytes = b"") -> tuple[World, FakeTransport]:
    """A client's upload whose upstream sends `before`, and resets while `left` is not read yet."""
    world = World()
    client, server = world.request(POST)
    if before:
        server.data(before)
    asked: list[Any] = []

    def waiting(transport: Any) -> bytes:
        asked.append(transport)
        return left

    server.protocol.pool.unread = waiting
    server.reset()
    world.loop.run()
    assert asked == [server]
    world.check_pool(world.upstream.pools[0])
    return world, client


@pytest.mark.parametrize("cut", range(0, len(REFUSAL) + 1, 7))
def test_the_answer_is_taken(cut: int) -> None:
    """Whatever part of it had been read before; then the client's connection ends, as its request is not read."""
    world, client = reset_with(REFUSAL[cut:], REFUSAL[:cut])
    got = bytes(client.sent)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.endswith(b"\r\n\r\nno")
    assert client.fin_sent
    assert [(entry.status, entry.reason) for entry in world.log] == [(413, "")]


@pytest.mark.parametrize("left", [b"", REFUSAL[:20]])
def test_no_answer_is_still_a_reset(left: bytes) -> None:
    """Nothing, or not even a head: 502 with its reason."""
    world, client = reset_with(left)
    assert client.sent.startswith(b"HTTP/1.1 502 ")
    assert [entry.reason for entry in world.log] == ["upstream_reset"]


def test_a_part_of_an_answer_is_visibly_cut() -> None:
    """What there is goes to the client, and then its connection ends without the rest."""
    world, client = reset_with(REFUSAL[:-1])
    assert client.sent.endswith(b"\r\n\r\nn")
    assert client.fin_sent  # and what the client still sends is thrown away for a moment
    assert [entry.reason for entry in world.log] == ["upstream_truncated"]


class Holder:
    """A transport's get_extra_info."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock

    def get_extra_info(self, name: str) -> socket.socket | None:
        assert name == "socket"
        return self._sock


def test_the_kernel_keeps_what_came_before_a_reset() -> None:
    """All of it, and nothing the second time."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        near.setblocking(False)
        near.send(b"what nobody reads")
        far.sendall(REFUSAL)
        far.close()
        poller = select.poll()
        poller.register(near, select.POLLERR)
        assert poller.poll(30_000)  # the reset is here
        assert unread(Holder(near)) == REFUSAL
        assert unread(Holder(near)) == b""
    assert unread(Holder(None)) == b""
