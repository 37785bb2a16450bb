"""What the kernel knows of a connection or a process: unread bytes, memory, children.

Tests use it to wait for facts ("the peer has read all that I sent") instead of waiting for time to pass.
Sources: sock_diag(7), proc(5).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NETLINK_SOCK_DIAG = 4
_NO_COOKIE = b"\xff" * 8
_SPIN = 200


TICK_MS = 20
"""What a kernel's clock of ticks may be behind at most, when two of its readings are compared (HZ=100: 10 ms each)."""
_LAST_DATA_SENT_AT = 44
"""In struct tcp_info (linux/tcp.h)."""


def without_capabilities() -> list[str]:
    """Words before a command: it gets none of root's rights, as a service has none."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def wait_until_sent_ms(sock: socket.socket, least_ms: int) -> None:
    """Wait until the kernel says that the last data was sent so many milliseconds ago."""
    deadline = time.monotonic() + 30
    while True:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_SENT_AT + 4)
        if struct.unpack_from("=I", info, _LAST_DATA_SENT_AT)[0] >= least_ms:
            return
        assert time.monotonic() < deadline, "the kernel's clock stands still"
        select_pause(0.005)


def heeds(pid: int, number: signal.Signals) -> bool:
    """Is the signal caught or blocked by a process (proc(5): SigCgt, SigBlk), so that it does not die of it?"""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(lines["SigCgt"], 16) | int(lines["SigBlk"], 16)) >> (number - 1) & 1)


class UnreadProbe:
    """Asks the kernel how many bytes wait unread at the far end of a loopback IPv4 connection."""

    def __init__(self, sock: socket.socket) -> None:
        near_host, near_port = sock.getsockname()[:2]
        far_host, far_port = sock.getpeername()[:2]
        # The far end's own view: its source is our destination.
        ident = struct.pack("!HH", far_port, near_port)
        ident += socket.inet_aton(far_host).ljust(16, b"\0") + socket.inet_aton(near_host).ljust(16, b"\0")
        ident += struct.pack("=I", 0) + _NO_COOKIE
        body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ident
        self._message = struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
        self._netlink.settimeout(5)

    def unread(self) -> int | None:
        """Bytes in the far end's receive queue, or None when the far end's socket is gone."""
        self._netlink.send(self._message)
        answer = self._netlink.recv(4096)
        if struct.unpack_from("=H", answer, 4)[0] != _SOCK_DIAG_BY_FAMILY:
            return None
        # inet_diag_msg: 4 bytes of state, 48 of sockid, expires; then rqueue.
        return int(struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0])

    def wait_read(self, timeout_s: float) -> bool:
        """Wait until the far end has read everything, or time is up; False if it has gone."""
        deadline = time.monotonic() + timeout_s
        spins = 0
        while True:
            unread = self.unread()
            if unread is None:
                return False
            if unread == 0 or time.monotonic() > deadline:
                return True
            spins += 1
            if spins < _SPIN:
                os.sched_yield()
            else:
                select_pause(0.001)

    def close(self) -> None:
        self._netlink.close()


ESTABLISHED = 1
"""Of the states in linux/net/tcp_states.h."""


class FarState:
    """Asks the kernel for the TCP state of the far end of a loopback IPv4 connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._near = f":{sock.getsockname()[1]:04X}"
        self._far = f":{sock.getpeername()[1]:04X}"

    def read(self) -> int:
        """As in net/tcp_states.h; 0 when the far end's socket is gone."""
        for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines()):
            if words[1].endswith(self._far) and words[2].endswith(self._near):
                return int(words[3], 16)
        return 0


def select_pause(seconds: float) -> None:
    """A short pause inside a bounded loop that waits for a fact of the kernel."""
    time.sleep(seconds)


def wait_until(fact: object, timeout_s: float, what: str) -> None:
    """Wait for `fact()` to be true. Raises TimeoutError that names it."""
    assert callable(fact)
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        select_pause(0.002)


def children(pid: int) -> list[int]:
    """All descendants of a process, nearest first."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    found.append(int(child))
                    found.extend(children(int(child)))
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return _state(pid) != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still meanwhile: what is sent to it now, it finds all at once."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _state(pid) == "T", 10, f"process {pid} stops")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def private_memory_bytes(pid: int) -> int:
    """Anonymous resident memory: what a worker really costs beside shared libraries."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tcp_memory_bytes() -> int:
    """Memory of all TCP buffers of this network namespace's host (sockstat counts pages)."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
