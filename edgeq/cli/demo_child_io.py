"""The servers that `edgeq serve --demo` forwards to, each a child of its own: a demo upstream, a demo provider.

The parent binds the socket and passes it on, so the port is known and connections wait in its backlog before the child
has started. The child ends when its standard input does: when the parent closes it, or dies in whatever way. It gets a
session of its own, because a Ctrl-C must reach only the gateway, which still needs its upstream while it drains.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import edgeq


@contextmanager
def started(*command: str) -> Iterator[str]:
    """Run `edgeq COMMAND ..`, one that takes --fd, on a free loopback port. Yields its URL."""
    from edgeq import demo_io
    from edgeq.config.address import ListenAddress

    sock = demo_io.bind(ListenAddress("ipv4", "127.0.0.1", 0, ""))
    with sock:
        # The child must run this very edgeq, wherever it was found.
        home = os.path.dirname(os.path.dirname(os.path.abspath(edgeq.__file__)))
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgeq", *command, "--fd", str(sock.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[sock.fileno()],
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": home},
        )
        port = sock.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
