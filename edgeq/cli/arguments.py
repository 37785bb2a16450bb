"""Arguments that several commands share, and what is wrong with their combination."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, Final

from edgeq.errors import EXIT_DENIED, EXIT_TRY_AGAIN, EXIT_UNAVAILABLE, EXIT_USAGE, EdgeqError

DEFAULT_FILES: Final = ("edgeq.toml", "/etc/edgeq/edgeq.toml")
"""Where to look if no file is named, in this order."""


_DEFAULT_ADMIN: Final = "/run/edgeq/admin.sock"
_ADMIN_VARIABLE: Final = "EDGEQ_ADMIN"
_MAX_TIMEOUT_S: Final = 86400


class UsageError(EdgeqError):
    """Arguments that do not go together; exit code 2, as argparse has it."""

    exit_code = EXIT_USAGE


class Once(argparse.Action):
    """Of what can only be one: argparse would take the last and forget the others."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store it. Raises ArgumentError the second time."""
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "may be given once; several need a file (--config)")
        setattr(namespace, self.dest, values)


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config FILE."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="configuration file (default: {}, then {})".format(*DEFAULT_FILES)
    )


def add_admin(way: argparse._ActionsContainer) -> None:
    """--admin PATH and --config FILE, of which one may be given: two ways to name a running edgeq."""
    way.add_argument(
        "--admin", metavar="PATH", help=f"its admin socket (default: ${_ADMIN_VARIABLE}, then {_DEFAULT_ADMIN})"
    )
    way.add_argument("-c", "--config", metavar="FILE", help="its configuration file, which names the admin socket")


def default_admin() -> str:
    """The admin socket if neither --admin nor --config names one: what EDGEQ_ADMIN says, or that of the service."""
    return os.environ.get(_ADMIN_VARIABLE) or _DEFAULT_ADMIN


def admin_socket(args: argparse.Namespace, instead: str = "--admin PATH") -> str:
    """The path of the admin socket. Raises UsageError, which says what to say `instead`, if the file names none."""
    if args.admin is not None:
        return str(args.admin)
    if args.config is None:
        return default_admin()
    from edgeq.config.load import admin_path

    path = admin_path(args.config)
    if not path:
        raise UsageError(f"{args.config} names no admin socket ([server] admin); say {instead}")
    return path


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    """--timeout SECONDS, for an answer of the admin socket."""
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=default_s, help="default: %(default)s")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:50]!r}: expected a number of seconds") from None
    if not 0 < value <= _MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0, and {_MAX_TIMEOUT_S} seconds at most")
    return value


class NoAnswer(EdgeqError):
    """Of the admin socket at `path`: where there is none, how there would be one."""

    def __init__(self, path: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.exit_code = EXIT_UNAVAILABLE
        text = f"the admin socket {path} is not reachable: {reason}"
        if isinstance(error, FileNotFoundError):
            text += (
                f" (`edgeq serve --admin PATH` opens one, or server.admin; ${_ADMIN_VARIABLE} or --admin says where)"
            )
        elif isinstance(error, PermissionError):
            self.exit_code = EXIT_DENIED
            text += " (server.admin_group and server.admin_mode say who may connect)"
        elif isinstance(error, TimeoutError | BlockingIOError):
            self.exit_code = EXIT_TRY_AGAIN
            text = f"the admin socket {path} has not answered in time: what was asked may be done all the same"
        super().__init__(text)


def config_file(given: str | None) -> str:
    """The file to read. Raises UsageError if none is given and none is at the usual places."""
    file = given or next(filter(os.path.exists, DEFAULT_FILES), None)
    if file is None:
        places = " nor ".join(os.path.abspath(place) for place in DEFAULT_FILES)
        raise UsageError(f"no configuration: neither {places} exists; name one with --config FILE")
    return file
