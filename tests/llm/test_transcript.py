"""What is logged of an answer: what it says, however it comes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from edgeq.llm.redact import redacted
from edgeq.llm.transcript import MAX_LOGGED, Transcript

MAIL = "write to jane.doe@example.com"
PIECES = ("write to ", "jane", ".doe", "@exam", "ple.com")


def sse(*said: object) -> bytes:
    return b"".join(b"event: x\ndata: " + orjson.dumps(one) + b"\n\n" for one in said)


def chunks(key: str, index: int = 0) -> bytes:
    return sse(
        *({"id": "c", "choices": [{"index": index, "delta": {"role": "assistant", key: one}}]} for one in PIECES)
    )


def blocks(kind: str, key: str) -> bytes:
    return sse(*({"type": "content_block_delta", "index": 1, "delta": {"type": kind, key: one}} for one in PIECES))


def logged(*data: bytes) -> Any:
    made = Transcript()
    for one in data:
        made.add(one)
    return json.loads(made.text())


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (chunks("content") + b"data: [DONE]\n\n", {"content": MAIL}),
        (chunks("content") + chunks("content", 1), {"content": MAIL, "1.content": MAIL}),
        (chunks("reasoning_content") + chunks("refusal"), {"reasoning_content": MAIL, "refusal": MAIL}),
        (
            sse(
                {"choices": [{"delta": {"tool_calls": [{"index": 1, "id": "i", "function": {"name": "f"}}]}}]},
                {"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": '{"a":'}}]}}]},
                {"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": "1}"}}]}}]},
            ),
            {"tool_calls.1.function.name": "f", "tool_calls.1.function.arguments": '{"a":1}'},
        ),
        (blocks("text_delta", "text"), {"1.text": MAIL}),
        (
            sse({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f"}})
            + blocks("input_json_delta", "partial_json"),
            {"name": "f", "1.partial_json": MAIL},
        ),
        (
            sse(
                {
                    "type": "response.output_item.added",
                    "output_index": 0,
                    "item": {"type": "function_call", "name": "f"},
                },
                *(
                    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": one}
                    for one in PIECES
                ),
                {"type": "response.output_text.done", "output_index": 1, "text": MAIL},
                {"type": "response.completed", "response": {"output": [{"text": MAIL}]}},
            ),
            {"name": "f", "1.output_text": MAIL},
        ),
        (chunks("content") + sse({"error": {"message": "it broke"}}), {"content": MAIL, "message": "it broke"}),
    ],
)
def test_a_stream_is_put_together(stream: bytes, text: dict[str, str]) -> None:
    """In each dialect, cut anywhere; and then what is secret can be seen."""
    assert logged(stream) == text
    assert logged(*(stream[at : at + 7] for at in range(0, len(stream), 7))) == text
    made = Transcript()
    made.add(stream)
    assert "jane" not in redacted(made.text().decode())


def test_a_whole_answer_is_as_it_is() -> None:
    """Or its beginning."""
    made = Transcript()
    assert made.text() == b""
    made.whole(b"{}" * MAX_LOGGED)
    assert made.text() == b"{}" * (MAX_LOGGED // 2)


def test_a_long_stream_does_not_fill_the_memory() -> None:
    """What comes later is not logged."""
    event = sse({"choices": [{"delta": {"content": "x" * 1000}}]})
    made = Transcript()
    for _ in range(2000):
        made.add(event)
    assert MAX_LOGGED < len(made.text()) < MAX_LOGGED + 2000


def test_nor_does_a_large_event() -> None:
    """An image that a model draws; or names of a provider's making, each with a word."""
    made = Transcript()
    made.add(sse({"choices": [{"delta": {"images": [{"image_url": {"url": "A" * 3_000_000}}]}}]}))
    assert len(made.text()) < MAX_LOGGED + 2000
    made = Transcript()
    for number in range(2000):
        made.add(sse({"choices": [{"delta": {f"{number}{'x' * 10_000}": "y"}}]}))
    assert len(made.text()) < MAX_LOGGED + 10_000
    made = Transcript()
    made.add(b'data: {"choices":[{"delta":' + b'{"a":' * 1015 + b'"x"' + b"}" * 1015 + b"}]}\n\n")
    assert made.text() in (b"", b'{"' + b"a" + b".a" * 127 + b'.":"x"}')


@pytest.mark.parametrize("data", [b"data: nonsense\n\n", b"data: []\n\n", b'data: {"choices": [1]}\n\n', b": ping\n\n"])
def test_what_says_nothing(data: bytes) -> None:
    """Is not there."""
    made = Transcript()
    made.add(data)
    assert made.text() == b""
