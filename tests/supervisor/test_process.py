"""What a process says about itself to the kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from edgeq.supervisor import process_io

_SCHEDULED = """
import os
from edgeq.supervisor import process_io
os.{chosen}
def told():
    print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
process_io.let_workers_go_first()
told()
process_io.as_started(lambda: (process_io.go_first(), told()))
"""


@pytest.mark.parametrize("policy", [os.SCHED_IDLE, os.SCHED_BATCH])
def test_a_policy_that_the_operator_has_chosen_stays(policy: int) -> None:
    """Of `chrt` or CPUSchedulingPolicy=: of the supervisor and of workers."""
    told = f"{policy} {os.getpriority(os.PRIO_PROCESS, 0)}"
    assert scheduled(f"sched_setscheduler(0, {policy}, os.sched_param(0))") == [told] * 2


@pytest.mark.parametrize(("chosen", "nicer"), [(3, 5), (17, 2)])
def test_workers_are_as_nice_as_the_operator_has_chosen(chosen: int, nicer: int) -> None:
    """Of `nice` or Nice=; the supervisor is nicer, as far as that goes."""
    now = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = max(chosen, now)
    told = scheduled(f"setpriority(os.PRIO_PROCESS, 0, {wanted})")
    assert told == [f"{os.SCHED_BATCH} {min(wanted + nicer, 19)}", f"{os.SCHED_OTHER} {wanted}"]


def scheduled(chosen: str) -> list[str]:
    """Policy and nice value of the supervisor and of workers, where an operator has chosen this."""
    code = _SCHEDULED.format(chosen=chosen)
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return printed.splitlines()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_where_no_policy_can_be_chosen_it_works_as_it_is(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of system calls, or a kernel that is none of Linux, says no in its own way."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    process_io.let_workers_go_first()
