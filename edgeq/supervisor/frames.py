"""Messages with descriptors on a stream socket: 4 bytes of length, 4 bytes of number of descriptors, payload.

Descriptors travel beside the bytes, at most 253 per call (SCM_MAX_FD), each batch tied to at least one byte. The kernel
delivers a batch with the bytes it was sent with or before them, never after, so descriptors are a queue of their own
from which each message takes its number.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("!II")
FDS_PER_CALL: Final = 250
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024


class FrameError(Exception):
    """The peer does not speak our language."""


class Frame(NamedTuple):
    """One message. The receiver owns the descriptors."""

    payload: bytes
    fds: list[int]


class Piece(NamedTuple):
    """What one sendmsg call carries."""

    data: memoryview
    fds: tuple[int, ...]


def encode(payload: bytes, fds: Sequence[int]) -> list[Piece]:
    """One message as pieces for sendmsg: all but the last batch of descriptors ride on one byte each."""
    data = memoryview(_HEADER.pack(len(payload), len(fds)) + payload)
    pieces = []
    while len(fds) > FDS_PER_CALL:
        pieces.append(Piece(data[:1], tuple(fds[:FDS_PER_CALL])))
        data, fds = data[1:], fds[FDS_PER_CALL:]
    pieces.append(Piece(data, tuple(fds)))
    return pieces


class FrameReader:
    """Bytes and descriptors in, whole messages out."""

    __slots__ = ("_buffer", "_fds", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._max_bytes = max_bytes

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[Frame]:
        """Take what one recvmsg returned. Raises FrameError for a message that is too long or lacks descriptors."""
        self._buffer += data
        self._fds += fds
        frames = []
        while len(self._buffer) >= _HEADER.size:
            size_bytes, fd_count = _HEADER.unpack_from(self._buffer)
            if size_bytes > self._max_bytes:
                raise FrameError(f"a message of {size_bytes} bytes, {self._max_bytes} allowed")
            end = _HEADER.size + size_bytes
            if len(self._buffer) < end:
                break
            if fd_count > len(self._fds):
                raise FrameError(f"a message with {fd_count} descriptors came with {len(self._fds)}")
            frames.append(Frame(bytes(self._buffer[_HEADER.size : end]), self._fds[:fd_count]))
            del self._buffer[:end], self._fds[:fd_count]
        return frames

    def leftover_fds(self) -> list[int]:
        """Descriptors of a message that will never be complete; the caller closes them."""
        fds, self._fds = self._fds, []
        return fds
