"""`edgeq explain`: what is short now, or what a request has met, in plain words."""

from __future__ import annotations

import argparse
from typing import Final

from edgeq.admin.commands import COMMANDS
from edgeq.cli.show import add_asking, ask, values_of

SUMMARY: Final = "what is short now and why, or why a request was refused, degraded, failed over or slow"
EXAMPLES: Final = """\
examples:
  edgeq explain
  edgeq explain upstream/api
  edgeq explain 4bf92f3577b34da6a3ce929d0e0e4736    # the request_id of a refusal, or x-request-id
  edgeq explain --json | jq -r .next

The causes that it tells apart, and how: docs/explain.md.
"""
(_COMMAND,) = [one for one in COMMANDS if one.words == "explain"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to explain."""
    parser.add_argument("what", metavar="WHAT", nargs="?", help="a resource or a request's id; all there is otherwise")
    add_asking(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    return ask(args, _COMMAND, values_of(_COMMAND, [args.what] if args.what else []))
