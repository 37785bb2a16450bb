"""A chat completion as a stream: OpenAI's chunks <-> events.

Source: shared reference, llm.md 4.3; openai/openai-python, types/chat/chat_completion_chunk.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from edgeq.llm.dialects.base import OPENAI, StreamEncoder, answer_id, known_object
from edgeq.llm.dialects.errors import decode_error_object, encode_failure
from edgeq.llm.dialects.inputs import keep_digits_of_calls
from edgeq.llm.dialects.json_stream import JsonStreamDecoder
from edgeq.llm.dialects.openai_answer import (
    FAILED,
    FINISH_REASONS,
    content_parts,
    decode_usage,
    encode_usage,
    error_of_choices,
    image_of,
    images_in,
    made_up_id,
    stop_of,
    tells_tier,
)
from edgeq.llm.dialects.sequence import OpenPart, Sequence
from edgeq.llm.message import (
    BROKEN,
    DELTA,
    FINISH,
    IMAGE,
    INTERNAL,
    REFUSAL,
    START,
    STOP_END,
    STOP_SEQUENCE,
    TEXT,
    THINKING,
    TOOL_USE,
    Event,
    Usage,
)

if TYPE_CHECKING:
    from edgeq.llm.sse import SseEvent


class OpenAiStreamDecoder(JsonStreamDecoder):
    """`StreamDecoder` of this dialect."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: Sequence = Sequence()
        self._id: str = ""
        """Of the answer."""
        self._calls: dict[int, OpenPart] = {}
        """By the provider's index: the last call that has it."""
        self._count: int = 0
        """Of the calls."""
        self._has_started: bool = False
        self._has_calls: bool = False
        self._has_refused: bool = False
        self._finish_reason: str = ""
        self._stop_sequence: str = ""
        self._usage: Usage = Usage()

    def _has_reason(self) -> bool:
        return self._finish_reason != ""

    def _take(self, event: SseEvent, events: list[Event]) -> None:
        if event.data == b"[DONE]":
            if self._finish_reason:
                self._finish(events)
            else:
                self._fail(BROKEN, "the provider's stream ended without a reason", events)
            return
        chunk = self._object(event, events)
        if chunk is None:
            return
        choices = chunk.get("choices")
        error = chunk.get("error") or error_of_choices(choices)
        if error:
            failed = decode_error_object(OPENAI, 0, error)
            self._fail(failed.kind, failed.message, events)
            return
        if event.event == b"error":
            failed = decode_error_object(OPENAI, 0, chunk)
            self._fail(failed.kind, failed.message, events)
            return
        usage = known_object(chunk.get("usage"))
        if usage is not None:
            self._usage = decode_usage(usage)
        if not isinstance(choices, list) or not choices:
            return
        if not self._has_started:
            self._has_started = True
            start = Event(START)
            start.id = self._id = str(chunk.get("id") or "")
            start.model = str(chunk.get("model") or "")
            start.name = str(chunk.get("service_tier") or "")
            events.append(start)
        choice = known_object(choices[0])
        if choice is None or choice.get("index"):
            # Of several choices the first: no other dialect has more than one.
            return
        delta = known_object(choice.get("delta"))
        if delta is not None:
            if delta.get("tool_calls"):
                keep_digits_of_calls(event.data, choices, "delta")
            self._take_delta(delta, events)
        reason = str(choice.get("finish_reason") or "")
        if reason in FAILED:
            self._fail(INTERNAL, f"the provider has ended its answer, as its finish_reason is {reason}", events)
        elif reason:
            self._finish_reason = reason
            matched = choice.get("stop_reason")
            if isinstance(matched, str):
                self._stop_sequence = matched
            self._close(events)

    def _take_delta(self, delta: dict[str, Any], events: list[Event]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            self._parts.add_text(THINKING, thought, events)
        content = delta.get("content")
        if content and isinstance(content, str):
            self._parts.add_text(TEXT, content, events)
        elif content and isinstance(content, list):
            for part in content_parts(content):
                self._parts.add_text(part.kind, part.text, events)
        refusal = delta.get("refusal")
        if refusal and isinstance(refusal, str):
            self._has_refused = True
            self._parts.add_text(REFUSAL, refusal, events)
        if delta.get("images"):
            for image in images_in(delta):
                drawn = OpenPart(IMAGE, name=image.media_type)
                self._parts.open(drawn, events)
                self._parts.add(drawn, image.data, events)
        calls = delta.get("tool_calls")
        if calls and isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._take_call(call, events)

    def _take_call(self, call: dict[str, Any], events: list[Event]) -> None:
        """A piece of a call: a new one if its index is, or if it has another id, as some servers count all as 0; or, of
        those that give none, if it has a name and the one before is over."""
        index = call.get("index")
        number = index if isinstance(index, int) else 0
        call_id = str(call.get("id") or "")
        function = known_object(call.get("function")) or {}
        part = self._calls.get(number)
        name = str(function.get("name") or "")
        if part is None or (call_id and call_id != part.id) or (name and not call_id and part.is_over()):
            part = OpenPart(TOOL_USE, call_id or made_up_id(self._id, self._count), name)
            self._count += 1
            self._has_calls = True
            self._calls[number] = part
            self._parts.open(part, events)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        if arguments and isinstance(arguments, str):
            self._parts.add(part, arguments, events)

    def _close(self, events: list[Event]) -> None:
        """The answer is over, though its usage may still come."""
        self._parts.close(events)
        self._calls.clear()

    def _finish(self, events: list[Event]) -> None:
        self._is_over = True
        self._close(events)
        finish = Event(FINISH)
        finish.stop = stop_of(self._finish_reason, self._has_calls, self._has_refused)
        if self._stop_sequence and finish.stop == STOP_END:
            finish.stop = STOP_SEQUENCE
            finish.stop_sequence = self._stop_sequence
        finish.usage = self._usage
        events.append(finish)


class OpenAiStreamEncoder(StreamEncoder):
    """`StreamEncoder` of this dialect. What all chunks have in common is made once."""

    def __init__(self, model: str, wants_usage: bool, input_tokens: int, created: int) -> None:
        super().__init__(model, wants_usage, input_tokens, created)
        self._head: bytes = b""
        self._tail: bytes = b',"logprobs":null,"finish_reason":null}]'
        self._tail += b',"usage":null}\n\n' if wants_usage else b"}\n\n"
        self._calls: int = -1
        """Index of the last call."""
        self._has_arguments: bool = False
        """Some of that call's have been told."""
        self._images: int = 0
        self._media_type: str = ""
        """Of the image that comes."""

    def end(self) -> bytes:
        """See StreamEncoder."""
        return b"data: [DONE]\n\n" if self.finished else b""

    def _encode_start(self, event: Event, out: list[bytes]) -> None:
        self._begin(event.id, out, event.name)

    def _begin(self, known: str, out: list[bytes], service_tier: str = "") -> None:
        if self.begun:
            return
        self.begun = True
        head = {
            "id": answer_id("chatcmpl-", known),
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }
        if tells_tier(service_tier):
            head["service_tier"] = service_tier
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        self._chunk(b'{"role":"assistant","content":"","refusal":null}', out)

    def _chunk(self, delta: bytes, out: list[bytes]) -> None:
        if not self.begun:
            self._begin("", out)
        out.append(self._head + b'{"index":0,"delta":' + delta + self._tail)

    def _encode_delta(self, event: Event, out: list[bytes]) -> None:
        text = event.text
        if not text:
            # A signature of a thought: only for who has made it.
            return
        part = event.part
        if part == TEXT:
            self._chunk(b'{"content":' + orjson.dumps(text) + b"}", out)
        elif part == TOOL_USE:
            self._has_arguments = True
            self._chunk(
                b'{"tool_calls":[{"index":%d,"function":{"arguments":' % self._calls + orjson.dumps(text) + b"}}]}", out
            )
        elif part == THINKING:
            self._chunk(b'{"reasoning_content":' + orjson.dumps(text) + b"}", out)
        elif part == REFUSAL:
            self._chunk(b'{"refusal":' + orjson.dumps(text) + b"}", out)
        elif part == IMAGE:
            image = image_of(self._media_type, text, self._images)
            self._images += 1
            self._chunk(b'{"images":[' + orjson.dumps(image) + b"]}", out)

    def _encode_part_start(self, event: Event, out: list[bytes]) -> None:
        """Only a call has a beginning of its own."""
        if event.part == IMAGE:
            self._media_type = event.name
        if event.part != TOOL_USE:
            return
        self._calls += 1
        self._has_arguments = False
        call = {
            "index": self._calls,
            "id": event.id,
            "type": "function",
            "function": {"name": event.name, "arguments": ""},
        }
        self._chunk(b'{"tool_calls":[' + orjson.dumps(call) + b"]}", out)

    def _encode_part_end(self, event: Event, out: list[bytes]) -> None:
        """There is no word for it; but clients expect JSON of a call without arguments, too: Anthropic says none."""
        if event.part == TOOL_USE and not self._has_arguments:
            self._encode_delta(Event(DELTA, event.index, TOOL_USE, "{}"), out)

    def _encode_failure(self, event: Event, out: list[bytes]) -> None:
        out.append(encode_failure(OPENAI, event, self.request_id))

    def _encode_finish(self, event: Event, out: list[bytes]) -> None:
        self._begin("", out)
        self.finished = True
        reason = FINISH_REASONS.get(event.stop, "stop").encode()
        tail = b',"usage":null}\n\n' if self.wants_usage else b"}\n\n"
        out.append(self._head + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"' + reason + b'"}]' + tail)
        if self.wants_usage:
            usage = encode_usage(self.about(event.usage))
            out.append(self._head + b'],"usage":' + orjson.dumps(usage) + b"}\n\n")
