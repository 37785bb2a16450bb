"""`edgeq set`, `unset`, `drain`, `undrain`, `disable`, `enable`, `pause`, `resume`, `wake`, `reset`: what changes one.

One command line for each command of the admin socket that changes something, made from its table: arguments, options
and help are the same there and here.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final
from urllib.parse import urlencode

from edgeq.admin.command import Argument, Command
from edgeq.admin.commands import COMMANDS
from edgeq.admin.find import problem
from edgeq.admin.render import render_text
from edgeq.cli.arguments import NoAnswer, UsageError, add_admin, add_timeout, admin_socket
from edgeq.cli.show import EXIT_CODES
from edgeq.config.change import SOURCE
from edgeq.errors import EXIT_FAILED, EXIT_OK

_NOTES: Final = """
A wrong value changes nothing and says why: exit code 1. Exit code 69: the admin socket is not reachable; 75: no answer
in time; 77: not allowed. `edgeq show changes` lists what is set.
"""


class Verb:
    """A command of the command line (see `cli.COMMANDS`)."""

    def __init__(self, words: str) -> None:
        self._command: Command = next(one for one in COMMANDS if one.words == words)
        self.SUMMARY = self._command.help
        self.EXAMPLES = f"examples:\n  edgeq {self._command.example or words}\n{_NOTES}"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Those of the admin command, and where its socket is."""
        for one in self._command.words.split()[1:]:
            parser.add_argument("words", metavar=one.upper(), choices=[one], help=one)
        add_arguments_of(parser, self._command)
        add_admin(parser.add_mutually_exclusive_group())
        add_timeout(parser, 30.0)
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and say what came of it."""
        from edgeq.cli import admin_client_io

        command = self._command
        given = {one.name: getattr(args, one.name) for one in (*command.arguments, *command.options)}
        values = {name: value for name, value in given.items() if value is not None}
        if wrong := problem(command, values, f"edgeq {command.usage}"):
            raise UsageError(wrong)
        path = admin_socket(args)
        try:
            status, answer = admin_client_io.ask(
                path, command.method, command.path + (f"?{urlencode(values)}" if values else ""), args.timeout
            )
        except OSError as error:
            raise NoAnswer(path, error) from error
        if args.json:
            print(json.dumps(answer))
        elif answer.get("ok") is True:
            sys.stdout.write(render_text(answer))
        else:
            said = answer.get("error") or f"the admin socket answered with status {status}"
            # The command is named already.
            text = "\n".join(line.removeprefix(f"{SOURCE}: ") for line in said.split("\n"))
            print(f"edgeq {command.words}: {text}", file=sys.stderr)
        return EXIT_OK if answer.get("ok") is True else EXIT_CODES.get(status, EXIT_FAILED)


def add_arguments_of(parser: argparse.ArgumentParser, command: Command, has_values: bool = True) -> None:
    """Those of an admin command; `has_values`: also those that are told by their place."""
    for one in command.arguments if has_values else ():
        parser.add_argument(one.name, metavar=one.name.upper(), nargs=None if one.required else "?", help=_help(one))
    for one in command.options:
        name = f"--{one.name}"
        if one.is_flag:
            parser.add_argument(name, dest=one.name, action="store_const", const="true", help=_help(one))
        else:
            parser.add_argument(name, dest=one.name, metavar=one.name.upper(), required=one.required, help=_help(one))


def _help(argument: Argument) -> str:
    return argument.help.replace("%", "%%")


VERBS: Final = ("set", "unset", "drain", "undrain", "disable", "enable", "pause", "resume", "wake", "reset high-water")
