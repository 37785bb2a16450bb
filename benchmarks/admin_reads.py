"""What a thousand reads of `queues` a second through the admin socket cost the gateway.

    python -m benchmarks.admin_reads [--python .venv/bin/python] [--rate 1000] [--rounds 10] [--seconds 3]

The worker has processor 0 for itself; supervisor, load, upstream and reader share processor 1, so a reader takes from
the load whatever it reads. Therefore it reads in every window, by turns from the gateway under load and from a second
one that has nothing to do: all else is the same, and what differs is what the reads do to the workers. A window and its
neighbour make one ratio, of throughput and of the worker's processor time per request; the median is printed with
minimum and maximum. Throughput is drowned by whatever else the machine does; processor time is not, by far. So what
the reads take of the supervisor is told for each read, and as a share of all processors: so much of the throughput is
missing at most, on a machine that has none to spare.
Needs wrk and taskset.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import accounting_io, processes_io
from benchmarks.proxies import Plan

_WORKER_CORE: Final = 0
_REQUEST: Final = b"GET /v1/queues HTTP/1.1\r\nHost: edgeq\r\nConnection: keep-alive\r\n\r\n"


class Reads(NamedTuple):
    """What a reader saw: how many answers in how long, and how late they came after they were due, in ms."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float


class Window(NamedTuple):
    """One window: requests of clients a second, and microseconds of the worker's processor for each."""

    per_s: float
    worker_us: float
    supervisor_share: float
    """Of a processor."""


def read_many(path: str, rate: float, seconds: float) -> Reads:
    """Read `queues` at a fixed rate over one connection; each answer is timed from the moment it was due."""
    late_ms: list[float] = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        answers = sock.makefile("rb")
        begin = time.monotonic()
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(_REQUEST)
            length = 0
            for line in iter(answers.readline, b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert len(answers.read(length)) == length > 2
            late_ms.append((time.monotonic() - due) * 1000)
        answers.close()
    late_ms.sort()
    return Reads(len(late_ms), time.monotonic() - begin, late_ms[len(late_ms) // 2], late_ms[len(late_ms) * 99 // 100])


def plan(admin: str, port: int, upstream_port: int, python: str) -> Plan:
    """edgeq with one worker and an admin socket."""
    path = f"{admin}.toml"
    text = f"""\
[server]
workers = 1
admin = "{admin}"
[[listener]]
address = "127.0.0.1:{port}"
[upstream.u]
endpoints = ["http://127.0.0.1:{upstream_port}"]
limit = 1000
[access_log]
target = "off"
[log]
level = "warning"
"""
    return Plan({path: text}, (python, "-P", "-m", "edgeq", "serve", "--config", path))


def measure(port: int, supervisor: int, worker: int, seconds: int) -> Window:
    """One window of a closed loop."""
    before_worker, before = accounting_io.processor_time(worker), _own_s(supervisor)
    command = ["taskset", "-c", str(processes_io.LOAD_CORE), "wrk", "-t1", "-c32", f"-d{seconds}s"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/x_echo"], capture_output=True, text=True, timeout=seconds + 60, check=True
    )
    used_s = accounting_io.processor_time(worker).schedstat_s - before_worker.schedstat_s
    share = (_own_s(supervisor) - before) / seconds
    found = re.search(r"(\d+) requests in", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"wrk: {done.stdout}")
    requests = int(found[1])
    return Window(requests / seconds, used_s / requests * 1e6, share)


def main() -> int:
    """Run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="with edgeq installed (default: this one)")
    parser.add_argument("--rate", type=float, default=1000.0, help="reads a second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3, help="of a window")
    parser.add_argument("--reader", metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        print(json.dumps(read_many(options.reader, options.rate, options.seconds)))
        return 0
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-bench-"))
        port, upstream_port = processes_io.free_port(), processes_io.free_port()
        load_core = processes_io.LOAD_CORE
        upstream = Plan({}, (sys.executable, "-m", "benchmarks.peer_upstream_io", str(upstream_port), "1", "1"))
        stack.enter_context(processes_io.running("upstream", upstream, load_core, directory, upstream_port))
        idle_port = processes_io.free_port()
        admin, idle_admin = f"{directory}/admin.sock", f"{directory}/idle.sock"
        busy = plan(admin, port, upstream_port, options.python)
        idle = plan(idle_admin, idle_port, upstream_port, options.python)
        edgeq = stack.enter_context(processes_io.running("edgeq", busy, load_core, directory, port))
        stack.enter_context(processes_io.running("idle", idle, load_core, directory, idle_port))
        (worker,) = _leaves(edgeq.pid)
        subprocess.run(["taskset", "-acp", str(_WORKER_CORE), str(worker)], check=True, stdout=subprocess.DEVNULL)
        measure(port, edgeq.pid, worker, options.seconds)  # not counted
        ratios: list[Window] = []
        plain: list[Window] = []
        reads: list[Reads] = []
        for turn in range(options.rounds):
            pair: dict[bool, Window] = {}
            for is_read in (False, True) if turn % 2 else (True, False):
                reader = _Reader(admin if is_read else idle_admin, options)
                pair[is_read] = measure(port, edgeq.pid, worker, options.seconds)
                found = reader.result()
                if is_read:
                    reads.append(found)
            one, other = pair[True], pair[False]
            plain.append(other)
            share = one.supervisor_share - other.supervisor_share
            ratios.append(Window(one.per_s / other.per_s, one.worker_us / other.worker_us, share))
    print(f"requests a second, not read: {_figure([one.per_s for one in plain])}")
    print(f"the same, read / not read: {_figure([one.per_s for one in ratios])}")
    print(f"us of the worker per request, not read: {_figure([one.worker_us for one in plain])}")
    print(f"the same, read / not read: {_figure([one.worker_us for one in ratios])}")
    shares = [one.supervisor_share for one in ratios]
    per_s = [one.answers / one.seconds for one in reads]
    taken_us = [share / rate * 1e6 for share, rate in zip(shares, per_s, strict=True)]
    print(f"us of the supervisor per read: {_figure(taken_us)}")
    print(f"the reads take of a processor: {_figure(shares)}")
    processors = len(os.sched_getaffinity(0))
    print(f"of all {processors} processors: {_figure([share / processors for share in shares])}")
    print(f"reads a second: {_figure(per_s)}")
    print(f"answered after ms, p50: {_figure([one.p50_ms for one in reads])}")
    print(f"answered after ms, p99: {_figure([one.p99_ms for one in reads])}")
    return 0


class _Reader(threading.Thread):
    """A reader in a process of its own, for one window."""

    def __init__(self, path: str, options: argparse.Namespace) -> None:
        super().__init__()
        window = ["--rate", str(options.rate), "--seconds", str(options.seconds)]
        command = ["taskset", "-c", str(processes_io.LOAD_CORE), sys.executable, "-m", "benchmarks.admin_reads"]
        self._process = subprocess.Popen(
            [*command, "--reader", path, *window], stdout=subprocess.PIPE, text=True, cwd=processes_io.ROOT
        )
        self._found = ""
        self.start()

    def run(self) -> None:
        self._found, _ = self._process.communicate()

    def result(self) -> Reads:
        self.join()
        return Reads(*json.loads(self._found))


def _leaves(root: int) -> list[int]:
    """The workers: descendants without children, but not the root and not its direct child, which forks them."""
    pids = accounting_io.processes_of(root)
    parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    return [pid for pid in pids if pid not in parents and pid != root]


def _own_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _figure(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}..{max(values):.3g})"


if __name__ == "__main__":
    sys.exit(main())
