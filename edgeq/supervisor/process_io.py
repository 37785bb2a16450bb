"""What a process says about itself to the kernel: its name, its role towards orphans, its limits, its identity."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pwd
import resource
import signal
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from edgeq.errors import EXIT_CONFIG, StartError
from edgeq.supervisor.messages import Credentials

_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR: Final = struct.Struct("IIQiIQQQ")
_SLICE_NS: Final = 100_000
"""The shortest that there is; a request takes as long."""
_NICE: Final = 5
"""A third of the share of who is not nice, where both want the processor; the supervisor needs some hundredths."""
_as_started: Final = ThreadPoolExecutor(1, "starts")
T = TypeVar("T")
FOLLOWED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or an operator sends to the whole group: only the supervisor acts on them."""
TELL_WHERE: Final = signal.SIGUSR2
"""On it a worker writes where it is, even if its loop stands still (faulthandler), and goes on. An abort would end it,
and leave a core file with the keys of certificates in it where the machine allows that."""


def _prctl(option: int, argument: object) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def set_name(name: str) -> None:
    """The name in `ps` and `top`, 15 bytes at most."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def adopt_orphans() -> None:
    """Become the parent of workers whose spawner died, so that their end can be waited for."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def let_workers_go_first() -> None:
    """In the supervisor: whoever runs where it wakes up is not interrupted for it (SCHED_BATCH), and who wakes up while
    it runs need not wait for it (nice): it had to get back first what a worker took while it stood back, half a
    millisecond and more.

    A favour: it wakes up twenty times a second for each worker, and a worker that is interrupted answers a millisecond
    later. Where it is forbidden, as by the filter of system calls in edgeq.service (example.conf has the line that
    allows it), or unknown to the kernel, it works as it is; and all of it as an operator has chosen who wants another
    policy (chrt, CPUSchedulingPolicy=). Of another nice value (Nice=) it is nicer by as much.
    """
    as_started(os.getpid)
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + _NICE, 19))


def as_started(function: Callable[[], T]) -> T:
    """Call it in a thread that is as nice as we were started: who is forked there is so, too.

    On Linux each thread has a value of its own, and only who is privileged makes one smaller.
    """
    return _as_started.submit(function).result()


def go_first() -> None:
    """In the spawner, and so in workers: as usual, but in shorter slices. Since Linux 6.12 who wakes up and asks for
    less than the one who runs interrupts it, instead of waiting until its slice is over (1 to 3 ms); his share is the
    same.

    A favour, too. Source: kernel/sched/fair.c, PREEMPT_SHORT; sched_setattr(2), which neither Python has nor glibc
    before 2.41.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    with contextlib.suppress(OSError):
        if number is not None and os.sched_getscheduler(0) == os.SCHED_OTHER:
            # size, policy, flags, nice, priority, runtime (the slice), deadline, period
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NS, 0, 0)
            ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def follow_the_supervisor() -> None:
    """In the spawner, and so in workers: leave signals to the supervisor, which says by message what to do."""
    for number in FOLLOWED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def tell_where_asked(fd: int) -> None:
    """On TELL_WHERE, write the tracebacks of all threads there. Of compiled code only its callers are seen."""
    faulthandler.register(TELL_WHERE, fd, all_threads=True)


def raise_descriptor_limit() -> int:
    """As many descriptors as the machine grants. Returns the limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def credentials_of(user: str) -> Credentials | None:
    """Who the workers become; None if they stay who we are. Raises StartError for a user that does not exist."""
    if not user or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise StartError(f"server.user: there is no user {user!r}", EXIT_CONFIG) from None
    return Credentials(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid)))


def become(credentials: Credentials) -> None:
    """Drop privileges for good; groups first, because after setuid it is too late for them."""
    os.setgroups(list(credentials.groups))
    os.setresgid(credentials.gid, credentials.gid, credentials.gid)
    os.setresuid(credentials.uid, credentials.uid, credentials.uid)


def start_time(pid: int) -> int:
    """When a process began, in ticks after the boot (proc(5)); 0 for none. Nobody else has both this and the pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def open_survivor(pid: int, started: int) -> int | None:
    """A pidfd of a process that began then, None if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if started and start_time(pid) == started:  # asked only now: this descriptor can mean no other process
        return pidfd
    os.close(pidfd)
    return None


def send_signal(pidfd: int, number: signal.Signals) -> None:
    """To a process, unless it is gone."""
    with contextlib.suppress(OSError):  # gone, or of a user whom we may not touch
        signal.pidfd_send_signal(pidfd, number)


_STATES: Final = {"R": "running", "S": "waiting", "D": "in an uninterruptible wait", "T": "stopped", "t": "traced"}


def state_of(pid: int) -> str:
    """What a process does, in words; "unknown" if it cannot be seen (proc(5))."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "unknown"
    return _STATES.get(letter, "unknown")


def is_traced(pid: int) -> bool:
    """Does a debugger hold it?"""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "\nTracerPid:\t0\n" not in status


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def describe_status(status: int | None) -> str:
    """How a process ended, from a status as os.waitpid gives it: "exit code 1", "SIGKILL"."""
    if status is None:
        return "unknown"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
