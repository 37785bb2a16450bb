"""Active checks: asks each endpoint of an upstream now and then, over a connection of its own.

Decides when an answer is good; what follows from it is in health.py. One request a connection, so that a check also
shows whether the endpoint accepts. Invariants: at most one check of an endpoint runs; whatever ends it, it is told once
and its connection is closed; one worker checks for all (`SharedCells.leads`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeq.upstream.ask_io import Ask
from edgeq.upstream.connect_io import Dialer
from edgeq.upstream.health import HealthState, Outcome

if TYPE_CHECKING:
    from edgeq.config.schema import Health
    from edgeq.config.schema import Upstream as UpstreamConfig
    from edgeq.upstream.upstream import Upstream

MAX_BODY: Final = 64 * 1024
_SATURATED: Final = frozenset(("upstream_backlog_full",))
"""Reasons of a dial that say "busy" rather than "broken"."""

Done = Callable[[Outcome, str], None]


class Check(Ask):
    """One check: a request and its answer. The end is told by `done`, never from within `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Health, host: str, done: Done) -> None:
        super().__init__(loop, config.path, host, "edgeq-health", float(config.timeout))
        self._config = config
        self._done = done
        self._body = b""

    def on_undialed(self, reason: str, detail: str) -> None:
        outcome: Outcome = "timeout" if reason in _SATURATED or reason == "upstream_connect_timeout" else "bad"
        self._tell(outcome, f"{reason}: {detail}" if detail else reason)

    def on_status(self, status: int) -> None:
        wanted = self._config.status
        if not (status in wanted if wanted else 200 <= status < 400):
            self._tell("bad", f"status {status}")
        elif not self._config.body:
            self._tell("good", "")

    def on_data(self, data: bytes) -> None:
        self._body += data
        if self._config.body.encode() in self._body:
            self._tell("good", "")
        elif len(self._body) >= MAX_BODY:
            self._tell("bad", f"{self._config.body!r} is not in the first 64 KiB of the answer")

    def on_complete(self) -> None:
        self._tell("bad", f"{self._config.body!r} is not in the answer")

    def on_broken(self, detail: str) -> None:
        self._tell("bad", detail)

    def on_timeout(self) -> None:
        self._tell("timeout", f"no answer within {float(self._config.timeout):g} s")

    def _tell(self, outcome: Outcome, detail: str) -> None:
        if not self.ended:
            self.end()
            self._done(outcome, detail)


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
                check.end()
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
            check.end()
        self._running = {}
        self._states = {}
        self._config = None

    def snapshot(self) -> list[dict[str, Any]]:
        """What the last checks have found."""
        return [
            {"endpoint": member.name, "checks": state.checks, "running": state.running, "detail": state.detail}
            for member, state in self._states.items()
        ]
