"""`edgeq check`: is this configuration right?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from edgeq.cli.arguments import add_config, config_file
from edgeq.errors import EXIT_CONFIG, EXIT_OK, ConfigError

if TYPE_CHECKING:
    from edgeq.config.schema import Config

SUMMARY: Final = "check a configuration file, and name every problem with its line"
EXAMPLES: Final = """\
examples:
  edgeq check --config edgeq.toml
  edgeq check --format json | jq '.problems[] | .key_path'

Binds nothing and changes nothing; certificates are opened. Exit code 78 if anything is wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --format, --quiet."""
    add_config(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: %(default)s")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing if all is well")


def run(args: argparse.Namespace) -> int:
    """Problems go to standard error as text, or to standard output as JSON."""
    from edgeq.config.load import load_file

    file = config_file(args.config)
    try:
        config = load_file(file).config
    except ConfigError as error:
        if args.format == "json":
            print(
                json.dumps({"ok": False, "file": file, "problems": [asdict(one) for one in error.problems]}, indent=2)
            )
        else:
            print(error, file=sys.stderr)
        return EXIT_CONFIG
    if args.format == "json":
        print(json.dumps({"ok": True, "file": file, "problems": []}, indent=2))
    elif not args.quiet:
        print(f"{file}: ok ({_counts(config)})")
    return EXIT_OK


def _counts(config: Config) -> str:
    sizes = (("listener", config.listener), ("upstream", config.upstream), ("route", config.route))
    return ", ".join(f"{len(what)} {word}{'' if len(what) == 1 else 's'}" for word, what in sizes)
