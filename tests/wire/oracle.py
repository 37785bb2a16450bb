"""h11 as the referee: what it reads in bytes that our parsers accept, in a form that can be compared."""

from __future__ import annotations

import h11
from h11._connection import _body_framing

from edgeq.wire.framing import CHUNKED, LENGTH, NO_BODY, UNTIL_CLOSE
from edgeq.wire.head import RequestHead, ResponseHead

_MAX = 1 << 24


def read_request(raw: bytes) -> h11.Request:
    """One complete request head. Raises: h11.RemoteProtocolError; AssertionError if there is no head in `raw`."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    return event


def read_response(raw: bytes) -> h11.Response | h11.InformationalResponse:
    """One complete response head, to a GET that may be upgraded. Raises: as above."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX)
    connection.send(h11.Request(method=b"GET", target=b"/", headers=[("Host", "a"), ("Upgrade", "websocket")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse), event
    return event


def request_framing(event: h11.Request) -> tuple[int, int]:
    """(kind, content length) of a request's body, in our terms."""
    kind, args = _body_framing(event.method, event)
    if kind == "chunked":
        return CHUNKED, 0
    length = args[0] if args else 0
    return (LENGTH, length) if length else (NO_BODY, 0)


def response_framing(event: h11.Response) -> tuple[int, int]:
    """(kind, content length) of the body of an answer to GET, in our terms."""
    kind, args = _body_framing(b"GET", event)
    if kind == "chunked":
        return CHUNKED, 0
    if kind == "http/1.0":
        return UNTIL_CLOSE, 0
    return LENGTH, args[0] if args else 0


def field_values(event: h11.Request | h11.Response | h11.InformationalResponse, name: bytes) -> list[bytes]:
    """All values of one field, in order."""
    return [value for key, value in event.headers if key == name]


def head_parts(head: RequestHead) -> tuple[object, ...]:
    """Everything that a request head says, for comparison."""
    fields = head.fields
    return (
        head.method,
        head.target,
        head.path,
        head.query,
        head.host,
        head.minor,
        head.keep_alive,
        head.idempotent,
        head.kept,
        fields.body_kind,
        fields.content_length,
        fields.close,
        fields.keep_alive,
        fields.expect_continue,
        fields.te_trailers,
        fields.upgrade,
        fields.max_forwards,
        fields.request_id,
        fields.traceparent,
        fields.tracestate,
        fields.forwarded,
        fields.x_forwarded_for,
        fields.x_forwarded_proto,
        fields.x_forwarded_host,
        fields.user_agent,
        fields.referer,
    )


def answer_parts(head: ResponseHead) -> tuple[object, ...]:
    """Everything that a response head says, for comparison."""
    return (
        head.status,
        head.minor,
        head.forward,
        head.body_kind,
        head.content_length,
        head.keep_alive,
        head.upgrade,
        head.trailers,
    )
