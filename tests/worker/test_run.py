"""How a worker begins, and what it does if it cannot."""

from __future__ import annotations

import subprocess
import sys

from tests.support.gateway import ROOT

_UNBORN = """
import asyncio, os, socket
from edgeq.board.layout import Board
from edgeq.config.load import quickstart
from edgeq.errors import EdgeqError
from edgeq.worker import run_io

def make_app(*_):
    raise EdgeqError("no such thing")

board = Board.create(1)
ours, theirs = socket.socketpair()
theirs.close()
config = quickstart("127.0.0.1:9", "http://127.0.0.1:9").build()
loop = asyncio.new_event_loop
print(run_io.main(0, 1, 1, config, b"", ours, board.fd, (), {}, frozenset(), None, -1, make_app, loop))
"""


def test_who_cannot_start_and_has_nobody_to_tell() -> None:
    """His supervisor ends already, by what the worker before him has told: the log says why, without a traceback."""
    ended = subprocess.run([sys.executable, "-c", _UNBORN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("1\n", 0), ended.stderr
    assert "no such thing" in ended.stderr
    assert "Traceback" not in ended.stderr
