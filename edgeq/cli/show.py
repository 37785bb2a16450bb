"""`edgeq show`: what a running edgeq knows, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Final
from urllib.parse import urlencode

from edgeq.admin.commands import COMMANDS, Command
from edgeq.admin.render import render_text
from edgeq.cli.arguments import UsageError, add_admin, admin_socket
from edgeq.errors import EXIT_DENIED, EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE

SUMMARY: Final = "show queues, upstreams, limits, workers, refusals, events and more of a running edgeq"
_SUBJECTS: Final[dict[str, Command]] = {
    one.words.removeprefix("show "): one for one in COMMANDS if one.words.startswith("show ")
}
EXAMPLES: Final = """\
examples:
  edgeq show queues
  edgeq show queues upstream/api
  edgeq show reasons --json | jq '.[0]'
  edgeq show workers --admin /run/edgeq/admin.sock

subjects:
""" + "".join(f"  {name:11}{command.help.partition(':')[0]}\n" for name, command in _SUBJECTS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subject of the table of commands, and its arguments."""
    parser.add_argument("subject", metavar="SUBJECT", choices=list(_SUBJECTS), help="see below")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs="*", help="a text to look for, or a number of events")
    parser.add_argument("--diff", action="store_true", help="limits: only what is set live, beside what the file says")
    add_admin(parser.add_mutually_exclusive_group())
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON, with all that is known")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    from edgeq.cli import admin_client_io

    command = _SUBJECTS[args.subject]
    if len(args.arguments) > len(command.arguments):
        raise UsageError(f"too many words: edgeq {command.usage}")
    values = {one.name: value for one, value in zip(command.arguments, args.arguments, strict=False)}
    if args.diff:
        if not any(one.name == "diff" for one in command.options):
            raise UsageError("--diff is for limits; everything that is set live is in: edgeq show changes")
        values["diff"] = "true"
    target = command.path + (f"?{urlencode(values)}" if values else "")
    path = admin_socket(args)
    try:
        status, media, text = admin_client_io.get(path, target, args.timeout)
        body = json.loads(text) if media.startswith("application/json") else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"edgeq show: the admin socket {path} is not reachable: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    if status != 200:
        said = body.get("error") if isinstance(body, dict) else None
        print(f"edgeq show: {said or f'the admin socket answered with status {status}'}", file=sys.stderr)
        return EXIT_DENIED if status == 403 else EXIT_FAILED
    if body is None:
        sys.stdout.write(text.decode())
    elif args.json:
        print(json.dumps(body))
    else:
        # As wide as the terminal; what a program reads is not cut.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        sys.stdout.write(render_text(body, command.columns, width))
    return EXIT_OK
