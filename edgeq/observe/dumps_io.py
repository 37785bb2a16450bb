"""The history in files: written when refusals become a storm (storm_watch_io.py), read by `show history --file`.

A file is the ring itself (board/ring.py) with a note, compressed by gzip, whose checksum tells a file that was cut off.
It is written under another name until it is whole. KEPT files remain, the newest; and there is one in EVERY_S at most,
or a load that comes in waves would push out the file of its first one.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import os
import re
import zlib
from pathlib import Path
from typing import Any, Final

from edgeq.errors import EdgeqError
from edgeq.observe import log_io
from edgeq.observe.history import History

KEPT: Final = 8
EVERY_S: Final = 300.0
MAX_BYTES: Final = 1 << 30
"""Of a file that is read, unpacked: an hour of all lanes is half of it."""
_NAMES: Final = "storm-*.history"
_PART: Final = ".part"
_log = log_io.get_logger()


class DumpError(EdgeqError):
    """A file that cannot be read as history."""


class Dumps:
    """The files of one directory, which must exist; "" for none. All methods but `due` do I/O."""

    def __init__(self, directory: str) -> None:
        """A directory that cannot be written is told, and then nothing is due."""
        self._path = Path(directory)
        why = _problem(directory)
        self.is_on = bool(directory) and not why
        self._written_s = self._newest_s() if self.is_on else 0.0
        """Wall clock, so that it outlives the process."""
        if why:
            _log.warning("history of refusal storms is not written", directory=directory, why=why)

    def due(self, now_s: float) -> bool:
        """Is it time for another file? `now_s` of the wall clock, which may have been put back."""
        return self.is_on and not 0 <= now_s - self._written_s < EVERY_S

    def name(self, now_s: float, resource: str) -> Path:
        """Of a file that will be written now; the next is not due for a while."""
        self._written_s = now_s
        at = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        return self._path / f"storm-{at:%Y%m%dT%H%M%SZ}-{re.sub('[^A-Za-z0-9._-]', '-', resource)}.history"

    def write(self, path: Path, ring: bytearray) -> None:
        """Write a file and remove what is too old. Raises OSError, and then another one is due."""
        part = path.with_suffix(_PART)
        part.unlink(missing_ok=True)
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(fd, "wb") as raw:
                with gzip.GzipFile("", "wb", 1, raw) as stream:
                    stream.write(ring)
                raw.flush()
                os.fsync(fd)
            part.replace(path)
        except OSError:
            self._written_s = 0.0
            part.unlink(missing_ok=True)
            raise
        # One from the future was written while the clock was wrong, so nobody knows how old it is: it goes first.
        files = sorted(self._path.glob(_NAMES), key=lambda one: (one.name <= path.name, one.name))
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)
        for left in self._path.glob(f"storm-*{_PART}"):
            left.unlink(missing_ok=True)

    def _newest_s(self) -> float:
        times = [0.0]
        with contextlib.suppress(OSError):
            times += [one.stat().st_mtime for one in self._path.glob(_NAMES)]
        return max(times)


def read(path: str) -> tuple[History, dict[str, Any]]:
    """The history in a file, and its note. Raises DumpError."""
    try:
        with gzip.open(path) as stream:
            memory = stream.read(MAX_BYTES)
        return History.load(memory)
    except EOFError:
        raise DumpError(f"{path} is cut off: its end is missing") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DumpError(f"{path} is no history that edgeq has written, or is damaged: {error}") from None
    except OSError as error:
        raise DumpError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DumpError(f"{path} is no history that edgeq has written: {error}") from None


def records(path: str, resource: str, seconds: float, step_s: float) -> list[dict[str, Any]] | str:
    """`History.records` of a file. Raises DumpError."""
    history, _note = read(path)
    try:
        return history.records(resource, seconds, step_s)
    except (ValueError, ArithmeticError, OSError) as error:  # times and names that nobody has written
        raise DumpError(f"{path} is no history that edgeq has written: {error}") from None


def _problem(directory: str) -> str:
    """Why nothing can be written there; empty if it can, or none is named."""
    if not directory:
        return ""
    if not os.path.isdir(directory):
        return "there is no such directory"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "this user may not write there"
