"""The stream of events of OpenAI's responses.

    created, in_progress
    output_item.added     a message      content_part.added, output_text.delta.., output_text.done, content_part.done
                          a refusal      content_part.added, refusal.delta.., refusal.done, content_part.done
                          an image       image_generation_call.in_progress, image_generation_call.completed
                          a call         function_call_arguments.delta.., function_call_arguments.done
                          a thought      reasoning_summary_part.added, reasoning_summary_text.delta.., .done, part.done
    output_item.done      ..and the next item
    completed | incomplete, with the usage and all items once more; or failed, and an error

Every event bears the next `sequence_number`. There is no "[DONE]". The error that follows `failed` has the shape at
which the SDKs raise: whoever does not look at `failed` must not take a cut answer for a whole one.

Source: the openai SDK's types, responses/response_stream_event.py, and its accumulator, lib/streaming/responses.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.dialects.base import StreamEncoder
from edgeq.llm.dialects.errors import responses_error
from edgeq.llm.dialects.responses_answer import answer_name, content, echo, finish, head, item
from edgeq.llm.message import (
    DELTA,
    FAILURE,
    FINISH,
    IMAGE,
    INTERNAL,
    INVALID,
    PART_END,
    PART_START,
    RATE,
    REFUSAL,
    START,
    TEXT,
    THINKING,
    TOOL_USE,
    UNKNOWN,
    Event,
    Failed,
    Part,
    Request,
)

_CODES: Final[dict[str, str]] = {RATE: "rate_limit_exceeded", INVALID: "invalid_prompt"}
"""Of a failed response; anything else is "server_error"."""

_DELTAS: Final[dict[int, str]] = {
    TEXT: "response.output_text",
    REFUSAL: "response.refusal",
    TOOL_USE: "response.function_call_arguments",
    THINKING: "response.reasoning_summary_text",
}
"""Events of these parts, without ".delta" or ".done"."""


class ResponsesStreamEncoder(StreamEncoder):
    """One stream. Its usage is told whether it is wanted or not: this dialect's clients cannot ask."""

    def __init__(self, model: str, wants_usage: bool, input_tokens: int, created: int) -> None:
        super().__init__(model, wants_usage, input_tokens, created)
        self._response: dict[str, Any] = head("", model, created)
        self._name: str = ""
        """Of the answer; empty before it has begun."""
        self._items: list[dict[str, Any]] = []
        """Those that are done."""
        self._part: Part = Part(TEXT)
        """What the item is made of that is being told."""
        self._texts: list[str] = []
        """Of that part, as they came."""
        self._place: dict[str, Any] = {}
        """Where that part stands, as each of its events says it."""
        self._prefix: bytes = b""
        """Of the events of its deltas, up to their number."""
        self._sequence: int = 0

    def answers(self, request: Request) -> None:
        """See StreamEncoder."""
        echo(self._response, request)

    def encode(self, events: list[Event]) -> bytes:
        """The bytes to send for these events."""
        out: list[bytes] = []
        for event in events:
            kind = event.kind
            if kind == DELTA:
                self._delta(event, out)
            elif kind == PART_START:
                self._start(event, out)
            elif kind == PART_END:
                self._done(out)
            elif kind == START:
                self._begin(event, out)
            elif kind == FINISH:
                self._finish(event, out)
            elif kind == FAILURE:
                self._fail(Failed(500, event.name or INTERNAL, event.text), out)
            else:
                out.append(self.keepalive())
        return b"".join(out)

    def end(self) -> bytes:
        """Nothing: the last event says that it is the last."""
        return b""

    def _event(self, kind: str, fields: dict[str, Any], out: list[bytes]) -> None:
        fields["type"] = kind
        fields["sequence_number"] = self._sequence
        self._sequence += 1
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(fields)))

    def _begin(self, event: Event, out: list[bytes]) -> None:
        self.begun = True
        self._name = answer_name(event.id)
        self._response["id"] = "resp_" + self._name
        if event.name:
            self._response["service_tier"] = event.name
        self._event("response.created", {"response": self._response}, out)
        self._event("response.in_progress", {"response": self._response}, out)

    def _start(self, event: Event, out: list[bytes]) -> None:
        part = Part(event.part, id=event.id, name=event.name, detail=event.name if event.part == THINKING else "")
        self._part = part
        self._texts = []
        index = len(self._items)
        blank = item(self._name, index, part)
        if part.kind == TOOL_USE:
            blank["arguments"] = ""
        elif part.kind in (TEXT, REFUSAL):
            blank["content"] = []
        elif part.kind == IMAGE:
            part.media_type = part.name
            blank = item(self._name, index, part) | {"result": None}
        if part.kind != THINKING:
            blank["status"] = "in_progress"
        self._event("response.output_item.added", {"output_index": index, "item": blank}, out)
        self._place = {"item_id": blank["id"], "output_index": index}
        if part.kind in (TEXT, REFUSAL):
            self._place["content_index"] = 0
            self._event("response.content_part.added", self._place | {"part": content(part)}, out)
        elif part.kind == THINKING:
            self._place["summary_index"] = 0
        elif part.kind == IMAGE:
            self._event("response.image_generation_call.in_progress", dict(self._place), out)
            return
        kind = _DELTAS[part.kind] + ".delta"
        fields: dict[str, Any] = {"type": kind} | self._place
        if part.kind == TEXT:
            fields["logprobs"] = []
        said = orjson.dumps(fields)[:-1]
        self._prefix = b'event: %b\ndata: %b,"sequence_number":' % (kind.encode(), said)

    def _delta(self, event: Event, out: list[bytes]) -> None:
        if event.id:
            self._part.data = event.id
        text = event.text
        if not text:
            return
        if self._part.kind == IMAGE:
            self._part.data = text
            return
        if self._part.kind == THINKING and not self._texts:
            part = {"type": "summary_text", "text": ""}
            self._event("response.reasoning_summary_part.added", self._place | {"part": part}, out)
        self._texts.append(text)
        out.append(b'%b%d,"delta":%b}\n\n' % (self._prefix, self._sequence, orjson.dumps(text)))
        self._sequence += 1

    def _done(self, out: list[bytes]) -> None:
        part = self._part
        text = "".join(self._texts)
        kind = _DELTAS.get(part.kind, "") + ".done"
        if part.kind == IMAGE:
            done = item(self._name, len(self._items), part)
            self._event("response.image_generation_call.completed", dict(self._place), out)
        elif part.kind == TOOL_USE:
            part.arguments = text
            done = item(self._name, len(self._items), part)
            said = {"name": part.name, "arguments": done["arguments"]}
            self._event(kind, self._place | said, out)
        else:
            part.text = text
            done = item(self._name, len(self._items), part)
            if part.kind != THINKING:
                said = {"refusal": text} if part.kind == REFUSAL else {"text": text, "logprobs": []}
                self._event(kind, self._place | said, out)
                self._event("response.content_part.done", self._place | {"part": content(part)}, out)
            elif text:
                self._event(kind, self._place | {"text": text}, out)
                self._event("response.reasoning_summary_part.done", self._place | {"part": done["summary"][0]}, out)
        self._event("response.output_item.done", {"output_index": len(self._items), "item": done}, out)
        self._items.append(done)

    def _finish(self, event: Event, out: list[bytes]) -> None:
        self.finished = True
        usage = event.usage
        if usage is not None:
            usage = usage.or_else(self.input_tokens, UNKNOWN)  # which may be left out
        finish(self._response, self._items, event.stop, usage)
        self._event(f"response.{self._response['status']}", {"response": self._response}, out)

    def cut(self, failed: Failed) -> bytes:
        out: list[bytes] = []
        self._fail(failed, out)
        return b"".join(out)

    def _fail(self, failed: Failed, out: list[bytes]) -> None:
        if self._name:
            self._response["status"] = "failed"
            self._response["error"] = {"code": _CODES.get(failed.kind, "server_error"), "message": failed.message}
            self._response["output"] = self._items
            self._event("response.failed", {"response": self._response}, out)
        self.begun = True
        self._event("error", responses_error(failed), out)
