"""The flight recorder: ten times a second the supervisor notes all resources and workers in a ring behind the board.

Nothing here asks a worker, so what led to a hang is there, too. The ring is part of the board's memory: it goes on if
the supervisor is restarted by a service manager that keeps its descriptors (supervisor/legacy_io.py).

A moment takes 0.4 ms with 50 resources and 2 workers: 0.4 % of a core (0.9 % with 8 workers; interpreted, 26 November
2026). With very many the recorder takes its time: `pause_s` grows, so that it has a fiftieth of a core at most, and
moments lie further apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from edgeq.board.layout import Board
from edgeq.board.reading import Brief, brief
from edgeq.board.ring import MOST, Ring, size_bytes
from edgeq.config.providers import target_names
from edgeq.config.schema import Config
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe import log_io
from edgeq.observe.history import EVERY_S, WORKER, History, Moment, WorkerMoment, resource_values, worker_values
from edgeq.observe.queues import Sockets, limited
from edgeq.observe.reports import Fleet
from edgeq.supervisor.sockets_io import SHARED

GATE: Final = "target/"
"""A name of a model at a provider's key."""
LANES: Final = 320
"""All resources that a board has (256) and 64 workers, or more of the one and fewer of the other."""
PAUSE_TIMES: Final = 50.0
"""A pause is so many times as long as what was done before it."""
_IDLE_S: Final = 1.0
"""A pause if nothing is kept, or after a defect."""
_log = log_io.get_logger()


class _Resource:
    """A resource that is noted."""

    __slots__ = ("before", "configured", "index", "is_gate", "lane")

    def __init__(self, index: int, configured: int | str, is_gate: bool) -> None:
        self.index = index
        self.configured = configured
        self.is_gate = is_gate
        """A model at a provider's key: only how requests are let in is counted there, and tokens have no limit here."""
        self.lane = -1
        self.before: Brief | None = None
        """What was counted at the last moment."""


class _Worker:
    """A worker that is noted."""

    __slots__ = ("before", "lane", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.lane = -1
        self.before: int | None = None
        """Requests at the last moment."""


class Recorder:
    """Of one gateway."""

    def __init__(self, board: Board, fleet: Fleet, sockets: Sockets, config: Callable[[], Config]) -> None:
        self._board = board
        self._fleet = fleet
        self._sockets = sockets
        self._config = config
        self._ring: Ring | None = None
        self._noted: tuple[Config, dict[int, int]] | None = None
        """The configuration and the processes that are being noted."""
        self._resources: dict[str, _Resource] = {}
        self._workers: dict[int, _Worker] = {}
        self.pause_s: float = EVERY_S
        """Until the next moment is to be taken."""

    # What is known.

    def resources(self) -> Sequence[str]:
        """Names of which there is something: "upstream/api", "route/checkout", "target/openai/gpt-4o"."""
        return self._history().resources()

    def history(self, resource: str, seconds: float, step_s: float = EVERY_S) -> Sequence[Moment]:
        """The last seconds of a resource, the oldest first, one moment for each step; empty if nothing is known.

        Rates mean something over a second or more (history.py).
        """
        return self._history().of_resource(resource, seconds, step_s)

    def workers(self) -> Sequence[int]:
        """Slots of which there is something."""
        return self._history().workers()

    def worker_history(self, slot: int, seconds: float, step_s: float = EVERY_S) -> Sequence[WorkerMoment]:
        """The same of a worker."""
        return self._history().of_worker(slot, seconds, step_s)

    def names(self) -> Sequence[str]:
        """Of resources and workers of which there is something."""
        return self._history().names()

    def records(self, resource: str, seconds: float, step_s: float = 1.0) -> list[dict[str, Any]] | str:
        """For `show history`: see `History.records`."""
        if self._ring is None:
            return "no history is kept: server.history is 0"
        if resource.startswith("model/"):
            found: list[dict[str, Any]] = []
            for name in self._gates_of(resource.removeprefix("model/")):
                more = self._history().records(name, seconds, step_s)
                if not isinstance(more, str):
                    found += more
            if found:
                return found
        return self._history().records(resource, seconds, step_s)

    def _gates_of(self, name: str) -> list[str]:
        """Those that requests for a model come to, whatever its target and key."""
        models = self._config().model
        named = {key: one for key, one in models.items() if name == key or name in one.aliases}
        return [f"{GATE}{one}" for one in target_names(msgspec.structs.replace(self._config(), model=named))]

    def copy(self, note: Mapping[str, Any]) -> bytearray:
        """All of it with a note, for `History.load`."""
        return self._history().copy(note)

    # What is done now and then.

    def configure(self) -> None:
        """At the start, and after a change of `server.history`: what is there is kept as far as there is room."""
        moments = round(float(self._config().server.history) / EVERY_S)
        if self._ring is not None and self._ring.moments == moments:
            return
        self._ring = self._noted = None
        try:
            self._ring = _ring_of(self._board, moments)
        except (OSError, ValueError) as error:
            _log.error("no history is kept", why=str(error))

    def take(self, now: float) -> None:
        """Note what is now, in monotonic seconds; again after `pause_s`."""
        self.pause_s = _IDLE_S
        ring = self._ring
        if ring is None:
            return
        begun_s = time.perf_counter()
        config, pids = self._config(), self._fleet.pids()
        if self._noted is None or self._noted[0] is not config or self._noted[1] != pids:
            self._noted = (config, pids)
            self._take_lanes(ring, config, pids)
        now_ns = int(now * 1e9)
        for one in self._resources.values():
            if one.lane >= 0:
                ring.write(one.lane, self._read(one, now_ns))
        self._note_workers(ring)
        ring.commit(now_ns)
        self.pause_s = max(EVERY_S, PAUSE_TIMES * (time.perf_counter() - begun_s))

    # How it is done.

    def _history(self) -> History:
        ring = self._ring
        if ring is None:
            ring = Ring.begin(memoryview(bytearray(size_bytes(1, 1))), 1, 1)
        return History(ring, time.time() - time.monotonic())

    def _take_lanes(self, ring: Ring, config: Config, pids: dict[int, int]) -> None:
        resources: dict[str, _Resource] = {}
        gates = {f"{GATE}{name}": 0 for name in target_names(config)}
        for name, configured in (limited(config) | gates).items():
            one = resources[name] = _Resource(self._board.resource_index(name), configured, name in gates)
            known = self._resources.get(name)
            if known is not None and known.index == one.index:
                one.before = known.before
        workers: dict[int, _Worker] = {}
        for slot, pid in pids.items():
            before = self._workers.get(slot)
            workers[slot] = before if before is not None and before.pid == pid else _Worker(pid)
        noted: list[_Resource | _Worker] = [*resources.values(), *workers.values()]
        for each, lane in zip(noted, ring.use([*resources, *(f"{WORKER}{at}" for at in workers)]), strict=True):
            each.lane = lane
        self._resources, self._workers = resources, workers
        if left_out := sum(each.lane < 0 for each in noted):
            _log.warning("no room in the history", left_out=left_out, of=len(noted))

    def _read(self, one: _Resource, now_ns: int) -> tuple[int, ...]:
        """What is and what has happened since the last moment; nothing is known to have happened before the first."""
        now = brief(self._board, one.index)
        before = one.before or now
        one.before = now
        refused, served = _more(now.refused, before.refused), _more(now.ok, before.ok)
        admitted = _more(now.admitted, before.admitted)
        return resource_values(
            depth=min(now.queued, MOST),
            limit=min(self._limit(one), MOST),
            in_flight=min(now.in_flight, MOST),
            arrivals=min(admitted + refused, MOST),
            departures=admitted if one.is_gate else min(served + _more(now.failed, before.failed), MOST),
            refused=refused,
            oldest_ms=min(max(0, now_ns - now.oldest_ns) // 1_000_000, MOST) if now.oldest_ns else 0,
            service_us=min(_more(now.service_us, before.service_us) // served, MOST) if served else 0,
            served=served,
        )

    def _limit(self, one: _Resource) -> int:
        if isinstance(one.configured, int):
            return one.configured
        return 0 if one.configured == "observe" else self._board.learned_limit(one.index)

    def _note_workers(self, ring: Ring) -> None:
        waiting = dict.fromkeys(self._workers, 0)
        room = dict.fromkeys(self._workers, 0)
        for _, slot, sock in self._sockets.queues():
            if slot != SHARED and slot in waiting:
                depth, limit = queue_length(sock)
                waiting[slot] += depth
                room[slot] += limit
        for slot, one in self._workers.items():
            row = self._board.row(slot)
            requests = row.requests
            if one.lane >= 0:
                values = worker_values(
                    depth=waiting[slot],
                    limit=room[slot],
                    in_flight=row.in_flight,
                    requests=0 if one.before is None else _more(requests, one.before),
                    connections=row.open_connections,
                    lag_us=row.lag_us,
                )
                ring.write(one.lane, [min(value, MOST) for value in values])
            one.before = requests


def _ring_of(board: Board, moments: int) -> Ring | None:
    """The ring behind a board, with room for so many moments; None for none. Raises OSError without memory for it."""
    memory = board.annex()
    kept: Ring | None = None
    if memory is not None:
        try:
            kept = Ring.open(memory)
        except ValueError as error:
            _log.warning("history of the last run not taken over", why=str(error))
    if kept is not None and kept.moments == moments and len(kept.lanes) == LANES:
        kept.resume()
        return kept
    # The old memory is cut off below, and then nobody may touch it.
    copied = Ring.open(memoryview(kept.copy())) if kept is not None and moments else None
    board.renew_annex(size_bytes(moments, LANES) if moments else 0)
    memory = board.annex() if moments else None
    if memory is None:
        return None
    ring = Ring.begin(memory, moments, LANES)
    if copied is not None:
        ring.take_over(copied)
    return ring


def _more(now: int, before: int) -> int:
    """Of a counter; 0 if it has begun anew."""
    return min(now - before, MOST) if now > before else 0
