"""`edgeq top`: queues, upstreams, refusals and workers of a running edgeq, live."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Final

from edgeq.cli.arguments import UsageError, add_admin, admin_socket
from edgeq.errors import EXIT_OK, EdgeqError

SUMMARY: Final = "watch queues, upstreams, refusals and workers of a running edgeq"
EXAMPLES: Final = """\
examples:
  edgeq top
  edgeq top upstream/api --sort oldest
  edgeq top --once | head -20
  edgeq top --admin /tmp/edgeq.sock        # a socket that ssh has forwarded, too: ssh -L /tmp/edgeq.sock:...

The live screen needs the extra: pip install 'edgeq[top]'; --once does not. Without colours: NO_COLOR=1.
"""
_WIDTH: Final = 100
"""Of what is printed and not for a terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to show first; keys change it later."""
    from edgeq.top.model import ORDERS

    parser.add_argument("match", metavar="MATCH", nargs="?", default="", help="only what has this text in its name")
    add_admin(parser.add_mutually_exclusive_group())
    parser.add_argument("--sort", choices=ORDERS, default=ORDERS[0], help="order of queues (default: %(default)s)")
    parser.add_argument("--interval", metavar="SECONDS", type=_seconds, default=1.0, help="default: %(default)s")
    parser.add_argument("--once", action="store_true", help="print it once, and end")


def run(args: argparse.Namespace) -> int:
    """Look once, then print it or go on in the terminal."""
    from edgeq.top.gateway_io import Gateway
    from edgeq.top.model import History, View
    from edgeq.top.screen import main_screen

    gateway = Gateway(admin_socket(args))
    view = View(args.sort, args.match)
    if args.once:
        width = shutil.get_terminal_size((_WIDTH, 0)).columns
        for line in main_screen(gateway.look(), History(), view, width):
            print(line.text.rstrip())
        return EXIT_OK
    if not sys.stdin.isatty() or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("the live screen needs a terminal (and TERM says which); elsewhere there is --once")
    try:
        from edgeq.top.app_io import TopApp
    except ModuleNotFoundError as error:
        raise EdgeqError(f"needs {error.name}: pip install 'edgeq[top]', or use edgeq top --once") from error
    app = TopApp(gateway, gateway.look(), view, args.interval)
    app.run(mouse=False)  # the terminal's own selection of text stays
    return app.return_code or EXIT_OK


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: expected 0.1 to 3600 seconds")
    return value
