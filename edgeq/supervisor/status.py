"""The line that `systemctl status` shows, and nobody else composes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What it is made of; counts are the machine's."""

    serving: int
    workers: int
    """That should serve."""
    connections: int
    in_flight: int
    stuck: Sequence[int] = ()
    """Slots whose worker makes no progress."""
    aside: Sequence[int] = ()
    """Slots for whose worker the others serve."""
    survivors: int = 0
    """Workers of a predecessor that finish what they had begun."""
    worst_queue: str = ""
    """As `queue_words` has it; empty: nobody waits."""


def queue_words(resource: str, queued: int, oldest_s: float) -> str:
    """A queue in a few words."""
    return f"{queued} wait at {resource}, the oldest for {oldest_s:.1f} s"


def status_line(facts: Facts) -> str:
    """One line; what is wrong comes first."""
    parts = [f"{facts.serving}/{facts.workers} workers"]
    if facts.aside:
        parts.insert(0, f"the others serve for worker {_numbers(facts.aside)}")
    if facts.stuck:
        parts.insert(0, f"no progress in worker {_numbers(facts.stuck)}")
    if facts.survivors:
        parts.append(f"{facts.survivors} of the last run finish")
    if facts.worst_queue:
        parts.append(facts.worst_queue)
    return ", ".join((*parts, f"{facts.connections} connections", f"{facts.in_flight} requests in flight"))


def _numbers(slots: Sequence[int]) -> str:
    return ", ".join(map(str, slots))
