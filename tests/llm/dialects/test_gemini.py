"""Gemini as the provider: what it is asked, and what is made of its answers, whole and streamed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.dialects import anthropic
from edgeq.llm.dialects.collect import answer_of
from edgeq.llm.dialects.gemini import (
    StreamDecoder,
    decode_answer,
    decode_count,
    encode_count,
    encode_request,
    path,
)
from edgeq.llm.message import (
    DELTA,
    FAILURE,
    FINISH,
    IMAGE,
    OTHER,
    PART_END,
    PART_START,
    RATE,
    START,
    STOP_END,
    STOP_LENGTH,
    STOP_REFUSAL,
    STOP_TOOL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    UNKNOWN,
    Answer,
    Losses,
    Message,
    Part,
    Request,
    Tool,
    Unmappable,
    Usage,
)
from tests.llm.dialects.conversations import answers, plain, plain_answer, requests, told
from tests.support.gemini_server import piece, read_request, stream, written

CALL = Part(TOOL_USE, id="c1", name="look", arguments='{"at":1}')
RESULT = Part(TOOL_RESULT, id="c1", parts=[Part(TEXT, "seen")])


def asked(model: str = "gemini-2.5-flash", **fields: Any) -> dict[str, Any]:
    """The body for a request that says hello, with these attributes."""
    fields.setdefault("messages", [Message("user", [Part(TEXT, "hello")])])
    body: dict[str, Any] = orjson.loads(encode_request(Request(model, **fields), Losses(strict=True), 4096))
    return body


def turns(*messages: Message, model: str = "gemini-2.5-flash") -> list[Any]:
    """The contents of a conversation."""
    contents: list[Any] = asked(model, messages=list(messages))["contents"]
    return contents


@pytest.mark.parametrize(
    ("model", "operation", "streams", "wanted"),
    [
        ("gemini-2.5-flash", "chat", False, "/models/gemini-2.5-flash:generateContent"),
        ("gemini-2.5-flash", "chat", True, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", "chat", False, "/tunedModels/mine:generateContent"),
        ("demo/tools=2,think=3", "chat", False, "/models/demo/tools=2,think=3:generateContent"),
        ("a b?", "count", False, "/models/a%20b%3F:countTokens"),
        ("gemini-embedding-001", "embeddings", False, "/models/gemini-embedding-001:batchEmbedContents"),
    ],
)
def test_a_path_names_the_model_and_what_it_shall_do(model: str, operation: str, streams: bool, wanted: str) -> None:
    """Nothing in a model's name can change the path."""
    assert path(model, operation, streams) == wanted


@given(requests())
def test_a_request_says_all_that_was_said(request_: Request) -> None:
    """What Gemini reads is what the client has written, but for what it has no word for."""
    tools = [replace(tool, strict=False) for tool in request_.tools]
    said = replace(request_, tools=tools, user="", service_tier="", effort="", parallel_tools=None)
    if tools:
        said = replace(said, response_format="", schema=None, schema_strict=False)
    read = read_request(encode_request(said, Losses(strict=True), 4096))
    read.model, read.stream = said.model, said.stream
    assert plain(read) == plain(said)


def test_tools_and_a_format() -> None:
    """From Gemini 3 on it takes both; before it, calls matter more."""
    for model, form in (("gemini-2.5-pro", None), ("gemini-3-pro", "application/json")):
        losses = Losses(strict=False)
        request = Request(model, [Message("user", [Part(TEXT, "hi")])], tools=[Tool("look")], response_format="json")
        body = orjson.loads(encode_request(request, losses, 9))
        assert body["tools"]
        assert body.get("generationConfig", {}).get("responseMimeType") == form
        assert losses.dropped == ([] if form else ["response_format"])


def test_a_request_that_nothing_was_asked_of_has_no_configuration() -> None:
    """Gemini's own defaults hold."""
    assert asked() == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"response_format": "json"}, {"responseMimeType": "application/json"}),
        (
            {"response_format": "schema", "schema": {"type": "object", "additionalProperties": False}},
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object", "additionalProperties": False},
            },
        ),
        (
            {"model": "gemini-2.0-flash", "frequency_penalty": 0.5, "presence_penalty": -1.0},
            {"frequencyPenalty": 0.5, "presencePenalty": -1.0},
        ),
        ({"seed": 3, "top_k": 40, "stop": ["x"]}, {"seed": 3, "topK": 40, "stopSequences": ["x"]}),
        ({"thinking_tokens": 2000}, {"thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": True}}),
        ({"thinking_tokens": 0}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ({"effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ({"effort": "medium"}, {"thinkingConfig": {"thinkingBudget": 8192, "includeThoughts": True}}),
        ({"model": "gemini-2.5-pro", "effort": "none"}, {"thinkingConfig": {"thinkingBudget": 128}}),
        ({"model": "gemini-3-flash", "effort": "none"}, {"thinkingConfig": {"thinkingLevel": "minimal"}}),
        (
            {"model": "gemini-3.1-pro-preview", "effort": "minimal"},
            {"thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True}},
        ),
        ({"model": "gemini-3.1-pro-preview", "effort": "none"}, {"thinkingConfig": {"thinkingLevel": "low"}}),
        ({"model": "gemini-3.8-flash", "effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        (
            {"model": "gemini-flash-latest", "effort": "minimal"},
            {"thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True}},
        ),
        (
            {"model": "gemini-3-pro", "effort": "max"},
            {"thinkingConfig": {"thinkingLevel": "high", "includeThoughts": True}},
        ),
    ],
)
def test_how_it_shall_answer(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each wish has its place in generationConfig."""
    assert asked(**fields)["generationConfig"] == wanted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"parallel_tools": False}, "parallel_tool_calls"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"user": "ann"}, "user"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"extra": {"verbosity": "low"}}, "verbosity"),
        ({"tools": [Tool("", raw={"type": "web_search"})]}, "tools.web_search"),
        ({"messages": [Message("user", [Part(TEXT, "hello")], "ann")]}, "messages.name"),
        (
            {"messages": [Message("user", [Part(IMAGE, url="http://a/b.png", detail="low")])]},
            "messages.content.image_url.detail",
        ),
    ],
)
def test_what_it_cannot_be_told(fields: dict[str, Any], param: str) -> None:
    """It is refused if the route is strict, and otherwise named."""
    with pytest.raises(Unmappable) as caught:
        asked(**fields)
    assert caught.value.param == param
    fields.setdefault("messages", [Message("user", [Part(TEXT, "hello")])])
    losses = Losses(strict=False)
    encode_request(Request("gemini-2.5-flash", **fields), losses, 4096)
    assert losses.dropped == [param]


@pytest.mark.parametrize(
    "messages",
    [
        [Message("assistant", [Part(TOOL_USE, id="c1", name="look", arguments="[1]")])],
        [Message("assistant", [Part(TOOL_USE, id="c1", name="look", arguments='{"cut')])],
        [Message("user", [RESULT])],
        [Message("user", [Part(OTHER, raw={"type": "file"})])],
    ],
)
def test_what_makes_no_sense_to_it_is_refused(messages: list[Message]) -> None:
    """Even if losses are allowed: the answer would be to another question."""
    with pytest.raises(Unmappable):
        encode_request(Request("gemini-2.5-flash", messages=messages), Losses(strict=False), 4096)


def test_a_result_has_the_name_of_its_call() -> None:
    """Clients tell only the id, and Gemini wants the name; pictures come after all results."""
    picture = Part(IMAGE, media_type="image/png", data="AAAA")
    result = Part(TOOL_RESULT, id="c1", parts=[Part(TEXT, "see"), picture], is_error=True)
    contents = turns(
        Message("user", [Part(TEXT, "hello")]),
        Message("assistant", [CALL]),
        Message("user", [result]),
        Message("user", [Part(TEXT, "well?")]),
    )
    assert contents[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "c1", "name": "look", "response": {"error": "see"}}},
            {"text": "well?"},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        ],
    }


@pytest.mark.parametrize(
    ("url", "media_type"),
    [("https://a/b.PNG?x=1.gif", "image/png"), ("https://a/b", None), ("https://a/b.pdf", "application/pdf")],
)
def test_a_file_elsewhere_is_named_with_what_it_is(url: str, media_type: str | None) -> None:
    """By the end of its path, where that says it."""
    (content,) = turns(Message("user", [Part(IMAGE, url=url)]))
    assert content["parts"][0]["fileData"].get("mimeType") == media_type


@pytest.mark.parametrize(
    ("model", "thoughts", "signatures"),
    [
        ("gemini-2.5-flash", [], [None, None]),
        ("gemini-3-pro", [], ["skip_thought_signature_validator", None]),
        ("gemini-3-pro", [Part(THINKING, "hm", data="gemini#U0lH")], ["U0lH", None]),
        ("gemini-2.5-flash", [Part(THINKING, "hm", data="gemini#U0lH")], ["U0lH", None]),
        ("gemini-3-pro", [Part(THINKING, "hm", data="of another")], ["skip_thought_signature_validator", None]),
    ],
)
def test_the_first_call_of_a_turn_bears_its_signature(
    model: str, thoughts: list[Part], signatures: list[str | None]
) -> None:
    """Its own, or where Gemini insists and it was another's call, the word for none; never another provider's."""
    second = Part(TOOL_USE, id="c2", name="look", arguments="")
    (content,) = turns(Message("assistant", [*thoughts, CALL, second]), model=model)
    assert [part.get("thoughtSignature") for part in content["parts"]] == signatures


def test_its_signatures_are_not_sent_to_another() -> None:
    """Anthropic would refuse the request for one."""
    thought = Part(THINKING, "hm", data="gemini#U0lH")
    hello = Message("user", [Part(TEXT, "hello")])
    request = Request("claude-opus-4-6", [hello, Message("assistant", [thought, Part(TEXT, "hi")]), hello])
    body = orjson.loads(anthropic.encode_request(request, Losses(strict=True), 9))
    assert "U0lH" not in str(body)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("choice", "strict", "wanted"),
    [
        ("", False, {"mode": "AUTO"}),
        ("auto", True, {"mode": "VALIDATED"}),
        ("none", True, {"mode": "NONE"}),
        ("any", True, {"mode": "ANY"}),
        ("tool", False, {"mode": "ANY", "allowedFunctionNames": ["look"]}),
    ],
)
def test_whether_it_must_call(choice: str, strict: bool, wanted: dict[str, Any]) -> None:
    """functionCallingConfig; the schema of arguments is JSON Schema as the client has written it."""
    schema = {"type": "object", "$defs": {}, "patternProperties": {}}
    body = asked(tools=[Tool("look", "at it", schema, strict)], tool_choice=choice, tool_name="look")
    assert body["toolConfig"]["functionCallingConfig"] == wanted
    declaration = {"name": "look", "description": "at it", "parametersJsonSchema": schema}
    assert body["tools"] == [{"functionDeclarations": [declaration]}]


def test_tokens_of_a_request_are_counted() -> None:
    """The whole request, with its model, and the number."""
    request = Request("gemini-2.5-flash", messages=[Message("user", [Part(TEXT, "hello")])])
    body = orjson.loads(encode_count(request, Losses(strict=True)))
    contents = [{"role": "user", "parts": [{"text": "hello"}]}]
    assert body == {"generateContentRequest": {"model": "models/gemini-2.5-flash", "contents": contents}}
    assert decode_count(b'{"totalTokens": 31}') == 31
    with pytest.raises(ValueError, match="count"):
        decode_count(b"{}")


def sayable(answer: Answer) -> Answer:
    """What Gemini can say of it: it tells nothing of what is written to a cache."""
    return replace(answer, usage=replace(answer.usage, cache_write=0))


@given(answers())
def test_a_whole_answer_says_all_that_it_said(answer: Answer) -> None:
    """Parts, calls, why it ended and what it took."""
    said = sayable(answer)
    assert plain_answer(decode_answer(orjson.dumps(written(said)))) == plain_answer(said)


@given(answers(), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_stream_cut_anywhere_says_the_same(answer: Answer, cuts: list[int]) -> None:
    """Events depend on bytes, not on how they come; together they are the whole answer."""
    said = sayable(answer)
    whole = written(said)
    candidate = whole["candidates"][0]
    parts = [piece(part) | {"modelVersion": said.model} for part in candidate["content"]["parts"]]
    sent = stream(*parts, whole | {"candidates": [{"finishReason": candidate["finishReason"]}]})
    decoder = StreamDecoder()
    at_once = decoder.feed(sent) + decoder.end()
    decoder = StreamDecoder()
    edges = [0, *sorted(at % (len(sent) + 1) for at in cuts), len(sent)]
    events = [event for start, end in pairwise(edges) for event in decoder.feed(sent[start:end])] + decoder.end()
    assert told(events) == told(at_once)
    assert plain_answer(answer_of(events)) == plain_answer(said)


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("STOP", STOP_END),
        ("MAX_TOKENS", STOP_LENGTH),
        ("SAFETY", STOP_REFUSAL),
        ("RECITATION", STOP_REFUSAL),
        ("PROHIBITED_CONTENT", STOP_REFUSAL),
        ("SPII", STOP_REFUSAL),
        ("BLOCKLIST", STOP_REFUSAL),
        ("LANGUAGE", STOP_REFUSAL),
        ("OTHER", STOP_REFUSAL),
        ("A_NEW_ONE", STOP_REFUSAL),
    ],
)
def test_why_it_ended(reason: str, stop: str) -> None:
    """Whatever is no end and no limit is a refusal, unless it is botched."""
    assert decode_answer(orjson.dumps(piece({"text": "a"}, finishReason=reason))).stop == stop


def test_calls_come_with_stop() -> None:
    """The answer ends for them all the same; without ids of Gemini's each has one of its own."""
    call = {"functionCall": {"name": "look"}}
    answer = decode_answer(orjson.dumps(piece(call, call, finishReason="STOP")))
    assert answer.stop == STOP_TOOL
    assert [(part.id, part.arguments) for part in answer.parts] == [("call_r1_0", "{}"), ("call_r1_1", "{}")]


def test_a_signature_stands_in_the_thought_before_its_call() -> None:
    """Where there is none, an empty one: clients send thoughts back, and nothing else of it."""
    call = {"functionCall": {"name": "look", "args": {"at": 1}}, "thoughtSignature": "U0lH"}
    answer = decode_answer(orjson.dumps(piece({"text": "hm", "thought": True}, call, finishReason="STOP")))
    assert answer.parts[0] == Part(THINKING, "hm", data="gemini#U0lH")
    answer = decode_answer(orjson.dumps(piece({"text": "so"}, call, finishReason="STOP")))
    assert [part.kind for part in answer.parts] == [TEXT, THINKING, TOOL_USE]
    (content,) = turns(Message("assistant", answer.parts), model="gemini-3-pro")
    assert content["parts"][1]["thoughtSignature"] == "U0lH"


def test_a_prompt_that_is_blocked_is_refused() -> None:
    """There is no candidate then, only why."""
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    answer = decode_answer(orjson.dumps(body))
    assert (answer.stop, answer.parts, answer.usage.input, answer.usage.output) == (STOP_REFUSAL, [], 4, UNKNOWN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"candidates": 1}',
        b'{"candidates": [{"content": {"parts": [{"text": "\xff"}]}}]}',
        b"{}",
        orjson.dumps(piece({"text": "a"})),
        orjson.dumps(piece(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="print(look)")),
        orjson.dumps({"error": {"code": 500, "message": "sorry", "status": "INTERNAL"}}),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    """The provider's: another may do better."""
    with pytest.raises(ValueError):
        decode_answer(body)


def test_a_stream_that_is_cut_fails() -> None:
    """However much of it has come; and only once."""
    decoder = StreamDecoder()
    events = decoder.feed(stream(piece({"text": "a"})))
    assert [event.kind for event in events] == [START, PART_START, DELTA]
    assert [event.kind for event in decoder.end()] == [FAILURE]
    assert decoder.end() == []


def test_an_error_within_a_stream_is_told() -> None:
    """With what kind of error it is; nothing comes after it."""
    decoder = StreamDecoder()
    error = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    events = decoder.feed(stream(piece({"text": "a"}), error, piece({"text": "b"})))
    assert (events[-1].kind, events[-1].name, events[-1].text) == (FAILURE, RATE, "slow down")
    assert decoder.end() == []


def test_a_stream_ends_with_its_last_byte() -> None:
    """Whatever it says before: some put a reason to end into every event. The last usage holds."""
    decoder = StreamDecoder()
    first = piece({"text": "a"}, finishReason="STOP", usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 1})
    last = piece({"text": "b"}, finishReason="STOP", usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 2})
    events = decoder.feed(stream(first, last))
    assert [event.kind for event in events] == [START, PART_START, DELTA, DELTA]
    events += decoder.end()
    assert [event.kind for event in events[-2:]] == [PART_END, FINISH]
    assert plain_answer(answer_of(events)).parts == [Part(TEXT, "ab")]
    assert events[-1].usage == Usage(1, 2)
