"""A conversation with a model in no dialect: what a request asks, what an answer says, what a stream tells bit by bit.

Every dialect is translated to these and from these, so n dialects need 2 n translators and not n x n. They hold what at
least two dialects can say; what only one of them knows is kept in `Request.extra` under that dialect's own name for it,
and an encoder that cannot say it calls `Losses.lose`, which refuses or notes it.

Invariants
- Arguments of tools are JSON text, as models write them: they may be cut, and are never parsed on the way through
  unless a dialect wants an object.
- `Usage.input` is all input, from caches or not; `cached` and `cache_write` are parts of it. `reasoning` is a part of
  `output`. (OpenAI's sense; Anthropic's `input_tokens` is without both parts.)
- A stream is Start, then for each part PartStart, deltas of its kind, PartEnd, strictly one after the other and counted
  from 0; then Finish; then the stream ends. Failure may come instead of anything, and is the last. Ping may come at any
  time. Usage in Start is what is known by then (perhaps nothing), in Finish it is final, or -1 where it was not told.

Source: shared reference, llm.md 4; the official SDKs' types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

# Kinds of parts.
TEXT: Final = 0
IMAGE: Final = 1
DOCUMENT: Final = 2
TOOL_USE: Final = 3
TOOL_RESULT: Final = 4
THINKING: Final = 5
REFUSAL: Final = 6
"""What the model says when it declines, where a dialect keeps that apart from text."""
OTHER: Final = 7
"""What only the client's dialect can say, as it came: calls of a provider's own tools, files by their id."""

# Why an answer ended.
STOP_END: Final = "end"
STOP_SEQUENCE: Final = "sequence"
STOP_LENGTH: Final = "length"
STOP_TOOL: Final = "tool"
STOP_REFUSAL: Final = "refusal"
STOP_PAUSE: Final = "pause"
"""Anthropic's pause_turn: the turn goes on if it is sent again."""
STOP_CONTEXT: Final = "context"
"""The window of the model is full."""

UNKNOWN: Final = -1
"""A number of tokens that nobody has told."""
BYTES_PER_TOKEN: Final = 4
"""Of text, about. Bytes and not characters: scripts that take three bytes for a character take about a token for it."""
MAX_TOKENS: Final = 10**9
"""Of one request; no model takes so many."""


class Unmappable(Exception):
    """A request says what the other dialect cannot, and its route is strict; or it makes no sense in its own.

    Always the caller's fault: 400, with the name of the parameter.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


_NUMBERS: Final = re.compile(r"\[\d+\]")


class Losses:
    """What was dropped on the way from one dialect to another."""

    def __init__(self, strict: bool) -> None:
        self.strict: bool = strict
        self.dropped: list[str] = []
        """Parameters of the client's dialect, each once: for x-edgeq-dropped."""

    def lose(self, param: str, message: str = "") -> None:
        """`param` cannot be said; with its place in each list, "messages[3].name", which a refusal names.

        Raises: Unmappable if that is not allowed.
        """
        if self.strict:
            raise Unmappable(param, message or f"{param} cannot be said to the model's provider")
        if "[" in param:
            param = _NUMBERS.sub("", param)
        if param not in self.dropped:
            self.dropped.append(param)


@dataclass
class Part:
    """A piece of a message. Which attributes count depends on `kind`."""

    kind: int
    text: str = ""
    """TEXT, THINKING, REFUSAL: what it says. DOCUMENT of text/plain: the document itself, in place of data."""
    id: str = ""
    """TOOL_USE, TOOL_RESULT: of the call."""
    name: str = ""
    """TOOL_USE: of the tool. TOOL_RESULT: the same, where it is known (Gemini needs it). DOCUMENT: of the file."""
    arguments: str = ""
    """TOOL_USE: JSON text; empty for none."""
    media_type: str = ""
    """IMAGE, DOCUMENT: "image/png", "application/pdf"."""
    data: str = ""
    """IMAGE, DOCUMENT: base64. THINKING: the provider's signature, or what it has encrypted."""
    url: str = ""
    """IMAGE, DOCUMENT: in place of data."""
    parts: list[Part] = field(default_factory=list)
    """TOOL_RESULT: texts, images."""
    is_error: bool = False
    """TOOL_RESULT."""
    detail: str = ""
    """IMAGE: OpenAI's low, high, auto. THINKING: "redacted" if data is encrypted thought."""
    cache: bool = False
    """The provider is asked to cache everything up to here (Anthropic's cache_control)."""
    raw: dict[str, Any] | None = None
    """OTHER: as it came, with its "type"."""
    place: str = field(default="", compare=False)
    """Where it stands in the client's request, "messages[3].content[1]": for errors."""


@dataclass
class Message:
    """One turn. `role`: "system" (developer, too), "user" or "assistant"; results of tools are the user's."""

    role: str
    parts: list[Part]
    name: str = ""
    place: str = field(default="", compare=False)
    """As that of a part: "messages[3]"."""


@dataclass
class Tool:
    """A function that the model may call. `parameters`: its JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    cache: bool = False
    raw: dict[str, Any] | None = None
    """What is no function but the provider's own (web search), as it came, with its "type"; of the rest only the name
    counts then."""
    place: str = field(default="", compare=False)
    """As that of a part: "tools[3]"."""


@dataclass
class Request:
    """A request for an answer. None: the client has not said it."""

    model: str
    messages: list[Message] = field(default_factory=list)
    """Systems' turns too, in the client's order."""
    stream: bool = False
    wants_usage: bool = False
    """The client has asked for the usage of a stream; of other answers it is always told."""
    max_tokens: int | None = None
    temperature: float | None = None
    """0 to 2, as OpenAI counts."""
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    tool_choice: str = ""
    """"auto", "none", "any", "tool" (the one that is named); empty: not said."""
    tool_name: str = ""
    parallel_tools: bool | None = None
    response_format: str = ""
    """"json" (any object), "schema"; empty: text."""
    schema_name: str = ""
    schema: dict[str, Any] | None = None
    schema_strict: bool = False
    effort: str = ""
    """none, minimal, low, medium, high, xhigh, max: how much it shall think."""
    thinking_tokens: int | None = None
    """The same as a number of tokens; 0: it shall not; -1: as many as it likes."""
    user: str = ""
    service_tier: str = ""
    """auto, default, flex, priority."""
    n: int = 1
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """By the client's name: what only its dialect can say. An encoder of the same dialect writes it back; every other
    one calls `Losses.lose` for each. A name with a dot ("messages[3].content[1].citations") is of something deeper,
    which is not kept: every encoder calls it lost."""
    dialect: str = ""
    """The client's: whose names those of `extra` are, and whose OTHER parts and raw tools."""


@dataclass(init=False)  # whose own __init__ stays interpreted, and each request has three of these
class Usage:
    """Tokens; see the invariants above. UNKNOWN where nobody has told."""

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int

    def __init__(
        self,
        input: int = UNKNOWN,  # noqa: A002 - as the attribute is called
        output: int = UNKNOWN,
        cached: int = 0,
        cache_write: int = 0,
        reasoning: int = 0,
    ) -> None:
        self.input = input
        self.output = output
        self.cached = cached
        self.cache_write = cache_write
        self.reasoning = reasoning

    def or_else(self, input_tokens: int, output_tokens: int) -> Usage:
        """The same, with these numbers where nobody has told any."""
        if self.input >= 0 and self.output >= 0:
            return self
        return Usage(
            self.input if self.input >= 0 else input_tokens,
            self.output if self.output >= 0 else output_tokens,
            self.cached,
            self.cache_write,
            self.reasoning,
        )

    def bound(self) -> Usage:
        """Take no number beyond reason: providers' are not ours, and all sums of them have to fit 64 bits. Returns
        itself."""
        # Not by min() and max(), which are calls when compiled.
        if self.input > MAX_TOKENS:
            self.input = MAX_TOKENS
        elif self.input < 0:
            self.input = UNKNOWN
        if self.output > MAX_TOKENS:
            self.output = MAX_TOKENS
        elif self.output < 0:
            self.output = UNKNOWN
        self.cached = _part(self.cached)
        self.cache_write = _part(self.cache_write)
        self.reasoning = _part(self.reasoning)
        return self


def _part(told: int) -> int:
    if told < 0:
        return 0
    return told if told < MAX_TOKENS else MAX_TOKENS  # noqa: FURB136 - a call when compiled


@dataclass
class Answer:
    """A whole answer."""

    id: str
    model: str
    """As the provider calls it."""
    parts: list[Part]
    stop: str = STOP_END
    stop_sequence: str = ""
    usage: Usage = field(default_factory=Usage)
    created: int = 0
    """Unix seconds; 0: not told."""
    service_tier: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def written(self) -> int:
        """About how many tokens the model has written: for when nobody tells."""
        return sum([utf8_bytes(part.text) + utf8_bytes(part.arguments) for part in self.parts]) // BYTES_PER_TOKEN


def utf8_bytes(text: str) -> int:
    """How many bytes a text has."""
    return len(text) if text.isascii() else len(text.encode())


# -- events of a stream -----------------------------------------------------------------------------------------------

START: Final = 0
PART_START: Final = 1
DELTA: Final = 2
PART_END: Final = 3
FINISH: Final = 4
PING: Final = 5
FAILURE: Final = 6


class Event:
    """One event. Native and flat: a stream has thousands."""

    __slots__ = ("id", "index", "kind", "model", "name", "part", "stop", "stop_sequence", "text", "usage")

    def __init__(self, kind: int, index: int = 0, part: int = TEXT, text: str = "") -> None:
        self.kind: int = kind
        self.index: int = index
        """Of the part, PART_START to PART_END."""
        self.part: int = part
        """Its kind, PART_START to PART_END: TEXT, THINKING, REFUSAL, TOOL_USE, IMAGE."""
        self.text = text
        """DELTA: more text, or more of a tool's arguments; an image in base64, at once. FAILURE: what went wrong, for
        people."""
        self.id = ""
        """START: of the answer. PART_START: of the tool's call. DELTA of THINKING: its signature, alone."""
        self.name = ""
        """START: of the service tier, as `Answer.service_tier`. PART_START: of the tool; of an image its media type; of
        THINKING "redacted", if all that comes is encrypted thought, as its signature. FAILURE: the kind of error, as
        `Failed.kind`."""
        self.model = ""
        """START."""
        self.stop = ""
        """FINISH: STOP_..."""
        self.stop_sequence = ""
        self.usage: Usage | None = None
        """START, FINISH."""


# -- errors -----------------------------------------------------------------------------------------------------------

INVALID: Final = "invalid"
AUTHENTICATION: Final = "authentication"
BILLING: Final = "billing"
"""The account has no money, or no quota, left."""
PERMISSION: Final = "permission"
NOT_FOUND: Final = "not_found"
TOO_LARGE: Final = "too_large"
RATE: Final = "rate"
OVERLOADED: Final = "overloaded"
TIMEOUT: Final = "timeout"
INTERNAL: Final = "internal"
BROKEN: Final = "broken"
"""What a provider has sent as its stream is no answer. It is our word, not the provider's."""


@dataclass
class Failed:
    """An error in no dialect: of a provider, or of edgeq itself."""

    status: int
    kind: str
    """INVALID.. above."""
    message: str
    """In the words of who has failed; empty: there are none."""
    code: str = ""
    """Of the provider ("context_length_exceeded"), or edgeq's reason ("queue_full")."""
    param: str = ""
    unit: str = ""
    """RATE: of what there is no more, "requests" or "tokens"; empty: not told."""
    is_within: bool = False
    """It came within an answer of 200: nobody has sent `status`, it is what the kind of error would have."""
    details: str = ""
    """Anthropic's, an object as JSON: its SDK acts on it. Empty: there are none."""
