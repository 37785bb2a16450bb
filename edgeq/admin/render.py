"""Answers for people: records as a table of 80 columns, one record as lines of "key: value".

A table has the columns that its command names, or all keys; columns that have no fixed width give way, and what is cut
there is cut in the middle, because names of queues differ at both ends; where that is not enough, those that can be
missed go. Numbers are rounded to what a person
compares; JSON has all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from edgeq.config.units import plain

Form = Literal["text", "count", "s", "ms", "us", "rate", "share", "bytes", "clock", "day", "money"]
Record: TypeAlias = Mapping[str, Any]
Body: TypeAlias = Record | Sequence[Record]

WIDTH: Final = 80
_TO_THE_LEFT: Final = ("text", "day")
_LEAST: Final = 11
"""A column that gives way keeps so much."""


class Column(NamedTuple):
    """One column: the record's key ("wait_ms.p99" is a key within a key), its head, and how its values are written."""

    key: str
    head: str = ""
    form: Form = "text"
    gives_way: bool = False
    least: int = 0
    """Characters that it has at least: a screen that is written again and again keeps its columns."""
    is_rare: bool = False
    """It is left out where no record has anything there."""
    can_go: bool = False
    """It is left out where there is no room, those that stand last first."""
    short: tuple[tuple[str, str], ...] = ()
    """Of a value that is a mapping: keys of it, and the shorter words for them."""


def render_text(body: Body, columns: Sequence[Column] = (), width: int = WIDTH) -> str:
    """Lines of text, each with its end. `width` 0: as wide as it gets."""
    if isinstance(body, Mapping):
        return "".join(f"{key}: {_cell(value, 'text')}\n" for key, value in body.items())
    if not body:
        return "(none)\n"
    told = [one for one in columns if not one.is_rare or any(_value(record, one.key) for record in body)]
    shown = told or [Column(key) for key in body[0]]
    rows = [[column.head or column.key for column in shown]]
    rows.extend([_cell(_short(record, column), column.form) for column in shown] for record in body)
    widths = [max(column.least, *map(len, cells)) for column, cells in zip(shown, zip(*rows, strict=True), strict=True)]
    while width and not _squeeze(widths, shown, width):
        last = next((at for at in reversed(range(len(shown))) if shown[at].can_go), -1)
        if last < 0:
            break
        for cells in (shown, widths, *rows):
            del cells[last]  # type: ignore[attr-defined]
    return "".join(_line(row, widths, shown) for row in rows)


def _squeeze(widths: list[int], columns: Sequence[Column], width: int) -> bool:
    """Take from the columns that give way, the widest first, until the table fits or they have no more to give.
    Returns: whether it fits."""
    flexible = [at for at, column in enumerate(columns) if column.gives_way]
    gaps = sum(len(_gap(column)) for column in columns[1:])
    while sum(widths) + gaps > width:
        widest = max(flexible, key=lambda at: widths[at], default=-1)
        if widest < 0 or widths[widest] <= _LEAST:
            return False
        widths[widest] -= 1
    return True


def _line(row: list[str], widths: list[int], columns: Sequence[Column]) -> str:
    text = ""
    for cell, width, column in zip(row, widths, columns, strict=True):
        if text:
            text += _gap(column)
        text += _cut(cell, width).ljust(width) if column.form in _TO_THE_LEFT else cell.rjust(width)
    return text.rstrip() + "\n"


def _gap(column: Column) -> str:
    """Before a column: numbers stand to the right of theirs."""
    return "  " if column.form in _TO_THE_LEFT else " "


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    kept = width - 2
    return text[: kept - kept // 2] + ".." + text[len(text) - kept // 2 :]


def _value(record: Record, key: str) -> Any:
    value: Any = record
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _short(record: Record, column: Column) -> Any:
    value = _value(record, column.key)
    if column.short and isinstance(value, Mapping):
        words = dict(column.short)
        return {words.get(key, key): one for key, one in value.items()}
    return value


def _cell(value: Any, form: Form) -> str:
    """What is not known is a dash, and so is what has no name: a cell is never blank."""
    if value is None or value == "":
        return "-"
    match form:
        case "s":
            return _time(value * 1000.0)
        case "ms":
            return _time(float(value))
        case "us":
            return _time(float(value) / 1000)
        case "rate":
            return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
        case "share":
            return f"{value:.0%}"
        case "clock":
            return str(value)[11:21]
        case "day":
            return str(value)[:10]
        case "money":
            return plain(value, 15, 2) if value >= 0.01 else plain(value, 2)
        case "bytes":
            return _size(value)
        case _:
            return _text(value)


def _size(size_bytes: float) -> str:
    if size_bytes < 1024:
        return str(size_bytes)
    return f"{size_bytes / 1024:.0f}K" if size_bytes < 1 << 20 else f"{size_bytes / (1 << 20):.1f}M"


def _time(ms: float) -> str:
    if ms >= 60_000:
        return f"{ms / 60_000:.1f}m"
    if ms >= 1000:
        return f"{ms / 1000:.1f}s"
    text = plain(ms, 2, 3) if ms < 10 else f"{ms:.0f}"
    return "0" if text == "0" else f"{text}ms"


def _text(value: Any) -> str:
    """As a person reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return " ".join(f"{_text(key)}={_text(one)}" for key, one in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value)) or "-"
    if isinstance(value, float):
        return plain(value)
    return printable(str(value))


def printable(text: str) -> str:
    """Without anything that would move the cursor of a terminal: names come from clients, too."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
