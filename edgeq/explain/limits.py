"""What is known of the gates of models for a verdict: their limits in force, who says so, and rests of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from edgeq.config.change import LIVE
from edgeq.config.lines import Path, show_path
from edgeq.config.providers import provider_keys, upstream_name
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Target, TokenLimits
from edgeq.explain import say
from edgeq.explain.facts import HEARD, Allowed, Gate, Rest
from edgeq.explain.watch import BY_KEY, Watch
from edgeq.llm.lately import Used
from edgeq.llm.meter import BUDGET, CONCURRENT, INPUT, KINDS, MODEL, OUTPUT, REQUESTS, TARGET, TOKENS, WHATS
from edgeq.llm.rests import OF_TARGET, UNHEARD
from edgeq.observe.overview import Overview

_WHAT_OF: Final = {
    "requests_per_minute": WHATS[REQUESTS],
    "tokens_per_minute": WHATS[TOKENS],
    "input_tokens_per_minute": WHATS[INPUT],
    "output_tokens_per_minute": WHATS[OUTPUT],
    "concurrent": WHATS[CONCURRENT],
    "money_per_day": "per_day",
    "money_per_month": "per_month",
}
"""Keys of a table of limits, as a meter tells them."""
_MONEY: Final = ("per_day", "per_month")


class _Table(NamedTuple):
    """Of limits, and how it is spoken of."""

    limits: TokenLimits
    path: Path
    settings: str
    key: str = "limits"
    can_set: bool = True


def gates(
    config: Config, overview: Overview, watch: Watch, who_used: Callable[[str], Sequence[Used]]
) -> Iterator[Gate]:
    """All that keep somebody out, or did so lately, or rest."""
    told = {one["target"]: one for one in overview.targets()}
    used = {one["name"]: one["remaining"] for one in overview.meters() if one["meter"] == KINDS[MODEL]}
    values: dict[str, Mapping[str, Any]] = {}

    def allowed(table: _Table, seen: Mapping[str, Any]) -> tuple[Allowed, ...]:
        values.update({} if values else {one["limit"]: one for one in overview.limits()})
        return tuple(_allowed(table, seen, values))

    for name, model in config.model.items():
        resource = f"{KINDS[MODEL]}/{name}"
        if (short_s := watch.short_for_s(resource)) and model.limits != TokenLimits():
            table = _Table(model.limits, ("model", name), resource)
            limits = allowed(table, {"remaining": used.get(name, {})})
            tenants, keys = watch.asked(resource), watch.asked(BY_KEY + resource)
            yield Gate(resource, limits=limits, short_s=short_s, tenants=tenants, keys=keys, used=tuple(who_used(name)))
        for target in model.targets:
            for at, key in enumerate(provider_keys(config.provider[target.provider])):
                upstream = upstream_name(target.provider, config.provider[target.provider], key)
                seen = told.pop(f"{upstream}/{target.model or name}", None)
                if seen is None:
                    continue
                resource = f"{KINDS[TARGET]}/{seen['target']}"
                short_s = watch.short_for_s(resource)
                if not (short_s or seen["queued"] or seen["paused_s"] or seen["fails_by"]):
                    continue
                yield Gate(
                    resource,
                    f"upstream/{upstream}",
                    f"provider/{target.provider}",
                    allowed(_table_of(config, name, target, at), seen),
                    seen["queued"],
                    seen["oldest_ms"],
                    float(config.provider[target.provider].wait),
                    short_s,
                    _rest(seen, watch.holds_for_s(f"fails/{resource}")),
                    watch.asked(resource),
                    watch.asked(BY_KEY + resource),
                )


def _rest(seen: Mapping[str, Any], fails_s: float) -> Rest | None:
    if not seen["paused_s"] and not seen["fails_by"]:
        return None
    reason = seen["paused_for"] or UNHEARD
    is_whole_key = reason not in OF_TARGET
    return Rest(
        reason,
        seen["paused_s"],
        seen["paused_until"],
        is_whole_key,
        seen["fails_by"],
        fails_s,
        seen["fails_detail"],
        seen["paused_detail"],
    )


def _table_of(config: Config, model: str, target: Target, at: int) -> _Table:
    """Whose limits hold for a target at a key of its provider: its own, else the key's, else the provider's."""
    provider = config.provider[target.provider]
    if target.limits is not None:
        targets = config.model[model].targets
        path: Path = ("model", model, "targets", targets.index(target))
        is_named = "." not in target.provider and [one.provider for one in targets].count(target.provider) == 1
        key = f"targets.{target.provider}.limits" if is_named else f"targets[{path[-1]}].limits"
        return _Table(target.limits, path, f"model/{model}", key, is_named)
    settings, own = f"provider/{target.provider}", provider_keys(provider)[at].limits
    if own is not None:
        return _Table(own, ("provider", target.provider, "keys", at), settings, f"keys[{at}].limits", can_set=False)
    return _Table(provider.limits, ("provider", target.provider), settings)


def _allowed(table: _Table, seen: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]) -> Iterator[Allowed]:
    """Each limit that there is, with what workers tell of it."""
    heard, left = seen.get("heard", {}), seen["remaining"]
    for key, what in _WHAT_OF.items():
        configured = getattr(table.limits, key)
        told = heard.get(what, 0)
        if not configured and not told:
            continue
        full_key = f"{table.key}.{key}"
        # A target is set by its provider's name, and told of by its number.
        set_path = show_path((*table.settings.split("/", 1), *full_key.split(".")))
        said = values.get(set_path) or values.get(show_path((*table.path, "limits", key))) or {}
        is_live = said.get("source") == LIVE
        is_heard = bool(told) and (not configured or told < configured)
        yield Allowed(
            WHATS[BUDGET] if what in _MONEY else what,
            told if is_heard else configured,
            left.get(what),
            table.settings,
            full_key,
            HEARD if is_heard else LIVE if is_live else "file",
            table.can_set,
            str(said["configured"]) if is_live else "",
            say.by(said) if is_live else "",
        )
