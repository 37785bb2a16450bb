from __future__ import annotations

import datetime
import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.response import access_log
from edgeq.response.relay import Exchange
from tests.support.exchanges import (
    EMPTY,
    END_US,
    FIELDS,
    WALL_OFFSET_S,
    downstream,
    exchange,
    finished,
    request_head,
    route_of,
)


def render(exchanges: list[Exchange], log_format: str = "json") -> bytes:
    return access_log.render(exchanges, log_format, WALL_OFFSET_S)


def as_json(done: Exchange) -> dict[str, Any]:
    line = render([done])
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    fields: dict[str, Any] = json.loads(line)
    return fields


def text(raw: bytes) -> str:
    """How bytes appear in JSON."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def test_json_names_and_values() -> None:
    """A plain request has the names of OpenTelemetry's conventions and edgeq's own, and no others."""
    assert as_json(exchange()) == {
        "timestamp": "2026-09-21T14:13:20.123456Z",
        "http.request.method": "GET",
        "url.path": "/cart/7",
        "url.query": "item=1&x",
        "url.scheme": "http",
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "203.0.113.7",
        "client.port": 40001,
        "edgeq.kernel_ms": 9,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.request.body.size": 5,
        "http.response.body.size": 1024,
        "http.route": "checkout",
        "user_agent.original": "curl/8.0",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "edgeq.request_id": "0af7651916cd43dd",
        "edgeq.listener": "0.0.0.0:8080",
        "edgeq.upstream": "api",
        "edgeq.endpoint": "10.0.0.7:9000",
        "edgeq.attempts": 2,
        "edgeq.queue_ms": 0.301,
        "edgeq.accept_ms": 0.020,
        "edgeq.connect_ms": 0.300,
        "edgeq.upstream_ms": 11.0,
        "edgeq.first_byte_ms": 0.999,
        "edgeq.total_ms": 12.034,
        "edgeq.generation": 3,
        "edgeq.reused": True,
    }


def test_json_of_a_refused_request() -> None:
    """A refusal names reason and resource, and error.type is the reason."""
    fields = as_json(exchange(status=503, reason="queue_full", resource="upstream/api:pool", tls=True))
    assert fields["error.type"] == fields["edgeq.reason"] == "queue_full"
    assert fields["edgeq.resource"] == "upstream/api:pool"
    assert fields["url.scheme"] == "https"


def test_json_leaves_out_what_is_empty() -> None:
    """A request of which nothing could be read still gets a valid line without empty fields."""
    assert as_json(exchange(EMPTY, client_host="203.0.113.7", listener="0.0.0.0:8080")) == {
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "url.scheme": "http",
        "client.address": "203.0.113.7",
        "edgeq.listener": "0.0.0.0:8080",
        "http.response.body.size": 0,
        "edgeq.request_id": "",
        "edgeq.generation": 0,
        "edgeq.total_ms": 0.0,
    }


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"shop.example", "shop.example", None),
        (b"shop.example:80", "shop.example", 80),
        (b"[::1]:8080", "[::1]", 8080),
        (b"::1", "::1", None),
        (b"shop:0x1", "shop:0x1", None),
        (b"shop:", "shop:", None),
        (b":80", "", 80),
    ],
)
def test_json_host(host: bytes, address: str, port: int | None) -> None:
    """Host is split into server.address and server.port where it is unambiguous, and kept whole otherwise."""
    fields = as_json(exchange(host=host))
    assert (fields["server.address"], fields.get("server.port")) == (address, port)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", None),
        (b"/a?", "/a", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"*", "*", None),
        (b"http://h.example/a?b", "/a", "b"),
        (b"http://user:secret@h.example?b", None, "b"),
        (b"h.example:443", "h.example:443", None),
        (b"://h/", "://h/", None),
        (b"/to?http://h.example/a", "/to", "http://h.example/a"),
    ],
)
def test_json_target(target: bytes, path: str | None, query: str | None) -> None:
    """Each form of a request-target is logged by path and query, and never with credentials of an authority."""
    fields = as_json(exchange(target=target))
    assert (fields.get("url.path"), fields.get("url.query")) == (path, query)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("key=eq-id-s3cret&alt=sse", "key=***&alt=sse"),
        ("a=1&api_key=s3cret", "a=1&api_key=***"),
        ("X-Amz-Signature=s3cret&Access_Token=s3cret", "X-Amz-Signature=***&Access_Token=***"),
        ("a=1&sig=s3cret&AWSAccessKeyId=s3cret", "a=1&sig=***&AWSAccessKeyId=***"),
        ("password=s3cret&user=me&PASSWD=s3cret&pass=s3cret", "password=***&user=me&PASSWD=***&pass=***"),
        ("client_secret=s3cret==&clientSecret=s3cret&secret=s3cret", "client_secret=***&clientSecret=***&secret=***"),
        ("access_token=s3cret&idToken=s3cret&token=s3cret", "access_token=***&idToken=***&token=***"),
        ("authorization=Bearer%20s3cret&secretKey=s3cret&q=1", "authorization=***&secretKey=***&q=1"),
        ("private_key=s3cret&privateKey=s3cret", "private_key=***&privateKey=***"),
        ("X-Amz-Credential=s3cret&client_assertion=s3cret", "X-Amz-Credential=***&client_assertion=***"),
        (
            "bypass=1&author=2&design=3&secrets=4&code=5&password",
            "bypass=1&author=2&design=3&secrets=4&code=5&password",
        ),
        ("monkey=1&keys=s3&key=", "monkey=1&keys=s3&key="),
        ("a=b?key=3", "a=b?key=***"),
    ],
)
def test_no_secret_of_a_query(query: str, told: str) -> None:
    """Some clients send their key there, and browsers the page's as the referer; the other parameters are told."""
    page = b"http://h.example/a?" + query.encode()
    asked = exchange(target=b"/v1/models?" + query.encode(), referer=page)
    assert as_json(asked)["url.query"] == told
    assert as_json(asked)["http.request.header.referer"] == [f"http://h.example/a?{told}"]
    assert f'"http://h.example/a?{told}"'.encode() in render([asked], "combined")
    assert f'"GET /v1/models?{told} HTTP/1.1"'.encode() in render([asked], "combined")


def test_combined_target_without_credentials() -> None:
    """The combined format, too, leaves the authority of an absolute-form target out."""
    line = render([exchange(target=b"http://user:secret@h.example/a?b")], "combined")
    assert b'"GET /a?b HTTP/1.1"' in line


def test_json_of_a_request_that_was_never_sent() -> None:
    """Who waited in a queue in vain has this wait in the log."""
    fields = as_json(exchange(upstream_us=0, queue_us=1_000_000, endpoint="", reason="queue_timeout"))
    assert fields["edgeq.queue_ms"] == 1000.0
    assert not {"edgeq.upstream_ms", "edgeq.first_byte_ms", "edgeq.connect_ms"} & fields.keys()


def test_json_of_a_connection_at_hand() -> None:
    """A request that went out at once has neither a queue nor a connect time."""
    fields = as_json(exchange(queue_us=0, connect_us=0))
    assert not {"edgeq.queue_ms", "edgeq.connect_ms"} & fields.keys()


@pytest.mark.parametrize("duration_us", [1, 2, 999, 1000, 1001, 4095, 4096, 999_999, 1_000_000, 59_999_999])
def test_json_durations_to_the_microsecond(duration_us: int) -> None:
    """Durations keep three digits behind the point."""
    assert f'"edgeq.total_ms":{duration_us // 1000}.{duration_us % 1000:03d}}}\n'.encode() in render(
        [exchange(total_us=duration_us)]
    )


anything = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet='a"\\\n\r\t\x00\x7f\x85\u2028é€😀 /?:', max_size=20).map(str.encode),
)
ids = st.binary(max_size=40).map(lambda raw: raw.hex().encode())  # anything else is refused by the parser
names = st.text(max_size=20)
hosts = st.text(alphabet='a1.:"\n é', max_size=10)  # stranger than any that a socket gives
counts = st.integers(0, 2**50)
durations = st.integers(0, 2**29)  # shorter than the time since the clock began, as on every machine
entries_of_any_kind = st.fixed_dictionaries(
    {
        "end_us": st.integers(END_US, END_US + 2**40),
        "method": anything,
        "target": anything,
        "version": anything,
        "host": anything,
        "client_host": hosts,
        "client_port": st.integers(0, 65535),
        "listener": names,
        "route": names,
        "upstream": names,
        "endpoint": names,
        "status": st.integers(0, 999),
        "request_body_bytes": counts,
        "response_body_bytes": counts,
        "total_us": durations,
        "queue_us": durations,
        "accept_us": durations,
        "kernel_us": durations,
        "connect_us": durations,
        "upstream_us": durations,
        "first_byte_us": durations,
        "attempts": st.integers(0, 9),
        "reason": names,
        "resource": names,
        "request_id": ids,
        "trace_id": ids,
        "user_agent": anything,
        "referer": anything,
        "tls": st.booleans(),
        "generation": counts,
        "reused": st.booleans(),
    }
)


@given(st.lists(entries_of_any_kind, max_size=5))
def test_json_gives_back_every_field(entries: list[dict[str, Any]]) -> None:
    """Whatever bytes a peer sends, each exchange is one line of printable ASCII from which the fields can be read."""
    data = render([exchange(entry) for entry in entries])
    lines = data.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        assert re.fullmatch(rb"[ -~]+", line)
        got = json.loads(line, object_pairs_hook=lambda pairs: pairs)
        fields = dict(got)
        assert len(got) == len(fields)  # no name twice
        check_strings(fields, entry)
        check_numbers(fields, entry)


def check_strings(fields: dict[str, Any], entry: dict[str, Any]) -> None:
    """The fields of a line say what the entry says."""
    assert fields.get("http.request.method", "") == text(entry["method"])
    if not re.match(rb"[A-Za-z]+://", entry["target"]):
        query = f"?{fields['url.query']}" if "url.query" in fields else ""
        assert fields.get("url.path", "") + query == text(entry["target"])
    for name, value in (
        ("network.protocol.version", entry["version"].removeprefix(b"HTTP/")),
        ("user_agent.original", entry["user_agent"]),
        ("trace_id", entry["trace_id"]),
        ("edgeq.request_id", entry["request_id"]),
    ):
        assert fields.get(name, "") == text(value)
    host = fields.get("server.address", "") + (f":{fields['server.port']}" if "server.port" in fields else "")
    assert host == text(entry["host"])
    assert fields.get("http.request.header.referer", [""]) == [text(entry["referer"])]
    for name, value in (
        ("client.address", entry["client_host"]),
        ("edgeq.listener", entry["listener"]),
        ("http.route", entry["route"]),
        ("edgeq.upstream", entry["upstream"] if entry["route"] else ""),
        ("edgeq.endpoint", entry["endpoint"]),
        ("error.type", entry["reason"]),
        ("edgeq.reason", entry["reason"]),
        ("edgeq.resource", entry["resource"]),
    ):
        assert fields.get(name, "") == value
    assert (fields["url.scheme"] == "https") is entry["tls"]


def check_numbers(fields: dict[str, Any], entry: dict[str, Any]) -> None:
    """The numbers of a line are those of the entry; times as well as a floating clock can hold them."""
    moment = datetime.datetime.fromisoformat(fields["timestamp"])
    assert abs(moment - EPOCH - datetime.timedelta(microseconds=entry["end_us"])) <= datetime.timedelta(microseconds=2)
    is_tried = bool(entry["endpoint"])
    for name, value in (
        ("client.port", entry["client_port"]),
        ("http.response.status_code", entry["status"]),
        ("http.request.body.size", entry["request_body_bytes"]),
        ("http.response.body.size", entry["response_body_bytes"]),
        ("edgeq.attempts", entry["attempts"] if is_tried else 0),
        ("edgeq.generation", entry["generation"]),
    ):
        assert fields.get(name, 0) == value
    assert fields.get("edgeq.reused") == (entry["reused"] if is_tried else None)
    is_sent = entry["upstream_us"] > 0
    for phase, duration_us in (
        ("accept", entry["accept_us"]),
        ("kernel", entry["kernel_us"]),
        ("queue", entry["queue_us"]),
        ("connect", entry["connect_us"] if is_sent and entry["queue_us"] else 0),
        ("first_byte", entry["first_byte_us"] if is_sent else 0),
        ("upstream", entry["upstream_us"]),
        ("total", entry["total_us"]),
    ):
        assert fields.get(f"edgeq.{phase}_ms", 0) == pytest.approx(duration_us / 1000, abs=0.003)


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
COMBINED = re.compile(
    r'(?P<client>[!-~]+) - - \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(?P<request>[^"]*)"'
    r' (?P<status>\d{3}) (?P<size>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)


def unescape(escaped: str) -> bytes:
    """The bytes behind a field of a combined line."""
    assert re.fullmatch(r"(?:[ !#-\[\]-~]|\\x[0-9A-F]{2})*", escaped)
    return re.sub(r"\\x(..)", lambda match: chr(int(match[1], 16)), escaped).encode("latin-1")


def test_combined_line() -> None:
    """The combined format is Apache's, in UTC."""
    assert render([exchange(referer=b"http://a.example/")], "combined") == (
        b"203.0.113.7 - - [21/Sep/2026:14:13:20 +0000] "
        b'"GET /cart/7?item=1&x HTTP/1.1" 200 1024 "http://a.example/" "curl/8.0"\n'
    )


def test_combined_of_an_empty_record() -> None:
    """What is empty is a dash, and a status that was never sent has three digits."""
    assert render([exchange(EMPTY)], "combined") == b'- - - [01/Jan/1970:00:00:00 +0000] "-" 000 0 "-" "-"\n'


@given(st.lists(entries_of_any_kind, max_size=5))
def test_combined_cannot_be_injected(entries: list[dict[str, Any]]) -> None:
    """Whatever bytes a peer sends, the line keeps its shape and each quoted field can be read back."""
    entries = [entry | {"status": entry["status"] % 900 + 100} for entry in entries]
    lines = render([exchange(entry) for entry in entries], "combined").decode("ascii").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        match = COMBINED.fullmatch(line)
        assert match
        if not re.match(rb"[A-Za-z]+://", entry["target"]):
            request = b"%b %b %b" % (entry["method"], entry["target"], entry["version"])
            assert unescape(match["request"]) == (request.strip(b" ") or b"-")
        assert unescape(match["referer"]) == (entry["referer"] or b"-")
        assert unescape(match["agent"]) == (entry["user_agent"] or b"-")
        assert int(match["status"]) == entry["status"]
        assert int(match["size"]) == entry["response_body_bytes"]


@pytest.mark.parametrize("log_format", ["json", "combined"])
def test_a_batch_is_its_lines(log_format: str) -> None:
    """Batches that cross seconds, also backwards, render each exchange as alone."""
    batch = [exchange(end_us=END_US + step * 400_000, accept_us=0, kernel_us=0) for step in (0, 1, 2, 3, 2, 0, 9)]
    assert render(batch, log_format) == b"".join(render([one], log_format) for one in batch)
    assert render([], log_format) == b""


@pytest.mark.parametrize("log_format", ["json", "combined"])
def test_what_is_shared_is_not_mixed_up(log_format: str) -> None:
    """Exchanges that share connection, head and route, in any combination, have the lines that they have alone."""
    plain = FIELDS | {"accept_us": 0, "kernel_us": 0}
    fields = [plain, plain | {"client_host": "::1", "host": b"b.example", "target": b"/b", "route": "other"}]
    downs = [downstream(each) for each in fields]
    heads = [request_head(each) for each in fields]
    routes = [route_of(each, down) for each, down in zip(fields, downs, strict=True)]
    outcomes: list[dict[str, Any]] = [
        {},
        {"status": 404},
        {"endpoint": "10.0.0.8:9000"},
        {"attempts": 1},
        {"reused": False},
        {"reason": "upstream_reset", "resource": "upstream/api", "status": 502},
        {"response_body_bytes": 7},
    ]
    for _ in range(2):  # the second time from what was kept
        for down, head, route, outcome in itertools.product((0, 1), (0, 1), (0, 1), outcomes):
            mixed = {
                **plain,
                **outcome,
                **{name: fields[down][name] for name in ("client_host",)},
                **{name: fields[head][name] for name in ("host", "target")},
                **{name: fields[route][name] for name in ("route",)},
            }
            shared = finished(mixed, downs[down], heads[head], routes[route])
            assert render([shared], log_format) == render([exchange(mixed)], log_format)


def test_a_connections_wait_is_told_once() -> None:
    """Only the first line of a connection says how long it waited for a worker and a place, in one batch as in many."""
    fields = FIELDS | {"accept_us": 1_500_250, "kernel_us": 7000}
    for size in (1, 3):
        down = downstream(fields)
        head = request_head(fields)
        done = [finished(fields, down, head, route_of(fields, down)) for _ in range(3)]
        batches = [render(done[at : at + size], "json") for at in range(0, 3, size)]
        lines = [json.loads(line) for line in b"".join(batches).splitlines()]
        assert [line.get("edgeq.accept_ms") for line in lines] == [1500.25, None, None]
        assert [line.get("edgeq.kernel_ms") for line in lines] == [7, None, None]


def test_caches_stay_bounded() -> None:
    """Neither many different requests nor very long ones make what is kept grow beyond its bounds."""
    down = downstream(FIELDS)
    route = route_of(FIELDS, down)
    assert route is not None
    for log_format in ("json", "combined"):
        for number in range(5000):
            raw = b"%d" % number
            fields = FIELDS | {"host": raw, "user_agent": raw, "endpoint": str(number), "total_us": number}
            render([finished(fields, down, request_head(fields), route)], log_format)
    long = FIELDS | {"target": b"x" * 9000, "host": b"x" * 9000, "user_agent": b"x" * 9000}
    head = request_head(long)
    for log_format in ("json", "combined"):
        render([finished(long, down, head, route)], log_format)
    assert head.log_text == b""
    assert 0 < len(access_log._outcomes) <= access_log._MAX_FRAGMENTS
    assert 0 < len(access_log._clients) <= access_log._MAX_FRAGMENTS
    for cache in (access_log._headers, access_log._agents):
        assert 0 < len(cache) <= access_log._MAX_FRAGMENTS
        assert max(len(fragment) for fragment in cache.values()) <= access_log._MAX_FRAGMENT_CHARS
    assert 0 < len(access_log._durations) <= access_log._MAX_KNOWN
    assert 0 < len(access_log._sizes) <= access_log._MAX_KNOWN


def test_unknown_format() -> None:
    """A wrong format is an error that says what is right."""
    with pytest.raises(ValueError, match="expected 'json' or 'combined'"):
        render([], "xml")
