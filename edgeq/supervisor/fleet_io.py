"""The workers: asked for, watched, told, and let go, so that no client notices any of it.

Where new connections go, and who serves what waits where no worker accepts, is decided in `steering_io`, which is asked
after every change of `SlotTable`: so a worker that starts, dies, crashes in a loop or leaves is steered around without
a case of its own.

Workers whose supervisor was killed finish by themselves; its successor (`adopt`) leaves them their slots, whose rows
they still write, and sees to it that they end.

A worker is gone when its process is gone: the spawner says so with its status, or the pidfd does (the spawner may be
dead), or its control socket ends before its pid was ever known (it was never forked).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from edgeq.board.handover_io import Bells
from edgeq.board.layout import Board
from edgeq.config.schema import Config
from edgeq.observe import log_io
from edgeq.observe.reports import Deaths
from edgeq.supervisor.changes_io import Changes
from edgeq.supervisor.channel_io import Channel, pair
from edgeq.supervisor.frames import Frame
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.legacy_io import Legacy, Mate
from edgeq.supervisor.messages import (
    AccountsTaken,
    AccountsTold,
    Applied,
    Apply,
    ConnectionList,
    Credentials,
    Drain,
    Drained,
    Emptied,
    Failed,
    Message,
    Ready,
    RenewTickets,
    ReopenLogs,
    Retired,
    Spawn,
    TicketSecret,
    UsageTold,
    decode_from_worker,
    pack_config,
)
from edgeq.supervisor.process_io import TELL_WHERE, describe_status, start_time
from edgeq.supervisor.slots import Phase, SlotTable
from edgeq.supervisor.sockets_io import Listeners
from edgeq.supervisor.spawner_client_io import SpawnerClient
from edgeq.supervisor.steering_io import Steering
from edgeq.supervisor.survivors_io import Survivors
from edgeq.supervisor.worker_io import Told, Worker

_log = log_io.get_logger()
_STATUS_WAIT_S: Final = 0.1
"""After a pidfd reported an end: for the spawner's word on how it ended."""
_MAX_WORKER_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A list of a thousand connections with the longest names has 2 MiB."""
_EARLY_DEATHS: Final = 3
"""So many deaths before Ready, and a generation counts as unable to start."""


@dataclass(frozen=True, slots=True)
class Target:
    """What every worker shall run."""

    generation: int
    workers: int
    config: Config
    packed: bytes
    credentials: Credentials | None
    rereads: bool = True
    """Running workers read the files that it names again."""

    @classmethod
    def of(
        cls, generation: int, workers: int, config: Config, credentials: Credentials | None, rereads: bool
    ) -> Target:
        """With the configuration packed once for all workers."""
        return cls(generation, workers, config, pack_config(config), credentials, rereads)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of its listeners."""
        return tuple(one.address for one in self.config.listener)


class Confirmation(NamedTuple):
    """What came of a target."""

    generation: int
    failures: tuple[str, ...]
    """Why it cannot be run."""
    behind: tuple[int, ...]
    """Slots that do not run it yet: they are starting, or hang. What has been sent to them they will take."""

    def problems(self) -> list[str]:
        """What is wrong where all have to run it."""
        late = (f"worker {slot} did not confirm generation {self.generation}" for slot in self.behind)
        return list(self.failures or late)


class Fleet:
    """All workers of one supervisor."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listeners: Listeners, board: Board, launch: Launch, legacy: Legacy
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._board = board
        self._bells = Bells()
        self._launch = launch
        self._table = SlotTable(board.slots)
        self._legacy = legacy
        self._workers: dict[int, Worker] = {}
        self.deaths: dict[int, Deaths] = {}
        """By slot, since the start."""
        self._survivors = Survivors(loop, self._on_survivor_gone)
        self._changes = Changes()
        self._timer: asyncio.TimerHandle | None = None
        self._failures: list[str] = []
        """Why the target cannot be run, as far as it was found out."""
        self._early_deaths = 0
        self._target: Target | None = None
        self._stopping = False
        self._steering = Steering(listeners, self._table, self._workers, self._changes, launch, self._node)
        self.before_bury: Callable[[int], None] = _nothing
        """Called with the slot of a worker that is gone, before its row of the board is cleared."""
        self.accounts: Callable[[], AccountsTold | None] = _no_accounts
        """What a new worker has to know of them."""
        self.leftover_fd = -1
        """With accounts: a file for what a worker has used when nobody takes it."""
        self.on_usage: Callable[[UsageTold, Callable[[Message], None]], None] = _no_usage
        """Called with what a worker has used, and how to answer it."""
        self._tickets = TicketSecret.make()
        self.spawner = SpawnerClient(loop, launch, self)

    @property
    def table(self) -> SlotTable:
        """For reading."""
        return self._table

    @property
    def survivors(self) -> int:
        """Workers of an earlier supervisor that still finish."""
        return len(self._survivors)

    @property
    def worker_count(self) -> int:
        """Processes, the leaving ones included."""
        return len(self._workers)

    def pids(self) -> dict[int, int]:
        """Slot to process id, of all who write on this board."""
        leaving = {mate.slot: mate.pid for mate in self._survivors if self._table.phase(mate.slot) is Phase.LEAVING}
        return dict(sorted((leaving | {slot: worker.pid for slot, worker in self._workers.items()}).items()))

    # What the supervisor wants.

    def adopt(self, mates: Iterable[Mate], patience_s: float, on_board: bool) -> None:
        """Watch the workers of an earlier supervisor until they are gone, and kill who is there after `patience_s`.

        `on_board`: they write into this board, so their slots are taken meanwhile.
        """
        self._survivors.watch((mate for mate in mates if mate.slot < self._table.capacity), patience_s)
        occupied = {mate.slot for mate in self._survivors} if on_board else set()
        for slot in occupied:
            self._table.occupied(slot)
        for slot in range(self._board.rows_used):
            if slot not in occupied:
                self._bury(slot)
        self._board.shrink(max(occupied, default=-1) + 1)
        if self._survivors:
            _log.warning("workers of the last run finish", worker_pids=[mate.pid for mate in self._survivors])
        self._note_workers()

    async def start_spawner(self) -> bool:
        """Returns whether it came up."""
        self._loop.call_later(self._launch.ticket_life_s, self._renew_tickets)
        self.spawner.start()
        await self._changes.until(lambda: self.spawner.ready or bool(self._failures), self._launch.start_timeout_s)
        return self.spawner.ready

    def aim(self, target: Target, new_slots: Collection[int]) -> None:
        """Have every worker run this target: running ones change in place, new ones are started.

        Listening sockets for all of it must be there. `confirmed` says what came of it.
        """
        self._target = target
        self._bells.ensure(max(new_slots, default=-1))
        self._failures.clear()
        self._early_deaths = 0
        for worker in self._workers.values():
            if self._table.phase(worker.slot) is not Phase.LEAVING:
                self._apply(worker, target)
        self._steer()
        self._table.hurry(self._loop.time())
        self._table.open(new_slots, self._loop.time())
        self._start_due()

    async def confirmed(self, slots: Collection[int], timeout_s: float) -> Confirmation:
        """Wait until these slots run the target."""
        target = self._target
        assert target is not None

        def missing() -> list[int]:
            return [
                slot
                for slot in slots
                if slot not in self._workers or self._workers[slot].generation < target.generation
            ]

        await self._changes.until(lambda: bool(self._failures) or not missing(), timeout_s)
        return Confirmation(target.generation, tuple(self._failures), tuple(missing()))

    async def retire_listeners(self, addresses: Sequence[str]) -> None:
        """Close listeners without a reset."""
        if not addresses:
            return
        self._listeners.refuse(addresses)
        await asyncio.sleep(self._launch.handshake_grace_s)
        await self._steering.empty(None, addresses)
        for address in addresses:
            self._listeners.remove(address)

    async def retire_workers(self, slots: Collection[int], drain_timeout_s: float) -> None:
        """Let workers go whose siblings stay. Returns when their shards are closed; draining goes on after that."""
        leaving = [self._workers[slot] for slot in slots if slot in self._workers]
        for slot in slots:
            self._table.leave(slot)
        self._steer()
        if not slots:
            return
        # One that is just starting must come so far that it can empty its queue.
        await self._changes.until(
            lambda: all(worker.was_ready or not self._is_there(worker) for worker in leaving),
            self._launch.retire_timeout_s,
        )
        await self.retire_shards(slots)
        for worker in leaving:
            self._drain(worker, drain_timeout_s)

    async def retire_shards(self, slots: Collection[int]) -> None:
        """Close the shards of these slots without a reset; nothing new is steered there any more."""
        if not slots:
            return
        await asyncio.sleep(self._launch.handshake_grace_s)
        for slot in slots:
            self._listeners.refuse_slot(slot)
        await self._steering.empty(slots, self._listeners.addresses)
        for slot in slots:
            self._listeners.remove_slot(slot)

    async def stop(self, drain_timeout_s: float) -> None:
        """Close all listeners without a reset, let all workers finish. Returns when the last one is gone.

        Listeners that outlive us are left as they are: what comes after the workers' last look waits for our successor.
        """
        self._stopping = True
        for slot in self._table.active():
            self._table.leave(slot)
        starting = tuple(self._workers.values())
        addresses, kept = self._listeners.addresses, self._listeners.kept
        ending = [address for address in addresses if address not in kept]
        self._listeners.refuse(ending)
        await self._changes.until(
            lambda: all(worker.was_ready or not self._is_there(worker) for worker in starting),
            self._launch.retire_timeout_s,
        )
        if ending:
            await asyncio.sleep(self._launch.handshake_grace_s)
        await self._steering.empty(None, addresses, kept)
        self._listeners.close()
        for worker in tuple(self._workers.values()):
            self._drain(worker, drain_timeout_s)
        self._survivors.kill_in(drain_timeout_s + self._launch.kill_margin_s)
        await self._changes.until(lambda: not self._workers and not self._survivors)

    # What the rescuer wants (stuck_io.Workers).

    def set_aside(self, slots: frozenset[int]) -> None:
        """New connections go to the others."""
        self._steering.aside = slots
        self._steer()

    def lift(self, slots: frozenset[int]) -> None:
        """What waits for these workers is served by the others."""
        self._steering.lift(slots)

    def ask_where(self, slot: int) -> None:
        """Have a worker write down where it is."""
        if slot in self._workers:
            self._workers[slot].told_where()  # what it may have written the last time is old
            self._workers[slot].signal(TELL_WHERE)

    def told_where(self, slot: int) -> str:
        """What it has written; empty if nothing, or nothing new."""
        return self._workers[slot].told_where() if slot in self._workers else ""

    def give_up(self, slot: int) -> None:
        """Kill a worker that would not hear."""
        if slot in self._workers:
            self._workers[slot].kill()

    def kill_all(self) -> None:
        """At once."""
        self._stopping = True
        for slot in self._table.active():
            self._table.leave(slot)
        for worker in tuple(self._workers.values()):
            worker.kill()
            worker.channel.close()
        self._bells.close()

    def kill_survivors(self) -> None:
        """Workers of an earlier supervisor, at once."""
        self._survivors.kill()

    def reopen_logs(self) -> None:
        """Tell all workers."""
        self.tell(ReopenLogs())

    def tell(self, message: Message) -> None:
        """Tell all workers something."""
        for worker in self._workers.values():
            worker.send(message)

    async def accounts_taken(self, number: int, timeout_s: float) -> list[int]:
        """Wait until all workers that serve know of a change of accounts. Returns the slots of those that do not."""

        def behind() -> list[int]:
            return [slot for slot, one in self._workers.items() if one.was_ready and one.accounts < number]

        await self._changes.until(lambda: not behind(), timeout_s)
        return behind()

    async def connections(self, count: int, timeout_s: float) -> dict[int, Told]:
        """So many of each worker, by slot; None of one that does not answer in time."""
        asked = {slot: worker.ask(count) for slot, worker in self._workers.items() if worker.was_ready}
        if asked:
            await asyncio.wait(asked.values(), timeout=timeout_s)
        told = {slot: one.result() for slot, one in asked.items() if one.done() and not one.cancelled()}
        return {slot: told.get(slot) for slot in self.pids()}

    # How it is done.

    def _renew_tickets(self) -> None:
        self._loop.call_later(self._launch.ticket_life_s, self._renew_tickets)
        self._tickets = TicketSecret.make()
        self.tell(RenewTickets(self._tickets))

    def _apply(self, worker: Worker, target: Target) -> None:
        new = tuple(address for address in target.addresses if address not in worker.addresses)
        fds = [sock.fileno() for sock in self._listeners.sockets_of(worker.slot, new)]
        fds += self._bells.fds[worker.bells :]
        worker.bells = len(self._bells.fds)
        worker.addresses.update(new)
        kept = self._listeners.kept
        worker.send(Apply(target.generation, target.workers, new, target.packed, kept, target.rereads), fds)

    def _node(self) -> str:
        """How edgeq calls itself."""
        assert self._target is not None
        return self._target.config.forward.node or socket.gethostname() or "gateway"

    def _drain(self, worker: Worker, timeout_s: float) -> None:
        worker.send(Drain(timeout_s))
        self._loop.call_later(timeout_s + self._launch.kill_margin_s, self._kill_late, worker)

    def _kill_late(self, worker: Worker) -> None:
        if self._is_there(worker):
            _log.warning("worker does not leave: killed", slot=worker.slot, worker_pid=worker.pid)
            worker.kill()

    def _is_there(self, worker: Worker) -> bool:
        return self._workers.get(worker.slot) is worker

    def _changed(self) -> None:
        self._steer()
        self._changes.notify()

    def _steer(self) -> None:
        if not self._stopping:
            self._steering.steer()

    def _start_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.spawner.ready or self._stopping:
            return  # on_spawner_ready comes back here
        for slot in self._table.due(self._loop.time()):
            self._start(slot)
        due_s = self._table.next_due_s()
        if due_s is not None:
            self._timer = self._loop.call_at(due_s, self._start_due)

    def _start(self, slot: int) -> None:
        target = self._target
        assert target is not None
        self._table.starting(slot, self._loop.time())
        self._board.use(slot)
        self._bells.ensure(slot)
        worker = Worker(slot, target.addresses)
        ours, theirs = pair()
        worker.channel = Channel(
            self._loop,
            ours,
            lambda frame: self._on_frame(worker, frame),
            lambda: self._on_end(worker),
            max_bytes=_MAX_WORKER_MESSAGE_BYTES,
        )
        worker.start_timer = self._loop.call_later(self._launch.start_timeout_s, self._kill_unready, worker)
        self._workers[slot] = worker
        with theirs:
            socks = self._listeners.sockets_of(slot, target.addresses)
            bells = self._bells.fds
            worker.bells = len(bells)
            socket_fds = [sock.fileno() for sock in socks]
            fds = [theirs.fileno(), self._board.fd, worker.where_fd, *bells, *socket_fds]
            accounts = self.accounts()
            if accounts is not None:
                worker.accounts = accounts.number
                fds.append(self.leftover_fd)
            spawn = Spawn(
                slot,
                target.generation,
                target.workers,
                target.addresses,
                target.packed,
                self._tickets,
                target.credentials,
                len(bells),
                self._listeners.kept,
                accounts,
            )
            self.spawner.spawn(spawn, fds)

    def _kill_unready(self, worker: Worker) -> None:
        if not self._is_there(worker):
            return
        _log.error("worker does not become ready: killed", slot=worker.slot, worker_pid=worker.pid)
        if worker.pid:
            worker.kill()
        else:
            self._gone(worker, None)  # should it still be forked, it will find its control socket closed and leave

    # What the workers say.

    def _on_frame(self, worker: Worker, frame: Frame) -> None:
        try:
            message = decode_from_worker(frame.payload)
        except msgspec.DecodeError:
            _log.exception("worker speaks nonsense: killed", slot=worker.slot, worker_pid=worker.pid)
            worker.kill()
            return
        match message:
            case Ready(pid, generation):
                self._on_ready(worker, pid, generation)
            case Failed(generation, error):
                self._fail(generation, f"worker {worker.slot} cannot start: {error}")
            case Applied(generation, error):
                if error:
                    self._fail(generation, f"worker {worker.slot} did not apply the configuration: {error}")
                else:
                    worker.generation = generation
            case Retired(address):
                worker.addresses.discard(address)
            case Emptied():
                worker.emptying -= 1
            case Drained():
                pass  # its end says more
            case ConnectionList(count, connections):
                worker.answered(count, connections)
            case AccountsTaken(number):
                worker.accounts = number
            case UsageTold():
                self.on_usage(message, worker.send)
                return
        self._changes.notify()

    def _on_ready(self, worker: Worker, pid: int, generation: int) -> None:
        worker.start_timer.cancel()
        worker.was_ready = True
        worker.generation = max(worker.generation, generation)
        if worker.pidfd < 0:
            # Its spawner died between the fork and the word of it.
            with contextlib.suppress(ProcessLookupError):
                self._watch(worker, pid, os.pidfd_open(pid))
        if self._table.phase(worker.slot) is Phase.STARTING:
            self._table.ready(worker.slot)
        _log.info("worker ready", slot=worker.slot, worker_pid=pid, generation=generation)
        self._changed()

    def _fail(self, generation: int, failure: str) -> None:
        if self._target is not None and generation == self._target.generation:
            self._failures.append(failure)

    # How they end.

    def _watch(self, worker: Worker, pid: int, pidfd: int) -> None:
        worker.pid, worker.pidfd, worker.started = pid, pidfd, start_time(pid)
        self._loop.add_reader(pidfd, self._on_pidfd, worker)
        self._note_workers()

    def _on_pidfd(self, worker: Worker) -> None:
        self._loop.remove_reader(worker.pidfd)
        try:
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
        except ChildProcessError:
            # The spawner's child: its word follows.
            self._loop.call_later(_STATUS_WAIT_S, self._gone, worker, None)
        else:
            self._gone(worker, status if pid else None)

    def _on_end(self, worker: Worker) -> None:
        """The control socket ended: with the process, or because there never was one."""
        if worker.pidfd < 0 and not worker.pid:
            self._loop.call_later(_STATUS_WAIT_S, self._gone_unborn, worker)
        elif worker.pidfd >= 0 and not select.select([worker.pidfd], [], [], 0)[0]:
            self._loop.call_later(self._launch.kill_margin_s, self._kill_late, worker)

    def _gone_unborn(self, worker: Worker) -> None:
        if not worker.pid:
            self._gone(worker, None)

    def _gone(self, worker: Worker, status: int | None) -> None:
        if not self._is_there(worker):
            return
        worker.channel.read_rest()  # what it has used last
        if not self._is_there(worker):
            return
        del self._workers[worker.slot]
        self._steering.aside -= {worker.slot}
        worker.close()
        if worker.pidfd >= 0:
            self._loop.remove_reader(worker.pidfd)
            os.close(worker.pidfd)
            worker.pidfd = -1
        self._bury(worker.slot)
        self._note_workers()
        wait_s = self._table.died(worker.slot, self._loop.time())
        ended = describe_status(status)
        if wait_s is None:
            _log.info("worker left", slot=worker.slot, worker_pid=worker.pid, ended=ended)
        else:
            count = self.deaths[worker.slot].times if worker.slot in self.deaths else 0
            self.deaths[worker.slot] = Deaths(count + 1, time.monotonic(), ended)
            _log.error("worker died", slot=worker.slot, worker_pid=worker.pid, ended=ended, restart_in_s=wait_s)
            if not worker.was_ready:
                self._early_deaths += 1
                if self._early_deaths >= _EARLY_DEATHS:
                    self._failures.append(f"worker {worker.slot} died before it was ready ({ended})")
        self._changed()
        self._start_due()

    def _note_workers(self) -> None:
        workers = [Mate(one.slot, one.pid, one.started) for one in self._workers.values() if one.pid]
        self._legacy.note_workers([*workers, *self._survivors])

    def _bury(self, slot: int) -> None:
        self.before_bury(slot)
        self._board.bury(slot)

    def _on_survivor_gone(self, mate: Mate) -> None:
        if self._table.phase(mate.slot) is Phase.LEAVING and mate.slot not in self._workers:
            self._bury(mate.slot)
            self._table.died(mate.slot, self._loop.time())
        self._note_workers()
        self._changed()

    # What the spawner says (SpawnerOwner).

    def on_spawner_ready(self) -> None:
        """Requests are taken now."""
        self._changes.notify()
        self._start_due()

    def on_spawner_lost(self) -> None:
        """It never came up."""
        self._failures.append("the process that forks the workers does not start")
        self._changes.notify()

    def on_spawned(self, slot: int, pid: int, pidfd: int) -> None:
        """A worker exists."""
        worker = self._workers.get(slot)
        if worker is None or worker.pid:
            os.close(pidfd)
        else:
            self._watch(worker, pid, pidfd)

    def on_spawn_failed(self, slot: int, error: str) -> None:
        """fork failed; the end of the control socket does the rest."""
        _log.error("cannot fork a worker", slot=slot, error=error)

    def on_exited(self, pid: int, status: int) -> None:
        """A worker ended."""
        for worker in tuple(self._workers.values()):
            if worker.pid == pid:
                self._gone(worker, status)


def _nothing(_slot: int) -> None:
    """Nobody wants to know."""


def _no_accounts() -> AccountsTold | None:
    """There are none."""
    return None


def _no_usage(_told: UsageTold, _reply: Callable[[Message], None]) -> None:
    """Nobody wants to know."""
