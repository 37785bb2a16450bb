"""A limit on requests in flight for each tenant, machine-wide: one who sends many at once waits for himself.

A tenant has a bulkhead, with a small queue, from his first request until he has had nothing in flight and nobody
waiting for `IDLE_S`, or until the next tick when many are kept. So clients who invent names cost memory for a tick.
The stuck count here: they are his own.
"""

from __future__ import annotations

from typing import Final

from edgeq.admission.bulkhead import NO_LIMIT, Bulkhead
from edgeq.admission.waits import Waits
from edgeq.board.resources import MachineWide, Resources, TenantCells

IDLE_S: Final = 1.0
"""Making a bulkhead costs some ten microseconds: not once for each request of one who sends them one by one."""
MANY: Final = 256
_MAX_BYTES: Final = 16 * 1024 * 1024
RESOURCE: Final = "tenant"
"""The same for all: names of tenants must not become names of counters."""


class Tenants:
    """The limits of all tenants who are there. Times are monotonic seconds."""

    __slots__ = ("_bulkheads", "_limit", "_max_queued", "_max_wait_s", "_resources", "_workers")

    def __init__(self, resources: Resources | None = None) -> None:
        """`resources`: by which workers know of each other. None: this one is alone."""
        self._resources: Resources | None = resources
        self._bulkheads: dict[bytes, Bulkhead] = {}
        self._limit: int = NO_LIMIT
        self._max_queued: int = 0
        self._max_wait_s: float = 0.0
        self._workers: int = 1

    def configure(self, limit: int, max_queued: int, max_wait_s: float, workers: int, now: float) -> None:
        """Take over a limit, 0 for none, and the bounds of each tenant's queue, all of the machine."""
        self._limit = limit or NO_LIMIT
        self._max_queued = max_queued
        self._max_wait_s = max_wait_s
        self._workers = workers
        for bulkhead in list(self._bulkheads.values()):
            self._configure(bulkhead)
            bulkhead.resize(self._limit, now)

    def _configure(self, bulkhead: Bulkhead) -> None:
        bulkhead.configure("fifo", self._max_queued, _MAX_BYTES, self._max_wait_s, self._workers)

    def bulkhead_of(self, tenant: bytes, now: float) -> Bulkhead:
        """The one of a tenant."""
        bulkhead = self._bulkheads.get(tenant)
        if bulkhead is None:
            resources = self._resources
            shared = MachineWide() if resources is None else resources.bind_tenant(RESOURCE, tenant)
            bulkhead = Bulkhead(RESOURCE, self._limit, now, shared)
            bulkhead.is_callers_own = True
            bulkhead.waits = Waits()
            self._configure(bulkhead)
            self._bulkheads[tenant] = bulkhead
        return bulkhead

    def look(self, now: float) -> None:
        """Another worker has left a place to one who waits here."""
        for bulkhead in list(self._bulkheads.values()):
            if bulkhead.queue.queued:
                bulkhead.dispatch(now)

    def tick(self, now: float) -> None:
        """End waits that are over, and let go of tenants who are gone."""
        resources = self._resources
        idle_s = IDLE_S if len(self._bulkheads) <= MANY else 0.0
        for tenant, bulkhead in list(self._bulkheads.items()):
            if bulkhead.in_flight or bulkhead.queue.queued:
                bulkhead.tick(now)
            elif now - bulkhead.service.finished_at >= idle_s:
                del self._bulkheads[tenant]
                shared = bulkhead.shared
                if resources is not None and isinstance(shared, TenantCells):
                    resources.forget_tenant(shared)

    def busiest(self, most: int, now: float) -> list[dict[str, object]]:
        """So many tenants, those with the most that run or wait first."""
        found = sorted(self._bulkheads.items(), key=lambda item: item[1].in_flight + item[1].queue.queued, reverse=True)
        return [_row(tenant, bulkhead, now) for tenant, bulkhead in found[:most]]

    def __len__(self) -> int:
        return len(self._bulkheads)


def _row(tenant: bytes, bulkhead: Bulkhead, now: float) -> dict[str, object]:
    oldest = bulkhead.queue.oldest
    return {
        "tenant": tenant.decode("latin-1"),
        "in_flight": bulkhead.in_flight,
        "queued": bulkhead.queue.queued,
        "oldest_ms": 0 if oldest is None else int((now - oldest.arrived_at) * 1000),
        "admitted": bulkhead.in_flight + bulkhead.ok + bulkhead.dropped + bulkhead.ignored,
        "wait_ms": [] if bulkhead.waits is None else bulkhead.waits.quantiles_ms(now),
        "refused": dict(bulkhead.refusals),
    }
