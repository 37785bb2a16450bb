"""Large request bodies: read into one buffer that all connections of a worker share, and written on from there.

A protocol gets what the event loop reads as an object of its own, a copy for each read. A body of a megabyte has no
use for that: it is read, and written to the upstream, which takes it at once or is waited for. So a connection whose
body is larger than a read becomes a buffered protocol (asyncio.BufferedProtocol), and stays one. If the upstream's
socket does not take all, its transport keeps the buffer, and the worker has a new one: as many are held as there are
uploads that wait for their upstream, each of the size of a read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream

INTAKE_BYTES: Final = 256 * 1024
"""As much as uvloop reads at once."""


class Intake:
    """The protocol of such a connection: bytes come here, everything else goes to the connection."""

    __slots__ = ("_down",)

    def __init__(self, down: Downstream) -> None:
        self._down: Downstream = down

    def get_buffer(self, size_hint: int) -> memoryview:
        """Where to read to."""
        return self._down.shard.intake

    def buffer_updated(self, size: int) -> None:
        """So many bytes are there."""
        self._down.intake(size)

    def eof_received(self) -> bool:
        return self._down.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._down.connection_lost(error)

    def pause_writing(self) -> None:
        self._down.pause_writing()

    def resume_writing(self) -> None:
        self._down.resume_writing()


def new_buffer() -> memoryview:
    """One that nobody else writes from."""
    return memoryview(bytearray(INTAKE_BYTES))
