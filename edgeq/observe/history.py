"""What the numbers were, from a ring of records (board/ring.py): the gateway's own, or one that is kept in a file.

A record is of a tenth of a second, but workers write their counters four times a second: the rates of one moment are
those of what came meanwhile, and only over a second or more they are what people mean. So moments can be had in steps.
Of a step, depth, requests in flight, the age of the oldest, lag and connections are the highest that were seen, limits
the last, rates and service times the mean: no peak is lost.

Two kinds of names have lanes: resources ("upstream/api", "route/checkout"), and workers ("worker/0").
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from edgeq.board.ring import Ring, Written

EVERY_S: Final = 0.1
"""Between two records."""
WORKER: Final = "worker/"
ALL: Final = "all"
"""In place of a name; names have a slash."""
_EVERY_NS: Final = int(EVERY_S * 1e9)


class Moment(NamedTuple):
    """Of a resource."""

    at_s: float
    """Monotonic; the end of the step."""
    depth: int
    """Requests that waited."""
    limit: int
    """On requests in flight, configured or learned; 0: none."""
    in_flight: int
    arrivals_per_s: float
    """Those that were refused have arrived, too."""
    departures_per_s: float
    refused_per_s: float
    oldest_ms: float
    """How long the oldest had waited; 0.0 if nobody did."""
    service_ms: float
    """Mean of the answers that ended well; 0.0 if none did."""


class WorkerMoment(NamedTuple):
    """Of a worker."""

    at_s: float
    depth: int
    """Connections that waited in the kernel, in the accept queues of its listeners."""
    limit: int
    in_flight: int
    requests_per_s: float
    connections: int
    lag_ms: float
    """How late its loop was at its last flush."""


class History:
    """Of one ring. `wall_s` is what must be added to a monotonic time to have the time of day."""

    __slots__ = ("_ring", "_wall_s")

    def __init__(self, ring: Ring, wall_s: float) -> None:
        self._ring = ring
        self._wall_s = wall_s

    def resources(self) -> list[str]:
        """Names of which there is something."""
        return [name for name in self._ring.names() if not name.startswith(WORKER)]

    def workers(self) -> list[int]:
        """Slots of which there is something."""
        return sorted(int(name.removeprefix(WORKER)) for name in self._ring.names() if name.startswith(WORKER))

    def of_resource(self, resource: str, seconds: float, step_s: float = EVERY_S) -> list[Moment]:
        """The last seconds, the oldest first; empty for an unknown name."""
        return [_moment(step) for step in self._steps(resource, seconds, step_s).values()]

    def of_worker(self, slot: int, seconds: float, step_s: float = EVERY_S) -> list[WorkerMoment]:
        """The last seconds, the oldest first; empty for an unknown slot."""
        return [_worker_moment(step) for step in self._steps(f"{WORKER}{slot}", seconds, step_s).values()]

    def names(self) -> list[str]:
        """Of resources, then of workers."""
        return [*self.resources(), *(f"{WORKER}{slot}" for slot in self.workers())]

    def records(self, resource: str, seconds: float, step_s: float = 1.0) -> list[dict[str, Any]] | str:
        """For `show`: a resource or worker, or ALL of them, in steps.

        All records have the same keys; what a worker has not, or a resource, is None. Returns what is wrong with the
        name if it is not known.
        """
        names = self.names()
        if resource == ALL:
            return [one for name in names for one in self._records(name, seconds, step_s)]
        if resource not in names:
            near = difflib.get_close_matches(resource, names)
            advice = f"did you mean {' or '.join(near)}?" if near else f"there is one of {', '.join(names[:20])}"
            return f"no history of {resource[:100]!r}; {advice if names else 'nothing was noted yet'}"
        return list(self._records(resource, seconds, step_s))

    def copy(self, note: Mapping[str, Any]) -> bytearray:
        """All of it with a note, for `load`. Raises ValueError if the note is too long."""
        return self._ring.copy(orjson.dumps({**note, "wall_s": self._wall_s}))

    @classmethod
    def load(cls, memory: bytes) -> tuple[History, dict[str, Any]]:
        """What `copy` has made, and its note. Raises ValueError."""
        ring = Ring.open(memoryview(memory))
        note = orjson.loads(ring.noted())
        if not isinstance(note, dict) or not isinstance(note.get("wall_s"), float):
            raise ValueError("its note has no time")
        return cls(ring, note["wall_s"]), note

    def _records(self, name: str, seconds: float, step_s: float) -> Iterator[dict[str, Any]]:
        for end_ns, step in self._steps(name, seconds, step_s).items():
            at = datetime.datetime.fromtimestamp(end_ns / 1e9 + self._wall_s, datetime.UTC)
            record: dict[str, Any] = {"at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
            if name.startswith(WORKER):
                worker = _worker_moment(step)
                record |= {"resource": name, "depth": worker.depth, "limit": worker.limit}
                record |= {"in_flight": worker.in_flight, "arrivals_per_s": worker.requests_per_s}
                record |= dict.fromkeys(("departures_per_s", "refused_per_s", "oldest_ms", "service_ms"))
                yield record | {"connections": worker.connections, "lag_ms": worker.lag_ms}
            else:
                moment = _moment(step)
                record |= {"resource": name, **moment._asdict(), "connections": None, "lag_ms": None}
                record |= {"limit": moment.limit or None, "service_ms": moment.service_ms or None}
                del record["at_s"]
                yield record

    def _steps(self, name: str, seconds: float, step_s: float) -> dict[int, list[Written]]:
        """The records of each step by its end, counted back from the newest moment: ends are a step apart."""
        newest_ns = self._ring.newest_ns()
        step_ns = max(1, int(step_s * 1e9))
        found = self._ring.read(name, newest_ns - int(seconds * 1e9) + 1)
        if step_s <= EVERY_S:
            return {one.at_ns: [one] for one in found}
        steps: dict[int, list[Written]] = {}
        for one in found:
            end_ns = newest_ns - (newest_ns - one.at_ns) // step_ns * step_ns
            steps.setdefault(end_ns, []).append(one)
        return steps


# The values of a lane, in their order: of a resource, and of a worker.


def resource_values(
    depth: int,
    limit: int,
    in_flight: int,
    arrivals: int,
    departures: int,
    refused: int,
    oldest_ms: int,
    service_us: int,
    served: int,
) -> tuple[int, ...]:
    """For a ring: gauges as they are, counters since the last moment; `service_us` is the mean of the `served`."""
    return (depth, limit, in_flight, arrivals, departures, refused, oldest_ms, service_us, served)


def worker_values(
    depth: int, limit: int, in_flight: int, requests: int, connections: int, lag_us: int
) -> tuple[int, ...]:
    """For a ring: gauges as they are, requests since the last moment."""
    return (depth, limit, in_flight, requests, connections, lag_us, 0, 0, 0)


def _moment(step: Sequence[Written]) -> Moment:
    depth, limit, in_flight, arrivals, departures, refused, oldest_ms, _, served = zip(
        *[one.values for one in step], strict=True
    )
    span_s = _span_s(step)
    service_us = sum(one.values[7] * one.values[8] for one in step)
    return Moment(
        step[-1].at_ns / 1e9,
        max(depth),
        limit[-1],
        max(in_flight),
        sum(arrivals) / span_s,
        sum(departures) / span_s,
        sum(refused) / span_s,
        float(max(oldest_ms)),
        service_us / sum(served) / 1000 if sum(served) else 0.0,
    )


def _worker_moment(step: Sequence[Written]) -> WorkerMoment:
    depth, limit, in_flight, requests, connections, lag_us, *_ = zip(*[one.values for one in step], strict=True)
    return WorkerMoment(
        step[-1].at_ns / 1e9,
        max(depth),
        limit[-1],
        max(in_flight),
        sum(requests) / _span_s(step),
        max(connections),
        max(lag_us) / 1000,
    )


def _span_s(step: Sequence[Written]) -> float:
    """What the counters of a step are of. The first moment of a ring has no other before it: its counters are 0."""
    return sum(one.span_ns or _EVERY_NS for one in step) / 1e9
