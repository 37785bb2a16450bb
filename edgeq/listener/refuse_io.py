"""A last word to connections that get no place: an answer, and a close that does not destroy it.

Closing a socket whose receive buffer holds unread bytes, or receiving bytes after the close, makes the kernel send RST,
and a client that sees RST may never show the answer (RFC 9112 9.6). So what has arrived is read and thrown away, and
when nothing has arrived yet, the socket stays open for a moment in which the request may come.
Invariants: never blocks, one try for each system call, a bounded number of sockets for a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

_LINGER_S: Final = 0.25
_MAX_LINGERING: Final = 128
_READ_BYTES: Final = 64 * 1024
_MAX_READS: Final = 4


class Refuser:
    """Answers and closes. `answer(reason, resource)` gives a complete HTTP response."""

    __slots__ = ("_answer", "_lingering", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[str, str], bytes]) -> None:
        self._loop = loop
        self._answer = answer
        self._lingering: deque[tuple[float, socket.SocketType]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._lingering)

    def refuse(self, connection: socket.SocketType, reason: str, resource: str, linger: bool = True) -> None:
        """Answer a plain-text connection and close it: at once, or soon. `linger` False: at once."""
        with contextlib.suppress(OSError):
            connection.send(self._answer(reason, resource), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            connection.shutdown(socket.SHUT_WR)
        if discard_received(connection) or not linger:
            connection.close()
            return
        if len(self._lingering) >= _MAX_LINGERING:
            self._close_first()
        self._lingering.append((self._loop.time() + _LINGER_S, connection))
        if self._timer is None:
            self._timer = self._loop.call_later(_LINGER_S, self._on_timer)

    def close(self) -> None:
        """Close all that linger, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._lingering:
            self._close_first()

    def _close_first(self) -> None:
        _, connection = self._lingering.popleft()
        discard_received(connection)
        connection.close()

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Half a millisecond of grace: loop timers are rounded to milliseconds.
        while self._lingering and self._lingering[0][0] <= now + 0.0005:
            self._close_first()
        if self._lingering:
            self._timer = self._loop.call_later(self._lingering[0][0] - now, self._on_timer)


def discard_received(connection: socket.SocketType) -> bool:
    """Throw away what has arrived, up to a bound. Returns whether there was anything (a FIN counts)."""
    anything = False
    for _ in range(_MAX_READS):
        try:
            data = connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return anything
        except OSError:
            return True
        anything = True
        if not data:
            break
    return anything
