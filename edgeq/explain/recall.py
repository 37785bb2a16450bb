"""One request by its id: why it was refused, or answered by a smaller model, or by which targets in vain, or what took
so long, and how its resource did before that.

What workers remember (keep.py) is read from the board; of a worker that has died, what it remembered is kept here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from edgeq.admin.render import Record
from edgeq.board.layout import Board
from edgeq.explain import say
from edgeq.explain.causes import look_at
from edgeq.explain.facts import History, whole_of
from edgeq.llm.meter import KINDS, TARGET, WHATS
from edgeq.observe.history import Moment
from edgeq.reasons import REASONS

_KEPT: Final = 1024
_AT: Final = re.compile(rb'"timestamp":"([^".]*)')
_NEAR_S: Final = 2.0
_RATES_S: Final = 1.0
"""Workers write their counters four times a second: rates of less are chance."""
_TURN: Final = "edgeq.queue_ms"
_WAITED_IN: Final = "edgeq.waited_in"
_SHORT_FOR: Final = "edgeq.degraded_reason"
_SHORT_OF: Final = "edgeq.degraded_resource"
_TRIED: Final = "edgeq.tried"
_WAITS: Final = (
    ("edgeq.accept_ms", "for a place at the listener"),
    ("edgeq.kernel_ms", "in the kernel's accept queue"),
    (_TURN, "for its turn and a connection"),
    ("edgeq.connect_ms", "of that for a new connection"),
    ("edgeq.first_byte_ms", "for the first byte of the upstream's answer"),
)
"""In the order of a request's way."""
_WHAT: Final = {
    "slow": "Slow",
    "degraded": "Answered by a smaller model",
    "failed_over": "Answered by another target",
}
"""What was so of a request that was answered."""
_WHERE_ELSE: Final = ("upstream_error", "upstream_protocol_error")
"""Reasons whose hint is where to read what has happened, which is here."""


class Recall:
    """Of one gateway."""

    def __init__(self, board: Board, history: History) -> None:
        self._board = board
        self._history = history
        self._buried: tuple[deque[bytes], deque[bytes]] = deque(maxlen=_KEPT), deque(maxlen=_KEPT)
        """In two kinds, as `Board.requests` has them."""

    def bury(self, slot: int) -> None:
        """A worker is dead, and its row is about to be cleared."""
        for buried, lines in zip(self._buried, self._board.requests(slot), strict=True):
            buried.extend(lines.read(0).lines)

    def explain(self, request_id: str) -> Record | None:
        """The last request with this id; None if nobody remembers one."""
        found = max(self._lines(request_id), key=lambda one: str(one.get("timestamp", "")), default=None)
        return told(found, request_id, self._before(found)) if found is not None else None

    def _lines(self, request_id: str) -> Iterator[dict[str, Any]]:
        raw = request_id.encode()
        for line in (line for kind in (0, 1) for line in self._every(kind) if raw in line):
            with contextlib.suppress(orjson.JSONDecodeError):
                record = orjson.loads(line)
                if record.get("edgeq.request_id") == request_id:
                    yield record

    def _every(self, kind: int) -> list[bytes]:
        """All lines of a kind."""
        of_workers = (self._board.requests(slot)[kind].read(0).lines for slot in range(self._board.rows_used))
        return [line for lines in (self._buried[kind], *of_workers) for line in lines]

    def remembered(self) -> str:
        """Of which requests something is remembered, in words."""
        told = []
        for kind, what in enumerate(("refused or have failed", "degraded, failed over or slow")):
            lines = self._every(kind)
            oldest = min((found[1] for line in lines if (found := _AT.search(line))), default=b"")
            since = f", since {oldest.decode()}" if oldest else ""
            told.append(f"those that were {what} ({len(lines)}{since})")
        return f"of requests only the last are remembered: {' and '.join(told)}; others are in the access log"

    def _before(self, record: dict[str, Any]) -> Before | None:
        """How the resource did just before its end. Not after it: whoever had the place may have left by then."""
        age_s = time.time() - _ended_s(record)
        return before(self._history.history(_resource_of(record), age_s + _NEAR_S), time.monotonic() - age_s)


def _ended_s(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(str(record["timestamp"])).timestamp()


def _resource_of(record: dict[str, Any]) -> str:
    """What refused it, or had no room for it, or else its upstream."""
    resource = str(record.get("edgeq.resource") or record.get(_SHORT_OF, ""))
    return whole_of(resource) if resource else _asked_of(record)


def _asked_of(record: dict[str, Any]) -> str:
    """Its upstream, or the route of a request for a model for which nobody was asked."""
    return f"upstream/{record['edgeq.upstream']}" if "edgeq.upstream" in record else f"route/{record.get('http.route')}"


class Before(NamedTuple):
    """How a resource did before a moment: the last sample, and the rates of the second before it."""

    ago_s: float
    in_flight: int
    limit: int
    depth: int
    arrivals_per_s: float
    refused_per_s: float
    service_ms: float
    """0.0: none ended well."""


def before(moments: Sequence[Moment], at_s: float) -> Before | None:
    """From its history, the oldest moment first; None if there is nothing of just before `at_s`."""
    known = [one for one in moments if at_s - _NEAR_S <= one.at_s <= at_s]
    if not known:
        return None
    last = known[-1]
    recent = [one for one in known if one.at_s > last.at_s - _RATES_S]
    took = [one.service_ms for one in recent if one.service_ms]
    return Before(
        at_s - last.at_s,
        last.in_flight,
        last.limit,
        last.depth,
        sum(one.arrivals_per_s for one in recent) / len(recent),
        sum(one.refused_per_s for one in recent) / len(recent),
        sum(took) / len(took) if took else 0.0,
    )


def before_that(resource: str, seen: Before) -> str:
    """In words."""
    limit = f" of {seen.limit}" if seen.limit else ""
    took = f", an answer took {say.ms(seen.service_ms)}" if seen.service_ms else ""
    ago = say.ms(seen.ago_s * 1000)
    return (
        f"{ago} before that {resource} had {seen.in_flight}{limit} in flight, {seen.depth} waited;"
        f" in the second before {say.per_s(seen.arrivals_per_s)} arrived,"
        f" {say.per_s(seen.refused_per_s)} were refused{took}"
    )


def told(record: dict[str, Any], request_id: str, seen: Before | None) -> Record:
    """A line of the access log, in words; seen: how its resource did before its end."""
    reason = str(record.get("edgeq.reason", ""))
    row = REASONS.get(reason)
    short = REASONS.get(str(record.get(_SHORT_FOR, "")))
    asked = record.get("gen_ai.request.model")
    total_ms = float(record.get("edgeq.total_ms", 0.0))
    waited_in = str(record.get(_WAITED_IN, ""))
    turn = f"for its turn at {waited_in}, and a connection" if waited_in else ""
    tried: list[dict[str, Any]] = record.get(_TRIED, [])
    failed = [one for one in tried if REASONS[one["reason"]].fault == "U"]
    waits = [(float(record[key]), turn if turn and key == _TURN else what) for key, what in _WAITS if key in record]
    in_vain = [(float(one["ms"]), f"with {one['target']} in vain") for one in tried]
    longest = max((*waits, *in_vain), default=None)
    if row is not None:
        verdict = f"it was refused or has failed, by {record.get('edgeq.resource')}: {row.title.lower()}"
        is_told = "edgeq.detail" in record and reason in _WHERE_ELSE
        verdict += "" if is_told else f" ({row.hint})"
        resource = _resource_of(record)
        following = _what_next(resource, reason, row.status < 500, str(record.get("edgeq.key", "")))
    elif short is not None:
        verdict = f"{record['edgeq.model']} has answered in place of {asked}, for which there was no room at "
        verdict += f"{record[_SHORT_OF]}: {short.title.lower()}"
        following = f"edgeq explain model/{asked}"
    else:
        verdict = f"it took {say.ms(total_ms)}" + (f", {say.ms(longest[0])} of it {longest[1]}" if longest else "")
        is_queue = longest is not None and longest[1] == turn
        following = _what_next(whole_of(waited_in) if is_queue else _asked_of(record))
        if longest is not None and longest in in_vain:
            following = _what_next(f"{KINDS[TARGET]}/{tried[in_vain.index(longest)]['target']}")
        if failed:
            verdict += f"; {record.get('edgeq.target')} has answered, as {_targets(failed)} failed before"
            following = f"edgeq explain model/{asked}"
    evidence = [_asked(record)]
    if "edgeq.detail" in record:
        evidence.append(f"it was told: {record['edgeq.detail']}")
    evidence += [*(f"{say.ms(ms)} {what}" for ms, what in waits), f"{say.ms(total_ms)} in all"]
    evidence += [_attempt(number, one) for number, one in enumerate(tried, 1)]
    if "edgeq.endpoint" in record:
        count = record.get("edgeq.attempts")
        which = "it was sent" if count == 1 else f"the last of {count} tries went"
        evidence.append(f"{which} to {record['edgeq.endpoint']}")
    if "edgeq.degraded_detail" in record:
        evidence.append(f"{asked} had no room for it: {record['edgeq.degraded_detail']}")
    if "edgeq.target" in record:
        how = f", in place of {asked}" if "edgeq.model" in record else f", asked for as {asked}" if asked else ""
        how += f" ({record[_SHORT_FOR]})" if short is not None else ""
        how += _hedged(str(record.get("edgeq.hedge", "")), str(record.get("edgeq.hedge_other", "")))
        how += f", after {record['edgeq.before']}" if "edgeq.before" in record and not tried else ""
        evidence.append(f"the model was {record['edgeq.target']}{how}")
    elif asked:
        evidence.append(f"the model that was asked for is {asked}")
    if "edgeq.param" in record:
        evidence.append(f"it is about {record['edgeq.param']}")
    if "edgeq.provider_status" in record:
        evidence.append(f"its provider's last answer had the status {record['edgeq.provider_status']}")
    if second := REASONS.get(str(record.get("edgeq.second_reason", ""))):
        evidence.append(f"{second.title.lower()}: {second.hint}")
    if seen is not None:
        evidence.append(before_that(_resource_of(record), seen))
    return {
        "verdict": f"{request_id}: {verdict}",
        "cause": reason or _cause(short is not None, bool(failed)),
        "what": row.title if row is not None else _WHAT[_cause(short is not None, bool(failed))],
        "resource": record.get("edgeq.resource") or record.get(_SHORT_OF) or _asked_of(record),
        "since_s": round(time.time() - _ended_s(record), 1),
        "evidence": evidence,
        "next": following,
        "also": [],
    }


def _hedged(how: str, other: str) -> str:
    """Of two targets asked at once; `other`: the one whose answer was not taken."""
    if how == "won":
        return f", asked as well when {other or 'the first one'} was late"
    return f"; {other} was asked as well when it was late" if how and other else ""


def _cause(is_degraded: bool, has_failed: bool) -> str:
    """Of one that was answered."""
    return "degraded" if is_degraded else "failed_over" if has_failed else "slow"


def _targets(tried: Sequence[dict[str, Any]]) -> str:
    return " and ".join(f"{one['target']} ({one['reason']})" for one in tried)


def _attempt(number: int, one: dict[str, Any]) -> str:
    """A target that was asked in vain, or had no room."""
    status = f", status {one['status']}" if "status" in one else ""
    detail = f": {one['detail']}" if "detail" in one else ""
    return f"attempt {number}, {one['target']}: {one['reason']} after {say.ms(one['ms'])}{status}{detail}"


def _what_next(resource: str, reason: str = "", is_by_rule: bool = False, key: str = "") -> str:
    """The command that shows more of a resource; `key`: of whom the request was."""
    kind = resource.partition("/")[0].partition(":")[0]
    if kind in KINDS and resource.partition(":")[2] in WHATS and kind not in ("model", "target"):
        if kind == "key" and key:
            return f"edgeq explain key/{key}    # what is left of its limits; edgeq keys show {key}"
        return f"edgeq show meters {kind}    # whose it is, and what is left of it"
    if kind == "target":
        return look_at(resource)
    if kind in ("rate", "tenant"):
        return f"edgeq show {kind}s"
    return f"edgeq show reasons {reason}" if is_by_rule else f"edgeq explain {resource}"


def _asked(record: dict[str, Any]) -> str:
    """What it was, without its query, which may hold what only the client and the upstream shall see."""
    method, path = record.get("http.request.method", "?"), record.get("url.path", "?")
    status = record.get("http.response.status_code", "no answer")
    text = f"{record['timestamp']} {method} {path} -> {status}"
    for key, name in (
        ("http.route", "route"),
        ("edgeq.tenant", "tenant"),
        ("edgeq.key", "key"),
        ("edgeq.listener", "listener"),
    ):
        if key in record:
            text += f", {name} {record[key]}"
    return text
