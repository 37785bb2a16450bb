"""More of a large upload, from the client's socket to the upstream's without a copy: splice(2), through a pipe.

A byte that is copied is moved four times on its way (to the loop's buffer, to an object, to the upstream's socket, and
by the loopback device or the card), and most of what a large upload costs is that. So when a read has filled the loop's
buffer, what the kernel has besides goes through a pipe. That is empty again afterwards: what the upstream's socket does
not take at once is read from it, and waits in the transport as usual. So there is one for a worker, and nothing to
watch or to take back.
Source: splice(2); HAProxy has the same as `option splice-request`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Any, Final

PIPE_BYTES: Final = 256 * 1024
"""As much as the event loop reads at once. Counted in pages, so it holds less of small segments."""
_TIMES: Final = 4
"""So often in one turn; then the others have theirs."""
_SET_PIPE_SIZE: Final = 1031
"""F_SETPIPE_SZ (linux/fcntl.h)."""


class Splicer:
    """The pipe of a worker."""

    __slots__ = ("_from", "_to")

    def __init__(self) -> None:
        self._from: int = -1
        self._to: int = -1

    def move(self, source: Any, sink: Any, size: int) -> tuple[int, bytes, OSError | None]:
        """Move what has come, at most `size` bytes, between the sockets of two transports; `sink` has nothing to write.

        Returns: how many bytes have gone, those that `sink` still has to take, and why it takes nothing more. Then the
        last that have gone are lost, as they are in a transport.
        """
        moved = 0
        if self._from < 0 and not self._open():
            return moved, b"", None
        fd = source.get_extra_info("socket").fileno()
        to = sink.get_extra_info("socket").fileno()
        for _ in range(_TIMES):
            try:
                left = os.splice(fd, self._to, min(size - moved, PIPE_BYTES), flags=os.SPLICE_F_NONBLOCK)
            except OSError:  # nothing has come; or an error, and then its transport will find the end of it
                break
            try:
                while left:
                    took = os.splice(self._from, to, left, flags=os.SPLICE_F_NONBLOCK)
                    left -= took
                    moved += took
            except BlockingIOError:
                return moved, self._read(left), None
            except OSError as error:
                self.close()
                return moved + left, b"", error
            if moved >= size:
                break
        return moved, b"", None

    def _open(self) -> bool:
        """Make the pipe. Returns: False if there is none to be had."""
        try:
            self._from, self._to = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        with contextlib.suppress(OSError):  # a smaller one will do
            fcntl.fcntl(self._to, _SET_PIPE_SIZE, PIPE_BYTES)
        return True

    def _read(self, size: int) -> bytes:
        """What is left in the pipe."""
        parts: list[bytes] = []
        while size:
            part = os.read(self._from, size)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Forget what is in the pipe."""
        if self._from >= 0:
            os.close(self._from)
            os.close(self._to)
            self._from = self._to = -1
