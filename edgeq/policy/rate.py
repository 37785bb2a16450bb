"""Rates: how often something may happen, by the generic cell rate algorithm (ITU-T I.371; reference 2.7).

A limit of `count` in `window` with a `burst` B keeps one number for each key: the theoretical arrival time (TAT), the
moment at which all that was admitted would have been due, had it come evenly, one every T = window / count.

    admitted if  max(TAT, now) + cost x T - B x T <= now,  and then TAT becomes that max(TAT, now) + cost x T
    otherwise it will be in exactly  max(TAT, now) + cost x T - B x T - now:  that is the Retry-After

So B may come at once, one more every T, and never more than B + t / T in any time t; a TAT that has passed says no more
than none at all, which is why the table may forget it. The numbers stand in a table that all workers share, by a hash
of rate and key, and none of what two workers charge at the same moment is lost.

Several windows (and several rates) are asked before any is charged: what one of them refuses costs nothing in the
others. With `enforce` off a rate only counts what it would have refused.

Header fields: draft-ietf-httpapi-ratelimit-headers-10, on a GCRA's terms. The quota that may be used at once is the
burst, and it is whole again after B x T: q = B, w = B x T. `r` is what is left of it; `t` is when it is whole again, or
once nothing is left, when one more request will be admitted: so Retry-After never points earlier than `t`.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from edgeq.board.gcra_table import DEBT_FROM_NS, Arrival, ArrivalTable, converted
from edgeq.policy.tenant import key_of

BY_CLIENT: Final = 0
BY_TENANT: Final = 1
BY_ROUTE: Final = 2
BY_UPSTREAM: Final = 3
SUBJECTS: Final = ("client", "tenant", "route", "upstream")
"""What a rate counts, by its number: "for this client"."""

HEADERS_OFF: Final = 0
HEADERS_IETF: Final = 1
HEADERS_X: Final = 2
HEADERS_BOTH: Final = 3

_NS: Final = 1_000_000_000


class LocalArrivals(ArrivalTable):
    """An `ArrivalTable` of one process, for tests and for a single worker."""

    __slots__ = ("max_keys", "times", "units")

    def __init__(self, max_keys: int = 65_536) -> None:
        self.times: dict[int, int] = {}
        self.units: dict[int, int] = {}
        self.max_keys: int = max_keys
        super().__init__()

    def arrival(self) -> Arrival:
        """See `ArrivalTable`."""
        return LocalArrival(self)

    def keep(self, key: int, at_ns: int) -> None:
        """Write down a time. A full table forgets the earlier half of its times, and most of those have passed."""
        times = self.times
        if len(times) >= self.max_keys and key not in times:
            middle = sorted(times.values())[len(times) // 2]
            self.times = times = {one: at for one, at in times.items() if at > middle}
            self.units = {one: unit for one, unit in self.units.items() if one in times}
        times[key] = at_ns

    def __len__(self) -> int:
        return len(self.times)


class LocalArrival(Arrival):
    """A key of that table."""

    __slots__ = ("_key", "_table")

    def __init__(self, table: LocalArrivals) -> None:
        self._table: LocalArrivals = table
        self._key: int = 0

    def read(self, key: int, latest_ns: int) -> int:
        """See `Arrival`."""
        self._key = key
        return min(self._table.times.get(key, 0), latest_ns)

    def charge(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival`."""
        at_ns = max(self._table.times.get(self._key, 0), now_ns)
        self._table.keep(self._key, at_ns)
        if unit and at_ns + cost_ns - now_ns > DEBT_FROM_NS:
            at_ns = self.convert(unit, now_ns)
        self._table.times[self._key] = at_ns + cost_ns
        return at_ns + cost_ns

    def refund(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival`."""
        times = self._table.times
        if self._key not in times:
            return now_ns
        at_ns = max((self.convert(unit, now_ns) if unit else times[self._key]) - cost_ns, now_ns)
        times[self._key] = at_ns
        return at_ns

    def convert(self, unit: int, now_ns: int) -> int:
        """See `Arrival`."""
        times = self._table.times
        if self._key not in times:
            return 0
        known = self._table.units.get(self._key, 0)
        if known == unit:
            return times[self._key]
        at_ns = converted(times[self._key], known, unit, now_ns)
        self._table.units[self._key] = unit
        times[self._key] = at_ns
        return at_ns

    def delay(self, at_ns: int) -> None:
        """See `Arrival`."""
        if self._table.times.get(self._key, 0) < at_ns:
            self._table.keep(self._key, at_ns)

    def hasten(self, at_ns: int) -> None:
        """See `Arrival`."""
        self._table.keep(self._key, at_ns)


_SMALLS: Final = 1000
_SMALL: Final = tuple(b"%d" % number for number in range(_SMALLS))


class Window:
    """One limit of a rate: `count` in `window_s` seconds, `burst` at once."""

    __slots__ = (
        "_salt",
        "arrival",
        "burst",
        "burst_ns",
        "count",
        "each_ns",
        "item_start",
        "policy",
        "policy_item",
        "remaining",
        "reset_s",
        "state",
        "tat_ns",
        "wait_ns",
        "window_s",
    )

    def __init__(self, policy: str, count: int, window_s: float, burst: int) -> None:
        """Args: policy is its name in header fields, without quotes, and the same for whoever shares its table; count
        and burst are 1 at least (burst 0: `count`)."""
        self.policy = policy
        self.count: int = count
        self.window_s: float = window_s
        self.burst: int = burst or count
        self.each_ns: int = max(1, round(window_s * _NS / count))
        self.burst_ns: int = self.burst * self.each_ns
        whole_s = max(1, ceil(self.burst_ns / _NS))
        self.policy_item = f'"{policy}";q={self.burst};w={whole_s}'
        self.item_start = f'"{policy}";r='.encode()
        self._salt: int = key_of(policy.encode())
        self.arrival: Arrival | None = None
        """Where it is counted: what a `RateSet` gives it."""
        # The outcome of the last `ask`. Nothing comes between it and its `charge`, so no request needs an object.
        self.tat_ns: int = 0
        self.wait_ns: int = 0
        self.remaining: int = 0
        self.reset_s: int = 0
        self.state = self.item_start + b"0;t=0"
        """These two as an item of RateLimit."""

    def ask(self, subject: int, cost: int, now_ns: int) -> int:
        """Would a request of this cost be admitted now? Charges nothing.

        Args: subject is `key_of` whom it is counted for; cost is 1 at least. Returns: nanoseconds until it would, 0 for
        now.
        """
        arrival = self.arrival
        assert arrival is not None
        # No time of ours lies further ahead than the burst, unless it was larger before a reload.
        known = arrival.read((subject ^ self._salt) or 1, now_ns + self.burst_ns)
        before = known if known > now_ns else now_ns  # noqa: FURB136 - a call when compiled
        after = before + cost * self.each_ns
        wait_ns = after - self.burst_ns - now_ns
        if wait_ns < 0:
            wait_ns = 0
        self.wait_ns = wait_ns
        self.tat_ns = before if wait_ns else after
        return wait_ns

    def charge(self, cost: int, now_ns: int) -> None:
        """Write down what was asked last."""
        arrival = self.arrival
        assert arrival is not None
        self.tat_ns = arrival.charge(cost * self.each_ns, now_ns)

    def look(self, now_ns: int) -> None:
        """Find out what is left after what was asked last: `remaining`, `reset_s` and `state`."""
        ahead_ns = self.tat_ns - now_ns
        left_ns = self.burst_ns - ahead_ns
        remaining = left_ns // self.each_ns if left_ns > 0 else 0
        if self.wait_ns:
            reset_s = -(-self.wait_ns // _NS)
        elif remaining:
            reset_s = -(-ahead_ns // _NS)
        else:
            reset_s = -(-(self.each_ns - left_ns) // _NS)
        if remaining != self.remaining or reset_s != self.reset_s:  # below its rate a client sees the same each time
            self.remaining = remaining
            self.reset_s = reset_s
            self.state = self.item_start + _digits(remaining) + b";t=" + _digits(reset_s)


class Rate:
    """A `[[rate]]`: its windows for one kind of subject."""

    __slots__ = ("by", "enforce", "headers", "name", "refused", "resource", "windows", "would_refuse")

    def __init__(self, name: str, by: int, windows: list[Window], enforce: bool, headers: int) -> None:
        self.name = name
        self.resource = f"rate/{name}"
        self.by: int = by
        self.windows: list[Window] = windows
        self.enforce: bool = enforce
        self.headers: int = headers
        self.refused: int = 0
        self.would_refuse: int = 0

    def ask(self, subject: int, cost: int, now_ns: int) -> int:
        """Ask each window. Returns: nanoseconds until all of them would admit, 0 for now."""
        longest = 0
        for window in self.windows:
            wait_ns = window.ask(subject, cost, now_ns)
            if wait_ns > longest:
                longest = wait_ns
        return longest

    def charge(self, cost: int, now_ns: int) -> None:
        """Charge each window for what was asked last."""
        for window in self.windows:
            window.charge(cost, now_ns)

    def detail(self) -> str:
        """What was passed by what was asked last, for people."""
        for window in self.windows:
            if window.wait_ns:
                each = f"{window.count} in {plain(window.window_s)} s"
                return f"more than {each}, {window.burst} at once, for this {SUBJECTS[self.by]}"
        return ""

    def violated(self) -> str:
        """The policy that was passed by what was asked last."""
        for window in self.windows:
            if window.wait_ns:
                return window.policy
        return ""

    def snapshot(self) -> dict[str, int | str | bool]:
        """What it has done so far in this worker."""
        return {
            "rate": self.name,
            "enforce": self.enforce,
            "refused": self.refused,
            "would_refuse": self.would_refuse,
        }


class RateSet:
    """The rates of one route, and what a request of it costs."""

    __slots__ = ("_cost", "_ietf", "_policy_line", "_told", "_x", "by_client", "by_tenant", "rates")

    def __init__(self, rates: list[Rate], cost: int, table: ArrivalTable) -> None:
        self.rates: list[Rate] = rates
        self._cost: int = cost
        for rate in rates:
            for window in rate.windows:
                window.arrival = table.arrival()
        self.by_client: bool = any(rate.by == BY_CLIENT for rate in rates)
        self.by_tenant: bool = any(rate.by == BY_TENANT for rate in rates)
        told = [rate for rate in rates if rate.enforce and rate.headers != HEADERS_OFF]
        self._told: bool = bool(told)
        self._ietf: list[Window] = [window for rate in told if rate.headers != HEADERS_X for window in rate.windows]
        self._x: list[Window] = [window for rate in told if rate.headers != HEADERS_IETF for window in rate.windows]
        self._policy_line = b""
        if self._ietf:
            items = ", ".join(w.policy_item for w in self._ietf)
            self._policy_line = f"ratelimit-policy: {items}\r\n".encode()

    def admit(self, subjects: list[int], now: float) -> Rate | None:
        """Charge one request, or say which rate refuses it.

        Args: subjects are the keys (`key_of`) by BY_CLIENT, BY_TENANT, ...; now in monotonic seconds. Returns: None if
        it is admitted, or the rate that does so last; `wait_s` of it tells when.
        """
        now_ns = int(now * 1e9)
        refuses: Rate | None = None
        longest = 0
        for rate in self.rates:
            wait_ns = rate.ask(subjects[rate.by], self._cost, now_ns)
            if wait_ns > longest and rate.enforce:
                refuses = rate
                longest = wait_ns
        if refuses is not None:
            refuses.refused += 1
            return refuses
        for rate in self.rates:
            if not rate.enforce and any_waits(rate):
                rate.would_refuse += 1
            else:
                rate.charge(self._cost, now_ns)
        return None

    def header_lines(self, now: float, refused: bool) -> bytes:
        """The lines that tell the state after what was asked last, each with its CRLF.

        Of a refusal only the windows that refuse: no other may point behind its Retry-After.
        """
        if not self._told:
            return b""
        now_ns = int(now * 1e9)
        parts = [self._policy_line]
        separator = b"ratelimit: "
        for window in self._ietf:
            if refused and not window.wait_ns:
                continue
            window.look(now_ns)
            parts.append(separator)
            parts.append(window.state)
            separator = b", "
        if len(parts) > 1:
            parts.append(b"\r\n")
        if self._x:
            least = self._x[0]
            for window in self._x:
                window.look(now_ns)
                if window.wait_ns > least.wait_ns or (not refused and window.remaining < least.remaining):
                    least = window
            text = (
                f"x-ratelimit-limit: {least.burst}\r\nx-ratelimit-remaining: {least.remaining}\r\n"
                f"x-ratelimit-reset: {least.reset_s}\r\n"
            )
            parts.append(text.encode())
        return b"".join(parts)


def _digits(number: int) -> bytes:
    return _SMALL[number] if number < _SMALLS else str(number).encode()


def windows_of(name: str, limits: list[tuple[int, float, int]]) -> list[Window]:
    """Of a rate's limits: count, window and burst. They are named after rate and window, for header fields, and because
    that is what their keys in the table are made from."""
    return [
        Window(name if len(limits) == 1 else f"{name}-{plain(window_s)}s", count, window_s, burst)
        for count, window_s, burst in limits
    ]


def plain(seconds: float) -> str:
    """With all its digits, and without an exponent: a month is 2592000."""
    return f"{seconds:.15g}"


def any_waits(rate: Rate) -> bool:
    """Has a window refused what was asked last?"""
    return any(window.wait_ns for window in rate.windows)


def wait_s(rate: Rate) -> float:
    """Seconds until the rate would admit what was asked last."""
    longest = 0
    for window in rate.windows:
        if window.wait_ns > longest:
            longest = window.wait_ns
    return longest / 1e9
