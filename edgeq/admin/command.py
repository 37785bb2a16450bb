"""What a command of the admin socket is: a row of the table in `commands.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from edgeq.admin.control import Client, Control
from edgeq.admin.render import WIDTH, Body, Column, Record, render_text
from edgeq.admin.rights import Level

Arguments: TypeAlias = Mapping[str, str]

STREAM: Final = "application/x-ndjson"
"""The media type of an answer that goes on until the client leaves."""


class Answer(NamedTuple):
    """An HTTP status and what is printed either way: records, a text of its own media type, or records as they come."""

    status: int
    body: Body
    text: bytes = b""
    media: str = ""
    stream: AsyncIterator[Record] | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: in a text command by its place, or if it is an option by its name; in a query by its name."""

    name: str
    help: str
    check: Callable[[str], str] | None = None
    """Says what is wrong with a value; empty if nothing is."""
    required: bool = False
    is_flag: bool = False
    """An option that has no value."""


Run: TypeAlias = Callable[[Control, Arguments, Client], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table."""

    words: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    level: Level
    help: str
    run: Run
    arguments: tuple[Argument, ...] = ()
    columns: tuple[Column, ...] = ()
    """For people; empty: all keys."""
    example: str = ""
    """As it is typed; empty: the words."""
    options: tuple[Argument, ...] = ()
    also: str = ""
    """Fewer words that mean the same."""
    as_asked: bool = False
    """Records have some of the columns only, in the order that was asked for."""
    render: Callable[[Record], str] | None = None
    """A record for people, if not as a row of a table."""

    def text(self, body: Body, width: int = WIDTH) -> str:
        """An answer for people; `width` 0: as wide as it gets."""
        if self.render is not None and body:
            return "".join(map(self.render, [body] if isinstance(body, Mapping) else body))
        columns = self.columns
        if self.as_asked and body and not isinstance(body, Mapping):
            known = {one.key: one for one in columns}
            columns = tuple(known[key] for key in body[0])
        return render_text(body, columns, width)

    @property
    def usage(self) -> str:
        """The words with their arguments."""
        arguments = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in self.arguments]
        options = [_option(one) for one in self.options]
        return " ".join([self.words, *arguments, *options])

    @property
    def http(self) -> str:
        """Method and path with the arguments."""
        query = "&".join(f"{one.name}={one.name.upper()}" for one in (*self.arguments, *self.options))
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")

    def missing(self, arguments: Arguments) -> str:
        """The first argument that has to be there and is not; empty: there is none."""
        wanted = [(one.name.upper(), one) for one in self.arguments] + [(f"--{one.name}", one) for one in self.options]
        return next((said for said, one in wanted if one.required and one.name not in arguments), "")


def _option(one: Argument) -> str:
    text = f"--{one.name}" if one.is_flag else f"--{one.name} {one.name.upper()}"
    return text if one.required else f"[{text}]"


class Found(NamedTuple):
    """A command with its arguments, and whether a text command wants JSON."""

    command: Command
    arguments: Arguments
    json: bool = False
