"""What edgeq writes into a forwarded request head: Host, client address, request id, trace, Via.

A head to forward is made of three parts, from rarely to always changing, so that most of it is a finished byte string:

    prefix    request line, kept lines, Host, X-Forwarded-Host, Via, framing     one per parsed head and route (memo)
    client    X-Forwarded-For and -Proto, or Forwarded                           one per client connection
    request   request id, traceparent                                            one per request

An existing X-Forwarded-* or Forwarded is believed only from a trusted address; otherwise it is replaced
(RFC 7239 8.1). `Via` is added to requests as RFC 9110 7.6.3 asks of a gateway.
"""

from __future__ import annotations

import os
from typing import Final

from edgeq.policy.deadline import DeadlineHeader
from edgeq.route.table import Route
from edgeq.wire.framing import CHUNKED
from edgeq.wire.h1_request import valid_traceparent
from edgeq.wire.head import RequestHead

OFF: Final = 0
X_FORWARDED: Final = 1
FORWARDED: Final = 2

TRACE_OFF: Final = 0
TRACE_PASS: Final = 1
TRACE_BEGIN: Final = 2
TRACE_SPANS: Final = 3
"""There are spans of edgeq's own: the worker's Tracer writes these fields."""


class ForwardPolicy:
    """[forward], made ready for the hot path."""

    __slots__ = ("client", "deadline", "node", "priority", "tells", "trace", "via_line")

    def __init__(
        self,
        client: int,
        via: bool,
        node: bytes,
        trace: int,
        deadline: DeadlineHeader | None = None,
        priority: bytes = b"",
        tells: bool = True,
    ) -> None:
        self.client: int = client
        self.node = node
        self.via_line = b"via: 1.1 " + node + b"\r\n" if via else b""
        self.trace: int = trace
        self.deadline: DeadlineHeader | None = deadline
        """Tells the time that is left: read from trusted peers, written for upstreams."""
        self.priority = priority
        """Name, in lower case, of the header by which trusted peers choose a class; nothing: there is none."""
        self.tells: bool = tells
        """Clients hear the names of what has refused or answered."""

    def told(self, resource: str) -> str:
        """What a client hears of it."""
        return resource if self.tells else ""


def forward_prefix(
    head: RequestHead, route: Route, policy: ForwardPolicy, upstream_host: bytes, trusted: bool
) -> bytes:
    """The request line and every line that depends only on the head and its route.

    `upstream_host`: the Host to send instead of the client's, or nothing to keep it. `trusted`: believe an existing
    X-Forwarded-Host.
    """
    fields = head.fields
    target = route.target(head.target, head.path)
    host = upstream_host or head.host or route.upstream.default_host
    kept = head.kept
    if policy.deadline is not None:
        kept = without(kept, policy.deadline.name)  # written anew for each request
    if policy.priority and not trusted:
        kept = without(kept, policy.priority)
    parts = [head.method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n", kept]
    if fields.body_kind == CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    if fields.te_trailers:
        parts.append(b"te: trailers\r\nconnection: te\r\n")
    if fields.upgrade and head.minor:  # HTTP/1.0 knows none (RFC 9110 7.8)
        parts.append(b"upgrade: websocket\r\nconnection: upgrade\r\n")
    if trusted and fields.x_forwarded_host:
        parts.append(b"x-forwarded-host: " + fields.x_forwarded_host + b"\r\n")
    elif policy.client == X_FORWARDED and head.host:
        parts.append(b"x-forwarded-host: " + head.host + b"\r\n")
    if fields.max_forwards > 0:
        parts = _with_max_forwards(parts, fields.max_forwards - 1)
    version = policy.via_line
    if version:
        parts.append(version if head.minor else b"via: 1.0 " + policy.node + b"\r\n")
    return b"".join(parts)


def without(kept: bytes, name: bytes) -> bytes:
    """Field lines without those of one name, which is in lower case."""
    start = name + b":"
    if kept.lower().find(start) < 0:
        return kept
    return b"".join([line + b"\r\n" for line in kept.split(b"\r\n") if line and not line.lower().startswith(start)])


def _with_max_forwards(parts: list[bytes], hops: int) -> list[bytes]:
    """Replace Max-Forwards by one less (RFC 9110 7.6.2)."""
    lines = [line for line in parts[6].split(b"\r\n") if line and not line.lower().startswith(b"max-forwards:")]
    lines.append(b"max-forwards: %d" % hops)
    parts[6] = b"\r\n".join(lines) + b"\r\n"
    return parts


def client_lines(policy: ForwardPolicy, client_host: str, tls: bool) -> bytes:
    """The lines that name the client, for a client whose own claims are not believed."""
    proto = b"https" if tls else b"http"
    if policy.client == X_FORWARDED:
        return b"x-forwarded-for: " + client_host.encode() + b"\r\nx-forwarded-proto: " + proto + b"\r\n"
    if policy.client == FORWARDED:
        return b"forwarded: " + _forwarded_element(client_host, proto) + b"\r\n"
    return b""


def _forwarded_element(client_host: str, proto: bytes) -> bytes:
    if client_host.startswith("unix"):
        node = b"unknown"
    elif ":" in client_host:
        node = b'"[' + client_host.encode() + b']"'
    else:
        node = client_host.encode()
    return b"for=" + node + b";proto=" + proto


def trusted_client_lines(policy: ForwardPolicy, head: RequestHead, client_host: str, tls: bool) -> bytes:
    """The same for a trusted peer: what it says of the client before it is kept, and this hop is appended."""
    fields = head.fields
    proto = b"https" if tls else b"http"
    if policy.client == X_FORWARDED:
        known = fields.x_forwarded_for
        chain = known + b", " + client_host.encode() if known else client_host.encode()
        return b"x-forwarded-for: " + chain + b"\r\nx-forwarded-proto: " + (fields.x_forwarded_proto or proto) + b"\r\n"
    if policy.client == FORWARDED:
        element = _forwarded_element(client_host, proto)
        return b"forwarded: " + (fields.forwarded + b", " + element if fields.forwarded else element) + b"\r\n"
    lines = b""
    if fields.x_forwarded_for:
        lines += b"x-forwarded-for: " + fields.x_forwarded_for + b"\r\n"
    if fields.x_forwarded_proto:
        lines += b"x-forwarded-proto: " + fields.x_forwarded_proto + b"\r\n"
    if fields.forwarded:
        lines += b"forwarded: " + fields.forwarded + b"\r\n"
    return lines


_HEX_PAIRS: Final[list[bytes]] = [b"%02x" % number for number in range(256)]


class RequestIds:
    """Makes request ids: 32 lower-case hex digits, unique across workers and restarts, usable as a trace id.

    A random start and a counter; only the last four digits are made for each id, the others stay for 65,536 of them.
    """

    __slots__ = ("_high", "_low", "_prefix", "_random")

    def __init__(self) -> None:
        self._random: bytes = os.urandom(8).hex().encode()
        self._high: int = int.from_bytes(os.urandom(5), "big") + 1
        self._low: int = 0
        self._prefix: bytes = b""
        self._next_prefix()

    def _next_prefix(self) -> None:
        self._high += 1
        self._low = 0
        self._prefix = b"%b%012x" % (self._random, self._high)

    def make(self) -> bytes:
        """A new id; its second half is never all zero, so it serves as a span id as well."""
        low = self._low
        self._low = low + 1
        made = self._prefix + _HEX_PAIRS[low >> 8] + _HEX_PAIRS[low & 255]
        if low == 65535:
            self._next_prefix()
        return made


def trace_lines(head: RequestHead, policy: ForwardPolicy, fresh_id: bytes) -> bytes:
    """traceparent and tracestate of one forwarded request. `fresh_id`: 32 hex digits for a trace that begins here."""
    fields = head.fields
    if policy.trace != TRACE_OFF and fields.traceparent and valid_traceparent(fields.traceparent):
        lines = b"traceparent: " + fields.traceparent + b"\r\n"
        if fields.tracestate:
            lines += b"tracestate: " + fields.tracestate + b"\r\n"
        return lines
    if policy.trace == TRACE_BEGIN:
        return b"traceparent: 00-" + fresh_id + b"-" + fresh_id[16:] + b"-01\r\n"
    return b""
