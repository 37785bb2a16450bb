"""Field lines as a cache needs them: by name, with their values; and the two kinds of value that it compares."""

from __future__ import annotations

import calendar
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from edgeq.cache.directives import split_list

NO_DATE: Final = -1.0

_MONTHS: Final[dict[bytes, int]] = {
    name: number + 1 for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
}


def fields_of(lines: bytes) -> dict[bytes, bytes]:
    """Names in lower case to values; those of several lines are joined by ", " (RFC 9110 5.3).

    Args: lines are field lines that were parsed before, each with its CRLF; what has no colon is passed over.
    """
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            name = name.lower()
            value = value.strip(b" \t")
            known = fields.get(name)
            fields[name] = value if known is None else known + b", " + value
    return fields


def parse_date(value: bytes) -> float:
    """An HTTP-date in any of its three forms (RFC 9110 5.6.7) as seconds since 1970; NO_DATE if it is none."""
    # "Sun, 06 Nov 1994 08:49:37 GMT", the only form that is still written.
    if len(value) == 29 and value[25:] == b" GMT" and value[3:5] == b", ":
        month = _MONTHS.get(value[8:11], 0)
        digits = value[5:7] + value[12:16] + value[17:19] + value[20:22] + value[23:25]
        if month and digits.isdigit():
            year, day = int(value[12:16]), int(value[5:7])
            hour, minute, second = int(value[17:19]), int(value[20:22]), int(value[23:25])
            if year >= 1970 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60:
                return float(calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0)))
        return NO_DATE
    try:
        parts = parsedate_tz(value.decode("latin-1"))
        return NO_DATE if parts is None or parts[0] < 1970 else float(mktime_tz(parts))
    except (ValueError, OverflowError, IndexError, TypeError):  # the library forgives much, and trips over the rest
        return NO_DATE


def matches_any(condition: bytes, etag: bytes) -> bool:
    """Does If-None-Match match, by weak comparison (RFC 9110 8.8.3.2)? `etag` may be empty: then only "*" does."""
    if condition == b"*":
        return True
    if not etag:
        return False
    opaque = etag.removeprefix(b"W/")
    return any(one.removeprefix(b"W/") == opaque for one in split_list(condition))
