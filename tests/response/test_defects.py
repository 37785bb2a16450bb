"""A defect of our own ends one request, which says so, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import h11
import pytest

from edgeq.observe.refusals import Refusals
from tests.response import test_cache
from tests.support.fake_transport import World, frozen_time

GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


@pytest.fixture
def broken_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that are not plain meet a defect."""

    def receive(self: h11.Connection, data: bytes) -> None:
        raise RuntimeError("nobody has foreseen this")

    monkeypatch.setattr(h11.Connection, "receive_data", receive)


def check_refused(world: World, told: bytes) -> None:
    """500 with its reason; one record, one count, one event; the connection ends."""
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in head
    assert json.loads(body)["reason"] == "internal_error"
    resource = world.settings.resource
    assert [(one.reason, one.resource, one.status) for one in world.log] == [("internal_error", resource, 500)]
    assert world.shard.refusals.snapshot() == {"internal_error": {resource: 1}}
    assert world.events.defects is not None
    assert [str(error) for error in world.events.defects] == ["nobody has foreseen this"]
    assert world.clients[0].fin_sent
    world.check_settled()


@pytest.mark.usefixtures("broken_h11")
def test_in_a_head() -> None:
    """Before there is a request."""
    world = World()
    world.events.defects = []
    client = world.connect()
    client.data(b"\r\n" + GET)
    world.loop.run()
    check_refused(world, client.take())


@pytest.mark.usefixtures("broken_h11")
def test_in_a_pipelined_head() -> None:
    """Whose turn comes in a turn of the loop of its own: nobody above would notice."""
    world = World()
    client, server = world.request(GET)
    world.events.defects = []
    client.data(b"\r\n" + GET)
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"HTTP/1.1 ") == 2
    assert [one.reason for one in world.log] == ["", "internal_error"]
    assert client.fin_sent
    world.check_settled()


def fail_once(transport: Any, times: int = 1) -> None:
    """The next write to this transport raises, or the next ones."""
    write = transport.write
    left = times

    def raising(data: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            transport.write = write
        raise RuntimeError("nobody has foreseen this")

    transport.write = raising


def test_in_an_answer() -> None:
    """It has begun, so it is cut: the client is not told that it were complete, nor the upstream blamed."""
    world = World()
    world.events.defects = []
    client, server = world.request(GET)
    fail_once(client)
    server.data(OK)
    world.loop.run()
    assert client.take() == b""
    assert client.closing or client.fin_sent
    assert [one.reason for one in world.log] == ["internal_error"]
    assert server.aborted
    world.check_settled()


def test_in_telling_of_a_defect() -> None:
    """There is nothing more to be said: the client's connection ends, and nothing stays behind."""
    world = World()
    world.events.defects = []
    client, server = world.request(GET)
    fail_once(client, 2)
    server.data(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    world.loop.run()
    assert len(world.events.defects) == 2
    assert client.take() == b""
    assert client.aborted
    assert server.aborted
    assert [one.reason for one in world.log] == ["internal_error"]
    world.check_settled()


def test_in_an_answer_that_had_not_begun() -> None:
    """An interim answer was being passed on: there is room for a 500."""
    world = World()
    world.events.defects = []
    client, server = world.request(GET)
    fail_once(client)
    server.data(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    world.loop.run()
    check_refused(world, client.take())
    assert server.aborted


def test_of_one_who_was_let_in_by_another() -> None:
    """Whose place came free by an answer to somebody else: that one is not to suffer for it."""
    world = World()
    world.events.defects = []
    world.upstream.bulkhead.resize(1, world.now)
    first, server = world.request(GET)
    second = world.connect()
    second.data(GET)
    fail_once(server)
    server.data(OK)
    world.loop.run()
    assert first.take().endswith(b"ok")
    assert not first.closing
    assert second.take().startswith(b"HTTP/1.1 500 ")
    assert [one.reason for one in world.log] == ["", "internal_error"]
    assert server.aborted
    first.data(GET)
    world.loop.run()
    world.dial_ok().data(OK)
    assert first.take().endswith(b"ok")
    world.check_settled()


def test_nothing_is_served_instead() -> None:
    """Not even what is in the cache: what is left undone is not known, so the connection is to end."""
    made = test_cache.world(stale_if_error_s=30.0)
    test_cache.stale(made, b'ETag: "a"')
    made.shard.requests = 0
    made.ring.clear()
    made.clients.clear()
    refusals = made.shard.refusals = Refusals()
    made.events.defects = []
    client, server = made.request(test_cache.GET)
    fail_once(client)
    server.data(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    made.loop.run()
    assert refusals.total() == 1
    check_refused(made, client.take())
