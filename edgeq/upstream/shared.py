"""What the workers of one machine tell each other about one endpoint or one upstream: a few cells of the board.

Decides how a state crosses from one worker to the others without a lock. Each worker writes cells of its own only; a
cell holds one 64-bit number. There are two kinds:

- changes: `stamp(now, value)`, the moment of a decision with a small value in its low byte. The newest of all workers
  holds. Who reads a change that is newer than his own adopts it and writes it into his own cell, so that it outlives
  the worker that decided (the rows of a dead worker are zeroed).
- counters: only ever grow (until their worker dies); readers look at the sum.

Monotonic time is one clock for the whole machine (CLOCK_MONOTONIC), so workers' moments can be compared.
"""

from __future__ import annotations

from typing import Final, Protocol

EJECTED: Final = 0
"""Change; how often in a row (1..255), 0: it is back."""
HEALTH: Final = 1
"""Change; what the active checks say: `GOOD` or `BAD`."""
CIRCUIT: Final = 2
"""Change, of an upstream; the breaker's state, and how often it has opened in a row."""
ANSWERED: Final = 3
"""Counter; good answers of an endpoint."""
FAILED: Final = 4
"""Counter; failures of an endpoint."""
CELLS: Final = 5

REQUESTS: Final = 0
"""Of a retry budget, which has cells of its own; requests of the last ten seconds."""
RETRIES: Final = 1
"""The same of retries."""

UNKNOWN: Final = 0
GOOD: Final = 1
BAD: Final = 2


class SharedCells(Protocol):
    """The cells of one endpoint or upstream, as one worker sees them. Asked and written on the tick, and at changes."""

    def put(self, cell: int, value: int) -> None:
        """Write this worker's cell; 0 <= value < 2**63."""

    def newest(self, cell: int) -> int:
        """The largest value of all workers: of changes, the newest."""

    def total(self, cell: int) -> int:
        """The sum over all workers."""

    def others_total(self, cell: int) -> int:
        """The sum over the other workers."""

    def leads(self) -> bool:
        """Does this worker do what one must do for all, such as active checks?"""


class LocalCells:
    """Those of a worker that is alone."""

    __slots__ = ("_own",)

    def __init__(self) -> None:
        self._own: list[int] = [0] * CELLS

    def put(self, cell: int, value: int) -> None:
        self._own[cell] = value

    def newest(self, cell: int) -> int:
        return self._own[cell]

    def total(self, cell: int) -> int:
        return self._own[cell]

    def others_total(self, cell: int) -> int:
        return 0

    def leads(self) -> bool:
        return True


class SharedBudget:
    """The counts of a retry budget in the other workers (`policy.retry.OtherBudgets`)."""

    __slots__ = ("cells",)

    def __init__(self, cells: SharedCells) -> None:
        self.cells: SharedCells = cells

    def publish(self, requests: int, retries: int) -> None:
        """Write down this worker's own."""
        self.cells.put(REQUESTS, requests)
        self.cells.put(RETRIES, retries)

    def requests(self) -> int:
        """The sum of the others' requests."""
        return self.cells.others_total(REQUESTS)

    def retries(self) -> int:
        """The sum of the others' retries."""
        return self.cells.others_total(RETRIES)


def stamp(now: float, value: int) -> int:
    """A change at `now` (monotonic seconds) to `value`, 0..255."""
    return int(now * 1e6) << 8 | value


def stamped_value(change: int) -> int:
    """What it changed to."""
    return change & 255


def stamped_at(change: int) -> float:
    """When, in monotonic seconds."""
    return (change >> 8) / 1e6
