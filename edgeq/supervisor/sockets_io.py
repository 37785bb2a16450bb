"""The listening sockets: one per TCP listener and worker slot, one per Unix listener, kept open by the supervisor.

A connection that waits in an accept queue lives as long as anybody has the socket open. So the supervisor keeps a
duplicate of everything: a worker's death loses nothing that waited for it, and its successor gets the same socket.

No connection is ever reset by a change, because sockets close in this order only: nothing new enters (`steer` away from
the shard, or `refuse` for a whole listener) -> handshakes in flight complete -> the worker accepts until the queue is
empty -> `remove`. Removing shuts the socket down, so that it is gone for every process at that moment and the numbering
of its group is known.
Binding is all or nothing: every socket of a change is bound before the first one listens.

Sockets may outlive us: those of a .socket unit are the service manager's, and where it keeps descriptors, all others
are left to our successor (legacy_io.py). When we end, nothing is steered, refused or shut there: what waits, waits on.
Kernel facts: man 7 socket (SO_REUSEPORT, numbering), verified on Linux 6.18.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edgeq.config.address import ListenAddress, parse_listen
from edgeq.config.schema import Listener
from edgeq.errors import StartError
from edgeq.observe import log_io
from edgeq.supervisor import bpf_io, holder_io
from edgeq.supervisor.legacy_io import Inheritance, Legacy
from edgeq.supervisor.shards import ShardOrder

_log = log_io.get_logger()
_PEERCRED: Final = struct.Struct("3i")


SHARED: Final = -1
"""Instead of a slot, where all workers accept from one socket."""
SPARE: Final = -2
"""From here downwards: instead of a slot, for the shards of a predecessor that no slot has taken yet."""


class Queue(NamedTuple):
    """An accept queue in which connections wait."""

    listener: Listener
    slot: int
    sock: socket.socket


class Group(ABC):
    """All sockets of one listener."""

    def __init__(self, listener: Listener, where: ListenAddress) -> None:
        self.name = listener.address
        self.listener = listener
        """As it was configured last."""
        self.where = where

    is_given = False
    """Are its sockets a .socket unit's?"""

    @property
    def complaint(self) -> str:
        """How an error about it begins, for people who may know it by its name."""
        name = self.listener.name
        return f"cannot listen on {self.name}" + (f" (listener {name})" if name not in ("", self.name) else "")

    @abstractmethod
    def bind(self, slots: Collection[int]) -> None:
        """Make sockets for the slots that have none. Raises StartError; then `unbind` takes back what was made."""

    @abstractmethod
    def unbind(self) -> None:
        """Close what was bound and does not listen yet."""

    @abstractmethod
    def listen(self, backlog: int, serving: Container[int]) -> None:
        """Let what was bound listen, and give everything this backlog (a live change is safe: nothing is dropped)."""

    @abstractmethod
    def sock(self, slot: int) -> socket.socket:
        """The socket of a slot."""

    @abstractmethod
    def socks(self) -> dict[int, socket.socket]:
        """All of them, by slot."""

    @abstractmethod
    def in_order(self) -> list[socket.socket]:
        """All that listen, in the kernel's order."""

    @abstractmethod
    def steer(self, serving: Container[int]) -> None:
        """New connections go only to the shards of these slots."""

    @abstractmethod
    def refuse(self) -> None:
        """Nothing new enters."""

    @abstractmethod
    def refuse_slot(self, slot: int) -> None:
        """Nothing new enters a slot's shard: what was steered too late is tried again by its client."""

    @abstractmethod
    def remove_slot(self, slot: int, serving: Container[int]) -> None:
        """Close a slot's shard, whose queue is empty."""

    @abstractmethod
    def close(self) -> None:
        """Close all, for every process."""

    def leave(self) -> None:
        """Close our descriptors; whoever has others goes on."""
        for sock in self.socks().values():
            sock.close()


class TcpGroup(Group):
    """A SO_REUSEPORT group: every slot has a queue of its own."""

    def __init__(self, listener: Listener, where: ListenAddress, inherited: Sequence[socket.socket] = ()) -> None:
        """`inherited`: a predecessor's, in the kernel's order."""
        super().__init__(listener, where)
        self.port = where.port
        self._socks: dict[int, socket.socket] = {}
        self._order = ShardOrder()
        for at, sock in enumerate(inherited):
            self._socks[SPARE - at] = sock
            self._order.listened(SPARE - at)

    def bind(self, slots: Collection[int]) -> None:
        for slot in slots:
            if slot not in self._socks:
                if spare := self.spare():
                    self._socks[slot] = self._socks.pop(spare[0])
                    self._order.renamed(spare[0], slot)
                    continue
                if not self._socks:
                    self._require_free()
                self._socks[slot] = sock = self._bound(reuse_port=True)
                self.port = sock.getsockname()[1]

    def unbind(self) -> None:
        for slot in [slot for slot in self._socks if slot not in self._order.slots]:
            self._socks.pop(slot).close()

    def listen(self, backlog: int, serving: Container[int]) -> None:
        new = [slot for slot in self._socks if slot not in self._order.slots]
        if new and len(self._order):
            # Newcomers inherit the program: without it they would get connections before they have a worker.
            current = [index for index, slot in enumerate(self._order.slots) if slot in serving]
            bpf_io.steer_group(self._any(), current or range(len(self._order)))
        for slot in self._order.slots:
            self._socks[slot].listen(backlog)
        for slot in new:
            self._socks[slot].listen(backlog)
            self._order.listened(slot)

    def sock(self, slot: int) -> socket.socket:
        return self._socks[slot]

    def socks(self) -> dict[int, socket.socket]:
        return self._socks

    def spare(self) -> list[int]:
        """Instead of slots, what stands for inherited shards that no slot has."""
        return [slot for slot in self._order.slots if slot <= SPARE]

    def in_order(self) -> list[socket.socket]:
        return [self._socks[slot] for slot in self._order.slots]

    def steer(self, serving: Container[int]) -> None:
        if len(self._order):
            bpf_io.steer_group(self._any(), self._order.steering(serving))

    def refuse(self) -> None:
        for sock in self._socks.values():
            bpf_io.refuse_new(sock)

    def refuse_slot(self, slot: int) -> None:
        if slot in self._socks:
            bpf_io.refuse_new(self._socks[slot])

    def remove_slot(self, slot: int, serving: Container[int]) -> None:
        if slot not in self._socks:
            return
        meanwhile = self._order.steering_while_closing(slot, serving)
        if meanwhile is not None:
            bpf_io.steer_group(self._any(), meanwhile)
        _shut(self._socks.pop(slot))
        self._order.closed(slot)
        self.steer(serving)

    def close(self) -> None:
        while self._socks:
            _shut(self._socks.popitem()[1])
        self._order = ShardOrder()

    def _any(self) -> socket.socket:
        return self._socks[self._order.slots[0]]

    def _bound(self, reuse_port: bool) -> socket.socket:
        family = socket.AF_INET6 if self.where.family == "ipv6" else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # [::] and 0.0.0.0 are two listeners, each with its own limits.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((self.where.host, self.port))
        except OSError as error:
            sock.close()
            raise StartError(f"{self.complaint}: {self._explain(error)}") from error
        return sock

    def _require_free(self) -> None:
        """SO_REUSEPORT would let us join another program of the same user without a word, and take half its clients."""
        if self.port == 0:
            return
        try:
            self._bound(reuse_port=False).close()
        except StartError:
            inodes = holder_io.listening_inodes(self.port)
            if not inodes or not inodes <= _own_inodes():
                raise

    def _explain(self, error: OSError) -> str:
        match error.errno:
            case errno.EADDRINUSE:
                inodes = holder_io.listening_inodes(self.port)
                holder: object = holder_io.holder_of(inodes)
                if holder is None:
                    holder = f"a process that cannot be seen from here; as root: ss -ltnp 'sport = :{self.port}'"
                    if not inodes:
                        return "the port is in use (nobody listens on it: it is bound, or an outgoing connection's)"
                return f"the port is in use (by {holder})"
            case errno.EACCES:
                return f"no right to bind port {self.port} (CAP_NET_BIND_SERVICE or root is needed below 1024)"
            case errno.EADDRNOTAVAIL:
                return f"no interface of this machine has the address {self.where.host}"
            case errno.EAFNOSUPPORT:
                return "the kernel does not support this family of addresses"
        return error.strerror or str(error)


class SharedGroup(Group):
    """One socket that all workers accept from."""

    _sock: socket.socket | None = None

    def sock(self, slot: int) -> socket.socket:
        assert self._sock is not None
        return self._sock

    def socks(self) -> dict[int, socket.socket]:
        return {SHARED: self._sock} if self._sock is not None else {}

    def steer(self, serving: Container[int]) -> None:
        pass

    def refuse_slot(self, slot: int) -> None:
        pass

    def remove_slot(self, slot: int, serving: Container[int]) -> None:
        pass


class UnixGroup(SharedGroup):
    """A socket with a path."""

    def __init__(self, listener: Listener, where: ListenAddress, inherited: Sequence[socket.socket] = ()) -> None:
        super().__init__(listener, where)
        self._path = UnixPath(where.path, 0o666)
        self._listening = False
        for sock in inherited:
            # Without its path nobody reaches it any more.
            if self._sock is None and self._path.adopt():
                self._sock = sock
                self._listening = True
            else:
                sock.close()

    def bind(self, slots: Collection[int]) -> None:
        if self._sock is None:
            self._sock = self._path.bind(self.complaint)

    def unbind(self) -> None:
        if not self._listening:
            self.close()

    def listen(self, backlog: int, serving: Container[int]) -> None:
        if self._sock is not None:
            self._sock.listen(backlog)
            self._listening = True

    def in_order(self) -> list[socket.socket]:
        return [self._sock] if self._sock is not None and self._listening else []

    def refuse(self) -> None:
        self._path.unlink()

    def close(self) -> None:
        self._path.unlink()
        if self._sock is not None:
            _shut(self._sock)
            self._sock = None


class GivenGroup(SharedGroup):
    """A socket of a .socket unit. It listens before us and after us, so here it is never closed, only let go."""

    is_given = True

    def __init__(self, listener: Listener, where: ListenAddress, given: socket.socket) -> None:
        super().__init__(listener, where)
        self._sock = given.dup()  # the configuration may let it go, and ask for it again

    def bind(self, slots: Collection[int]) -> None:
        pass

    def unbind(self) -> None:
        pass

    def listen(self, backlog: int, serving: Container[int]) -> None:
        self.sock(SHARED).listen(backlog)

    def in_order(self) -> list[socket.socket]:
        return []  # it is not ours to leave

    def refuse(self) -> None:
        pass

    def close(self) -> None:
        _log.warning("the .socket unit still listens where nobody accepts", address=self.name)
        self.leave()


class UnixPath:
    """The file of a Unix socket: replaced only if nobody answers there, removed only if it is still ours."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._made: tuple[int, int] | None = None

    def bind(self, failure: str) -> socket.socket:
        """A bound socket with its mode set. Raises StartError, whose message begins with `failure`."""
        self._clear(failure)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind(self._path)
            os.chmod(self._path, self._mode)
            found = os.stat(self._path)
        except OSError as error:
            sock.close()
            raise StartError(f"{failure}: {error.strerror}") from error
        self._made = (found.st_dev, found.st_ino)
        return sock

    def adopt(self) -> bool:
        """The socket is there already. Returns whether its path is, too."""
        try:
            found = os.lstat(self._path)
        except OSError:
            return False
        self._made = (found.st_dev, found.st_ino)
        return stat.S_ISSOCK(found.st_mode)

    def unlink(self) -> None:
        """Take the name away; the socket stays."""
        if self._made is not None:
            with contextlib.suppress(OSError):
                found = os.stat(self._path)
                if (found.st_dev, found.st_ino) == self._made:
                    os.unlink(self._path)
            self._made = None

    def _clear(self, failure: str) -> None:
        try:
            if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
                raise StartError(f"{failure}: {self._path} exists and is not a socket")
        except OSError:
            return  # nothing there, or a reason that bind will say better
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self._path)
            except ConnectionRefusedError:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
                return
            except BlockingIOError:
                raise StartError(f"{failure}: the socket is in use (its accept queue is full)") from None
            except OSError as error:
                raise StartError(f"{failure}: {error.strerror}") from error
            pid = peer(probe)[0]
        raise StartError(f"{failure}: the socket is in use (by {holder_io.describe(pid)})")


class Listeners:
    """All groups, by address."""

    def __init__(self, inheritance: Inheritance | None = None, legacy: Legacy | None = None) -> None:
        """Without a legacy nothing but a .socket unit's sockets outlives us."""
        self._groups: dict[str, Group] = {}
        self._serving: Container[int] = frozenset()
        self._inherited = dict(inheritance.sockets) if inheritance is not None else {}
        self._given = dict(inheritance.given) if inheritance is not None else {}
        self._legacy = legacy

    @property
    def addresses(self) -> tuple[str, ...]:
        """Everything that is bound, in the order it was first asked for."""
        return tuple(self._groups)

    @property
    def kept(self) -> frozenset[str]:
        """Addresses whose sockets outlive us."""
        keeps_all = self._legacy is not None and self._legacy.is_active
        return frozenset(address for address, group in self._groups.items() if keeps_all or group.is_given)

    @property
    def spare(self) -> frozenset[int]:
        """Instead of slots, what stands for a predecessor's shards that no slot has."""
        return frozenset(slot for group in self._groups.values() for slot in group.socks() if slot <= SPARE)

    def ensure(self, wanted: Sequence[Listener], slots: Collection[int]) -> None:
        """Sockets for all these listeners and slots, listening. Raises StartError and leaves all as it was."""
        added: list[str] = []
        try:
            for one in wanted:
                if one.address not in self._groups and self._add(one):
                    added.append(one.address)
                self._groups[one.address].bind(slots)
            if self._legacy is not None:
                groups = [group for group in self._groups.values() if not group.is_given]
                self._legacy.require(sum(len(group.socks()) for group in groups))
            for one in wanted:
                self._listen(one)
        except StartError:
            for group in self._groups.values():
                group.unbind()
            for address in added:
                self._groups.pop(address).close()
            raise
        self._take_the_rest()
        self._note()
        for address in added:
            group = self._groups[address]
            port = group.port if isinstance(group, TcpGroup) else None
            _log.info("listening", address=address, port=port, shards=len(slots) if port is not None else 1)

    def _add(self, one: Listener) -> bool:
        """Make a group. Returns whether it is a new one: what was there before us is not taken back."""
        where = parse_listen(one.address)
        if where in self._given:
            self._groups[one.address] = GivenGroup(one, where, self._given[where])
            return False
        inherited = self._inherited.pop(where, ())
        self._groups[one.address] = _group(one, where, inherited)
        if inherited:
            _log.info("listener taken over", address=one.address, shards=len(inherited))
        return not inherited

    def _take_the_rest(self) -> None:
        """What a predecessor listened on and the configuration does not name any more, so that it can be retired."""
        while self._inherited:
            where, socks = self._inherited.popitem()
            address = where.text()
            self._groups[address] = _group(Listener(address=address, name=address), where, socks)

    @property
    def unnamed(self) -> list[str]:
        """Where a .socket unit listens, and no listener does."""
        return [where.text() for where in self._given if not any(where == one.where for one in self._groups.values())]

    def _note(self) -> None:
        if self._legacy is not None:
            self._legacy.update({address: group.in_order() for address, group in self._groups.items()})

    def _listen(self, one: Listener) -> None:
        try:
            self._groups[one.address].listen(one.backlog, self._serving)
            self._groups[one.address].listener = one
        except OSError as error:
            raise StartError(f"{self._groups[one.address].complaint}: {error.strerror}") from error

    def sockets_of(self, slot: int, addresses: Sequence[str]) -> list[socket.socket]:
        """A slot's sockets for these addresses, in their order."""
        return [self._groups[address].sock(slot) for address in addresses]

    def waiting(self, addresses: Sequence[str]) -> list[Queue]:
        """The accept queues of these listeners that are not empty."""
        poll = select.poll()
        queues: dict[int, Queue] = {}
        for address in addresses:
            group = self._groups.get(address)
            if group is not None:
                for slot, sock in group.socks().items():
                    queues[sock.fileno()] = Queue(group.listener, slot, sock)
                    poll.register(sock, select.POLLIN)
        return [queues[fd] for fd, event in poll.poll(0) if event & select.POLLIN]

    def queues(self) -> list[Queue]:
        """All accept queues."""
        groups = self._groups.values()
        return [Queue(group.listener, slot, sock) for group in groups for slot, sock in group.socks().items()]

    def steer(self, serving: Collection[int]) -> None:
        """New connections go to these slots only (to any slot if there is none to choose)."""
        self._serving = serving
        for group in self._groups.values():
            try:
                group.steer(serving)
            except OSError as error:
                _log.warning("steering failed", address=group.name, error=error.strerror)

    def refuse(self, addresses: Sequence[str]) -> None:
        """Nothing new enters these listeners."""
        for address in addresses:
            if address in self._groups:
                self._groups[address].refuse()

    def refuse_slot(self, slot: int) -> None:
        """Nothing new enters a slot's shards."""
        for group in self._groups.values():
            group.refuse_slot(slot)

    def remove_slot(self, slot: int) -> None:
        """Close a slot's shards; their queues are empty."""
        for group in self._groups.values():
            group.remove_slot(slot, self._serving)
        self._note()

    def remove(self, address: str) -> None:
        """Close a whole listener; its queues are empty."""
        self._groups.pop(address).close()
        self._note()

    def close(self) -> None:
        """Close everything, but leave what is kept."""
        kept = self.kept
        while self._groups:
            address, group = self._groups.popitem()
            if address in kept:
                group.leave()
            else:
                group.close()


def _group(one: Listener, where: ListenAddress, inherited: Sequence[socket.socket]) -> Group:
    return (UnixGroup if where.family == "unix" else TcpGroup)(one, where, inherited)


def peer(sock: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end of a Unix socket (SO_PEERCRED)."""
    pid, uid, gid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return pid, uid, gid


def kernel_backlog_limit() -> int | None:
    """net.core.somaxconn, to which listen() cuts every backlog without a word; None if it cannot be read."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return None


def _shut(sock: socket.socket) -> None:
    """Close for every process that has it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _own_inodes() -> set[int]:
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found = os.fstat(int(fd))
            if stat.S_ISSOCK(found.st_mode):
                inodes.add(found.st_ino)
    return inodes
