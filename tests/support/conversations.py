"""Requests, answers and streams by chance, of what every dialect can say."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from edgeq.llm.message import (
    DELTA,
    FINISH,
    IMAGE,
    PART_END,
    PART_START,
    START,
    STOP_END,
    STOP_LENGTH,
    STOP_REFUSAL,
    STOP_TOOL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Answer,
    Event,
    Message,
    Part,
    Request,
    Tool,
    Usage,
)

texts = st.text(min_size=1, max_size=20)
names = st.text("abcdefgh_", min_size=1, max_size=8)
_arguments = st.dictionaries(names, st.one_of(st.integers(-9, 9), texts, st.booleans()), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A conversation that makes sense: the user begins, turns alternate, each call has its result in the next turn."""
    request = Request("m", wants_usage=True, stream=draw(st.booleans()))
    if draw(st.booleans()):
        request.messages.append(Message("system", [Part(TEXT, draw(texts))]))
    request.messages.append(Message("user", draw(st.lists(_user_parts, min_size=1, max_size=3))))
    for turn in range(draw(st.integers(0, 2))):
        calls = [_call(draw, f"call_{turn}_{number}") for number in range(draw(st.integers(0, 2)))]
        said = [Part(TEXT, draw(texts))] if draw(st.booleans()) or not calls else []
        request.messages.append(Message("assistant", said + calls))
        if calls:
            results = [Part(TOOL_RESULT, id=call.id, name=call.name, parts=[Part(TEXT, draw(texts))]) for call in calls]
            request.messages.append(Message("user", results))
        else:
            request.messages.append(Message("user", [Part(TEXT, draw(texts))]))
    request.max_tokens = draw(st.none() | st.integers(1, 9999))
    request.temperature = draw(st.none() | st.sampled_from((0.0, 0.5, 1.0)))
    request.top_p = draw(st.none() | st.sampled_from((0.25, 1.0)))
    for name in draw(st.lists(names, max_size=2, unique=True)):
        schema: dict[str, Any] = {"type": "object", "properties": {draw(names): {"type": "string"}}}
        request.tools.append(Tool(name, draw(st.text(max_size=9)), schema))
    if request.tools:
        request.tool_choice = draw(st.sampled_from(("auto", "none", "any", "tool")))
        if request.tool_choice == "tool":
            request.tool_name = request.tools[0].name
    return request


_user_parts = st.one_of(
    st.builds(lambda text: Part(TEXT, text), texts),
    st.just(Part(IMAGE, media_type="image/png", data="AAAA")),
)


def _call(draw: st.DrawFn, call_id: str) -> Part:
    return Part(TOOL_USE, id=call_id, name=draw(names), arguments=orjson.dumps(draw(_arguments)).decode())


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """A whole answer; neighbouring parts are of different kinds, but for calls."""
    parts: list[Part] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from((TEXT, THINKING, TOOL_USE)), max_size=4))):
        if kind == TOOL_USE:
            parts.append(_call(draw, f"call_{number}"))
        elif not parts or parts[-1].kind != kind:
            parts.append(Part(kind, draw(texts)))
    stop = draw(st.sampled_from((STOP_END, STOP_LENGTH, STOP_REFUSAL)))
    if stop == STOP_END and any(part.kind == TOOL_USE for part in parts):
        stop = STOP_TOOL
    reasoning = draw(st.integers(0, 9))
    usage = Usage(draw(st.integers(0, 99)), reasoning + draw(st.integers(0, 99)), reasoning=reasoning)
    return Answer("a1", "m", parts, stop, usage=usage)


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """A text cut somewhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def streams(draw: st.DrawFn, answer: Answer) -> list[Event]:
    """The events that tell an answer."""
    start = Event(START)
    start.id, start.model = answer.id, answer.model
    told = [start]
    for index, part in enumerate(answer.parts):
        begin = Event(PART_START, index, part.kind)
        begin.id, begin.name = part.id, part.name
        told.append(begin)
        text = part.arguments if part.kind == TOOL_USE else part.text
        told += [Event(DELTA, index, part.kind, piece) for piece in draw(pieces(text))]
        told.append(Event(PART_END, index, part.kind))
    finish = Event(FINISH)
    finish.stop, finish.usage = answer.stop, answer.usage
    return [*told, finish]


def shown(event: Event) -> tuple[Any, ...]:
    """An event as what can be compared."""
    return (event.kind, event.index, event.part, event.text, event.id, event.name, event.model, event.stop, event.usage)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Bytes as they may come from a socket."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
