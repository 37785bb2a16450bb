"""What an upstream does, or what keeps it from being reached."""

from __future__ import annotations

import json
import socket

from tests.reasons.stage import PATIENCE, SOON, Seen, Stage, Tables, get, provokes, wait_for_event
from tests.support import kernel
from tests.support.gateway import Settings
from tests.support.namespace import namespace
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, serve


@provokes("circuit_open", upstream={"breaker": {"min_requests": 2, "open": PATIENCE}})
def circuit_open(stage: Stage) -> Seen:
    for _ in range(2):
        assert stage.ask(get("circuit_open", "fail")).status == 500
    got = stage.ask(get("circuit_open"))
    assert 1 < int(got.get(b"retry-after") or 0) <= 60
    return Seen("upstream/circuit_open:breaker", got)


def _full_endpoints(stage: Stage) -> Tables:
    """Two, each with room for one request and for one that waits."""
    pool: Tables = {"max_connections": 1, "queue": 1, "queue_timeout": PATIENCE}
    return {"endpoints": [stage.server.url, stage.second_server.url], "pool": pool}


@provokes("upstream_saturated", upstream=_full_endpoints)
def upstream_saturated(stage: Stage) -> Seen:
    with stage.holding():
        asked = [stage.send(get("upstream_saturated", "hold")) for _ in range(5)]
        return Seen("upstream/upstream_saturated:pool", stage.first_answer(asked))


@provokes("upstream_none_healthy", upstream={"health": {"path": "/sick/fail"}, "panic_threshold": 0})
def upstream_none_healthy(stage: Stage) -> Seen:
    wait_for_event(stage.main, "endpoint_unhealthy", upstream="upstream_none_healthy")
    return Seen("upstream/upstream_none_healthy", stage.ask(get("upstream_none_healthy")))


def _nobody(stage: Stage) -> Tables:
    return {"endpoints": [f"http://127.0.0.1:{stage.port('nobody')}"]}


@provokes("upstream_connect_refused", upstream=_nobody)
def upstream_connect_refused(stage: Stage) -> Seen:
    got = stage.ask(get("upstream_connect_refused"))
    return Seen(f"upstream/upstream_connect_refused#127.0.0.1:{stage.port('nobody')}", got)


def _deaf(stage: Stage) -> Tables:
    return {"endpoints": [f"http://127.0.0.1:{stage.port('deaf')}"], "timeouts": {"connect": SOON}}


@provokes("upstream_connect_timeout", upstream=_deaf)
def upstream_connect_timeout(stage: Stage) -> Seen:
    """A full accept queue of TCP: the kernel does not answer."""
    with socket.create_server(("127.0.0.1", stage.port("deaf")), backlog=0), socket.socket() as filler:
        filler.connect(("127.0.0.1", stage.port("deaf")))
        got = stage.ask(get("upstream_connect_timeout"))
    return Seen(f"upstream/upstream_connect_timeout#127.0.0.1:{stage.port('deaf')}", got)


BROADCAST = "127.255.255.255:9"
"""Of the loopback network: no TCP connection leads there."""


@provokes("upstream_connect_failed", upstream={"endpoints": [f"http://{BROADCAST}"]})
def upstream_connect_failed(stage: Stage) -> Seen:
    return Seen(f"upstream/upstream_connect_failed#{BROADCAST}", stage.ask(get("upstream_connect_failed")))


def _full_socket(stage: Stage) -> Tables:
    return {"endpoints": [f"unix:{stage.directory}/full.sock"]}


@provokes("upstream_backlog_full", upstream=_full_socket)
def upstream_backlog_full(stage: Stage) -> Seen:
    """A full accept queue of a Unix socket: the kernel says so."""
    path = f"{stage.directory}/full.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        got = stage.ask(get("upstream_backlog_full"))
    return Seen(f"upstream/upstream_backlog_full#unix:{path}", got)


@provokes("upstream_port_exhausted")
def upstream_port_exhausted(stage: Stage) -> Seen:
    """In a network namespace with one local port that is in use. What this process does there happens in threads."""
    place = stage.closing.enter_context(namespace())
    server = place.call(lambda: stage.closing.enter_context(ScriptedUpstream(serve(stage.act))))
    started = place.call(lambda: stage.start(Settings(extra={"upstream": {"u": {"endpoints": [server.url]}}})))
    first, second = (place.call(lambda: RawClient(started.address)) for _ in range(2))
    place.run("sysctl", "-w", "net.ipv4.ip_local_port_range=61000 61000")
    with stage.holding(), first, second:
        first.send(get("upstream_port_exhausted", "hold"))
        server.wait_for(lambda: len(server.requests) == 1, 20, "the port is in use")
        got = second.ask(get("upstream_port_exhausted"))
    return Seen(f"upstream/u#127.0.0.1:{server.port}", got)


def _plain_server(stage: Stage) -> Tables:
    return {"endpoints": [f"https://127.0.0.1:{stage.server.port}"]}


@provokes("upstream_tls_failed", upstream=_plain_server)
def upstream_tls_failed(stage: Stage) -> Seen:
    return Seen(stage.endpoint("upstream_tls_failed"), stage.ask(get("upstream_tls_failed")))


@provokes("upstream_timeout", upstream={"timeouts": {"first_byte": SOON}})
def upstream_timeout(stage: Stage) -> Seen:
    return Seen(stage.endpoint("upstream_timeout"), stage.ask(get("upstream_timeout", "stall")))


@provokes("upstream_reset", upstream={})
def upstream_reset(stage: Stage) -> Seen:
    return Seen(stage.endpoint("upstream_reset"), stage.ask(get("upstream_reset", "reset")))


@provokes("upstream_truncated", upstream={})
def upstream_truncated(stage: Stage) -> Seen:
    """Its answer has begun, so there is no other one: the client sees that it is cut."""
    client = stage.send(get("upstream_truncated", "cut"))
    (got,) = client.read_answers([Asked()])
    assert (got.status, got.body, got.complete) == (200, b"half", False)
    return Seen(stage.endpoint("upstream_truncated"), status=200)


@provokes("upstream_protocol_error", upstream={})
def upstream_protocol_error(stage: Stage) -> Seen:
    return Seen(stage.endpoint("upstream_protocol_error"), stage.ask(get("upstream_protocol_error", "garbage")))


@provokes(
    "upstream_failed",
    upstream={},
    route={"fallback": {"on": ["500"], "answer": {"status": 200, "body": "instead"}}},
)
def upstream_failed(stage: Stage) -> Seen:
    got = stage.ask(get("upstream_failed", "fail"))
    assert (got.status, got.body) == (200, b"instead")
    assert b"edgeq-reason=upstream_failed" in (got.get(b"proxy-status") or b"")
    return Seen(stage.endpoint("upstream_failed"), status=200)


@provokes("upstream_shed", upstream={})
def upstream_shed(stage: Stage) -> Seen:
    got = stage.ask(get("upstream_shed", "busy"))
    assert (got.status, got.get(b"proxy-status")) == (503, None)
    return Seen(stage.endpoint("upstream_shed"), status=503)


@provokes(
    "retry_budget_exhausted",
    upstream={"retry_budget": {"share": 0, "reserve": 0}},
    route={"retry": {"on": ["500"]}},
)
def retry_budget_exhausted(stage: Stage) -> Seen:
    assert stage.ask(get("retry_budget_exhausted", "fail")).status == 500
    return Seen("route/retry_budget_exhausted:retry", status=500)


def _named(stage: Stage, token: str, name: str) -> Seen:
    """A request, once the lookup of an upstream's name has failed; before, nobody can tell why there is no address."""
    wait_for_event(stage.main, "upstream_name_failed", name=name)
    found: list[Answer] = []

    def is_known() -> bool:
        found[:] = [stage.ask(get(token))]
        return bool(json.loads(found[0].body)["reason"] == token)

    kernel.wait_until(is_known, 20, token)
    return Seen(f"upstream/{token}", found[0])


@provokes("dns_error", upstream={"endpoints": ["http://unknown.test:80"]})
def dns_error(stage: Stage) -> Seen:
    return _named(stage, "dns_error", "unknown.test")


@provokes("dns_timeout", upstream={"endpoints": ["http://silent.test:80"]})
def dns_timeout(stage: Stage) -> Seen:
    return _named(stage, "dns_timeout", "silent.test")
