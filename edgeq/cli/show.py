"""`edgeq show`: what a running edgeq knows, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from edgeq.admin.command import Command
from edgeq.admin.commands import COMMANDS
from edgeq.admin.find import problem
from edgeq.admin.reading import history_of
from edgeq.admin.render import Body
from edgeq.cli import plot
from edgeq.cli.arguments import NoAnswer, UsageError, add_admin, add_timeout, admin_socket
from edgeq.errors import EXIT_DENIED, EXIT_FAILED, EXIT_OK, EXIT_USAGE, EdgeqError
from edgeq.observe.history import ALL

SUMMARY: Final = "show queues, upstreams, limits, workers, refusals, events and more of a running edgeq"
EXIT_CODES: Final = {400: EXIT_USAGE, 403: EXIT_DENIED}
"""By the status of an answer; others that are not 200 are failures."""
_SUBJECTS: Final[dict[str, Command]] = {
    one.words.removeprefix("show "): one for one in COMMANDS if one.words.startswith("show ")
}
_OPTIONS: Final[dict[str, list[str]]] = {
    option.name: [name for name, other in _SUBJECTS.items() if any(each.name == option.name for each in other.options)]
    for command in _SUBJECTS.values()
    for option in command.options
}
"""Each option of any subject, with the subjects that have it."""
_GOES_ON: Final = r"[:;](?![^(]*\))"
"""What follows there is for who asks for one subject."""
EXAMPLES: Final = """\
examples:
  edgeq show queues
  edgeq show queues upstream/api
  edgeq show reasons --json | jq '.[0]'
  edgeq show workers --admin /run/edgeq/admin.sock
  edgeq show history upstream/api 120 --plot
  edgeq show history upstream/api 5 0.1
  edgeq show history --file /var/lib/edgeq/storm-20261126T030000Z-upstream-api.history

subjects:
""" + "".join(f"  {name:12}{re.split(_GOES_ON, command.help)[0]}\n" for name, command in _SUBJECTS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subject of the table of commands, and its arguments."""
    parser.add_argument("subject", metavar="SUBJECT", choices=list(_SUBJECTS), help="see below")
    parser.add_argument(
        "arguments",
        metavar="ARGUMENT",
        nargs="*",
        default=(),
        help="a text to look for, a number of events, or of history a name, seconds, and those of a row",
    )
    way = add_asking(parser)
    way.add_argument("--file", metavar="FILE", help="history that edgeq has written (server.dumps), not a running one")
    for name, subjects in _OPTIONS.items():
        one = next(each for each in _SUBJECTS[subjects[0]].options if each.name == name)
        told = f"{', '.join(subjects)}: {one.help}".replace("%", "%%")
        if one.is_flag:
            parser.add_argument(f"--{name}", dest=name, action="store_const", const="true", help=told)
        else:
            parser.add_argument(f"--{name}", dest=name, metavar=name.upper(), help=told)
    parser.add_argument("--plot", action="store_true", help="history of one resource or worker as charts")


def add_asking(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """How to ask, for the commands that do. Returns the group of what may be asked."""
    way = parser.add_mutually_exclusive_group()
    add_admin(way)
    add_timeout(parser, 10.0)
    parser.add_argument("--json", action="store_true", help="print JSON, with all that is known")
    return way


def run(args: argparse.Namespace) -> int:
    """Ask, or read a file, and print the answer."""
    command = _SUBJECTS[args.subject]
    values = values_of(command, args.arguments)
    for name, subjects in _OPTIONS.items():
        if (value := getattr(args, name)) is None:
            continue
        if args.subject not in subjects:
            more = "; everything that is set live is in: edgeq show changes" if name == "diff" else ""
            raise UsageError(f"--{name} is for {', '.join(subjects)}{more}")
        values[name] = value
    if (args.file or args.plot) and args.subject != "history":
        raise UsageError(f"--file and --plot are for history, not for {args.subject}")
    if args.plot and values.get("resource", ALL) == ALL:
        raise UsageError("--plot is for one resource or worker: edgeq show history upstream/NAME --plot")
    if args.file:
        return _show_file(args, command, values)
    return ask(args, command, values)


def values_of(command: Command, words: Sequence[str]) -> dict[str, str]:
    """Arguments by name. Raises UsageError."""
    if len(words) > len(command.arguments):
        raise UsageError(f"too many words: edgeq {command.usage}")
    return {one.name: value for one, value in zip(command.arguments, words, strict=False)}


def _show_file(args: argparse.Namespace, command: Command, values: dict[str, str]) -> int:
    """What was a storm's beginning. Raises EdgeqError."""
    from edgeq.observe import dumps_io

    if wrong := problem(command, values, f"edgeq {command.usage}"):
        raise UsageError(wrong)
    found = dumps_io.records(args.file, *history_of(values))
    if isinstance(found, str):
        raise EdgeqError(found)
    _print(args, command, found)
    return EXIT_OK


def ask(args: argparse.Namespace, command: Command, values: dict[str, str]) -> int:
    """Print what a running edgeq says. Returns the exit code."""
    from edgeq.cli import admin_client_io

    if wrong := problem(command, values, f"edgeq {command.usage}"):
        raise UsageError(wrong)
    target = command.path + (f"?{urlencode(values)}" if values else "")
    path = admin_socket(args)
    try:
        status, media, text = admin_client_io.get(path, target, args.timeout)
        body = json.loads(text) if media.startswith("application/json") else None
    except (OSError, ValueError) as error:
        raise NoAnswer(path, error) from error
    if status != 200:
        return refused(args, status, text)
    if body is None:
        sys.stdout.write(text.decode())
    else:
        _print(args, command, body)
    return EXIT_OK


def refused(args: argparse.Namespace, status: int, text: bytes) -> int:
    """Say why. Returns the exit code."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    said = body.get("error") if isinstance(body, dict) else None
    print(f"edgeq {args.command}: {said or f'the admin socket answered with status {status}'}", file=sys.stderr)
    return EXIT_CODES.get(status, EXIT_FAILED)


def width_of_terminal() -> int:
    """Of a table; 0: what a program reads is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _print(args: argparse.Namespace, command: Command, body: Body) -> None:
    width = width_of_terminal()
    if args.json:
        print(json.dumps(body))
    elif getattr(args, "plot", False):
        sys.stdout.write(plot.plot(body, width or plot.WIDTH) if isinstance(body, list) else "")
    else:
        sys.stdout.write(command.text(body, width))
