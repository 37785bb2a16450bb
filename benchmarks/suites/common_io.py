"""What the runners share: the gateway under test, one raw exchange, the printed score."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.gateway import Settings, running
from tests.support.scripted_upstream import Script, upstream

Address = tuple[str, int]


@dataclasses.dataclass(slots=True)
class Verdict:
    """Result of one case of a suite."""

    name: str
    good: bool
    detail: str = ""


def arguments(description: str, checkout: str = "") -> argparse.ArgumentParser:
    """Options of all runners. `checkout`: what a copy of the suite has to be of; empty if none is needed."""
    parser = argparse.ArgumentParser(description=description)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--target", metavar="HOST:PORT", help="a running gateway in front of an echo upstream")
    where.add_argument("--gateway", choices=("edgeq", "nginx", "haproxy"), help="start this one with an echo upstream")
    parser.add_argument("--verbose", action="store_true", help="print each case, not only the failures")
    if checkout:
        parser.add_argument("--checkout", type=Path, required=True, metavar="DIR", help=f"a copy of {checkout}")
    return parser


@contextlib.contextmanager
def target(options: argparse.Namespace, script: Script | None = None) -> Iterator[Address]:
    """Address of the gateway under test."""
    if options.target:
        host, _, port = options.target.rpartition(":")
        yield host, int(port)
        return
    with upstream(script) as server, running(server.port, Settings(access_log=False), options.gateway) as gateway:
        yield gateway.address


def exchange(address: Address, data: bytes, wait_s: float) -> tuple[bytes, bool]:
    """Send, then read until an answer's head is there and nothing follows for a moment.

    Returns: what was received, and whether the connection ended.
    """
    with socket.create_connection(address, timeout=5) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        received = b""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([sock], [], [], left_s)[0]:
                break
            try:
                more = sock.recv(65536)
            except OSError:
                return received, True
            if not more:
                return received, True
            received += more
            if b"\r\n\r\n" in received:
                deadline = min(deadline, time.monotonic() + 0.05)
        return received, False


def status_of(received: bytes) -> int:
    """Status of the first answer, 0 when there is none."""
    words = received.split(b"\r\n", 1)[0].split(b" ")
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit() else 0


def report(title: str, verdicts: Sequence[Verdict], verbose: bool) -> int:
    """Print failures and the score. Returns: an exit code."""
    for verdict in verdicts:
        if verbose or not verdict.good:
            print(f"{'good' if verdict.good else 'BAD '} {verdict.name}: {verdict.detail}")
    good = sum(verdict.good for verdict in verdicts)
    print(f"{title}: {good} of {len(verdicts)}")
    sys.stdout.flush()
    return 0 if good == len(verdicts) else 1
