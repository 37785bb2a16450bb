"""The event loop of a worker: uvloop, with a tick that measures how late it is.

What must happen now and then (timer wheel, log ring, board) hangs on the one tick; nothing else sets timers on the hot
path. The tick's own lateness is the loop's lag: the time for which something kept the loop from turning.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import uvloop

TICK_S = 0.05


class WorkerLoop(uvloop.Loop):
    """A uvloop that ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.lag_s: float = 0.0
        """How late the last tick was."""
        self.max_lag_s: float = 0.0
        """The worst since somebody last asked; set it to 0 after reading."""
        self._on_tick: list[Callable[[float], None]] = []
        self._due = 0.0
        self._ticking = False

    def on_tick(self, call: Callable[[float], None]) -> None:
        """Call `call(now)` on each tick, in order of registration, each in a turn of the loop of its own: whoever comes
        meanwhile waits for one of them, and not for all."""
        self._on_tick.append(call)
        if not self._ticking:
            self._ticking = True
            self._due = monotonic() + TICK_S
            self.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = monotonic()
        self.lag_s = max(0.0, now - self._due)
        self.max_lag_s = max(self.max_lag_s, self.lag_s)
        self._due = now + TICK_S
        self.call_later(TICK_S, self._tick)  # first, so that no defect can stop the ticks
        # What a timer asks for soon is done before the loop looks for readers, what that asks for then after it.
        self.call_soon(self._step, 0, now)

    def _step(self, at: int, now: float) -> None:
        if at + 1 < len(self._on_tick):
            self.call_soon(self._step, at + 1, now)
        try:
            self._on_tick[at](now)
        except Exception as error:
            self.call_exception_handler({"message": "a tick failed", "exception": error})


def new_loop() -> WorkerLoop:
    """The loop of one worker process."""
    return WorkerLoop()
