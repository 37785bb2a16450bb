"""A worker process from its fork to its end: one loop, one App, one control socket, one row of the board."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from edgeq.board.layout import Board, Row
from edgeq.board.page import Page
from edgeq.config.schema import Config
from edgeq.observe import log_io
from edgeq.supervisor.channel_io import send_blocking
from edgeq.supervisor.messages import AccountsTold, Failed, encode_message
from edgeq.worker import report
from edgeq.worker.control_io import App, Control, MakeApp, configure_log, log_failure

_log = log_io.get_logger()
BEAT_S: Final = 0.25
"""Between two flushes of counters to the board."""
_BEATS: Final = 2
"""Between two reports: one costs 0.4 ms, and 1.2 ms with 256 endpoints, so they take a thousandth of a processor."""


class Pulse:
    """Flushes the App's counters and report and the loop's lag to the board."""

    __slots__ = ("_app", "_beats", "_due_s", "_failed", "_loop", "_page", "_row")

    def __init__(self, loop: asyncio.AbstractEventLoop, app: App, row: Row, page: Page) -> None:
        self._loop = loop
        self._app = app
        self._row = row
        self._page = page
        self._beats = 0
        self._failed = False
        self._due_s = loop.time()

    def beat(self) -> None:
        """Flush now, and again in BEAT_S."""
        lag_s = max(0.0, self._loop.time() - self._due_s)
        stats = self._app.stats()
        requests, in_flight = int(stats.get("requests", 0)), int(stats.get("in_flight", 0))
        self._row.beat(time.monotonic_ns(), int(lag_s * 1e6), requests, in_flight)
        if self._beats % _BEATS == 0:
            self._tell_on(self._app.report(), {})
        self._beats += 1
        self._due_s = self._loop.time() + BEAT_S
        self._loop.call_at(self._due_s, self.beat)

    def tell(self) -> None:
        """Write the App's report at once."""
        with self._told_once():
            document: dict[str, Any] = {}
            for part in self._app.report():
                document.update(part)
            self._write(document)

    def _tell_on(self, parts: Iterator[dict[str, Any]], document: dict[str, Any]) -> None:
        """The same, each part in a turn of the loop of its own: whoever comes meanwhile waits for one of them."""
        with self._told_once():
            part = next(parts, None)
            if part is None:
                self._write(document)
            else:
                document.update(part)
                self._loop.call_soon(self._tell_on, parts, document)

    def _write(self, document: dict[str, Any]) -> None:
        self._page.write(report.encode(document, self._page.max_bytes))

    @contextlib.contextmanager
    def _told_once(self) -> Iterator[None]:
        """A defect in a report must not stop the heart: it is told once."""
        try:
            yield
        except Exception:
            if not self._failed:
                _log.exception("no report: edgeq show lacks what this worker knows")
            self._failed = True


def main(
    slot: int,
    workers: int,
    generation: int,
    config: Config,
    ticket_secret: bytes,
    control: socket.socket,
    board_fd: int,
    bells: Sequence[int],
    sockets: dict[str, socket.socket],
    kept: frozenset[str],
    accounts: AccountsTold | None,
    leftover_fd: int,
    make_app: MakeApp,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> int:
    """Run one worker. Returns the exit code: 0 after a drain, 1 if it could not start."""
    configure_log(config)
    board = Board.attach(board_fd, bells)
    row = board.row(slot)
    row.begin(os.getpid(), generation)
    events = board.events(slot)
    log_io.tap(events.append, events.max_line_bytes - 1)
    loop = make_loop()
    asyncio.set_event_loop(loop)
    try:
        app = make_app(slot, workers, generation, config, ticket_secret, sockets, board)
        if accounts is not None:
            app.hear(accounts)
        app.start(loop)
    except Exception as error:
        why = log_failure("worker cannot start", error, config, slot=slot)
        with contextlib.suppress(OSError):  # the supervisor has gone: for what the worker before this one has told
            send_blocking(control, encode_message(Failed(generation, why)))
        return 1
    ends = Control(loop, control, app, row, generation, config, sockets, kept, board.bells, leftover_fd)
    pulse = Pulse(loop, app, row, board.report(slot))
    pulse.tell()
    pulse.beat()
    gc.collect()
    gc.freeze()
    ends.ready()
    try:
        loop.run_forever()
    finally:
        pulse.tell()  # what was counted last survives this process
        app.close()
        ends.finish()
        loop.close()
    return 0
