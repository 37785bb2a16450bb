from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.config.schema import EventLog
from edgeq.observe import log_io

HEAVY = ("rich", "better_exceptions", "pydantic", "cryptography", "requests", "opentelemetry")


@pytest.fixture
def output() -> Iterator[Callable[[], bytes]]:
    """What was written to the event log since the last call."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    before, log_io.sink.fd = log_io.sink.fd, writer

    def read() -> bytes:
        try:
            return os.read(reader, 1 << 20)
        except BlockingIOError:
            return b""

    yield read
    log_io.sink.fd = before
    os.close(reader)
    os.close(writer)
    log_io.configure(EventLog())
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, log_io._Bridge)]


def events(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def test_json_event(output: Callable[[], bytes]) -> None:
    """An event has time in UTC, level, name, process and what its logger was bound with."""
    log_io.configure(EventLog(format="json"))
    log_io.get_logger(worker=3).warning("dns.failed", name="api.example", retry_s=5.0)
    (event,) = events(output())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event.pop("timestamp"))
    assert event == {
        "level": "warning",
        "event": "dns.failed",
        "pid": os.getpid(),
        "worker": 3,
        "name": "api.example",
        "retry_s": 5.0,
    }


def test_exception_in_full_on_one_line(output: Callable[[], bytes]) -> None:
    """A traceback with its cause is one JSON string."""
    log_io.configure(EventLog(format="json"))
    try:
        try:
            int("x\ny")
        except ValueError as cause:
            raise RuntimeError("outer") from cause
    except RuntimeError:
        log_io.get_logger().exception("worker.defect")
    (event,) = events(output())
    assert event["level"] == "error"
    assert "ValueError: invalid literal" in event["exception"]
    assert "RuntimeError: outer" in event["exception"]
    assert event["exception"].count("File ") == 2


def test_level_changes_reach_bound_loggers(output: Callable[[], bytes]) -> None:
    """A logger that was bound before follows a change of level and of format."""
    log_io.configure(EventLog(format="json"))
    logger = log_io.get_logger(worker=1)
    logger.debug("one")
    log_io.set_level("debug")
    logger.debug("two")
    log_io.set_level("error")
    logger.warning("three")
    logger.error("four")
    assert [event["event"] for event in events(output())] == ["two", "four"]
    log_io.configure(EventLog(format="console", level="info"))
    logger.info("five")
    assert b"[info" in output()


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colour_is_for_terminals(no_color: str | None, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of people who have not asked for none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    master, slave = pty.openpty()
    before, log_io.sink.fd = log_io.sink.fd, slave
    try:
        log_io.configure(EventLog())
        log_io.get_logger().info("one")
        line = os.read(master, 4096)
    finally:
        log_io.sink.fd = before
        log_io.configure(EventLog())
        os.close(master)
        os.close(slave)
    assert b"one" in line
    assert (b"\x1b[" in line) is coloured
    assert not line.startswith(b"{")


def test_unknown_level() -> None:
    """A wrong level is an error that says what is right."""
    with pytest.raises(ValueError, match="expected 'debug'"):
        log_io.set_level("loud")  # type: ignore[arg-type]


def test_values_that_json_lacks(output: Callable[[], bytes]) -> None:
    """No value can lose an event or break its line."""
    log_io.configure(EventLog(format="json"))
    logger = log_io.get_logger()
    logger.info("a", raw=b"x\xff\n", error=OSError("no"), what={1, 2}, keys={1: 2})
    logger.info("b", text="\udc80\n", big=1 << 80, raw=b"y")
    first, second = events(output())
    assert (first["raw"], first["error"], first["what"]) == ("x\\xff\n", "OSError: no", "{1, 2}")
    assert first["keys"] == {"1": 2}
    assert (second["text"], second["big"], second["raw"]) == ("\udc80\n", str(1 << 80), "y")


def test_console_cannot_be_injected(output: Callable[[], bytes]) -> None:
    """On the console, a value from outside moves no cursor and begins no line."""
    log_io.configure(EventLog(format="console"))
    log_io.get_logger().info("name\x1b[2J", host=b"a\nb", path="c\x1b]0;x\x07\u202e")
    data = output()
    assert data.count(b"\n") == 1
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", data)
    assert "\u202e".encode() not in data


def test_console_traceback_keeps_its_lines(output: Callable[[], bytes]) -> None:
    """On the console a traceback is readable."""
    log_io.configure(EventLog(format="console"))
    try:
        raise ValueError("no\x1b")
    except ValueError:
        log_io.get_logger().exception("x")
    data = output()
    assert b"\nTraceback (most recent call last):\n" in data
    assert b"\x1b" not in data


def test_libraries_log_into_the_same_lines(output: Callable[[], bytes]) -> None:
    """Warnings of libraries are events; configuring twice does not double them."""
    log_io.configure(EventLog(format="json"))
    log_io.configure(EventLog(format="json"))
    logger = logging.getLogger("some.library")
    logger.warning("slow %s", "peer")
    logger.info("not told")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("defect 100%")
    first, second = events(output())
    assert (first["event"], first["logger"], first["level"]) == ("slow peer", "some.library", "warning")
    assert (second["event"], second["level"]) == ("defect 100%", "error")
    assert "ValueError: no" in second["exception"]


def test_broken_stderr_breaks_nothing(output: Callable[[], bytes]) -> None:
    """An event that stderr does not take is counted."""
    log_io.configure(EventLog(format="json"))
    lost, fd = log_io.sink.lost, log_io.sink.fd
    log_io.sink.fd = os.open("/dev/full", os.O_WRONLY)
    log_io.get_logger().error("x")
    os.close(log_io.sink.fd)
    log_io.sink.fd = fd
    assert log_io.sink.lost == lost + 1


def test_imports_stay_small(tmp_path: Path) -> None:
    """A worker that imports the logs loads none of the heavy packages, even where they are installed."""
    for name in ("rich", "better_exceptions"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    program = (
        "import sys, edgeq.observe.log_io, edgeq.observe.access_io\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "import rich\n"  # and whoever wants it later can have it
        "print(heavy, rich.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"[] {tmp_path}/rich/__init__.py\n"
