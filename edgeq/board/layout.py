"""The board: one memory file of 64-bit cells in which each worker writes its own row and everybody reads all rows.

Invariants
- One writer per row: worker N writes row N, the supervisor writes the header, and a row only while its worker is dead.
- Nobody locks. An aligned 8-byte store is one store on the platforms that we support, so a cell is never half old and
  half new; two cells may be (a reader can be off by what is being changed at that moment, never by more).
- A dead worker's gauges vanish with `bury`; its counters are kept, so that totals of the machine never go back.

    header    magic, version, slots, rows in use, counters of the dead, one hash per listener index
    row x N   cells (below), open connections per listener index, client table

The client table is open addressing over a window of `PROBE` pairs of (hash, open connections): hash 0 is free and ends
a search, a pair with count 0 may be taken by another client. A client that finds no room in its window is not counted
(`untracked` says how often): the limit per client is then too lax for it, and nothing leaks.

The memory is a memfd and not a file in /dev/shm: it has no name, needs no cleaning, and goes with its last process.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Container, Sequence
from typing import Final

MAGIC: Final = 0x6571_2D62_6F61_7264
VERSION: Final = 1
LISTENERS: Final = 64
"""Listener indices; listeners beyond them share the last one."""
CLIENTS: Final = 8192
PROBE: Final = 32

_HEADER: Final = 128
_H_MAGIC: Final = 0
_H_VERSION: Final = 1
_H_SLOTS: Final = 2
_H_ROWS_USED: Final = 3
_H_DEAD_CONNECTIONS: Final = 4
_H_DEAD_REQUESTS: Final = 5
_H_LISTENERS: Final = 64

_PID: Final = 0
_STATE: Final = 1
_GENERATION: Final = 2
_HEARTBEAT_NS: Final = 3
_LAG_US: Final = 4
_CONNECTIONS: Final = 5
_REQUESTS: Final = 6
_IN_FLIGHT: Final = 7
_UNTRACKED: Final = 8
_R_LISTENERS: Final = 64
_R_CLIENTS: Final = _R_LISTENERS + LISTENERS
_ROW: Final = _R_CLIENTS + 2 * CLIENTS
_CLIENT_MASK: Final = CLIENTS - 1

STATE_NONE: Final = 0
STATE_STARTING: Final = 1
STATE_SERVING: Final = 2
STATE_DRAINING: Final = 3
STATE_NAMES: Final = ("none", "starting", "serving", "draining")


def stable_hash(text: str) -> int:
    """A 64-bit hash, never 0, that is the same in every process (Python's own hash is not)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


class Row:
    """One worker's cells. Only that worker calls what writes."""

    __slots__ = ("_base", "_cells", "slot")

    def __init__(self, cells: memoryview, slot: int) -> None:
        self.slot = slot
        self._cells = cells
        self._base = _HEADER + slot * _ROW

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
        if client_hash:
            self._add_client(client_hash)

    def remove_connection(self, listener_index: int, client_hash: int = 0) -> None:
        """The end of a connection, with the arguments of its beginning."""
        at = self._base + _R_LISTENERS + listener_index
        if self._cells[at] > 0:
            self._cells[at] -= 1
        if client_hash:
            self._remove_client(client_hash)

    def client_count(self, client_hash: int) -> int:
        """This worker's open connections of one client."""
        at = self._find(client_hash)
        return 0 if at < 0 else int(self._cells[at + 1])

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

    def _pair(self, number: int) -> int:
        return self._base + _R_CLIENTS + 2 * (number & _CLIENT_MASK)

    def _find(self, client_hash: int) -> int:
        for step in range(PROBE):
            at = self._pair(client_hash + step)
            found = self._cells[at]
            if found == client_hash:
                return at
            if found == 0:
                return -1
        return -1

    def _add_client(self, client_hash: int) -> None:
        cells = self._cells
        free = -1
        for step in range(PROBE):
            at = self._pair(client_hash + step)
            found = cells[at]
            if found == client_hash:
                cells[at + 1] += 1
                return
            if free < 0 and cells[at + 1] == 0:
                free = at
            if found == 0:
                break
        if free < 0:
            cells[self._base + _UNTRACKED] += 1
            return
        # The count is 0 here, so a reader that sees only the new hash reads "none", not another client's number.
        cells[free] = client_hash
        cells[free + 1] = 1

    def _remove_client(self, client_hash: int) -> None:
        cells = self._cells
        at = self._find(client_hash)
        if at < 0 or cells[at + 1] == 0:
            return
        cells[at + 1] -= 1
        # At the end of a chain emptied pairs become free again, or searches would get longer for ever.
        number = (at - self._base - _R_CLIENTS) // 2
        if cells[self._pair(number + 1)]:
            return
        for step in range(CLIENTS):
            at = self._pair(number - step)
            if cells[at] == 0 or cells[at + 1]:
                return
            cells[at] = 0


class Board:
    """All rows. `Board.create` in the supervisor, `Board.attach` with the inherited descriptor in a worker."""

    __slots__ = ("_cells", "_map", "fd", "slots")

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, (_HEADER + slots * _ROW) * 8)
        self._cells = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board with room for `slots` workers (129 KiB of address space each, resident only where touched)."""
        if slots < 1:
            raise ValueError(f"a board needs at least one slot, not {slots}")
        fd = os.memfd_create("edgeq-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, (_HEADER + slots * _ROW) * 8)
        board = cls(fd, slots)
        board._cells[_H_VERSION] = VERSION
        board._cells[_H_SLOTS] = slots
        board._cells[_H_MAGIC] = MAGIC
        return board

    @classmethod
    def attach(cls, fd: int) -> Board:
        """The board behind an inherited descriptor. Raises ValueError if it is none, or of another version."""
        header = os.pread(fd, 3 * 8, 0)
        values = [int.from_bytes(header[at : at + 8], "little") for at in range(0, len(header), 8)]
        if len(values) < 3 or values[_H_MAGIC] != MAGIC:
            raise ValueError("the descriptor is not a board")
        if values[_H_VERSION] != VERSION:
            raise ValueError(f"the board has version {values[_H_VERSION]}, this program speaks {VERSION}")
        return cls(fd, values[_H_SLOTS])

    def close(self) -> None:
        """Unmap; rows of this board must not be used after it."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)

    def row(self, slot: int) -> Row:
        """A worker's row."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return Row(self._cells, slot)

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
        return sum(self.row(slot).client_count(client_hash) for slot in range(self.rows_used))

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

    # What follows is for the supervisor only.

    def use(self, slot: int) -> Row:
        """Take a row into the sums."""
        row = self.row(slot)
        if self._cells[_H_ROWS_USED] <= slot:
            self._cells[_H_ROWS_USED] = slot + 1
        return row

    def bury(self, slot: int) -> None:
        """Forget a dead worker's gauges, keep its counters."""
        row = self.row(slot)
        self._cells[_H_DEAD_CONNECTIONS] += row.connections
        self._cells[_H_DEAD_REQUESTS] += row.requests
        at = (_HEADER + slot * _ROW) * 8
        self._map[at : at + _ROW * 8] = bytes(_ROW * 8)

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
