"""The PROXY protocol: whole, cut at every byte, with bytes behind it, and wrong in every way."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.listener.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    Header,
    Invalid,
    NeedMore,
    crc32c,
    parse,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + (56324).to_bytes(2, "big") + (443).to_bytes(2, "big")


def v2(command: int, family: int, body: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    """One TLV."""
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_checksum(before: bytes, after: bytes = b"") -> bytes:
    """A header of version 2 with a checksum among its TLVs."""
    header = v2(1, 0x11, V4 + before + tlv(3, bytes(4)) + after)
    at = 16 + len(V4) + len(before) + 3
    return header[:at] + crc32c(header).to_bytes(4, "big") + header[at + 4 :]


V4_ADDRESSES = (("192.0.2.1", 56324), ("198.51.100.2", 443))
V6 = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("::ffff:10.0.0.1").packed + b"\x00\x50\x1f\x90"

VALID = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", V4_ADDRESSES, False),
    "v1 tcp6": (
        b"PROXY TCP6 2001:DB8:0:0::1 ::1 0 65535\r\n",
        (("2001:db8::1", 0), ("::1", 65535)),
        False,
    ),
    "v1 tcp6 mapped": (
        b"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n",
        (("10.0.0.1", 1), ("::1", 2)),
        False,
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None, False),
    "v1 unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None, False),
    "v1 unknown, longest": (b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 16) + b"\r\n", None, False),
    "v2 tcp4": (v2(1, 0x11, V4), V4_ADDRESSES, False),
    "v2 tcp4 with TLVs": (v2(1, 0x11, V4 + tlv(2, b"example.org") + tlv(4, b"")), V4_ADDRESSES, False),
    "v2 tcp4 with checksum": (with_checksum(tlv(2, b"example.org"), tlv(4, b"x")), V4_ADDRESSES, False),
    "v2 tcp6": (v2(1, 0x21, V6), (("2001:db8::1", 80), ("10.0.0.1", 8080)), False),
    "v2 unix": (v2(1, 0x31, b"/run/a".ljust(216, b"\0")), (("unix:", 0), ("unix:", 0)), False),
    "v2 udp4": (v2(1, 0x12, V4), None, False),
    "v2 unspec": (v2(1, 0x00, b""), None, False),
    "v2 unspec with bytes": (v2(1, 0x00, b"anything"), None, False),
    "v2 family without transport": (v2(1, 0x10, V4), None, False),
    "v2 local": (v2(0, 0x00, b""), None, True),
    "v2 local with addresses": (v2(0, 0x11, V4), None, True),
    "v2 local with a family that lacks addresses": (v2(0, 0x21, b"xyz"), None, True),
    "v2 longest": (v2(1, 0x00, bytes(MAX_V2_BYTES - 16)), None, False),
}
INVALID = {
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "v1 lower case": b"proxy TCP4 ",
    "v1 no space": b"PROXYTCP4 ",
    "v1 two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
    "v1 leading zero": b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
    "v1 short address": b"PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
    "v1 wrong family": b"PROXY TCP4 ::1 ::2 1 2\r\n",
    "v1 wrong family 6": b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
    "v1 scope": b"PROXY TCP6 fe80::1%1 ::2 1 2\r\n",
    "v1 port with zero": b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
    "v1 port too high": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
    "v1 port with sign": b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
    "v1 port huge": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 999999\r\n",
    "v1 no ports": b"PROXY TCP4 192.0.2.1 198.51.100.2\r\n",
    "v1 no ports, trailing space": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
    "v1 udp": b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
    "v1 bare lf": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
    "v1 bare cr": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rx",
    "v1 lf within": b"PROXY UNKNOWN\n x\r\n",
    "v1 cr within": b"PROXY UNKNOWN\r x\r\n",
    "v1 one byte too long": b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 15) + b"\r\n",
    "v1 endless": b"PROXY UNKNOWN " + b"x" * 1000,
    "v2 version 1": SIGNATURE + b"\x11\x11\x00\x0c" + V4,
    "v2 command 2": v2(2, 0x11, V4),
    "v2 family 4": v2(1, 0x41, V4),
    "v2 transport 3": v2(1, 0x13, V4),
    "v2 short for its family": v2(1, 0x21, V4),
    "v2 too long": SIGNATURE + b"\x21\x00" + (MAX_V2_BYTES - 15).to_bytes(2, "big"),
    "v2 cut TLV": v2(1, 0x11, V4 + b"\x02\x00"),
    "v2 overlong TLV": v2(1, 0x11, V4 + b"\x02\x00\x09x"),
    "v2 checksum of a wrong length": v2(1, 0x11, V4 + tlv(3, b"xyz")),
    "v2 wrong checksum": v2(1, 0x11, V4 + tlv(3, b"wxyz")),
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("behind", [b"", b"G", b"GET / HTTP/1.1\r\n\r\n", b"PROXY "])
def test_valid(name: str, behind: bytes) -> None:
    """A header is read exactly, whatever follows it."""
    header, addresses, local = VALID[name]
    source, destination = addresses or (None, None)
    assert parse(header + behind) == Header(len(header), source, destination, local)


@pytest.mark.parametrize("name", VALID)
def test_cut_at_every_byte(name: str) -> None:
    """Every true prefix asks for more, and never for more than is missing, so a reader cannot take a byte too many."""
    header = VALID[name][0]
    step = max(1, len(header) // 500)
    for cut in [*range(min(len(header), 300)), *range(300, len(header), step)]:
        parsed = parse(header[:cut])
        assert isinstance(parsed, NeedMore), cut
        assert 1 <= parsed.missing <= len(header) - cut


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str) -> None:
    """What is not exactly the protocol is refused."""
    assert isinstance(parse(INVALID[name]), Invalid)


@pytest.mark.parametrize("name", INVALID)
def test_invalid_byte_by_byte(name: str) -> None:
    """However it arrives, the verdict is the same: first more is asked for, and then it is refused for good."""
    wrong = INVALID[name]
    verdicts = [type(parse(wrong[:cut])) for cut in range(len(wrong) + 1)]
    first = verdicts.index(Invalid)
    assert set(verdicts[:first]) <= {NeedMore}
    assert set(verdicts[first:]) == {Invalid}


def test_crc32c() -> None:
    """The check values of RFC 3720 B.4 and of the catalogue of CRCs."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.ip_addresses(), st.data(), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=20))
def test_both_versions_agree(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject, sport: int, dport: int, behind: bytes
) -> None:
    """The same addresses in version 1 and in version 2 give the same answer."""
    destination = data.draw(st.ip_addresses(v=4 if source.version == 4 else 6))
    line = f"PROXY TCP{source.version} {source} {destination} {sport} {dport}\r\n".encode()
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    binary = v2(1, 0x11 if source.version == 4 else 0x21, source.packed + destination.packed + ports)
    first, second = parse(line + behind), parse(binary + behind)
    assert isinstance(first, Header)
    assert isinstance(second, Header)
    assert (first.source, first.destination) == (second.source, second.destination)
    assert (first.consumed, second.consumed) == (len(line), len(binary))


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"]), st.binary(max_size=300)
)
def test_any_bytes(start: bytes, rest: bytes) -> None:
    """No input raises, and no header is longer than what was given."""
    parsed = parse(start + rest)
    if isinstance(parsed, Header):
        assert parsed.consumed <= len(start + rest)
        assert isinstance(parse((start + rest)[: parsed.consumed - 1]), NeedMore)
