"""What is the client's own doing: its message, its pace, its leaving, its quota."""

from __future__ import annotations

from tests.reasons.stage import SOON, Seen, Stage, Tables, get, provokes

MAIN = "listener/main"


@provokes("request_malformed")
def request_malformed(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(b"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n"))


@provokes("request_ambiguous")
def request_ambiguous(stage: Stage) -> Seen:
    two = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
    return Seen(MAIN, stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + two + b"\r\n0\r\n\r\n"))


@provokes("host_invalid")
def host_invalid(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(b"GET / HTTP/1.1\r\n\r\n"))


@provokes("request_line_too_long")
def request_line_too_long(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"))


@provokes("header_bytes_exceeded")
def header_bytes_exceeded(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(get("any", "", *(f"X-Long-{number}: {'a' * 4000}" for number in range(9)))))


@provokes("header_count_exceeded")
def header_count_exceeded(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(get("any", "", *(f"X-{number}: a" for number in range(101)))))


@provokes("trailer_bytes_exceeded", route={})
def trailer_bytes_exceeded(stage: Stage) -> Seen:
    head = b"POST /trailer_bytes_exceeded/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Seen(MAIN, stage.ask(head + b"0\r\n" + b"X-Trailer: %b\r\n\r\n" % (b"a" * 9000)))


@provokes("body_too_large", route={"body_bytes": 10})
def body_too_large(stage: Stage) -> Seen:
    got = stage.ask(b"POST /body_too_large/ HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    return Seen("route/body_too_large", got)


@provokes("method_refused")
def method_refused(stage: Stage) -> Seen:
    got = stage.ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", method=b"CONNECT")
    assert b"GET" in (got.get(b"allow") or b"")
    return Seen(MAIN, got)


@provokes("expectation_unknown")
def expectation_unknown(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(get("any", "", "Expect: 200-ok")))


@provokes("transfer_coding_unknown")
def transfer_coding_unknown(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"))


@provokes("version_unsupported")
def version_unsupported(stage: Stage) -> Seen:
    return Seen(MAIN, stage.ask(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"))


@provokes("head_timeout", listener={"timeouts": {"head": SOON}})
def head_timeout(stage: Stage) -> Seen:
    return Seen("listener/head_timeout", stage.ask(b"GET / HTTP/1.1\r\nHo", "head_timeout"))


@provokes("body_timeout", listener={"timeouts": {"body": SOON}}, route={})
def body_timeout(stage: Stage) -> Seen:
    request = b"POST /body_timeout/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
    return Seen("listener/body_timeout", stage.ask(request, "body_timeout"))


@provokes("client_gone", route={})
def client_gone(stage: Stage) -> Seen:
    with stage.holding():
        client = stage.send(get("client_gone", "hold"))
        stage.wait_seen("client_gone", 1)
        client.reset()
        stage.line_of("client_gone", MAIN)
    return Seen(MAIN, status=499)


@provokes("client_stalled", listener={"timeouts": {"write": SOON}}, route={})
def client_stalled(stage: Stage) -> Seen:
    client = stage.connect("client_stalled", receive_buffer_bytes=4096)
    client.send(get("client_stalled", "large"))
    return Seen("listener/client_stalled", status=200)


def _tls(stage: Stage) -> Tables:
    return {"tls": {"certificates": [{"certificate": str(stage.certificate.path), "key": str(stage.certificate.key)}]}}


@provokes("handshake_failed", listener=_tls)
def handshake_failed(stage: Stage) -> Seen:
    client = stage.connect("handshake_failed")
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"HTTP" not in client.read_to_end()
    return Seen("listener/handshake_failed", event="connection_refused")


@provokes("proxy_header_invalid", listener={"proxy_protocol": True, "proxy_protocol_from": ["127.0.0.1"]})
def proxy_header_invalid(stage: Stage) -> Seen:
    client = stage.connect("proxy_header_invalid")
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_to_end() == b""
    return Seen("listener/proxy_header_invalid", event="connection_refused")


@provokes("rate_limited", route={}, rate={"by": "client", "limits": ["1/h"]})
def rate_limited(stage: Stage) -> Seen:
    assert stage.ask(get("rate_limited")).status == 200
    got = stage.ask(get("rate_limited"))
    assert 3500 < int(got.get(b"retry-after") or 0) <= 3600
    return Seen("rate/rate_limited", got)


@provokes("rate_limited_shared", route={}, rate={"by": "route", "limits": ["1/h"]})
def rate_limited_shared(stage: Stage) -> Seen:
    assert stage.ask(get("rate_limited_shared")).status == 200
    got = stage.ask(get("rate_limited_shared"))
    assert 3500 < int(got.get(b"retry-after") or 0) <= 3600
    return Seen("rate/rate_limited_shared", got)
