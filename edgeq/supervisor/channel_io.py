"""Frames over a connected Unix socket: blocking for the spawner, on a loop for supervisor and workers.

On a loop, sending never blocks: a worker that stands still (SIGSTOP, a debugger) must not stop the supervisor. What the
socket does not take waits in memory together with duplicates of its descriptors, so the caller may close its own.
"""

from __future__ import annotations

import array
import asyncio
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from edgeq.supervisor.frames import MAX_FRAME_BYTES, Frame, FrameError, FrameReader, Piece, encode

_READ_BYTES: Final = 256 * 1024
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel; neither is inherited by programs."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _send_piece(sock: socket.socket, piece: Piece) -> int:
    if not piece.fds:
        return sock.send(piece.data)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", piece.fds).tobytes())]
    return sock.sendmsg([piece.data], ancillary)


def send_blocking(sock: socket.socket, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message on a blocking socket. Raises OSError if the peer is gone."""
    for piece in encode(payload, fds):
        rest = piece
        while rest.data:
            sent = _send_piece(sock, rest)
            rest = Piece(rest.data[sent:], ())


def receive(sock: socket.socket, reader: FrameReader, with_fds: bool) -> list[Frame] | None:
    """One read. None means the end of the stream. Raises BlockingIOError, other OSErrors, FrameError."""
    if not with_fds:
        # Without room for them the kernel drops descriptors that a peer might send.
        data = sock.recv(_READ_BYTES)
        return reader.feed(data) if data else None
    data, ancillary, _flags, _address = sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return reader.feed(data, fds) if data else None


class Channel:
    """One end on a loop. `on_frame` gets each message; `on_end` is called once, when the peer is gone."""

    __slots__ = ("_loop", "_on_end", "_on_frame", "_queue", "_reader", "_sock", "_with_fds")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
        with_fds: bool = False,
        max_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._with_fds = with_fds
        self._reader = FrameReader(max_bytes)
        self._queue: deque[Piece] = deque()
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Nothing comes or goes any more."""
        return self._sock is None

    def send(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Send when the peer takes it. Into a closed channel nothing is sent: its end was or will be reported."""
        if self._sock is None:
            return
        waiting = bool(self._queue)
        self._queue.extend(Piece(piece.data, tuple(map(os.dup, piece.fds))) for piece in encode(payload, fds))
        if not waiting:
            self._flush()
            if self._queue and self._sock is not None:
                self._loop.add_writer(self._sock.fileno(), self._writable)

    def read_rest(self) -> None:
        """Take what the peer has sent before its end, which may be known from elsewhere first."""
        self._readable()

    def send_rest(self, timeout_s: float) -> None:
        """Wait until the peer has taken what was sent; for the last words of a process whose loop has ended."""
        if self._sock is None or not self._queue:
            return
        deadline_s = time.monotonic() + timeout_s
        while self._queue and self._sock is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select((), (self._sock,), (), left_s)[1]:
                return
            self._flush()

    def close(self) -> None:
        """Close this end without a call to `on_end`."""
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._sock = None
        _close_fds(self._reader.leftover_fds())
        while self._queue:
            _close_fds(self._queue.popleft().fds)

    def _flush(self) -> None:
        while self._queue and self._sock is not None:
            piece = self._queue[0]
            try:
                sent = _send_piece(self._sock, piece)
            except BlockingIOError:
                return
            except OSError:
                # The peer is gone. The reader will find the end, after what the peer may have said last.
                while self._queue:
                    _close_fds(self._queue.popleft().fds)
                return
            _close_fds(piece.fds)
            if sent < len(piece.data):
                self._queue[0] = Piece(piece.data[sent:], ())
            else:
                self._queue.popleft()

    def _writable(self) -> None:
        self._flush()
        if not self._queue and self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while self._sock is not None:
            try:
                frames = receive(self._sock, self._reader, self._with_fds)
            except BlockingIOError:
                return
            except (OSError, FrameError):
                frames = None
            if frames is None:
                self.close()
                self._on_end()
                return
            for frame in frames:
                self._on_frame(frame)


def _close_fds(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
