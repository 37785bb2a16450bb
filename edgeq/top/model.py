"""What the live screen knows and what the operator has chosen: records of the admin socket, in an order, past a filter.

Invariant: a queue is known by its name and worker, not by its place in a list, so a selection stays on its queue when
the order changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from edgeq.admin.render import Record

HISTORY: Final = 60
"""Looks that are remembered of a queue."""


class Snapshot(NamedTuple):
    """What the gateway has told at one moment."""

    version: str
    queues: Sequence[Record]
    upstreams: Sequence[Record]
    reasons: Sequence[Record]
    workers: Sequence[Record]


def key_of(queue: Record) -> str:
    """By which a queue is known: several workers have queues of one name."""
    worker = queue.get("worker")
    return str(queue["queue"]) if worker is None else f"{queue['queue']} {worker}"


def _number(name: str) -> Callable[[Record], Any]:
    def value(queue: Record) -> float:
        found: Any = queue
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        return -1.0 if found is None else float(found)

    return value


SORTS: Final[dict[str, Callable[[Record], Any]]] = {
    "fill": _number("fill"),
    "depth": _number("depth"),
    "oldest": _number("oldest_ms"),
    "wait": _number("wait_ms.p99"),
    "arrivals": _number("arrival_per_s"),
    "refused": _number("refused_per_s"),
}
"""The largest first; those that are equal by what they refuse, by depth, by how many have waited at most, then by name.
What is not known is last."""
_refused: Final = SORTS["refused"]
_depth: Final = SORTS["depth"]
_high: Final = _number("high_water")
BY_NAME: Final = "name"
ORDERS: Final = (*SORTS, BY_NAME)


@dataclass(slots=True)
class View:
    """What the operator has chosen."""

    sort: str = ORDERS[0]
    match: str = ""
    """Only what has this text in a name; any case."""
    selected: str = ""
    """The key of a queue; empty for the first one, whichever that is: who has gone back there sees the worst again."""

    def next_sort(self) -> None:
        """The next order, and after the last one the first."""
        self.sort = ORDERS[(ORDERS.index(self.sort) + 1) % len(ORDERS)]

    def move(self, queues: Sequence[Record], by: int) -> None:
        """Select another one of these, as far as there is one."""
        if queues:
            at = min(max(self.index(queues) + by, 0), len(queues) - 1)
            self.selected = key_of(queues[at]) if at else ""

    def index(self, queues: Sequence[Record]) -> int:
        """Where the selected one is; the first if it is not among these."""
        return next((at for at, queue in enumerate(queues) if key_of(queue) == self.selected), 0)


def arranged(queues: Sequence[Record], view: View) -> list[Record]:
    """The queues that match, in order."""
    found = [one for one in queues if _matches(one, view.match, ("queue", "kind"))]
    if view.sort == BY_NAME:
        return sorted(found, key=_name)
    value = SORTS[view.sort]
    return sorted(found, key=lambda one: (-value(one), -_refused(one), -_depth(one), -_high(one), _name(one)))


def upstreams(records: Sequence[Record], view: View) -> list[Record]:
    """Those that match, by the name of their resource (upstream/api): who is in trouble first, then the busiest."""
    found = [one for one in records if view.match.lower() in f"upstream/{one['upstream']}".lower()]
    return sorted(
        found, key=lambda one: (not in_trouble(one), -one["queued"], -one["in_flight"], -_refused(one), one["upstream"])
    )


def in_trouble(upstream: Record) -> bool:
    """Does it refuse, or will it as soon as somebody asks?"""
    return bool(upstream["breaker"] not in (None, "closed") or upstream["refused_per_s"] or upstream["panic"])


def reasons(records: Sequence[Record], view: View) -> list[Record]:
    """Those that match, in the gateway's order: the most frequent now first."""
    return [one for one in records if _matches(one, view.match, ("reason", "resource"))]


def workers(records: Sequence[Record]) -> list[Record]:
    """All, those first that do not do what they should, then by lag."""
    return sorted(records, key=lambda one: (one["state"] == "serving", -one["lag_us"], one["slot"]))


def _matches(record: Record, match: str, keys: Sequence[str]) -> bool:
    return not match or any(match.lower() in str(record.get(key, "")).lower() for key in keys)


def _name(queue: Record) -> tuple[str, int]:
    worker = queue.get("worker")
    return str(queue["queue"]), -1 if worker is None else int(worker)


@dataclass(slots=True)
class History:
    """How full each queue was at the last looks; only of queues that are still there."""

    _fills: dict[str, deque[float | None]] = field(default_factory=dict)

    def note(self, queues: Sequence[Record]) -> None:
        """One look at all queues."""
        fills: dict[str, deque[float | None]] = {}
        for queue in queues:
            key = key_of(queue)
            known = fills[key] = self._fills.get(key) or deque(maxlen=HISTORY)
            known.append(queue.get("fill"))
        self._fills = fills

    def gap(self) -> None:
        """A look without an answer."""
        for fills in self._fills.values():
            fills.append(None)

    def of(self, key: str) -> Sequence[float | None]:
        """The oldest first; None where it was not known."""
        return tuple(self._fills.get(key, ()))

    @property
    def looks(self) -> int:
        """As many as are remembered."""
        return max(map(len, self._fills.values()), default=0)
