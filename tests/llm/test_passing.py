"""A stream that passes through is the same bytes, and what edgeq must know of it is seen."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.message import BILLING, DELTA, INTERNAL, OVERLOADED, UNKNOWN, Event, Usage
from edgeq.llm.passing import PassThrough, failure_of, usage_of
from tests.llm.dialects.conversations import streams


def chunk(delta: dict[str, Any] | None, **more: Any) -> bytes:
    """A chunk of a chat completion."""
    finish = more.pop("finish_reason", None)
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return b"data: " + orjson.dumps({"id": "c", "model": "m", "choices": choices, "usage": None, **more}) + b"\n\n"


def event(kind: str, **more: Any) -> bytes:
    """An event of a message."""
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **more}) + b"\n\n"


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
LAST = chunk(None, usage=USAGE)
OPENAI = [
    b": hello\n\n",
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": 'a "usage": \\"error\\" b'}),
    chunk({"content": "usage"}),
    chunk({"content": "error"}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    chunk({}, finish_reason="stop"),
    LAST,
    b"data: [DONE]\n\n",
]
ANTHROPIC = [
    event("message_start", message={"usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}}),
    event("ping"),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": 'say "error"'}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7}),
    event("message_stop"),
]


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces."""
    edges = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(CUTS, LINE_ENDS, st.booleans())
@example([-2], b"\r\n", False)
@example([-19], b"\r\n", True)
def test_an_openai_stream(cuts: list[int], line_end: bytes, strips: bool) -> None:
    """Every byte arrives but for the chunk of usage, if the client has not asked for it; and all is seen."""
    passing = PassThrough("openai", strips)
    pieces = cut(b"".join(OPENAI).replace(b"\n", line_end), cuts)
    passed = b"".join([passing.feed(piece) for piece in pieces])
    kept = [one for one in OPENAI if not (strips and one is LAST)]
    assert passed.replace(line_end, b"\n") == b"".join(kept)
    assert passing.usage == Usage(9, 4, 3, 0, 1)
    assert passing.done
    assert passing.finished
    assert passing.begun
    assert passing.failed is None
    expected = ['a "usage": \\"error\\" b', "usage", "error", "{}"]
    assert passing.output_bytes == sum(len(orjson.dumps(text)) - 2 for text in expected)


@given(CUTS, LINE_ENDS)
def test_an_anthropic_stream(cuts: list[int], line_end: bytes) -> None:
    """The same of the other dialect, of which nothing is ever stripped."""
    stream = b"".join(ANTHROPIC).replace(b"\n", line_end)
    passing = PassThrough("anthropic", True)
    assert b"".join([passing.feed(piece) for piece in cut(stream, cuts)]) == stream
    assert passing.usage == Usage(7, 7, 2)
    assert passing.done
    assert passing.finished
    assert passing.begun
    assert passing.failed is None
    assert passing.output_bytes == len(r"say \"error\"")


@pytest.mark.parametrize(("dialect", "silent"), [("openai", OPENAI[:2]), ("anthropic", ANTHROPIC[:2])])
def test_what_is_no_answer_yet(dialect: str, silent: list[bytes]) -> None:
    """Comments, pings and an empty role do not commit edgeq to this provider; the next event does."""
    passing = PassThrough(dialect, False)
    passing.feed(b"".join(silent))
    assert not passing.begun
    passing.feed((OPENAI if dialect == "openai" else ANTHROPIC)[2])
    assert passing.begun


@pytest.mark.parametrize(
    "delta",
    [
        {"role": "assistant", "audio": {"id": "a", "transcript": "hi"}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    ],
)
def test_what_is_no_text_begins_an_answer(delta: dict[str, Any]) -> None:
    """Audio, Mistral's thoughts: a client need not wait for its end."""
    passing = PassThrough("openai", strip_usage=False)
    assert passing.feed(chunk(delta))
    assert passing.begun


def test_servers_that_write_spaces() -> None:
    """JSON as Python's own encoder writes it is seen, too."""
    passing = PassThrough("openai", True)
    first = b'data: {"choices": [{"delta": {"content": "four"}, "finish_reason": null}], "usage": null}\n\n'
    last = b'data: {"choices": [{"delta": {"content": null}, "finish_reason": "stop"}], "usage": null}\n\n'
    assert passing.feed(first) == first
    assert (passing.output_bytes, passing.finished) == (4, False)
    assert passing.feed(last) == last
    assert passing.finished
    assert passing.feed(b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}\n\n') == b""
    assert passing.usage == Usage(1, 2)


def test_a_reason_before_the_delta() -> None:
    """The order of keys means nothing."""
    passing = PassThrough("openai", strip_usage=False)
    passing.feed(b'data: {"choices":[{"finish_reason":null,"delta":{"role":"assistant"}}]}\n\n')
    assert (passing.begun, passing.finished) == (False, False)
    passing.feed(b'data: {"choices":[{"finish_reason":"stop","delta":{}}]}\n\n')
    assert (passing.begun, passing.finished) == (True, True)


@pytest.mark.parametrize("together", [False, True])
def test_the_last_of_several_answers_ends_them(together: bool) -> None:
    """One of two has ended: what comes of the other one still belongs to it, however long it takes."""
    passing = PassThrough("openai", False, 2)

    def choice(index: int, text: str, reason: str | None = None) -> dict[str, object]:
        return {"index": index, "delta": {"content": text}, "finish_reason": reason}

    def feed(*choices: dict[str, object]) -> None:
        for some in [list(choices)] if together else [[one] for one in choices]:
            passing.feed(b"data: " + orjson.dumps({"choices": some}) + b"\n\n")

    feed(choice(0, "a"), choice(1, "b"))
    feed(choice(1, "b"), choice(0, "", "stop"))
    assert passing.begun
    assert not passing.finished
    feed(choice(0, "", "stop"))  # some tell it again
    assert not passing.finished
    feed(choice(1, "c"), choice(1, "", "length"))
    assert passing.finished


def test_usage_beside_a_choice_is_not_stripped() -> None:
    """Some servers tell the usage with the last of the text: that chunk must arrive."""
    passing = PassThrough("openai", True)
    data = chunk({"content": "x"}, usage=USAGE)
    assert passing.feed(data) == data
    assert passing.usage.input == 9
    assert passing.begun


@pytest.mark.parametrize(
    ("choices", "is_stripped"),
    [
        (b'"choices":[],', True),
        (b'"choices" : [ ],', True),
        (b'"choices":null,', False),
        (b'"choices":[{"index":0}],', False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("shape", [b"data: {%b}\n\n", b"event: x\ndata:{%b}\n\n", b"data: {\ndata: %b}\n\n"])
def test_what_is_nothing_but_usage(choices: bytes, is_stripped: bool, shape: bytes) -> None:
    """Only a chunk with an empty list of choices goes, however it is written; anything else may mean something."""
    passing = PassThrough("openai", True)
    data = shape % (choices + b'"usage":{"prompt_tokens":9}')
    assert passing.feed(data) == (b"" if is_stripped else data)
    assert passing.usage.input == 9


def test_errors_within_a_stream() -> None:
    """They are seen, and neither they nor what follows arrives: edgeq tells of them."""
    passing = PassThrough("openai", False)
    text = chunk({"content": "a"})
    data = b'data: {"error":{"message":"no","type":"insufficient_quota","code":"insufficient_quota"}}\n\n'
    assert passing.feed(text + text + data + text) == text + text
    assert passing.feed(text) == passing.feed(b"data: [DONE]\n\n") == b""
    assert passing.failed is not None
    assert (passing.failed.kind, passing.failed.message) == (BILLING, "no")
    passing = PassThrough("anthropic", False)
    assert passing.feed(event("error", error={"type": "overloaded_error", "message": "busy"})) == b""
    assert passing.feed(event("message_stop")) == b""
    assert passing.failed is not None
    assert (passing.failed.kind, passing.failed.message) == (OVERLOADED, "busy")
    assert not passing.done


@pytest.mark.parametrize("said", [b"no sk-secret", b'"no sk-secret"', b'["no sk-secret"]', b""])
@pytest.mark.parametrize("named", [b"event: error\n", b"event:error\r\n"])
def test_an_error_that_is_only_called_so_does_not_pass(named: bytes, said: bytes) -> None:
    """Whatever it says, which may be our key, or nothing."""
    for dialect in ("openai", "anthropic"):
        passing = PassThrough(dialect, False)
        assert passing.feed(named + b"data: " + said + named[-1:] * 2) == b""
        assert passing.rest() == b""
        assert passing.failed is not None
        assert (passing.failed.kind, passing.failed.message) == (INTERNAL, "")


NO = b'{"message":"no"}'


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("openai", b"id: 7\nevent: error\ndata: " + NO),
        ("openai", b": hm\r\nevent:error\r\ndata: " + NO),
        ("openai", b"data: " + NO + b"\nevent: error"),
        ("openai", b'data: {"error":\ndata: {"message":"no"}}'),
        ("openai", b'data: {"choices":[{"index":0,"delta":{"content":"b"}}],"error":{"message":"no"}}'),
        ("openai", b'data: {"choices":[{"index":0,"delta":{"content":"b"},"error":{"message":"no"}}]}'),
        ("openai", b'data: {"choices":[{"index":0,"delta":{}},{"index":1,"delta":{},"error":{"message":"no"}}]}'),
        ("openai", b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"no"}}'),
        ("anthropic", b"id: 7\nevent: error\ndata: " + NO),
        ("anthropic", b'data: {"type":"error","error":{"message":"no"}}'),
        ("anthropic", b'data: {"type": "error", "error":{"message":"no"}}\nevent: error'),
    ],
)
@pytest.mark.parametrize("answers", [1, 2])
def test_errors_wherever_they_are_told(dialect: str, told: bytes, answers: int) -> None:
    """Named where an event does not begin, or within a chunk or a choice: none passes. (It may repeat our key.)"""
    passing = PassThrough(dialect, False, answers)
    begin = chunk({"content": "a"}) if dialect == "openai" else ANTHROPIC[3]
    assert passing.feed(begin) == begin
    assert passing.feed(told + b"\n\n") == b""
    assert passing.failed is not None
    assert passing.failed.message == "no"


def test_words_that_look_like_errors() -> None:
    """Texts and fields that only speak of one are none."""
    passing = PassThrough("openai", False)
    for said in (
        chunk({"content": 'event: error\n"error"'}),
        chunk({"content": "an error"}, error=None),
        chunk({"tool_calls": [{"function": {"name": "error"}}]}),
        b": event: error\ndata: {}\n\n",
        b"id: error\ndata: {}\n\n",
    ):
        assert passing.feed(said) == said
    assert passing.failed is None


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_an_answer_that_ends_by_an_error(reason: str) -> None:
    """Of compatible servers: it has failed, and may be asked for elsewhere if nothing of it has come."""
    passing = PassThrough("openai", False)
    last = chunk({}, finish_reason=reason)
    assert passing.feed(last) == last
    assert (passing.begun, passing.finished) == (False, False)
    assert passing.failed is not None
    body = orjson.dumps({"choices": [{"message": {"content": "h"}, "finish_reason": reason}], "usage": {}})
    failed = failure_of("openai", body, 1)
    assert failed is not None
    assert reason in failed.message
    assert failure_of("openai", body.replace(b":", b": "), 1) is not None
    assert failure_of("openai", body.replace(reason.encode(), b"stop"), 1) is None
    assert failure_of("openai", body, 2) is None  # another one may be good


def test_an_event_that_never_ends() -> None:
    """It does not fill the memory."""
    passing = PassThrough("openai", False)
    passing.feed(b"x" * 16 * 1024 * 1024)
    with pytest.raises(ValueError, match="an event of more than"):
        passing.feed(b"x")


@pytest.mark.parametrize(
    ("dialect", "told", "usage"),
    [
        ("openai", USAGE, Usage(9, 4, 3, 0, 1)),
        ("openai", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
        ("openai", None, Usage(UNKNOWN, UNKNOWN)),
        ("openai", {"prompt_tokens": "many"}, Usage(UNKNOWN, UNKNOWN)),
        (
            "responses",
            {"input_tokens": 4, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 2}},
            Usage(4, 3, 0, 0, 2),
        ),
        (
            "anthropic",
            {"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 5},
            Usage(111, 5, 10, 100),
        ),
    ],
)
def test_usage_of_whole_answers(dialect: str, told: Any, usage: Usage) -> None:
    """Anthropic's input is without what is cached, edgeq's with it."""
    assert usage_of(dialect, orjson.dumps({"id": "x", "usage": told})) == usage
    with pytest.raises(ValueError, match="JSON"):
        usage_of(dialect, b"<html>")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@given(streams(), st.booleans(), CUTS)
def test_what_is_seen_is_what_is_decoded(dialect: str, events: list[Event], wants: bool, cuts: list[int]) -> None:
    """Of any stream, without taking it apart: what was used, that it began and ended, and about how much was said."""
    encoder = DIALECTS[dialect].encoder("m", True, 33, 7)
    begun = encoder.encode(events[:1])
    body = encoder.encode(events[1:-1])
    stream = begun + body + encoder.encode(events[-1:]) + encoder.end()
    passing = PassThrough(dialect, not wants)
    passing.feed(begun)
    assert not passing.begun
    passing.feed(body)
    assert passing.begun == bool(body)
    assert not passing.finished
    passing = PassThrough(dialect, not wants)
    passed = b"".join([passing.feed(piece) for piece in cut(stream, cuts)])
    assert passing.usage == events[-1].usage
    assert (passing.begun, passing.finished, passing.done) == (True, True, True)
    assert passing.output_bytes == sum(len(orjson.dumps(event.text)) - 2 for event in events if event.kind == DELTA)
    assert (passed == stream) == (wants or dialect == "anthropic")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@given(st.lists(st.text(st.sampled_from('a"\\\n\u00e9'), max_size=4), max_size=12))
def test_chunks_that_differ_only_in_their_text(dialect: str, texts: list[str]) -> None:
    """Most do, and are not looked at again: quotes and escapes must be, and what comes after them is not missed."""
    passing = PassThrough(dialect, False)
    events = []
    for text in texts:
        if dialect == "openai":
            data = chunk({"content": text})
        else:
            data = event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        assert passing.feed(data) == data
        assert not passing.finished
        events.append(data)
    said_bytes = sum(len(orjson.dumps(text)) - 2 for text in texts)
    assert passing.output_bytes == said_bytes
    # And all in one piece, as a busy worker reads them.
    together = PassThrough(dialect, False)
    assert together.feed(b"".join(events)) == b"".join(events)
    assert together.output_bytes == said_bytes
    assert together.begun == passing.begun
    assert passing.begun == any(texts)
    last = chunk({"content": "z"}, finish_reason="stop") if dialect == "openai" else ANTHROPIC[-2]
    passing.feed(last)
    assert passing.finished
    passing.feed(OPENAI[-1] if dialect == "openai" else ANTHROPIC[-1])
    assert passing.done
    assert passing.failed is None
    passing.feed(b'event: error\ndata: {"type":"error","error":{"message":"late"}}\n\n')
    assert passing.failed is not None


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_last_word_without_its_empty_line(dialect: str, missing: int) -> None:
    """Some servers leave it out: the client gets it, and knows that all is said."""
    stream = b"".join(OPENAI if dialect == "openai" else ANTHROPIC)
    passing = PassThrough(dialect, False)
    passed = passing.feed(stream[:-missing])
    before = passing.done
    assert passed + passing.rest() == stream
    assert (before, passing.done) == (False, True)
    assert passing.rest() == b""


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_last_word_that_was_left_out(dialect: str) -> None:
    """Whoever has told why the answer ended has said all: the client, who may wait for it, gets the last word."""
    stream = b"".join((OPENAI if dialect == "openai" else ANTHROPIC)[:-1])
    passing = PassThrough(dialect, False)
    assert passing.feed(stream) == stream
    assert (passing.finished, passing.done) == (True, False)
    stop = b"data: [DONE]\n\n" if dialect == "openai" else event("message_stop")
    assert passing.rest() == stop
    assert passing.done
    assert passing.rest() == b""


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_an_event_that_was_cut(dialect: str) -> None:
    """It is not passed on as if it were whole."""
    stream = b"".join((OPENAI if dialect == "openai" else ANTHROPIC)[:4])
    passing = PassThrough(dialect, False)
    passing.feed(stream[:-6])
    assert passing.rest() == b""
    assert not passing.done
