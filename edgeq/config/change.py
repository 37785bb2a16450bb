"""Live changes: keys of the configuration that an operator has set while it runs, on top of what the file says.

    edgeq set RESOURCE KEY VALUE        upstream/api limit 64        the key is written as in the resource's table
                                        route/checkout queue.max 9
                                        provider/openai limit 64     of each upstream that is made of it
                                        model/gpt-4o limits.tokens_per_minute 100000
                                        model/gpt-4o targets.openai.weight 3    the target of that provider
                                        model/gpt-4o targets.openai/gpt-4.1.weight 3    of several there
                                        listener/:8080 backlog 511   by its name, else its address
                                        log level debug              a table that there is once
                                        upstream/api endpoints.http://10.0.0.7:9000.weight 0

A change becomes part of the tables before they are converted and checked, so it can be all that the file can be, and
what is wrong with it is found by the same checks. It holds against what the file said when it was made (`was`): once
the file says something else there, the file has the last word. What is persisted is a layer of its own, between the
file and the other changes: one with a time to live on the same key ends in it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeq.config.findings import did_you_mean
from edgeq.config.lines import Path
from edgeq.config.schema import Config, Endpoint
from edgeq.config.schema_llm import Target

SOURCE: Final = "set"
"""`Problem.file` of what a change got wrong."""
LIVE: Final = "live"
"""Where the value of a key comes from that was set."""
DEFAULT_ROUTE: Final = "default"
"""The route of a file that names none."""
_LISTS: Final = ("listener", "route", "rate", "prompt")
"""Arrays of tables."""
_NAMED: Final = ("upstream", "provider", "model")
"""Tables of tables."""
NAMED: Final = (*_NAMED, *_LISTS)
TABLES: Final = tuple(name for name in Config.__struct_fields__ if name not in NAMED)
"""Those that there are once."""
_ENDPOINTS: Final = "endpoints"
_TARGETS: Final = "targets"
_DISABLED: Final = "disabled"
_ENDPOINT_KEYS: Final = tuple(key for key in Endpoint.__struct_fields__ if key != "url")
_TARGET_KEYS: Final = Target.__struct_fields__
_MAX_NAMES: Final = 8
"""So many are named to who has named none of them."""
_IDENTITY: Final = ("name", "address", "version")
"""By these a resource is found: what had another name would be another resource."""


class ChangeError(Exception):
    """A change that cannot be; the text is for people."""


class NotSet(ChangeError):
    """There is nothing to take back."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that was set. Times in seconds since 1970."""

    resource: str
    key: str
    value: Any
    """As TOML has it."""
    was: Any = None
    """What the file said there; None: nothing."""
    uid: int = -1
    pid: int = 0
    since: float = 0.0
    until: float | None = None
    comment: str = ""
    persisted: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.resource} {self.key}"

    @property
    def path(self) -> Path:
        """By names: ("upstream", "api", "queue", "max")."""
        return (*self.resource.split("/", 1), *_keys(self.key))


def parse_value(text: str) -> Any:
    """A value as TOML has it; what is none is a word, so that neither adaptive nor 10s needs quotes."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not only of TOML's syntax: a number of 5000 digits, a thousand brackets
        return text
    return found["value"] if len(found) == 1 else text


def changed(tables: Mapping[str, Any], changes: Sequence[Change]) -> tuple[dict[str, Any], dict[Path, Change]]:
    """The tables with all changes in them, and where each of them stands. What was given stays as it is.

    What is persisted is set first, and what is set as a whole before what is within it. Raises ChangeError for a change
    that has no place.
    """
    new = dict(tables)
    steps: dict[Path, Change] = {}
    for change in sorted(changes, key=lambda one: (not one.persisted, len(one.path))):
        new = _with_default_route(new, change.resource)
        where = _where(new, change)
        new = _put(new, where, change)
        steps[where] = change
    return new, steps


def said(tables: Mapping[str, Any], change: Change) -> Any:
    """What the tables themselves say of a change's key; None: nothing. Raises ChangeError if it has no place there."""
    node: Any = _with_default_route(dict(tables), change.resource)
    for step in _where(node, change):
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def superseded(old: Change, new: Change) -> bool:
    """Has nothing of a change any effect after a new one? What is said of a single endpoint stays, whatever list of
    them is set."""
    if old.persisted and not new.persisted:
        return False
    size = len(new.path)
    return old.path[:size] == new.path and (len(old.path) == size or new.path[-1] != _ENDPOINTS)


def toml(value: Any) -> str:
    """What tomllib has read, as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _keys(key: str) -> tuple[str, ...]:
    """A URL has dots of its own: endpoints.URL.weight."""
    table, _, rest = key.partition(".")
    if table == _DISABLED and rest:  # names of models have dots, too
        return (table, rest)
    if table == _ENDPOINTS and rest:
        url, _, last = rest.rpartition(".")
        return (table, url, last) if last in _ENDPOINT_KEYS else (table, rest)
    if table == _TARGETS and "/" in rest:  # and here too
        words = rest.split(".")
        end = next((place for place, word in enumerate(words) if place and word in _TARGET_KEYS), len(words))
        return (table, ".".join(words[:end]), *words[end:])
    return tuple(key.split("."))


def _with_default_route(tables: dict[str, Any], resource: str) -> dict[str, Any]:
    """Where the file has no route, the one that it means can be spoken of all the same."""
    if resource != f"route/{DEFAULT_ROUTE}" or tables.get("route"):
        return tables
    upstreams, models = tables.get("upstream"), tables.get("model")
    if isinstance(upstreams, dict) and upstreams:
        return {**tables, "route": [{"name": DEFAULT_ROUTE, "upstream": next(iter(upstreams))}]}
    return {**tables, "route": [{"name": DEFAULT_ROUTE, "llm": {}}]} if isinstance(models, dict) else tables


def _where(tables: Mapping[str, Any], change: Change) -> Path:
    """The steps to a change's key, by the places of elements. Raises ChangeError."""
    kind, _, name = change.resource.partition("/")
    keys = _keys(change.key)
    if not all(keys):
        raise ChangeError(f"{change.key!r} is no key")
    if change.path == ("server", "changes"):
        raise ChangeError("server changes: is only read from the file")
    if keys[-1] in _IDENTITY and len(keys) == 1 and kind in NAMED:
        raise ChangeError(f"{change.name}: that is what it is found by; change the file and reload")
    # Of a file that is read again: that it has tables where tables belong is not checked yet.
    those = tables.get(kind)
    if kind in _NAMED and isinstance(those, dict) and name in those:
        if kind == "upstream" and keys[0] == _ENDPOINTS and len(keys) > 1:
            return ("upstream", name, _ENDPOINTS, _endpoint(those[name], change, keys), keys[2])
        if kind == "model" and keys[0] == _TARGETS and len(keys) > 1:
            return ("model", name, _TARGETS, _target(those[name], change, keys), *keys[2:])
        return (kind, name, *keys)
    if kind in _LISTS and name:
        found = [
            number
            for number, one in enumerate(those if isinstance(those, list) else ())
            if isinstance(one, dict) and name == (one.get("name") or one.get("address"))
        ]
        if len(found) > 1 and kind == "prompt":  # versions
            raise ChangeError(f"there are {len(found)} prompts {name!r}; change the file and reload")
        if found:
            return (kind, found[0], *keys)
    if kind in TABLES and not name:
        return (kind, *keys)
    if kind == "upstream" and (provider := _provider(tables, name)):
        raise ChangeError(f"{change.name}: it is made of a provider: set provider/{provider}")
    if kind == "model" and (own := _named_also(those, name)):
        raise ChangeError(f"{name!r} is another name of model {own!r}: set model/{own}")
    if kind in NAMED:
        if not name:
            raise ChangeError(f"{kind}/NAME: which {kind}?")
        names = _names(those)
        more = ", ..." if len(names) > _MAX_NAMES else ""
        some = f"; there are {', '.join(names[:_MAX_NAMES])}{more}" if names else ""
        raise ChangeError(f"there is no {kind} {name!r}{did_you_mean(name, names) or some}")
    if name and (command := _of_accounts(kind, name)):
        raise ChangeError(f"{change.resource!r} is no resource of the configuration: {command}")
    near = did_you_mean(change.resource, _resources(tables))
    known = ", ".join((*(f"{one}/NAME" for one in NAMED), *TABLES))
    raise ChangeError(f"{change.resource!r} is no resource{near or f'; there are {known}'}")


def _of_accounts(kind: str, name: str) -> str:
    """The command that sets what is kept in the store of accounts; empty: nothing of it is."""
    match kind.removesuffix("s"):
        case "key":
            return f"keys set {name}"
        case "tenant":
            return f"tenants set {name}"
        case "team":
            tenant, _, team = name.partition("/")
            return f"tenants set {tenant} --team {team or 'TEAM'}"
    return ""


def _resources(tables: Mapping[str, Any]) -> list[str]:
    return [f"{kind}/{name}" for kind in NAMED for name in _names(tables.get(kind))]


def _names(those: Any) -> list[str]:
    """Of tables of one kind, as they are written in the name of a resource."""
    if isinstance(those, dict):
        return list(those)
    elements = those if isinstance(those, list) else ()
    found = [one.get("name") or one.get("address") for one in elements if isinstance(one, dict)]
    return [one for one in found if isinstance(one, str)]


def _named_also(models: Any, alias: str) -> str:
    """The model that has this name among its aliases; empty: none."""
    for name, one in models.items() if isinstance(models, dict) else ():
        aliases = one.get("aliases") if isinstance(one, dict) else None
        if isinstance(aliases, list) and alias in aliases:
            return str(name)
    return ""


def _endpoint(upstream: Any, change: Change, keys: tuple[str, ...]) -> int:
    if len(keys) < 3:
        raise ChangeError(f"{change.name}: an endpoint has {' and '.join(_ENDPOINT_KEYS)}: endpoints.URL.weight")
    endpoints = upstream.get(_ENDPOINTS) if isinstance(upstream, dict) else None
    urls = [
        one.get("url") if isinstance(one, dict) else one for one in (endpoints if isinstance(endpoints, list) else ())
    ]
    if keys[1] in urls:
        return urls.index(keys[1])
    near = did_you_mean(keys[1], [one for one in urls if isinstance(one, str)])
    raise ChangeError(f"{change.resource} has no endpoint {keys[1]}{near}")


def _target(model: Any, change: Change, keys: tuple[str, ...]) -> int:
    """By its provider, of several by PROVIDER/MODEL, for it has no name of its own. Not by its number, which is
    another's after a reload."""
    targets = model.get(_TARGETS) if isinstance(model, dict) else None
    own = change.resource.partition("/")[2]
    by_provider, by_model = [], []
    for number, one in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(one, dict):
            provider = one.get("provider")
            name = f"{provider}/{one.get('model') or own}"
            if keys[1] in (provider, name):
                by_provider.append(number)
                by_model.append(name)
    if len(keys) < 3:
        raise ChangeError(f"{change.name}: which key of the target? targets.PROVIDER.weight")
    if len(by_provider) == 1:
        return by_provider[0]
    if not by_provider:
        raise ChangeError(f"{change.resource} has no target of provider {keys[1]!r}")
    if len(set(by_model)) < len(by_model):
        raise ChangeError(f"{change.resource} has several targets {keys[1]!r}; change the file and reload")
    last = ".".join(keys[2:])
    named = " or ".join(f"targets.{name}.{last}" for name in by_model[:_MAX_NAMES])
    raise ChangeError(f"{change.resource} has several targets of provider {keys[1]!r}: which one? {named}")


def _provider(tables: Mapping[str, Any], upstream: str) -> str:
    """The provider one of whose keys that upstream is made of, by its name; empty: none."""
    providers = tables.get("provider")
    names = [one for one in providers if f"{upstream}-".startswith(f"{one}-")] if isinstance(providers, dict) else []
    return max(names, key=len, default="")


def _put(node: Any, steps: Path, change: Change) -> Any:
    """A copy of what is on the way, all else shared."""
    if not steps:
        return change.value
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        items = list(node)
        items[step] = _put(items[step], rest, change)
        return items
    if isinstance(node, str) and len(steps) == 1:  # an endpoint that says no more than its URL
        node = {"url": node}
    if not isinstance(node, dict):
        raise ChangeError(f"{change.name}: there is no such key")
    return {**node, step: _put(node.get(step, {}), rest, change)}
