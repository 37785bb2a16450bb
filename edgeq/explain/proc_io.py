"""What the kernel tells of processes and ports. Nothing is changed, and what cannot be read is None.

Source: Documentation/scheduler/sched-stats.rst (/proc/PID/schedstat: nanoseconds on a processor, nanoseconds that it
waited for one, turns; of a process's first thread, on which a worker's loop runs), proc(5).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path


def processor_ns(pid: int) -> tuple[int, int] | None:
    """Time that a process has run, and that it has waited for a processor."""
    try:
        ran, waited, *_ = Path(f"/proc/{pid}/schedstat").read_text().split()
        return int(ran), int(waited)
    except (OSError, ValueError):
        return None


def descriptors(pid: int) -> tuple[int, int] | None:
    """How many a process has open, and how many it may."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd")), resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except OSError:
        return None


def open_files() -> tuple[int, int] | None:
    """How many files the machine has open, and how many it may (fs.file-max)."""
    try:
        allocated, unused, most = Path("/proc/sys/fs/file-nr").read_text().split()
        return int(allocated) - int(unused), int(most)
    except (OSError, ValueError):
        return None


def local_ports() -> tuple[int, int] | None:
    """The first and the last port for outgoing connections."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return None


def time_wait() -> int | None:
    """TCP sockets in TIME-WAIT."""
    try:
        words = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split()
        return int(words[words.index("tw") + 1])
    except (OSError, ValueError, IndexError):
        return None
