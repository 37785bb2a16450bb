"""What a reload changes: old and new configuration to the work that follows from it.

Listeners are the same if they have the same name. `rebound` ones need the supervisor (it owns the sockets); `changed`
ones keep their sockets, and running workers take the new values in place. So do upstreams, routes and all the rest,
except what `restart` lists: that is read once, when edgeq starts.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeq.config.lines import Path, show_path
from edgeq.config.providers import provider_of
from edgeq.config.schema import Config, Listener, Provider, Server, Tenant, Trace, Upstream
from edgeq.config.schema_llm import Prompt
from edgeq.config.shown import masked_tenant, masked_url
from edgeq.config.units import show

_SOCKET_KEYS = ("address", "backlog")
"""Keys of a listener that are properties of its sockets."""
_RESTART_KEYS = ("admin", "metrics", "user")
"""Keys of [server] that only a new start can change."""

_TABLES = ("server", "accounts", "tenant", "forward", "access_log", "log", "trace", "dns", "protect", "explain")


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference. Listeners are given whole, pairs as (old, new); upstreams and routes by name."""

    listeners_added: tuple[Listener, ...]
    listeners_removed: tuple[Listener, ...]
    listeners_rebound: tuple[tuple[Listener, Listener], ...]
    listeners_changed: tuple[tuple[Listener, Listener], ...]
    upstreams_added: tuple[str, ...]
    upstreams_removed: tuple[str, ...]
    upstreams_changed: tuple[str, ...]
    routes_changed: bool
    """Routes or rates."""
    workers: tuple[int, int] | None
    """(old, new) number of workers as configured, if it changed."""
    tables_changed: tuple[str, ...]
    """Which of `_TABLES` differ."""
    restart: tuple[str, ...]
    """Changed keys that take effect only at the next start."""
    summary: tuple[str, ...]
    """One line for each changed key: "upstream.api.pool.max_idle: 256 -> 64"."""

    def __bool__(self) -> bool:
        return bool(self.summary)


def diff(old: Config, new: Config) -> Changes:
    """Compare two configurations as `load.py` returns them."""
    before = {one.name: one for one in old.listener}
    after = {one.name: one for one in new.listener}
    kept = [(before[name], after[name]) for name in after if name in before]
    differing = [pair for pair in kept if pair[0] != pair[1]]
    return Changes(
        listeners_added=tuple(one for name, one in after.items() if name not in before),
        listeners_removed=tuple(one for name, one in before.items() if name not in after),
        listeners_rebound=tuple(pair for pair in differing if _rebound(*pair)),
        listeners_changed=tuple(pair for pair in differing if not _rebound(*pair)),
        upstreams_added=tuple(name for name in new.upstream if name not in old.upstream),
        upstreams_removed=tuple(name for name in old.upstream if name not in new.upstream),
        upstreams_changed=tuple(
            name for name, one in new.upstream.items() if name in old.upstream and old.upstream[name] != one
        ),
        routes_changed=(old.route, old.rate) != (new.route, new.rate),
        workers=(old.server.workers, new.server.workers) if old.server.workers != new.server.workers else None,
        tables_changed=tuple(key for key in _TABLES if getattr(old, key) != getattr(new, key)),
        restart=needs_restart(old.server, new.server),
        summary=tuple(_summary(old, new)),
    )


def needs_restart(runs: Server, wanted: Server) -> tuple[str, ...]:
    """The keys of which something else is wanted than what runs, and that only a new start can change."""
    return tuple(f"server.{key}" for key in _RESTART_KEYS if getattr(runs, key) != getattr(wanted, key))


def _rebound(old: Listener, new: Listener) -> bool:
    return any(getattr(old, key) != getattr(new, key) for key in _SOCKET_KEYS)


def _summary(old: Config, new: Config) -> list[str]:
    lines: list[str] = []
    _named("listener", {one.name: one for one in old.listener}, {one.name: one for one in new.listener}, lines)
    made = provider_of(old).keys() | provider_of(new).keys()  # what changed of these is told of their provider
    _named("upstream", _without(old.upstream, made), _without(new.upstream, made), lines)
    _providers(old.provider, new.provider, lines)
    _named("model", old.model, new.model, lines)
    _named("prompt", _prompts(old), _prompts(new), lines)
    _named("route", {one.name: one for one in old.route}, {one.name: one for one in new.route}, lines)
    names = [one.name for one in old.route]
    if names != [one.name for one in new.route] and sorted(names) == sorted(one.name for one in new.route):
        lines.append("route: order changed")
    _named("rate", {one.name: one for one in old.rate}, {one.name: one for one in new.rate}, lines)
    for key in _TABLES:
        before, after = getattr(old, key), getattr(new, key)
        if isinstance(before, Tenant) and before.weights != after.weights:
            shown = (masked_tenant(before), masked_tenant(after))
            if shown[0].weights == shown[1].weights:
                lines.append("tenant.weights: changed")
            before, after = shown  # these lines are logged
        if isinstance(before, Trace) and isinstance(after, Trace):
            if before.headers != after.headers:
                lines.append("trace.headers: changed")
            after = msgspec.structs.replace(after, headers=before.headers)
        _fields((key,), before, after, lines)
    return lines


def _without(upstreams: dict[str, Upstream], made: Set[str]) -> dict[str, Upstream]:
    return {name: one for name, one in upstreams.items() if name not in made}


def _prompts(config: Config) -> dict[str, Prompt]:
    return {f"{one.name}@{one.version}": one for one in config.prompt}


def _providers(old: dict[str, Provider], new: dict[str, Provider], lines: list[str]) -> None:
    """These lines are logged, and the secrets of providers are not."""
    lines.extend(
        f"{show_path(('provider', name, key))}: changed"
        for name in old
        for key in ("keys", "headers")
        if name in new and getattr(old[name], key) != getattr(new[name], key)
    )
    lines.extend(
        f"{show_path(('provider', name, 'url'))}: changed"
        for name in old
        if name in new and old[name].url != new[name].url and masked_url(old[name].url) == masked_url(new[name].url)
    )
    _named("provider", _bare(old), _bare(new), lines)


def _bare(providers: dict[str, Provider]) -> dict[str, Provider]:
    return {
        name: msgspec.structs.replace(one, url=masked_url(one.url), keys=(), headers={})
        for name, one in providers.items()
    }


def _named(kind: str, old: dict[str, Any], new: dict[str, Any], lines: list[str]) -> None:
    lines.extend(f"{show_path((kind, name))}: removed" for name in old if name not in new)
    for name, value in new.items():
        if name in old:
            _fields((kind, name), old[name], value, lines)
        else:
            lines.append(f"{show_path((kind, name))}: added")


def _fields(path: Path, old: object, new: object, lines: list[str]) -> None:
    """One line for each leaf that differs; a table that comes or goes is one leaf."""
    if old == new:
        return
    if isinstance(old, msgspec.Struct) and type(old) is type(new):
        for key in old.__struct_fields__:
            _fields((*path, key), getattr(old, key), getattr(new, key), lines)
    elif isinstance(old, msgspec.Struct) or isinstance(new, msgspec.Struct):
        change = "added" if old is None else "removed" if new is None else "changed"
        lines.append(f"{show_path(path)}: {change}")
    elif _tables(old) or _tables(new):
        lines.append(f"{show_path(path)}: changed")
    else:
        lines.append(f"{show_path(path)}: {show(old)} -> {show(new)}")


def _tables(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, msgspec.Struct) for item in value)
