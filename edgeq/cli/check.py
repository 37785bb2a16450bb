"""`edgeq check`: is this configuration right, and does the machine grant what it asks?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from edgeq.cli.arguments import add_config, config_file
from edgeq.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError

if TYPE_CHECKING:
    from edgeq.cli.machine import Shortfall
    from edgeq.config.lines import Lines
    from edgeq.config.schema import Config

SUMMARY: Final = "check a configuration file, and whether this machine grants what it asks"
EXAMPLES: Final = """\
examples:
  edgeq check --config edgeq.toml
  edgeq check --json | jq '.problems[] | .key_path'
  edgeq check --json | jq -r '.machine[].line'      # what to put into sysctl.d or the unit
  edgeq check --strict                              # for a pipeline

Names every problem with its line. Binds nothing and changes nothing; certificates are opened, and the live changes that
are kept (server.changes) are read, as a start does. Exit code 78 if the configuration is wrong; with --strict 1 if a
setting of the machine stands below what it asks, or one of the file has no effect, which costs no more than a warning
otherwise: edgeq serves with what is granted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --format, --json, --strict, --quiet."""
    add_config(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: %(default)s")
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="the same as --format json")
    parser.add_argument(
        "--strict", action="store_true", help="fail also if the machine grants less than is asked, or a key is idle"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing if all is well")


def run(args: argparse.Namespace) -> int:
    """Problems go to standard error as text, or to standard output as JSON."""
    from edgeq.cli.machine import shortfalls
    from edgeq.cli.machine_io import read_machine
    from edgeq.config.idle import MISSING
    from edgeq.config.load import load_file

    file = config_file(args.config)
    try:
        loaded = load_file(file)
        ended = _ended(file)
    except ConfigError as error:
        if args.format == "json":
            print(
                json.dumps(
                    {
                        "ok": False,
                        "file": file,
                        "problems": [asdict(one) for one in error.problems],
                        "idle": [],
                        "machine": [],
                    },
                    indent=2,
                )
            )
        else:
            print(error, file=sys.stderr)
        return EXIT_CONFIG
    found = shortfalls(loaded.config, read_machine())
    fails = args.strict and (bool(loaded.idle) or any(not one.is_advice for one in found))
    if args.format == "json":
        idle = [asdict(one) for one in loaded.idle]
        machine = [_record(one, loaded.lines) for one in found]
        print(json.dumps({"ok": True, "file": file, "problems": [], "idle": idle, "machine": machine}, indent=2))
    elif not args.quiet or fails:
        print(f"{file}: ok ({_counts(loaded.config)})")
        for one in loaded.idle:
            print(one if one.message.startswith(MISSING) else replace(one, message=f"no effect: {one.message}"))
        for line in ended:
            print(line)
        _print_machine(found, loaded.lines)
    return EXIT_FAILED if fails else EXIT_OK


def _ended(file: str) -> list[str]:
    """What of the kept live changes a start would end, and why: it reads them, too. Raises ConfigError."""
    import time

    from edgeq.config.changes_io import read_changes
    from edgeq.config.live import Live
    from edgeq.config.load import read_file

    document = read_file(file)
    try:
        live = Live(lambda: document, read_changes, time.time())
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):  # it is the service's own
            return []
        raise
    return [f"{document.changes_file}: {one.change.name}: ends at a start: {one.why}" for one in live.ended]


def _record(one: Shortfall, lines: Lines) -> dict[str, object]:
    from edgeq.config.lines import show_path

    return {
        "setting": one.setting,
        "key_path": show_path(one.path),
        "config_line": lines.line(one.path),
        "needed": one.needed,
        "granted": one.granted,
        "message": one.message,
        "advice": one.is_advice,
        "file": one.file,
        "line": one.line,
    }


def _print_machine(found: Sequence[Shortfall], lines: Lines) -> None:
    from edgeq.cli.machine import UNIT_FILE
    from edgeq.config.lines import show_path

    for one in found:
        grade = "advice" if one.is_advice else "this machine"
        print(f"{lines.file}:{lines.line(one.path)}: {show_path(one.path)}: {grade}: {one.message}")
    for file in dict.fromkeys(one.file for one in found):
        print(f"in {file}:" + ("\n  [Service]" if file == UNIT_FILE else ""))
        for line in dict.fromkeys(one.line for one in found if one.file == file):
            print(f"  {line}")


def _counts(config: Config) -> str:
    """What a file has; of models only where there are some. An upstream that is a provider's key is told as a key."""
    from edgeq.config.providers import provider_of

    made = len(provider_of(config))
    sizes = [("listener", len(config.listener))]
    if len(config.upstream) > made:
        sizes.append(("upstream", len(config.upstream) - made))
    if config.provider:
        sizes += [("provider", len(config.provider)), ("key", made), ("model", len(config.model))]
    if config.prompt:
        sizes.append(("prompt", len(config.prompt)))
    sizes.append(("route", len(config.route)))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for word, count in sizes)
