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
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
process_io.let_workers_go_first()
supervisor = os.sched_getscheduler(0)
process_io.go_first()
print(supervisor, os.sched_getscheduler(0))
"""


def test_a_policy_that_the_operator_has_chosen_stays() -> None:
    """Of `chrt` or CPUSchedulingPolicy=: of the supervisor and of workers."""
    told = subprocess.run([sys.executable, "-c", _SCHEDULED], check=True, capture_output=True, text=True).stdout
    assert told.split() == [str(os.SCHED_IDLE)] * 2


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_where_no_policy_can_be_chosen_it_works_as_it_is(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of system calls, or a kernel that is none of Linux, says no in its own way."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    process_io.let_workers_go_first()
