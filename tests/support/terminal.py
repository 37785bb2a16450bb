"""A program in a terminal of its own: what it shows is read off an emulated screen (pyte)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyte


class Terminal:
    """Of one program. `raw` is all that it has written."""

    def __init__(self, argv: Sequence[str], columns: int, rows: int, environment: Mapping[str, str]) -> None:
        self.raw = b""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._begin, ours = os.pipe()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.close(ours)
            os.read(self._begin, 1)  # not before the size is set
            # A program that runs tests may say how large its own terminal is.
            inherited = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
            os.execve(argv[0], list(argv), {**inherited, "TERM": "xterm-256color", **environment})
        os.close(self._begin)
        self._size(columns, rows)
        os.close(ours)
        self.modes = termios.tcgetattr(self._fd)
        """Of the terminal before the program has changed them."""
        self.status: int | None = None

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As when the window is dragged."""
        self.screen.resize(rows, columns)
        self._size(columns, rows)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, what: str, so: Callable[[str], object], timeout_s: float = 30.0) -> str:
        """Read until this is so of the screen's text. Returns the text."""
        deadline_s = time.monotonic() + timeout_s
        while not so(self.text):
            assert time.monotonic() < deadline_s, f"waited for {what}; the screen:\n{self.text}"
            assert self._pump(), f"ended before {what}; the screen:\n{self.text}\n{self.raw[-2000:]!r}"
        return self.text

    def shows(self, text: str) -> str:
        """Wait until the screen has this text."""
        return self.until(repr(text), lambda screen: text in screen)

    def _pump(self) -> bool:
        """Read what has come. Returns: False if the program has ended."""
        if not select.select([self._fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other side open
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def end(self) -> int:
        """Wait for the program's end. Returns its exit code, or the negative number of a signal."""
        if self.status is None:
            deadline_s = time.monotonic() + 60
            while self._pump():
                assert time.monotonic() < deadline_s, f"does not end; the screen:\n{self.text}"
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def is_as_before(self) -> bool:
        """Has the terminal its modes, its first screen and its cursor back?"""
        return (
            termios.tcgetattr(self._fd) == self.modes
            and self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
            and self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        )

    def close(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def terminal(
    argv: Sequence[str], columns: int = 80, rows: int = 24, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """A program in a terminal; killed at the end if it is still there."""
    made = Terminal(argv, columns, rows, environment or {})
    try:
        yield made
    finally:
        made.close()
