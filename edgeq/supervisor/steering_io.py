"""Where new connections go, and who serves those that wait where no worker accepts them.

One rule decides where new connections go: to the shards of slots whose worker serves and is not set aside (stuck.py),
and if there is none, to any (they wait in the queue for the next worker).

One rule decides who empties an accept queue before its socket closes: its worker, and another one that gets the socket,
too: its own may be dead (its slot is in back-off, or it was started with a configuration without this listener), set
aside, or hang without anybody having noticed yet. What is left then, because no worker lives or those who were asked
hang, is answered here (`leftover_io`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from edgeq.observe import log_io
from edgeq.supervisor.changes_io import Changes
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.leftover_io import DRAINING, refuse_waiting, resource_of
from edgeq.supervisor.messages import Empty, Retire
from edgeq.supervisor.slots import Phase, SlotTable
from edgeq.supervisor.sockets_io import SHARED, Listeners, Queue
from edgeq.supervisor.worker_io import Worker

_log = log_io.get_logger()
_MOST_EMPTYING: Final = 4
"""Queues of others that a worker is asked to empty at once while their workers are only set aside."""


class Steering:
    """Of one supervisor's workers."""

    def __init__(
        self,
        listeners: Listeners,
        table: SlotTable,
        workers: Mapping[int, Worker],
        changes: Changes,
        launch: Launch,
        node: Callable[[], str],
    ) -> None:
        """`workers`: those there are, by slot; `node()`: what edgeq calls itself in its answers."""
        self._listeners = listeners
        self._table = table
        self._workers = workers
        self._changes = changes
        self._launch = launch
        self._node = node
        self.aside: frozenset[int] = frozenset()
        """Slots whose worker serves, but shall get nothing: others serve for it."""

    def steer(self) -> None:
        """Send new connections where they are served."""
        serving = self._table.serving()
        self._listeners.steer(serving - self.aside or serving)

    def lift(self, slots: frozenset[int]) -> None:
        """What waits for these workers is served by the others.

        Who was asked the last time may still be at it, or wait for a client: then another one is asked as well.
        """
        for queue in self._listeners.waiting(self._listeners.addresses):
            if queue.slot in slots:
                self._have_emptied(queue, _MOST_EMPTYING)

    async def empty(self, slots: Collection[int] | None, addresses: Sequence[str], kept: Collection[str] = ()) -> None:
        """Have the accept queues of these slots (None: of all) emptied; what then waits in those kept, waits on."""
        workers = [one for one in self._workers.values() if slots is None or one.slot in slots]
        # Nothing has come for a moment, and a worker that turns its loop has taken what was there. What all workers
        # share is emptied by anyone.
        asked = [self._have_emptied(queue) for queue in self._waiting(slots, addresses) if queue.slot != SHARED]
        for worker in workers:
            for address in addresses:
                if address in worker.addresses:
                    worker.send(Retire(address))

        def waiting() -> set[int]:
            busy = [one for one in workers if not one.addresses.isdisjoint(addresses)]
            busy += [one for one in asked if one is not None and one.emptying]
            return {one.slot for one in busy if self._is_there(one)}

        if not await self._changes.until(lambda: not waiting(), self._launch.retire_timeout_s):
            _log.warning("accept queues were not emptied in time", slots=sorted(waiting()), addresses=addresses)
        ending = [address for address in addresses if address not in kept]
        await asyncio.gather(*map(self._refuse, self._waiting(slots, ending)))

    def _waiting(self, slots: Collection[int] | None, addresses: Sequence[str]) -> list[Queue]:
        """Their accept queues that are not empty."""
        return [one for one in self._listeners.waiting(addresses) if slots is None or one.slot in slots]

    def _have_emptied(self, queue: Queue, most: int | None = None) -> Worker | None:
        """Ask a worker to serve what waits for another one. Returns whom, if there is one.

        `most`: nobody who empties so many queues already.
        """
        address = queue.listener.address
        able = [
            one
            for one in self._workers.values()
            if one.was_ready
            and one.slot != queue.slot
            and one.slot not in self.aside
            and address in one.addresses
            and (most is None or one.emptying < most)
        ]
        if not able:
            return None
        # Rather one who stays, and not always the same.
        worker = min(able, key=lambda one: (self._table.phase(one.slot) is Phase.LEAVING, one.emptying))
        worker.emptying += 1
        worker.send(Empty(address), [queue.sock.fileno()])
        return worker

    async def _refuse(self, queue: Queue) -> None:
        count = await refuse_waiting(queue.sock, queue.listener, self._node().encode())
        listener = queue.listener
        _log.warning(
            "refused what waited for a worker",
            reason=DRAINING,
            resource=resource_of(listener),
            address=listener.address,
            connections=count,
        )

    def _is_there(self, worker: Worker) -> bool:
        return self._workers.get(worker.slot) is worker
