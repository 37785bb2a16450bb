"""When is an answer late enough to ask another endpoint as well? After a fixed time, or the 95th percentile.

By the percentile one request in twenty is hedged, whatever the upstream's speed; when all answers become slow the
percentile follows within some dozen of them, and hedging ends where it would only add load. The time of a request that
was hedged counts from its first try, so that the percentile is not learned from its own rescues.

Source: Dean and Barroso, The Tail at Scale (2013): "deferring the second request until the first has been outstanding
for more than the 95th-percentile expected latency"; Finagle's BackupRequestFilter (1 ms at least).
"""

from __future__ import annotations

from typing import Final

from edgeq.admission.service import Service
from edgeq.worker.wheel import NEVER

LEAST_S: Final = 0.001


class HedgePolicy:
    """Of one route."""

    __slots__ = ("_after_s", "_latency")

    def __init__(self, after_s: float) -> None:
        """Args: after_s is when the second try begins; 0: at the 95th percentile of what is measured."""
        self._after_s: float = after_s
        self._latency: Service = Service()
        """To the head of an answer."""

    def after_s(self) -> float:
        """When a second try is to begin, in seconds from the first; NEVER while too little is known."""
        if self._after_s:
            return self._after_s
        latency = self._latency
        return max(LEAST_S, latency.p95_s()) if latency.known else NEVER

    def answered(self, seconds: float, now: float) -> None:
        """An answer's head came so many seconds after the first try was sent."""
        if not self._after_s:
            self._latency.finished(seconds, True, now)
