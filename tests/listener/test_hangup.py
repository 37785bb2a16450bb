"""Clients that leave while they are not read: real sockets, whose kernel is asked, around a core on fake transports."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from edgeq.listener.hangup_io import LOOK_S, MAX_AT_ONCE, HangupWatch
from edgeq.response.sending import MAX_PENDING
from tests.support.fake_transport import HIGH_WATER, FakeTransport, World, frozen_time

HALF_CLOSE_S = 3.0
SIZE = HIGH_WATER * 4
POST = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % SIZE
GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
ASK = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


@pytest.fixture
def closed() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


class Scene:
    """One client whose reading is paused, the socket that its transport shows, and the client's end of that."""

    def __init__(self, closed: contextlib.ExitStack, family: int = socket.AF_INET) -> None:
        self.world = World(timeouts={"half_close": HALF_CLOSE_S, "body": 1000}, upstream_timeouts={"first_byte": 1000})
        self.watch = HangupWatch()
        self.client = self.world.connect()
        self.server: FakeTransport
        ours, self.far = pair(family)
        self.ours = closed.enter_context(ours)
        closed.enter_context(self.far)
        self.client.socket = ours  # type: ignore[assignment]

    def upload(self) -> Scene:
        """More of a body than the upstream takes."""
        _, self.server = self.world.request(POST, self.client)
        self.server.block()
        self.client.data(b"x" * (HIGH_WATER + 1))
        assert not self.client.reading
        return self

    def queued(self) -> Scene:
        """More of a body than is held while there is no connection."""
        self.client.data(POST + b"x" * (MAX_PENDING + 1))
        assert not self.client.reading
        return self

    def pipelined(self) -> Scene:
        """More requests than are held while an answer is on its way."""
        _, self.server = self.world.request(GET, self.client)
        self.client.data(GET * (MAX_PENDING // len(GET) + 1))
        assert not self.client.reading
        return self

    def tunnel(self) -> Scene:
        """More bytes than the tunnel's other end takes."""
        _, self.server = self.world.request(ASK, self.client)
        self.server.data(SWITCH)
        self.server.block()
        self.client.data(b"x" * (HIGH_WATER + 1))
        assert not self.client.reading
        return self

    def look(self, seconds: float = 0.0) -> bool:
        """All looks of so many seconds. Returns: is the client gone?"""
        end = self.world.now + max(seconds, LOOK_S)
        while self.world.now < end:
            self.world.advance(LOOK_S / 2)
            self.watch.look(self.world.shard.unpolled, self.world.now)
        self.world.loop.run()
        return bool(self.client.lost)

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.wait(select.POLLERR)

    def fin(self) -> None:
        self.far.shutdown(socket.SHUT_WR)
        self.wait(select.POLLRDHUP)

    def wait(self, event: int) -> None:
        """Until our kernel knows."""
        poll = select.poll()
        poll.register(self.ours, event)
        assert poll.poll(30_000)

    def cancelled(self) -> bool:
        """Is what ran for the client at an end, and is nothing held?"""
        assert not self.world.shard.unpolled
        assert not self.world.shard.downstreams
        self.world.check_pool(self.world.upstream.pools[0])
        return self.world.shard.in_flight == 0


def pair(family: int) -> tuple[socket.socket, socket.socket]:
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        return listener.accept()[0], far


PAUSED = [Scene.upload, Scene.queued, Scene.pipelined, Scene.tunnel]


@pytest.mark.parametrize("paused", PAUSED)
def test_a_reset_is_the_end(closed: contextlib.ExitStack, paused: Callable[[Scene], Scene]) -> None:
    """Wherever the client is held up, and whatever it has sent before: seen at the first look, and cancelled."""
    scene = paused(Scene(closed))
    assert not scene.look(10)
    scene.far.send(b"never read")
    scene.reset()
    assert scene.look()
    assert scene.cancelled()
    if paused is not Scene.tunnel:
        assert [(entry.reason, entry.status) for entry in scene.world.log] == [("client_gone", 499)]
    if paused is not Scene.queued:
        assert scene.server.aborted


@pytest.mark.parametrize("paused", [Scene.upload, Scene.queued, Scene.pipelined])
def test_a_fin_of_a_request_that_stands_still(closed: contextlib.ExitStack, paused: Callable[[Scene], Scene]) -> None:
    """Is followed by timeouts.half_close, as one that has been read."""
    scene = paused(Scene(closed))
    scene.far.send(b"never read")
    scene.fin()
    assert not scene.look(HALF_CLOSE_S)
    assert scene.look(2 * LOOK_S)
    assert scene.cancelled()
    assert [entry.reason for entry in scene.world.log] == ["client_gone"]


def test_a_fin_of_a_request_that_moves(closed: contextlib.ExitStack) -> None:
    """However slowly: as long as the upstream takes something of it the request goes on, and it has its answer."""
    scene = Scene(closed).upload()
    scene.fin()
    for _ in range(10):
        assert not scene.look(HALF_CLOSE_S * 0.9)
        scene.server.drain(100)
    scene.server.drain()
    assert scene.client.reading
    scene.client.data(b"x" * (SIZE - HIGH_WATER - 1))
    scene.client.eof()
    assert not scene.look(HALF_CLOSE_S * 0.9)
    scene.server.data(OK)
    scene.world.loop.run()
    assert scene.client.take().endswith(b"ok")
    assert scene.client.lost
    assert scene.cancelled()
    scene.world.check_settled()


def test_a_fin_of_an_answer_that_has_begun(closed: contextlib.ExitStack) -> None:
    """Is no end: what comes of the answer is wanted. A reset is one."""
    scene = Scene(closed).upload()
    scene.server.data(OK[:-1])
    scene.fin()
    assert not scene.look(10 * HALF_CLOSE_S)
    scene.reset()
    assert scene.look()
    assert scene.cancelled()


def test_a_fin_in_a_tunnel(closed: contextlib.ExitStack) -> None:
    """Waits for its turn behind the bytes that the other end has not taken; also when both ends have sent theirs."""
    scene = Scene(closed).tunnel()
    scene.fin()
    assert not scene.look(10 * HALF_CLOSE_S)
    scene.server.eof()
    assert scene.client.eof_written
    scene.ours.shutdown(socket.SHUT_WR)  # what the transport has done
    scene.wait(select.POLLHUP)
    assert not scene.look(10 * HALF_CLOSE_S)
    scene.server.drain()
    assert scene.server.take().endswith(b"x" * (HIGH_WATER + 1))
    scene.client.eof()
    scene.world.loop.run()
    assert scene.cancelled()


def test_a_reset_after_the_fin(closed: contextlib.ExitStack) -> None:
    """The loop does not listen after a FIN either, and a tunnel may be silent for an hour."""
    scene = Scene(closed)
    _, scene.server = scene.world.request(ASK, scene.client)
    scene.server.data(SWITCH)
    scene.fin()
    scene.client.eof()
    assert scene.server.eof_written
    assert not scene.look(10)
    scene.reset()
    assert scene.look()
    assert scene.cancelled()


def test_a_client_of_a_unix_socket_that_closes(closed: contextlib.ExitStack) -> None:
    """There a close is told from a FIN: nobody can take an answer any more."""
    scene = Scene(closed, socket.AF_UNIX).upload()
    scene.fin()
    assert not scene.look(HALF_CLOSE_S * 0.9)
    scene.far.close()
    scene.wait(select.POLLHUP)
    assert scene.look()
    assert scene.cancelled()


def test_who_is_read_again_is_not_watched(closed: contextlib.ExitStack) -> None:
    """The loop will find its end by itself."""
    scene = Scene(closed).upload()
    assert len(scene.world.shard.unpolled) == 1
    scene.server.drain()
    assert not scene.world.shard.unpolled
    scene.reset()
    assert not scene.look(5)


def test_many_are_asked_in_turn(closed: contextlib.ExitStack) -> None:
    """So that no tick takes long: each has its turn in a round."""
    scene = Scene(closed)
    count = 2 * MAX_AT_ONCE + 1
    clients = [scene.world.connect() for _ in range(count)]
    for client in clients:
        client.socket = closed.enter_context(scene.ours.dup())  # type: ignore[assignment]
        client.data(POST + b"x" * (MAX_PENDING + 1))
    scene.reset()
    gone = []
    for _ in range(3):
        scene.watch.look(scene.world.shard.unpolled, scene.world.now)
        scene.world.loop.run()
        gone.append(sum(bool(client.lost) for client in clients))
    assert gone == [MAX_AT_ONCE, 2 * MAX_AT_ONCE, count]
