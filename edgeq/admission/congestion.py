"""When the order of a queue turns, and how long is too long: the discipline `adaptive`.

    CALM       in order of arrival; nobody is refused for having waited, except by the queue's own time-out
      |  a newcomer would wait for an interval (`turn_s`), or the queue is full because of this flow
      v
    CONGESTED  newest first; who has waited for more than 2 targets is refused at once. Who came before the turn keeps
      |        his: they are served first, as long as that takes no longer than they would have waited (`turn_s`)
      |  within an interval, the flow was empty for a fifth of the time
      v
    CALM

Each flow of the fair queue has a state of its own: beside a tenant that floods, one that does not is served in order,
and refused nothing.

target = a quarter of the time a place is held, at least 5 ms; interval = 20 targets (CoDel's 5 and 100 ms, scaled).

Why not the delay of those who are served, as CoDel has it (folly's Codel.h)? Served newest first they have no delay.
So what is looked at is the delay that the order of arrival would have, queued / drain. A queue that holds an
interval's work will not be empty for an interval, which is what "FIFO until it has not been empty for an interval"
waits to see; but a short standing queue, the clients of a closed loop, is never turned around and loses nobody. The
way back looks at the time the queue is empty: below capacity it mostly is, above it is hardly ever, however short the
refusals keep it.

Workers have queues of their own, and those that are congested keep theirs short. One that is still calm would then keep
the oldest of the machine, get its places, and stay calm: its clients all served, those of the others mostly refused. So
it turns much sooner if the tenant who asks for most there is congested at another worker.

The newest of a flow is not refused by age while there are no more flows than places: it is next at its flow's turn.
With two places or fewer CoDel is off: between two places coming free the whole queue would grow too old, and nobody
keeps his turn, since the order turns shortly before the time-out. There who has been passed by for ten services is
refused, which is hopeless rather than too old, and sooner than the time-out.
Sources: Nichols and Jacobson, RFC 8289; Maurer, Fail at Scale, 2015; reference overload.md 2.2 for the simulations.
"""

from __future__ import annotations

from typing import Final

from edgeq.worker.wheel import NEVER

TARGET_S: Final = 0.005
INTERVAL_TARGETS: Final = 20.0
_EMPTY_SHARE: Final = 0.2
CONTAGION: Final = 0.25
"""Of `turn_s`, where the tenant is congested at another worker: still more than anybody waits for there."""
FEW: Final = 2
_HOPELESS: Final = 10.0


class Congestion:
    """The state of one flow. Feed it `filled` and `emptied` when the flow turns from or to empty."""

    __slots__ = ("_began_at", "_empty_s", "congested", "empty_since", "over_at", "turned_at")

    def __init__(self) -> None:
        self.congested: bool = False
        self.empty_since: float = 0.0
        """NEVER: it is not empty."""
        self.turned_at: float = 0.0
        """Who came before is served first, in order of arrival; 0.0: nobody any more."""
        self.over_at: float = 0.0
        """How long for."""
        self._began_at: float = 0.0
        self._empty_s: float = 0.0

    def filled(self, now: float) -> None:
        """The queue is no longer empty."""
        since = self.empty_since
        self._empty_s += now - max(self._began_at, since)
        self.empty_since = NEVER

    def calm(self) -> None:
        """It is not congested, whatever was seen."""
        self.congested = False
        self.turned_at = 0.0
        self.over_at = 0.0

    def emptied(self, now: float) -> None:
        """Nobody waits any more."""
        self.empty_since = now

    def judge(self, now: float, delay_s: float, turn_s: float, interval_s: float, is_cause: bool) -> bool:
        """Look at the flow as a newcomer finds it, who would wait for delay_s in order of arrival.

        turn_s, interval_s: of the functions below. is_cause: the queue is full, because of this flow.
        Returns: has it become congested now?
        """
        if not self.congested:
            if is_cause or delay_s >= turn_s:
                self.congested = True
                self._began_at = now
                self._empty_s = 0.0
                return True
        elif now - self._began_at >= interval_s:
            if self.empty_since < NEVER:  # up to this newcomer
                self._empty_s += now - max(self.empty_since, self._began_at)
            if self._empty_s >= _EMPTY_SHARE * (now - self._began_at):
                self.congested = False
            self._began_at = now
            self._empty_s = 0.0
        return False


def target_s(hold_s: float, slots: int) -> float:
    """The wait that is no cause for concern, for a place that is held for hold_s seconds.

    Twice as much must see some places come free, and they do so every hold_s / slots.
    """
    share = 0.25 if slots >= 6 else 1.5 / slots
    target = hold_s * share
    return max(TARGET_S, target)


def interval_s(hold_s: float) -> float:
    """How long it takes to tell congestion from chance."""
    interval = INTERVAL_TARGETS * 0.25 * hold_s
    floor = INTERVAL_TARGETS * TARGET_S
    return max(floor, interval)


def turn_s(hold_s: float, slots: int, max_wait_s: float) -> float:
    """The delay at which the order turns: what chance does not reach at 0.8 of the capacity.

    There hardly ever more than 80 wait, whatever the number of places (their share falls by a fifth with each one
    more). Three quarters of the time-out at the latest: in order of arrival everybody would be served just before time
    is up.
    """
    turn = hold_s * max(5.0, 80.0 / slots)
    floor = INTERVAL_TARGETS * TARGET_S
    return min(max(turn, floor), 0.75 * max_wait_s)


def too_old_s(hold_s: float, slots: int) -> float:
    """The age at which a waiting request is refused under congestion; NEVER where nothing is known."""
    if hold_s == 0.0:
        return NEVER
    if slots <= FEW:
        return max(INTERVAL_TARGETS * TARGET_S, _HOPELESS * hold_s)
    return 2.0 * target_s(hold_s, slots)
