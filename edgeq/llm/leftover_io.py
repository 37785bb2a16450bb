"""What workers have used that no supervisor took: a file beside the store, for the next supervisor.

A worker whose supervisor was killed finishes what runs, and has nobody to tell. It has inherited this file from the
supervisor, open for appending (it may run as a user who could not open it), and writes its last batches there. They
have the same mark and numbers as if they had been told, so one that the dead supervisor had stored is not added twice;
nor is one that is read again, because a supervisor was killed between storing and emptying.

Each message stands behind its length, 4 bytes. A lock keeps appending and emptying apart. What a full disk or a crash
has cut off is given up, and said.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final

_LENGTH: Final = struct.Struct("!I")
_MODE: Final = 0o600


def leftover_path(store: str) -> str:
    """Of a store."""
    return f"{store}.left"


def open_leftover(store: str) -> int:
    """A descriptor for `append`. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(leftover_path(store), flags, _MODE)


def append(fd: int, payload: bytes) -> None:
    """Add a message, whole or not at all. Raises OSError."""
    _lock(fd)
    try:
        size = os.fstat(fd).st_size
        data = _LENGTH.pack(len(payload)) + payload
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError:
            os.ftruncate(fd, size)
            raise
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def take(fd: int, use: Callable[[bytes], None]) -> int:
    """Give each message to `use`, then empty the file, unless `use` raises.

    Returns: how many bytes at its end were no message. Raises what `use` raises, and OSError.
    """
    if not os.fstat(fd).st_size:
        return 0
    _lock(fd)
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0)
        start = 0
        while start + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, start)
            end = start + _LENGTH.size + length
            if end > len(data):
                break
            use(data[start + _LENGTH.size : end])
            start = end
        os.ftruncate(fd, 0)
        return len(data) - start
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def _lock(fd: int) -> None:
    # Of the process, not of the open file: workers share that one with the supervisor.
    fcntl.lockf(fd, fcntl.LOCK_EX)
