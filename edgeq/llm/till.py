"""Who asks, what he may use, and what he has used: the account of one request, from its key to its settling.

    identify: key -> account, its tenant     -> a reason of refusal, or none
    reserve:  all limits that concern it     -> a Refusal, or what is expected is reserved
    settle:   what was used and cost         -> limits, the store of usage, and what is learned for the next estimate

Without [accounts] there is nobody to know: the tenant is whom [tenant] names. Without limits nothing is reserved.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from edgeq.llm import limit_headers
from edgeq.llm.account import EXPIRED, NO_LIMITS, REPLACED, REVOKED, Account
from edgeq.llm.accounts import MESSAGES, AccountsHolder
from edgeq.llm.affinity import Affinity
from edgeq.llm.estimate import Estimate, Estimator
from edgeq.llm.ledger import Ledger, Reservation, reserve
from edgeq.llm.message import Usage
from edgeq.llm.meter import BUDGET, CONCURRENT, KEY, MODEL, PROMPT, RESERVED, TARGET, TEAM, TENANT, Meter, Refusal
from edgeq.llm.promise import MOST_S, Told, come_again_s, kept_for_others, place_s
from edgeq.llm.sums import day_of
from edgeq.llm.transcript import MAX_LOGGED
from edgeq.policy.tenant import credential_of

if TYPE_CHECKING:
    from edgeq.config.schema_llm import Prompt, TokenLimits
    from edgeq.llm.plan import Choice, ModelPlan
    from edgeq.wire.head import RequestHead

_KINDS: Final = {"key": KEY, "tenant": TENANT, "team": TEAM, "model": MODEL, "target": TARGET}
_REASONS: Final = {REVOKED: "key_revoked", EXPIRED: "key_expired", REPLACED: "key_expired"}


class Till:
    """What one worker needs for that."""

    __slots__ = ("accounts", "affinity", "estimator", "ledger")

    def __init__(self, accounts: AccountsHolder, ledger: Ledger) -> None:
        self.accounts: AccountsHolder = accounts
        self.ledger: Ledger = ledger
        accounts.on_spent = self._spent
        accounts.on_limits = self._limits
        self.estimator: Estimator = Estimator(ledger.books)
        self.affinity: Affinity = Affinity()

    def _limits(self, subject: str, limits: TokenLimits) -> None:
        """Somebody has changed them."""
        kind, _, name = subject.partition("/")
        self.ledger.resize(_KINDS[kind], name, limits, monotonic())

    def _spent(self, subject: str, day_micro: int, month_micro: int) -> None:
        """The store knows of this: what other workers, and earlier ones, have spent. The ledger has ticked."""
        if self.accounts.day == day_of(time()):  # what was told late must not be taken for today's
            kind, _, name = subject.partition("/")
            self.ledger.spent(_KINDS[kind], name, day_micro, month_micro, monotonic())


class Bill:
    """Of one request."""

    __slots__ = (
        "_answers",
        "_body",
        "_max_tokens",
        "_speaks",
        "account",
        "connection",
        "detail",
        "estimate",
        "key_id",
        "meters",
        "reservation",
        "tenant",
        "till",
        "tries",
    )

    def __init__(self, till: Till, tenant: bytes, connection: int = 0) -> None:
        """`tenant`: as [tenant] has found it; `connection`: on which it came, a number of its own."""
        self.till: Till = till
        self.tenant: bytes = tenant
        self.account: Account | None = None
        self.key_id = ""
        self.tries: int = -1
        """How often he was turned away before, as SDKs say it, which wait for as long as they are told; below 0: he
        does not say."""
        self.connection: int = connection
        self.detail = ""
        """Of the last refusal."""
        self.meters: list[Meter] = []
        self.estimate: Estimate | None = None
        self.reservation: Reservation | None = None
        self._body = b""
        self._max_tokens: int = 0
        self._answers: int = 1
        self._speaks: bool = True

    def identify(self, head: RequestHead) -> str:
        """Find out who asks. Returns: a token of edgeq.reasons if he may not ask."""
        accounts = self.till.accounts.current
        if not accounts.is_on:
            return ""
        secret = credential_of(head)
        if not secret:
            self.detail = "give a key in Authorization: Bearer, or in x-api-key"
            return "key_missing"
        account = accounts.find(secret)
        verdict = accounts.verdict(account, time())
        if verdict or account is None:
            self.detail = MESSAGES[verdict]
            return _REASONS.get(verdict, "key_unknown")
        self.account = account
        self.key_id = account.id
        self.tenant = account.tenant.encode()
        return ""

    def may_use(self, model: str, name: str) -> bool:
        """Is the model one of the account's? By its own name, or by that which the client has for it."""
        account = self.account
        return account is None or account.allows(model) or (name != model and account.allows(name))

    def weight(self) -> float:
        """The tenant's share in fair queues."""
        return self.till.accounts.current.weights.get(self.tenant, 1.0)

    def wants(self, body: bytes, max_tokens: int, answers: int, speaks: bool) -> None:
        """What the request wants of whoever is asked.

        Args: max_tokens, answers as the request says (0 and 1 if it does not); speaks: the model will say something, as
        for embeddings it does not.
        """
        self._body = body
        self._max_tokens = max_tokens
        self._answers = answers
        self._speaks = speaks

    def expect(self, plan: ModelPlan, choice: Choice) -> Estimate:
        """What it is expected to use of `choice`: with this is reckoned from now on."""
        usual = choice.max_tokens if self._speaks else 0
        estimate = self.till.estimator.estimate(
            plan.name, self.tenant, self._body, self._max_tokens, usual, self._answers
        )
        estimate.cost_micro = choice.tariff.expected(estimate.input, estimate.output)
        self.estimate = estimate
        return estimate

    def kept_out(self, plan: ModelPlan, now: float) -> Refusal | None:
        """What the model's own limits say of what is expected; None: they have room for it."""
        estimate = self.estimate
        if estimate is None or plan.limits == NO_LIMITS:
            return None
        meter = self.till.ledger.meter(MODEL, plan.name, plan.limits)
        refusal = meter.ask(estimate, now)
        if refusal is not None and refusal.what >= BUDGET:
            for choice in plan.choices:
                if choice.can_take(estimate, now) and self._pays_less(choice):
                    refusal = meter.ask(estimate, now)
                    if refusal is None or refusal.what < BUDGET:
                        break
        if refusal is not None or self.tries > 0:
            return refusal
        return kept_for_others(meter, estimate, now)

    def _pays_less(self, choice: Choice) -> bool:
        """Is it cheaper than what is reckoned with? Then that is its cost from now on."""
        estimate = self.estimate
        cost_micro = self._cost_of(choice)
        if estimate is None or cost_micro >= estimate.cost_micro:
            return False
        estimate.cost_micro = cost_micro
        return True

    def _reserve(self, order: list[Choice], estimate: Estimate, now: float, comes_again: bool) -> Reservation | Refusal:
        """Of all meters; what one of these costs for whom there is money, if there is not for the first."""
        found = reserve(self.meters, estimate, now, comes_again)
        if isinstance(found, Reservation) or found.what < BUDGET:
            return found
        for choice in order:
            if self._pays_less(choice):
                found = reserve(self.meters, estimate, now, comes_again)
                if isinstance(found, Reservation) or found.what < BUDGET:
                    break
        return found

    def reserve(
        self,
        plan: ModelPlan,
        order: list[Choice],
        route: str,
        of_tenant: TokenLimits,
        prompt: Prompt | None,
        now: float,
        has_other: bool = False,
    ) -> Refusal | None:
        """Reserve what is expected of all limits of the caller's and the model's own, or say why not.

        Args: order is who may be asked; what is expected is of one of these, or of a cheaper one if there is no money
        for that: then `estimate` has its cost. route and of_tenant are the route's name and what it grants each tenant;
        prompt: whose path it is; has_other: a smaller model may answer, so what the model's own limit refuses
        is none yet.
        """
        till = self.till
        ledger = till.ledger
        account = self.account
        estimate = self.estimate
        assert estimate is not None
        meters = self.meters
        meters.clear()
        if account is not None:
            for subject, limits in till.accounts.current.limits(account):
                kind, _, name = subject.partition("/")
                meters.append(ledger.meter(_KINDS[kind], name, limits))
        if of_tenant != NO_LIMITS:
            meters.append(ledger.meter(TENANT, f"{route}:{self.tenant.decode('latin-1')}", of_tenant))
        if prompt is not None and prompt.limits != NO_LIMITS:
            meters.append(ledger.meter(PROMPT, f"{prompt.name}:{self.tenant.decode('latin-1')}", prompt.limits))
        if plan.limits != NO_LIMITS:
            meters.append(ledger.meter(MODEL, plan.name, plan.limits))
        if not meters:
            return None
        told: Told | None = None
        found = self._reserve(order, estimate, now, self.tries > 0)
        if isinstance(found, Refusal) and self.tries < 0 and found.what < CONCURRENT:
            told = Told(ledger.books.arrivals, (self.key_id, self.tenant), self.connection, self._body, now)
            if told.is_due():
                found = self._reserve(order, estimate, now, True)
        if isinstance(found, Reservation):
            if told is not None:
                told.redeem()
            self.reservation = found
            return None
        if has_other and found.meter.kind == MODEL:
            return found
        found.meter.refuse(now)
        if found.what in (CONCURRENT, RESERVED):
            places = found.limit if found.what == CONCURRENT else max(1, found.meter.machine_in_flight())
            found.wait_s = place_s(found.meter, places, estimate.takes_s, now)
        elif found.what != BUDGET and found.wait_s <= MOST_S:
            again_s = 0.0 if told is None else told.left_s()
            if not again_s:
                again_s = come_again_s(meters, estimate, now)
                if told is not None:
                    told.tell(again_s, meters, now)
            found.wait_s = max(found.wait_s, again_s)
        return found

    def paid_first(self, chosen: list[Choice], order: list[Choice], now: float) -> list[Choice]:
        """Reserved is for one of `chosen`, and not for each: the first one for whom it is enough, before the others of
        `order`."""
        for choice in chosen:
            if self.affords(choice, now):
                return [choice, *[one for one in order if one is not choice]]
        return order

    def affords(self, choice: Choice, now: float) -> bool:
        """Is there money for it to be asked, too? It may be dearer than the one for which it is reserved."""
        reservation = self.reservation
        return reservation is None or reservation.affords(self._cost_of(choice), now)

    def turn_to(self, choice: Choice) -> None:
        """It is asked now: reserve what it costs, if that is more."""
        reservation = self.reservation
        if reservation is not None:
            reservation.reserve_up_to(self._cost_of(choice))

    def estimate_of(self, choice: Choice) -> Estimate | None:
        """What is expected, at its price: for its own limits."""
        estimate = self.estimate
        if estimate is not None:
            estimate.cost_micro = self._cost_of(choice)
        return estimate

    def _cost_of(self, choice: Choice) -> int:
        estimate = self.estimate
        return 0 if estimate is None else choice.tariff.expected(estimate.input, estimate.output)

    def header_lines(self, dialect: str, now: float) -> bytes:
        """What is left of the caller's own limits, in the fields of his dialect, each with its CRLF."""
        own = [meter for meter in self.meters if meter.kind != MODEL]
        return limit_headers.header_lines(dialect, own, now, self.reservation) if own else b""

    def settle(
        self,
        model: str,
        choice: Choice | None,
        usage: Usage,
        answers: int,
        sent: bool,
        status: int,
        seconds: float,
        first_s: float,
        is_refused: bool,
        now: float,
    ) -> int:
        """The request has ended: give back what it did not use, and write down what it did.

        Args: sent: a provider has had it; first_s: to the first event, -1.0 if there was none; is_refused: it is no
        target's, neither its answer nor its failure. Returns: what it cost, in millionths.
        """
        reservation = self.reservation
        used = sent and (usage.input >= 0 or usage.output >= 0)
        cost_micro = 0
        if used and choice is not None:
            cost_micro = choice.tariff.of_usage(usage)
        if reservation is not None:
            self.reservation = None
            if used:
                reservation.settle(usage, cost_micro, now)
            else:
                reservation.cancel(now, sent)
        estimate = self.estimate
        if used and estimate is not None and status == 200 and first_s >= 0.0:
            self.till.estimator.learn(estimate, usage, answers, seconds)
        accounts = self.till.accounts
        if accounts.current.is_on and self.account is not None:
            name = choice.name if choice is not None and not is_refused else ""
            accounts.usage.record(
                self.tenant.decode("latin-1"), self.key_id, model, name, usage, cost_micro, status, seconds, first_s
            )
        return cost_micro

    def log(self, request_id: bytes, model: str, asked: bytes, answer: bytes) -> None:
        """Write down what was asked and answered; the store redacts it."""
        self.till.accounts.usage.converse(
            request_id.decode("latin-1"),
            self.tenant.decode("latin-1"),
            self.key_id,
            model,
            asked[:MAX_LOGGED].decode("utf-8", "replace"),
            answer.decode("utf-8", "replace"),
        )
