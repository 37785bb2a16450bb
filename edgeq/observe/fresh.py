"""Things that are made when somebody asks, and hold for a moment: a thousand readers cost as much as ten."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

FRESH_S: Final = 0.1
FRESH_TIMES: Final = 9.0
"""What took longer to make holds for longer, so many times: then it takes a tenth of the time at most. 50 ms with 200
upstreams and 16 workers."""


class Fresh:
    """Values by name, each with the moment until which it holds."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The value of a name: the last one, or a new one."""
        begun_s = time.monotonic()
        known = self._made.get(name)
        if known is not None and begun_s < known[0]:
            found: T = known[1]
            return found
        found = make()
        now_s = time.monotonic()
        self._made[name] = (now_s + max(FRESH_S, FRESH_TIMES * (now_s - begun_s)), found)
        return found

    def forget(self) -> None:
        """What was made holds no more."""
        self._made.clear()
