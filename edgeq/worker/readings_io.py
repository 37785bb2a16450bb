"""What a worker may use and what it uses: memory and descriptors, as shares, for `admission.pressure`.

A control group's limit is the whole service's, so each worker has its part of it; without one the machine's memory is
shared out in the same way. What all of the group use together counts as well, since the kernel kills by that: the
supervisor's memory and, with cgroup v2, what the kernel holds for sockets. Only files that it has in memory do not: it
gives those back first.

The group is our own or one above it, whichever has the lowest limit: of a service it is where systemd has put it, not
the root of /sys/fs/cgroup, as it is in a container. It is read four times a second: a thousand connections a second
that do not read fill 50 MiB meanwhile. The kernel adds up a group's files only when it is asked for memory.stat, which
takes a millisecond in which nobody is served: so it is asked only once all of the group, files and all, is `_NEAR`.

Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

_EVERY_S: Final = 0.25
_OWN_DESCRIPTORS: Final = 32
"""Of the process itself: loop, board, control socket, logs."""
_NEAR: Final = 0.5
"""Of its limit: below it nobody is pressed."""
_READ_BYTES: Final = 256
_UNLIMITED: Final = 1 << 60
"""cgroup v1 writes a number like 2**63 where there is no limit."""


class Readings:
    """Of this process, one of `workers`."""

    __slots__ = ("_descriptors", "_group", "_memory", "_memory_bytes", "_page_bytes", "_read_at", "_statm")

    def __init__(self, workers: int) -> None:
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._memory = 0.0
        self._read_at = -_EVERY_S
        self._statm = Number(Path("/proc/self/statm"), 1)
        self.configure(workers)

    def configure(self, workers: int) -> None:
        """Take over the number of workers; limits are read again."""
        self._group = control_group()
        self._memory_bytes = memory_limit().size_bytes // max(1, workers)
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def memory(self, now: float) -> float:
        """Resident memory as a share of what this worker may have, or the group's of what all of it may."""
        if now - self._read_at >= _EVERY_S and self._memory_bytes:
            self._read_at = now
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._memory = self._statm.read() * self._page_bytes / self._memory_bytes
            if self._group is not None:
                self._memory = max(self._memory, self._group.used_bytes() / self._group.limit_bytes)
        return self._memory

    def descriptors(self, connections: int) -> float:
        """Open connections, both sides, as a share of the descriptors that this process may have."""
        return (connections + _OWN_DESCRIPTORS) / self._descriptors if self._descriptors > 0 else 0.0


class Number:
    """One in a file of the kernel's that is kept open: opening it costs more than reading it."""

    __slots__ = ("_fd", "_path", "_word")

    def __init__(self, path: Path, word: int = 0) -> None:
        """`word`: which one of the words in it."""
        self._path: Path = path
        self._word: int = word
        self._fd: int = -1

    def read(self) -> int:
        """What it is now. Raises: OSError, ValueError, IndexError."""
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return int(os.pread(self._fd, _READ_BYTES, 0).split()[self._word])

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class ControlGroup:
    """One whose memory is limited."""

    __slots__ = ("_prefix", "_usage", "directory", "limit_bytes")

    def __init__(self, directory: Path, usage: str, prefix: str, limit_bytes: int) -> None:
        self.directory: Path = directory
        self.limit_bytes: int = limit_bytes
        self._usage = Number(directory / usage)
        self._prefix = prefix
        """Of the numbers in memory.stat that count the groups below, too."""

    def used_bytes(self) -> int:
        """What the kernel cannot take back; 0 if it does not say, or it is far from the limit."""
        try:
            used = self._usage.read()
            if used < _NEAR * self.limit_bytes:
                return 0
            files = (f"{self._prefix}inactive_file", f"{self._prefix}active_file")
            for line in (self.directory / "memory.stat").read_text("ascii").splitlines():
                name, _, count = line.partition(" ")
                if name in files:
                    used -= int(count)
        except (OSError, ValueError, IndexError):
            return 0
        return max(0, used)


class MemoryLimit(NamedTuple):
    """What all workers may have together; 0 if nothing can be read."""

    size_bytes: int
    whose: str


_GROUPS: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def memory_limit(groups: Path = _GROUPS, root: Path = _ROOT) -> MemoryLimit:
    """That of the control group, or the machine's memory if it has none or may have more than there is."""
    group, machine_bytes = control_group(groups, root), _machine_bytes()
    if group is not None and not 0 < machine_bytes < group.limit_bytes:
        return MemoryLimit(group.limit_bytes, "the control group")
    return MemoryLimit(machine_bytes, "the machine" if machine_bytes else "")


def control_group(groups: Path = _GROUPS, root: Path = _ROOT) -> ControlGroup | None:
    """The group of this process, or above it, with the lowest limit of memory; None if there is none."""
    found: ControlGroup | None = None
    with contextlib.suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                top, names = root, ("memory.max", "memory.current", "")
            elif "memory" in controllers.split(","):
                top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            else:
                continue
            own = top / path.lstrip("/")
            # In a container the path may be the machine's, and only the root be there.
            for directory in (own, *(parent for parent in own.parents if parent.is_relative_to(top))):
                with contextlib.suppress(OSError, ValueError):  # "max"
                    limit = int((directory / names[0]).read_text("ascii"))
                    if 0 < limit < (_UNLIMITED if found is None else found.limit_bytes):
                        found = ControlGroup(directory, names[1], names[2], limit)
    return found


def _machine_bytes() -> int:
    """The machine's memory; 0 if that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
