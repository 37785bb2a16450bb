from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.response import access_log

END_NS = 1_790_000_000_123_456_789  # 2026-09-21T14:13:20.123456Z

PLAIN: dict[str, Any] = {
    "end_ns": END_NS,
    "method": b"GET",
    "target": b"/cart/7?item=1&x",
    "version": b"HTTP/1.1",
    "host": b"shop.example:8080",
    "client_host": "203.0.113.7",
    "client_port": 40001,
    "listener": "0.0.0.0:8080",
    "route": "checkout",
    "upstream": "api",
    "endpoint": "10.0.0.7:9000",
    "status": 200,
    "request_body_bytes": 5,
    "response_body_bytes": 1024,
    "total_us": 12_034,
    "queue_us": 1,
    "accept_us": 20,
    "connect_us": 300,
    "upstream_us": 11_000,
    "first_byte_us": 999,
    "attempts": 2,
    "reason": "",
    "resource": "",
    "request_id": b"0af7651916cd43dd",
    "trace_id": b"0af7651916cd43dd8448eb211c80319c",
    "user_agent": b"curl/8.0",
    "referer": b"",
    "tls": False,
    "generation": 3,
    "reused": True,
}
EMPTY: dict[str, Any] = {name: type(value)() for name, value in PLAIN.items()}


def record(base: dict[str, Any] = PLAIN, **changed: Any) -> access_log.Record:
    assert not changed.keys() - set(access_log.FIELDS)
    fields = base | changed
    return tuple(fields[name] for name in access_log.FIELDS)


def as_json(entry: access_log.Record) -> dict[str, Any]:
    line = access_log.render([entry], "json")
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
    assert as_json(record()) == {
        "timestamp": "2026-09-21T14:13:20.123456Z",
        "http.request.method": "GET",
        "url.path": "/cart/7",
        "url.query": "item=1&x",
        "url.scheme": "http",
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "203.0.113.7",
        "client.port": 40001,
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
        "edgeq.queue_ms": 0.001,
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
    fields = as_json(record(status=503, reason="queue_full", resource="upstream/api:pool", tls=True))
    assert fields["error.type"] == fields["edgeq.reason"] == "queue_full"
    assert fields["edgeq.resource"] == "upstream/api:pool"
    assert fields["url.scheme"] == "https"


def test_json_leaves_out_what_is_empty() -> None:
    """A connection that never sent a request still gets a valid line without empty fields."""
    assert as_json(record(EMPTY)) == {
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "url.scheme": "http",
        "http.response.body.size": 0,
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
    fields = as_json(record(host=host))
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
    ],
)
def test_json_target(target: bytes, path: str | None, query: str | None) -> None:
    """Each form of a request-target is logged by path and query, and never with credentials of an authority."""
    fields = as_json(record(target=target))
    assert (fields.get("url.path"), fields.get("url.query")) == (path, query)


anything = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet='a"\\\n\r\t\x00\x7f\x85\u2028é€😀 /?:', max_size=20).map(str.encode),
)
names = st.text(max_size=20)
surrogates = st.text(alphabet='a1.:"\n é\udc80', max_size=10)  # as os.fsdecode makes them of a socket's path
counts = st.integers(0, 2**50)
records = st.fixed_dictionaries(
    {
        "end_ns": st.integers(0, 2**62),
        "method": anything,
        "target": anything,
        "version": anything,
        "host": anything,
        "client_host": surrogates,
        "client_port": st.integers(0, 65535),
        "listener": names,
        "route": names,
        "upstream": names,
        "endpoint": names,
        "status": st.integers(0, 999),
        "request_body_bytes": counts,
        "response_body_bytes": counts,
        "total_us": counts,
        "queue_us": counts,
        "accept_us": counts,
        "connect_us": counts,
        "upstream_us": counts,
        "first_byte_us": counts,
        "attempts": st.integers(0, 9),
        "reason": names,
        "resource": names,
        "request_id": anything,
        "trace_id": anything,
        "user_agent": anything,
        "referer": anything,
        "tls": st.booleans(),
        "generation": counts,
        "reused": st.booleans(),
    }
)


@given(st.lists(records, max_size=5))
def test_json_gives_back_every_field(entries: list[dict[str, Any]]) -> None:
    """Whatever bytes a peer sends, each record is one line of printable ASCII from which the fields can be read."""
    data = access_log.render([record(**entry) for entry in entries], "json")
    lines = data.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        assert re.fullmatch(rb"[ -~]+", line)
        got = json.loads(line, object_pairs_hook=lambda pairs: pairs)
        fields = dict(got)
        assert len(got) == len(fields)  # no name twice
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
            microseconds=entry["end_ns"] // 1000
        )
        assert fields["timestamp"] == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert fields.get("http.request.method", "") == text(entry["method"])
        target = text(entry["target"])
        if not re.match(r"[^\W\d_]+://", target):
            query = f"?{fields['url.query']}" if "url.query" in fields else ""
            assert fields.get("url.path", "") + query == target
        version = text(entry["version"])
        assert fields.get("network.protocol.version", "") == version.removeprefix("HTTP/")
        for name, key in (
            ("user_agent.original", "user_agent"),
            ("trace_id", "trace_id"),
            ("edgeq.request_id", "request_id"),
        ):
            assert fields.get(name, "") == text(entry[key])
        host = fields.get("server.address", "") + (f":{fields['server.port']}" if "server.port" in fields else "")
        assert host == text(entry["host"])
        assert fields.get("http.request.header.referer", [""]) == [text(entry["referer"])]
        for name, key in (
            ("client.address", "client_host"),
            ("http.route", "route"),
            ("error.type", "reason"),
            *((f"edgeq.{key}", key) for key in ("listener", "upstream", "endpoint", "reason", "resource")),
        ):
            assert fields.get(name, "") == entry[key]
        for name, key in (
            ("client.port", "client_port"),
            ("http.response.status_code", "status"),
            ("http.request.body.size", "request_body_bytes"),
            ("http.response.body.size", "response_body_bytes"),
            ("edgeq.attempts", "attempts"),
            ("edgeq.generation", "generation"),
        ):
            assert fields.get(name, 0) == entry[key]
        for phase in ("queue", "accept", "connect", "upstream", "first_byte", "total"):
            assert fields.get(f"edgeq.{phase}_ms", 0) == pytest.approx(entry[f"{phase}_us"] / 1000)
        assert (fields["url.scheme"] == "https") is entry["tls"]
        assert fields.get("edgeq.reused") == (entry["reused"] if entry["endpoint"] else None)


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
    assert access_log.render([record(referer=b"http://a.example/")], "combined") == (
        b"203.0.113.7 - - [21/Sep/2026:14:13:20 +0000] "
        b'"GET /cart/7?item=1&x HTTP/1.1" 200 1024 "http://a.example/" "curl/8.0"\n'
    )


def test_combined_of_an_empty_record() -> None:
    """What is empty is a dash, and a status that was never sent has three digits."""
    assert access_log.render([record(EMPTY)], "combined") == b'- - - [01/Jan/1970:00:00:00 +0000] "-" 000 0 "-" "-"\n'


@given(st.lists(records, max_size=5))
def test_combined_cannot_be_injected(entries: list[dict[str, Any]]) -> None:
    """Whatever bytes a peer sends, the line keeps its shape and each quoted field can be read back."""
    entries = [entry | {"status": entry["status"] % 900 + 100} for entry in entries]
    lines = access_log.render([record(**entry) for entry in entries], "combined").decode("ascii").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        match = COMBINED.fullmatch(line)
        assert match
        request = b"%b %b %b" % (entry["method"], entry["target"], entry["version"])
        assert unescape(match["request"]) == (request.strip(b" ") or b"-")
        assert unescape(match["referer"]) == (entry["referer"] or b"-")
        assert unescape(match["agent"]) == (entry["user_agent"] or b"-")
        assert int(match["status"]) == entry["status"]
        assert int(match["size"]) == entry["response_body_bytes"]


@pytest.mark.parametrize("log_format", ["json", "combined"])
def test_a_batch_is_its_lines(log_format: str) -> None:
    """Batches that cross seconds, also backwards, render each record as alone."""
    batch = [record(end_ns=END_NS + step * 400_000_000) for step in (0, 1, 2, 3, 2, 0, 9)]
    assert access_log.render(batch, log_format) == b"".join(access_log.render([one], log_format) for one in batch)
    assert access_log.render([], log_format) == b""


def test_caches_stay_bounded() -> None:
    """Neither many different requests nor very long ones make the caches grow beyond their bounds."""
    for log_format in ("json", "combined"):
        for number in range(5000):
            raw = b"%d" % number
            access_log.render(
                [record(target=raw, host=raw, user_agent=raw, generation=number, total_us=number)], log_format
            )
        access_log.render([record(target=b"x" * 9000, host=b"x" * 9000, user_agent=b"x" * 9000)], log_format)
    for cache in (access_log._whats, access_log._whos, access_log._hows, access_log._agents):
        assert len(cache) <= access_log._MAX_FRAGMENTS
        assert max(len(fragment) for fragment in cache.values()) <= access_log._MAX_FRAGMENT_CHARS
    assert len(access_log._durations) <= access_log._MAX_DURATIONS


def test_unknown_format() -> None:
    """A wrong format is an error that says what is right."""
    with pytest.raises(ValueError, match="expected 'json' or 'combined'"):
        access_log.render([], "xml")
