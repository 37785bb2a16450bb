"""From what clients and provider saw under load to figures, verdicts and a table. No sockets, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.overload_report import SHARE, Figure, quantile
from benchmarks.overload_rows import Aim
from benchmarks.report import rendered_table

MINUTE_S = 60.0
GOOD = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as its client saw it; times in seconds since the start of the load, -1: never."""

    group: int
    at_s: float
    first_s: float
    ended_s: float
    status: int
    """0: the connection broke; less: see peer_llm_io.py."""
    tokens: int
    """By the answer's usage; -1: not told."""
    wait_ms: int
    """What a refusal asks for; -1: nothing."""
    said: str = ""

    @property
    def is_refused(self) -> bool:
        return self.status > GOOD


@dataclass(frozen=True, slots=True)
class Result:
    """One row played in one way."""

    row: str
    variant: str
    figures: dict[str, float]
    refusals: dict[str, int] = field(default_factory=dict)
    """What refusals said, and how often."""
    left: list[str] = field(default_factory=list)
    """What stayed behind, in words."""


FIGURES = {
    "asked": Figure("requests"),
    "good": Figure("answered"),
    "refused": Figure("refused"),
    "broken": Figure("broken"),
    "unfinished": Figure("unfinished"),
    "left": Figure("clients left"),
    "tokens": Figure("tokens"),
    "used": Figure("of the limit", *SHARE),
    "above": Figure("above it, tokens"),
    "running": Figure("of those running then"),
    "beyond_running": Figure("above these"),
    "leaked": Figure("not paid back", *SHARE),
    "lost": Figure("lost with a worker", *SHARE),
    "provider_429": Figure("429s of the provider"),
    "passed_429": Figure("of it to clients"),
    "small_served": Figure("small ones served", *SHARE),
    "small_p50_s": Figure("small p50 s", digits=2),
    "small_p99_s": Figure("small p99 s", digits=2),
    "flood_served": Figure("flood served", *SHARE),
    "flood_p50_s": Figure("flood p50 s", digits=2),
    "wait_told": Figure("refusals with a wait", *SHARE),
    "wait_p50_s": Figure("wait p50 s", digits=1),
    "wait_max_s": Figure("wait max s", digits=1),
    "streams": Figure("most at once"),
    "events": Figure("events"),
    "late_p50_ms": Figure("event p50 ms", digits=1),
    "late_p99_ms": Figure("event p99 ms", digits=1),
    "late_max_ms": Figure("event max ms", digits=1),
    "added_ms": Figure("p99 beyond direct, ms", digits=1),
    "first_p50_ms": Figure("first p50 ms", digits=1),
    "first_p99_ms": Figure("first p99 ms", digits=1),
    "first_added_ms": Figure("first p99 beyond direct", digits=1),
    "stream_kib": Figure("KiB a stream", digits=1),
    "memory_mib": Figure("most MiB", digits=1),
    "cancelled": Figure("cancelled at the provider"),
    "left_behind": Figure("left behind"),
}
"""The columns, in their order."""


def most_above(looks: Sequence[tuple[float, int]], limit: int) -> tuple[float, float]:
    """The most by which a bucket of a minute, full at the first look and refilled evenly, was overdrawn, and when.

    Looks are instants in seconds, with all tokens that were used until then.
    """
    begin_s, base = looks[0]
    over = [(tokens - base - limit - limit * (at - begin_s) / MINUTE_S, at) for at, tokens in looks]
    return max(over)


def left_of(looks: Sequence[tuple[float, int]], limit: int) -> float:
    """What the bucket should hold at the last look, if it was never full since the first."""
    begin_s, base = looks[0]
    end_s, tokens = looks[-1]
    return min(limit, limit + limit * (end_s - begin_s) / MINUTE_S - (tokens - base))


def running_tokens(asked: Sequence[Asked], at_s: float, slack_s: float) -> int:
    """Tokens of the answers that were under way at an instant, give or take."""
    under_way = (one for one in asked if one.at_s <= at_s + slack_s and one.ended_s >= at_s - slack_s)
    return sum(max(0, one.tokens) for one in under_way if one.status == GOOD)


def between(looks: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> float:
    """Tokens of an interval, between looks in a straight line."""
    return _at(looks, end_s) - _at(looks, begin_s)


def _at(looks: Sequence[tuple[float, int]], at_s: float) -> float:
    before_s, before = looks[0]
    for after_s, after in looks:
        if after_s >= at_s:
            share = (at_s - before_s) / (after_s - before_s) if after_s > before_s else 1.0
            return before + (after - before) * min(1.0, max(0.0, share))
        before_s, before = after_s, after
    return before


def counts(asked: Sequence[Asked]) -> dict[str, float]:
    """How requests ended."""
    return {
        "asked": len(asked),
        "good": sum(one.status == GOOD for one in asked),
        "refused": sum(one.is_refused for one in asked),
        "broken": sum(one.status in (0, -1) for one in asked),
        "unfinished": sum(one.status == -3 for one in asked),
        "left": sum(one.status == -2 for one in asked),
    }


def waits(asked: Sequence[Asked]) -> dict[str, float]:
    """What refusals say of when to come back."""
    refused = [one for one in asked if one.is_refused]
    told = [one.wait_ms / 1000 for one in refused if one.wait_ms >= 0]
    if not refused:
        return {}
    return {
        "wait_told": len(told) / len(refused),
        "wait_p50_s": quantile(told, 0.5),
        "wait_max_s": max(told, default=0.0),
    }


def refusals(asked: Sequence[Asked]) -> dict[str, int]:
    """What they said, the most frequent first."""
    found: dict[str, int] = {}
    for one in asked:
        if one.is_refused:
            found[one.said] = found.get(one.said, 0) + 1
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def most_at_once(asked: Sequence[Asked]) -> int:
    """The most requests that were under way at the same time."""
    steps = sorted(
        [(one.at_s, 1) for one in asked if one.first_s >= 0] + [(one.ended_s, -1) for one in asked if one.first_s >= 0]
    )
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def verdicts(aims: Sequence[Aim], results: Sequence[Result]) -> list[str]:
    """One sentence for each aim of a row and each way in which it was played with edgeq."""
    found: list[str] = []
    for result in results:
        for aim in aims:
            if aim.figure in result.figures:
                figure, value = FIGURES[aim.figure], result.figures[aim.figure]
                outcome = "met" if aim.met(value) else "MISSED"
                aimed = f"aim {aim.sense} {figure.text(aim.limit)}"
                what = f"{result.row}: {result.variant}: {figure.heading} {figure.text(value)}"
                found.append(f"{what}, {aimed}: {outcome}")
    return found


def markdown(row: str, title: str, aims: Sequence[Aim], results: Sequence[Result]) -> str:
    """One row as a section with a table, of which each line is a way in which it was played."""
    mine = [result for result in results if result.row == row]
    header = ["", *(figure.heading for figure in FIGURES.values()), "refusals say"]
    cells = [
        [
            result.variant,
            *(figure.text(result.figures[name]) if name in result.figures else "" for name, figure in FIGURES.items()),
            next((f"{text} ({count})" for text, count in result.refusals.items()), ""),
        ]
        for result in mine
    ]
    text = [f"## {row}", "", title, "", *rendered_table(header, cells), ""]
    text += [f"- {sentence}" for sentence in verdicts(aims, mine)]
    text += [f"- {result.variant}: left behind: {'; '.join(result.left[:8])}" for result in mine if result.left]
    return "\n".join(text).rstrip() + "\n"
