"""A message as a stream: Anthropic's events <-> events.

Source: shared reference, llm.md 4.3; docs.claude.com/en/docs/build-with-claude/streaming. Usage is cumulative and may
come more than once, with or without its parts: what is told replaces what was told before, and is never added to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.anthropic_answer import (
    STOP_REASONS,
    STOPS,
    decode_block,
    decode_tier,
    decode_usage,
    encode_tier,
    encode_usage,
    why_refused,
)
from edgeq.llm.dialects.base import ANTHROPIC, StreamEncoder, answer_id, known_object
from edgeq.llm.dialects.errors import decode_error_object, encode_failure
from edgeq.llm.dialects.json_stream import JsonStreamDecoder
from edgeq.llm.message import (
    BROKEN,
    DELTA,
    FINISH,
    IMAGE,
    PART_END,
    PART_START,
    PING,
    REFUSAL,
    START,
    STOP_END,
    THINKING,
    TOOL_USE,
    UNKNOWN,
    Event,
    Part,
    Usage,
)

if TYPE_CHECKING:
    from edgeq.llm.sse import SseEvent

_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'


class AnthropicStreamDecoder(JsonStreamDecoder):
    """`StreamDecoder` of this dialect."""

    def __init__(self) -> None:
        super().__init__()
        self._index: int = -1
        """Of the open part, or the last one."""
        self._kind: int = -1
        """Of the open part; -1: none is, or none that others can say."""
        self._usage: dict[str, Any] = {}
        """All that was told of it."""
        self._stop: str = ""
        self._stop_sequence: str = ""
        self._why_refused: str = ""

    def _has_reason(self) -> bool:
        return self._stop != ""

    def _take(self, event: SseEvent, events: list[Event]) -> None:
        """One server-sent event; of a kind that is not known nothing (the dialect grows by such)."""
        said = self._object(event, events)
        if said is None:
            return
        kind = said.get("type")
        if kind == "content_block_delta":
            delta = known_object(said.get("delta"))
            if delta is not None and self._kind >= 0:
                self._take_delta(delta, events)
        elif kind == "content_block_start":
            self._close(events)
            block = known_object(said.get("content_block"))
            part = decode_block(block) if block is not None else None
            if part is not None:
                self._open(part, events)
        elif kind == "content_block_stop":
            self._close(events)
        elif kind == "message_start":
            self._start(known_object(said.get("message")) or {}, events)
        elif kind == "message_delta":
            self._take_usage(known_object(said.get("usage")))
            delta = known_object(said.get("delta")) or {}
            reason = delta.get("stop_reason")
            if reason:
                self._stop = STOPS.get(str(reason), STOP_END)
            self._stop_sequence = str(delta.get("stop_sequence") or self._stop_sequence)
            self._why_refused = why_refused(delta) or self._why_refused
        elif kind == "message_stop":
            if self._stop or self._index >= 0:
                self._finish(events)
            else:
                self._fail(BROKEN, "the provider's stream ended without a reason", events)
        elif kind == "ping":
            events.append(Event(PING))
        elif kind == "error":
            failed = decode_error_object(ANTHROPIC, 0, said.get("error"))
            self._fail(failed.kind, failed.message, events)

    def _start(self, message: dict[str, Any], events: list[Event]) -> None:
        self._take_usage(known_object(message.get("usage")))
        start = Event(START)
        start.id = str(message.get("id") or "")
        start.model = str(message.get("model") or "")
        start.name = decode_tier(self._usage)
        start.usage = decode_usage(self._usage)
        events.append(start)

    def _take_usage(self, told: dict[str, Any] | None) -> None:
        if told is not None:
            for name, value in told.items():
                if value is not None:
                    self._usage[name] = value

    def _open(self, part: Part, events: list[Event]) -> None:
        self._index += 1
        self._kind = part.kind
        start = Event(PART_START, self._index, part.kind)
        start.id = part.id
        start.name = part.detail or part.name
        events.append(start)
        # Usually all of a block comes in deltas, but what begins it may say something already.
        text = part.arguments if part.kind == TOOL_USE else part.text
        if text:
            events.append(Event(DELTA, self._index, part.kind, text))
        if part.data:
            self._sign(part.data, events)

    def _take_delta(self, delta: dict[str, Any], events: list[Event]) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            text = delta.get("text")
        elif kind == "input_json_delta":
            text = delta.get("partial_json")
        elif kind == "thinking_delta":
            text = delta.get("thinking")
        elif kind == "signature_delta":
            self._sign(str(delta.get("signature") or ""), events)
            return
        else:
            return
        if text and isinstance(text, str):
            events.append(Event(DELTA, self._index, self._kind, text))

    def _sign(self, signature: str, events: list[Event]) -> None:
        delta = Event(DELTA, self._index, THINKING)
        delta.id = signature
        events.append(delta)

    def _close(self, events: list[Event]) -> None:
        if self._kind >= 0:
            events.append(Event(PART_END, self._index, self._kind))
            self._kind = -1

    def _finish(self, events: list[Event]) -> None:
        self._close(events)
        if self._why_refused:
            self._open(Part(REFUSAL, self._why_refused), events)
            self._close(events)
        self._is_over = True
        finish = Event(FINISH)
        finish.stop = self._stop or STOP_END
        finish.stop_sequence = self._stop_sequence
        finish.usage = decode_usage(self._usage)
        events.append(finish)


_DELTA_HEAD: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
_DELTA_WORDS: Final[dict[int, bytes]] = {
    TOOL_USE: b'{"type":"input_json_delta","partial_json":',
    THINKING: b'{"type":"thinking_delta","thinking":',
}
_TEXT_DELTA: Final = b'{"type":"text_delta","text":'


class AnthropicStreamEncoder(StreamEncoder):
    """`StreamEncoder` of this dialect, which has no word for images that a model draws: blocks count without them."""

    def __init__(self, model: str, wants_usage: bool, input_tokens: int, created: int) -> None:
        super().__init__(model, wants_usage, input_tokens, created)
        self._left_out: int = 0

    def end(self) -> bytes:
        """See StreamEncoder."""
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n' if self.finished else b""

    def keepalive(self) -> bytes:
        """See StreamEncoder. Before the message has begun its SDKs take nothing but a comment for nothing."""
        return _PING if self.begun else b":\n\n"

    def _encode_start(self, event: Event, out: list[bytes]) -> None:
        """message_start, once: with the tokens of the input, of which there may be no more than an estimate."""
        if self.begun:
            return
        self.begun = True
        usage = event.usage
        if usage is None or usage.input == UNKNOWN:
            usage = Usage(self.input_tokens, 0)
        said = encode_usage(usage)
        if event.kind == START:
            encode_tier(event.name, said)
        message: dict[str, Any] = {
            "id": answer_id("msg_", event.id if event.kind == START else ""),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": said,
        }
        out.append(_event(b"message_start", {"type": "message_start", "message": message}))

    def _encode_finish(self, event: Event, out: list[bytes]) -> None:
        self._encode_start(event, out)
        self.finished = True
        usage = self.about(event.usage)
        said = encode_usage(usage)
        if event.usage is None or event.usage.input == UNKNOWN:
            # The estimate of message_start stands.
            said = {"output_tokens": usage.output}
        delta = {
            "stop_reason": STOP_REASONS.get(event.stop, "end_turn"),
            "stop_sequence": event.stop_sequence or None,
        }
        out.append(_event(b"message_delta", {"type": "message_delta", "delta": delta, "usage": said}))

    def _encode_part_start(self, event: Event, out: list[bytes]) -> None:
        self._encode_start(event, out)
        if event.part == IMAGE:
            self._left_out += 1
            return
        out.append(_part_start(event, event.index - self._left_out))

    def _encode_delta(self, event: Event, out: list[bytes]) -> None:
        if event.part == THINKING and event.id:
            word = b'{"type":"signature_delta","signature":'
            text = event.id
        else:
            if event.part == IMAGE:
                return
            word = _DELTA_WORDS.get(event.part, _TEXT_DELTA)
            text = event.text
        out.append(_DELTA_HEAD % (event.index - self._left_out) + word + orjson.dumps(text) + b"}}\n\n")

    def _encode_part_end(self, event: Event, out: list[bytes]) -> None:
        if event.part != IMAGE:
            index = event.index - self._left_out
            out.append(_event(b"content_block_stop", {"type": "content_block_stop", "index": index}))

    def _encode_failure(self, event: Event, out: list[bytes]) -> None:
        out.append(encode_failure(ANTHROPIC, event, self.request_id))


def _event(name: bytes, said: dict[str, Any]) -> bytes:
    return b"event: " + name + b"\ndata: " + orjson.dumps(said) + b"\n\n"


def _part_start(event: Event, index: int) -> bytes:
    if event.part == TOOL_USE:
        block: dict[str, Any] = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
    elif event.part == THINKING and event.name == "redacted":
        block = {"type": "redacted_thinking", "data": ""}
    elif event.part == THINKING:
        block = {"type": "thinking", "thinking": "", "signature": ""}
    else:
        block = {"type": "text", "text": ""}
    return _event(b"content_block_start", {"type": "content_block_start", "index": index, "content_block": block})
