"""From a configuration to the models that a worker serves."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from edgeq.board.resources import Resources
from edgeq.config.credentials_io import read_header
from edgeq.config.providers import (
    caches_of,
    is_budget,
    is_enabled,
    provider_keys,
    split_url,
    target_names,
    upstream_name,
)
from edgeq.config.schema import Config, Provider
from edgeq.config.schema_llm import Model, Price, ProviderKey, RouteLlm, Target, TokenLimits
from edgeq.config.units import parse_duration
from edgeq.llm.account import model_subject, target_subject
from edgeq.llm.gate import TokenGate
from edgeq.llm.meter import MODEL, TARGET
from edgeq.llm.operation import ANTHROPIC, GEMINI
from edgeq.llm.plan import ORDERED, WEIGHTED, Choice, ModelPlan, Models
from edgeq.llm.price import Tariff
from edgeq.llm.prompt_cache import PromptCache
from edgeq.llm.prompts import Prompts
from edgeq.llm.rests import way_of
from edgeq.llm.route import ModelRoute
from edgeq.llm.till import Till
from edgeq.policy.hedge import HedgePolicy
from edgeq.policy.retry import RetryBudget
from edgeq.route.table import Route
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import FineWheel

_LEAST_SECRET: Final = 8
_AZURES: Final = "/openai/deployments/"
"""In a URL of Azure's for one deployment: there a Bearer is a token of Entra, and never a key."""
_MISTRAL: Final = "mistral.ai"
"""In a URL of Mistral's: a request with stream_options is refused there (422)."""
_VERSION = b"anthropic-version: 2023-06-01\r\n"


class ModelBuilder:
    """Builds the models of each configuration; gates, caches and what was measured outlive it."""

    def __init__(self, till: Till, resources: Resources, wheel: FineWheel, log: Any = None) -> None:
        """`resources`: by which workers know of each other's waiters; `wheel`: the worker's, for their turns; `log`:
        for events."""
        self._log: Any = log
        self._till = till
        self._resources = resources
        self._wheel = wheel
        self.gates: dict[str, TokenGate] = {}
        """By KEY/MODEL, as in `providers.target_names`; also those that only old requests still need."""
        self._hedges: dict[str, tuple[str, HedgePolicy]] = {}
        self.caches: dict[str, PromptCache] = {}
        """Of routes that have one, and of prompts."""
        self._prompts = Prompts(())

    def build(
        self,
        config: Config,
        workers: int,
        upstream_of: Callable[[str], Upstream],
        budget_of: Callable[[str], RetryBudget],
    ) -> Models:
        """Args: an upstream and its retry budget by its name. Raises: ValueError for a secret that cannot be read."""
        plans = []
        for name, model in config.model.items():
            plans.append(self._plan(name, model, config, workers, upstream_of, budget_of))
            self._till.ledger.resize(MODEL, name, model.limits, monotonic())
        self._keep_caches(config)
        self._prompts = Prompts(config.prompt, self.caches)
        aliases = {alias: name for name, model in config.model.items() for alias in model.aliases}
        wanted = set(target_names(config))
        for name in [name for name, gate in self.gates.items() if name not in wanted and gate.is_unused()]:
            gate = self.gates.pop(name)
            gate.close()
            self._resources.forget(gate.shared)
        budgets = [model_subject(plan.name) for plan in plans if is_budget(plan.limits)]
        budgets += [target_subject(name) for name, gate in self.gates.items() if is_budget(gate.meter.limits)]
        self._till.accounts.has_budgets(budgets)
        return Models(plans, aliases)

    def tick(self, now: float) -> None:
        """About ten times a second."""
        for gate in self.gates.values():
            gate.tick(now)
        for cache in self.caches.values():
            cache.expire(now)

    def look(self, now: float) -> None:
        """Another worker has left the turn to one who waits here."""
        for gate in self.gates.values():
            if gate.queue.queued:
                gate.dispatch(now)

    def _plan(
        self,
        name: str,
        model: Model,
        config: Config,
        workers: int,
        upstream_of: Callable[[str], Upstream],
        budget_of: Callable[[str], RetryBudget],
    ) -> ModelPlan:
        choices = []
        mark = name
        for number, target in enumerate(model.targets):
            provider = config.provider[target.provider]
            mark += f"\n{provider.dialect} {provider.url} {target.model}"
            _, path, query = split_url(provider.url)
            for key in provider_keys(provider):
                full = upstream_name(target.provider, provider, key)
                upstream = upstream_of(full)
                upstream.is_shared = True
                called = target.model or name
                limits = target.limits or key.limits or provider.limits
                gate = self._gate(full, called, limits, provider, key, workers)
                if not is_enabled(target.provider, provider, key, called):
                    continue
                choices.append(
                    Choice(
                        f"{full}/{called}",
                        number,
                        target.provider,
                        provider.dialect,
                        called,
                        path.encode(),
                        query.encode(),
                        _head(provider, key),
                        _secrets(provider, key),
                        upstream,
                        gate,
                        key.weight * target.weight,
                        Tariff(target.price or Price()),
                        target.max_tokens,
                        budget_of(full),
                        _MISTRAL in provider.url,
                    )
                )
        balance = WEIGHTED if model.balance == "weighted" else ORDERED
        return ModelPlan(
            name,
            balance,
            choices,
            model.degrade,
            self._hedge(name, model.hedge),
            model.limits,
            mark,
            model.too_long == "next",
        )

    def _gate(
        self, name_of_key: str, model: str, limits: TokenLimits, provider: Provider, key: ProviderKey, workers: int
    ) -> TokenGate:
        name = f"{name_of_key}/{model}"
        meter = self._till.ledger.meter(TARGET, name, limits)
        gate = self.gates.get(name)
        if gate is None:
            shared = self._resources.bind(f"target/{name}")
            gate = self.gates[name] = TokenGate(meter, name_of_key, self._wheel, shared, log=self._log)
        gate.use_key(way_of(provider, key))
        queue = provider.queue
        gate.configure(queue.max, int(queue.max_bytes), float(provider.wait), workers, provider.rest_after)
        return gate

    def _keep_caches(self, config: Config) -> None:
        """A cache stays, with what it holds, while its route or prompt has one."""
        kept: dict[str, PromptCache] = {}
        for name, settings in caches_of(config).items():
            cache = self.caches.get(name)
            if cache is None:
                cache = PromptCache(settings)
            else:
                cache.configure(settings)
            kept[name] = cache
        self.caches = kept

    def route(self, name: str, config: RouteLlm, route: Route, models: Models) -> ModelRoute:
        """What [route.llm] says of `route`."""
        return ModelRoute(
            route,
            models,
            self._till,
            config.mode == "strict",
            list(config.models),
            config.model,
            float(config.first_token),
            float(config.between_tokens),
            float(config.keepalive),
            float(config.drain) if config.disconnect == "drain" else 0.0,
            config.attempts,
            config.limits,
            self._prompts,
            self.caches.get(name),
            int(config.affinity),
            config.tell_cost,
        )

    def _hedge(self, name: str, text: str) -> HedgePolicy | None:
        """When a second target is asked. What is measured stays while the policy does."""
        if text == "off":
            self._hedges.pop(name, None)
            return None
        known = self._hedges.get(name)
        if known is None or known[0] != text:
            known = self._hedges[name] = (text, HedgePolicy(0.0 if text == "p95" else float(parse_duration(text))))
        return known[1]


def first_upstream(config: Config) -> str:
    """Of the first target of all: a route has to have one before a request says which."""
    model = next(iter(config.model.values()))
    target: Target = model.targets[0]
    provider = config.provider[target.provider]
    return upstream_name(target.provider, provider, provider_keys(provider)[0])


def _secrets(provider: Provider, key: ProviderKey) -> list[str]:
    """What of these lines might be one: not "1", which many sentences have."""
    told = [read_header(text) for text in (key.key, *provider.headers.values()) if text]
    return [text for text in told if len(text) >= _LEAST_SECRET]


def _head(provider: Provider, key: ProviderKey) -> bytes:
    """Field lines of each request to one key."""
    lines = b"content-type: application/json\r\nuser-agent: edgeq\r\n"
    own = {name.lower() for name in provider.headers}
    if "accept-encoding" not in own:  # who is not told may compress (RFC 9110 12.5.3)
        lines += b"accept-encoding: identity\r\n"
    if key.key:
        secret = read_header(key.key).encode("latin-1")
        if provider.dialect == ANTHROPIC:
            lines += b"x-api-key: " + secret + b"\r\n"
        elif provider.dialect == GEMINI:
            lines += b"x-goog-api-key: " + secret + b"\r\n"
        elif _AZURES in provider.url and "api-key" not in own:
            lines += b"api-key: " + secret + b"\r\n"
        else:
            lines += b"authorization: Bearer " + secret + b"\r\n"
    if provider.dialect == ANTHROPIC and "anthropic-version" not in own:
        lines += _VERSION
    for name, text in provider.headers.items():
        lines += f"{name.lower()}: {read_header(text)}\r\n".encode("latin-1")
    return lines
