"""When to accept, rest, skip or give up: decisions only, no I/O.

The states of one acceptor::

    STOPPED --start--> ACCEPTING <--resume-- PAUSED          (paused by the operator; from every state that accepts)
                        |     ^
              exhausted |     | rested
                        v     |
                      BACKING_OFF                            (descriptors or kernel memory are short)

    all of these --retire--> RETIRING --drained--> CLOSED    (empty the kernel's queue, then leave)
                              |    ^
                    exhausted v    | rested
                        RETIRING_BACKING_OFF

Invariants: a listening socket is watched in ACCEPTING and RETIRING only; RETIRING is left only when the kernel's queue
is empty or the socket is broken; an illegal move raises at once.

Which error of accept(2) means what: man 2 accept, "Error handling" (Linux passes errors of the new connection through
accept; they are to be treated like EAGAIN by retrying) and "ERRORS".
"""

from __future__ import annotations

import enum
import errno
from typing import Final

LAGGING_S: Final = 0.010
"""A loop that lags more than this accepts fewer connections in a turn: who is inside goes before who is not."""

FIRST_REST_S: Final = 0.010
LONGEST_REST_S: Final = 1.0
"""Rests double from the first to the longest. CPython's asyncio always rests a second, which is too long for a short
burst, and libuv never rests, which burns the processor while nothing can be accepted."""
CALM_S: Final = 5.0
"""After this long without a shortage the next rest is a first one again."""


class State(enum.Enum):
    """What an acceptor does."""

    STOPPED = "stopped"
    ACCEPTING = "accepting"
    PAUSED = "paused"
    BACKING_OFF = "backing_off"
    RETIRING = "retiring"
    RETIRING_BACKING_OFF = "retiring_backing_off"
    CLOSED = "closed"


class Event(enum.Enum):
    """What happens to an acceptor."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    EXHAUSTED = "exhausted"
    RESTED = "rested"
    RETIRE = "retire"
    DRAINED = "drained"
    CLOSE = "close"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.STOPPED, Event.START): State.ACCEPTING,
    (State.STOPPED, Event.RETIRE): State.RETIRING,
    (State.ACCEPTING, Event.PAUSE): State.PAUSED,
    (State.ACCEPTING, Event.RESUME): State.ACCEPTING,
    (State.ACCEPTING, Event.EXHAUSTED): State.BACKING_OFF,
    (State.ACCEPTING, Event.RETIRE): State.RETIRING,
    (State.PAUSED, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.ACCEPTING,
    (State.PAUSED, Event.RETIRE): State.RETIRING,
    (State.BACKING_OFF, Event.PAUSE): State.PAUSED,
    (State.BACKING_OFF, Event.RESUME): State.BACKING_OFF,
    (State.BACKING_OFF, Event.RESTED): State.ACCEPTING,
    (State.BACKING_OFF, Event.RETIRE): State.RETIRING,
    (State.RETIRING, Event.EXHAUSTED): State.RETIRING_BACKING_OFF,
    (State.RETIRING, Event.DRAINED): State.CLOSED,
    (State.RETIRING_BACKING_OFF, Event.RESTED): State.RETIRING,
} | {(state, Event.CLOSE): State.CLOSED for state in State}


class Verdict(enum.Enum):
    """What an error of accept(2) asks for."""

    EMPTY = "empty"
    """Nobody waits in the kernel's queue."""
    SKIP = "skip"
    """This connection died before it was accepted: take the next."""
    SHED = "shed"
    """Descriptors or memory are short: answer one connection with the spare descriptor, then rest."""
    REST = "rest"
    """An error that nobody foresaw: rest, say so, try again."""
    BROKEN = "broken"
    """The socket no longer listens."""


_VERDICTS: Final[dict[int, Verdict]] = (
    dict.fromkeys((errno.EAGAIN, errno.EWOULDBLOCK), Verdict.EMPTY)
    | dict.fromkeys(
        (
            errno.EINTR,
            errno.ECONNABORTED,
            errno.ECONNRESET,
            errno.EPROTO,
            errno.ENETDOWN,
            errno.ENOPROTOOPT,
            errno.EHOSTDOWN,
            errno.ENONET,
            errno.EHOSTUNREACH,
            errno.EOPNOTSUPP,
            errno.ENETUNREACH,
            errno.ETIMEDOUT,
            errno.EPERM,  # a firewall rule forbids this connection
        ),
        Verdict.SKIP,
    )
    | dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), Verdict.SHED)
    | dict.fromkeys((errno.EBADF, errno.EINVAL, errno.ENOTSOCK), Verdict.BROKEN)
)


def verdict(error_number: int) -> Verdict:
    """What to do after accept(2) failed with this errno."""
    return _VERDICTS.get(error_number, Verdict.REST)


class AcceptPolicy:
    """The state of one acceptor, its budget and its rests."""

    __slots__ = ("_last_shortage", "_rest_s", "budget_calm", "budget_lagging", "shortages", "state")

    def __init__(self, budget_calm: int, budget_lagging: int) -> None:
        self.budget_calm = budget_calm
        self.budget_lagging = budget_lagging
        self.state = State.STOPPED
        self.shortages = 0
        self._rest_s = 0.0
        self._last_shortage = 0.0

    def fire(self, event: Event) -> State:
        """Move. Raises: RuntimeError for a move that the table does not have."""
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            raise RuntimeError(f"acceptor: {event.value} is not possible while {self.state.value}")
        self.state = target
        return target

    def watching(self) -> bool:
        """Whether the listening socket is to be watched."""
        return self.state is State.ACCEPTING or self.state is State.RETIRING

    def retiring(self) -> bool:
        """Whether the kernel's queue is being emptied for good."""
        return self.state is State.RETIRING or self.state is State.RETIRING_BACKING_OFF

    def budget(self, lag_s: float) -> int:
        """How many connections may be accepted in this turn of the loop; at least one, or none would ever be."""
        return max(1, self.budget_lagging if lag_s > LAGGING_S else self.budget_calm)

    def exhausted(self, now: float) -> float:
        """A shortage was met: move, and return how long to rest, in seconds."""
        self.fire(Event.EXHAUSTED)
        if self.shortages == 0 or now - self._last_shortage > self._rest_s + CALM_S:
            self._rest_s = FIRST_REST_S
        else:
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        self.shortages += 1
        self._last_shortage = now
        return self._rest_s


class LogPace:
    """At most `per_second` lines a second for each subject: a flood of refusals must not become a flood of lines."""

    __slots__ = ("_per_second", "_windows")

    def __init__(self, per_second: int = 5) -> None:
        self._per_second = per_second
        self._windows: dict[str, tuple[float, int, int]] = {}

    def allow(self, subject: str, now: float) -> int:
        """Returns how many lines were left out since the last one (0 or more), or -1: leave this one out.

        Subjects come from closed tables, so the memory is bounded.
        """
        start, written, left_out = self._windows.get(subject, (now, 0, 0))
        if now - start >= 1.0:
            start, written = now, 0
        if written >= self._per_second:
            self._windows[subject] = (start, written, left_out + 1)
            return -1
        self._windows[subject] = (start, written + 1, 0)
        return left_out
