"""The real supervisor with fake workers, seen from outside: settings in, answers and log lines out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.support import kernel
from tests.support.gateway import ROOT

T = TypeVar("T")
TIMEOUT_S = 60.0
"""For what must happen at once on a machine of any speed."""


class Who(NamedTuple):
    """An answer of the fake worker."""

    slot: int
    pid: int
    generation: int
    workers: int
    node: str
    uid: int
    logs_reopened: int
    tickets: str


def wait_for(what: str, look: Callable[[], T], timeout_s: float = TIMEOUT_S) -> T:
    """Look until the result is true. Returns it."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        kernel.select_pause(0.01)
    return found


def connect(address: str) -> socket.socket:
    """A connection to "HOST:PORT", "[V6]:PORT" or "unix:PATH"."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT_S)
        try:
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S)


def read_who(sock: socket.socket) -> Who:
    """Read one answer. Raises ConnectionError if it does not come whole."""
    data = b""
    while not data.endswith(b"\n"):
        more = sock.recv(1024)
        if not more:
            raise ConnectionError(f"closed after {data!r}")
        data += more
    fields = data.decode().split()
    return Who(
        int(fields[0]),
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        fields[4],
        int(fields[5]),
        int(fields[6]),
        fields[7],
    )


def ask(address: str) -> Who:
    """One connection, one line, one answer."""
    with connect(address) as sock:
        sock.sendall(b"who\n")
        return read_who(sock)


class Supervised:
    """A running supervisor."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        environment: Mapping[str, str],
        words: Sequence[str] = (),
    ) -> None:
        """`words` stand before the command."""
        self.directory = directory
        self.settings = {"admin": str(directory / "admin.sock"), **settings}
        self.path = directory / "settings.json"
        self.log_path = directory / "log"
        self.write()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*words, sys.executable, str(ROOT / "tests/support/fake_gateway.py"), str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )

    def write(self, **changes: Any) -> None:
        """The settings file, with changes."""
        self.settings.update(changes)
        self.path.write_text(json.dumps(self.settings))

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines with this event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_ready(self) -> None:
        """Until it serves."""
        wait_for("serving", lambda: self.events("serving") or self.process.poll() is not None)
        assert self.process.poll() is None

    def admin(self, method: str, path: str) -> tuple[int, Any]:
        """A request to the admin socket: status and JSON."""
        with connect(f"unix:{self.settings['admin']}") as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: edgeq\r\nContent-Length: 0\r\n\r\n".encode())
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def text(self, line: str) -> str:
        """A text command."""
        with connect(f"unix:{self.settings['admin']}") as sock:
            sock.sendall(line.encode() + b"\n")
            return read_all(sock).decode()

    def reload(self, **changes: Any) -> dict[str, Any]:
        """Change the settings and reload. Returns the answer."""
        self.write(**changes)
        _status, answer = self.admin("POST", "/v1/reload")
        assert isinstance(answer, dict)
        return answer

    def pids(self) -> dict[int, int]:
        """Slot to worker, without those that are not forked yet."""
        _status, rows = self.admin("GET", "/v1/workers")
        return {row["slot"]: row["pid"] for row in rows if row["pid"] > 0}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        """Its exit code."""
        return self.process.wait(TIMEOUT_S)

    def family(self) -> list[int]:
        """Its living descendants."""
        direct = kernel.children(self.process.pid)
        return [*direct, *(pid for child in direct for pid in kernel.children(child))]

    def stop(self) -> None:
        """End it and whatever it left."""
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TIMEOUT_S)
            self.process.kill()
        self.process.wait()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def read_all(sock: socket.socket) -> bytes:
    """Until the peer closes."""
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


@contextlib.contextmanager
def supervised(
    directory: Path, environment: Mapping[str, str] | None = None, words: Sequence[str] = (), **settings: Any
) -> Iterator[Supervised]:
    """A supervisor that serves; its log is added to a failure."""
    running = Supervised(directory, settings, environment or {}, words)
    try:
        running.wait_ready()
        yield running
    except BaseException as error:
        error.add_note(running.log[-6000:])
        raise
    finally:
        running.stop()
