"""The listeners of one worker: opened, changed in place, and let go together with their connections.

::

    OPEN --retire--> LEAVING --nobody comes in any more, and the last connection has ended--> gone

Invariant: a listener that leaves first accepts what waits in the kernel; its connections are let go as in a drain, on
the tick, since nobody stays at a listener without a configuration.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final

from edgeq.board.gate import BoardGate
from edgeq.config.schema import Listener as ListenerConfig
from edgeq.listener.accept_io import Acceptor
from edgeq.listener.connection import Downstream, DownstreamFactory
from edgeq.listener.settings import ListenerSettings
from edgeq.listener.tls_io import TlsContexts
from edgeq.response.rescue import refusal
from edgeq.worker.loop_io import WorkerLoop
from edgeq.worker.shard import Shard

_LEAVE_STEP_S: Final = 0.25
"""Between two looks for connections of removed listeners: each look goes over all connections."""


class _Listener:
    """What its connections share, and its accept loop."""

    def __init__(
        self, config: ListenerConfig, settings: ListenerSettings, tls: TlsContexts | None, acceptor: Acceptor
    ) -> None:
        self.config = config
        self.settings = settings
        self.tls = tls
        self.acceptor = acceptor
        self.deadline = 0.0
        """Once the listener is removed: until then its connections may end by themselves."""
        self.is_empty = False
        """Removed, and nobody comes in any more."""


class Listeners:
    """All of this worker, by their addresses."""

    def __init__(
        self,
        loop: WorkerLoop,
        shard: Shard,
        gate: BoardGate,
        ticket_secret: bytes,
        sockets: dict[str, socket.socket],
        log: Any,
    ) -> None:
        """`sockets`: bound and listening, for `configure` to open listeners on."""
        self._loop = loop
        self._shard = shard
        self._gate = gate
        self._ticket_secret = ticket_secret
        self._sockets = dict(sockets)
        self._log = log
        self._open: dict[str, _Listener] = {}
        self._leaving: list[_Listener] = []
        """Removed, with connections that are still open."""
        self._leave_at = 0.0

    def add_sockets(self, sockets: dict[str, socket.socket]) -> None:
        """Those of listeners that are new to this worker, for the `configure` that follows."""
        self._sockets.update(sockets)

    def configure(self, config: ListenerConfig, rereads: bool) -> None:
        """A listener of the configuration: update it, or begin to accept on its socket."""
        listener = self._open.get(config.address)
        self._gate.configure(config)
        if listener is not None:
            if listener.config != config:
                if config.tls is not None and (rereads or listener.config.tls != config.tls):
                    listener.tls = self._contexts(config)
                listener.config = config
                listener.settings.update(config)
                listener.acceptor.update(config, listener.tls)
            elif rereads and config.tls is not None:
                listener.tls = self._contexts(config)  # a reload reads the certificates' files again
                listener.acceptor.update(config, listener.tls)
            return
        sock = self._sockets.pop(config.address, None)
        if sock is not None:
            tls = self._contexts(config)
            self._open[config.address] = self._accepting(config, ListenerSettings(config), sock, tls)

    def _accepting(
        self, config: ListenerConfig, settings: ListenerSettings, sock: socket.socket, tls: TlsContexts | None
    ) -> _Listener:
        """One whose acceptor has begun."""
        connections = DownstreamFactory(self._shard, settings)
        # Any: a compiled class cannot derive from asyncio.Protocol; it has its methods.
        make: Any = connections.make
        acceptor = Acceptor(
            self._loop,
            config,
            sock,
            make,
            self._gate,
            self._refusal,
            tls,
            self._log,
            self._shard.refusals,
            lambda: self._loop.lag_s,
            self._shard.pressure,
        )
        connections.released = acceptor.released
        acceptor.start()
        return _Listener(config, settings, tls, acceptor)

    def _contexts(self, config: ListenerConfig) -> TlsContexts | None:
        if config.tls is None:
            return None
        contexts = TlsContexts(config.tls)
        contexts.share_tickets(config.address, self._ticket_secret)
        return contexts

    def _refusal(self, reason: str, resource: str) -> bytes:
        forward = self._shard.forward
        return refusal(reason, forward.told(resource), "", b"", forward.node, False, False)

    def renew_tickets(self, secret: bytes) -> None:
        """Make and take TLS session tickets by this secret from now on."""
        self._ticket_secret = secret
        for address, listener in self._open.items():
            if listener.tls is not None:
                listener.tls.share_tickets(address, secret)

    def acceptors(self) -> Iterator[tuple[str, Acceptor]]:
        """Of those that are open, with their addresses."""
        for address, listener in self._open.items():
            yield address, listener.acceptor

    # -- leaving ------------------------------------------------------------------------------------------------------

    def retire(self, address: str, drain_timeout_s: float, on_empty: Callable[[], None]) -> None:
        """Accept what waits in the kernel, stop watching, close our descriptor, then call back.

        The connections have `drain_timeout_s` to end by themselves.
        """
        listener = self._open.pop(address, None)
        if listener is None:
            on_empty()
            return
        listener.settings.retire()
        listener.deadline = monotonic() + drain_timeout_s
        self._leaving.append(listener)

        def empty() -> None:
            listener.is_empty = True
            on_empty()

        listener.acceptor.retire(empty)

    def empty_queue(self, address: str, sock: socket.socket, on_empty: Callable[[], None]) -> None:
        """Serve what waits in the socket of a worker that is dead or stuck as if it had waited in our own: with our
        listener's settings, so that a reload and the listener's end reach it."""
        listener = self._open.get(address)
        if listener is None:
            sock.close()
            on_empty()
            return
        other = self._accepting(listener.config, listener.settings, sock, listener.tls)
        other.acceptor.retire(on_empty)

    def tick(self) -> None:
        """About ten times a second."""
        for listener in self._open.values():
            listener.acceptor.tick()

    def leave(self, now: float, idle_s: float) -> None:
        """Of removed listeners close who is idle, and who is still there when the time is over."""
        if not self._leaving or now < self._leave_at:
            return
        self._leave_at = now + _LEAVE_STEP_S
        for listener in list(self._leaving):
            settings = listener.settings
            late = 0
            is_open = False
            for connection in list(self._shard.downstreams):
                if not isinstance(connection, Downstream) or connection.settings is not settings:
                    continue
                if now >= listener.deadline:
                    late += 1
                    connection.stop("the listener is closed, and the gateway did not wait any longer")
                elif not connection.drain(now, idle_s):
                    is_open = True
            if late:
                self._log.warning("drain_timeout", listener=settings.name, connections=late)
            if listener.is_empty and not is_open:
                self._leaving.remove(listener)
