"""Who answers for each model: its targets at each key of their providers, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeq.config.providers import provider_keys, upstream_name
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Price
from edgeq.config.units import plain
from edgeq.observe.reports import Records


def model_records(config: Config, targets: Records, upstreams: Records) -> Iterator[dict[str, Any]]:
    """One for each target at each key. `targets` and `upstreams` are the subjects of these names; what nobody has
    reported of a target is None."""
    told = {one["target"]: one for one in targets}
    breakers = {one["upstream"]: one["breaker"] for one in upstreams}
    for name, model in config.model.items():
        for number, target in enumerate(model.targets, 1):
            provider = config.provider[target.provider]
            for key in provider_keys(provider):
                upstream = upstream_name(target.provider, provider, key)
                called = f"{upstream}/{target.model or name}"
                seen = told.get(called, {})
                yield {
                    "model": name,
                    "aliases": list(model.aliases),
                    "number": number,
                    "weight": target.weight * key.weight if model.balance == "weighted" else None,
                    "target": called,
                    "upstream": upstream,
                    "dialect": provider.dialect,
                    "state": _state(seen, breakers.get(upstream)),
                    "paused_s": seen.get("paused_s"),
                    "in_flight": seen.get("in_flight"),
                    "queued": seen.get("queued"),
                    "remaining": seen.get("remaining"),
                    "price": _price(target.price),
                }


def _state(seen: Mapping[str, Any], breaker: str | None) -> str:
    """Would somebody be sent there? "ready", or why not."""
    if breaker == "open":
        return "circuit_open"
    return str(seen["paused_for"]) if seen.get("paused_for") else "ready"


def _price(price: Price) -> str:
    """Of a million tokens of input and output; empty: none is configured."""
    return f"{plain(price.input, 6)}/{plain(price.output, 6)}" if price.input or price.output else ""
