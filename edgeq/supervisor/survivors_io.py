"""Workers of an earlier supervisor that was killed: they finish by themselves, watched until they are gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator

from edgeq.observe import log_io
from edgeq.supervisor.legacy_io import Mate
from edgeq.supervisor.process_io import open_survivor, send_signal

_log = log_io.get_logger()


class Survivors:
    """Those that are still there: a pidfd tells of the end of each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gone: Callable[[Mate], None]) -> None:
        """`gone` is called with each when it is."""
        self._loop = loop
        self._gone = gone
        self._pidfds: dict[Mate, int] = {}

    def __len__(self) -> int:
        return len(self._pidfds)

    def __iter__(self) -> Iterator[Mate]:
        return iter(self._pidfds)

    def watch(self, mates: Iterable[Mate], patience_s: float) -> None:
        """Those of them that are there; who still is after `patience_s` is killed."""
        for mate in mates:
            pidfd = open_survivor(mate.pid, mate.started)
            if pidfd is not None:
                self._pidfds[mate] = pidfd
                self._loop.add_reader(pidfd, self._on_pidfd, mate)
                self._loop.call_later(patience_s, self._kill, mate)

    def kill_in(self, delay_s: float) -> None:
        """Who is still there then."""
        for mate in self._pidfds:
            self._loop.call_later(delay_s, self._kill, mate)

    def kill(self) -> None:
        """At once."""
        for mate in tuple(self._pidfds):
            self._kill(mate)

    def _kill(self, mate: Mate) -> None:
        if mate in self._pidfds:
            _log.warning("worker of the last run does not leave: killed", slot=mate.slot, worker_pid=mate.pid)
            send_signal(self._pidfds[mate], signal.SIGKILL)

    def _on_pidfd(self, mate: Mate) -> None:
        pidfd = self._pidfds.pop(mate)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        _log.info("worker of the last run left", slot=mate.slot, worker_pid=mate.pid)
        self._gone(mate)
