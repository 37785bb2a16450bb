"""Request heads: h11 as the oracle, every cut of every case, mutations, and the strict rules one by one."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeq.wire.errors import Refused
from edgeq.wire.fields import parse_host
from edgeq.wire.framing import CHUNKED, LENGTH, NO_BODY
from edgeq.wire.h1_request import find_end, parse_request, parse_whole, valid_traceparent
from edgeq.wire.head import HeadLimits, RequestHead
from tests.wire import oracle

LIMITS = HeadLimits(8192, 32 * 1024, 100)
_TOKEN = "abcxyzABCXYZ019!#$%&'*+-.^_`|~"
_VALUE = "".join(map(chr, range(0x20, 0x7F))) + "\t"


def read(data: bytes, limits: HeadLimits = LIMITS) -> RequestHead | None:
    """The head at the start of `data`, or None while it is incomplete. Raises: Refused."""
    end = find_end(data, 0, limits)
    return None if end < 0 else parse_request(data[:end], None, limits)


def read_bytewise(data: bytes, limits: HeadLimits = LIMITS) -> RequestHead | None:
    """The same for bytes that come one by one."""
    for size in range(1, len(data) + 1):
        end = find_end(data[:size], size - 1, limits)
        if end >= 0:
            return parse_request(data[:end], None, limits)
    return None


def outcome(head: RequestHead | None) -> tuple[object, ...]:
    return ("incomplete",) if head is None else (head.raw, *oracle.head_parts(head))


def refusal(data: bytes, limits: HeadLimits = LIMITS) -> str:
    """The reason for which `data` is refused."""
    with pytest.raises(Refused) as caught:
        read(data, limits)
    return caught.value.reason


def lines(*fields: str, request: str = "GET /a?b=c HTTP/1.1", host: str = "Host: a.example") -> bytes:
    """A request head."""
    return "\r\n".join([request, *([host] if host else []), *fields, "", ""]).encode("latin-1")


def ok(*fields: str, request: str = "GET /a?b=c HTTP/1.1", host: str = "Host: a.example") -> RequestHead:
    """A head that must be accepted."""
    head = read(lines(*fields, request=request, host=host))
    assert head is not None
    return head


# -- strategies -------------------------------------------------------------------------------------------------------

methods = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "X-Y"]
) | st.text(_TOKEN, min_size=1, max_size=8).filter(lambda method: method != "CONNECT")
paths = st.text("abcZ019-._~%!$&'()*+,;=:@/[]{}|\\^`\"<>", max_size=20).map(lambda path: "/" + path)
queries = st.just("") | st.text("ab%&=?/", max_size=10).map(lambda query: "?" + query)
hosts = st.sampled_from(
    ["a", "a.example", "A.Example:80", "10.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:443", "a:", "x_y"]
)
targets = st.builds(str.__add__, paths, queries) | st.builds(
    lambda scheme, host, path, query: f"{scheme}://{host}{path}{query}",
    st.sampled_from(["http", "HTTP", "https"]),
    hosts,
    st.just("") | paths,
    queries,
)
names = st.text(_TOKEN, min_size=1, max_size=12).filter(
    lambda name: name.lower() not in ("host", "content-length", "transfer-encoding", "expect", "connection")
)
values = st.text(_VALUE, max_size=20)
spaces = st.sampled_from(["", " ", "  ", "\t", " \t"])
common = st.sampled_from(
    [
        ("Connection", "keep-alive"),
        ("connection", "close"),
        ("Connection", "x-a, Upgrade ,, close"),
        ("TE", "trailers"),
        ("TE", "gzip;q=1.0, trailers"),
        ("Upgrade", "websocket"),
        ("Expect", "100-Continue"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Request-Id", "abc"),
        ("Max-Forwards", "3"),
        ("Trailer", "x-sum"),
        ("User-Agent", "curl/8"),
    ]
)
bodies = st.sampled_from(
    [
        (),
        (),
        (("Content-Length", "0"),),
        (("content-length", "17"),),
        (("CONTENT-LENGTH", "000123456789"),),
        (("Transfer-Encoding", "chunked"),),
        (("transfer-encoding", "Chunked"),),
    ]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A plain, valid request head."""
    fields = draw(st.lists(st.tuples(names, values) | common, max_size=6))
    fields += draw(bodies)
    fields.insert(draw(st.integers(0, len(fields))), ("Host", draw(hosts)))
    out = [f"{draw(methods)} {draw(targets)} HTTP/1.1"]
    out += [f"{name}:{draw(spaces)}{value}{draw(spaces)}" for name, value in fields]
    return ("\r\n".join(out) + "\r\n\r\n").encode("latin-1")


_PIECES = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b";", b"\0", b"\x7f", b"\x80", b"#", b"@", b"/", b"0", b"-"]
_LINES = [
    b"Host: b\r\n",
    b"Host : b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b" folded\r\n",
    b"X: \xe4\r\n",
    b"\r\n",
]
pieces = st.sampled_from(_PIECES) | st.sampled_from(_LINES) | st.binary(min_size=1, max_size=2)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Some bytes of a valid message inserted, deleted or replaced; often at line ends, where it matters."""
    data = draw(source)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            at = data.find(b"\r\n", at)
            at = max(at, 0) + draw(st.integers(0, 2))
        cut = at + draw(st.integers(0, 3))
        data = data[:at] + draw(st.just(b"") | pieces) + data[cut:]
    return data


def check_against_h11(head: RequestHead) -> None:
    """What we have accepted means the same to h11."""
    event = oracle.read_request(head.raw.lstrip(b"\r\n"))
    assert event.method == head.method
    assert event.http_version[:2] == b"1."
    assert head.minor == (0 if event.http_version == b"1.0" else 1)
    if event.target.startswith((b"/", b"*")):
        assert event.target == head.target
        host = oracle.field_values(event, b"host")
        assert [head.host] == [value.lower() for value in host] or (not host and not head.minor and not head.host)
    else:
        authority = event.target.split(b"://", 1)[1]
        assert authority.lower().startswith(head.host)
        assert authority[len(head.host) :] == (head.target if b"/" in authority[:1] else authority[len(head.host) :])
    assert head.path + head.query == head.target
    fields = head.fields
    assert (fields.body_kind, fields.content_length if fields.body_kind == LENGTH else 0) == oracle.request_framing(
        event
    )


# -- properties -------------------------------------------------------------------------------------------------------


@given(heads())
def test_every_plain_head_is_accepted_as_h11_reads_it(raw: bytes) -> None:
    """A valid plain head is complete, accepted, and means to h11 what it means to us."""
    head = read(raw)
    assert head is not None
    assert head.raw == raw
    check_against_h11(head)


@given(heads(), st.binary(max_size=20))
def test_bytes_after_a_head_do_not_change_it(raw: bytes, rest: bytes) -> None:
    """The head ends at its empty line, whatever follows."""
    head = read(raw + rest)
    assert head is not None
    assert outcome(head) == outcome(read(raw))


@given(heads())
@settings(max_examples=50)
def test_every_cut_of_a_valid_head_waits_for_more(raw: bytes) -> None:
    """A head that comes byte by byte is incomplete until its last byte, then the same as if it came whole."""
    for size in range(len(raw)):
        assert find_end(raw[:size], max(0, size - 1), LIMITS) == -1
        assert find_end(raw[:size], 0, LIMITS) == -1
    for seen in range(len(raw)):
        assert find_end(raw, seen, LIMITS) == len(raw)


@given(mutated(heads()))
@settings(max_examples=400)
@example(b"GET http://a/ HTTP/1.1\r\n\r\n")
@example(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\r\n\r\n")
def test_what_is_accepted_h11_accepts_with_the_same_meaning(data: bytes) -> None:
    """Damaged heads are refused, incomplete, or mean the same to h11; nothing but Refused is ever raised."""
    try:
        head = read(data)
    except Refused:
        return
    if head is not None:
        check_against_h11(head)


@given(mutated(heads()))
@settings(max_examples=150)
@example(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
def test_byte_by_byte_is_the_same_as_whole(data: bytes) -> None:
    """Whether bytes come at once or one by one: the same head, or refused both times."""
    try:
        whole = outcome(read(data))
    except Refused:
        whole = ("refused",)
    try:
        parts = outcome(read_bytewise(data))
    except Refused:
        parts = ("refused",)
    if whole != ("incomplete",):
        assert parts == whole


@given(heads(), heads())
def test_remembered_fields_do_not_change_a_head(first: bytes, second: bytes) -> None:
    """The last head of a connection only saves work: the next head means the same with it and without it."""
    previous = parse_request(first, None, LIMITS)
    line = second.split(b"\r\n", 1)[0]
    mixed = line + b"\r\n" + first.split(b"\r\n", 1)[1]
    for raw in (second, mixed):
        try:
            plain = outcome(parse_request(raw, None, LIMITS))
        except Refused:
            with pytest.raises(Refused):
                parse_request(raw, previous, LIMITS)
        else:
            assert outcome(parse_request(raw, previous, LIMITS)) == plain


@given(heads(), st.data())
def test_other_values_of_the_same_fields_do_not_change_a_head(first: bytes, data: st.DataObject) -> None:
    """Heads that differ from the last one in values only, valid or not, mean the same with it and without it."""
    previous = parse_request(first, None, LIMITS)
    lines = first.split(b"\r\n")
    for _ in range(2):  # the second time the last head is one that was recognised itself
        changed = list(lines)
        for index in data.draw(st.sets(st.integers(1, max(1, len(lines) - 3)), max_size=2)):
            name, colon, _ = lines[index].partition(b":")
            value = data.draw(
                st.one_of(
                    st.binary(max_size=6).filter(lambda value: b"\r\n" not in value),
                    st.from_regex(rb"[ -~\t]{0,8}", fullmatch=True),
                )
            )
            changed[index] = name + colon + value
        raw = b"\r\n".join(changed)
        try:
            plain = parse_request(raw, None, LIMITS)
        except Refused:
            with pytest.raises(Refused):
                parse_request(raw, previous, LIMITS)
        else:
            previous = parse_request(raw, previous, LIMITS)
            assert oracle.head_parts(previous) == oracle.head_parts(plain)


@given(st.binary(max_size=80))
def test_noise_never_raises_anything_else(data: bytes) -> None:
    """Random bytes are refused or incomplete."""
    with contextlib.suppress(Refused):
        assert read(data) is None


# -- the request line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("GET  / HTTP/1.1", "request_malformed"),
        ("GET /a b HTTP/1.1", "request_malformed"),
        ("GET\t/ HTTP/1.1", "request_malformed"),
        (" GET / HTTP/1.1", "request_malformed"),
        ("GET / HTTP/1.1 ", "request_malformed"),
        ("GET /", "request_malformed"),
        ("GET", "request_malformed"),
        ("G(T / HTTP/1.1", "request_malformed"),
        ("GET /\x7f HTTP/1.1", "request_malformed"),
        ("GET /\xe4 HTTP/1.1", "request_malformed"),
        ("GET /#top HTTP/1.1", "request_malformed"),
        ("GET a HTTP/1.1", "request_malformed"),
        ("GET * HTTP/1.1", "request_malformed"),
        ("GET ftp://a/ HTTP/1.1", "request_malformed"),
        ("GET http:///path HTTP/1.1", "host_invalid"),
        ("GET http://user@a/ HTTP/1.1", "host_invalid"),
        ("GET / http/1.1", "request_malformed"),
        ("GET / HTTP/11", "request_malformed"),
        ("GET / HTTP/1.10", "request_malformed"),
        ("GET / HTTP/2.0", "version_unsupported"),
        ("GET / HTTP/0.9", "version_unsupported"),
        ("CONNECT a:443 HTTP/1.1", "method_refused"),
        ("CONNECT / HTTP/1.1", "method_refused"),
    ],
)
def test_request_lines_that_are_refused(line: str, reason: str) -> None:
    """Method SP target SP version, exactly (RFC 9112 3)."""
    assert refusal(lines(request=line)) == reason


def test_higher_minor_versions_are_read_as_1_1() -> None:
    """RFC 9110 2.5: the highest minor version that is known."""
    head = ok(request="GET / HTTP/1.7")
    assert (head.minor, head.version) == (1, b"HTTP/1.1")


@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [
        ("http://B.example/x?y", b"b.example", b"/x?y"),
        ("HTTPS://b:8443", b"b:8443", b"/"),
        ("http://b?q", b"b", b"/?q"),
        ("http://[::1]:80/", b"[::1]:80", b"/"),
    ],
)
def test_absolute_form_wins_over_host(target: str, host: bytes, origin: bytes) -> None:
    """RFC 9112 3.2.2: its authority replaces Host, and the request is forwarded in origin-form."""
    head = ok(request=f"GET {target} HTTP/1.1")
    assert (head.host, head.target) == (host, origin)


def test_absolute_form_still_needs_a_host_field() -> None:
    """RFC 9112 3.2: an HTTP/1.1 request without Host is refused, whatever its target."""
    assert refusal(lines(request="GET http://a/ HTTP/1.1", host="")) == "host_invalid"


def test_options_asterisk() -> None:
    """Only OPTIONS may ask for the server as a whole."""
    assert ok(request="OPTIONS * HTTP/1.1").target == b"*"


# -- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "X : a",
        " X: a",
        "\tX: a",
        ": a",
        "X",
        "X\0: a",
        "X: a\0b",
        "X: a\x7fb",
        "X: a\rb",
        "X: a\nb",
        "X: a\x0bb",
        "X(: a",
        "\xe4: a",
    ],
)
def test_fields_that_are_refused(line: str) -> None:
    """A token, a colon, visible characters (RFC 9112 5, RFC 9110 5.5)."""
    assert refusal(lines("A: b", line)) == "request_malformed"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["Content-Length: 5", "Content-Length: 5"], "request_ambiguous"),
        (["Content-Length: 5, 5"], "request_ambiguous"),
        (["Content-Length: +5"], "request_ambiguous"),
        (["Content-Length: -0"], "request_ambiguous"),
        (["Content-Length: 0x5"], "request_ambiguous"),
        (["Content-Length: 5 "], ""),
        (["Content-Length:"], "request_ambiguous"),
        (["Content-Length: 1_0"], "request_ambiguous"),
        (["Content-Length: 9999999999999999999"], "request_ambiguous"),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], "request_ambiguous"),
        (["Transfer-Encoding: chunked", "Content-Length: 0"], "request_ambiguous"),
        (["Transfer-Encoding: chunked, chunked"], "request_ambiguous"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "request_ambiguous"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], "request_ambiguous"),
        (["Transfer-Encoding: , chunked"], "request_ambiguous"),
        (["Transfer-Encoding:"], "request_ambiguous"),
        (["Transfer-Encoding: identity"], "request_ambiguous"),
        (["Transfer-Encoding: gzip, chunked"], "transfer_coding_unknown"),
        (["Transfer-Encoding: xchunked"], "transfer_coding_unknown"),
        (["Transfer-Encoding: chunked;a=b"], "transfer_coding_unknown"),
        (["Host: a.example"], "request_ambiguous"),
        (["Expect: 200-ok"], "expectation_unknown"),
    ],
)
def test_framing_that_two_parsers_could_read_differently(fields: list[str], reason: str) -> None:
    """RFC 9112 6.1 and 6.3: one length or one `chunked`, and nothing beside it."""
    raw = lines(*fields, request="POST / HTTP/1.1")
    if reason:
        assert refusal(raw) == reason
    else:
        assert read(raw) is not None


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    """RFC 9112 6.1: an HTTP/1.0 peer may not know it."""
    assert refusal(lines("Transfer-Encoding: chunked", request="POST / HTTP/1.0")) == "request_ambiguous"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "host_invalid"),
        ("Host:", "host_invalid"),
        ("Host: a b", "host_invalid"),
        ("Host: a/b", "host_invalid"),
        ("Host: u@a", "host_invalid"),
        ("Host: a:x", "host_invalid"),
        ("Host: a:65536", "host_invalid"),
        ("Host: a:000080", "host_invalid"),
        ("Host: :80", "host_invalid"),
        ("Host: [", "host_invalid"),
        ("Host: [::1", "host_invalid"),
        ("Host: [::1]x", "host_invalid"),
        ("Host: [::1]80", "host_invalid"),
        ("Host: [abc]", "host_invalid"),
        ("Host: []", "host_invalid"),
        ("Host: ::1", "host_invalid"),
    ],
)
def test_hosts_that_are_refused(host: str, reason: str) -> None:
    """Exactly one valid Host (RFC 9110 7.2)."""
    assert refusal(lines(host=host)) == reason


def test_http_1_0_needs_no_host() -> None:
    """Host came with HTTP/1.1."""
    assert ok(request="GET / HTTP/1.0", host="").host == b""


@given(st.text("abAB01.-_~%!$&'()*+,;=[]:@/ \\", max_size=12))
def test_parse_host_against_a_plain_reading(text: str) -> None:
    """Accepted: name or bracketed address, perhaps a port up to 65535; given back in lower case."""
    name, _, port = text.rpartition(":") if ":" in text.split("]")[-1] else (text, "", "")
    inside = name[1:-1]
    literal = name.startswith("[") and name.endswith("]") and ":" in inside and not set(inside) - set("abAB01:.")
    plain = (bool(name) or not text) and not set(name) - set("abAB01.-_~%!$&'()*+,;=")
    good = (literal or plain) and not set(port) - set("01") and len(port) <= 5
    try:
        host = parse_host(text.encode())
    except Refused:
        assert not good
    else:
        assert good
        assert host == text.lower().encode()


# -- what is remembered of fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: Keep-Alive, CLOSE"], False),
        ("GET / HTTP/1.1", ["Connection: x", "connection:\tclose\t"], False),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], True),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False),
        ("GET / HTTP/1.0", ["Proxy-Connection: keep-alive"], False),
    ],
)
def test_persistence(request_line: str, fields: list[str], keep_alive: bool) -> None:
    """RFC 9112 9.3."""
    assert ok(*fields, request=request_line).keep_alive is keep_alive


def test_hop_by_hop_fields_are_cut_and_others_kept_as_they_came() -> None:
    """RFC 9110 7.6.1: what Connection names goes, and what is always hop-by-hop; other lines are untouched."""
    head = ok(
        "X-One:  spaced  ",
        "Connection: x-hop, keep-alive, X-Other",
        "X-HOP: 1",
        "x-other: 2",
        "x-hop: 3",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Proxy-Authorization: Basic Zm9v",
        "HTTP2-Settings: AAA",
        "X-Two: b",
    )
    assert head.kept == b"X-One:  spaced  \r\nX-Two: b\r\n"


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Authorization", "Cookie", "X-Forwarded-For", "Max-Forwards"]
)
def test_connection_cannot_remove_what_changes_the_meaning(name: str) -> None:
    """Hop-by-hop abuse: naming an end-to-end field in Connection does not remove it."""
    plain = ok("Content-Length: 3", "Authorization: x", "Cookie: a=b", "Max-Forwards: 1", "X-Forwarded-For: 1.1.1.1")
    named = ok(
        f"Connection: {name}",
        "Content-Length: 3",
        "Authorization: x",
        "Cookie: a=b",
        "Max-Forwards: 1",
        "X-Forwarded-For: 1.1.1.1",
    )
    assert oracle.head_parts(named) == oracle.head_parts(plain)


def test_many_connection_options_cost_no_product_of_work() -> None:
    """Options times fields is a product that a client must not be able to ask for: all named fields go at once."""
    options = ",".join(f"a{number:x}" for number in range(5000))
    head = ok(f"Connection: {options}", *[f"b{number}: x" for number in range(90)], "a1: y", "A10: z")
    assert head.kept == b"".join(b"b%d: x\r\n" % number for number in range(90))


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (["Connection: Upgrade", "Upgrade: WebSocket"], b"websocket"),
        (["Upgrade: websocket"], b""),
        (["Connection: upgrade"], b""),
        (["Connection: upgrade", "Upgrade: h2c"], b""),
        (["Connection: upgrade", "Upgrade: websocket, h2c"], b""),
        (["Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"], b""),
    ],
)
def test_only_websocket_is_an_upgrade(fields: list[str], upgrade: bytes) -> None:
    """And only with Connection: upgrade (RFC 9110 7.8)."""
    head = ok(*fields)
    assert head.fields.upgrade == upgrade
    assert b"pgrade" not in head.kept


def test_fields_that_edgeq_writes_itself_are_not_forwarded_as_they_came() -> None:
    """Who the client is, which request this is: said by us, from what we understood."""
    head = ok(
        "X-Forwarded-For: 1.1.1.1",
        "x-forwarded-for: 2.2.2.2",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b",
        "Forwarded: for=1.1.1.1",
        "X-Request-ID: id-1",
        "TE: trailers",
        "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "tracestate: a=1",
        "tracestate: b=2",
    )
    fields = head.fields
    assert head.kept == b""
    assert fields.x_forwarded_for == b"1.1.1.1, 2.2.2.2"
    assert (fields.x_forwarded_proto, fields.x_forwarded_host) == (b"https", b"b")
    assert (fields.forwarded, fields.request_id, fields.te_trailers) == (b"for=1.1.1.1", b"id-1", True)
    assert fields.tracestate == b"a=1, b=2"
    assert valid_traceparent(fields.traceparent)


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_more_than_one_traceparent_is_none(copies: int) -> None:
    """W3C Trace Context 3.2.1: with several, none is to be believed."""
    line = "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert not valid_traceparent(ok(*[line] * copies).fields.traceparent)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("abc", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a b", False),
        ('a"b', False),
        ("a,b", False),
        ("9f-._~+/=@:Z", True),
    ],
)
def test_request_id_validity(value: str, kept: bool) -> None:
    """A client's request id is used only if it is short and plain: it goes into logs and answers."""
    assert ok(f"X-Request-Id: {value}").fields.request_id == (value.encode() if kept else b"")


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True),
        ("00-" + "A" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "a" * 32 + "-" + "0" * 16 + "-01", False),
        ("ff-" + "a" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01-x", False),
        ("01-" + "a" * 32 + "-" + "b" * 16 + "-01-x", True),
        ("01-" + "a" * 32 + "-" + "b" * 16 + "-01.x", False),
        ("00-" + "a" * 33 + "-" + "b" * 15 + "-01", False),
        ("00-" + "g" * 32 + "-" + "b" * 16 + "-01", False),
        ("00_" + "a" * 32 + "-" + "b" * 16 + "-01", False),
        ("", False),
    ],
)
def test_traceparent(value: str, valid: bool) -> None:
    """W3C Trace Context 3.2.2."""
    assert valid_traceparent(value.encode()) is valid


def test_body_kinds() -> None:
    """RFC 9112 6.3: chunked, a length, or none; a length of 0 is none."""
    assert ok().fields.body_kind == NO_BODY
    assert ok("Content-Length: 0").fields.body_kind == NO_BODY
    assert ok("Transfer-Encoding: CHUNKED").fields.body_kind == CHUNKED
    fields = ok("Content-Length: 7").fields
    assert (fields.body_kind, fields.content_length) == (LENGTH, 7)


@pytest.mark.parametrize(
    ("method", "idempotent"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("get", False)]
)
def test_idempotent_methods(method: str, idempotent: bool) -> None:
    """RFC 9110 9.2.2; methods are case-sensitive."""
    assert ok(request=f"{method} / HTTP/1.1").idempotent is idempotent


# -- legal but unusual ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"])
def test_empty_lines_before_a_request_are_skipped(blank: bytes) -> None:
    """RFC 9112 2.2: some clients send a CRLF after a body."""
    head = read(blank + lines())
    assert head is not None
    assert oracle.head_parts(head) == oracle.head_parts(ok())
    assert head.raw == blank + lines()


@pytest.mark.parametrize(
    "data", [b"\r\n" * 4, b"\r\n" * 4 + lines(), b"\r\n" + b"\r" * 100, b"\r\n" + b"\n" * 100, b"\r\n\n" + lines()]
)
def test_more_than_a_few_empty_lines_are_refused(data: bytes) -> None:
    """Nobody may send line ends without bound."""
    assert refusal(data) == "request_malformed"


def test_obs_text_is_accepted_and_kept() -> None:
    """RFC 9110 5.5: bytes above 0x7F in values are legal, and opaque."""
    head = ok("X-Name: J\xf6rg")
    assert b"J\xf6rg" in head.kept


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["whole", "bytes"])
def test_limits_are_exact(data: str) -> None:
    """A head at each limit passes, one byte or field more is refused with the limit's own reason."""
    reading = read if data == "whole" else read_bytewise
    line = "GET /" + "a" * 50 + " HTTP/1.1"
    raw = lines("X: " + "b" * 40, "Y: c", request=line)
    block = len(raw) - len(line) - 4
    exact = HeadLimits(len(line), block, 3)
    assert reading(raw, exact) is not None
    for limits, reason in (
        (HeadLimits(len(line) - 1, block, 3), "request_line_too_long"),
        (HeadLimits(len(line), block - 1, 3), "header_bytes_exceeded"),
        (HeadLimits(len(line), block, 2), "header_count_exceeded"),
    ):
        with pytest.raises(Refused) as caught:
            reading(raw, limits)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a" * 8193, "request_line_too_long"),
        (b"GET / HTTP/1.1\r\n" + b"a" * 33000, "header_bytes_exceeded"),
        (b"\r\n" + b"a" * 9000, "request_line_too_long"),
        (b"GET / HTTP/1.1\r\nX: a\nY", "request_malformed"),
        (b"GET / HTTP/1.1\n", "request_malformed"),
    ],
)
def test_what_can_never_be_a_head_is_refused_before_its_end(data: bytes, reason: str) -> None:
    """Nobody has to wait for the rest, and no more than the limits is held."""
    with pytest.raises(Refused) as caught:
        find_end(data + b"b", 0, LIMITS)
    assert caught.value.reason == reason


def test_what_follows_a_head_does_not_count_for_its_limits() -> None:
    """A body or further requests in the same read, longer than a head may be, and ending like a head."""
    body = b"9000\r\n" + b"x" * 0x9000 + b"\r\n0\r\n\r\n"
    head = lines("Transfer-Encoding: chunked", request="POST / HTTP/1.1")
    for data in (head + body, lines() * 1000):
        assert parse_whole(data, None, LIMITS) is None
        assert read(data) is not None


def test_h11_refuses_what_the_gate_lets_through() -> None:
    """The unusual path ends in the same errors."""
    with pytest.raises(h11.RemoteProtocolError):
        oracle.read_request(b"GET / HTTP/1.1\r\nX: \xe4\r\n\r\n")
    assert refusal(b"GET / HTTP/1.1\r\nX: \xe4\r\n\r\n") in ("host_invalid", "request_malformed")
