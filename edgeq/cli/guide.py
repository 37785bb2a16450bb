"""`edgeq help`: what the command line can do."""

from __future__ import annotations

import argparse
from typing import Final

from edgeq.errors import EXIT_OK

SUMMARY: Final = "show this help, or that of a command"
EXAMPLES: Final = """\
examples:
  edgeq help
  edgeq help set                    # the same as: edgeq set --help
  edgeq help keys create

What the admin socket can do is in edgeq-admin(7), and in: echo help | socat - UNIX-CONNECT:/run/edgeq/admin.sock
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command."""
    from edgeq.cli import COMMANDS

    parser.add_argument("about", metavar="COMMAND", nargs="?", choices=list(COMMANDS), help="all there is otherwise")
    parser.add_argument("verb", metavar="VERB", nargs="*", help="of that command, as in: keys create")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from edgeq.cli import make_parser

    parser = make_parser()
    if args.about is None:
        parser.print_help()
    else:
        parser.parse_args([args.about, *args.verb, "--help"])  # ends with 0 by itself
    return EXIT_OK
