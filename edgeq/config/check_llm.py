"""What types cannot say of providers, models and the routes that serve them."""

from __future__ import annotations

import re
from typing import Final

from edgeq.config.credentials_io import check_header
from edgeq.config.findings import Findings, did_you_mean
from edgeq.config.lines import Path
from edgeq.config.providers import provider_keys, split_url, upstream_name
from edgeq.config.schema import Config, Provider, Route
from edgeq.config.schema_llm import Model, Price, RouteLlm, TokenLimits
from edgeq.config.units import parse_duration
from edgeq.upstream.endpoint import parse_endpoint

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MODEL: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_CALL: Final = re.compile(r"/(?:chat/completions|completions|responses|embeddings|messages)/?(?=\?|$)")
"""What clients of SDKs know not to write, and readers of curl lines do."""
_OTHERS_WAY: Final = re.compile(r"(?:\$\{?|os\.environ/)([A-Za-z_]\w*)\}?$", re.ASCII)
"""Of shells, and of LiteLLM."""
_OURS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "content-type", "te", "upgrade", "expect", "trailer")
)
"""Fields that the gateway writes itself."""


def check_llm(config: Config, findings: Findings) -> None:
    """Add everything that is wrong with models to `findings`."""
    for name, provider in config.provider.items():
        _provider(name, provider, config, findings)
    names: dict[str, str] = {}
    for name, model in config.model.items():
        _model(name, model, config, findings)
        for one in (name, *model.aliases):
            first = names.setdefault(one, name)
            if first != name:
                findings.add(("model", name), f'"{one}" is a name of model "{first}" already')
    _circles(config, findings)
    for number, route in enumerate(config.route):
        if route.llm is not None:
            _route(route, route.llm, ("route", number), config, findings)
    if config.provider and not config.model:
        findings.add(("model",), "no model: write [model.NAME] and targets = [{ provider = ... }]")
    if config.model and (config.route or config.upstream) and not any(one.llm is not None for one in config.route):
        findings.add(("model",), "no route serves models: write llm = {} in a [[route]]")


def _provider(name: str, provider: Provider, config: Config, findings: Findings) -> None:
    path: Path = ("provider", name)
    if not _NAME.fullmatch(name):
        findings.add(path, "a name has at most 64 letters, digits, dots, dashes and underscores")
    try:
        parse_endpoint(split_url(provider.url)[0])
    except ValueError as error:
        findings.add((*path, "url"), str(error))
    if found := _CALL.search(provider.url):
        findings.add((*path, "url"), f'is where the API begins: leave out "{found[0]}", which is added')
    for number, one in enumerate(provider.endpoints):
        try:
            parse_endpoint(one)
        except ValueError as error:
            findings.add((*path, "endpoints", number), str(error))
    if provider.rest_after < 0:
        findings.add((*path, "rest_after"), "must not be negative")
    seen: set[str] = set()
    for number, key in enumerate(provider_keys(provider)):
        where: Path = (*path, "keys", number)
        if key.name and not _NAME.fullmatch(key.name):
            findings.add((*where, "name"), "a name has at most 64 letters, digits, dots, dashes and underscores")
        if key.name in seen:
            findings.add(where, f'there is a key "{key.name}" already')
        seen.add(key.name)
        full = upstream_name(name, provider, key)
        if full in config.upstream:
            findings.add(path, f'there is an upstream "{full}" already, and a provider\'s key is one, too')
        if key.weight < 1:
            findings.add((*where, "weight"), "must be 1 at least")
        if found := _OTHERS_WAY.match(key.key):
            findings.add(where, f'would be sent as it is: a variable is written "env:{found[1]}"')
        elif key.key:
            check_header(key.key, where, findings)
        if key.limits is not None:
            check_limits(key.limits, (*where, "limits"), findings)
    for field, text in provider.headers.items():
        if not _HEADER.fullmatch(field) or field.lower() in _OURS:
            findings.add((*path, "headers", field), "is no name of a header that may be set here")
        check_header(text, (*path, "headers", field), findings)
    check_limits(provider.limits, (*path, "limits"), findings)


def _model(name: str, model: Model, config: Config, findings: Findings) -> None:
    path: Path = ("model", name)
    for one in (name, *model.aliases):
        if not _MODEL.fullmatch(one):
            findings.add(path, "a model's name has at most 128 visible ASCII characters")
    if not model.targets:
        findings.add((*path, "targets"), "a model needs a target at least")
    for number, target in enumerate(model.targets):
        where: Path = (*path, "targets", number)
        if target.provider not in config.provider:
            hint = did_you_mean(target.provider, list(config.provider))
            findings.add((*where, "provider"), f'there is no provider "{target.provider}"{hint}')
        if target.model and not _MODEL.fullmatch(target.model):
            findings.add((*where, "model"), "a model's name has at most 128 visible ASCII characters")
        if target.weight < 1:
            findings.add((*where, "weight"), "must be 1 at least")
        if target.max_tokens < 1:
            findings.add((*where, "max_tokens"), "must be 1 at least")
        if target.price is not None:
            _price(target.price, (*where, "price"), findings)
        if target.limits is not None:
            check_limits(target.limits, (*where, "limits"), findings)
    check_limits(model.limits, (*path, "limits"), findings)
    if model.degrade:
        if model.degrade not in config.model:
            findings.add(
                (*path, "degrade"),
                f'there is no model "{model.degrade}"{did_you_mean(model.degrade, list(config.model))}',
            )
        elif model.degrade == name:
            findings.add((*path, "degrade"), "is this model itself")
    if model.hedge not in ("off", "p95"):
        try:
            parse_duration(model.hedge)
        except ValueError:
            findings.add((*path, "hedge"), 'expected "off", "p95" or a duration such as "2s"')


def _circles(config: Config, findings: Findings) -> None:
    """Models that degrade to each other: none of them is the smaller one."""
    told: set[str] = set()
    for first in config.model:
        way = [first]
        while (smaller := getattr(config.model.get(way[-1]), "degrade", "")) and smaller not in way:
            way.append(smaller)
        if len(way) > 1 and smaller == first and first not in told:
            told.update(way)
            findings.add(("model", first, "degrade"), f"goes in a circle: {' -> '.join((*way, first))}")


def _price(price: Price, path: Path, findings: Findings) -> None:
    for key in ("input", "output"):
        if getattr(price, key) < 0:
            findings.add((*path, key), "must not be negative")


def check_limits(limits: TokenLimits, path: Path, findings: Findings) -> None:
    """What is wrong with a table of limits."""
    for key in ("money_per_day", "money_per_month"):
        if getattr(limits, key) < 0:
            findings.add((*path, key), "must not be negative")


def _route(route: Route, llm: RouteLlm, path: Path, config: Config, findings: Findings) -> None:
    if not config.model:
        findings.add((*path, "llm"), "there is no model: write [model.NAME]")
    if route.upstream:
        findings.add((*path, "upstream"), "a route with llm is answered by providers: leave it out")
    for key in ("cache", "fallback"):
        if getattr(route, key) is not None:
            hint = "llm.cache" if key == "cache" else "targets and degrade of [model.NAME]"
            findings.add((*path, key), f"does not go with llm: see {hint}")
    if route.retry.on or route.retry.hedge != "off":
        findings.add((*path, "retry"), "does not go with llm: see llm.attempts, and hedge of [model.NAME]")
    if route.rewrite:
        findings.add((*path, "rewrite"), "does not go with llm: what is asked for is told by the end of the path")
    for number, one in enumerate(llm.models):
        check_model_name(one, (*path, "llm", "models", number), config, findings)
    if llm.model:
        check_model_name(llm.model, (*path, "llm", "model"), config, findings)
    if llm.attempts < 1:
        findings.add((*path, "llm", "attempts"), "must be 1 at least")
    check_limits(llm.limits, (*path, "llm", "limits"), findings)


def check_model_name(name: str, path: Path, config: Config, findings: Findings) -> None:
    """There must be such a model."""
    if name not in config.model:
        findings.add(path, f'there is no model "{name}"{did_you_mean(name, list(config.model))}')
