"""What workers have used that no supervisor took: a file beside the store, for the next supervisor.

A worker whose supervisor was killed finishes what runs, and has nobody to tell. It has inherited this file from the
supervisor, open for appending (it may run as a user who could not open it), and writes its last batches there. They
have the same mark and numbers as if they had been told, so one that the dead supervisor had stored is not added twice;
nor is one that is read again, because a supervisor was killed between storing and emptying.

Prompts and answers are redacted before, a text at a time between the loop's other work: a batch has half a million
characters of them, which take a fifth of a second, and others' streams are still to be finished.

Each message stands behind its length, 4 bytes. A lock keeps appending and emptying apart. What a full disk or a crash
has cut off is given up, and said.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from edgeq.llm.account import Conversation
from edgeq.llm.redact import redacted
from edgeq.observe import log_io
from edgeq.supervisor.messages import UsageTold, encode_message

_log = log_io.get_logger()
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


class Leftover:
    """Where one worker leaves its batches."""

    __slots__ = ("_fd", "_loop", "_masked", "_masks_answer", "_taken", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, taken: Callable[[int], None]) -> None:
        """`taken` is called with a batch's number when it is in the file."""
        self._loop = loop
        self._fd = fd
        self._taken = taken
        self._waiting: deque[UsageTold] = deque()
        self._masked: list[Conversation] = []
        """Of the first that waits, those that are done, but for the last one's answer if `_masks_answer`."""
        self._masks_answer = False

    def put(self, told: UsageTold) -> None:
        """Leave it, soon: once, however often it is told."""
        if any(one.number == told.number for one in self._waiting):
            return
        self._waiting.append(told)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._step)

    def finish(self) -> None:
        """The loop has ended: leave what waits."""
        while self._waiting:
            self._go_on()

    def _step(self) -> None:
        if self._waiting:
            self._go_on()
        if self._waiting:
            self._loop.call_soon(self._step)

    def _go_on(self) -> None:
        """Redact one text, or write one batch."""
        told = self._waiting[0]
        masked = self._masked
        if self._masks_answer:
            masked[-1] = replace(masked[-1], answer=redacted(masked[-1].answer))
            self._masks_answer = False
        elif len(masked) < len(told.conversations):
            one = told.conversations[len(masked)]
            masked.append(replace(one, prompt=redacted(one.prompt)))
            self._masks_answer = True
        else:
            self._waiting.popleft()
            self._masked = []
            try:
                append(self._fd, encode_message(replace(told, conversations=tuple(masked))))
            except OSError as error:
                _log.error("usage is lost", requests=len(told.entries), problem=error.strerror)
            self._taken(told.number)


def _lock(fd: int) -> None:
    # Of the process, not of the open file: workers share that one with the supervisor.
    fcntl.lockf(fd, fcntl.LOCK_EX)
