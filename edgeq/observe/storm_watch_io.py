"""Storms of refusals as they happen: told in the event log, and the history written when one begins.

The file is written in a thread; the loop only makes a copy of the ring, which takes 1 ms for each ten resources. What
cannot be written is told in the event log, and costs nothing else.

A storm that begins so soon after the last file that none is due has its file as soon as one is: with the usual length
of the ring (`server.history`) what was since the last file is all still there.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Final

from edgeq import __version__
from edgeq.observe import log_io
from edgeq.observe.dumps_io import Dumps
from edgeq.observe.recorder import GATE, Recorder
from edgeq.observe.storms import WINDOW_S, Began, Storms

_CLOSE_S: Final = 2.0
_log = log_io.get_logger()


class StormWatch:
    """Of one gateway."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._storms = Storms()
        self._dumps = Dumps("")
        self._files: dict[str, str] = {}
        """By resource, of the storms that go on."""
        self._owed: Began | None = None
        """The first storm since the last file."""
        self._writing: set[asyncio.Future[None]] = set()

    def configure(self, directory: str) -> None:
        """At the start, and after a reload."""
        self._dumps = Dumps(directory)
        if not self._dumps.is_on:
            self._owed = None

    def look(self, now_s: float) -> None:
        """Once a second; monotonic."""
        recent = {
            name: moments[-1]
            for name in self._recorder.resources()
            if not name.startswith(GATE)  # whom one of them does not let in another one may
            if (moments := self._recorder.history(name, WINDOW_S, WINDOW_S))
        }
        if self._owed is not None and (file := self._dump(self._owed)):
            _log.warning("storm_written", resource=self._owed.resource, file=file)
            if self._owed.resource in self._files:
                self._files[self._owed.resource] = file
            self._owed = None
        for change in self._storms.look(now_s, recent):
            if isinstance(change, Began):
                self._files[change.resource] = self._dump(change)
                if self._dumps.is_on and not self._files[change.resource]:
                    self._owed = self._owed or change
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
        future.add_done_callback(functools.partial(self._written, str(path)))
        return str(path)

    def _written(self, path: str, future: asyncio.Future[None]) -> None:
        self._writing.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.error("history of a refusal storm not written", file=path, why=str(error))
            self._files = {resource: "" if file == path else file for resource, file in self._files.items()}
