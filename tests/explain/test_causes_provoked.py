"""Each cause that `edgeq explain` knows, provoked for real: it is named, and no other.

One gateway with steady traffic serves all that is about upstreams; each test changes one thing there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.explain.scene import Behaviour, Clients, Scene, elapsed, overflow
from tests.support import kernel
from tests.support.builds import ONCE
from tests.support.gateway import Settings, Value, free_port, running
from tests.support.namespace import Namespace, namespace
from tests.support.raw_client import RawClient
from tests.support.scripted_upstream import ScriptedUpstream, serve
from tests.support.supervised import wait_for

pytestmark = ONCE

STEADY = ("slow", "shed", "dead", "sick", "more", "noisy", "low", "hurried")
"""Upstreams with traffic."""


class Stage(Scene):
    """The scene with its upstreams."""

    def __init__(self, gateway_scene: Scene, behaviour: Behaviour, tiny: int) -> None:
        super().__init__(gateway_scene.gateway, gateway_scene.admin)
        self.behaviour = behaviour
        self.tiny = ("127.0.0.1", tiny)
        self.mortal: ScriptedUpstream
        self.sick: ScriptedUpstream
        self.is_sick = threading.Event()
        self.clients: dict[str, Clients] = {}


def _settings(admin: Path, urls: dict[str, list[str]], tiny: int) -> Settings:
    queue: Value = {"max": 64, "timeout": "20s", "discipline": "fifo"}
    # No breaker and no second try: what is to be told apart is the upstream, not what edgeq does about it.
    upstreams: dict[str, Value] = {
        name: {"endpoints": urls[name], "limit": 4, "queue": queue, "breaker": {"min_requests": 1_000_000}}
        for name in STEADY
    }
    routes: list[Value] = [{"name": name, "upstream": name, "match": {"path": f"/{name}"}} for name in STEADY]
    extra: dict[str, Value] = {
        "server": {"admin": str(admin)},
        "upstream": upstreams,
        "route": [*routes, {"name": "rest", "upstream": "u", "match": {"path": "/rest"}}],
        "tenant": {"key": "header:x-tenant"},
        "explain": {"slow": "200ms"},
        "listener": {"trusted": ["127.0.0.0/8"]},
        "forward": {"deadline": "x-deadline"},
    }
    listeners: list[dict[str, Value]] = [{"name": "tiny", "address": f"127.0.0.1:{tiny}", "backlog": 1}]
    return Settings(workers=2, listeners=listeners, extra=extra)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("explain")
    behaviour = Behaviour()
    with contextlib.ExitStack() as closing:
        server, mortal, second = (closing.enter_context(ScriptedUpstream(serve(behaviour.act))) for _ in range(3))
        urls = {name: [server.url] for name in STEADY} | {"dead": [mortal.url], "sick": [server.url, second.url]}
        admin, tiny = directory / "admin.sock", free_port()
        started = closing.enter_context(running(server.port, _settings(admin, urls, tiny)))
        started.wait_event("serving")
        made = Stage(Scene(started, admin), behaviour, tiny)
        made.mortal, made.sick = mortal, second
        second.script = serve(lambda one, asked: one.reset() if made.is_sick.is_set() else behaviour.act(one, asked))
        # Those that get many clients: slow enough that these do not make the machine slow, and so the answers.
        behaviour.delays_s |= {b"/low": 0.02, b"/hurried": 0.1, b"/more": 0.03, b"/noisy": 0.03}
        for name in STEADY:
            clients = made.clients[name] = Clients()
            closing.callback(clients.end)
            clients.add(started.address, f"/{name}", 3, "X-Tenant: polite")
        elapsed(4)
        made.is_calm()
        yield made


@contextlib.contextmanager
def more(stage: Stage, path: str, count: int, *fields: str, pace_s: float = 0.03) -> Iterator[None]:
    """More clients meanwhile."""
    clients = Clients()
    clients.add(stage.gateway.address, path, count, *fields, pace_s=pace_s)
    try:
        yield
    finally:
        clients.end()


def test_nothing_is_wrong(stage: Stage) -> None:
    """With traffic everywhere below its limits nothing is named."""
    found = stage.explain()
    assert (found["cause"], found["next"]) == (None, "")
    assert "nothing is saturated" in found["verdict"]
    assert stage.explain("upstream/slow")["verdict"] == "upstream/slow is not saturated"
    assert "no resource" in stage.explain("upstream/unknown")["error"]


def test_the_command(stage: Stage) -> None:
    """Words for people, JSON for programs, and an exit code."""

    def edgeq(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgeq", "explain", "--admin", str(stage.admin), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    plain, asked, unknown = edgeq(), edgeq("upstream/slow", "--json"), edgeq("upstream/unknown")
    assert (plain.returncode, plain.stdout.splitlines()[0]) == (0, "nothing is saturated: nobody waits or is refused")
    assert json.loads(asked.stdout)["verdict"] == "upstream/slow is not saturated"
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "edgeq explain: no resource and no remembered request is called 'upstream/unknown'\n"


def test_an_upstream_that_is_slower(stage: Stage) -> None:
    """The same clients, and each answer takes twenty times as long."""
    stage.behaviour.delays_s[b"/slow"] = 0.1
    with more(stage, "/slow", 6, "X-Tenant: other"):
        found = stage.says("upstream_slower", "upstream/slow")
    del stage.behaviour.delays_s[b"/slow"]
    assert any("before" in one for one in found["evidence"])
    assert found["next"] == "edgeq show endpoints slow"


def test_an_upstream_that_sheds(stage: Stage) -> None:
    """It answers 503 itself."""
    stage.behaviour.statuses[b"/shed"] = b"503 Busy"
    found = stage.says("upstream_shedding", "upstream/shed")
    stage.behaviour.statuses.clear()
    assert found["next"].startswith("edgeq set upstream/shed limit ")


def test_one_sick_endpoint(stage: Stage) -> None:
    """One of two resets every connection."""
    stage.is_sick.set()
    name = f"upstream/sick#127.0.0.1:{stage.sick.port}"
    found = stage.says("endpoint_sick", name)
    stage.is_sick.clear()
    assert found["next"] == f"edgeq drain {name}"


def test_what_an_operator_does_is_no_trouble(stage: Stage) -> None:
    """A drained endpoint, as was advised: nothing is said against it. Who waits at a paused route hears why."""
    name = f"upstream/sick#127.0.0.1:{stage.sick.port}"
    stage.is_calm()
    stage.tell(f"drain {name}")
    wait_for("drained", lambda: "draining" in stage.tell("show endpoints sick"), 20)
    wait_for("nothing against it", lambda: stage.explain("upstream/sick")["cause"] is None)
    stage.tell(f"undrain {name}")
    stage.tell("pause sick")
    found = stage.says("route_paused", "route/sick")
    assert found["next"].startswith("edgeq resume sick ")
    stage.tell("resume sick")
    stage.is_calm()


def test_a_dead_upstream(stage: Stage) -> None:
    """Nobody listens there any more."""
    stage.mortal.stop()
    found = stage.says("upstream_dead", "upstream/dead")
    stage.clients["dead"].end()
    assert any("upstream_connect_refused" in one for one in found["evidence"])


def test_more_traffic(stage: Stage) -> None:
    """Ten times the clients, of several tenants; the service time is what it was."""
    fields = [f"X-Tenant: t{number}" for number in range(5)]
    with contextlib.ExitStack() as all_of_them:
        for one in fields:
            all_of_them.enter_context(more(stage, "/more", 4, one, pace_s=0.001))
        found = stage.says("more_traffic", "upstream/more")
    assert found["next"].startswith("edgeq set upstream/more limit ")


def test_one_noisy_tenant(stage: Stage) -> None:
    """As many clients, all of one tenant, while two others ask as before."""
    with more(stage, "/noisy", 24, "X-Tenant: greedy", pace_s=0.001), more(stage, "/noisy", 2, "X-Tenant: modest"):
        found = stage.says("noisy_tenant", "upstream/noisy")
    assert "tenant greedy" in found["verdict"]


def test_a_limit_that_is_too_low(stage: Stage) -> None:
    """The same traffic, and the limit is lowered."""
    stage.gateway.reload({"upstream": {"low": {"limit": 1}}})
    found = stage.says("limit_too_low", "upstream/low")
    stage.gateway.reload({})
    assert "lowered from 4 to 1" in found["verdict"]
    assert found["next"].startswith("edgeq set upstream/low limit ")


def test_deadlines_that_cannot_be_met(stage: Stage) -> None:
    """What was left of one, and what was expected to pass until its answer, is told beside the cause."""
    told = re.compile(
        r"last refused for its deadline: .* left, .* of wait and .* of service \(95th percentile; median "
    )

    def evidence() -> bool:
        return any(map(told.match, stage.explain("upstream/hurried")["evidence"]))

    with more(stage, "/hurried", 24, "X-Deadline: 0.25", "X-Tenant: a"):
        wait_for("the deadline", evidence)
    stage.is_calm()


def test_an_accept_queue_that_overflows(stage: Stage) -> None:
    """Bursts at a listener with a backlog of one, whose workers have nothing to do."""
    found = stage.says("accept_overflow", "listener/tiny:accept", lambda: overflow(stage.gateway, stage.tiny))
    assert found["next"].startswith("edgeq set listener/tiny backlog ")


def test_a_stuck_worker(stage: Stage) -> None:
    """One of two stands still."""
    (first, *_) = stage.gateway.workers
    with kernel.stopped(first):
        found = stage.says("worker_stuck")
    assert f"process {first}" in found["evidence"][0]
    assert "1 of 2 workers go on" in found["evidence"]


def test_descriptors(stage: Stage) -> None:
    """The workers may open no more than they have open."""
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in stage.gateway.workers}
    clients: list[RawClient] = []

    def one_more() -> None:
        clients.append(RawClient(stage.gateway.address))
        clients[-1].send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")

    try:
        for pid, (_soft, hard) in limits.items():
            highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
        found = stage.says("descriptors_exhausted", "listener/" + _main(stage) + ":accept", one_more)
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        for client in clients:
            client.close()
    assert any("descriptors open" in one for one in found["evidence"])
    assert "LimitNOFILE" in found["next"]


def _main(stage: Stage) -> str:
    return f"{stage.gateway.address[0]}:{stage.gateway.address[1]}"


def test_memory(stage: Stage) -> None:
    """The workers may have less than they have."""
    stage.gateway.reload({"protect": {"memory": 0.000_01}})
    found = stage.says("memory_short", "worker:memory_pressure")
    stage.gateway.reload({})
    stage.is_calm()
    assert sum(bool(re.fullmatch(r"worker [01] has \d+ MiB", one)) for one in found["evidence"]) == 2
    assert any(one.startswith("each may have ") for one in found["evidence"])


def test_busy_workers(stage: Stage) -> None:
    """Each of many clients has one request a turn, but sends them without end, with dozens of fields: turns of the loop
    become long."""
    text = b""
    for request in range(64):  # no two alike: a head that was seen before is read much faster
        fields = b"".join(b"x-%d-%d: value\r\n" % (request, number) for number in range(80))
        text += b"GET /nowhere HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
    over = threading.Event()
    clients = [socket.create_connection(stage.gateway.address, timeout=20) for _ in range(300)]
    flood = threading.Thread(target=_flood, args=(clients, text, over), daemon=True)
    flood.start()
    try:
        found = stage.says("worker_busy")
    finally:
        over.set()
        flood.join(20)
        for sock in clients:
            sock.close()
    assert any("lag of" in one for one in found["evidence"])


def _flood(clients: list[socket.socket], text: bytes, over: threading.Event) -> None:
    """Send as much as is taken, and read what comes."""
    with selectors.DefaultSelector() as selector:
        for sock in clients:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        left = dict.fromkeys(clients, text)
        while not over.is_set():
            for key, events in selector.select(0.1):
                sock = cast("socket.socket", key.fileobj)
                with contextlib.suppress(BlockingIOError):
                    if events & selectors.EVENT_READ:
                        sock.recv(1 << 20)
                    if events & selectors.EVENT_WRITE:  # whole requests, however they are cut
                        left[sock] = left[sock][sock.send(left[sock]) :] or text


# -- what the kernel grants: in a network namespace --------------------------------------------------------------------


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Namespace, ScriptedUpstream]]:
    """A gateway where two connections may wait, although its backlog is 4096."""
    admin = tmp_path_factory.mktemp("cramped") / "admin.sock"
    behaviour = Behaviour()
    with contextlib.ExitStack() as closing:
        place = closing.enter_context(namespace())
        place.run("sysctl", "-w", "net.core.somaxconn=1")
        server = place.call(lambda: closing.enter_context(ScriptedUpstream(serve(behaviour.act))))
        settings = Settings(extra={"server": {"admin": str(admin)}})
        started = place.call(lambda: closing.enter_context(running(server.port, settings)))
        started.wait_event("serving")
        yield Scene(started, admin), place, server


def test_a_backlog_that_the_kernel_cuts(cramped: tuple[Scene, Namespace, ScriptedUpstream]) -> None:
    """Bursts, and the kernel lets fewer wait than are configured."""
    scene, place, _server = cramped
    name = f"listener/{scene.gateway.address[0]}:{scene.gateway.address[1]}:accept"
    found = scene.says("somaxconn", name, lambda: place.call(lambda: overflow(scene.gateway, scene.gateway.address)))
    assert found["next"] == "sysctl -w net.core.somaxconn=4096 && edgeq reload"


def test_no_local_port(cramped: tuple[Scene, Namespace, ScriptedUpstream]) -> None:
    """One local port, for more than one request at a time; clients have connected before."""
    scene, place, server = cramped
    scene.is_calm()
    clients = Clients()
    place.call(lambda: clients.add(scene.gateway.address, "/busy", 4, pace_s=0.001))
    server.wait_for(lambda: len(server.requests) > 20, 20, "requests of all clients")
    place.run("sysctl", "-w", "net.ipv4.ip_local_port_range=61000 61000")
    server.drop_idle(0.2)
    try:
        found = scene.says("ports_exhausted", f"upstream/u#127.0.0.1:{server.port}")
    finally:
        clients.end()
    assert "local ports 61000 to 61000" in found["evidence"][0]
