"""Small questions to descriptors that have no transport yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from edgeq.listener.peer import UNIX_HOST, plain_host


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


def open_spare() -> int:
    """A descriptor to be closed when descriptors are short; -1 if there is none to be had."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
