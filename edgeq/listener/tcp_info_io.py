"""What the kernel knows of TCP sockets: struct tcp_info (linux/tcp.h; its fields only ever grow at the end).

A Unix socket has none of it, and each question says what it answers then.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from edgeq.listener.descriptor_io import socket_of

_QUEUE: Final = struct.Struct("II")
_QUEUE_AT: Final = 24
"""tcpi_unacked and tcpi_sacked, which of a listening socket are the queue's length and limit (net/ipv4/tcp.c)."""
_WAIT: Final = struct.Struct("I")
_WAIT_AT: Final = 52
"""tcpi_last_data_recv, milliseconds, as fine as the kernel's ticks (1 to 10 ms)."""
_TRAFFIC: Final = struct.Struct("QQ")
_TRAFFIC_AT: Final = 120
"""tcpi_bytes_acked and tcpi_bytes_received (since Linux 4.1)."""


def queue_length(listening: socket.socket) -> tuple[int, int]:
    """How many connections wait in the accept queue of a listening TCP socket, and how many may."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE_AT + _QUEUE.size)
    waiting, most = _QUEUE.unpack_from(info, _QUEUE_AT)
    return waiting, most


def queue_fill(listening: socket.socket) -> float:
    """How full that is, as a share of its limit."""
    waiting, most = queue_length(listening)
    return waiting / most if most else 0.0


def data_wait_us(connection: socket.SocketType) -> int:
    """How long ago the last byte came that a connection has received; 0 for a Unix socket.

    Right after it was read this is how long it has waited in the kernel, and never too long.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAIT_AT + _WAIT.size)
    except OSError:
        return 0
    wait_ms: int = _WAIT.unpack_from(info, _WAIT_AT)[0]
    return wait_ms * 1000


def taken_bytes(transport: Any) -> int:
    """What the client's kernel has acknowledged since the connection began: grows while the client reads.

    The transport's buffer would not do: a kernel that holds 128 KiB for a client takes nothing more until half of it
    has gone, which is minutes for a slow one. Returns: -1 where it cannot be known.
    """
    return traffic(transport)[0]


def traffic(transport: Any) -> tuple[int, int]:
    """Bytes on the wire since a connection began: those that the other side has acknowledged, and those that have come.

    Returns: -1 for both where it cannot be known.
    """
    extra = transport.get_extra_info("socket")
    fd = -1 if extra is None else int(extra.fileno())
    if fd < 0:
        return -1, -1
    connection = socket_of(fd)
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TRAFFIC_AT + _TRAFFIC.size)
    except OSError:
        return -1, -1
    finally:
        connection.detach()
    if len(info) < _TRAFFIC_AT + _TRAFFIC.size:
        return -1, -1
    acknowledged, received = _TRAFFIC.unpack_from(info, _TRAFFIC_AT)
    return acknowledged, received
