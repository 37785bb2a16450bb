"""Requests in open loop: when each is sent, decided before the first one, and what came of it.

Arrivals are Poisson processes, so they neither wait for answers nor slow down when answers are late.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Outcome(IntEnum):
    """What came of one request."""

    GOOD = 0
    """Answered with 200 before the client's deadline."""
    REFUSED = 1
    """Another status, in time."""
    LATE = 2
    """No complete answer at the deadline; the client closed its connection."""
    BROKEN = 3
    """The connection was refused, reset, or closed before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Latency counts from the instant at which it should have been sent."""

    at_s: float
    """Since the start of the load."""
    stream: int
    outcome: Outcome
    latency_s: float
    refusal: str = ""
    """Status and what else the answer said, such as "503 queue_full"; empty unless refused."""
    explained: bool = False
    """A refusal that says more than its status."""


def poisson(rates: Sequence[tuple[float, float]], chance: random.Random) -> list[float]:
    """Instants of a Poisson process whose rate changes: (seconds, requests per second) one after another."""
    found: list[float] = []
    begin = 0.0
    for seconds, rate in rates:
        end = begin + seconds
        # A process without memory may be cut anywhere: each part begins anew.
        at = begin + chance.expovariate(rate) if rate > 0 else end
        while at < end:
            found.append(at)
            at += chance.expovariate(rate)
        begin = end
    return found


def schedule(streams: Sequence[Sequence[tuple[float, float]]], seed: int) -> list[tuple[float, int]]:
    """All requests of all streams in order: (instant, index of the stream). The same seed gives the same load."""
    instants = (
        (at, index) for index, rates in enumerate(streams) for at in poisson(rates, random.Random(f"{seed}/{index}"))
    )
    return sorted(instants)


def refusal(head: bytes, body: bytes) -> tuple[str, bool]:
    """What a refusal says: a short text to count it by, and whether it gives a reason beyond the status.

    A reason is a Proxy-Status field with parameters (RFC 9209; "edgeq-reason", "details", "error", in this order), or a
    body that is not the page in HTML with which nginx and HAProxy repeat the status. `head` ends before its empty line.
    """
    lines = head.split(b"\r\n")
    status = lines[0].split(b" ", 2)[1].decode("latin-1")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    parameters = {
        name.strip().rpartition(b"-")[2]: value.strip().strip(b'"')
        for name, _, value in (part.partition(b"=") for part in fields.get(b"proxy-status", b"").split(b";")[1:])
    }
    said = parameters.get(b"reason") or parameters.get(b"details") or parameters.get(b"error") or b""
    kind = fields.get(b"content-type", b"")
    if not said and not kind.startswith(b"text/html"):
        said = body.strip()[:60]
    return f"{status} {said.decode('utf-8', 'replace')}".strip(), bool(said)
