"""The facts of one gateway, gathered in the supervisor: from the board, the workers' reports, the sockets and /proc."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read
from edgeq.config.lines import show_path
from edgeq.config.live import endpoints_named
from edgeq.config.providers import parts_of, provider_of, settings_of, smaller_enabled, smaller_of, switched_off
from edgeq.config.scarce import scarce_of
from edgeq.config.schema import Config
from edgeq.config.schema import Endpoint as Configured
from edgeq.explain import proc_io, say
from edgeq.explain.facts import (
    TAKEN_OUT,
    Degrading,
    Door,
    Endpoint,
    Facts,
    Forecast,
    Load,
    Machine,
    Models,
    Refused,
    TakenOut,
    Unresolved,
    Waiting,
    Worker,
    whole_of,
)
from edgeq.explain.limits import gates
from edgeq.explain.machine import LAG_MS
from edgeq.explain.services import TRIPS, UNREACHED
from edgeq.explain.watch import BY_KEY, NOW_S, Watch
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.tcp_info_io import queue_length
from edgeq.llm.lately import Used
from edgeq.llm.measures import asked_of, degraded_of
from edgeq.observe.models import DISABLED
from edgeq.observe.overview import STUCK_MS, Overview
from edgeq.observe.queues import Sockets
from edgeq.observe.reports import Fleet, Records, add
from edgeq.supervisor.sockets_io import SHARED, kernel_backlog_limit
from edgeq.upstream.endpoint import endpoint_label, parse_endpoint, parse_nameserver
from edgeq.upstream.engine import EngineQueue
from edgeq.worker.readings_io import memory_limit

_REFUSED: Final = "refused/"
_DEGRADED: Final = "degraded/"
_FDS: Final = "fd_exhausted"
_NONE: Final = "upstream_none_healthy"
_SHOWS_S: Final = 2.0
"""Two looks at reports that are as old, and what is quiet is so for a second."""
LATE_MS: Final = 1000.0
"""Four signs of life of a worker are missing."""
PENALTY_MS: Final = 100.0
"""Which the balancer adds to the cost of an endpoint that has failed: it gets next to nothing."""
QUEUE: Final = "queue"
"""The part of a limited resource that refuses."""
_WAITS: Final = ("places", "pool", "tenant", "tokens")
"""Kinds of queues of which only their depth is told."""


class Gatherer:
    """Notes what is needed to tell now from before (`look`), and says how things are (`facts`)."""

    def __init__(
        self,
        board: Board,
        fleet: Fleet,
        sockets: Sockets,
        overview: Overview,
        config: Callable[[], Config],
        used: Callable[[str], Sequence[Used]] = lambda _: (),
    ) -> None:
        """`used`: who has used a model of this name in the last minute, if anybody knows."""
        self._used = used
        self._board = board
        self._fleet = fleet
        self._sockets = sockets
        self._overview = overview
        self._reports = overview.reports
        self._config = config
        self._fresh = overview.fresh
        self.watch: Final = Watch()

    def look(self) -> None:
        """To be called every `watch.EVERY_S`."""
        self._note(False)
        self.watch.note_short(self._short())
        reports = self._reports.all()
        # Who gives no sign of life has not told of it yet.
        silent_ms = {slot: self._beat_age_ms(slot) - LATE_MS for slot in reports}
        lags_ms = {slot: max(one.get("max_lag_us", 0) / 1000, silent_ms[slot]) for slot, one in reports.items()}
        self.watch.note_lags(lags_ms)
        lagging = [f"lag/{slot}" for slot, lag_ms in lags_ms.items() if lag_ms >= LAG_MS]
        self.watch.note_states(time.monotonic(), [*lagging, *self._states()])
        asking: dict[str, dict[str, int]] = {}
        for report in reports.values():
            for section, prefix in (("asking", ""), ("asking_keys", BY_KEY)):
                for resource, counts in dict(report.get(section, ())).items():
                    add(asking.setdefault(prefix + resource, {}), counts)
        self.watch.note_asking(asking)

    def _pools(self) -> Records:
        """Each look needs them more than once, and they are many."""
        return self._fresh.get("pools", self._reports.pools)

    def _beat_age_ms(self, slot: int) -> float:
        """Since a worker's last sign of life; 0.0 before the first one."""
        at_ns = self._board.row(slot).heartbeat_ns
        return (time.monotonic_ns() - at_ns) / 1e6 if at_ns else 0.0

    def _states(self) -> Iterator[str]:
        """Endpoints in trouble, and queues in which somebody waits."""
        for one in self._pools():
            name = f"{one['upstream']}#{one['endpoint']}"
            if (
                one["state"] not in ("in use", *TAKEN_OUT)
                or one["penalty_ms"] > PENALTY_MS
                or one["fails_by"] in UNREACHED
            ):
                yield f"trouble/{name}"
            if one["waiting"]:
                yield f"waits/upstream/{name}:pool"
        for upstream in self._config().upstream:
            if self._is_out(upstream):
                yield f"out/upstream/{upstream}"
        for tenant in self._reports.tenants(0):
            if tenant["queued"]:
                yield f"waits/tenant/{tenant['tenant']}"
        for target in self._reports.targets():
            if target["queued"]:
                yield f"waits/target/{target['target']}:queue"
            if target["fails_by"]:
                yield f"fails/target/{target['target']}"
        names = {one.address: one.name or one.address for one in self._config().listener}
        for report in self._reports.all().values():
            for one in report.get("listeners", ()):
                if one["waiting"]:
                    yield f"waits/listener/{names.get(one['address'], one['address'])}:places"

    def _short(self) -> Iterator[str]:
        """Models, and models at keys, at which somebody waits, or was refused since the last look."""
        for target in self._reports.targets():
            if target["queued"]:
                yield f"target/{target['target']}"
        for name in self.watch.grown(_REFUSED):
            whole = whole_of(name.partition(" ")[2])
            if whole.startswith(("target/", "model/")):
                yield whole

    def _note(self, is_passing: bool) -> None:
        """Everything that grows."""
        now_s = time.monotonic()
        readings, learned = list(self._readings()), self._learned()
        counters = dict(self._counters())
        for name, _, reading in readings:
            # The report tells of them, too, but later: in one answer they shall be the same number.
            for reason, count in reading.refusals().items():
                key = f"{_REFUSED}{reason} {name}:{QUEUE}"
                counters[key] = max(count, counters.get(key, 0))
        self.watch.note_counters(now_s, counters, is_passing)
        self.watch.note_resources(now_s, readings, self._models(), is_passing, learned)

    def facts(self) -> Facts:
        """How things are now, to a tenth of a second."""
        return self._fresh.get("facts", self._facts)

    def _facts(self) -> Facts:
        self._note(True)
        seen = list(self._refused())
        refused = [one for one in seen if not one.quiet_s]
        is_short = any(one.reason == _FDS for one in refused)
        stuck = self._config().server.stuck
        memory = memory_limit()
        disabled, disabled_part = self._disabled()
        config = self._config()
        return Facts(
            loads=tuple(self._loads()),
            workers=tuple(self._workers(is_short)),
            doors=tuple(self._doors()),
            refused=tuple(refused),
            over=tuple(one for one in seen if one.quiet_s),
            machine=Machine(
                kernel_backlog_limit(), proc_io.local_ports(), proc_io.time_wait(), proc_io.open_files(), *memory
            ),
            waiting=tuple(self._waiting()),
            named=self._named(),
            disabled=disabled,
            disabled_part=disabled_part,
            parts=self._parts(),
            gates=tuple(gates(self._config(), self._overview, self.watch, self._used)),
            degrading=tuple(self._degrading()),
            scarce=self._scarce(),
            smaller={
                f"model/{name}": " or ".join(smaller)
                for name in config.model
                if (smaller := smaller_enabled(config, name))
            },
            smaller_disabled={
                f"model/{name}": " or ".join(smaller_of(config, name))
                for name, one in config.model.items()
                if one.degrade and not smaller_enabled(config, name)
            },
            has_accounts=self._config().accounts is not None,
            meters={f"{one['meter']}/{one['name']}": one for one in self._overview.meters()},
            leads={f"route/{one.name}": one.upstream and f"upstream/{one.upstream}" for one in self._config().route},
            memory_share=self._config().protect.memory,
            replaced_s=float(stuck.restart) if stuck.after > 0 else 0.0,
        )

    # What is noted.

    def _counters(self) -> Iterator[tuple[str, float]]:
        degraded: dict[str, int] = {}
        for reason, found in self._reports.refusals().items():
            for resource, count in found.items():
                yield f"{_REFUSED}{reason} {resource}", count
        for report in self._reports.all().values():
            for asked, model, reason, count in degraded_of(report.get("llm") or {}):
                name = f"{_DEGRADED}{asked}\n{model}\n{reason}"
                degraded[name] = degraded.get(name, 0) + count
        yield from degraded.items()
        for listener, slot, sock in self._sockets.queues():
            if slot != SHARED:  # a Unix socket drops nobody: its clients are told
                yield f"drops/{listener.address} {slot}", drops_of(sock)
        for one in self._pools():
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

    def _learned(self) -> set[str]:
        """Resources whose limit is."""
        return {f"upstream/{name}" for name, one in self._config().upstream.items() if not isinstance(one.limit, int)}

    def _models(self) -> dict[str, Models]:
        """What the models of each provider have answered, and how long that took. The keys of a provider are asked in
        turn, so of each it is the same."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for report in self._reports.all().values():
            for _, target, _, numbers in asked_of(report.get("llm") or {}):
                provider, _, model = target.partition("/")
                models = found.setdefault(provider, {})
                count, seconds = models.get(model, (0, 0.0))
                for took in numbers["duration"].values():
                    count += sum(took["counts"])
                    seconds += took["sum"]
                models[model] = (count, seconds)
        return {f"upstream/{name}": found.get(provider, {}) for name, provider in provider_of(self._config()).items()}

    # What is told.

    def _named(self) -> dict[str, list[str]]:
        """What has no load of its own, and by which resources it can be short."""
        found: dict[str, list[str]] = {}
        for one in self._overview.models():
            target = f"target/{one['target']}"
            model = f"model/{one['model']}"
            targets = found.setdefault(model, [])
            if one["state"] != DISABLED:
                targets.append(target)
            found.update({f"model/{alias}": [model] for alias in one["aliases"]})
            found[target] = [f"upstream/{one['upstream']}"]
        for upstream, provider in provider_of(self._config()).items():
            found.setdefault(f"provider/{provider}", []).append(f"upstream/{upstream}")
        for prompt in self._config().prompt:
            models = found.setdefault(f"prompt/{prompt.name}", [])
            if (model := f"model/{prompt.model}") not in models:  # of versions, each has its own
                models.append(model)
        return found

    def _parts(self) -> dict[str, list[str]]:
        """What a provider, its keys, a route of models and a prompt can be short of."""
        found: dict[str, list[str]] = {}
        config = self._config()
        for route in config.route:
            if route.llm is not None:
                found[f"route/{route.name}"] = [f"model/{name}" for name in route.llm.models or config.model]
        found |= {f"prompt/{one.name}": [f"route/{one.route}"] for one in config.prompt}
        providers = provider_of(config)
        for one in self._overview.models():
            for whole in (f"upstream/{one['upstream']}", f"provider/{providers[one['upstream']]}"):
                found.setdefault(whole, []).append(f"target/{one['target']}")
        return found

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
        name = resource.removeprefix("upstream/")
        return Load(
            resource=resource,
            settings=settings,
            limit=seen["limit"],
            limit_source=seen.get("limit_source", "file"),
            in_flight=seen["in_flight"],
            queued=seen["queued"],
            queue_max=queue_max,
            oldest_ms=seen["oldest_ms"] if "oldest_ms" in seen else watch.oldest_ms(resource),
            now=watch.now(resource),
            before=watch.before(resource),
            was=watch.was(resource),
            file_limit=self._file_limit(settings),
            pressed_s=pressed_s,
            breaker=seen.get("breaker"),
            tripped_by=self._tripped_by(resource) if seen.get("breaker") not in (None, "closed") else "",
            endpoints=endpoints,
            tenants=watch.asked(resource),
            keys=watch.asked(BY_KEY + resource),
            routes=routes,
            upstream=seen.get("upstream") or "",
            is_paused=seen.get("paused", False),
            forecast=self._forecast(resource),
            began_limit=spell.limit if spell is not None else None,
            taken_out=tuple(self._taken_out(name)),
            unresolved=tuple(self._unresolved(name)),
        )

    def _file_limit(self, settings: str) -> str:
        """If somebody has set another one."""
        changes = (one for one in self._overview.changes() if (one["resource"], one["key"]) == (settings, "limit"))
        return next((one["file"] or "" for one in changes), "")

    def _tripped_by(self, resource: str) -> str:
        """Which failure was the last one, before or while it is open."""
        grown = {
            name.removeprefix(_REFUSED).partition(" ")[0]: grown_s
            for name, grown_s in self.watch.grew_last(_REFUSED).items()
            if whole_of(name.partition(" ")[2]) == resource
        }
        return max((one for one in grown if one in TRIPS), key=lambda one: grown[one], default="")

    def _is_out(self, upstream: str) -> bool:
        config = self._config().upstream.get(upstream)
        return config is not None and not any(config.weights().values())

    def _taken_out(self, upstream: str) -> Iterator[TakenOut]:
        """All endpoints, if none of them gets anybody new; of a provider's key what has taken it out."""
        off = switched_off(self._config()).get(f"upstream/{upstream}")
        if off is not None:
            yield self._off(*off)
            return
        if not self._is_out(upstream):
            return
        config = self._config().upstream[upstream]
        changes = {one["resource"] + " " + one["key"]: one for one in self._overview.changes()}
        for one in config.endpoints:
            url, is_disabled = (one.url, not one.enabled) if isinstance(one, Configured) else (one, False)
            key = f"upstream/{upstream} endpoints.{url}.{'enabled' if is_disabled else 'weight'}"
            label = endpoint_label(url) if parse_endpoint(url).literal() else url
            yield TakenOut(f"upstream/{upstream}#{label}", is_disabled, say.by(changes[key]) if key in changes else "")

    def _off(self, provider: str, part: str) -> TakenOut:
        """Of a provider what is disabled (`config.providers.switched_off`)."""
        key = f"disabled.{part}" if part else "enabled"
        told = (
            say.by(one)
            for one in self._overview.changes()
            if (one["resource"], one["key"]) == (f"provider/{provider}", key)
        )
        if not part:
            name = f"provider/{provider}"
        else:
            name = next(
                f"{kind}/{part}" for kind in ("target", "upstream") if f"{kind}/{part}" in parts_of(self._config())
            )
        return TakenOut(name, True, next(told, ""))

    def _disabled(self) -> tuple[dict[str, tuple[TakenOut, ...]], dict[str, tuple[TakenOut, ...]]]:
        """Targets that are, each by itself, and models of which all targets are; and those of which some are."""
        off = switched_off(self._config())
        found: dict[str, tuple[TakenOut, ...]] = {}
        targets: dict[str, list[str]] = {}
        for one in self._overview.models():
            targets.setdefault(f"model/{one['model']}", []).append(f"target/{one['target']}")
            if f"target/{one['target']}" in off and f"upstream/{one['upstream']}" not in off:
                found[f"target/{one['target']}"] = (self._off(*off[f"target/{one['target']}"]),)
        in_part: dict[str, tuple[TakenOut, ...]] = {}
        for model, names in targets.items():
            if by := dict.fromkeys(off[name] for name in names if name in off):
                of = found if all(one in off for one in names) else in_part
                of[model] = tuple(self._off(*one) for one in by)
        return found, in_part

    def _unresolved(self, upstream: str) -> Iterator[Unresolved]:
        """Each name once, although all workers tell of it."""
        nameservers = tuple(map(parse_nameserver, self._config().dns.nameservers))
        names = {
            one["name"]: one
            for seen in self._reports.upstreams()
            if seen["upstream"] == upstream
            for one in seen.get("unresolved", ())
        }
        for name, one in names.items():
            yield Unresolved(name, one["reason"], one["detail"], nameservers)

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
        for one in self._pools():
            name = f"{one['upstream']}#{one['endpoint']}"
            good, bad = self.watch.per_s(f"good/{name}"), self.watch.per_s(f"bad/{name}")
            # Whoever has taken it out does not want to hear that it is sick.
            state = "draining" if one["weight"] == 0 else one["state"]
            is_configured = bool(endpoints_named(config, name))
            trouble_s = self.watch.holds_for_s(f"trouble/{name}")
            told = (one["engine_running"], one["engine_waiting"], one["engine_cache"])
            endpoint = Endpoint(
                one["endpoint"],
                state,
                one["cost_ms"],
                good,
                bad,
                one["penalty_ms"],
                trouble_s,
                is_configured,
                EngineQueue(*told) if None not in told else None,
                one["fails_by"],
            )
            found.setdefault(one["upstream"], []).append(endpoint)
        return found

    def _workers(self, with_descriptors: bool) -> Iterator[Worker]:
        seen = {one["slot"]: one for one in self._overview.workers()}
        reports = self._reports.all()
        for slot, pid in self._fleet.pids().items():
            bodies = reports.get(slot, {}).get("bodies") or {}
            told = seen.get(slot, {})
            row = self._board.row(slot)
            beat_age_ms = self._beat_age_ms(slot)
            # To list the descriptors of a process with many takes milliseconds.
            opened = proc_io.descriptors(pid) if with_descriptors else None
            yield Worker(
                slot=slot,
                pid=pid,
                stuck=beat_age_ms > STUCK_MS,
                beat_age_ms=beat_age_ms,
                lag_ms=self.watch.standing_lag_ms(slot),
                lagging_s=self.watch.holds_for_s(f"lag/{slot}"),
                running=self.watch.per_s(f"ran/{slot} {pid}") / 1e9,
                delayed=self.watch.per_s(f"delayed/{slot} {pid}") / 1e9,
                in_flight=row.in_flight,
                descriptors=opened[0] if opened is not None else None,
                max_descriptors=opened[1] if opened is not None else None,
                memory_bytes=told.get("memory_bytes"),
                bodies_bytes=bodies.get("held", 0),
                max_bodies_bytes=bodies.get("limit", 0),
                restarts=told.get("restarts", 0),
                died_ago_s=told.get("died_ago_s"),
                died_by=told.get("died_by") or "",
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
                since_s = self.watch.holds_for_s(f"waits/{one['queue']}")
                yield Waiting(one["queue"], one["depth"], one["oldest_ms"] or 0.0, since_s, self._why(one["queue"]))

    def _why(self, queue: str) -> str:
        """What somebody waits for there."""
        if queue.startswith("tenant/"):
            return f"tenant.limit is {self._config().tenant.limit}"
        for one in self._reports.targets():
            if queue == f"target/{one['target']}:{QUEUE}":
                if one["paused_s"]:
                    return f"it is paused for {one['paused_s']:.0f} s ({one['paused_for']})"
                left = [f"{name} {count} of {one['limits'].get(name, '?')}" for name, count in one["remaining"].items()]
                return f"of its limits there are left {', '.join(left)}" if left else ""
        return ""

    def _refused(self) -> Iterator[Refused]:
        for name in self.watch.growing(_REFUSED):
            reason, _, resource = name.removeprefix(_REFUSED).partition(" ")
            # In one answer all rates of a resource are of one time.
            whole = whole_of(resource)
            since_s = self.watch.since_s(whole) if self.watch.spell(whole) is not None else None
            yield Refused(
                reason,
                resource,
                self.watch.per_s(name, since_s),
                self.watch.grows_for_s(name),
                self._quiet_s(name),
            )

    def _scarce(self) -> dict[str, list[str]]:
        config = self._config()
        found: dict[str, list[str]] = {}
        for name in config.model:
            told = [f"{show_path(path)} {message}" for path, message in scarce_of(name, config)]
            if told:
                found[f"model/{name}"] = told
        return found

    def _degrading(self) -> Iterator[Degrading]:
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.watch.growing(_DEGRADED):
            asked, smaller, _ = name.removeprefix(_DEGRADED).split("\n")
            found.setdefault((asked, smaller), []).append(name)
        for (asked, smaller), names in found.items():
            yield Degrading(
                f"model/{asked}",
                smaller,
                {name.rpartition("\n")[2]: self.watch.per_s(name) for name in names},
                max(map(self.watch.grows_for_s, names)),
                tuple(say.target(one) for one in self._overview.models() if one["model"] == asked),
            )

    def _quiet_s(self, name: str) -> float:
        """For so long a refusal is over; of one for want of endpoints, since there are some again: that shows sooner
        than in the counters."""
        quiet_s = self.watch.quiet_s(name)
        reason, _, resource = name.removeprefix(_REFUSED).partition(" ")
        if reason != _NONE or self._is_out(resource.removeprefix("upstream/")):
            return quiet_s
        back_s = self.watch.held_ago_s(f"out/{resource}", time.monotonic()) or 0.0
        return max(quiet_s, back_s) if quiet_s or back_s <= _SHOWS_S else 0.0
