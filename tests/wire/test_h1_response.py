"""Response heads: h11 as the oracle, every cut, mutations, and the strict rules."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeq.wire.errors import Refused
from edgeq.wire.framing import CHUNKED, LENGTH, UNTIL_CLOSE
from edgeq.wire.h1_response import MAX_RESPONSE_HEAD, find_response_end, parse_response
from edgeq.wire.head import ResponseHead
from tests.wire import oracle
from tests.wire.test_h1_request import mutated, spaces, values

names = st.text("abcXYZ019-_!", min_size=1, max_size=10).filter(
    lambda name: name.lower() not in ("content-length", "transfer-encoding")
)
common = st.sampled_from(
    [
        ("Connection", "close"),
        ("Connection", "keep-alive, x-hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Set-Cookie", "a=b"),
        ("Trailer", "x-sum"),
        ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ]
)
bodies = st.sampled_from(
    [(), (("Content-Length", "5"),), (("content-length", "0"),), (("Transfer-Encoding", "Chunked"),)]
)
statuses = st.sampled_from(
    ["200 OK", "200", "200 ", "404 Not Found", "304 Not Modified", "204 No Content", "599 x y", "302 \xe4"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A valid response head."""
    fields = [*draw(st.lists(st.tuples(names, values) | common, max_size=5)), *draw(bodies)]
    out = [f"HTTP/1.1 {draw(statuses)}"]
    out += [f"{name}:{draw(spaces)}{value}{draw(spaces)}" for name, value in fields]
    return ("\r\n".join(out) + "\r\n\r\n").encode("latin-1")


def read(data: bytes) -> ResponseHead | None:
    """The head at the start of `data`, or None while it is incomplete. Raises: Refused."""
    end = find_response_end(data, 0)
    return None if end < 0 else parse_response(data[:end])


def answer(*fields: str, line: str = "HTTP/1.1 200 OK") -> ResponseHead:
    """A head that must be accepted."""
    head = read("\r\n".join([line, *fields, "", ""]).encode("latin-1"))
    assert head is not None
    return head


def refused(*fields: str, line: str = "HTTP/1.1 200 OK") -> None:
    """A head that must be refused."""
    with pytest.raises(Refused) as caught:
        answer(*fields, line=line)
    assert caught.value.reason == "upstream_protocol_error"


def check_against_h11(head: ResponseHead) -> None:
    """What we have accepted means the same to h11, before and after our changes."""
    event = oracle.read_response(head.raw)
    assert event.status_code == head.status
    assert head.minor == (0 if event.http_version == b"1.0" else 1)
    if head.status >= 200:
        kind, length = oracle.response_framing(event)  # type: ignore[arg-type]
        if head.status in (204, 304):
            return
        assert (head.body_kind, head.content_length) == (kind, length)
    extra = b"transfer-encoding: chunked\r\n" if head.body_kind == CHUNKED else b""
    again = oracle.read_response(head.forward + extra + b"\r\n")
    assert again.status_code == head.status
    dropped = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"x-request-id", b"x-hop"}
    dropped |= {b"proxy-authenticate", b"proxy-authorization", b"http2-settings"}
    options = {
        part.strip().lower() for value in oracle.field_values(event, b"connection") for part in value.split(b",")
    }
    for name, value in event.headers:
        if name not in dropped | options | {b"content-length"}:
            assert value in oracle.field_values(again, name)


@given(heads())
def test_every_valid_head_is_accepted_as_h11_reads_it(raw: bytes) -> None:
    """A valid head is accepted, and means to h11 what it means to us."""
    head = read(raw)
    assert head is not None
    check_against_h11(head)


@given(mutated(heads()))
@settings(max_examples=400)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
@example(b"HTTP/1.1 1000 OK\r\n\r\n")
def test_what_is_accepted_h11_accepts_with_the_same_meaning(data: bytes) -> None:
    """Damaged heads are refused, incomplete, or mean the same to h11; nothing but Refused is ever raised."""
    try:
        head = read(data)
    except Refused:
        return
    if head is not None and head.status <= 599:
        check_against_h11(head)


@given(mutated(heads()) | heads())
@settings(max_examples=100)
def test_byte_by_byte_is_the_same_as_whole(data: bytes) -> None:
    """Whether bytes come at once or one by one: the same head, or refused both times."""

    def bytewise() -> ResponseHead | None:
        for size in range(1, len(data) + 1):
            end = find_response_end(data[:size], size - 1)
            if end >= 0:
                return parse_response(data[:end])
        return None

    results: list[tuple[object, ...]] = []
    for whole in (True, False):
        try:
            head = read(data) if whole else bytewise()
            results.append(("incomplete",) if head is None else oracle.answer_parts(head))
        except Refused:
            results.append(("refused",))
    if results[0] != ("incomplete",):
        assert results[0] == results[1]


@pytest.mark.parametrize(
    "line",
    [
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 099 x",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "ICY 200 OK",
    ],
)
def test_status_lines_that_are_refused(line: str) -> None:
    """RFC 9112 4."""
    refused(line=line)


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5, 5"],
        ["Content-Length: +5"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding:"],
        ["X : a"],
        [" folded"],
        ["X: a\nb"],
    ],
)
def test_fields_that_are_refused(fields: list[str]) -> None:
    """The same strictness towards upstreams: what is ambiguous goes to nobody."""
    refused(*fields)


def test_transfer_encoding_in_an_http_1_0_answer_is_refused() -> None:
    """RFC 9112 6.1."""
    refused("Transfer-Encoding: chunked", line="HTTP/1.0 200 OK")


def test_equal_lengths_are_one() -> None:
    """RFC 9112 6.3: the same length twice is that length, forwarded once."""
    head = answer("Content-Length: 5", "Content-Length: 5")
    assert (head.body_kind, head.content_length) == (LENGTH, 5)
    assert head.forward.lower().count(b"content-length") == 1


@pytest.mark.parametrize(
    ("line", "fields", "keep"),
    [
        ("HTTP/1.1 200 OK", [], True),
        ("HTTP/1.1 200 OK", ["Connection: close"], False),
        ("HTTP/1.0 200 OK", [], False),
        ("HTTP/1.0 200 OK", ["Connection: Keep-Alive"], True),
    ],
)
def test_persistence(line: str, fields: list[str], keep: bool) -> None:
    """RFC 9112 9.3, and always forwarded as our own version."""
    head = answer(*fields, line=line)
    assert head.keep_alive is keep
    assert head.forward.startswith(b"HTTP/1.1 200 OK\r\n")


def test_hop_by_hop_fields_are_cut() -> None:
    """RFC 9110 7.6.1, in the other direction."""
    head = answer("A: 1", "Connection: x-hop", "X-Hop: 1", "Keep-Alive: x", "Upgrade: h2c", "X-Request-Id: u", "B:2")
    assert head.forward == b"HTTP/1.1 200 OK\r\nA: 1\r\nB:2\r\n"
    assert head.body_kind == UNTIL_CLOSE


def test_upgrade_is_forwarded_where_it_means_something() -> None:
    """RFC 9110 7.8: in 101 and 426."""
    head = answer("Upgrade: WebSocket", "Connection: Upgrade", line="HTTP/1.1 101 Switching Protocols")
    assert head.upgrade == b"websocket"
    assert b"Upgrade: WebSocket\r\nconnection: upgrade\r\n" in head.forward


def test_a_missing_phrase_gets_its_space() -> None:
    """RFC 9112 4: the space is not optional, though many leave it out."""
    assert answer(line="HTTP/1.1 200").forward == b"HTTP/1.1 200 \r\n"


@pytest.mark.parametrize("data", [b"HTTP/2", b"SSH-2.0-x", b"\r\n", b"HTTP/1.1 200 OK\r\nX: a\nY"])
def test_what_can_never_be_a_head_is_refused_before_its_end(data: bytes) -> None:
    """Nobody has to wait for the rest."""
    with pytest.raises(Refused):
        find_response_end(data, 0)


def test_an_endless_head_is_refused() -> None:
    """No more than the limit is held."""
    with pytest.raises(Refused):
        find_response_end(b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_RESPONSE_HEAD, 0)
