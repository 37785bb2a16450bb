"""What runs, what waits and what came of it, for each thing that has a limit: upstreams, routes, tenants.

A resource ("upstream/api", "route/checkout") has an index for life and a block of cells in each worker's row:

    gauges      in flight, and how many of them count against the limit; queued, queued bytes, arrival of the oldest
                waiter, its turn, high-water of queued; who crowds the queue
    counters    admitted, finished by outcome, sums of time, refusals by reason, histograms of wait and of service

Gauges are written at once: limits of the machine are sums of them. Counters are kept here and written by `flush` on
the tick, because a cell costs 50 to 70 ns and an element of a list 15; kill -9 loses those of one tick. So are the
gauges of a worker that is alone, since nobody decides by them.

`MachineWide` is what a bulkhead needs of all this, however its resource is known: by an index (`ResourceCells`) or by
the hash of a key (`TenantCells`). How a worker uses it:

    arrival     own and `others_in_flight` below the limit, and nobody waits (`others_wait`): `set_in_flight`;
                else `set_waiting`, then look at the queue
    release     `set_in_flight`, then look at the queue
    the queue   while there is a free slot: `hand_over` -> leave it to the other worker; else admit the first
    tick, bell  look at the queue

Two workers may admit at the same moment, so a limit is passed by workers - 1 at most: a worker decides one request at a
time, and each decision that does not see the others' last ones admits one.

Turns are numbers that all workers compare, the lowest first. The arrival of the oldest in nanoseconds is the plain one:
then the machine has one queue in order of arrival. A queue that serves another one than its oldest must publish other
numbers, or a worker with an old waiter whom it does not serve would get every slot; see `turn_of`.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from edgeq.board.handover import Neighbours
from edgeq.board.histogram import BUCKETS, bucket_of
from edgeq.board.keyed import Entry, KeyedCounts
from edgeq.board.layout import (
    ENDPOINT_CELLS,
    QUEUED_HIGH,
    RESOURCE_COUNTERS,
    RESOURCE_GAUGES,
    RESOURCES,
    TENANT_CELLS,
    Board,
    key_hash,
    stable_hash,
)
from edgeq.reasons import REASONS
from edgeq.worker.wheel import NEVER

IN_FLIGHT: Final = 0
QUEUED: Final = 1
QUEUED_BYTES: Final = 2
OLDEST_NS: Final = 3
TURN: Final = 4
COUNTED: Final = 6
"""Of those in flight, the ones that count against the limit."""
CROWD: Final = 7
"""The key of the tenant whose requests are refused by age at present, 0 for nobody."""

ADMITTED: Final = 0
OK: Final = 1
DROPPED: Final = 2
IGNORED: Final = 3
SERVICE_US: Final = 4
WAIT_US: Final = 5
IN_FLIGHT_US: Final = 6
"""Requests in flight x time: divided by the time it is their average."""
BINDING_US: Final = 7
"""Time in which the limit kept somebody waiting."""
BUSY: Final = 8
"""Of the dropped ones, those that the upstream itself refused for load."""
BUSY_BESIDE: Final = 9
"""Sum over these of the machine's requests in flight at that moment."""
BOUND_US: Final = 10
"""Time in which the limit was reached."""
BOUND_OK: Final = 11
"""OK ones that came meanwhile."""
SCALARS: Final = 12
_MAX_REASONS: Final = 76
_OTHER: Final = _MAX_REASONS - 1
WAIT: Final = SCALARS + _MAX_REASONS
SERVICE: Final = WAIT + BUCKETS

_T_COUNTED: Final = 0
_T_TURN: Final = 1
_T_QUEUED: Final = 2

LAST: Final = 2**63
"""A turn that comes after all others: of somebody who has no waiter."""
_CLASS_BITS: Final = 61
MASK: Final = 2**64 - 1

_REASON_INDEX: Final = {token: index for index, token in enumerate(REASONS) if index < _OTHER}
REASON_NAMES: Final = {**{index: token for token, index in _REASON_INDEX.items()}, _OTHER: "other"}


def turn_of(priority: int, arrived_ns: int, newest_first: bool = False) -> int:
    """A turn by class (0 critical .. 2 sheddable), then by arrival; `newest_first` for a queue that serves so.

    The order between workers is by class and then by the oldest waiter, whatever the discipline, although a queue that
    serves its newest first does not give the place to that one. It is the simplest order in which no worker starves:
    the oldest of a queue that it does not serve is turned away when its time is over.
    """
    order = (1 << _CLASS_BITS) - 1 - arrived_ns if newest_first else arrived_ns
    return (priority << _CLASS_BITS) | order


class MachineWide:
    """One limit of the machine as one worker sees it: own gauges to write, the others' to read.

    Times are monotonic seconds; NEVER (of the wheel) is the arrival of nobody. This class knows no others: for a worker
    without a board, and for tests.
    """

    __slots__ = ("_learned", "_neighbours", "_slots", "alone", "is_late")

    def __init__(self, neighbours: Neighbours | None = None) -> None:
        self._neighbours: Neighbours | None = neighbours
        self._learned: int = 0
        self._slots: list[int] = [] if neighbours is None else neighbours.others()
        self.alone: bool = not self._slots
        """No other row is in use."""
        self.is_late: bool = True
        """Nobody reads what is in flight here before the next tick, so that is when `set_in_flight` is to be called;
        False: with each change."""

    def meet(self) -> None:
        """Look at all rows that are in use now."""
        if self._neighbours is not None:
            self._slots = self._neighbours.others()
            self.alone = not self._slots

    # What this worker tells.

    def set_in_flight(self, counted: int, in_flight: int) -> None:
        """Permits that this worker holds now: those that count against the limit, and all."""

    def set_waiting(self, queued: int, queued_bytes: int, oldest_at: float, turn: int = 0) -> None:
        """Who waits here; `oldest_at` NEVER for nobody. `turn`: of who is next, if it does not go by `oldest_at`."""

    def set_crowd(self, key: int) -> None:
        """Whose requests are refused by age here, 0 for nobody."""

    def admitted(self, waited_s: float) -> None:
        """A request got its permit after so long, 0.0 for at once."""

    def finished(self, held_s: float, outcome: int) -> None:
        """A permit was given back, with an outcome (OK, DROPPED, IGNORED)."""

    def refused(self, reason: str) -> None:
        """A request was refused, with a token of edgeq.reasons."""

    def add(self, counter: int, count: int) -> None:
        """More of a counter, such as IN_FLIGHT_US."""

    def flush(self) -> None:
        """Show the others what was counted."""

    def publish_limit(self, limit: int) -> None:
        """For the one that leads: the limit that it has learned, of the machine; 0: none. The others are woken."""
        self._learned = limit

    # What it wants to know.

    def leads(self, now: float) -> bool:
        """Does this worker decide for all, such as on a learned limit?"""
        return True

    def learned_limit(self) -> int:
        """What the one that leads has learned, 0 if nothing yet."""
        return self._learned

    def counters_of(self, slot: int) -> list[int]:
        """The counters of the worker in another slot up to its last tick, without reasons and histograms."""
        return [0] * SCALARS

    def others(self) -> list[int]:
        """The slots of the other workers."""
        return self._slots

    def others_excused(self) -> int:
        """Permits of the other workers that do not count against the limit."""
        return 0

    def others_queued(self) -> int:
        """Who waits at the other workers."""
        return 0

    def others_queued_bytes(self) -> int:
        """Memory that these hold."""
        return 0

    def others_oldest_at(self) -> float:
        """Arrival of the oldest of these, NEVER if nobody waits there."""
        return NEVER

    def others_crowds(self) -> list[int]:
        """The keys of those whose requests are refused by age at other workers."""
        return []

    def others_in_flight(self) -> int:
        """Permits of the other workers that count against the limit."""
        return 0

    def turn_at(self, at: int) -> int:
        """The turn of the `at`-th other worker, 0 if nobody waits there."""
        return 0

    def others_wait(self) -> bool:
        """Does somebody wait at another worker? Then who arrives here must not overtake, but queue."""
        return not self.alone and self.oldest_elsewhere(LAST) >= 0

    def oldest_elsewhere(self, turn: int) -> int:
        """The slot of the worker whose turn comes first and before `turn`, or -1. Who is deaf does not count."""
        neighbours = self._neighbours
        if self.alone or neighbours is None:
            return -1
        first = turn
        found = -1
        for at, slot in enumerate(self._slots):
            theirs = self.turn_at(at)
            if theirs and theirs < first and not neighbours.deaf[slot]:
                first = theirs
                found = slot
        return found

    def hand_over(self, oldest_at: float, now: float, turn: int = 0) -> bool:
        """There is a free slot: does somebody elsewhere come before our own (NEVER: nobody waits here)?

        Then that worker is told, the slot stays free for it, and True is returned. `turn` as in `set_waiting`.
        """
        neighbours = self._neighbours
        if self.alone or neighbours is None:
            return False
        if turn == 0:
            turn = LAST if oldest_at >= NEVER else int(oldest_at * 1e9)
        while True:
            slot = self.oldest_elsewhere(turn)
            if slot < 0:
                return False
            if neighbours.ask(slot, int(now * 1e9)):
                return True


class ResourceCells(MachineWide):
    """A named resource in one worker's row. Made by `Resources.bind`.

    `is_apart`: the resource found no index of its own. Its counters are in the last index together with those of others
    of the kind, its gauges are not on the board, and a limit on it is one of this worker alone.
    """

    __slots__ = (
        "_at_once",
        "_block",
        "_board",
        "_counted",
        "_crowd",
        "_dirty",
        "_high",
        "_in_flight",
        "_late",
        "_late_bytes",
        "_late_counted",
        "_late_in_flight",
        "_late_oldest_at",
        "_late_queued",
        "_late_turn",
        "_others_in_flight",
        "_others_queued",
        "_others_turns",
        "_pending",
        "_queued",
        "_served",
        "_served_us",
        "index",
        "is_apart",
        "name",
    )

    def __init__(self, board: Board, neighbours: Neighbours, name: str) -> None:
        super().__init__(neighbours)
        self.name: str = name
        self.index: int = board.resource_index(name)
        self.is_apart: bool = self.index == RESOURCES - 1
        self._board: Board = board
        self._block: memoryview = board.resource_block(neighbours.slot, self.index)
        gauges = memoryview(bytearray(8 * RESOURCE_GAUGES)).cast("Q") if self.is_apart else self._block
        for gauge in range(RESOURCE_GAUGES):
            gauges[gauge] = 0  # what a former owner of the index has left
        self._in_flight: memoryview = gauges[IN_FLIGHT : IN_FLIGHT + 1]
        self._counted: memoryview = gauges[COUNTED : COUNTED + 1]
        self._crowd: memoryview = gauges[CROWD : CROWD + 1]
        self._queued: memoryview = gauges[QUEUED : QUEUED_HIGH + 1]
        self._high: int = 0
        # Gauges of a worker that is alone, until the tick; `_late`: they differ from the board.
        self._late: bool = False
        self._late_counted: int = 0
        self._late_in_flight: int = 0
        self._late_queued: int = 0
        self._late_bytes: int = 0
        self._late_oldest_at: float = NEVER
        self._late_turn: int = 0
        self._others_in_flight: list[memoryview] = []
        self._others_queued: list[memoryview] = []
        self._others_turns: list[memoryview] = []
        self._pending: list[int] = [0] * RESOURCE_COUNTERS
        self._dirty: list[int] = []
        # Of these there is one for each request; until the tick they are counted here.
        self._at_once: int = 0
        self._served: int = 0
        self._served_us: int = 0
        self.meet()

    def meet(self) -> None:
        """Look at all rows that are in use now."""
        if self.is_apart:
            self.alone = True
            return
        super().meet()
        self.is_late = self.alone
        if self._late:
            self._catch_up()
        blocks = [self._board.resource_block(slot, self.index) for slot in self._slots]
        self._others_in_flight = [block[COUNTED : COUNTED + 1] for block in blocks]
        self._others_queued = [block[QUEUED : QUEUED + 1] for block in blocks]
        self._others_turns = [block[TURN : TURN + 1] for block in blocks]

    # Gauges.

    def set_in_flight(self, counted: int, in_flight: int) -> None:
        """Permits that this worker holds now: those that count against the limit, and all."""
        if self.alone:
            self._late = True
            self._late_counted = counted
            self._late_in_flight = in_flight
            return
        self._counted[0] = counted
        self._in_flight[0] = in_flight

    def set_waiting(self, queued: int, queued_bytes: int, oldest_at: float, turn: int = 0) -> None:
        """Who waits here; `oldest_at` NEVER for nobody. `turn`: of who is next, if it does not go by `oldest_at`."""
        if self.alone:
            self._late = True
            self._late_queued = queued
            self._late_bytes = queued_bytes
            self._late_oldest_at = oldest_at
            self._late_turn = turn
            if queued > self._high:
                self._high = queued
            return
        self._show_waiting(queued, queued_bytes, oldest_at, turn)
        queued += self.others_queued()
        if queued > self._high:
            self._high = queued
            self._queued[4] = queued

    def _show_waiting(self, queued: int, queued_bytes: int, oldest_at: float, turn: int) -> None:
        oldest_ns = 0 if oldest_at >= NEVER else int(oldest_at * 1e9)
        cells = self._queued
        cells[0] = queued
        cells[1] = queued_bytes
        cells[2] = oldest_ns
        cells[3] = turn or oldest_ns

    def _catch_up(self) -> None:
        """Bring the gauges of a worker that was alone to the board."""
        self._late = False
        self._counted[0] = self._late_counted
        self._in_flight[0] = self._late_in_flight
        self._show_waiting(self._late_queued, self._late_bytes, self._late_oldest_at, self._late_turn)
        self._queued[4] = self._high

    def others_in_flight(self) -> int:
        """Permits of the other workers that count against the limit."""
        if self.alone:
            return 0
        total = 0
        for cell in self._others_in_flight:
            total += cell[0]
        return total

    def turn_at(self, at: int) -> int:
        """The turn of the `at`-th other worker, 0 if nobody waits there."""
        turn: int = self._others_turns[at][0]
        return turn

    def others_queued(self) -> int:
        """Who waits at the other workers."""
        if self.alone:
            return 0
        total = 0
        for cell in self._others_queued:
            total += cell[0]
        return total

    def others_queued_bytes(self) -> int:
        """Memory that these hold."""
        return 0 if self.alone else sum([block[QUEUED_BYTES] for block in self._others_blocks()])

    def others_oldest_at(self) -> float:
        """Arrival of the oldest of these, NEVER if nobody waits there."""
        if self.alone:
            return NEVER
        found = [block[OLDEST_NS] for block in self._others_blocks()]
        return min([arrived_ns / 1e9 for arrived_ns in found if arrived_ns], default=NEVER)

    def set_crowd(self, key: int) -> None:
        """Whose requests are refused by age here, 0 for nobody."""
        self._crowd[0] = key

    def others_crowds(self) -> list[int]:
        """The keys of those whose requests are refused by age at other workers."""
        return [] if self.alone else [block[CROWD] for block in self._others_blocks() if block[CROWD]]

    def others_excused(self) -> int:
        """Permits of the other workers that do not count against the limit."""
        return 0 if self.alone else sum([max(0, block[IN_FLIGHT] - block[COUNTED]) for block in self._others_blocks()])

    def _others_blocks(self) -> list[memoryview]:
        """For what is asked seldom."""
        return [self._board.resource_block(slot, self.index) for slot in self._slots]

    # Counters.

    def add(self, counter: int, count: int) -> None:
        """More of a counter; count >= 0."""
        if count == 0:
            return
        pending = self._pending
        before = pending[counter]
        if before == 0:
            self._dirty.append(counter)
        pending[counter] = before + count

    def admitted(self, waited_s: float) -> None:
        """A request got its permit after so long, 0.0 for at once."""
        if waited_s <= 0.0:
            self._at_once += 1
            return
        wait_us = int(waited_s * 1e6)
        self.add(ADMITTED, 1)
        self.add(WAIT + bucket_of(wait_us), 1)
        self.add(WAIT_US, wait_us)

    def finished(self, held_s: float, outcome: int) -> None:
        """A permit was given back, with an outcome (OK, DROPPED, IGNORED). Only of OK the time counts as service: a
        time-out tells of the time-out."""
        if outcome != OK:
            self.add(outcome, 1)
            return
        service_us = int(held_s * 1e6) if held_s > 0.0 else 0
        self._served += 1
        self._served_us += service_us
        counter = SERVICE + bucket_of(service_us)
        pending = self._pending
        before = pending[counter]
        if before == 0:
            self._dirty.append(counter)
        pending[counter] = before + 1

    def refused(self, reason: str) -> None:
        """A request was refused, with a token of edgeq.reasons."""
        self.add(SCALARS + _REASON_INDEX.get(reason, _OTHER), 1)

    def flush(self) -> None:
        """On each tick: what was counted since the last one goes to the board."""
        if self._late:
            self._catch_up()
        if self._at_once:
            self.add(ADMITTED, self._at_once)
            self.add(WAIT, self._at_once)
            self._at_once = 0
        if self._served:
            self.add(OK, self._served)
            self.add(SERVICE_US, self._served_us)
            self._served = 0
            self._served_us = 0
        if self._dirty:
            block, pending = self._block, self._pending
            for counter in self._dirty:
                at = RESOURCE_GAUGES + counter
                block[at] = (block[at] + pending[counter]) & MASK
                pending[counter] = 0
            self._dirty.clear()

    def begin_high(self) -> None:
        """From now on the high-water mark is what waits now, or more."""
        self._high = self._queued[0] + self.others_queued()
        self._queued[4] = self._high

    def counters_of(self, slot: int) -> list[int]:
        """The counters of the worker in another slot up to its last tick, without reasons and histograms."""
        block = self._board.resource_block(slot, self.index)
        return block[RESOURCE_GAUGES : RESOURCE_GAUGES + SCALARS].tolist()

    # The limit that the leader has learned.

    def leads(self, now: float) -> bool:
        """Does this worker decide for all, such as on a learned limit?"""
        neighbours = self._neighbours
        return self.alone or neighbours is None or self._board.leader(int(now * 1e9)) == neighbours.slot

    def learned_limit(self) -> int:
        """What the one that leads has learned, 0 if nothing yet."""
        return self._learned if self.is_apart else self._board.learned_limit(self.index)

    def publish_limit(self, limit: int) -> None:
        """For the one that leads: the limit that it has learned, of the machine; 0: none. The others are woken."""
        if self.is_apart:
            self._learned = limit
            return
        if limit == self._board.learned_limit(self.index):
            return
        self._board.set_learned_limit(self.index, limit)
        neighbours = self._neighbours
        if neighbours is not None and not self.alone:
            neighbours.wake()


class TenantCells(MachineWide):
    """A tenant's limit, in the table of tenants of one worker's row. Made by `Resources.bind_tenant`.

    Held as long as something of the tenant runs or waits; then `close`. If the table has no room (`is_apart`), the
    limit is one of this worker alone.
    """

    __slots__ = ("entry",)

    def __init__(self, neighbours: Neighbours, entry: Entry) -> None:
        super().__init__(neighbours)
        self.is_late = False
        self.entry: Entry = entry
        self.alone = not entry.others

    def set_in_flight(self, counted: int, in_flight: int) -> None:
        """Permits that count against the limit; of a tenant no others are on the board."""
        self.entry.put(_T_COUNTED, counted)

    def set_waiting(self, queued: int, queued_bytes: int, oldest_at: float, turn: int = 0) -> None:
        """Who waits here; of a tenant only how many and the turn are on the board."""
        self.entry.put(_T_QUEUED, queued)
        self.entry.put(_T_TURN, turn or (0 if oldest_at >= NEVER else int(oldest_at * 1e9)))

    def others_in_flight(self) -> int:
        """Permits of the other workers that count against the limit."""
        return 0 if self.alone else self.entry.others_total(_T_COUNTED)

    def others_queued(self) -> int:
        """Who waits at the other workers."""
        return 0 if self.alone else self.entry.others_total(_T_QUEUED)

    def turn_at(self, at: int) -> int:
        """The turn of the `at`-th other worker, 0 if nobody waits there."""
        return self.entry.others[at].value(self.entry.key, _T_TURN)


class EndpointCells:
    """What the workers tell each other about one endpoint or upstream. Made by `Resources.bind_endpoint`.

    `VALUES` cells, each written by its own worker only; a dead worker's are zeroed. See edgeq/upstream/shared.py.
    """

    __slots__ = ("_board", "_slot", "entry")

    def __init__(self, board: Board, slot: int, entry: Entry) -> None:
        self._board: Board = board
        self._slot: int = slot
        self.entry: Entry = entry

    def put(self, cell: int, value: int) -> None:
        """Write this worker's cell; 0 <= value < 2**64."""
        self.entry.put(cell, value)

    def newest(self, cell: int) -> int:
        """The largest value of all workers: of changes, the newest."""
        return self.entry.newest(cell)

    def total(self, cell: int) -> int:
        """The sum over all workers."""
        return self.entry.total(cell)

    def others_total(self, cell: int) -> int:
        """The sum over the other workers."""
        return self.entry.others_total(cell)

    def leads(self) -> bool:
        """Does this worker do what one must do for all, such as active checks?"""
        return self._board.leader(monotonic_ns()) == self._slot

    def close(self) -> None:
        """The endpoint is gone."""
        self.entry.close()


class Resources:
    """All that one worker has bound, refreshed and flushed on its tick."""

    __slots__ = ("_board", "_endpoints", "_highs_begun", "_named", "_slot", "_tenants", "neighbours")

    def __init__(self, board: Board, neighbours: Neighbours) -> None:
        self._board: Board = board
        self._slot: int = neighbours.slot
        self.neighbours: Neighbours = neighbours
        self._named: dict[str, ResourceCells] = {}
        self._tenants: dict[int, TenantCells] = {}
        self._endpoints: dict[int, EndpointCells] = {}
        self._highs_begun: int = board.highs_begun()

    def bind(self, name: str) -> ResourceCells:
        """The cells of a named resource: the same object for the same name, as long as its index is the same.

        The supervisor gives the index (`Board.assign_resources`) before a worker hears of the name.
        """
        known = self._named.get(name)
        if known is not None and known.index == self._board.resource_index(name):
            return known
        if known is not None:
            known.flush()
        cells = ResourceCells(self._board, self.neighbours, name)
        self._named[name] = cells
        return cells

    def forget(self, cells: MachineWide) -> None:
        """A resource left the configuration and nothing of it runs any more."""
        if isinstance(cells, ResourceCells) and self._named.get(cells.name) is cells:
            cells.flush()
            del self._named[cells.name]

    def bind_tenant(self, resource: str, tenant: bytes) -> TenantCells:
        """The cells of one tenant of a resource (or of "tenant" for limits that hold everywhere); shared by its users.

        Close them with `forget_tenant`.
        """
        key = key_hash(resource.encode(), tenant)
        cells = self._tenants.get(key)
        if cells is None:
            table = self._board.row(self._slot).tenants
            cells = TenantCells(self.neighbours, Entry(table, self._other_tenants(), key, TENANT_CELLS - 2))
            self._tenants[key] = cells
        return cells

    def forget_tenant(self, cells: TenantCells) -> None:
        """Nothing of this tenant runs or waits here any more."""
        if self._tenants.pop(cells.entry.key, None) is not None:
            cells.entry.close()

    def bind_endpoint(self, name: str) -> EndpointCells:
        """The cells of an endpoint ("upstream/api#10.0.0.7:9000") or upstream; the same object for the same name."""
        key = stable_hash(name)
        cells = self._endpoints.get(key)
        if cells is None:
            table = self._board.row(self._slot).endpoints
            entry = Entry(table, self._other_endpoints(), key, ENDPOINT_CELLS - 2)
            cells = EndpointCells(self._board, self._slot, entry)
            self._endpoints[key] = cells
        return cells

    def forget_endpoint(self, cells: EndpointCells) -> None:
        """The endpoint is gone from this worker."""
        if self._endpoints.pop(cells.entry.key, None) is not None:
            cells.close()

    def tick(self, now: float) -> None:
        """Write counters, look who has come; now in monotonic seconds. After it the worker looks at all its queues."""
        if self.neighbours.tick(int(now * 1e9)):
            self._meet()
        self.flush()

    def flush(self) -> None:
        """Write counters."""
        for cells in self._named.values():
            cells.flush()
        begun = self._board.highs_begun()
        if begun != self._highs_begun:
            self._highs_begun = begun
            for cells in self._named.values():
                cells.begin_high()

    def leads(self, now: float) -> bool:
        """Is this worker the one that decides for all (learned limits, active checks)?"""
        return self._board.leader(int(now * 1e9)) == self._slot

    def _meet(self) -> None:
        for named in self._named.values():
            named.meet()
        tenants, endpoints = self._other_tenants(), self._other_endpoints()
        for tenant in self._tenants.values():
            tenant.entry.others = tenants
            tenant.meet()
        for endpoint in self._endpoints.values():
            endpoint.entry.others = endpoints

    def _other_tenants(self) -> list[KeyedCounts]:
        return [self._board.row(slot).tenants for slot in self.neighbours.others()]

    def _other_endpoints(self) -> list[KeyedCounts]:
        return [self._board.row(slot).endpoints for slot in self.neighbours.others()]
