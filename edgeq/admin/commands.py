"""Everything that the admin socket can do: one table, from which HTTP, text commands and help are served.

A command has a level: "viewer" reads, "admin" changes something and is logged with who asked. Levels stand in the table
and not in the handlers, where one is easily forgotten.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

Value: TypeAlias = str | int | float | bool
Record: TypeAlias = Mapping[str, Value]
Body: TypeAlias = Record | Sequence[Record]


class Reloaded(NamedTuple):
    """What came of a reload. `generation` is what runs now; `error` is empty if all went well."""

    ok: bool
    generation: int
    error: str


class Control(Protocol):
    """What commands act on: the supervisor."""

    def workers(self) -> list[Record]:
        """One record for each slot in use."""

    def version(self) -> Record:
        """Of this program."""

    def is_ready(self) -> bool:
        """New connections are served."""

    async def reload(self) -> Reloaded:
        """Read the configuration again; returns when all workers run it, or it was refused."""

    def drain(self) -> None:
        """Begin to stop."""


class Answer(NamedTuple):
    """An HTTP status and what is printed either way."""

    status: int
    body: Body


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table."""

    words: str
    method: Literal["GET", "POST"]
    path: str
    level: Literal["viewer", "admin"]
    help: str
    run: Callable[[Control], Awaitable[Answer]]


async def _show_workers(control: Control) -> Answer:
    return Answer(200, control.workers())


async def _show_version(control: Control) -> Answer:
    return Answer(200, control.version())


async def _reload(control: Control) -> Answer:
    result = await control.reload()
    return Answer(200 if result.ok else 422, result._asdict())


async def _drain(control: Control) -> Answer:
    control.drain()
    return Answer(202, {"ok": True, "draining": True})


async def _live(_control: Control) -> Answer:
    return Answer(200, {"ok": True})


async def _ready(control: Control) -> Answer:
    ready = control.is_ready()
    return Answer(200 if ready else 503, {"ok": ready})


async def _help(_control: Control) -> Answer:
    return Answer(
        200, [{"command": one.words, "http": f"{one.method} {one.path}", "help": one.help} for one in COMMANDS]
    )


COMMANDS: Final = (
    Command("show workers", "GET", "/v1/workers", "viewer", "workers with their state and counters", _show_workers),
    Command("show version", "GET", "/v1/version", "viewer", "version of the running program", _show_version),
    Command("reload", "POST", "/v1/reload", "admin", "read the configuration again and apply the difference", _reload),
    Command("drain", "POST", "/v1/drain", "admin", "finish what runs, then stop", _drain),
    Command("live", "GET", "/livez", "viewer", "is the supervisor alive", _live),
    Command(
        "ready", "GET", "/readyz", "viewer", "are new connections served (503 while starting and draining)", _ready
    ),
    Command("help", "GET", "/v1/commands", "viewer", "this table", _help),
)


def find_text(line: str) -> Command | str:
    """The command of a line, or what is wrong with it."""
    words = " ".join(line.split()).lower()
    for command in COMMANDS:
        if command.words == words:
            return command
    near = difflib.get_close_matches(words, [command.words for command in COMMANDS])
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "try 'help'"
    return f"unknown command {words[:100]!r}; {advice}"


def find_http(method: str, path: str) -> Command | Answer:
    """The command of a request, or the refusal."""
    at_path = [command for command in COMMANDS if command.path == path]
    for command in at_path:
        if command.method == method:
            return command
    if at_path:
        return Answer(405, {"ok": False, "error": f"{path} takes {at_path[0].method}"})
    return Answer(404, {"ok": False, "error": "nothing here; GET /v1/commands lists all"})


def render_text(body: Body) -> str:
    """For people: records as a table with aligned columns, one record as lines of "key: value"."""
    if isinstance(body, Mapping):
        return "".join(f"{key}: {_text(value)}\n" for key, value in body.items())
    if not body:
        return "(none)\n"
    rows = [list(body[0]), *([_text(value) for value in record.values()] for record in body)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
