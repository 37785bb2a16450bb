"""sd_notify: tell the service manager what we are doing, if there is one.

Source: sd_notify(3). One datagram of KEY=value lines to $NOTIFY_SOCKET ("@" begins an abstract name).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notifier:
    """Does nothing where NOTIFY_SOCKET is not set. A manager that does not listen is not our failure."""

    __slots__ = ("_path", "_status")

    def __init__(self, path: str) -> None:
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._status = ""

    @classmethod
    def from_environment(cls) -> Notifier:
        """Takes the variable out of the environment: workers must not speak for us."""
        return cls(os.environ.pop("NOTIFY_SOCKET", ""))

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

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._path)
