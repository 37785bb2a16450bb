"""Chunked bodies: h11 as the oracle for the payload, every split, mutations, trailers and limits."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeq.wire.errors import Refused
from edgeq.wire.framing import LAST_CHUNK, ChunkedFramer, chunk, parse_chunk_size
from tests.wire.test_h1_request import mutated

MAX_TRAILER = 200


def run(parts: list[bytes], decode: bool = False, keep: bool = True) -> tuple[bytes, ChunkedFramer]:
    """What is passed on of a body that comes in these parts; after its end everything else is excess."""
    framer = ChunkedFramer(decode, keep, MAX_TRAILER)
    out = b""
    rest = b""
    for part in parts:
        if framer.done:
            rest += part
        else:
            out += framer.feed(part)
            rest = framer.excess
    framer.excess = rest
    return out, framer


def result(parts: list[bytes], decode: bool = False, keep: bool = True) -> tuple[object, ...]:
    try:
        out, framer = run(parts, decode, keep)
    except Refused as error:
        return ("refused", error.reason)
    return (out if framer.done else b"", framer.done, framer.excess, framer.payload_bytes)


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """(payload, what follows, trailers) as h11 reads a chunked body; None if it is not complete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    payload = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            payload += event.data
        elif isinstance(event, h11.EndOfMessage):
            return payload, connection.trailing_data[0], list(event.headers)
        else:
            return None


extensions = st.sampled_from(["", "", ";a", ";a=b", ';a="q;x"', ";a=1;b=2", ';a="\xe4"'])
payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
trailers = st.lists(
    st.sampled_from(["X-Sum: abc", "x-a:b", "Content-Length: 5", "Host: b", "X-Empty:", "Cookie: a=b"]), max_size=3
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid chunked body."""
    out = b""
    for part in draw(payloads):
        digits = draw(st.sampled_from([f"{len(part):x}", f"{len(part):X}", f"000{len(part):x}"]))
        out += digits.encode() + draw(extensions).encode("latin-1") + b"\r\n" + part + b"\r\n"
    out += draw(st.sampled_from([b"0", b"000", b"0;last"])) + b"\r\n"
    return out + b"".join(line.encode() + b"\r\n" for line in draw(trailers)) + b"\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(bodies(), st.binary(max_size=10), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_payload_and_end_as_h11_reads_them(data: bytes, rest: bytes, cuts: list[int], keep: bool) -> None:
    """A valid body in any pieces: decoded it is h11's payload, passed on it is the same, what follows is left."""
    expected = by_h11(data + rest)
    assert expected is not None
    payload, excess, _ = expected
    assert excess == rest
    parts = split(data + rest, cuts)
    out, framer = run(parts, decode=True, keep=keep)
    assert (out, framer.done, framer.excess, framer.payload_bytes) == (payload, True, rest, len(payload))
    out, framer = run(parts, decode=False, keep=keep)
    assert (framer.done, framer.excess, framer.payload_bytes) == (True, rest, len(payload))
    again = by_h11(out)
    assert again is not None
    assert again[:2] == (payload, b"")
    names = {name for name, _ in again[2]}
    assert names <= ({b"x-sum", b"x-a", b"x-empty"} if keep else set())


@given(bodies(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_every_cut_gives_the_same(data: bytes, decode: bool, keep: bool) -> None:
    """A body cut in two at every byte, and byte by byte, is passed on as if it came whole."""
    data += b"next"
    whole = result([data], decode, keep)
    for at in range(len(data) + 1):
        assert result([data[:at], data[at:]], decode, keep) == whole
    assert result([data[at : at + 1] for at in range(len(data))], decode, keep) == whole


@given(bodies())
@settings(max_examples=60)
def test_nothing_is_held_back_but_unfinished_lines(data: bytes) -> None:
    """Each payload byte is passed on in the call that brought it."""
    framer = ChunkedFramer(True, True, MAX_TRAILER)
    passed = 0
    for at in range(len(data)):
        if framer.done:
            break
        passed += len(framer.feed(data[at : at + 1]))
        assert passed == framer.payload_bytes


@given(mutated(bodies()), st.lists(st.integers(0, 400), max_size=4), st.booleans())
@settings(max_examples=400)
@example(b"5 \r\nhello\r\n0\r\n\r\n", [], True)
@example(b"5\r\nhelloXX0\r\n\r\n", [], True)
@example(b"5\r\nhello\n0\r\n\r\n", [], True)
@example(b"0\r\n\n\r\n", [], True)
def test_what_is_accepted_h11_reads_alike(data: bytes, cuts: list[int], decode: bool) -> None:
    """Damaged bodies are refused, incomplete, or the same to h11; pieces and whole never differ."""
    whole = result([data], decode)
    parts = result(split(data, cuts), decode)
    if whole[0] == "refused":
        assert parts[0] in ("refused", b"")
        return
    assert parts == whole
    out, framer = run([data], decode=True)
    if not framer.done:
        return
    passed_on, _ = run([data])
    for sent, excess in ((data, framer.excess), (passed_on, b"")):
        try:
            expected = by_h11(sent)
        except h11.RemoteProtocolError:
            # White space before an extension is legal (RFC 9112 7.1.1), but h11 does not know it; and a trailer field
            # that we drop may say anything.
            assert b" ;" in sent or b"\t;" in sent or (sent == data and data != passed_on + excess)
            continue
        assert expected is not None
        assert expected[:2] == (out, excess)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"0", 0),
        (b"a", 10),
        (b"FF", 255),
        (b"000000000000010", 16),
        (b"5;a=b", 5),
        (b"5 ; a", 5),
        (b"fffffffffffffff", (1 << 60) - 1),
    ],
)
def test_chunk_sizes(line: bytes, size: int) -> None:
    """1 to 15 hex digits, and extensions that are ignored."""
    assert parse_chunk_size(line) == size


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b";a",
        b"-1",
        b"+1",
        b"0x5",
        b"5 ",
        b" 5",
        b"5_0",
        b"g",
        b"5;\n",
        b"5;\r",
        b"5;\0",
        b"5\t",
        b"1" * 16,
        b"5 a;b",
        b"5;\xe4",
    ],
)
def test_chunk_sizes_that_are_refused(line: bytes) -> None:
    """Funky chunks: nothing that another parser might read as another size."""
    with pytest.raises(Refused):
        parse_chunk_size(line)


@given(st.text("0123456789abcdefABCDEFgx +-_;\t", max_size=18))
def test_chunk_size_against_int(text: str) -> None:
    """What is accepted is what int() reads before the extension."""
    try:
        size = parse_chunk_size(text.encode())
    except Refused:
        return
    digits = text.split(";")[0].rstrip(" \t")
    assert size == int(digits, 16)
    assert not set(digits) - set("0123456789abcdefABCDEF")


@pytest.mark.parametrize(("size", "accepted"), [(256, True), (257, False)])
def test_the_limit_of_a_size_line_is_the_same_in_all_pieces(size: int, accepted: bool) -> None:
    """A size line of 256 bytes passes however it is cut; a longer one is refused, also before its end."""
    line = b"5;" + b"x" * (size - 2)
    data = line + b"\r\nhello\r\n" + LAST_CHUNK
    for at in range(len(data)):
        assert (result([data[:at], data[at:]])[0] != "refused") is accepted
    if not accepted:
        assert result([line + b"xx"]) == ("refused", "request_malformed")


@pytest.mark.parametrize("extension", [b'a="\xe4"', b'a="\\""', b'a="x;y"', b"a=b;c"])
def test_extensions_are_the_same_in_all_pieces(extension: bytes) -> None:
    """Whatever RFC 9112 7.1.1 allows in one."""
    data = b"5;" + extension + b"\r\nhello\r\n0\r\n\r\n"
    for at in range(len(data) + 1):
        assert result([data[:at], data[at:]]) == (b"5\r\nhello\r\n0\r\n\r\n", True, b"", 5)


def test_trailer_limit_is_the_same_in_all_pieces() -> None:
    """A trailer section at its limit passes however it is cut, one more byte is refused."""
    for extra, accepted in ((0, True), (1, False)):
        section = b"X: " + b"a" * (MAX_TRAILER - 5 + extra) + b"\r\n"
        assert len(section) == MAX_TRAILER + extra
        data = b"0\r\n" + section + b"\r\n"
        for at in range(len(data) + 1):
            got = result([data[:at], data[at:]])
            assert (got == ("refused", "trailer_bytes_exceeded")) is not accepted


def test_an_endless_trailer_section_is_refused_before_its_end() -> None:
    """No more than the limit is held."""
    assert result([b"0\r\nX: " + b"a" * (MAX_TRAILER + 10)]) == ("refused", "trailer_bytes_exceeded")
    assert result([b"0\r\nX: a\nY"]) == ("refused", "request_malformed")


@pytest.mark.parametrize(
    "line", [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Host: a", b"Authorization: x", b"Trailer: x"]
)
def test_forbidden_trailers_are_dropped(line: bytes) -> None:
    """RFC 9110 6.5.1: nothing that changes framing, routing or identity comes after the body."""
    out, framer = run([b"1\r\na\r\n0\r\n" + line + b"\r\nX-Sum: 1\r\n\r\n"])
    assert framer.done
    assert out == b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("line", [b"X : a", b" X: a", b"X", b": a", b"X: a\0", b"X: a\rb"])
@pytest.mark.parametrize("keep", [True, False])
def test_malformed_trailers_are_refused_even_if_dropped(line: bytes, keep: bool) -> None:
    """A malformed line is never harmless."""
    assert result([b"0\r\n" + line + b"\r\n\r\n"], keep=keep) == ("refused", "request_malformed")


@given(st.binary(min_size=1, max_size=100))
def test_chunk(data: bytes) -> None:
    """`chunk` and LAST_CHUNK make a body that is read back."""
    out, framer = run([chunk(data), LAST_CHUNK], decode=True)
    assert (out, framer.done) == (data, True)
