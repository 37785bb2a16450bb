"""Clients that are slow on purpose: limits.min_head_rate, min_body_rate, min_answer_rate, on fake transports and time.

Where it matters what a client's kernel has taken, the transport shows a real socket, whose other end is the test's.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.base import Size
from edgeq.config.schema import ListenerLimits
from edgeq.listener.tcp_info_io import taken_bytes
from edgeq.response.sending import MAX_PENDING
from tests.support.fake_transport import HIGH_WATER, FakeTransport, World, frozen_time

GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECT = POST.replace(b"Content", b"Expect: 100-continue\r\nContent")
ASK = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * HIGH_WATER * 2
NEW_CLOSED = b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


class Kernel:
    """A connection over loopback that a fake transport shows as its own: what the client's kernel takes is real."""

    def __init__(self, closed: contextlib.ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._client = closed.enter_context(socket.create_connection(server.getsockname()))
            self.socket = closed.enter_context(server.accept()[0])

    def take(self, size: int) -> None:
        """The client takes so many bytes."""
        self.socket.sendall(b"x" * size)
        while size:
            assert select.select([self._client], [], [], 10)[0], "nothing comes"
            size -= len(self._client.recv(size))
        answered = select.poll()
        for _ in range(10_000):  # until its acknowledgement is here: at most one delayed ACK, 40 ms
            if not struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0]:
                return
            answered.poll(1)
        raise AssertionError("not acknowledged")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with contextlib.ExitStack() as closed:
        yield Kernel(closed)


def reasons(world: World) -> list[str]:
    return [exchange.reason for exchange in world.log]


# -- heads ------------------------------------------------------------------------------------------------------------


def test_a_head_that_keeps_its_rate_may_take_longer() -> None:
    """Than timeouts.head: 10 bytes a second for 5 s are 50 bytes each time."""
    world = World(timeouts={"head": 5}, limits={"min_head_rate": 10})
    client = world.connect()
    client.data(GET[:-2])
    for _ in range(6):
        client.data(b"X-Long: " + b"a" * 50 + b"\r\n")
        world.advance(4.9)
        assert not client.closing
    client.data(b"\r\n")
    server = world.dial_ok()
    server.data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")
    world.check_settled()


@pytest.mark.parametrize("before", [b"", GET])
def test_a_head_that_loses_its_rate(before: bytes) -> None:
    """Is refused at the end of the first window that brings too little, not of the first one that it kept."""
    world = World(timeouts={"head": 5, "keepalive": 60}, limits={"min_head_rate": 10})
    client = world.connect()
    if before:
        client.data(before)
        world.dial_ok().data(OK)
        client.take()
    client.data(GET[:-2] + b"X-Long: " + b"a" * 50)
    world.advance(5.5)
    assert not client.take()
    for _ in range(5):
        client.data(b"aaaaaaaaa")
        world.advance(1.1)
    got = client.take()
    assert got.startswith(b"HTTP/1.1 408")
    assert b"limits.min_head_rate" in got
    assert reasons(world)[-1] == "head_timeout"
    world.check_settled()


def test_each_head_has_a_window_of_its_own() -> None:
    """What an earlier one brought does not count against the next."""
    world = World(timeouts={"head": 5}, limits={"min_head_rate": 10})
    client = world.connect()
    for _ in range(3):
        client.data(GET[:-2] + b"X-Long: " + b"a" * 500 + b"\r\n")
        world.advance(5.5)
        client.data(b"X-Longer: " + b"a" * 100 + b"\r\n")
        world.advance(5.5)
        client.data(b"\r\n")
        world.loop.run()
        server = world.dial_ok() if world.dials else world.servers[0]
        server.data(OK)
        assert client.take().startswith(b"HTTP/1.1 200")
    world.check_settled()


def test_a_connection_that_never_speaks_is_closed_in_silence() -> None:
    """No window is granted to nothing."""
    world = World(timeouts={"head": 5}, limits={"min_head_rate": 10})
    client = world.connect()
    world.advance(6)
    assert client.lost
    assert not client.take()


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [POST, CHUNKED])
def test_a_body_that_trickles_is_refused(head: bytes) -> None:
    """Though something comes every second; the answer names the key, and the upstream's request is cancelled."""
    world = World(timeouts={"body": 10}, limits={"min_body_rate": 20})
    client, server = world.request(head)
    for _ in range(11):
        assert not client.take()
        client.data(b"a" if head is POST else b"1\r\na\r\n")
        world.advance(1)
    got = client.take()
    assert got.startswith(b"HTTP/1.1 408")
    assert b"limits.min_body_rate" in got
    assert reasons(world) == ["body_timeout"]
    assert server.closing
    world.loop.run()
    world.check_settled()


def test_a_body_that_keeps_its_rate_may_take_for_ever() -> None:
    """In each window as much as is asked for, and no more."""
    world = World(timeouts={"body": 10}, limits={"min_body_rate": 20})
    client, _ = world.request(POST)
    for _ in range(100):
        client.data(b"a" * 100)
        world.advance(5)
        assert not client.closing


def test_a_body_that_stops_names_the_other_key() -> None:
    """Silence is timeouts.body's, whatever the rate was before."""
    world = World(timeouts={"body": 10})
    client, _ = world.request(POST)
    client.data(b"a" * 10_000)
    world.advance(11)
    got = client.take()
    assert got.startswith(b"HTTP/1.1 408")
    assert b"timeouts.body" in got
    assert b"min_body_rate" not in got


@pytest.mark.parametrize("off", [{"limits": {"min_body_rate": 0}}, {"timeouts": {"body": 0}}])
def test_without_a_rate_a_body_may_trickle(off: dict[str, dict[str, float]]) -> None:
    """0 switches the rate off, or the time-out that is its window."""
    world = World(**{"timeouts": {"body": 10}} | off)  # type: ignore[arg-type]
    client, _ = world.request(POST)
    for _ in range(100):
        client.data(b"a")
        world.advance(9)
        assert not client.closing


def test_a_reload_may_take_the_rate_away() -> None:
    """From a body that is on its way: its window is the last one, and nobody looks at it again."""
    world = World(timeouts={"body": 10}, limits={"min_body_rate": 20})
    client, _ = world.request(POST)
    client.data(b"a")
    world.settings.update(msgspec.structs.replace(world.config, limits=ListenerLimits(min_body_rate=Size(0))))
    for _ in range(20):
        client.data(b"a")
        world.advance(5)
        assert not client.closing
    assert client.protocol.expire_at > world.now


def test_a_body_that_is_not_read_is_not_slow() -> None:
    """While the upstream takes nothing nobody reads the client; afterwards it has a whole window again."""
    world = World(timeouts={"body": 10}, upstream_timeouts={"first_byte": 0}, limits={"min_body_rate": 20})
    client, server = world.request(POST)
    server.block()
    client.data(b"a" * 10)
    world.advance(9)
    client.data(b"a" * HIGH_WATER * 2)
    assert not client.reading
    world.advance(500)
    server.drain()
    world.loop.run()
    assert client.reading
    client.data(b"a")
    world.advance(9)
    assert not client.closing
    client.data(b"a")
    world.advance(2)
    assert reasons(world) == ["body_timeout"]


def test_a_body_that_waits_for_a_connection_is_not_slow() -> None:
    """What is held of it is bounded, and more is not read: that is the upstream's doing."""
    world = World(
        timeouts={"body": 10}, pool={"queue_timeout": 1000}, limits={"min_body_rate": 20}, upstream_timeouts={}
    )
    client = world.connect()
    client.data(POST + b"a" * (MAX_PENDING + 1))
    assert not client.reading
    world.advance(500)
    server = world.dial_ok()
    assert len(server.take()) > MAX_PENDING
    assert client.reading
    client.data(b"a")
    world.advance(9)
    assert not client.closing


def test_who_waits_to_be_told_to_go_on_is_not_slow() -> None:
    """With Expect: 100-continue the window begins with the body, not with the head."""
    world = World(timeouts={"body": 10}, limits={"min_body_rate": 20})
    client, server = world.request(EXPECT)
    world.advance(9)
    server.data(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.take()
    client.data(b"a" * 50)
    world.advance(9)
    client.data(b"a" * 200)
    world.advance(9)
    assert not client.closing


def test_the_next_body_begins_anew() -> None:
    """A window does not outlive its request."""
    world = World(timeouts={"body": 10}, limits={"min_body_rate": 20})
    client = world.connect()
    for _ in range(4):
        _, server = world.request(POST.replace(b"1000000", b"20"), client)
        client.data(b"a" * 10)
        world.advance(6)
        client.data(b"a" * 10)
        server.data(OK)
        assert client.take().startswith(b"HTTP/1.1 200")
    world.check_settled()


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 9)), min_size=1, max_size=60))
def test_any_body_against_a_model(steps: list[tuple[int, int]]) -> None:
    """Windows from the first part on: who brings 190 bytes in each is served, who does not is refused, then."""
    with frozen_time():
        world = World(timeouts={"body": 9.5}, limits={"min_body_rate": 20})
        client, _ = world.request(POST)
        now, end, came, least = 0, 10, 0, steps[0][0] + 190
        for size, seconds in steps:
            client.data(b"a" * size)
            came += size
            for _ in range(seconds):
                world.advance(1)
                now += 1
                if now == end and came < least:
                    assert client.take().startswith(b"HTTP/1.1 408")
                    return
                if now == end:
                    end, least = now + 10, came + 190
                assert not client.take()


# -- answers ----------------------------------------------------------------------------------------------------------


def large_answer(world: World, kernel: Kernel, raw: bytes = GET, answer: bytes = LARGE) -> FakeTransport:
    """A client that takes nothing of its answer by itself."""
    client, server = world.request(raw)
    client.socket = kernel.socket  # type: ignore[assignment]  # a real one
    client.block()
    server.data(answer)
    world.loop.run()
    return client


def test_a_reader_that_trickles_is_cut(kernel: Kernel) -> None:
    """Though it always takes something: 100 bytes in 9 s, where 240 a second are asked for."""
    world = World(timeouts={"write": 10})
    client = large_answer(world, kernel)
    world.advance(2)
    for _ in range(2):
        assert not client.lost
        kernel.take(100)
        client.drain(100)
        world.advance(9)
    assert client.lost
    assert reasons(world) == ["client_stalled"]
    world.check_settled()


def test_a_reader_that_keeps_its_rate_gets_everything(kernel: Kernel) -> None:
    """Also while our own buffer does not move, because the kernel has not yet sent half of what it holds."""
    world = World(timeouts={"write": 10})
    client = large_answer(world, kernel)
    for _ in range(20):
        kernel.take(2400)
        world.advance(9)
        assert not client.lost
    client.drain()
    assert not reasons(world)


def test_without_a_rate_a_reader_may_trickle(kernel: Kernel) -> None:
    """As long as it takes something."""
    world = World(timeouts={"write": 10}, limits={"min_answer_rate": 0})
    client = large_answer(world, kernel)
    world.advance(2)
    for _ in range(20):
        kernel.take(1)
        world.advance(9)
        assert not client.lost
    world.advance(11)
    assert client.lost


@pytest.mark.parametrize("windows", [0, 1, 2])
def test_who_takes_the_end_too_slowly_is_cut(windows: int, kernel: Kernel) -> None:
    """The answer is complete, its connection is to be closed, and its last bytes are on the way."""
    world = World(timeouts={"write": 10})
    client = large_answer(world, kernel, NEW_CLOSED, b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000)
    for _ in range(windows):
        kernel.take(2400)
        client.drain(2400)
        world.advance(10.5)
        assert not client.aborted
    kernel.take(100)
    client.drain(100)
    world.advance(10.5)
    assert client.aborted
    world.check_settled()


def test_a_tunnels_client_keeps_its_rate_as_well(kernel: Kernel) -> None:
    """Only while something waits for it: a tunnel may be silent."""
    world = World(timeouts={"write": 10})
    client, server = world.request(ASK)
    client.socket = kernel.socket  # type: ignore[assignment]  # a real one
    server.data(SWITCH)
    world.advance(100)
    assert not client.lost
    client.block()
    server.data(b"x" * HIGH_WATER * 2)
    world.advance(2)
    kernel.take(100)
    world.advance(11)
    assert client.lost


def test_a_moments_wait_asks_nobody(kernel: Kernel) -> None:
    """Who goes on within a second has a whole window when it stops the next time."""
    world = World(timeouts={"write": 10})
    client = large_answer(world, kernel, answer=LARGE.replace(b"999999", b"99999999"))
    (server,) = world.servers
    for _ in range(30):
        world.advance(0.5)
        client.drain()
        client.block()
        server.data(b"x" * HIGH_WATER * 2)
        assert not client.lost


# -- what the kernel says ---------------------------------------------------------------------------------------------


def test_what_a_client_has_taken(kernel: Kernel) -> None:
    """Counted from the beginning of its connection; who has no TCP, or no descriptor any more, has taken -1."""
    world = World()
    client = world.connect()
    assert taken_bytes(client) == -1
    client.socket = kernel.socket  # type: ignore[assignment]  # a real one
    first = taken_bytes(client)
    kernel.take(1000)
    assert taken_bytes(client) == first + 1000
    for other in socket.socketpair():
        with other:
            client.socket = other  # type: ignore[assignment]  # a real one
            assert taken_bytes(client) == -1
    assert taken_bytes(client) == -1
