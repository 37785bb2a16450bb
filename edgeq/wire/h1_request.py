"""Request heads, read strictly (RFC 9112 3, 5, 6): the fast parser, and h11 for what is legal but unusual.

    bytes -> complete head? -> plain? -> fast parser ------------------> RequestHead
                                 |                                          ^
                                 no: the gate refuses what is ambiguous -> h11, its result through the fast parser

Everything that two parsers could read differently is refused: bare CR or LF, folded lines, white space before a colon,
two Hosts, Content-Length twice or beside Transfer-Encoding, any transfer coding other than one `chunked`, Transfer-
Encoding in HTTP/1.0, a body length that is not plain digits. Unusual but unambiguous, hence h11's: empty lines before
the request line (RFC 9112 2.2) and bytes above 0x7F in field values (obs-text).
"""

from __future__ import annotations

from typing import Final

import h11

from edgeq.wire.chars import HEX_DIGITS, REQUEST_ID, TARGET_MAP, TOKEN, VALUE_MAP
from edgeq.wire.errors import Refused
from edgeq.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DROP,
    END_TO_END,
    EXPECT,
    FORWARDED,
    MAX_FORWARDS,
    PASS,
    REFERER,
    TE,
    TRACEPARENT,
    TRACESTATE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    FieldLine,
    parse_content_length,
    parse_host,
    parse_line,
)
from edgeq.wire.fields import HOST as HOST_FIELD
from edgeq.wire.fields import REQUEST_ID as REQUEST_ID_FIELD
from edgeq.wire.framing import CHUNKED, LENGTH
from edgeq.wire.head import HeadLimits, RequestFields, RequestHead

_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_H11_MAX: Final = 1 << 20
_EMPTY_LINES: Final = b"\r\n\r\n\r\n\r"
"""What may stand before a request line, in full or in part."""

_templates: Final[dict[int, RequestFields]] = {}
"""What the first heads of connections meant of late, by their number of lines (which `header_count` bounds)."""


def find_end(data: bytes, seen: int, limits: HeadLimits) -> int:
    """The length of the head at the start of `data` with its empty line, or -1 while it is incomplete.

    `seen`: how many bytes were there at the last call. Raises: Refused as soon as a limit is passed or a byte shows
    that this never becomes a valid head, so that nobody has to wait for the rest.
    """
    start = seen - 3
    end = data.find(b"\r\n\r\n", max(0, start))
    size = end + 4 if end >= 0 else len(data)
    line_end = data.find(b"\r\n", 0, limits.request_line + 2)
    blank = 0
    if line_end == 0:  # empty lines before the request line are h11's, few of them
        blank = len(data) - len(data.lstrip(b"\r\n"))
        if not _EMPTY_LINES.startswith(data[:blank]):
            raise Refused("request_malformed", "too many empty lines before the request")
        if blank == len(data):
            return -1
        end = data.find(b"\r\n\r\n", blank)
        size = end + 4 if end >= 0 else len(data)
        line_end = data.find(b"\r\n", blank, blank + limits.request_line + 2)
    if line_end < 0:
        if size - blank > limits.request_line + 1:  # the last one may be the line's CR
            raise Refused("request_line_too_long", f"the request line is longer than {limits.request_line} bytes")
        if data.find(b"\n", blank) >= 0:
            raise Refused("request_malformed", "a line ends with a bare LF")
    elif size - line_end - 4 > limits.header_bytes:
        raise Refused("header_bytes_exceeded", f"the header section is larger than {limits.header_bytes} bytes")
    elif end < 0 and data.count(b"\n", seen) != data.count(b"\r\n", max(0, seen - 1)):  # or a byte costs all before it
        raise Refused("request_malformed", "a line ends with a bare LF")
    return -1 if end < 0 else end + 4


def parse_whole(data: bytes, previous: RequestHead | None, limits: HeadLimits) -> RequestHead | None:
    """The common case in one pass: `data` is one complete head and nothing else. None: it may not be, use the others.

    `previous`: the last head of this connection; field lines that are the same again are not looked at again.
    Raises: Refused.
    """
    line_end = data.find(b"\r\n")
    if line_end <= 0:
        return None
    line = data[:line_end]
    if line_end > limits.request_line:
        raise Refused("request_line_too_long", f"the request line is longer than {limits.request_line} bytes")
    size = len(data) - line_end
    if previous is not None and previous.fields.lines:
        before = previous.raw[previous.fields_at :]
        if size == len(before) and data.endswith(before):
            return _finish(data, line_end, line, previous.fields, previous.kept)
    lines = data.split(b"\r\n")
    count = len(lines)
    if count < 4 or lines[count - 1] or lines[count - 2]:
        return None
    if size - 4 > limits.header_bytes or count - 3 > limits.header_count:
        if b"" in lines[: count - 2]:
            return None  # a body or another request follows
        if size - 4 > limits.header_bytes:
            raise Refused("header_bytes_exceeded", f"the header section is larger than {limits.header_bytes} bytes")
    fields = previous.fields if previous is not None else _templates.get(count)
    if fields is None or count - 3 > limits.header_count or not _means_the_same(lines, fields):
        fields = _parse_fields(lines, previous, limits, False)
        if fields is None:
            return None if b"" in lines[: count - 2] else _parse_unusual(data, limits)
        if previous is None:
            _templates[count] = fields
    return _finish(data, line_end, line, fields, _kept_lines(lines, fields))


def parse_request(raw: bytes, previous: RequestHead | None, limits: HeadLimits) -> RequestHead:
    """Parse a complete head (with its empty line, as measured by `find_end`). Raises: Refused."""
    head = parse_whole(raw, previous, limits)
    if head is not None:
        return head
    line_end = raw.find(b"\r\n")
    if line_end > 0 and raw[line_end:] == b"\r\n\r\n":  # a request line without any field
        return _finish(raw, line_end, raw[:line_end], RequestFields(), b"")
    return _parse_unusual(raw, limits)


def _means_the_same(lines: list[bytes], fields: RequestFields) -> bool:
    """Are these the field lines that were understood before, but for other valid values of fields that are only passed
    on? Then nothing has to be understood again (`lines`: as for `_parse_fields`)."""
    known = fields.lines
    count = len(lines) - 3
    if len(known) != count:
        return False
    for index in range(count):
        field = known[index]
        line = lines[index + 1]
        if field.line != line:
            if field.kind != PASS or not line.startswith(field.start) or 0 in line.translate(VALUE_MAP):
                return False
    return True


def _kept_lines(lines: list[bytes], fields: RequestFields) -> bytes:
    """The lines to forward, each with its CRLF."""
    kept = [lines[index] for index in fields.kept]
    if not kept:
        return b""
    kept.append(b"")
    return b"\r\n".join(kept)


def _finish(raw: bytes, line_end: int, line: bytes, fields: RequestFields, kept: bytes) -> RequestHead:
    """From the request line and the understood fields to a head."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise Refused("request_malformed", "the request line is not METHOD SP TARGET SP VERSION")
    method, target, version = parts
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    else:
        _refuse_version(version)
        minor = 1
    if method not in _METHODS and (not method or method.translate(None, TOKEN)):
        raise Refused("request_malformed", "the method is not a token")
    if not target or 0 in target.translate(TARGET_MAP):
        raise Refused("request_malformed", "the request target has a character that is not allowed")
    if minor == 0 and fields.body_kind == CHUNKED:
        raise Refused("request_ambiguous", "Transfer-Encoding in an HTTP/1.0 request")
    host = fields.host
    if minor == 1 and not host:  # an absolute-form target needs one as well (RFC 9112 3.2)
        raise Refused("host_invalid", "the Host field is missing or empty")
    if target[:1] == b"/":
        pass
    elif method == b"CONNECT":
        raise Refused("method_refused", "CONNECT is not served")
    elif target == b"*":
        if method != b"OPTIONS":
            raise Refused("request_malformed", "only OPTIONS may ask for *")
    else:
        host, target = _absolute_form(target, method)
    if method == b"CONNECT":
        raise Refused("method_refused", "CONNECT is not served")
    question = target.find(b"?")
    if question < 0:
        return RequestHead(raw, line_end, method, target, target, b"", host, minor, fields, kept)
    path, query = target[:question], target[question:]
    return RequestHead(raw, line_end, method, target, path, query, host, minor, fields, kept)


def _refuse_version(version: bytes) -> None:
    if (
        len(version) == 8
        and version[:5] == b"HTTP/"
        and version[6:7] == b"."
        and version[5:6].isdigit()
        and version[7:].isdigit()
    ):
        if version[5:6] == b"1":
            # A higher minor version is read as the highest one that is known (RFC 9110 2.5).
            return
        raise Refused("version_unsupported", "only HTTP/1 is served")
    raise Refused("request_malformed", "the request line does not end with an HTTP version")


def _absolute_form(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """Authority and origin-form of "http://authority/path?query" (RFC 9112 3.2.2: it wins over Host).

    Of OPTIONS without a path, the asterisk-form (3.2.4).
    """
    scheme_end = target.find(b"://")
    if scheme_end < 0 or target[:scheme_end].lower() not in (b"http", b"https"):
        raise Refused("request_malformed", "the request target is neither a path nor an http URI")
    rest = target[scheme_end + 3 :]
    cut = len(rest)
    for mark in (b"/", b"?"):
        at = rest.find(mark)
        if 0 <= at < cut:
            cut = at
    if b"@" in rest[:cut]:  # RFC 9110 4.2.4: a mark of phishing
        raise Refused("host_invalid", "the request target has user information before its host")
    host = parse_host(rest[:cut])
    if not host:
        raise Refused("host_invalid", "the request target has no host")
    path = rest[cut:]
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path[:1] == b"?":
        path = b"/" + path
    return host, path


def _parse_fields(
    lines: list[bytes], previous: RequestHead | None, limits: HeadLimits, obs_text: bool
) -> RequestFields | None:
    """Understand the lines between the first (the request line) and the last two (empty); None if they are legal but
    not plain, which is h11's work.

    Raises: Refused.
    """
    count = len(lines) - 3
    if count > limits.header_count:
        raise Refused("header_count_exceeded", f"there are more than {limits.header_count} header fields")
    known: list[FieldLine] = previous.fields.lines if previous is not None else []
    known_count = len(known)
    understood: list[FieldLine] = []
    for index in range(count):
        line = lines[index + 1]
        # Clients send the same lines in the same order again and again.
        if index < known_count and known[index].line == line:
            understood.append(known[index])
        elif not line:
            return None  # the head has ended before
        else:
            understood.append(parse_line(line))
    fields = RequestFields()
    fields.lines = understood
    kept = fields.kept
    nominated: list[bytes] = []
    plain = True
    hosts = 0
    lengths = 0
    codings = b""
    te = b""
    for index in range(count):
        field = understood[index]
        at = index + 1  # in `lines`
        if field.private:
            fields.private = True
        if field.obs_text:
            plain = False
        kind = field.kind
        if kind == PASS:
            kept.append(at)
        elif kind == HOST_FIELD:
            hosts += 1
            fields.host = field.value
        elif kind == USER_AGENT:
            kept.append(at)
            fields.user_agent = field.value
        elif kind == REFERER:
            kept.append(at)
            fields.referer = field.value
        elif kind == CONNECTION:
            nominated += field.options
        elif kind == CONTENT_LENGTH:
            lengths += 1
            length = parse_content_length(field.value)
            if length < 0:
                raise Refused("request_ambiguous", "Content-Length is not a plain number of at most 18 digits")
            fields.content_length = length
            kept.append(at)
        elif kind == TRANSFER_ENCODING:
            codings = codings + b"," + field.value.lower() if codings else field.value.lower()
            if not codings:
                codings = b","
        elif kind == X_FORWARDED_FOR:
            fields.x_forwarded_for = _joined(fields.x_forwarded_for, field.value)
        elif kind == X_FORWARDED_PROTO:
            fields.x_forwarded_proto = field.value
        elif kind == X_FORWARDED_HOST:
            fields.x_forwarded_host = field.value
        elif kind == FORWARDED:
            fields.forwarded = _joined(fields.forwarded, field.value)
        elif kind == REQUEST_ID_FIELD:
            value = field.value
            fields.request_id = value if value and len(value) <= 128 and not value.translate(None, REQUEST_ID) else b""
        elif kind == TRACEPARENT:
            fields.traceparent = _joined(fields.traceparent, field.value)  # two are never valid
        elif kind == TRACESTATE:
            fields.tracestate = _joined(fields.tracestate, field.value)
        elif kind == EXPECT:
            if field.value.lower() != b"100-continue":
                raise Refused("expectation_unknown", "only 100-continue is known")
            fields.expect_continue = True
            kept.append(at)
        elif kind == TE:
            te = _joined(te, field.value.lower())
        elif kind == UPGRADE:
            fields.upgrade = _joined(fields.upgrade, field.value.lower())
        elif kind == MAX_FORWARDS:
            hops = parse_content_length(field.value)
            if hops >= 0:
                fields.max_forwards = hops
            kept.append(at)
        elif kind == TRAILER:
            kept.append(at)
        elif kind == DROP:
            pass
    if hosts > 1:
        raise Refused("request_ambiguous", "more than one Host field")
    if not plain and not obs_text:
        return None
    if codings:
        if lengths:
            raise Refused("request_ambiguous", "Content-Length beside Transfer-Encoding")
        _check_codings(codings)
        fields.body_kind = CHUNKED
    elif lengths:
        if lengths > 1:
            raise Refused("request_ambiguous", "more than one Content-Length field")
        if fields.content_length:
            fields.body_kind = LENGTH
    if nominated:
        _apply_connection(fields, nominated)
    elif fields.upgrade:
        fields.upgrade = b""  # Upgrade without Connection: upgrade is not an upgrade (RFC 9110 7.8)
    fields.te_trailers = te == b"trailers" or b"trailers" in te.replace(b" ", b"").split(b",")
    return fields


def _joined(old: bytes, new: bytes) -> bytes:
    return old + b", " + new if old else new


def _check_codings(codings: bytes) -> None:
    """Exactly `chunked`, once (RFC 9112 6.1). Raises: Refused."""
    if codings == b"chunked":
        return
    names = [coding.strip(b" \t") for coding in codings.split(b",")]
    if names[-1] != b"chunked" or names.count(b"chunked") != 1 or b"" in names:
        for name in names:
            if name not in (b"", b"chunked", b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity"):
                raise Refused("transfer_coding_unknown", "the transfer coding is not known")
        raise Refused("request_ambiguous", "chunked must be the last transfer coding, and stand there once")
    raise Refused("transfer_coding_unknown", "no transfer coding beside chunked is known")


def _apply_connection(fields: RequestFields, options: list[bytes]) -> None:
    """Obey Connection: persistence, upgrade, and the removal of the fields that it names."""
    upgrade = False
    named: set[bytes] = set()
    for option in options:
        if option == b"close":
            fields.close = True
        elif option == b"keep-alive":
            fields.keep_alive = True
        elif option == b"upgrade":
            upgrade = True
        elif option not in END_TO_END:
            named.add(option)
    if named:
        fields.kept = [at for at in fields.kept if fields.lines[at - 1].name not in named]
    # Only WebSocket goes through; h2c would hide requests from every rule of this gateway (RFC 9113 drops it as well).
    fields.upgrade = b"websocket" if upgrade and fields.upgrade == b"websocket" else b""


def _parse_unusual(raw: bytes, limits: HeadLimits) -> RequestHead:
    """Let h11 read a head that is legal but not plain, then bring its result through the strict rules once more."""
    body = raw.lstrip(b"\r\n")
    # The gate: what h11 would take and should not.
    if b"\n" in raw.replace(b"\r\n", b"") or b"\r" in raw.replace(b"\r\n", b""):
        raise Refused("request_malformed", "a bare CR or a bare LF")
    line_end = body.find(b"\r\n")
    if line_end > limits.request_line:
        raise Refused("request_line_too_long", f"the request line is longer than {limits.request_line} bytes")
    if not body.endswith(b"\r\n\r\n") or _parse_fields(body.split(b"\r\n"), None, limits, True) is None:
        raise Refused("request_malformed", "the field lines cannot be read")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_H11_MAX)
    try:
        connection.receive_data(body)  # h11 takes no empty line before a request
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused("request_malformed", str(error)) from error
    if not isinstance(event, h11.Request):
        raise Refused("request_malformed", "not a request")
    lines = [name + b": " + value for name, value in event.headers.raw_items()]
    line = event.method + b" " + event.target + b" HTTP/" + event.http_version
    lines = [line, *lines, b"", b""]
    fields = _parse_fields(lines, None, limits, True)
    if fields is None:
        raise Refused("request_malformed", "the field lines cannot be read")
    fields.lines = []  # to be read by h11 each time
    return _finish(raw, line_end, line, fields, _kept_lines(lines, fields))


def valid_traceparent(value: bytes) -> bool:
    """W3C Trace Context level 1, 3.2: version-traceid-parentid-flags, lower-case hex, ids not all zero."""
    if len(value) < 55 or (len(value) > 55 and (value[:2] == b"00" or value[55:56] != b"-")):
        return False
    parts = value[:55].split(b"-")
    if len(parts) != 4 or len(parts[0]) != 2 or len(parts[1]) != 32 or len(parts[2]) != 16 or len(parts[3]) != 2:
        return False
    joined = b"".join(parts)
    if joined.lower() != joined or joined.translate(None, HEX_DIGITS):
        return False
    return parts[0] != b"ff" and parts[1] != b"0" * 32 and parts[2] != b"0" * 16
