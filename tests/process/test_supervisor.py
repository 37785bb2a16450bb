"""Real processes: what happens to clients while workers die, change, come and go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.gateway import ROOT, free_port
from tests.support.supervised import Supervised, ask, connect, read_all, read_who, supervised, wait_for

RIGHTS = pytest.mark.parametrize("words", [[], kernel.without_capabilities()], ids=["rights", "no rights"])
"""A service has none; some kernels then do not let it keep connections out of a socket (bpf_io.refuse_new)."""


@pytest.fixture
def address() -> str:
    """A free TCP address."""
    return f"127.0.0.1:{free_port()}"


class Stream(threading.Thread):
    """Connections one after the other: connect, ask, read, close. Failures are kept with their reason."""

    def __init__(self, address: str, stop: threading.Event) -> None:
        super().__init__()
        self._address = address
        self._stop_event = stop
        self.done = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stop_event.is_set():
            try:
                ask(self._address)
                self.done += 1
            except OSError as error:
                self.failures.append(repr(error))


def under_stream(address: str, change: Callable[[], object]) -> tuple[int, list[str]]:
    """Do something while four clients connect without a pause. Returns answers and failures."""
    stop = threading.Event()
    streams = [Stream(address, stop) for _ in range(4)]
    for stream in streams:
        stream.start()
    try:
        change()
    finally:
        stop.set()
        for stream in streams:
            stream.join()
    return sum(stream.done for stream in streams), [failure for stream in streams for failure in stream.failures]


def test_killed_worker_is_replaced_and_its_queue_survives(tmp_path: Path, address: str) -> None:
    """A connection that waits in the accept queue of a worker killed by -9 is served by its successor."""
    with supervised(tmp_path, addresses=[address], workers=1) as running:
        first = ask(address)
        os.kill(first.pid, signal.SIGSTOP)
        waiting = connect(address)
        waiting.sendall(b"who\n")
        os.kill(first.pid, signal.SIGKILL)
        second = read_who(waiting)
        waiting.close()
        assert second.slot == first.slot
        assert second.pid != first.pid
        died = wait_for("the log", lambda: running.events("worker died"))
        assert died[0]["ended"] == "SIGKILL"
        assert died[0]["restart_in_s"] == 0
        (told,) = running.admin("GET", "/v1/workers")[1]
        assert (told["restarts"], told["died_by"]) == (1, "SIGKILL")
        assert told["died_ago_s"] >= 0


def test_workers_go_first(tmp_path: Path, address: str) -> None:
    """The supervisor interrupts nobody who runs, and who wakes up while it runs is not behind it for long; a worker is
    scheduled as usual, but in short slices where the kernel tells of slices. Also one of a later spawner's."""
    with supervised(tmp_path, addresses=[address], workers=1) as running:
        assert os.sched_getscheduler(running.process.pid) == os.SCHED_BATCH
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, running.process.pid) == ours + 5

        def is_as_usual(worker: int) -> None:
            assert os.sched_getscheduler(worker) == os.SCHED_OTHER
            assert os.getpriority(os.PRIO_PROCESS, worker) == ours
            told = Path(f"/proc/{worker}/sched")
            slices = (
                [line.split()[-1] for line in told.read_text().splitlines() if "slice" in line] if told.exists() else []
            )
            assert slices in ([], ["100000"])

        worker = ask(address).pid
        is_as_usual(worker)
        spawner = spawner_of(running)
        os.kill(spawner, signal.SIGKILL)
        wait_for("another spawner", lambda: not set(kernel.children(running.process.pid)) <= {spawner, worker})
        os.kill(worker, signal.SIGKILL)
        wait_for("another worker", lambda: len(running.events("worker ready")) == 2)
        is_as_usual(ask(address).pid)


def test_workers_share_a_secret_for_tickets(tmp_path: Path, address: str) -> None:
    """All have the same from their start, also who is started later, and a reload changes nothing of it."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:

        def secrets() -> dict[int, str]:
            """Of both workers."""
            found: dict[int, str] = {}
            while len(found) < 2:
                who = ask(address)
                found[who.pid] = who.tickets
            return found

        first = secrets()
        assert len(set(first.values())) == 1
        victim = next(iter(first))
        os.kill(victim, signal.SIGKILL)
        wait_for("its successor", lambda: len(running.events("worker ready")) == 3)
        assert running.reload(node="v2")["ok"]
        second = secrets()
        assert victim not in second
        assert set(second.values()) == set(first.values())


def test_the_secret_for_tickets_is_renewed(tmp_path: Path, address: str) -> None:
    """For all workers, each time another one."""
    with supervised(tmp_path, addresses=[address], workers=2, ticket_life_s=0.3):
        seen: dict[int, set[str]] = {0: set(), 1: set()}

        def look() -> bool:
            who = ask(address)
            seen[who.slot].add(who.tickets)
            return len(seen[0] & seen[1]) >= 3

        wait_for("three secrets that both workers have had", look)


def test_siblings_take_over_while_a_worker_is_dead(tmp_path: Path, address: str) -> None:
    """A worker that is killed again and again costs new connections nothing."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:

        def another(victim: int) -> bool:
            return running.pids().get(0, victim) != victim

        def kill_four_times() -> None:
            for _ in range(4):
                victim = wait_for("worker 0", lambda: running.pids().get(0, 0))
                os.kill(victim, signal.SIGKILL)
                wait_for("its successor", partial(another, victim))

        done, failures = under_stream(address, kill_four_times)
        assert done > 0
        # What it had accepted at that moment is lost with it: at most one per client and kill.
        assert len(failures) <= 4 * 4


def test_bad_configuration_keeps_the_old_one(tmp_path: Path, address: str) -> None:
    """SIGHUP with a wrong file: every problem is in the log, and nothing else changes."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        before = running.pids()
        running.write(problem="no such key", workers=3)
        running.signal(signal.SIGHUP)
        refused = wait_for(
            "both problems", lambda: len(running.events("configuration refused, the old one stays")) == 2
        )
        assert refused
        assert "settings.json:1: a.b: no such key" in running.log
        assert running.pids() == before
        assert ask(address).generation == 1
        assert running.admin("POST", "/v1/reload")[0] == 422


def test_sighup_applies_in_running_workers(tmp_path: Path, address: str) -> None:
    """A new configuration reaches the same processes, and open connections stay."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        before = running.pids()
        with connect(address) as kept:
            kept.sendall(b"who\n")
            assert read_who(kept).node == "v1"
            running.write(node="v2")
            running.signal(signal.SIGHUP)
            wait_for("the new generation", lambda: running.events("configuration applied"))
            kept.sendall(b"who\n")
            assert read_who(kept)[2:5] == (2, 2, "v2")
        assert running.pids() == before


def has_workers(running: Supervised, count: int) -> bool:
    """So many processes, the leaving ones included."""
    return len(running.pids()) == count


@RIGHTS
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])
def test_number_of_workers_changes_without_a_reset(tmp_path: Path, family: str, words: list[str]) -> None:
    """Growing and shrinking under a stream of connections loses none of them."""
    port = free_port()
    address = {"ipv4": f"127.0.0.1:{port}", "ipv6": f"[::1]:{port}", "unix": f"unix:{tmp_path}/http.sock"}[family]
    with supervised(tmp_path, words=words, addresses=[address], workers=1) as running:

        def resize() -> None:
            for workers in (4, 2, 1, 3, 1):
                assert running.reload(workers=workers)["ok"]
                wait_for("the leaving ones", partial(has_workers, running, workers))

        done, failures = under_stream(address, resize)
        assert failures == []
        assert done > 100


def test_leaving_worker_finishes_what_runs(tmp_path: Path, address: str) -> None:
    """A worker that leaves still answers the request it has."""
    with supervised(tmp_path, addresses=[address], workers=3) as running:
        held = [connect(address) for _ in range(30)]
        for sock in held:
            sock.sendall(b"hold\n")
        wait_for("all in flight", lambda: sum(row["in_flight"] for row in running.admin("GET", "/v1/workers")[1]) == 30)
        assert running.reload(workers=1)["ok"]
        wait_for("the leaving ones", lambda: len(running.pids()) == 1)
        running.signal(signal.SIGTERM)
        slots = [read_who(sock).slot for sock in held]
        assert sorted(set(slots)) == [0, 1, 2]
        for sock in held:
            sock.close()
        assert running.wait_exit() == 0


@RIGHTS
def test_listeners_come_and_go(tmp_path: Path, address: str, words: list[str]) -> None:
    """A reload adds and removes listeners in running workers; what is open on a removed one goes on."""
    other = f"127.0.0.1:{free_port()}"
    with supervised(tmp_path, words=words, addresses=[address], workers=2) as running:
        before = running.pids()
        kept = connect(address)
        kept.sendall(b"who\n")
        read_who(kept)
        assert running.reload(addresses=[address, other])["ok"]
        assert ask(other).generation == 2
        done, failures = under_stream(other, partial(running.reload, addresses=[other]))
        assert done > 0
        assert failures == []
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        kept.sendall(b"who\n")
        assert read_who(kept).generation == 3
        kept.close()
        assert running.pids() == before


@pytest.mark.parametrize("node", ["stubborn", "unborn", "crash"])
def test_configuration_that_cannot_run_is_taken_back(tmp_path: Path, address: str, node: str) -> None:
    """If one worker refuses, or a new one cannot start, all workers run the old configuration again."""
    other = f"127.0.0.1:{free_port()}"
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        answer = running.reload(node=node, addresses=[address, other], workers=3)
        assert answer["ok"] is False
        assert answer["generation"] == 3
        assert answer["error"]
        wait_for("two workers", lambda: len(running.pids()) == 2)
        assert {ask(address)[2:5] for _ in range(20)} == {(3, 2, "v1")}
        with pytest.raises(ConnectionRefusedError):
            connect(other)
        assert running.reload(node="v2", addresses=[address], workers=2)["ok"]


def test_reload_with_a_port_in_use_changes_nothing(tmp_path: Path, address: str) -> None:
    """If one new listener cannot be bound, the whole reload is refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken, supervised(tmp_path, addresses=[address]) as running:
        third = f"127.0.0.1:{free_port()}"
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        answer = running.reload(addresses=[address, third, busy], node="v2")
        assert answer["ok"] is False
        assert answer["generation"] == 1
        assert busy in answer["error"]
        assert "in use" in answer["error"]
        assert f"pid {os.getpid()}" in answer["error"]
        assert ask(address)[2:5] == (1, 1, "v1")
        with pytest.raises(ConnectionRefusedError):
            connect(third)


@RIGHTS
def test_sigterm_drains_and_loses_nothing_that_was_queued(tmp_path: Path, address: str, words: list[str]) -> None:
    """What runs is finished, what waits in the accept queue is served, then the exit code is 0."""
    unix = f"unix:{tmp_path}/http.sock"
    with supervised(tmp_path, words=words, addresses=[address, unix], workers=2) as running:
        held = connect(address)
        held.sendall(b"hold\n")
        wait_for("it", lambda: sum(row["in_flight"] for row in running.admin("GET", "/v1/workers")[1]) == 1)
        workers = running.pids().values()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        queued = [connect(one) for one in [address] * 20 + [unix] * 5]
        for sock in queued:
            sock.sendall(b"who\n")
        running.signal(signal.SIGTERM)
        wait_for("draining", lambda: running.events("draining"))
        status, said = running.admin("GET", "/readyz")
        assert (status, said["ok"]) == (503, False)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for sock in [held, *queued]:
            read_who(sock)
            sock.close()
        assert running.wait_exit() == 0
        assert not Path(unix.removeprefix("unix:")).exists()
        assert not Path(running.settings["admin"]).exists()
        assert not Path(f"{running.path}.pid").exists()


def queue_of_a_dead_worker(running: Supervised, slot: int, addresses: list[str]) -> list[socket.socket]:
    """Connections that have asked; some wait for a worker that is dead and whose successors die as they start."""
    assert running.reload(node="crash")["ok"]
    victim = running.pids()[slot]
    os.kill(victim, signal.SIGSTOP)
    queued = [connect(one) for one in addresses * 24]
    for sock in queued:
        sock.sendall(b"who\n")
    os.kill(victim, signal.SIGKILL)
    wait_for("its back-off", lambda: len(running.events("worker died")) >= 3)
    return queued


def served_by(queued: list[socket.socket]) -> set[int]:
    """Slots that have answered; every connection must be answered."""
    slots = set()
    for sock in queued:
        slots.add(read_who(sock).slot)
        sock.close()
    return slots


def test_sigterm_while_a_worker_is_in_back_off(tmp_path: Path, address: str) -> None:
    """What waits in the accept queue of a worker that is dead at that moment is served by another one."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        queued = queue_of_a_dead_worker(running, 0, [address])
        running.signal(signal.SIGTERM)
        assert served_by(queued) == {1}
        assert running.wait_exit() == 0


def test_sigterm_while_no_worker_is_alive(tmp_path: Path, address: str) -> None:
    """Nobody can serve what waits: it is told so, and nothing is reset."""
    unix = f"unix:{tmp_path}/http.sock"
    with supervised(tmp_path, addresses=[address, unix], workers=1) as running:
        queued = queue_of_a_dead_worker(running, 0, [address, unix])
        running.signal(signal.SIGTERM)
        for sock, listener in zip(queued, [address, unix] * 24, strict=True):
            with sock:
                head, _, body = read_all(sock).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in head
            told = json.loads(body)
            assert (told["reason"], told["resource"]) == ("draining", f"listener/{listener}")
        assert running.wait_exit() == 0
        refused = running.events("refused what waited for a worker")
        assert {(one["reason"], one["resource"]) for one in refused} == {
            ("draining", f"listener/{listener}") for listener in (address, unix)
        }
        assert {one["address"]: one["connections"] for one in refused} == {address: 24, unix: 24}


def test_sigterm_while_a_worker_hangs(tmp_path: Path, address: str) -> None:
    """Who does not empty its queue in time has it emptied for it; it is killed after the drain time-out."""
    with supervised(tmp_path, addresses=[address], workers=1, drain_timeout=0.1) as running:
        os.kill(running.pids()[0], signal.SIGSTOP)
        with connect(address) as sock:
            sock.sendall(b"who\n")
            running.signal(signal.SIGTERM)
            assert b'"reason":"draining"' in read_all(sock)
        assert running.wait_exit() == 0


def test_fewer_workers_while_one_is_in_back_off(tmp_path: Path, address: str) -> None:
    """A reload that lets a dead worker's slot go has its queue served by those who stay."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        queued = queue_of_a_dead_worker(running, 1, [address])
        assert running.reload(workers=1)["ok"]
        assert served_by(queued) == {0}
        assert ask(address).slot == 0


def test_listener_goes_while_a_worker_is_in_back_off(tmp_path: Path, address: str) -> None:
    """The same for a listener that is not in the configuration any more."""
    other = f"127.0.0.1:{free_port()}"
    with supervised(tmp_path, addresses=[address, other], workers=2) as running:
        queued = queue_of_a_dead_worker(running, 0, [other])
        # Slot 0 comes to life again with this configuration, and need not have been the one who served.
        assert running.reload(addresses=[address], node="v2")["ok"]
        assert len(served_by(queued)) >= 1
        with pytest.raises(ConnectionRefusedError):
            connect(other)


def test_sigterm_ends_within_the_drain_timeout(tmp_path: Path, address: str) -> None:
    """A client that never asks again does not keep the gateway."""
    with supervised(tmp_path, addresses=[address], drain_timeout=0.5) as running, connect(address) as idle:
        idle.sendall(b"who\n")
        read_who(idle)
        running.signal(signal.SIGTERM)
        assert running.wait_exit() == 0


def test_second_signal_ends_it_at_once(tmp_path: Path, address: str) -> None:
    """An operator who is in a hurry is obeyed; no process is left."""
    with supervised(tmp_path, addresses=[address], drain_timeout=1000) as running, connect(address) as idle:
        idle.sendall(b"who\n")
        read_who(idle)
        family = running.family()
        running.signal(signal.SIGTERM)
        wait_for("draining", lambda: running.events("draining"))
        running.signal(signal.SIGTERM)
        assert running.wait_exit() == 0
        wait_for("no process", lambda: not any(kernel.is_alive(pid) for pid in family))


def test_ctrl_c_reaches_the_whole_group_and_still_drains(tmp_path: Path, address: str) -> None:
    """SIGINT to all processes, as a terminal sends it: only the supervisor acts on it."""
    with supervised(tmp_path, addresses=[address], workers=2) as running, connect(address) as held:
        held.sendall(b"hold\n")
        wait_for("it", lambda: sum(row["in_flight"] for row in running.admin("GET", "/v1/workers")[1]) == 1)
        os.killpg(running.process.pid, signal.SIGINT)
        assert read_who(held).node == "v1"
        assert running.wait_exit() == 0


def spawner_of(running: Supervised) -> int:
    """The process that has forked the workers."""
    (pid,) = [pid for pid in kernel.children(running.process.pid) if pid not in running.pids().values()]
    return pid


def test_spawner_is_replaced_and_workers_live_on(tmp_path: Path, address: str) -> None:
    """Without its spawner a worker goes on, and is still replaced when it dies."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        before = running.pids()
        spawner = spawner_of(running)
        os.kill(spawner, signal.SIGKILL)
        wait_for("the log", lambda: running.events("spawner died"))
        wait_for(
            "another spawner", lambda: not set(kernel.children(running.process.pid)) <= {spawner, *before.values()}
        )
        assert running.pids() == before
        assert ask(address).pid in before.values()
        os.kill(before[0], signal.SIGKILL)
        wait_for("another worker", lambda: running.pids().get(0, before[0]) != before[0])
        died = wait_for("the log", lambda: running.events("worker died"))
        assert died[0]["ended"] == "SIGKILL"
        assert running.pids()[1] == before[1]


def test_spawner_and_worker_die_together(tmp_path: Path, address: str) -> None:
    """Both are replaced, whatever the order in which the supervisor learns of it."""
    with supervised(tmp_path, addresses=[address], workers=1) as running:
        before = running.pids()
        os.kill(spawner_of(running), signal.SIGKILL)
        os.kill(before[0], signal.SIGKILL)
        wait_for("another worker", lambda: running.pids().get(0, before[0]) != before[0])
        assert ask(address).pid != before[0]


def test_orphaned_workers_drain(tmp_path: Path, address: str) -> None:
    """When the supervisor is killed its workers finish what runs and what is queued, then they leave."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        held = connect(address)
        held.sendall(b"hold\n")
        wait_for("it", lambda: sum(row["in_flight"] for row in running.admin("GET", "/v1/workers")[1]) == 1)
        family = running.family()
        running.signal(signal.SIGKILL)
        assert read_who(held).node == "v1"
        held.close()
        wait_for("no process", lambda: not any(kernel.is_alive(pid) for pid in family))


def test_reopen_logs_reaches_all_workers(tmp_path: Path, address: str) -> None:
    """SIGUSR1 is passed on."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        running.signal(signal.SIGUSR1)
        wait_for(
            "both",
            lambda: {(who.slot, who.logs_reopened) for who in [ask(address) for _ in range(20)]} == {(0, 1), (1, 1)},
        )


def start_refused(tmp_path: Path, **settings: object) -> str:
    """Start a gateway that must not come up. Returns what it said."""
    running = Supervised(tmp_path, settings, {})
    try:
        assert running.wait_exit() != 0
        assert running.family() == []
    finally:
        running.stop()
    return running.log


def test_port_in_use_names_the_holder(tmp_path: Path) -> None:
    """The message says which address, and who has it; also if the holder would share it (SO_REUSEPORT)."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        said = start_refused(tmp_path, addresses=[address])
    assert f"cannot listen on {address}: the port is in use (by " in said
    assert f"pid {os.getpid()})" in said
    assert "Traceback" not in said


def test_address_that_is_not_ours(tmp_path: Path) -> None:
    """The message says what is wrong with it."""
    assert "no interface of this machine has the address 192.0.2.1" in start_refused(
        tmp_path, addresses=["192.0.2.1:1234"]
    )


def test_worker_that_cannot_start_ends_the_start(tmp_path: Path, address: str) -> None:
    """The gateway does not restart for ever what never ran."""
    said = start_refused(tmp_path, addresses=[address], workers=2, node="unborn")
    assert "cannot start: RuntimeError: the configuration says unborn" in said
    said = start_refused(tmp_path, addresses=[address], workers=1, node="crash")
    assert "died before it was ready (SIGKILL)" in said


def test_unix_listener_replaces_a_stale_socket_only(tmp_path: Path) -> None:
    """A socket file that nobody answers on is replaced; a living one, or another file, is not."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with supervised(tmp_path, addresses=[f"unix:{path}"], workers=2):
        assert ask(f"unix:{path}").node == "v1"
        assert path.stat().st_mode & 0o777 == 0o666
        second = tmp_path / "second"
        second.mkdir()
        assert "the socket is in use (by edgeq, pid " in start_refused(second, addresses=[f"unix:{path}"])
    assert not path.exists()
    path.write_text("precious")
    third = tmp_path / "third"
    third.mkdir()
    assert "exists and is not a socket" in start_refused(third, addresses=[f"unix:{path}"])
    assert path.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_workers_drop_privileges(tmp_path: Path, address: str) -> None:
    """Sockets are bound as root, workers run as the configured user; who does not exist is an error."""
    with supervised(tmp_path, addresses=[address], user="nobody"):
        assert ask(address).uid not in (0, None)
    assert "there is no user 'nobody-at-all'" in start_refused(tmp_path, addresses=[address], user="nobody-at-all")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_another_user_waits_for_a_restart(tmp_path: Path, address: str) -> None:
    """Of all workers: one that is forked after the reload is no other user than its siblings."""
    with supervised(tmp_path, addresses=[address], workers=1) as running:
        assert running.reload(user="nobody")["restart"] == ["server.user"]
        first = ask(address)
        os.kill(first.pid, signal.SIGKILL)
        second = ask(address)
        assert (second.pid != first.pid, second.uid) == (True, first.uid)


def test_service_manager_is_told(tmp_path: Path, address: str) -> None:
    """READY, a status line, a reload and the end are sent to NOTIFY_SOCKET."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        with supervised(tmp_path, {"NOTIFY_SOCKET": path}, addresses=[address], workers=2) as running:
            assert running.reload(node="v2")["ok"]
            running.signal(signal.SIGTERM)
            assert running.wait_exit() == 0
        told = []
        manager.setblocking(False)
        while True:
            try:
                told.append(manager.recv(4096).decode())
            except BlockingIOError:
                break
    keys = [one.partition("\n")[0] for one in told if not one.startswith("STATUS")]
    assert keys == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert "STATUS=2/2 workers, 0 connections, 0 requests in flight" in told


def test_admin_socket(tmp_path: Path, address: str) -> None:
    """HTTP and text answer from one table; what does not exist is said."""
    with supervised(tmp_path, addresses=[address], workers=2) as running:
        assert os.stat(running.settings["admin"]).st_mode & 0o777 == 0o660
        assert running.admin("GET", "/livez") == (200, {"ok": True})
        assert running.admin("GET", "/readyz") == (200, {"ok": True})
        assert running.admin("GET", "/v1/version")[1]["generation"] == 1
        assert running.admin("GET", "/v1/reload")[0] == 405
        assert running.admin("GET", "/nothing")[0] == 404
        assert running.text("show workers").splitlines()[0].split()[:3] == ["slot", "pid", "state"]
        assert "did you mean 'show workers'" in running.text("show worker")
        assert running.text("reload").startswith("ok: true\n")
        asked = running.events("admin command")
        assert [(one["command"], one["peer_pid"]) for one in asked] == [("reload", os.getpid())]
        assert running.admin("POST", "/v1/drain")[0] == 202
        assert running.wait_exit() == 0


def test_backlog_that_the_kernel_cuts_is_a_warning(tmp_path: Path, address: str) -> None:
    """listen(2) says nothing, so we do."""
    with supervised(tmp_path, addresses=[address], backlog=100_000) as running:
        assert running.events("backlog cut by the kernel: raise net.core.somaxconn")[0]["backlog"] == 100_000


def test_spawner_with_a_broken_app_is_a_clear_error(tmp_path: Path) -> None:
    """What cannot be imported ends the start, and says so."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.support.fake_gateway import load\nfrom tests.support.given import live\n"
        "from edgeq.supervisor import run_io\nfrom edgeq.supervisor.launch import Launch\n"
        "from edgeq.errors import StartError\n"
        "try:\n run_io.serve(live(lambda: load(Path(sys.argv[1]))), None, Launch(app='no.such:App'))\n"
        "except StartError as error:\n sys.exit(str(error))\n"
    )
    settings = tmp_path / "settings.json"
    settings.write_text('{"addresses": ["127.0.0.1:0"]}')
    result = subprocess.run(
        [sys.executable, "-c", code, str(settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "cannot start the process that forks the workers" in result.stderr
    assert "No module named 'no'" in result.stderr
