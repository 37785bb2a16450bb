"""Which bytes may stand where (RFC 9110 5.6.2, 5.5; RFC 3986 2.2, 2.3), as tables for `bytes.translate`.

`not data.translate(None, SET)` is true exactly when every byte of `data` is in SET: one C call, no loop in Python.
`0 in data.translate(MAP)` is true exactly when some byte is not allowed: twice as fast again, for the hot path.
"""

from __future__ import annotations

from typing import Final

_ALPHA: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGIT: Final = b"0123456789"

DIGITS: Final = _DIGIT
HEX_DIGITS: Final = _DIGIT + b"abcdefABCDEF"
LOWER_HEX: Final = _DIGIT + b"abcdef"
TOKEN: Final = _ALPHA + _DIGIT + b"!#$%&'*+-.^_`|~"
VISIBLE: Final = bytes(range(0x21, 0x7F))
VALUE: Final = VISIBLE + b" \t"
"""A field value without obs-text: the fast parser's."""
VALUE_OBS: Final = VALUE + bytes(range(0x80, 0x100))
"""A field value with obs-text: legal, unusual."""
TARGET: Final = VISIBLE.replace(b"#", b"")
"""A request target: visible ASCII. A fragment is never sent (RFC 9112 3.2)."""
HOST: Final = _ALPHA + _DIGIT + b"-._~%!$&'()*+,;="
"""A registered name or IPv4 address (RFC 3986 3.2.2)."""
IPV6: Final = HEX_DIGITS + b":."
REQUEST_ID: Final = _ALPHA + _DIGIT + b"-._~+/=@:"


def _map(allowed: bytes) -> bytes:
    """A table that keeps allowed bytes and turns all others into NUL."""
    return bytes(byte if byte in allowed else 0 for byte in range(256))


TARGET_MAP: Final = _map(TARGET)
VALUE_MAP: Final = _map(VALUE)
