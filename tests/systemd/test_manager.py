"""The supervisor under a service manager: what is told, kept, handed over and taken back, seen from the manager."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeq.board.layout import Board
from tests.support import kernel
from tests.support.gateway import ROOT, free_port
from tests.support.manager import Manager, managing
from tests.support.supervised import ask, connect, read_all, read_who, wait_for


@pytest.fixture
def address() -> str:
    """A free TCP address."""
    return f"127.0.0.1:{free_port()}"


def configure(directory: Path, **settings: Any) -> None:
    """The settings of fake_gateway."""
    settings = {"admin": str(directory / "admin.sock"), **settings}
    (directory / "settings.json").write_text(json.dumps(settings))


@contextlib.contextmanager
def service(
    directory: Path,
    given: Mapping[str, socket.socket] | None = None,
    store_size: int = 64,
    watchdog_s: float = 0.0,
    words: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Manager]:
    """A manager of a supervisor with fake workers; not started yet. `words` stand before its command."""
    configure(directory, **settings)
    command = [*words, sys.executable, str(ROOT / "tests/support/fake_gateway.py"), str(directory / "settings.json")]
    with managing(Manager(directory, command, {"PYTHONPATH": str(ROOT)}, given, store_size, watchdog_s)) as manager:
        yield manager


def events(manager: Manager, name: str) -> list[dict[str, Any]]:
    """Log lines with this event, of all runs."""
    lines = [json.loads(line) for line in manager.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def workers(manager: Manager) -> list[int]:
    """Processes that serve."""
    return [pid for pid in kernel.children(manager.process.pid) if not kernel.children(pid)]


def kinds(manager: Manager) -> dict[str, int]:
    """How many of each kind are in the store."""
    kind = ["/".join(name.split("/")[:2]) for name in manager.names()]
    return {one: kind.count(one) for one in set(kind)}


@contextlib.contextmanager
def kept_board(manager: Manager) -> Iterator[Board]:
    """The one in the store."""
    board = Board.attach(os.dup(next(fd for name, fd in manager.store if name == "edgeq/board")))
    try:
        yield board
    finally:
        board.close()


def test_what_is_told_and_in_which_order(tmp_path: Path, address: str) -> None:
    """Everything is in the store before READY; a reload is framed; the end is announced with its time."""
    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        assert kinds(manager) == {"edgeq/board": 1, "edgeq/notes": 1, "edgeq/socket": 2}
        manager.process.send_signal(signal.SIGHUP)
        manager.wait_told("READY=1", 2)
        assert manager.stop() == 0
        keys = [one.partition("\n")[0] for one in manager.told if not one.startswith("STATUS")]
        assert keys[:2] == ["FDSTOREREMOVE=1", "FDSTORE=1"]
        assert keys[2:] == ["FDSTORE=1"] * 3 + ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        reloading = next(one for one in manager.told if one.startswith("RELOADING"))
        assert int(reloading.partition("MONOTONIC_USEC=")[2]) > 0
        assert "EXTEND_TIMEOUT_USEC=" in manager.told[-1]
        assert "STATUS=2/2 workers, 0 connections, 0 requests in flight" in manager.told
        # It has gone, and its sockets have not.
        assert kinds(manager)["edgeq/socket"] == 2


def test_without_a_store_nothing_is_left(tmp_path: Path, address: str) -> None:
    """A manager that keeps nothing gets nothing, and what waits at the end is not left to nobody."""
    with service(tmp_path, store_size=0, addresses=[address]) as manager:
        manager.start_ready()
        assert manager.stop() == 0
        assert manager.names() == []
        assert manager.count("FDSTORE=1") == 0
        with pytest.raises(ConnectionRefusedError):
            connect(address)


def test_what_waits_during_a_restart_is_served(tmp_path: Path, address: str) -> None:
    """Between two runs nobody is refused: connections wait in the kernel, at all shards and on Unix sockets."""
    unix = f"unix:{tmp_path}/http.sock"
    with service(tmp_path, addresses=[address, unix], workers=2) as manager:
        manager.start_ready()
        first = {ask(address).pid, ask(unix).pid}
        assert manager.stop() == 0
        waiting = [connect(one) for one in (address, unix) * 8]
        for sock in waiting:
            sock.sendall(b"who\n")
        manager.start_ready()
        answers = [read_who(sock) for sock in waiting]
        for sock in waiting:
            sock.close()
        assert first.isdisjoint(who.pid for who in answers)
        assert len({who.pid for who in answers}) == 2
        assert kinds(manager) == {"edgeq/board": 1, "edgeq/notes": 1, "edgeq/socket": 3}
        assert len(events(manager, "listener taken over")) == 2


def test_kill_9_of_the_supervisor_loses_nothing(tmp_path: Path, address: str) -> None:
    """What waits is served by the next run, what runs is finished by the old workers, which then go."""
    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        with connect(address) as running:
            running.sendall(b"who\n")
            before = read_who(running)
            running.sendall(b"hold\n")  # answered while draining
            wait_for("a request in flight", lambda: len(running_requests(manager)) == 1)
            old = workers(manager)
            for pid in old:
                os.kill(pid, signal.SIGSTOP)
            manager.stop(signal.SIGKILL)
            waiting = [connect(address) for _ in range(8)]
            for sock in waiting:
                sock.sendall(b"who\n")
            manager.start_ready()
            assert {read_who(sock).pid for sock in waiting}.isdisjoint(old)
            wait_for("the status", lambda: [one for one in manager.told if "2 of the last run finish" in one])
            assert len(running_requests(manager)) == 1
            # Woken up, they see that nobody is there, and keep nobody out.
            for pid in old:
                os.kill(pid, signal.SIGCONT)
            assert read_who(running).pid == before.pid
            wait_for("the old workers' end", lambda: len(events(manager, "worker of the last run left")) == 2)
            assert ask(address).pid not in old
            for sock in waiting:
                sock.close()
        with kept_board(manager) as board:
            # They had their rows to themselves, as long as they were there; a request pays for each row.
            assert board.rows_used == 4
            assert manager.stop() == 0
            manager.start_ready()
            assert board.rows_used == 2


def running_requests(manager: Manager) -> list[str]:
    """Any word of a request in flight: a status line that tells of it."""
    with connect(f"unix:{manager.directory}/admin.sock") as sock:
        sock.sendall(b"GET /v1/workers HTTP/1.1\r\nHost: edgeq\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"]"):
            more = sock.recv(65536)
            if not more:
                break
            data += more
    rows = json.loads(data.partition(b"\r\n\r\n")[2])
    return [str(row["slot"]) for row in rows if row["in_flight"]]


def test_a_start_that_fails_loses_nobody(tmp_path: Path, address: str) -> None:
    """Workers that cannot start are no successors of dead ones, whatever the board of the last run says; what waits
    is there for the next try."""
    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        assert manager.stop() == 0
        waiting = connect(address)
        waiting.sendall(b"who\n")
        configure(tmp_path, addresses=[address], workers=2, node="unborn")
        manager.start()
        assert manager.process.wait(30) == 1
        with kept_board(manager) as board:
            assert not board.started
        configure(tmp_path, addresses=[address], workers=2)
        manager.start_ready()
        read_who(waiting)
        waiting.close()


def test_killed_at_any_moment(tmp_path: Path, address: str) -> None:
    """Killed after the first words to the manager, at the start and in a reload, while the number of workers changes:
    whoever waits is served in the end, and no more is kept than is in use."""
    unix = f"unix:{tmp_path}/http.sock"
    waiting: list[socket.socket] = []

    def killed_after(manager: Manager, words: int) -> None:
        before = len(manager.told)
        manager.start()
        wait_for("words", lambda: "READY=1" in manager.told[before:] or len(manager.told) >= before + words)
        if words > 2:  # what comes after READY: surplus sockets are let go
            wait_for("words", lambda: len(manager.told) >= before + words)
        manager.stop(signal.SIGKILL)
        for sock in (connect(address), connect(unix)):
            sock.sendall(b"who\n")
            waiting.append(sock)

    with service(tmp_path, addresses=[address, unix], workers=3) as manager:
        manager.start_ready()
        manager.stop(signal.SIGKILL)
        for words, workers in ((1, 5), (1, 2), (2, 5), (1, 2), (3, 5), (4, 2), (2, 5), (2, 2)):
            configure(tmp_path, addresses=[address, unix], workers=workers)
            killed_after(manager, words)
        for workers in (4, 1, 4, 2):
            manager.start_ready()
            configure(tmp_path, addresses=[address, unix], workers=workers)
            before = len(manager.told)
            manager.process.send_signal(signal.SIGHUP)
            wait_for("a word", lambda before=before: len(manager.told) > before)  # type: ignore[misc]
            manager.stop(signal.SIGKILL)
            waiting.append(connect(address))
            waiting[-1].sendall(b"who\n")
        configure(tmp_path, addresses=[address, unix], workers=2)
        manager.start_ready()
        for sock in waiting:
            read_who(sock)
            sock.close()
        wait_for("the store", lambda: kinds(manager) == {"edgeq/board": 1, "edgeq/notes": 1, "edgeq/socket": 3})
        assert len({ask(address).pid for _ in range(40)}) == 2


@pytest.mark.parametrize("words", [[], kernel.without_capabilities()], ids=["rights", "no rights"])
def test_fewer_workers_and_listeners_after_a_restart(tmp_path: Path, address: str, words: list[str]) -> None:
    """What the new configuration has no place for is emptied, closed, and taken out of the store."""
    gone = f"127.0.0.1:{free_port()}"
    with service(tmp_path, words=words, addresses=[address, gone], workers=3) as manager:
        manager.start_ready()
        assert manager.stop() == 0
        waiting = [connect(address) for _ in range(12)]
        for sock in waiting:
            sock.sendall(b"who\n")
        left = connect(gone)
        left.sendall(b"GET / HTTP/1.1\r\n\r\n")
        configure(tmp_path, addresses=[address], workers=1)
        manager.start_ready()
        assert len({read_who(sock).pid for sock in waiting}) == 1
        for sock in waiting:
            sock.close()
        assert b" 503 " in left.recv(65536).partition(b"\r\n")[0]
        left.close()
        wait_for("the store", lambda: kinds(manager).get("edgeq/socket") == 1)
        with pytest.raises(ConnectionRefusedError):
            connect(gone)
        assert [ask(address).slot for _ in range(8)] == [0] * 8


def test_more_workers_after_a_crash(tmp_path: Path, address: str) -> None:
    """Inherited shards and new ones are one group, and each has its worker."""
    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        manager.stop(signal.SIGKILL)
        configure(tmp_path, addresses=[address], workers=4)
        manager.start_ready()
        assert kinds(manager)["edgeq/socket"] == 4
        seen: set[int] = set()
        wait_for("an answer of every worker", lambda: len(seen.add(ask(address).pid) or seen) == 4)  # type: ignore[func-returns-value]


def test_a_store_that_is_too_small_is_a_clear_error(tmp_path: Path, address: str) -> None:
    """Before anything listens, with the numbers to set."""
    with service(tmp_path, store_size=4, addresses=[address], workers=4) as manager:
        manager.start()
        assert manager.process.wait(30) == 78
        assert "keeps 4 descriptors, 6 are needed: set FileDescriptorStoreMax=6" in manager.log
        with pytest.raises(ConnectionRefusedError):
            connect(address)


def listening(address: str) -> socket.socket:
    """As a .socket unit has it."""
    host, _, port = address.rpartition(":")
    sock = socket.create_server((host, int(port)))
    sock.set_inheritable(True)
    return sock


def test_socket_activation(tmp_path: Path, address: str) -> None:
    """All workers accept from the manager's socket; it is never closed, refused or stored, over restarts and kills."""
    with listening(address) as sock, service(tmp_path, {"http": sock}, addresses=[address], workers=2) as manager:
        first = connect(address)  # before there is a service
        first.sendall(b"who\n")
        manager.start_ready()
        read_who(first)
        first.close()
        assert kinds(manager) == {"edgeq/board": 1, "edgeq/notes": 1}
        for number in (signal.SIGTERM, signal.SIGKILL):
            manager.stop(number)
            waiting = connect(address)
            waiting.sendall(b"who\n")
            manager.start_ready()
            read_who(waiting)
            waiting.close()


def test_socket_activation_without_a_store(tmp_path: Path, address: str) -> None:
    """The manager's socket outlives a stop also where nothing else does; another listener's does not."""
    other = f"127.0.0.1:{free_port()}"
    with (
        listening(address) as sock,
        service(tmp_path, {"http": sock}, 0, addresses=[address, other], workers=2) as manager,
    ):
        manager.start_ready()
        ask(other)
        assert manager.stop() == 0
        connect(address).close()
        with pytest.raises(ConnectionRefusedError):
            connect(other)


def test_a_given_socket_that_a_reload_drops_can_come_back(tmp_path: Path, address: str) -> None:
    """It is not closed, since it is not ours; the log says that nobody accepts there."""
    other = f"127.0.0.1:{free_port()}"
    with listening(address) as sock, service(tmp_path, {"http": sock}, addresses=[address, other]) as manager:
        manager.start_ready()
        configure(tmp_path, addresses=[other])
        manager.process.send_signal(signal.SIGHUP)
        manager.wait_told("READY=1", 2)
        assert events(manager, "the .socket unit still listens where nobody accepts")[0]["address"] == address
        waiting = connect(address)
        waiting.sendall(b"who\n")
        configure(tmp_path, addresses=[other, address])
        manager.process.send_signal(signal.SIGHUP)
        assert read_who(waiting).generation == 3
        waiting.close()


@pytest.mark.parametrize("wrong", ["elsewhere", "twice", "not listening"])
def test_a_socket_that_cannot_be_meant_is_a_clear_error(tmp_path: Path, address: str, wrong: str) -> None:
    """Not a start in which somebody waits for ever."""
    elsewhere = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        given = {"http": stack.enter_context(listening(elsewhere if wrong == "elsewhere" else address))}
        if wrong == "twice":
            given["again"] = stack.enter_context(given["http"].dup())
        if wrong == "not listening":
            given["again"] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        manager = stack.enter_context(service(tmp_path, given, addresses=[address]))
        manager.start()
        assert manager.process.wait(30) != 0
        said = {
            "elsewhere": f"the .socket unit listens on {elsewhere}, and no listener does",
            "twice": f"the .socket unit has {address} twice",
            "not listening": "descriptor 'again' of the .socket unit is no listening stream socket",
        }
        assert said[wrong] in manager.log


def test_the_watchdog_hears_nothing_while_a_worker_stands_still(tmp_path: Path, address: str) -> None:
    """One of two is stopped: no WATCHDOG=1 from then on, and STATUS says who; woken up, it goes on."""
    with service(tmp_path, watchdog_s=2.0, addresses=[address], workers=2) as manager:
        manager.start_ready()
        manager.wait_told("WATCHDOG=1", 3)
        victim = ask(address)
        with kernel.stopped(victim.pid):
            wait_for(
                "the status", lambda: any(f"STATUS=no progress in worker {victim.slot}," in t for t in manager.told)
            )
            count = manager.count("WATCHDOG=1")
            looked = len(events(manager, "no progress: the watchdog is not told"))
            wait_for(
                "four more looks", lambda: len(events(manager, "no progress: the watchdog is not told")) >= looked + 4
            )
            assert manager.count("WATCHDOG=1") == count
        manager.wait_told("WATCHDOG=1", count + 2)


def test_the_next_run_ends_workers_that_hang(tmp_path: Path, address: str) -> None:
    """After a watchdog's kill the worker that stood still is still there; it gets a drain's time, and no more."""
    with service(tmp_path, addresses=[address], workers=1, drain_timeout=0.1) as manager:
        manager.start_ready()
        old = ask(address).pid
        os.kill(old, signal.SIGSTOP)
        manager.stop(signal.SIGABRT)
        manager.start_ready()
        assert ask(address).pid != old
        assert kernel.is_alive(old)
        manager.stop()  # it waits for that one, too, and no longer than for its own
        assert events(manager, "worker of the last run does not leave: killed")[0]["worker_pid"] == old
        assert not kernel.is_alive(old)


def test_a_predecessor_of_another_version_is_not_understood_and_does_no_harm(tmp_path: Path, address: str) -> None:
    """Board and notes that say nothing are let go; sockets tell themselves where they listen."""
    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        assert manager.stop() == 0
        for name in ("edgeq/board", "edgeq/notes"):
            fd = next(fd for one, fd in manager.store if one == name)
            os.pwrite(fd, b"\xff" * 64, 0)
        waiting = [connect(address) for _ in range(6)]
        for sock in waiting:
            sock.sendall(b"who\n")
        manager.start_ready()
        for sock in waiting:
            read_who(sock)
            sock.close()
        assert events(manager, "board of the last run not taken over")
        assert events(manager, "notes of the last run not understood")
        assert kinds(manager) == {"edgeq/board": 1, "edgeq/notes": 1, "edgeq/socket": 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_refusals_outlive_the_supervisor(tmp_path: Path, address: str, number: signal.Signals) -> None:
    """What the workers of the last run have counted is told by the next one, however that run has ended, once."""

    def refused() -> int:
        with connect(f"unix:{tmp_path}/admin.sock") as sock:
            sock.sendall(b"GET /v1/reasons HTTP/1.1\r\nHost: edgeq\r\n\r\n")
            answer = read_all(sock)
        return sum(int(one["count"]) for one in json.loads(answer.partition(b"\r\n\r\n")[2]))

    with service(tmp_path, addresses=[address], workers=2) as manager:
        manager.start_ready()
        for _ in range(3):  # fake workers report each answer as a refusal
            ask(address)
        wait_for("the reports", lambda: refused() == 3)
        old = workers(manager)
        manager.stop(number)
        manager.start_ready()
        assert refused() == 3
        wait_for("the old workers' end", lambda: not any(map(kernel.is_alive, old)))
        ask(address)
        wait_for("one more", lambda: refused() == 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_history_outlives_the_supervisor(tmp_path: Path, address: str, number: signal.Signals) -> None:
    """The next run tells what the queues were before it, however the last one has ended, and goes on."""

    def moments() -> list[str]:
        with connect(f"unix:{tmp_path}/admin.sock") as sock:
            sock.sendall(b"GET /v1/history?resource=upstream/u&seconds=300 HTTP/1.1\r\nHost: edgeq\r\n\r\n")
            answer = read_all(sock)
        return [one["at"] for one in json.loads(answer.partition(b"\r\n\r\n")[2])]

    with service(tmp_path, addresses=[address]) as manager:
        manager.start_ready()
        wait_for("some history", lambda: len(moments()) >= 1)
        manager.stop(number)
        ended = max(one["timestamp"] for one in map(json.loads, manager.log.splitlines()))
        manager.start_ready()
        # Where its seconds begin depends on when is asked: one of before is whole at least.
        wait_for("more of it, and what was before", lambda: (found := moments()) and found[0] < ended < found[-1])
