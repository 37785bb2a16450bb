"""The PROXY protocol, versions 1 and 2: bytes to addresses.

Decides how many bytes are the header and whom they name. Invariants: the answer for a buffer does not depend on how it
was cut before; while the answer is NeedMore every byte seen so far belongs to the header, so a reader may consume them
all; what is not exactly the protocol is Invalid as early as it can be seen.

Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 (version 1), 2.2 (version 2), 2.2.x (TLVs and their CRC-32c).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from edgeq.listener.peer import UNIX_HOST, plain_host

MAX_V1_BYTES: Final = 107
"""Including CRLF: the longest line of version 1 (section 2.1)."""
MAX_V2_BYTES: Final = 16 * 1024
"""Our bound, HAProxy's buffer size: the field would allow 65551 bytes, which a trusted but broken peer could make each
connection hold."""

_SIGNATURE_V1: Final = b"PROXY "
_SIGNATURE_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_V2_BYTES: Final = 16
_ADDRESS_BYTES: Final = (0, 12, 36, 216)
"""By family: unspecified, IPv4, IPv6, Unix."""
_TLV_CRC32C: Final = 0x03


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header is not complete, and at least this many bytes are missing."""

    missing: int


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header of `consumed` bytes. Without addresses the connection's own are used."""

    consumed: int
    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    local: bool
    """The sender speaks for itself (LOCAL: a health check), not for a client."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """Not a PROXY header."""

    why: str


Parsed = NeedMore | Header | Invalid


def parse(buf: bytes) -> Parsed:
    """Read the header at the start of `buf`; what follows it is not looked at."""
    if buf.startswith(_SIGNATURE_V2):
        return _parse_v2(buf)
    if buf.startswith(_SIGNATURE_V1):
        return _parse_v1(buf)
    if _SIGNATURE_V1.startswith(buf):
        return NeedMore(len("PROXY UNKNOWN\r\n") - len(buf))
    if _SIGNATURE_V2.startswith(buf):
        return NeedMore(_FIXED_V2_BYTES - len(buf))
    return Invalid("no PROXY header")


def _parse_v1(buf: bytes) -> Parsed:
    end = buf.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        line = buf[:MAX_V1_BYTES]
        if b"\n" in line or b"\r" in line[:-1]:
            return Invalid("version 1: a line ends with CRLF")
        if len(line) == MAX_V1_BYTES:
            return Invalid("version 1: line too long")
        return NeedMore(1 if line.endswith(b"\r") else 2)
    consumed = end + 2
    if b"\n" in buf[:end] or b"\r" in buf[:end]:
        return Invalid("version 1: a line ends with CRLF")
    fields = buf[:end].split(b" ")
    if fields[1] == b"UNKNOWN":
        return Header(consumed, None, None, False)
    if len(fields) != 6 or fields[1] not in (b"TCP4", b"TCP6"):
        return Invalid("version 1: unknown form")
    version = 4 if fields[1] == b"TCP4" else 6
    source_host, destination_host = _text_address(fields[2], version), _text_address(fields[3], version)
    source_port, destination_port = _text_port(fields[4]), _text_port(fields[5])
    if source_host is None or destination_host is None:
        return Invalid("version 1: bad address")
    if source_port < 0 or destination_port < 0:
        return Invalid("version 1: bad port")
    return Header(consumed, (source_host, source_port), (destination_host, destination_port), False)


def _text_address(field: bytes, version: int) -> str | None:
    if not field.isascii() or b"%" in field:
        return None
    text = field.decode("ascii")
    try:
        return str(IPv4Address(text)) if version == 4 else _ipv6_text(IPv6Address(text))
    except AddressValueError:
        return None


def _ipv6_text(address: IPv6Address) -> str:
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else plain_host(str(address))


def _text_port(field: bytes) -> int:
    """Returns -1 for what is no port. bytes.isdigit() knows ASCII digits only."""
    if not field.isdigit() or len(field) > 5 or (field[0] == 0x30 and len(field) > 1):
        return -1
    port = int(field)
    return port if port <= 65535 else -1


def _parse_v2(buf: bytes) -> Parsed:
    if len(buf) > 12 and buf[12] not in (0x20, 0x21):
        return Invalid("version 2: unknown version or command")
    if len(buf) > 13 and (buf[13] >> 4 > 3 or buf[13] & 15 > 2):
        return Invalid("version 2: unknown family or transport")
    if len(buf) < _FIXED_V2_BYTES:
        return NeedMore(_FIXED_V2_BYTES - len(buf))
    length = int.from_bytes(buf[14:16], "big")
    consumed = _FIXED_V2_BYTES + length
    if consumed > MAX_V2_BYTES:
        return Invalid("version 2: header too long")
    local = buf[12] == 0x20
    family = buf[13] >> 4
    if not local and length < _ADDRESS_BYTES[family]:
        return Invalid("version 2: addresses do not fit")
    if len(buf) < consumed:
        return NeedMore(consumed - len(buf))
    if local:
        return Header(consumed, None, None, True)
    why = _check_tlvs(buf, _FIXED_V2_BYTES + _ADDRESS_BYTES[family], consumed) if family else ""
    if why:
        return Invalid(why)
    if buf[13] & 15 != 1:  # no stream: the specification lets us fall back to the connection's own addresses
        return Header(consumed, None, None, False)
    if family == 1:
        source, destination = _ipv4_text(buf[16:20]), _ipv4_text(buf[20:24])
        ports = 24
    elif family == 2:
        source, destination = _ipv6_text(IPv6Address(buf[16:32])), _ipv6_text(IPv6Address(buf[32:48]))
        ports = 48
    elif family == 3:
        return Header(consumed, (UNIX_HOST, 0), (UNIX_HOST, 0), False)
    else:
        return Header(consumed, None, None, False)
    source_port = int.from_bytes(buf[ports : ports + 2], "big")
    destination_port = int.from_bytes(buf[ports + 2 : ports + 4], "big")
    return Header(consumed, (source, source_port), (destination, destination_port), False)


def _ipv4_text(packed: bytes) -> str:
    return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"


def _check_tlvs(buf: bytes, start: int, end: int) -> str:
    """Walk the TLVs: each must fit, and a checksum must be right. Returns what is wrong, or nothing."""
    at = start
    while at < end:
        if at + 3 > end:
            return "version 2: cut TLV"
        length = int.from_bytes(buf[at + 1 : at + 3], "big")
        value = at + 3
        at = value + length
        if at > end:
            return "version 2: cut TLV"
        if buf[value - 3] == _TLV_CRC32C:
            if length != 4:
                return "version 2: bad checksum length"
            # The checksum covers the whole header with its own field set to zero.
            zeroed = buf[:value] + bytes(4) + buf[value + 4 : end]
            if crc32c(zeroed) != int.from_bytes(buf[value : value + 4], "big"):
                return "version 2: wrong checksum"
    return ""


def _crc32c_row(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ (0x82F63B78 if index & 1 else 0)
    return index


_CRC32C: Final = tuple(_crc32c_row(index) for index in range(256))


def crc32c(data: bytes) -> int:
    """CRC-32c (Castagnoli), RFC 9260 appendix A; the standard library has none."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
