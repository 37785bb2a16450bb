"""The command line: one module for each command, one table of them.

A command (a module, or an object for those that are made from the table of admin commands) has `SUMMARY` (a sentence
for the list), `EXAMPLES` (for its --help), `add_arguments(parser)` and `run(args) -> exit code`. Modules import what
they need when they run, so that `edgeq version` does not pay for a server. Exit codes: 0 done, 1 failed, 2 wrong usage,
69 admin socket not reachable, 75 no answer in time, 77 not allowed, 78 configuration wrong.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from edgeq import __version__
from edgeq.cli import (
    accounts,
    change,
    check,
    completion,
    demo,
    demo_llm,
    explain,
    guide,
    look,
    reload,
    serve,
    show,
    top,
    version,
)
from edgeq.config.findings import did_you_mean
from edgeq.errors import EXIT_FAILED, EXIT_USAGE, ConfigError, EdgeqError

COMMANDS: Final[dict[str, Any]] = {
    "serve": serve,
    "check": check,
    "reload": reload,
    "show": show,
    "explain": explain,
    **{word: look.Look(word) for word in look.WORDS},
    **{words.split()[0]: change.Verb(words) for words in change.VERBS},
    **{word: accounts.Group(word) for word in accounts.WORDS},
    "top": top,
    "version": version,
    "demo": demo,
    "demo-llm": demo_llm,
    "completion": completion,
    "help": guide,
}

EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell counts."""

_UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Where standard output is a file."""


class Parser(argparse.ArgumentParser):
    """That of the command line and, by argparse's rule, of every command. `-1s` and `-5%` are values as -1 is, so that
    who checks them says what is allowed. Python 3.14 has it so by itself. Options of a command may stand anywhere, also
    before a word that need not be there. What nobody knows is told with the usage of the command, and what may be
    meant."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")
        self._intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse would by itself, if it did not give up on further words at the first option."""
        is_plain = all(one.nargs not in (argparse.PARSER, argparse.REMAINDER) for one in self._get_positional_actions())
        if self._intermixing or not is_plain:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False
        if unknown:  # told here, with this command's usage: argparse would leave that to the parser of all
            known = list(self._option_string_actions)
            self.error("unknown: " + ", ".join(f"{one}{did_you_mean(one.split('=')[0], known)}" for one in unknown))
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse, but with the command that it is, or the word that was meant, if one is near."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError:
            if value in COMMANDS:
                said = f"{value!r} is a command of its own: edgeq {value}"
                raise argparse.ArgumentError(action, said) from None
            if near := did_you_mean(str(value), [str(one) for one in action.choices or ()]):
                raise argparse.ArgumentError(action, f"there is no {value!r}{near}") from None
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; argparse itself exits with 2 for wrong usage and 0 for --help."""
    given = sys.argv[1:] if argv is None else argv
    parser = make_parser()
    if not given:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    args = parser.parse_args(given)
    try:
        code: int = COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except EdgeqError as error:
        print(f"edgeq {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has left (`edgeq version | head -0`). Python would complain once more when it
        # flushes standard output at exit, so that gets a harmless target.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        print(f"edgeq {args.command}: the answer cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="edgeq",
        description="An HTTP gateway that treats everything that can fill up as a queue.",
        epilog="example:\n  edgeq serve --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgeq {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser
