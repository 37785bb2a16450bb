"""Who holds a port: for the message that says why we cannot have it.

/proc/net/tcp{,6} name the inode of each listening socket, /proc/PID/fd the process that has it open. What we may not
see (another user's process, another network namespace) we do not name.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_LISTEN: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]", re.ASCII)


class Holder(NamedTuple):
    """A process."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name or 'a process'}, pid {self.pid}"


def parse_listening(table: str, port: int) -> set[int]:
    """Inodes of listening sockets on a port, from the text of /proc/net/tcp or tcp6."""
    inodes = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(int(fields[9]))
    return inodes


def listening_inodes(port: int) -> set[int]:
    """Inodes of all listening TCP sockets on a port."""
    inodes: set[int] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            inodes |= parse_listening(Path("/proc/net", name).read_text(), port)
    return inodes


def holder_of(inodes: set[int]) -> Holder | None:
    """The first process that has one of these sockets open, as far as we may look."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid != os.getpid() and not inodes.isdisjoint(_socket_inodes(pid)):
            return describe(pid)
    return None


def describe(pid: int) -> Holder:
    """A process with its name."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = ""
    return Holder(pid, name)


def _socket_inodes(pid: int) -> set[int]:
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                match = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{fd}"))
                if match:
                    inodes.add(int(match[1]))
    return inodes
