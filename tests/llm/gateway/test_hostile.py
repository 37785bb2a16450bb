"""Providers and clients that send what nobody should: it ends as an error that says so, of this request alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.llm.gateway.support import (
    BEGIN_ANTHROPIC,
    CHAT,
    MESSAGES,
    STREAM_HEAD,
    Stand,
    ask_for,
    events,
    framed,
    request,
    said,
    sse,
)
from tests.support.raw_client import Answer, Asked
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, reply

CLOSING_STREAM = STREAM_HEAD.replace(b"transfer", b"connection: close\r\ntransfer")


def whole(body: bytes, status: int = 200) -> bytes:
    """An answer of a provider."""
    fields = f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}"
    return f"HTTP/1.1 {status} X\r\n{fields}\r\n\r\n".encode() + body


NO_ANSWERS = [
    b"<html>Sign in, please</html>",
    b"",
    b"[]",
    b'"no"',
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b'{"choices":[',
    b'{"error":{"message":"overloaded","code":503}}',
    b'{"usage":null,"error":{"message":"overloaded","code":503}}',
    b'{"usage":{"prompt_tokens":1,"input_tokens":1},"error":{"message":"overloaded","code":503}}',
]


@pytest.mark.parametrize("body", NO_ANSWERS)
@pytest.mark.parametrize("model", ["scripted", "scripted-an"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_what_is_no_answer_is_not_passed_on(stand: Stand, body: bytes, model: str, path: str) -> None:
    """A provider says 200 and sends something else: the client gets an error and not that."""
    stand.play(reply(whole(body)))
    answer = stand.ask(ask_for(model), path)
    assert answer.status >= 500, answer
    assert json.loads(answer.body)["error"]["message"]
    stand.wait_idle()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_what_is_no_answer_does_not_win(stand: Stand, path: str) -> None:
    """A second target sends it while the first is late: the first one's answer is waited for."""
    for model in ("hedge-scripted", "hedge-scripted-an"):
        for body in NO_ANSWERS:
            stand.play(reply(whole(body)))
            answer = stand.ask(ask_for(model), path)
            assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"oa/mock/latency=600ms,tokens=5,tag=hedge")
    stand.wait_idle()


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_key_that_is_repeated_is_masked(stand: Stand, path: str, status: int) -> None:
    """Whatever it looks like: it is ours, and no client's business."""
    for model in ("scripted", "scripted-an"):
        key = f"sk-{model}"
        error = {"type": "api_error", "message": f"a word about {key}, please", "param": key, "code": key}
        stand.play(reply(whole(json.dumps({"type": "error", "error": error}).encode(), status)))
        answer = stand.ask(ask_for(model), path)
        assert answer.status >= 400
        assert status == 200 or b"a word about [key], please" in answer.body
        assert key.encode() not in answer.body
        assert not any(key.encode() in value for _, value in answer.headers)
    stand.wait_idle()


def ask_in_two(stand: Stand, asked: bytes, begin: bytes, rest: bytes) -> Answer:
    """A stream whose rest the provider sends when the client has its beginning."""
    stand.opened.clear()

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(CLOSING_STREAM + framed(begin))
        connection.wait(stand.opened)
        connection.send(framed(rest) + b"0\r\n\r\n")

    stand.play(answer)
    with stand.client() as client:
        client.send(asked)
        while not (b'"hi"' in client.received or b'"a"' in client.received):
            assert client.read_some(), bytes(client.received)
        stand.opened.set()
        (got,) = client.read_answers([Asked(b"POST")])
    return got


@pytest.mark.parametrize("end", [b"\n\n", b""])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_key_that_is_repeated_in_a_stream_is_masked(stand: Stand, path: str, end: bytes) -> None:
    """Also where all else of it is passed on as it came. Nothing follows the error that would make it complete."""
    for model in ("scripted", "scripted-an"):
        error: dict[str, Any] = {"message": f"a word about sk-{model}, please", "type": "server_error"}
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        kinds: list[dict[str, Any]] = [
            {"error": error},
            {"object": "error", **error},
            {"choices": [choice], "error": error},
            {"choices": [{**choice, "error": error}]},
        ]
        begin, last = sse(said("hi")), b"data: [DONE]\n\n"
        if model == "scripted-an":
            kinds = [{"type": "error", "error": error}]
            begin, last = BEGIN_ANTHROPIC, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        for told in kinds:
            name = b"id: 1\nevent: error\n" if "object" in told or "type" in told else b""
            data = name + b"data: " + json.dumps(told).encode() + end
            answer = ask_in_two(stand, request(ask_for(model, True), path), begin, data + last if end else data)
            assert stand.line_of(answer)["error.type"] == "upstream_error"
            assert f"sk-{model}".encode() not in answer.body, answer.body
            found = events(answer.body)
            assert found[-1][1]["error"]["message"] == "the provider's answer was an error: a word about [key], please"
            assert answer.body.count(b"a word about") == 1
            assert any('"hi"' in json.dumps(one) or '"a"' in json.dumps(one) for _, one in found[:-1])
    stand.wait_idle()


@pytest.mark.parametrize("depth", [300, 900, 5000, 100_000])
@pytest.mark.parametrize(
    "shape",
    [
        '{"error":@}',
        '{"choices":@}',
        '{"usage":@}',
        '{"content":@,"type":"message"}',
        '{"content":[{"type":"tool_use","id":"a","name":"f","input":{"a":@}}],"usage":{}}',
        '{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":@}}}]}}]}',
        "@",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_deep_answers_end(stand: Stand, depth: int, shape: str, status: int) -> None:
    """However deep an answer is nested: the client is answered, and no worker is lost."""
    body = shape.replace("@", "[" * depth + "]" * depth).encode()
    stand.play(reply(whole(body, status)))
    for model in ("scripted", "scripted-an"):
        for path in (CHAT, MESSAGES):
            answer = stand.ask(ask_for(model), path)
            assert answer.status, answer
            assert b"internal_error" not in answer.body, answer
    stand.wait_idle()


def test_no_field_of_the_clients_making(stand: Stand) -> None:
    """What a client calls a tool's type is told in a header: as one word of it."""
    tools = [{"type": "web\r\nset-cookie: stolen=1"}, {"type": "caf\u00e9, x"}]
    answer = stand.ask(ask_for("plain-an", tools=tools))
    assert answer.get(b"set-cookie") is None, answer.headers
    assert answer.status in (200, 400)


@pytest.mark.parametrize("number", ["-5", "9" * 19, "9" * 30, "9" * 400])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
def test_absurd_numbers_of_a_client(stand: Stand, number: str, name: str) -> None:
    """They are taken, or refused as his mistake, and never one of ours; no place of his is lost by them."""
    body = json.dumps(ask_for("plain-oa") | {name: 1}).replace(f'"{name}": 1', f'"{name}": {number}')
    answer = stand.ask(body.encode())
    assert answer.status in (200, 400, 422, 429), answer
    assert json.loads(answer.body)
    stand.wait_idle()


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
WHOLE: dict[str, dict[str, Any]] = {
    "scripted": {"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [CHOICE], "usage": 0},
    "scripted-an": {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "x",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": 0,
    },
}
USAGE = {
    "scripted": '{"prompt_tokens":@,"completion_tokens":@,"prompt_tokens_details":{"cached_tokens":@}}',
    "scripted-an": '{"input_tokens":@,"output_tokens":@,"cache_read_input_tokens":@}',
}


@pytest.mark.parametrize("number", ["1e30", "9" * 30, "9" * 400, "-5", "1.5", '"7"', "null", "[]", "true"])
@pytest.mark.parametrize("model", WHOLE)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_absurd_numbers_of_a_provider(stand: Stand, number: str, model: str, path: str) -> None:
    """What it says of usage is not believed beyond reason, and the request ends as any other."""
    usage = USAGE[model].replace("@", number)
    body = json.dumps(WHOLE[model]).replace('"usage": 0', f'"usage": {usage}').encode()
    stand.play(reply(whole(body)))
    answer = stand.ask(ask_for(model), path)
    assert answer.status in (200, 502), answer
    assert b"internal_error" not in answer.body, answer
    stand.wait_idle()


@pytest.mark.parametrize("number", ["1e30", "9" * 30, "9" * 400, "-5", "1.5", '"7"', "null", "[]", "true"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_absurd_numbers_in_a_stream(stand: Stand, number: str, path: str) -> None:
    """The same at the end of a stream, which ends none the less."""
    last = '{"id":"1","choices":[],"usage":@}'.replace("@", USAGE["scripted"].replace("@", number))
    data = sse(said("hi"), said("", "stop")) + f"data: {last}\n\ndata: [DONE]\n\n".encode()
    stand.play(reply(CLOSING_STREAM + framed(data) + b"0\r\n\r\n"))
    answer = stand.ask(ask_for("scripted", True), path)
    assert answer.status in (200, 502), answer
    assert answer.complete
    assert b"internal_error" not in answer.body, answer
    stand.wait_idle()


@pytest.mark.parametrize("depth", [300, 900])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_deep_calls_end(stand: Stand, depth: int, path: str) -> None:
    """The same of what an event calls a tool with, as an object: it can be read, and not be written."""
    deep = b"[" * depth + b"]" * depth
    call = b'{"id":"c","function":{"name":"f","arguments":{"a":@}}}'
    call = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}' % call
    block = b'event: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":@}'
    block = block.replace(b"@", b'{"type":"tool_use","id":"c","name":"f","input":{"a":@}}')
    for model, begin, event in (("scripted", sse(said("hi")), call), ("scripted-an", BEGIN_ANTHROPIC, block)):
        event = event.replace(b"@", deep) + b"\n\n"
        stand.play(reply(CLOSING_STREAM + framed(begin + event) + b"0\r\n\r\n"))
        answer = stand.ask(ask_for(model, True), path)
        assert answer.complete
        assert b"internal_error" not in answer.body, answer
        assert b"error" in answer.body
    stand.wait_idle()


@pytest.mark.parametrize("depth", [900, 5000])
@pytest.mark.parametrize("model", ["scripted"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_deep_events_end(stand: Stand, depth: int, model: str, path: str) -> None:
    """An event that is nested without reason ends its own stream at most."""
    deep = "[" * depth + "]" * depth
    data = sse(said("hi")) + b"".join(
        shape.replace("@", deep).encode()
        for shape in ('data: {"usage":@}\n\n', 'data: {"error":@}\n\n', 'data: {"choices":@,"usage":{}}\n\n')
    )
    data += sse(said("", "stop"), "[DONE]")
    stand.play(reply(CLOSING_STREAM + framed(data) + b"0\r\n\r\n"))
    answer = stand.ask(ask_for(model, True), path)
    assert answer.status in (200, 502), answer
    assert answer.complete
    assert b"internal_error" not in answer.body, answer
    stand.wait_idle()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_no_provider_tells_our_key(stand: Stand, path: str) -> None:
    """Some repeat the key that they were given, whatever they then say of it."""
    secret = "sk-proj-4AbcdEfghIjklMnopQrst"
    for status in (400, 404, 422, 429, 500, 503):
        body = json.dumps({"error": {"message": f"bad: {secret}", "type": "x", "param": f"Bearer {secret}"}}).encode()
        stand.play(reply(whole(body, status)))
        answer = stand.ask(ask_for("scripted"), path)
        assert answer.status >= 400
        assert secret.encode() not in answer.body, answer
        assert not [value for _, value in answer.headers if secret.encode() in value]
    stand.wait_idle()


def test_a_beta_is_a_part_of_what_is_asked(stand: Stand) -> None:
    """Who asks Anthropic for a beta gets no cached answer of one who has not."""
    stand.play(reply(whole(json.dumps({**WHOLE["scripted-an"], "usage": {}}).encode())))
    asked = ask_for("scripted-an", text="which beta?")
    with stand.client() as client:  # one connection, so one worker, which has a cache of its own
        for beta, cached in (
            ("", b"miss"),
            ("", b"hit"),
            ("context-1m-2025-08-07", b"miss"),
            ("a\r\nAnthropic-Beta: b", b"miss"),
            ("", b"hit"),
        ):
            fields = {"anthropic-beta": beta} if beta else {}
            answer = client.ask(request(asked, "/cached/messages", fields=fields), b"POST")
            assert (answer.status, answer.get(b"x-edgeq-cache")) == (200, cached), (beta, answer)
    stand.wait_idle()
    assert dict(stand.scripted.requests[-1].headers)[b"anthropic-beta"] == b"a, b"


def test_an_answer_that_ends_by_an_error_is_not_kept(stand: Stand) -> None:
    """It has failed, and nobody else gets it from the cache."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    cut = sse(said("half an answer"), {**said("", "error"), "usage": usage}, "[DONE]")
    stand.play(reply(CLOSING_STREAM + framed(cut) + b"0\r\n\r\n"))
    with stand.client() as client:
        for _ in range(2):
            asked = ask_for("scripted", True, text="ended by an error?")
            answer = client.ask(request(asked, "/cached/chat/completions"), b"POST")
            assert (answer.status, answer.get(b"x-edgeq-cache")) == (502, b"miss"), answer
    message = {"role": "assistant", "content": "half"}
    whole_one = {"choices": [{"index": 0, "message": message, "finish_reason": "abort"}], "usage": usage}
    stand.play(reply(whole(json.dumps(whole_one).encode())))
    answer = stand.ask(ask_for("scripted", text="aborted?"))
    assert answer.status == 502, answer
    assert b"abort" in answer.body
    stand.wait_idle()
