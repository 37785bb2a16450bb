"""A service manager for tests: listens to sd_notify, keeps the store of descriptors, and hands it to the next run.

It does what systemd does with a Type=notify unit with FileDescriptorStoreMax= and KillMode=process: the store outlives
the service's processes, what hangs up leaves it by itself, and the workers of a killed supervisor are left alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import kernel
from tests.support.gateway import ROOT

_WAIT_S = 30.0


class Manager:
    """Of one service."""

    def __init__(
        self,
        directory: Path,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        given: Mapping[str, socket.socket] | None = None,
        store_size: int = 64,
        watchdog_s: float = 0.0,
    ) -> None:
        """`given`: the sockets of a .socket unit, by their names."""
        self.directory = directory
        self.command = list(command)
        self.given = dict(given or {})
        self.told: list[str] = []
        """Datagrams, in their order."""
        self.store: list[tuple[str, int]] = []
        self.store_size = store_size
        self.processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Condition()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
            "NOTIFY_SOCKET": str(directory / "notify"),
            **({"FDSTORE": str(store_size)} if store_size else {}),
            **({"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {}),
            **(environment or {}),
        }
        self._end, self._ender = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Of the last run."""
        return self.processes[-1]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def names(self) -> list[str]:
        """Of what is in the store."""
        with self._lock:
            return sorted(name for name, _ in self.store)

    def start(self) -> None:
        """Begin a run, with the given sockets and the store."""
        with self._lock:
            passed = [(name, sock.fileno()) for name, sock in self.given.items()] + self.store
            helper = str(ROOT / "tests/support/listen_exec.py")
            fds = [fd for _, fd in passed]
            words = [sys.executable, helper, ",".join(map(str, fds)), ":".join(name for name, _ in passed)]
            with (self.directory / "log").open("ab") as log:
                process = subprocess.Popen(
                    [*words, *self.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                    pass_fds=fds,
                    env=self._environment,
                    start_new_session=True,
                )
        self.processes.append(process)

    def start_ready(self) -> None:
        """Begin a run and wait for READY=1."""
        count = self.count("READY=1")
        self.start()
        self.wait_told("READY=1", count + 1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the main process. Returns its status as subprocess has it."""
        self.process.send_signal(number)
        return self.process.wait(_WAIT_S)

    def count(self, line: str) -> int:
        """How many datagrams had this line."""
        with self._lock:
            return sum(line in one.split("\n") for one in self.told)

    def wait_told(self, line: str, count: int = 1) -> None:
        """Until so many datagrams had this line."""
        deadline_s = time.monotonic() + _WAIT_S
        with self._lock:
            while sum(line in one.split("\n") for one in self.told) < count:
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"waited {_WAIT_S} s for {line}"
                assert self.process.poll() is None, f"ended before {line}"
                self._lock.wait(min(left_s, 0.2))

    def close(self) -> None:
        """End what still runs of its own, and drop the store."""
        for process in self.processes:
            family = kernel.children(process.pid)
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
            process.wait()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._ender.close()
        self._thread.join()
        self._notify.close()
        self._end.close()
        for _, fd in self.store:
            os.close(fd)

    def _run(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            poll.register(self._notify, select.POLLIN)
            for _, fd in self.store:
                poll.register(fd, 0)
            events = dict(poll.poll())
            with self._lock:
                if self._end.fileno() in events:
                    return
                if self._notify.fileno() in events:
                    self._receive()
                for name, fd in list(self.store):
                    if events.get(fd, 0) & (select.POLLHUP | select.POLLERR):
                        self._drop(name, fd)
                self._lock.notify_all()

    def _receive(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._notify, 4096, 16)
        text = data.decode()
        self.told.append(text)
        lines = dict(line.partition("=")[::2] for line in text.split("\n"))
        name = lines.get("FDNAME", "stored")
        if lines.get("FDSTOREREMOVE") == "1":
            for one, fd in list(self.store):
                if one == name:
                    self._drop(one, fd)
        for fd in fds:
            if lines.get("FDSTORE") == "1" and len(self.store) < self.store_size:
                self.store.append((name, fd))
            else:
                os.close(fd)

    def _drop(self, name: str, fd: int) -> None:
        self.store.remove((name, fd))
        os.close(fd)


@contextlib.contextmanager
def managing(manager: Manager) -> Iterator[Manager]:
    """Ends it; the log is added to a failure."""
    try:
        yield manager
    except BaseException as error:
        error.add_note(manager.log[-8000:])
        raise
    finally:
        manager.close()
