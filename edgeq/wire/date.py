"""The Date of an answer (RFC 9110 6.6.1): of our own ones, and of those that came from an upstream without one."""

from __future__ import annotations

import time
from typing import Final

_lines: Final[dict[int, bytes]] = {}
"""That of this second."""


def date_line() -> bytes:
    """The Date field of this second, with its CRLF."""
    second = int(time.time())
    line = _lines.get(second)
    if line is None:
        _lines.clear()
        line = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(second)).encode("ascii")
        _lines[second] = line
    return line
