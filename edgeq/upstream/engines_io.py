"""Asks the engines of an upstream for their queues, once a second (engine.py says what that means).

Each worker asks for itself: what it learns is a number for its own balancer. What does not answer is no failure here,
that is for checks and ejection to find; but it is told, and counts as if it had as much to do as the others have on
average, or as its last word was, if that was more and is not too old: who is too busy to answer must not look idle. If
nobody answers, the balancer goes on without.
Invariant: at most one question to an endpoint at a time, none once closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeq.upstream.ask_io import Ask
from edgeq.upstream.connect_io import Dialer
from edgeq.upstream.engine import parse_engine
from edgeq.upstream.trouble import Troubles

if TYPE_CHECKING:
    from edgeq.config.schema import Upstream as UpstreamConfig
    from edgeq.upstream.member import Member
    from edgeq.upstream.upstream import Upstream

INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 2.0
STALE_S: Final = 5.0
"""How long a reading is believed."""
LAST_WORD_S: Final = 60.0
"""How long it counts beside what others say."""
MAX_BODY: Final = 1024 * 1024
"""vLLM's has about 100 KiB; with many adapters more."""
PATH: Final = "/metrics"

Done = Callable[[bytes, str], None]


class Question(Ask):
    """To one engine. `done` gets the answer, or why there is none; never from within `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, done: Done) -> None:
        super().__init__(loop, PATH, host, "edgeq-engine", TIMEOUT_S)
        self._done = done
        self._parts: list[bytes] = []
        self._size = 0

    def on_undialed(self, reason: str, detail: str) -> None:
        self._tell(b"", f"{reason}: {detail}" if detail else reason)

    def on_status(self, status: int) -> None:
        if status != 200:
            self._tell(b"", f"status {status}")

    def on_data(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_BODY:
            self._tell(b"", "the answer has more than 1 MiB")

    def on_complete(self) -> None:
        self._tell(b"".join(self._parts), "")

    def on_broken(self, detail: str) -> None:
        self._tell(b"", detail)

    def on_timeout(self) -> None:
        self._tell(b"", f"no answer within {TIMEOUT_S:g} s")

    def _tell(self, text: bytes, detail: str) -> None:
        if not self.ended:
            self.end()
            self._done(text, detail)


class EngineReadings:
    """Of one upstream's endpoints."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._dialers: dict[bool, Dialer] = {}
        self._is_on = False
        self._due: dict[Member, float] = {}
        self._running: dict[Member, Question] = {}
        self._details: dict[Member, str] = {}
        """Why the last question has brought nothing; empty: it has."""
        self._words: dict[Member, tuple[float, float]] = {}
        """The last load that each has told, and when."""
        self._troubles = Troubles()

    def configure(self, config: UpstreamConfig, dialers: dict[bool, Dialer]) -> None:
        """The endpoints or the configuration may have changed; `dialers` by whether they use TLS."""
        self._dialers = dialers
        self._is_on = config.engine == "vllm"
        members = self._upstream.members if self._is_on else []
        for member in [member for member in self._due if member not in members]:
            del self._due[member]
            self._details.pop(member, None)
            self._words.pop(member, None)
            member.engine_until = 0.0
            question = self._running.pop(member, None)
            if question is not None:
                question.end()
        for member in members:
            self._due.setdefault(member, 0.0)
        self._troubles.keep({member.name for member in members})

    def tick(self, now: float) -> None:
        """Ask who is due."""
        if not self._is_on:
            return
        for member, due in self._due.items():
            if now >= due and member not in self._running:
                self._due[member] = now + INTERVAL_S
                self._ask(member)
        self._assume(now)

    def _assume(self, now: float) -> None:
        """Those that do not tell have something to do, too."""
        words = self._words
        told = [load for load, at in words.values() if now - at < STALE_S]
        if not told or len(told) == len(self._due):
            return
        usual = sum(told) / len(told)
        for member in self._due:
            load, at = words.get(member, (0.0, -LAST_WORD_S))
            age_s = now - at
            if age_s >= STALE_S:
                member.engine = None
                member.engine_load = max(usual, load) if age_s < LAST_WORD_S else usual
                member.engine_until = now + INTERVAL_S

    def _ask(self, member: Member) -> None:
        pool = member.pool
        dialer = self._dialers[pool.tls]

        def done(text: bytes, detail: str) -> None:
            self._running.pop(member, None)
            self._answered(member, text, detail)

        question = Question(dialer.loop, pool.host.decode() or "localhost", done)
        self._running[member] = question
        question.start(dialer, pool.address)

    def _answered(self, member: Member, text: bytes, detail: str) -> None:
        now = monotonic()
        if not detail:
            try:
                queue = parse_engine(text)
            except ValueError as error:
                detail = str(error)
            else:
                member.engine = queue
                member.engine_load = queue.load(member.pending())
                member.engine_until = now + STALE_S
                self._words[member] = (member.engine_load, now)
        self._details[member] = detail
        events = self._upstream.events
        if detail:
            failures = self._troubles.failed(member.name, "engine_unread", detail, now)
            if failures:
                events.append(("engine_unread", {"endpoint": member.name, "detail": detail, "failures": failures}))
        elif self._troubles:
            failures = self._troubles.reached(member.name, now)
            if failures:
                events.append(("engine_read", {"endpoint": member.name, "failures": failures}))

    def close(self) -> None:
        """Ask nobody any more."""
        for question in self._running.values():
            question.end()
        self._running = {}
        self._due = {}
        self._details = {}
        self._words = {}
        self._is_on = False

    def snapshot(self) -> list[dict[str, Any]]:
        """What the last questions have brought."""
        return [{"endpoint": member.name, "detail": detail} for member, detail in self._details.items()]
