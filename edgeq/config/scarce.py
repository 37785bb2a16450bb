"""Budgets that one request is above before anything is spent: nobody is served who names no max_tokens.

What such a request reserves at first is `max_tokens` of its target, at that target's price; of several targets whoever
there is money for is asked, so the cheapest counts (llm/till.py). Limits of tokens a minute are none of these: who
needs more than all of one is let in alone, once it is full (llm/meter.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edgeq.config.lines import Path
from edgeq.config.providers import provider_keys
from edgeq.config.schema import Config
from edgeq.config.schema_llm import Model, Target, TokenLimits
from edgeq.config.units import money

_PERIODS: Final = ("money_per_day", "money_per_month")


def scarce(config: Config) -> Iterator[tuple[Path, str]]:
    """All of them: where each stands, and what it is."""
    told: set[Path] = set()
    for name in config.model:
        for path, message in scarce_of(name, config):
            if path not in told:  # a provider's is of several models
                told.add(path)
                yield path, message
    for number, route in enumerate(config.route):
        if route.llm is not None:
            models = [config.model[one] for one in route.llm.models or config.model]
            targets = [target for model in models for target in model.targets]
            yield from _above(route.llm.limits, ("route", number, "llm", "limits"), targets, 0)
    for number, prompt in enumerate(config.prompt):
        asked = _named(prompt.model, config)
        if asked is not None:
            yield from _above(prompt.limits, ("prompt", number, "limits"), asked.targets, prompt.max_tokens)


def scarce_of(name: str, config: Config) -> Iterator[tuple[Path, str]]:
    """Those of one model, and of its targets."""
    model = config.model[name]
    yield from _above(model.limits, ("model", name, "limits"), model.targets, 0)
    for number, target in enumerate(model.targets):
        if target.limits is not None:
            yield from _above(target.limits, ("model", name, "targets", number, "limits"), [target], 0)
            continue
        provider = config.provider[target.provider]
        path: Path = ("provider", target.provider)
        for at, key in enumerate(provider_keys(provider)):
            if key.limits is not None:
                yield from _above(key.limits, (*path, "keys", at, "limits"), [target], 0)
            else:
                yield from _above(provider.limits, (*path, "limits"), [target], 0)


def _named(name: str, config: Config) -> Model | None:
    return config.model.get(name) or next((one for one in config.model.values() if name in one.aliases), None)


def _above(limits: TokenLimits, path: Path, targets: Sequence[Target], most: int) -> Iterator[tuple[Path, str]]:
    """most: the max_tokens that each names; 0: none."""
    least, tokens = min(
        ((most or one.max_tokens) * (one.price.output if one.price else 0.0), most or one.max_tokens) for one in targets
    )
    for period in _PERIODS:
        if 0.0 < getattr(limits, period) < least / 1e6:
            who = "" if most else " that names no max_tokens"
            yield (*path, period), f"is less than one request may reserve{who}: {money(int(least))}, of {tokens} tokens"
