"""What edgeq writes into a forwarded head."""

from __future__ import annotations

import pytest

from edgeq.policy.headers import (
    FORWARDED,
    OFF,
    TRACE_BEGIN,
    TRACE_OFF,
    TRACE_PASS,
    X_FORWARDED,
    ForwardPolicy,
    RequestIds,
    client_lines,
    forward_prefix,
    trace_lines,
    trusted_client_lines,
)
from edgeq.route.table import Route
from edgeq.upstream.upstream import Upstream
from edgeq.wire.h1_request import parse_request, valid_traceparent
from edgeq.wire.head import HeadLimits, RequestHead
from edgeq.worker.wheel import Wheel

LIMITS = HeadLimits(8192, 32768, 100)
UPSTREAM = Upstream("up", Wheel(0.0, 0.1, 16))
UPSTREAM.default_host = b"up.example"
ROUTE = Route("r", b"*", b"/*", UPSTREAM, b"", 0.0, -1)


def policy(client: int = X_FORWARDED, via: bool = True, trace: int = TRACE_OFF) -> ForwardPolicy:
    return ForwardPolicy(client, via, b"gw", trace)


def head(*fields: str, line: str = "GET /a?b HTTP/1.1", host: str = "Host: a.example") -> RequestHead:
    return parse_request("\r\n".join([line, host, *fields, "", ""]).encode(), None, LIMITS)


def prefix(request: RequestHead, terms: ForwardPolicy, host: bytes = b"", trusted: bool = False) -> list[str]:
    raw = forward_prefix(request, ROUTE, terms, host, trusted)
    assert raw.endswith(b"\r\n")
    return raw.decode().split("\r\n")[:-1]


def test_a_plain_head() -> None:
    """Request line in our version, Host first, the kept lines as they came, then what we add."""
    assert prefix(head("X-A:  b "), policy()) == [
        "GET /a?b HTTP/1.1",
        "Host: a.example",
        "X-A:  b ",
        "x-forwarded-host: a.example",
        "via: 1.1 gw",
    ]


def test_the_upstreams_own_host() -> None:
    """Sent instead of the client's, which X-Forwarded-Host keeps."""
    assert prefix(head(), policy(), b"inner")[1:] == ["Host: inner", "x-forwarded-host: a.example", "via: 1.1 gw"]


def test_http_1_0_without_host() -> None:
    """The upstream's default; Via names the version that was received (RFC 9110 7.6.3)."""
    request = parse_request(b"GET / HTTP/1.0\r\n\r\n", None, LIMITS)
    assert prefix(request, policy()) == ["GET / HTTP/1.1", "Host: up.example", "via: 1.0 gw"]


def test_absolute_form_is_forwarded_in_origin_form() -> None:
    """With its own authority as the Host."""
    assert prefix(head(line="GET http://B/x HTTP/1.1"), policy(OFF, False)) == ["GET /x HTTP/1.1", "Host: b"]


def test_framing_and_options_are_written_anew() -> None:
    """Transfer-Encoding, TE and Upgrade are hop-by-hop: each has its own line and its Connection option."""
    request = head("Transfer-Encoding: chunked", "TE: trailers, gzip", "Connection: te, close", line="POST / HTTP/1.1")
    assert prefix(request, policy(OFF, False))[2:] == ["transfer-encoding: chunked", "te: trailers", "connection: te"]
    request = head("Upgrade: websocket", "Connection: upgrade")
    assert prefix(request, policy(OFF, False))[2:] == ["upgrade: websocket", "connection: upgrade"]
    request = parse_request(b"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", None, LIMITS)
    assert prefix(request, policy(OFF, False))[2:] == []


@pytest.mark.parametrize(
    ("value", "forwarded"),
    [("5", "max-forwards: 4"), ("1", "max-forwards: 0"), ("0", "Max-Forwards: 0"), ("x", "Max-Forwards: x")],
)
def test_max_forwards_counts_down(value: str, forwarded: str) -> None:
    """RFC 9110 7.6.2; what is no number is left alone."""
    lines = prefix(head(f"Max-Forwards: {value}", "X-A: b"), policy(OFF, False))
    assert sorted(lines[2:], key=str.lower) == sorted([forwarded, "X-A: b"], key=str.lower)


def test_claims_of_strangers_are_not_believed() -> None:
    """X-Forwarded-* and Forwarded of a client that is not trusted are replaced."""
    request = head(
        "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6"
    )
    for client in (X_FORWARDED, FORWARDED, OFF):
        lines = prefix(request, policy(client)) + client_lines(policy(client), "1.2.3.4", False).decode().split("\r\n")
        assert not [line for line in lines if "6.6.6.6" in line or "evil" in line or "https" in line]


def test_the_client_is_named() -> None:
    """In either style, or not at all (RFC 7239 6: IPv6 in brackets and quotes; no address: unknown)."""
    assert client_lines(policy(), "1.2.3.4", True) == b"x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n"
    assert client_lines(policy(FORWARDED), "1.2.3.4", False) == b"forwarded: for=1.2.3.4;proto=http\r\n"
    assert client_lines(policy(FORWARDED), "::1", False) == b'forwarded: for="[::1]";proto=http\r\n'
    assert client_lines(policy(FORWARDED), "unix:", False) == b"forwarded: for=unknown;proto=http\r\n"
    assert client_lines(policy(OFF), "1.2.3.4", False) == b""


def test_claims_of_trusted_peers_are_continued() -> None:
    """Their chain is kept and this hop appended; what they say of proto and host stands."""
    request = head(
        "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: outer", "Forwarded: for=9.9.9.9"
    )
    assert (
        trusted_client_lines(policy(), request, "10.0.0.1", False)
        == b"x-forwarded-for: 9.9.9.9, 10.0.0.1\r\nx-forwarded-proto: https\r\n"
    )
    assert (
        trusted_client_lines(policy(FORWARDED), request, "10.0.0.1", False)
        == b"forwarded: for=9.9.9.9, for=10.0.0.1;proto=http\r\n"
    )
    assert trusted_client_lines(policy(OFF), request, "10.0.0.1", False) == (
        b"x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nforwarded: for=9.9.9.9\r\n"
    )
    assert "x-forwarded-host: outer" in prefix(request, policy(), trusted=True)
    assert trusted_client_lines(policy(), head(), "10.0.0.1", True) == (
        b"x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\n"
    )


def test_request_ids() -> None:
    """32 hex digits, never the same, usable as trace and span ids."""
    ids = RequestIds()
    made = {ids.make() for _ in range(1000)}
    assert len(made) == 1000
    for value in made:
        assert valid_traceparent(b"00-" + value + b"-" + value[16:] + b"-01")


FRESH = b"0af7651916cd43dd8448eb211c80319c"
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


@pytest.mark.parametrize(
    ("mode", "fields", "lines"),
    [
        (TRACE_OFF, [f"traceparent: {PARENT}", "tracestate: a=b"], ""),
        (TRACE_PASS, [f"traceparent: {PARENT}", "tracestate: a=b"], f"traceparent: {PARENT}\r\ntracestate: a=b\r\n"),
        (TRACE_PASS, [], ""),
        (TRACE_PASS, ["traceparent: junk", "tracestate: a=b"], ""),
        (TRACE_BEGIN, [f"traceparent: {PARENT}"], f"traceparent: {PARENT}\r\n"),
        (TRACE_BEGIN, ["tracestate: a=b"], f"traceparent: 00-{FRESH.decode()}-8448eb211c80319c-01\r\n"),
        (TRACE_BEGIN, ["traceparent: junk"], f"traceparent: 00-{FRESH.decode()}-8448eb211c80319c-01\r\n"),
    ],
)
def test_traces(mode: int, fields: list[str], lines: str) -> None:
    """A valid one is passed on with its state; otherwise one begins, or there is none."""
    assert trace_lines(head(*fields), policy(trace=mode), FRESH) == lines.encode()
