"""`edgeq demo`: an upstream to try a gateway against."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from edgeq.errors import EXIT_OK, EXIT_USAGE, StartError

SUMMARY: Final = "run a small upstream to try the gateway against"
EXAMPLES: Final = """\
examples:
  edgeq demo --listen 127.0.0.1:9000
  curl -i http://127.0.0.1:9000/
  curl -N 'http://127.0.0.1:9000/stream?chunks=5&ms=300'

paths: / (the request, echoed)  /slow?ms=N  /stream?chunks=N&ms=N  /bytes/N  /status/N  /echo (POST)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--listen, and --fd for a parent that has bound the socket itself."""
    parser.add_argument("--listen", metavar="ADDR", default="127.0.0.1:9000", help="default: %(default)s")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    import socket

    from edgeq import demo_io
    from edgeq.config.address import parse_listen

    if args.fd is not None:
        demo_io.run(socket.socket(fileno=args.fd), with_parent=True)
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
    print(f"demo upstream at {where}", file=sys.stderr, flush=True)
    demo_io.run(sock, with_parent=False)
    return EXIT_OK
