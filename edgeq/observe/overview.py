"""What `edgeq show` and the metrics tell, made in the supervisor from the board, the sockets and the configuration.

No worker is asked, so a worker that hangs is seen, not waited for. One list of records for each subject; every record
of a list has the same keys, and what cannot be known is None. Times are milliseconds, rates are of the last ten
seconds, quantiles of the last ten to twenty (`sampler.py`).

Queues are in `queues.py`, what the workers report in `reports.py`. All is made at most ten times a second, and in a
tenth of the supervisor's time, however often somebody asks (`fresh.py`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

from edgeq.board import resources
from edgeq.board.gcra_table import GcraTable
from edgeq.board.layout import Board
from edgeq.board.reading import Reading, age_ms, read
from edgeq.config.change import LIVE, Change, toml
from edgeq.config.lines import show_path
from edgeq.config.providers import caches_of, otel_names, settings_of, switched_off
from edgeq.config.schema import Config, Endpoint
from edgeq.config.shown import MASK, is_secret, leaves, masked_value
from edgeq.llm.rests import OF_TARGET, TIMES, moments
from edgeq.observe.fresh import Fresh
from edgeq.observe.models import model_records
from edgeq.observe.queues import Queues, Sockets, limited, quantiles_ms
from edgeq.observe.reports import Deaths, Fleet, Records, Reports, moment, no_connections
from edgeq.observe.sampler import Sampler
from edgeq.policy.retry import WINDOW_S
from edgeq.reasons import REASONS
from edgeq.supervisor.sockets_io import kernel_backlog_limit
from edgeq.supervisor.stuck import StuckTable
from edgeq.upstream.endpoint import endpoint_label

STUCK_MS: Final = 2000
"""A worker that has not flushed for so long does not turn its loop: eight flushes are missing."""
OBSERVE: Final = "observe"
"""The limit that is none: what would be learned is told beside it."""
_NOTHING: Final = {"refused": 0, "would_refuse": 0}
_NOBODYS: Final[Mapping[str, Any]] = dict.fromkeys(("uid", "since", "until", "left_s", "comment", "persisted"))
"""Of what nobody has set."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Overview:
    """All subjects, each a method that returns records."""

    def __init__(
        self,
        board: Board,
        fleet: Fleet,
        sockets: Sockets,
        config: Callable[[], Config],
        changes: Callable[[], Sequence[Change]] = tuple,
        stuck: StuckTable | None = None,
        waiting: Callable[[], Sequence[str]] = tuple,
        deaths: Mapping[int, Deaths] | None = None,
    ) -> None:
        """`waiting`: keys of the configuration that only a restart will bring; `deaths`: by slot, of workers."""
        self.stuck: Final = stuck or StuckTable()
        self._board = board
        self._fleet = fleet
        self._config = config
        self._changes = changes
        self._waiting = waiting
        self._deaths: Mapping[int, Deaths] = {} if deaths is None else deaths
        self._sampler = Sampler(board)
        self.fresh: Final = Fresh()
        """Of all that is told; explain keeps its facts there, too."""
        self.reports: Final = Reports(board, fleet, self.fresh)
        self._queues = Queues(sockets, self.reports, self._sampler, config, self.readings)
        self.bury = self.reports.bury
        """To be called before the row of a dead worker is cleared."""
        self.subjects: Final[Mapping[str, Callable[[], Records]]] = {
            one.__name__: one
            for one in (
                self.queues,
                self.upstreams,
                self.endpoints,
                self.routes,
                self.tenants,
                self.rates,
                self.retries,
                self.caches,
                self.models,
                self.targets,
                self.meters,
                self.limits,
                self.workers,
                self.reasons,
                self.config,
                self.changes,
            )
        }
        """By name, as commands call them."""

    # Now and then.

    def sample(self) -> None:
        """Once a second: note the counters that become rates, and the high-water of what keeps none itself."""
        counters: dict[str, tuple[int, ...]] = {
            f"worker/{slot}": (self._board.row(slot).requests, self._board.row(slot).connections)
            for slot in self._fleet.pids()
        }
        counters |= self._queues.look()
        for reason, found in self.reports.refusals().items():
            for resource, count in found.items():
                counters[_refusal_key(reason, resource)] = (count,)
        self._sampler.sample(time.monotonic(), self._resources(), counters)

    def begin_highs(self) -> None:
        """From now on the high-water of a queue is the most since now."""
        self._board.begin_highs()
        self._sampler.begin_highs()
        self.fresh.forget()

    # Subjects.

    def queues(self) -> Records:
        """Every place where something can wait, in the order of a request's way."""
        return self.fresh.get("queues", self._queues.all)

    def upstreams(self) -> Records:
        """Each upstream with its limit, its breaker, and what its answers take."""
        return self.fresh.get("upstreams", self._upstreams)

    def endpoints(self) -> Records:
        """Each endpoint with its connections, of all workers, and why it is left out."""
        return self.fresh.get("endpoints", self._endpoints)

    def routes(self) -> Records:
        """Each route with its limit."""
        return self.fresh.get("routes", self._routes)

    def tenants(self) -> Records:
        """The tenants that have the most requests in flight or waiting; only where tenants have a limit."""
        return self.fresh.get("tenants", lambda: self.reports.tenants(self._config().tenant.limit))

    def rates(self) -> Records:
        """Each rate with what it has refused, or would have refused if it were enforced."""
        return self.fresh.get("rates", self._rates)

    def retries(self) -> Records:
        """Each upstream with what was sent to it again, and its retry budget."""
        return self.fresh.get("retries", self._retries)

    def providers(self) -> dict[str, str]:
        """Of each target of models, as OpenTelemetry calls it."""
        return otel_names(self._config())

    def caches(self) -> Records:
        """Each route's cache, of all workers: how often it had an answer, what it holds, and who waits there."""
        return self.fresh.get("caches", self._caches)

    def models(self) -> Records:
        """Who answers for each model, in the order in which they are asked."""
        return self.fresh.get("models", self._models)

    def targets(self) -> Records:
        """Each model at each key of its providers: tokens, pauses, who waits for them."""
        return self.fresh.get("targets", self._targets)

    def meters(self) -> Records:
        """Who has limits of tokens or money, those with the most requests first."""
        return self.fresh.get("meters", self.reports.meters)

    def limits(self) -> Records:
        """Everything that is a number in the configuration, and where its value comes from."""
        return self.fresh.get("limits", self._limits)

    def workers(self) -> Records:
        """Each worker process, as it is at this moment: who asks may have just changed that."""
        return self._workers()

    def forget(self) -> None:
        """Something has changed: the next reader gets new numbers."""
        self.fresh.forget()

    def reasons(self) -> Records:
        """Refusals and failures by reason and resource, of all workers, the dead ones included."""
        return self.fresh.get("reasons", self._reasons)

    def config(self) -> Records:
        """What runs now, with secrets masked; and what only a restart will bring."""
        waiting = self._waiting()
        return [
            {
                "key": one.key,
                "value": one.value,
                "default": one.is_default,
                "waits_for": "restart" if one.key in waiting else None,
            }
            for one in leaves(self._config())
        ]

    def changes(self) -> Records:
        """What is set live, the oldest first."""
        now = time.time()
        return [
            {
                "resource": one.resource,
                "key": MASK if is_secret(one.path, self._config()) else one.key,
                "value": _value(one),
                "file": _in_file(one),
                "pid": one.pid or None,
                **_whose(one, now),
            }
            for one in self._changes()
        ]

    def readings(self) -> dict[str, Reading]:
        """The numbers of all resources with histograms since the start, for the metrics."""
        return self.fresh.get("readings", lambda: {name: self._reading(name) for name in self._resources()})

    # How it is done.

    def _resources(self) -> list[str]:
        return list(limited(self._config()))

    def _reading(self, name: str) -> Reading:
        return read(self._board, self._board.resource_index(name))

    def _endpoints(self) -> Records:
        left_out = ("waiting_limit", "connecting_limit", "waited", "gave_up", "dials", "wait_ms")
        # No worker knows of those that are disabled; what is told of them is that they are there.
        disabled = [
            no_connections(name, endpoint_label(one.url), "disabled", one.weight)
            for name, config in self._config().upstream.items()
            for one in config.endpoints
            if isinstance(one, Endpoint) and not one.enabled
        ]
        # Nor is there a pool for a name that does not resolve; each worker tells of it.
        unresolved = {
            (seen["upstream"], one["url"]) for seen in self.reports.upstreams() for one in seen.get("unresolved", ())
        }
        lost = [no_connections(name, endpoint_label(url), "unresolved", 1.0) for name, url in sorted(unresolved)]
        off = switched_off(self._config())
        pools = [
            {**one, "state": "disabled"} if f"upstream/{one['upstream']}" in off else one
            for one in self.reports.pools()
        ]
        found = [*pools, *lost, *disabled]
        return [{key: value for key, value in one.items() if key not in left_out} for one in found]

    def _upstreams(self) -> Records:
        now_s = time.monotonic()
        states: dict[str, dict[str, Any]] = {}
        for seen in self.reports.upstreams():
            # Workers agree on what is in use but for a moment; the breaker that is not closed is the one to be told.
            known = states.get(seen["upstream"])
            if known is None or (seen["breaker"] or {}).get("state", "closed") != "closed":
                states[seen["upstream"]] = seen
        readings = self.readings()
        settings = settings_of(self._config())
        budgets = self.reports.budgets()
        rests = self._rests()
        fails: dict[str, dict[str, str]] = {}
        for one in self.targets():
            if one["fails_by"]:
                upstream, _, model = one["target"].partition("/")
                fails.setdefault(upstream, {})[model] = one["fails_by"]
        off = switched_off(self._config())
        found: Records = []
        for name, config in self._config().upstream.items():
            reading = readings[f"upstream/{name}"]
            recent = self._sampler.recent(f"upstream/{name}", reading)
            rates = self._sampler.rates(f"upstream/{name}", now_s, reading)
            state = states.get(name, {})
            breaker = state.get("breaker")
            limit, source = self._limit_of(name, settings[name], config.limit)
            found.append(
                {
                    "upstream": name,
                    "in_flight": reading.in_flight,
                    "limit": limit,
                    "limit_source": source,
                    "observed_limit": self._found_limit(name) if source == OBSERVE else None,
                    "queued": reading.queued,
                    "queue_limit": config.queue.max,
                    "oldest_ms": age_ms(reading.oldest_ns),
                    "endpoints": 0 if f"upstream/{name}" in off else state.get("known", 0),
                    "in_use": 0 if f"upstream/{name}" in off else state.get("in_use", 0),
                    "panic": state.get("panic", False),
                    "breaker": breaker["state"] if breaker else None,
                    "rests": rests.get(name, {}),
                    "fails": fails.get(name, {}),
                    "retrying": budgets.get(name, {}).get("running", 0),
                    "service_ms": quantiles_ms(recent.services()),
                    "answers_per_s": rates.departures,
                    "refused_per_s": rates.refused,
                    "ok": reading.counters[resources.OK],
                    "dropped": reading.counters[resources.DROPPED],
                    "refused": reading.refusals(),
                }
            )
        return found

    def _models(self) -> Records:
        return list(model_records(self._config(), self.targets(), self.upstreams(), self.meters()))

    def _targets(self) -> Records:
        """As the workers have told, but for rests that have been ended since, by an operator, another secret, or an
        answer that another one of them has had."""
        found = self.reports.targets()
        if any(one["paused_s"] or one["fails_by"] for one in found):
            until = moments(self._config(), GcraTable(self._board, 0))
            now_ns = time.monotonic_ns()
            for one in found:
                own_ns, key_ns = until.get(one["target"], (now_ns + 1 | TIMES, 0))
                if max(own_ns, key_ns) <= now_ns:
                    one.update(paused_s=0.0, paused_for="", paused_until=None, paused_detail="")
                if not own_ns & TIMES:
                    one.update(fails_by="", fails_detail="")
        return found

    def _rests(self) -> dict[str, dict[str, int]]:
        """Of each provider's key what is not asked for a while, and for how many seconds: all, by the reason, or some
        of its models."""
        found: dict[str, dict[str, int]] = {}
        for one in self.targets():
            if one["paused_s"]:
                upstream, _, model = one["target"].partition("/")
                what = model if one["paused_for"] in OF_TARGET else one["paused_for"]
                found.setdefault(upstream, {})[what] = ceil(one["paused_s"])
        return found

    def _limit_of(self, name: str, settings: str, configured: int | str) -> tuple[int | None, str]:
        """What holds now for an upstream, None for no limit, and whose number it is. `settings`: where it is set."""
        if isinstance(configured, int):
            is_live = any(one.path == (*settings.split("/", 1), "limit") for one in self._changes())
            return configured or None, LIVE if is_live else "file"
        return (None, OBSERVE) if configured == OBSERVE else (self._found_limit(name), "learned")

    def _found_limit(self, name: str) -> int | None:
        """What the workers have learned for an upstream, whether it holds or is only observed; None for nothing yet."""
        return self._board.learned_limit(self._board.resource_index(f"upstream/{name}")) or None

    def _learned(self, settings: str, configured: str) -> tuple[str, str]:
        """The same in words; of a provider with several keys all of its limits."""
        limits: list[str] = []
        source = "learned"
        for name, where in settings_of(self._config()).items():
            if where == settings:
                limit, source = self._limit_of(name, where, configured)
                observed = self._found_limit(name) if source == OBSERVE else None
                none = "none" if observed is None else f"none; {observed} would be learned"
                limits.append(none if limit is None else str(limit))
        return ", ".join(limits), source

    def _routes(self) -> Records:
        now_s = time.monotonic()
        readings = self.readings()
        found: Records = []
        for route in self._config().route:
            name = f"route/{route.name}"
            reading = readings.get(name)
            rates = self._sampler.rates(name, now_s, reading) if reading is not None else None
            found.append(
                {
                    "route": route.name,
                    "host": route.match.host,
                    "path": route.match.path,
                    "upstream": route.upstream,
                    "priority": route.priority,
                    "in_flight": reading.in_flight if reading is not None else None,
                    "limit": 0 if route.paused else route.limit or None,
                    "paused": route.paused,
                    "queued": reading.queued if reading is not None else None,
                    "queue_limit": route.queue.max if reading is not None else None,
                    "answers_per_s": rates.departures if rates is not None else None,
                    "refused_per_s": rates.refused if rates is not None else None,
                }
            )
        return found

    def _rates(self) -> Records:
        counts = self.reports.rates()
        return [
            {
                "rate": one.name,
                "by": one.by,
                "limits": list(one.limits),
                "routes": list(one.routes),
                "enforce": one.enforce,
                "refused": counts.get(one.name, _NOTHING)["refused"],
                "would_refuse": None if one.enforce else counts.get(one.name, _NOTHING)["would_refuse"],
            }
            for one in self._config().rate
        ]

    def _retries(self) -> Records:
        counts, used = self.reports.retries(), self.reports.budgets()
        none = dict.fromkeys(("retried", "denied", "hedges", "hedges_won"), 0)
        found: Records = []
        for name, config in self._config().upstream.items():
            now, budget = used.get(name, {}), config.retry_budget
            allowed = budget.share * now.get("requests", 0) + budget.reserve * WINDOW_S
            found.append(
                {
                    "upstream": name,
                    **none,
                    **counts.get(name, {}),
                    "running": now.get("running", 0),
                    "recent": now.get("retries", 0),
                    "allowed": int(allowed),
                }
            )
        return found

    def _caches(self) -> Records:
        counts, held = self.reports.caches(), self.reports.stores()
        none = dict.fromkeys(("hits", "joined", "stale", "misses", "stored"), 0)
        empty = dict.fromkeys(("entries", "bytes", "max_bytes", "waiting"), 0)
        config = self._config()
        names = [*(one.name for one in config.route if one.cache is not None), *caches_of(config)]
        return [{"route": name, **none, **counts.get(name, {}), **empty, **held.get(name, {})} for name in names]

    def _limits(self) -> Records:
        somaxconn = kernel_backlog_limit()
        found: Records = []
        now = time.time()
        live = {show_path(one.path): one for one in self._changes()}
        told: set[str] = set()
        for leaf in leaves(self._config()):
            is_number = isinstance(leaf.raw, int | float) and not isinstance(leaf.raw, bool)
            step, _, last = leaf.key.rpartition(".")
            is_learned = last == "limit" and step.startswith(("upstream.", "provider.")) and not is_number
            is_rate = last == "limits" and step.startswith("rate.")
            if not is_number and not is_learned and not is_rate:
                continue
            value, source = leaf.value, "default" if leaf.is_default else "file"
            configured = leaf.value
            if is_learned:
                value, source = self._learned(step.replace(".", "/", 1).replace('"', ""), str(leaf.raw))
            elif last == "backlog" and somaxconn is not None and leaf.raw > somaxconn:
                value, source = str(somaxconn), "kernel"
            whose = _NOBODYS
            if key := _changed(leaf.key, live):
                told.add(key)
                source, configured, whose = LIVE, _in_file(live[key]) or "default", _whose(live[key], now)
            found.append({"limit": leaf.key, "value": value, "source": source, "configured": configured, **whose})
        for key, change in live.items():
            if key not in told:  # no limit, but whoever asks what is set asks here
                if is_secret(change.path, self._config()):
                    key = f"{change.resource}.{MASK}"
                configured = _in_file(change) or "default"
                said = {"limit": key, "value": _value(change), "source": LIVE, "configured": configured}
                found.append({**said, **_whose(change, now)})
        return found

    def _workers(self) -> Records:
        """A worker that was never heard of has no beat age."""
        now_s = time.monotonic()
        reports = self.reports.all()
        aside = self.stuck.aside()
        found: Records = []
        for slot, pid in self._fleet.pids().items():
            row = self._board.row(slot)
            beat_ns = row.heartbeat_ns
            beat_age_ms = int(age_ms(beat_ns)) if beat_ns else None
            seen = row.snapshot()
            state = aside[slot].value if slot in aside else seen["state"]
            counts = (row.requests, row.connections)
            requests_per_s, accepts_per_s = self._sampler.counter_rates(f"worker/{slot}", now_s, counts)
            deaths = self._deaths.get(slot)
            found.append(
                {
                    **seen,
                    "state": "stuck" if beat_age_ms is not None and beat_age_ms > STUCK_MS else state,
                    "pid": pid,
                    "aside": slot in aside,
                    "max_lag_us": reports.get(slot, {}).get("max_lag_us", 0),
                    "beat_age_ms": beat_age_ms,
                    "requests_per_s": requests_per_s,
                    "accepts_per_s": accepts_per_s,
                    "memory_bytes": _memory_bytes(pid),
                    "restarts": 0 if deaths is None else deaths.times,
                    "died_ago_s": None if deaths is None else round(now_s - deaths.last_s, 1),
                    "died_by": None if deaths is None else deaths.ended,
                }
            )
        return found

    def _reasons(self) -> Records:
        now_s = time.monotonic()
        found: Records = []
        for reason, counts in self.reports.refusals().items():
            known = REASONS.get(reason)
            for resource, count in counts.items():
                (rate,) = self._sampler.counter_rates(_refusal_key(reason, resource), now_s, (count,))
                found.append(
                    {
                        "reason": reason,
                        "resource": resource,
                        "count": count,
                        "per_s": rate,
                        "status": known.status if known is not None else 0,
                        "hint": known.hint if known is not None else "",
                    }
                )
        return sorted(found, key=lambda one: (-one["per_s"], -one["count"], one["reason"], one["resource"]))


def _changed(key: str, live: Mapping[str, Change]) -> str:
    """The key that was set, of a value: its own, or that of a table around it; empty: neither was."""
    while live and key and key not in live:
        key = key.rpartition(".")[0]
    return key if live else ""


def _value(change: Change) -> str:
    return toml(masked_value(change.path, change.value))


def _in_file(change: Change) -> str | None:
    return None if change.was is None else toml(masked_value(change.path, change.was))


def _whose(change: Change, now: float) -> dict[str, Any]:
    """Who has set it, when, until when, and why."""
    return {
        "uid": change.uid,
        "since": moment(change.since),
        "until": moment(change.until),
        "left_s": None if change.until is None else max(0, round(change.until - now)),
        "comment": change.comment,
        "persisted": change.persisted,
    }


def _refusal_key(reason: str, resource: str) -> str:
    return f"refused/{reason} {resource}"


def _memory_bytes(pid: int) -> int | None:
    """Resident, of any process that we may see."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    return None
