"""Who answers for a model: its targets, each at each of its provider's keys, in the order in which they are asked.

    model --> Choice (target, key) --> gate: tokens --> upstream, with its limits, queue, breaker and pools

Built anew with each configuration; gates stay, by their name.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from random import expovariate
from typing import TYPE_CHECKING, Final

from edgeq.llm.pauses import OF_OPERATORS
from edgeq.llm.redact import KEY
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.config.schema_llm import TokenLimits
    from edgeq.llm.estimate import Estimate
    from edgeq.llm.gate import TokenGate
    from edgeq.llm.message import Failed
    from edgeq.llm.price import Tariff
    from edgeq.policy.hedge import HedgePolicy
    from edgeq.policy.retry import RetryBudget
    from edgeq.upstream.upstream import Upstream

ORDERED: Final = 0
WEIGHTED: Final = 1


class Choice:
    """One target at one key."""

    __slots__ = (
        "budget",
        "dialect",
        "gate",
        "head",
        "line",
        "log_text",
        "max_tokens",
        "model",
        "name",
        "no_stream_options",
        "path",
        "provider",
        "query",
        "secrets",
        "target",
        "tariff",
        "upstream",
        "weight",
    )

    def __init__(
        self,
        name: str,
        target: int,
        provider: str,
        dialect: str,
        model: str,
        path: bytes,
        query: bytes,
        head: bytes,
        secrets: list[str],
        upstream: Upstream,
        gate: TokenGate,
        weight: int,
        tariff: Tariff,
        max_tokens: int,
        budget: RetryBudget | None,
        no_stream_options: bool,
    ) -> None:
        self.name = name
        """PROVIDER/MODEL, as people are told of it."""
        self.target: int = target
        """Its place in the model's list: the keys of one target have the same."""
        self.provider = provider
        self.dialect = dialect
        self.model = model
        """As the provider calls it."""
        self.path = path
        """Before what the dialect says: "/v1"."""
        self.query = query
        """After it, without its "?"; empty: none."""
        self.line = b"x-edgeq-target: " + name.encode("ascii", "replace") + b"\r\n"
        self.log_text = f'"edgeq.upstream":{quoted(upstream.name)},"edgeq.target":{quoted(name)},'.encode("ascii")
        """Its part of an access-log line."""
        self.head = head
        """Field lines of every request, each with its CRLF; the key is one of them."""
        self.secrets: list[str] = secrets
        """What of these lines nobody is to see."""
        self.upstream: Upstream = upstream
        self.gate: TokenGate = gate
        """Before this model at this key: tokens, and pauses that the provider asks for."""
        self.weight: int = weight
        self.tariff: Tariff = tariff
        self.max_tokens: int = max_tokens
        self.budget: RetryBudget | None = budget
        """Of the upstream: how many of what it has failed may be sent once more, wherever."""
        self.no_stream_options = no_stream_options
        """It refuses to be asked for the usage of a stream, and tells it anyway."""

    def without_secrets(self, failed: Failed) -> Failed:
        """What the provider says of a failure: some repeat the key that they were given."""
        for secret in self.secrets:
            failed.message = failed.message.replace(secret, KEY)
            failed.param = failed.param.replace(secret, KEY)
            failed.code = failed.code.replace(secret, KEY)
            failed.details = failed.details.replace(secret, KEY)
        return failed

    def is_open(self, now: float) -> bool:
        """May somebody be sent there, as far as is known?"""
        return self.rests_s(now) <= 0.0

    def rests_s(self, now: float) -> float:
        """How long nobody is sent there; 0.0: somebody may be."""
        breaker = self.upstream.breaker
        return max(self.gate.pause_s(now), 0.0 if breaker is None else breaker.retry_after_s(now))

    def returns_s(self, now: float) -> float:
        """After how long somebody may be sent there, of itself: `NEVER` if its key waits for an operator."""
        if self.gate.pauses.reason(now) in OF_OPERATORS:
            return NEVER
        return self.rests_s(now)

    def has_room(self, now: float) -> bool:
        """Would a request be sent at once, if there are tokens for it?"""
        if not self.gate.would_admit(now):
            return False
        upstream = self.upstream
        return not upstream.limited or upstream.bulkhead.places() > 0

    def can_take(self, estimate: Estimate, now: float) -> bool:
        """Would a request of this size be sent at once, as far as is known?"""
        return self.is_open(now) and self.has_room(now) and self.gate.wait_s(estimate, now) <= 0.0


class ModelPlan:
    """One model. `choices` in the order of the file: target by target, key by key; none: all are disabled."""

    __slots__ = ("balance", "choices", "degrade", "goes_longer", "hedge", "limits", "mark", "name")

    def __init__(
        self,
        name: str,
        balance: int,
        choices: list[Choice],
        degrade: str,
        hedge: HedgePolicy | None,
        limits: TokenLimits,
        mark: str = "",
        goes_longer: bool = False,
    ) -> None:
        self.name = name
        self.mark = mark or name
        """Of its name and who answers for it: with others, answers that were stored are not its own any more."""
        self.balance: int = balance
        self.choices: list[Choice] = choices
        self.degrade = degrade
        """Name of the model to turn to while none of these has room; empty: none."""
        self.hedge: HedgePolicy | None = hedge
        self.limits: TokenLimits = limits
        """Of all its requests together."""
        self.goes_longer: bool = goes_longer
        """What is too long for one target is for the next one."""

    def order(self, now: float) -> list[Choice]:
        """In which order to ask. Keys of a target are drawn by their weight, and so are targets that are balanced; who
        has no room comes behind who has, and last who cannot answer (paused, breaker open): who is back first, first.

        The draw: a weighted sample without replacement is the order of exponential variables with these rates
        (Efraimidis and Spirakis, 2006).
        """
        choices = self.choices
        if len(choices) == 1:
            return choices
        ranked: list[tuple[int, float, int, float, int]] = []
        for number, choice in enumerate(choices):
            rests_s = choice.rests_s(now)
            rank = 0 if choice.has_room(now) else 1
            if rests_s > 0.0:
                rank = 2
            group = choice.target if self.balance == ORDERED else 0
            ranked.append((rank, rests_s, group, expovariate(choice.weight), number))
        ranked.sort()
        return [choices[one[4]] for one in ranked]

    def prefer(self, order: list[Choice], name: str, now: float) -> list[Choice]:
        """The same order, but first the choice of that name if it could be asked at once. Of targets in order only
        another key of the first one: who has answered while that was out of order is not to stay for it."""
        first = order[0]
        if first.name == name:
            return order
        for choice in order:
            if choice.name == name:
                fits = self.balance != ORDERED or choice.target == first.target
                if fits and choice.is_open(now) and choice.has_room(now):
                    return [choice, *[one for one in order if one is not choice]]
                break
        return order

    def is_saturated(self, estimate: Estimate, now: float) -> bool:
        """Would a request of this size have to wait, whoever is asked?"""
        return not any(choice.can_take(estimate, now) for choice in self.choices)


def with_room_first(order: list[Choice], estimate: Estimate, now: float) -> list[Choice]:
    """Whoever has tokens for it now goes first; if nobody has, it waits where it is wanted most."""
    if len(order) == 1:
        return order
    for number, choice in enumerate(order):
        if choice.can_take(estimate, now):
            return order if number == 0 else [choice, *order[:number], *order[number + 1 :]]
    return order


class Models:
    """All models of a configuration, by name and alias."""

    __slots__ = ("_by_name", "names")

    def __init__(self, plans: list[ModelPlan], aliases: dict[str, str]) -> None:
        self._by_name: dict[str, ModelPlan] = {plan.name: plan for plan in plans}
        self.names: list[str] = sorted([*self._by_name, *aliases])
        for alias, name in aliases.items():
            self._by_name[alias] = self._by_name[name]

    def find(self, name: str) -> ModelPlan | None:
        """The model that is called so, or has this alias."""
        return self._by_name.get(name)

    def own_name(self, name: str) -> str:
        """Of the model that has this name or alias."""
        return self._by_name[name].name
