"""Which workers are set aside because they do not accept while others do, and when one of them is beyond hope.

::

                  no sign of life for `after`              its sign of life
    IN ROW ----------------------------------> STUCK -------------------------> IN ROW
       |  ^                                     ^  |
       |  | room in its queue for CALM_S        |  | no sign of life for `restart`
       |  |                                     |  +------> given up: killed, and its slot starts again
       +--> CROWDED ----------------------------+
        its accept queue is full for CROWDED_S, another worker's is not

Who is set aside gets no new connections, and what waits for it is served by the others.

Invariants
- Only looks count: a worker is silent for as long as somebody has watched it, and a look is worth MOST_STEP_S at most.
  When the whole machine stood still (suspended, frozen, starved) nobody was watched, and nobody is to blame.
- Nobody is set aside, or given up, unless another worker is well; so never all of them. When all are silent, what ails
  them is not theirs, and a restart would only lose what they hold (the service manager's watchdog may think otherwise).
  That they are left alone is told, once for each silence, and so is their next sign of life.
- A sign of life brings a stuck worker back at once.

Precedents: Envoy's guarddog counts misses for each thread and can kill for one (`kill_timeout`) or for a share of them;
HAProxy's watchdog (src/wdt.c) asks a thread's processor clock, so that one which did not run is not stuck, and writes
where it is before it aborts. Both end the whole process; here the others go on.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum
from typing import Final, NamedTuple

MOST_STEP_S: Final = 0.25
"""Two and a half looks."""
CROWDED_S: Final = 0.3
"""Three looks: a burst that is gone with the next turn of the loop is none."""
CALM_S: Final = 1.0
FULL: Final = 0.8
EMPTY: Final = 0.2
"""Shares of an accept queue's limit. Far apart: with random spreading, queues that move differ less."""


class Why(Enum):
    """Why a worker is set aside."""

    STUCK = "stuck"
    CROWDED = "crowded"


class Sight(NamedTuple):
    """What is seen of a worker that serves."""

    pid: int
    beat_ns: int
    """Its last sign of life; only whether it changes counts."""
    is_crowded: bool = False
    is_traced: bool = False
    """A debugger holds it, so it is not given up. Needs to be known only of who is stuck."""


class Moves(NamedTuple):
    """What a look has changed: slots."""

    stuck: tuple[int, ...] = ()
    crowded: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    given_up: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    """Stuck, and nothing can be done about it: no other worker is well."""
    revived: tuple[int, ...] = ()
    """They were left alone, and go on."""

    def __bool__(self) -> bool:
        return any(self)


class _Known:
    """One worker, as far as it was watched."""

    __slots__ = ("beat_ns", "calm_s", "crowded_s", "is_alone", "is_given_up", "is_traced", "pid", "silent_s", "why")

    def __init__(self, sight: Sight) -> None:
        self.pid = sight.pid
        self.beat_ns = sight.beat_ns
        self.silent_s = 0.0
        self.crowded_s = 0.0
        self.calm_s = 0.0
        self.why: Why | None = None
        self.is_alone = False
        self.is_given_up = False
        self.is_traced = False

    def see(self, sight: Sight, step_s: float) -> None:
        self.is_traced = sight.is_traced
        self.silent_s = self.silent_s + step_s if sight.beat_ns == self.beat_ns else 0.0
        self.beat_ns = sight.beat_ns
        self.crowded_s = self.crowded_s + step_s if sight.is_crowded else 0.0
        self.calm_s = 0.0 if sight.is_crowded else self.calm_s + step_s


class StuckTable:
    """All workers of one supervisor."""

    __slots__ = ("_known", "_looked_s", "counts")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Moves._fields, 0)
        """How often each move was made."""
        self._known: dict[int, _Known] = {}
        self._looked_s: float | None = None

    def aside(self) -> dict[int, Why]:
        """Who is set aside, and why."""
        return {slot: one.why for slot, one in self._known.items() if one.why is not None}

    def alone(self) -> set[int]:
        """Who is stuck and not set aside, because no other worker is well."""
        return {slot for slot, one in self._known.items() if one.is_alone}

    def silent_s(self, slot: int) -> float:
        """For how long a worker was watched without a sign of life."""
        known = self._known.get(slot)
        return known.silent_s if known is not None else 0.0

    def forget(self, slot: int) -> None:
        """Its worker is gone."""
        self._known.pop(slot, None)

    def look(self, sights: Mapping[int, Sight], now_s: float, after_s: float, restart_s: float) -> Moves:
        """Take in what is seen of all workers that serve, by slot.

        `after_s`: silent for so long is stuck, 0: nobody is set aside; `restart_s`: silent for so long is given up, 0:
        never. A slot with another process begins anew, one that is not among them any more is forgotten.
        """
        step_s = 0.0 if self._looked_s is None else max(0.0, min(MOST_STEP_S, now_s - self._looked_s))
        self._looked_s = now_s
        for slot, sight in sights.items():
            known = self._known.get(slot)
            if known is not None and known.pid == sight.pid:
                known.see(sight, step_s)
            else:
                self._known[slot] = _Known(sight)
        for slot in self._known.keys() - sights.keys():
            del self._known[slot]
        moves = self._judge(after_s, restart_s)
        for move, slots in moves._asdict().items():
            self.counts[move] += len(slots)
        return moves

    def _judge(self, after_s: float, restart_s: float) -> Moves:
        stuck, crowded, back, given_up, alone, revived = [], [], [], [], [], []
        well = {slot for slot, one in self._known.items() if one.why is None and one.silent_s < after_s / 2}
        for slot, one in sorted(self._known.items()):
            has_others = not well <= {slot}
            if one.why is not None and self._is_over(one, after_s):
                one.why = None
                one.is_given_up = False
                back.append(slot)
            elif one.is_alone and (one.silent_s < after_s or after_s <= 0.0):
                one.is_alone = False
                revived.append(slot)
            elif not has_others:
                if 0.0 < after_s <= one.silent_s and one.why is None and not one.is_alone:
                    one.is_alone = True
                    alone.append(slot)
            elif one.silent_s >= after_s and one.why is not Why.STUCK:
                one.why = Why.STUCK
                one.is_alone = False
                stuck.append(slot)
            elif one.why is Why.STUCK:
                if 0.0 < restart_s <= one.silent_s and not one.is_given_up and not one.is_traced:
                    one.is_given_up = True
                    given_up.append(slot)
            elif one.why is None and one.crowded_s >= CROWDED_S:
                one.why = Why.CROWDED
                well.discard(slot)
                crowded.append(slot)
        return Moves(tuple(stuck), tuple(crowded), tuple(back), tuple(given_up), tuple(alone), tuple(revived))

    @staticmethod
    def _is_over(one: _Known, after_s: float) -> bool:
        if after_s <= 0.0:
            return True
        return one.silent_s < after_s if one.why is Why.STUCK else one.calm_s >= CALM_S and one.silent_s < after_s


def crowded(fills: Mapping[str, Mapping[int, float]], aside: Container[int] = ()) -> set[int]:
    """Slots whose accept queue of a listener is full while another slot's of the same listener is not.

    `fills`: by listener and slot, the length of a queue as a share of its limit; `aside`: whose queue proves nothing,
    because it gets no connections.
    """
    found: set[int] = set()
    for shards in fills.values():
        if any(fill <= EMPTY for slot, fill in shards.items() if slot not in aside):
            found.update(slot for slot, fill in shards.items() if fill >= FULL)
    return found
