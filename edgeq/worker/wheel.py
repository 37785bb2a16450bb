"""One coarse timer wheel for all time-outs of a worker, and a fine one for what is shorter than its tick.

A timed thing stands in at most one bucket. Moving a deadline later is one attribute store: when the old bucket's turn
comes, the thing is put where its deadline now is. Only moving it earlier touches the wheel. So a request on a kept
connection costs no timer operation, and who moves deadlines for each request sees to it without a call:

    item.expire_at = at
    if at < item.turn_at:
        wheel.schedule(item, at)

Precision is one tick, always late, never early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

NEVER: Final = 1e18
"""A deadline that does not come (monotonic seconds)."""


class Timed:
    """Something that expires. `expire_at`: monotonic seconds; `bucket`: where the wheel holds it, -1 for nowhere;
    `turn_at`: when the wheel looks at it next, NEVER if it is nowhere."""

    __slots__ = ("bucket", "expire_at", "turn_at")

    def __init__(self) -> None:
        self.expire_at: float = NEVER
        self.bucket: int = -1
        self.turn_at: float = NEVER

    def on_expire(self, now: float) -> None:
        """Called once the deadline has passed; sets a new deadline by `Wheel.schedule` if it wants one."""
        raise NotImplementedError


class Alarm(Timed):
    """A timed thing that calls back; for what is rare."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[float], None]) -> None:
        super().__init__()
        self._call = call

    def on_expire(self, now: float) -> None:
        self._call(now)


class Wheel:
    """Buckets of `tick_s` seconds; a deadline beyond the last bucket waits there and is looked at again."""

    __slots__ = ("_buckets", "_position", "_size", "tick_s")

    def __init__(self, now: float, tick_s: float, size: int) -> None:
        self.tick_s: float = tick_s
        self._size: int = size
        self._buckets: list[set[Timed]] = [set() for _ in range(size)]
        self._position: int = int(now / tick_s)

    def schedule(self, item: Timed, expire_at: float) -> None:
        """Let `item` expire at `expire_at`."""
        item.expire_at = expire_at
        if expire_at < item.turn_at:
            bucket = item.bucket
            if bucket >= 0:
                self._buckets[bucket % self._size].discard(item)
            self._put(item)

    def _put(self, item: Timed) -> None:
        last = self._position + self._size - 1
        expire_at = item.expire_at
        bucket = last if expire_at >= last * self.tick_s else int(expire_at / self.tick_s) + 1
        if bucket <= self._position:
            bucket = self._position + 1
        item.bucket = bucket
        item.turn_at = bucket * self.tick_s
        self._buckets[bucket % self._size].add(item)

    def remove(self, item: Timed) -> None:
        """Forget `item`."""
        bucket = item.bucket
        if bucket >= 0:
            self._buckets[bucket % self._size].discard(item)
            item.bucket = -1
            item.turn_at = NEVER

    def is_empty(self) -> bool:
        """Does nothing wait for its time?"""
        return not any(self._buckets)

    def skip(self, now: float) -> None:
        """It is empty: what has passed until now need not be looked at."""
        self._position = int(now / self.tick_s)

    def advance(self, now: float) -> int:
        """Expire everything whose deadline has passed. Returns: how many did. Raises: what the last `on_expire` raised
        that did, after all others have been called."""
        target = int(now / self.tick_s)
        expired = 0
        failed: Exception | None = None
        while self._position < target:
            self._position += 1
            due = self._buckets[self._position % self._size]
            if not due:
                continue
            self._buckets[self._position % self._size] = set()
            for item in due:
                if item.bucket != self._position:
                    continue  # removed by another's expiry in this same turn
                item.bucket = -1
                item.turn_at = NEVER
                if item.expire_at <= now:
                    expired += 1
                    try:
                        item.on_expire(now)
                    except Exception as error:
                        failed = error  # the others in the bucket have their time-outs all the same
                else:
                    self._put(item)
        if failed is not None:
            raise failed
        return expired


FINE_TICK_S: Final = 0.005
"""A pause of 25 ms is then late by a fifth at most."""
_FINE_BUCKETS: Final = 256


class FineWheel:
    """A wheel that turns by itself, by a timer of the loop that runs only while something is in it: for pauses before a
    request is tried again, the end of a deadline, and the like, which the tick of the coarse one would make several
    times as long."""

    __slots__ = ("_call_later", "_clock", "_turns", "_wheel")

    def __init__(self, clock: Callable[[], float], call_later: Any) -> None:
        """Args: clock gives monotonic seconds; call_later(seconds, call) is the loop's."""
        self._clock = clock
        self._call_later: Any = call_later
        self._wheel: Wheel = Wheel(clock(), FINE_TICK_S, _FINE_BUCKETS)
        self._turns: bool = False

    def schedule(self, item: Timed, expire_at: float) -> None:
        """Let `item` expire at `expire_at`."""
        if not self._turns:
            self._turns = True
            self._wheel.skip(self._clock())
            self._call_later(FINE_TICK_S, self._turn)
        self._wheel.schedule(item, expire_at)

    def remove(self, item: Timed) -> None:
        """Forget `item`."""
        self._wheel.remove(item)

    def is_idle(self) -> bool:
        """Nothing is in it, and its timer does not run."""
        return not self._turns

    def _turn(self) -> None:
        try:
            self._wheel.advance(self._clock())
        finally:
            self._turns = not self._wheel.is_empty()
            if self._turns:
                self._call_later(FINE_TICK_S, self._turn)
