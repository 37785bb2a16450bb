"""One request for a model, from its first byte to the settling of its account.

    COLLECT --whole body--> look: who asks, which model, is it known already, may it be paid
      --> PLACE: a target and a key; its words; a place in its queues
      --> SENT: until the first event nothing has gone to the client, and whatever fails turns to the next target
      --> PASSING: events go on as they come; a failure is told within the stream
      --> the end: the account is settled, whoever ended it

Until it is asked of a target it is in asking.py, what a target answers in answering.py; here are the targets, one after
the other, what goes wrong, and the end.

Invariants
- Exactly one end, in `_end`, as with any exchange: permits, reservations and the upstream's connection are given back
  there, however it ended, whoever left.
- After the first event (`_begun`) there is no other target: what follows belongs to the same answer.
- A stream that was cut is never ended as if it were complete: an error event of the dialect comes first.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from edgeq.llm import speech
from edgeq.llm.answering import ModelAnswer
from edgeq.llm.asking import COLLECT, SENT
from edgeq.llm.attempt import Attempt
from edgeq.llm.dialects import errors
from edgeq.llm.dialects.anthropic_thinking import without_foreign_thoughts
from edgeq.llm.gate import Claim
from edgeq.llm.hedge import HedgeClock, ModelHedge
from edgeq.llm.incoming import Incoming
from edgeq.llm.message import Failed, Losses, Unmappable
from edgeq.llm.operation import (
    ANTHROPIC,
    COUNT_TOKENS,
    OPENAI,
)
from edgeq.llm.pauses import OF_OPERATORS
from edgeq.llm.plan import Choice, ModelPlan
from edgeq.llm.provider import has_no_model, judge, told
from edgeq.llm.provider_limits import Heard, hear, retry_in_body
from edgeq.llm.requested import TOO_DEEP, with_model, without_stream_options
from edgeq.llm.saying import failed_of
from edgeq.reasons import REASONS
from edgeq.response.at_once import write_at_once
from edgeq.response.rescue import UNKNOWN
from edgeq.wire.framing import LAST_CHUNK, chunk
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.llm.route import ModelRoute
    from edgeq.policy.retry import RetryBudget
    from edgeq.route.table import Route
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import RequestHead

_OWN_END: Final = frozenset(("client_gone", "client_stalled", "draining", "internal_error", "deadline_expired"))
"""Ends that say nothing about what others would get."""
_RESTS: Final = frozenset(("upstream_rate_limit", "circuit_open"))
"""Ends of a target's that say when it can be asked again."""
_TARGET_FAILS: Final = frozenset(
    (
        "upstream_timeout",
        "upstream_reset",
        "upstream_tls_failed",
        "upstream_truncated",
        "upstream_protocol_error",
    )
)
"""Before the first event: a target that does so again and again rests; as does one that answers so, see `_fail_by`."""
_SAID: Final = frozenset(("upstream_error", "upstream_overloaded", "upstream_timeout", "upstream_protocol_error"))
"""Ends of a target's of which the detail says more: what the provider has said, or what was waited for."""
_TOO_LARGE: Final = "request_over_limit"
"""For this target, however long it is waited for."""
_STAYS: Final = _OWN_END | {"deadline_infeasible", "body_timeout", "body_too_large"}
"""Ends that no other target would change."""


class ModelExchange(ModelAnswer):
    """A request for a model, its targets, and its answer."""

    __slots__ = (
        "_budget",
        "_clock",
        "_is_again",
        "_left_alone",
        "_left_as",
        "_left_status",
        "_second",
        "_turns",
        "sent_body",
    )

    def __init__(self, down: Downstream, head: RequestHead, route: Route, now: float, models: ModelRoute) -> None:
        super().__init__(down, head, route, now, models)
        self._turns: int = 0
        """How many of them have been."""
        self.sent_body = b""
        """The body in the words of the present target."""
        self._budget: RetryBudget | None = None
        """Where what is under way counts as a retry."""
        self._is_again: bool = False
        """Somebody was asked before."""
        self._second: ModelHedge | None = None
        self._left_alone: tuple[Attempt, float] | None = None
        """What the first target has failed by, and when to come again (see `fail`), while the second one is waited
        for."""
        self._clock: HedgeClock | None = None
        self._left_as = ""
        """The client has left for this reason, and the answer is read to its end; empty: it has not."""
        self._left_status: int = 499
        """What it was told until then."""

    # -- an answer that is known, or on its way -----------------------------------------------------------------------

    def drop_unwanted(self) -> None:
        """Its client has left, and now all who followed have, too."""
        super().client_gone()

    def resume_answer(self) -> None:
        share = self._share
        if share is not None and share.seat is not None:
            share.more(monotonic())
        else:
            self._is_held = False
            super().resume_answer()
            up = self.up
            incoming = self._incoming
            if up is not None and incoming is not None:
                self._expect_more(up, incoming, monotonic())

    # -- what it may cost ---------------------------------------------------------------------------------------------

    def _count_tokens(self, plan: ModelPlan, now: float) -> None:
        """How many tokens the request has: by a target that can tell, or else about."""
        self._order = [choice for choice in plan.order(now) if choice.dialect in speech.COUNTED_BY]
        if self._order:
            self._turn_to(self._order[0], now)
            return
        self._estimate_tokens()

    def _estimate_tokens(self) -> None:
        """Nobody can tell."""
        self.answer_lines += b"x-edgeq-estimated: true\r\n"
        self._send(200, b'{"input_tokens":%d}' % self._about_tokens())
        self.finish_here()

    def _counts_itself(self, reason: str, resource: str, detail: str) -> bool:
        """Nobody who was asked for a count has told it. Returns: False if something else was asked for, or it is the
        client's doing."""
        operation = self.operation
        if operation is None or operation.kind != COUNT_TOKENS or self.choice is None or REASONS[reason].fault == "C":
            return False
        now = monotonic()
        self.failed_by.append(self._attempt(reason, resource, detail, now))
        self._leave_target(reason, resource, now)
        self.give_up(now)
        self._forget_answer()
        self.choice = None
        self.reason = ""
        self.resource = ""
        self._estimate_tokens()
        return True

    # -- how targets do -----------------------------------------------------------------------------------------------

    def refused(self, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        choice = self.choice
        if choice is not None and resource == choice.gate.resource:  # the circuit of one model at a key, if of any
            self.fail(reason, resource, detail, retry_after_s)
        else:
            super().refused(reason, resource, detail, retry_after_s)

    def connect_failed(self, reason: str, pool: Pool) -> None:
        choice = self.choice
        if choice is not None and REASONS[reason].fault == "U":
            now = monotonic()
            choice.gate.failed(reason, now, now)
        super().connect_failed(reason, pool)

    def blame(self, pool: Pool, reason: str) -> None:
        choice = self.choice
        if choice is not None and not self._begun and reason in _TARGET_FAILS:
            choice.gate.failed(reason, self.sent_at, monotonic())
        super().blame(pool, reason)

    # -- a target -----------------------------------------------------------------------------------------------------

    def _turn_to(self, choice: Choice, now: float) -> None:
        """Put the request into the words of a target, and wait for a place there."""
        try:
            body = self._words_for(choice)
        except Unmappable as error:
            self.choice = choice
            self._turns += 1
            while self._turns < len(self._order) and not self.bill.affords(self._order[self._turns], now):
                self._turns += 1
            if self._turns < len(self._order):  # another one may know the word
                self._turn_to(self._order[self._turns], now)
            else:
                self._refuse(error.param, error.message)
            return
        self._wait_for(choice, body, now)

    def _wait_for(self, choice: Choice, body: bytes, now: float) -> None:
        """Wait for a place at a target, in whose words `body` is."""
        self.choice = choice
        self._turns += 1
        self.bill.turn_to(choice)
        self.route = self.models.by(choice.upstream)
        self.sent_body = body
        self.queued_at = now
        estimate = self.bill.estimate_of(choice)
        if estimate is not None:
            self.claim = Claim(estimate)
            gate = choice.gate
            if not gate.try_acquire(self, now):
                self.size_bytes = len(self.sent_body)
                gate.offer(self, now)
                return
        super().enter(now)

    def _words_for(self, choice: Choice) -> bytes:
        """The body in the words of a target. Raises: Unmappable."""
        try:
            return self._said_to(choice)
        except (TypeError, RecursionError) as error:
            # orjson reads four times as deep as it writes.
            if "ecursion" in str(error):
                raise Unmappable("", TOO_DEEP) from None
            raise

    def _words_or_none(self, choice: Choice) -> bytes:
        """The same; empty: it cannot be told."""
        try:
            return self._words_for(choice)
        except Unmappable:
            return b""

    def _said_to(self, choice: Choice) -> bytes:
        operation = self.operation
        peek = self.peek
        assert operation is not None
        assert peek is not None
        if operation.dialect == choice.dialect and self.prompt is None:
            self.dropped = []  # of a target before
            if operation.dialect == ANTHROPIC:
                body = without_foreign_thoughts(self.body, choice.model, self.dropped)
                return with_model(body, peek, choice.model, False)
            if not choice.no_stream_options:
                return with_model(self.body, peek, choice.model, operation.dialect == OPENAI)
            body = self.body if peek.stream_options is None else without_stream_options(self.body)
            return with_model(body, peek, choice.model, False)
        losses = Losses(self.models.strict)
        what = self._asked
        if what is None:
            what = self._asked = speech.asked(operation, self.body)
        body = speech.words(choice.dialect, what, choice.model, losses, choice.max_tokens)
        self.dropped = losses.dropped
        return without_stream_options(body) if choice.no_stream_options else body

    def begin(self, up: UpstreamConnection, now: float) -> None:
        super().begin(up, now)
        up.expire_after(now, self.first_byte_s(up))

    def send(self, up: UpstreamConnection, now: float) -> None:
        """Write the request in the words of its target."""
        choice = self.choice
        plan = self.plan
        assert choice is not None
        self._stage = SENT
        if choice.budget is not None and not self._is_again:
            choice.budget.request(now)
        self.write_to(up, choice, self.sent_body, now)
        hedge = None if plan is None else plan.hedge
        if hedge is not None and self._clock is None and self._turns < self._most_turns():
            after_s = hedge.after_s()
            if after_s < NEVER:
                self._clock = clock = HedgeClock(self)
                self.down.shard.fine_wheel.schedule(clock, now + after_s)

    def write_to(self, up: UpstreamConnection, choice: Choice, body: bytes, now: float) -> None:
        """Write a request with this body on a connection to one of the targets."""
        operation = self.operation
        assert operation is not None
        path = speech.path_of(choice.dialect, operation, choice.model, self._streams)
        if choice.query:
            path += (b"&" if b"?" in path else b"?") + choice.query
        request = (
            b"POST ",
            choice.path,
            path,
            b" HTTP/1.1\r\nHost: ",
            up.pool.host or choice.upstream.host,
            b"\r\n",
            choice.head,
            self._passed_on(choice),
            b"content-length: %d\r\nx-request-id: " % len(body),
            self.request_id,
            b"\r\n",
            self.trace_lines(up, now),
            b"\r\n",
            body,
        )
        write_at_once(up.transport, b"".join(request), up.pool.tls)

    # -- a second target ----------------------------------------------------------------------------------------------

    def ask_second(self, now: float) -> None:
        """The first event is late: ask the next target as well, if it has room."""
        plan = self.plan
        first = self.choice
        if self.ended or self._begun or self.up is None or self._second is not None or plan is None or first is None:
            return
        if self._is_for_nobody() or self._turns >= self._most_turns():
            return
        order = self._order
        turns = self._turns
        dropped = self.dropped
        for choice in order[turns:]:
            is_other = choice.upstream is not first.upstream
            if is_other and choice.is_open(now) and choice.has_room(now) and self.bill.affords(choice, now):
                body = self._words_or_none(choice)
                if body:
                    break
        else:
            return
        if not self._takes_budget(first, now):
            self.dropped = dropped
            return
        second = ModelHedge(self, choice, body, self.dropped, self._streams, now)
        self.dropped = dropped
        self._second = second
        if second.start(self.bill.estimate_of(choice), now):
            self.bill.turn_to(choice)
            # It has had its turn: if the first one fails, it is not asked once more.
            self._order = [*order[:turns], choice, *[one for one in order[turns:] if one is not choice]]
            self._turns = turns + 1
            self.hedged = "lost"
            self.hedged_with = choice.name
            if self._budget is not None:
                self._budget.hedges += 1
        else:
            self._second = None

    def second_won(self, second: ModelHedge, incoming: Incoming, out: bytes, now: float) -> None:
        """Its first event is here before that of the other; `out` goes to the client."""
        if self._second is not second or self._begun:
            second.cancel(now)
            return
        self._second = None
        self.hedged = "won"
        self.hedged_with = self._target()
        self._only_second()
        if self._budget is not None:
            self._budget.hedges_won += 1
        self._let_claim_go("upstream_timeout", now)  # it was too late
        self.leave_upstream()
        self.leave_route(self.models.by(second.choice.upstream), now)
        self.claim = second.claim
        second.claim = None
        self.choice = second.choice
        self.sent_body = second.body
        self.dropped = second.dropped
        second.exchange = None
        self.go_on_with(second)
        self.first_byte_at = now
        self._incoming = incoming
        self._answer_kind = incoming.head.body_kind
        up = self.up
        if up is not None:
            self._taken(up, incoming, out, 0, now)

    def _only_second(self) -> bool:
        """Has the first target failed before? Then the second one's answer is the only one, come or given up."""
        left = self._left_alone
        if left is None:
            return False
        self._left_alone = None
        self.failed_by.append(left[0])
        return True

    def second_lost(self, second: ModelHedge, tried: Attempt) -> None:
        """The first target is the only one again; `tried`: what has become of the second one."""
        if self._second is second:
            self._second = None
            self.failed_by.append(tried)
            left = self._left_alone
            if left is not None:
                first, retry_after_s = left
                self.fail(first.reason, first.resource, first.detail, retry_after_s)

    def _leave_to_second(self, reason: str, resource: str, detail: str, retry_after_s: float) -> bool:
        """The first target has failed, but another one is at work: wait for it. Returns: False if none is."""
        if self._second is None or REASONS[reason].fault == "C" or self.down.closing:
            return False
        now = monotonic()
        self._left_alone = (self._attempt(reason, resource, detail, now), retry_after_s)
        self._leave_target(reason, resource, now)
        self.give_up(now)
        self._forget_answer()
        return True

    def _attempt(self, reason: str, resource: str, detail: str, now: float) -> Attempt:
        """The present target, as it has failed, or has no room."""
        left = self._left_alone
        if left is not None:  # of which nothing is left but this
            self._left_alone = None
            return left[0]
        incoming = self._incoming
        status = 0 if incoming is None else incoming.head.status
        return Attempt(self._target(), reason, resource, detail, status, now - (self.queued_at or now))

    def _leave_target(self, reason: str, resource: str, now: float) -> None:
        """The present target has failed, or has no room: it is not asked any more."""
        self.reason = reason
        self.resource = resource
        up = self.up
        if up is not None:
            self.blame(up.pool, reason)
        self._drop_upstream()
        self._let_claim_go(reason, now)

    def _takes_budget(self, choice: Choice, now: float) -> bool:
        """May a request that `choice` has had be sent once more, somewhere? If so, it counts there."""
        budget = choice.budget
        if budget is None:
            return True
        self._count_no_more()
        if not budget.take(now, choice.upstream.in_flight()):
            return False
        self._budget = budget
        return True

    def _count_no_more(self) -> None:
        budget = self._budget
        if budget is not None:
            self._budget = None
            budget.ended()

    def _passed_on(self, choice: Choice) -> bytes:
        """Field lines of the client that mean something to a target of its own dialect."""
        operation = self.operation
        if operation is None or operation.dialect != ANTHROPIC or choice.dialect != ANTHROPIC:
            return b""
        beta = self.listed(b"anthropic-beta")
        return b"anthropic-beta: " + beta + b"\r\n" if beta else b""

    def first_byte_s(self, up: UpstreamConnection) -> float:
        """A stream's first event is soon there; a whole answer takes as long as its last one."""
        return self.models.first_s if self._streams else up.pool.upstream.first_byte_s

    def is_replayable(self) -> bool:
        return not self._begun and not self.down.closing

    def _first_event(self, now: float) -> None:
        """From now on it is this target's answer."""
        self._begun = True
        self.first_event_at = now
        if self.choice is not None:
            self.choice.gate.pauses.answered(now)
        up = self.up
        if self._beginnings and self.choice is not None and up is not None:
            served = f"{self.choice.name}\n{up.pool.name}"
            self.bill.till.affinity.served(self._beginnings, served, now)
        second = self._second
        if second is not None:
            self._second = None
            second.cancel(now)
        plan = self.plan
        if plan is not None and plan.hedge is not None:
            plan.hedge.answered(now - (self.queued_at or now), now)
        if self.tries is not None:
            self.tries.answered(self, now)
        if self._transcript is None:
            self.let_body_go()
            self.sent_body = b""

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def _fail_by(self, failed: Failed, now: float, body: bytes = b"") -> None:
        """The target has answered with an error."""
        up = self.up
        choice = self.choice
        if up is None or choice is None:
            return
        verdict = judge(choice.without_secrets(failed))
        if verdict.reason:
            reason = verdict.reason
            wait_s = self._tell_gate(choice, reason, body, told(failed, failed.message), now)
            self._whole_connection(now)
            fails = reason == "upstream_overloaded" or (
                reason == "upstream_error" and (failed.status >= 500 or has_no_model(failed))
            )
            if not self._begun and (fails or (reason in _TARGET_FAILS and self.up is None)):
                choice.gate.failed(reason, self.sent_at, now)  # or `blame` does
            self.fail(reason, up.pool.resource, verdict.detail, wait_s)
            return
        # The client's own doing: he is told in his own words, whoever has found out.
        if failed.code == errors.TOO_LONG and self._goes_longer(choice, up.pool.resource, now):
            return
        operation = self.operation
        assert operation is not None
        failed.message = failed.message or verdict.detail
        if self._head_sent:
            if self._begun:  # whatever it is called: it was good enough to begin with
                self._end_cut("upstream_error", failed, now)
            else:
                self.reason = "model_request_invalid"
                self.resource = self.own_resource()
                self._end_cut("", failed, now)
            return
        body = errors.encode_error(operation.dialect, failed, self.request_id.decode("latin-1"))
        self.status = errors.status_of(operation.dialect, failed)
        self._settle(now)
        self.param = failed.param
        self.reason = "model_request_invalid"
        self.resource = self.own_resource()
        self._send(self.status, body)
        self._complete(now)

    def _tell_gate(self, choice: Choice, reason: str, body: bytes, said: str, now: float) -> float:
        """What a provider's refusal means for others who are on their way to it. Returns: the wait that it asks for;
        UNKNOWN: it does not."""
        gate = choice.gate
        if reason == "upstream_quota" or reason == "upstream_auth":
            gate.disable_key(reason == "upstream_auth", now, said=said)
            return gate.pause_s(now)
        incoming = self._incoming
        heard = None if incoming is None else hear(incoming.head.raw, time())
        if reason == "upstream_rate_limit":
            wait_s = retry_in_body(body)
            if wait_s > 0.0 and (heard is None or heard.retry_after_s <= 0.0):
                heard = heard or Heard()
                heard.retry_after_s = wait_s
            gate.heard(heard, 429, now, None if self._begun else self.claim)
            return gate.pause_s(now)
        if heard is not None and heard.retry_after_s >= 0.0:
            return heard.retry_after_s
        return UNKNOWN

    def _whole_connection(self, now: float) -> None:
        """A refusal has come to its end: its connection is good for others."""
        up = self.up
        incoming = self._incoming
        if up is None or incoming is None or not incoming.is_done:
            return
        self.let_go(up)
        if up.transport.get_write_buffer_size():
            up.discard()
        else:
            self._read_for_next(up)
            up.pool.release(up, now)

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = UNKNOWN, policy: str = "") -> None:
        if self.ended:
            return
        if reason in _SAID and detail and self.choice is not None:
            self.choice.gate.pauses.tell_failed(reason, detail, monotonic())
        if (
            self._stage != COLLECT
            and not self._begun
            and reason not in _STAYS
            and (
                self._leave_to_second(reason, resource, detail, retry_after_s)
                or self._go_on(reason, resource, detail)
                or self._counts_itself(reason, resource, detail)
            )
        ):
            return
        if reason == _TOO_LARGE:
            before = self._kept_by_before()
            if before is not None:
                reason, resource, detail = before.reason, before.resource, before.detail
                soonest_s = self._soonest_s(NEVER)
                retry_after_s = UNKNOWN if soonest_s >= NEVER else soonest_s
        if self._head_sent:
            if REASONS[reason].status:
                self.reason = reason
                self.resource = resource
                self.detail = detail
                self._end_cut(reason, failed_of(reason, detail, self.param), monotonic())
                return
        if reason in _RESTS:
            retry_after_s = self._soonest_s(retry_after_s)
        elif reason in OF_OPERATORS:  # our key's pause is no time to come again: somebody has to do something first
            retry_after_s = self._soonest_other_s()
        super().fail(reason, resource, detail, retry_after_s, policy)

    def _kept_by_before(self) -> Attempt | None:
        """What the last target is too small for another one may do later: what has kept that from it. None: there is
        none, or somebody has to do something first."""
        for one in reversed(self.failed_by):
            if REASONS[one.reason].fault != "C" and one.reason not in OF_OPERATORS:
                return one
        return None

    def _goes_longer(self, choice: Choice, resource: str, now: float) -> bool:
        """The window of this target's model is too small for the request: ask the next one, if the model has it so.
        Returns: False if that is not so, or nobody is left."""
        plan = self.plan
        if plan is None or not plan.goes_longer or self._begun or self._second is not None:
            return False
        turns = self._turns
        order = self._order
        self._whole_connection(now)
        # Another key is no help.
        self._order = [*order[:turns], *[one for one in order[turns:] if one.target != choice.target]]
        return self._ask_next("model_request_invalid", resource, "", False, now)

    def _go_on(self, reason: str, resource: str, detail: str) -> bool:
        """Ask the next target, as this one has failed or has no room. Returns: False if there is none."""
        if REASONS[reason].fault == "C" and (reason != _TOO_LARGE or self.choice is None):
            return False  # what is too large for this target may not be for the next one
        return self._ask_next(reason, resource, detail, self.attempts > 0, monotonic())

    def _ask_next(self, reason: str, resource: str, detail: str, takes_budget: bool, now: float) -> bool:
        """`takes_budget`: it is a failure of what was sent, of which so many may be sent once more."""
        order = self._order
        most = self._most_turns()
        turns = self._next_open(self._turns, now)
        if turns >= most and reason == _TOO_LARGE:  # whoever rests will be back, and may take it
            turns = self._next_open(self._turns, now, True)
        if turns >= most or not self._turns or self.down.closing or self._is_for_nobody():
            return False
        first = self.choice
        if takes_budget and self.sent_at and first is not None and not self._takes_budget(first, now):
            self._tries().second_reason = "retry_budget_exhausted"
            return False
        body = self._words_or_none(order[turns])
        while not body:  # it does not know a word of the request: no mistake of the client's, as another one knows it
            turns = self._next_open(turns + 1, now)
            if turns >= most:
                self._count_no_more()
                return False
            body = self._words_or_none(order[turns])
        self._is_again = True
        self._turns = turns
        self.failed_by.append(self._attempt(reason, resource, detail, now))
        self._leave_target(reason, resource, now)
        self._forget_answer()
        choice = order[turns]
        self.leave_route(self.models.by(choice.upstream), now)
        self._wait_for(choice, body, now)
        return True

    def _most_turns(self) -> int:
        """How many may be asked, a hedge among them."""
        return min(len(self._order), self.models.attempts)

    def _next_open(self, turns: int, now: float, waits: bool = False) -> int:
        """Whose turn it is from this one on: who is not left alone (`waits`: or will be back of itself), and not too
        dear for what is left of a budget."""
        order = self._order
        while turns < len(order):
            choice = order[turns]
            may_be = choice.returns_s(now) < NEVER if waits else choice.is_open(now)
            if may_be and self.bill.affords(choice, now):
                break
            turns += 1
        return turns

    def _soonest_s(self, wait_s: float) -> float:
        """When one of the targets can be asked again, if all rest; `wait_s` is that of the present one."""
        now = monotonic()
        for choice in self._order:
            rests_s = choice.returns_s(now)
            if 0.0 < rests_s < wait_s:
                wait_s = rests_s
        return wait_s

    def _soonest_other_s(self) -> float:
        """When a target can be asked that needs no operator; 0.0: it was only not asked, or has failed. NEVER: there is
        none that knows what is asked for, and can be paid."""
        now = monotonic()
        soonest_s = NEVER
        dropped = self.dropped
        for choice in self._order:
            rests_s = choice.returns_s(now)
            if rests_s < soonest_s and self.bill.affords(choice, now) and (self._begun or self._words_or_none(choice)):
                soonest_s = rests_s
        self.dropped = dropped
        return soonest_s

    def _let_claim_go(self, reason: str, now: float) -> None:
        """The present target is not the one that answers, for this reason: what has it used?"""
        claim = self.claim
        choice = self.choice
        if claim is None or choice is None:
            return
        usage = self._given_up(reason, now)
        if usage is None:
            claim.give_back(now, self.sent_at > 0.0)
        else:
            claim.settle(usage, choice.tariff.of_usage(usage), now)

    def _forget_answer(self) -> None:
        """Nothing of a target's answer is of use."""
        self._answer_kind = -1
        self._incoming = None

    def _end_cut(self, reason: str, failed: Failed, now: float) -> None:
        """The stream cannot go on: say so in the client's dialect, and end it. `reason`: empty: it is his doing."""
        operation = self.operation
        assert operation is not None
        up = self.up
        incoming = self._incoming
        if reason:
            self.reason = reason
            if not self.resource and up is not None:
                self.resource = up.pool.resource
            if up is not None:
                self.blame(up.pool, reason)
        self._drop_upstream()
        if self.choice is not None:
            self.choice.without_secrets(failed)
        out = incoming.cut(failed) if self._begun and incoming is not None else b""
        out = out or errors.encode_stream_error(operation.dialect, failed, self.request_id.decode("latin-1"))
        if self._transcript is not None:
            self._transcript.add(out)
        if self.head.minor:
            out = chunk(out) + LAST_CHUNK
        self.down.transport.write(out)
        self._end(now)
        self.down.exchange_done(self, now)

    def no_answer(self) -> None:
        up = self.up
        if up is None:
            return
        incoming = self._incoming
        if incoming is not None and incoming.stopped:  # only HTTP's own end is missing
            up.reusable = False
            self._all_came(incoming, monotonic())
            return
        models = self.models
        upstream = up.pool.upstream
        if self._begun:
            late = f"no token came for {models.between_s:g} s"
        elif self._streams:
            late = f"no token came within {models.first_s:g} s"
        elif incoming is not None:
            late = f"no more of the answer came for {upstream.body_s:g} s"
        else:
            late = f"no answer came within {upstream.first_byte_s:g} s"
        self.fail("upstream_timeout", up.pool.resource, late)

    def answer_stalled(self) -> None:
        self.no_answer()

    def upstream_ended(self, clean: bool) -> None:
        up = self.up
        if up is None:
            return
        now = monotonic()
        incoming = self._incoming
        if incoming is not None and (incoming.stopped or (clean and incoming.ends_with_connection())):
            up.reusable = False
            self._all_came(incoming, now)
            return
        reason = "upstream_truncated"
        if incoming is None:
            reason = "upstream_tls_failed" if up.refused else "upstream_reset"
        self.blame(up.pool, reason)
        self.up = None
        up.exchange = None
        what = "before its answer" if incoming is None else "within its answer"
        self.fail(reason, up.pool.resource, f"the provider closed the connection {what}")

    def ends_with_fin(self) -> bool:
        # Who asks for models closes a connection in one piece: it is how all SDKs cancel a stream, and between two
        # tokens nothing else tells of it.
        return True

    def must_reset(self) -> bool:
        return self._head_sent and self.head.minor == 0

    # -- the client leaves --------------------------------------------------------------------------------------------

    def client_gone(self) -> None:
        if not self._goes_on("client_gone"):
            super().client_gone()

    def stalled(self) -> None:
        if not self._goes_on("client_stalled"):
            super().stalled()

    def _goes_on(self, reason: str) -> bool:
        """The client has left. Returns: whether the answer is read on: others wait for it; or what has been paid for is
        read to its end, for what it says of its usage."""
        if self.ended or self._left_as:
            return False
        now = monotonic()
        share = self._share
        drain_s = self.models.drain_s
        if share is not None and share.go_on_without_client(now):
            drain_s = NEVER
        elif not drain_s or (self.up is None and self._second is None):
            return False
        self._left_as = self.reason = reason
        if self.answer_started:
            self._left_status = self.status
        self.resource = self.down.settings.resource
        self.deadline_at = min(self.deadline_at, now + drain_s)
        self.down = self.down.detach(self)
        self.down.shard.left.add(self)
        up = self.up
        if up is not None:
            up.transport.resume_reading()
        return True

    def _is_for_nobody(self) -> bool:
        """The client has left, and nobody shares the answer: it is read on for its usage only."""
        share = self._share
        return self._left_as != "" and (share is None or not share.is_followed())

    def _is_wanted(self) -> bool:
        """Is the answer read on for others, although this client does not take it? As far as what waits for it is
        bounded."""
        share = self._share
        return share is not None and share.may_lag(int(self.down.transport.get_write_buffer_size()))

    def _read_for_next(self, up: UpstreamConnection) -> None:
        if self._is_held and not up.lost:  # or for one who shares the answer
            up.transport.resume_reading()
        else:
            super()._read_for_next(up)

    def _read_on(self) -> None:
        if not self._is_held:
            super()._read_on()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, now: float) -> None:
        if self.ended:
            return
        pulse = self._pulse
        if pulse is not None:
            self._pulse = None
            pulse.exchange = None
            self.down.shard.wheel.remove(pulse)
        clock = self._clock
        if clock is not None:
            self._clock = None
            clock.exchange = None
            self.down.shard.fine_wheel.remove(clock)
        second = self._second
        if second is not None:
            self._second = None
            if self._only_second():
                self.choice = second.choice
                self.sent_at = second.sent_at
            second.cancel(now)
        self._count_no_more()
        self._settle(now)
        plan = self.plan
        if self._transcript is not None and plan is not None:
            self.bill.log(self.request_id, plan.name, self.body, self._transcript.text())
        share = self._share
        if share is not None:
            self._share = None
            share.end(self.reason not in _OWN_END, now)
        if self._left_as:
            self.down.shard.left.discard(self)
            self.status = self._left_status
            self.reason = self._left_as
        super()._end(now)
        if self.degraded is not None or (self.failed_by and any(one.has_failed() for one in self.failed_by)):
            self.down.shard.keep(self)
        self.let_body_go()
        self.sent_body = b""
        self._asked = None
