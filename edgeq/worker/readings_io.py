"""What a worker may use and what it uses: memory and descriptors, as shares, for `admission.pressure`.

A control group's limit is the whole service's, so each worker has its part of it; without one the machine's memory is
shared out in the same way. Reading /proc takes 10 microseconds, so memory is read once a second.

A service's group is below the root of all groups (/system.slice/edgeq.service), and a slice around it may have a limit
as well: the lowest one holds. In a container the names in /proc may be those of the host, which are not there; then the
root is the container's own group. Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_EVERY_S: Final = 1.0
_OWN_DESCRIPTORS: Final = 32
"""Of the process itself: loop, board, control socket, logs."""
_UNLIMITED: Final = 1 << 60
"""cgroup v1 writes a number like 2**63 where there is no limit."""


class Readings:
    """Of this process, one of `workers`."""

    __slots__ = ("_descriptors", "_memory", "_memory_bytes", "_page_bytes", "_read_at")

    def __init__(self, workers: int) -> None:
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._memory = 0.0
        self._read_at = -_EVERY_S
        self.configure(workers)

    def configure(self, workers: int) -> None:
        """Take over the number of workers; limits are read again."""
        self._memory_bytes = memory_limit().size_bytes // max(1, workers)
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def memory(self, now: float) -> float:
        """Resident memory as a share of what this worker may have."""
        if now - self._read_at >= _EVERY_S and self._memory_bytes:
            self._read_at = now
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
                self._memory = pages * self._page_bytes / self._memory_bytes
        return self._memory

    def descriptors(self, connections: int) -> float:
        """Open connections, both sides, as a share of the descriptors that this process may have."""
        return (connections + _OWN_DESCRIPTORS) / self._descriptors if self._descriptors > 0 else 0.0


class MemoryLimit(NamedTuple):
    """What all workers may have together; 0 if nothing can be read."""

    size_bytes: int
    whose: str


def memory_limit(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> MemoryLimit:
    """The lowest limit of the control groups around this process, or the machine's memory. `own`: which they are."""
    limits: list[MemoryLimit] = []
    for file in _limit_files(own, root):
        with contextlib.suppress(OSError, ValueError):  # "max" is none
            limits.append(MemoryLimit(int(file.read_text("ascii")), "the control group"))
    with contextlib.suppress(OSError, ValueError):
        limits.append(MemoryLimit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "the machine"))
    return min((one for one in limits if one.size_bytes < _UNLIMITED), default=MemoryLimit(0, ""))


def _limit_files(own: Path, root: Path) -> Iterator[Path]:
    """Where the limits of a process's groups are, v2 and v1, from its own up to the root."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = own.read_text("utf-8", "replace").splitlines()
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, file = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = mount / name.lstrip("/")
        yield from (one / file for one in (group, *group.parents) if one.is_relative_to(mount))
