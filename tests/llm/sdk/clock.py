"""A clock for the SDKs: sleeping takes no time and is remembered."""

from __future__ import annotations

import time
from typing import Any


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
