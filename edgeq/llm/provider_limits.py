"""What a provider says of its limits, in the fields of an answer's head, or in the body of a refusal.

OpenAI and who is like it: x-ratelimit-{limit,remaining,reset}-{requests,tokens}, resets as Go durations ("6m0s").
Anthropic: anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}, resets in RFC 3339.
Both: retry-after (seconds or a date), retry-after-ms. Gemini: RetryInfo in the body of a 429.
Who is only like them may tell a moment in unix seconds where they have seconds, or one in RFC 3339 where OpenAI has a
duration. A refusal that asks to come at once, or in the past, says nothing of when.
Mistral and Cerebras say what they count by: x-ratelimit-limit-{req,requests,tokens}-minute; what is of a day or a month
is left to their refusals.
Else requests are counted by the minute or by the day (OpenAI's lower tiers, Groq), and nothing says which. These
providers refill evenly, so their reset is the time in which what is missing comes back: 1 of 60 in 1 s is a limit of a
minute, 1 of 10,000 in 8.64 s one of a day. Others count in windows, and their reset is the window's end.
Azure has been seen to send -1 and 0 where it knows nothing: a limit that is not positive is none, and nothing left of
an unknown limit is not believed.

Source: reference llm.md 4.5; google.rpc.RetryInfo (error_details.proto).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

UNKNOWN: Final = -1
REQUESTS: Final = 0
TOKENS: Final = 1
INPUT: Final = 2
OUTPUT: Final = 3
"""As in llm/meter.py."""
_OF_MINUTES: Final = {b"req-minute": REQUESTS, b"requests-minute": REQUESTS, b"tokens-minute": TOKENS}
_KINDS: Final = {
    b"requests": REQUESTS,
    b"tokens": TOKENS,
    b"input-tokens": INPUT,
    b"output-tokens": OUTPUT,
    **_OF_MINUTES,
}
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|ms|m|us|µs|ns|s)")
_GO_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MOST_NUMBER: Final = 10**12
YES: Final = 1
NO: Final = -1
PERHAPS: Final = 0
_LEAST_MINUTE_S: Final = 54.0
_MOST_MINUTE_S: Final = 66.0
_MOMENTS_S: Final = 1e9
"""So many seconds (31 years) are no time to wait: it is a moment."""
_ROUNDED_S: Final = 1.0
"""Moments in RFC 3339 are whole seconds."""
MOST_REQUESTS_RESET_S: Final = 60.0
"""A limit of a day that tells when all of it is back lets one request in long before, and nothing says when."""


class Heard:
    """Numbers by kind (REQUESTS .. OUTPUT); UNKNOWN, -1.0, where nothing was said. Times are seconds from then on."""

    __slots__ = ("limits", "of_minutes", "remaining", "resets_s", "retry_after_s")

    def __init__(self) -> None:
        self.limits: list[int] = [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
        self.remaining: list[int] = [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
        self.resets_s: list[float] = [-1.0, -1.0, -1.0, -1.0]
        """Until a limit is whole again."""
        self.retry_after_s: float = -1.0
        self.of_minutes: bool = False
        """Its requests are counted by the minute: it says so."""

    def pause_s(self) -> float:
        """How long a refusal by rate asks to wait: what it says itself; else until a limit of which nothing is left is
        whole again; -1.0: it does not say."""
        if self.retry_after_s > 0:
            return self.retry_after_s
        longest = self.requests_wait_s()
        for kind in range(TOKENS, OUTPUT + 1):
            if self.remaining[kind] == 0 and self.resets_s[kind] > longest:
                longest = self.resets_s[kind]
        return longest

    def requests_wait_s(self) -> float:
        """How long no request should be sent, as none is left; -1.0: some are, or it is not said."""
        reset_s = self.resets_s[REQUESTS]
        if self.remaining[REQUESTS] != 0 or reset_s <= 0:
            return -1.0
        return min(reset_s, MOST_REQUESTS_RESET_S)

    def counts_minutes(self) -> int:
        """Is the limit of requests one of a minute that refills evenly? YES, NO or PERHAPS, by these numbers."""
        limit = self.limits[REQUESTS]
        if self.of_minutes and limit > 0:
            return YES
        reset_s = self.resets_s[REQUESTS]
        missing = limit - self.remaining[REQUESTS]  # up to one less: a part of a request is not told
        if limit <= 0 or missing <= 0 or missing > limit or reset_s < 0:
            return PERHAPS
        if (reset_s - _ROUNDED_S) * limit > _MOST_MINUTE_S * missing:
            return NO
        if (reset_s + _ROUNDED_S) * limit < _LEAST_MINUTE_S * (missing - 1):
            return NO
        period_s = reset_s * limit / missing
        return YES if _LEAST_MINUTE_S <= period_s <= _MOST_MINUTE_S else PERHAPS


def hear(block: bytes, wall_s: float) -> Heard | None:
    """What the field lines of a head say; None if nothing. Whatever cannot be read says nothing.

    Args: block is lines that end in CRLF, the status line may be among them; wall_s unix seconds.
    """
    lowered = block.lower()
    if b"-ratelimit-" not in lowered and b"retry-after" not in lowered:
        return None
    heard = Heard()
    is_empty = True
    for line in lowered.split(b"\r\n"):
        if line.startswith(b"x-ratelimit-") or line.startswith(b"anthropic-ratelimit-"):  # noqa: PIE810 - compiled
            is_empty = not _hear_limit(heard, line, wall_s) and is_empty
        elif line.startswith(b"retry-after"):
            name, _, value = line.partition(b":")
            wait_s = -1.0
            if name == b"retry-after-ms":
                wait_s = _number(value, 1e-3)
            elif name == b"retry-after" and heard.retry_after_s < 0:
                wait_s = _seconds(value, wall_s)
                if wait_s < 0:
                    wait_s = _until_date(value, wall_s)
            if wait_s >= 0:
                heard.retry_after_s = wait_s
                is_empty = False
    if is_empty:
        return None
    for kind in range(4):
        if heard.limits[kind] <= 0:
            heard.limits[kind] = UNKNOWN
            if heard.remaining[kind] == 0:
                heard.remaining[kind] = UNKNOWN
    return heard


def _hear_limit(heard: Heard, line: bytes, wall_s: float) -> bool:
    """One line of either family. Returns: was it understood?"""
    name, _, raw = line.partition(b":")
    value = raw.strip()
    if name.startswith(b"x-"):
        what, _, kind_name = name[12:].partition(b"-")
        kind = _KINDS.get(kind_name, UNKNOWN)
        if kind > TOKENS:
            return False
    else:
        kind_name, _, what = name[20:].rpartition(b"-")
        kind = _KINDS.get(kind_name, UNKNOWN)
    if kind < 0:
        return False
    if what == b"reset":
        wait_s = _seconds(value, wall_s)
        if wait_s < 0:
            wait_s = go_duration_s(value)
        if wait_s < 0:
            wait_s = _until_rfc3339(value, wall_s)
        if wait_s >= 0:
            heard.resets_s[kind] = wait_s
        return wait_s >= 0
    number = int(_number(value, 1.0))
    if number < 0:
        return False
    if what == b"limit":
        heard.limits[kind] = number
        if kind == REQUESTS and kind_name in _OF_MINUTES:
            heard.of_minutes = True
    elif what == b"remaining":
        heard.remaining[kind] = number
    else:
        return False
    return True


def _number(value: bytes, unit: float) -> float:
    """A number that is not negative, or -1.0."""
    try:
        found = float(value)
    except ValueError:
        return -1.0
    return found * unit if 0 <= found <= _MOST_NUMBER else -1.0


def _seconds(value: bytes, wall_s: float) -> float:
    """How long it is, by a number of seconds, or of the unix seconds of the moment; -1.0 for anything else."""
    found = _number(value, 1.0)
    return max(0.0, found - wall_s) if found >= _MOMENTS_S else found


def go_duration_s(value: bytes) -> float:
    """Seconds of "1s", "6m0s", "120ms", "1h2m3.5s", "1d"; a number alone is seconds; -1.0 for anything else."""
    alone = _number(value, 1.0)
    if alone >= 0:
        return alone
    text = value.decode("utf-8", "replace")
    total = 0.0
    at = 0
    while at < len(text):
        part = _GO_PART.match(text, at)
        if part is None:
            return -1.0
        total += float(part.group(1)) * _GO_UNITS[part.group(2)]
        at = part.end()
    return total if at and total <= _MOST_NUMBER else -1.0


def _until_rfc3339(value: bytes, wall_s: float) -> float:
    try:
        at = datetime.fromisoformat(value.decode("ascii").upper())
    except ValueError:
        return -1.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - wall_s)


def _until_date(value: bytes, wall_s: float) -> float:
    try:
        at = parsedate_to_datetime(value.decode("ascii").strip())
        return max(0.0, at.timestamp() - wall_s)
    except (ValueError, TypeError, OverflowError):
        return -1.0


def retry_in_body(body: bytes) -> float:
    """Seconds to wait by the RetryInfo of a Google API's error; -1.0 if there is none."""
    if b"RetryInfo" not in body:
        return -1.0
    try:
        found: Any = orjson.loads(body)
    except ValueError:
        return -1.0
    if isinstance(found, list) and found:  # of a stream that was refused
        found = found[0]
    error = found.get("error") if isinstance(found, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if isinstance(details, list):
        for detail in details:
            if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
                return go_duration_s(str(detail.get("retryDelay", "")).encode())
    return -1.0
