"""What is done about workers that `stuck.py` sets aside: look, steer, lift, ask, kill, and say so.

Ten times a second the supervisor looks at each worker's sign of life on the board and at the length of each accept
queue (a microsecond each). Of a worker that is set aside, new connections go to the others (by the program of its
SO_REUSEPORT groups, bpf.py), and as long as something waits in its queues, another worker is given a duplicate of the
socket and serves it. One that is stuck is asked where it is; when it is given up, it is killed, and its slot starts
again as after any death.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from edgeq.board.layout import Board
from edgeq.config.schema import Stuck
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe import log_io
from edgeq.supervisor.process_io import is_traced, state_of
from edgeq.supervisor.slots import SlotTable
from edgeq.supervisor.sockets_io import SHARED, Listeners
from edgeq.supervisor.stuck import Sight, StuckTable, Why, crowded

_log = log_io.get_logger()
EVERY_S: Final = 0.1
_SET_ASIDE: Final = "worker set aside: the others serve for it"


class Workers(Protocol):
    """What of the fleet is needed here."""

    @property
    def table(self) -> SlotTable:
        """Who serves."""

    def set_aside(self, slots: frozenset[int]) -> None:
        """New connections go to the others."""

    def lift(self, slots: frozenset[int]) -> None:
        """What waits for these workers is served by the others."""

    def ask_where(self, slot: int) -> None:
        """Have a worker write down where it is."""

    def told_where(self, slot: int) -> str:
        """What it has written; empty if nothing, or nothing new."""

    def give_up(self, slot: int) -> None:
        """Kill a worker that would not hear."""


class Rescuer:
    """Of one supervisor."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: Board,
        workers: Workers,
        listeners: Listeners,
        settings: Callable[[], Stuck],
        changed: Callable[[], None],
    ) -> None:
        """`changed()` is called when somebody was set aside, has come back, or was given up."""
        self._loop = loop
        self._board = board
        self._workers = workers
        self._listeners = listeners
        self._settings = settings
        self._changed = changed
        self.table: Final = StuckTable()
        self._timer: asyncio.TimerHandle | None = None
        self._aside: frozenset[int] = frozenset()
        """As the workers have it."""
        self._asked: set[int] = set()

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._loop.call_later(EVERY_S, self._turn)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def silent(self, least_s: float) -> list[int]:
        """Slots whose worker was watched for so long without a sign of life."""
        return sorted(slot for slot in self._workers.table.serving() if self.table.silent_s(slot) >= least_s)

    def _turn(self) -> None:
        self._timer = self._loop.call_later(EVERY_S, self._turn)
        try:
            self.look()
        except Exception:  # a defect here must not end the looks for good
            _log.exception("stuck workers are not looked after")

    def look(self) -> None:
        """One look, and what follows from it."""
        settings = self._settings()
        moves = self.table.look(self._sights(), time.monotonic(), float(settings.after), float(settings.restart))
        aside = frozenset(self.table.aside())
        if aside != self._aside:  # also when one of them is gone, which is no move
            self._aside = aside
            self._workers.set_aside(aside)
        if self._asked:
            self._hear(aside | self.table.alone())
        for slot in moves.stuck:
            self._tell(_SET_ASIDE, slot, Why.STUCK)
        for slot in moves.crowded:
            self._tell(_SET_ASIDE, slot, Why.CROWDED)
        for slot in moves.alone:
            self._tell("worker stuck, and no other is well: nothing is done", slot, Why.STUCK)
        for slot in (*moves.stuck, *moves.alone):
            self._workers.ask_where(slot)
            self._asked.add(slot)
        for slot in moves.back:
            _log.warning("worker gets connections again", **self._named(slot))
        for slot in moves.revived:
            _log.warning("stuck worker goes on", **self._named(slot))
        for slot in moves.given_up:
            _log.error("stuck worker killed", **self._named(slot))
            self._workers.give_up(slot)
        if aside:
            self._workers.lift(aside)
        if moves:
            self._changed()

    def _hear(self, stuck: Collection[int]) -> None:
        """What those who were asked have written. One that is stopped writes nothing until it goes on, and then not of
        what it was stuck in."""
        self._asked.intersection_update(stuck)
        for slot in tuple(self._asked):
            if where := self._workers.told_where(slot):
                _log.warning("where the stuck worker is", **self._named(slot), where=where)
                self._asked.discard(slot)

    def _tell(self, event: str, slot: int, why: Why) -> None:
        waiting = sum(queue_length(one.sock)[0] for one in self._listeners.queues() if one.slot == slot)
        _log.error(event, why=why.value, **self._named(slot), waiting=waiting)

    def _named(self, slot: int) -> dict[str, Any]:
        pid = self._board.row(slot).pid
        silent_s = round(self.table.silent_s(slot), 1)
        return {"slot": slot, "worker_pid": pid, "process": state_of(pid), "silent_s": silent_s}

    def _sights(self) -> dict[int, Sight]:
        aside = self.table.aside()
        full = crowded(self._fills(), aside)
        sights = {}
        for slot in self._workers.table.serving():
            row = self._board.row(slot)
            traced = aside.get(slot) is Why.STUCK and is_traced(row.pid)
            sights[slot] = Sight(row.pid, row.heartbeat_ns, slot in full, traced)
        return sights

    def _fills(self) -> dict[str, dict[int, float]]:
        """How full the accept queues are, by listener and slot."""
        serving = self._workers.table.serving()
        fills: dict[str, dict[int, float]] = {}
        for listener, slot, sock in self._listeners.queues():
            if slot != SHARED and slot in serving:
                waiting, most = queue_length(sock)
                fills.setdefault(listener.address, {})[slot] = waiting / most if most else 0.0
        return fills
