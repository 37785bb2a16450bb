"""What types cannot say of prompts: their templates, variables, and what they refer to."""

from __future__ import annotations

import re
from typing import Final

import orjson

from edgeq.config.address import check_path
from edgeq.config.check_llm import check_limits, check_model_name
from edgeq.config.findings import Findings, did_you_mean
from edgeq.config.lines import Path
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Prompt, Variable
from edgeq.llm.message import Unmappable
from edgeq.llm.template import NAME, Template
from edgeq.llm.variables import write_value

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def check_prompts(config: Config, findings: Findings) -> None:
    """Add everything that is wrong with prompts to `findings`."""
    seen: set[tuple[str, str]] = set()
    for number, prompt in enumerate(config.prompt):
        path: Path = ("prompt", number)
        _prompt(prompt, path, config, findings)
        if (prompt.path, prompt.version) in seen:
            findings.add((*path, "version"), f'{prompt.path} has a version "{prompt.version}" already')
        seen.add((prompt.path, prompt.version))


def _prompt(prompt: Prompt, path: Path, config: Config, findings: Findings) -> None:
    for key in ("name", "version"):
        if not _NAME.fullmatch(getattr(prompt, key)):
            findings.add((*path, key), f"a {key} has at most 64 letters, digits, dots, dashes and underscores")
    try:
        check_path(prompt.path)
        if "*" in prompt.path:
            findings.add((*path, "path"), 'a prompt has one path: "*" stands for nothing here')
    except ValueError as error:
        findings.add((*path, "path"), str(error))
    _route(prompt, path, config, findings)
    check_model_name(prompt.model, (*path, "model"), config, findings)
    check_limits(prompt.limits, (*path, "limits"), findings)
    if prompt.max_tokens < 0:
        findings.add((*path, "max_tokens"), "must not be negative")
    if prompt.temperature != -1.0 and not 0.0 <= prompt.temperature <= 2.0:
        findings.add((*path, "temperature"), "must be from 0 to 2, or -1 for the model's own")
    if prompt.json_schema:
        try:
            is_object = isinstance(orjson.loads(prompt.json_schema), dict)
        except orjson.JSONDecodeError as error:
            findings.add((*path, "json_schema"), f"is not valid JSON: {error}")
        else:
            if not is_object:
                findings.add((*path, "json_schema"), "must be a JSON object")
    for name, variable in prompt.variables.items():
        _variable(name, variable, (*path, "variables", name), findings)
    _messages(prompt, path, findings)


def _route(prompt: Prompt, path: Path, config: Config, findings: Findings) -> None:
    where = (*path, "route")
    for route in config.route:
        if route.name == prompt.route:
            if route.llm is None:
                findings.add(where, f'route "{prompt.route}" serves no models: write llm = {{}} there')
            elif route.llm.models and prompt.model in config.model and prompt.model not in route.llm.models:
                findings.add((*path, "model"), f'route "{prompt.route}" does not serve it: see its llm.models')
            return
    hint = did_you_mean(prompt.route, [one.name for one in config.route if one.llm is not None])
    findings.add(where, f'there is no route "{prompt.route}"{hint}')


def _messages(prompt: Prompt, path: Path, findings: Findings) -> None:
    used: set[str] = set()
    whole = True
    for number, message in enumerate(prompt.messages):
        where = (*path, "messages", number, "text")
        if findings.blames(where):
            whole = False
            continue
        try:
            names = Template(message.text).names()
        except ValueError as error:
            findings.add(where, str(error))
            whole = False
            continue
        used.update(names)
        for name in names:
            if name not in prompt.variables:
                hint = did_you_mean(name, list(prompt.variables))
                findings.add(where, f'there is no variable "{name}"{hint}: write it under variables')
    if not any(one.role == "user" for one in prompt.messages):
        findings.add((*path, "messages"), "a prompt needs a message of the user at least")
    if whole and prompt.messages:  # that there are none is wrong already
        for name in prompt.variables:
            if name not in used:
                findings.add((*path, "variables", name), "no message uses it")


def _variable(name: str, variable: Variable, path: Path, findings: Findings) -> None:
    kind = variable.type
    if not NAME.fullmatch(name):
        findings.add(path, "a variable's name has at most 64 letters, digits and underscores, and begins with no digit")
    if variable.max_length < 1:
        findings.add((*path, "max_length"), "must be 1 at least")
    if kind == "enum" and not variable.values:
        findings.add((*path, "values"), "missing: what it may be")
    if kind != "enum" and variable.values:
        findings.add((*path, "values"), 'is for type = "enum" only')
    if kind in ("string", "enum", "boolean"):
        for key in ("min", "max"):
            if getattr(variable, key) is not None:
                hint = ": see max_length" if kind == "string" else ""
                findings.add((*path, key), f"is for numbers and lists only{hint}")
    elif variable.min is not None and variable.max is not None and variable.min > variable.max:
        findings.add((*path, "min"), "is above max")
    if variable.default is not None:
        try:
            write_value(name, variable.default, variable)
        except Unmappable as error:
            findings.add((*path, "default"), error.message)
