"""The board: one memory file of 64-bit cells in which each worker writes its own row and everybody reads all rows.

Invariants
- One writer per row: worker N writes row N, the supervisor writes the header, and a row only while its worker is dead.
- Nobody locks. An aligned 8-byte store is one store on the platforms that we support, so a cell is never half old and
  half new; two cells may be (a reader can be off by what is being changed at that moment, never by more).
- A dead worker's gauges vanish with `bury`; its counters are kept, so that totals of the machine never go back.
- Four things have other writers, each a single cell whose loss costs one update: learned limits (the leader), keys and
  bases of rates and of sums of money (everybody, see gcra_table.py, spent.py), names of indices (the supervisor).

    header    magic, version, slots, rows in use, counters of the dead, listeners' and resources' hashes, learned limits
    row x N   cells (below), open connections per listener index, tables of clients, tenants, endpoints and meters, a
              block for each resource (resources.py): first gauges, then counters; a report, the last events, and the
              last requests that were refused, degraded, failed over or slow (page.py)
    row       of the dead: counters of all workers that are buried, and a report of what they have refused
    rates     table of theoretical arrival times (gcra_table.py), and a lane of it for each slot (lanes.py)
    spent     table of the money that was spent in a day or month (spent.py), and a lane of it for each slot
    annex     of the supervisor alone, as long as it wants it: what the numbers were (ring.py)

Clients, tenants and endpoints are found by keyed.py. A client that finds no room there is not counted (`untracked` says
how often): the limit per client is then too lax for it, and nothing leaks.

The memory is a memfd and not a file in /dev/shm: it has no name, needs no cleaning, and goes with its last process.
Rows begin on pages of their own, so two workers never write into one cache line.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Container, Sequence
from itertools import accumulate
from typing import Final

from edgeq.board.keyed import KeyedCounts
from edgeq.board.page import Lines, Page

MAGIC: Final = 0x6571_2D62_6F61_7264
VERSION: Final = 11
LISTENERS: Final = 64
"""Listener indices; listeners beyond them share the last one."""
RESOURCES: Final = 256
"""Resource indices; resources beyond them share the last one."""
CLIENTS: Final = 8192
TENANTS: Final = 4096
ENDPOINTS: Final = 1024
TENANT_CELLS: Final = 5
METERS: Final = 4096
"""Those who use models and have a limit of concurrency or money (llm/ledger.py), models at keys whose provider tells
its limits (llm/hearing.py), and models that have answered (llm/estimate.py)."""
ENDPOINT_CELLS: Final = 8
METER_CELLS: Final = 6
"""Of an entry, its key and its references included."""
RATES: Final = 65536
RATE_CELLS: Final = 3
SPENT: Final = 16384
SPENT_CELLS: Final = 3
REPORT_CELLS: Final = 65536
"""Two halves of 256 KiB: some 100 upstreams, as many models at their keys, and the rest. Untouched it costs nothing."""
EVENT_CELLS: Final = 8192
"""64 KiB."""
REQUEST_CELLS: Final = 32768
"""256 KiB: some 500 requests, the half of them refused ones."""

RESOURCE_GAUGES: Final = 8
RESOURCE_COUNTERS: Final = 1016
_RESOURCE: Final = RESOURCE_GAUGES + RESOURCE_COUNTERS
QUEUED_HIGH: Final = 5
"""The one gauge that outlives its worker."""

_HEADER: Final = 1024
_H_MAGIC: Final = 0
_H_VERSION: Final = 1
_H_SLOTS: Final = 2
_H_ROWS_USED: Final = 3
_H_DEAD_CONNECTIONS: Final = 4
_H_DEAD_REQUESTS: Final = 5
_H_STARTED: Final = 6
_H_SLOTS_EVER: Final = 7
_H_HIGHS: Final = 8
_H_LISTENERS: Final = 64
_H_RESOURCES: Final = _H_LISTENERS + LISTENERS
_H_LIMITS: Final = _H_RESOURCES + RESOURCES

_PID: Final = 0
_STATE: Final = 1
_GENERATION: Final = 2
_HEARTBEAT_NS: Final = 3
_LAG_US: Final = 4
_CONNECTIONS: Final = 5
_REQUESTS: Final = 6
_IN_FLIGHT: Final = 7
_UNTRACKED: Final = 8
_ANSWERED_NS: Final = 9
_R_LISTENERS: Final = 64
_R_CLIENTS: Final = _R_LISTENERS + LISTENERS
_R_TENANTS: Final = _R_CLIENTS + 2 * CLIENTS
_R_ENDPOINTS: Final = _R_TENANTS + TENANT_CELLS * TENANTS
_R_METERS: Final = _R_ENDPOINTS + ENDPOINT_CELLS * ENDPOINTS
_PAGE_CELLS: Final = 512
_R_RESOURCES: Final = -(-(_R_METERS + METER_CELLS * METERS) // _PAGE_CELLS) * _PAGE_CELLS
_R_REPORT: Final = _R_RESOURCES + _RESOURCE * RESOURCES
_R_EVENTS: Final = _R_REPORT + REPORT_CELLS
_R_REQUESTS: Final = _R_EVENTS + EVENT_CELLS
_ROW: Final = _R_REQUESTS + REQUEST_CELLS
_FRESH_NS: Final = 1_000_000_000
"""A worker whose last flush is older does not lead: four flushes are missing."""
_MASK: Final = 2**64 - 1

STATE_NONE: Final = 0
STATE_STARTING: Final = 1
STATE_SERVING: Final = 2
STATE_DRAINING: Final = 3
STATE_NAMES: Final = ("none", "starting", "serving", "draining")


def stable_hash(text: str) -> int:
    """A 62-bit hash, never 0, that is the same in every process (Python's own hash is not)."""
    return key_hash(text.encode())


def key_hash(*parts: bytes) -> int:
    """The same of several parts; different parts never make the same text. One part alone is hashed as it is.

    62 bits: in compiled code longer numbers are objects, and a search by them costs twice as much.
    """
    text = parts[0] if len(parts) == 1 else b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 2 or 1


class Row:
    """One worker's cells. Only that worker calls what writes."""

    __slots__ = ("_base", "_cells", "clients", "endpoints", "meters", "slot", "tenants")

    def __init__(self, cells: memoryview, slot: int) -> None:
        self.slot: int = slot
        self._cells: memoryview = cells
        self._base: int = _HEADER + slot * _ROW
        self.clients: KeyedCounts = KeyedCounts(cells, self._base + _R_CLIENTS, CLIENTS, 2)
        self.tenants: KeyedCounts = KeyedCounts(cells, self._base + _R_TENANTS, TENANTS, TENANT_CELLS)
        self.endpoints: KeyedCounts = KeyedCounts(cells, self._base + _R_ENDPOINTS, ENDPOINTS, ENDPOINT_CELLS)
        self.meters: KeyedCounts = KeyedCounts(cells, self._base + _R_METERS, METERS, METER_CELLS)

    def begin(self, pid: int, generation: int) -> None:
        """A worker takes its row, empty, before it serves."""
        self._cells[self._base + _PID] = pid
        self._cells[self._base + _GENERATION] = generation
        self._cells[self._base + _STATE] = STATE_STARTING

    def set_state(self, state: int) -> None:
        """One of the STATE_ constants."""
        self._cells[self._base + _STATE] = state

    def set_generation(self, generation: int) -> None:
        """The configuration that this worker runs."""
        self._cells[self._base + _GENERATION] = generation

    def beat(self, now_ns: int, lag_us: int, requests: int, in_flight: int) -> None:
        """The regular flush: a sign of life, how late the loop is, and what the worker counts in its own memory."""
        cells, base = self._cells, self._base
        cells[base + _HEARTBEAT_NS] = now_ns
        cells[base + _LAG_US] = lag_us
        cells[base + _REQUESTS] = requests
        cells[base + _IN_FLIGHT] = in_flight

    def add_connection(self, listener_index: int, client_hash: int = 0) -> None:
        """An accepted connection. `client_hash` 0: its client is not counted. Pair it with one `remove_connection`."""
        cells, base = self._cells, self._base
        cells[base + _CONNECTIONS] += 1
        cells[base + _R_LISTENERS + listener_index] += 1
        if client_hash and self.clients.acquire(client_hash) < 0:
            cells[base + _UNTRACKED] += 1

    def remove_connection(self, listener_index: int, client_hash: int = 0) -> None:
        """The end of a connection, with the arguments of its beginning."""
        at = self._base + _R_LISTENERS + listener_index
        if self._cells[at] > 0:
            self._cells[at] -= 1
        if client_hash:
            self.clients.release(client_hash)

    def client_count(self, client_hash: int) -> int:
        """This worker's open connections of one client."""
        return self.clients.references(client_hash)

    def listener_count(self, listener_index: int) -> int:
        """This worker's open connections of one listener."""
        return int(self._cells[self._base + _R_LISTENERS + listener_index])

    @property
    def pid(self) -> int:
        """Process id, 0 in an empty row."""
        return int(self._cells[self._base + _PID])

    @property
    def state(self) -> int:
        """One of the STATE_ constants."""
        return int(self._cells[self._base + _STATE])

    @property
    def generation(self) -> int:
        """The configuration that this worker runs."""
        return int(self._cells[self._base + _GENERATION])

    @property
    def heartbeat_ns(self) -> int:
        """Monotonic time of the last flush."""
        return int(self._cells[self._base + _HEARTBEAT_NS])

    @property
    def answered_ns(self) -> int:
        """Monotonic time at which the worker last looked who waits, because another one had asked it to."""
        return int(self._cells[self._base + _ANSWERED_NS])

    def answer(self, now_ns: int) -> None:
        """The worker has been asked to look who waits, and is about to."""
        self._cells[self._base + _ANSWERED_NS] = now_ns

    @property
    def lag_us(self) -> int:
        """How late the worker's loop was at its last flush."""
        return int(self._cells[self._base + _LAG_US])

    @property
    def connections(self) -> int:
        """Accepted since the worker's start."""
        return int(self._cells[self._base + _CONNECTIONS])

    @property
    def open_connections(self) -> int:
        """Open now, all listeners."""
        start = self._base + _R_LISTENERS
        return sum(self._cells[start : start + LISTENERS])

    @property
    def requests(self) -> int:
        """Since the worker's start."""
        return int(self._cells[self._base + _REQUESTS])

    @property
    def in_flight(self) -> int:
        """Requests that run now."""
        return int(self._cells[self._base + _IN_FLIGHT])

    @property
    def untracked(self) -> int:
        """Connections whose client found no room in the table."""
        return int(self._cells[self._base + _UNTRACKED])

    def snapshot(self) -> dict[str, int | str]:
        """For `show workers`."""
        return {
            "slot": self.slot,
            "pid": self.pid,
            "state": STATE_NAMES[self.state] if self.state < len(STATE_NAMES) else "unknown",
            "generation": self.generation,
            "connections": self.open_connections,
            "accepted": self.connections,
            "requests": self.requests,
            "in_flight": self.in_flight,
            "lag_us": self.lag_us,
        }


class Board:
    """All rows. `Board.create` in the supervisor, `Board.attach` with the inherited descriptor in a worker."""

    __slots__ = ("_cells", "_map", "_rows", "_tables", "bells", "fd", "slots")

    def __init__(self, fd: int, slots: int) -> None:
        self.fd: int = fd
        self.slots: int = slots
        self.bells: list[int] = []
        """Descriptors by slot, by which one worker tells another to look who waits; see handover_io.py."""
        self._map = mmap.mmap(fd, _size_bytes(slots))
        self._cells = memoryview(self._map).cast("Q")
        tables = memoryview(self._map)[8 * (_HEADER + (slots + 1) * _ROW) : _size_bytes(slots)].cast("q")
        sizes = (RATE_CELLS * RATES, slots * RATES, SPENT_CELLS * SPENT, slots * SPENT)
        starts = accumulate(sizes, initial=0)
        self._tables: list[memoryview] = [tables[at : at + size] for at, size in zip(starts, sizes, strict=False)]
        """Signed: rates and their lanes, sums of money and their lanes."""
        self._rows: list[Row] = [Row(self._cells, slot) for slot in range(slots)]

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board with room for `slots` workers (4 MiB of address space each, resident only where touched)."""
        if slots < 1:
            raise ValueError(f"a board needs at least one slot, not {slots}")
        fd = os.memfd_create("edgeq-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, _size_bytes(slots))
        board = cls(fd, slots)
        board._cells[_H_VERSION] = VERSION
        board._cells[_H_SLOTS] = slots
        board._cells[_H_MAGIC] = MAGIC
        return board

    @classmethod
    def attach(cls, fd: int, bells: Sequence[int] = ()) -> Board:
        """The board behind an inherited descriptor, with the bells by slot.

        Raises ValueError if it is none, or of another version.
        """
        header = os.pread(fd, 3 * 8, 0)
        values = [int.from_bytes(header[at : at + 8], "little") for at in range(0, len(header), 8)]
        if len(values) < 3 or values[_H_MAGIC] != MAGIC:
            raise ValueError("the descriptor is not a board")
        if values[_H_VERSION] != VERSION:
            raise ValueError(f"the board has version {values[_H_VERSION]}, this program speaks {VERSION}")
        board = cls(fd, values[_H_SLOTS])
        board.bells.extend(bells)
        return board

    def close(self) -> None:
        """Unmap; rows of this board must not be used after it."""
        self._cells.release()
        self._tables.clear()
        with contextlib.suppress(BufferError):  # objects bound to single cells keep the mapping as long as they live
            self._map.close()
        os.close(self.fd)

    @property
    def started(self) -> bool:
        """Has the gateway served already? Then a worker that starts replaces one, and does what it can."""
        return bool(self._cells[_H_STARTED])

    def set_started(self, started: bool) -> None:
        """For the supervisor: all workers of its first configuration serve, or, on a predecessor's board, not yet."""
        self._cells[_H_STARTED] = int(started)

    def row(self, slot: int) -> Row:
        """A worker's row."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return self._rows[slot]

    def cells(self, at: int, size: int) -> memoryview:
        """A part of the board, for those who are bound to it (resources.py, gcra_table.py)."""
        return self._cells[at : at + size]

    def resource_block(self, slot: int, index: int) -> memoryview:
        """A resource's cells in a worker's row; in the row after the last one, those of the dead."""
        return self.cells(_HEADER + slot * _ROW + _R_RESOURCES + index * _RESOURCE, _RESOURCE)

    def report(self, slot: int) -> Page:
        """What a worker says of itself, as JSON (worker/report.py); in the row after the last one, what of it is kept
        of the dead."""
        return Page(self.cells(_HEADER + slot * _ROW + _R_REPORT, REPORT_CELLS))

    def events(self, slot: int) -> Lines:
        """A worker's last events, one JSON object each."""
        return Lines(self.cells(_HEADER + slot * _ROW + _R_EVENTS, EVENT_CELLS))

    def requests(self, slot: int) -> tuple[Lines, Lines]:
        """A worker's last requests that were refused or have failed, and those that were answered but degraded, failed
        over or slow, one JSON object each (explain/keep.py). Many of the latter leave the former where they are."""
        start, size = _HEADER + slot * _ROW + _R_REQUESTS, REQUEST_CELLS // 2
        return Lines(self.cells(start, size)), Lines(self.cells(start + size, size))

    def rates(self) -> memoryview:
        """The cells of the table of arrival times: RATES triples, signed."""
        return self._tables[0]

    def rate_lanes(self) -> memoryview:
        """RATES signed cells for each slot."""
        return self._tables[1]

    def spent(self) -> memoryview:
        """The cells of the table of money: SPENT triples, signed."""
        return self._tables[2]

    def spent_lanes(self) -> memoryview:
        """SPENT signed cells for each slot."""
        return self._tables[3]

    def slots_ever_used(self) -> memoryview:
        """One cell: how many slots have ever had a worker; their lanes outlive them."""
        return self.cells(_H_SLOTS_EVER, 1)

    def annex(self) -> memoryview | None:
        """Memory behind the cells, for what the supervisor alone writes and reads (ring.py); None if there is none.

        It lives as long as the board does.
        """
        start = self._annex_at()
        size = os.fstat(self.fd).st_size - start
        return memoryview(mmap.mmap(self.fd, size, offset=start)) if size > 0 else None

    def renew_annex(self, size: int) -> None:
        """Have an annex of so many bytes, all zeros; 0: none. Nobody may touch the memory of the old one any more."""
        start = self._annex_at()
        os.ftruncate(self.fd, start)
        os.ftruncate(self.fd, start + size)

    def _annex_at(self) -> int:
        return -(-_size_bytes(self.slots) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

    @property
    def rows_used(self) -> int:
        """Rows that readers must look at: one more than the highest slot that was ever used."""
        return int(self._cells[_H_ROWS_USED])

    def listener_total(self, listener_index: int) -> int:
        """Open connections of one listener, machine-wide."""
        cells = self._cells
        at = _HEADER + _R_LISTENERS + listener_index
        total = 0
        for _ in range(cells[_H_ROWS_USED]):
            total += cells[at]
            at += _ROW
        return total

    def client_total(self, client_hash: int) -> int:
        """Open connections of one client, machine-wide."""
        total = 0
        for slot in range(self.rows_used):
            total += self._rows[slot].clients.references(client_hash)
        return total

    def requests_total(self) -> int:
        """Requests of all workers, the dead ones included."""
        return int(self._cells[_H_DEAD_REQUESTS]) + sum(self.row(slot).requests for slot in range(self.rows_used))

    def connections_total(self) -> int:
        """Accepted connections of all workers, the dead ones included."""
        return int(self._cells[_H_DEAD_CONNECTIONS]) + sum(self.row(slot).connections for slot in range(self.rows_used))

    def listener_index(self, address: str) -> int:
        """Which index the supervisor gave to a listener; the shared last one if it gave none."""
        wanted = stable_hash(address)
        for index in range(LISTENERS):
            if self._cells[_H_LISTENERS + index] == wanted:
                return index
        return LISTENERS - 1

    def highs_begun(self) -> int:
        """How often high-water marks were begun anew; workers look at each tick."""
        return int(self._cells[_H_HIGHS])

    def resource_index(self, name: str) -> int:
        """Which index the supervisor gave to a resource; the shared last one if it gave none."""
        wanted = stable_hash(name)
        for index in range(RESOURCES - 1):
            if self._cells[_H_RESOURCES + index] == wanted:
                return index
        return RESOURCES - 1

    def learned_limit(self, index: int) -> int:
        """Requests in flight that the leader has learned to be the limit of a resource, 0 if it has not yet."""
        return int(self._cells[_H_LIMITS + index])

    def set_learned_limit(self, index: int, limit: int) -> None:
        """For the leader only. A limit outlives its leader: the next one goes on from it."""
        self._cells[_H_LIMITS + index] = limit

    def leader(self, now_ns: int) -> int:
        """The slot of the worker that decides for all: the lowest that serves and has flushed lately, -1 for none.

        Two may think that they lead while one comes or goes; so a leader's word must be harmless if said twice.
        """
        for slot in range(self.rows_used):
            row = self._rows[slot]
            if row.state == STATE_SERVING and now_ns - row.heartbeat_ns < _FRESH_NS:
                return slot
        return -1

    # What follows is for the supervisor only.

    def use(self, slot: int) -> Row:
        """Take a row into the sums."""
        row = self.row(slot)
        cells = self._cells
        if cells[_H_ROWS_USED] <= slot:
            cells[_H_ROWS_USED] = slot + 1
        if cells[_H_SLOTS_EVER] <= slot:
            cells[_H_SLOTS_EVER] = slot + 1
        return row

    def shrink(self, rows: int) -> None:
        """Take the rows from there on out of the sums, which every request pays for; they are buried."""
        self._cells[_H_ROWS_USED] = rows

    def bury(self, slot: int) -> None:
        """Forget a dead worker's gauges, keep its counters."""
        row = self.row(slot)
        self._cells[_H_DEAD_CONNECTIONS] += row.connections
        self._cells[_H_DEAD_REQUESTS] += row.requests
        for index in self._resource_indices():
            _inherit(self.resource_block(self.slots, index), self.resource_block(slot, index))
        start, size = (_HEADER + slot * _ROW) * 8, _ROW * 8
        try:
            # Gives the memory back and reads as zeros from then on, in every process.
            self._map.madvise(mmap.MADV_REMOVE, start, size)
        except OSError:  # a kernel that cannot
            self._map[start : start + size] = bytes(size)

    def begin_highs(self) -> None:
        """Have the workers begin their high-water marks anew; those of the dead are gone."""
        for index in self._resource_indices():
            self.resource_block(self.slots, index)[QUEUED_HIGH] = 0
        self._cells[_H_HIGHS] += 1

    def assign_resources(self, names: Sequence[str]) -> None:
        """Give each resource an index, by the rules of `assign_listeners`: while it has requests, it keeps it.

        Whoever gets the index of one that is gone begins with counters of 0 and without a learned limit.
        """
        cells = self._cells
        wanted = {stable_hash(name): name for name in names}
        held = {cells[_H_RESOURCES + index] for index in range(RESOURCES - 1)}
        for one in wanted:
            if one not in held:
                index = self._free_resource(wanted)
                if index < 0:
                    return
                if cells[_H_RESOURCES + index]:
                    self._restart_counters(index)
                cells[_H_LIMITS + index] = 0
                cells[_H_RESOURCES + index] = one

    def _resource_indices(self) -> list[int]:
        used = [index for index in range(RESOURCES - 1) if self._cells[_H_RESOURCES + index]]
        return [*used, RESOURCES - 1]

    def _free_resource(self, wanted: Container[int]) -> int:
        second_choice = -1
        for index in range(RESOURCES - 1):
            holder = self._cells[_H_RESOURCES + index]
            if holder == 0:
                return index
            if second_choice < 0 and holder not in wanted and not self._is_busy(index):
                second_choice = index
        return second_choice

    def _is_busy(self, index: int) -> bool:
        """Does a request run or wait there?"""
        blocks = [self.resource_block(slot, index) for slot in range(self.rows_used)]
        return any(block[0] or block[1] for block in blocks)

    def _restart_counters(self, index: int) -> None:
        """Sums are made modulo 2**64, so what all rows hold is taken away in the row of the dead; they have writers."""
        dead = self.resource_block(self.slots, index)
        dead[QUEUED_HIGH] = 0
        rows = [self.resource_block(slot, index).tolist() for slot in range(self.rows_used)]
        for counter in range(RESOURCE_GAUGES, _RESOURCE):
            dead[counter] = -sum(row[counter] for row in rows) & _MASK

    def assign_listeners(self, addresses: Sequence[str]) -> None:
        """Give each listener an index that it keeps: also over reloads, and if it goes and comes back.

        An index changes its owner only if the old one is gone and has no connection left.
        """
        wanted = {stable_hash(address): address for address in addresses}
        held = {self._cells[_H_LISTENERS + index] for index in range(LISTENERS)}
        for one in wanted:
            if one not in held:
                index = self._free_index(wanted)
                if index >= 0:
                    self._cells[_H_LISTENERS + index] = one

    def _free_index(self, wanted: Container[int]) -> int:
        second_choice = -1
        for index in range(LISTENERS):
            holder = self._cells[_H_LISTENERS + index]
            if holder == 0:
                return index
            if second_choice < 0 and holder not in wanted and self.listener_total(index) == 0:
                second_choice = index
        return second_choice


def _size_bytes(slots: int) -> int:
    return 8 * (_HEADER + (slots + 1) * _ROW + (slots + RATE_CELLS) * RATES + (slots + SPENT_CELLS) * SPENT)


def _inherit(dead: memoryview, row: memoryview) -> None:
    """Add one row's counters to those of the dead."""
    dead[QUEUED_HIGH] = max(dead[QUEUED_HIGH], row[QUEUED_HIGH])
    for counter, count in enumerate(row.tolist()):
        if count and counter >= RESOURCE_GAUGES:
            dead[counter] = (dead[counter] + count) & _MASK
