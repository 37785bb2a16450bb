"""A worker process from its fork to its end: one loop, one App, one control socket, one row of the board."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from edgeq.board.layout import Board, Row
from edgeq.config.schema import Config
from edgeq.observe import log_io
from edgeq.supervisor.channel_io import send_blocking
from edgeq.supervisor.messages import Failed, encode_message
from edgeq.worker.control_io import App, Control, MakeApp, configure_log, log_failure

_log = log_io.get_logger()
BEAT_S: Final = 0.25
"""Between two flushes of counters to the board."""


class Pulse:
    """Flushes the App's counters and the loop's lag to the board."""

    __slots__ = ("_app", "_due_s", "_loop", "_row")

    def __init__(self, loop: asyncio.AbstractEventLoop, app: App, row: Row) -> None:
        self._loop = loop
        self._app = app
        self._row = row
        self._due_s = loop.time()

    def beat(self) -> None:
        """Flush now, and again in BEAT_S."""
        lag_s = max(0.0, self._loop.time() - self._due_s)
        stats = self._app.stats()
        requests, in_flight = int(stats.get("requests", 0)), int(stats.get("in_flight", 0))
        self._row.beat(time.monotonic_ns(), int(lag_s * 1e6), requests, in_flight)
        self._due_s = self._loop.time() + BEAT_S
        self._loop.call_at(self._due_s, self.beat)


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
    make_app: MakeApp,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> int:
    """Run one worker. Returns the exit code: 0 after a drain, 1 if it could not start."""
    configure_log(config)
    board = Board.attach(board_fd, bells)
    row = board.row(slot)
    row.begin(os.getpid(), generation)
    loop = make_loop()
    asyncio.set_event_loop(loop)
    try:
        app = make_app(slot, workers, generation, config, ticket_secret, sockets, board)
        app.start(loop)
    except Exception as error:
        why = log_failure("worker cannot start", error, config, slot=slot)
        send_blocking(control, encode_message(Failed(generation, why)))
        return 1
    ends = Control(loop, control, app, row, generation, config, sockets, kept, board.bells)
    Pulse(loop, app, row).beat()
    gc.collect()
    gc.freeze()
    ends.ready()
    try:
        loop.run_forever()
    finally:
        app.close()
        loop.close()
    return 0
