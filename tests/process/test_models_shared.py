"""Answers of models that several clients get, and prompts that go where they are cached; with a real gateway."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import threading
from collections.abc import Iterator

import pytest

from tests.support import gateway, kernel
from tests.support.gateway import Gateway, Settings, Value
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, UpstreamConnection, upstream
from tests.support.supervised import wait_for

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = Asked(b"POST")


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


FIRST, LAST = event("one"), event("two", "stop") + b"data: [DONE]\n\n"
WHOLE = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}],
    }
).encode()


class Model:
    """Answers with one event; with the rest, or by a cut, once it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.cuts = False

    def __call__(self, connection: UpstreamConnection) -> None:
        while connection.read_request() is not None:
            connection.send(HEAD + chunked(FIRST))
            assert self.go_on.wait(60)
            if self.cuts:
                return
            connection.send(chunked(LAST) + b"0\r\n\r\n")


def config(*urls: str, **llm: Value) -> Settings:
    return Settings(
        extra={
            "provider": {"p": {"url": f"{urls[0]}/v1", "endpoints": urls[1:]}},
            "model": {"m": {"targets": [{"provider": "p"}]}},
            "route": [{"name": "llm", "llm": llm}],
        }
    )


@contextlib.contextmanager
def sharing(model: Model) -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    with upstream(model) as provider, gateway.running(provider.port, config(provider.url, cache={})) as edge:
        try:
            yield edge, provider
        finally:
            model.go_on.set()


def request(stream: bool = True, text: str = "Hello") -> bytes:
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def begin(edge: Gateway) -> RawClient:
    """Ask for the stream, and wait until its first event is here."""
    client = RawClient(edge.address)
    client.send(request())
    while FIRST not in client.received:
        assert client.read_some()
    return client


def rest(client: RawClient) -> Answer:
    (found,) = client.read_answers([POST])
    client.close()
    return found


def test_a_stream_is_asked_for_once() -> None:
    """Who comes meanwhile gets what has come, and follows; who comes later gets it from the cache."""
    model = Model()
    with sharing(model) as (edge, provider):
        leader, follower, late = begin(edge), begin(edge), begin(edge)
        model.go_on.set()
        answers = [rest(leader), rest(follower), rest(late)]
        with RawClient(edge.address) as client:
            answers.append(client.ask(request(), b"POST"))
        assert [one.body for one in answers] == [FIRST + LAST] * 4
        assert [one.get(b"x-edgeq-cache") for one in answers] == [b"miss", b"joined", b"joined", b"hit"]
        assert {one.get(b"x-edgeq-target") for one in answers} == {b"p/m"}
        assert len(provider.requests) == 1


def test_the_leader_leaves() -> None:
    """The answer goes on for who follows, and is stored."""
    model = Model()
    with sharing(model) as (edge, provider):
        leader, follower = begin(edge), begin(edge)
        leader.reset()
        model.go_on.set()
        assert rest(follower).body == FIRST + LAST
        with RawClient(edge.address) as client:
            assert client.ask(request(), b"POST").get(b"x-edgeq-cache") == b"hit"
        assert len(provider.requests) == 1


BIG = event("x" * 60_000)
ROOM: dict[str, Value] = {"max_object": "16MiB", "max_bytes": "128MiB"}


def test_a_leader_that_does_not_read_holds_nobody() -> None:
    """Who follows gets all; and when the leader is given up, goes on."""
    go_on = threading.Event()

    def big(connection: UpstreamConnection) -> None:
        while connection.read_request() is not None:
            connection.send(HEAD + chunked(FIRST))
            assert go_on.wait(60)
            go_on.clear()
            for _ in range(160):
                connection.send(chunked(BIG))
            assert go_on.wait(60)
            connection.send(chunked(LAST) + b"0\r\n\r\n")

    with upstream(big) as provider:
        settings = config(provider.url, cache=ROOM)
        with gateway.running(provider.port, dataclasses.replace(settings, write_s=1)) as edge:
            leader = RawClient(edge.address, receive_buffer_bytes=4096)
            leader.send(request())
            while FIRST not in leader.received:
                assert leader.read_some()
            follower = begin(edge)
            go_on.set()
            while follower.received.count(BIG) < 160:
                assert follower.read_some(30)
            poller = select.poll()
            poller.register(leader.socket, select.POLLRDHUP)
            wait_for("the leader is given up", lambda: bool(poller.poll(0)))
            go_on.set()
            leader.close()
            assert rest(follower).body == FIRST + BIG * 160 + LAST
            assert len(provider.requests) == 1


def test_who_follows_alone_paces() -> None:
    """Without the leader's client the provider is read no faster than that: what is not taken stays there."""
    sent = threading.Event()

    def huge(connection: UpstreamConnection) -> None:
        while connection.read_request() is not None:
            connection.send(HEAD + chunked(FIRST))
            assert sent.wait(60)
            for _ in range(1600):
                connection.send(chunked(BIG))
            connection.send(chunked(LAST) + b"0\r\n\r\n")

    with upstream(huge) as provider, gateway.running(provider.port, config(provider.url, cache={})) as edge:
        leader = begin(edge)
        with RawClient(edge.address, receive_buffer_bytes=4096) as follower:
            follower.send(request())
            while FIRST not in follower.received:
                assert follower.read_some()
            leader.reset()
            sent.set()
            counts = [-1]
            while provider.sent_bytes != counts[-1]:  # stuck: nothing has moved for half a second
                counts.append(provider.sent_bytes)
                kernel.select_pause(0.5)
            assert 0 < counts[-1] < 50_000_000
            size = 0
            while not follower.received.endswith(b"0\r\n\r\n"):
                size += len(follower.read_some(30))
                del follower.received[:-100]
            assert size > 96_000_000


def test_all_leave() -> None:
    """Then the provider's connection is closed, and the next one asks anew."""
    model = Model()
    with sharing(model) as (edge, provider):
        for client in (begin(edge), begin(edge), begin(edge)):
            client.reset()
        (connection,) = provider.connections
        wait_for("the provider's connection is closed", connection.gateway_has_closed)
        begin(edge).close()
        assert len(provider.requests) == 2


def test_a_cut_is_told_to_all_and_nothing_is_stored() -> None:
    """By an error event; never as if it were complete."""
    model = Model()
    with sharing(model) as (edge, provider):
        leader, follower = begin(edge), begin(edge)
        model.cuts = True
        model.go_on.set()
        for client in (leader, follower):
            body = rest(client).body
            assert body.startswith(FIRST)
            assert b'"error"' in body
            assert b"[DONE]" not in body
        model.cuts = False
        with RawClient(edge.address) as client:
            answer = client.ask(request(), b"POST")
        assert (answer.get(b"x-edgeq-cache"), answer.body) == (b"miss", FIRST + LAST)
        assert len(provider.requests) == 2


def test_a_leader_fails_before_the_first_event() -> None:
    """Its client is told; who waited with it asks in its place, and the others follow."""
    go_on = threading.Event()
    seen: list[UpstreamConnection] = []

    def fails_once(connection: UpstreamConnection) -> None:
        seen.append(connection)
        while connection.read_request() is not None:
            if len(seen) == 1:
                assert go_on.wait(60)
                return
            connection.send(HEAD + chunked(FIRST) + chunked(LAST) + b"0\r\n\r\n")

    with (
        upstream(fails_once) as provider,
        gateway.running(provider.port, config(provider.url, cache={}, keepalive="20ms")) as edge,
    ):
        clients = []
        for _ in range(3):
            client = RawClient(edge.address)
            client.send(request())
            while b":" not in client.received.partition(b"\r\n\r\n")[2]:  # a comment: it waits
                assert client.read_some()
            clients.append(client)
        go_on.set()
        bodies = [rest(client).body for client in clients]
        assert b'"error"' in bodies[0]
        assert all(body.endswith(FIRST + LAST) for body in bodies[1:])
        assert len(provider.requests) == 2


def whole(connection: UpstreamConnection) -> None:
    while connection.read_request() is not None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))


@pytest.mark.parametrize(("size", "affine"), [(9000, True), (1000, False)])
def test_prompts_that_begin_alike_go_to_one_endpoint(size: int, affine: bool) -> None:
    """If they are long enough to be cached there."""
    with (
        upstream(whole) as one,
        upstream(whole) as other,
        gateway.running(one.port, config(one.url, other.url)) as edge,
    ):
        for number in range(30):
            with RawClient(edge.address) as client:
                assert client.ask(request(False, "x" * size + str(number)), b"POST").status == 200
        assert len(one.requests) + len(other.requests) == 30
        assert (0 in (len(one.requests), len(other.requests))) == affine


@pytest.mark.parametrize(("size", "affine"), [(9000, True), (1000, False)])
def test_prompts_that_begin_alike_go_by_one_key(size: int, affine: bool) -> None:
    """Each key is an account of its own, with caches of its own; others than the first one serve, too."""
    settings = config("http://127.0.0.1:1")
    with upstream(whole) as provider:
        extra = {**settings.extra, "provider": {"p": {"url": f"{provider.url}/v1", "keys": ["k1", "k2"]}}}
        with gateway.running(provider.port, Settings(extra=extra)) as edge:
            for number in range(30):
                with RawClient(edge.address) as client:
                    assert client.ask(request(False, "x" * size + str(number)), b"POST").status == 200
        keys = {one.get(b"authorization") for one in provider.requests}
        assert len(keys) == (1 if affine else 2)
