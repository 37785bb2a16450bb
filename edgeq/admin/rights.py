"""Who may do what on the admin socket, told by the kernel (SO_PEERCRED, SO_PEERGROUPS) and not by the client.

    root, and the user that edgeq runs as     may change
    members of `server.admin_group`           may read
    everybody else                            may read only if `server.admin_mode` lets others connect, such as "0666"

The mode of the socket decides who can connect at all; this decides again, since a directory or a mode is easily wrong.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal

from edgeq.supervisor.sockets_io import peer

Level = Literal["viewer", "admin"]

_SO_PEERGROUPS: Final = 59
_MAX_GROUPS: Final = 256
"""As many as fit into what Python lets getsockopt return, 1024 bytes."""
_OTHERS_MAY_WRITE: Final = 0o002
"""Connecting needs write permission (unix(7))."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Rights:
    """The rule above: `uid` is that of the supervisor, `gid` the group of the socket."""

    uid: int
    gid: int
    mode: int

    def refusal(self, peer: Peer, level: Level) -> str:
        """Why this peer may not use a command of this level; empty if it may."""
        if peer.uid in (0, self.uid):
            return ""
        if level == "admin":
            return f"user {peer.uid} may only read: changes are for root and user {self.uid}"
        if self.gid in peer.groups or self.mode & _OTHERS_MAY_WRITE:
            return ""
        return f"user {peer.uid} may not read: it is not in group {self.gid} (server.admin_group)"


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of a Unix socket."""
    pid, uid, gid = peer(sock)
    try:
        more = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * 4)
        groups = struct.unpack(f"{len(more) // 4}I", more)
    except OSError:  # more groups than that, or a kernel before 4.13: the main group must do
        groups = ()
    return Peer(pid, uid, frozenset((gid, *groups)))
