"""Budgets that one request is above before anything is spent: nobody is served who names no max_tokens.

What such a request reserves at first is `max_tokens` of its target, at that target's price; of several targets whoever
there is money for is asked, so the cheapest counts (llm/till.py). Limits of tokens a minute are none of these: who
needs more than all of one is let in alone, once it is full (llm/meter.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

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


class Offered(NamedTuple):
    """What one model means for the budget of a key."""

    model: str
    """Its own name."""
    unpriced: Sequence[str] = ()
    """Its targets that have no price: PROVIDER/MODEL."""
    least_micro: int = 0
    """What a request that names no max_tokens reserves at first, in millionths; 0: nothing."""
    tokens: int = 0
    """So many of output."""


def offered(config: Config) -> dict[str, Offered]:
    """By all names by which clients can ask for a model."""
    found: dict[str, Offered] = {}
    for own, model in config.model.items():
        targets = [f"{one.provider}/{one.model or own}" for one in model.targets if one.price is None]
        least, tokens = _least(model.targets, 0)
        found |= dict.fromkeys((own, *model.aliases), Offered(own, targets, int(least), tokens))
    return found


def _least(targets: Sequence[Target], most: int) -> tuple[float, int]:
    """What is reserved at first at the cheapest target, in millionths, and for how many tokens."""
    return min(
        ((most or one.max_tokens) * (one.price.output if one.price else 0.0), most or one.max_tokens) for one in targets
    )


def _named(name: str, config: Config) -> Model | None:
    return config.model.get(name) or next((one for one in config.model.values() if name in one.aliases), None)


def _above(limits: TokenLimits, path: Path, targets: Sequence[Target], most: int) -> Iterator[tuple[Path, str]]:
    """most: the max_tokens that each names; 0: none."""
    least, tokens = _least(targets, most)
    for period in _PERIODS:
        if 0.0 < getattr(limits, period) < least / 1e6:
            who = "" if most else " that names no max_tokens"
            yield (*path, period), f"is less than one request may reserve{who}: {money(int(least))}, of {tokens} tokens"
