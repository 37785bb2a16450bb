"""Tokens and requests per minute of each key and model, as a token bucket; and what has happened there.

A bucket holds a minute's worth and is refilled evenly: who has paused may use a minute's worth at once. A request
costs what its answer will really use (input and output), taken when it arrives; so over any time t no more than
limit x (1 + t / 60 s) is used. A 429 costs nothing. Headers say the truth: what is left, when the bucket is full again,
when this request would be let in.
"""

from __future__ import annotations

import datetime
from hashlib import sha256
from math import ceil
from typing import Final

MINUTE_S: Final = 60.0
_MAX_ACCOUNTS: Final = 100_000
_SHORT: Final = 12


class Bucket:
    """What may be used at once; `per_minute` 0: no limit."""

    __slots__ = ("_level", "_updated", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._updated = now

    def level(self, now: float) -> float:
        """What is there now."""
        if now > self._updated:
            self._level = min(self.per_minute, self._level + (now - self._updated) * self.per_minute / MINUTE_S)
            self._updated = now
        return self._level

    def wait_s(self, cost: float, now: float) -> float:
        """Until `cost` may be taken; 0: now. More than there will ever be: a minute."""
        missing = cost - self.level(now)
        if missing <= 0 or not self.per_minute:
            return 0.0
        return MINUTE_S if cost > self.per_minute else missing * MINUTE_S / self.per_minute

    def take(self, cost: float, now: float) -> None:
        """Take `cost`, which is there."""
        self._level = self.level(now) - cost

    def full_s(self, now: float) -> float:
        """Until the bucket is full again."""
        return (self.per_minute - self.level(now)) * MINUTE_S / self.per_minute


class Account:
    """One key and model: limits, and counts of all that has happened."""

    __slots__ = ("cancelled", "failures", "open", "refused_429", "requests", "requests_left", "tokens", "tokens_left")

    def __init__(self, requests_per_minute: int, tokens_per_minute: int, now: float) -> None:
        self.requests_left = Bucket(requests_per_minute, now)
        self.tokens_left = Bucket(tokens_per_minute, now)
        self.requests = 0
        """All that came for it, refused ones too."""
        self.tokens = 0
        self.refused_429 = 0
        """By its limits, or because a directive says so."""
        self.cancelled = 0
        """The client left before the end."""
        self.open = 0
        self.failures = 0
        """Requests that failed because they should, for `times`."""

    def admit(self, cost_tokens: int, now: float) -> tuple[str, float]:
        """Take a request and its tokens, or say what is short ("requests", "tokens") and for how many seconds."""
        self.requests += 1
        for name, bucket, cost in (("requests", self.requests_left, 1), ("tokens", self.tokens_left, cost_tokens)):
            wait_s = bucket.wait_s(cost, now)
            if wait_s:
                self.refused_429 += 1
                return name, wait_s
        self.requests_left.take(1, now)
        self.tokens_left.take(cost_tokens, now)
        self.tokens += cost_tokens
        return "", 0.0


class Accounts:
    """All of them."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self._accounts: dict[tuple[bytes, str], Account] = {}

    def get(self, key: bytes, model: str, now: float) -> Account:
        """The account of this key and model; the oldest are forgotten when there are too many."""
        account = self._accounts.get((key, model))
        if account is None:
            if len(self._accounts) >= _MAX_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
            account = Account(self.requests_per_minute, self.tokens_per_minute, now)
            self._accounts[key, model] = account
        return account

    @property
    def limited(self) -> bool:
        """Are there limits to tell of?"""
        return bool(self.requests_per_minute or self.tokens_per_minute)

    def counts(self) -> dict[str, dict[str, int]]:
        """By "KEY MODEL": requests, tokens, refused_429, cancelled, open."""
        return {
            f"{label(key)} {model}": {
                "requests": each.requests,
                "tokens": each.tokens,
                "refused_429": each.refused_429,
                "cancelled": each.cancelled,
                "open": each.open,
            }
            for (key, model), each in self._accounts.items()
        }


def label(key: bytes) -> str:
    """A key as it may be shown: tests' short ones as they are, of others (they may be real) only a hash."""
    if not key:
        return "-"
    return key.decode("latin-1") if len(key) <= _SHORT else f"sha256:{sha256(key).hexdigest()[:12]}"


def openai_lines(account: Account, now: float) -> bytes:
    """x-ratelimit-*: resets are durations as Go writes them."""
    lines = ""
    for name, bucket in (("requests", account.requests_left), ("tokens", account.tokens_left)):
        if bucket.per_minute:
            lines += (
                f"x-ratelimit-limit-{name}: {bucket.per_minute}\r\n"
                f"x-ratelimit-remaining-{name}: {max(0, int(bucket.level(now)))}\r\n"
                f"x-ratelimit-reset-{name}: {go_duration(bucket.full_s(now))}\r\n"
            )
    return lines.encode()


def anthropic_lines(account: Account, now: float, unix_s: float) -> bytes:
    """anthropic-ratelimit-*: resets are instants (RFC 3339)."""
    lines = ""
    for name, bucket in (("requests", account.requests_left), ("tokens", account.tokens_left)):
        if bucket.per_minute:
            reset = datetime.datetime.fromtimestamp(ceil(unix_s + bucket.full_s(now)), datetime.UTC)
            lines += (
                f"anthropic-ratelimit-{name}-limit: {bucket.per_minute}\r\n"
                f"anthropic-ratelimit-{name}-remaining: {max(0, int(bucket.level(now)))}\r\n"
                f"anthropic-ratelimit-{name}-reset: {reset:%Y-%m-%dT%H:%M:%SZ}\r\n"
            )
    return lines.encode()


def retry_lines(wait_s: float, exact: bool) -> bytes:
    """When to come again; `exact`: in milliseconds, too (OpenAI's)."""
    lines = f"retry-after: {ceil(wait_s)}\r\n"
    return (lines + (f"retry-after-ms: {ceil(wait_s * 1000)}\r\n" if exact else "")).encode()


def go_duration(seconds: float) -> str:
    """ "120ms", "1.5s", "6m0s", as Go's Duration.String writes them (to the millisecond)."""
    total_ms = ceil(seconds * 1000)
    if total_ms < 1000:
        return f"{total_ms}ms" if total_ms else "0s"
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
