"""`edgeq top` in a real terminal, before a real gateway."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import ONCE
from tests.support.gateway import Settings, Value, free_port
from tests.support.machine import machine
from tests.support.supervised import supervised
from tests.support.terminal import Terminal, terminal

pytestmark = ONCE

QUEUE = "upstream/u:queue"
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)(?:;\d+)*m")
BROKEN = """
import sys, edgeq.top.app_io as app
def broken(*_):
    raise RuntimeError("a defect")
app.queue_page = broken
from edgeq.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a gateway with two requests in a queue that has room for four."""
    path = tmp_path_factory.mktemp("admin") / "admin.sock"
    queue: dict[str, Value] = {"max": 4, "timeout": "300s", "discipline": "fifo"}
    extra: dict[str, Value] = {"server": {"admin": str(path)}, "upstream": {"u": {"queue": queue}}}
    with machine(Settings(workers=2, limit=1, first_byte_s=300, extra=extra)) as made:
        for slot in (0, 1, 1):
            made.ask(slot)
        made.wait_queued(2)
        yield path


@contextlib.contextmanager
def top(
    path: Path, columns: int = 80, rows: int = 24, *arguments: str, code: str = "", **environment: str
) -> Iterator[Terminal]:
    """A live screen that has been drawn."""
    program = ["-c", code] if code else ["-m", "edgeq"]
    argv = [sys.executable, *program, "top", "--interval", "0.1", "--admin", str(path), *arguments]
    with terminal(argv, columns, rows, environment) as made:
        made.shows("q quit")
        yield made


def once(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "edgeq", "top", "--admin", str(path), *arguments]
    return subprocess.run(
        argv, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_a_narrow_window(admin: Path) -> None:
    """60 columns: the queues by fill, then each key in turn, and out; the terminal is as it was."""
    with top(admin, 60, 20) as screen:
        text = screen.until("a trend", lambda text: "trend" in text)
        assert text.splitlines()[3].startswith(f"▸{QUEUE} ")
        assert "50%" in text.splitlines()[3]
        assert "\n upstream " in text
        assert "\n worker " in text
        screen.press("j")
        screen.until("the next one", lambda text: "▸" in text and not text.splitlines()[3].startswith("▸"))
        screen.press("s")
        screen.shows("queues by depth")
        screen.press("/")
        screen.shows("only names with")
        screen.press("PooL")
        screen.shows("only 'PooL'")
        screen.press("\r")
        screen.until("the end of input", lambda text: text.endswith("e explain"))
        screen.press("\x1b")
        screen.until("all queues", lambda text: "only" not in text)
        screen.press("?")
        screen.shows("next order")
        screen.press("\x1b")
        screen.shows("q quit")
        screen.press("\x1b[H")
        screen.until("the first one", lambda text: f"\n▸{QUEUE} " in text)
        screen.press("\r")
        screen.shows("high_water: 2")
        screen.press("\x1b")
        screen.shows("q quit")
        screen.press("e")
        screen.until("what explain says", lambda text: text.startswith(QUEUE) and "asking" not in text)
        screen.press("q")
        screen.shows("q quit")
        screen.press("c")
        screen.until("who waits", lambda text: text.startswith("connections") and text.count(" waiting ") == 2)
        screen.press("q")
        screen.shows("q quit")
        screen.press("q")
        assert screen.end() == 0
        assert screen.is_as_before()


def test_a_window_of_any_size(admin: Path) -> None:
    """It follows each change, down to almost nothing; Ctrl-C is a way out, also of the filter."""
    with top(admin) as screen:
        for columns, rows in ((60, 10), (20, 4), (5, 2), (100, 30)):
            screen.resize(columns, rows)
            keys = "q quit  ? help  s sort  / filter  enter open  e explain"[:columns].rstrip()
            screen.until("the head", lambda text, columns=columns: text.startswith("edgeq"[:columns]))  # type: ignore[misc]
            screen.until("the keys", lambda text, keys=keys: text.splitlines()[-1:] == [keys])  # type: ignore[misc]
            assert len(screen.text.splitlines()) == rows
        screen.press("/")
        screen.shows("only names with")
        screen.press("\x03")
        assert screen.end() == 0
        assert screen.is_as_before()


def test_colours(admin: Path) -> None:
    """A queue that fills up is yellow; with NO_COLOR nothing has a colour."""
    with top(admin) as screen:
        screen.until("yellow", lambda _: any(char.fg == "brown" for char in screen.screen.buffer[3].values()))
    with top(admin, NO_COLOR="1") as screen:
        screen.until("a trend", lambda text: "trend" in text)
        screen.press("\r")
        screen.shows("high_water")
        assert COLOUR.search(screen.raw) is None


@pytest.mark.parametrize("how", ["SIGTERM", "a defect"])
def test_an_end_that_nobody_wanted(admin: Path, how: str) -> None:
    """The terminal is as it was, and of a defect there is a traceback."""
    with top(admin, code=BROKEN) as screen:
        if how == "SIGTERM":
            os.kill(screen.pid, signal.SIGTERM)
            assert screen.end() == 128 + signal.SIGTERM
        else:
            screen.press("\r")
            assert screen.end() == 1
            assert b"a defect" in screen.raw
        assert screen.is_as_before()


def test_a_gateway_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """It is said, the last numbers stay, and they go on by themselves."""
    addresses = [f"127.0.0.1:{free_port()}"]
    with supervised(tmp_path, workers=1, addresses=addresses) as gateway, top(tmp_path / "admin.sock", 60) as screen:
        gateway.stop()
        screen.until("what is wrong", lambda text: "no answer for " in text and "s: No such file" in text)
        assert "worker" in screen.text
        with supervised(tmp_path, workers=1, addresses=addresses):
            screen.until("an answer", lambda text: "queues by fill" in text)
            screen.press("q")
            assert screen.end() == 0


def test_a_gateway_that_hangs(tmp_path: Path) -> None:
    """What is shown is said to be old, unless it is held; and it goes on by itself."""
    addresses = [f"127.0.0.1:{free_port()}"]
    with supervised(tmp_path, workers=1, addresses=addresses) as gateway, top(tmp_path / "admin.sock") as screen:
        screen.shows("queues by fill")
        os.kill(gateway.process.pid, signal.SIGSTOP)
        screen.shows("no answer for ")
        screen.press(" ")
        screen.shows("held: space goes on")
        screen.press(" ")
        screen.shows("no answer for ")
        os.kill(gateway.process.pid, signal.SIGCONT)
        screen.shows("queues by fill")
        screen.press("q")
        assert screen.end() == 0


def test_printed(admin: Path) -> None:
    """--once: no terminal is needed; in the order and the width that were asked for, only what matches."""
    done = once(admin, "--once", COLUMNS="60")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[3].split()[:3] == [QUEUE, "50%", "2"]
    assert any(line.startswith(" u ") for line in lines)
    assert sum(" serving " in line for line in lines) == 2
    only = once(admin, "--once", "--sort", "name", "pool", PYTHONIOENCODING="ascii").stdout.splitlines()
    assert only[1].endswith("queues by name, only 'pool'")
    assert ":pool" in only[3]
    assert not any(QUEUE in line for line in only)


def test_what_is_wrong_is_said(admin: Path, tmp_path: Path) -> None:
    """No gateway, no terminal, no library, nonsense: an exit code and one line each."""
    gone = once(tmp_path / "none.sock", "--once")
    assert (gone.returncode, gone.stderr.count("\n")) == (69, 1)
    assert "none.sock is not reachable: No such file" in gone.stderr
    (tmp_path / "text").write_text("no socket")
    assert once(tmp_path / "text", "--once").returncode == 69
    assert once(admin).returncode == 2
    assert "--once" in once(admin).stderr
    assert once(admin, "--interval", "0").returncode == 2
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('No module named textual', name='textual')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    argv = [sys.executable, "-m", "edgeq", "top", "--admin", str(admin)]
    with terminal(argv, environment={"PYTHONPATH": path}) as screen:
        assert screen.end() == 1
        assert screen.text == "edgeq top: needs textual: pip install 'edgeq[top]', or use edgeq top --once"
