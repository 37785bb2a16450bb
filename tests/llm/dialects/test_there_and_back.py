"""What is said in a dialect and read again is the same; through another dialect, too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.conformance.document import ANSWERS, REQUESTS, STREAMS
from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.message import (
    DELTA,
    FAILURE,
    FINISH,
    PART_END,
    PART_START,
    START,
    Answer,
    Event,
    Losses,
    Request,
    Unmappable,
)
from tests.llm.dialects.conversations import answers, plain, plain_answer, requests, streams, told

WAYS = [("openai",), ("anthropic",), ("openai", "anthropic"), ("anthropic", "openai")]
JSON = st.recursive(
    st.sampled_from([None, True, False, -1, 0, 7, 2**63 - 1, 0.5, "", "x", "text"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text"]), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@given(requests())
def test_requests(way: tuple[str, ...], request_: Request) -> None:
    """Nothing is lost on the way, not even in strict mode."""
    said = request_
    said.dialect = way[0]
    for dialect in way:
        said = DIALECTS[dialect].decode_request(DIALECTS[dialect].encode_request(said, Losses(strict=True), 1))
    assert plain(said) == plain(request_)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@given(answers())
def test_answers(way: tuple[str, ...], answer: Answer) -> None:
    """Whole ones."""
    said = answer
    for dialect in way:
        said = DIALECTS[dialect].decode_answer(DIALECTS[dialect].encode_answer(said, None))
    assert plain_answer(said) == plain_answer(answer)


def decoded(dialect: str, stream: bytes, cuts: list[int]) -> list[Event]:
    """A stream's events, if its bytes come in pieces."""
    decoder = DIALECTS[dialect].decoder()
    edges = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    return [event for start, end in pairwise(edges) for event in decoder.feed(stream[start:end])] + decoder.end()


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@given(streams(), st.lists(st.integers(0, 10_000), max_size=5))
def test_streams(way: tuple[str, ...], events: list[Event], cuts: list[int]) -> None:
    """Event by event, cut anywhere."""
    said = events
    for dialect in way:
        encoder = DIALECTS[dialect].encoder("m", True, 33, 7)
        said = decoded(dialect, encoder.encode(said) + encoder.keepalive() + encoder.end(), cuts)
    assert told(said) == told(events)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@given(streams(), st.integers(1, 10_000))
def test_a_stream_that_is_cut(dialect: str, events: list[Event], at: int) -> None:
    """It never looks complete: it fails, unless all but its last words have come."""
    encoder = DIALECTS[dialect].encoder("m", True, 33, 7)
    all_but_finish = encoder.encode(events[:-1])
    finish = encoder.encode(events[-1:]) + encoder.end()
    stream = all_but_finish + finish
    said = decoded(dialect, stream[: at % len(all_but_finish + b"x")], [])
    assert said[-1].kind == FAILURE
    assert decoded(dialect, stream, [])[-1].kind == FINISH
    assert [event.kind for event in decoded(dialect, stream, [])].count(FINISH) == 1


@given(st.data())
def test_calls_that_come_in_turn(data: st.DataObject) -> None:
    """Pieces of several calls in any order, each call's own in theirs: one part after the other, and whole."""
    texts = data.draw(st.lists(st.sampled_from(['{"a":1}', '{"b":{"c":"}"}}', "{}", ""]), min_size=1, max_size=4))
    pieces: dict[int, list[str]] = {}
    for index, text in enumerate(texts):
        at = data.draw(st.integers(0, len(text)))
        pieces[index] = [piece for piece in (text[:at], text[at:]) if piece]
    order = data.draw(st.permutations([index for index in pieces for _ in pieces[index]]))
    chunks = [call(index, "", f"c{index}") for index in pieces]
    seen = dict.fromkeys(pieces, 0)
    for index in order:
        chunks.append(call(index, pieces[index][seen[index]]))
        seen[index] += 1
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    events = decoded("openai", b"".join(chunks) + end, [])
    expected: list[tuple[int, ...]] = [(START, 0)]
    for index, text in enumerate(texts):
        expected += [(PART_START, index), *([(DELTA, index)] if text else []), (PART_END, index)]
    assert [row[:2] if row[0] in (PART_START, DELTA, PART_END) else (START, 0) for row in told(events)[:-1]] == expected
    assert [row[3] for row in told(events) if row[0] == DELTA] == [text for text in texts if text]


def call(index: int, arguments: str, call_id: str = "") -> bytes:
    """A chunk with a piece of a call."""
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id:
        piece |= {"id": call_id, "function": {"name": "f", "arguments": arguments}}
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}) + b"\n\n"


def spoiled(value: Any, data: st.DataObject) -> Any:
    """The same with something else in one place."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 4)):
        name = data.draw(st.sampled_from(sorted(value)))
        return {**value, name: spoiled(value[name], data)}
    if isinstance(value, (list, tuple)) and value and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [spoiled(one, data) if index == at else one for index, one in enumerate(value)]
    return data.draw(JSON)


@given(st.data())
def test_a_spoiled_request(data: st.DataObject) -> None:
    """It is translated, or refused with a parameter: nothing else."""
    table = data.draw(st.sampled_from(REQUESTS))
    row = data.draw(st.sampled_from(table.rows))
    body = orjson.dumps(spoiled({**table.base, **row.example}, data))
    try:
        request = DIALECTS[table.source].decode_request(body)
        made = DIALECTS[table.target].encode_request(request, Losses(strict=False), 10)
    except Unmappable:
        return
    assert isinstance(orjson.loads(made), dict)


@given(st.data())
def test_a_spoiled_answer(data: st.DataObject) -> None:
    """It is translated, or no answer at all."""
    table = data.draw(st.sampled_from(ANSWERS))
    row = data.draw(st.sampled_from(table.rows))
    body = orjson.dumps(spoiled({**table.base, **row.example}, data))
    try:
        answer = DIALECTS[table.source].decode_answer(body)
    except ValueError:
        return
    assert orjson.loads(DIALECTS[table.target].encode_answer(answer, None))


@given(st.data())
def test_a_spoiled_stream(data: st.DataObject) -> None:
    """It ends once, well or not."""
    table = data.draw(st.sampled_from(STREAMS))
    row = data.draw(st.sampled_from(table.rows))
    stream = b"".join(
        b"data: " + (b"[DONE]" if "" in event else orjson.dumps(spoiled(event, data))) + b"\n\n"
        for event in row.before + row.example
    )
    events = decoded(table.source, stream, [])
    assert events[-1].kind in (FINISH, FAILURE)
    assert [event.kind for event in events if event.kind in (FINISH, FAILURE)] == [events[-1].kind]
    encoder = DIALECTS[table.target].encoder("m", True, 1, 1)
    assert encoder.encode(events)
    assert encoder.finished == (events[-1].kind == FINISH)
    assert encoder.finished or not encoder.end()
