"""Rates, tenants and deadlines of a real gateway."""

from __future__ import annotations

import json
import os
import signal

from tests.support import gateway, kernel
from tests.support.gateway import Settings, Value
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import echo, reply, reply_then, serve, upstream


def ask(address: tuple[str, int], *lines: bytes) -> Answer:
    """One request with these field lines, on a connection of its own."""
    with RawClient(address) as client:
        return client.ask(b"\r\n".join((b"GET /a HTTP/1.1", b"Host: a", *lines, b"", b"")))


def test_rates_by_tenant_and_what_a_reload_does_to_them() -> None:
    """Each tenant has its quota; a reload that does not concern the rate does not renew it, one that does may."""
    rate: dict[str, Value] = {"name": "calls", "by": "tenant", "limits": ["2/h"], "headers": "both"}
    extra: dict[str, Value] = {"tenant": {"key": "header:x-api-key"}, "rate": [rate]}
    with upstream(serve(echo)) as backend, gateway.running(backend.port, Settings(extra=extra)) as edge:
        first = ask(edge.address, b"X-Api-Key: red")
        assert (first.status, first.get(b"ratelimit"), first.get(b"x-ratelimit-remaining")) == (
            200,
            b'"calls";r=1;t=1800',
            b"1",
        )
        assert first.get(b"ratelimit-policy") == b'"calls";q=2;w=3600'
        assert ask(edge.address, b"x-api-key: red").status == 200
        refused = ask(edge.address, b"X-Api-Key: red")
        assert refused.status == 429
        assert 1790 <= int(refused.get(b"retry-after") or 0) <= 1800
        assert json.loads(refused.body)["resource"] == "rate/calls"
        assert ask(edge.address, b"X-Api-Key: blue").status == 200
        edge.reload({"forward": {"via": False}})
        assert ask(edge.address, b"X-Api-Key: red").status == 429
        edge.reload({"rate": [{**rate, "enforce": False}]})
        assert ask(edge.address, b"X-Api-Key: red").status == 200
        edge.stop()
        lines = [json.loads(line) for line in edge.log_lines()]
        assert {line["edgeq.tenant"][:4] for line in lines} == {"key-"}
        assert len({line["edgeq.tenant"] for line in lines}) == 2


def test_the_wait_for_a_busy_worker_counts() -> None:
    """A request whose connection nobody accepts counts from when it came: its upstream is told what is left, its log
    line how long that was, and whose time is over is not sent there. So do not later ones of the connection."""
    extra: dict[str, Value] = {
        "listener": {"trusted": ["127.0.0.0/8"]},
        "forward": {"deadline": "grpc-timeout"},
        "route": [
            {"name": "long", "upstream": "u", "timeout": 60},
            {"name": "short", "upstream": "u", "timeout": 0.1, "match": {"path": "/short"}},
        ],
    }
    with upstream(serve(echo)) as backend, gateway.running(backend.port, Settings(extra=extra)) as edge:
        with edge.asleep(), RawClient(edge.address) as late, RawClient(edge.address) as told:
            late.send(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
            told.send(b"GET /told HTTP/1.1\r\nHost: a\r\nGrpc-Timeout: 50S\r\n\r\n")
            for client in (late, told):
                kernel.wait_until_sent_ms(client.socket, 200)
            for pid in edge.workers:
                os.kill(pid, signal.SIGCONT)
            (refused,) = late.read_answers([Asked()])
            (served,) = told.read_answers([Asked()])
            again = told.ask(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (refused.status, served.status, again.status) == (504, 200, 200)
        assert json.loads(refused.body)["reason"] == "deadline_expired"
        left = {one.target: int((one.get(b"grpc-timeout") or b"").removesuffix(b"m")) for one in backend.requests}
        assert left.keys() == {b"/told", b"/again"}
        assert left[b"/told"] <= 50_000 - 200 + kernel.TICK_MS
        assert left[b"/again"] > 50_000
        edge.stop()
        waits = {line["url.path"]: line.get("edgeq.kernel_ms", 0) for line in map(json.loads, edge.log_lines())}
        assert waits.pop("/again") == 0
        assert min(waits.values()) >= 200 - kernel.TICK_MS


def test_a_deadline_reaches_the_upstream() -> None:
    """A trusted peer's time, as far as it is shorter than the route's own."""
    extra: dict[str, Value] = {
        "listener": {"trusted": ["127.0.0.0/8"]},
        "forward": {"deadline": "Grpc-Timeout"},
        "route": [{"name": "r", "upstream": "u", "timeout": 200}],
    }
    with upstream(serve(echo)) as backend, gateway.running(backend.port, Settings(extra=extra)) as edge:
        assert ask(edge.address).status == 200  # its time runs while the worker starts
        assert ask(edge.address).status == 200
        assert ask(edge.address, b"Grpc-Timeout: 100S").status == 200
        assert ask(edge.address, b"Grpc-Timeout: 0m").status == 504
        seen = [request.get(b"grpc-timeout") for request in backend.requests[1:]]
        assert len(seen) == 2
        left_ms = [int((value or b"0m").removesuffix(b"m")) for value in seen]
        assert 100_000 < left_ms[0] <= 200_000
        assert 0 < left_ms[1] <= 100_000


def test_retries_find_the_endpoint_that_works() -> None:
    """One endpoint answers 503, one resets: while the budget lasts no client notices."""
    busy = serve(reply(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
    with upstream(busy) as first, upstream(serve(reply_then(b"", "reset"))) as second, upstream(serve(echo)) as third:
        extra: dict[str, Value] = {
            "upstream": {
                "u": {
                    "endpoints": [first.url, second.url, third.url],
                    "balance": "round-robin",
                    "retry_budget": {"share": 0, "reserve": 0.6},
                }
            },
            "route": [{"name": "r", "upstream": "u", "retry": {"on": ["503", "reset"], "attempts": 3}}],
        }
        with gateway.running(third.port, Settings(extra=extra)) as edge:
            statuses = [ask(edge.address).status for _ in range(12)]
            edge.stop()
            lines = [json.loads(line) for line in edge.log_lines()]
    assert statuses[:3] == [200] * 3  # with at most two retries each, and six are in the budget
    assert set(statuses[3:]) == {200, 502, 503}
    assert max(line["edgeq.attempts"] for line in lines) == 3
    assert "retry_budget_exhausted" in {line.get("edgeq.second_reason") for line in lines}
