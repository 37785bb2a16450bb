"""Active checks: asks each endpoint of an upstream now and then, over a connection of its own.

Decides when an answer is good; what follows from it is in health.py. One request a connection, so that a check also
shows whether the endpoint accepts. It is dialed like any other (`Dialer`: http, https, unix), and h11 reads its answer.
Invariants: at most one check of an endpoint runs; whatever ends it, it is told once and its connection is closed; one
worker checks for all (`SharedCells.leads`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import h11

from edgeq.upstream.connect_io import Dial, Dialer
from edgeq.upstream.health import HealthState, Outcome

if TYPE_CHECKING:
    from edgeq.config.schema import Health
    from edgeq.config.schema import Upstream as UpstreamConfig
    from edgeq.upstream.upstream import Upstream

MAX_BODY: Final = 64 * 1024
_CUT: Final = "the connection was closed before the end of the answer"
_SATURATED: Final = frozenset(("upstream_backlog_full",))
"""Reasons of a dial that say "busy" rather than "broken"."""

Done = Callable[[Outcome, str], None]


class Check(asyncio.Protocol):
    """One check: a request and its answer, in one bounded time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Health, host: str, done: Done) -> None:
        self._config = config
        self._host = host
        self._done: Done | None = done
        self._transport: Any = None
        self._dial: Dial | None = None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BODY)
        self._status = 0
        self._body = b""
        self._timer = loop.call_later(float(config.timeout), self._expired)

    def start(self, dialer: Dialer, address: Any) -> None:
        """Dial. The end is told by `done`, never from within this call."""
        self._dial = dialer.dial(address, lambda: self, self._dialed)

    def _dialed(self, protocol: Any, reason: str) -> None:
        dial = self._dial
        self._dial = None
        if protocol is None:
            outcome: Outcome = "timeout" if reason in _SATURATED or reason == "upstream_connect_timeout" else "bad"
            detail = dial.detail if dial is not None else ""
            self._end(outcome, f"{reason}: {detail}" if detail else reason)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._done is None:
            transport.abort()
            return
        headers = [("Host", self._host), ("User-Agent", "edgeq-health"), ("Connection", "close")]
        request = self._h11.send(h11.Request(method="GET", target=self._config.path, headers=headers))
        transport.write((request or b"") + (self._h11.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> bool:
        self._receive(b"")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._end("bad", _CUT)

    def _receive(self, data: bytes) -> None:
        if self._done is None:
            return
        try:
            self._h11.receive_data(data)
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                    if not self._is_good_status():
                        self._end("bad", f"status {self._status}")
                        return
                    if not self._config.body:
                        self._end("good", "")
                        return
                elif isinstance(event, h11.Data):
                    self._body += bytes(event.data)
                    if self._found():
                        return
                    if len(self._body) >= MAX_BODY:
                        self._end("bad", f"{self._config.body!r} is not in the first 64 KiB of the answer")
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._end("bad", f"{self._config.body!r} is not in the answer")
                    return
                elif not isinstance(event, h11.InformationalResponse):
                    return  # needs more, or the connection has ended
        except h11.RemoteProtocolError as error:
            self._end("bad", f"not valid HTTP: {error}" if data else _CUT)

    def _is_good_status(self) -> bool:
        wanted = self._config.status
        return self._status in wanted if wanted else 200 <= self._status < 400

    def _found(self) -> bool:
        if self._config.body.encode() not in self._body:
            return False
        self._end("good", "")
        return True

    def _expired(self) -> None:
        self._end("timeout", f"no answer within {float(self._config.timeout):g} s")

    def cancel(self) -> None:
        """Give up; nothing is told."""
        self._done = None
        self._end("bad", "cancelled")

    def _end(self, outcome: Outcome, detail: str) -> None:
        done = self._done
        self._done = None
        self._timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._transport is not None:
            self._transport.abort()
        if done is not None:
            done(outcome, detail)


class HealthChecks:
    """The checks of one upstream's endpoints."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._config: Health | None = None
        self._dialers: dict[bool, Dialer] = {}
        self._states: dict[Any, HealthState] = {}
        """By member."""
        self._running: dict[Any, Check] = {}
        self._random = random.Random()

    def configure(self, config: UpstreamConfig, dialers: dict[bool, Dialer], now: float) -> None:
        """The endpoints or the configuration may have changed; `dialers` by whether they use TLS."""
        self._dialers = dialers
        health = config.health
        changed = health != self._config
        self._config = health
        members = self._upstream.members if health is not None else []
        for member in [member for member in self._states if changed or member not in members]:
            del self._states[member]
            check = self._running.pop(member, None)
            if check is not None:
                check.cancel()
        if health is None:
            return
        for member in members:
            if member not in self._states:
                self._states[member] = HealthState(health, member, now, self._random)

    def tick(self, now: float) -> None:
        """Begin the checks that are due."""
        config = self._config
        if config is None:
            return
        for member, state in self._states.items():
            if not state.running and now >= state.due_at and member.cells.leads():
                self._begin(config, member, state)

    def _begin(self, config: Health, member: Any, state: HealthState) -> None:
        pool = member.pool
        dialer = self._dialers[pool.tls]
        state.begin()

        def done(outcome: Outcome, detail: str) -> None:
            now = monotonic()
            self._running.pop(member, None)
            if state.done(outcome, detail, now):
                self._upstream.health_changed(member, detail, now)

        host = config.host or pool.host.decode() or "localhost"
        check = Check(dialer.loop, config, host, done)
        self._running[member] = check
        check.start(dialer, pool.address)

    def close(self) -> None:
        """Stop all."""
        for check in list(self._running.values()):
            check.cancel()
        self._running = {}
        self._states = {}
        self._config = None

    def snapshot(self) -> list[dict[str, Any]]:
        """What the last checks have found."""
        return [
            {"endpoint": member.name, "checks": state.checks, "running": state.running, "detail": state.detail}
            for member, state in self._states.items()
        ]
