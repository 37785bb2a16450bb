"""What [provider.NAME] stands for: an upstream for each of its keys, called NAME, or NAME-KEY where there are several.

So limits, queues, breakers, pools, the board, `show`, `explain` and metrics know them without knowing of models.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec.structs import replace

from edgeq.config.schema import Config, Eject, Provider, Upstream
from edgeq.config.schema_llm import PromptCache, ProviderKey, TokenLimits

NO_KEY = ProviderKey(key="")
_OTEL_NAMES = {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}


def provider_keys(provider: Provider) -> tuple[ProviderKey, ...]:
    """Its keys, each with a name; one without a secret if there is none."""
    if not provider.keys:
        return (NO_KEY,)
    keys = [ProviderKey(key=one) if isinstance(one, str) else one for one in provider.keys]
    return tuple(
        ProviderKey(key=one.key, name=one.name or str(number), weight=one.weight, limits=one.limits)
        for number, one in enumerate(keys, 1)
    )


def upstream_name(name: str, provider: Provider, key: ProviderKey) -> str:
    """Of one key of the provider called `name`."""
    return f"{name}-{key.name}" if len(provider.keys) > 1 else name


def split_url(url: str) -> tuple[str, str, str]:
    """A provider's URL as its endpoint, the path before its API's, without a "/" at the end, and the query of each
    request, which Azure wants ("api-version=2024-10-21").

    Raises: ValueError for what is no URL.
    """
    if url.startswith("unix:"):
        return url, "", ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError('expected "https://HOST/PATH" or "http://HOST/PATH"')
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a provider's URL is visible ASCII, and has no fragment")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"), parts.query


def provider_upstreams(config: Config) -> dict[str, Upstream]:
    """The upstreams that the providers of a checked configuration stand for."""
    found = {}
    for name, provider in config.provider.items():
        endpoint = split_url(provider.url)[0]
        for key in provider_keys(provider):
            found[upstream_name(name, provider, key)] = Upstream(
                endpoints=(endpoint, *provider.endpoints),
                host="upstream",
                # Of few replicas whose queues are known the shortest one is worth finding, not the shorter of two.
                balance="least-requests" if provider.engine else "p2c-ewma",
                engine=provider.engine,
                limit=provider.limit,
                # Who has waited for tokens is not to be refused for want of a place a second later.
                queue=provider.queue if provider.queue.timeout else replace(provider.queue, timeout=provider.wait),
                timeouts=provider.timeouts,
                pool=provider.pool,
                breaker=provider.breaker,
                retry_budget=provider.retry_budget,
                tls=provider.tls,
                eject=Eject() if provider.endpoints else Eject(failures=0),
            )
    return found


def smaller_of(config: Config, name: str) -> list[str]:
    """The models that answer in place of one, as far as they have room: the one to which it degrades, then the one to
    which that does."""
    found: list[str] = []
    one = config.model.get(name)
    while one is not None and one.degrade and one.degrade not in found:
        found.append(one.degrade)
        one = config.model.get(one.degrade)
    return found


def has_enabled(config: Config, name: str) -> bool:
    """Has a model a target to which somebody new may be sent?"""
    return any(
        is_enabled(target.provider, provider, key, target.model or name)
        for target in config.model[name].targets
        for provider in (config.provider[target.provider],)
        for key in provider_keys(provider)
    )


def smaller_enabled(config: Config, name: str) -> list[str]:
    """Those of `smaller_of` that answer, as far as that is the operator's doing."""
    return [one for one in smaller_of(config, name) if has_enabled(config, one)]


def provider_of(config: Config) -> dict[str, str]:
    """The upstreams that are made of a provider's key, each with the provider's name."""
    return {
        upstream_name(name, provider, key): name
        for name, provider in config.provider.items()
        for key in provider_keys(provider)
    }


def settings_of(config: Config) -> dict[str, str]:
    """Where what is said of each upstream is set: upstream/NAME, or provider/NAME of one that is made of it."""
    made = provider_of(config)
    return {name: f"provider/{made[name]}" if name in made else f"upstream/{name}" for name in config.upstream}


def target_names(config: Config) -> list[str]:
    """Each model at each key of its providers, once: KEY/MODEL, where KEY is the upstream and MODEL the provider's name
    for it."""
    names: dict[str, None] = {}
    for name, model in config.model.items():
        for target in model.targets:
            provider = config.provider[target.provider]
            for key in provider_keys(provider):
                names[f"{upstream_name(target.provider, provider, key)}/{target.model or name}"] = None
    return list(names)


def is_enabled(name: str, provider: Provider, key: ProviderKey, model: str) -> bool:
    """May somebody new be sent to `model`, as the provider called `name` calls it, at this key?"""
    return _switch_of(name, provider, key, model) is None


def _switch_of(name: str, provider: Provider, key: ProviderKey, model: str) -> str | None:
    """Which part of the provider, as `parts_of` has it, is disabled, so that nobody new is sent there; None: none is.
    model: empty: any."""
    if not provider.enabled:
        return ""
    full = upstream_name(name, provider, key)
    parts = (full, f"{full}/{model}", f"{name}/{model}") if model else (full,)
    return next((one for one in parts if provider.disabled.get(one)), None)


def switched_off(config: Config) -> dict[str, tuple[str, str]]:
    """Providers' keys and targets at them, as resources, to which nobody new is sent, as an operator or the file wants
    it: the provider, and which part of it is disabled, as `parts_of` has it."""
    found = {}
    for name, provider in config.provider.items():
        for key in provider_keys(provider):
            off = _switch_of(name, provider, key, "")
            if off is not None:
                found[f"upstream/{upstream_name(name, provider, key)}"] = (name, off)
    for own, model in config.model.items():
        for target in model.targets:
            provider = config.provider[target.provider]
            for key in provider_keys(provider):
                called = target.model or own
                off = _switch_of(target.provider, provider, key, called)
                if off is not None:
                    full = upstream_name(target.provider, provider, key)
                    found[f"target/{full}/{called}"] = (target.provider, off)
    return found


def parts_of(config: Config) -> dict[str, tuple[str, str]]:
    """What of providers can be disabled, by each name that it has: the provider, and the part as `Provider.disabled`
    calls it; empty: all of it."""
    found = {}
    for name, provider in config.provider.items():
        for key in provider_keys(provider):
            full = upstream_name(name, provider, key)
            found[full] = found[f"upstream/{full}"] = (name, "" if full == name else full)
        found[name] = found[f"provider/{name}"] = (name, "")
    for own, model in config.model.items():
        for target in model.targets:
            provider = config.provider[target.provider]
            for key in (NO_KEY, *provider_keys(provider)):
                full = upstream_name(target.provider, provider, key) if key.name else target.provider
                part = f"{full}/{target.model or own}"
                found[part] = found[f"target/{part}"] = (target.provider, part)
    return found


def is_budget(limits: TokenLimits) -> bool:
    """Is money one of them?"""
    return limits.money_per_day > 0.0 or limits.money_per_month > 0.0


def caches_of(config: Config) -> dict[str, PromptCache]:
    """The caches of answers of models: of routes by their names, and of prompts that have their own."""
    found = {one.name: one.llm.cache for one in config.route if one.llm is not None and one.llm.cache is not None}
    return found | {one.cache_name(): one.cache for one in config.prompt if one.cache is not None}


def otel_names(config: Config) -> dict[str, str]:
    """What OpenTelemetry calls the provider of each target (`target_names`), gen_ai.provider.name: by the dialect that
    it speaks, which is what is known of it."""
    found: dict[str, str] = {}
    for name, model in config.model.items():
        for target in model.targets:
            provider = config.provider[target.provider]
            told = "azure.ai.openai" if ".azure.com" in provider.url else _OTEL_NAMES[provider.dialect]
            for key in provider_keys(provider):
                found[f"{upstream_name(target.provider, provider, key)}/{target.model or name}"] = told
    return found
