"""The reference page and the man page of the admin socket, from the table of commands.

Made by `python -m edgeq.admin.reference page > docs/admin.md` and `.. man > docs/edgeq-admin.7`; a test compares them.
"""

from __future__ import annotations

import sys
from typing import Final

from edgeq.admin.command import Argument, Command
from edgeq.admin.commands import COMMANDS

_SOCKET: Final = "/run/edgeq/admin.sock"

_ABOUT: Final = """\
The supervisor answers on the admin socket (`server.admin`), from memory that it shares with the workers: a worker that
hangs is shown, and never waited for (only `show connections` asks the workers, and waits for a second at most). The
socket takes one line of text, or HTTP with JSON; `edgeq show` asks it, too.

Root and the user that edgeq runs as may change things, members of `server.admin_group` may read; others may read if
`server.admin_mode` lets them connect ("0666"). Changes, and what was refused, are in the event log with the peer's user
id.

What is set stands on top of what the file says, and is checked and applied like a reload, without reading the file or
certificates again; an answer comes when every worker runs it (a worker that hangs is named in `behind`, and takes it
when it goes on). ETag and If-Match are of the whole configuration that runs: 412 means that it has changed since. A
change ends when it is unset, when its time is over, or when the file, read again, says something new for its key.

Text answers have 80 columns; `json` as the last word gives all that is known, as HTTP does. Rates are of the last ten
seconds, p50, p90 and p99 of the last ten to twenty (of a pool: those of the worker where they are longest), refusals
since the start, high-water since then, or since `reset high-water` (of queues of the kernel and pools: as it was seen
each second). What workers report (pools, endpoints, tenants, reasons) is half a second old at most. A dash is what
cannot be known.
"""


def page() -> str:
    """In Markdown: docs/admin.md."""
    lines = ["# The admin socket", "", "Made by `python -m edgeq.admin.reference page > docs/admin.md`.", ""]
    lines += [_ABOUT]
    lines += [
        f'    echo "show queues" | socat - UNIX-CONNECT:{_SOCKET}',
        f"    curl --unix-socket {_SOCKET} http://edgeq/v1/queues",
        "    edgeq show queues --json",
        "",
        "| command | HTTP | who | what |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{one.usage}` | `{one.http}` | {_who(one)} | {one.help} |" for one in COMMANDS]
    lines += ["", "## Arguments", ""]
    for one in COMMANDS:
        lines += [f"- `{one.words}`: {argument.name.upper()} {argument.help}" for argument in one.arguments]
    lines += ["", "## Options", ""]
    lines += [f"- `{_option(option)}`: {option.help} ({', '.join(words)})" for option, words in _options()]
    lines += ["", "## Examples", ""]
    lines += [f"    echo {_quoted(one.example)} | socat - UNIX-CONNECT:{_SOCKET}" for one in COMMANDS if one.example]
    return "\n".join(lines) + "\n"


def man() -> str:
    """In roff: edgeq-admin(7)."""
    lines = [
        '.\\" Made by `python -m edgeq.admin.reference man > docs/edgeq-admin.7`.',
        '.TH EDGEQ\\-ADMIN 7 "" edgeq "edgeq"',
        ".SH NAME",
        "edgeq\\-admin \\- the admin socket of edgeq",
        ".SH SYNOPSIS",
        f'.B echo "\\fICOMMAND\\fP" | socat \\- UNIX\\-CONNECT:{_roff(_SOCKET)}',
        ".br",
        f".B curl \\-\\-unix\\-socket {_roff(_SOCKET)} http://edgeq\\fIPATH\\fP",
        ".SH DESCRIPTION",
    ]
    lines += [_roff(line) or ".PP" for line in _ABOUT.replace("`", "").rstrip().split("\n")]
    lines += [".SH COMMANDS"]
    for one in COMMANDS:
        lines += [".TP", f".B {_roff(one.usage)}", _roff(f"{one.help[:1].upper()}{one.help[1:]}. {_who(one)}.")]
        lines += [".br", _roff(f"HTTP: {one.http}")]
        for argument in one.arguments:
            lines += [".br", _roff(f"{argument.name.upper()}: {argument.help}")]
    lines += [".SH OPTIONS"]
    for option, words in _options():
        lines += [".TP", f".B {_roff(_option(option))}", _roff(f"{option.help[:1].upper()}{option.help[1:]}.")]
        lines += [".br", _roff(f"Of: {', '.join(words)}")]
    lines += [".SH SEE ALSO", "edgeq \\-\\-help"]
    return "\n".join(lines) + "\n"


def _options() -> list[tuple[Argument, list[str]]]:
    """Each once, with the commands that have it."""
    found: dict[Argument, list[str]] = {}
    for command in COMMANDS:
        for option in command.options:
            found.setdefault(option, []).append(command.words)
    return list(found.items())


def _option(option: Argument) -> str:
    return f"--{option.name}" if option.is_flag else f"--{option.name} {option.name.upper()}"


def _who(command: Command) -> str:
    return "reads" if command.level == "viewer" else "changes"


def _quoted(example: str) -> str:
    """As a whole, for a shell: some have quotes of their own, of one kind."""
    return f'"{example}"' if "'" in example else f"'{example}'"


def _roff(text: str) -> str:
    """A line of text that roff takes as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.stdout.write(man() if sys.argv[1:] == ["man"] else page())
