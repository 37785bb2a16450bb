"""Step 5 of 5, response: the line that a finished exchange becomes.

The hot path only appends the exchange to a ring; everything here runs later, for a whole batch.

Invariants
- One exchange gives exactly one line, and nothing that a peer sends can end a line or add a field: a line is printable
  ASCII followed by one line feed. Other characters are escaped: in JSON as \\uXXXX (RFC 8259 7), in the combined format
  as \\xHH for each byte (as nginx's `escape=default` does).
- Bytes of a message that are not valid UTF-8 are read as Latin-1, so that every byte string has a JSON form.
- What is empty is left out of a JSON line; `http.response.body.size` and `edgeq.total_ms` are always there.
- No keys, tokens or signatures of a query, which are ``***``.
- No credentials of a target's authority: a request that is refused may have come with "http://user:secret@host/".

`edgeq.queue_ms` is the wait for a connection to the upstream (or for being refused one), of the last try if there were
several, and `edgeq.waited_in` the queue that let it in last; `edgeq.connect_ms` is how long that connection took to
open if one was opened for this request, and lies within it. `edgeq.kernel_ms` is how long the first request of a
connection lay in the kernel until it was read, where that may have been 5 ms or more: until this worker accepted the
connection, and then had a place for it, for which `edgeq.accept_ms` is the wait because the listener was full. Only
the first request tells them, and `edgeq.total_ms` begins after both, when the head is complete, or was too slow.
`edgeq.second_reason` says why nothing more was done about the first one; `edgeq.hedge` what became of the second try
of a request that had two at once.

`edgeq.cache` is what the route's cache did: hit, stale, joined, revalidated, stale-if-error, miss, bypass.
`edgeq.fallback` is what was served in place of a refusal (`upstream/NAME`, or `answer`); `edgeq.reason` is still why.

Of a request for a model (llm/exchange.py) there are the model, the target, tokens as `gen_ai.usage.*`, what they cost
(`edgeq.cost`, in the currency of the prices), the time to the first event (`edgeq.first_event_ms`), the virtual key; of
one that a smaller model has answered (llm/degrade.py) that model, and why.

Field names follow OpenTelemetry's semantic conventions for HTTP (v1.44); what they lack is under ``edgeq.``. The method
is logged as it came, not as ``_OTHER``: a log line has no cardinality to protect. Query parameters are logged as they
came, but for those that are keys, tokens or signatures by their names, as those conventions have it: a secret does
not belong into a URL (RFC 9110 17.9), and which other one would be cannot be known here.

Speed: a line is joined from fragments that stand on what they describe and live as long: the head (the same for
identical requests), the client connection, the route, the outcome. Only ids, sizes and times are made for each.
"""

from __future__ import annotations

import re
import time
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Final

from edgeq.response.tries import HEDGE_WON

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.response.grace import Grace
    from edgeq.response.relay import Exchange
    from edgeq.route.table import Route
    from edgeq.wire.head import RequestHead

_MAX_FRAGMENTS: Final = 2048
"""Per cache. A full one is emptied: rendering again costs a microsecond, a smarter order would cost on each hit."""
_MAX_FRAGMENT_CHARS: Final = 1024
"""Longer ones are rendered each time, or a peer with long fields could fill the memory."""

_MAX_KNOWN: Final = 4096
"""Numbers below this keep their text: sizes in bytes, durations in microseconds. What is larger can afford it."""

_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""Bytes that stand for themselves within quotes, in both formats."""
_SECRET_NAMES: Final = (
    b"token",
    b"secret",
    b"password",
    b"passwd",
    b"passphrase",
    b"pwd",
    b"signature",
    b"credential",
    b"assertion",
    b"authorization",
    b"secretkey",
    b"privatekey",
    # What follows may be the end of another word, of a monkey for example.
    *(
        before + word
        for word in (
            b"key",
            b"apikey",
            b"accesskey",
            b"accesskeyid",
            b"awsaccesskeyid",
            b"sig",
            b"pass",
            b"auth",
            b"jwt",
        )
        for before in (b"?", b"&", b"_", b"-", b".")
    ),
)
"""How names of parameters end, in small letters, of which the value is nobody's business who reads the log."""
_SECRET: Final = re.compile(b"((?:%b)=)[^&]+" % b"|".join(map(re.escape, _SECRET_NAMES)), re.IGNORECASE)
_PLAIN_MAP: Final = bytes(byte if byte in _PLAIN else 0 for byte in range(256))
_HEX: Final = tuple(chr(byte) if byte in _PLAIN else f"\\x{byte:02X}" for byte in range(256))
_THREE: Final = tuple(b"%03d" % number for number in range(1000))
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_stamps: Final[dict[int, bytes]] = {}
"""That of the last line."""
_durations: Final[dict[int, bytes]] = {}
_sizes: Final[dict[int, bytes]] = {}
_methods: Final[dict[bytes, bytes]] = {
    method: b'"http.request.method":"%b",' % method
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
}
_headers: Final[dict[tuple[bytes, bytes, bytes, bytes], bytes]] = {}
_outcomes: Final[dict[tuple[int, str, int, bool], bytes]] = {}
_clients: Final[dict[tuple[str, str, bool], bytes]] = {}
_tenants: Final[dict[bytes, bytes]] = {}
_agents: Final[dict[tuple[bytes, bytes], str]] = {}


def render(exchanges: list[Exchange], log_format: str, wall_offset_s: float) -> bytes:
    """Render a batch, one line for each exchange, in order.

    Args: log_format is "json" or "combined" (Apache's, which goaccess and fail2ban read); wall_offset_s is the wall
    clock minus the monotonic clock, in seconds. Raises: ValueError for another format.
    """
    if log_format == "json":
        return _render_json(exchanges, wall_offset_s)
    if log_format == "combined":
        return _render_combined(exchanges, wall_offset_s).encode("ascii")
    raise ValueError(f"access log format {log_format!r}: expected 'json' or 'combined'")


def _render_json(exchanges: list[Exchange], wall_offset_s: float) -> bytes:
    parts: list[bytes] = []  # of all lines: they are joined once
    second = -1
    stamp = b""
    for exchange in exchanges:
        ended_at = exchange.ended_at
        wall = ended_at + wall_offset_s
        this_second = int(wall)
        if this_second != second:
            second = this_second
            stamp = _stamp(second)
        micro = int((wall - this_second) * 1e6)
        head = exchange.head
        what = head.log_text
        if not what:
            what = _render_what(head)
            if len(what) <= _MAX_FRAGMENT_CHARS:
                head.log_text = what
        down = exchange.down
        who = down.log_text
        if not who:
            who = down.log_text = _render_who(down)
        parts += (
            stamp,
            _THREE[micro // 1000],
            _THREE[micro % 1000],
            b'Z",',
            _how(exchange),
            _where(exchange),
            what,
            who,
            b'"http.response.body.size":',
            _size(exchange.answer_bytes),
            b',"edgeq.request_id":"',
            exchange.request_id,
            b'"',
        )
        if exchange.request_bytes:
            parts.append(b',"http.request.body.size":')
            parts.append(_size(exchange.request_bytes))
        trace_id = exchange.trace_id
        if trace_id:
            parts.append(b',"trace_id":"')
            parts.append(trace_id)
            parts.append(b'"')
        if exchange.tenant:
            parts.append(_whose(exchange.tenant))
        sent_at = exchange.sent_at
        if sent_at:
            if sent_at != exchange.queued_at:
                parts.append(b',"edgeq.queue_ms":')
                parts.append(milliseconds(sent_at - exchange.queued_at))
                if exchange.waited_in:
                    parts.append(f',"edgeq.waited_in":{encode_basestring_ascii(exchange.waited_in)}'.encode("ascii"))
                if exchange.connect_s:
                    parts.append(b',"edgeq.connect_ms":')
                    parts.append(milliseconds(exchange.connect_s))
            first_byte_at = exchange.first_byte_at
            if first_byte_at > sent_at:
                parts += (b',"edgeq.first_byte_ms":', milliseconds(first_byte_at - sent_at))
            parts += (b',"edgeq.upstream_ms":', milliseconds(ended_at - sent_at))
        elif exchange.queued_at:
            parts.append(b',"edgeq.queue_ms":')
            parts.append(milliseconds(ended_at - exchange.queued_at))
        if down.waited:
            down.waited = False
            peer = down.peer
            if peer.kernel_us:
                parts.append(b',"edgeq.kernel_ms":')
                parts.append(milliseconds(peer.kernel_us * 1e-6))
            if peer.waited_us:
                parts.append(b',"edgeq.accept_ms":')
                parts.append(milliseconds(peer.waited_us * 1e-6))
        parts += (b',"edgeq.total_ms":', milliseconds(ended_at - exchange.begun_at), b"}\n")
    return b"".join(parts)


def _stamp(second: int) -> bytes:
    """How a line of this second of the wall clock begins."""
    known = _stamps.get(second)
    if known is None:
        known = time.strftime('{"timestamp":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode("ascii")
        _stamps.clear()
        _stamps[second] = known
    return known


def _size(number: int) -> bytes:
    known = _sizes.get(number)
    if known is None:
        known = str(number).encode("ascii")
        if 0 <= number < _MAX_KNOWN:
            _sizes[number] = known
    return known


def milliseconds(duration_s: float) -> bytes:
    """A time as it stands in a line, to the microsecond: "12.345"."""
    duration_us = int(duration_s * 1e6 + 0.5)
    known = _durations.get(duration_us)
    if known is not None:
        return known
    text = b"%d.%b" % (duration_us // 1000, _THREE[duration_us % 1000]) if duration_us >= 0 else b"0.000"
    if 0 <= duration_us < _MAX_KNOWN:
        _durations[duration_us] = text
    return text


def _render_what(head: RequestHead) -> bytes:
    """What was asked for, and what the head says of who asks."""
    parts: list[bytes] = []
    method = _methods.get(head.method)
    if method is not None:
        parts.append(method)
    elif head.method:
        parts.append(f'"http.request.method":{_quote(head.method)},'.encode("ascii"))
    target = head.target
    if target[:1] != b"/" or 0 in target.translate(_PLAIN_MAP):
        target = _quote(_without_authority(target))[1:-1].encode("ascii")
    mark = target.find(b"?")
    path = target if mark < 0 else target[:mark]
    if path:
        parts.append(b'"url.path":"')
        parts.append(path)
        parts.append(b'",')
    if mark >= 0:
        parts.append(b'"url.query":"')
        parts.append(_without_secrets(target[mark:])[1:])
        parts.append(b'",')
    parts.append(_headers_of(head))
    return b"".join(parts)


def _headers_of(head: RequestHead) -> bytes:
    fields = head.fields
    # It stands on the fields where nothing but they decides; one object of fields serves many requests.
    theirs = head.host is fields.host and head.minor > 0 and len(head.host) > 0
    if theirs and fields.log_text:
        return fields.log_text
    says = (head.host, fields.user_agent, fields.referer, head.version)
    known = _headers.get(says)
    if known is None:
        known = _render_headers(head).encode("ascii")
        if len(known) > _MAX_FRAGMENT_CHARS:
            return known
        if len(_headers) >= _MAX_FRAGMENTS:
            _headers.clear()
        _headers[says] = known
    if theirs:
        fields.log_text = known
    return known


def _without_secrets(target: bytes) -> bytes:
    """Without the values of these parameters of the query, where Gemini's clients have their key."""
    at = target.find(b"?")
    if at >= 0:
        for part in target[at:].lower().split(b"="):
            if part.endswith(_SECRET_NAMES):
                return target[:at] + _SECRET.sub(rb"\1***", target[at:])
    return target


def _without_authority(target: bytes) -> bytes:
    """Of an absolute-form target (RFC 9112 3.2.2) what follows the host, which has a field of its own."""
    if target[:1] == b"/":
        return target
    scheme = target.find(b"://")
    if scheme <= 0 or not target[:scheme].isalpha():
        return target
    for at in range(scheme + 3, len(target)):
        if target[at] == 0x2F or target[at] == 0x3F:
            return target[at:]
    return b""


def _render_headers(head: RequestHead) -> str:
    text = ""
    host = head.host
    if host:
        address, port = address_and_port(host)
        text += f'"server.address":{_quote(address)},'
        if port:
            text += f'"server.port":{port},'
    if head.version:
        text += f'"network.protocol.version":{_quote(head.version.removeprefix(b"HTTP/"))},'
    fields = head.fields
    if fields.user_agent:
        text += f'"user_agent.original":{_quote(fields.user_agent)},'
    if fields.referer:
        text += f'"http.request.header.referer":[{_quote(_without_secrets(fields.referer))}],'
    return text


def address_and_port(host: bytes) -> tuple[bytes, int]:
    """What a Host field says; the port is 0 if there is none, or what stands there is none."""
    address, colon, port = host.rpartition(b":")
    is_port = port.isdigit() and len(port) <= 5 and not port.startswith(b"0")
    if colon and is_port and (b":" not in address or address.endswith(b"]")):
        return address, int(port)
    return host, 0


def _render_who(down: Downstream) -> bytes:
    """What stays the same on one connection."""
    peer = down.peer
    who = (peer.client_host, down.settings.name, peer.tls)
    known = _clients.get(who)
    if known is None:
        text = '"url.scheme":"https",' if peer.tls else '"url.scheme":"http",'
        text += f'"edgeq.listener":{encode_basestring_ascii(down.settings.name)},'
        text += f'"client.address":{encode_basestring_ascii(peer.client_host)},'
        known = text.encode("ascii")
        if len(_clients) >= _MAX_FRAGMENTS:
            _clients.clear()
        _clients[who] = known
    return b'%b"client.port":%d,' % (known, peer.client_port) if peer.client_port else known


def _how(exchange: Exchange) -> bytes:
    """How it went: few different values, because they come from the configuration and the reasons."""
    tries = exchange.tries
    if exchange.reason or exchange.resource or (tries is not None and tries.hedged):
        return _render_outcome(exchange)
    outcome = (exchange.status, exchange.endpoint, exchange.attempts, exchange.reused)
    known = _outcomes.get(outcome)
    if known is None:
        known = _render_outcome(exchange)
        if len(_outcomes) >= _MAX_FRAGMENTS:
            _outcomes.clear()
        _outcomes[outcome] = known
    return known


def _whose(tenant: bytes) -> bytes:
    known = _tenants.get(tenant)
    if known is None:
        known = f',"edgeq.tenant":{_quote(tenant)}'.encode("ascii")
        if len(known) <= _MAX_FRAGMENT_CHARS:
            if len(_tenants) >= _MAX_FRAGMENTS:
                _tenants.clear()
            _tenants[tenant] = known
    return known


def _where(exchange: Exchange) -> bytes:
    """By which route, after what its cache or fallback had to do with it."""
    route = exchange.route
    if route is None:
        where = b'"edgeq.generation":%d,' % exchange.down.shard.generation
    else:
        where = route.log_text
        if not where:
            where = route.log_text = _render_route(route)
        if route.llm is not None:
            where += exchange.own_fields()
    grace = exchange.grace
    return where if grace is None else _render_grace(grace) + where


def _render_grace(grace: Grace) -> bytes:
    """What the cache had to do with it, and what was served in place of a refusal."""
    text = f'"edgeq.cache":"{grace.how}",' if grace.how else ""
    if grace.served:
        text += f'"edgeq.fallback":{encode_basestring_ascii(grace.served)},'
    return text.encode("ascii")


def _render_route(route: Route) -> bytes:
    text = f'"http.route":{encode_basestring_ascii(route.name)},'
    if route.llm is None:  # else whoever is asked is told by own_fields
        text += f'"edgeq.upstream":{encode_basestring_ascii(route.upstream.name)},'
    return f'{text}"edgeq.generation":{route.generation},'.encode("ascii")


def _render_outcome(exchange: Exchange) -> bytes:
    text = f'"http.response.status_code":{exchange.status},' if exchange.status else ""
    if exchange.endpoint:
        text += f'"edgeq.endpoint":{encode_basestring_ascii(exchange.endpoint)},'
        text += f'"edgeq.reused":{"true" if exchange.reused else "false"},"edgeq.attempts":{exchange.attempts},'
    if exchange.reason:
        reason = encode_basestring_ascii(exchange.reason)
        text += f'"error.type":{reason},"edgeq.reason":{reason},'
    tries = exchange.tries
    if tries is not None:
        if tries.second_reason:
            text += f'"edgeq.second_reason":{encode_basestring_ascii(tries.second_reason)},'
        if tries.hedged:
            text += f'"edgeq.hedge":"{"won" if tries.hedged == HEDGE_WON else "lost"}",'
    if exchange.resource:
        text += f'"edgeq.resource":{encode_basestring_ascii(exchange.resource)},'
    return text.encode("ascii")


def _quote(raw: bytes) -> str:
    """A JSON string in ASCII.

    Not by orjson: it leaves U+0085, U+2028 and the controls of terminals as they are, and refuses lone surrogates; and
    the standard library's C function takes 0.13 us, less than to find out whether anything is to be escaped.
    """
    if 0 not in raw.translate(_PLAIN_MAP):
        return '"' + raw.decode("ascii") + '"'
    try:
        return encode_basestring_ascii(raw.decode())
    except UnicodeDecodeError:
        return encode_basestring_ascii(raw.decode("latin-1"))


def _render_combined(exchanges: list[Exchange], wall_offset_s: float) -> str:
    """``client - - [time] "request line" status bytes "referer" "user agent"``, times in UTC.

    A status of 0 (nothing was sent) is written 000, as nginx does. goaccess 1.7 takes such a line for invalid
    without --no-strict-status; 499 it knows.
    """
    lines: list[str] = []
    second = -1
    stamp = ""
    for exchange in exchanges:
        this_second = int(exchange.ended_at + wall_offset_s)
        if this_second != second:
            second = this_second
            year, month, day, hour, minute, sec = time.gmtime(second)[:6]
            stamp = f" - - [{day:02d}/{_MONTHS[month - 1]}/{year:04d}:{hour:02d}:{minute:02d}:{sec:02d} +0000] "
        head = exchange.head
        request = _escape_combined(
            b"%b %b %b" % (head.method, _without_secrets(_without_authority(head.target)), head.version)
        ).strip(" ")
        fields = head.fields
        agent = _agents.get((fields.referer, fields.user_agent))
        if agent is None:
            agent = _render_agent(fields.referer, fields.user_agent)
        client = exchange.down.peer.client_host
        if not client.isascii() or not client.isprintable() or not client or " " in client or '"' in client:
            client = _escape_combined(client.encode("utf-8", "surrogatepass")).replace(" ", "\\x20") or "-"
        lines.append(f'{client}{stamp}"{request or "-"}" {exchange.status or "000"} {exchange.answer_bytes}{agent}')
    return "".join(lines)


def _render_agent(referer: bytes, user_agent: bytes) -> str:
    text = f' "{_escape_combined(_without_secrets(referer)) or "-"}" "{_escape_combined(user_agent) or "-"}"\n'
    if len(text) <= _MAX_FRAGMENT_CHARS:
        if len(_agents) >= _MAX_FRAGMENTS:
            _agents.clear()
        _agents[(referer, user_agent)] = text
    return text


def _escape_combined(raw: bytes) -> str:
    if not raw.translate(None, _PLAIN):
        return raw.decode()
    return "".join([_HEX[byte] for byte in raw])
