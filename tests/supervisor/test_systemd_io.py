"""The protocol with the service manager: the environment is read once and cleared; nobody listening is no failure."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edgeq.supervisor.status import Facts, queue_words, status_line
from edgeq.supervisor.systemd_io import Notifier, take_descriptors

KEYS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)


def test_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find nothing of it."""
    monkeypatch.setenv("NOTIFY_SOCKET", "@abstract")
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    monkeypatch.setenv("FDSTORE", "7")
    notifier = Notifier.from_environment()
    assert (notifier.watchdog_s, notifier.store_size) == (20.0, 7)
    assert not any(key in os.environ for key in KEYS)


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("5000000", "OURS", 5.0), ("5000000", "1", 0.0), ("no", "", 0.0), ("", "", 0.0), ("-1", "", 0.0)],
)
def test_the_watchdog_is_ours(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float) -> None:
    """It may be meant for another process of the unit."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid.replace("OURS", str(os.getpid())))
    assert Notifier.from_environment().watchdog_s == expected


def test_without_a_manager_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A left-over FDSTORE alone means nothing; who cannot be reached takes nothing, and that is said."""
    monkeypatch.setenv("FDSTORE", "7")
    assert Notifier.from_environment().store_size == 0
    notifier = Notifier("/nowhere", 1.0, 7)
    notifier.ready()
    assert not notifier.store("edgeq/x", 0)


def test_a_descriptor_goes_with_its_name(tmp_path: Path) -> None:
    """One datagram: FDSTORE, FDNAME, and the descriptor beside it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"), 0.0, 7)
        with open(os.devnull, "rb") as file:
            assert notifier.store("edgeq/x", file.fileno())
            inode = os.fstat(file.fileno()).st_ino
        data, fds, _, _ = socket.recv_fds(manager, 1024, 4)
        assert data == b"FDSTORE=1\nFDNAME=edgeq/x"
        assert [os.fstat(fd).st_ino for fd in fds] == [inode]
        os.close(fds[0])
        notifier.status("one")
        notifier.status("one")
        notifier.progress()
        assert [manager.recv(1024) for _ in range(2)] == [b"STATUS=one", b"WATCHDOG=1"]


@pytest.mark.parametrize(("pid", "count"), [("1", "1"), ("", "1"), ("OURS", ""), ("x", "1"), ("OURS", "0")])
def test_descriptors_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch, pid: str, count: str) -> None:
    """The variables are inherited by mistake sometimes; what is behind the numbers is then something else."""
    monkeypatch.setenv("LISTEN_PID", pid.replace("OURS", str(os.getpid())))
    monkeypatch.setenv("LISTEN_FDS", count)
    assert take_descriptors() == []
    assert "LISTEN_FDS" not in os.environ


def test_the_status_says_what_is_wrong_first() -> None:
    """One line for `systemctl status`."""
    assert status_line(Facts(4, 4, 812, 37)) == "4/4 workers, 812 connections, 37 requests in flight"
    wrong = Facts(3, 4, 5, 6, stuck=[1, 2], aside=[1], survivors=2, worst_queue=queue_words("upstream/api", 200, 0.44))
    assert status_line(wrong).startswith("no progress in worker 1, 2, the others serve for worker 1, ")
    assert status_line(wrong).endswith(
        "3/4 workers, 2 of the last run finish, 200 wait at upstream/api, the oldest for 0.4 s,"
        " 5 connections, 6 requests in flight"
    )
