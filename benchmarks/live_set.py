"""How long a live change takes until it holds in all workers, under load.

    python -m benchmarks.live_set [--python .venv/bin/python] [--workers 2] [--sets 100]

48 connections keep the limit of an upstream (10 ms for an answer) reached, with a queue for the rest. The limit is set
by turns to 4 and to 32 through the admin socket; the answer comes when every worker has confirmed. Measured are the
time to that answer, and from the request on, the time until the board shows as many in flight as the new limit allows:
for a lower one that includes the requests that run (10 ms), since none is cut; for a higher one it is the moment at
which it is used. Requests that failed end the measurement. Needs wrk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import accounting_io, processes_io
from benchmarks.admin_io import Admin
from benchmarks.proxies import Plan
from edgeq.board.layout import Board
from edgeq.board.reading import read

_LOW: Final = 4
_HIGH: Final = 32
_CONNECTIONS: Final = 48
_UPSTREAM: Final = "upstream/u"
_PATIENCE_S: Final = 10.0


def plan(admin: str, port: int, upstream_port: int, python: str, workers: int) -> Plan:
    """edgeq before the upstream."""
    path = f"{admin}.toml"
    text = f"""\
[server]
workers = {workers}
admin = "{admin}"
[[listener]]
address = "127.0.0.1:{port}"
[upstream.u]
endpoints = ["http://127.0.0.1:{upstream_port}"]
limit = {_LOW}
queue = {{ timeout = "30s", discipline = "fifo" }}
[access_log]
target = "off"
[log]
level = "warning"
"""
    return Plan({path: text}, (python, "-P", "-m", "edgeq", "serve", "--config", path))


def board_of(root: int) -> Board:
    """The board of a running edgeq. Raises LookupError if it has none."""
    for pid in accounting_io.processes_of(root):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "edgeq-board" in os.readlink(fd):
                    return Board.attach(os.open(fd, os.O_RDWR))
    raise LookupError("no board")


def until(look: Callable[[], bool], what: str) -> float:
    """Look until it is so. Returns the moment."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not look():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"waited {_PATIENCE_S} s for {what}")
        time.sleep(0.0005)
    return time.monotonic()


def figure(values_ms: list[float]) -> str:
    """Median, the worst of twenty, the worst."""
    ordered = sorted(values_ms)
    return (
        f"{statistics.median(ordered):.1f} ms, p95 {ordered[len(ordered) * 95 // 100]:.1f}, "
        f"worst of {len(ordered)} {ordered[-1]:.1f}"
    )


def main() -> int:
    """Run, print a few lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="with edgeq installed (default: this one)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sets", type=int, default=100)
    options = parser.parse_args()
    answered: list[float] = []
    lower: list[float] = []
    higher: list[float] = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-bench-"))
        port, upstream_port = processes_io.free_port(), processes_io.free_port()
        admin = f"{directory}/admin.sock"
        service = [{"port": upstream_port, "slots": 1000, "mean_s": 0.01, "shape": "constant"}]
        upstream = Plan({}, (sys.executable, "-m", "benchmarks.peer_slots_io", json.dumps(service)))
        core = processes_io.LOAD_CORE
        stack.enter_context(processes_io.running("upstream", upstream, core, directory, upstream_port))
        plans = plan(admin, port, upstream_port, options.python, options.workers)
        edgeq = stack.enter_context(processes_io.running("edgeq", plans, core, directory, port))
        board = board_of(edgeq.pid)
        until(lambda: board.started, "the start")
        index = board.resource_index(_UPSTREAM)
        load = subprocess.Popen(
            ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{options.sets // 4 + 10}s", f"http://127.0.0.1:{port}/"],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(load.kill)
        until(lambda: read(board, index, False).in_flight == _LOW, "load")
        client = Admin(admin)
        for number in range(options.sets):
            limit, effects = (_LOW, lower) if number % 2 else (_HIGH, higher)
            before_s = time.monotonic()
            client.set(_UPSTREAM, "limit", limit)
            answered.append((time.monotonic() - before_s) * 1000)
            at_s = until(lambda limit=limit: read(board, index, False).in_flight == limit, f"{limit} in flight")  # type: ignore[misc]
            effects.append((at_s - before_s) * 1000)
        said, _ = load.communicate()
        board.close()
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"requests failed: {said}")
    requests = next(line.strip() for line in said.splitlines() if "requests in" in line)
    print(f"{options.workers} workers, {_CONNECTIONS} connections, {requests}, none failed")
    print(f"answered, all workers have confirmed: {figure(answered)}")
    print(f"{_LOW} -> {_HIGH}: so many in flight after: {figure(higher)}")
    print(f"{_HIGH} -> {_LOW}: no more in flight after: {figure(lower)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
