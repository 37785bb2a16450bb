"""What only messages of Anthropic need, and what the tables cannot show."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from edgeq.llm.dialects import anthropic
from edgeq.llm.dialects.anthropic_thinking import version_of, without_foreign_thoughts
from edgeq.llm.message import (
    DELTA,
    FINISH,
    PART_START,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Answer,
    Event,
    Losses,
    Message,
    Part,
    Request,
    Tool,
    Unmappable,
    Usage,
)


def asked(request: Request, losses: Losses | None = None, max_tokens: int = 4096) -> dict[str, Any]:
    """The body of a request."""
    made: dict[str, Any] = orjson.loads(anthropic.encode_request(request, losses or Losses(True), max_tokens))
    return made


def says(model: str = "claude-opus-4-6", *messages: Message, **more: Any) -> Request:
    """A client of chat completions."""
    return Request(model, [*(messages or [Message("user", [Part(TEXT, "hi")])])], dialect="openai", **more)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-2.1", (2, 1)),
        ("claude-3-opus-20240229", (3, 0)),
        ("claude-3-7-sonnet-20250219", (3, 7)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5)),
        ("claude-opus-4-6", (4, 6)),
        ("claude-opus-4.7", (4, 7)),
        ("claude-new", (99, 0)),
    ],
)
def test_versions(model: str, version: tuple[int, int]) -> None:
    """How a model may be told to think goes by its version; dates are none."""
    assert version_of(model) == version


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        ("claude-sonnet-4-5", "medium", {"type": "enabled", "budget_tokens": 8192}, None),
        ("claude-sonnet-4-5", "high", {"type": "enabled", "budget_tokens": 10_000}, None),
        ("claude-opus-4-6", "high", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-4-6", "xhigh", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-4-7", "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}),
        ("claude-latest", "low", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("glm-5", "low", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-opus-4-6", "minimal", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-sonnet-4-5", "none", None, None),
        ("claude-opus-4-7", "none", None, None),
        ("claude-sonnet-5", "none", {"type": "disabled"}, None),
    ],
)
def test_thinking(model: str, effort: str, thinking: Any, config: Any) -> None:
    """Older models have a budget, half of what the answer may be at most; newer ones an effort, and the newest show
    their thoughts only if they are asked to, and think if they are not told not to."""
    made = asked(says(model, effort=effort, max_tokens=20_000))
    assert made.get("thinking") == thinking
    assert made.get("output_config") == config


@pytest.mark.parametrize(
    "request_",
    [
        says("claude-3-5-sonnet-20241022", effort="high"),
        says("claude-sonnet-4-5", effort="high", max_tokens=1500),
        says("claude-sonnet-4-5", effort="low", tools=[Tool("f")], tool_choice="any"),
        says("claude-opus-4-7", effort="low", tools=[Tool("f")], tool_choice="any"),
        says("claude-fable-5", effort="none"),
        says(
            "claude-sonnet-4-5",
            Message("user", [Part(TEXT, "hi")]),
            Message("assistant", [Part(TOOL_USE, id="c", name="f")]),
            Message("user", [Part(TOOL_RESULT, id="c")]),
            effort="low",
            tools=[Tool("f")],
        ),
    ],
)
def test_what_may_not_think(request_: Request) -> None:
    """It answers without, rather than be refused by the provider; and it is told."""
    losses = Losses(False)
    assert "thinking" not in asked(request_, losses)
    assert losses.dropped == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "said", "sent"),
    [
        ("claude-sonnet-4-5", {"effort": "low", "temperature": 0.5}, {}),
        ("claude-opus-4-6", {"effort": "low", "temperature": 0.5, "top_k": 5, "top_p": 0.5}, {}),
        ("claude-opus-4-6", {"effort": "low", "top_p": 0.95}, {"top_p": 0.95}),
        ("claude-opus-4-6", {"temperature": 0.5, "top_k": 5}, {"temperature": 0.5, "top_k": 5}),
        ("claude-opus-4-6", {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5}),
        ("claude-3-5-haiku-20241022", {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ("claude-opus-4-7", {"temperature": 0.5, "top_p": 0.5, "top_k": 5}, {}),
        ("claude-latest", {"temperature": 0.5}, {}),
        ("glm-5", {"effort": "low", "temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
    ],
)
def test_what_a_model_takes_of_sampling(model: str, said: dict[str, Any], sent: dict[str, Any]) -> None:
    """Each refuses a request for the rest, and what is left out is told; of others' models nothing is known."""
    losses = Losses(False)
    names = ("temperature", "top_p", "top_k")
    made = asked(says(model, max_tokens=9000, **said), losses)
    assert {name: made[name] for name in names if name in made} == sent
    assert set(losses.dropped) == {name for name in said if name in names and name not in sent}


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-opus-4-7"])
def test_defaults_need_no_word(model: str) -> None:
    """Nothing is lost, and the other of the two stays where it may."""
    made = asked(says(model, temperature=1.0, top_p=1.0))
    assert "temperature" not in made
    assert made.get("top_p") == (1.0 if model == "claude-opus-4-6" else None)


def test_a_stop_of_blanks() -> None:
    """It refuses the request for one, however many others there are."""
    losses = Losses(False)
    assert asked(says(stop=["\n", "END", ""]), losses)["stop_sequences"] == ["END"]
    assert losses.dropped == ["stop"]


def test_max_tokens_must_be_told() -> None:
    """The target's, where the client has none."""
    assert asked(says(), max_tokens=77)["max_tokens"] == 77
    assert asked(says(max_tokens=5), max_tokens=77)["max_tokens"] == 5


def test_large_numbers_stay() -> None:
    """Arguments are never read as numbers on the way."""
    call = Part(TOOL_USE, id="c", name="f", arguments='{"id": 123456789012345678901234567890}')
    messages = [Message("user", [Part(TEXT, "hi")]), Message("assistant", [call])]
    body = anthropic.encode_request(says("claude-opus-4-6", *messages, tools=[Tool("f")]), Losses(True), 1)
    assert b'"input":{"id": 123456789012345678901234567890}' in body


NUMBERS = (
    '{"a":123456789012345678901234567890,"b":[-0.12345678901234567890123,{"c":12345678.1234567891}],"d":100000000000000000000}',
    '{"a":18446744073709551616}',
    '{"a":-9223372036854775809}',
)


@pytest.mark.parametrize("numbers", NUMBERS)
def test_numbers_of_an_input_stay(numbers: str) -> None:
    """Of calls that Anthropic's models make, and that its clients repeat: every digit, whatever is beside it."""
    given = b'{"type":"tool_use","id":"c","name":"f","input":%b}' % numbers.encode()
    other = b'{"type":"tool_use","id":"d","name":"f","input":{"x":0.5,"y":[18446744073709551615]}}'
    told = anthropic.decode_answer(b'{"content":[{"type":"text","text":"a"},%b,%b]}' % (other, given))
    assert [part.arguments for part in told.parts[1:]] == ['{"x":0.5,"y":[18446744073709551615]}', numbers]
    result = b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"1"}]}'
    turn = b'{"role":"assistant","content":[%b]}'
    body = b'{"model":"m","temperature":0.69999999999999995559,"messages":[{"role":"user","content":"a"},%b,%b,%b]}'
    request = anthropic.decode_request(body % (turn % other, turn % given, result))
    assert request.messages[2].parts[0].arguments == numbers
    assert request.temperature == 0.7


HI: dict[str, Any] = {"role": "user", "content": "hi"}
OWN: dict[str, Any] = {"type": "thinking", "thinking": "a", "signature": "EqQB"}
UNSIGNED: dict[str, Any] = {"type": "thinking", "thinking": "b", "signature": ""}
GEMINIS: dict[str, Any] = {"type": "thinking", "thinking": "c", "signature": "gemini#xyz"}
USE: dict[str, Any] = {"type": "tool_use", "id": "t", "name": "f", "input": {"id": 123456789012345678901234567890}}
OWN_USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_01A", "name": "f", "input": {}}
BUDGET: dict[str, Any] = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("model", "content", "kept", "thinks"),
    [
        ("claude-opus-4-6", [OWN, USE], [OWN, USE], True),
        ("claude-opus-4-6", [UNSIGNED, USE], [USE], False),
        ("claude-opus-4-6", [OWN, GEMINIS, USE, GEMINIS], [OWN, USE], True),
        ("claude-opus-4-6", [UNSIGNED], [], True),
        (
            "anthropic.claude-sonnet-4-5-v1:0",
            [GEMINIS, {"type": "text", "text": "x"}],
            [{"type": "text", "text": "x"}],
            True,
        ),
        ("claude-sonnet-4-5", [UNSIGNED, "odd"], ["odd"], True),
        ("claude-opus-4-6", [USE], [USE], False),
        ("claude-opus-4-6", [{"type": "text", "text": "x"}, USE], [{"type": "text", "text": "x"}, USE], False),
        ("claude-opus-4-6", [OWN_USE], [OWN_USE], True),
        ("kimi-k3", [USE], [USE], True),
        ("kimi-k3", [UNSIGNED, USE], [UNSIGNED, USE], True),
        ("kimi-k3", [UNSIGNED, GEMINIS, USE], [UNSIGNED, USE], True),
    ],
)
def test_thoughts_of_others(model: str, content: list[Any], kept: list[Any], thinks: bool) -> None:
    """A conversation in which another provider has had its turn goes on here without the thoughts of that one, and
    without a thought now if it has called a tool without one: Anthropic's models that think by a budget refuse that."""
    calls = [block["id"] for block in content if isinstance(block, dict) and block["type"] == "tool_use"]
    results = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call}]} for call in calls]
    asked = {"messages": [HI, {"role": "assistant", "content": content}, *results, HI], "thinking": BUDGET}
    body = json.dumps(asked).encode()
    dropped: list[str] = []
    made = without_foreign_thoughts(body, model, dropped)
    if kept == content and thinks:
        assert made is body
    own = [{"role": "assistant", "content": kept}] if kept else []
    assert json.loads(made) == {"messages": [HI, *own, *results, HI]} | ({"thinking": BUDGET} if thinks else {})
    assert dropped == ([] if thinks else ["thinking"])


@pytest.mark.parametrize(
    ("arguments", "there"), [("", {}), ("null", {}), ('{"a":1}', {"a": 1}), ('{"a"', {"arguments": '{"a"'})]
)
def test_an_input_is_an_object(arguments: str, there: dict[str, Any]) -> None:
    """Whatever the model has written: null for none, or a part of an object."""
    answer = Answer("a", "m", [Part(TOOL_USE, id="c", name="f", arguments=arguments)])
    assert orjson.loads(anthropic.encode_answer(answer, None))["content"][0]["input"] == there


def test_arguments_cannot_escape() -> None:
    """What is no JSON object never gets into the body."""
    call = Part(TOOL_USE, id="c", name="f", arguments='{}},{"type":"text"')
    with pytest.raises(Unmappable):
        asked(says("claude-opus-4-6", Message("assistant", [call])))


def test_ids_that_it_does_not_take() -> None:
    """A call and its result have the same, which it takes."""
    made = asked(
        says(
            "claude-opus-4-6",
            Message("user", [Part(TEXT, "hi")]),
            Message("assistant", [Part(TOOL_USE, id="functions.f:0", name="f")]),
            Message("user", [Part(TOOL_RESULT, id="functions.f:0", parts=[Part(TEXT, "1")])]),
        )
    )
    assert made["messages"][1]["content"][0]["id"] == "functions_f_0"
    assert made["messages"][2]["content"][0]["tool_use_id"] == "functions_f_0"


def test_empty_texts_and_blanks_at_the_end() -> None:
    """It refuses both."""
    made = asked(
        says(
            "claude-opus-4-6",
            Message("user", [Part(TEXT, ""), Part(TEXT, "hi")]),
            Message("assistant", [Part(TEXT, "")]),
            Message("user", [Part(TEXT, "go")]),
            Message("assistant", [Part(TEXT, "{ \n")]),
        )
    )
    assert [turn["content"] for turn in made["messages"]] == ["hi", "go", "{"]


def test_thoughts_stay_with_their_provider() -> None:
    """Signed ones go back as they came, others do not go at all."""
    thoughts = [Part(THINKING, "a", data="signed"), Part(THINKING, data="secret", detail="redacted")]
    foreign = Part(THINKING, "b")
    turn = Message("assistant", [*thoughts, foreign, Part(TEXT, "hi")])
    made = asked(says("claude-opus-4-6", Message("user", [Part(TEXT, "hi")]), turn, Message("user", [Part(TEXT, "x")])))
    assert made["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "a", "signature": "signed"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "hi"},
    ]


def test_a_client_of_its_own_loses_nothing() -> None:
    """Blocks, tools and parameters that only this dialect knows are written back."""
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "search_result", "source": "s", "title": "t"}]}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "max"},
        "container": {"id": "c"},
    }
    assert asked(anthropic.decode_request(orjson.dumps(body))) == body
    for thinking in ({"type": "disabled"}, {"type": "enabled", "budget_tokens": 2000}, {"type": "between_tools"}):
        body["thinking"] = thinking
        assert asked(anthropic.decode_request(orjson.dumps(body))) == body


def test_signatures_in_a_stream() -> None:
    """There and back: the thought, its signature, and what is only encrypted."""
    said = [Event(PART_START, 0, THINKING), Event(DELTA, 0, THINKING, "hm"), Event(DELTA, 0, THINKING)]
    said[2].id = "signed"
    said += [Event(PART_START, 1, THINKING), Event(DELTA, 1, THINKING)]
    said[3].name, said[4].id = "redacted", "secret"
    encoder = anthropic.StreamEncoder("m", True, 1, 1)
    events = anthropic.StreamDecoder().feed(encoder.encode(said))
    assert [event.id for event in events if event.kind == DELTA] == ["", "signed", "secret"]
    assert [event.name for event in events if event.kind == PART_START] == ["", "redacted"]


def test_what_keeps_a_client_waiting() -> None:
    """A comment until the message has begun, then the dialect's own ping."""
    encoder = anthropic.StreamEncoder("m", True, 1, 1)
    assert encoder.keepalive().startswith(b":")
    encoder.encode([Event(PART_START, 0, TEXT)])
    assert encoder.keepalive().startswith(b"event: ping\n")
    assert encoder.end() == b""


def test_usage_that_nobody_tells() -> None:
    """The estimate stands, and is not taken back."""
    encoder = anthropic.StreamEncoder("m", True, 33, 1)
    finish = Event(FINISH)
    finish.usage = Usage()
    out = encoder.encode([Event(PART_START, 0, TEXT), finish])
    events = anthropic.StreamDecoder().feed(out + encoder.end())
    assert events[-1].kind == FINISH
    assert events[-1].usage == Usage(33, 0)


def test_a_message_without_its_last_word() -> None:
    """Whole once it has told why it ended."""
    decoder = anthropic.StreamDecoder()
    decoder.feed(b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n')
    assert [event.kind for event in decoder.end()] == [FINISH]
    assert decoder.end() == []
