"""The path that routes are matched against.

An upstream will resolve "/public/../admin" and "/%61dmin"; a gateway that matches the raw bytes can be walked around.
So percent-encoded unreserved characters are decoded, dot segments removed and slashes merged for matching only (RFC
3986 6.2.2); what is forwarded stays as it came. Encoded slashes stay encoded: they are data, not structure.
"""

from __future__ import annotations

import re
from typing import Final

UNUSUAL: Final = re.compile(rb"%|/[./]")
"""Where this matches nothing a path is in its normal form already."""
_UNRESERVED: Final = re.compile(rb"%(4[1-9a-fA-F]|5[0-9aA]|6[1-9a-fA-F]|7[0-9aAeE]|3[0-9]|2[dDeE]|5[fF])")


def _decode(match: re.Match[bytes]) -> bytes:
    return bytes((int(match.group(1), 16),))


def normalized(path: bytes) -> bytes:
    """`path` (beginning with "/") with unreserved characters decoded, dot segments resolved and slashes merged."""
    if path[:1] != b"/":
        return path
    path = _UNRESERVED.sub(_decode, path)
    out: list[bytes] = []
    segments = path.split(b"/")
    last = segments[-1]
    for segment in segments[1:]:
        if segment == b"..":
            if out:
                out.pop()
        elif segment and segment != b".":
            out.append(segment)
    result = b"/" + b"/".join(out)
    if out and last in (b"", b".", b".."):
        result += b"/"
    return result
