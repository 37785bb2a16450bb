"""Restarts, reloads and kills of the supervisor while clients come without a pause: none is refused, none is reset.

The real gateway under a manager that keeps its sockets; half of the clients make a connection for each request, half
keep theirs until an answer says that it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.asking import Client
from tests.support.builds import ONCE
from tests.support.gateway import ROOT, Settings, Value, edgeq_config, free_port
from tests.support.manager import Manager, managing
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer, serve, upstream
from tests.support.supervised import wait_for

pytestmark = ONCE

SLOW = bool(os.environ.get("EDGEQ_SLOW"))
"""All of them, which take two minutes; else some."""
RESTARTS = 20 if SLOW else 5
RELOADS = 50 if SLOW else 12
KILLS = 20 if SLOW else 5
WORKERS = 2


@contextlib.contextmanager
def demo_upstream() -> Iterator[int]:
    """A process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeq", "demo", "--listen", f"127.0.0.1:{port}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def accepts() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    try:
        wait_for("the upstream", accepts)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class Load:
    """A gateway under a manager, and its clients."""

    def __init__(self, directory: Path, manager: Manager, port: int, demo_port: int) -> None:
        self.manager = manager
        self._file = directory / "edgeq.toml"
        self._directory = directory
        self._ports = port, demo_port
        self._stop = threading.Event()
        self.clients = [Client(port, number % 2 == 0, self._stop) for number in range(6)]

    @property
    def answered(self) -> int:
        return sum(client.answered for client in self.clients)

    def write(self, first_byte_s: float = 30) -> None:
        """The configuration."""
        settings = Settings(workers=WORKERS, first_byte_s=first_byte_s, access_log=False)
        self._file.write_text(edgeq_config(*self._ports, self._directory, settings))

    def wait_answers(self, count: int) -> None:
        """Until so many more have come, so that each change meets clients that are in the midst of it."""
        before = self.answered
        wait_for(f"{count} answers", lambda: self.answered >= before + count)

    def stop(self) -> None:
        """Let the clients end their requests."""
        self._stop.set()
        for client in self.clients:
            client.join()


@contextlib.contextmanager
def under_load(directory: Path) -> Iterator[Load]:
    """Clients ask meanwhile; at the end it fails if one of them lost anything."""
    with demo_upstream() as demo_port:
        command = [sys.executable, "-m", "edgeq", "serve", "--config", str(directory / "edgeq.toml")]
        with managing(Manager(directory, command)) as manager:
            load = Load(directory, manager, free_port(), demo_port)
            load.write()
            manager.start_ready()
            for client in load.clients:
                client.start()
            try:
                load.wait_answers(100)
                yield load
                load.wait_answers(100)
            finally:
                load.stop()
            assert [lost for client in load.clients for lost in client.lost][:20] == []
            assert manager.process.poll() is None


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, RESTARTS), (signal.SIGKILL, KILLS)], ids=["restart", "kill"]
)
def test_restarts_lose_nobody(tmp_path: Path, number: signal.Signals, times: int) -> None:
    """The sockets wait in the store; what runs is finished by the old workers, in a restart before it ends."""
    with under_load(tmp_path) as load:
        for _ in range(times):
            assert load.manager.stop(number) == (0 if number == signal.SIGTERM else -number)
            load.manager.start_ready()
            load.wait_answers(100)
        # Those who keep their connection had to make a new one, and were told so.
        assert all(client.connections > times // 2 for client in load.clients)


def test_reloads_lose_nobody(tmp_path: Path) -> None:
    """Each changes something, and READY=1 says that it holds in every worker; kept connections stay."""
    with under_load(tmp_path) as load:
        for reload in range(RELOADS):
            load.write(31 + reload)
            load.manager.process.send_signal(signal.SIGHUP)
            load.manager.wait_told("READY=1", 2 + reload)
            load.wait_answers(20)
        assert [client.connections for client in load.clients if client.keeps] == [1, 1, 1]


def test_the_status_names_the_worst_queue(tmp_path: Path) -> None:
    """In words, for `systemctl status`: how many wait where, and since when; nothing once nobody waits."""
    go = threading.Event()

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.wait(go)
        connection.send(answer(request.target))

    def told(words: str, manager: Manager) -> bool:
        return any(one.startswith("STATUS=1/1 workers, " + words) for one in manager.told)

    with upstream(serve(handler)) as held:
        port = free_port()
        queue: dict[str, Value] = {"max": 10, "timeout": "60s", "discipline": "fifo"}
        settings = Settings(workers=1, limit=1, access_log=False, extra={"upstream": {"u": {"queue": queue}}})
        (tmp_path / "edgeq.toml").write_text(edgeq_config(port, held.port, tmp_path, settings))
        command = [sys.executable, "-m", "edgeq", "serve", "--config", str(tmp_path / "edgeq.toml")]
        with managing(Manager(tmp_path, command)) as manager, contextlib.ExitStack() as stack:
            manager.start_ready()
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            wait_for("the status", lambda: told("2 wait at upstream/u, the oldest for ", manager))
            go.set()
            for client in clients:
                client.settimeout(30)
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
