"""Retries and hedges of a real gateway: pauses, Retry-After, places, and two endpoints asked at once."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.cli import admin_client_io
from tests.support import gateway
from tests.support.gateway import Gateway, Settings, Value
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, answer, serve
from tests.support.supervised import wait_for

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
POST = PUT.replace(b"PUT", b"POST")
LOST = b"hangs"


class Pair:
    """Two endpoints, one of which hangs while `hang` is set: the first one that is asked, so each in its turn."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.hang = threading.Event()
        self.hung: list[UpstreamConnection] = []
        self.endpoints = [ScriptedUpstream(serve(self.handle)) for _ in range(2)]

    def handle(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        if self.hang.is_set():
            self.hang.clear()
            self.hung.append(connection)
            connection.wait(self.go)
            connection.send(answer(LOST))
        else:
            connection.send(answer(b"ok"))

    @property
    def requests(self) -> list[SeenRequest]:
        return [request for endpoint in self.endpoints for request in endpoint.requests]


@contextlib.contextmanager
def pair(retry: dict[str, Value], admin: Value = "", **upstream: Value) -> Iterator[tuple[Pair, Gateway]]:
    """A gateway with this retry policy before such a pair."""
    made = Pair()
    with contextlib.ExitStack() as stack:
        for endpoint in made.endpoints:
            stack.enter_context(endpoint)
        extra: dict[str, Value] = {
            "upstream": {"u": {"endpoints": [one.url for one in made.endpoints], "balance": "round-robin", **upstream}},
            "route": [{"name": "r", "upstream": "u", "retry": retry}],
            "server": {"admin": admin},
        }
        edge = stack.enter_context(gateway.running(made.endpoints[0].port, Settings(extra=extra)))
        stack.callback(made.go.set)
        yield made, edge


def lines(edge: Gateway) -> list[dict[str, Value]]:
    edge.stop()
    return [json.loads(line) for line in edge.log_lines()]


@pytest.mark.parametrize("request_bytes", [GET, PUT])
def test_the_second_of_two_answers(request_bytes: bytes) -> None:
    """The first hangs for ever; the client gets the other's answer, and the one that hangs sees its connection cut."""
    # On a busy machine the first one may get its request only after the second one; not after so long.
    with pair({"hedge": "1s"}) as (both, edge):
        both.hang.set()
        with RawClient(edge.address) as client:
            assert client.ask(request_bytes).body == b"ok"
            (hung,) = both.hung
            wait_for("the try that lost is cut", hung.gateway_has_closed)
        bodies = [request.body for request in both.requests]
        assert bodies == [request_bytes.partition(b"\r\n\r\n")[2]] * 2
        (line,) = lines(edge)
    assert (line["edgeq.hedge"], line["edgeq.attempts"]) == ("won", 2)


def test_the_95th_percentile() -> None:
    """After some answers the gateway knows what is late, without being told."""
    with pair({"hedge": "p95"}) as (both, edge), RawClient(edge.address) as client:
        for _ in range(20):
            assert client.ask(GET).body == b"ok"
        both.hang.set()
        assert client.ask(GET).body == b"ok"
        assert len(both.hung) == 1


@pytest.mark.parametrize("why", ["post", "limit", "budget", "off"])
def test_who_is_not_hedged_waits(why: str) -> None:
    """The answer comes from the endpoint that was asked, however long it takes, and no other has had the request."""
    upstream: dict[str, Value] = {}
    if why == "limit":
        upstream["limit"] = 1
    if why == "budget":
        upstream["retry_budget"] = {"share": 0, "reserve": 0}
    with (
        pair({"hedge": "off" if why == "off" else "10ms"}, **upstream) as (both, edge),
        RawClient(edge.address) as client,
    ):
        both.hang.set()
        client.send(POST if why == "post" else GET)
        both.endpoints[0].wait_for(lambda: len(both.hung) == 1, what="it hangs")
        assert client.read_some(0.3) == b""
        both.go.set()
        (got,) = client.read_answers([Asked()])
        assert got.body == LOST
        assert len(both.requests) == 1


def test_a_reload_begins_and_ends_hedging() -> None:
    """Running workers take it over."""
    route: dict[str, Value] = {"name": "r", "upstream": "u"}
    with pair({"hedge": "off"}) as (both, edge):
        edge.wait_event("serving")
        edge.reload({"route": [{**route, "retry": {"hedge": "20ms"}}]})
        both.hang.set()
        with RawClient(edge.address) as client:
            assert client.ask(GET).body == b"ok"
        edge.reload({"route": [{**route, "retry": {"hedge": "off"}}]})
        both.hang.set()
        with RawClient(edge.address) as client:
            client.send(GET)
            both.endpoints[0].wait_for(lambda: len(both.hung) == 2, what="it hangs")
            both.go.set()
            assert client.read_answers([Asked()])[0].body == LOST


def test_what_was_sent_again_is_shown(tmp_path: Path) -> None:
    """One that the second of two won, and one for which the budget of one in ten seconds is used up."""
    admin = str(tmp_path / "admin")
    budget: dict[str, Value] = {"share": 0, "reserve": 0.1}

    def shown() -> dict[str, int]:
        status, _, text = admin_client_io.get(admin, "/v1/retries", 20)
        assert status == 200, text
        (found,) = json.loads(text)
        return {key: found[key] for key in ("retried", "denied", "hedges", "hedges_won", "running", "allowed")}

    # On a busy machine the first one may get its request only after the second one; not after so long.
    with pair({"hedge": "1s"}, admin, retry_budget=budget) as (both, edge), RawClient(edge.address) as client:
        both.hang.set()
        assert client.ask(GET).body == b"ok"
        both.hang.set()
        client.send(GET)
        told = {"retried": 1, "denied": 1, "hedges": 1, "hedges_won": 1, "running": 0, "allowed": 1}
        wait_for("what has happened", lambda: shown() == told)
        both.go.set()
        assert client.read_answers([Asked(), Asked()])[1].body == LOST


class Busy:
    """An endpoint that answers so many tries of each request with 503; by their targets, when each try has come."""

    def __init__(self, times: int, *fields: bytes) -> None:
        self.times = times
        self.fields = fields
        self.came: dict[bytes, list[float]] = {}

    def handle(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        tries = self.came.setdefault(request.target, [])
        tries.append(time.monotonic())
        is_busy = len(tries) <= self.times
        connection.send(answer(b"", b"503 Busy", *self.fields) if is_busy else answer(b"ok"))


def target(number: int) -> bytes:
    """A request that is not the same as others."""
    return GET.replace(b"/a", b"/%d" % number)


@contextlib.contextmanager
def lone(busy: Busy, route: dict[str, Value], **upstream: Value) -> Iterator[Gateway]:
    """A gateway before that endpoint alone."""
    with ScriptedUpstream(serve(busy.handle)) as backend:
        extra: dict[str, Value] = {"upstream": {"u": upstream}, "route": [{"name": "r", "upstream": "u", **route}]}
        with gateway.running(backend.port, Settings(extra=extra)) as edge:
            yield edge


def test_a_lone_endpoint_is_asked_again_when_it_has_said() -> None:
    """Not a moment before; and not at all if that is beyond the deadline."""
    busy = Busy(2, b"Retry-After: 1")
    with lone(busy, {"retry": {"on": ["503"], "attempts": 3}}) as edge:
        with RawClient(edge.address) as client:
            assert client.ask(GET).body == b"ok"
        first, second, third = busy.came[b"/a"]
        assert second - first >= 1.0
        assert third - second >= 1.0
        edge.reload({"route": [{"name": "r", "upstream": "u", "timeout": 1, "retry": {"on": ["503"], "attempts": 3}}]})
        busy.came.clear()
        with RawClient(edge.address) as client:
            got = client.ask(GET)
        assert (got.status, got.get(b"retry-after"), len(busy.came[b"/a"])) == (503, b"1", 1)


def test_during_the_pause_another_has_the_place() -> None:
    """With one place, a request that waits for its next try holds up nobody."""
    busy = Busy(1, b"Retry-After: 3")
    with (
        lone(busy, {"retry": {"on": ["503"]}}, limit=1) as edge,
        RawClient(edge.address) as first,
        RawClient(edge.address) as second,
    ):
        first.send(GET)
        wait_for("the first is at the upstream", lambda: busy.came)
        busy.times = 0
        assert second.ask(target(1)).body == b"ok"
        assert len(busy.came[b"/a"]) == 1
        assert first.read_answers([Asked()])[0].body == b"ok"
        log = lines(edge)
    assert [(line["url.path"], line["edgeq.attempts"]) for line in log] == [("/1", 1), ("/a", 2)]


def test_pauses_are_drawn_anew_each_time() -> None:
    """Eight requests that fail together do not come back together: twenty milliseconds apart at least, of 500."""
    busy = Busy(1)
    retry: dict[str, Value] = {"on": ["503"], "backoff": "500ms", "max_backoff": "500ms"}
    budget: dict[str, Value] = {"concurrent_min": 8, "reserve": 10}
    with lone(busy, {"retry": retry}, retry_budget=budget) as edge, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(edge.address)) for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(target(number))
        assert [client.read_answers([Asked()])[0].body for client in clients] == [b"ok"] * 8
    again = [tries[1] - tries[0] for tries in busy.came.values()]
    assert max(again) - min(again) > 0.02


def test_no_more_than_so_many_at_once() -> None:
    """Of eight that fail together three are tried again; the others are told what the upstream has said, and why."""
    busy = Busy(1, b"Retry-After: 2")
    with lone(busy, {"retry": {"on": ["503"]}}) as edge, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(edge.address)) for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(target(number))
        answers = [client.read_answers([Asked()])[0] for client in clients]
        log = lines(edge)
    assert sorted(got.status for got in answers) == [200] * 3 + [503] * 5
    refused = [line for line in log if line["http.response.status_code"] == 503]
    assert {(line["edgeq.reason"], line["edgeq.second_reason"]) for line in refused} == {
        ("upstream_shed", "retry_budget_exhausted")
    }
