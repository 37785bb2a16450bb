"""`edgeq completion`: what the Tab key needs to know, for bash, zsh and fish.

Scripts are made by shtab from the parser of the whole command line, so they know each command, option and subject and
need no Python at the Tab key; only names of resources are asked for then, from the running edgeq. An argument is known
by its METAVAR: FILE and PATH are files, those of `_RESOURCES` take a resource, and so does NAME by its place (as an
option it is something new).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from edgeq.cli.arguments import UsageError, default_admin
from edgeq.errors import EXIT_OK, EXIT_UNAVAILABLE

SUMMARY: Final = "print a script that lets a shell complete commands, options and names"
EXAMPLES: Final = """\
examples:
  edgeq completion bash > ~/.local/share/bash-completion/completions/edgeq
  edgeq completion zsh > "${fpath[1]}/_edgeq"
  edgeq completion fish > ~/.config/fish/completions/edgeq.fish

`make install` puts all three where these shells look.
"""
SHELLS: Final = ("bash", "zsh", "fish")
_FILES: Final = ("FILE", "PATH")
_RESOURCES: Final = ("RESOURCE", "ENDPOINT", "ROUTE", "QUEUE", "WHAT", "MATCH", "ARGUMENT")
_NAME: Final = "NAME"
_OF_ENDPOINTS: Final = ("drain", "undrain")
_OF_PARTS: Final = ("wake", "disable", "enable")
_OF_ROUTES: Final = ("pause", "resume")
_OF_SETTINGS: Final = ("set", "unset")
_TIMEOUT_S: Final = 1.0
_COMPLETE: Final = {
    "bash": "_edgeq_resources",
    "zsh": "_edgeq_resources",
    "fish": "(edgeq completion --resources (commandline -opc) 2>/dev/null)",
}
_PREAMBLE: Final = {
    "bash": """\
_edgeq_resources() {
  compgen -W "$(edgeq completion --resources "${COMP_WORDS[@]}" 2>/dev/null)" -- "$1"
}
""",
    "zsh": """\
_edgeq_resources() {
  compadd -- ${(f)"$(edgeq completion --resources $words 2>/dev/null)"}
}
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A shell, or what its script asks for."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, nargs="?", help=", ".join(SHELLS))
    parser.add_argument(
        "--resources",
        metavar="WORD",
        nargs=argparse.REMAINDER,
        help="for a script: print the names that a running edgeq has; the words typed so far may name its socket",
    )


def run(args: argparse.Namespace) -> int:
    """Print it."""
    if args.resources is not None:
        return _print_resources(args.resources)
    if args.shell is None:
        raise UsageError(f"for which shell? {', '.join(SHELLS)}")
    sys.stdout.write(script(args.shell))
    return EXIT_OK


def script(shell: str) -> str:
    """For one of SHELLS."""
    import shtab

    from edgeq.cli import make_parser

    parser = make_parser()
    _mark(parser, shtab.FILE)
    return str(shtab.complete(parser, shell, preamble=_PREAMBLE.get(shell, ""))) + "\n"


def _mark(parser: argparse.ArgumentParser, files: object) -> None:
    """Say of each argument what completes it, as shtab wants to have it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _mark(one, files)
        elif action.metavar in _FILES:
            action.complete = files  # type: ignore[attr-defined]
        elif action.metavar in _RESOURCES or (action.metavar == _NAME and not action.option_strings):
            action.complete = _COMPLETE  # type: ignore[attr-defined]


def _print_resources(words: Sequence[str]) -> int:
    from edgeq.cli import admin_client_io

    path = _socket(words)
    try:
        queues, routes, models = (
            json.loads(admin_client_io.get(path, f"/v1/{one}", _TIMEOUT_S)[2]) for one in ("queues", "routes", "models")
        )
    except (OSError, ValueError):
        return EXIT_UNAVAILABLE  # no word of it: somebody is typing
    if not all(isinstance(one, list) for one in (queues, routes, models)):
        return EXIT_UNAVAILABLE
    # Tenants are not among them: their names come from clients.
    named = {one["queue"].rpartition(":")[0] for one in queues if one["kind"] != "tenant"} - {""}
    for name in sorted(names_for(words, named, {str(one["route"]) for one in routes}, models)):
        print(name)
    return EXIT_OK


def names_for(
    words: Sequence[str], named: set[str], routes: set[str], models: Sequence[Mapping[str, str]] = ()
) -> set[str]:
    """Those that the command takes which is typed: endpoints, parts of providers, routes, what has settings, or any.
    `models`: the records of that subject."""
    keys = {f"upstream/{one['upstream']}" for one in models}
    providers = {f"provider/{one['provider']}" for one in models}
    targets = {f"target/{one['target']}" for one in models}
    # Those of a provider's keys are no endpoints to anybody: its parts can be disabled.
    endpoints = {name for name in named if "#" in name and name.partition("#")[0] not in keys}
    if any(word in _OF_ENDPOINTS for word in words):
        return endpoints
    if any(word in _OF_PARTS for word in words):
        return keys | providers | targets | (set() if "wake" in words else endpoints)
    if any(word in _OF_ROUTES for word in words):
        return routes
    own = {f"model/{one['model']}" for one in models}
    all_names = {*named, *(f"route/{name}" for name in routes), *providers, *own}
    if any(word in _OF_SETTINGS for word in words):
        return {name for name in all_names - keys - targets if "#" not in name}
    return all_names


def _socket(words: Sequence[str]) -> str:
    """The admin socket that a command line names, complete or not."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--admin", default=default_admin())
    try:
        return str(parser.parse_known_args(words)[0].admin)
    except argparse.ArgumentError:
        return default_admin()
