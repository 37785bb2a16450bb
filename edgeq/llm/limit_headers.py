"""Fields that tell a client what is left of its limits, in its dialect. When to come back is said by `rescue.spoken`.

OpenAI: x-ratelimit-{limit,remaining,reset}-{requests,tokens}, resets as Go durations ("6m0s"). Anthropic:
anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}, resets in RFC 3339. A reset is
the moment at which the limit is whole again, as they have it.

Told is the tightest of the caller's own limits, of each kind the one of which the least part is left; never those of
models and providers, which say nothing of this caller. Without limits nothing is told. What is reserved counts as used,
also for a stream whose head goes out; but of what it may take beyond all of a limit, a guess, its head says nothing.

Source: reference llm.md 4.5.
"""

from __future__ import annotations

from math import ceil
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final

from edgeq.llm.dialects.base import ANTHROPIC
from edgeq.llm.meter import INPUT, OUTPUT, REQUESTS, TOKENS, Allowance, Meter

if TYPE_CHECKING:
    from edgeq.llm.ledger import Reservation

_OPENAI_NAMES: Final = {REQUESTS: b"requests", TOKENS: b"tokens"}
_ANTHROPIC_NAMES: Final = {REQUESTS: b"requests", TOKENS: b"tokens", INPUT: b"input-tokens", OUTPUT: b"output-tokens"}


def header_lines(dialect: str, meters: list[Meter], now: float, held: Reservation | None = None) -> bytes:
    """The lines that tell what is left by these meters, the caller's own, each with its CRLF.

    Args: dialect is the client's; all but Anthropic's have OpenAI's fields; now in monotonic seconds; held is what the
    request itself has reserved, if it still has it.
    """
    is_anthropic = dialect == ANTHROPIC
    lines: list[bytes] = []
    now_ns = int(now * 1e9)
    for kind, name in (_ANTHROPIC_NAMES if is_anthropic else _OPENAI_NAMES).items():
        tightest: Allowance | None = None
        least = 2.0
        remaining = 0
        ahead_ns = 0
        wall_ahead_s = 0.0
        for meter in meters:
            one = meter.allowance(kind)
            if one is not None:
                its_ahead_ns = one.ahead_ns(now_ns)
                left = one.left(its_ahead_ns)
                if left / one.count < least:
                    least = left / one.count
                    tightest = one
                    remaining = left
                    ahead_ns = its_ahead_ns
                    if held is not None:
                        ahead_ns = max(0, ahead_ns - held.beyond_ns(one))
                    wall_ahead_s = meter.books.wall_ahead_s
        if tightest is None:
            continue
        if is_anthropic:
            at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(ceil(now + wall_ahead_s + ahead_ns / 1e9))).encode("ascii")
            lines.append(
                b"anthropic-ratelimit-%b-limit: %d\r\n"
                b"anthropic-ratelimit-%b-remaining: %d\r\n"
                b"anthropic-ratelimit-%b-reset: %b\r\n" % (name, tightest.count, name, remaining, name, at)
            )
        else:
            reset = go_duration(ahead_ns / 1e9)
            lines.append(
                b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
                % (name, tightest.count, name, remaining, name, reset)
            )
    return b"".join(lines)


def go_duration(seconds: float) -> bytes:
    """As Go writes a duration, in milliseconds: "0s", "120ms", "1s", "6m0s", "1h0m0.5s"."""
    millis = ceil(seconds * 1000)
    if millis <= 0:
        return b"0s"
    if millis < 1000:
        return b"%dms" % millis
    minutes, rest = divmod(millis, 60_000)
    text = b"%d" % (rest // 1000)
    if rest % 1000:
        text += (b".%03d" % (rest % 1000)).rstrip(b"0")
    if minutes == 0:
        return text + b"s"
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%bs" % (hours, minutes, text) if hours else b"%dm%bs" % (minutes, text)
