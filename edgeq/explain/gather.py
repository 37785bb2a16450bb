"""The facts of one gateway, gathered in the supervisor: from the board, the workers' reports, the sockets and /proc."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read
from edgeq.config.live import endpoints_named
from edgeq.config.providers import provider_of, settings_of
from edgeq.config.schema import Config
from edgeq.explain import proc_io
from edgeq.explain.facts import Door, Endpoint, Facts, Forecast, Load, Machine, Models, Refused, Waiting, Worker
from edgeq.explain.watch import NOW_S, Watch
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe.fresh import Fresh
from edgeq.observe.overview import STUCK_MS, Overview
from edgeq.observe.queues import Sockets
from edgeq.observe.reports import Fleet, add
from edgeq.supervisor.sockets_io import SHARED, kernel_backlog_limit
from edgeq.worker.readings_io import memory_limit

_REFUSED: Final = "refused/"
_FDS: Final = "fd_exhausted"
_WAITS: Final = ("places", "pool", "tenant", "tokens")
"""Kinds of queues of which only their depth is told."""


class Gatherer:
    """Notes what is needed to tell now from before (`look`), and says how things are (`facts`)."""

    def __init__(
        self, board: Board, fleet: Fleet, sockets: Sockets, overview: Overview, config: Callable[[], Config]
    ) -> None:
        self._board = board
        self._fleet = fleet
        self._sockets = sockets
        self._overview = overview
        self._reports = overview.reports
        self._config = config
        self._fresh = Fresh()
        self.watch: Final = Watch()

    def look(self) -> None:
        """To be called every `watch.EVERY_S`."""
        now_s = time.monotonic()
        self.watch.note_counters(now_s, dict(self._counters()))
        self.watch.note_resources(now_s, self._readings(), self._models())
        reports = self._reports.all()
        self.watch.note_lags({slot: one.get("max_lag_us", 0) / 1000 for slot, one in reports.items()})
        asking: dict[str, dict[str, int]] = {}
        for report in reports.values():
            for resource, tenants in dict(report.get("asking", ())).items():
                add(asking.setdefault(resource, {}), tenants)
        self.watch.note_asking(asking)

    def facts(self) -> Facts:
        """How things are now, to a tenth of a second."""
        return self._fresh.get("facts", self._facts)

    def _facts(self) -> Facts:
        refused = tuple(self._refused())
        is_short = any(one.reason == _FDS for one in refused)
        stuck = self._config().server.stuck
        memory = memory_limit()
        return Facts(
            loads=tuple(self._loads()),
            workers=tuple(self._workers(is_short)),
            doors=tuple(self._doors()),
            refused=refused,
            machine=Machine(
                kernel_backlog_limit(), proc_io.local_ports(), proc_io.time_wait(), proc_io.open_files(), *memory
            ),
            waiting=tuple(self._waiting()),
            memory_share=self._config().protect.memory,
            replaced_s=float(stuck.restart) if stuck.after > 0 else 0.0,
        )

    # What is noted.

    def _counters(self) -> Iterator[tuple[str, float]]:
        for reason, found in self._reports.refusals().items():
            for resource, count in found.items():
                yield f"{_REFUSED}{reason} {resource}", count
        for listener, slot, sock in self._sockets.queues():
            if slot != SHARED:  # a Unix socket drops nobody: its clients are told
                yield f"drops/{listener.address} {slot}", drops_of(sock)
        for one in self._reports.pools():
            name = f"{one['upstream']}#{one['endpoint']}"
            yield f"good/{name}", one["answered"] or 0
            yield f"bad/{name}", one["failed"] or 0
        for slot, pid in self._fleet.pids().items():
            spent = proc_io.processor_ns(pid)
            if spent is not None:
                yield f"ran/{slot} {pid}", spent[0]
                yield f"delayed/{slot} {pid}", spent[1]

    def _readings(self) -> Iterator[tuple[str, int, Reading]]:
        config = self._config()
        limits: dict[str, int | str] = {f"upstream/{name}": one.limit for name, one in config.upstream.items()}
        limits |= {f"route/{one.name}": one.limit for one in config.route if one.limit or one.paused}
        for name, limit in limits.items():
            index = self._board.resource_index(name)
            number = limit if isinstance(limit, int) else self._board.learned_limit(index)
            yield name, number, read(self._board, index, False)

    def _models(self) -> dict[str, Models]:
        """What the models of each provider have answered, and how long that took. The keys of a provider are asked in
        turn, so of each it is the same."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for report in self._reports.all().values():
            for targets in report.get("llm", {}).get("models", {}).values():
                for target, one in targets.items():
                    provider, _, model = target.partition("/")
                    models = found.setdefault(provider, {})
                    count, seconds = models.get(model, (0, 0.0))
                    models[model] = (count + sum(one["duration"]["counts"]), seconds + one["duration"]["sum"])
        return {f"upstream/{name}": found.get(provider, {}) for name, provider in provider_of(self._config()).items()}

    # What is told.

    def _loads(self) -> Iterator[Load]:
        config = self._config()
        endpoints = self._endpoints()
        settings = settings_of(config)
        for one in self._overview.upstreams():
            name = one["upstream"]
            routes = tuple(route.name for route in config.route if route.upstream == name)
            own = tuple(endpoints.get(name, ()))
            yield self._load(f"upstream/{name}", settings[name], one, config.upstream[name].queue.max, routes, own)
        for one in self._overview.routes():
            if one["limit"] or one["paused"]:
                resource = f"route/{one['route']}"
                yield self._load(resource, resource, one, one["queue_limit"], (), ())

    def _load(
        self,
        resource: str,
        settings: str,
        seen: Mapping[str, Any],
        queue_max: int,
        routes: tuple[str, ...],
        endpoints: tuple[Endpoint, ...],
    ) -> Load:
        watch = self.watch
        spell = watch.spell(resource)
        pressed_s = spell.last_s - spell.began_s if spell is not None else 0.0
        oldest = watch.history(resource, 1.0)
        return Load(
            resource=resource,
            settings=settings,
            limit=seen["limit"],
            limit_source=seen.get("limit_source", "file"),
            in_flight=seen["in_flight"],
            queued=seen["queued"],
            queue_max=queue_max,
            oldest_ms=seen["oldest_ms"] if "oldest_ms" in seen else max((one.oldest_ms for one in oldest), default=0.0),
            now=watch.now(resource),
            before=watch.before(resource),
            pressed_s=pressed_s,
            breaker=seen.get("breaker"),
            endpoints=endpoints,
            tenants=watch.asked(resource),
            routes=routes,
            is_paused=seen.get("paused", False),
            forecast=self._forecast(resource),
        )

    def _forecast(self, resource: str) -> Forecast | None:
        """The last of now, of all workers."""
        every = [one for report in self._reports.all().values() for one in report.get("forecasts", ())]
        last = max(
            (one for one in every if one["resource"] == resource), key=lambda one: int(one["at_ns"]), default=None
        )
        if last is None or time.monotonic_ns() - last["at_ns"] > NOW_S * 1e9:
            return None
        return Forecast(last["left_ms"], last["wait_ms"], last["median_ms"], last["p95_ms"])

    def _endpoints(self) -> dict[str, list[Endpoint]]:
        found: dict[str, list[Endpoint]] = {}
        config = self._config()
        for one in self._reports.pools():
            name = f"{one['upstream']}#{one['endpoint']}"
            good, bad = self.watch.per_s(f"good/{name}"), self.watch.per_s(f"bad/{name}")
            # Whoever has taken it out does not want to hear that it is sick.
            state = "draining" if one["weight"] == 0 else one["state"]
            is_configured = bool(endpoints_named(config, name))
            endpoint = Endpoint(one["endpoint"], state, one["cost_ms"], good, bad, one["penalty_ms"], is_configured)
            found.setdefault(one["upstream"], []).append(endpoint)
        return found

    def _workers(self, with_descriptors: bool) -> Iterator[Worker]:
        now_ns = time.monotonic_ns()
        memory = {one["slot"]: one["memory_bytes"] for one in self._overview.workers()}
        reports = self._reports.all()
        for slot, pid in self._fleet.pids().items():
            bodies = reports.get(slot, {}).get("bodies") or {}
            row = self._board.row(slot)
            beat_age_ms = (now_ns - row.heartbeat_ns) / 1e6 if row.heartbeat_ns else 0.0
            # To list the descriptors of a process with many takes milliseconds.
            opened = proc_io.descriptors(pid) if with_descriptors else None
            yield Worker(
                slot=slot,
                pid=pid,
                stuck=beat_age_ms > STUCK_MS,
                beat_age_ms=beat_age_ms,
                lag_ms=self.watch.standing_lag_ms(slot),
                running=self.watch.per_s(f"ran/{slot} {pid}") / 1e9,
                delayed=self.watch.per_s(f"delayed/{slot} {pid}") / 1e9,
                in_flight=row.in_flight,
                descriptors=opened[0] if opened is not None else None,
                max_descriptors=opened[1] if opened is not None else None,
                memory_bytes=memory.get(slot),
                bodies_bytes=bodies.get("held", 0),
                max_bodies_bytes=bodies.get("limit", 0),
            )

    def _doors(self) -> Iterator[Door]:
        reports = self._reports.all()
        for listener, slot, sock in self._sockets.queues():
            if slot == SHARED:
                continue
            told = {one["address"]: one for one in reports.get(slot, {}).get("listeners", ())}
            depth, granted = queue_length(sock)
            name = f"drops/{listener.address} {slot}"
            yield Door(
                resource=f"listener/{listener.name or listener.address}",
                slot=slot,
                depth=depth,
                granted=granted,
                asked=listener.backlog,
                drops_per_s=self.watch.per_s(name),
                dropping_s=self.watch.grows_for_s(name),
                state=str(told.get(listener.address, {}).get("state", "")),
            )

    def _waiting(self) -> Iterator[Waiting]:
        for one in self._overview.queues():
            if one["kind"] in _WAITS and one["depth"]:
                yield Waiting(one["queue"], one["depth"], one["oldest_ms"] or 0.0)

    def _refused(self) -> Iterator[Refused]:
        for name in self.watch.growing(_REFUSED):
            reason, _, resource = name.removeprefix(_REFUSED).partition(" ")
            yield Refused(reason, resource, self.watch.per_s(name), self.watch.grows_for_s(name))
