"""Parsed heads: what the rest of a request's path needs to know, and the bytes to forward.

What was parsed does not change, so a head may serve many requests: a connection remembers its last one, a worker some.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from edgeq.wire.fields import FieldLine
from edgeq.wire.framing import NO_BODY

if TYPE_CHECKING:
    from edgeq.cache.wish import Wish
    from edgeq.policy.tenant import TenantKey
    from edgeq.route.table import Route

SPECIAL: Final = frozenset((101, 204, 304, 408, 429, 503))
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110 9.2.2


class HeadLimits:
    """How large a request head may be, in bytes and fields."""

    __slots__ = ("header_bytes", "header_count", "request_line")

    def __init__(self, request_line: int, header_bytes: int, header_count: int) -> None:
        self.request_line = request_line
        self.header_bytes = header_bytes
        self.header_count = header_count


class RequestFields:
    """What the field lines of a request mean. Requests that differ in nothing but the values of fields that are only
    passed on share one of these."""

    __slots__ = (
        "asked",
        "body_kind",
        "close",
        "content_length",
        "expect_continue",
        "forwarded",
        "host",
        "keep_alive",
        "kept",
        "lines",
        "log_text",
        "max_forwards",
        "private",
        "referer",
        "request_id",
        "te_trailers",
        "traceparent",
        "tracestate",
        "upgrade",
        "user_agent",
        "x_forwarded_for",
        "x_forwarded_host",
        "x_forwarded_proto",
    )

    def __init__(self) -> None:
        self.lines: list[FieldLine] = []
        """The field lines with which this came up, in order, to be recognised in the next head; empty if they must not
        be. Of those that are only passed on, the next head may have other values."""
        self.kept: list[int] = []
        """Which of the lines to forward, by index; fields that edgeq writes itself are not among them."""
        self.asked: dict[bytes, bytes] | None = None
        """By the name of a field whose value was looked for in a head, how its only line begins, with the CRLF before
        it; nothing if there is no such line, or several. Names that are looked for are the configuration's: few."""
        self.log_text = b""
        """Its part of an access-log line, once it has been rendered."""
        self.host = b""
        self.body_kind: int = NO_BODY
        self.content_length: int = 0
        self.close = False
        self.keep_alive = False
        self.expect_continue = False
        self.te_trailers = False
        self.upgrade = b""
        self.max_forwards: int = -1
        self.request_id = b""
        self.traceparent = b""
        self.tracestate = b""
        self.forwarded = b""
        self.x_forwarded_for = b""
        self.x_forwarded_proto = b""
        self.x_forwarded_host = b""
        self.user_agent = b""
        self.referer = b""
        self.private = False
        """Has the head a field that belongs to one user? Then it must not stay in a memory that others share; this may,
        for it has no such values."""


class RequestHead:
    """One request head. `raw` is all of it with the empty line, `fields_at` where in it the request line ends; `target`
    as received; `path` without the query; `kept` the field lines to forward, each with its CRLF."""

    __slots__ = (
        "fields",
        "fields_at",
        "host",
        "idempotent",
        "keep_alive",
        "kept",
        "limits",
        "log_text",
        "method",
        "minor",
        "path",
        "prefix",
        "query",
        "raw",
        "route",
        "settled",
        "target",
        "tenant",
        "tenant_key",
        "version",
        "wish",
    )

    def __init__(
        self,
        raw: bytes,
        fields_at: int,
        method: bytes,
        target: bytes,
        path: bytes,
        query: bytes,
        host: bytes,
        minor: int,
        fields: RequestFields,
        kept: bytes,
    ) -> None:
        self.raw = raw
        self.fields_at: int = fields_at
        self.kept = kept
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        """The query with its "?", or nothing."""
        self.host = host
        """Authority of the request, lower case, with its port if it came with one."""
        self.minor: int = minor
        self.version = b"HTTP/1.1" if minor else b"HTTP/1.0"
        self.fields = fields
        self.route: Route | None = None
        self.prefix = b""
        self.settled: int = -1
        """What a worker has found out about this head: where it goes, the lines to forward, and for which generation of
        the configuration and kind of client (trusted or not) that is so. No prefix: it depends on the endpoint, too."""
        self.tenant = b""
        self.tenant_key: TenantKey | None = None
        """Whom this head names, once somebody has asked, and by which key."""
        self.wish: Wish | None = None
        """What this head asks of a cache, once one has asked."""
        self.limits: HeadLimits | None = None
        """Under which it was accepted, if it is remembered for other connections."""
        self.log_text = b""
        """This head's part of an access-log line, once it has been rendered."""
        self.idempotent: bool = method in _IDEMPOTENT
        # RFC 9112 9.3
        self.keep_alive: bool = not fields.close and (minor == 1 or fields.keep_alive)


class ResponseHead:
    """One response head. `forward` is the status line and the kept lines, each with its CRLF."""

    __slots__ = (
        "_dated",
        "body_kind",
        "content_length",
        "forward",
        "is_special",
        "keep_alive",
        "minor",
        "raw",
        "status",
        "trailers",
        "upgrade",
    )

    def __init__(self, raw: bytes, status: int, minor: int) -> None:
        self.raw = raw
        self._dated: int = -1
        self.status: int = status
        self.minor: int = minor
        self.is_special: bool = status in SPECIAL
        """Its status alone asks for more than to be passed on."""
        self.forward = b""
        self.body_kind: int = NO_BODY
        """As the fields say; a request's method or the status may mean that there is no body all the same."""
        self.content_length: int = 0
        self.keep_alive: bool = True
        self.upgrade = b""
        self.trailers = False

    def is_dated(self) -> bool:
        """Does it say when it was made? If not, who passes it on says when it came (RFC 9110 6.6.1)."""
        if self._dated < 0:  # remembered, as this may be the head of many answers
            raw = self.raw
            found = raw.find(b"\r\nDate:") >= 0 or raw.lower().find(b"\r\ndate:") >= 0
            self._dated = 1 if found else 0
        return self._dated > 0


def field_value(head: RequestHead, name: bytes) -> bytes:
    """The value of the field called `name` (in lower case); nothing if there is none, or more than one line of it.

    Where it stands is remembered on the fields: heads like it cost a search in their bytes.
    """
    fields = head.fields
    raw = head.raw
    if not fields.lines:  # one of h11's, which are not to be recognised: rare
        raw = raw.lower()
        start = b"\r\n" + name + b":"
        if raw.count(start) != 1:
            return b""
    else:
        asked = fields.asked
        if asked is None:
            asked = fields.asked = {}
        known = asked.get(name)
        if known is None:
            known = asked[name] = _start_of(fields, name)
        if not known:
            return b""
        start = known
    at = raw.find(start)
    if at < 0:
        return b""
    at += len(start)
    return head.raw[at : head.raw.find(b"\r\n", at)].strip(b" \t")


def answer_field(head: ResponseHead, name: bytes) -> bytes:
    """The value of an answer's field called `name` (in lower case), the first of several; nothing if there is none."""
    return _value_after(head.raw, b"\r\n" + name + b":", 0)


def _start_of(fields: RequestFields, name: bytes) -> bytes:
    """How the only line of this name begins, with the CRLF before it; nothing if there is no such line, or several."""
    start = b""
    for line in fields.lines:
        if line.name == name:
            if start:
                return b""
            start = b"\r\n" + line.start
    return start


def find_cookie(head: RequestHead, name: bytes) -> bytes:
    """The value of a cookie (RFC 6265 4.2.1), the first of its name; empty if there is none."""
    raw = head.raw
    if raw.find(name) < 0:
        return b""
    low = raw.lower()
    at = head.fields_at
    while True:
        at = low.find(b"\r\ncookie:", at)
        if at < 0:
            return b""
        at += 9
        end = raw.find(b"\r\n", at)
        for pair in raw[at : end if end >= at else len(raw)].split(b";"):
            key, _, value = pair.partition(b"=")
            if key.strip() == name:
                return value.strip(b' \t"')


def retry_after_s(head: ResponseHead) -> float:
    """What Retry-After of an answer says (RFC 9110 10.2.3), in seconds; -1: nothing. A date is compared with the
    answer's own, which is by the same clock; 0 for what cannot be read, or compared."""
    value = _value_after(head.forward, b"\r\nretry-after:", 0)
    if not value:
        return -1.0
    if value.isdigit():
        return float(int(value)) if len(value) < 10 else 0.0
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
        sent = parsedate_to_datetime(_value_after(head.forward, b"\r\ndate:", 0).decode("latin-1"))
        return max(0.0, (moment - sent).total_seconds())
    except (ValueError, TypeError):  # TypeError: only one of them names its zone
        return 0.0


def _value_after(data: bytes, start: bytes, at: int) -> bytes:
    """The rest of the first line that begins so, in any case, from `at` on."""
    at = data.lower().find(start, at)
    if at < 0:
        return b""
    at += len(start)
    end = data.find(b"\r\n", at)
    return data[at : end if end >= at else len(data)].strip(b" \t")
