"""`edgeq demo`: an upstream to try a gateway against."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgeq.errors import EXIT_OK, EXIT_USAGE, StartError

if TYPE_CHECKING:
    import socket

SUMMARY: Final = "run a small upstream to try the gateway against"
EXAMPLES: Final = """\
examples:
  edgeq demo --listen 127.0.0.1:9000
  curl -i http://127.0.0.1:9000/
  curl -N 'http://127.0.0.1:9000/stream?chunks=5&ms=300'

paths: / (the request, echoed)  /slow?ms=N  /stream?chunks=N&ms=N  /bytes/N  /status/N  /echo (POST)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen."""
    add_listen(parser, "127.0.0.1:9000")


def add_listen(parser: argparse.ArgumentParser, default: str) -> None:
    """--listen, and --fd for a parent that has bound the socket itself."""
    parser.add_argument("--listen", metavar="ADDR", default=default, help="default: %(default)s")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    from edgeq import demo_io

    return serve(args, "demo upstream", demo_io.run)


def serve(args: argparse.Namespace, what: str, run: Callable[[socket.socket, bool], None]) -> int:
    """Bind as `add_listen` was told, say where, and `run(socket, with_parent)` until it is stopped."""
    import socket

    from edgeq import demo_io
    from edgeq.config.address import parse_listen

    if args.fd is not None:
        run(socket.socket(fileno=args.fd), True)
        return EXIT_OK
    try:
        address = parse_listen(args.listen)
    except ValueError as error:
        raise StartError(f"--listen: {error}", EXIT_USAGE) from None
    try:
        sock = demo_io.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen at {args.listen}: {error.strerror}") from error
    where = address.path or "http://{}:{}".format(*sock.getsockname()[:2])
    print(f"{what} at {where}", file=sys.stderr, flush=True)
    run(sock, False)
    return EXIT_OK
