"""What providers say of their limits: read where it is sense, and never an error."""

from __future__ import annotations

import calendar
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.provider_limits import (
    INPUT,
    NO,
    OUTPUT,
    PERHAPS,
    REQUESTS,
    TOKENS,
    UNKNOWN,
    YES,
    Heard,
    go_duration_s,
    hear,
    retry_in_body,
)

WALL = float(calendar.timegm((2026, 11, 26, 12, 0, 0)))
NONE_LEFT = b"x-ratelimit-limit-tokens: 9\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: "


def test_openai() -> None:
    """As their documentation shows it."""
    heard = hear(
        b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit-Requests: 60\r\nx-ratelimit-limit-tokens: 150000\r\n"
        b"x-ratelimit-remaining-requests: 59\r\nx-ratelimit-remaining-tokens: 149984\r\n"
        b"x-ratelimit-reset-requests: 1s\r\nx-ratelimit-reset-tokens: 6m0s\r\n"
        b"x-ratelimit-limit-project-tokens: 5\r\n",
        WALL,
    )
    assert heard is not None
    assert (heard.limits[REQUESTS], heard.remaining[REQUESTS], heard.resets_s[REQUESTS]) == (60, 59, 1.0)
    assert (heard.limits[TOKENS], heard.remaining[TOKENS], heard.resets_s[TOKENS]) == (150_000, 149_984, 360.0)
    assert (heard.limits[INPUT], heard.retry_after_s, heard.pause_s()) == (UNKNOWN, -1.0, -1.0)


@pytest.mark.parametrize("name", [b"req-minute", b"requests-minute"])
def test_minutes_by_name(name: bytes) -> None:
    """Mistral's fields and Cerebras' say that they count by the minute; those of a day or a month are none of these."""
    heard = hear(
        b"x-ratelimit-limit-%b: 50\r\nx-ratelimit-remaining-%b: 49\r\n"
        % (name, name)
        + b"x-ratelimit-limit-tokens-minute: 60000\r\nx-ratelimit-remaining-tokens-minute: 50\r\n"
        b"x-ratelimit-reset-tokens-minute: 26.5\r\nx-ratelimit-limit-tokens-month: 7\r\n"
        b"x-ratelimit-limit-requests-day: 5\r\nx-ratelimit-remaining-requests-day: 0\r\n"
        b"x-ratelimit-tokens-query-cost: 1300\r\n",
        WALL,
    )
    assert heard is not None
    assert (heard.limits, heard.remaining) == ([50, 60_000, UNKNOWN, UNKNOWN], [49, 50, UNKNOWN, UNKNOWN])
    assert (heard.resets_s[TOKENS], heard.counts_minutes()) == (26.5, YES)


def test_anthropic() -> None:
    """With moments."""
    heard = hear(
        b"anthropic-ratelimit-input-tokens-limit: 20000\r\nanthropic-ratelimit-input-tokens-remaining: 0\r\n"
        b"anthropic-ratelimit-input-tokens-reset: 2026-11-26T12:00:05Z\r\n"
        b"anthropic-ratelimit-output-tokens-remaining: 7000\r\nanthropic-ratelimit-output-tokens-limit: 8000\r\n"
        b"anthropic-ratelimit-output-tokens-reset: 2026-11-26T13:01:00+01:00\r\n",
        WALL,
    )
    assert heard is not None
    assert (heard.remaining[INPUT], heard.resets_s[INPUT]) == (0, 5.0)
    assert (heard.limits[OUTPUT], heard.resets_s[OUTPUT]) == (8000, 60.0)
    assert heard.pause_s() == 5.0


@pytest.mark.parametrize(
    ("line", "wait_s"),
    [
        (b"retry-after: 7", 7.0),
        (b"Retry-After: 0.5", 0.5),
        (b"retry-after-ms: 1500", 1.5),
        (b"retry-after: 7\r\nretry-after-ms: 1500", 1.5),
        (b"retry-after-ms: 1500\r\nretry-after: 7", 1.5),
        (b"retry-after: Thu, 26 Nov 2026 12:00:30 GMT", 30.0),
        (b"retry-after: %d" % (WALL + 30), 30.0),
        (NONE_LEFT + b"7500ms", 7.5),
        (NONE_LEFT + b"%d" % (WALL + 30), 30.0),
        (NONE_LEFT + b"2026-11-26T12:00:30Z", 30.0),
    ],
)
def test_when_to_come_back(line: bytes, wait_s: float) -> None:
    """The finer one counts. Some servers tell a moment where others have a number of seconds."""
    heard = hear(line + b"\r\n", WALL)
    assert heard is not None
    assert heard.pause_s() == wait_s


@pytest.mark.parametrize(
    "line", [b"retry-after: 0", b"retry-after: Thu, 26 Nov 2026 11:00:00 GMT", b"retry-after: %d" % (WALL - 1)]
)
def test_to_come_back_at_once_is_not_said(line: bytes) -> None:
    """By a refusal: it would be refused again at once, by a clock that is behind for an hour."""
    heard = hear(line + b"\r\n", WALL)
    assert heard is not None
    assert (heard.retry_after_s, heard.pause_s()) == (0.0, -1.0)
    heard.limits[TOKENS], heard.remaining[TOKENS], heard.resets_s[TOKENS] = 9, 0, 5.0
    assert heard.pause_s() == 5.0


def test_azure_knows_nothing() -> None:
    """-1 and 0 are no limits."""
    heard = hear(
        b"x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-limit-tokens: 0\r\nx-ratelimit-remaining-requests: -1\r\n"
        b"x-ratelimit-limit-requests: -1\r\n",
        WALL,
    )
    assert heard is not None
    assert (heard.limits, heard.remaining) == ([UNKNOWN] * 4, [UNKNOWN] * 4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1s", 1),
        (b"6m0s", 360),
        (b"120ms", 0.12),
        (b"1h2m3.5s", 3723.5),
        (b"20", 20),
        (b"1d", 86400),
        (b"", -1),
        (b"1x", -1),
    ],
)
def test_durations(text: bytes, seconds: float) -> None:
    """Of Go, or seconds."""
    assert go_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_s", "said"),
    [
        (60, 59, 1.0, YES),  # OpenAI, as their documentation shows it
        (10_000, 9999, 0.006, YES),
        (500, 497, 0.36, YES),
        (50, 40, 13.0, YES),  # Anthropic, rounded up
        (50, 49, 2.0, PERHAPS),
        (5, 0, 60.0, YES),
        (5, 0, 49.0, PERHAPS),  # a minute, if nearly one is there again
        (1, 0, 60.0, YES),
        (10_000, 9999, 8.64, NO),  # OpenAI, by the day
        (14_400, 14_370, 179.56, NO),  # Groq
        (200, 0, 86_400.0, NO),
        (10, 0, 3.0, NO),  # a window of three seconds
        (1000, 400, 2.0, NO),
        (60, 60, 0.0, PERHAPS),
        (60, 70, 1.0, PERHAPS),
        (60, UNKNOWN, 1.0, PERHAPS),
        (60, 30, -1.0, PERHAPS),
    ],
)
def test_a_limit_of_a_minute(limit: int, remaining: int, reset_s: float, said: int) -> None:
    """Is told by what is missing, and when that is back."""
    heard = Heard()
    heard.limits[REQUESTS] = limit
    heard.remaining[REQUESTS] = remaining
    heard.resets_s[REQUESTS] = reset_s
    assert heard.counts_minutes() == said


@given(st.integers(1, 100_000), st.floats(0, 1), st.sampled_from([60.0, 86_400.0]), st.booleans())
def test_a_bucket_that_refills_evenly(limit: int, level: float, period_s: float, rounds: bool) -> None:
    """One of a minute is never taken for another one, and one of a day never for one of a minute."""
    heard = Heard()
    heard.limits[REQUESTS] = limit
    heard.remaining[REQUESTS] = int(limit * level)
    reset_s = (1 - level) * period_s
    heard.resets_s[REQUESTS] = float(math.ceil(reset_s)) if rounds else reset_s
    wrong = NO if period_s == 60.0 else YES
    said = heard.counts_minutes()
    if wrong == YES and limit * (1 - level) < 1:
        return  # a part of one request is missing: less than that is told
    assert said != wrong


def test_none_is_left() -> None:
    """A reset counts if no request is left, and no longer one than a minute: by the day more come long before."""
    heard = Heard()
    heard.limits[REQUESTS] = 100
    heard.resets_s[REQUESTS] = 3.0
    heard.remaining[REQUESTS] = 1
    assert heard.requests_wait_s() == heard.pause_s() == -1.0
    heard.remaining[REQUESTS] = 0
    assert heard.requests_wait_s() == heard.pause_s() == 3.0
    heard.resets_s[REQUESTS] = 86_400.0
    assert heard.requests_wait_s() == heard.pause_s() == 60.0
    heard.retry_after_s = 864.0
    assert heard.pause_s() == 864.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"x-ratelimit-limit-tokens",
                    b"x-ratelimit-remaining-requests",
                    b"x-ratelimit-reset-tokens",
                    b"anthropic-ratelimit-tokens-reset",
                    b"anthropic-ratelimit-input-tokens-limit",
                    b"x-ratelimit-",
                    b"anthropic-ratelimit-",
                    b"retry-after",
                    b"retry-after-ms",
                ]
            ),
            st.binary(max_size=20)
            | st.sampled_from([b" nan", b" inf", b" 1e300", b" -5", b" 1s", b" 99999999999999999h"]),
        ),
        max_size=6,
    )
)
def test_nonsense_says_nothing(lines: list[tuple[bytes, bytes]]) -> None:
    """Numbers that are heard are within bounds."""
    heard = hear(b"".join(name + b":" + value + b"\r\n" for name, value in lines), WALL)
    if heard is not None:
        assert all(-1 <= number <= 10**12 for number in heard.limits + heard.remaining)
        assert all(wait_s == -1 or 0 <= wait_s <= 10**12 for wait_s in [*heard.resets_s, heard.retry_after_s])


def test_gemini() -> None:
    """In the body, of a stream too."""
    body = (
        b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "x"}, '
        b'{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]}}'
    )
    assert retry_in_body(body) == retry_in_body(b"[" + body + b"]") == pytest.approx(34.07)
    assert retry_in_body(b'{"error": "RetryInfo"}') == retry_in_body(b"RetryInfo") == retry_in_body(b"{}") == -1
