"""What a client asks of a model, until it is asked of a target: the request is read whole, and looked at.

    COLLECT --whole body--> who asks, by which key; which model; is the answer here, or on its way to somebody else?
        what it is expected to use is reserved of the limits of key, tenant, model --> PLACE: `_turn_to` a target

Here is also what the client gets that is no target's: heads of answers, refusals in the client's dialect, comments that
keep a stream alive; and the account, which is settled whoever ends the request.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.admission.ticket import DEFAULT, SHEDDABLE
from edgeq.cache.fields import fields_of
from edgeq.config.units import money
from edgeq.llm.affinity import beginnings_of
from edgeq.llm.attempt import Attempt, fields_kept
from edgeq.llm.cache_key import body_key, request_key
from edgeq.llm.degrade import Degraded, all_disabled, degrade
from edgeq.llm.dialects import errors
from edgeq.llm.estimate import input_tokens
from edgeq.llm.incoming import Incoming
from edgeq.llm.log_fields import log_fields
from edgeq.llm.measures import HIT, JOINED, OK, UNKNOWN_S
from edgeq.llm.message import Unmappable, Usage
from edgeq.llm.meter import MODEL
from edgeq.llm.models_list import list_body, model_body
from edgeq.llm.operation import (
    ANTHROPIC,
    CHAT,
    COUNT_TOKENS,
    MODELS,
    OPENAI,
    PATHS,
    PROMPT_OPERATION,
    Operation,
    methods_of,
    model_of,
    operation_of,
)
from edgeq.llm.plan import Choice, ModelPlan, with_room_first
from edgeq.llm.prompts import said
from edgeq.llm.pulse import COMMENT, Pulse
from edgeq.llm.requested import answers, output_tokens, requested
from edgeq.llm.saying import answer_start, failed_of
from edgeq.llm.shapes import Peek, StreamOptions
from edgeq.llm.sharing import STREAM, Share, Wish
from edgeq.llm.speech import Asked
from edgeq.llm.till import Bill
from edgeq.llm.transcript import Transcript
from edgeq.llm.unfinished import GIVEN_UP, used_until
from edgeq.policy.terms import PRIORITIES
from edgeq.reasons import REASONS
from edgeq.response.relay import Exchange
from edgeq.response.rescue import spoken
from edgeq.wire.errors import Refused
from edgeq.wire.framing import CHUNKED, LAST_CHUNK, ChunkedFramer, chunk
from edgeq.wire.head import field_value
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.llm.prompt_cache import PromptCache
    from edgeq.llm.prompts import Prompt
    from edgeq.llm.route import ModelRoute
    from edgeq.route.table import Route
    from edgeq.wire.head import RequestHead

COLLECT: Final = 0
PLACE: Final = 1
SENT: Final = 2
_MAX_FIELD: Final = 1000
"""Bytes of a field's value that lists what was dropped."""
_GIVEN: Final = (HIT, JOINED)
"""Answers that another request has paid for."""
_UNSAFE: Final = re.compile(rb"[^ -~]")
_REFUSED: Final = re.compile(rb"(?:^|;)\s*q\s*=\s*0(?:\.0*)?\s*(?:;|$)")
"""A weight of nothing, in what follows a media type."""


class ModelRequest(Exchange):
    """The part of an exchange that knows of no target. See `exchange.ModelExchange`."""

    __slots__ = (
        "_asked",
        "_beginnings",
        "_begun",
        "_chunks",
        "_collected",
        "_entered",
        "_given_by",
        "_head_sent",
        "_incoming",
        "_is_held",
        "_last_at",
        "_order",
        "_pulse",
        "_settled",
        "_share",
        "_stage",
        "_streams",
        "_transcript",
        "bill",
        "body",
        "cached",
        "choice",
        "cost_micro",
        "degraded",
        "dropped",
        "failed_by",
        "first_event_at",
        "hedged",
        "hedged_with",
        "models",
        "operation",
        "param",
        "peek",
        "plan",
        "prompt",
        "said_status",
        "usage",
    )

    def __init__(self, down: Downstream, head: RequestHead, route: Route, now: float, models: ModelRoute) -> None:
        super().__init__(down, head, route, now)
        self.models: ModelRoute = models
        self._stage: int = COLLECT
        self._entered: bool = False
        self._chunks: list[bytes] = []
        self._collected: int = 0
        """Bytes of the body that this worker holds for it."""
        self.body = b""
        self.operation: Operation | None = None
        self.peek: Peek | None = None
        self.plan: ModelPlan | None = None
        self._order: list[Choice] = []
        """Who is to be asked, in order."""
        self.choice: Choice | None = None
        self._asked: Asked | None = None
        """The request in no dialect, once it had to be taken apart."""
        self.dropped: list[str] = []
        self._incoming: Incoming | None = None
        """The answer of the present target."""
        self._head_sent: bool = False
        self._begun: bool = False
        self._streams: bool = False
        """A stream was asked for."""
        self._last_at: float = 0.0
        self._pulse: Pulse | None = None
        self.first_event_at: float = 0.0
        self.said_status: int = 0
        """Of the last answer of a provider; 0: there was none."""
        self.usage: Usage = Usage()
        self.bill: Bill = Bill(models.till, b"", down.number())
        self.param = ""
        """Of the request: what an error is about."""
        self.failed_by: list[Attempt] = []
        """Who else was asked in vain, and what became of it: for the log."""
        self.hedged = ""
        """What became of a second target that was asked as well: won, lost; empty: none was."""
        self.hedged_with = ""
        """Of these two the target whose answer was not taken."""
        self._share: Share | None = None
        """Its part in an answer that others may get as well."""
        self.cost_micro: int = 0
        """What it cost, in millionths of the currency."""
        self.degraded: Degraded | None = None
        """A smaller model than was asked for is to answer."""
        self._beginnings: list[int] = []
        """What its prompt begins with; empty: nobody would have cached it."""
        self._given_by = ""
        """Whose answer it gets by the cache: PROVIDER/MODEL."""
        self.cached = ""
        """What the cache has done: hit, joined, miss, bypass."""
        self.prompt: Prompt | None = None
        """Whose path it is."""
        self._settled: bool = False
        self._is_held: bool = False
        """Its client has left, and all who follow are behind: the upstream is not read."""
        self._transcript: Transcript | None = Transcript() if models.till.accounts.usage.log_prompts else None
        """What was answered, where accounts.log_prompts asks for it."""

        if head.fields.body_kind == CHUNKED:  # no target gets the client's chunks: what is in them counts
            self._request_framer = ChunkedFramer(True, False, down.settings.trailer_bytes)

    # -- the request ---------------------------------------------------------------------------------------------------

    def take_body(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            shard = self.down.shard
            self._collected += len(data)
            shard.collected += len(data)
            if 0 < shard.max_collected < shard.collected:
                shard.bodies_refused += 1
                raise Refused("memory_pressure", "bodies of requests for models fill what the gateway holds of them")
        if self.request_done and self._entered:
            # In a turn of its own: whoever gives us bytes is not prepared for our end.
            self.down.shard.call_soon(self._whole)

    def let_body_go(self) -> None:
        """It is of no use any more."""
        self.body = b""
        self._chunks = []
        self.down.shard.collected -= self._collected
        self._collected = 0

    def enter(self, now: float) -> None:
        if self._stage == COLLECT:
            self._entered = True
            if self.request_done:
                self._look(now)
            else:
                self._await_body()
            return
        super().enter(now)

    def _await_body(self) -> None:
        """The body is still to come: nobody has to send it who will not be answered, nor wait for a target's word."""
        head = self.head
        bill = self.bill
        reason = bill.identify(head)
        if reason:
            self.fail(reason, self.own_resource(), bill.detail)
        elif head.minor and not self.request_bytes and field_value(head, b"expect").lower() == b"100-continue":
            self.down.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _whole(self) -> None:
        if not self.ended:
            try:
                self._look(monotonic())
            except Exception as error:  # of our own
                self.end_by_defect(error)

    def _look(self, now: float) -> None:
        """The whole request is here: who asks for what?"""
        self._stage = PLACE
        head = self.head
        bill = self.bill
        bill.tenant = self.tenant
        chunks = self._chunks
        self.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        versions = self.models.prompts.versions(head.path)
        operation = PROMPT_OPERATION if versions else operation_of(head.path)
        self.operation = operation
        if operation is None:
            near = self.models.prompts.near(head.path)
            self.fail("no_route", self.own_resource(), f"there is nothing at this path; paths end with {PATHS}{near}")
            return
        reason = bill.identify(head)
        if reason:
            self.fail(reason, self.own_resource(), bill.detail)
            return
        if bill.account is not None:
            self.tenant = bill.tenant
            self.weight = bill.weight()
        if operation.kind == MODELS:
            self._list_models(model_of(head.path) or b"")
            return
        if head.method != b"POST" and not (versions and head.method == b"GET"):
            what = f"{operation.name} is asked for by POST"
            prompt = self.models.prompts.find(head.path, "") if versions else None
            if prompt is not None:
                what = f"the prompt {prompt.settings.name} is asked by POST, and described by GET"
            self.fail("method_refused", self.own_resource(), what)
            return
        try:
            if versions:
                if not self._fill_in(versions):
                    return
            else:
                self.peek = requested(operation.dialect, self.body)
        except Unmappable as error:
            coding = field_value(head, b"content-encoding").decode("latin-1")
            if coding and not error.param:  # it cannot have been read
                self._refuse("content-encoding", f"bodies that are compressed ({coding[:50]}) are not read: send JSON")
            else:
                self._refuse(error.param, error.message)
            return
        peek = self.peek
        assert peek is not None
        self._streams = peek.stream is True and operation.kind == CHAT
        plan = self._plan_of(peek.model)
        if plan is None:
            return
        if operation.kind == COUNT_TOKENS:
            self._count_tokens(plan, now)
            return
        self.plan = plan
        tries = field_value(head, b"x-stainless-retry-count")
        if tries:
            self.bill.tries = 0 if tries == b"0" else 1
            if tries != b"0" and self.priority == DEFAULT:
                self.priority = SHEDDABLE  # an SDK comes again by itself: behind those who come for the first time
        keepalive_s = self.models.keepalive_s
        if self._streams and keepalive_s:
            self._pulse = Pulse(self)
            down = self.down
            down.shard.wheel.schedule(self._pulse, now + keepalive_s)
        if not self._is_shared(plan, operation, now):
            self._pay(now)

    def _fill_in(self, versions: list[str]) -> bool:
        """The path is a prompt's: make its request. Returns: False if there is none to make. Raises: Unmappable."""
        query = self.head.query
        version = ""
        for pair in query[1:].split(b"&"):
            if pair.startswith(b"version="):
                version = pair[8:].decode("latin-1")
        prompt = self.models.prompts.find(self.head.path, version)
        if prompt is None:
            raise Unmappable("version", f"there is no version {version[:50]!r}; there are {', '.join(versions)}")
        if self.head.method == b"GET":
            self._send(200, prompt.description(versions))
            self.finish_here()
            return False
        self.prompt = prompt
        request = prompt.request(self.body)
        request.stream = prompt.settings.answer == "chat" and _accepts_stream(self.head)
        self._asked = Asked(request, None)
        self.peek = Peek(model=request.model, max_tokens=request.max_tokens, stream=request.stream)
        self.peek.stream_options = StreamOptions(include_usage=True)  # as in an answer that is whole
        self.priority = PRIORITIES[prompt.settings.priority.encode()]
        return True

    def _plan_of(self, name: str) -> ModelPlan | None:
        models = self.models
        name = name or models.default_model
        if not name:
            self._refuse("model", "the request names no model")
            return None
        plan = models.models.find(name)
        if plan is None or name not in models.names:
            self.param = "model"
            self.fail("model_not_found", self.own_resource(), f'there is no model "{name[:100]}" here')
            return None
        if not self.bill.may_use(plan.name, name):
            self.param = "model"
            self.fail("model_not_allowed", self.own_resource(), f'this key may not use "{name[:100]}"')
            return None
        return plan

    def _target(self) -> str:
        """Who is asked: PROVIDER/MODEL; empty: nobody yet."""
        choice = self.choice
        return "" if choice is None else choice.name

    def asks_of(self) -> list[str]:
        """See `Exchange`."""
        found = super().asks_of()
        plan = self.plan
        if plan is not None:
            found.append(f"model/{plan.name}")
        choice = self.choice
        if choice is not None:
            found.append(choice.gate.resource)
        return found

    def asks_as(self) -> str:
        """See `Exchange`."""
        account = self.bill.account
        return "" if account is None else f"{account.id} {account.name}".rstrip()

    def own_resource(self) -> str:
        """The route's."""
        return self.models.route.resource

    def _refuse(self, param: str, text: str) -> None:
        """The request itself makes no sense, or cannot be said to the target."""
        self.param = param
        told = f"{param}: {text}" if param and not text.startswith(param) else text
        self.fail("model_request_invalid", self.own_resource(), told)

    def _list_models(self, name: bytes) -> None:
        if self.head.method not in (b"GET", b"HEAD"):
            self.fail("method_refused", self.own_resource(), "models are listed by GET")
            return
        bill = self.bill
        models = self.models
        names = [one for one in models.names if bill.may_use(models.models.own_name(one), one)]
        is_anthropic = self._dialect() == ANTHROPIC
        one = name.decode("utf-8", "replace")
        if one and one not in names:
            self.param = "model"
            self.fail("model_not_found", self.own_resource(), f'there is no model "{one[:100]}" here')
            return
        self._send(200, model_body(one, is_anthropic) if one else list_body(names, is_anthropic))
        self.finish_here()

    # -- an answer that is known, or on its way ------------------------------------------------------------------------

    def _is_shared(self, plan: ModelPlan, operation: Operation, now: float) -> bool:
        """Is the answer here, or on its way to somebody else?"""
        cache = self.models.cache_of(self.prompt)
        if cache is None:
            return False
        wish = Wish(self.listed(b"cache-control"))
        key = self._cache_key(plan, operation, cache) if wish.takes_part else b""
        if not key and not wish.is_only_stored:
            self.cached = "bypass"
            self.answer_lines += b"x-edgeq-cache: bypass\r\n"
            return False
        stored = cache.look(key, now, wish.most_s) if key and wish.takes_known else None
        if stored is not None:
            self.cached = HIT
            self._given_by = stored.target
            self.answer_lines += stored.fields + b"x-edgeq-cache: hit\r\nage: %d\r\n" % stored.age_s(now)
            if stored.content_type == STREAM:
                self.pass_on(stored.body, now)
                self.end_shared(now)
            else:
                self.answer_shared(stored.body, now)
            return True
        if wish.is_only_stored:
            self._is_missed()
            self.fail("not_cached", self.own_resource(), "no answer to this request is stored, and no other is wanted")
            return True
        share = self._share = Share(self)
        if share.enter(cache, key, wish.takes_known):
            share.more(now)
            return True
        self._is_missed()
        return False

    def _cache_key(self, plan: ModelPlan, operation: Operation, cache: PromptCache) -> bytes:
        """What its answer is known by; empty: it is to be kept for nobody."""
        tenant = "" if cache.shares else self.tenant.decode("latin-1")
        prompt = self.prompt
        filled = self._asked
        if prompt is not None and filled is not None and filled.request is not None:
            return request_key(said(filled.request), f"{prompt.mark}/{self._streams}", plan.mark, tenant)
        what = f"{operation.dialect}/{operation.name}"
        if operation.dialect == ANTHROPIC:  # a beta may change the answer
            what += f"/{self.listed(b'anthropic-beta').decode('latin-1')}"
        return body_key(self.body, what, plan.mark, tenant)

    def listed(self, name: bytes) -> bytes:
        """The value of a field that is a list: of several lines all (RFC 9110 5.3), which is rare."""
        head = self.head
        value = field_value(head, name)
        if value or head.kept.lower().find(name) < 0:
            return value
        return fields_of(head.kept).get(name, b"")

    def _is_missed(self) -> None:
        """It asks for itself."""
        self.cached = "miss"
        self.answer_lines += b"x-edgeq-cache: miss\r\n"

    def is_given(self, about: bytes, target: str, degraded: Degraded | None) -> None:
        """What it gets is another one's answer, of `target`; `about` are field lines of its head."""
        if self.cached != JOINED:
            self.cached = JOINED
            self.degraded = degraded
            self._given_by = target
            self.answer_lines += about + b"x-edgeq-cache: joined\r\n"

    def pass_on(self, data: bytes, now: float) -> None:
        """Events of an answer that is not asked for by this exchange."""
        self._open_stream()
        if not self.first_event_at:
            self.first_event_at = now
        self._last_at = now
        self.answer_bytes += len(data)
        if self._transcript is not None:
            self._transcript.add(data)
        self.down.transport.write(chunk(data) if self.head.minor else data)

    def end_shared(self, now: float) -> None:
        """All of such a stream is written."""
        self._open_stream()
        if self.head.minor:
            self.down.transport.write(LAST_CHUNK)
        self.finish_here()

    def answer_shared(self, body: bytes, now: float) -> None:
        """A whole answer that was not asked for by this exchange."""
        self.first_event_at = now
        self._send(200, body)
        self.finish_here()

    def go_alone(self, now: float) -> None:
        """There is nobody to follow any more."""
        self._is_missed()
        try:
            self._pay(now)
        except Exception as error:  # of our own; whoever says so has no part in it
            self.end_by_defect(error)

    def hold_back(self) -> None:
        """Who follows is behind: do not read the upstream for now."""
        up = self.up
        if up is not None:
            self._is_held = True
            up.transport.pause_reading()
            up.expire_in(NEVER)

    def waits_for_another(self) -> bool:
        share = self._share
        return share is not None and share.seat is not None

    # -- what it may cost ----------------------------------------------------------------------------------------------

    def _pay(self, now: float, is_again: bool = False) -> None:
        """Reserve what it is expected to use, and ask the first target. `is_again`: another worker has taken what was
        left of a model's limit, after this one had seen that there is enough."""
        plan = self.plan
        peek = self.peek
        operation = self.operation
        assert plan is not None
        assert peek is not None
        assert operation is not None
        bill = self.bill
        bill.wants(self.body, output_tokens(peek), answers(peek), operation.kind == CHAT)
        asked = plan
        may_degrade = plan.degrade != "" and not is_again
        if plan.degrade:
            instead = degrade(bill, plan, self.models, now)
            if instead is not None:
                plan, self.degraded = instead
                self.plan = plan
        if not plan.choices:
            kept = all_disabled(plan)
            self.fail(kept.reason, kept.resource, kept.detail, NEVER)  # for how long nobody here knows
            return
        self._order = plan.order(now)
        if self.models.affinity:
            self._prefer(plan, now)
        order = self._order
        estimate = bill.expect(plan, order[0])
        self._order = with_room_first(order, estimate, now)
        prompt = self.prompt
        cost_micro = estimate.cost_micro
        refusal = bill.reserve(
            plan,
            self._order,
            self.models.route.name,
            self.models.limits,
            None if prompt is None else prompt.settings,
            now,
            has_other=may_degrade,
        )
        if refusal is not None:
            if may_degrade and refusal.meter.kind == MODEL:
                self.plan = asked
                self.degraded = None
                self._pay(now, True)
                return
            self.fail(refusal.reason(), refusal.resource(), refusal.detail, refusal.wait_s)
            return
        degraded = self.degraded
        if degraded is not None and degraded.meter is not None:
            degraded.meter.degrade(now)
        if self._order is not order or estimate.cost_micro < cost_micro:
            self._order = bill.paid_first(self._order, order, now)
        self._turn_to(self._order[0], now)

    def _prefer(self, plan: ModelPlan, now: float) -> None:
        """Turn to who has cached what its prompt begins with."""
        order = self._order
        if len(order) == 1 and len(order[0].upstream.members) < 2:
            return
        self._beginnings = beginnings_of(self.body, plan.name, self.models.affinity)
        known = self.bill.till.affinity.prefer(self._beginnings, now)
        if known:
            name, _, self.prefers = known.partition("\n")
            self._order = plan.prefer(order, name, now)

    def _about_tokens(self) -> int:
        """An estimate of the request's tokens: what is reserved for them, if it is reserved."""
        estimate = self.bill.estimate
        return input_tokens(self.body) if estimate is None else estimate.input

    # -- what the client gets ------------------------------------------------------------------------------------------

    def _open_stream(self) -> None:
        """Write the head of a stream, once."""
        start = self._stream_start()
        if start:
            self.down.transport.write(start)

    def _stream_start(self) -> bytes:
        """The head of a stream, to be written before all else; empty if it is."""
        if self._head_sent:
            return b""
        self._head_sent = True
        self.answer_started = True
        self.status = 200
        self.keep_alive = self.down.may_keep(self) and self.head.minor == 1
        return answer_start(200, -1, self._lines(), self.keep_alive, self.head.minor, self.request_id)

    def beat(self, now: float) -> None:
        """Nothing may have gone to the client for a while: say that we are still there."""
        pulse = self._pulse
        if self.ended or pulse is None:
            return
        keepalive_s = self.models.keepalive_s
        if now - self._last_at >= keepalive_s:
            self._open_stream()
            self._last_at = now
            if not self.down.write_blocked:
                self.down.transport.write(chunk(COMMENT) if self.head.minor else COMMENT)
        self.down.shard.wheel.schedule(pulse, self._last_at + keepalive_s)

    def _send(self, status: int, body: bytes) -> None:
        """Write a whole answer."""
        down = self.down
        self.status = status
        self.answer_started = True
        self.keep_alive = down.may_keep(self)
        self.answer_bytes = len(body)
        if self._transcript is not None:
            self._transcript.whole(body)
        head = answer_start(status, len(body), self._lines(), self.keep_alive, self.head.minor, self.request_id)
        down.transport.write(head if self.head.method == b"HEAD" else head + body)

    def _lines(self) -> bytes:
        """Field lines of the answer that say what edgeq has done with the request. What is left of the caller's limits
        is looked up only now: of a whole answer what it has used is known, and settled."""
        lines = self._own_lines(self._dialect(), monotonic()) + self._about()
        if self.models.tells_cost and (self._settled or self.cached in _GIVEN):
            lines += f"x-edgeq-cost: {money(self.cost_micro)}\r\n".encode()
        return lines

    def _own_lines(self, dialect: str, now: float) -> bytes:
        """Those of this client, also where he is refused. Anthropic's SDK knows a request's id by another name."""
        lines = self.answer_lines + self.bill.header_lines(dialect, now)
        return lines + b"request-id: " + self.request_id + b"\r\n" if dialect == ANTHROPIC else lines

    def _about(self) -> bytes:
        """Those that are about the answer, whoever gets it. The head that a comment needs cannot know it."""
        choice = self.choice
        is_ahead = self._head_sent and not self._begun
        lines = b"" if choice is None or is_ahead or not self.down.shard.forward.tells else choice.line
        degraded = self.degraded
        if degraded is not None and self.cached != JOINED:  # `about` has it
            lines = degraded.line + lines
        if self.dropped:
            lines += b"x-edgeq-dropped: " + _word(", ".join(self.dropped)) + b"\r\n"
        return lines

    def refusal(self, reason: str, resource: str, detail: str, retry_after_s: float, policy: str) -> bytes:
        operation = self.operation or operation_of(self.head.path)
        dialect = self._dialect()
        failed = failed_of(reason, detail, self.param)
        self.status = errors.status_of(dialect, failed)
        now = monotonic()
        self._settle(now)
        body = errors.encode_error(dialect, failed, self.request_id.decode("latin-1"))
        if self._transcript is not None:
            self._transcript.whole(body)
        allowed = b"allow: " + methods_of(operation) + b"\r\n" if self.status == 405 else b""
        forward = self.down.shard.forward
        return spoken(
            self.status,
            body,
            reason,
            forward.told(resource),
            detail,
            self.request_id,
            forward.node,
            self.keep_alive,
            self.head.method == b"HEAD",
            retry_after_s,
            allowed + self._own_lines(dialect, now),
        )

    def _dialect(self) -> str:
        """The client's. Of a path that two dialects have, or none, a field tells it that one of them always sends."""
        operation = self.operation or operation_of(self.head.path)
        if operation is None or operation.kind == MODELS:
            return ANTHROPIC if field_value(self.head, b"anthropic-version") else OPENAI
        return operation.dialect

    # -- the account ---------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Settle the account, once, whoever has ended it. A client that has got its answer may ask again at once, so it
        is settled before the last of it is written."""
        peek = self.peek
        plan = self.plan
        if peek is None or plan is None or self._settled:
            return
        self._settled = True
        usage = self.usage
        incoming = self._incoming
        written = 0
        if incoming is not None and incoming.is_stream():
            usage = incoming.usage()
            written = incoming.written()
        bill = self.bill
        claim = self.claim
        given_up = None if self._begun else self._given_up(self.reason, now)
        if not self._begun:
            usage = Usage() if given_up is None else given_up
        else:
            # A stream that was cut, or a provider that does not tell: what has been seen was paid for.
            estimate = bill.estimate
            if usage.input < 0 and estimate is not None:
                usage.input = estimate.input
            if usage.output < 0:
                usage.output = written
        usage.bound()
        self.usage = usage
        first_s = self.first_event_at - self.begun_at if self.first_event_at else -1.0
        sent = self.attempts > 0
        status = self.status
        if status < 400 and self.reason and REASONS[self.reason].fault != "C":
            status = REASONS[self.reason].status  # the head was sent, and then no more came
        seconds = now - self.begun_at
        if claim is not None:
            choice = self.choice
            if (self._begun or given_up is not None) and choice is not None:
                claim.settle(usage, choice.tariff.of_usage(usage), now)
            else:
                claim.give_back(now, self.sent_at > 0.0)
        # What a provider has failed is a failure there, whether or not it has had the request.
        is_refused = not sent and status >= 400 and (self.reason == "" or REASONS[self.reason].fault != "U")
        cost = bill.settle(
            plan.name, self.choice, usage, answers(peek), sent, status, seconds, first_s, is_refused, now
        )
        self.cost_micro = cost
        self.down.shard.measures.record(
            plan.name,
            self._target() if sent else self._given_by,
            bill.tenant.decode("latin-1") if bill.account is not None else "",
            usage,
            cost,
            first_s if self._streams else UNKNOWN_S,
            seconds,
            self.reason or (OK if status < 400 else "model_request_invalid"),  # the provider has found out
            self.cached,
            "chat" if self.operation is None else self.operation.name,
        )
        degraded = self.degraded
        if degraded is not None and (sent or self.cached == JOINED):  # else nobody was asked in its place
            self.down.shard.measures.degraded(degraded.asked, degraded.model, degraded.by.reason)

    def _given_up(self, reason: str, now: float) -> Usage | None:
        """What the present target has used of an answer that has not begun, and is not waited for any more. None:
        nothing, for what `reason` says, or because it was not sent."""
        estimate = self.bill.estimate
        if reason not in GIVEN_UP or estimate is None or self.sent_at <= 0.0:
            return None
        return used_until(estimate, self._incoming, self._streams, now - self.sent_at)

    def own_fields(self) -> bytes:
        """See `Exchange.own_fields`."""
        return log_fields(self)

    def kept_fields(self) -> bytes:
        degraded = self.degraded
        tried = fields_kept(self.failed_by) if self.failed_by else b""
        if degraded is None:
            return tried
        return f',"edgeq.degraded_detail":{quoted(degraded.by.detail)}'.encode("ascii") + tried

    # -- for who knows of targets -------------------------------------------------------------------------------------

    def _turn_to(self, choice: Choice, now: float) -> None:
        """Ask a target."""
        raise NotImplementedError

    def _count_tokens(self, plan: ModelPlan, now: float) -> None:
        """How many tokens the request has: by a target that can tell, or else about."""
        raise NotImplementedError

    def drop_unwanted(self) -> None:
        """Its client has left, and now all who followed have, too."""
        raise NotImplementedError


def _accepts_stream(head: RequestHead) -> bool:
    """Whether an Accept, which may have several lines, names event streams (RFC 9110 12.5.1); "q=0" is a no."""
    for line in head.raw.lower().split(b"\r\n"):
        if line.startswith(b"accept:"):
            for one in line[7:].split(b","):
                kind, _, parameters = one.partition(b";")
                if kind.strip() == STREAM and _REFUSED.search(parameters) is None:
                    return True
    return False


def _word(text: str) -> bytes:
    """What may stand in a field's value of `text`, in which a client's own words may be."""
    return _UNSAFE.sub(b"?", text[:_MAX_FIELD].encode("ascii", "replace"))
