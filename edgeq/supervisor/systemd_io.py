"""The service manager: what it hands to us at the start, and what we tell it while we run.

Sources: sd_notify(3), one datagram of KEY=value lines to $NOTIFY_SOCKET ("@" begins an abstract name);
sd_listen_fds(3), descriptors from 3 on, named by $LISTEN_FDNAMES; sd_watchdog_enabled(3); systemd's
docs/FILE_DESCRIPTOR_STORE.md. Everything is taken out of the environment: workers must not speak for us, nor take what
is ours.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

_FIRST_FD: Final = 3
_STORE_WAIT_S: Final = 2.0
"""The manager's queue of datagrams may be as short as 10 (net.unix.max_dgram_qlen), and what should be kept must not
be lost because a moment ago there was no room."""


class Received(NamedTuple):
    """A descriptor that the manager has handed over."""

    name: str
    fd: int


def take_descriptors() -> list[Received]:
    """What systemd passed to this process: sockets of a .socket unit first, then what was in the store. Only once."""
    pid, count, names = (os.environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if not (pid.isdecimal() and count.isdecimal()) or int(pid) != os.getpid():
        return []
    named = names.split(":")
    found = []
    for at in range(int(count)):
        os.set_inheritable(_FIRST_FD + at, False)
        found.append(Received(named[at] if at < len(named) else "unknown", _FIRST_FD + at))
    return found


class Notifier:
    """Does nothing where NOTIFY_SOCKET is not set. A manager that does not listen is not our failure."""

    __slots__ = ("_path", "_status", "store_size", "watchdog_s")

    def __init__(self, path: str, watchdog_s: float = 0.0, store_size: int = 0) -> None:
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._status = ""
        self.watchdog_s = watchdog_s if path else 0.0
        """It must hear of our progress so often; 0: it does not wait for that."""
        self.store_size = store_size if path else 0
        """Descriptors that it keeps for our successor; 0: none."""

    @classmethod
    def from_environment(cls) -> Notifier:
        """systemd sets FDSTORE since version 254; for older ones the unit says it, beside FileDescriptorStoreMax."""
        path, usec, pid, store = (
            os.environ.pop(key, "") for key in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
        )
        is_ours = not pid or pid == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if usec.isdecimal() and is_ours else 0.0
        return cls(path, watchdog_s, int(store) if store.isdecimal() else 0)

    def ready(self) -> None:
        """After the start, and after each reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Before a reload; the time lets the manager pair it with READY=1."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, timeout_s: float) -> None:
        """Draining begins, and may last so long."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(timeout_s * 1e6)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent only when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def progress(self) -> None:
        """A sign of life, to be given more often than every `watchdog_s`."""
        self._send("WATCHDOG=1")

    def store(self, name: str, fd: int) -> bool:
        """Have a duplicate kept. Names: ASCII without ":" and control characters. Returns whether it was taken."""
        return self._send("FDSTORE=1", f"FDNAME={name}", fds=(fd,))

    def unstore(self, name: str) -> None:
        """Have everything of this name let go."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}", wait_s=_STORE_WAIT_S)

    def _send(self, *lines: str, fds: Sequence[int] = (), wait_s: float = 0.0) -> bool:
        if not self._path:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_STORE_WAIT_S if fds else wait_s)
                sock.connect(self._path)
                socket.send_fds(sock, ["\n".join(lines).encode()], list(fds))
        except OSError:
            return False
        return True
