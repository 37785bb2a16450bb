"""Which host names a certificate serves, read from its DER form.

Python's ssl module shows the names of a peer's certificate after it was verified, and never those of the own one;
`ssl._ssl._test_decode_cert` is private. The structure needed is small and fixed, so it is walked here (X.690 for DER,
RFC 5280 4.1 and 4.2.1.6 for the fields). Invariant: no input makes it read outside of the buffer or loop; what is not
a certificate raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_OCTET_STRING: Final = 0x04
_EXTENSIONS: Final = 0xA3
_VERSION: Final = 0xA0
_DNS_NAME: Final = 0x82
_OID_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_OID_COMMON_NAME: Final = bytes.fromhex("550403")


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """What is needed to choose a certificate."""

    names: tuple[str, ...]
    """Lower case, without a final dot, wildcards as written ("*.example.org")."""
    key_algorithm: str
    """The object identifier of the public key's algorithm, in hex: tells an ECDSA from an RSA certificate."""


def read_names(der: bytes) -> CertificateNames:
    """The DNS names of a certificate; its common name when it has no DNS names.

    Raises: ValueError when `der` is no X.509 certificate.
    """
    try:
        return _read_names(der)
    except IndexError:
        raise ValueError("not a certificate: cut short") from None


def _read_names(der: bytes) -> CertificateNames:
    certificate = _first(der, _SEQUENCE)
    fields = list(_children(_first(certificate, _SEQUENCE)))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError("not a certificate: fields are missing")
    # serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, then optional fields
    subject, public_key = fields[4][1], fields[5][1]
    names: list[str] = []
    for tag, extensions in fields[6:]:
        if tag == _EXTENSIONS:
            names = _alternative_names(_first(extensions, _SEQUENCE))
    if not names:
        names = _common_names(subject)
    algorithm = _first(_first(public_key, _SEQUENCE), _OID)
    unique = dict.fromkeys(name.lower().rstrip(".") for name in names if name)
    return CertificateNames(tuple(unique), algorithm.hex())


def _alternative_names(extensions: bytes) -> list[str]:
    for _, extension in _children(extensions):
        parts = list(_children(extension))
        if parts and parts[0] == (_OID, _OID_SUBJECT_ALT_NAME) and parts[-1][0] == _OCTET_STRING:
            general_names = _children(_first(parts[-1][1], _SEQUENCE))
            return [value.decode("ascii", "replace") for tag, value in general_names if tag == _DNS_NAME]
    return []


def _common_names(subject: bytes) -> list[str]:
    names: list[str] = []
    for tag, attributes in _children(subject):
        if tag != _SET:
            continue
        for _, attribute in _children(attributes):
            parts = list(_children(attribute))
            if len(parts) == 2 and parts[0] == (_OID, _OID_COMMON_NAME):
                names.append(parts[1][1].decode("utf-8", "replace"))
    return names


def _first(der: bytes, tag: int) -> bytes:
    """The content of the first value, which must have this tag."""
    for found, content in _children(der):
        if found == tag:
            return content
        break
    raise ValueError(f"not a certificate: no value with tag {tag:#04x}")


def _children(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The values in a row of DER, as (tag, content). Certificates have no tags above 30 and no indefinite lengths."""
    at = 0
    while at < len(der):
        tag = der[at]
        length = der[at + 1]
        at += 2
        if length >= 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError("not a certificate: bad length")
            if at + size > len(der):
                raise ValueError("not a certificate: cut short")
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            raise ValueError("not a certificate: cut short")
        yield tag, der[at : at + length]
        at += length
