"""From `edgeq.toml`, or from the options of the command line, to a `Config` that can be served.

Invariants of what is returned: every check has passed, every listener has a name, there is at least one route (with a
single upstream and no route, the catch-all "default"). Otherwise `ConfigError` names every problem at once; only a
mistake of TOML's syntax hides those behind it.

    text -> tomllib -> overrides -> Document
    Document -> live changes -> convert.py (types, names) -> credentials_io.py (names of files) -> check.py (sense)
             -> files_io.py (files) -> Config
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from edgeq.config.change import DEFAULT_ROUTE, SOURCE, Change, changed
from edgeq.config.check import check
from edgeq.config.convert import convert
from edgeq.config.credentials_io import find_credentials
from edgeq.config.files_io import check_files
from edgeq.config.findings import Findings, Label
from edgeq.config.idle import idle
from edgeq.config.lines import Lines, Path, index
from edgeq.config.providers import provider_upstreams
from edgeq.config.schema import Config, Route
from edgeq.config.schema_llm import Accounts, RouteLlm
from edgeq.errors import ConfigError, Problem

COMMAND_LINE: Final = "command line"
"""`Problem.file` of what an option got wrong."""
QUICKSTART_UPSTREAM: Final = "default"

_WHERE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration as it is written: its tables, where they stand, and what options of the command line own."""

    tables: Mapping[str, Any]
    lines: Lines
    labels: Mapping[Path, Label]
    path: str = ""
    """Of the file; empty if there is none."""

    @property
    def changes_file(self) -> str:
        """Where live changes are kept that shall outlive a restart; empty if there is no such place."""
        server = self.tables.get("server")
        named = server.get("changes") if isinstance(server, dict) else None
        if isinstance(named, str) and named:
            return named
        return f"{self.path}.d/changes.toml" if self.path else ""

    def build(self, changes: Sequence[Change] = (), files: bool = True) -> Config:
        """Convert and check it, with live changes on top. Raises ConfigError, or ChangeError for a change without a
        place.

        files: look at those that it names, too, which takes longer than all the rest.
        """
        tables, steps = changed(self.tables, changes)
        labels = {path: Label(SOURCE, change.name) for path, change in steps.items()}
        findings = Findings(self.lines, {**self.labels, **labels})
        config = find_credentials(convert(tables, findings), findings)
        check(config, findings)
        if files:
            check_files(config, findings)
        problems = findings.problems()
        if problems:
            raise ConfigError(problems)
        listeners = tuple(replace(one, name=one.name or one.address) for one in config.listener)
        routes = config.route or (_default_route(config),)
        upstreams = {**config.upstream, **provider_upstreams(config)}
        return replace(config, listener=listeners, route=routes, upstream=upstreams)

    def idle(self, config: Config) -> list[Problem]:
        """What has no effect in the configuration that was built: nothing that is wrong."""
        findings = Findings(self.lines, self.labels)
        idle(config, findings)
        return findings.problems()


def _default_route(config: Config) -> Route:
    """Of a file that has none: to its only upstream, or to its models."""
    if config.upstream:
        return Route(name=DEFAULT_ROUTE, upstream=next(iter(config.upstream)))
    return Route(name=DEFAULT_ROUTE, llm=RouteLlm())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where its keys stand in the file."""

    config: Config
    lines: Lines
    idle: Sequence[Problem] = ()
    """What has no effect."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Options of the command line, stronger than the file. None: not given."""

    listen: str | None = None
    workers: int | None = None
    admin: str | None = None


NO_OVERRIDES: Final = Overrides()


def read_file(path: str, overrides: Overrides = NO_OVERRIDES) -> Document:
    """Read a file. Raises ConfigError if it cannot be read, or is no TOML."""
    return read_text(_read(path), path, overrides, path)


def read_text(text: str, name: str, overrides: Overrides = NO_OVERRIDES, path: str = "") -> Document:
    """The same of what is already in memory; `name` stands for the file in messages, `path` is that of the file."""
    tables = _parse(text, name)
    lines = index(text.replace("\r\n", "\n"), name)
    return Document(tables, lines, _override(tables, overrides), path)


def load_file(path: str, overrides: Overrides = NO_OVERRIDES) -> Loaded:
    """Read and check a file. Raises ConfigError, also if the file cannot be read."""
    return load_text(_read(path), path, overrides)


def load_text(text: str, name: str, overrides: Overrides = NO_OVERRIDES) -> Loaded:
    """Check a configuration that is already in memory."""
    document = read_text(text, name, overrides)
    config = document.build()
    return Loaded(config, document.lines, document.idle(config))


def quickstart(listen: str, upstream_url: str, workers: int = 0, admin: str = "") -> Document:
    """The configuration of `edgeq serve --listen ADDR --upstream URL`, to be built like a file."""
    tables: dict[str, Any] = {"upstream": {QUICKSTART_UPSTREAM: {"endpoints": [upstream_url]}}}
    labels = _override(tables, Overrides(listen, workers, admin))
    labels["upstream", QUICKSTART_UPSTREAM] = Label(COMMAND_LINE, "--upstream")
    return Document(tables, Lines(COMMAND_LINE, {}), labels)


def admin_path(path: str) -> str:
    """`server.admin` of a file that may be wrong elsewhere: for commands that only look for the admin socket."""
    server = _parse(_read(path), path).get("server")
    admin = server.get("admin") if isinstance(server, dict) else None
    return admin if isinstance(admin, str) else ""


def store_path(path: str) -> str:
    """`accounts.store` of such a file; empty if it has no [accounts]."""
    accounts = _parse(_read(path), path).get("accounts")
    store = accounts.get("store", Accounts().store) if isinstance(accounts, dict) else None
    return store if isinstance(store, str) else ""


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {error.strerror}")]) from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(path, line, "", "the file is not UTF-8")]) from error


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = _WHERE.search(message)
        if where is None:
            raise ConfigError([Problem(name, 0, "", f"no valid TOML: {message}")]) from error
        line, column = where.groups()
        message = message[: where.start()]
        if line is None:
            raise ConfigError(
                [Problem(name, text.count("\n") + 1, "", f"no valid TOML: {message} (at the end)")]
            ) from error
        raise ConfigError([Problem(name, int(line), "", f"no valid TOML: {message} (column {column})")]) from error
    except ValueError as error:  # int() takes 4300 digits at most
        raise ConfigError([Problem(name, 0, "", f"no valid TOML: {error}")]) from error
    except RecursionError as error:
        raise ConfigError([Problem(name, 0, "", "no valid TOML: nested too deeply")]) from error


def _override(document: dict[str, Any], overrides: Overrides) -> dict[Path, Label]:
    """Write the options into the document. Returns the paths that they own, for messages.

    Raises ConfigError if it is not clear which of several listeners `--listen` means.
    """
    labels: dict[Path, Label] = {}
    if overrides.listen is not None:
        listeners = document.setdefault("listener", [])
        if isinstance(listeners, list):
            if len(listeners) > 1:
                message = f"the file has {len(listeners)} listeners, so it is not clear which one is meant"
                raise ConfigError([Problem(COMMAND_LINE, 0, "--listen", message)])
            if not listeners:
                listeners.append({})
            if isinstance(listeners[0], dict):
                listeners[0]["address"] = overrides.listen
                labels["listener", 0, "address"] = Label(COMMAND_LINE, "--listen")
    for key, value in (("workers", overrides.workers), ("admin", overrides.admin)):
        if value is not None:
            server = document.setdefault("server", {})
            if isinstance(server, dict):
                server[key] = value
                labels["server", key] = Label(COMMAND_LINE, f"--{key}")
    return labels
