"""Answers that pass from a provider to a client of the same dialect, byte for byte: only their usage, their beginning,
their end and their errors are seen. Of a stream an error does not pass, nor what follows it: it may repeat our key, and
is told by edgeq.

A chunk costs a few looks for bytes. That is safe, since within JSON a quote of a text is escaped: the bytes `"usage":`
can only be a key. What matters is decoded then. Most chunks cost less: they are the one before with another text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from edgeq.llm.dialects.base import ANTHROPIC, OPENAI
from edgeq.llm.dialects.errors import decode_error_object, failed_within
from edgeq.llm.dialects.openai_answer import FAILED, error_of_choices
from edgeq.llm.message import INTERNAL, UNKNOWN, Failed, Usage
from edgeq.llm.requested import requested as requested
from edgeq.llm.requested import with_model as with_model
from edgeq.llm.shapes import Peek as Peek
from edgeq.llm.shapes import as_begins, as_choices, as_chunk, as_usage
from edgeq.llm.sse import MAX_EVENT_BYTES, EventReader, is_whole

if TYPE_CHECKING:
    from edgeq.llm.shapes import Told

_REASON: Final = b'"finish_reason":'
_FAILED_BY: Final = re.compile(_REASON + b' ?"(' + "|".join(sorted(FAILED)).encode() + b')"')
_FIRSTS: Final = frozenset(ord(name[0]) for name in FAILED)
"""Letters with which such reasons begin."""
_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""Of an event: a line's end and an empty line."""

_ANSWERS: Final = ("choices", "content", "candidates", "data")
"""Where a whole answer has its words or vectors: it is none of the errors that come with a status of 200."""

_NAMED_ERROR: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")
"""A line's end within JSON is escaped."""

_TEXTS: Final = (b'"content":', b'"arguments":', b'"reasoning_content":', b'"reasoning":', b'"refusal":')
_ANTHROPIC_TEXTS: Final = (b'"text":', b'"partial_json":', b'"thinking":')

_DONE: Final = b"data: [DONE]\n\n"
_ANTHROPIC_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

# What the last event has left open, if it ended with a CR: an LF that follows belongs to it.
_NOTHING: Final = 0
_PASSED: Final = 1
_STRIPPED: Final = 2

# Bytes are looked for as numbers: `b"x" in data` takes the left side for a number first, and throws away an exception.
_LF: Final = 10
_CR: Final = 13
_SPACE: Final = 32
_QUOTE: Final = 34
_BACKSLASH: Final = 92
_N: Final = 110
_BLANKS: Final = b" \t"


def usage_of(dialect: str, body: bytes) -> Usage:
    """Of a whole answer; UNKNOWN if it tells none. Raises: ValueError for what is no JSON object: a page in HTML, what
    was compressed though nobody has asked for it."""
    usage = Usage()
    try:
        told = as_usage.decode(body).usage
    except msgspec.ValidationError:  # of no use, but it may be JSON
        _as_object(body)
        return usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("it is no JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if told is not None:
        _learn(dialect, usage, told)
    return usage


def failure_of(dialect: str, body: bytes, answers: int) -> Failed | None:
    """Why a whole answer that passes is none, though its status is 200; None: it is one."""
    failed = error_of(dialect, body)
    if failed is None and dialect == OPENAI and answers == 1:
        failed = failed_by(body, body.rfind(_REASON))
    return failed


def error_of(dialect: str, body: bytes) -> Failed | None:
    """The error that some providers tell with a status of 200; None: there is none, whatever it is."""
    if body.find(b'"error"') < 0:
        return None
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(said, list) and said:  # Gemini's
        said = said[0]
    if not isinstance(said, dict) or not said.get("error"):
        return None
    for key in _ANSWERS:
        if said.get(key):
            return None
    return decode_error_object(dialect, 0, said["error"])


def failed_by(text: bytes, at: int) -> Failed | None:
    """Where an answer or a chunk of OpenAI's tells why it ends: by an error, which it tells no more of?"""
    begin = at + len(_REASON)
    if at < 0 or begin + 2 >= len(text):
        return None
    if text[begin] == _SPACE:
        begin += 1
    if text[begin + 1] not in _FIRSTS:  # "stop", "length", ..: a match would cost a microsecond
        return None
    match = _FAILED_BY.match(text, at)
    if match is None:
        return None
    return failed_within(INTERNAL, f"the provider has ended its answer: its finish_reason is {match[1].decode()}")


def _as_object(body: bytes) -> dict[str, Any]:
    """Raises: ValueError if it is none."""
    said: Any = orjson.loads(body)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    return said


def _learn(dialect: str, usage: Usage, told: Told) -> None:
    """What is told replaces what was known; what is not told stays."""
    written = told.completion_tokens_details or told.output_tokens_details
    if written is not None:
        usage.reasoning = max(written.reasoning_tokens or written.thinking_tokens or 0, 0)
    if dialect == ANTHROPIC:
        own = UNKNOWN if usage.input == UNKNOWN else usage.input - usage.cached - usage.cache_write
        if told.input_tokens is not None:
            own = max(told.input_tokens, 0)
        if told.cache_read_input_tokens is not None:
            usage.cached = max(told.cache_read_input_tokens, 0)
        if told.cache_creation_input_tokens is not None:
            usage.cache_write = max(told.cache_creation_input_tokens, 0)
        usage.input = UNKNOWN if own == UNKNOWN else own + usage.cached + usage.cache_write
        if told.output_tokens is not None:
            usage.output = max(told.output_tokens, 0)
        return
    read = told.prompt_tokens_details or told.input_tokens_details
    if read is not None:
        usage.cached = max(read.cached_tokens or 0, 0)
        usage.cache_write = max(read.cache_write_tokens or 0, 0)
    total = told.prompt_tokens if told.prompt_tokens is not None else told.input_tokens
    if total is not None:
        usage.input = max(total, 0)
    total = told.completion_tokens if told.completion_tokens is not None else told.output_tokens
    if total is not None:
        usage.output = max(total, 0)
    elif told.prompt_tokens is not None and usage.output == UNKNOWN:
        # Embeddings: there is no output.
        usage.output = 0


class PassThrough:
    """One stream."""

    __slots__ = (
        "_after",
        "_after_cr",
        "_answers",
        "_before",
        "_ended",
        "_held",
        "_held_bytes",
        "_is_anthropic",
        "_strips_usage",
        "begun",
        "dialect",
        "done",
        "failed",
        "finished",
        "output_bytes",
        "thinks",
        "usage",
    )

    def __init__(self, dialect: str, strip_usage: bool, answers: int = 1) -> None:
        """Args: strip_usage: the client has not asked for the usage, edgeq has; answers: so many choices were asked
        for."""
        self.dialect: str = dialect
        self.usage: Usage = Usage()
        """What was told so far."""
        self.begun: bool = False
        """Something of the answer itself has come: text, a thought, a call of a tool."""
        self.finished: bool = False
        """It has told why the answer, or each of them, has ended: nothing of that is missing."""
        self.done: bool = False
        """It has said its last word ([DONE], message_stop)."""
        self.thinks: bool = False
        """A thought of Anthropic's has begun and not ended: it may not be shown, so pings are all that comes."""
        self.failed: Failed | None = None
        """The provider has told an error."""
        self.output_bytes: int = 0
        """Of what the model has written, as JSON: for an estimate if its usage is never told."""
        self._is_anthropic: bool = dialect == ANTHROPIC
        self._strips_usage: bool = strip_usage
        self._answers: int = answers
        self._ended: set[int] = set()
        """Of several answers, those that have ended."""
        self._held: list[bytes] = []
        self._held_bytes: int = 0
        self._before: bytes = b""
        """Of the last event that was nothing but more text: what stood before the text."""
        self._after: bytes = b""
        """And what stood after it, from its quote to the empty line."""
        self._after_cr: int = _NOTHING

    def feed(self, data: bytes) -> bytes:
        """More of the stream. Returns: the events that are complete now, as they came; the rest is held.

        Raises: ValueError if one event is longer than is taken.
        """
        if self._after_cr and data:
            return self._feed_after_cr(data)
        if self._held:
            self._held.append(data)
            # An event that comes in many pieces is looked at once it may be complete, not at each piece.
            if _LF not in data and _CR not in data:
                return self._hold(len(data))
            data = b"".join(self._held)
            self._held = []
            self._held_bytes = 0
        elif self._before and self._is_more(data):
            return data
        if _CR in data:
            return self._feed_lines(data)
        end = data.find(b"\n\n") + 2
        if end == len(data) and end > 1:
            return data if self._see(data) else b""
        # Mostly all pass: they are given on in one piece, from `begin` on.
        passed: list[bytes] = []
        begin = 0
        start = 0
        while end != 1:
            event = data[start:end]
            if not ((self._before and self._is_more(event)) or self._see(event)):
                if begin < start:
                    passed.append(data[begin:start])
                begin = end
            start = end
            end = data.find(b"\n\n", start) + 2
        if begin < start:
            passed.append(data[begin:start])
        return self._pass(data, start, passed)

    def _is_more(self, data: bytes) -> bool:
        """Is it the last event of nothing but text, with another text? False: it must be looked at."""
        start = len(self._before)
        end = len(data) - len(self._after)
        if end <= start or not data.startswith(self._before) or not data.endswith(self._after):
            return False
        text = data[start:end]
        if _QUOTE in text or text[-1] == _BACKSLASH:
            return False
        self.output_bytes += end - start
        return True

    def _feed_lines(self, data: bytes) -> bytes:
        """The same for lines that end with CR, or CRLF, which hardly anybody sends."""
        passed: list[bytes] = []
        start = 0
        is_passed = False
        for match in _END.finditer(data):
            event = data[start : match.end()]
            is_passed = self._see(event)
            if is_passed:
                passed.append(event)
            start = match.end()
        if start == len(data) and data.endswith(b"\r"):
            self._after_cr = _PASSED if is_passed else _STRIPPED
        return self._pass(data, start, passed)

    def _feed_after_cr(self, data: bytes) -> bytes:
        """The same where an LF may belong to the event before."""
        is_passed = self._after_cr == _PASSED
        self._after_cr = _NOTHING
        if not data.startswith(b"\n"):
            return self.feed(data)
        out = self.feed(data[1:])
        return b"\n" + out if is_passed else out

    def rest(self) -> bytes:
        """The connection has ended. Returns: the last event, if only the empty line after it was missing, with one; and
        the last word of the dialect, if all has been said and only that was left out."""
        held = b"".join(self._held)
        self._held = []
        self._held_bytes = 0
        out = b""
        reader = EventReader()
        reader.feed(held)
        for event in reader.rest():
            if is_whole(event.data):
                whole = held.rstrip(b"\r\n") + b"\n\n"
                if self._see(whole):
                    out = whole
        if self.finished and not self.done and self.failed is None:
            self.done = True
            out += _ANTHROPIC_STOP if self._is_anthropic else _DONE
        return out

    def _pass(self, data: bytes, start: int, passed: list[bytes]) -> bytes:
        if start < len(data):
            self._held.append(data[start:])
            self._hold(len(data) - start)
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _hold(self, size: int) -> bytes:
        self._held_bytes += size
        if self._held_bytes > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return b""

    def _see(self, event: bytes) -> bool:
        """One event, with the empty line at its end. Returns: whether it is passed on."""
        if self.failed is not None:
            return False
        if self._is_anthropic:
            return self._see_anthropic(event)
        if event.find(b"error") >= 0 and self._is_error(event):
            return False
        at = event.find(b'"usage":')
        if at >= 0 and not _is_null(event, at + 8):
            return self._see_usage(event)
        at = event.find(b'"delta":')
        if at >= 0:
            self._see_delta(event, at, True)
        elif event.find(b"[DONE]") >= 0 and event.strip() == b"data: [DONE]":
            self.done = True
        return True

    def _see_delta(self, event: bytes, at: int, is_plain: bool) -> None:
        """An OpenAI chunk with a choice; `at` is where its delta begins. Args: is_plain: it has no usage."""
        if self._answers > 1:
            self._count_all(event, at)
        else:
            for key in _TEXTS:
                start = event.find(key, at)
                if start >= 0 and self._count(event, start + len(key), is_plain):
                    # An answer has one text in a chunk, by all that is known; two would only be an estimate too low.
                    break
        if not self.begun and (event.find(b"{", at + 10) >= 0 or event.find(b"[", at + 10) >= 0):
            self.begun = _says_something(event)  # within the delta, whose own brace is before that
        if not self.finished:
            if self._answers > 1:
                if self._end_some(event):
                    self.finished = len(self._ended) >= self._answers
                    self.begun = True
                    self._before = b""
                return
            reason = event.find(_REASON, at)
            if reason < 0:  # hardly anybody tells it before the delta
                reason = event.find(_REASON)
            if reason >= 0 and not _is_null(event, reason + 16):
                self._before = b""
                self.failed = failed_by(event, reason)
                if self.failed is None:
                    self.finished = True
                    self.begun = True

    def _end_some(self, event: bytes) -> bool:
        """Note which of several answers the event ends. Returns: whether it ends one."""
        ends = False
        for data in _data_of(event):
            try:
                told = as_choices.decode(data).choices
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            for choice in told:
                if choice.finish_reason:
                    self._ended.add(choice.index)
                    ends = True
        return ends

    def _count_all(self, event: bytes, at: int) -> None:
        """The texts of a chunk that may tell of several answers."""
        for key in _TEXTS:
            start = event.find(key, at)
            while start >= 0:
                start += len(key)
                self._count(event, start, False)
                start = event.find(key, start)

    def _count(self, event: bytes, start: int, is_plain: bool) -> bool:
        """A value stands there, a text of the model or null. Returns: whether it is a text, and not empty."""
        if event[start] == _SPACE:
            start += 1
        if event[start] != _QUOTE:
            return False
        start += 1
        end = event.find(b'"', start)
        while end > start and event[end - 1] == _BACKSLASH and _is_escaped(event, end):
            end = event.find(b'"', end + 1)
        if end <= start:
            return False
        self.output_bytes += end - start
        self.begun = True
        if is_plain:
            self._before = event[:start]
            self._after = event[end:]
        return True

    def _see_usage(self, event: bytes) -> bool:
        """A chunk that tells the usage; the one that tells nothing else is stripped."""
        for data in _data_of(event):
            try:
                chunk = as_chunk.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return True
            if chunk.usage is not None:
                _learn(self.dialect, self.usage, chunk.usage)
            at = event.find(b'"delta":')
            if at >= 0:
                self._see_delta(event, at, False)
            elif self._strips_usage:
                return bytes(chunk.choices).translate(None, _BLANKS) != b"[]"
        return True

    def _is_error(self, event: bytes) -> bool:
        """It may be one: an object with a truthy `error`, as the SDK sees it, or with a choice that has one; or what is
        called so, whatever it is."""
        is_named = _NAMED_ERROR.search(event) is not None
        if not is_named and event.find(b'"error"') < 0:
            return False
        for data in _data_of(event):
            try:
                said = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
            if not isinstance(said, dict):
                continue
            error = said.get("error") or error_of_choices(said.get("choices"))
            if is_named or error or said.get("type") == "error" or said.get("object") == "error":
                self.failed = decode_error_object(self.dialect, 0, error or said)
                break
        if is_named and self.failed is None:
            self.failed = Failed(500, INTERNAL, "", is_within=True)
        if self.failed is None:
            return False
        self._before = b""
        return True

    def _see_anthropic(self, event: bytes) -> bool:
        """Returns: whether it is passed on."""
        if event.startswith(b"event: content_block_delta\n"):
            self._see_block_delta(event)
            return True
        for one in EventReader().feed(event):
            name = one.event
            try:
                if name == b"content_block_start":
                    self.begun = True
                    self.thinks = one.data.find(b'"thinking"') >= 0
                elif name == b"content_block_stop":
                    self.thinks = False
                elif name == b"content_block_delta":
                    self._see_block_delta(event)
                elif name == b"message_start":
                    begins = as_begins.decode(one.data).message
                    if begins is not None and begins.usage is not None:
                        _learn(ANTHROPIC, self.usage, begins.usage)
                elif name == b"message_delta":
                    self.begun = True
                    reason = one.data.find(b'"stop_reason":')
                    self.finished = self.finished or (reason >= 0 and not _is_null(one.data, reason + 14))
                    told = as_usage.decode(one.data).usage
                    if told is not None:
                        _learn(ANTHROPIC, self.usage, told)
                elif name == b"message_stop":
                    self.done = True
                elif name == b"error" or (not name and one.data.find(b'"error"') >= 0):
                    return not self._is_error(event)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                # What edgeq cannot read the client may: it is passed on as it is.
                continue
        return True

    def _see_block_delta(self, event: bytes) -> None:
        """Its delta has one text."""
        for key in _ANTHROPIC_TEXTS:
            start = event.find(key)
            if start >= 0:
                self._count(event, start + len(key), True)
                return


def _says_something(event: bytes) -> bool:
    """A chunk without a text that `_TEXTS` finds has something else of the answer: calls, audio, Mistral's pieces."""
    for data in _data_of(event):
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        choices = said.get("choices") if isinstance(said, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role"):
                return True
    return False


def _data_of(event: bytes) -> list[bytes]:
    """Of an event with its empty line; mostly it is one line of data."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return [event[6:-2]]
    return [one.data for one in EventReader().feed(event)]


def _is_null(event: bytes, at: int) -> bool:
    """The value there is null; some servers put a space before it."""
    first = event[at]
    if first == _SPACE:
        first = event[at + 1]
    return first == _N


def _is_escaped(event: bytes, at: int) -> bool:
    """The quote there has an odd number of backslashes before it."""
    start = at
    while event[start - 1] == _BACKSLASH:
        start -= 1
    return (at - start) % 2 == 1
