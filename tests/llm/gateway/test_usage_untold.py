"""A provider that tells no usage: the client is told what is booked for it, an estimate, where its dialect must name a
number."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.llm.gateway.support import CHAT, MESSAGES, RESPONSES, STREAM_HEAD, Stand, ask_for, events, framed, sse
from tests.support.raw_client import Answer
from tests.support.scripted_upstream import reply

TEXT = "twelve words " * 12
CALL: dict[str, Any] = {
    "index": 0,
    "id": "c",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": "of some length"}'},
}
WRITTEN = (len(TEXT) + len(CALL["function"]["arguments"])) // 4


def whole(body: dict[str, Any]) -> bytes:
    """An answer that is no stream."""
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)


def ask(stand: Stand, path: str, stream: bool, **more: object) -> tuple[Answer, dict[str, Any]]:
    """An answer without a usage. Returns: it, and its line of the log."""
    message = {"role": "assistant", "content": TEXT, "tool_calls": [CALL]}
    if stream:
        deltas = [{"content": TEXT}, {"tool_calls": [CALL]}, {}]
        choices = [{"index": 0, "delta": one, "finish_reason": None if one else "tool_calls"} for one in deltas]
        chunks = [{"choices": [one]} for one in choices]
        stand.play(reply(STREAM_HEAD + framed(sse(*chunks, "[DONE]")) + b"0\r\n\r\n"))
    else:
        stand.play(reply(whole({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})))
    said = {**ask_for("scripted", stream), **more}
    if path == RESPONSES:
        said = {"model": "scripted", "stream": stream, "input": "hi"}
    answer = stand.ask(said, path)
    assert answer.status == 200, answer
    return answer, stand.line_of(answer)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
def test_what_has_come_is_booked(stand: Stand, path: str, stream: bool) -> None:
    """Whole or streamed, passed or translated: a token for four bytes of what the model has written."""
    _, line = ask(stand, path, stream)
    written = line["gen_ai.usage.output_tokens"]
    assert WRITTEN <= written <= WRITTEN + 3, "a stream that passes counts escapes, too"
    assert line["gen_ai.usage.input_tokens"] > 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_all_choices_are_booked(stand: Stand, stream: bool, together: bool) -> None:
    """Who asks for three answers has three written, whether or not a chunk has a word of each."""
    count = 3
    key = "delta" if stream else "message"
    choices = [{"index": at, key: {"content": f"{at} {TEXT}"}, "finish_reason": "stop"} for at in range(count)]
    if stream:
        chunks = [{"choices": choices}] if together else [{"choices": [one]} for one in choices]
        stand.play(reply(STREAM_HEAD + framed(sse(*chunks, "[DONE]")) + b"0\r\n\r\n"))
    else:
        stand.play(reply(whole({"choices": choices})))
    answer = stand.ask(ask_for("scripted", stream, n=count))
    assert answer.status == 200, answer
    line = stand.line_of(answer)
    assert line["gen_ai.usage.output_tokens"] == count * (len(TEXT) + 2) // 4


def test_clients_of_messages_are_told_the_same(stand: Stand) -> None:
    """The dialect has numbers only: none of them is a nought that nobody means."""
    answer, line = ask(stand, MESSAGES, False)
    usage = json.loads(answer.body)["usage"]
    assert usage["output_tokens"] == line["gen_ai.usage.output_tokens"]
    assert usage["input_tokens"] > 1
    answer, line = ask(stand, MESSAGES, True)
    told = dict(events(answer.body))
    assert told["message_delta"]["usage"]["output_tokens"] == line["gen_ai.usage.output_tokens"]
    assert told["message_start"]["message"]["usage"]["input_tokens"] > 1


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_told_where_nothing_may_stand(stand: Stand, stream: bool) -> None:
    """Responses have no usage then."""
    answer, _ = ask(stand, RESPONSES, stream)
    response = events(answer.body)[-1][1]["response"] if stream else json.loads(answer.body)
    assert response["usage"] is None


def test_who_asks_for_the_usage_of_a_translated_stream(stand: Stand) -> None:
    """He is told what is booked, too: Anthropic's, of a provider that tells none."""
    data = (
        b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"%b"}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    ) % TEXT.encode()
    stand.play(reply(STREAM_HEAD + framed(data) + b"0\r\n\r\n"))
    answer = stand.ask({**ask_for("scripted-an", True), "stream_options": {"include_usage": True}})
    usage = events(answer.body)[-2][1]["usage"]
    assert usage["completion_tokens"] == len(TEXT) // 4
    assert usage["total_tokens"] == usage["completion_tokens"] + usage["prompt_tokens"]


def test_an_image_is_not_counted_by_its_bytes(stand: Stand) -> None:
    """Neither where the input is told before it is known, nor where no target can count it: as what is reserved."""
    image = {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}
    content = [{"type": "image", "source": image}, {"type": "text", "text": "what is it?"}]
    asked = {**ask_for("plain-oa", True), "messages": [{"role": "user", "content": content}]}
    told = dict(events(stand.ask(asked, MESSAGES).body))
    assert 85 <= told["message_start"]["message"]["usage"]["input_tokens"] < 3000
    del asked["stream"], asked["max_tokens"]
    answer = stand.ask(asked, f"{MESSAGES}/count_tokens")
    assert answer.get(b"x-edgeq-estimated") == b"true"
    assert 85 <= json.loads(answer.body)["input_tokens"] < 3000


@pytest.mark.parametrize(("path", "model"), [(MESSAGES, "scripted-an"), (CHAT, "scripted-an")])
def test_of_a_stream_that_is_cut_what_has_come_is_booked(stand: Stand, path: str, model: str) -> None:
    """Though Anthropic's streams begin with an output of one token."""
    begin = {
        "type": "message_start",
        "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}},
    }
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
    body = b"".join(
        b"event: %b\ndata: %b\n\n" % (str(one["type"]).encode(), json.dumps(one).encode())
        for one in (begin, block, delta)
    )
    stand.play(reply(STREAM_HEAD + framed(body) + b"0\r\n\r\n"))
    answer = stand.ask(ask_for(model, True), path)
    assert b"error" in answer.body
    line = stand.line_of(answer)
    assert line["error.type"] == "upstream_truncated"
    assert len(TEXT) // 4 <= line["gen_ai.usage.output_tokens"] <= len(TEXT) // 4 + 3
