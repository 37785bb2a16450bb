"""Finished traces -> one message of OTLP, by opentelemetry's own protobuf classes.

    server span   "GET checkout": the request. Events edgeq.wait.accept, edgeq.wait.queue (one for each limit)
    client span   one for each try. Events edgeq.wait.pool, edgeq.wait.connect, edgeq.wait.first_byte
An event stands at the end of its wait and says in edgeq.wait_ms how long that was.

Attributes are those of the HTTP conventions (v1.44) where they have one, as in the access log; the others are under
``edgeq.``. `error.type` is the reason (edgeq.reasons), or else an upstream's status. Status: a server span is an error
with a 5xx or a cut answer, a client span with a 4xx, too; that the caller has left is nobody's error. A query is left
out, because it may hold what is secret.

Only a worker that traces imports this: opentelemetry-proto takes 15 ms and 4 MiB, the SDK would take 60 ms and 9 MiB,
24 us a span, and threads that do not survive a fork (measured on 26 November 2026, CPython 3.11, both at 1.45.2).
Messages of protobuf can be joined: two of these requests, one after the other, are one with the spans of both.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from edgeq import __version__
from edgeq.response.access_log import address_and_port
from edgeq.upstream.endpoint import Address

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.trace.spans import Trace, Try

_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"QUERY")
)
_CALLER: Final = frozenset(("client_gone", "client_stalled"))
"""Ends that are the caller's own."""
_SHORT_S: Final = 50e-6
"""Shorter waits are none: they are the time that the steps between take."""
_KNOWN: Final = 2048
"""Encoded attributes that are kept of each kind, least recently used ones forgotten: paths and clients may be many."""
_MAX_TEXT: Final = 1024
"""Characters of a value; what is beyond them is cut off, or a client with long fields could fill the memory. A longer
tracestate is left out, since a part of it would be another one; it is passed on all the same."""

Value = str | int | bool


class Encoder:
    """Of one worker, which is the resource of its spans."""

    __slots__ = ("_empty",)

    def __init__(self, service: str, worker: int, pid: int, node: str) -> None:
        resource = Resource(
            attributes=[
                _key_value("service.name", service),
                _key_value("service.version", __version__),
                _key_value("service.instance.id", f"{node}/{worker}"),
                _key_value("host.name", node),
                _key_value("process.pid", pid),
            ]
        )
        scope = InstrumentationScope(name="edgeq", version=__version__)
        self._empty: ResourceSpans = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope)])

    def encode(self, exchanges: list[Exchange], wall_offset_s: float) -> bytes:
        """Finished exchanges that have a sampled trace. `wall_offset_s`: the wall clock minus the monotonic one."""
        message = ExportTraceServiceRequest(resource_spans=[self._empty])
        spans = message.resource_spans[0].scope_spans[0].spans
        for exchange in exchanges:
            trace = exchange.trace
            if trace is not None:
                _server(spans.add(), exchange, trace, wall_offset_s)
                for number, one in enumerate(trace.tries):
                    _client(spans.add(), exchange, trace, one, number, wall_offset_s)
        return message.SerializeToString()


def rejected(answer: bytes) -> int:
    """How many spans a collector has not taken, by its answer."""
    try:
        return ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
    except Exception:  # DecodeError: it is no answer of a collector
        return 0


def _server(span: Span, exchange: Exchange, trace: Trace, offset_s: float) -> None:
    head = exchange.head
    peer = exchange.down.peer
    route = exchange.route
    method = _method(head.method)
    name = method if method != "_OTHER" else "HTTP"
    span.kind = Span.SPAN_KIND_SERVER
    span.trace_id = bytes.fromhex(trace.trace_id.decode())
    span.span_id = bytes.fromhex(trace.span_id.decode())
    span.parent_span_id = bytes.fromhex(trace.parent_id.decode())
    span.trace_state = _state(trace)
    span.name = f"{name} {route.name}" if route is not None else name
    span.start_time_unix_nano = _nano(exchange.begun_at - trace.accept_s, offset_s)
    span.end_time_unix_nano = _nano(trace.ended_at, offset_s)
    if trace.link is not None:
        link = span.links.add()
        link.trace_id = bytes.fromhex(trace.link[0].decode())
        link.span_id = bytes.fromhex(trace.link[1].decode())
    request_id = span.attributes.add()
    request_id.key = "edgeq.request_id"
    request_id.value.string_value = exchange.request_id.decode("latin-1")
    attributes = [
        _of_request(
            head.method,
            head.host,
            head.version,
            head.fields.user_agent,
            peer.tls,
            peer.client_host,
            peer.proxied or not peer.client_port,
            exchange.down.settings.name,
            "" if route is None else route.name,
            "" if route is None else route.upstream.name,
            exchange.status,
        ),
        _attribute("url.path", head.path.decode("latin-1")),
    ]
    if exchange.tenant:
        attributes.append(_attribute("edgeq.tenant", exchange.tenant.decode("latin-1")))
    grace = exchange.grace
    if grace is not None and grace.how:
        attributes.append(_attribute("edgeq.cache", grace.how))
    if grace is not None and grace.served:
        attributes.append(_attribute("edgeq.fallback", grace.served))
    reason = exchange.reason
    if reason:
        attributes.append(_attribute("edgeq.reason", reason))
        attributes.append(_attribute("edgeq.resource", exchange.resource))
    if reason in _CALLER:
        pass
    elif exchange.status >= 500 or (exchange.answer_started and reason and reason != "upstream_shed"):
        span.status.code = Status.STATUS_CODE_ERROR
        attributes.append(_attribute("error.type", reason or str(exchange.status)))
    elif reason:
        attributes.append(_attribute("error.type", reason))
    span.MergeFromString(b"".join(attributes))
    if trace.accept_s:
        _wait(span, "edgeq.wait.accept", exchange.begun_at, trace.accept_s, offset_s, exchange.down.settings.resource)
    for one in trace.waits:
        _wait(span, "edgeq.wait.queue", one.ended_at, one.ended_at - one.begun_at, offset_s, one.resource)


def _client(span: Span, exchange: Exchange, trace: Trace, one: Try, number: int, offset_s: float) -> None:
    pool = one.pool
    method = _method(exchange.head.method)
    span.kind = Span.SPAN_KIND_CLIENT
    span.trace_id = bytes.fromhex(trace.trace_id.decode())
    span.span_id = bytes.fromhex(one.span_id.decode())
    span.parent_span_id = bytes.fromhex(trace.span_id.decode())
    span.trace_state = _state(trace)
    span.name = method if method != "_OTHER" else "HTTP"
    span.start_time_unix_nano = _nano(one.begun_at, offset_s)
    span.end_time_unix_nano = _nano(one.ended_at, offset_s)
    attributes = [_of_try(exchange.head.method, pool.tls, pool.address, pool.upstream.name, pool.name, one.reused)]
    if number:
        attributes.append(_attribute("http.request.resend_count", number))
    if one.hedge:
        attributes.append(_attribute("edgeq.hedge", True))
    if one.status:
        attributes.append(_attribute("http.response.status_code", one.status))
    if one.reason:
        attributes.append(_attribute("edgeq.reason", one.reason))
        attributes.append(_attribute("edgeq.resource", pool.resource))
    if one.reason not in _CALLER and (one.reason or one.status >= 400):
        span.status.code = Status.STATUS_CODE_ERROR
        attributes.append(_attribute("error.type", one.reason or str(one.status)))
    span.MergeFromString(b"".join(attributes))
    if one.sent_at:
        pool_s = one.sent_at - one.begun_at - one.connect_s
        _wait(span, "edgeq.wait.pool", one.sent_at - one.connect_s, pool_s, offset_s, pool.resource + ":pool")
        _wait(span, "edgeq.wait.connect", one.sent_at, one.connect_s, offset_s, pool.resource)
    if one.first_byte_at > one.sent_at:
        first_s = one.first_byte_at - one.sent_at
        _wait(span, "edgeq.wait.first_byte", one.first_byte_at, first_s, offset_s, pool.resource)


def _wait(span: Span, name: str, ended_at: float, wait_s: float, offset_s: float, resource: str) -> None:
    if wait_s < _SHORT_S:
        return
    event = span.events.add()
    event.name = name
    event.time_unix_nano = _nano(ended_at, offset_s)
    value = event.attributes.add()
    value.key = "edgeq.wait_ms"
    value.value.double_value = round(wait_s * 1000, 3)
    event.attributes.append(_key_value("edgeq.resource", resource))


def _method(method: bytes) -> str:
    return method.decode() if method in _METHODS else "_OTHER"


def _nano(moment_s: float, offset_s: float) -> int:
    return int((moment_s + offset_s) * 1e9)


def _state(trace: Trace) -> str:
    return trace.state.decode("latin-1") if len(trace.state) <= _MAX_TEXT else ""


@lru_cache(_KNOWN)
def _of_request(
    raw_method: bytes,
    host: bytes,
    version: bytes,
    user_agent: bytes,
    tls: bool,
    client_host: str,
    is_remote: bool,
    listener: str,
    route: str,
    upstream: str,
    status: int,
) -> bytes:
    """What most requests of a client have in common, encoded. `is_remote`: whoever is connected is not that client."""
    method = _method(raw_method)
    attributes = [
        _attribute("http.request.method", method),
        _attribute("url.scheme", "https" if tls else "http"),
        _attribute("client.address", client_host),
        _attribute("edgeq.listener", listener),
    ]
    if method == "_OTHER":
        attributes.append(_attribute("http.request.method_original", raw_method.decode("latin-1")))
    if not is_remote:
        attributes.append(_attribute("network.peer.address", client_host))
    if version:
        attributes.append(_attribute("network.protocol.version", version.decode("latin-1").removeprefix("HTTP/")))
    if host:
        address, port = address_and_port(host)
        attributes.append(_attribute("server.address", address.decode("latin-1")))
        if port:
            attributes.append(_attribute("server.port", port))
    if user_agent:
        attributes.append(_attribute("user_agent.original", user_agent.decode("latin-1")))
    if route:
        attributes.append(_attribute("http.route", route))
        attributes.append(_attribute("edgeq.upstream", upstream))
    if status:
        attributes.append(_attribute("http.response.status_code", status))
    return b"".join(attributes)


@lru_cache(_KNOWN)
def _of_try(raw_method: bytes, tls: bool, address: Address, upstream: str, endpoint: str, reused: bool) -> bytes:
    """What tries at one endpoint have in common, encoded."""
    attributes = [
        _attribute("http.request.method", _method(raw_method)),
        _attribute("url.scheme", "https" if tls else "http"),
        _attribute("server.address", address.host if address.family == "unix" else address.name),
        _attribute("edgeq.upstream", upstream),
        _attribute("edgeq.endpoint", endpoint),
        _attribute("edgeq.reused", reused),
    ]
    if address.family != "unix":
        attributes.append(_attribute("server.port", address.port))
        attributes.append(_attribute("network.peer.address", address.host))
        attributes.append(_attribute("network.peer.port", address.port))
    return b"".join(attributes)


def _attribute(key: str, value: Value) -> bytes:
    """One attribute of a span, encoded."""
    return _known_attribute(key, value[:_MAX_TEXT] if isinstance(value, str) else value)


@lru_cache(_KNOWN, typed=True)  # or True would be 1
def _known_attribute(key: str, value: Value) -> bytes:
    return Span(attributes=[_key_value(key, value)]).SerializeToString()


def _key_value(key: str, value: Value) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))
