"""One target's answer as it comes: its framing, its events, what they say of it, and what of it goes to the client.

    bytes --framing--> payload --a stream of the client's dialect--> passed on, seen
                               --a stream of another dialect-------> events, translated
                               --no stream------------------------> held until its end

Before the first event that means something nothing is given out: until then another target may answer. Decisions only;
who writes, fails or turns to another target is the exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.llm import message
from edgeq.llm.dialects.errors import failed_within
from edgeq.llm.message import Usage
from edgeq.llm.sse import is_sign_of_life
from edgeq.wire.framing import CHUNKED, LENGTH, NO_BODY, UNTIL_CLOSE, ChunkedFramer

if TYPE_CHECKING:
    from edgeq.llm.dialects.base import StreamDecoder, StreamEncoder
    from edgeq.llm.message import Event, Failed
    from edgeq.llm.passing import PassThrough
    from edgeq.wire.head import ResponseHead

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Of a whole answer: embeddings are the largest."""
MAX_KEPT: Final = 256 * 1024
"""Of a stream before its first event."""
_MAX_TRAILERS: Final = 64 * 1024


class TooLarge(ValueError):
    """It has more bytes than are held of one that is no stream."""


class Incoming:
    """See above. `begun`: something of the answer itself has come; `stopped`: it has said its last word; `is_done`: its
    last byte is here."""

    __slots__ = (
        "_decoder",
        "_encoder",
        "_framer",
        "_kept",
        "_kind",
        "_parts",
        "_passing",
        "_remaining",
        "_said_bytes",
        "_size",
        "_usage",
        "begun",
        "failed",
        "has_excess",
        "head",
        "is_done",
        "is_sign",
        "known",
        "stopped",
    )

    def __init__(self, head: ResponseHead) -> None:
        """An answer that is no stream, unless `passes` or `translates` is called."""
        self.head: ResponseHead = head
        kind = head.body_kind
        self._remaining: int = head.content_length if kind == LENGTH else 0
        self._kind: int = LENGTH if kind == NO_BODY else kind
        self._framer: ChunkedFramer | None = ChunkedFramer(True, False, _MAX_TRAILERS) if kind == CHUNKED else None
        self._passing: PassThrough | None = None
        self._decoder: StreamDecoder | None = None
        self._encoder: StreamEncoder | None = None
        self._parts: list[bytes] = []
        self._size: int = 0
        self._kept = b""
        self._said_bytes: int = 0
        self._usage: Usage = Usage()
        self.begun: bool = False
        self.stopped: bool = False
        self.is_done: bool = False
        self.is_sign: bool = False
        """What has come last of a stream was a sign of life, and no word, though no thought is under way."""
        self.failed: Failed | None = None
        """The target has told an error within its stream."""
        self.known: tuple[bytes, Usage, Failed | None] | None = None
        """Of one that is no stream, once its exchange has read it: what the client gets, its usage, or its error."""
        self.has_excess: bool = False
        """More has come than belongs to it."""

    def passes(self, passing: PassThrough) -> None:
        """It is a stream of the client's own dialect."""
        self._passing = passing

    def translates(self, decoder: StreamDecoder, encoder: StreamEncoder) -> None:
        """It is a stream of another dialect than the client's."""
        self._decoder = decoder
        self._encoder = encoder

    def is_stream(self) -> bool:
        """Is it one?"""
        return self._passing is not None or self._decoder is not None

    def ends_with_connection(self) -> bool:
        """Is the end of the connection its end?"""
        return self._kind == UNTIL_CLOSE

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body. Returns: what goes to the client now; of what is no stream, nothing.

        Raises: Refused for a body that is not well formed; ValueError for too much, or an event that is none.
        """
        payload = data
        if self._kind == LENGTH:
            remaining = self._remaining
            size = len(data)
            if size > remaining:
                payload = data[:remaining]
                size = remaining
                self.has_excess = True
            self._remaining = remaining - size
            self.is_done = size == remaining
        else:
            framer = self._framer
            if framer is not None:
                payload = framer.feed(data)
                self.is_done = framer.done
                self.has_excess = len(framer.excess) > 0
        if not payload:
            return b""
        passing = self._passing
        if passing is not None:
            self.is_sign = is_sign_of_life(payload)
            out = passing.feed(payload)
            if passing.begun:
                self.begun = True
            if passing.thinks:
                self.is_sign = False
            self.failed = passing.failed
            self.stopped = passing.done or passing.finished
        elif self._decoder is not None:
            self.is_sign = is_sign_of_life(payload)
            out = self._translated(self._decoder.feed(payload))
        else:
            self._parts.append(payload)
            self._size += len(payload)
            if self._size + self._remaining > MAX_ANSWER:
                raise TooLarge(f"the provider's answer has more than {MAX_ANSWER} bytes")
            return b""
        if self.begun:
            if self._kept:
                out = self._kept + out
                self._kept = b""
            return out
        self._kept += out
        if len(self._kept) > MAX_KEPT:
            raise ValueError(f"the provider's answer has not begun within {MAX_KEPT} bytes")
        return b""

    def _translated(self, events: list[Event]) -> bytes:
        """Events in the client's words; what they say of the whole answer is noted."""
        for number, event in enumerate(events):
            kind = event.kind
            if kind == message.DELTA:
                self.begun = True
                if event.part != message.IMAGE:
                    self._said_bytes += message.utf8_bytes(event.text)
            elif kind == message.FAILURE:
                self.failed = failed_within(event.name or message.INTERNAL, event.text)
                events = events[:number]
                break
            elif kind == message.START or kind == message.FINISH:
                if event.usage is not None:
                    self._usage = event.usage
                if kind == message.FINISH:
                    self.begun = True
                    self.stopped = True
            elif kind != message.PING:
                self.begun = True
        encoder = self._encoder
        if encoder is None:
            return b""
        if self.stopped:
            encoder.output_tokens = self.written()
        return encoder.encode(events)

    def ended(self) -> None:
        """Its last byte is here. Some dialects have no last word (Gemini), and some servers leave theirs out: that all
        has been said is known only now."""
        passing = self._passing
        if passing is not None:
            self._kept += passing.rest()
            self.failed = passing.failed
            self.begun = passing.begun
            self.stopped = passing.done or passing.finished
        elif self._decoder is not None and not self.stopped:
            self._kept += self._translated(self._decoder.end())

    def rest(self) -> bytes:
        """What is left to be said of a stream that has come to its end."""
        out = self._kept
        self._kept = b""
        return out if self._encoder is None else out + self._encoder.end()

    def cut(self, failed: Failed) -> bytes:
        """What ends a stream that has begun, if its dialect has more to say then than an error; else empty."""
        return self._encoder.cut(failed) if self.begun and self._encoder is not None else b""

    def body(self) -> bytes:
        """All of an answer that is no stream."""
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def usage(self) -> Usage:
        """As far as the stream has told it. What some tell when they begin (Anthropic: an output of 1) is no number of
        one that has not come to its end: what has come of it is, if that is more."""
        passing = self._passing
        usage = self._usage if passing is None else passing.usage
        if usage.output >= 0 and not self.stopped:
            written = self.written()
            if written > usage.output:
                usage.output = written
        return usage

    def written(self) -> int:
        """About how many tokens the model has written, for when nobody tells the usage."""
        passing = self._passing
        said_bytes = self._said_bytes if passing is None else passing.output_bytes
        return said_bytes // message.BYTES_PER_TOKEN
