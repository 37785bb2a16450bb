"""What only chat completions need, and what the tables cannot show."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edgeq.llm import speech
from edgeq.llm.dialects import openai_chat
from edgeq.llm.message import (
    DELTA,
    DOCUMENT,
    FAILURE,
    FINISH,
    IMAGE,
    PART_END,
    PART_START,
    PING,
    STOP_SEQUENCE,
    TEXT,
    THINKING,
    TOOL_USE,
    Event,
    Losses,
    Message,
    Part,
    Request,
    Unmappable,
    Usage,
)

NUMBERS = ('{"a":18446744073709551616,"b":[9223372036854775807]}', '{"a":[{"b":-0.12345678901234567890123}],"c":0.5}')


def asked(request: Request, losses: Losses | None = None) -> dict[str, Any]:
    """The body of a request."""
    made: dict[str, Any] = orjson.loads(openai_chat.encode_request(request, losses or Losses(True), 4096))
    return made


def says(model: str, **more: Any) -> Request:
    """A client of messages."""
    return Request(model, [Message("user", [Part(TEXT, "hi")])], dialect="anthropic", **more)


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-5", "max_completion_tokens"), ("o3", "max_completion_tokens"), ("gpt-oss:20b", "max_tokens")],
)
def test_the_limit_of_an_answer(model: str, name: str) -> None:
    """OpenAI's own models want its new name, older servers know only the other."""
    made = asked(says(model, max_tokens=5))
    assert made[name] == 5
    assert len(made.keys() & {"max_completion_tokens", "max_tokens"}) == 1


def test_top_k() -> None:
    """Servers of one's own know it."""
    assert asked(says("llama3", top_k=5))["top_k"] == 5


@pytest.mark.parametrize(
    ("model", "thinking_tokens", "effort"),
    [("gpt-5", 1024, "low"), ("gpt-5", 8192, "medium"), ("qwen3", 20_000, "high"), ("gpt-5", -1, ""), ("gpt-5", 0, "")],
)
def test_thinking(model: str, thinking_tokens: int, effort: str) -> None:
    """As an effort."""
    assert asked(says(model, thinking_tokens=thinking_tokens)).get("reasoning_effort", "") == effort


def test_models_that_never_think() -> None:
    """They refuse the parameter: it is lost, by the name that the client has for it."""
    losses = Losses(False)
    said = speech.Asked(says("gpt-4o", thinking_tokens=5000), None)
    assert b"reasoning_effort" not in speech.words("openai", said, "gpt-4o", losses, 0)
    assert losses.dropped == ["thinking"]


def test_a_client_of_its_own_loses_nothing() -> None:
    """Parts, tools and parameters that only this dialect knows are written back."""
    body = {
        "model": "gpt-5",
        "messages": [
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]},
        ],
        "tools": [{"type": "custom", "custom": {"name": "f"}}],
        "tool_choice": {"type": "custom", "custom": {"name": "f"}},
        "verbosity": "low",
        "prediction": {"type": "content", "content": "x"},
    }
    assert asked(openai_chat.decode_request(orjson.dumps(body))) == body


def test_audio() -> None:
    """It is a document of its kind: some providers can hear."""
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": [part]}]}
    request = openai_chat.decode_request(orjson.dumps(body))
    assert request.messages[0].parts == [Part(DOCUMENT, media_type="audio/wav", data="AAAA")]
    assert asked(request) == body


def test_a_jpg_is_a_jpeg() -> None:
    """OpenAI takes either name, others only one."""
    part = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}}
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": [part]}]}
    request = openai_chat.decode_request(orjson.dumps(body))
    assert request.messages[0].parts == [Part(IMAGE, media_type="image/jpeg", data="AAAA")]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": "2"}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
    ],
)
def test_what_makes_no_sense(more: dict[str, Any], param: str) -> None:
    """The field is named."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    with pytest.raises(Unmappable) as caught:
        openai_chat.decode_request(orjson.dumps(body))
    assert caught.value.param == param
    assert param in caught.value.message


CHUNK = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize("end", [b"", b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\n\n"])
def test_ends_of_streams(end: bytes) -> None:
    """Some servers leave out the last word, or its empty line: the answer is whole."""
    decoder = openai_chat.StreamDecoder()
    events = decoder.feed(CHUNK + end) + decoder.end()
    assert [event.kind for event in events if event.kind in (FINISH, FAILURE)] == [FINISH]
    assert decoder.end() == []


def test_a_last_chunk_without_its_empty_line() -> None:
    """Nor need it have one: JSON that is whole was not cut."""
    for cut, last in ((2, FINISH), (1, FINISH), (3, FAILURE)):
        decoder = openai_chat.StreamDecoder()
        assert (decoder.feed(CHUNK[:-cut]) + decoder.end())[-1].kind == last


def test_events_of_nothing() -> None:
    """Some servers keep connections alive by them."""
    decoder = openai_chat.StreamDecoder()
    events = decoder.feed(b"data:\n\ndata: \n\nevent: ping\ndata: \n\n" + CHUNK + b"data: [DONE]\n\n")
    assert events[-1].kind == FINISH


PIECES = [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}, {"type": "text", "text": "ok"}]


def test_content_in_pieces() -> None:
    """Mistral's thoughts stand among them; whole and streamed, before and after content that is text."""
    body = {"choices": [{"message": {"content": [PIECES[0], *PIECES]}, "finish_reason": "stop"}]}
    assert openai_chat.decode_answer(orjson.dumps(body)).parts == [Part(THINKING, "hh"), Part(TEXT, "ok")]
    deltas = [{"content": ""}, {"content": PIECES[:1]}, {"content": PIECES}, {"content": "!"}]
    decoder = openai_chat.StreamDecoder()
    events: list[Event] = []
    for delta in deltas:
        events += decoder.feed(b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n")
    told = [(event.part, event.text) for event in events if event.kind == DELTA]
    assert told == [(THINKING, "h"), (THINKING, "h"), (TEXT, "ok"), (TEXT, "!")]


def test_a_stream_that_stops_without_a_reason() -> None:
    """[DONE] alone does not make it whole."""
    decoder = openai_chat.StreamDecoder()
    events = decoder.feed(CHUNK.replace(b'"stop"', b"null") + b"data: [DONE]\n\n")
    assert events[-1].kind == FAILURE
    assert decoder.end() == []


def test_which_stop_sequence_it_was() -> None:
    """vLLM tells it."""
    decoder = openai_chat.StreamDecoder()
    finish = decoder.feed(CHUNK.replace(b'"stop"', b'"stop","stop_reason":"END"') + b"data: [DONE]\n\n")[-1]
    assert (finish.stop, finish.stop_sequence) == (STOP_SEQUENCE, "END")


def test_arguments_as_an_object() -> None:
    """Ollama's habit, whole and streamed."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
    body = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    assert openai_chat.decode_answer(orjson.dumps(body)).parts[0].arguments == '{"a":1}'
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    events = openai_chat.StreamDecoder().feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    assert [event.text for event in events if event.kind == DELTA] == ['{"a":1}']


@pytest.mark.parametrize("numbers", NUMBERS)
def test_numbers_of_such_arguments_stay(numbers: str) -> None:
    """Every digit, whatever is beside it."""
    other = b'{"function":{"name":"g","arguments":"1.0"}}'
    calls = b'"tool_calls":[%b,{"index":1,"function":{"name":"f","arguments":%b}}]' % (other, numbers.encode())
    whole = b'{"created":1.5,"choices":[{"message":{%b},"finish_reason":"tool_calls"}]}' % calls
    assert [part.arguments for part in openai_chat.decode_answer(whole).parts] == ["1.0", numbers]
    chunk = b'data: {"choices":[{"index":0,"delta":{%b},"finish_reason":"tool_calls"}]}\n\n' % calls
    events = openai_chat.StreamDecoder().feed(chunk)
    assert [event.text for event in events if event.kind == DELTA] == ["1.0", numbers]


@pytest.mark.parametrize("wants", [True, False])
def test_usage_is_told_to_who_asks(wants: bool) -> None:
    """A chunk of its own, last; and null in all others."""
    encoder = openai_chat.StreamEncoder("m", wants, 33, 7)
    finish = Event(FINISH)
    finish.usage = Usage(5, 2)
    out = encoder.encode([Event(PART_START, 0, TEXT), Event(DELTA, 0, TEXT, "x"), finish]) + encoder.end()
    chunks = [orjson.loads(line[6:]) for line in out.split(b"\n\n")[:-2]]
    assert [chunk.get("usage", "absent") for chunk in chunks[:3]] == ([None] * 3 if wants else ["absent"] * 3)
    assert [chunk["usage"]["total_tokens"] for chunk in chunks[3:]] == ([7] if wants else [])
    assert out.endswith(b"data: [DONE]\n\n")


def test_pings_and_failures() -> None:
    """A comment; and an error after which nothing says that all is well."""
    encoder = openai_chat.StreamEncoder("m", False, 1, 1)
    assert encoder.encode([Event(PING)]).startswith(b":")
    failure = Event(FAILURE, text="no")
    out = encoder.encode([failure]) + encoder.end()
    assert orjson.loads(out[6:])["error"]["message"] == "no"


def test_a_call_without_arguments() -> None:
    """An SDK gets text that is JSON."""
    call = Part(TOOL_USE, id="c", name="f")
    made = asked(Request("m", [Message("assistant", [call])]))
    assert made["messages"][0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_streamed_call_without_arguments() -> None:
    """The same: Anthropic says none. Others' are not touched."""
    encoder = openai_chat.StreamEncoder("m", False, 1, 1)
    events = [Event(PART_START, 0, TOOL_USE), Event(PART_END, 0, TOOL_USE), Event(PART_START, 1, TOOL_USE)]
    events += [Event(DELTA, 1, TOOL_USE, '{"a":1}'), Event(PART_END, 1, TOOL_USE)]
    arguments = {0: "", 1: ""}
    for one in encoder.encode(events).split(b"\n\n")[:-1]:
        for call in orjson.loads(one[6:])["choices"][0]["delta"].get("tool_calls", ()):
            arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == {0: "{}", 1: '{"a":1}'}


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("deepseek-v4-pro", "hm"),
        ("deepseek-reasoner", "hm"),
        ("deepseek-ai/DeepSeek-V3.2", "hm"),
        ("moonshotai/Kimi-K2.6", "hm"),
        ("moonshotai/Kimi-K2-Thinking", "hm"),
        ("moonshotai/kimi-k2-instruct-0905", None),
        ("deepseek-r1-distill-llama-70b", None),
        ("deepseek-ai/DeepSeek-R1-0528", None),
        ("deepseek-coder:6.7b", None),
        ("gpt-5.2", None),
        ("llama", None),
    ],
)
def test_thoughts_that_have_to_go_back(model: str, wanted: str | None) -> None:
    """Those of these two that think refuse their own call without; others of them, or their servers, refuse thoughts.
    What another has signed is not theirs."""
    thoughts = [Part(THINKING, "hm"), Part(THINKING, "secret", data="signed")]
    turn = Message("assistant", [*thoughts, Part(TOOL_USE, id="c", name="f", arguments="{}")])
    made = asked(Request(model, [turn], dialect="anthropic"))
    assert made["messages"][0].get("reasoning_content") == wanted


@pytest.mark.parametrize(
    ("model", "effort", "takes"),
    [
        ("gpt-5", "", False),
        ("gpt-5-mini-2025-08-07", "", False),
        ("o3", "", False),
        ("o4-mini", "low", False),
        ("gpt-5.2", "low", False),
        ("gpt-5.2", "", True),
        ("gpt-5.2-2025-12-11", "none", True),
        ("gpt-5-chat-latest", "", True),
        ("gpt-4o", "", True),
        ("llama", "low", True),
    ],
)
def test_who_thinks_takes_no_sampling(model: str, effort: str, takes: bool) -> None:
    """What OpenAI's models refuse then is dropped, and told; the defaults are no loss."""
    losses = Losses(False)
    made = asked(says(model, temperature=0.5, top_p=1.0, stop=["x"], effort=effort), losses)
    wanted = {"temperature": 0.5, "top_p": 1.0, "stop": ["x"]} if takes else {}
    assert {name: made[name] for name in ("temperature", "top_p", "stop") if name in made} == wanted
    assert losses.dropped == ([] if takes else ["temperature", "stop"])


def test_calls_without_ids() -> None:
    """Some servers give none, and count all as 0: each call gets one of its own, by which its result is found."""
    calls = [{"index": 0, "function": {"name": name, "arguments": '{"a":1}'}} for name in ("f", "f", "g")]
    body = {"id": "c", "choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    parts = openai_chat.decode_answer(orjson.dumps(body)).parts
    assert [(part.id, part.name) for part in parts] == [("call_c_0", "f"), ("call_c_1", "f"), ("call_c_2", "g")]
    decoder = openai_chat.StreamDecoder()
    events: list[Event] = []
    for call in calls:
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
        events += decoder.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    starts = [(event.id, event.name) for event in events if event.kind == PART_START]
    assert starts == [("call_c_0", "f"), ("call_c_1", "f"), ("call_c_2", "g")]
    body["id"] = "chatcmpl-" + "0" * 36
    assert len(openai_chat.decode_answer(orjson.dumps(body)).parts[0].id) <= 40, "which is all that OpenAI takes"


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_reasons_that_are_failures(reason: str) -> None:
    """Of compatible servers: such an answer never looks complete."""
    decoder = openai_chat.StreamDecoder()
    events = decoder.feed(CHUNK.replace(b"stop", reason.encode()) + b"data: [DONE]\n\n")
    assert [event.kind for event in events if event.kind in (FINISH, FAILURE)] == [FAILURE]
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": reason}]}
    with pytest.raises(ValueError, match=reason):
        openai_chat.decode_answer(orjson.dumps(body))
