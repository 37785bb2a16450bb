"""What happens where connections arrive, in the worker as a whole, and before an upstream is known."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

from tests.reasons.stage import NO_PRESSURE, SOON, Seen, Stage, Tables, get, provokes, wait_for_event
from tests.support import kernel
from tests.support.gateway import Settings
from tests.support.raw_client import Answer, Asked, RawClient

NOWHERE = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"


@provokes("accept_backlog_overflow", listener={"backlog": 1})
def accept_backlog_overflow(stage: Stage) -> Seen:
    """Six clients at once while the worker stands still, and room for two."""
    (worker,) = stage.main.workers
    clients = [socket.socket() for _ in range(6)]
    with kernel.stopped(worker):
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", stage.port("accept_backlog_overflow")))
    seen = Seen("listener/accept_backlog_overflow:accept", event="accept_overflow")
    wait_for_event(stage.main, seen.event)
    for client in clients:
        client.close()
    return seen


@provokes("conn_limit_listener", listener={"max_connections": 1, "queue": {"max": 0}})
def conn_limit_listener(stage: Stage) -> Seen:
    with stage.connect("conn_limit_listener") as first:
        assert first.ask(NOWHERE).status == 404
        (got,) = stage.connect("conn_limit_listener").read_answers([Asked()])
    return Seen("listener/conn_limit_listener:max_connections", got, "connection_refused")


@provokes("conn_limit_client", listener={"max_connections_per_client": 1})
def conn_limit_client(stage: Stage) -> Seen:
    with stage.connect("conn_limit_client") as first:
        assert first.ask(NOWHERE).status == 404
        (got,) = stage.connect("conn_limit_client").read_answers([Asked()])
    return Seen("listener/conn_limit_client:max_connections_per_client", got, "connection_refused")


@provokes("fd_exhausted", listener={})
def fd_exhausted(stage: Stage) -> Seen:
    """The worker may open no more than it has open, so after a few connections there is none left for the next."""
    (worker,) = stage.main.workers
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{worker}/fd"))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        clients = []
        for _ in range(highest + 2):
            client = stage.connect("fd_exhausted")
            clients.append(client)
            client.send(NOWHERE)
            (got,) = client.read_answers([Asked()])
            if got.status != 404:
                break
        for client in clients:
            client.close()
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    return Seen("listener/fd_exhausted:accept", got, "connection_refused")


def _pressed(stage: Stage, reason: str, **protect: float) -> Seen:
    """Refused by a worker that is pressed: with a threshold that it is sure to pass."""
    started = stage.start(Settings(extra={"protect": {**NO_PRESSURE, **protect}}))
    found: list[Answer] = []
    with RawClient(started.address) as client:

        def is_refused() -> bool:
            found[:] = [client.ask(get("any"))]
            return found[0].status == 503

        kernel.wait_until(is_refused, 20, "a refusal")
    return Seen(f"worker:{reason}", found[0])


@provokes("loop_lag")
def loop_lag(stage: Stage) -> Seen:
    return _pressed(stage, "loop_lag", loop_lag=0.000_001)


@provokes("memory_pressure")
def memory_pressure(stage: Stage) -> Seen:
    return _pressed(stage, "memory_pressure", memory=0.000_01)


@provokes("draining")
def draining(stage: Stage) -> Seen:
    """SIGTERM while a request is at the upstream, which takes longer than may be waited for."""
    settings = Settings(extra={"server": {"drain_timeout": SOON}, "listener": {"name": "main"}})
    started = stage.start(settings)
    with stage.holding(), RawClient(started.address) as client:
        client.send(get("draining", "hold"))
        stage.wait_seen("draining", 1)
        started.process.send_signal(signal.SIGTERM)
        (got,) = client.read_answers([Asked()])
        assert started.process.wait(20) == 0
    return Seen("listener/main", got)


@provokes("no_route")
def no_route(stage: Stage) -> Seen:
    return Seen("listener/main", stage.ask(NOWHERE))


@provokes("config_error")
def config_error(stage: Stage) -> Seen:
    """The CA of one upstream is gone when a worker is started again; the other upstream is served."""
    authority = Path(stage.directory) / "authority.pem"
    authority.write_bytes(stage.certificate.path.read_bytes())
    endpoints = [f"https://127.0.0.1:{stage.server.port}"]
    extra: Tables = {
        "upstream": {"config_error": {"endpoints": endpoints, "tls": {"ca": str(authority)}}},
        "route": [
            {"name": "config_error", "upstream": "config_error", "match": {"path": "/config_error/*"}},
            {"name": "rest", "upstream": "u"},
        ],
    }
    started = stage.start(Settings(extra=extra))
    authority.unlink()
    os.kill(started.workers[0], signal.SIGKILL)
    with RawClient(started.address) as client:
        got = client.ask(get("config_error"), timeout_s=5)
        assert client.ask(get("rest")).status == 200
    return Seen("upstream/config_error", got)


@provokes("internal_error")
def internal_error(stage: Stage) -> Seen:
    """A head that is read by h11, in which there is a defect."""
    return Seen("listener/main", stage.ask(b"\r\n" + get("any", "", "X-Defect: 1")))
