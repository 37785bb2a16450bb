"""The access log's target fails: a full disk, a pipe that nobody reads. Nobody who is served may notice."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import gateway
from tests.support.clients import Load, load, to
from tests.support.gateway import Gateway, Settings
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer, serve, upstream
from tests.support.supervised import wait_for

LINES = 200
"""About 100 KB of them."""


def repeat_path(connection: UpstreamConnection, request: SeenRequest) -> None:
    connection.send(answer(request.target))


@contextlib.contextmanager
def logging_to(target: Path) -> Iterator[Gateway]:
    settings = Settings(extra={"access_log": {"target": str(target)}})
    with upstream(serve(repeat_path)) as server, gateway.running(server.port, settings) as started:
        yield started


def paths_of(clients: Load) -> list[str]:
    """What the clients have asked for."""
    return sorted(f"/{client.name}/{number}" for client in clients.clients for number in range(client.served))


def served_while_it_fails(started: Gateway) -> Load:
    """The clients, after they were served as if nothing were wrong."""
    with load(to(*started.address), kept=3, new=1) as clients:
        clients.wait_served(LINES // 4)
    assert clients.failures == []
    assert clients.served >= LINES
    return clients


def whole_lines(text: bytes) -> list[str]:
    """The paths of all whole lines; one may be cut, where the disk was full."""
    found = []
    cut = 0
    for line in text.splitlines():
        try:
            found.append(json.loads(line)["url.path"])
        except json.JSONDecodeError:
            cut += 1
    assert cut <= 1
    return sorted(found)


@contextlib.contextmanager
def size_limit(directory: Path, worker: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """RLIMIT_FSIZE stands in for a disk: 20 kB and a bit, so that a write is cut within a line. Yields what ends it."""
    _, hard = resource.prlimit(worker(), resource.RLIMIT_FSIZE)
    resource.prlimit(worker(), resource.RLIMIT_FSIZE, (20_123, hard))

    def make_room() -> None:
        resource.prlimit(worker(), resource.RLIMIT_FSIZE, (hard, hard))

    yield make_room


@contextlib.contextmanager
def small_disk(directory: Path, worker: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """A disk of 20 kB. Yields what makes it larger."""
    yield lambda: mount("-o", "remount,size=16m", str(directory))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=20k", "edgeq-test", str(path))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["limit", "tmpfs"])
def test_full_disk(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is told once, every request is served, and each has its whole line once there is room again."""
    directory = tmp_path if kind == "limit" else request.getfixturevalue("disk")
    target = directory / "full.log"
    with logging_to(target) as started:
        fills = size_limit if kind == "limit" else small_disk
        with fills(directory, lambda: started.workers[0]) as make_room:
            clients = served_while_it_fails(started)
            problem = "write: File too large" if kind == "limit" else "write: No space left on device"
            assert started.wait_event("access_log.failed")["problem"] == problem
            assert target.stat().st_size <= 20_480
            make_room()
            started.wait_event("access_log.recovered")
        assert started.stop() == 0
        assert whole_lines(target.read_bytes()) == paths_of(clients)
        assert len(started.events("access_log.failed")) == 1
        assert started.events("access_log.dropped") == []


@pytest.mark.parametrize("is_open", [False, True], ids=["not open", "open, not read"])
def test_pipe_that_nobody_reads(is_open: bool, tmp_path: Path) -> None:
    """Lines wait in memory, not clients in the loop; whoever reads at last gets them all, in order for each client."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) if is_open else -1
    try:
        with logging_to(fifo) as started:
            clients = served_while_it_fails(started)
            if is_open:
                assert started.events("access_log.failed") == []
            else:
                assert started.wait_event("access_log.failed")["problem"] == "open: No such device or address"
                reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            text = b""

            def read_all() -> bool:
                nonlocal text
                with contextlib.suppress(BlockingIOError):
                    text += os.read(reader, 1 << 20)
                return text.count(b"\n") >= clients.served

            wait_for("all lines", read_all)
            assert whole_lines(text) == paths_of(clients)
            assert started.events("access_log.dropped") == []
    finally:
        if reader >= 0:
            os.close(reader)
