"""OpenAI's responses: what its clients ask, and what they read, whole and as a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given

from edgeq.llm.dialects import anthropic
from edgeq.llm.dialects.base import RESPONSES
from edgeq.llm.dialects.collect import answer_of
from edgeq.llm.dialects.errors import encode_stream_error
from edgeq.llm.dialects.responses import StreamEncoder, decode_request, encode_answer
from edgeq.llm.message import (
    DELTA,
    DOCUMENT,
    FAILURE,
    FINISH,
    IMAGE,
    OTHER,
    PART_END,
    PART_START,
    PING,
    RATE,
    REFUSAL,
    START,
    STOP_CONTEXT,
    STOP_END,
    STOP_LENGTH,
    STOP_PAUSE,
    STOP_REFUSAL,
    STOP_SEQUENCE,
    STOP_TOOL,
    TEXT,
    THINKING,
    TIMEOUT,
    TOOL_RESULT,
    TOOL_USE,
    Answer,
    Event,
    Failed,
    Losses,
    Message,
    Part,
    Request,
    Tool,
    Unmappable,
    Usage,
)
from tests.llm.dialects.conversations import answers, plain, plain_answer, requests, streams
from tests.support.responses_client import events, put_together, read_answer, written


def decoded(**fields: Any) -> Request:
    """A request that says hello, with these fields."""
    return decode_request(orjson.dumps({"model": "m", "input": "hello"} | fields))


def items(*said: dict[str, Any]) -> list[Message]:
    """The messages of these items."""
    return decoded(input=list(said)).messages


CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}


@given(requests())
def test_a_request_says_all_that_was_said(request_: Request) -> None:
    """What is decoded is what the client meant; it has no word for `stop`."""
    said = replace(request_, stop=[])
    assert plain(decode_request(written(said))) == plain(said)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            {"instructions": "be kind"},
            {"messages": [Message("system", [Part(TEXT, "be kind")]), Message("user", [Part(TEXT, "hello")])]},
        ),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, {"stream": True}),
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 1, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"parallel_tool_calls": False}, {"parallel_tools": False}),
        ({"tools": [FUNCTION]}, {"tools": [Tool("look", "", {"type": "object"})]}),
        ({"tools": [FUNCTION | {"strict": True}]}, {"tools": [Tool("look", "", {"type": "object"}, True)]}),
        ({"tools": [{"type": "web_search"}]}, {"tools": [Tool("", raw={"type": "web_search"})]}),
        ({"tool_choice": "required"}, {"tool_choice": "any"}),
        ({"tool_choice": {"type": "function", "name": "look"}}, {"tool_choice": "tool", "tool_name": "look"}),
        (
            {
                "tools": [FUNCTION, FUNCTION | {"name": "hear"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "look"}],
                },
            },
            {"tools": [Tool("look", "", {"type": "object"})], "tool_choice": "any"},
        ),
        ({"text": {"format": {"type": "text"}}}, {}),
        (
            {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
            {"response_format": "json", "extra": {"verbosity": "low"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}}},
            {"response_format": "schema", "schema_name": "n", "schema": {"a": 1}, "schema_strict": True},
        ),
        ({"reasoning": {"effort": "xhigh", "summary": "auto"}}, {"effort": "xhigh"}),
        ({"reasoning": {"context": "all_turns"}}, {"extra": {"reasoning.context": "all_turns"}}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        (
            {"include": ["message.output_text.logprobs"]},
            {"extra": {"include.message.output_text.logprobs": True}},
        ),
        ({"include": ["file_search_call.results"]}, {"extra": {"include.file_search_call.results": True}}),
        ({"top_logprobs": 2}, {"extra": {"top_logprobs": 2}}),
        ({"top_logprobs": 0}, {}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({"user": "ann"}, {"user": "ann"}),
        ({"safety_identifier": "ann"}, {"user": "ann"}),
        ({"user": "ann", "safety_identifier": "a1"}, {"user": "ann", "extra": {"safety_identifier": "a1"}}),
        ({"store": False, "truncation": "disabled", "background": False, "prompt": None}, {}),
        ({"store": True, "truncation": "auto"}, {"extra": {"store": True, "truncation": "auto"}}),
        *[
            ({name: value}, {"extra": {name: value}})
            for name, value in (
                ("access_programs", {"cyber": "standard"}),
                ("background_options", {"completion_window": "soonest"}),
                ("context_management", [{"type": "compaction"}]),
                ("image", {"context_compression": "auto"}),
                ("max_tool_calls", 3),
                ("moderation", {"model": "m"}),
                ("prompt_cache_key", "k"),
                ("prompt_cache_options", {"mode": "implicit"}),
                ("prompt_cache_retention", "24h"),
                ("of_tomorrow", 1),
            )
        ],
    ],
)
def test_every_field_of_a_request(said: dict[str, Any], wanted: dict[str, Any]) -> None:
    """It has its place, or is kept by its name for whoever cannot say it. Fields: openai 3.57."""
    expected = decoded()
    for name, value in wanted.items():
        setattr(expected, name, value)
    assert decoded(**said) == expected


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"model": 1}, "model"),
        ({"input": None}, "input"),
        ({"input": 1}, "input"),
        ({"input": [{"role": "bot", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"text": "a"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:a"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "c1", "output": "a"}]}, "input[0].call_id"),
        ({"input": [CALL | {"call_id": None}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
    ],
)
def test_what_cannot_be_served_is_refused(said: dict[str, Any], param: str) -> None:
    """With the field's name: what makes no sense, and what would need a memory."""
    with pytest.raises(Unmappable) as caught:
        decoded(**said)
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b'"a"', b"{"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """Without the name of a field."""
    with pytest.raises(Unmappable):
        decode_request(body)


@pytest.mark.parametrize(("depth", "is_told"), [(100, True), (300, False), (900, False)])
def test_what_is_to_be_told_again_can_be(depth: int, is_told: bool) -> None:
    """orjson reads deeper than it writes: it is refused, and not found out once the answer is there."""
    body = b'{"model":"m","input":"hi","metadata":{"a":%b}}' % (b"[" * depth + b"]" * depth)
    if is_told:
        encode_answer(Answer("1", "m", [Part(TEXT, "hi")]), decode_request(body))
        return
    with pytest.raises(Unmappable) as caught:
        decode_request(body)
    assert caught.value.param == "metadata"


def test_a_turn_is_put_together_from_its_items() -> None:
    """Thought, text and calls are one message, results another, and what the user says then a third."""
    messages = items(
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "sig"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        CALL,
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "function_call_output", "call_id": "c1", "output": "seen"},
        {"role": "user", "content": "and?"},
    )
    assert messages == [
        Message("system", [Part(TEXT, "be kind")]),
        Message("user", [Part(TEXT, "hello")]),
        Message(
            "assistant",
            [
                Part(THINKING, "a\n\nb", data="sig"),
                Part(TEXT, "hi"),
                Part(REFUSAL, "no"),
                Part(TOOL_USE, id="c1", name="look", arguments="{}"),
                Part(OTHER, raw={"type": "web_search_call", "id": "ws_1"}),
            ],
        ),
        Message("user", [Part(TOOL_RESULT, id="c1", name="look", parts=[Part(TEXT, "seen")])]),
        Message("user", [Part(TEXT, "and?")]),
    ]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"type": "input_text", "text": "a"}, Part(TEXT, "a")),
        (
            {"type": "input_image", "image_url": "http://a/b", "detail": "low"},
            Part(IMAGE, url="http://a/b", detail="low"),
        ),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            Part(IMAGE, media_type="image/png", data="AAAA"),
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
            Part(DOCUMENT, name="a.pdf", media_type="application/pdf", data="AAAA"),
        ),
        ({"type": "input_file", "file_url": "http://a/b.pdf"}, Part(DOCUMENT, url="http://a/b.pdf")),
        ({"type": "input_file", "file_id": "f"}, Part(OTHER, raw={"type": "input_file", "file_id": "f"})),
        ({"type": "input_image", "file_id": "f"}, Part(OTHER, raw={"type": "input_image", "file_id": "f"})),
        ({"type": "input_audio", "data": "A"}, Part(OTHER, raw={"type": "input_audio", "data": "A"})),
        ({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {}}, Part(TEXT, "a", cache=True)),
    ],
)
def test_every_kind_of_content(said: dict[str, Any], part: Part) -> None:
    """It becomes a part; what only OpenAI could read is kept as it is."""
    assert items({"role": "user", "content": [said]}) == [Message("user", [part])]


@given(answers())
def test_a_whole_answer_says_all_that_it_said(answer: Answer) -> None:
    """What the client reads is what was answered."""
    assert plain_answer(read_answer(orjson.loads(encode_answer(answer, None)))) == plain_answer(answer)


@pytest.mark.parametrize(
    ("stop", "status", "reason"),
    [
        (STOP_END, "completed", None),
        (STOP_TOOL, "completed", None),
        (STOP_SEQUENCE, "completed", None),
        (STOP_PAUSE, "completed", None),
        (STOP_LENGTH, "incomplete", "max_output_tokens"),
        (STOP_CONTEXT, "incomplete", "max_output_tokens"),
        (STOP_REFUSAL, "incomplete", "content_filter"),
    ],
)
def test_why_it_ended(stop: str, status: str, reason: str | None) -> None:
    """Complete, or not and why; so is then its last item."""
    said = orjson.loads(encode_answer(Answer("a", "m", [Part(TEXT, "a"), Part(TEXT, "b")], stop), None))
    assert said["status"] == status
    assert said["incomplete_details"] == (None if reason is None else {"reason": reason})
    assert [item["status"] for item in said["output"]] == ["completed", status]
    assert said["usage"] is None


def test_what_was_asked_is_told_again() -> None:
    """Where it is short; whole and streamed."""
    request = decoded(
        max_output_tokens=5,
        temperature=0.5,
        tools=[FUNCTION],
        tool_choice={"type": "function", "name": "look"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {}}},
        reasoning={"effort": "low"},
        metadata={"a": "b"},
    )
    stream = StreamEncoder("m", True, 1, 1)
    stream.answers(request)
    start, finish = Event(START), Event(FINISH)
    start.id, finish.stop = "chatcmpl-1", STOP_END
    told = events(stream.encode([start, finish]))
    for said in (
        orjson.loads(encode_answer(Answer("chatcmpl-1", "m", []), request)),
        told[0]["response"],
        told[-1]["response"],
    ):
        assert said["id"] == "resp_1"
        assert (said["max_output_tokens"], said["temperature"], said["parallel_tool_calls"]) == (5, 0.5, False)
        assert said["tool_choice"] == {"type": "function", "name": "look"}
        assert said["text"]["format"]["name"] == "n"
        assert (said["reasoning"]["effort"], said["metadata"]) == ("low", {"a": "b"})


@given(streams())
def test_a_stream_says_the_same_as_the_whole_answer(said: list[Event]) -> None:
    """Put together from its deltas, from its items, and in its last event, but for what the last item is called."""
    encoder = StreamEncoder("m", False, 9, 7)
    said[0].id = "1"
    answer = answer_of(said)
    answer.model, answer.created = "m", 7
    whole = orjson.loads(encode_answer(answer, None))
    told = events(encoder.encode(said) + encoder.end())
    assert told[-1]["type"] == "response." + whole["status"]
    assert told[-1]["response"] == whole
    done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    together = put_together(told)
    for item in [*done, *together, *whole["output"]]:
        item.pop("status", None)
    assert done == together == whole["output"]


def part_of(kind: int, *texts: str, name: str = "", signature: str = "") -> list[Event]:
    """The events of one part."""
    start = Event(PART_START, 0, kind)
    start.id, start.name = ("c1" if name else ""), name
    signed = Event(DELTA, 0, kind)
    signed.id = signature
    said = [Event(DELTA, 0, kind, text) for text in texts] + ([signed] if signature else [])
    return [start, *said, Event(PART_END, 0, kind)]


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (
            part_of(TEXT, "a", "b"),
            (
                "output_item.added content_part.added output_text.delta output_text.delta output_text.done "
                "content_part.done output_item.done"
            ),
        ),
        (
            part_of(REFUSAL, "no"),
            "output_item.added content_part.added refusal.delta refusal.done content_part.done output_item.done",
        ),
        (
            part_of(TOOL_USE, "{", "}", name="look"),
            (
                "output_item.added function_call_arguments.delta function_call_arguments.delta "
                "function_call_arguments.done output_item.done"
            ),
        ),
        (
            part_of(THINKING, "hm", signature="sig"),
            (
                "output_item.added reasoning_summary_part.added reasoning_summary_text.delta "
                "reasoning_summary_text.done reasoning_summary_part.done output_item.done"
            ),
        ),
        (part_of(THINKING, signature="sig"), "output_item.added output_item.done"),
    ],
)
def test_the_events_of_a_part(told: list[Event], wanted: str) -> None:
    """As OpenAI sends them."""
    encoder = StreamEncoder("m", True, 9, 7)
    begin = events(encoder.encode([Event(START)]))
    assert [event["type"] for event in begin] == ["response.created", "response.in_progress"]
    encoder = StreamEncoder("m", True, 9, 7)
    said = events(encoder.encode([Event(START), *told]))
    assert [event["type"].removeprefix("response.") for event in said[2:]] == wanted.split()
    if "sig" in [event.id for event in told]:
        assert said[-1]["item"]["encrypted_content"] == "sig"


def test_signed_and_encrypted_thoughts_go_back_as_they_came() -> None:
    """A thought that is not shown has only its signature; it is none that was encrypted, which has another block."""
    thoughts = [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
        {"type": "redacted_thinking", "data": "d"},
    ]
    body = {"content": [*thoughts, {"type": "text", "text": "ok"}], "stop_reason": "end_turn", "usage": {}}
    answer = anthropic.decode_answer(orjson.dumps(body))
    whole = orjson.loads(encode_answer(answer, None))["output"]
    stream = anthropic.StreamEncoder("m", True, 1, 1)
    parts: list[Event] = [Event(START)]
    for index, part in enumerate(answer.parts):
        start, sign = Event(PART_START, index, part.kind), Event(DELTA, index, part.kind, part.text)
        start.name = part.detail
        last = Event(DELTA, index, part.kind)
        last.id = part.data
        parts += [start, sign, *([last] if part.data else []), Event(PART_END, index, part.kind)]
    parts.append(Event(FINISH))
    parts[-1].stop = STOP_END
    told = anthropic.StreamDecoder().feed(stream.encode(parts) + stream.end())
    streamed = events(StreamEncoder("m", True, 1, 1).encode(told))[-1]["response"]["output"]
    for output in (whole, streamed):
        request = decoded(input=[{"role": "user", "content": "hi"}, *output, {"role": "user", "content": "on"}])
        sent = orjson.loads(anthropic.encode_request(request, Losses(True), 9))
        assert sent["messages"][1]["content"][:3] == thoughts


def test_a_stream_that_fails_never_ends_as_if_complete() -> None:
    """It is told as failed, with what has come of it, and with the error at which the SDKs raise."""
    encoder = StreamEncoder("m", True, 9, 7)
    failure = Event(FAILURE, text="slow down")
    failure.name = RATE
    told = events(encoder.encode([Event(START), *part_of(TEXT, "a"), failure]) + encoder.end())
    failed, error = told[-2:]
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert failed["response"]["output"][0]["content"][0]["text"] == "a"
    assert (error["type"], error["error"]["message"]) == ("error", "slow down")


def test_a_stream_that_fails_before_it_begins_has_only_the_error() -> None:
    """After comments, that is: the SDK's own reader knows no answer by then."""
    encoder = StreamEncoder("m", True, 9, 7)
    assert encoder.keepalive().startswith(b":")
    assert encoder.encode([Event(PING)]).startswith(b":")
    assert not encoder.begun
    assert [event["type"] for event in events(encoder.encode([Event(FAILURE, text="sorry")]))] == ["error"]
    assert encoder.begun


def test_an_error_of_edgeqs_own_is_one_at_which_the_sdks_raise() -> None:
    """They do at an `error`, and at nothing else."""
    failed = Failed(504, TIMEOUT, "too late", "first_token_timeout")
    (told,) = events(encode_stream_error(RESPONSES, failed, ""))
    assert (told["code"], told["message"]) == ("first_token_timeout", "too late")
    assert told["error"] == {
        "message": "too late",
        "type": "server_error",
        "param": None,
        "code": "first_token_timeout",
    }


def test_a_stream_that_edgeq_cuts_goes_on_counting() -> None:
    """Its last events have the next numbers, and what has been said; the reason is ours."""
    encoder = StreamEncoder("m", True, 9, 7)
    text = Event(DELTA, text="a")
    before = encoder.encode([Event(START), Event(PART_START), text])
    *_, failed, error = events(before + encoder.cut(Failed(504, TIMEOUT, "too late", "upstream_timeout")))
    assert (failed["type"], failed["response"]["error"]["message"]) == ("response.failed", "too late")
    assert (error["type"], error["error"]["code"]) == ("error", "upstream_timeout")


def test_input_that_nobody_has_counted_is_told_as_estimated() -> None:
    """A provider that tells no usage at all leaves it out."""
    finish = Event(FINISH)
    finish.stop, finish.usage = STOP_END, Usage(output=4)
    (*_, last) = events(StreamEncoder("m", True, 9, 7).encode([Event(START), finish]))
    assert last["response"]["usage"]["total_tokens"] == 13
    assert finish.usage == Usage(output=4)  # what is charged is another matter
    finish.usage = None
    (*_, last) = events(StreamEncoder("m", True, 9, 7).encode([Event(START), finish]))
    assert last["response"]["usage"] is None
