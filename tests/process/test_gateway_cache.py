"""The response cache and fallbacks of a real gateway: real workers, real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.machine import machine
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import (
    ScriptedUpstream,
    SeenRequest,
    UpstreamConnection,
    answer,
    reply,
    serve,
    upstream,
)
from tests.support.supervised import connect, read_all, wait_for

CACHED = answer(b"hello", b"200 OK", b"Cache-Control: max-age=3600", b'ETag: "a"')


def with_cache(**cache: Value) -> Settings:
    return Settings(extra={"route": [{"name": "r", "upstream": "u", "cache": {"stale_if_error": "1h", **cache}}]})


@contextlib.contextmanager
def cached(data: bytes = CACHED, **cache: Value) -> Iterator[Bench]:
    """A gateway with a cache before an upstream that always says the same."""
    with bench(with_cache(**cache)) as running:
        running.handle(reply(data))
        yield running


def ask(address: tuple[str, int], *fields: str, method: str = "GET", path: str = "/a") -> Answer:
    """One request on a connection of its own."""
    with RawClient(address) as client:
        return client.ask(head(method, path, *fields), method.encode())


def told(edge: Gateway) -> list[dict[str, object]]:
    """The access log of a gateway that has stopped."""
    edge.stop()
    return [json.loads(line) for line in edge.log_lines()]


def test_hits_conditions_and_head() -> None:
    """One request reaches the upstream; the others are answered here, each as it asks; the log says how."""
    with cached() as running:
        address = running.gateway.address
        assert (ask(address).get(b"cache-status") or b"").endswith(b"; fwd=uri-miss; stored")
        again = ask(address)
        assert (again.status, again.body) == (200, b"hello")
        assert b"; hit; ttl=3" in (again.get(b"cache-status") or b"")
        assert int(again.get(b"age") or b"-1") >= 0
        assert ask(address, 'If-None-Match: "a"').status == 304
        of_head = ask(address, method="HEAD")
        assert (of_head.status, of_head.body, of_head.get(b"content-length")) == (200, b"", b"5")
        with running.connect() as client:  # pipelined, kept
            client.send(head("GET", "/a") * 20)
            answers = client.read_answers([Asked()] * 20)
            assert [one.body for one in answers] == [b"hello"] * 20
        assert len(running.upstream.requests) == 1
        lines = told(running.gateway)
        assert [line["edgeq.cache"] for line in lines] == ["miss", *["hit"] * 23]
        assert "edgeq.endpoint" not in lines[1]
        assert running.upstream.problems == []


def test_variants_by_accept_encoding() -> None:
    """Each client gets what it can read."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        coding = request.get(b"accept-encoding") or b"none"
        connection.send(answer(coding, b"200 OK", b"Cache-Control: max-age=60", b"Vary: Accept-Encoding"))

    with bench(with_cache()) as running:
        running.handle(handler)
        for _ in range(2):
            assert ask(running.gateway.address, "Accept-Encoding: gzip").body == b"gzip"
            assert ask(running.gateway.address, "Accept-Encoding: br").body == b"br"
            assert ask(running.gateway.address).body == b"none"
        assert len(running.upstream.requests) == 3


def test_a_change_is_seen_at_once() -> None:
    """An unsafe request that succeeds drops what is stored."""
    with cached() as running:
        address = running.gateway.address
        ask(address)
        ask(address)
        ask(address, "Content-Length: 0", method="POST")
        ask(address)
        assert [one.method for one in running.upstream.requests] == [b"GET", b"POST", b"GET"]


class Slow:
    """An upstream that keeps its answers back until they are let go."""

    def __init__(self, running: Bench, data: bytes = CACHED) -> None:
        self.go = threading.Event()
        self.running = running

        def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
            connection.wait(self.go)
            connection.send(data)

        running.handle(handler)

    def asked(self, count: int) -> None:
        """Wait until so many requests are there."""
        self.running.upstream.wait_for(lambda: len(self.running.upstream.requests) >= count, what=f"{count} requests")


def test_many_clients_join_one_request() -> None:
    """And one of them that leaves meanwhile changes nothing."""
    with bench(with_cache(join="30s")) as running:
        slow = Slow(running)
        clients = [running.connect(timeout_s=30) for _ in range(50)]
        clients[0].send(head("GET", "/a"))
        slow.asked(1)
        for client in clients[1:]:
            client.send(head("GET", "/a"))
        probe = running.connect(timeout_s=30)  # its answer comes after the others have been read
        probe.send(head("GET", "/probe"))
        slow.asked(2)
        clients[7].reset()
        slow.go.set()
        for number, client in enumerate(clients):
            if number != 7:
                (got,) = client.read_answers([Asked()])
                assert (got.status, got.body) == (200, b"hello")
            client.close()
        probe.close()
        assert len(running.upstream.requests) == 2
        lines = told(running.gateway)
        assert sorted(str(line.get("edgeq.cache")) for line in lines if line["url.path"] == "/a") in (
            ["None"] + ["joined"] * 48 + ["miss"],
            ["joined"] * 49 + ["miss"],  # the reset came after the answer
        )


def test_when_the_leader_leaves_another_one_leads_on() -> None:
    """Its request is cancelled at the upstream, and asked again for those who wait."""
    with bench(with_cache(join="30s")) as running:
        slow = Slow(running)
        leader, joined = running.connect(timeout_s=30), running.connect(timeout_s=30)
        leader.send(head("GET", "/a"))
        slow.asked(1)
        joined.send(head("GET", "/a"))
        probe = running.connect(timeout_s=30)
        probe.send(head("GET", "/probe"))
        slow.asked(2)
        leader.reset()
        slow.asked(3)
        slow.go.set()
        (got,) = joined.read_answers([Asked()])
        assert got.body == b"hello"
        for client in (joined, probe):
            client.close()


def test_nobody_waits_long_for_a_leader() -> None:
    """`join` bounds it: then each asks for itself."""
    with bench(with_cache(join="200ms")) as running:
        slow = Slow(running)
        clients = [running.connect(timeout_s=30) for _ in range(3)]
        for client in clients:
            client.send(head("GET", "/a"))
        slow.asked(3)
        slow.go.set()
        for client in clients:
            (got,) = client.read_answers([Asked()])
            assert got.body == b"hello"
            client.close()


def test_a_slow_reader_of_a_stored_answer() -> None:
    """It gets all of it in its own time, and others are served meanwhile."""
    body = b"0123456789abcdef" * 20_000
    data = answer(body, b"200 OK", b"Cache-Control: max-age=3600")
    with cached(data) as running:
        address = running.gateway.address
        assert ask(address).body == body
        with running.connect(receive_buffer_bytes=4096) as slow:
            slow.send(head("GET", "/a") * 5)
            slow.read_some()
            for _ in range(3):
                assert ask(address).body == body
            answers = slow.read_answers([Asked()] * 5, timeout_s=60)
            assert [one.body == body for one in answers] == [True] * 5
        assert len(running.upstream.requests) == 1


def test_a_slow_leader_does_not_hold_up_who_joined() -> None:
    """The answer is read to its end for the cache."""
    body = b"0123456789abcdef" * 60_000
    with bench(with_cache(join="30s")) as running:
        slow = Slow(running, answer(body, b"200 OK", b"Cache-Control: max-age=3600"))
        with running.connect(receive_buffer_bytes=4096) as leader, running.connect(timeout_s=30) as joined:
            leader.send(head("GET", "/a"))
            slow.asked(1)
            joined.send(head("GET", "/a"))
            with running.connect(timeout_s=30) as probe:
                probe.send(head("GET", "/probe"))
                slow.asked(2)
                slow.go.set()
                assert joined.read_large(len(body)).body == body
                assert leader.read_large(len(body)).body == body


@contextlib.contextmanager
def dead_after(first: bytes, **cache: Value) -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    """A gateway whose upstream has answered one request and then died."""
    with upstream(serve(reply(first))) as backend, gateway.running(backend.port, with_cache(**cache)) as edge:
        ask(edge.address)
        backend.stop()
        yield edge, backend


def test_stale_if_error_when_the_upstream_is_dead() -> None:
    """What is stored and over is better than nothing; the answer and the log say why."""
    stored = answer(b"old", b"200 OK", b"Cache-Control: max-age=60", b"Age: 70", b'ETag: "a"')
    with dead_after(stored) as (edge, _):
        got = ask(edge.address)
        assert (got.status, got.body) == (200, b"old")
        assert int(got.get(b"age") or b"0") >= 70
        assert b"; fwd=stale; detail=stale-if-error; ttl=-1" in (got.get(b"cache-status") or b"")
        assert b"edgeq-reason=upstream_connect_refused" in (got.get(b"proxy-status") or b"")
        assert ask(edge.address, path="/other").status == 502
        lines = told(edge)
        assert (lines[1]["edgeq.cache"], lines[1]["edgeq.reason"]) == ("stale-if-error", "upstream_connect_refused")
        assert lines[1]["http.response.status_code"] == 200


def test_must_revalidate_is_never_stale() -> None:
    """A failure is told instead."""
    stored = answer(b"old", b"200 OK", b"Cache-Control: max-age=60, must-revalidate", b"Age: 70", b'ETag: "a"')
    with dead_after(stored) as (edge, _):
        assert ask(edge.address).status == 502


def test_stale_while_revalidate() -> None:
    """Answered at once with what is over, while the upstream is asked; then with what it said."""
    count = 0

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        nonlocal count
        count += 1
        if count == 1:
            lines = (b"Cache-Control: max-age=60, stale-while-revalidate=600", b"Age: 70", b'ETag: "a"')
            connection.send(answer(b"old", b"200 OK", *lines))
        else:
            assert request.get(b"if-none-match") == b'"a"'
            connection.send(answer(b"new", b"200 OK", b"Cache-Control: max-age=60"))

    with bench(with_cache()) as running:
        running.handle(handler)
        address = running.gateway.address
        ask(address)
        got = ask(address)
        assert (got.body, b"stale-while-revalidate" in (got.get(b"cache-status") or b"")) == (b"old", True)
        running.upstream.wait_for(lambda: len(running.upstream.requests) == 2, what="the refresh")
        wait_for("what the refresh brought", lambda: ask(address).body == b"new")
        assert len(running.upstream.requests) == 2


def test_a_refresh_does_not_hold_up_a_stop() -> None:
    """Nobody waits for its answer, so the gateway does not either."""
    with bench(with_cache()) as running:
        lines = (b"Cache-Control: max-age=60, stale-while-revalidate=600", b"Age: 70")
        running.handle(reply(answer(b"old", b"200 OK", *lines)))
        address = running.gateway.address
        ask(address)
        running.upstream.drop_idle()
        running.upstream.script = UpstreamConnection.stall
        assert ask(address).body == b"old"
        running.upstream.wait_for(lambda: len(running.upstream.connections) == 2, what="the refresh")
        assert running.gateway.stop() == 0
        assert not running.gateway.events("drain_timeout")


def test_a_reload_keeps_what_is_stored() -> None:
    """Unless the route leads elsewhere now, or has no cache any more."""
    with cached() as running:
        edge, backend = running.gateway, running.upstream
        route: dict[str, Value] = {"name": "r", "upstream": "u", "cache": {"max_bytes": "32MiB"}}
        ask(edge.address)
        edge.reload({"route": [route], "forward": {"via": False}})
        ask(edge.address)
        assert len(backend.requests) == 1
        edge.reload({"route": [{**route, "rewrite": "/b/"}]})
        ask(edge.address)
        assert [one.target for one in backend.requests] == [b"/a", b"/b/a"]
        edge.reload({"route": [{"name": "r", "upstream": "u"}]})
        assert ask(edge.address).get(b"cache-status") is None
        edge.reload({"route": [route]})
        ask(edge.address)
        assert len(backend.requests) == 4


def test_counts_go_on_over_a_reload(tmp_path: Path) -> None:
    """Of a route that leads elsewhere and of a rate with another limit: what Prometheus reads never goes back."""
    rate: dict[str, Value] = {"name": "calls", "by": "route", "enforce": False}
    route: dict[str, Value] = {"name": "r", "upstream": "u", "cache": {}}
    server: dict[str, Value] = {"admin": f"{tmp_path}/admin.sock"}
    settings = Settings(extra={"server": server, "route": [route], "rate": [{**rate, "limits": ["1/h"]}]})
    with bench(settings) as running:
        running.handle(reply(CACHED))
        edge = running.gateway

        def counted() -> tuple[int, int]:
            with connect(f"unix:{tmp_path}/admin.sock") as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: edgeq\r\nConnection: close\r\n\r\n")
                text = read_all(sock).decode()
            return metric(text, 'edgeq_cache_requests_total{outcome="misses",route="r"}'), metric(
                text, 'edgeq_rate_would_refuse_total{rate="calls"}'
            )

        for path in ("/a", "/b", "/c"):
            ask(edge.address, path=path)
        wait_for("the report", lambda: counted() == (3, 2))
        edge.reload({"route": [{**route, "rewrite": "/b/"}], "rate": [{**rate, "limits": ["1/d"]}]})
        for path in ("/d", "/e", "/f"):
            ask(edge.address, path=path)
        wait_for("the next report", lambda: counted() == (6, 5), 10)


def metric(text: str, name: str) -> int:
    """0 as long as there is none."""
    return next((int(float(line[len(name) :])) for line in text.splitlines() if line.startswith(name)), 0)


def test_rates_count_what_the_cache_answers() -> None:
    """A quota is about asking, not about the upstream."""
    settings = with_cache()
    extra = {**settings.extra, "rate": [{"name": "q", "by": "client", "limits": ["2/h"]}]}
    with bench(Settings(extra=extra)) as running:
        running.handle(reply(CACHED))
        assert [ask(running.gateway.address).status for _ in range(3)] == [200, 200, 429]
        assert len(running.upstream.requests) == 1


# -- fallbacks --------------------------------------------------------------------------------------------------------


def fallback_to(port: int, **more: Value) -> dict[str, Value]:
    return {
        "upstream": {"backup": {"endpoints": [f"http://127.0.0.1:{port}"]}},
        "route": [{"name": "r", "upstream": "u", "fallback": {"upstream": "backup", **more}}],
    }


def test_connection_refused_goes_to_the_backup() -> None:
    """With its body, also if it is a POST: it was never sent."""
    with upstream() as backup, gateway.running(free_port(), Settings(extra=fallback_to(backup.port))) as edge:
        for method in ("GET", "POST"):
            with RawClient(edge.address) as client:
                got = client.ask(head(method, "/a", "Content-Length: 5") + b"hello")
            assert (got.status, got.body) == (200, b"hello")
            said = got.get(b"proxy-status") or b""
            assert b"edgeq-reason=upstream_connect_refused" in said
            assert b'edgeq-fallback="upstream/backup"' in said
        lines = told(edge)
        assert [line["edgeq.fallback"] for line in lines] == ["upstream/backup"] * 2
        assert [line["edgeq.reason"] for line in lines] == ["upstream_connect_refused"] * 2
        assert backup.problems == []


@pytest.mark.parametrize("where", ["upstream", "answer"])
def test_a_full_queue(where: str) -> None:
    """Who finds no place is served by something else, at once; the others get theirs."""
    with upstream() as backup:
        extra = fallback_to(backup.port)
        if where == "answer":
            prepared: Value = {"answer": {"status": 503, "content_type": "text/html", "body": "<p>later</p>"}}
            extra["route"] = [{"name": "r", "upstream": "u", "fallback": prepared}]
        limits: dict[str, Value] = {"u": {"limit": 1, "queue": {"max": 1, "timeout": "20s", "discipline": "fifo"}}}
        extra["upstream"] = {**limits, "backup": {"endpoints": [backup.url]}}
        with machine(Settings(limit=1, extra=extra)) as made:
            running = made.running
            slow = Slow(running, answer(b"mine"))
            first, second = running.connect(timeout_s=30), running.connect(timeout_s=30)
            first.send(head("GET", "/1"))
            slow.asked(1)
            second.send(head("GET", "/2"))
            made.wait_queued(1)
            got = ask(running.gateway.address, path="/3")
            assert b"edgeq-reason=queue_full" in (got.get(b"proxy-status") or b"")
            if where == "answer":
                assert (got.status, got.body) == (503, b"<p>later</p>")
                assert int(got.get(b"retry-after") or b"0") >= 1
            else:
                assert (got.status, got.get(b"x-path")) == (200, b"/3")
            slow.go.set()
            for client in (first, second):
                (mine,) = client.read_answers([Asked()])
                assert mine.body == b"mine"
                client.close()
            assert len(running.upstream.requests) == 2


def test_an_open_circuit() -> None:
    """While it is open the upstream is left alone."""
    prepared: dict[str, Value] = {"on": ["circuit_open"], "answer": {"status": 200, "body": "prepared"}}
    extra: dict[str, Value] = {
        "upstream": {"u": {"breaker": {"min_requests": 3, "open": "10m"}, "eject": {"failures": 0}}},
        "route": [{"name": "r", "upstream": "u", "fallback": prepared}],
    }
    with bench(Settings(extra=extra)) as running:
        running.handle(reply(answer(b"no", b"500 No")))
        address = running.gateway.address
        assert [ask(address).status for _ in range(3)] == [500] * 3
        got = ask(address)
        assert (got.status, got.body, got.get(b"content-type")) == (200, b"prepared", b"text/plain; charset=utf-8")
        assert b"edgeq-reason=circuit_open" in (got.get(b"proxy-status") or b"")
        assert len(running.upstream.requests) == 3
        lines = told(running.gateway)
        assert (lines[3]["edgeq.fallback"], lines[3]["edgeq.reason"]) == ("answer", "circuit_open")


def test_the_upstreams_own_failures() -> None:
    """Named by their status; a request that may not be repeated gets them as they are."""
    with upstream() as backup, bench(Settings(extra=fallback_to(backup.port, on=["500"]))) as running:
        running.handle(reply(answer(b"no", b"500 No")))
        assert ask(running.gateway.address).get(b"x-path") == b"/a"
        with running.connect() as client:
            assert client.ask(head("POST", "/a", "Content-Length: 1") + b"x").status == 500


def test_clients_faults_are_told() -> None:
    """A prepared answer is not for what the client has done wrong."""
    prepared: Value = {"answer": {"status": 200, "body": "prepared"}}
    extra: dict[str, Value] = {
        "route": [{"name": "r", "upstream": "u", "fallback": prepared, "body_bytes": 3}],
        "rate": [{"name": "q", "by": "client", "limits": ["1/h"]}],
    }
    with bench(Settings(extra=extra)) as running:
        running.handle()
        with running.connect() as client:
            assert client.ask(head("POST", "/a", "Content-Length: 5") + b"hello").status == 413
        assert ask(running.gateway.address).status == 200
        assert ask(running.gateway.address).status == 429


def test_a_backup_that_is_dead_too() -> None:
    """The refusal tells the first reason; nothing waits or goes in circles."""
    with gateway.running(free_port(), Settings(extra=fallback_to(free_port()))) as edge:
        got = ask(edge.address)
        assert got.status == 502
        problem = json.loads(got.body)
        assert problem["reason"] == "upstream_connect_refused"
        assert "its fallback failed, too" in problem["detail"]
        lines = told(edge)
        assert lines[0]["edgeq.second_reason"] == "upstream_connect_refused"


def test_nothing_is_left_behind_after_many_joins_and_resets() -> None:
    """Clients that reset in the middle of everything; afterwards the gateway serves, and its workers are the same."""
    with cached(answer(b"x" * 50_000, b"200 OK", b"Cache-Control: max-age=0", b'ETag: "a"')) as running:
        ask(running.gateway.address)
        pids = running.gateway.workers
        for number in range(60):
            client = running.connect()
            client.send(head("GET", f"/{number % 3}"))
            if number % 2:
                client.reset()
            else:
                client.socket.shutdown(socket.SHUT_RDWR)
                client.close()
        assert ask(running.gateway.address).body == b"x" * 50_000
        assert running.gateway.workers == pids
        assert "Traceback" not in running.gateway.stderr()
