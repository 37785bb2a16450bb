"""Field lines: from the raw bytes of one line to its kind, name and value, remembered in a bounded table.

Most lines of most requests have been seen before, byte for byte, so a line that was valid once is recognised by one
dictionary look-up. The strict rules (RFC 9112 5, RFC 9110 5.5): a name is a token directly followed by a colon; no
line folding; no control characters, no NUL, no bare CR or LF; the same in both directions.
"""

from __future__ import annotations

from typing import Final

from edgeq.wire.chars import DIGITS, IPV6, TOKEN, VALUE_MAP, VALUE_OBS
from edgeq.wire.chars import HOST as HOST_CHARS
from edgeq.wire.errors import Refused

# What a field means to a gateway. PASS lines are forwarded as they came.
PASS: Final = 0
DROP: Final = 1  # hop-by-hop: never forwarded
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
UPGRADE: Final = 6
TE: Final = 7
EXPECT: Final = 8
REQUEST_ID: Final = 9
TRACEPARENT: Final = 10
TRACESTATE: Final = 11
FORWARDED: Final = 12
X_FORWARDED_FOR: Final = 13
X_FORWARDED_PROTO: Final = 14
X_FORWARDED_HOST: Final = 15
USER_AGENT: Final = 16
REFERER: Final = 17
MAX_FORWARDS: Final = 18
TRAILER: Final = 19

KINDS: Final[dict[bytes, int]] = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"proxy-connection": DROP,
    b"keep-alive": DROP,
    b"proxy-authorization": DROP,
    b"proxy-authenticate": DROP,
    b"http2-settings": DROP,
    b"upgrade": UPGRADE,
    b"te": TE,
    b"trailer": TRAILER,
    b"expect": EXPECT,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
    b"forwarded": FORWARDED,
    b"x-forwarded-for": X_FORWARDED_FOR,
    b"x-forwarded-proto": X_FORWARDED_PROTO,
    b"x-forwarded-host": X_FORWARDED_HOST,
    b"user-agent": USER_AGENT,
    b"referer": REFERER,
    b"max-forwards": MAX_FORWARDS,
}

# A Connection header may name fields to be removed (RFC 9110 7.6.1). Naming one of these would change what the message
# means or who it is from ("hop-by-hop abuse"), and no honest sender does it, so they stay.
END_TO_END: Final[frozenset[bytes]] = frozenset(
    b"host content-length transfer-encoding content-type content-encoding content-range range date expect trailer "
    b"authorization cookie set-cookie www-authenticate cache-control etag vary location age expires max-forwards via "
    b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-real-ip x-request-id "
    b"traceparent tracestate if-match if-none-match if-modified-since if-unmodified-since if-range origin referer "
    b"user-agent accept accept-encoding".split()
)

# Never merged from a trailer section: framing, routing, request modifiers, authentication, content (RFC 9110 6.5.1).
FORBIDDEN_TRAILERS: Final[frozenset[bytes]] = END_TO_END | frozenset(
    b"connection keep-alive proxy-connection upgrade te proxy-authorization proxy-authenticate proxy-status "
    b"http2-settings pragma warning content-location content-disposition set-cookie2 cookie2 retry-after".split()
)

_TABLE_LINES: Final = 4096
_TABLE_LINE_BYTES: Final = 256
PRIVATE: Final[frozenset[bytes]] = frozenset(
    b"authorization proxy-authorization cookie set-cookie x-api-key api-key x-goog-api-key".split()
)
"""Values that belong to one user are not kept in tables of the whole worker."""
UNSAID: Final = b"\r\n"
_NOT_REMEMBERED: Final[frozenset[bytes]] = PRIVATE | frozenset((b"x-request-id", b"traceparent", b"content-length"))


class FieldLine:
    """One field line, understood: `name` in lower case; `value` without surrounding white space, of Host valid and in
    lower case, and of PASS lines left out, because nobody asks for it. `start` is the name with its colon as it came:
    a line that starts so and has no character that is not allowed is a valid line of the same field. `line` of a field
    that belongs to one user is left out as well (UNSAID, which no line equals)."""

    __slots__ = ("kind", "line", "name", "obs_text", "options", "private", "start", "value")

    def __init__(self, known: FieldName, line: bytes, value: bytes, obs_text: bool) -> None:
        self.kind: int = known.kind
        self.private: bool = known.private
        self.line = UNSAID if known.private else line
        self.start = known.start
        self.name = known.name
        self.value = value
        self.obs_text = obs_text
        self.options: list[bytes] = connection_options(value) if known.kind == CONNECTION else []


class FieldName:
    """A valid name as it was spelled: what it means, in lower case, and whether its lines are worth remembering."""

    __slots__ = ("kind", "name", "private", "remembered", "start")

    def __init__(self, spelled: bytes) -> None:
        name = spelled.lower()
        self.name = name
        self.start = spelled + b":"
        self.kind: int = KINDS.get(name, PASS)
        if self.kind == PASS and b"_" in name and name.replace(b"_", b"-") in KINDS:
            # CGI and its kin have one name for both spellings (X_Forwarded_For is HTTP_X_FORWARDED_FOR), so this one
            # would speak over what we say, or seem to frame the body. No honest sender spells them so.
            self.kind = DROP
        self.private: bool = name in PRIVATE
        self.remembered: bool = name not in _NOT_REMEMBERED


_table: Final[dict[bytes, FieldLine]] = {}
_seen: Final[list[int]] = [0] * 4096


def seen_before(data: bytes) -> bool:
    """Was this seen a short while ago? Wrong now and then, in either direction.

    What comes once must not fill the tables: filling and emptying them costs more, in memory that the processor's
    caches have no room for, than the tables save.
    """
    mark = hash(data)
    index = mark & 4095
    if _seen[index] == mark:
        return True
    _seen[index] = mark
    return False


_names: Final[dict[bytes, FieldName]] = {}


def parse_line(line: bytes) -> FieldLine:
    """Understand one field line (without its CRLF).

    Raises: Refused(request_malformed); the response parser turns that into upstream_protocol_error.
    """
    known = _table.get(line)
    if known is not None:
        return known
    colon = line.find(b":")
    raw_name = line[:colon] if colon > 0 else b""
    name = _names.get(raw_name)
    if name is None:
        _check_name(line, raw_name)
        name = _remember_name(raw_name)
    obs_text = False
    if 0 in line.translate(VALUE_MAP):
        if line.translate(None, VALUE_OBS):
            raise Refused("request_malformed", "a field value has a control character, a bare CR or a bare LF")
        obs_text = True
    value = b"" if name.kind == PASS or name.private else line[colon + 1 :].strip(b" \t")
    if name.kind == HOST:
        value = parse_host(value)
    parsed = FieldLine(name, line, value, obs_text)
    if name.remembered and len(line) <= _TABLE_LINE_BYTES and seen_before(line):
        if len(_table) >= _TABLE_LINES:
            _table.clear()
        _table[line] = parsed
    return parsed


def _check_name(line: bytes, name: bytes) -> None:
    """Raises: Refused unless `name`, what stands before the colon of `line`, is a token."""
    if line[:1] in (b" ", b"\t"):
        raise Refused("request_malformed", "line folding is obsolete and ambiguous")
    if not name:
        raise Refused("request_malformed", "a field line has no name")
    if name.translate(None, TOKEN):
        if name[-1:] in (b" ", b"\t"):
            raise Refused("request_malformed", "white space between a field's name and its colon")
        raise Refused("request_malformed", "a field name has a character that is not allowed")


def _remember_name(raw_name: bytes) -> FieldName:
    known = FieldName(raw_name)
    if len(raw_name) <= _TABLE_LINE_BYTES:
        if len(_names) >= _TABLE_LINES:
            _names.clear()
        _names[raw_name] = known
    return known


def parse_host(value: bytes) -> bytes:
    """A Host value in lower case (RFC 9110 7.2, RFC 3986 3.2.2). Raises: Refused(host_invalid)."""
    if not value.translate(None, HOST_CHARS):  # no port, no brackets
        return value.lower()
    if value[:1] == b"[":
        close = value.find(b"]")
        literal = value[1:close] if close > 0 else b""  # mypyc 2.4: bytes cut from behind to before are a SystemError
        port = value[close + 1 :]
        good = close > 0 and b":" in literal and not literal.translate(None, IPV6) and port[:1] in (b"", b":")
        port = port[1:]
    else:
        colon = value.find(b":")
        name = value[:colon]
        port = value[colon + 1 :]
        good = colon > 0 and not name.translate(None, HOST_CHARS)
    if not good or port.translate(None, DIGITS) or len(port) > 5 or (port and int(port) > 65535):
        raise Refused("host_invalid", "the Host is not a valid host and port")
    return value.lower()


def parse_content_length(value: bytes) -> int:
    """Digits only (RFC 9110 8.6): no sign, no list, no white space inside; -1 if it is not a length."""
    if not value or len(value) > 18 or value.translate(None, b"0123456789"):
        return -1
    return int(value)


def connection_options(value: bytes) -> list[bytes]:
    """The options of a Connection field, in lower case."""
    return [option.strip(b" \t") for option in value.lower().split(b",") if option.strip(b" \t")]
