"""Workers that stop, hang, or are held by a debugger, in real gateways: whom it costs what."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Settings, free_port, running
from tests.support.kernel import is_alive
from tests.support.raw_client import RawClient
from tests.support.scripted_upstream import upstream
from tests.support.supervised import Supervised, Who, ask, connect, read_who, supervised, wait_for

SET_ASIDE = "worker set aside: the others serve for it"
BACK = "worker gets connections again"
KILLED = "stuck worker killed"
ALONE = "worker stuck, and no other is well: nothing is done"
GOES_ON = "stuck worker goes on"


@pytest.fixture
def address() -> str:
    """A free TCP address."""
    return f"127.0.0.1:{free_port()}"


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT to those that are still there."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def waiting(address: str, count: int) -> list[socket.socket]:
    """So many connections that have asked."""
    socks = [connect(address) for _ in range(count)]
    for sock in socks:
        sock.sendall(b"who\n")
    return socks


def answers(socks: list[socket.socket]) -> list[Who]:
    """What they are told, all of them."""
    found = [read_who(sock) for sock in socks]
    for sock in socks:
        sock.close()
    return found


def row(gateway: Supervised, slot: int) -> dict[str, Any]:
    """What `show workers` tells of one."""
    (found,) = [one for one in gateway.admin("GET", "/v1/workers")[1] if one["slot"] == slot]
    return dict(found)


def silent_for(gateway: Supervised, slot: int, seconds: float) -> Callable[[], bool]:
    """Has this worker given no sign of life for so long?"""
    return lambda: bool(row(gateway, slot)["beat_age_ms"] > 1000 * seconds)


def test_a_stopped_worker_costs_nobody_anything(tmp_path: Path, address: str) -> None:
    """Who waits in its accept queue is served by another worker, new connections go to the others, everybody is told;
    and when it goes on, it gets its share again. A reload switches all of it off."""
    with supervised(tmp_path, addresses=[address], workers=3, stuck_after=1, stuck_restart=60) as gateway:
        pids = gateway.pids()
        with stopped(pids[0]):
            found = answers(waiting(address, 30))
            assert {who.slot for who in found} <= {1, 2}
            wait_for("word of it", lambda: gateway.events(SET_ASIDE))
            assert {ask(address).slot for _ in range(30)} == {1, 2}
            assert (row(gateway, 0)["aside"], row(gateway, 1)["aside"]) == (True, False)
            wait_for("its state", lambda: row(gateway, 0)["state"] == "stuck")
            metrics = gateway.text("show metrics")
            assert 'edgeq_worker_aside{worker="0"} 1.0' in metrics
            assert 'edgeq_worker_rescues_total{what="stuck"} 1.0' in metrics
        event = gateway.events(SET_ASIDE)[0]
        assert (event["slot"], event["why"], event["process"]) == (0, "stuck", "stopped")
        wait_for("word of its return", lambda: gateway.events(BACK))
        wait_for("its share", lambda: ask(address).slot == 0)
        assert gateway.pids() == pids

        assert gateway.reload(stuck_after=0)["ok"]
        with stopped(pids[0]):
            wait_for("two seconds", silent_for(gateway, 0, 2))
            assert not row(gateway, 0)["aside"]
        assert len(gateway.events(SET_ASIDE)) == 1
        assert gateway.pids() == pids


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, address: str) -> None:
    """Where it hangs is in the log; then it is killed, and its successor serves."""
    with supervised(tmp_path, addresses=[address], workers=2, stuck_after=1, stuck_restart=2) as gateway:
        with connect(address) as sock:
            sock.sendall(b"who\n")
            who = read_who(sock)
            sock.sendall(b"hang\n")
            assert all(one.slot != who.slot for one in answers(waiting(address, 20)))
            (where,) = wait_for("where it is", lambda: gateway.events("where the stuck worker is"))
            assert "in _hang" in where["where"]
            assert where["worker_pid"] == who.pid
            wait_for("its successor", lambda: gateway.pids().get(who.slot, who.pid) != who.pid)
            assert not row(gateway, who.slot)["aside"]
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        (killed,) = gateway.events(KILLED)
        assert killed["worker_pid"] == who.pid
        assert killed["silent_s"] >= 2
        wait_for("its service", lambda: ask(address).slot == who.slot)
        assert [one["worker_pid"] for one in gateway.events("worker died")] == [who.pid]


@pytest.mark.parametrize("how", ["reload", "stop"])
def test_a_worker_that_stands_still_when_its_socket_goes(tmp_path: Path, address: str, how: str) -> None:
    """Its slot is no longer wanted, or all of it ends, before anybody has noticed that it is stuck: what waits in its
    accept queue is served by another worker."""
    settings: dict[str, Any] = {"workers": 2, "stuck_after": 60, "drain_timeout": 0.1}
    with supervised(tmp_path, addresses=[address], **settings) as gateway, stopped(gateway.pids()[1]):
        left = waiting(address, 30)
        gateway.write(workers=1)
        gateway.signal(signal.SIGHUP if how == "reload" else signal.SIGTERM)
        assert {who.slot for who in answers(left)} == {0}


def test_nobody_is_killed_when_all_stand_still(tmp_path: Path, address: str) -> None:
    """All workers stopped; then all of it, as by a suspension or a freezer: when they go on, nothing has happened."""
    with supervised(tmp_path, addresses=[address], workers=2, stuck_after=1, stuck_restart=1.5) as gateway:
        pids = gateway.pids()
        with stopped(*pids.values()):
            left = waiting(address, 4)
            for slot in pids:
                wait_for("two seconds", silent_for(gateway, slot, 2))
            assert not any(row(gateway, slot)["aside"] for slot in pids)
            assert {one["slot"] for one in gateway.events(ALONE)} == pids.keys()
        wait_for("word of it", lambda: len(gateway.events(GOES_ON)) == len(pids))
        answers(left)
        with stopped(gateway.process.pid, *pids.values()):
            until_s = time.monotonic() + 2
            wait_for("the time to pass", lambda: time.monotonic() > until_s)
        answers(waiting(address, 4))
        assert len(gateway.events(ALONE)) == len(pids)
        assert gateway.events(KILLED) == []
        assert gateway.pids() == pids


def test_the_only_worker_hangs(tmp_path: Path, address: str) -> None:
    """It is not killed, but where it hangs is in the log."""
    with supervised(tmp_path, addresses=[address], workers=1, stuck_after=1, stuck_restart=1.5) as gateway:
        with connect(address) as sock:
            sock.sendall(b"hang\n")
            (where,) = wait_for("where it is", lambda: gateway.events("where the stuck worker is"))
        assert "in _hang" in where["where"]
        assert [one["slot"] for one in gateway.events(ALONE)] == [0]
        assert gateway.events(KILLED) == []


def test_a_full_accept_queue_beside_an_empty_one(tmp_path: Path, address: str) -> None:
    """Long before a worker counts as stuck, others serve what it has no room for; then it is one of them again."""
    with supervised(tmp_path, addresses=[address], workers=2, stuck_after=60, backlog=8) as gateway:
        pids = gateway.pids()
        with stopped(pids[1]):
            socks: list[socket.socket] = []
            while not gateway.events(SET_ASIDE):
                socks += waiting(address, 1)
                assert len(socks) < 1000
            assert {who.slot for who in answers(socks)} == {0}
        event = gateway.events(SET_ASIDE)[0]
        assert (event["slot"], event["why"]) == (1, "crowded")
        assert event["silent_s"] < 60
        wait_for("word of its return", lambda: gateway.events(BACK))
        wait_for("its share", lambda: ask(address).slot == 1)
        assert gateway.pids() == pids


TRACER = """
import ctypes, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
for request in (0x4206, 0x4207):  # PTRACE_SEIZE, PTRACE_INTERRUPT
    if libc.ptrace(request, pid, None, None):
        sys.exit(ctypes.get_errno())
print("holds it", flush=True)
sys.stdin.read()
"""


def test_a_debugger_may_hold_a_worker(tmp_path: Path, address: str) -> None:
    """The others serve for it, but it is not killed."""
    with supervised(tmp_path, addresses=[address], workers=2, stuck_after=1, stuck_restart=1.5) as gateway:
        pids = gateway.pids()
        command = [sys.executable, "-c", TRACER, str(pids[0])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout is not None
            if not tracer.stdout.readline():
                pytest.skip("this machine lets nobody trace")
            wait_for("word of it", lambda: gateway.events(SET_ASIDE))
            wait_for("two seconds", silent_for(gateway, 0, 2))
            assert {who.slot for who in answers(waiting(address, 10))} == {1}
            tracer.communicate()
        wait_for("word of its return", lambda: gateway.events(BACK))
        assert gateway.events(KILLED) == []
        assert gateway.pids() == pids


def test_a_connection_that_another_worker_has_taken_over(tmp_path: Path) -> None:
    """It is one of that worker's own from then on: a reload reaches it."""
    stuck = {"stuck": {"after": 1, "restart": 0}}
    with (
        upstream() as server,
        running(server.port, Settings(workers=2, extra={"server": stuck})) as gateway,
    ):
        victim = gateway.wait_event("worker ready", 2)["worker_pid"]
        with stopped(victim):
            clients = [RawClient(gateway.address, 20) for _ in range(16)]
            for client in clients:
                assert client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
            gateway.wait_event(SET_ASIDE)
        gateway.wait_event(BACK)
        gateway.reload({"listener": {"max_requests": 1}})
        for client in clients:
            assert client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").get(b"connection") == b"close"
            client.close()


def test_requests_that_wait_for_a_worker_that_is_killed(tmp_path: Path) -> None:
    """With the real data plane: each one is answered, those that came before the worker was noticed and those that come
    while it is replaced, and a stop finds nothing that hangs."""
    stuck = {"stuck": {"after": 1, "restart": 2}}
    with (
        upstream() as server,
        running(server.port, Settings(workers=2, extra={"server": stuck})) as gateway,
    ):
        victim = gateway.wait_event("worker ready", 2)["worker_pid"]
        os.kill(victim, signal.SIGSTOP)
        clients = [socket.create_connection(gateway.address, timeout=20) for _ in range(24)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        statuses = []
        while is_alive(victim):
            with socket.create_connection(gateway.address, timeout=20) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                statuses.append(client.recv(12))
        for client in clients:
            statuses.append(client.recv(12))
            client.close()
        assert set(statuses) == {b"HTTP/1.1 200"}
        gateway.wait_event("worker ready", 3)
        assert gateway.stop() == 0
