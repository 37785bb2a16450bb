"""The supervisor's side of the spawner: starts it, starts it again when it dies, passes requests on.

Workers do not depend on the spawner once they are forked; they become the supervisor's children when it dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

import edgeq
from edgeq.observe import log_io
from edgeq.supervisor.channel_io import Channel, pair
from edgeq.supervisor.frames import Frame
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.messages import (
    Exited,
    Spawn,
    Spawned,
    SpawnerReady,
    SpawnFailed,
    decode_from_spawner,
    encode_message,
)
from edgeq.supervisor.process_io import as_started, describe_status
from edgeq.supervisor.slots import Backoff

_log = log_io.get_logger()
_MODULE: Final = "edgeq.supervisor.spawner_io"


class SpawnerOwner(Protocol):
    """Who asks for workers."""

    def on_spawner_ready(self) -> None:
        """Requests are taken now."""

    def on_spawner_lost(self) -> None:
        """Before any of its requests succeeded: it will not come up by itself."""

    def on_spawned(self, slot: int, pid: int, pidfd: int) -> None:
        """A worker exists; the pidfd is the owner's."""

    def on_spawn_failed(self, slot: int, error: str) -> None:
        """A worker could not be forked."""

    def on_exited(self, pid: int, status: int) -> None:
        """A worker ended."""


class SpawnerClient:
    """One spawner process at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, launch: Launch, owner: SpawnerOwner) -> None:
        self._loop = loop
        self._launch = launch
        self._owner = owner
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._was_ready = False
        self.ready = False
        """Requests are taken now."""

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process; it reports itself through the owner."""
        self._restart = None
        self._backoff.started(self._loop.time())
        ours, theirs = pair()
        with theirs:
            self._process = as_started(lambda: _popen(theirs, self._launch))
        self._channel = Channel(self._loop, ours, self._on_frame, self._on_end, with_fds=True)

    def spawn(self, message: Spawn, fds: Sequence[int]) -> None:
        """Ask for a worker. Only while `ready`."""
        assert self._channel is not None
        self._channel.send(encode_message(message), fds)

    def stop(self) -> None:
        """End the process; it leaves when its channel closes, at the latest when it is killed."""
        if self._restart is not None:
            self._restart.cancel()
        if self._channel is not None:
            self._channel.close()
        self.ready = False
        self._reap()

    def _reap(self) -> int | None:
        if self._process is None:
            return None
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code

    def _on_frame(self, frame: Frame) -> None:
        try:
            message = decode_from_spawner(frame.payload)
        except msgspec.DecodeError:
            _log.exception("spawner speaks nonsense")
            return
        match message:
            case SpawnerReady():
                self.ready = self._was_ready = True
                self._owner.on_spawner_ready()
            case Spawned(slot, pid):
                self._owner.on_spawned(slot, pid, frame.fds[0])
            case SpawnFailed(slot, error):
                self._owner.on_spawn_failed(slot, error)
            case Exited(pid, status):
                self._owner.on_exited(pid, status)

    def _on_end(self) -> None:
        self.ready = False
        pid = self.pid
        code = self._reap()
        status = None if code is None else (-code if code < 0 else code << 8)
        wait_s = self._backoff.died(self._loop.time())
        _log.error("spawner died", spawner_pid=pid, ended=describe_status(status), restart_in_s=wait_s)
        if not self._was_ready:
            self._owner.on_spawner_lost()
            return
        self._restart = self._loop.call_later(wait_s, self.start)


_ALLOCATOR: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""Reads of large bodies are bytes of 250 KiB that live for a moment. By default glibc (2.36) gives such memory back to
the kernel and asks for it again, page fault by page fault: 1 MiB uploads cost 0.9 to 1.0 of nginx with these, and
between 1.0 and 2.1 without, by how the heap happened to lie. Freed memory that is kept is bounded by the second one.
The operator's own settings win; other libcs do not read these."""


def _popen(sock: socket.socket, launch: Launch) -> subprocess.Popen[bytes]:
    fd = sock.fileno()
    command = [sys.executable, "-P", "-m", _MODULE, str(fd), launch.app, launch.loop]
    # A Ctrl-C must not hit it before it has learned to ignore that; the mask is inherited, and lifted there.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=_environment())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _environment() -> dict[str, str]:
    """The spawner must run this very edgeq, also when it runs from a source tree that is not installed; and its
    workers inherit how memory is allocated, which glibc reads once, at the start of a program."""
    environment = {**_ALLOCATOR, **os.environ}
    home = str(Path(edgeq.__file__).resolve().parent.parent)
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH", ""))))
    return environment
