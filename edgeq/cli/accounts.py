"""`edgeq keys`, `tenants` and `usage`: virtual keys and what they have used.

Made from the table of admin commands, like those of change.py: a running edgeq is asked. With --store, or with --config
while its edgeq does not run, the same commands work on the store itself; the store's lock keeps both apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from edgeq.admin.accounts import ACCOUNTS, COMMANDS
from edgeq.admin.command import Command
from edgeq.admin.find import problem
from edgeq.admin.render import render_text
from edgeq.cli.arguments import NoAnswer, UsageError, add_admin, add_timeout, admin_socket
from edgeq.cli.change import add_arguments_of
from edgeq.cli.show import EXIT_CODES, width_of_terminal
from edgeq.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from edgeq.admin.command import Answer

_SUMMARIES: Final = {
    "keys": "make, list, change, rotate and revoke virtual keys",
    "tenants": "list tenants of virtual keys, give them limits, delete them",
    "usage": "what was used by whom: requests, tokens, cost",
}
_NOTES: Final = """
Exit code 1: it was refused, and nothing has changed; 69: the admin socket is not reachable; 75: no answer
in time; 77: not allowed.
"""


class Group:
    """A command of the command line (see `cli.COMMANDS`): those of the table that begin with this word."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._commands = {one.words: one for one in COMMANDS if one.words.split()[0] == word}
        self._verbs = [one for one in self._commands.values() if one.words != word]
        self.SUMMARY = _SUMMARIES[word]
        examples = "".join(f"  edgeq {one.example or one.words}\n" for one in self._commands.values())
        self._commands |= {one.also: one for one in self._verbs if one.also}
        self.EXAMPLES = f"examples:\n{examples}{_NOTES}"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Verbs, where there are any, with the arguments of the admin command."""
        parser.set_defaults(words=self._word)
        alone = self._commands.get(self._word)
        verbs = self._verbs
        if alone is not None:
            _add(parser, alone, has_values=not verbs)
        if verbs:
            of_verbs = parser.add_subparsers(metavar="VERB", required=alone is None)
            for one in verbs:
                verb = of_verbs.add_parser(
                    one.words.split()[1],
                    help=one.help,
                    description=one.help,
                    epilog=f"example:\n  edgeq {one.example or one.words}\n",
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                )
                verb.set_defaults(words=one.words)
                _add(verb, one)

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and print the answer."""
        command = self._commands[args.words]
        given = {one.name: getattr(args, one.name, None) for one in (*command.arguments, *command.options)}
        values = {name: value for name, value in given.items() if value is not None}
        if wrong := problem(command, values, f"edgeq {command.usage}"):
            raise UsageError(wrong)
        if args.store is not None:
            return _print(args, command, _of_store(args.store, command, values))
        return _ask(args, command, values)


def _add(parser: argparse.ArgumentParser, command: Command, has_values: bool = True) -> None:
    add_arguments_of(parser, command, has_values)
    way = parser.add_mutually_exclusive_group()
    add_admin(way)
    way.add_argument("--store", metavar="FILE", help="the store itself, while no edgeq has it open")
    add_timeout(parser, 30.0)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def _ask(args: argparse.Namespace, command: Command, values: dict[str, str]) -> int:
    from edgeq.admin.command import Answer
    from edgeq.cli import admin_client_io

    store = _store_of(args.config)
    path = admin_socket(args) if not store or _admin_of(args.config) else ""
    target = command.path + (f"?{urlencode(values)}" if values else "")
    try:
        if not path:
            raise FileNotFoundError
        status, media, text = admin_client_io.send(path, command.method, target, args.timeout)
        body: Any = () if media.startswith("text/csv") else json.loads(text)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if store:
            return _print(args, command, _of_store(store, command, values))
        raise NoAnswer(path, error) from error
    except (OSError, ValueError) as error:
        raise NoAnswer(path, error) from error
    code = _print(args, command, Answer(status, body, text if body == () else b""))
    if command.words == "usage" and code == EXIT_OK:
        _tell_trouble(path, args.timeout)
    return code


def _tell_trouble(path: str, timeout_s: float) -> None:
    """What was printed is not all, while the store cannot be written: say so, also where a script keeps it."""
    from edgeq.cli import admin_client_io

    with contextlib.suppress(OSError, ValueError):
        _, told = admin_client_io.ask(path, "GET", "/v1/explain", timeout_s)
        for one in told.get("also") or ():
            if one["resource"] == ACCOUNTS:
                print(f"edgeq usage: {one['says']}", file=sys.stderr)


def _admin_of(file: str | None) -> str:
    from edgeq.config.load import admin_path

    return admin_path(file) if file is not None else ""


def _store_of(file: str | None) -> str:
    """The store that a configuration names, if it has accounts; it may be wrong elsewhere."""
    from edgeq.config.load import store_path

    return store_path(file) if file is not None else ""


def _of_store(path: str, command: Command, values: dict[str, str]) -> Answer:
    """The answer of the store itself. Raises StoreError."""
    from edgeq.cli.store_control import answer

    if command.method == "GET" and not os.path.exists(path):
        raise UsageError(f"there is no store {path}")
    return answer(path, command, values)


def _print(args: argparse.Namespace, command: Command, answer: Answer) -> int:
    body = answer.body
    warning = body.get("warning") if isinstance(body, dict) else None
    if answer.status != 200:
        said = body.get("error") if isinstance(body, dict) else None
        print(f"edgeq {command.words}: {said or f'answered with status {answer.status}'}", file=sys.stderr)
        return EXIT_CODES.get(answer.status, EXIT_FAILED)
    if answer.text:
        sys.stdout.write(answer.text.decode())
    elif args.json:
        print(json.dumps(body))
    else:
        shown = {key: value for key, value in body.items() if key != "warning"} if isinstance(body, dict) else body
        sys.stdout.write(render_text(shown) if isinstance(shown, dict) else command.text(shown, width_of_terminal()))
    if warning:  # also where a script keeps what is printed
        print(f"edgeq {command.words}: {warning}", file=sys.stderr)
    return EXIT_OK


WORDS: Final[Sequence[str]] = ("keys", "tenants", "usage")
