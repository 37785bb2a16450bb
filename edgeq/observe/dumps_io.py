"""The history in files: written when a storm of refusals begins, read by `edgeq show history --file`.

A file is the ring itself (board/ring.py) with a note, compressed by gzip, whose checksum tells a file that was cut off.
It is written in a thread, under another name until it is whole; the loop only makes the copy, which takes 1 ms for each
ten resources. KEPT files remain, the newest; and there is one in EVERY_S at most, or a load that comes in waves would
push out the file of its first one. What cannot be written is told in the event log, and costs nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import os
import re
import time
import zlib
from pathlib import Path
from typing import Any, Final

from edgeq import __version__
from edgeq.errors import EdgeqError
from edgeq.observe import log_io
from edgeq.observe.history import History
from edgeq.observe.recorder import Recorder
from edgeq.observe.storms import WINDOW_S, Began, Storms

KEPT: Final = 8
EVERY_S: Final = 300.0
MAX_BYTES: Final = 1 << 30
"""Of a file that is read, unpacked: an hour of all lanes is half of it."""
_NAMES: Final = "storm-*.history"
_PART: Final = ".part"
_CLOSE_S: Final = 2.0
_log = log_io.get_logger()


class DumpError(EdgeqError):
    """A file that cannot be read as history."""


class Dumps:
    """The files of one directory, which must exist; "" for none. All methods but `due` do I/O."""

    def __init__(self, directory: str) -> None:
        """A directory that cannot be written is told, and then nothing is due."""
        self._path = Path(directory)
        why = _problem(directory)
        self._is_off = not directory or bool(why)
        self._written_s = 0.0 if self._is_off else self._newest_s()
        """Wall clock, so that it outlives the process."""
        if why:
            _log.warning("history of refusal storms is not written", directory=directory, why=why)

    def due(self, now_s: float) -> bool:
        """Is it time for another file? `now_s` of the wall clock, which may have been put back."""
        return not self._is_off and not 0 <= now_s - self._written_s < EVERY_S

    def name(self, now_s: float, resource: str) -> Path:
        """Of a file that will be written now; the next is not due for a while."""
        self._written_s = now_s
        at = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        return self._path / f"storm-{at:%Y%m%dT%H%M%SZ}-{re.sub('[^A-Za-z0-9._-]', '-', resource)}.history"

    def write(self, path: Path, ring: bytearray) -> None:
        """Write a file and remove what is too old. Raises OSError."""
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
            part.unlink(missing_ok=True)
            raise
        for old in sorted(self._path.glob(_NAMES))[:-KEPT]:
            old.unlink(missing_ok=True)
        for left in self._path.glob(f"storm-*{_PART}"):
            left.unlink(missing_ok=True)

    def _newest_s(self) -> float:
        times = [0.0]
        with contextlib.suppress(OSError):
            times += [one.stat().st_mtime for one in self._path.glob(_NAMES)]
        return max(times)


class StormWatch:
    """Looks for storms, tells of them in the event log, and has the history written when one begins."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._storms = Storms()
        self._dumps = Dumps("")
        self._files: dict[str, str] = {}
        """By resource, of the storms that go on."""
        self._writing: set[asyncio.Future[None]] = set()

    def configure(self, directory: str) -> None:
        """At the start, and after a reload."""
        self._dumps = Dumps(directory)

    def look(self, now_s: float) -> None:
        """Once a second; monotonic."""
        recent = {
            name: moments[-1]
            for name in self._recorder.resources()
            if (moments := self._recorder.history(name, WINDOW_S, WINDOW_S))
        }
        for change in self._storms.look(now_s, recent):
            if isinstance(change, Began):
                self._files[change.resource] = self._dump(change)
                facts = {"refused_per_s": round(change.refused_per_s, 1), "of_per_s": round(change.arrivals_per_s, 1)}
                _log.warning("storm_began", resource=change.resource, **facts, file=self._files[change.resource])
            else:
                file = self._files.pop(change.resource, "")
                facts = {"lasted_s": round(change.lasted_s, 1), "peak_per_s": round(change.peak_per_s, 1)}
                _log.info("storm_ended", resource=change.resource, **facts, file=file)

    async def close(self) -> None:
        """What is being written gets a moment."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=_CLOSE_S)

    def _dump(self, storm: Began) -> str:
        """Have the history written. Returns the name of the file that will be there in a moment, or ""."""
        now_s = time.time()
        if not self._dumps.due(now_s):
            return ""
        ring = self._recorder.copy({"version": __version__, "at_s": now_s, **storm._asdict()})
        path = self._dumps.name(now_s, storm.resource)
        future = asyncio.get_running_loop().run_in_executor(None, self._dumps.write, path, ring)
        self._writing.add(future)
        future.add_done_callback(self._written)
        return str(path)

    def _written(self, future: asyncio.Future[None]) -> None:
        self._writing.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.error("history of a refusal storm not written", why=str(error))


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


def _problem(directory: str) -> str:
    """Why nothing can be written there; empty if it can, or none is named."""
    if not directory:
        return ""
    if not os.path.isdir(directory):
        return "there is no such directory"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "this user may not write there"
