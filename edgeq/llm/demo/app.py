"""A request -> how it is answered. No sockets, no clock: the time is told.

What a request asks does not depend on when it comes, so it is worked out once and kept; limits, counts and what shall
fail only so often are looked at each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final
from urllib.parse import parse_qs

import orjson

from edgeq.llm.demo import dialects, gemini_answer, limits, reply
from edgeq.llm.demo.behaviour import DEFAULT, NEVER, QUOTA, BadDirective, Behaviour, of_model, parse
from edgeq.llm.demo.checks import Refusal
from edgeq.llm.demo.content import CREATED, Ask, Content, compose
from edgeq.llm.demo.dialects import ANTHROPIC, GEMINI, OPENAI, Operation
from edgeq.llm.demo.frames import Frame
from edgeq.llm.demo.limits import Account, Accounts
from edgeq.llm.demo.reply import Plan
from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    TIMEOUT,
    TOO_LARGE,
    Failed,
)

MODELS: Final = ("demo", "demo-small", "demo-embedding")
_KINDS: Final = {
    401: AUTHENTICATION,
    402: BILLING,
    403: PERMISSION,
    404: NOT_FOUND,
    408: TIMEOUT,
    413: TOO_LARGE,
    429: RATE,
    503: OVERLOADED,
    504: TIMEOUT,
    529: OVERLOADED,
}
_MESSAGES: Final = {
    AUTHENTICATION: "Incorrect API key provided.",
    BILLING: "You exceeded your current quota, please check your plan and billing details.",
    PERMISSION: "Your organization has been disabled.",
    NOT_FOUND: "The model does not exist or you do not have access to it.",
    TIMEOUT: "The request timed out.",
    TOO_LARGE: "Request exceeds the maximum size.",
    RATE: "Rate limit reached. Please try again later.",
    OVERLOADED: "Overloaded",
    INVALID: "The request is wrong, as it was told to be.",
    INTERNAL: "The server had an error while processing your request. Sorry about that!",
}
_COMES_AGAIN: Final = (429, 503, 529)
_MAX_KNOWN: Final = 4096
_MAX_KNOWN_BODY: Final = 64 * 1024
"""Larger requests are worked out each time, so that memory stays bounded."""


@dataclass
class Options:
    """What the command line says."""

    behaviour: Behaviour = DEFAULT
    keys: frozenset[bytes] = frozenset()
    """Those that are accepted; empty: any, none too."""
    models: tuple[str, ...] = MODELS
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    slots: int = 0
    """Requests that are worked on at once, others wait; 0: all."""
    seed: int = 1


class Request:
    """One request, read whole. Fields that are not there are empty."""

    __slots__ = ("anthropic_version", "body", "directives", "key", "method", "path", "query")

    def __init__(self, method: bytes, path: bytes, query: bytes, body: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.key = b""
        """Of whatever field it came in."""
        self.anthropic_version = b""
        self.directives = b""
        """x-mock."""


@dataclass
class Reply:
    """A plan, with what belongs to this request alone."""

    plan: Plan
    lines: bytes = b""
    """More lines of the head."""
    account: Account | None = None
    """Whose `open` and `cancelled` it counts in."""
    delay_s: float = 0.0
    """Jitter."""
    works: bool = False
    """It takes a slot."""


@dataclass
class _Known:
    """A request that was understood before."""

    operation: Operation
    ask: Ask
    behaviour: Behaviour
    body: bytes
    content: Content | None
    array: bool = False
    """A stream that is no stream of events, but an array (Gemini's)."""
    direct: bytes = b""
    plans: dict[bool, Plan] = field(default_factory=dict)
    """By whether it fails."""


_TOO_LONG: Final = {
    OPENAI: "This model's maximum context length is {window} tokens. However, your messages have {tokens} tokens.",
    ANTHROPIC: "prompt is too long: {tokens} tokens > {window} maximum",
    GEMINI: "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({window}).",
}


class App:
    """The whole provider."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.accounts = Accounts(options.requests_per_minute, options.tokens_per_minute)
        self.running = 0
        self.waiting = 0
        """Both for vLLM's metrics, kept by the server."""
        self._known: dict[tuple[bytes, bytes, bytes, bytes], _Known] = {}
        self._count = 0
        self._random = random.Random(options.seed)

    def answer(self, request: Request, now: float, unix_s: float) -> Reply:
        """How to answer. now: monotonic seconds; unix_s: the date."""
        self._count += 1
        path = request.path.decode("latin-1")
        family = dialects.family_of(path, bool(request.anthropic_version))
        try:
            if request.method == b"GET":
                return self._get(path, request, family)
            found = dialects.find(path)
            if found is None:
                raise _unknown_url(request.method, path)
            operation, model = found
            family = operation.family
            if request.method != b"POST":
                raise Refusal(Failed(405, INVALID, f"Not allowed to {request.method.decode()} on {path}."))
            self._check_key(request, family)
            known = self._understand(request, operation, model)
            return self._perform(known, request, now, unix_s)
        except Refusal as refusal:
            return self._refused(family, refusal.failed, 0.0)

    # -- what is understood of a request ----------------------------------------------------------------------------

    def _understand(self, request: Request, operation: Operation, model: str) -> _Known:
        query = request.query if operation.family == GEMINI else b""
        name = (request.path, query, request.directives, request.body)
        known = self._known.get(name)
        if known is not None:
            return known
        if operation.family == ANTHROPIC and not request.anthropic_version:
            raise Refusal(Failed(400, INVALID, "anthropic-version: header is required"))
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            message = f"We could not parse the JSON body of your request: {error}."
            raise Refusal(Failed(400, INVALID, message)) from None
        if not isinstance(body, dict):
            raise Refusal(Failed(400, INVALID, "The body of your request is no JSON object."))
        ask = operation.read(body, model)
        if operation.streams is not None:
            ask.stream = operation.streams
        try:
            behaviour = of_model(ask.model, self.options.behaviour)
            behaviour = parse(request.directives.decode("latin-1"), behaviour)
        except BadDirective as error:
            raise Refusal(Failed(400, INVALID, str(error), param="model")) from None
        key = blake2b(repr(name).encode(), digest_size=12).hexdigest()
        known = _Known(operation, ask, behaviour, request.body, None)
        known.array = operation is dialects.STREAM and b"alt=sse" not in query
        if operation.direct is not None:
            known.direct = orjson.dumps(operation.direct(body, model))
        else:
            known.content = compose(ask, behaviour, request.body, key)
        if len(request.body) <= _MAX_KNOWN_BODY:
            if len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[name] = known
        return known

    # -- what comes of it -------------------------------------------------------------------------------------------

    def _perform(self, known: _Known, request: Request, now: float, unix_s: float) -> Reply:
        behaviour, family = known.behaviour, known.operation.family
        account = self.accounts.get(request.key, known.ask.model, now)
        tokens = 0 if known.content is None else known.content.input_tokens
        if 0 < behaviour.window < tokens:
            account.requests += 1
            said = _TOO_LONG[family].format(tokens=tokens, window=behaviour.window)
            raise Refusal(Failed(400, INVALID, said, "context_length_exceeded"))
        fails = self._fails(behaviour, account)
        if fails and behaviour.error:
            account.requests += 1
            status = 429 if behaviour.error == QUOTA else behaviour.error
            account.refused_429 += status == 429
            kind = BILLING if behaviour.error == QUOTA else _kind(status)
            if kind == BILLING and family == ANTHROPIC:
                status = 402
            wait_s = behaviour.retry_after if status in _COMES_AGAIN and kind != BILLING else 0.0
            refused = self._refused(family, Failed(status, kind, _MESSAGES[kind]), wait_s)
            refused.lines += self._limit_lines(family, account, now, unix_s)
            refused.plan.first_s = behaviour.latency
            refused.account = account
            return refused
        cost = self._cost(known) if known.operation.counts else 0
        short, wait_s = account.admit(cost, now)
        if short:
            per_minute = (account.requests_left if short == "requests" else account.tokens_left).per_minute
            message = (
                f"Rate limit reached for {known.ask.model} on {short} per min: Limit {per_minute}, "
                f"Requested {1 if short == 'requests' else cost}. "
                f"Please try again in {limits.go_duration(wait_s)}."
            )
            refused = self._refused(family, Failed(429, RATE, message, param=short), wait_s)
            refused.lines += self._limit_lines(family, account, now, unix_s)
            return refused
        plan = known.plans.get(fails)
        if plan is None:
            plan = known.plans[fails] = _plan(known, fails)
        made = Reply(plan, self._id_line(family), account, works=known.operation.counts)
        if self.accounts.limited:
            made.lines += self._limit_lines(family, account, now, unix_s)
        if behaviour.jitter:
            made.delay_s = self._random.uniform(0, behaviour.jitter)
        return made

    def _fails(self, behaviour: Behaviour, account: Account) -> bool:
        """Is it this one's turn to fail?"""
        if not behaviour.error and (behaviour.fail, behaviour.cut, behaviour.reset, behaviour.hang) == (NEVER,) * 4:
            return False
        if behaviour.times and account.failures >= behaviour.times:
            return False
        if behaviour.chance < 1 and self._random.random() >= behaviour.chance:
            return False
        account.failures += 1
        return True

    @staticmethod
    def _cost(known: _Known) -> int:
        content = known.content
        return known.ask.input_tokens if content is None else content.input_tokens + content.output_tokens

    def _check_key(self, request: Request, family: str) -> None:
        if not self.options.keys or request.key in self.options.keys:
            return
        if family == GEMINI:  # as it is there: no 401
            message = "API key not valid. Please pass a valid API key."
            raise Refusal(Failed(400, INVALID, message, gemini_answer.WRONG_KEY))
        message = "invalid x-api-key" if family == ANTHROPIC else _MESSAGES[AUTHENTICATION]
        raise Refusal(Failed(401, AUTHENTICATION, message))

    def _refused(self, family: str, failed: Failed, wait_s: float) -> Reply:
        lines = self._id_line(family)
        body = dialects.error_body(family, failed, wait_s, f"req_{self._count:012d}")
        if wait_s and family != GEMINI:  # there it stands in the body
            lines += limits.retry_lines(wait_s, exact=family == OPENAI)
        return Reply(reply.plain(failed.status, body), lines)

    def _id_line(self, family: str) -> bytes:
        if family == GEMINI:
            return b""
        return b"%b: req_%012d\r\n" % (b"request-id" if family == ANTHROPIC else b"x-request-id", self._count)

    def _limit_lines(self, family: str, account: Account, now: float, unix_s: float) -> bytes:
        if family == OPENAI:
            return limits.openai_lines(account, now)
        return limits.anthropic_lines(account, now, unix_s) if family == ANTHROPIC else b""

    # -- what is only read ------------------------------------------------------------------------------------------

    def _get(self, path: str, request: Request, family: str) -> Reply:
        if path == "/stats":
            return Reply(reply.plain(200, orjson.dumps(self.accounts.counts(), option=orjson.OPT_INDENT_2)))
        if path == "/metrics":
            return Reply(reply.plain(200, self._metrics(), b"text/plain; version=0.0.4; charset=utf-8"))
        if path == "/health":
            return Reply(reply.plain(200, b"{}"))
        _, models, name = path.partition("/models")
        if not models or (name and not name.startswith("/")):
            raise _unknown_url(request.method, path)
        self._check_key(request, family)
        if name:
            if name[1:] not in self.options.models:
                raise Refusal(Failed(404, NOT_FOUND, f"The model '{name[1:]}' does not exist."))
            return Reply(reply.plain(200, orjson.dumps(_model(family, name[1:]))), self._id_line(family))
        found = [_model(family, each) for each in self.options.models]
        if family == GEMINI:
            body: dict[str, object] = {"models": found}
        elif family == ANTHROPIC:
            body = {"data": found, "has_more": False, "first_id": found[0]["id"], "last_id": found[-1]["id"]}
        else:
            body = {"object": "list", "data": found}
        return Reply(reply.plain(200, orjson.dumps(body)), self._id_line(family))

    def _metrics(self) -> bytes:
        """What a balancer reads of vLLM; the use of its cache is that of its slots."""
        used = self.running / self.options.slots if self.options.slots else 0.0
        lines = ""
        for name, value in (
            ("vllm:num_requests_running", float(self.running)),
            ("vllm:num_requests_waiting", float(self.waiting)),
            ("vllm:gpu_cache_usage_perc", used),
            ("vllm:kv_cache_usage_perc", used),
        ):
            lines += f'# TYPE {name} gauge\n{name}{{engine="0",model_name="{self.options.models[0]}"}} {value}\n'
        return lines.encode()


def _model(family: str, name: str) -> dict[str, object]:
    if family == GEMINI:
        methods = ["generateContent", "streamGenerateContent", "countTokens", "embedContent"]
        return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}
    if family == ANTHROPIC:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2026-09-21T12:26:40Z"}
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "demo"}


def _plan(known: _Known, fails: bool) -> Plan:
    operation, ask, content, behaviour = known.operation, known.ask, known.content, known.behaviour
    if not fails:
        behaviour = replace(behaviour, fail=NEVER, cut=NEVER, reset=NEVER, hang=NEVER)
    if content is None or operation.whole is None or operation.events is None:
        return reply.whole(known.direct, behaviour, 0, b"")
    if not ask.stream:
        if behaviour.fail != NEVER:
            failed = Failed(500, INTERNAL, _MESSAGES[INTERNAL])
            return reply.plain(500, dialects.error_body(operation.family, failed, 0.0, ""))
        body = orjson.dumps(operation.whole(ask, content, behaviour))
        return reply.whole(body, behaviour, content.output_tokens, b"")
    frames = operation.events(ask, content, behaviour)
    kind = reply.EVENTS
    if known.array:
        frames, kind = gemini_answer.array(frames), reply.JSON

    def failure(index: int) -> Frame:
        return dialects.error_frame(operation, Failed(529, OVERLOADED, _MESSAGES[OVERLOADED]), index)

    return reply.stream(frames, behaviour, failure, kind, b"cache-control: no-cache\r\n")


def _kind(status: int) -> str:
    return _KINDS.get(status, INTERNAL if status >= 500 else INVALID)


def _unknown_url(method: bytes, path: str) -> Refusal:
    return Refusal(Failed(404, NOT_FOUND, f"Unknown request URL: {method.decode('latin-1')} {path}.", "unknown_url"))


def query_key(query: bytes) -> bytes:
    """The key that Gemini takes in the query."""
    found = parse_qs(query.removeprefix(b"?").decode("latin-1")).get("key", [""])
    return found[0].encode("latin-1")
