"""Bells in real processes: every worker has those of all slots, also of slots that came later and of successors."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.supervised import Supervised, supervised, wait_for


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path / 'app.sock'}"


def eventfds(pid: int) -> set[str]:
    """Which eventfds a process has, by the kernel's number of them."""
    found: set[str] = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        found.update(line for line in lines if line.startswith("eventfd-id"))
    return found


def common(running: Supervised) -> set[str]:
    """Eventfds that the supervisor and all workers share."""
    return set.intersection(eventfds(running.process.pid), *map(eventfds, running.pids().values()))


def test_all_workers_have_all_bells(tmp_path: Path, address: str) -> None:
    """From the start, after a reload with more workers, and after a worker died."""
    with supervised(tmp_path, addresses=[address], workers=1) as running:
        first = common(running)
        assert len(first) == 1
        assert running.reload(workers=3)["ok"]
        assert len(running.pids()) == 3
        more = common(running)
        assert len(more) == 3
        assert first < more
        old = running.pids()
        os.kill(old[1], signal.SIGKILL)
        wait_for("a successor", lambda: len(running.events("worker ready")) == 4)
        assert running.pids()[1] != old[1]
        assert common(running) == more
