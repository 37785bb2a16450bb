"""Access log lines on their way to a file, a pipe, the journal or a terminal.

Finished exchanges come into `ring`; `gather` makes lines of a few of them, so that nobody who comes meanwhile waits for
long, and `flush` writes what waits. They run on the event loop, so they never wait: what the target does not take now
is offered again later. Lines wait, not exchanges, because an exchange holds on to its head and its connection: at most
`MAX_WAITING_BYTES` of them, then the newest are dropped.

Invariants
- Neither raises; an error is told once for each kind until writing works again, and counted.
- Several workers write to one target, so each write ends at a line end:
  * a regular file is opened with O_APPEND and gets a batch by one write(2), which Linux does under the inode's lock.
    If a full disk cuts a write within a line, that line is written again later, on a line of its own.
  * pipes, sockets and terminals get at most PIPE_BUF (4096) bytes at a time: pipe(7) keeps such a write whole, and
    non-blocking it happens wholly or not at all. Only a single longer line may be split.
- Standard output keeps its flags: O_NONBLOCK belongs to the open file, which other processes share. A pipe or terminal
  is opened once more through /proc/self/fd, a socket is written with MSG_DONTWAIT.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from edgeq.observe import log_io
from edgeq.response.access_log import render
from edgeq.response.relay import Exchange

MAX_WAITING_BYTES: Final = 48 * 1024 * 1024
"""Some seconds of a busy worker's traffic."""
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of lines that have waited, in one flush."""
_WRITE_BYTES: Final = 32 * 1024
"""Lines that are not left for the next tick."""
_PIPE_BUF: Final = select.PIPE_BUF
_RETRY_FULL_S: Final = 0.01
_PIPE_BYTES: Final = 1 << 20
"""A pipe of the usual 64 KiB is made this large (the most that pipe(7) lets anyone have): between two attempts a reader
that keeps up empties it, so its size decides how many lines a second can pass."""
_RETRY_ERROR_S: Final = 1.0
RETIRED_S: Final = 5.0
"""For what waits in a writer that a reload has replaced."""
_TELL_S: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class AccessLogWriter:
    """One worker's access log. Made after the fork; target and format are those of `schema.AccessLog`.

    The caller appends to `ring` if `enabled`, and calls `flush` on its tick, `gather` when the ring is long.
    """

    __slots__ = (
        "_clock",
        "_fd",
        "_format",
        "_is_owned",
        "_is_stream",
        "_log",
        "_pending",
        "_problem",
        "_retired_until_s",
        "_retry_at_s",
        "_sent",
        "_socket",
        "_stdout_fd",
        "_target",
        "_tell_at_s",
        "_told_dropped",
        "_waiting",
        "_waiting_bytes",
        "_waits_first",
        "dropped",
        "enabled",
        "errors",
        "ring",
        "written_bytes",
    )

    def __init__(
        self,
        target: str,
        log_format: str,
        *,
        log: log_io.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
        stdout_fd: int = 1,
    ) -> None:
        """Open the target. If that fails it is told, and tried again each second.

        Raises: ValueError for an unknown format.
        """
        render([], log_format, 0.0)
        self.ring: list[Exchange] = []
        self.enabled = target != "off"
        self.dropped = 0
        self.errors = 0
        self.written_bytes = 0
        self._target = target
        self._format = log_format
        self._log = log if log is not None else log_io.get_logger()
        self._clock = clock
        self._stdout_fd = stdout_fd
        self._fd = -1
        self._is_owned = False
        self._is_stream = False
        self._waits_first = False
        self._socket: socket.socket | None = None
        self._pending = b""
        self._sent = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._retry_at_s = 0.0
        self._retired_until_s = 0.0
        self._problem = ""
        self._tell_at_s = 0.0
        self._told_dropped = 0
        if self.enabled:
            self._open()

    def gather(self) -> None:
        """Make lines of what is in the ring; once they are many, they are written."""
        self._set_aside()
        if self._waiting_bytes >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, one batch at most, as far as the target takes it now."""
        if not self.enabled:
            self.ring.clear()
            return
        if self.dropped != self._told_dropped:
            self._tell_dropped()
        if self.ring:
            self._set_aside()
        if self._takes_more() and self._waiting:
            self._pending = self._next_waiting()
            self._send()

    def _takes_more(self) -> bool:
        """Is the target open, and has it taken all that it was offered?"""
        if self._retry_at_s and self._clock() < self._retry_at_s:
            return False
        if self._fd < 0 and not self._open():
            return False
        return not self._pending or self._send()

    def _set_aside(self) -> None:
        """Keep the lines of what is in the ring, or drop them."""
        ring = self.ring
        if self._waiting_bytes < MAX_WAITING_BYTES:
            lines = self._render(ring)
            self._waiting.append(lines)
            self._waiting_bytes += len(lines)
        else:
            self.dropped += len(ring)
        ring.clear()

    def _next_waiting(self) -> bytes:
        batch = []
        size = 0
        while self._waiting and size < _BATCH_BYTES:
            lines = self._waiting.popleft()
            batch.append(lines)
            size += len(lines)
        self._waiting_bytes -= size
        return b"".join(batch)

    def reopen(self) -> None:
        """Open the file's path again, after a rotation by rename. If that fails, the old file stays in use."""
        if not self.enabled or self._target == "stdout":
            return
        if self._fd >= 0 and self._pending:
            self._send()  # the rest of a cut line belongs to the old file
        self._retry_at_s = 0.0
        if self._open():
            # what is left begins in a new file, so at the beginning of a line
            self._pending = self._pending[self._pending.rfind(b"\n", 0, self._sent) + 1 :].removeprefix(b"\n")
            self._sent = 0

    def retire(self, timeout_s: float = RETIRED_S) -> None:
        """Another writer has taken over: what waits here has so long to be taken. `finish` is to be called on ticks."""
        self._retired_until_s = self._clock() + timeout_s

    def finish(self) -> bool:
        """Write on, without waiting. Returns whether all is written, or the time is over, and the target closed."""
        self.flush()
        if (self.ring or self._waiting or self._pending) and self._clock() < self._retired_until_s:
            return False
        self.close(0.0)
        return True

    def close(self, timeout_s: float = 1.0) -> None:
        """Write all that waits, for at most `timeout_s`; the rest is counted as dropped.

        It waits for the target, so unless that time is 0 it is for the end of a worker.
        """
        if not self.enabled:
            return
        deadline_s = self._clock() + timeout_s
        while self.ring or self._waiting or self._pending:
            self._retry_at_s = 0.0
            errors = self.errors
            self.flush()
            remaining_s = deadline_s - self._clock()
            if self.errors != errors or remaining_s <= 0:
                break
            if self._pending:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(remaining_s * 1000)
        left = len(self.ring) + self._pending[self._sent :].removeprefix(b"\n").count(b"\n")
        left += sum(lines.count(b"\n") for lines in self._waiting)
        if left:
            self.dropped += left
            self._tell_at_s = 0.0
            self._tell_dropped()
        self.ring.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._pending = b""
        self._close_fd()
        self.enabled = False

    def snapshot(self) -> dict[str, str | int]:
        """For SHOW."""
        return {
            "target": self._target,
            "format": self._format,
            "waiting": len(self.ring),
            "pending_bytes": len(self._pending) - self._sent + self._waiting_bytes,
            "limit_bytes": MAX_WAITING_BYTES,
            "written_bytes": self.written_bytes,
            "dropped": self.dropped,
            "errors": self.errors,
            "problem": self._problem,
        }

    def _render(self, exchanges: list[Exchange]) -> bytes:
        wall_offset_s = time.time() - time.monotonic()
        try:
            return render(exchanges, self._format, wall_offset_s)
        except Exception:
            # a record of wrong types is a defect; it must not take its neighbours with it
            self._log.exception("access_log.record_invalid")
        lines = []
        for exchange in exchanges:
            try:
                lines.append(render([exchange], self._format, wall_offset_s))
            except Exception:
                self.errors += 1
        return b"".join(lines)

    def _send(self) -> bool:
        """Write from `_pending`; True if nothing is left."""
        data, sent = self._pending, self._sent
        try:
            while sent < len(data):
                end = self._line_end(data, sent) if self._is_stream else len(data)
                written = self._write(data[sent:end])
                sent += written
                self.written_bytes += written
                if sent < end and not self._is_stream:
                    start = data.rfind(b"\n", 0, sent) + 1
                    data, sent = (b"" if start == sent else b"\n") + data[start:], 0
        except BlockingIOError:
            self._retry_at_s = self._clock() + _RETRY_FULL_S
        except OSError as error:
            self._failed("write", error)
        else:
            self._pending, self._sent = b"", 0
            self._retry_at_s = 0.0
            if self._problem:
                self._problem = ""
                self._log.info("access_log.recovered", target=self._target)
            return True
        self._pending, self._sent = data, sent
        return False

    @staticmethod
    def _line_end(data: bytes, start: int) -> int:
        """The end of the last line that fits into PIPE_BUF bytes, or of the first one if it is longer."""
        if len(data) - start <= _PIPE_BUF:
            return len(data)
        end = data.rfind(b"\n", start, start + _PIPE_BUF) + 1
        return end or data.find(b"\n", start) + 1

    def _write(self, chunk: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(chunk, socket.MSG_DONTWAIT)
        if self._waits_first:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            chunk = chunk[:_PIPE_BUF]  # what a writable pipe takes without blocking
        return os.write(self._fd, chunk)

    def _open(self) -> bool:
        """Open the target and let go of the one before; on failure keep that one."""
        try:
            if self._target == "stdout":
                self._open_stdout()
            else:
                fd = os.open(self._target, _FLAGS | os.O_CREAT, 0o640)
                self._close_fd()
                self._fd, self._is_owned = fd, True
                self._is_stream = stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)
                if self._is_stream:
                    _enlarge(fd)
        except OSError as error:
            self._failed("open", error)
            return False
        return True

    def _open_stdout(self) -> None:
        fd = self._stdout_fd
        mode = os.fstat(fd).st_mode
        self._is_stream = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
        if stat.S_ISSOCK(mode):  # the journal
            self._socket = socket.socket(fileno=os.dup(fd))
        elif self._is_stream:
            try:
                fd = os.open(f"/proc/self/fd/{fd}", _FLAGS)
                self._is_owned = True
                _enlarge(fd)
            except OSError:  # someone else's pipe, after privileges were dropped: ask before each write
                self._waits_first = True
        self._fd = fd

    def _close_fd(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._is_owned:
            os.close(self._fd)
        self._fd, self._is_owned = -1, False

    def _failed(self, operation: str, error: OSError) -> None:
        self.errors += 1
        self._retry_at_s = self._clock() + _RETRY_ERROR_S
        problem = f"{operation}: {error.strerror}"
        if problem != self._problem:
            self._problem = problem
            self._log.error("access_log.failed", target=self._target, problem=problem, retry_s=_RETRY_ERROR_S)

    def _tell_dropped(self) -> None:
        now_s = self._clock()
        if now_s >= self._tell_at_s:
            self._tell_at_s = now_s + _TELL_S
            self._log.warning(
                "access_log.dropped",
                target=self._target,
                records=self.dropped - self._told_dropped,
                total=self.dropped,
                problem=self._problem or "the reader is too slow",
            )
            self._told_dropped = self.dropped


def _enlarge(fd: int) -> None:
    with contextlib.suppress(OSError):  # not a pipe, or this user has too many of them
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) == 1 << 16:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
