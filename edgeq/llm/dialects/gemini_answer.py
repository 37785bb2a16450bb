"""Gemini's answers, whole and streamed.

- Its output tokens are without thought: `candidatesTokenCount` and `thoughtsTokenCount` are added.
- Calls of tools come whole, with "STOP" as their reason to end, and before Gemini 3 without an id: they get one of the
  answer's id and their number.
- A call's signature becomes a THINKING part before it, marked as Gemini's: clients send such parts back with the next
  turn. Signatures of text may be left out, and are.
- A stream has no last word: "STOP" may stand in each of its events (Gemini 1, and some servers between), so that it has
  ended when nothing more comes, and not before.
- What models draw is images among the parts; drafts of them, which are thoughts, are not told.
- An answer that ends because the model has botched its call is a failure of the provider: another try may do better.

Source: ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from edgeq.llm.dialects.base import GEMINI, GEMINI_SIGNATURE, StreamDecoder, answer_id
from edgeq.llm.dialects.collect import answer_of
from edgeq.llm.dialects.errors import decode_error_object, failure
from edgeq.llm.dialects.gemini_shapes import ContentPart, Counted, Generated, UsageMetadata
from edgeq.llm.message import (
    BROKEN,
    DELTA,
    FINISH,
    IMAGE,
    INTERNAL,
    PART_END,
    PART_START,
    REFUSAL,
    START,
    STOP_END,
    STOP_LENGTH,
    STOP_REFUSAL,
    STOP_TOOL,
    TEXT,
    THINKING,
    TOOL_USE,
    Answer,
    Event,
    Usage,
)
from edgeq.llm.sse import EventReader

_NONE: Final = -1

_STOPS: Final[dict[str, str]] = {
    "STOP": STOP_END,
    "FINISH_REASON_UNSPECIFIED": STOP_END,
    "MAX_TOKENS": STOP_LENGTH,
}
"""Everything else is a way to refuse, if it is not botched."""

_BOTCHED: Final = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    )
)

_generated = msgspec.json.Decoder(Generated)
_counted = msgspec.json.Decoder(Counted)


def generated(body: bytes) -> Generated:
    """Raises: ValueError if it is none."""
    try:
        return _generated.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def decode_answer(body: bytes) -> Answer:
    """A whole answer.

    Raises: ValueError if it is none.
    """
    reader = Reader()
    events = reader.read(generated(body))
    events += reader.end()
    return answer_of(events)


def decode_count(body: bytes) -> int:
    """Tokens of a request, of countTokens.

    Raises: ValueError.
    """
    try:
        return _counted.decode(body).total_tokens
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"Gemini's count cannot be read: {error}") from error


class Reader:
    """What one answer says, in one piece or several."""

    __slots__ = ("_begun", "_called", "_index", "_open", "_reason", "_usage", "_why", "ended", "id")

    def __init__(self) -> None:
        self.id: str = ""
        """Of the answer."""
        self.ended: bool = False
        """FINISH or FAILURE has been told."""
        self._begun: bool = False
        self._open: int = _NONE
        """Kind of the part that is being told."""
        self._index: int = 0
        """Of that part, or of the next."""
        self._called: bool = False
        self._reason: str = ""
        """Why it ends; empty until it says so."""
        self._why: str = ""
        """The same for people, if it refuses."""
        self._usage: Usage | None = None

    def read(self, piece: Generated) -> list[Event]:
        """The events of one piece."""
        events: list[Event] = []
        if self.ended:
            return events
        if piece.error is not None:
            failed = decode_error_object(GEMINI, 0, piece.error)
            return self.fail(failed.kind, failed.message, events)
        if piece.usage_metadata is not None:
            self._usage = _usage(piece.usage_metadata)
        if not self._begun:
            self._begun = True
            start = Event(START)
            self.id = start.id = piece.response_id or answer_id("r_", "")
            start.model = piece.model_version or ""
            start.usage = self._usage
            events.append(start)
        if piece.candidates:
            candidate = piece.candidates[0]
            if candidate.content is not None and candidate.content.parts is not None:
                for part in candidate.content.parts:
                    self._part(part, events)
            if candidate.finish_reason:
                self._reason = candidate.finish_reason
                self._why = candidate.finish_message or ""
                if self._reason in _BOTCHED:
                    said = candidate.finish_message or "the model has made a call that it cannot make"
                    return self.fail(INTERNAL, f"{self._reason}: {said}", events)
        elif piece.prompt_feedback is not None and piece.prompt_feedback.block_reason:
            self._reason = piece.prompt_feedback.block_reason
            self._why = piece.prompt_feedback.block_reason_message or ""
        return events

    def end(self) -> list[Event]:
        """Nothing more comes."""
        events: list[Event] = []
        if not self.ended:
            if self._reason:
                self._finish(events)
            else:
                self.fail(BROKEN, "the answer was cut", events)
        return events

    def _part(self, part: ContentPart, events: list[Event]) -> None:
        call = part.function_call
        if call is not None:
            if part.thought_signature:
                # The thought that led to it, if it is told, and its signature are one part.
                if self._open != THINKING:
                    self._start(THINKING, events)
                signed = Event(DELTA, self._index, THINKING)
                signed.id = GEMINI_SIGNATURE + part.thought_signature
                events.append(signed)
            start = self._start(TOOL_USE, events)
            start.id = call.id or f"call_{self.id}_{start.index}"
            start.name = call.name
            arguments = bytes(call.args).decode()
            events.append(Event(DELTA, start.index, TOOL_USE, "{}" if arguments == "null" else arguments))
            self._close(events)
            self._called = True
        elif part.text:
            kind = THINKING if part.thought else TEXT
            if self._open != kind:
                self._start(kind, events)
            events.append(Event(DELTA, self._index, kind, part.text))
        elif part.inline_data is not None and part.inline_data.mime_type.startswith("image/") and not part.thought:
            self._start(IMAGE, events).name = part.inline_data.mime_type
            events.append(Event(DELTA, self._index, IMAGE, part.inline_data.data))
            self._close(events)

    def _start(self, kind: int, events: list[Event]) -> Event:
        self._close(events)
        self._open = kind
        start = Event(PART_START, self._index, kind)
        events.append(start)
        return start

    def _close(self, events: list[Event]) -> None:
        if self._open != _NONE:
            events.append(Event(PART_END, self._index, self._open))
            self._open = _NONE
            self._index += 1

    def _finish(self, events: list[Event]) -> None:
        self._close(events)
        stop = _STOPS.get(self._reason, STOP_REFUSAL)
        if stop == STOP_REFUSAL and self._why:
            self._start(REFUSAL, events)
            events.append(Event(DELTA, self._index, REFUSAL, self._why))
            self._close(events)
        finish = Event(FINISH)
        finish.stop = STOP_TOOL if stop == STOP_END and self._called else stop
        finish.usage = self._usage if self._usage is not None else Usage()
        events.append(finish)
        self.ended = True

    def fail(self, kind: str, message: str, events: list[Event]) -> list[Event]:
        """Nothing more is told after that."""
        events.append(failure(kind, message))
        self.ended = True
        return events


class GeminiStreamDecoder(StreamDecoder):
    """The events of streamGenerateContent with alt=sse."""

    __slots__ = ("_events", "_reader")

    def __init__(self) -> None:
        self._events = EventReader()
        self._reader = Reader()

    def feed(self, data: bytes) -> list[Event]:
        """See StreamDecoder. What is no event of Gemini's is a FAILURE."""
        told: list[Event] = []
        for event in self._events.feed(data):
            if self._reader.ended:
                break
            if not event.data:
                continue
            try:
                piece = generated(event.data)
            except ValueError as error:
                return self._reader.fail(BROKEN, str(error), told)
            told += self._reader.read(piece)
        return told

    def end(self) -> list[Event]:
        """See StreamDecoder. The last event may lack its empty line; if it cannot be read, it was cut."""
        told: list[Event] = []
        for event in self._events.rest():
            with suppress(ValueError):
                told += self._reader.read(generated(event.data))
        return told + self._reader.end()


def _usage(told: UsageMetadata) -> Usage:
    usage = Usage()
    if told.prompt_token_count is not None:
        usage.input = told.prompt_token_count + (told.tool_use_prompt_token_count or 0)
    usage.reasoning = told.thoughts_token_count or 0
    if told.candidates_token_count is not None:
        usage.output = told.candidates_token_count + usage.reasoning
    elif usage.reasoning:
        usage.output = usage.reasoning
    usage.cached = told.cached_content_token_count or 0
    return usage.bound()
