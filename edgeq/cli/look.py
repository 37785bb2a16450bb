"""`edgeq live`, `ready`, `follow`: what reads and is none of `edgeq show`. Made from the table of the admin socket."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

from edgeq.admin.command import STREAM, Command
from edgeq.admin.commands import COMMANDS
from edgeq.cli.arguments import NoAnswer, add_admin, admin_socket
from edgeq.cli.show import add_asking, ask, refused
from edgeq.errors import EXIT_OK

WORDS: Final = ("follow", "live", "ready")
_SILENCE_S: Final = 30.0
"""Of a gateway that has no events: it gives three signs of life in this time."""
_NOTES: Final = """
Exit code 0: it is so; 1: it is not; 69: the admin socket is not reachable; 75: no answer in time; 77: not allowed.
"""


class Look:
    """A command of the command line (see `cli.COMMANDS`): that of the table which begins with this word."""

    def __init__(self, word: str) -> None:
        self._command: Command = next(one for one in COMMANDS if one.words.split()[0] == word)
        self._rest = " ".join(self._command.words.split()[1:])
        self._follows = self._command.also == word
        self.SUMMARY = self._command.help
        self.EXAMPLES = f"examples:\n  edgeq {word}\n" + ("" if self._follows else _NOTES)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where its socket is, and the words that may be left out."""
        if not self._follows:
            add_asking(parser)
            return
        parser.add_argument("rest", metavar=self._rest.upper(), nargs="?", choices=[self._rest], help="may be left out")
        add_admin(parser.add_mutually_exclusive_group())
        parser.add_argument("--json", action="store_true", help="print JSON, one object a line, with all that is known")

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and print the answer."""
        return self._follow(args) if self._follows else ask(args, self._command, {})

    def _follow(self, args: argparse.Namespace) -> int:
        """Print what happens, until one of both leaves."""
        from edgeq.cli import admin_client_io

        path = admin_socket(args)
        try:
            with admin_client_io.follow(path, self._command.path, _SILENCE_S) as (status, media, lines):
                if media != STREAM:
                    return refused(args, status, b"".join(lines))
                for line in lines:
                    if line.strip():  # else a sign of life
                        sys.stdout.write(line.decode() if args.json else self._command.text(json.loads(line)))
                        sys.stdout.flush()
        except BrokenPipeError:
            raise  # who reads has left, not the gateway
        except (OSError, ValueError) as error:
            raise NoAnswer(path, error) from error
        return EXIT_OK
