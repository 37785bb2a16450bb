"""`edgeq version`: what runs here."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from typing import Final

from edgeq import __version__
from edgeq.errors import EXIT_OK

SUMMARY: Final = "show the versions of edgeq, Python and uvloop, and whether the hot path is compiled"
EXAMPLES: Final = """\
examples:
  edgeq version
  edgeq version --json | jq -r .hot_path
"""

_HOT: Final = "edgeq.wire.h1_request"
"""A module that is always among the compiled ones."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line, or one object."""
    facts = {
        "version": __version__,
        "python": platform.python_version(),
        "uvloop": _installed("uvloop"),
        "hot_path": hot_path(),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print("edgeq {version} (Python {python}, uvloop {uvloop}, hot path {hot_path})".format(**facts))
    return EXIT_OK


def hot_path() -> str:
    """ "compiled" or "interpreted"."""
    try:
        spec = importlib.util.find_spec(_HOT)
    except ModuleNotFoundError:
        spec = None
    return "compiled" if spec is not None and spec.origin is not None and spec.origin.endswith(".so") else "interpreted"


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
