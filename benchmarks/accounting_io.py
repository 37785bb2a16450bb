"""What the processes of a proxy have cost: processor time and memory, from /proc.

Processor time is the sum of `/proc/PID/task/*/schedstat` (nanoseconds on a processor; proc(5)), over the process that
was started, its descendants and its session. `/proc/PID/stat` (clock ticks, usually 10 ms) is read to check it.
Invariant: both count a task's own time in user and kernel mode. The kernel's work for a packet is charged to whoever
sends it (on loopback the receiver's TCP runs in the sender's context), which is the same for every proxy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """Seconds that a set of processes has used so far, by two clocks of the kernel."""

    pids: tuple[int, ...]
    schedstat_s: float
    stat_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a set of processes; Pss shares a page that several map among them."""

    pss_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here."""

    parent: int
    session: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat; the name in parentheses may itself contain spaces and parentheses."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(parent=int(fields[1]), session=int(fields[3]), ticks=int(fields[11]) + int(fields[12]))


def parse_rollup(text: str) -> Memory:
    """Read /proc/PID/smaps_rollup."""
    found: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return Memory(pss_bytes=found["Pss"], rss_bytes=found["Rss"])


def family(stats: dict[int, Stat], root: int) -> tuple[int, ...]:
    """The process `root`, everything in its session, and all descendants of these."""
    members = {pid for pid, stat in stats.items() if pid == root or stat.session == root}
    while True:
        more = {pid for pid, stat in stats.items() if stat.parent in members} - members
        if not more:
            return tuple(sorted(members))
        members |= more


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _all_stats() -> dict[int, Stat]:
    stats: dict[int, Stat] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stats[int(name)] = parse_stat(_read(f"/proc/{name}/stat"))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return stats


def processes_of(root: int) -> tuple[int, ...]:
    """Living processes of the proxy that was started as `root`."""
    return family(_all_stats(), root)


def ticks_of(pid: int) -> int:
    """Clock ticks that one process has used so far."""
    return parse_stat(_read(f"/proc/{pid}/stat")).ticks


def processor_time(root: int) -> ProcessorTime:
    """Processor time of the proxy's living processes so far."""
    stats = _all_stats()
    pids = family(stats, root)
    nanoseconds = 0
    ticks = 0
    for pid in pids:
        ticks += stats[pid].ticks
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                nanoseconds += int(_read(f"/proc/{pid}/task/{task}/schedstat").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ProcessorTime(pids, nanoseconds / 1e9, ticks / CLOCK_TICKS_PER_S)


def memory(root: int) -> Memory:
    """Memory of the proxy's living processes now."""
    parts: list[Memory] = []
    for pid in processes_of(root):
        try:
            parts.append(parse_rollup(_read(f"/proc/{pid}/smaps_rollup")))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Memory(sum(part.pss_bytes for part in parts), sum(part.rss_bytes for part in parts))


@dataclass(frozen=True, slots=True)
class Core:
    """One processor's time so far: busy (with steal) and stolen by the hypervisor, in seconds."""

    busy_s: float
    steal_s: float


def core(index: int) -> Core:
    """Read processor `index` from /proc/stat."""
    for line in _read("/proc/stat").splitlines():
        fields = line.split()
        if fields[0] == f"cpu{index}":
            values = [int(value) / CLOCK_TICKS_PER_S for value in fields[1:9]]
            user, nice, system, _idle, _iowait, irq, softirq, steal = values
            return Core(user + nice + system + irq + softirq + steal, steal)
    raise ValueError(f"no processor {index} in /proc/stat")
