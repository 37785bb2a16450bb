"""From a line of text, or a request, to the row of the table in `commands.py` with its arguments, or what is wrong."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from urllib.parse import parse_qsl

from edgeq.admin.command import Answer, Arguments, Command, Found
from edgeq.admin.commands import COMMANDS


def find_text(line: str) -> Found | str:
    """The command of a line with its arguments, or what is wrong with it."""
    try:
        words = shlex.split(line)
    except ValueError:  # a lonely quote is a part of a name
        words = line.split()
    for size in range(min(len(words), 3), 0, -1):
        name = " ".join(words[:size]).lower()
        for command in COMMANDS:
            if name in (command.words, command.also):
                return _with_values(command, words[size:])
    said = " ".join(words).lower().removesuffix(" json")
    if said and (whole := [command.words for command in COMMANDS if command.words.startswith(f"{said} ")]):
        return f"{said!r} goes on: {', '.join(whole)}"
    near = difflib.get_close_matches(said, [command.words for command in COMMANDS])
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "try 'help'"
    return f"unknown command {said[:100]!r}; {advice}"


def _with_values(command: Command, words: Sequence[str]) -> Found | str:
    values: list[str] = []
    arguments: dict[str, str] = {}
    options = {f"--{one.name}": one for one in command.options}
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        option = options.get(name)
        if option is None:
            values.append(word)
        elif option.name in arguments:
            return f"{name} is given twice: {command.usage}"
        elif option.is_flag or sign:
            arguments[option.name] = value if sign else "true"
        else:
            arguments[option.name] = next(rest, "")
    # The word may be a value, too: set access_log format json.
    least = sum(one.required for one in command.arguments)
    as_json = len(values) > least and values[-1].lower() == "json"
    if as_json:
        values.pop()
    if unknown := next((word for word in values if word.startswith("--")), ""):
        return f"unknown option {unknown[:100]!r}: {command.usage}"
    if len(values) > len(command.arguments):
        return f"too many words: {command.usage}"
    arguments |= {one.name: value for one, value in zip(command.arguments, values, strict=False)}
    wrong = problem(command, arguments, command.usage)
    return wrong or Found(command, arguments, as_json)


def find_http(method: str, target: str) -> Found | Answer:
    """The command of a request with its arguments, or the refusal. HEAD is GET to it."""
    path, _, query = target.partition("?")
    at_path = [command for command in COMMANDS if command.path == path]
    for command in at_path:
        if command.method == method or (command.method, method) == ("GET", "HEAD"):
            given = parse_qsl(query, keep_blank_values=True)
            arguments = dict(given)
            wrong = problem(command, arguments, command.http)
            if not wrong and len(given) > len(arguments):
                wrong = f"an argument is given twice: {command.http}"
            return Answer(400, {"ok": False, "error": wrong}) if wrong else Found(command, arguments)
    if at_path:
        methods = ", ".join(command.method for command in at_path)
        return Answer(405, {"ok": False, "error": f"{path} takes {methods}"})
    return Answer(404, {"ok": False, "error": "nothing here; GET /v1/commands lists all"})


def problem(command: Command, arguments: Arguments, usage: str) -> str:
    """What is wrong with the values of arguments, by name; empty if nothing is. `usage`: as it should be."""
    known = {one.name: one for one in (*command.arguments, *command.options)}
    for name, value in arguments.items():
        if name not in known:
            return f"unknown argument {name[:100]!r}: {usage}"
        check = known[name].check
        if check is not None and (wrong := check(value)):
            return f"{name}: expected {wrong}"
    missing = command.missing(arguments)
    return f"{missing} is missing: {usage}" if missing else ""
