from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from edgeq.observe import access_io, log_io
from edgeq.observe.access_io import MAX_WAITING_BYTES, AccessLogWriter
from edgeq.response.relay import Exchange
from tests.support.exchanges import exchange
from tests.support.gateway import ROOT


def record(number: int = 0, user_agent: bytes = b"test", worker: int = 0) -> Exchange:
    return exchange(target=b"/%d" % number, user_agent=user_agent, generation=worker)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def log(events: list[dict[str, Any]]) -> log_io.Logger:
    capture = structlog.testing.LogCapture()
    capture.entries = cast("Any", events)
    bound = structlog.wrap_logger(None, [capture], structlog.make_filtering_bound_logger(0))
    return cast(log_io.Logger, bound)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read end (non-blocking) and write end of a pipe of one page."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):  # some tests close one themselves
            os.close(fd)


def paths(data: bytes) -> list[str]:
    """The url.path of each line; every line must be whole."""
    assert data.endswith(b"\n") or not data
    return [json.loads(line)["url.path"] for line in data.splitlines()]


def drain(fd: int) -> bytes:
    data = b""
    while True:
        try:
            data += os.read(fd, 65536)
        except BlockingIOError:
            return data


def waiting_writer(path: Path, clock: Clock) -> AccessLogWriter:
    """One with 10 MB of lines that could not be written, and now could."""
    writer = AccessLogWriter(str(path), "json", clock=clock)
    for first in range(0, 200, 20):
        writer.ring.extend(record(first + number, b"x" * 50_000) for number in range(20))
        writer.gather()
    path.parent.mkdir()
    clock.now_s += 2
    return writer


def test_off_keeps_nothing() -> None:
    """With the access log off, records of callers that append all the same are let go."""
    writer = AccessLogWriter("off", "json")
    assert not writer.enabled
    writer.ring.append(record())
    writer.flush()
    assert writer.ring == []
    writer.reopen()
    writer.close()


def test_unknown_format() -> None:
    """A wrong format is refused when the writer is made, not at the first request."""
    with pytest.raises(ValueError, match="xml"):
        AccessLogWriter("off", "xml")


def test_file_gets_a_batch_by_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole batch goes to a file by one write(2), after what is already there; others may not read the file."""
    path = tmp_path / "access.log"
    writer = AccessLogWriter(str(path), "json")
    sizes = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    ring = writer.ring
    ring.extend(record(number) for number in range(512))
    writer.flush()
    assert len(sizes) == 1
    assert writer.ring is ring
    assert ring == []
    ring.append(record(512))
    writer.flush()
    assert paths(path.read_bytes()) == [f"/{number}" for number in range(513)]
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    assert writer.snapshot()["written_bytes"] == path.stat().st_size
    writer.close()


def test_lines_are_written_once_there_are_many(tmp_path: Path) -> None:
    """Few wait for the tick, as lines; many do not."""
    path = tmp_path / "access.log"
    writer = AccessLogWriter(str(path), "json")
    writer.ring.extend(record(number) for number in range(16))
    writer.gather()
    assert writer.ring == []
    assert path.read_bytes() == b""
    assert int(writer.snapshot()["pending_bytes"]) > 0
    count = 16
    while not path.stat().st_size:
        writer.ring.extend(record(count + number) for number in range(16))
        writer.gather()
        count += 16
        assert count < 1000
    assert paths(path.read_bytes()) == [f"/{number}" for number in range(count)]
    assert not writer.snapshot()["pending_bytes"]
    writer.close()


def test_flush_is_bounded_and_close_writes_all(tmp_path: Path, clock: Clock) -> None:
    """One flush writes a bounded number of bytes; close goes on until none is left."""
    path = tmp_path / "later" / "access.log"
    writer = waiting_writer(path, clock)
    writer.flush()
    assert 0 < path.stat().st_size < int(writer.snapshot()["pending_bytes"])
    writer.close()
    assert paths(path.read_bytes()) == [f"/{number}" for number in range(200)]
    assert writer.dropped == 0


def test_rotation_by_rename(tmp_path: Path) -> None:
    """After a rename, lines go to the old file until reopen, and to a new one afterwards; none is lost."""
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    writer = AccessLogWriter(str(path), "json")
    writer.ring.append(record(1))
    writer.flush()
    path.rename(old)
    writer.ring.append(record(2))
    writer.flush()
    assert not path.exists()
    writer.reopen()
    writer.ring.append(record(3))
    writer.close()
    assert paths(old.read_bytes()) == ["/1", "/2"]
    assert paths(path.read_bytes()) == ["/3"]


def test_reopen_that_fails_keeps_the_old_file(
    tmp_path: Path, clock: Clock, log: log_io.Logger, events: list[dict[str, Any]]
) -> None:
    """If the path cannot be opened again, lines still go to the file that is open, and an event says so."""
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.log"
    writer = AccessLogWriter(str(path), "json", log=log, clock=clock)
    folder.rename(tmp_path / "moved")
    writer.reopen()
    clock.now_s += 2
    writer.ring.append(record(1))
    writer.flush()
    assert paths((tmp_path / "moved" / "access.log").read_bytes()) == ["/1"]
    assert [event["event"] for event in events] == ["access_log.failed", "access_log.recovered"]
    writer.close()


def test_target_that_cannot_be_opened_is_tried_again(
    tmp_path: Path, clock: Clock, log: log_io.Logger, events: list[dict[str, Any]]
) -> None:
    """A missing folder is told once, records wait, and are written when it appears."""
    path = tmp_path / "later" / "access.log"
    writer = AccessLogWriter(str(path), "json", log=log, clock=clock)
    writer.ring.append(record(1))
    for _ in range(3):
        clock.now_s += 2
        writer.flush()
    assert [event["event"] for event in events] == ["access_log.failed"]
    assert events[0]["problem"] == "open: No such file or directory"
    assert writer.errors == 4
    path.parent.mkdir()
    writer.flush()  # within the second: not tried
    assert not path.exists()
    clock.now_s += 2
    writer.flush()
    assert paths(path.read_bytes()) == ["/1"]
    writer.close()


def test_full_disk(
    tmp_path: Path, clock: Clock, log: log_io.Logger, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills within a line loses no line, and the cut one cannot merge with another worker's."""
    path = tmp_path / "access.log"
    writer = AccessLogWriter(str(path), "json", log=log, clock=clock)
    write = os.write
    room = [1000]

    def limited(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    writer.ring.extend(record(number) for number in range(5))
    writer.flush()
    for number in range(5, 8):
        writer.ring.append(record(number))
        writer.flush()
    assert path.stat().st_size == 1000
    assert [(event["event"], event.get("problem")) for event in events] == [
        ("access_log.failed", "write: No space left on device")
    ]
    with path.open("ab") as other_worker:
        other_worker.write(b'\n{"url.path":"other"}\n')
    room[0] = 1 << 30
    clock.now_s += 2
    writer.flush()
    assert events[-1]["event"] == "access_log.recovered"
    whole = [line for line in path.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
    assert [json.loads(line)["url.path"] for line in whole if b"other" not in line] == [f"/{n}" for n in range(8)]
    assert any(b"other" in line for line in whole)
    writer.close()


def test_full_pipe_waits_without_blocking(pipe: tuple[int, int], clock: Clock) -> None:
    """A pipe that nobody reads takes whole lines until it is full; the rest waits and arrives in order."""
    reader, out = pipe
    writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=out)
    assert os.get_blocking(out)  # the flags of standard output belong to others, too
    writer.ring.extend(record(number) for number in range(100))
    writer.flush()
    data = drain(reader)
    assert 0 < len(paths(data)) < 100
    for _ in range(100):
        clock.now_s += 1
        writer.flush()
        data += drain(reader)
    assert paths(data) == [f"/{number}" for number in range(100)]
    assert writer.errors == 0
    writer.close()


def test_full_pipe_is_not_asked_all_the_time(
    pipe: tuple[int, int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a pipe is full, flushes within the same moment cost no system call."""
    _, out = pipe
    writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=out)
    writer.ring.extend(record(number) for number in range(100))
    writer.flush()
    monkeypatch.setattr(os, "write", lambda *_: pytest.fail("asked again"))
    writer.flush()
    monkeypatch.undo()
    writer.close(timeout_s=0)


def test_pipe_that_cannot_be_opened_again(pipe: tuple[int, int], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone else's pipe (privileges dropped) is written without blocking, too, and its flags stay."""
    reader, out = pipe
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=out)
    monkeypatch.undo()
    writer.ring.extend(record(number) for number in range(100))
    data = b""
    for _ in range(101):
        clock.now_s += 1
        writer.flush()
        data += drain(reader)
    assert paths(data) == [f"/{number}" for number in range(100)]
    assert os.get_blocking(out)
    writer.close()


def test_a_line_longer_than_the_pipe(pipe: tuple[int, int], clock: Clock) -> None:
    """A single line that no pipe takes whole still arrives, in pieces."""
    reader, out = pipe
    writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=out)
    writer.ring.extend((record(1), record(2, user_agent=b"x" * 30_000), record(3)))
    data = b""
    for _ in range(50):
        clock.now_s += 1
        writer.flush()
        data += drain(reader)
    assert paths(data) == ["/1", "/2", "/3"]
    writer.close()


def test_socket_as_standard_output(clock: Clock) -> None:
    """The journal's stream socket is written without blocking, by whole lines, and keeps its flags."""
    ours, journal = socket.socketpair()
    with ours, journal:
        journal.setblocking(False)
        writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=ours.fileno())
        writer.ring.extend(record(number) for number in range(3000))
        data = b""
        for _ in range(3000):
            clock.now_s += 1
            writer.flush()
            if not writer.snapshot()["pending_bytes"] and not writer.ring:
                break
            with contextlib.suppress(BlockingIOError):
                data += journal.recv(1 << 20)
        data += drain(journal.fileno())
        assert paths(data) == [f"/{number}" for number in range(3000)]
        assert os.get_blocking(ours.fileno())
        writer.close()


def test_terminal_as_standard_output(clock: Clock) -> None:
    """A terminal gets lines, and the shell's terminal does not become non-blocking."""
    master, slave = pty.openpty()
    try:
        writer = AccessLogWriter("stdout", "combined", clock=clock, stdout_fd=slave)
        writer.ring.append(record(7))
        writer.flush()
        assert b"GET /7 HTTP/1.1" in os.read(master, 4096)
        assert os.get_blocking(slave)
        writer.close()
    finally:
        os.close(master)
        os.close(slave)


def test_newest_are_dropped_and_told(
    pipe: tuple[int, int], clock: Clock, log: log_io.Logger, events: list[dict[str, Any]]
) -> None:
    """Beyond the bound the newest lines go, they are counted, and an event says so at most once a second."""
    reader, out = pipe
    writer = AccessLogWriter("stdout", "json", log=log, clock=clock, stdout_fd=out)
    one = record(100, b"x" * 50_000)
    waiting = 0
    while not writer.dropped:
        writer.ring.extend([one] * 512)
        writer.flush()
        if not writer.ring:
            waiting += 512
        assert waiting * 50_000 < 3 * MAX_WAITING_BYTES
    assert len(writer.ring) == 0
    assert MAX_WAITING_BYTES <= int(writer.snapshot()["pending_bytes"]) < 2 * MAX_WAITING_BYTES
    writer.ring.extend([one] * 512)
    writer.flush()
    assert [(event["event"], event["records"]) for event in events] == [("access_log.dropped", 512)]
    clock.now_s += 1
    writer.flush()
    assert [(event["records"], event["total"]) for event in events] == [(512, 512), (512, 1024)]
    assert writer.dropped == 1024
    drain(reader)
    writer.close(timeout_s=0)
    assert writer.dropped == 1024 + waiting - 512


def test_waiting_lines_do_not_hold_exchanges(tmp_path: Path, clock: Clock) -> None:
    """During an outage lines wait, not the exchanges with their heads and connections, and arrive in order."""
    path = tmp_path / "later" / "access.log"
    writer = AccessLogWriter(str(path), "json", clock=clock)
    count = 0
    for _ in range(20):
        for _ in range(512):
            writer.ring.append(record(count))
            count += 1
        writer.flush()
        assert writer.ring == []
    writer.ring.append(record(count))
    path.parent.mkdir()
    clock.now_s += 2
    writer.close()
    assert paths(path.read_bytes()) == [f"/{number}" for number in range(count + 1)]
    assert writer.dropped == 0


def test_a_pipe_is_made_larger(clock: Clock) -> None:
    """What passes between two attempts is not limited by the usual 64 KiB of a pipe."""
    reader, out = os.pipe()
    try:
        writer = AccessLogWriter("stdout", "json", clock=clock, stdout_fd=out)
        writer.ring.extend(record(number) for number in range(1000))
        writer.flush()
        assert writer.ring == []
        assert int(writer.snapshot()["written_bytes"]) > 1 << 17
        assert not writer.snapshot()["pending_bytes"]
        writer.close()
    finally:
        os.close(reader)
        os.close(out)


def test_close_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    """At the end of a worker, a reader that reads gets everything."""
    reader, out = pipe
    os.set_blocking(reader, True)
    writer = AccessLogWriter("stdout", "json", stdout_fd=out)
    writer.ring.extend(record(number) for number in range(2000))
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 65536):
            got.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    writer.close(timeout_s=60)
    os.close(out)
    thread.join(60)
    assert paths(b"".join(got)) == [f"/{number}" for number in range(2000)]
    assert writer.dropped == 0


def test_retired_writer_never_waits(
    pipe: tuple[int, int],
    clock: Clock,
    log: log_io.Logger,
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload has replaced it: what waits is written as the reader takes it, for some seconds, then counted."""
    reader, stdout = pipe
    writer = AccessLogWriter("stdout", "json", log=log, clock=clock, stdout_fd=stdout)
    writer.ring.extend(record(number) for number in range(100))
    writer.flush()

    def no_poll() -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(select, "poll", no_poll)
    writer.retire(5.0)
    assert not writer.finish()
    taken = drain(reader)
    clock.now_s += 1
    assert not writer.finish()
    taken += drain(reader)
    clock.now_s += 3.9
    assert not writer.finish()
    clock.now_s += 0.2
    assert writer.finish()
    taken += drain(reader)
    written = taken.count(b"\n")
    assert 0 < written < 100
    assert paths(taken) == [f"/{number}" for number in range(written)]
    assert writer.dropped == 100 - written
    assert events[-1]["records"] == 100 - written


def test_retired_writer_is_done_when_nothing_waits(tmp_path: Path, clock: Clock) -> None:
    """A file takes all at once, batch by batch."""
    path = tmp_path / "later" / "access.log"
    writer = waiting_writer(path, clock)
    writer.retire()
    assert not writer.finish()
    assert writer.finish()
    assert paths(path.read_bytes()) == [f"/{number}" for number in range(200)]
    assert writer.dropped == 0


def test_reader_that_left(
    pipe: tuple[int, int], clock: Clock, log: log_io.Logger, events: list[dict[str, Any]]
) -> None:
    """A closed pipe is an event, not an exception, and close does not wait for it."""
    reader, out = pipe
    writer = AccessLogWriter("stdout", "json", log=log, clock=clock, stdout_fd=out)
    os.close(reader)
    for _ in range(3):
        writer.ring.append(record(1))
        clock.now_s += 2
        writer.flush()
    writer.close()
    assert [event["event"] for event in events] == ["access_log.failed", "access_log.dropped"]
    assert events[1]["records"] == 3


def test_invalid_record_costs_only_itself(tmp_path: Path, log: log_io.Logger, events: list[dict[str, Any]]) -> None:
    """A record of wrong types is a defect that is told; its neighbours are written."""
    path = tmp_path / "access.log"
    writer = AccessLogWriter(str(path), "json", log=log)
    writer.ring.extend((record(1), cast(Exchange, object()), record(2)))
    writer.flush()
    assert paths(path.read_bytes()) == ["/1", "/2"]
    assert events[0]["event"] == "access_log.record_invalid"
    assert writer.errors == 1
    writer.close()


_WRITE = """
import sys
from edgeq.observe.access_io import AccessLogWriter
from tests_record import record
writer = AccessLogWriter(sys.argv[1], "json")
worker = int(sys.argv[2])
for number in range(3000):
    writer.ring.append(record(number, b"x" * (number % 700), worker))
    if number % 97 == 0:
        writer.flush()
writer.close(timeout_s=60)
"""


@pytest.mark.parametrize("target", ["file", "pipe"])
def test_workers_share_a_target(target: str, tmp_path: Path) -> None:
    """Lines of several processes in one file or one pipe are all there, and whole."""
    path = tmp_path / "access.log"
    (tmp_path / "tests_record.py").write_text(Path(__file__).read_text())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])}
    reader, out = os.pipe()
    name = str(path) if target == "file" else "stdout"
    workers = [
        subprocess.Popen([sys.executable, "-c", _WRITE, name, str(worker)], stdout=out, env=environment)
        for worker in range(3)
    ]
    os.close(out)
    data = b""
    while chunk := os.read(reader, 65536):
        data += chunk
    os.close(reader)
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    if target == "file":
        data = path.read_bytes()
    seen: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for line in data.splitlines():
        fields = json.loads(line)
        seen[fields["edgeq.generation"]].append(fields["url.path"])
    assert all(numbers == [f"/{number}" for number in range(3000)] for numbers in seen.values())


def test_pipe_buf_is_linux() -> None:
    """The module counts on writes of this many bytes being atomic."""
    assert access_io._PIPE_BUF == select.PIPE_BUF == 4096
