"""What a supervisor leaves to its successor, by way of the service manager's store of descriptors.

::

    listen() -> Legacy.update -> FDSTORE=1 ... stop, or kill -9 ... LISTEN_FDS -> inherit() -> Listeners, Board, Fleet

Kept are all listening sockets, so that no connection which waits in an accept queue is lost; the board, so that
counters, learned limits and rates go on; and the notes, a memory file that says what neither can say of itself: the
kernel's numbering of the sockets in each group (shards.py) and which processes were the workers. After `kill -9` these
are still there and finish what they had begun (worker/control_io.py); the successor watches their ends.

Invariants: a socket is in the store before anybody is told of it, and is taken out when it is closed for good. Nothing
here must be right for the rest to be safe: what cannot be read, or is of another version, is not inherited.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgeq.board.layout import Board
from edgeq.config.address import ListenAddress
from edgeq.errors import EXIT_CONFIG, StartError
from edgeq.observe import log_io
from edgeq.supervisor.bpf_io import let_in
from edgeq.supervisor.shards import ShardOrder
from edgeq.supervisor.systemd_io import Notifier, Received

_log = log_io.get_logger()
_PREFIX: Final = "edgeq/"
"""No unit's name has a slash, and a unit's name is what its sockets are called unless they are named."""
_BOARD: Final = "edgeq/board"
_NOTES: Final = "edgeq/notes"
_SOCKET: Final = "edgeq/socket/"
_MAX_NOTES_BYTES: Final = 1 << 20


class Mate(msgspec.Struct, frozen=True):
    """A worker, so that no other process can be taken for it."""

    slot: int
    pid: int
    started: int
    """As proc(5) has it, in ticks after the boot."""


class Notes(msgspec.Struct, frozen=True):
    """The content of the notes."""

    orders: dict[str, list[int]] = {}
    """By address, the inodes of a group's sockets in the kernel's order."""
    workers: list[Mate] = []


@dataclass(slots=True)
class Inheritance:
    """What was handed to this process; empty without a service manager."""

    sockets: dict[ListenAddress, list[socket.socket]] = field(default_factory=dict)
    """Of a predecessor, in the kernel's order."""
    given: dict[ListenAddress, socket.socket] = field(default_factory=dict)
    """Of a .socket unit."""
    board_fd: int = -1
    notes_fd: int = -1
    workers: list[Mate] = field(default_factory=list)
    """That may still be there."""

    def take_board(self, slots: int) -> Board | None:
        """The predecessor's, if there is one that this program can go on with."""
        if self.board_fd < 0:
            return None
        try:
            board = Board.attach(self.board_fd)
        except (ValueError, OSError) as error:
            _log.warning("board of the last run not taken over", why=str(error))
            os.close(self.board_fd)
            self.board_fd = -1
            return None
        if board.slots != slots:
            board.close()
            self.board_fd = -1
            return None
        return board


def inherit(received: Sequence[Received]) -> Inheritance:
    """Sort what was received. Raises StartError for what a .socket unit must not pass."""
    found = Inheritance()
    notes = Notes()
    inodes: dict[int, socket.socket] = {}
    for name, fd in received:
        if name == _BOARD and found.board_fd < 0:
            found.board_fd = fd
        elif name == _NOTES and found.notes_fd < 0:
            found.notes_fd = fd
            notes = _read(fd)
        elif name.startswith(_SOCKET) and _listens(fd):
            inodes[os.fstat(fd).st_ino] = _adopted(fd)
        elif name.startswith(_PREFIX):
            os.close(fd)  # another version's, or a socket that was just being closed
        else:
            _give(found, name, fd)
    found.workers = notes.workers
    for order in notes.orders.values():
        found.sockets.update(_in_order(order, inodes))
    for sock in inodes.values():  # not noted yet: it listened last
        found.sockets.setdefault(place_of(sock), []).append(sock)
    return found


def place_of(sock: socket.socket) -> ListenAddress:
    """Where a socket listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return ListenAddress("unix", "", 0, os.fsdecode(name))
    return ListenAddress("ipv6" if sock.family == socket.AF_INET6 else "ipv4", name[0], name[1], "")


class Legacy:
    """Has kept what the successor shall find. Does nothing where there is no store."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._sockets: frozenset[int] = frozenset()
        self._orders: dict[str, list[int]] = {}
        self._workers: list[Mate] = []
        self._notes_fd = -1
        self.is_active = notifier.store_size > 0

    def begin(self, inheritance: Inheritance, board: Board) -> None:
        """Have the board and the notes kept; what was inherited is kept already."""
        if not self.is_active:
            return
        self._sockets = frozenset(_inode(sock) for socks in inheritance.sockets.values() for sock in socks)
        self._orders = {place.text(): [_inode(sock) for sock in socks] for place, socks in inheritance.sockets.items()}
        self._workers = list(inheritance.workers)
        if board.fd != inheritance.board_fd:
            self._notifier.unstore(_BOARD)
            self._store(_BOARD, board.fd)
        self._notes_fd = inheritance.notes_fd
        if self._notes_fd < 0:
            self._notes_fd = os.memfd_create(_NOTES, os.MFD_CLOEXEC)
            self._store(_NOTES, self._notes_fd)
        self._write()

    def require(self, sockets: int) -> None:
        """Raises StartError if so many sockets have no room: some would be lost at a restart, and nobody would know."""
        needed = sockets + 2
        if self.is_active and needed > self._notifier.store_size:
            raise StartError(
                f"the service manager keeps {self._notifier.store_size} descriptors, {needed} are needed:"
                f" set FileDescriptorStoreMax={needed} and Environment=FDSTORE={needed} in the unit",
                EXIT_CONFIG,
            )

    def update(self, groups: Mapping[str, Sequence[socket.socket]]) -> None:
        """These sockets, by address and in the kernel's order, are what shall be kept from now on."""
        if not self.is_active:
            return
        self._orders = {address: [_inode(sock) for sock in socks] for address, socks in groups.items()}
        self._write()
        wanted = {_inode(sock): sock for socks in groups.values() for sock in socks}
        for inode in wanted.keys() - self._sockets:
            self._store(f"{_SOCKET}{inode}", wanted[inode].fileno())
        for inode in self._sockets - wanted.keys():
            self._notifier.unstore(f"{_SOCKET}{inode}")
        self._sockets = frozenset(wanted)

    def note_workers(self, workers: Sequence[Mate]) -> None:
        """These processes accept connections, or finish."""
        self._workers = list(workers)
        self._write()

    def _store(self, name: str, fd: int) -> None:
        if not self._notifier.store(name, fd):
            _log.error("the service manager does not take a descriptor: it is lost at the next restart", name=name)

    def _write(self) -> None:
        if self._notes_fd >= 0:
            text = msgspec.json.encode(Notes(self._orders, self._workers)) + b"\n"
            with contextlib.suppress(OSError):
                os.pwrite(self._notes_fd, text, 0)  # what an older, longer text leaves behind it is not read


def _inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def _read(fd: int) -> Notes:
    try:
        return msgspec.json.decode(os.pread(fd, _MAX_NOTES_BYTES, 0).partition(b"\n")[0], type=Notes)
    except (msgspec.MsgspecError, OSError) as error:
        _log.warning("notes of the last run not understood", why=str(error))
        return Notes()


def _listens(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return (
                sock.type == socket.SOCK_STREAM
                and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            )
    except OSError:
        return False


def _adopted(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    let_in(sock)  # a predecessor may have died while it kept new connections out
    return sock


def _give(found: Inheritance, name: str, fd: int) -> None:
    if not _listens(fd):
        raise StartError(
            f"descriptor {name!r} of the .socket unit is no listening stream socket (ListenStream=, Accept=no)",
            EXIT_CONFIG,
        )
    sock = _adopted(fd)
    place = place_of(sock)
    if place in found.given:
        raise StartError(
            f"the .socket unit has {place.text()} twice: once is enough, all workers accept from it", EXIT_CONFIG
        )
    found.given[place] = sock


def _in_order(order: Sequence[int], inodes: dict[int, socket.socket]) -> dict[ListenAddress, list[socket.socket]]:
    """Take a group's sockets out of `inodes`. Those that are gone left as the kernel lets them leave."""
    shards = ShardOrder()
    for inode in order:
        shards.listened(inode)
    for inode in order:
        if inode not in inodes:
            shards.closed(inode)
    socks = [inodes.pop(inode) for inode in shards.slots]
    return {place_of(socks[0]): socks} if socks else {}
