"""Arguments that several commands share, and what is wrong with their combination."""

from __future__ import annotations

import argparse
import os
from typing import Final

from edgeq.errors import EXIT_USAGE, EdgeqError

DEFAULT_FILES: Final = ("edgeq.toml", "/etc/edgeq/edgeq.toml")
"""Where to look if no file is named, in this order."""


class UsageError(EdgeqError):
    """Arguments that do not go together; exit code 2, as argparse has it."""

    exit_code = EXIT_USAGE


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config FILE."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="configuration file (default: {}, then {})".format(*DEFAULT_FILES)
    )


def config_file(given: str | None) -> str:
    """The file to read. Raises UsageError if none is given and none is at the usual places."""
    file = given or next(filter(os.path.exists, DEFAULT_FILES), None)
    if file is None:
        places = " nor ".join(os.path.abspath(place) for place in DEFAULT_FILES)
        raise UsageError(f"no configuration: neither {places} exists; name one with --config FILE")
    return file
