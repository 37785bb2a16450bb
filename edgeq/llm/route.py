"""A route that serves models: what its requests have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.llm.exchange import ModelExchange
from edgeq.llm.plan import Models
from edgeq.route.table import Route

if TYPE_CHECKING:
    from edgeq.config.schema_llm import TokenLimits
    from edgeq.listener.connection import Downstream
    from edgeq.llm.plan import ModelPlan
    from edgeq.llm.prompt_cache import PromptCache
    from edgeq.llm.prompts import Prompt, Prompts
    from edgeq.llm.till import Till
    from edgeq.response.relay import Exchange
    from edgeq.upstream.upstream import Upstream
    from edgeq.wire.head import RequestHead


class ModelRoute:
    """Of one [route.llm]. Times are seconds."""

    __slots__ = (
        "_beside",
        "affinity",
        "attempts",
        "between_s",
        "cache",
        "default_model",
        "drain_s",
        "first_s",
        "keepalive_s",
        "limits",
        "models",
        "names",
        "prompts",
        "route",
        "strict",
        "tells_cost",
        "till",
    )

    def __init__(
        self,
        route: Route,
        models: Models,
        till: Till,
        strict: bool,
        names: list[str],
        default_model: str,
        first_s: float,
        between_s: float,
        keepalive_s: float,
        drain_s: float,
        attempts: int,
        limits: TokenLimits,
        prompts: Prompts,
        cache: PromptCache | None,
        affinity: int,
        tells_cost: bool,
    ) -> None:
        """Args: route is the one that requests match; names are the models that it serves, none for all; drain_s 0.0:
        who has left is not read to the end."""
        self.route: Route = route
        self.models: Models = models
        self.till: Till = till
        self.strict: bool = strict
        self.names: list[str] = [name for name in models.names if not names or models.own_name(name) in names]
        self.default_model = default_model
        self.first_s: float = first_s
        self.between_s: float = between_s
        self.keepalive_s: float = keepalive_s
        self.drain_s: float = drain_s
        self.attempts: int = attempts
        self.limits: TokenLimits = limits
        """Of each tenant."""
        self.prompts: Prompts = prompts
        """Of all routes."""
        self.cache: PromptCache | None = cache
        self.affinity: int = affinity
        """How many bytes must be alike for requests to go where the last of them went; 0: they do not."""
        self.tells_cost: bool = tells_cost
        self._beside: dict[str, Route] = {}

    def smaller(self, plan: ModelPlan) -> ModelPlan | None:
        """The model to which this one degrades, or else the one to which that does: the first that the route serves.
        There are no circles (config/check_llm.py)."""
        smaller = self.models.find(plan.degrade)
        while smaller is not None and smaller.name not in self.names:
            smaller = self.models.find(smaller.degrade)
        return smaller

    def exchange(self, down: Downstream, head: RequestHead, route: Route, now: float) -> Exchange:
        """A request has come."""
        return ModelExchange(down, head, route, now, self)

    def cache_of(self, prompt: Prompt | None) -> PromptCache | None:
        """Where the answers of a prompt are kept, or those to all other requests; None: nowhere."""
        own = None if prompt is None else prompt.cache
        return self.cache if own is None else own

    def by(self, upstream: Upstream) -> Route:
        """The same route, by this upstream: what limits, logs and traces see of a try."""
        found = self._beside.get(upstream.name)
        if found is None:
            own = self.route
            found = Route(own.name, own.host, own.path, upstream, b"", own.timeout_s, own.body_bytes, own.generation)
            found.tenants = own.tenants
            found.bulkhead = own.bulkhead
            found.llm = self
            self._beside[upstream.name] = found
        return found
