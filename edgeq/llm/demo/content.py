"""What an answer says, in no dialect: the same request always gets the same answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from edgeq.llm.demo.behaviour import NEVER, Behaviour
from edgeq.llm.message import STOP_END, STOP_LENGTH, STOP_PAUSE, STOP_REFUSAL, STOP_SEQUENCE, STOP_TOOL

_TEXT: Final = (
    "The queue is where the truth of a system shows: what comes in, what goes out, and what has to wait. "
    "Measure its depth and its age, bound both, and say so when it is full; then come back when you were told to."
)
_WORDS: Final = _TEXT.split()
_STOPS: Final = {
    "length": STOP_LENGTH,
    "refusal": STOP_REFUSAL,
    "pause": STOP_PAUSE,
    "sequence": STOP_SEQUENCE,
}
REFUSED: Final = "I cannot help with that."
_DEEPEST: Final = 16
_DEEP: Final = 8
"""Of a made up value: the steps that are left. What may be nothing, or empty, is so from the second on."""
ANY_JSON: Final = {"type": "object", "properties": {"answer": {"type": "string"}}}
"""Where any object will do."""
CREATED: Final = 1_790_000_000
"""Unix seconds; the same request gets the same answer."""
_SAMPLES: Final[dict[str, object]] = {
    "string": "sample",
    "integer": 7,
    "number": 0.5,
    "boolean": True,
    "null": None,
}


@dataclass
class Tool:
    """A function of the request."""

    name: str
    schema: Any


@dataclass
class Ask:
    """What a request asks of the model, in no dialect."""

    model: str
    stream: bool = False
    input_tokens: int = 1
    max_tokens: int | None = None
    said: str = ""
    """The last text of the user."""
    tools: list[Tool] = field(default_factory=list)
    may_call: bool = True
    """Its last turn is no result of a tool, and calls are not forbidden."""
    must_call: str = ""
    """"*" for any tool, or the name of one."""
    parallel: bool = True
    include_usage: bool = False
    stop_sequences: list[str] = field(default_factory=list)
    choices: int = 1
    form: Any = None
    """The JSON Schema that the answer is to fit; None: it is free text."""


@dataclass
class Call:
    """A call of a tool."""

    id: str
    name: str
    arguments: Any


@dataclass
class Content:
    """One answer. Words have their spaces: joined they are the text."""

    key: str
    """Hexadecimal, for ids."""
    thoughts: list[str]
    words: list[str]
    calls: list[Call]
    stop: str
    stop_sequence: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached: int
    cache_write: int

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def thought(self) -> str:
        return "".join(self.thoughts)


def words(count: int) -> list[str]:
    """So many words of a text that goes on for ever."""
    size = len(_WORDS)
    return [(" " if index else "") + _WORDS[index % size] for index in range(count)]


def compose(ask: Ask, behaviour: Behaviour, body: bytes, key: str) -> Content:
    """The answer to `ask`. `key`: of this request, for ids."""
    thoughts = words(behaviour.think)
    calls = _calls(ask, behaviour, key)
    said = [] if calls else _said(ask, behaviour, body)
    stop = STOP_TOOL if calls else STOP_END
    room = ask.max_tokens
    if room is not None and len(thoughts) + len(said) > room:
        thoughts = thoughts[:room]
        said = said[: room - len(thoughts)]
        stop = STOP_LENGTH
    sequence = ""
    if behaviour.stop:
        stop = _STOPS[behaviour.stop]
        if stop == STOP_REFUSAL:
            said = _pieces(REFUSED)
        elif stop == STOP_SEQUENCE:
            sequence = ask.stop_sequences[0] if ask.stop_sequences else ""
    told = ask.input_tokens if behaviour.input == NEVER else behaviour.input
    called = sum(len(call.name) + len(str(call.arguments)) for call in calls) // 4
    output = (len(thoughts) + len(said) + called) * ask.choices
    cached = min(behaviour.cached, told)
    written = min(behaviour.cache_write, told - cached)
    return Content(key, thoughts, said, calls, stop, sequence, told, output, len(thoughts), cached, written)


def _said(ask: Ask, behaviour: Behaviour, body: bytes) -> list[str]:
    if behaviour.say == "echo":
        return _pieces(ask.said)
    if behaviour.say == "show":
        return _pieces(body.decode("utf-8", "replace"))
    if ask.form is not None:
        return _pieces(orjson.dumps(sample(ask.form)).decode())
    return words(behaviour.tokens)


def _pieces(text: str) -> list[str]:
    """`text` cut before its spaces; joined it is `text` again."""
    parts = text.split(" ")
    return [part if not index else " " + part for index, part in enumerate(parts)] if text else []


def _calls(ask: Ask, behaviour: Behaviour, key: str) -> list[Call]:
    wanted = behaviour.tools if ask.may_call else 0
    chosen = ask.tools
    if ask.must_call:
        wanted = max(1, wanted)
        chosen = [tool for tool in ask.tools if ask.must_call in ("*", tool.name)]
        if not ask.may_call:  # right after results: agents put last what ends them
            chosen = chosen[-1:]
    if not chosen:
        return []
    if not ask.parallel:
        wanted = min(wanted, 1)
    return [
        Call(f"{key[:10]}{index}", tool.name, sample(tool.schema))
        for index, tool in enumerate(chosen[index % len(chosen)] for index in range(wanted))
    ]


def sample(schema: Any) -> Any:
    """A value that fits a JSON Schema of the usual kinds; types may be written in capitals, as Gemini does."""
    return _sample(schema, schema, _DEEPEST)


def _sample(schema: Any, whole: Any, depth: int) -> Any:
    """`whole` has the definitions that are referred to. What refers to itself ends at some depth."""
    if not isinstance(schema, dict) or not depth:
        return {}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    found = _named(schema["$ref"], whole) if "$ref" in schema else None
    for name in ("allOf", "anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            found = schema[name][0]
            if depth <= _DEEP and {"type": "null"} in schema[name]:
                return None
    if found is not None:
        return _sample(found, whole, depth - 1)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    kind = str(kind).lower()
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: _sample(each, whole, depth - 1) for name, each in properties.items()}
    if kind == "array":
        return [] if depth <= _DEEP else [_sample(schema.get("items", {"type": "string"}), whole, depth - 1)]
    return _SAMPLES.get(kind)


def _named(reference: Any, whole: Any) -> Any:
    """What "#/$defs/City" refers to; None: nothing."""
    found = whole
    for name in str(reference).removeprefix("#").strip("/").split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found
