"""The workers' reports (worker/report.py), read from the board and made one: of all workers, the dead ones included.

Counters of refusals, rates, retries, caches and models outlive their worker: before its row is cleared they are added
to those of the other dead, which have a report of their own on the board. So they outlive the supervisor as well, if
the board does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import orjson

from edgeq.board.layout import Board
from edgeq.board.reading import age_ms
from edgeq.llm.rests import UNHEARD
from edgeq.observe.fresh import Fresh
from edgeq.observe.refusals import OTHER

Report = dict[str, Any]
Records = list[dict[str, Any]]

MAX_REFUSALS: Final = 4096
"""Pairs of reason and resource that are kept of dead workers."""
MAX_TENANTS: Final = 64
MAX_METERS: Final = 64
_KEPT: Final = ("llm", "rates", "retries", "caches")
"""Of dead workers, beside their refusals."""

_ENGINE: Final = ("engine_load", "engine_running", "engine_waiting", "engine_cache")
"""Of an endpoint, if an engine of models is there and tells."""
_OF_MACHINE: Final = ("limits", "remaining", "heard", "concurrent")
"""What all workers tell alike of a target."""


class Deaths(NamedTuple):
    """Of the workers of one slot, those that were to live on."""

    times: int
    last_s: float
    """When the last one was; monotonic."""
    ended: str
    """And how: "SIGKILL"."""


class Fleet(Protocol):
    """Which processes there are."""

    def pids(self) -> dict[int, int]:
        """Slot to process id."""


class Reports:
    """Of one gateway. `fresh`: what is kept for a moment of all that is made from them."""

    def __init__(self, board: Board, fleet: Fleet, fresh: Fresh) -> None:
        self._board = board
        self._fleet = fleet
        self._fresh = fresh

    def all(self) -> dict[int, Report]:
        """By slot; empty ones of workers that have not reported yet."""
        return self._fresh.get("reports", self._read)

    def _read(self) -> dict[int, Report]:
        return {slot: _decode(self._board.report(slot).read()) for slot in self._fleet.pids()}

    def refusals(self) -> dict[str, dict[str, int]]:
        """Reason to resource to count, since the start."""
        total = _refusals_of(_decode(self._board.report(self._board.slots).read()))
        for report in self.all().values():
            _add_refusals(total, _refusals_of(report))
        return total

    def bury(self, slot: int) -> None:
        """A worker is dead and its row is about to be cleared: keep what it has refused, with that of the other dead.

        MAX_REFUSALS pairs are kept; of more only the sum of each reason. The other numbers are kept if there is
        room.
        """
        page = self._board.report(self._board.slots)
        dead, last = _decode(page.read()), _decode(self._board.report(slot).read())
        kept = _refusals_of(dead)
        _add_refusals(kept, _refusals_of(last))
        more = {name: merged(dead.get(name) or {}, last.get(name) or {}) for name in _KEPT}
        if sum(map(len, kept.values())) > MAX_REFUSALS or len(text := _encode_kept(kept, more)) > page.max_bytes:
            kept = {reason: {OTHER: sum(found.values())} for reason, found in kept.items()}
            text = _encode_kept(kept, more)
        if len(text) > page.max_bytes:
            text = _encode_kept(kept, {})
        page.write(text)
        self._fresh.forget()

    def llm(self) -> Report:
        """The numbers of models (llm/measures.py), since the start."""
        return self._sum("llm")

    def rates(self) -> dict[str, dict[str, int]]:
        """By name, what each rate has refused, or would have."""
        return self._sum("rates")

    def retries(self) -> dict[str, dict[str, int]]:
        """By upstream, how many requests were sent again, or were not because of its budget."""
        return self._sum("retries")

    def budgets(self) -> dict[str, dict[str, int]]:
        """By upstream, what is used of its retry budget now, in all workers."""
        total: dict[str, dict[str, int]] = {}
        for seen in self.upstreams():
            add(total.setdefault(seen["upstream"], {}), seen.get("budget") or {})
        return total

    def caches(self) -> dict[str, dict[str, int]]:
        """By route, how often its cache had an answer."""
        return self._sum("caches")

    def stores(self) -> dict[str, dict[str, int]]:
        """By route, what its caches hold now; nothing of one that no worker has told of."""
        total: dict[str, dict[str, int]] = {}
        for report in self.all().values():
            total = merged(total, report.get("stores") or {})
        return total

    def _sum(self, section: str) -> Report:
        total: Report = _decode(self._board.report(self._board.slots).read()).get(section) or {}
        for report in self.all().values():
            total = merged(total, report.get(section) or {})
        return total

    def upstreams(self) -> Iterator[Report]:
        """Each upstream as each worker sees it."""
        for report in self.all().values():
            yield from report.get("upstreams", ())

    def pools(self) -> Records:
        """Each endpoint's connections of all workers, and why it is left out."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        heard: dict[tuple[str, str], int] = {}
        for upstream in self.upstreams():
            for seen in upstream["endpoints"]:
                key = (upstream["upstream"], seen["endpoint"])
                one = found.get(key)
                if one is None:
                    one = found[key] = no_connections(*key, "in use", seen.get("weight", 1.0))
                for count in ("active", "idle", "connecting", "waiting"):
                    one[count] += seen[count]
                for count in ("waited", "gave_up", "dials"):
                    one[count] += seen.get(count, 0)
                one["wait_ms"] = worst(one["wait_ms"], seen.get("wait_ms", ()))
                for count in ("answered", "failed"):
                    if count in seen:
                        one[count] = (one[count] or 0) + seen[count]
                one["waiting_limit"] += upstream["max_waiting"]
                one["connecting_limit"] += upstream["max_connecting"]
                one["oldest_ms"] = max(one["oldest_ms"], age_ms(seen["oldest_ns"]))
                if "cost_s" in seen:
                    one["cost_ms"] = max(one["cost_ms"] or 0.0, seen["cost_s"] * 1000)
                for told in _ENGINE:
                    if told in seen:  # by each worker, of the same engine
                        one[told] = max(one[told] or 0.0, seen[told])
                if seen.get("heard_ns", 0) > heard.get(key, 0):  # the newest of what workers know
                    heard[key], one["fails_by"] = seen["heard_ns"], seen["fails_by"]
                one["penalty_ms"] = max(one["penalty_ms"], seen.get("penalty_s", 0.0) * 1000)
                one["ejected_s"] = max(one["ejected_s"], seen.get("ejected_s", 0.0))
                if seen.get("health", "unknown") != "unknown":
                    one["health"] = seen["health"]
                if one["weight"] == 0:
                    one["state"] = "draining"
                if one["ejected_s"] or one["health"] == "bad":
                    one["state"] = "ejected" if one["ejected_s"] else "unhealthy"
        return [found[key] for key in sorted(found)]

    def tenants(self, limit: int) -> Records:
        """Those that have the most requests in flight or waiting; `limit` of each, 0 for none."""
        found: dict[str, dict[str, Any]] = {}
        for report in self.all().values():
            for seen in report.get("tenants", ()):
                one = found.setdefault(
                    seen["tenant"],
                    {
                        "tenant": seen["tenant"],
                        "in_flight": 0,
                        "limit": 0,
                        "queued": 0,
                        "oldest_ms": 0,
                        "admitted": 0,
                        "wait_ms": [],
                        "refused": {},
                    },
                )
                for count in ("in_flight", "queued", "admitted"):
                    one[count] += seen.get(count, 0)
                one["wait_ms"] = worst(one["wait_ms"], seen.get("wait_ms", ()))
                one["oldest_ms"] = max(one["oldest_ms"], seen["oldest_ms"])
                add(one["refused"], seen["refused"])
                one["limit"] = limit or None
        return sorted(found.values(), key=lambda one: -(one["in_flight"] + one["queued"]))[:MAX_TENANTS]

    def targets(self) -> Records:
        """Models at providers' keys: what runs and waits before each, of all workers; limits and pauses are the
        machine's."""
        found: dict[str, dict[str, Any]] = {}
        for seen in self._each("targets"):
            name = seen["name"]
            one = found.get(name)
            if one is None:
                one = found[name] = {
                    "target": name,
                    **dict.fromkeys(("in_flight", "queued", "queued_tokens"), 0),
                    "oldest_ms": 0.0,
                    **{key: seen[key] for key in _OF_MACHINE},
                    "paused_s": 0.0,
                    "paused_for": "",
                    "paused_until": None,
                    "paused_detail": "",
                    "fails_by": "",
                    "fails_detail": "",
                    "admitted": 0,
                    "wait_ms": [],
                    "refused": {},
                    "last_refusal": "",
                }
            elif seen["heard"] and not one["heard"]:  # one that has had no request since does not know of it yet
                one.update({key: seen[key] for key in _OF_MACHINE})
            for count in ("in_flight", "queued", "queued_tokens", "admitted"):
                one[count] += seen[count]
            one["oldest_ms"] = max(one["oldest_ms"], age_ms(seen["oldest_ns"]))
            left_s = -age_ms(seen.get("paused_until_ns", 0)) / 1000
            if left_s > one["paused_s"]:
                one["paused_s"], one["paused_for"] = left_s, seen["paused_for"]
                one["paused_until"] = moment(time.time() + left_s)
            one["paused_detail"] = one["paused_detail"] or seen.get("paused_detail", "")
            if one["fails_by"] in ("", UNHEARD):
                one["fails_by"] = seen.get("fails_by") or one["fails_by"]
                one["fails_detail"] = seen.get("fails_detail", "")
            one["wait_ms"] = worst(one["wait_ms"], seen.get("wait_ms", ()))
            add(one["refused"], seen["refused"])
            one["last_refusal"] = seen["last_refusal"] or one["last_refusal"]
        return [found[name] for name in sorted(found)]

    def meters(self) -> Records:
        """Whose requests have limits of tokens or money: what runs, of all workers, and what is left."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for seen in self._each("meters"):
            one = found.setdefault((seen["meter"], seen["name"]), {**seen, "in_flight": 0, "refused": 0, "degraded": 0})
            one["in_flight"] += seen["in_flight"]
            one["refused"] += seen["refused"]
            one["degraded"] += seen.get("degraded", 0)
        return sorted(found.values(), key=lambda one: (-one["in_flight"], one["meter"], one["name"]))[:MAX_METERS]

    def _each(self, section: str) -> Iterator[dict[str, Any]]:
        for report in self.all().values():
            yield from report.get(section, ())


def moment(seconds: float | None) -> str | None:
    """A time since 1970, for people."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def no_connections(upstream: str, endpoint: str, state: str, weight: float) -> dict[str, Any]:
    """An endpoint of which nothing is known."""
    return {
        "upstream": upstream,
        "endpoint": endpoint,
        "state": state,
        **dict.fromkeys(("active", "idle", "connecting", "waiting"), 0),
        "oldest_ms": 0.0,
        "cost_ms": None,
        "penalty_ms": 0.0,
        "weight": weight,
        **dict.fromkeys(("answered", "failed")),
        **dict.fromkeys(("waited", "gave_up", "dials", "waiting_limit", "connecting_limit"), 0),
        "wait_ms": (),
        "ejected_s": 0.0,
        **dict.fromkeys(_ENGINE),
        "health": "unknown",
        "fails_by": "",
    }


def _decode(document: bytes) -> dict[str, Any]:
    """A report; empty if there is none."""
    if not document:
        return {}
    found = orjson.loads(document)
    return found if isinstance(found, dict) else {}


def _refusals_of(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {reason: dict(counts) for reason, counts in report.get("refusals", {}).items()}


def _add_refusals(total: dict[str, dict[str, int]], more: Mapping[str, Mapping[str, int]]) -> None:
    for reason, counts in more.items():
        add(total.setdefault(reason, {}), counts)


def worst(one: Sequence[float], other: Sequence[float]) -> Sequence[float]:
    """Quantiles of two workers, which cannot be merged: the greater of each. Empty ones are of nobody."""
    return [max(pair) for pair in zip(one, other, strict=True)] if one and other else one or other


def add(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Count by count."""
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


def merged(one: Any, other: Any) -> Any:
    """The sum of two documents of one shape: tables by key, arrays by place, numbers. Changes neither."""
    if isinstance(one, dict):
        both = {key: merged(value, other[key]) if key in other else value for key, value in one.items()}
        return {**both, **{key: value for key, value in other.items() if key not in one}}
    if isinstance(one, list):
        if len(one) != len(other):  # of another release, whose board this one has taken over
            return other
        return [merged(*pair) for pair in zip(one, other, strict=True)]
    return one + other


def _encode_kept(refusals: Mapping[str, Mapping[str, int]], more: Mapping[str, Report]) -> bytes:
    return orjson.dumps({"refusals": refusals, **{name: found for name, found in more.items() if found}})
