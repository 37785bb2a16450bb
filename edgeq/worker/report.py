"""What a worker tells of itself beside the numbers of its row: a JSON document on the board, twice a second.

Here are names and what only people look at: pools, endpoints in the eyes of the balancer, who waits for a connection,
tenants, refusals by resource. What other workers decide by is in cells instead (board/resources.py).

Invariants
- Everything is bounded, so the document is, too: the newest names are left out, not the oldest, so that a counter that
  was told once is told again, and grows. What is left out of the refusals is told as of one resource, `OTHER`.
- Moments are told in monotonic nanoseconds, not ages: a reader may look at the report of a worker that hangs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from edgeq.admission.bulkhead import Bulkhead
from edgeq.cache.cache import RouteCache
from edgeq.listener.accept_io import Acceptor
from edgeq.listener.connection import Downstream
from edgeq.llm.gate import TokenGate
from edgeq.llm.ledger import Ledger
from edgeq.llm.meter import TARGET
from edgeq.llm.prompt_cache import PromptCache
from edgeq.observe.refusals import OTHER, Refusals
from edgeq.policy.rate import Rate
from edgeq.policy.retry import RetryBudget
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream
from edgeq.worker.shard import Shard

MAX_REFUSALS: Final = 1024
"""Pairs of a reason and a resource."""
MAX_ENDPOINTS: Final = 256
MAX_LOOKED: Final = 1024
"""Connections that are looked at for who asks: a sample, of which 0.2 ms come twice a second."""
MAX_TENANTS: Final = 64
"""Of a table; of a queue the half."""
MAX_TARGETS: Final = 128
MAX_METERS: Final = 64
MAX_RATES: Final = 256
MAX_CACHES: Final = 256
MAX_BUDGETS: Final = 256
MAX_UNRESOLVED: Final = 4
"""Names of an upstream."""
_SECTIONS: Final = (
    "tenants",
    "meters",
    "asking",
    "forecasts",
    "queues",
    "targets",
    "upstreams",
    "listeners",
    "stores",
    "caches",
    "rates",
    "retries",
    "llm",
)
"""What may be left out, in this order."""
_OF_TARGET: Final = (
    "name",
    "limits",
    "remaining",
    "heard",
    "concurrent",
    "queued",
    "queued_tokens",
    "paused_for",
    "paused_detail",
    "fails_by",
    "fails_detail",
    "admitted",
    "wait_ms",
    "refused",
    "last_refusal",
)


def encode(document: dict[str, Any], max_bytes: int) -> bytes:
    """As JSON. What does not fit is left out, and `left_out` says what: names of a configuration may be long."""
    text = orjson.dumps(document)
    left_out: list[str] = []
    for section in _SECTIONS:
        if len(text) <= max_bytes:
            return text
        left_out.append(section)
        text = orjson.dumps({**document, **dict.fromkeys(left_out, ()), "left_out": left_out})
    if len(text) > max_bytes:
        totals = {reason: {OTHER: sum(counts.values())} for reason, counts in document["refusals"].items()}
        text = orjson.dumps({"refusals": totals, "left_out": ["resources", *_SECTIONS]})
    return text


class RefusalsTold:
    """Refusals by reason and resource, as they are told: MAX_REFUSALS pairs, the rest of each reason as OTHER.

    Resources of a reason keep their order, and so what was told once is a number of the first ones.
    """

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def of(self, counted: Refusals) -> dict[str, dict[str, int]]:
        """Reason to resource to count."""
        room = MAX_REFUSALS - sum(self._told.values())
        document: dict[str, dict[str, int]] = {}
        for reason, resources in counted.snapshot().items():
            known = self._told.get(reason, 0)
            more = min(room, len(resources) - known)
            room -= more
            self._told[reason] = known + more
            kept = dict(list(resources.items())[: known + more])
            rest = sum(resources.values()) - sum(kept.values())
            if rest:
                kept[OTHER] = kept.get(OTHER, 0) + rest
            document[reason] = kept
        return document


def rates(all_of_them: Iterable[Rate]) -> dict[str, dict[str, int]]:
    """Of each, whom it has refused, or would have if it were enforced; the first MAX_RATES."""
    told = islice(all_of_them, MAX_RATES)
    return {one.name: {"refused": one.refused, "would_refuse": one.would_refuse} for one in told}


def retries(budgets: Mapping[str, RetryBudget]) -> dict[str, dict[str, int]]:
    """How many were sent again, or were not because of the budget, by upstream; the first MAX_BUDGETS that have any."""
    told = (
        (
            name,
            {"retried": one.taken, "denied": one.refused, "hedges": one.hedges, "hedges_won": one.hedges_won},
        )
        for name, one in budgets.items()
        if one.taken or one.refused
    )
    return dict(islice(told, MAX_BUDGETS))


def caches(by_route: Mapping[str, RouteCache]) -> dict[str, dict[str, int]]:
    """How it went, by route; the first MAX_CACHES."""
    return {
        name: {
            "hits": one.hits - one.collapsed,
            "joined": one.collapsed,
            "stale": one.stale,
            "misses": one.misses,
            "stored": one.stored,
        }
        for name, one in islice(by_route.items(), MAX_CACHES)
    }


def stores(by_route: Mapping[str, RouteCache]) -> dict[str, dict[str, int]]:
    """What each holds now, and who waits for an answer that is on its way."""
    return {
        name: {
            "entries": one.store.entries,
            "bytes": one.store.size_bytes,
            "max_bytes": one.store.max_bytes,
            "waiting": sum(len(flight.joined) for flight in one.flights.values()),
        }
        for name, one in islice(by_route.items(), MAX_CACHES)
    }


def model_caches(by_name: Mapping[str, PromptCache]) -> dict[str, dict[str, int]]:
    """The same as of `caches`, of answers of models."""
    return {
        name: {"hits": one.hits, "joined": one.joined, "stale": 0, "misses": one.misses, "stored": one.stored}
        for name, one in islice(by_name.items(), MAX_CACHES)
    }


def model_stores(by_name: Mapping[str, PromptCache]) -> dict[str, dict[str, int]]:
    """The same as of `stores`."""
    return {
        name: {
            "entries": one.entries,
            "bytes": one.size_bytes,
            "max_bytes": one.max_bytes,
            "waiting": one.waiting(),
        }
        for name, one in islice(by_name.items(), MAX_CACHES)
    }


def listener(address: str, acceptor: Acceptor) -> dict[str, Any]:
    """Who waits for a place, because as many connections are open as there may be."""
    seen = acceptor.snapshot()
    kept = (
        "state",
        "accepted",
        "waiting",
        "waiting_max",
        "oldest_wait_s",
        "waited",
        "wait_ms",
        "abandoned",
        "handshakes",
    )
    return {"address": address, **{key: seen[key] for key in kept}}


def bodies(shard: Shard) -> dict[str, int]:
    """Bytes of bodies that are held for requests for models."""
    return {"held": shard.collected, "limit": shard.max_collected, "refused": shard.bodies_refused}


def upstreams(all_of_them: list[Upstream], budgets: Mapping[str, RetryBudget], now: float) -> list[dict[str, Any]]:
    """Each upstream with its breaker and its endpoints; the first MAX_ENDPOINTS of all together."""
    room = MAX_ENDPOINTS
    told: list[dict[str, Any]] = []
    for one in all_of_them:
        pools = one.pools[:room]
        room -= len(pools)
        told.append(
            {
                "upstream": one.name,
                "endpoints": [_endpoint(pool, now) for pool in pools],
                "unresolved": [
                    {"name": name, "url": url, "reason": reason, "detail": detail}
                    for name, url, reason, detail in one.unresolved_names[:MAX_UNRESOLVED]
                ],
                "known": len(one.pools),
                "in_use": len(one.balancer.members) if one.members else len(one.pools),
                "panic": one.panics,
                "breaker": one.breaker.snapshot(now) if one.breaker is not None else None,
                "budget": _budget(budgets[one.name]) if one.name in budgets else {},
                "max_connections": one.max_connections,
                "max_connecting": one.max_connecting,
                "max_waiting": one.max_waiting,
            }
        )
    return told


def _budget(budget: RetryBudget) -> dict[str, int]:
    """What is used of it here, if anything; what is allowed goes by all workers."""
    if not (budget.requests or budget.retries or budget.running):
        return {}
    return {"requests": budget.requests, "retries": budget.retries, "running": budget.running}


def _endpoint(pool: Pool, now: float) -> dict[str, Any]:
    seen: dict[str, Any] = pool.snapshot()
    oldest_s = seen.pop("oldest_wait_s")
    if pool.member is not None:
        seen |= pool.member.snapshot(now)
    return {**seen, "oldest_ns": int((now - oldest_s) * 1e9) if pool.waiting else 0}


def asking(connections: Iterable[object]) -> dict[str, dict[str, dict[str, int]]]:
    """Who has requests that wait or run: resource to tenant, and to virtual key, to count, of a part of the
    connections.

    A queue alone does not tell: where it is fair, only who asks for too much is seen to wait.
    """
    found: dict[str, dict[tuple[bytes, str], int]] = {}
    for one in islice(connections, MAX_LOOKED):
        exchange = one.exchange if isinstance(one, Downstream) else None
        if exchange is not None and exchange.tenant:
            who = (exchange.tenant, exchange.asks_as())
            for resource in exchange.asks_of():
                counts = found.get(resource)
                if counts is None:
                    counts = found[resource] = {}
                counts[who] = counts.get(who, 0) + 1
    tenants: dict[str, Counter[str]] = {}
    keys: dict[str, Counter[str]] = {}
    for resource, counts in found.items():
        by_tenant = tenants[resource] = Counter()
        by_key: Counter[str] = Counter()
        for (tenant, key), count in counts.items():
            by_tenant[tenant.decode("latin-1")] += count
            if key:
                by_key[key] += count
        if by_key:
            keys[resource] = by_key
    return {"asking": _most(tenants), "asking_keys": _most(keys)}


def _most(found: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {resource: dict(counts.most_common(MAX_TENANTS // 4)) for resource, counts in found.items()}


def queues(bulkheads: list[Bulkhead], now: float) -> list[dict[str, Any]]:
    """What the cells of a resource do not say: its waiters by tenant and class."""
    told: list[dict[str, Any]] = []
    for one in bulkheads:
        queue = one.queue
        if queue.queued:
            waiting = sorted(queue.tenants().items(), key=lambda item: -item[1])[: MAX_TENANTS // 2]
            told.append(
                {
                    "resource": one.resource,
                    "by_tenant": {tenant.decode("latin-1"): count for tenant, count in waiting},
                    "by_class": queue.by_class(),
                }
            )
    return told


def forecasts(bulkheads: Iterable[Bulkhead]) -> list[dict[str, Any]]:
    """What was expected of the last one, before each limit, whose deadline could not be met."""
    return [
        {
            "resource": one.resource,
            "at_ns": int(seen.at * 1e9),
            "left_ms": seen.left_s * 1000,
            "wait_ms": seen.wait_s * 1000,
            "median_ms": seen.median_s * 1000,
            "p95_ms": seen.p95_s * 1000,
        }
        for one in bulkheads
        if (seen := one.queue.infeasible) is not None
    ]


def targets(gates: Iterable[TokenGate], now: float) -> list[dict[str, Any]]:
    """Models at providers' keys, those with the most requests first, then those that are paused. `in_flight` and
    `queued` are this worker's."""
    found = sorted(
        gates,
        key=lambda one: (one.meter.in_flight + one.queue.queued, one.pause_s(now) > 0, one.admitted),
        reverse=True,
    )
    told: list[dict[str, Any]] = []
    for one in found[:MAX_TARGETS]:
        oldest = one.queue.oldest
        seen = one.snapshot(now)
        told.append(
            {
                **{key: seen[key] for key in _OF_TARGET},
                "in_flight": one.meter.in_flight,
                "paused_until_ns": int((now + one.pause_s(now)) * 1e9),
                "oldest_ns": 0 if oldest is None else int(oldest.arrived_at * 1e9),
            }
        )
    return told


def meters(ledger: Ledger, now: float) -> list[dict[str, Any]]:
    """Who has limits of tokens or money, but targets: those with the most requests first."""
    found = ledger.busiest(MAX_METERS, TARGET)
    return [{**one.snapshot(now), "in_flight": one.in_flight} for one in found]
