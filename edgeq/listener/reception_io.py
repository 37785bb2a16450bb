"""What becomes of an accepted connection: a place, a wait for one, or a refusal.

    accepted --PROXY header (trusted peers only)--> gate --> transport (open_io)
                                                     |  full
                                                     v
                                                  backlog --time-out--> refusal (refuse_io)

Invariants: every descriptor that is received is closed exactly once; every place that the gate gave is given back
exactly once, by `released` when the protocol existed and here when it never did; nobody overtakes in the backlog.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, Protocol

from edgeq.admission.waits import Waits
from edgeq.config.schema import Listener
from edgeq.listener.accept_policy import LogPace
from edgeq.listener.backlog import CLIENT_FULL, FULL, Backlog
from edgeq.listener.descriptor_io import has_left, own_address, socket_of
from edgeq.listener.open_io import MakeProtocol, Opener
from edgeq.listener.peer import UNIX_HOST, Peer, client_key, plain_host
from edgeq.listener.preface_io import Outcome, PrefaceReader
from edgeq.listener.proxy_protocol import Header
from edgeq.listener.refuse_io import Refuser, discard_received
from edgeq.listener.tls_io import TlsContexts
from edgeq.observe.refusals import Refusals
from edgeq.policy.trust import Networks

FD_EXHAUSTED: Final = "fd_exhausted"
_RESOURCES: Final = {FULL: "max_connections", CLIENT_FULL: "max_connections_per_client", FD_EXHAUSTED: "accept"}

_MAX_PREFACES: Final = 4096
"""Connections of trusted proxies that have not sent their header: they hold no place yet, so they need a bound."""
_TICK_S: Final = 0.020
"""While somebody waits: how often to look whether another worker has freed a place, and who has waited too long."""


class ConnectionGate(Protocol):
    """Counts open connections, by listener and by client, for all workers together.

    A listener is known by its address as configured: that never changes under open connections, while a reload may
    rename a listener or give its name to another one.
    """

    def try_open(self, listener: str, client_host: str) -> str | None:
        """Count a connection in. Returns None, or the reason why it may not come in and was not counted."""

    def close(self, listener: str, client_host: str) -> None:
        """Count one out."""


class EventLog(Protocol):
    """What is used of structlog."""

    def debug(self, event: str, **fields: Any) -> Any:
        """For those who look for a fault."""

    def info(self, event: str, **fields: Any) -> Any:
        """What clients do."""

    def warning(self, event: str, **fields: Any) -> Any:
        """What an operator should know."""

    def error(self, event: str, **fields: Any) -> Any:
        """What an operator must repair."""


class Reception:
    """Receives the connections of one listener. `settled()` is called whenever `pending()` may have become zero."""

    __slots__ = (
        "_abandoned",
        "_address",
        "_backlog",
        "_config",
        "_family",
        "_gate",
        "_last_refusal",
        "_local",
        "_log",
        "_loop",
        "_name",
        "_opener",
        "_pace",
        "_prefaces",
        "_proxies",
        "_refusals",
        "_refuser",
        "_settled",
        "_ticking",
        "_tls",
        "_waits",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Listener,
        family: int,
        local: tuple[str, int] | None,
        make_protocol: MakeProtocol,
        gate: ConnectionGate,
        refusal: Callable[[str, str], bytes],
        tls: TlsContexts | None,
        log: EventLog,
        refusals: Refusals,
        settled: Callable[[], None],
    ) -> None:
        """`local`: the address of this end, None if each connection has its own (a wildcard)."""
        self._loop = loop
        self._config = config
        self._address = config.address
        self._name = config.name or config.address
        self._family = family
        self._local = local
        self._gate = gate
        self._tls = tls
        self._log = log
        self._settled = settled
        self._pace = LogPace()
        self._opener = Opener(loop, make_protocol, self._on_open_failed, settled)
        self._refuser = Refuser(loop, refusal)
        self._backlog = Backlog(config.queue.max, float(config.queue.timeout))
        self._prefaces: dict[PrefaceReader, Peer] = {}
        self._proxies: Networks | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._waits = Waits()
        self._abandoned = 0
        self._refusals = refusals
        self._last_refusal = ""
        self.update(config, tls)

    def update(self, config: Listener, tls: TlsContexts | None) -> None:
        """Newcomers see the new configuration; who is connected keeps what it has."""
        self._config = config
        self._name = config.name or config.address
        self._tls = tls
        self._backlog.resize(config.queue.max, float(config.queue.timeout))
        self._proxies = Networks(config.proxy_protocol_from) if config.proxy_protocol else None
        self.admit_waiting()

    def pending(self) -> int:
        """Accepted connections that have no protocol yet."""
        return len(self._backlog) + len(self._prefaces) + self._opener.pending()

    def tick(self) -> None:
        """Called by the worker now and then."""
        self._opener.tick()

    def retire(self) -> None:
        """The listener goes: `tick` is called no more."""
        self._opener.retire()

    def released(self, peer: Peer) -> None:
        """A protocol has lost its connection: its place is free, and the next in the backlog may have it."""
        self._gate.close(self._address, peer.client_host)
        if self._backlog:
            self.admit_waiting()

    def close(self) -> None:
        """Close all that wait. TLS handshakes go on to their time-out."""
        for reader in list(self._prefaces):
            reader.cancel().close()
        self._prefaces.clear()
        while (ticket := self._backlog.oldest()) is not None:
            self._backlog.remove(ticket)
            os.close(ticket.fd)
        self._refuser.close()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def snapshot(self) -> dict[str, object]:
        """Who waits, since when, and why the last one was refused."""
        return {
            "last_refusal": self._last_refusal,
            "waiting": len(self._backlog),
            "waiting_max": self._backlog.max_waiting,
            "oldest_wait_s": self._backlog.oldest_age_s(self._loop.time()),
            "waited": self._waits.count,
            "wait_ms": self._waits.quantiles_ms(self._loop.time()),
            "abandoned": self._abandoned,
            "proxy_headers_awaited": len(self._prefaces),
            "handshakes": self._opener.handshaking,
            "lingering": len(self._refuser),
            "certificates": self._tls.snapshot() if self._tls is not None else [],
        }

    def receive(self, fd: int, address: Any, late: bool = False) -> None:
        """A connection was accepted; `address` is accept's own. `late`: it may have waited for that."""
        if self._local is not None and self._local[0] == UNIX_HOST:
            peer = Peer(UNIX_HOST, 0, UNIX_HOST, 0, self._tls is not None, False, "")
        else:
            local_host, local_port = self._local or own_address(fd, self._family)
            host = plain_host(address[0])
            peer = Peer(host, address[1], local_host, local_port, self._tls is not None, False, "")
            peer.late = late
        if self._proxies is not None and peer.client_host in self._proxies:
            if len(self._prefaces) >= _MAX_PREFACES:
                self.refuse(fd, peer.client_host, FULL)
                return
            reader = PrefaceReader(self._loop, socket_of(fd), self._on_preface)
            self._prefaces[reader] = peer
            reader.start(float(self._config.timeouts.proxy_header))
            return
        self._enter(fd, peer)

    def _on_preface(self, reader: PrefaceReader, outcome: Outcome) -> None:
        peer = self._prefaces.pop(reader)
        if isinstance(outcome, Header):
            if outcome.source is not None and outcome.destination is not None:
                client_host, client_port = outcome.source
                local_host, local_port = outcome.destination
                late = peer.late
                peer = Peer(client_host, client_port, local_host, local_port, peer.tls, True, "")
                peer.late = late
            self._enter(reader.connection.detach(), peer)
        else:
            reader.connection.close()
            if outcome is not None:
                self._count_refusal("proxy_header_invalid", peer.client_host, outcome.why)
        self._settled()

    def _enter(self, fd: int, peer: Peer) -> None:
        """Ask for a place; wait for one, or be refused."""
        if self._backlog:
            self.admit_waiting()  # nobody overtakes
        refusal = self._gate.try_open(self._address, peer.client_host)
        if refusal is None:
            self._open(fd, peer)
            return
        if refusal == FULL:
            # All clients of a Unix socket have one name, so a limit for each of them cannot be told from one for all.
            most = 0 if peer.client_host == UNIX_HOST else self._config.max_connections_per_client
            client = client_key(peer.client_host, self._config.ipv6_client_prefix)
            queued = self._backlog.push(fd, peer, self._loop.time(), most, client)
            if not isinstance(queued, str):
                if self._ticking is None:
                    self._ticking = self._loop.call_later(_TICK_S, self._on_tick)
                return
            refusal = queued
        self.refuse(fd, peer.client_host, refusal)

    def _open(self, fd: int, peer: Peer) -> None:
        if self._tls is None:
            self._opener.open_plain(fd, peer)
        else:
            self._opener.open_tls(fd, peer, self._tls.default, float(self._config.timeouts.handshake))

    def _on_open_failed(self, peer: Peer, error: BaseException) -> None:
        # Who waits for this place is served by the next tick: from here it could recurse through a whole backlog.
        self._gate.close(self._address, peer.client_host)
        if peer.tls and isinstance(error, OSError):  # ssl.SSLError is one
            self._count_refusal("handshake_failed", peer.client_host, _handshake_error(error))
        else:
            self._count_refusal("internal_error", peer.client_host, "")
            self._log.error("connection_not_opened", listener=self._name, exc_info=error)

    # -- the backlog

    def admit_waiting(self) -> None:
        """Give free places to those who wait, in order."""
        while (ticket := self._backlog.oldest()) is not None:
            fd, peer = ticket.fd, ticket.peer
            if has_left(fd):
                self._backlog.remove(ticket)
                os.close(fd)
                self._abandoned += 1
                continue
            refusal = self._gate.try_open(self._address, peer.client_host)
            if refusal == FULL:
                return
            self._backlog.remove(ticket)
            if refusal is None:
                now = self._loop.time()
                self._waits.record(now - ticket.since, now)
                peer.waited_us = int((now - ticket.since) * 1e6)
                peer.late = True
                self._open(fd, peer)
            else:
                self.refuse(fd, peer.client_host, refusal)
        self._settled()

    def _on_tick(self) -> None:
        self._ticking = None
        self.admit_waiting()
        for ticket in self._backlog.expire(self._loop.time()):
            self.refuse(ticket.fd, ticket.peer.client_host, FULL)
        if self._backlog:
            self._ticking = self._loop.call_later(_TICK_S, self._on_tick)
        else:
            self._settled()

    # -- refusals

    def refuse(self, fd: int, client_host: str, reason: str, linger: bool = True) -> None:
        """Answer (plain text only) and close."""
        resource = f"listener/{self._name}:{_RESOURCES.get(reason, 'accept')}"
        connection = socket_of(fd)
        if self._tls is None:
            self._refuser.refuse(connection, reason, resource, linger)
        else:
            discard_received(connection)
            connection.close()
        self._count_refusal(reason, client_host, "", resource)

    def _count_refusal(self, reason: str, client_host: str, why: str, resource: str = "") -> None:
        resource = resource or f"listener/{self._name}"
        self._refusals.count(reason, resource)
        self._last_refusal = reason
        left_out = self._pace.allow(reason, self._loop.time())
        if left_out < 0:
            return
        self._log.info(
            "connection_refused",
            reason=reason,
            resource=resource,
            client=client_host,
            why=why,
            left_out=left_out,
        )


def _handshake_error(error: OSError) -> str:
    reason = getattr(error, "reason", None)  # of ssl.SSLError
    if isinstance(reason, str):
        return reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
