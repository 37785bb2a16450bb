"""Start and stop what a comparison needs: pinned to a processor, in a session of its own, always stopped in the end.

Invariant: a `Process` that was entered is gone when its `with` block is left, its whole process group included.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks import accounting_io
from benchmarks.proxies import Plan

PROXY_CORE = 0
LOAD_CORE = 1
NICENESS = -10
STOP_TIMEOUT_S = 5.0
ROOT = Path(__file__).resolve().parent.parent


class DidNotStart(Exception):
    """A process ended, or did not listen in time; the message says what it wrote."""


class Process:
    """A running command and what it writes (to a file, so that no pipe can fill up)."""

    __slots__ = ("_output_path", "_popen", "name")

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: int | str,
        output_path: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._output_path = output_path
        with open(output_path, "ab") as output:
            self._popen = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def running(self) -> bool:
        return self._popen.poll() is None

    def output_tail(self) -> str:
        """The last lines that the process wrote."""
        with open(self._output_path, encoding="utf-8", errors="replace") as output:
            return " | ".join(line.strip() for line in output.read().splitlines()[-6:])

    def wait_listening(self, port: int, timeout_s: float) -> None:
        """Return when the port accepts connections; raises DidNotStart."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            if not self.running():
                raise DidNotStart(f"{self.name} ended with {self._popen.returncode}: {self.output_tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise DidNotStart(f"{self.name} did not listen within {timeout_s:g} s: {self.output_tail()}")

    def stop(self) -> None:
        """Ask the process to end, then make its whole family end."""
        if self.running():
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT_S)
        # What is left of its session, in whatever process group, and what descends from that.
        for pid in accounting_io.processes_of(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()


def prefer(session: int | str) -> None:
    """Let a session go before the others of the machine, where that is allowed (root).

    Niceness counts within a session only while the kernel groups processes by session; see "autogroup" in sched(7).
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text(str(NICENESS), encoding="ascii")


@contextlib.contextmanager
def running(name: str, plan: Plan, core: int | str, directory: str, port: int) -> Iterator[Process]:
    """Write the plan's files, start it, wait until it listens on `port`, and stop it in the end. `core` may be several:
    "0,1"."""
    for path, content in plan.files.items():
        Path(path).write_text(content, encoding="utf-8")
    process = Process(name, plan.command, core, os.path.join(directory, f"{name}.out"), plan.environment)
    try:
        process.wait_listening(port, plan.start_timeout_s)
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago, outside the range that clients are given; each only once."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first_client_port = int(file.read().split()[0])
    # Others may run beside, the other build's tests and several parts of each: each begins in a range of its own, far
    # from where the last one of its kind began.
    half = 0 if os.environ.get("EDGEQ_PURE", "0") in ("", "0") else 1
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    size = 12_000 // (2 * _PARTS)
    start = 20_000 + (half * _PARTS + part) * size + os.getpid() * 97 % (size // 2)
    for port in _ports_from(start, first_client_port):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")


_PARTS: Final = 4
_used_ports: set[int] = set()


def _ports_from(start: int, end: int) -> Iterator[int]:
    # A port is handed out once in a run: connections of an earlier process may still be in TIME_WAIT.
    for port in (*range(start, end), *range(10_000, start)):
        if port not in _used_ports:
            _used_ports.add(port)
            yield port


def raise_descriptor_limit(wanted: int) -> int:
    """Let this process and its children open `wanted` files if that is allowed; returns what is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        with contextlib.suppress(ValueError, OSError):  # only root may raise the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return max(soft, wanted)
