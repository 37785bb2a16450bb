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


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ("sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))", f"{os.SCHED_IDLE} 0"),
        ("sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", f"{os.SCHED_BATCH} 0"),
        ("nice(7)", f"{os.SCHED_OTHER} 7"),
    ],
)
def test_what_the_operator_has_chosen_stays(chosen: str, told: str) -> None:
    """Of `chrt`, `nice`, CPUSchedulingPolicy= or Nice=: of the supervisor and of workers."""
    code = _SCHEDULED.format(chosen=chosen)
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [told] * 2


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_where_no_policy_can_be_chosen_it_works_as_it_is(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of system calls, or a kernel that is none of Linux, says no in its own way."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    process_io.let_workers_go_first()
