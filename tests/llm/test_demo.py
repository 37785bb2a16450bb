"""The demo provider, seen from outside: it must be as strict, and as wayward, as it says."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.llm.demo.behaviour import DEFAULT, NAMES, BadDirective, of_model, parse
from edgeq.llm.demo.content import words
from edgeq.llm.demo.limits import Account, go_duration
from edgeq.llm.dialects.errors import decode_error
from edgeq.llm.provider import judge
from tests.support.demo_llm import ANTHROPIC, Answer, Provider, running

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CHAT_TOOLS = [{"type": "function", "function": {"name": name, "parameters": TOOL}} for name in ("weather", "tides")]
MESSAGES_TOOLS = [{"name": name, "input_schema": TOOL} for name in ("weather", "tides")]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One for all tests that do not need another."""
    with running() as found:
        yield found


def chat(provider: Provider, directives: str = "", **more: Any) -> Answer:
    """A chat completion with these directives; `more`: fields of the body."""
    return provider.ask(CHAT, {"model": f"mock/{directives}", "messages": HELLO, **more})


def messages(provider: Provider, directives: str = "", **more: Any) -> Answer:
    """The same of Anthropic's."""
    body = {"model": f"mock/{directives}", "messages": HELLO, "max_tokens": 1000, **more}
    return provider.ask(MESSAGES, body, ANTHROPIC)


def gemini(provider: Provider, directives: str = "", method: str = "generateContent", **more: Any) -> Answer:
    """The same of Gemini's."""
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], **more}
    return provider.ask(f"/v1beta/models/mock/{directives}:{method}", body)


# -- directives -------------------------------------------------------------------------------------------------------


def test_directives_are_read_from_names_of_models() -> None:
    """Whatever stands after the slash, with its units; other names may have slashes of their own."""
    found = of_model("mock/latency=50ms,tokens=64,rate=20,error=429,cut=3,early", DEFAULT)
    assert (found.latency, found.tokens, found.rate, found.error, found.cut) == (0.05, 64, 20, 429, 3)
    assert found.early
    assert of_model("gpt-4o/tokens=3", DEFAULT).tokens == 3
    assert of_model("meta-llama/Llama-3", DEFAULT) == DEFAULT
    assert of_model("demo", parse("tokens=5", DEFAULT)).tokens == 5
    assert parse("error=quota,retry-after=0.5", DEFAULT).retry_after == 0.5


@pytest.mark.parametrize(
    "text", ["token=3", "tokens=x", "tokens=-1", "error=200", "say=hello", "latency=fast", "early=2", "rate=nan", "=3"]
)
def test_wrong_directives_are_refused(provider: Provider, text: str) -> None:
    """A typing error in a test must not look like a provider that behaves."""
    with pytest.raises(BadDirective):
        parse(text, DEFAULT)
    answer = chat(provider, text)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "model")


def test_the_help_names_every_directive() -> None:
    """`edgeq demo-llm --help` is where they are found."""
    shown = subprocess.run(
        [sys.executable, "-m", "edgeq", "demo-llm", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [name for name in NAMES if f"{name}=" not in shown and f" {name}" not in shown] == []


# -- plain answers ----------------------------------------------------------------------------------------------------


def test_chat(provider: Provider) -> None:
    """As many words as were asked for, cut by max_tokens, with honest usage."""
    answer = chat(provider, "tokens=5").json()
    assert answer["choices"][0]["message"]["content"] == "".join(words(5))
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 5
    answer = chat(provider, "tokens=5", max_completion_tokens=3, n=2).json()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 2
    assert answer["usage"]["completion_tokens"] == 6


def test_usage_may_be_told_as_a_test_wants_it(provider: Provider) -> None:
    """Input, cache reads and writes; Anthropic's input is without them."""
    directives = "tokens=4,think=3,input=100,cached=60,cache_write=10"
    usage = chat(provider, directives).json()["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (100, 60)
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (7, 3)
    usage = messages(provider, directives).json()["usage"]
    assert [usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")] == [
        30,
        60,
        10,
    ]
    assert usage["output_tokens"] == 7
    usage = gemini(provider, directives).json()["usageMetadata"]
    assert [usage[name] for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")] == [100, 4, 3]
    assert "usage" not in chat(provider, "usage=off").json()


def test_echo_and_show(provider: Provider) -> None:
    """A test can see what arrived: the last text of the user, or all of the body."""
    assert chat(provider, "say=echo").json()["choices"][0]["message"]["content"] == "hello"
    assert messages(provider, "say=echo").json()["content"][0]["text"] == "hello"
    assert gemini(provider, "say=echo").json()["candidates"][0]["content"]["parts"][0]["text"] == "hello"
    shown = chat(provider, "say=show", temperature=0.5).json()["choices"][0]["message"]["content"]
    assert json.loads(shown)["temperature"] == 0.5


def test_the_header_goes_before_the_name(provider: Provider) -> None:
    """x-mock, for models whose name cannot be chosen."""
    answer = provider.ask(CHAT, {"model": "demo/tokens=3", "messages": HELLO}, {"x-mock": "tokens=2"})
    assert answer.json()["usage"]["completion_tokens"] == 2


def test_the_same_request_gets_the_same_answer(provider: Provider) -> None:
    """All but its request id."""
    first, second = chat(provider, "tokens=7"), chat(provider, "tokens=7")
    assert first.body == second.body
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_models(provider: Provider) -> None:
    """Each dialect has its own list."""
    assert provider.ask("/v1/models").json()["data"][0]["object"] == "model"
    assert provider.ask("/v1/models", headers=ANTHROPIC).json()["data"][0]["type"] == "model"
    assert provider.ask("/v1beta/models").json()["models"][0]["name"] == "models/demo"
    assert provider.ask("/v1/models/demo").json()["id"] == "demo"
    assert provider.ask("/v1/models/nobody").status == 404


def test_embeddings(provider: Provider) -> None:
    """A vector depends on its text alone, and has the length that was asked for."""
    body = {"model": "demo", "input": ["a", "b", "a"], "dimensions": 8}
    found = [each["embedding"] for each in provider.ask("/v1/embeddings", body).json()["data"]]
    assert found[0] == found[2] != found[1]
    assert len(found[0]) == 8
    assert abs(sum(value * value for value in found[0]) - 1) < 1e-3
    answer = gemini(provider, method="countTokens")
    assert answer.json()["totalTokens"] > 0
    body = {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8}
    assert provider.ask("/v1beta/models/demo:embedContent", body).json()["embedding"]["values"] == found[0]


def test_metrics_are_those_of_vllm(provider: Provider) -> None:
    """The names that a balancer looks for."""
    text = provider.ask("/metrics").body.decode()
    assert "vllm:num_requests_waiting{" in text
    assert "vllm:gpu_cache_usage_perc{" in text


def test_unknown_paths_and_methods(provider: Provider) -> None:
    """404 and 405, in the dialect's words."""
    assert provider.ask("/v1/nothing", {}).json()["error"]["code"] == "unknown_url"
    assert provider.ask("/v1/nothing", {}, ANTHROPIC).json()["error"]["type"] == "not_found_error"
    assert provider.ask(CHAT).status == 404


# -- streams ----------------------------------------------------------------------------------------------------------


def test_include_usage_is_honoured_as_openai_does(provider: Provider) -> None:
    """With it every chunk has a usage of null and one more has it; without it no chunk has the field."""
    events = chat(provider, "tokens=3", stream=True, stream_options={"include_usage": True}).events()
    assert events.pop() == ("", "[DONE]")
    last = events.pop()[1]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)
    assert all(event["usage"] is None for _, event in events)
    events = chat(provider, "tokens=3", stream=True).events()
    assert all("usage" not in event for _, event in events[:-1])
    events = chat(provider, "usage=last", stream=True).events()
    assert events[-2][1]["usage"]
    assert events[-2][1]["choices"]
    events = chat(provider, "usage=off", stream=True, stream_options={"include_usage": True}).events()
    assert all("usage" not in event for _, event in events[:-1])


def test_streams_say_what_whole_answers_say(provider: Provider) -> None:
    """Text and thoughts, in each dialect."""
    text, thought = "".join(words(6)), "".join(words(2))
    events = [event for _, event in chat(provider, "tokens=6,think=2", stream=True).events()[:-1]]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == thought
    named = messages(provider, "tokens=6,think=2", stream=True).events()
    assert [name for name, _ in named if name not in ("content_block_delta", "ping")] == [
        "message_start",
        *("content_block_start", "content_block_stop") * 2,
        "message_delta",
        "message_stop",
    ]
    assert "".join(event["delta"].get("text", "") for name, event in named if name == "content_block_delta") == text
    parts = [
        event["candidates"][0]["content"]["parts"][0]
        for _, event in gemini(provider, "tokens=6,think=2", "streamGenerateContent?alt=sse").events()
    ]
    assert "".join(part["text"] for part in parts if not part.get("thought")) == text
    body = {"model": "mock/tokens=6,think=2", "input": "hello", "stream": True}
    named = provider.ask("/v1/responses", body).events()
    assert [event["sequence_number"] for _, event in named] == list(range(len(named)))
    assert "".join(event["delta"] for name, event in named if name == "response.output_text.delta") == text
    assert named[-1][1]["response"]["output"][1]["content"][0]["text"] == text


def test_gemini_without_sse_is_an_array(provider: Provider) -> None:
    """What streamGenerateContent sends to who does not ask for events."""
    found = gemini(provider, "tokens=3", "streamGenerateContent").json()
    assert [each["candidates"][0]["content"]["parts"][0]["text"] for each in found] == words(3)


@pytest.mark.parametrize("directives", ["split=7", "crlf", "comments", "split=1,crlf,comments,tokens=2", "rate=2000"])
def test_streams_that_are_sent_oddly_are_the_same(provider: Provider, directives: str) -> None:
    """Segments, line ends, comments, and pauses change nothing of what is said."""
    odd = chat(provider, f"tokens=4,{directives}", stream=True).events()
    assert "".join(e["choices"][0]["delta"].get("content") or "" for _, e in odd[:-1]).startswith("The queue")
    assert odd[-1] == ("", "[DONE]")


# -- tools ------------------------------------------------------------------------------------------------------------


def test_tools_are_called_where_the_request_allows_it(provider: Provider) -> None:
    """One or two at once, with arguments that fit; none without tools, nor right after results."""
    message = chat(provider, "tools=2", tools=CHAT_TOOLS).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather", "tides"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "sample", "days": 7}
    assert (
        len(
            chat(provider, "tools=2", tools=CHAT_TOOLS, parallel_tool_calls=False).json()["choices"][0]["message"][
                "tool_calls"
            ]
        )
        == 1
    )
    assert "tool_calls" not in chat(provider, "tools=2").json()["choices"][0]["message"]
    answered = [
        *HELLO,
        message,
        *({"role": "tool", "tool_call_id": c["id"], "content": "1"} for c in message["tool_calls"]),
    ]
    assert (
        chat(provider, "tools=2", tools=CHAT_TOOLS, messages=answered).json()["choices"][0]["finish_reason"] == "stop"
    )
    forced = {"type": "function", "function": {"name": "tides"}}
    message = chat(provider, tools=CHAT_TOOLS, tool_choice=forced).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["tides"]
    blocks = messages(provider, "tools=2", tools=MESSAGES_TOOLS).json()["content"]
    assert [block["name"] for block in blocks] == ["weather", "tides"]
    declared = [{"functionDeclarations": [{"name": "weather", "parameters": TOOL}]}]
    answer = gemini(provider, "tools=2", tools=declared).json()
    assert len(answer["candidates"][0]["content"]["parts"]) == 2


def test_an_agent_that_must_call_comes_to_its_end(provider: Provider) -> None:
    """Agents that want an object put the tool that takes it last, and have one called each time until it is that."""
    said = [*HELLO, USE, {"role": "user", "content": [RESULT]}]
    for so_far, called in ((HELLO, "weather"), (said, "tides")):
        answer = messages(provider, tools=MESSAGES_TOOLS, tool_choice={"type": "any"}, messages=so_far)
        assert [block["name"] for block in answer.json()["content"]] == [called]


def test_arguments_come_in_pieces(provider: Provider) -> None:
    """A reader that takes a piece for all of it fails."""
    pieces: dict[int, str] = {}
    for _, event in chat(provider, "tools=2", tools=CHAT_TOOLS, stream=True).events()[:-1]:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            pieces[call["index"]] = pieces.get(call["index"], "") + call["function"]["arguments"]
    assert [json.loads(text) for text in pieces.values()] == [{"city": "sample", "days": 7}] * 2


# -- what is wrong ----------------------------------------------------------------------------------------------------


def call(number: int) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("change", "words_of_it"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image_url"),
        ({"messages": [*HELLO, {"role": "tool", "tool_call_id": "call_1", "content": "x"}]}, "preceeding message"),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [call(1)]}]}, "must be followed by tool messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call(1)]}, *HELLO]}, "call_1"),
        ({"top_k": 3}, "Unrecognized request argument supplied: top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "at the same time"),
        ({"temperature": 2.5}, "temperature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [{"name": "weather"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "does not match pattern"),
        ({"response_format": {"type": "xml"}}, "xml"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_wrong_chat_requests(provider: Provider, change: dict[str, Any], words_of_it: str) -> None:
    """What OpenAI refuses is refused, with 400 and a sentence."""
    answer = chat(provider, **change)
    assert answer.status == 400, answer.body
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert words_of_it in error["message"]


USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
SAID = {"type": "text", "text": "and?"}


@pytest.mark.parametrize("content", ["more agents", [{"type": "text", "text": "more agents"}]])
def test_the_system_may_speak_between_turns(provider: Provider, content: object) -> None:
    """As Claude Code has it, after the user's turn: it is not taken for one."""
    said = [*HELLO, USE, {"role": "user", "content": [RESULT]}, {"role": "system", "content": content}]
    assert messages(provider, messages=said).status == 200


@pytest.mark.parametrize(
    ("change", "words_of_it"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "first message must use the user role"),
        ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, "Unexpected role"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"messages": [*HELLO, {"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id`"),
        ({"messages": [*HELLO, USE, *HELLO]}, "without `tool_result`"),
        ({"messages": [*HELLO, USE]}, "without `tool_result`"),
        ({"messages": [*HELLO, USE, {"role": "user", "content": [SAID, RESULT]}]}, "without `tool_result`"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x "}]}, "trailing whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"n": 2}, "n: Extra inputs are not permitted"),
        ({"temperature": 1.5}, "temperature"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "greater than `thinking.budget_tokens`"),
        ({"thinking": {"type": "enabled", "budget_tokens": 20}}, "budget_tokens"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice"),
        ({"tools": [{"name": "weather"}]}, "input_schema"),
        ({"tools": [{"name": "weather", "input_schema": {}}]}, "input_schema.type"),
        ({"metadata": {"a": "b"}}, "metadata.a"),
    ],
)
def test_wrong_messages_requests(provider: Provider, change: dict[str, Any], words_of_it: str) -> None:
    """What Anthropic refuses is refused."""
    answer = messages(provider, **change)
    assert answer.status == 400, answer.body
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words_of_it in answer.json()["error"]["message"]


def test_anthropic_wants_its_version(provider: Provider) -> None:
    """The header that must not be forgotten."""
    answer = provider.ask(MESSAGES, {"model": "demo", "messages": HELLO, "max_tokens": 5})
    assert (answer.status, answer.json()["error"]["message"]) == (400, "anthropic-version: header is required")


def test_what_anthropic_takes(provider: Provider) -> None:
    """Results first, then text; neighbours of one role; images."""
    answered = [*HELLO, USE, {"role": "user", "content": [RESULT, SAID]}]
    assert messages(provider, "say=echo", messages=answered).json()["content"][0]["text"] == "and?"
    assert messages(provider, messages=[*HELLO, *HELLO]).status == 200
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    shown = [{"role": "user", "content": [image, SAID]}]
    assert messages(provider, messages=shown).json()["usage"]["input_tokens"] >= 100
    counted = provider.ask(f"{MESSAGES}/count_tokens", {"model": "demo", "messages": shown}, ANTHROPIC)
    assert counted.json()["input_tokens"] >= 100


USER = {"role": "user", "parts": [{"text": "x"}]}
CALL = {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]}
ANSWERED = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {}}}]}


@pytest.mark.parametrize(
    ("change", "words_of_it"),
    [
        ({"contents": []}, "contents"),
        ({"messages": []}, 'Unknown name "messages"'),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"role": "user", "parts": [{"text": "x", "inlineData": {}}]}]}, "exactly one"),
        ({"contents": [USER, CALL]}, "function response turn"),
        ({"contents": [USER, CALL, USER]}, "number of function response parts"),
        ({"contents": [USER, ANSWERED]}, "number of function response parts"),
        ({"contents": [CALL, ANSWERED]}, "immediately after a user turn"),
        ({"generationConfig": {"max_tokens": 5}}, 'Unknown name "max_tokens"'),
        ({"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "response mime type"),
        (
            {"tools": [{"functionDeclarations": [{"name": "a", "parameters": {"additionalProperties": False}}]}]},
            'Unknown name "additionalProperties"',
        ),
    ],
)
def test_wrong_gemini_requests(provider: Provider, change: dict[str, Any], words_of_it: str) -> None:
    """What Gemini refuses is refused."""
    answer = gemini(provider, **change)
    assert answer.status == 400, answer.body
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert words_of_it in answer.json()["error"]["message"]


def test_gemini_takes_both_ways_of_writing_names(provider: Provider) -> None:
    """snake_case is the same as camelCase."""
    config = {"max_output_tokens": 2, "thinking_config": {"thinking_budget": 0}}
    answer = gemini(provider, "tokens=5", generation_config=config)
    assert answer.json()["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert gemini(provider, contents=[USER, CALL, ANSWERED]).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_bodies_that_are_no_objects(provider: Provider, body: bytes) -> None:
    """400, and the connection is not lost."""
    assert provider.ask(CHAT, body).status == 400


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "openai", "anthropic", "google"),
    [
        (400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
        (401, "invalid_request_error", "authentication_error", "UNAUTHENTICATED"),
        (402, "insufficient_quota", "billing_error", "RESOURCE_EXHAUSTED"),
        (403, "invalid_request_error", "permission_error", "PERMISSION_DENIED"),
        (404, "invalid_request_error", "not_found_error", "NOT_FOUND"),
        (413, "invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
        (429, "tokens", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (500, "server_error", "api_error", "INTERNAL"),
        (503, "server_error", "overloaded_error", "UNAVAILABLE"),
        (529, "server_error", "overloaded_error", "UNAVAILABLE"),
    ],
)
def test_errors_have_the_shape_of_their_dialect(
    provider: Provider, status: int, openai: str, anthropic: str, google: str
) -> None:
    """By status; and those that pass say when."""
    found = [ask(provider, f"error={status},retry_after=1.5s") for ask in (chat, messages, gemini)]
    assert [answer.status for answer in found] == [status] * 3
    assert found[0].json()["error"]["type"] == openai
    assert found[1].json()["error"]["type"] == anthropic
    assert found[2].json()["error"]["status"] == google
    told = [answer.headers["retry-after"] for answer in found[:2]]
    assert told == (["2", "2"] if status in (429, 503, 529) else [None, None])
    if status == 429:
        assert found[0].headers["retry-after-ms"] == "1500"
        assert found[2].json()["error"]["details"][0]["retryDelay"] == "1.5s"


def test_money_that_is_gone(provider: Provider) -> None:
    """A 429 without a time, and a 402 of Anthropic's."""
    answer = chat(provider, "error=quota")
    assert (answer.status, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert answer.headers["retry-after"] is None
    assert messages(provider, "error=quota").status == 402


def test_only_the_first_requests_fail(provider: Provider) -> None:
    """For tests of retries: the third one is answered."""
    assert [chat(provider, "error=503,times=2,tag=a").status for _ in range(4)] == [503, 503, 200, 200]
    assert chat(provider, "error=503,times=2,tag=b").status == 503


def test_chance() -> None:
    """A share of the requests fails, the same ones each time."""
    with running() as fresh:
        first = [chat(fresh, "error=500,chance=0.5").status for _ in range(40)]
    with running() as fresh:
        assert [chat(fresh, "error=500,chance=0.5").status for _ in range(40)] == first
    assert 5 < first.count(500) < 35


def test_an_error_in_the_middle_of_a_stream(provider: Provider) -> None:
    """The body ends in order, but nothing says that the answer is complete."""
    events = chat(provider, "fail=3", stream=True).events()
    assert len(events) == 4
    assert "error" in events[-1][1]
    events = messages(provider, "fail=3", stream=True).events()
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["type"] == "overloaded_error"
    events = gemini(provider, "fail=3", "streamGenerateContent?alt=sse").events()
    assert "error" in events[-1][1]
    assert chat(provider, "fail=3").status == 500


def test_keys() -> None:
    """With --keys others get 401, whatever field they come in; Gemini says 400, and why in what edgeq reads of it."""
    with running(keys=frozenset((b"sk-good",))) as fresh:
        body = {"model": "demo", "messages": HELLO, "max_tokens": 5}
        assert fresh.ask(CHAT, body).status == 401
        assert fresh.ask(CHAT, body, {"authorization": "Bearer sk-bad"}).json()["error"]["code"] == "invalid_api_key"
        assert fresh.ask(CHAT, body, {"authorization": "Bearer sk-good"}).status == 200
        assert (
            fresh.ask(MESSAGES, body, {**ANTHROPIC, "x-api-key": "sk-bad"}).json()["error"]["type"]
            == "authentication_error"
        )
        assert fresh.ask(MESSAGES, body, {**ANTHROPIC, "x-api-key": "sk-good"}).status == 200
        contents = {"contents": [USER]}
        path = "/v1beta/models/demo:generateContent"
        refused = fresh.ask(path, contents, {"x-goog-api-key": "sk-bad"})
        assert refused.status == 400
        said = judge(decode_error("gemini", 400, refused.body))
        assert (said.reason, "the provider said 400, of its key" in said.detail) == ("upstream_auth", True)
        assert fresh.ask(f"{path}?key=sk-good", contents).status == 200
        assert fresh.ask("/v1/models").status == 401


# -- connections that break -------------------------------------------------------------------------------------------


def raw(provider: Provider, directives: str, stream: bool = True) -> tuple[socket.socket, bytes]:
    """An open connection with a request sent, and what the request was."""
    body = json.dumps({"model": f"mock/{directives}", "messages": HELLO, "stream": stream}).encode()
    sock = socket.create_connection(("127.0.0.1", provider.port), timeout=60)
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return sock, body


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def test_a_stream_that_is_cut(provider: Provider) -> None:
    """Three events, then the connection ends without the last chunk."""
    sock, _ = raw(provider, "cut=3")
    with sock:
        data = read_all(sock)
    assert data.count(b"data: ") == 3
    assert not data.endswith(b"0\r\n\r\n")


def test_a_whole_answer_that_is_cut(provider: Provider) -> None:
    """Its head promises more than comes."""
    sock, _ = raw(provider, "cut=1", stream=False)
    with sock:
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) > len(body) > 0


def test_a_stream_that_is_reset(provider: Provider) -> None:
    """Some of it, then a reset."""
    sock, _ = raw(provider, "reset=3")
    with sock, pytest.raises(ConnectionResetError):
        read_all(sock)


def test_a_stream_that_hangs_and_a_client_that_leaves(provider: Provider) -> None:
    """Nothing more comes; who leaves is counted, and nothing stays open."""
    sock, _ = raw(provider, "hang=2,tag=hang")
    with sock:
        data = b""
        while data.count(b"data: ") < 2:
            data += sock.recv(65536)
        assert provider.stats()["- mock/hang=2,tag=hang"]["open"] == 1
    found = provider.wait_stats(lambda stats: stats["- mock/hang=2,tag=hang"]["open"] == 0)
    assert found["- mock/hang=2,tag=hang"]["cancelled"] == 1


def test_not_even_a_head(provider: Provider) -> None:
    """hang=0: the request is taken, and that is all."""
    sock, _ = raw(provider, "hang=0,tag=mute")
    with sock:
        provider.wait_stats(lambda stats: stats.get("- mock/hang=0,tag=mute", {}).get("open") == 1)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    provider.wait_stats(lambda stats: stats["- mock/hang=0,tag=mute"]["cancelled"] == 1)


def test_the_head_may_come_early(provider: Provider) -> None:
    """Before the first token, which here takes longer than the test."""
    sock, _ = raw(provider, "early,latency=10m")
    with sock:
        assert sock.recv(65536).endswith(b"\r\n\r\n")


# -- HTTP -------------------------------------------------------------------------------------------------------------


def test_requests_in_pieces_and_one_after_another(provider: Provider) -> None:
    """Pipelined, chunked, byte by byte, with Expect: each is answered in its turn on one connection."""
    body = json.dumps({"model": "demo", "messages": HELLO}).encode()
    plain = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    chunked = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    )
    last = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", provider.port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(plain + chunked + plain)
        for byte in plain:
            sock.sendall(bytes((byte,)))
        sock.sendall(last)
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 200 OK") == 5
    assert data.count(b'"chat.completion"') == 4


def test_continue_is_sent(provider: Provider) -> None:
    """A client that expects 100-continue is told to go on."""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=60) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_nonsense_is_refused(provider: Provider) -> None:
    """Two lengths, and a body larger than providers take."""
    for fields, status in ((b"Content-Length: 1\r\nContent-Length: 2", b"400"), (b"Content-Length: 40000000", b"413")):
        with socket.create_connection(("127.0.0.1", provider.port), timeout=60) as sock:
            sock.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 " + status)


def test_slots_are_a_queue() -> None:
    """With one slot the second request waits, and shows in vLLM's metrics, until the first has gone."""
    with running(slots=1) as fresh:
        first, _ = raw(fresh, "hang=1")
        with first:
            assert first.recv(65536)
            second, _ = raw(fresh, "tokens=2")
            third, _ = raw(fresh, "tokens=2")
            with second:
                fresh.wait_metric("num_requests_waiting", 2.0)
                third.close()
                fresh.wait_metric("num_requests_waiting", 1.0)
                fresh.wait_metric("gpu_cache_usage_perc", 1.0)
                first.close()
                assert second.recv(65536).startswith(b"HTTP/1.1 200")
        fresh.wait_metric("num_requests_running", 0.0)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_a_bucket_is_never_overdrawn() -> None:
    """A minute's worth at once, then as much as is refilled; a 429 costs nothing and tells the exact time."""
    account = Account(0, 600, 1000.0)
    assert [account.admit(100, 1000.0)[0] for _ in range(7)] == [""] * 6 + ["tokens"]
    assert account.admit(100, 1000.0) == ("tokens", 10.0)
    assert account.admit(100, 1009.999)[0] == "tokens"
    assert account.admit(100, 1010.001)[0] == ""
    assert account.admit(601, 5000.0) == ("tokens", 60.0)
    assert (account.requests, account.tokens, account.refused_429) == (11, 700, 4)
    account = Account(60, 0, 0.0)
    assert [account.admit(10**6, 0.0)[0] for _ in range(61)] == [""] * 60 + ["requests"]


def test_limits_and_their_headers() -> None:
    """What is left, on every answer; and a 429 with a time when it is passed, per key and model."""
    with running(tokens_per_minute=100, requests_per_minute=1000) as fresh:
        answers = [chat(fresh, "tokens=38,input=2") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[0].headers["x-ratelimit-limit-tokens"] == "100"
        assert answers[0].headers["x-ratelimit-remaining-tokens"] == "60"
        assert answers[0].headers["x-ratelimit-remaining-requests"] == "999"
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert 10 <= int(answers[2].headers["retry-after"]) <= 12
        assert chat(fresh, "tokens=38,input=2,tag=other").status == 200
        answer = messages(fresh, "tokens=99,input=1")
        assert answer.headers["anthropic-ratelimit-tokens-remaining"] == "0"
        assert answer.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
        assert messages(fresh, "tokens=99,input=1").json()["error"]["type"] == "rate_limit_error"
        found = fresh.stats()["- mock/tokens=38,input=2"]
        assert found == {"requests": 3, "tokens": 80, "refused_429": 1, "cancelled": 0, "open": 0}


def test_refusals_that_were_asked_for_are_counted(provider: Provider) -> None:
    """By a directive, as by a limit."""
    for error in ("429", "quota", "500"):
        chat(provider, f"error={error},tag=counted")
        found = provider.stats()[f"- mock/error={error},tag=counted"]
        assert (found["requests"], found["refused_429"]) == (1, int(error != "500"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (360, "6m0s"), (3661.25, "1h1m1.25s")],
)
def test_go_durations(seconds: float, text: str) -> None:
    """As OpenAI's reset headers write them."""
    assert go_duration(seconds) == text


@pytest.mark.parametrize("secret", ["sk-proj-0123456789abcdefghijklmnop", "AIza0123456789ab"])
def test_long_keys_are_not_shown(secret: str) -> None:
    """Somebody may try it with a real one."""
    with running() as fresh:
        fresh.ask(CHAT, {"model": "demo", "messages": HELLO}, {"authorization": f"Bearer {secret}"})
        (name,) = fresh.stats()
        assert name.startswith("sha256:")
        assert secret not in name


# -- the command ------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_it_cleanly() -> None:
    """Even while a stream is open; exit code 0, and no trace."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgeq", "demo-llm", "--listen", "127.0.0.1:0", "--behave", "rate=1,tokens=1000"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        connection = http.client.HTTPConnection("127.0.0.1", int(line.rsplit(":", 1)[1]), timeout=60)
        connection.request("POST", CHAT, json.dumps({"model": "demo", "messages": HELLO, "stream": True}))
        response = connection.getresponse()
        assert response.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
        response.close()
        connection.close()


@pytest.mark.parametrize(
    "arguments", [["--behave", "token=3"], ["--slots", "-1"], ["--listen", "nowhere"], ["--tokens-per-minute", "-5"]]
)
def test_wrong_arguments(arguments: list[str]) -> None:
    """Exit code 2, and the option named."""
    ended = subprocess.run(
        [sys.executable, "-m", "edgeq", "demo-llm", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert arguments[0] in ended.stderr
