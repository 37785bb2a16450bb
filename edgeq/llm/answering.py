"""What a target answers to a request for a model, until the client has the last of it.

    head --no stream----> held until its end: the client gets it whole, or the error that it is
         --a stream-----> nothing goes on before its first event; from then on events go on as they come
                             --its last word, or its last byte--> the account is settled, the client gets the end

The answer of a target that speaks the client's dialect passes as it came: of a stream only its usage and its end are
looked for. Other answers are translated, streams event by event.

An answer that fails, or is an error, is for `exchange` to deal with: another target may be asked.
"""

from __future__ import annotations

from json import JSONDecodeError
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from edgeq.llm import speech
from edgeq.llm.asking import ModelRequest
from edgeq.llm.dialects import errors
from edgeq.llm.incoming import Incoming, TooLarge
from edgeq.llm.message import BROKEN, UNKNOWN, Failed, Usage
from edgeq.llm.operation import CHAT
from edgeq.llm.passing import PassThrough, error_of, failure_of, usage_of
from edgeq.llm.plan import Choice
from edgeq.llm.prompts import NotJson
from edgeq.llm.provider_limits import hear
from edgeq.llm.requested import answers, wants_usage
from edgeq.response.at_once import write_at_once
from edgeq.response.relay import FULL_READ
from edgeq.wire.errors import Refused
from edgeq.wire.framing import LAST_CHUNK, chunk
from edgeq.wire.head import answer_field

if TYPE_CHECKING:
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.wire.head import ResponseHead

_LAST_BYTES_S: Final = 2.0
"""For the end of HTTP's framing, after the last word of a stream: a connection can be kept that ends in time, and no
client is to wait for a server that never ends it."""
_USELESS: Final = "the provider's answer cannot be used: "
_NO_STREAM: Final = "a stream was asked for, and none came"


class ModelAnswer(ModelRequest):
    """The part of an exchange that reads one target's answer. See `exchange.ModelExchange`."""

    __slots__ = ()

    # -- the answer ---------------------------------------------------------------------------------------------------

    def answer_data(self, data: bytes) -> None:
        now = monotonic()
        if self._answer_kind < 0:
            self.answer_head(data, now)
        else:
            self._take(data, now)

    def pass_interim(self, answer: ResponseHead) -> None:
        """Nothing goes to the client that is not the model's."""

    def final_head(self, answer: ResponseHead, data: bytes, end: int, now: float) -> None:
        up = self.up
        choice = self.choice
        if up is None or choice is None:
            return
        member = up.pool.member
        if member is not None:
            up.pool.upstream.answered(member, answer, self.sent_at, True, now)
        status = self.said_status = answer.status
        if status == 101 or status == 204 or status == 304:
            self.fail("upstream_protocol_error", up.pool.resource, f"an answer of status {status}")
            return
        if status < 400 and choice.gate.hearing.is_due(now):
            choice.gate.heard(hear(answer.raw, time()), status, now, self.claim)
        up.reusable = answer.keep_alive
        self._answer_kind = answer.body_kind
        incoming = self._incoming = self.incoming(choice, answer)
        if incoming is None:
            self.fail("upstream_protocol_error", up.pool.resource, _USELESS + _NO_STREAM)
            return
        self._take(data[end:], now)

    def incoming(self, choice: Choice, answer: ResponseHead) -> Incoming | None:
        """How the answer of `choice` is to be read that begins with this head. None: a stream was asked for, and it is
        none. If it is JSON it is read all the same: it may say why."""
        peek = self.peek
        operation = self.operation
        assert peek is not None
        assert operation is not None
        incoming = Incoming(answer)
        if self._streams and answer.status == 200:
            content_type = answer_field(answer, b"content-type").lower()
            if b"text/event-stream" not in content_type:
                return incoming if b"json" in content_type else None
            if operation.dialect == choice.dialect and self.prompt is None:
                incoming.passes(PassThrough(operation.dialect, not wants_usage(peek), answers(peek)))
            else:
                encoder = speech.encoder(operation.dialect, peek, self._asked, self._about_tokens(), self.request_id)
                incoming.translates(speech.decoder(choice.dialect), encoder)
        return incoming

    def _take(self, data: bytes, now: float) -> None:
        """Bytes of the answer's body, as they came."""
        up = self.up
        incoming = self._incoming
        if up is None or incoming is None:
            return
        try:
            out = incoming.feed(data)
        except Refused as malformed:  # not the same name as below: compiled, a name has one type
            self.fail("upstream_protocol_error", up.pool.resource, malformed.detail)
            return
        except TooLarge as large:
            if self._streams or not _is_json(incoming):
                self.fail("upstream_protocol_error", up.pool.resource, str(large))
            else:
                self._let_large_go(str(large), now)
            return
        except ValueError as error:
            self.fail("upstream_protocol_error", up.pool.resource, str(error))
            return
        self._taken(up, incoming, out, len(data), now)

    def _let_large_go(self, detail: str, now: float) -> None:
        """What was asked for has an answer that is too large to be held: the target is well, another one would answer
        no less, and this one has done its work."""
        reason = "answer_too_large"
        self.usage = self._given_up(reason, now) or Usage()
        self._first_event(now)
        self.leave_upstream()
        if self._share is not None:
            self._share.refuse(reason, detail, self._target(), now)
        self.fail(reason, self.own_resource(), detail)

    def _taken(self, up: UpstreamConnection, incoming: Incoming, out: bytes, size_bytes: int, now: float) -> None:
        """`out` is what goes to the client of so many bytes that have come."""
        if incoming.has_excess or incoming.ends_with_connection():
            up.reusable = False
        failed = incoming.failed
        if failed is not None and not self._begun:
            self._fail_by(failed, now)
            return
        if out:
            is_first = not self._begun
            if is_first:
                self._begin_stream(now)
            self._last_at = now
            self.answer_bytes += len(out)
            if self._share is not None:
                self._share.add(out, now)
            if self._transcript is not None:
                self._transcript.add(out)
            down = self.down
            if self.head.minor:
                out = chunk(out)
            if is_first:
                write_at_once(down.transport, self._stream_start() + out, down.peer.tls)
            else:
                down.transport.write(out)
        if failed is not None:
            self._fail_by(failed, now)
            return
        if self.up is not up:  # the last of those who wanted it has gone
            return
        if incoming.is_done:
            self._all_came(incoming, now)
            return
        if self._is_held:
            return
        if size_bytes >= FULL_READ:  # the others have their turn first
            up.transport.pause_reading()
            self.down.shard.call_soon(self._read_on)
        if not self.down.write_blocked or self._is_wanted():
            if not (self._begun and incoming.is_sign):  # the time between two tokens goes on
                self._expect_more(up, incoming, now)
        else:
            self.pause_answer()

    def _expect_more(self, up: UpstreamConnection, incoming: Incoming, now: float) -> None:
        """Set the time by which more of the answer must come. Until the first event that is the time for it, whatever
        else comes meanwhile."""
        if incoming.stopped:
            up.expire_after(now, _LAST_BYTES_S)
        elif self._begun:
            up.expire_after(now, self.models.between_s)
        elif incoming.is_stream() or (self._streams and incoming.head.status == 200):
            up.expire_after(self.sent_at, self.models.first_s)
        else:
            up.expire_after(now, up.pool.upstream.body_s)

    # -- a stream -----------------------------------------------------------------------------------------------------

    def _begin_stream(self, now: float) -> None:
        """The first event is here: from now on it is this target's answer. It is yet to be written."""
        self._first_event(now)
        held = self.held
        if held is not None and held.watcher is not None:
            held.hear(self)
        if self._share is not None:
            self._share.begin(True, self._about(), self._target())

    # -- the end of an answer -----------------------------------------------------------------------------------------

    def _all_came(self, incoming: Incoming, now: float) -> None:
        """The last byte of the target's answer is here."""
        incoming.ended()
        failed = incoming.failed
        if not incoming.is_stream():
            self._whole_answer(incoming, now)
        elif failed is not None and failed.kind != BROKEN:  # it was the last event, without the empty line after it
            self._fail_by(failed, now)
        elif not incoming.begun:
            up = self.up
            resource = "" if up is None else up.pool.resource
            what = _compressed(incoming) or "the stream ended before its answer began"
            self.fail("upstream_protocol_error", resource, what)
        elif incoming.stopped:
            if not self._begun:
                self._begin_stream(now)
            self._end_stream(incoming, now)
        else:
            up = self.up
            resource = "" if up is None else up.pool.resource
            self.fail("upstream_truncated", resource, "the stream ended within its answer")

    def _end_stream(self, incoming: Incoming, now: float) -> None:
        out = incoming.rest()
        self._open_stream()
        share = self._share
        if share is not None:
            share.add(out, now)
            share.finish(self._begun and self.degraded is None, now)
        self._settle(now)
        if self._transcript is not None:
            self._transcript.add(out)
        if self.head.minor:
            out = chunk(out) + LAST_CHUNK if out else LAST_CHUNK
        if out:
            self.down.transport.write(out)
        self._complete(now)

    def _whole_answer(self, incoming: Incoming, now: float) -> None:
        choice = self.choice
        operation = self.operation
        up = self.up
        if choice is None or operation is None:
            return
        body = incoming.body()
        status = incoming.head.status
        if status >= 300:
            self._fail_by(errors.decode_error(choice.dialect, status, body), now, body)
            return
        try:
            out, usage, failed = self._read(choice, incoming)
        except NotJson as other:  # a name of its own: compiled, it has one type in a function
            self.usage = other.usage
            self._first_event(now)
            self._whole_connection(now)
            if self._share is not None:
                self._share.refuse("answer_not_json", str(other), self._target(), now)
            self.fail("answer_not_json", self.own_resource(), str(other))
            return
        except ValueError as error:
            resource = "" if up is None else up.pool.resource
            self.fail("upstream_protocol_error", resource, _compressed(incoming) or _useless(error))
            return
        if failed is not None:
            self._fail_by(failed, now, body)
            return
        body = out
        self.usage = usage
        self._first_event(now)
        share = self._share
        if share is not None:
            share.begin(False, self._about(), self._target())
            share.add(body, now)
            share.finish(self.degraded is None, now)
        self.status = 200
        self._settle(now)
        self._send(200, body)
        self._complete(now)

    def is_answer(self, choice: Choice, incoming: Incoming) -> bool:
        """Is what a target has sent as its whole answer one?"""
        try:
            return self._read(choice, incoming)[2] is None
        except NotJson:
            return True  # of the model, who is paid for it
        except ValueError:
            return False

    def _read(self, choice: Choice, incoming: Incoming) -> tuple[bytes, Usage, Failed | None]:
        """A target's whole answer: what the client gets of it, its usage, or the error that it is instead; read once.
        Raises: ValueError if it is none, NotJson."""
        known = incoming.known
        if known is None:
            try:
                known = incoming.known = self._read_body(choice, incoming.body())
            except (TypeError, RecursionError) as error:
                # orjson reads four times as deep as it writes.
                if "ecursion" in str(error):
                    raise ValueError("it is nested too deeply") from None
                raise
        return known

    def _read_body(self, choice: Choice, body: bytes) -> tuple[bytes, Usage, Failed | None]:
        operation = self.operation
        peek = self.peek
        assert operation is not None
        assert peek is not None
        prompt = self.prompt
        if self._streams:
            failed = error_of(choice.dialect, body)
            if failed is None:
                raise ValueError(_NO_STREAM)
            return b"", Usage(), failed
        if operation.dialect == choice.dialect and prompt is None:
            usage = usage_of(operation.dialect, body)
            failed = failure_of(operation.dialect, body, answers(peek))
            if usage.output < 0 and failed is None and operation.kind == CHAT:
                usage.output = _written(choice.dialect, body)
            return body, usage, failed
        failed = error_of(choice.dialect, body)
        if failed is not None:
            return b"", Usage(), failed
        what = self._asked
        assert what is not None
        if what.embedding is not None:
            vectors, usage = speech.vectors(body, what.embedding, peek.model)
            return vectors, usage, None
        if what.counts:
            return speech.counted(body), Usage(), None
        answer = speech.heard(choice.dialect, body, peek.model)
        usage = answer.usage.or_else(UNKNOWN, answer.written())
        if prompt is not None and prompt.settings.answer != "chat":
            try:
                return prompt.answer(answer), usage, None
            except NotJson as error:
                error.usage = usage
                raise
        return speech.said(operation.dialect, answer, what, self._about_tokens()), usage, None

    # -- for who knows of other targets --------------------------------------------------------------------------------

    def _first_event(self, now: float) -> None:
        """From now on it is this target's answer."""
        raise NotImplementedError

    def _fail_by(self, failed: Failed, now: float, body: bytes = b"") -> None:
        """The target has answered with an error."""
        raise NotImplementedError

    def _whole_connection(self, now: float) -> None:
        """What was asked of the target has come to its end: its connection is good for others."""
        raise NotImplementedError

    def _end_cut(self, reason: str, failed: Failed, now: float) -> None:
        """The stream cannot go on: say so in the client's dialect, and end it. `reason`: empty: it is his doing."""
        raise NotImplementedError


def _written(dialect: str, body: bytes) -> int:
    """About how many tokens a whole answer has that passes, and tells no usage. What edgeq cannot read the client may:
    it is not counted."""
    try:
        return speech.written(dialect, body)
    except ValueError:
        return 0


def _useless(error: ValueError) -> str:
    """Why an answer could not be read, as a sentence."""
    return f"{_USELESS}it is no JSON ({error})" if isinstance(error, JSONDecodeError) else f"{_USELESS}{error}"


def _is_json(incoming: Incoming) -> bool:
    """Does it say that it is the answer that was asked for?"""
    head = incoming.head
    return head.status == 200 and b"json" in answer_field(head, b"content-type").lower()


def _compressed(incoming: Incoming) -> str:
    """Why an answer could not be read, if that is it; else empty."""
    coding = answer_field(incoming.head, b"content-encoding")
    if coding in (b"", b"identity"):
        return ""
    return f"{_USELESS}it is compressed ({coding.decode('latin-1')[:50]}), which was not asked for"
