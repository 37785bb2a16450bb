"""Step 5 of 5, response: the record of one request and the line that it becomes.

The hot path only builds a plain tuple (`Record`) and appends it to a ring; all that is here runs later, for a batch.

Invariants
- One record gives exactly one line, and nothing that a peer sends can end a line or add a field: a line is printable
  ASCII followed by one line feed. Other characters are escaped: in JSON as \\uXXXX (RFC 8259 7), in the combined format
  as \\xHH for each byte (as nginx's `escape=default` does).
- Bytes of a message that are not valid UTF-8 are read as Latin-1, so that every byte string has a JSON form.
- What is empty is left out of a JSON line; `http.response.body.size` and `edgeq.total_ms` are always there.
- The caches of rendered fragments are bounded in number and in size whatever peers send.

Field names follow OpenTelemetry's semantic conventions for HTTP (v1.44); what they lack is under ``edgeq.``. The method
is logged as it came, not as ``_OTHER``: a log line has no cardinality to protect. Query parameters are logged as they
came: what is secret does not belong into a URL (RFC 9110 17.9), and which parameter would be cannot be known here.

Speed: lines of one connection, of one target or of one outcome share most of their text, so three fragments are looked
up by the fields that they are made of, and only identifiers, sizes and times are formatted for each line.
"""

from __future__ import annotations

import time
from json.encoder import encode_basestring_ascii
from typing import Final, TypeAlias

Record: TypeAlias = tuple[
    int,  # end_ns: wall clock at the end of the request, nanoseconds since 1970
    bytes,  # method
    bytes,  # target: as it came
    bytes,  # version: b"HTTP/1.1"
    bytes,  # host
    str,  # client_host: address, after PROXY protocol
    int,  # client_port: 0 if there is none
    str,  # listener
    str,  # route
    str,  # upstream
    str,  # endpoint: "10.0.0.7:9000"
    int,  # status: 499 if the client left before an answer, 0 if nothing was sent
    int,  # request_body_bytes
    int,  # response_body_bytes
    int,  # total_us
    int,  # queue_us: waited for an upstream connection
    int,  # accept_us: waited among our accepted connections
    int,  # connect_us
    int,  # upstream_us: first request byte sent upstream to the last answer byte
    int,  # first_byte_us: first request byte sent upstream to the first answer byte
    int,  # attempts
    str,  # reason: token of `reasons.REASONS`, or ""
    str,  # resource: what refused or failed
    bytes,  # request_id
    bytes,  # trace_id: of traceparent, or b""
    bytes,  # user_agent
    bytes,  # referer
    bool,  # tls
    int,  # generation: of the configuration
    bool,  # reused: the upstream connection had served before
]
"""One request, in this order. A duration of 0 means that the phase did not happen."""

FIELDS: Final[tuple[str, ...]] = (
    "end_ns",
    "method",
    "target",
    "version",
    "host",
    "client_host",
    "client_port",
    "listener",
    "route",
    "upstream",
    "endpoint",
    "status",
    "request_body_bytes",
    "response_body_bytes",
    "total_us",
    "queue_us",
    "accept_us",
    "connect_us",
    "upstream_us",
    "first_byte_us",
    "attempts",
    "reason",
    "resource",
    "request_id",
    "trace_id",
    "user_agent",
    "referer",
    "tls",
    "generation",
    "reused",
)
"""The names of a record's fields, in order."""

_NS_PER_S: Final = 1_000_000_000
_MAX_FRAGMENTS: Final = 2048
"""Per cache. A full one is emptied: rendering again costs a microsecond, a smarter order would cost on each hit."""
_MAX_FRAGMENT_CHARS: Final = 1024
"""Longer ones are rendered each time, or a peer with long targets could fill the memory."""

_MAX_DURATIONS: Final = 4096
"""Durations below this many microseconds keep their text; what takes longer can afford to be formatted."""

_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""Bytes that stand for themselves within quotes, in both formats."""
_HEX: Final = tuple(chr(byte) if byte in _PLAIN else f"\\x{byte:02X}" for byte in range(256))
_THREE: Final = tuple(f"{number:03d}" for number in range(1000))
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_whats: Final[dict[bytes, str]] = {}
_whos: Final[dict[tuple[str, bytes, bytes, bytes, bool, str], str]] = {}
_hows: Final[dict[tuple[bytes, int, str, str, str, int, str, str, int, bool], str]] = {}
_durations: Final[dict[int, str]] = {}
_agents: Final[dict[tuple[bytes, bytes], str]] = {}


def render(records: list[Record], log_format: str) -> bytes:
    """Render a batch, one line for each record, in order.

    Args: log_format is "json" or "combined" (Apache's, which goaccess and fail2ban read).
    Raises: ValueError for another format.
    """
    if log_format == "json":
        return _render_json(records).encode("ascii")
    if log_format == "combined":
        return _render_combined(records).encode("ascii")
    raise ValueError(f"access log format {log_format!r}: expected 'json' or 'combined'")


def _render_json(records: list[Record]) -> str:
    lines: list[str] = []
    second_ns = -_NS_PER_S
    stamp = ""
    for record in records:
        (
            end_ns,
            method,
            target,
            version,
            host,
            client_host,
            client_port,
            listener,
            route,
            upstream,
            endpoint,
            status,
            request_body_bytes,
            response_body_bytes,
            total_us,
            queue_us,
            accept_us,
            connect_us,
            upstream_us,
            first_byte_us,
            attempts,
            reason,
            resource,
            request_id,
            trace_id,
            user_agent,
            referer,
            tls,
            generation,
            reused,
        ) = record

        offset_ns = end_ns - second_ns
        if offset_ns < 0 or offset_ns >= _NS_PER_S:
            second_ns = end_ns - end_ns % _NS_PER_S
            offset_ns = end_ns - second_ns
            year, month, day, hour, minute, second = time.gmtime(second_ns // _NS_PER_S)[:6]
            stamp = f'{{"timestamp":"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.'

        what = _whats.get(target)
        if what is None:
            what = _render_what(target)
        who = _whos.get((client_host, host, user_agent, version, tls, listener))
        if who is None:
            who = _render_who(client_host, host, user_agent, version, tls, listener)
        how = _hows.get((method, status, route, upstream, endpoint, attempts, reason, resource, generation, reused))
        if how is None:
            how = _render_how(method, status, route, upstream, endpoint, attempts, reason, resource, generation, reused)

        port = f'"client.port":{client_port},' if client_port else ""
        request_size = f'"http.request.body.size":{request_body_bytes},' if request_body_bytes else ""
        if request_id.isalnum() and trace_id.isalnum():
            ids = f'"trace_id":"{trace_id.decode()}","edgeq.request_id":"{request_id.decode()}",'
        else:
            ids = f'"trace_id":{_quote(trace_id)},' if trace_id else ""
            if request_id:
                ids += f'"edgeq.request_id":{_quote(request_id)},'
        extra = ""
        if referer:
            extra = f'"http.request.header.referer":[{_quote(referer)}],'
        if queue_us or accept_us or connect_us:
            if queue_us > 0:
                extra += f'"edgeq.queue_ms":{_milliseconds(queue_us)},'
            if accept_us > 0:
                extra += f'"edgeq.accept_ms":{_milliseconds(accept_us)},'
            if connect_us > 0:
                extra += f'"edgeq.connect_ms":{_milliseconds(connect_us)},'
        if first_byte_us > 0:
            extra += f'"edgeq.first_byte_ms":{_durations.get(first_byte_us) or _milliseconds(first_byte_us)},'
        if upstream_us > 0:
            extra += f'"edgeq.upstream_ms":{_durations.get(upstream_us) or _milliseconds(upstream_us)},'

        lines.append(
            f"{stamp}{_THREE[offset_ns // 1_000_000]}{_THREE[offset_ns // 1000 % 1000]}Z"
            f'",{how}{what}{who}{port}{request_size}"http.response.body.size":{response_body_bytes},'
            f'{ids}{extra}"edgeq.total_ms":{_durations.get(total_us) or _milliseconds(total_us)}}}\n'
        )
    return "".join(lines)


def _milliseconds(duration_us: int) -> str:
    text = f"{duration_us // 1000}.{_THREE[duration_us % 1000]}"
    if 0 <= duration_us < _MAX_DURATIONS:
        _durations[duration_us] = text
    return text


def _render_what(target: bytes) -> str:
    """What was asked for. Of an absolute-form target (RFC 9112 3.2.2) the path; the host has its own field."""
    path, mark, query = _quote(target)[1:-1].partition("?")
    if not path.startswith("/"):
        scheme, separator, rest = path.partition("://")
        if separator and scheme.isalpha():
            slash = rest.find("/")
            path = rest[slash:] if slash >= 0 else ""
    text = f'"url.path":"{path}",' if path else ""
    if mark:
        text += f'"url.query":"{query}",'
    if len(text) <= _MAX_FRAGMENT_CHARS:
        if len(_whats) >= _MAX_FRAGMENTS:
            _whats.clear()
        _whats[target] = text
    return text


def _render_who(client_host: str, host: bytes, user_agent: bytes, version: bytes, tls: bool, listener: str) -> str:
    """Who asked, and where: what stays the same on one connection."""
    text = '"url.scheme":"https",' if tls else '"url.scheme":"http",'
    if host:
        address, colon, port = host.rpartition(b":")
        is_port = port.isdigit() and len(port) <= 5 and not port.startswith(b"0")
        if colon and is_port and (b":" not in address or address.endswith(b"]")):
            text += f'"server.address":{_quote(address)},"server.port":{int(port)},'
        else:
            text += f'"server.address":{_quote(host)},'
    if version:
        number = version[5:] if version.startswith(b"HTTP/") else version
        text += f'"network.protocol.version":{_quote(number)},'
    if client_host:
        text += f'"client.address":{encode_basestring_ascii(client_host)},'
    if user_agent:
        text += f'"user_agent.original":{_quote(user_agent)},'
    if listener:
        text += f'"edgeq.listener":{encode_basestring_ascii(listener)},'
    if len(text) <= _MAX_FRAGMENT_CHARS:
        if len(_whos) >= _MAX_FRAGMENTS:
            _whos.clear()
        _whos[(client_host, host, user_agent, version, tls, listener)] = text
    return text


def _render_how(
    method: bytes,
    status: int,
    route: str,
    upstream: str,
    endpoint: str,
    attempts: int,
    reason: str,
    resource: str,
    generation: int,
    reused: bool,
) -> str:
    """How it went: few different values, because they come from the configuration and from the table of reasons."""
    text = f'"http.request.method":{_quote(method)},' if method else ""
    if status:
        text += f'"http.response.status_code":{status},'
    if route:
        text += f'"http.route":{encode_basestring_ascii(route)},'
    if upstream:
        text += f'"edgeq.upstream":{encode_basestring_ascii(upstream)},'
    if endpoint:
        text += f'"edgeq.endpoint":{encode_basestring_ascii(endpoint)},"edgeq.reused":{"true" if reused else "false"},'
    if attempts:
        text += f'"edgeq.attempts":{attempts},'
    if reason:
        text += f'"error.type":{encode_basestring_ascii(reason)},"edgeq.reason":{encode_basestring_ascii(reason)},'
    if resource:
        text += f'"edgeq.resource":{encode_basestring_ascii(resource)},'
    text += f'"edgeq.generation":{generation},'
    if len(text) <= _MAX_FRAGMENT_CHARS:
        if len(_hows) >= _MAX_FRAGMENTS:
            _hows.clear()
        _hows[(method, status, route, upstream, endpoint, attempts, reason, resource, generation, reused)] = text
    return text


def _quote(raw: bytes) -> str:
    """A JSON string in ASCII.

    Not by orjson: it leaves U+0085, U+2028 and the controls of terminals as they are, and refuses lone surrogates; and
    the standard library's C function takes 0.13 us, less than to find out whether anything is to be escaped.
    """
    try:
        return encode_basestring_ascii(raw.decode())
    except UnicodeDecodeError:
        return encode_basestring_ascii(raw.decode("latin-1"))


def _render_combined(records: list[Record]) -> str:
    """``client - - [time] "request line" status bytes "referer" "user agent"``, times in UTC.

    A status of 0 (nothing was sent) is written 000, as nginx does. goaccess 1.7 takes such a line for invalid
    without --no-strict-status; 499 it knows.
    """
    lines: list[str] = []
    second_ns = -_NS_PER_S
    stamp = ""
    for record in records:
        end_ns = record[0]
        offset_ns = end_ns - second_ns
        if offset_ns < 0 or offset_ns >= _NS_PER_S:
            second_ns = end_ns - end_ns % _NS_PER_S
            year, month, day, hour, minute, second = time.gmtime(second_ns // _NS_PER_S)[:6]
            stamp = f" - - [{day:02d}/{_MONTHS[month - 1]}/{year:04d}:{hour:02d}:{minute:02d}:{second:02d} +0000] "
        request = _escape_combined(b"%b %b %b" % (record[1], record[2], record[3])).strip(" ")
        agent = _agents.get((record[26], record[25]))
        if agent is None:
            agent = _render_agent(record[26], record[25])
        client = record[5]
        if not client.isascii() or not client.isprintable() or not client or " " in client or '"' in client:
            client = _escape_combined(client.encode("utf-8", "surrogatepass")).replace(" ", "\\x20") or "-"
        status = record[11]
        lines.append(f'{client}{stamp}"{request or "-"}" {status or "000"} {record[13]}{agent}')
    return "".join(lines)


def _render_agent(referer: bytes, user_agent: bytes) -> str:
    text = f' "{_escape_combined(referer) or "-"}" "{_escape_combined(user_agent) or "-"}"\n'
    if len(text) <= _MAX_FRAGMENT_CHARS:
        if len(_agents) >= _MAX_FRAGMENTS:
            _agents.clear()
        _agents[(referer, user_agent)] = text
    return text


def _escape_combined(raw: bytes) -> str:
    if not raw.translate(None, _PLAIN):
        return raw.decode()
    return "".join([_HEX[byte] for byte in raw])
