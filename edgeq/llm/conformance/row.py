"""A row of the tables: an example in one dialect, and what becomes of it in another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One field of a request or of an answer."""

    name: str
    """Of the field, or of the case of it: "tool_choice: required"."""
    example: dict[str, Any]
    """Put into the smallest request that there is."""
    becomes: dict[str, Any] = field(default_factory=dict)
    """What is different then in the other dialect, at the top of the body; empty: nothing."""
    lost: str = ""
    """The parameter that is refused if the route is strict, and otherwise dropped and named."""
    refused: str = ""
    """The parameter that is always refused."""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows from one dialect to another."""

    source: str
    target: str
    model: str
    """As the provider calls it: some fields depend on it."""
    base: dict[str, Any]
    """The smallest request, or answer."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class StreamRow:
    """One kind of event of a stream."""

    name: str
    before: tuple[dict[str, Any], ...]
    """Data of events that come first."""
    example: tuple[dict[str, Any], ...]
    becomes: tuple[dict[str, Any], ...]
    """Data of the events that it becomes, each as far as it matters: what is there has at least this."""
    note: str = ""


@dataclass(frozen=True)
class StreamTable:
    """Rows of events from one dialect to another."""

    source: str
    target: str
    rows: tuple[StreamRow, ...]


def said(name: str, example: dict[str, Any], becomes: dict[str, Any], note: str = "") -> Row:
    """It is translated."""
    return Row(name, example, becomes, note=note)


def silent(name: str, example: dict[str, Any], note: str) -> Row:
    """It needs no word: it changes nothing of what is answered."""
    return Row(name, example, note=note)


def lost(name: str, example: dict[str, Any], param: str = "", note: str = "", **becomes: Any) -> Row:
    """It has no match. Args: param is as the caller is told, if other than the name."""
    return Row(name, example, becomes, lost=param or name, note=note)


def refused(name: str, example: dict[str, Any], param: str, note: str = "") -> Row:
    """It has no match, and an answer without it would be to another question."""
    return Row(name, example, refused=param, note=note)
