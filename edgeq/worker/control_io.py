"""The worker's end of its control socket: what the supervisor says, done in order, each answered when it is done.

::

    SERVING --Retire (one per listener)--> SERVING --Drain--> DRAINING --nothing open--> exit
       |                                                          ^
       +--the supervisor is gone: refuse, wait, retire all -------+   (what is kept for its successor is not refused)

Invariant: draining begins only when every accept queue is empty, so no accepted connection is forgotten at exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from edgeq.board.layout import STATE_DRAINING, STATE_SERVING, Board, Row
from edgeq.config.schema import Config
from edgeq.errors import EdgeqError
from edgeq.listener.tls_io import TlsError
from edgeq.llm.leftover_io import Leftover
from edgeq.observe import log_io
from edgeq.supervisor.bpf_io import refuse_new
from edgeq.supervisor.channel_io import Channel
from edgeq.supervisor.frames import Frame
from edgeq.supervisor.messages import (
    AccountsTaken,
    AccountsTold,
    Applied,
    Apply,
    ConnectionList,
    Drain,
    Drained,
    Emptied,
    Empty,
    ListConnections,
    Message,
    Ready,
    RenewTickets,
    ReopenLogs,
    Retire,
    Retired,
    SeenConnection,
    UsageTaken,
    UsageTold,
    decode_to_worker,
    encode_message,
    unpack_config,
)

_log = log_io.get_logger()
ORPHAN_GRACE_S: Final = 0.2
"""Without a supervisor: until handshakes in flight are complete."""
ORPHAN_MARGIN_S: Final = 10.0
"""Without a supervisor: after the drain timeout, until the process ends in any case."""
_LAST_WORDS_S: Final = 1.0
"""For the supervisor to take them."""


class App(Protocol):
    """What a worker runs; `edgeq.worker.app.App` is the one."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to accept."""

    def apply(
        self, generation: int, workers: int, config: Config, sockets: dict[str, socket.socket], rereads: bool
    ) -> None:
        """Take over a configuration, or raise and keep the old one. `sockets`: of listeners that are new here;
        `rereads`: also what has not changed in it reads its files again."""

    def speak_by(self, send: Callable[[Message], None]) -> None:
        """How to tell the supervisor something, from now on."""

    def hear(self, message: AccountsTold | UsageTaken) -> None:
        """What the supervisor tells of accounts; the first time before `start`."""

    def renew_tickets(self, secret: bytes) -> None:
        """Make and take TLS session tickets by this secret from now on."""

    def retire_listener(self, address: str, on_empty: Callable[[], None]) -> None:
        """Accept until the queue is empty, close the own descriptor, then call `on_empty`.

        For a listener that it does not have: call `on_empty` at once.
        """

    def empty_queue(self, address: str, sock: socket.socket, on_empty: Callable[[], None]) -> None:
        """Accept what waits in another worker's socket of a listener that it has, close it, then call `on_empty`."""

    def drain(self, timeout_s: float, on_done: Callable[[], None]) -> None:
        """Finish what runs; call `on_done` when nothing is open or the time is over."""

    def reopen_logs(self) -> None:
        """Open log files again by name."""

    def stats(self) -> dict[str, int | float]:
        """Counters for the board: requests, in_flight."""

    def report(self) -> Iterator[dict[str, Any]]:
        """What `edgeq show` tells of this worker beside the numbers of its row (report.py), in JSON's types and in
        parts, each of which may have a turn of the loop."""

    def connections(self, count: int) -> tuple[SeenConnection, ...]:
        """So many of the clients' connections, those with a request first (connections.py)."""

    def close(self) -> None:
        """Let go of everything."""


class MakeApp(Protocol):
    """The constructor of an App."""

    def __call__(
        self,
        slot: int,
        workers: int,
        generation: int,
        config: Config,
        ticket_secret: bytes,
        sockets: dict[str, socket.socket],
        board: Board,
    ) -> App: ...


def configure_log(config: Config) -> None:
    """Events as [log] says."""
    log_io.configure(config.log)


def log_failure(event: str, error: Exception, config: Config, **fields: object) -> str:
    """Log why a configuration cannot be run. Returns the reason for people: of our own errors and the system's they
    need the text, of what is a defect also the type, and the log has its traceback."""
    if isinstance(error, EdgeqError | TlsError | OSError):
        why = str(error)
        if os.strerror(errno.EACCES) in why and config.server.user and os.geteuid():
            why += f" (workers run as user {config.server.user})"
        _log.error(event, error=why, **fields)
        return why
    _log.error(event, exc_info=error, **fields)
    return f"{type(error).__name__}: {error}"


class Control:
    """Turns messages into calls of the App."""

    __slots__ = (
        "_app",
        "_bells",
        "_channel",
        "_config",
        "_drain_timeout_s",
        "_emptying",
        "_kept",
        "_leftover",
        "_loop",
        "_row",
        "_sockets",
        "generation",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        control: socket.socket,
        app: App,
        row: Row,
        generation: int,
        config: Config,
        sockets: dict[str, socket.socket],
        kept: frozenset[str],
        bells: list[int],
        leftover_fd: int = -1,
    ) -> None:
        self._loop = loop
        self._app = app
        self._bells = bells
        """The board's; grows by what a new configuration brings."""
        self._leftover: Leftover | None = None
        """For what was used while there is no supervisor."""
        if leftover_fd >= 0:
            self._leftover = Leftover(loop, leftover_fd, lambda number: app.hear(UsageTaken(number)))
        self._row = row
        self._config = config
        self._sockets = dict(sockets)
        self._kept = kept
        """Listeners whose sockets a successor of the supervisor takes over."""
        self._drain_timeout_s: float | None = None
        self._emptying = 0
        """Queues of others that are being emptied."""
        self.generation = generation
        self._channel = Channel(loop, control, self._on_frame, self._on_orphaned, with_fds=True)
        app.speak_by(self._send)

    def ready(self) -> None:
        """The App accepts."""
        self._row.set_state(STATE_SERVING)
        self._send(Ready(os.getpid(), self.generation))

    def finish(self) -> None:
        """The loop has ended: have the supervisor get what was said last."""
        self._channel.send_rest(_LAST_WORDS_S)
        if self._leftover is not None:
            self._leftover.finish()

    def _send(self, message: Message) -> None:
        if self._channel.closed and isinstance(message, UsageTold) and self._leftover is not None:
            self._leftover.put(message)
        else:
            self._channel.send(encode_message(message))

    def _on_frame(self, frame: Frame) -> None:
        match decode_to_worker(frame.payload):
            case Apply() as message:
                self._apply(message, frame.fds)
            case Retire(address):
                self._retire(address)
            case Empty(address):
                self._empty(address, socket.socket(fileno=frame.fds[0]))
            case Drain(timeout_s):
                self._drain(timeout_s)
            case ReopenLogs():
                self._app.reopen_logs()
            case RenewTickets(tickets):
                self._app.renew_tickets(tickets.value)
            case ListConnections(count):
                self._list_connections(count)
            case UsageTaken() as message:
                self._app.hear(message)
            case AccountsTold() as message:
                self._app.hear(message)
                if message.snapshot is not None:
                    self._send(AccountsTaken(message.number))

    def _list_connections(self, count: int) -> None:
        try:
            connections: tuple[SeenConnection, ...] | None = self._app.connections(count)
        except Exception:  # nothing else shall suffer from it
            _log.exception("connections not listed")
            connections = None
        self._send(ConnectionList(count, connections))

    def _apply(self, message: Apply, fds: list[int]) -> None:
        # Kept even if the App refuses: it may have begun to accept. The supervisor will have them retired then.
        count = len(message.addresses)
        self._bells.extend(fds[count:])
        new = {address: socket.socket(fileno=fd) for address, fd in zip(message.addresses, fds[:count], strict=True)}
        self._sockets.update(new)
        config: Config | None = None
        try:
            config = unpack_config(message.config)
            self._app.apply(message.generation, message.workers, config, new, message.rereads)
        except Exception as error:
            # Whatever it was: the worker goes on with what it has, and the supervisor takes the change back everywhere.
            why = log_failure("configuration not applied", error, config or self._config, generation=message.generation)
            self._send(Applied(message.generation, why))
            return
        self._config = config
        self._kept = message.kept
        self.generation = message.generation
        self._row.set_generation(message.generation)
        configure_log(config)
        self._send(Applied(message.generation))

    def _retire(self, address: str) -> None:
        if address in self._sockets:
            self._app.retire_listener(address, lambda: self._retired(address))
        else:
            self._send(Retired(address))

    def _retired(self, address: str) -> None:
        sock = self._sockets.pop(address, None)
        if sock is not None:
            sock.close()  # the App has done it, unless it never took this listener
        self._send(Retired(address))
        self._drain_if_empty()

    def _empty(self, address: str, sock: socket.socket) -> None:
        self._emptying += 1
        try:
            self._app.empty_queue(address, sock, lambda: self._emptied(address))
        except Exception:  # its own queues matter more: the supervisor must not wait for this one
            _log.exception("queue of another worker not emptied", address=address)
            sock.close()
            self._emptied(address)

    def _emptied(self, address: str) -> None:
        self._emptying -= 1
        self._send(Emptied(address))
        self._drain_if_empty()

    def _drain(self, timeout_s: float) -> None:
        self._row.set_state(STATE_DRAINING)
        self._drain_timeout_s = timeout_s
        self._drain_if_empty()

    def _drain_if_empty(self) -> None:
        if self._drain_timeout_s is not None and not self._sockets and not self._emptying:
            timeout_s, self._drain_timeout_s = self._drain_timeout_s, None
            self._app.drain(timeout_s, self._drained)

    def _drained(self) -> None:
        self._send(Drained())
        self._loop.stop()

    def _on_orphaned(self) -> None:
        _log.error("the supervisor is gone: draining")
        # What is kept has a future: the successor serves whoever comes from now on.
        ending = [address for address in self._sockets if address not in self._kept]
        for address in ending:
            with contextlib.suppress(OSError):  # one that is just being retired
                refuse_new(self._sockets[address])
        self._loop.call_later(ORPHAN_GRACE_S if ending else 0, self._leave, tuple(self._sockets))
        # Nobody is left who could kill us if draining hangs.
        self._loop.call_later(float(self._config.server.drain_timeout) + ORPHAN_MARGIN_S, os._exit, 1)

    def _leave(self, addresses: Iterable[str]) -> None:
        self._drain(float(self._config.server.drain_timeout))
        for address in addresses:
            self._retire(address)
