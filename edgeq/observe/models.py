"""Who answers for each model: its targets at each key of their providers, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from edgeq.config.providers import is_enabled, provider_keys, smaller_enabled, upstream_name
from edgeq.config.scarce import scarce_of
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Price
from edgeq.config.units import plain
from edgeq.llm.meter import KINDS, MODEL
from edgeq.observe.reports import Records

READY: Final = "ready"
SHORT: Final = "short"
DISABLED: Final = "disabled"
SPENT: Final = {"per_day": "spent_day", "per_month": "spent_month"}
"""Of each budget what is used."""
FAILING: Final = "failing"
"""It has rested as it failed, and the next request finds out how it is now."""
_LITTLE: Final = 0.05
"""Of a limit: what is left of one that is not used up is far more, for it fills all the time."""


def model_records(
    config: Config, targets: Records, upstreams: Records, meters: Sequence[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """One for each target at each key. `targets`, `upstreams` and `meters` are the subjects of these names; what nobody
    has reported of a target is None. What is left is so by the limits of the model, too."""
    told = {one["target"]: one for one in targets}
    own = {one["name"]: one for one in meters if one["meter"] == KINDS[MODEL]}
    breakers = {one["upstream"]: one["breaker"] for one in upstreams}
    models: dict[str, Records] = {}
    for name, model in config.model.items():
        found: Records = []
        models[name] = found
        for number, target in enumerate(model.targets, 1):
            provider = config.provider[target.provider]
            for key in provider_keys(provider):
                upstream = upstream_name(target.provider, provider, key)
                called = f"{upstream}/{target.model or name}"
                seen = told.get(called, {})
                is_on = is_enabled(target.provider, provider, key, target.model or name)
                limits, left = _both(seen, own.get(name, {}))
                one = {
                    "model": name,
                    "aliases": list(model.aliases),
                    "number": number,
                    "weight": target.weight * key.weight if model.balance == "weighted" else None,
                    "target": called,
                    "upstream": upstream,
                    "provider": target.provider,
                    "dialect": provider.dialect,
                    "state": _state(seen, breakers.get(upstream), limits, left) if is_on else DISABLED,
                    "paused_s": seen.get("paused_s"),
                    "paused_until": seen.get("paused_until"),
                    "in_flight": seen.get("in_flight"),
                    "queued": seen.get("queued"),
                    "remaining": left if seen else None,
                    "price": _price(target.price),
                }
                found.append(one)
    ready = {name for name, found in models.items() if any(one["state"] == READY for one in found)}
    for name, found in models.items():
        too_small = ", ".join(dict.fromkeys(str(path[-1]) for path, _ in scarce_of(name, config)))
        others = [] if name in ready else smaller_enabled(config, name)
        smaller = next((one for one in others if one in ready), others[0] if others else "")
        for one in found:
            yield {**one, "degrades_to": smaller, "too_small": too_small}


def _both(target: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Limits, and what is left of them: of two of a kind, those of which less is left."""
    limits = dict(target.get("limits") or {})
    left = dict(target.get("remaining") or {})
    own = dict(model.get("remaining") or {})
    for what, spent in SPENT.items():
        if what in (model.get("limits") or {}):
            own[what] = round(max(0.0, model["limits"][what] - (model.get(spent) or 0.0)), 6)
    for what, count in own.items():
        if what not in left or count < left[what]:
            left[what], limits[what] = count, model["limits"][what]
    return limits, left


def _state(seen: Mapping[str, Any], breaker: str | None, limits: Mapping[str, float], left: Mapping[str, float]) -> str:
    """Would somebody be sent there at once? "ready", or why not."""
    if breaker == "open":
        return "circuit_open"
    if seen.get("paused_for"):
        return str(seen["paused_for"])
    if seen.get("fails_by"):
        return FAILING
    is_little = any(
        count < _LITTLE * limits.get(what, 0) or (count < 1 and what not in SPENT) for what, count in left.items()
    )
    return SHORT if seen.get("queued") or is_little else READY


def _price(price: Price | None) -> str:
    """Of a million tokens of input and output; empty: none is configured."""
    return "" if price is None else f"{plain(price.input, 6)}/{plain(price.output, 6)}"
