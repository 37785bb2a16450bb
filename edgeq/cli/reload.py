"""`edgeq reload`: let a running edgeq read its configuration again."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

from edgeq.cli.arguments import NoAnswer, UsageError, add_admin, add_timeout, admin_socket
from edgeq.cli.show import EXIT_CODES
from edgeq.errors import EXIT_FAILED, EXIT_OK, EdgeqError

SUMMARY: Final = "let a running edgeq read its configuration again"
EXAMPLES: Final = """\
examples:
  edgeq reload --admin /run/edgeq/admin.sock
  edgeq reload --config /etc/edgeq/edgeq.toml     # finds the admin socket in the file
  edgeq reload --pid "$(cat /run/edgeq/edgeq.pid)"  # SIGHUP: the outcome is in its log

A wrong configuration is refused and the old one stays: exit code 1. Exit code 69: the admin socket is not reachable;
75: no answer in time; 77: not allowed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Three ways to name the process; --admin is the first choice."""
    way = parser.add_mutually_exclusive_group()
    add_admin(way)
    way.add_argument("--pid", metavar="N", type=int, help="its supervisor's process id: sends SIGHUP")
    add_timeout(parser, 30.0)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    if args.pid is not None:
        return _signal(args.pid)
    from edgeq.cli import admin_client_io

    path = admin_socket(args, "--admin PATH or --pid N")
    try:
        status, answer = admin_client_io.post(path, "/v1/reload", args.timeout)
    except OSError as error:
        raise NoAnswer(path, error) from error
    if args.json:
        print(json.dumps(answer))
    ok = answer.get("ok") is True
    if not args.json:
        if ok:
            print(f"reloaded: generation {answer.get('generation')}")
            for key in answer.get("restart", ()):
                print(f"{key} takes effect only at a restart")
            for ended in answer.get("ended", ()):
                print(f"not set any more: {ended}")
            for lost in answer.get("lost", ()):
                print(f"edgeq reload: {lost}", file=sys.stderr)
        else:
            error_text = answer.get("error") or f"the admin socket answered with status {status}"
            print(f"edgeq reload: refused, the old configuration stays:\n{error_text}", file=sys.stderr)
    return EXIT_OK if ok else EXIT_CODES.get(status, EXIT_FAILED)


def _signal(pid: int) -> int:
    if pid <= 0:
        raise UsageError("--pid: a process id is a positive number")
    try:
        # SIGHUP ends most programs, and a stale pid file may name any of them.
        if not _is_gateway(Path(f"/proc/{pid}/cmdline").read_bytes()):
            raise EdgeqError(f"process {pid} is not edgeq: nothing was sent")
        os.kill(pid, signal.SIGHUP)
    except FileNotFoundError:
        raise EdgeqError(f"process {pid}: No such process") from None
    except OSError as error:
        raise EdgeqError(f"process {pid}: {error.strerror}") from error
    print(f"SIGHUP sent to process {pid}; the outcome is in its log")
    return EXIT_OK


def _is_gateway(command_line: bytes) -> bool:
    """Is it `edgeq serve` or `python -m edgeq serve`, whatever their options, and not an editor of edgeq.toml?"""
    words = command_line.split(b"\0")
    return any(word.rpartition(b"/")[2] == b"edgeq" and b"serve" in words[at + 1 :] for at, word in enumerate(words))
