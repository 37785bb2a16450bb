"""The live screen as lines of text, for any width and height: what fits is shown, what matters most comes first.

Invariants: no line is longer than the width, and there are no more of them than the height; columns stand still from
one look to the next, because their widths come from the width of the screen and not from what is in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from edgeq.admin.render import Column, Record, printable, render_text
from edgeq.top import model
from edgeq.top.model import History, Snapshot, View, key_of

Look = Literal["plain", "head", "faint", "good", "warn", "alarm"]
"""How a line looks; what it says does not depend on it."""

FULL: Final = 0.9
FILLING: Final = 0.5
"""From which share of its limit on a queue is marked."""
LAGGING_US: Final = 100_000
TREND: Final = "trend"
"""The column of the recent past."""
BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII: Final = "_.-:=+*#"
"""For terminals without them."""
KEYS: Final = "q quit  ? help  s sort  / filter  enter open  e explain"


class Line(NamedTuple):
    """One line."""

    text: str
    look: Look = "plain"
    selected: bool = False


class Field(NamedTuple):
    """A column of a fixed width, 0 for the one that takes what is left; of a high rank, if there is room for it."""

    column: Column
    width: int
    rank: int = 0


_QUEUES: Final = (
    Field(Column("queue"), 0),
    Field(Column(TREND), 10, 2),
    Field(Column("fill", "", "share"), 4),
    Field(Column("depth", "", "count"), 5),
    Field(Column("limit", "", "count"), 5, 4),
    Field(Column("oldest_ms", "oldest", "ms"), 6, 1),
    Field(Column("wait_ms.p99", "p99", "ms"), 6, 5),
    Field(Column("arrival_per_s", "in/s", "rate"), 5, 6),
    Field(Column("drain_per_s", "out/s", "rate"), 5, 7),
    Field(Column("refused_per_s", "ref/s", "rate"), 5, 3),
    Field(Column("high_water", "high", "count"), 5, 8),
)
_UPSTREAMS: Final = (
    Field(Column("upstream"), 0),
    Field(Column("in_flight", "busy", "count"), 5),
    Field(Column("limit", "", "count"), 5),
    Field(Column("queued", "wait", "count"), 5, 1),
    Field(Column("in_use", "use", "count"), 4, 7),
    Field(Column("endpoints", "of", "count"), 4, 7),
    Field(Column("breaker"), 9, 6),
    Field(Column("service_ms.p50", "p50", "ms"), 6, 4),
    Field(Column("service_ms.p99", "p99", "ms"), 6, 2),
    Field(Column("answers_per_s", "out/s", "rate"), 5, 3),
    Field(Column("refused_per_s", "ref/s", "rate"), 5, 5),
)
_REASONS: Final = (
    Field(Column("reason"), 0),
    Field(Column("resource"), 22),
    Field(Column("status", "", "count"), 6, 2),
    Field(Column("count", "", "count"), 8, 1),
    Field(Column("per_s", "/s", "rate"), 5),
)
_WORKERS: Final = (
    Field(Column("worker"), 0),
    Field(Column("pid", "", "count"), 7, 4),
    Field(Column("requests_per_s", "req/s", "rate"), 5),
    Field(Column("connections", "conn", "count"), 5),
    Field(Column("in_flight", "busy", "count"), 5),
    Field(Column("lag_us", "lag", "us"), 6),
    Field(Column("max_lag_us", "worst", "us"), 6, 2),
    Field(Column("beat_age_ms", "beat", "ms"), 6, 3),
    Field(Column("memory_bytes", "mem", "bytes"), 6, 1),
)

_CONNECTIONS: Final = (
    Field(Column("client"), 0),
    Field(Column("state"), 9),
    Field(Column("request_ms", "for", "ms"), 5),
    Field(Column("age_ms", "age", "ms"), 5, 3),
    Field(Column("requests", "req", "count"), 4, 5),
    Field(Column("received_bytes", "in", "bytes"), 5, 4),
    Field(Column("sent_bytes", "out", "bytes"), 5, 4),
    Field(Column("resource"), 17, 1),
    Field(Column("path"), 14, 2),
)


class _Section(NamedTuple):
    """A table of the screen."""

    fields: Sequence[Field]
    records: Sequence[Record]
    look: Callable[[Record], Look]


def main_screen(
    told: Snapshot, history: History, view: View, width: int, height: int = 0, trouble: str = "", marks: str = BLOCKS
) -> list[Line]:
    """All of it. `height` 0: as many lines as it takes, without keys and selection, to be printed.

    `trouble`: why nothing newer is known; empty if this is how it is now.
    """
    queues = model.arranged(told.queues, view)
    sections = [
        _Section(_QUEUES, queues, _queue_look),
        _Section(_UPSTREAMS, model.upstreams(told.upstreams, view), _upstream_look),
        _Section(_REASONS, model.reasons(told.reasons, view), _reason_look),
        _Section(_WORKERS, model.workers(told.workers), _worker_look),
    ]
    top = [Line(_summary(told), "head"), Line(trouble, "alarm") if trouble else Line(_order(told, view, len(queues)))]
    keys = [Line(KEYS, "faint")] if height else []
    rows = share_out(max(height - len(top) - len(keys), 1) if height else 0, [len(one.records) for one in sections])
    chosen = view.index(queues)
    lines = list(top)
    for at, (section, count) in enumerate(zip(sections, rows, strict=True)):
        first = window(chosen, len(queues), count) if at == 0 else 0
        shown = section.records[first : first + count]
        if at == 0:
            shown = [_queue_row(one, history, marks) for one in shown]
        if shown:
            fields = [one for one in section.fields if one.column.key != TREND or history.looks > 1]
            if count < len(section.records):
                name = fields[0].column
                which = f"{first + 1}-{first + count}" if first else f"{count}"
                fields[0] = Field(name._replace(head=f"{name.key} {which} of {len(section.records)}"), 0)
            head, *table = table_of(fields, [_named(one) for one in shown], width - 1)
            lines.append(Line(f" {head}", "head"))
            for row, (record, text) in enumerate(zip(shown, table, strict=True)):
                selected = at == 0 and height > 0 and first + row == chosen
                if selected and not trouble and (name_of := key_of(queues[chosen])) not in text:
                    lines[1] = lines[1]._replace(text=f"{lines[1].text}: {printable(name_of)}")
                lines.append(Line(("▸" if marks == BLOCKS else ">") + text if selected else f" {text}",
                                  section.look(record), selected))  # fmt: skip
    if height:
        lines = lines[: height - len(keys)]
        lines += [Line("")] * (height - len(lines) - len(keys)) + keys
    return [one._replace(text=one.text[:width]) for one in lines]


def queue_page(queue: Record, told: Snapshot, history: History, width: int, marks: str = BLOCKS) -> str:
    """All that is known of one queue, and what is refused there."""
    name = str(queue["queue"])
    place = name.rpartition(":")[0] or name
    reasons = [one for one in told.reasons if str(one["resource"]).partition("#")[0].startswith(place)]
    text = spark(history.of(key_of(queue)), width, marks).rstrip()
    facts = {key: value for key, value in queue.items() if key not in ("queue", "wait_ms") and value not in ({}, None)}
    waits = {f"wait_ms.{mark}": value for mark, value in queue["wait_ms"].items() if value is not None}
    parts = [f"{name}\n", f"{text}\n" if text else "", "\n", render_text(facts | waits)]
    if reasons:
        columns = [Column("reason", gives_way=True), Column("resource", gives_way=True)]
        columns += [Column("count", "", "count"), Column("per_s", "/s", "rate")]
        parts += ["\n", render_text(reasons, columns, width)]
        parts += [f"\n{one['reason']}: {one['hint']}\n" for one in _once_each(reasons) if one.get("hint")]
    return "".join(parts)


def connections_page(connections: Sequence[Record], width: int) -> str:
    """Who is connected, and what each does or waits for."""
    return "\n".join(table_of(_CONNECTIONS, connections, width)) if connections else "nobody"


def table_of(fields: Sequence[Field], records: Sequence[Record], width: int) -> list[str]:
    """A head and a line for each record, all of this width at most."""
    name = max(min(22, width // 2), width // 3)
    left = width - name
    chosen: set[Field] = set()
    for one in sorted(fields, key=lambda field: field.rank):
        needed = one.width + _gap(one.column) if one.width else 0
        if needed <= left:
            chosen.add(one)
            left -= needed
    columns = [
        one.column._replace(least=one.width or name + left, gives_way=one.column.form == "text")
        for one in fields
        if one in chosen
    ]
    return render_text(records, columns, width).splitlines()


def share_out(height: int, counts: Sequence[int]) -> list[int]:
    """How many rows queues, upstreams, reasons and workers get of so many lines, each with a line for its head.

    `height` 0: all that they have. Otherwise a few for each, the queues first, then what is left in turn.
    """
    if height <= 0:
        return list(counts)
    rows = [0] * len(counts)
    left = height
    for at, few in ((0, 3), (2, 2), (1, 2), (3, 2)):
        got = min(counts[at], few, left - 1)
        if got > 0:
            rows[at] = got
            left -= got + 1
    while left > 0:
        growing = [at for at in (0, 0, 2, 1, 3) if 0 < rows[at] < counts[at]]
        if not growing:
            break
        for at in growing[:left]:
            if rows[at] < counts[at]:
                rows[at] += 1
                left -= 1
    return rows


def window(selected: int, count: int, rows: int) -> int:
    """The first of `rows` rows that are shown of `count`, so that the selected one is among them."""
    return max(0, min(selected - rows // 2, count - rows))


def spark(fills: Sequence[float | None], width: int, marks: str = BLOCKS) -> str:
    """The last values as marks, the newest at the right: the lowest is nothing at all, a blank is not known."""
    text = ""
    for fill in fills[-width:]:
        level = 0 if not fill or fill < 0 else min(max(1, math.ceil(fill * (len(marks) - 1))), len(marks) - 1)
        text += " " if fill is None else marks[level]
    return text.rjust(width)


def _gap(column: Column) -> int:
    return 2 if column.form == "text" else 1


def _summary(told: Snapshot) -> str:
    rate = sum(one["requests_per_s"] for one in told.workers)
    busy = sum(one["in_flight"] for one in told.workers)
    count = sum(one["connections"] for one in told.workers)
    workers = "1 worker" if len(told.workers) == 1 else f"{len(told.workers)} workers"
    return f"edgeq {told.version}  {workers}  {rate:.0f} req/s  {busy} busy  {count} connections"


def _order(told: Snapshot, view: View, shown: int) -> str:
    only = f", only '{view.match}'" if view.match else ""
    return f"{shown} of {len(told.queues)} queues by {view.sort}{only}"


def _queue_row(queue: Record, history: History, marks: str) -> Record:
    fills = history.of(key_of(queue))
    trend = spark(fills, 10, marks) if any(fill is not None for fill in fills) else ""
    return {**queue, TREND: trend}


def _named(record: Record) -> Record:
    """With what tells it from others in its first column."""
    if "queue" in record:
        return {**record, "queue": key_of(record)}
    return {**record, "worker": f"{record['slot']} {record['state']}"} if "slot" in record else record


def _queue_look(queue: Record) -> Look:
    fill = queue["fill"] or 0.0
    if fill >= FULL or queue["refused_per_s"]:
        return "alarm"
    return "warn" if fill >= FILLING else "plain"


def _upstream_look(upstream: Record) -> Look:
    if model.in_trouble(upstream):
        return "alarm"
    return "warn" if upstream["queued"] else "plain"


def _reason_look(reason: Record) -> Look:
    return "warn" if reason["per_s"] else "plain"


def _worker_look(worker: Record) -> Look:
    if worker["state"] == "stuck":
        return "alarm"
    return "warn" if worker["lag_us"] >= LAGGING_US or worker["state"] != "serving" else "plain"


def _once_each(reasons: Sequence[Record]) -> list[Record]:
    return list({one["reason"]: one for one in reasons}.values())
