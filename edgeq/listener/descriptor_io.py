"""Small questions to descriptors that have no transport yet."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from edgeq.listener.peer import UNIX_HOST, plain_host

_SO_MEMINFO: Final = 55
"""asm-generic/socket.h, since Linux 4.12; the socket module has no name for it."""
_MEMINFO: Final = struct.Struct("=9I")
_DROPS: Final = 8
"""SK_MEMINFO_DROPS (linux/sock_diag.h): sk_drops of a socket, which of a listening one are tcp_listendrop's."""


def descriptor_accept(sock: socket.socket) -> Callable[[], tuple[int, Any]]:
    """accept(2) that returns a bare descriptor.

    socket.accept() wraps it in a socket object that would be unwrapped at once, for 2.5 microseconds. What it calls for
    the descriptor is `_accept`, there in every CPython since 3.2; without it the public way is taken.
    """
    direct: Callable[[], tuple[int, Any]] | None = getattr(sock, "_accept", None)
    if direct is not None:
        return direct

    def accept() -> tuple[int, Any]:
        connection, address = sock.accept()
        return connection.detach(), address

    return accept


def socket_of(fd: int) -> socket.SocketType:
    """A thin socket object (the C type, without the Python wrapper) that owns the descriptor."""
    return socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, fd)


def bound_address(sock: socket.socket) -> tuple[str, int] | None:
    """The local address of all connections, or None if each has its own (the socket is bound to a wildcard)."""
    if sock.family == socket.AF_UNIX:
        return UNIX_HOST, 0
    host, port = sock.getsockname()[:2]
    return None if host in ("0.0.0.0", "::") else (plain_host(host), port)


def own_address(fd: int, family: int) -> tuple[str, int]:
    """The local address of one connection: a system call, so only for wildcards."""
    connection = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)
    try:
        host, port = connection.getsockname()[:2]
    finally:
        connection.detach()
    return plain_host(host), port


def has_left(fd: int) -> bool:
    """Whether the client has closed without sending anything, or reset."""
    connection = socket_of(fd)
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.detach()


def drops_of(listening: socket.socket) -> int:
    """How often the kernel has dropped a connection that should have come into this socket's accept queue.

    A 32-bit counter of attempts: a client that is not let in tries again, every second or so, and each time counts. It
    is full in nearly all cases; a shortage of memory counts as well. Of a Unix socket always 0: its clients are told.
    So is the answer of a kernel that does not know.
    """
    try:
        numbers = listening.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    drops: int = _MEMINFO.unpack(numbers)[_DROPS]
    return drops


def open_spare() -> int:
    """A descriptor to be closed when descriptors are short; -1 if there is none to be had."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
