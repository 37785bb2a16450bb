"""The transport of a client that does not exist: for requests that a worker makes for its own sake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream


class Nobody:
    """Takes everything at once and never sends anything. Its end is that of its connection, as with any transport."""

    __slots__ = ("_down",)

    def __init__(self, down: Downstream) -> None:
        self._down: Downstream | None = down

    def write(self, data: Any) -> None:
        """Bytes for nobody."""

    def writelines(self, parts: Any) -> None:
        """The same."""

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is kept."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """Nothing is read anyway."""

    def resume_reading(self) -> None:
        """The same."""

    def close(self) -> None:
        down = self._down
        if down is not None:
            self._down = None  # or the two would keep each other
            down.connection_lost(None)

    def abort(self) -> None:
        self.close()
