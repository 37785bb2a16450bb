"""Conversations, answers and streams that both dialects can say, for property tests; and their plain form, in which two
that mean the same are equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import strategies as st

from edgeq.llm.dialects.turns import split_system
from edgeq.llm.message import (
    DELTA,
    FINISH,
    IMAGE,
    PART_END,
    PART_START,
    PING,
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

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(lambda text: text + ".")
NAMES = st.sampled_from(["look", "find", "say_it"])
CLOSED = {"type": "object", "additionalProperties": False}
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{**CLOSED, "properties": {"a": {"type": "integer"}}, "required": ["a"]}, CLOSED]
)
"""As each provider takes them, even if it is strict."""
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | TEXTS | st.none(), max_size=2).map(
    lambda value: orjson.dumps({name: str(one) for name, one in value.items()}).decode()
)


def texts() -> st.SearchStrategy[Part]:
    """A text."""
    return TEXTS.map(lambda text: Part(TEXT, text))


IMAGES = st.sampled_from(
    [Part(IMAGE, media_type="image/png", data="AAAA"), Part(IMAGE, url="https://x.example/a.png")]
).map(replace)


@st.composite
def calls(draw: st.DrawFn, prefix: str) -> list[Part]:
    """Calls of tools with ids of their own."""
    number = draw(st.integers(0, 3))
    return [
        Part(TOOL_USE, id=f"{prefix}_{index}", name=draw(NAMES), arguments=draw(ARGUMENTS)) for index in range(number)
    ]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Turns of user and assistant, each call with its result, the user last."""
    messages: list[Message] = []
    system = draw(st.lists(texts(), max_size=2))
    if system:
        messages.append(Message("system", system))
    pending: list[Part] = []
    for turn in range(draw(st.integers(1, 3))):
        if turn:
            said = draw(st.lists(texts(), max_size=1))
            pending = draw(calls(f"call{turn}"))
            messages.append(Message("assistant", [*(said or texts_of("well")), *pending]))
        results = [Part(TOOL_RESULT, id=call.id, name=call.name, parts=[draw(texts())]) for call in pending]
        messages.append(Message("user", [*results, *draw(st.lists(texts() | IMAGES, min_size=1, max_size=2))]))
    return messages


def texts_of(text: str) -> list[Part]:
    """One text."""
    return [Part(TEXT, text)]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that each of the two dialects can say."""
    request = Request("model", draw(conversations()))
    request.stream = draw(st.booleans())
    request.max_tokens = draw(st.integers(1, 10_000))
    request.temperature = draw(st.none() | st.floats(0, 1))
    request.top_p = draw(st.none() | st.floats(0, 1))
    request.stop = draw(st.lists(TEXTS, max_size=2))
    request.user = draw(st.sampled_from(["", "ann"]))
    request.service_tier = draw(st.sampled_from(["", "auto", "default"]))
    request.effort = draw(st.sampled_from(["", "low", "medium", "high", "max"]))
    called = {part.name for message in request.messages for part in message.parts if part.kind == TOOL_USE}
    names = sorted(called | draw(st.sets(NAMES)))
    request.tools = [Tool(name, draw(st.sampled_from(["", "d"])), draw(SCHEMAS), draw(st.booleans())) for name in names]
    if names:
        request.tool_choice = draw(st.sampled_from(["auto", "any", "tool"]))
        request.parallel_tools = draw(st.none() | st.booleans())
        if request.tool_choice == "tool":
            request.tool_name = names[0]
    if draw(st.booleans()):
        request.response_format = "schema"
        request.schema_name = "answer"
        request.schema = draw(SCHEMAS)
        request.schema_strict = True
    return request


def plain(request: Request) -> Request:
    """With one turn for neighbours of a role, and without what only one of the dialects says."""
    system, turns = split_system(request)
    return replace(
        request,
        messages=[Message("system", system), *turns],
        dialect="",
        wants_usage=False,
        schema_name="",
        thinking_tokens=None,
    )


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """An answer that both dialects can say."""
    parts = [Part(THINKING, draw(TEXTS))] if draw(st.booleans()) else []
    parts += draw(st.lists(texts(), max_size=1))
    parts += draw(calls("call"))
    usage = Usage(draw(st.integers(50, 99)), draw(st.integers(9, 99)), *draw(st.tuples(*[st.integers(0, 9)] * 3)))
    has_calls = bool(parts) and parts[-1].kind == TOOL_USE
    stop = draw(st.sampled_from([STOP_TOOL, STOP_LENGTH] if has_calls else [STOP_END, STOP_LENGTH, STOP_REFUSAL]))
    return Answer("1", "model", parts, stop, usage=usage)


def plain_answer(answer: Answer) -> Answer:
    """Without what only one of the dialects says."""
    return replace(answer, id="", created=0, parts=[_with_arguments(part) for part in answer.parts])


def _with_arguments(part: Part) -> Part:
    return replace(part, arguments=part.arguments or "{}") if part.kind == TOOL_USE else part


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """The same as a stream, each text in pieces."""
    answer = draw(answers())
    events = [Event(START)]
    for index, part in enumerate(answer.parts):
        start = Event(PART_START, index, part.kind)
        start.id, start.name = part.id, part.name
        text = part.arguments if part.kind == TOOL_USE else part.text
        at = draw(st.integers(0, len(text)))
        pieces = [Event(DELTA, index, part.kind, piece) for piece in (text[:at], text[at:]) if piece]
        events += [start, *pieces, Event(PART_END, index, part.kind)]
    finish = Event(FINISH)
    finish.stop, finish.usage = answer.stop, answer.usage
    return [*events, finish]


def told(events: list[Event]) -> list[tuple[Any, ...]]:
    """What a stream says, however its texts are cut."""
    said: list[tuple[Any, ...]] = []
    for event in events:
        if event.kind == DELTA:
            if said[-1][0] == DELTA:
                said[-1] = (DELTA, event.index, event.part, said[-1][3] + event.text)
            else:
                said.append((DELTA, event.index, event.part, event.text))
        elif event.kind == FINISH:
            said.append((FINISH, event.stop, event.usage))
        elif event.kind in (PART_START, PART_END):
            said.append((event.kind, event.index, event.part, event.id, event.name))
        elif event.kind != PING:
            said.append((event.kind,))
    return said
