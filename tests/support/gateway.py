"""A gateway as real processes, for tests that look at it from outside.

`edgeq(...)` writes a configuration, starts `python -m edgeq serve --config FILE`, waits until it accepts, and stops it
by pid. What it wrote to stderr and to the access log goes into the message of a failure. `EDGEQ_TEST_GATEWAY=nginx`
or `haproxy` starts another gateway instead: the tools of this directory are themselves tested so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes_io import free_port as free_port
from tests.support import kernel, proxies

ROOT = Path(__file__).resolve().parents[2]
Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What tests vary. Times in seconds; `extra` is merged into the edgeq configuration as it is."""

    workers: int = 1
    head_s: float = 10
    body_s: float = 30
    write_s: float = 60
    keepalive_s: float = 75
    half_close_s: float = 1
    connect_s: float = 2
    first_byte_s: float = 60
    answer_body_s: float = 60
    request_line_bytes: int = 8192
    header_bytes: int = 32768
    header_count: int = 100
    body_bytes: int = 1024**3
    trailer_bytes: int = 8192
    limit: int | str = 1 << 20
    """What is not about limits does not wait for its turn."""
    access_log: bool = True
    listeners: Sequence[Mapping[str, Value]] = ()
    """More of them, beside the one that these settings describe."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """On top of the test's own."""
    extra: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Gateway:
    """A running gateway."""

    kind: str
    address: tuple[str, int]
    process: subprocess.Popen[bytes]
    directory: Path
    settings: Settings
    upstream_port: int = 0

    @property
    def pid(self) -> int:
        """The supervisor (nginx: master)."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """Processes that serve: leaves of the process tree (the supervisor itself when it has no children)."""
        pids = [pid for pid in kernel.children(self.pid) if not kernel.children(pid)]
        return pids or [self.pid]

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    def log_lines(self) -> list[str]:
        """Whole lines of the access log so far; a batch is written by one call, and may be read in the middle of it."""
        text = self.access_log.read_text(errors="replace") if self.access_log.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def stderr(self) -> str:
        path = self.directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of this name that edgeq has told on stderr."""
        lines = [json.loads(line) for line in self.stderr().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == name]

    def wait_event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until edgeq has told an event so many times. Returns the last one."""
        deadline = time.monotonic() + 30
        while len(found := self.events(name)) < count:
            if not self.is_alive():
                found = self.events(name)
                assert len(found) >= count, f"ended before {name!r}"
                break
            assert time.monotonic() < deadline, f"waited 30 s for {name!r}"
            kernel.select_pause(0.01)
        return found[-1]

    def reconfigure(self, extra: Mapping[str, Value], **changes: Any) -> None:
        """Write the configuration anew; nothing else happens."""
        settings = dataclasses.replace(self.settings, extra=merge(self.settings.extra, extra), **changes)
        text = edgeq_config(self.address[1], self.upstream_port, self.directory, settings)
        (self.directory / "edgeq.toml").write_text(text)

    def reload(self, extra: Mapping[str, Value], **changes: Any) -> None:
        """Reconfigure (always from the settings it was started with), SIGHUP, and wait until that is applied."""
        name = "configuration applied"
        count = len(self.events(name)) + 1
        self.reconfigure(extra, **changes)
        self.process.send_signal(signal.SIGHUP)
        self.wait_event(name, count)

    def is_ready(self) -> bool:
        """Does it serve? Connections are accepted before the admin socket is there."""
        if self.kind == "edgeq":
            return bool(self.events("serving"))
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def describe(self) -> str:
        """For the message of a failure."""
        tail = "\n".join(line[:400] for line in self.log_lines()[-8:])
        return f"{self.kind} at {self.address}\n--- stderr\n{self.stderr()[-6000:]}\n--- access log\n{tail}"

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Nobody accepts meanwhile: what clients send is there when their connections are accepted."""
        pids = self.workers
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL to what is left of its own processes. Returns the exit code."""
        family = kernel.children(self.pid)
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in family:
            if kernel.is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self.process.returncode


def toml(value: Value) -> str:
    """An inline TOML value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(toml(item) for item in value) + "]"


def edgeq_config(port: int, upstream_port: int, directory: Path, settings: Settings) -> str:
    """edgeq.toml for these settings."""
    target = str(directory / "access.log") if settings.access_log else "off"
    listener: dict[str, Value] = {
        "address": f"127.0.0.1:{port}",
        "timeouts": {
            "head": settings.head_s,
            "body": settings.body_s,
            "write": settings.write_s,
            "keepalive": settings.keepalive_s,
            "half_close": settings.half_close_s,
        },
        "limits": {
            "request_line": settings.request_line_bytes,
            "header_bytes": settings.header_bytes,
            "header_count": settings.header_count,
            "body_bytes": settings.body_bytes,
            "trailer_bytes": settings.trailer_bytes,
        },
    }
    upstream: dict[str, Value] = {
        "endpoints": [f"http://127.0.0.1:{upstream_port}"],
        "limit": settings.limit,
        "timeouts": {
            "connect": settings.connect_s,
            "first_byte": settings.first_byte_s,
            "body": settings.answer_body_s,
        },
    }
    tables: dict[str, Value] = {
        "server": {"workers": settings.workers, "drain_timeout": 2},
        "listener": [listener, *settings.listeners],
        "upstream": {"u": upstream},
        "access_log": {"target": target},
    }
    merged = merge(tables, settings.extra)
    return "\n".join(f"{key} = {toml(item)}" for key, item in merged.items()) + "\n"


def merge(base: Mapping[str, Value], extra: Mapping[str, Value]) -> dict[str, Value]:
    """`extra` over `base`, tables merged; a table merges into the first element of a list of tables."""
    result = dict(base)
    for key, item in extra.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(item, Mapping):
            result[key] = merge(old, item)
        elif isinstance(old, list) and isinstance(item, Mapping) and isinstance(old[0], Mapping):
            result[key] = [merge(old[0], item), *old[1:]]
        else:
            result[key] = item
    return result


def start(upstream_port: int, settings: Settings, directory: Path, kind: str = "") -> Gateway:
    """Start a gateway and wait until it accepts. Raises RuntimeError with its stderr when it does not."""
    kind = kind or os.environ.get("EDGEQ_TEST_GATEWAY", "edgeq")
    port = free_port()
    if kind == "edgeq":
        path = directory / "edgeq.toml"
        path.write_text(edgeq_config(port, upstream_port, directory, settings))
        command = [sys.executable, "-m", "edgeq", "serve", "--config", str(path)]
    else:
        command = proxies.command(kind, port, upstream_port, directory, settings)
    with (directory / "stderr").open("wb") as stderr:
        environment = os.environ | settings.environment
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
        )
    gateway = Gateway(kind, ("127.0.0.1", port), process, directory, settings, upstream_port)
    deadline = time.monotonic() + 60
    while not gateway.is_ready():
        if not gateway.is_alive() or time.monotonic() > deadline:
            gateway.stop()
            raise RuntimeError(f"did not start: {gateway.describe()}") from None
        kernel.select_pause(0.02)
    return gateway


@contextlib.contextmanager
def running(upstream_port: int, settings: Settings | None = None, kind: str = "") -> Iterator[Gateway]:
    """A running gateway; what it said is added to the exception of a failing test."""
    with tempfile.TemporaryDirectory(prefix="edgeq-test-") as name:
        gateway = start(upstream_port, settings or Settings(), Path(name), kind)
        try:
            yield gateway
        except BaseException as error:
            error.add_note(gateway.describe())
            raise
        finally:
            gateway.stop()
