"""Attach the programs of `bpf` to listening sockets.

The option numbers and struct sock_fprog are the kernel's ABI on x86 and arm (asm-generic/socket.h); Python's socket
module does not name them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

from edgeq.supervisor.bpf import DROP_SYN, Instruction, steer

SO_ATTACH_FILTER: Final = 26
SO_GET_FILTER: Final = SO_ATTACH_FILTER
SO_DETACH_FILTER: Final = 27
SO_ATTACH_REUSEPORT_CBPF: Final = 51
SO_DETACH_REUSEPORT_BPF: Final = 68
_INSTRUCTION: Final = struct.Struct("=HBBI")
_PROGRAM: Final = struct.Struct("@HP")
_libc: Final = ctypes.CDLL(None)


def _attach(sock: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in program))
    sock.setsockopt(socket.SOL_SOCKET, option, _PROGRAM.pack(len(program), ctypes.addressof(code)))


def steer_group(sock: socket.socket, indices: Sequence[int] | None) -> None:
    """Let new connections reach only these members of the group of `sock`; None: all of them, by the kernel's hash."""
    if indices is not None:
        _attach(sock, SO_ATTACH_REUSEPORT_CBPF, steer(indices))
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 1)
    except OSError as error:
        if error.errno != errno.ENOENT:  # nothing was attached
            raise


def refuse_new(sock: socket.socket) -> None:
    """Let nothing new into a listening TCP socket. What waits in it stays, handshakes in flight complete.

    Some kernels (seen: 6.18.44) grant a filter on a TCP socket only to CAP_NET_ADMIN, which a gateway shall not have.
    There the socket stays open while its queue is emptied, and who comes between the last look and its end is lost.
    """
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(PermissionError):
            _attach(sock, SO_ATTACH_FILTER, DROP_SYN)


def let_in(sock: socket.socket) -> None:
    """Undo `refuse_new`."""
    if sock.family == socket.AF_UNIX:
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 1)
    except OSError as error:
        if error.errno != errno.ENOENT:  # nothing was attached
            raise


def is_refusing(sock: socket.socket) -> bool:
    """Is `refuse_new` in force, whoever has done it?"""
    instructions = ctypes.c_uint(0)  # 0: only count them (getsockopt of the socket module cannot ask for nothing)
    failed = _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_GET_FILTER, None, ctypes.byref(instructions))
    return not failed and instructions.value > 0
