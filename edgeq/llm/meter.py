"""What one subject (a tenant, a virtual key, a model, a model at a provider's key, a prompt) may use, and has used: in
requests and tokens a minute, in requests at once, and in money a day or month. Machine-wide.

    ask -------> 0.0: it may; else why not, and how long until it may
    charge ----> reserved: what the request is expected to use
    settle ----> what it has used instead; the rest is paid back, or the debt charged, and carried over

A limit of N tokens a minute is a bucket of N tokens that fills evenly, as providers have it: the generic cell rate
algorithm of policy/rate.py, with the cost in time (tokens x minute / N) in the table that all workers share. It never
lets in more than N + N x t/60 in any time t, and after settling it is exact, whatever was expected. If the limit
changes, the part of the bucket that is used stays, and a debt beyond it stays as many tokens (board/gcra_table.py).

A request that needs more than the whole bucket: if by its input alone, it never fits, and waiting does not help, as
OpenAI says it ("Request too large"). If only together with its output, which is a guess, it is let in alone, once the
bucket is full, and what it needs beyond that is a debt (Guava's limiter lets such a one in, too, and the next pays).

Requests in flight, how long they are expected to take, and reserved money are this worker's numbers in its row of the
board, so they vanish with it; two workers may admit at the same moment, so `concurrent` is passed by workers - 1 at
most. Money that is spent stands in board/spent.py and outlives workers.
"""

from __future__ import annotations

from typing import Any, Final

from edgeq.board.gcra_table import DEBT_FROM_NS, LONGEST_DEBT_NS, Arrival, ArrivalTable
from edgeq.board.keyed import Entry, KeyedCounts
from edgeq.board.layout import METER_CELLS, METERS, Board, key_hash
from edgeq.board.spent import SpentTable
from edgeq.config.schema_llm import TokenLimits
from edgeq.config.units import money
from edgeq.llm.estimate import Estimate
from edgeq.worker.wheel import NEVER

TENANT: Final = 0
KEY: Final = 1
MODEL: Final = 2
TARGET: Final = 3
"""A model at a provider's key: the provider counts, too."""
PROMPT: Final = 4
TEAM: Final = 5
KINDS: Final = ("tenant", "key", "model", "target", "prompt", "team")
_CALLERS_OWN: Final = (True, True, False, False, True, True)

REQUESTS: Final = 0
TOKENS: Final = 1
INPUT: Final = 2
OUTPUT: Final = 3
CONCURRENT: Final = 4
BUDGET: Final = 5
RESERVED: Final = 6
"""Of a budget: enough of it is left, but for what requests that run may give back."""
WHATS: Final = ("requests", "tokens", "input_tokens", "output_tokens", "concurrent", "budget", "budget")

MINUTE_NS: Final = DEBT_FROM_NS
_MINUTE_NS: Final = 6e10
"""The same to multiply with: compiled, integers above 2^31 are multiplied by calls, and floating-point numbers are not
(they are exact to a nanosecond)."""
PROMISED_NS: Final = 62_000_000_000
"""Nobody comes later who was told to (promise.py)."""
_HEADROOM_NS: Final = 15_000_000_000
"""Of a provider's limit: ours holds less than its bucket by so much of a minute. It costs nothing of the rate, only of
the burst after a pause. It is there for what arrives unevenly, and for what is paid back late: an answer of which much
was reserved frees tokens that the provider never counted, while its bucket was full all the time and grew no more. One
second is too little in simulations (tests/llm/test_gate_simulated.py), in the minute in which overload begins."""
_HEARD_MARGIN_NS: Final = 1_000_000_000
"""Of what a provider says is left: what is on its way to it is not counted yet."""
_DEBT_NS: Final = LONGEST_DEBT_NS
"""No time of ours lies further ahead: a debt of an hour, of one answer of 128,000 tokens under a limit of 2,000."""
_DAY_NS: Final = 86_400_000_000_000
_HARDLY: Final = 20
"""Of a budget less than this part is hardly anything."""
_CONCURRENT_WAIT_S: Final = 1.0
"""When a place comes free nobody knows."""

_LESS: Final = "; a smaller max_tokens reserves less"

_E_IN_FLIGHT: Final = 0
_E_RESERVED: Final = 1
_E_ENDING: Final = 2
"""How many of those in flight would end in a billion seconds."""
_E_CHANGED_NS: Final = 3
"""When one of them began, or ended, for the last time."""


class Books:
    """Where one worker keeps and reads what the machine uses."""

    __slots__ = ("arrivals", "day_until_s", "log", "month_until_s", "others", "own", "spent", "wall_ahead_s")

    def __init__(self, arrivals: ArrivalTable, board: Board | None = None, slot: int = 0, log: Any = None) -> None:
        """`arrivals`: the same for all of `policy.rate`. No board: this worker is alone. log: for events, if they are
        to be told."""
        self.arrivals: ArrivalTable = arrivals
        self.log: Any = log
        self.spent: SpentTable = SpentTable(board, slot)
        if board is None:
            cells = memoryview(bytearray(8 * METER_CELLS * METERS)).cast("Q")
            self.own: KeyedCounts = KeyedCounts(cells, 0, METERS, METER_CELLS)
        else:
            self.own = board.row(slot).meters
        self.others: list[KeyedCounts] = []
        """Of the other workers; entries hold this very list."""
        self.wall_ahead_s: float = 0.0
        """Unix seconds minus monotonic ones."""
        self.day_until_s: int = 0
        self.month_until_s: int = 0
        """When they end, in unix seconds."""


class Refusal:
    """Who says no, and when to ask again."""

    __slots__ = ("detail", "limit", "meter", "wait_s", "what")

    def __init__(self, meter: Meter, what: int, limit: int, wait_s: float, detail: str) -> None:
        self.meter: Meter = meter
        self.what: int = what
        """REQUESTS .. RESERVED."""
        self.limit: int = limit
        """In requests or tokens a minute, requests, or millionths of money."""
        self.wait_s: float = wait_s
        """NEVER: it does not help to wait."""
        self.detail = detail

    def reason(self) -> str:
        """A token of edgeq.reasons."""
        is_own = _CALLERS_OWN[self.meter.kind]
        what = self.what
        if what == BUDGET:
            return "budget_exhausted" if is_own else "budget_exhausted_shared"
        if what in (CONCURRENT, RESERVED):
            return "concurrency_limit_client" if is_own else "queue_full"
        if self.wait_s >= NEVER:
            return "request_over_limit"
        if what == REQUESTS:
            return "rate_limited" if is_own else "rate_limited_shared"
        return "token_limit" if is_own else "token_limit_shared"

    def resource(self) -> str:
        """What it was refused by: ``tenant:tokens``, ``model/gpt-5:requests``."""
        return f"{self.meter.resource}:{WHATS[self.what]}"


class Allowance:
    """So many requests or tokens a minute."""

    __slots__ = (
        "_arrival",
        "_burst_ns",
        "_has_changed",
        "_largest_before_ns",
        "_largest_ns",
        "_largest_until_ns",
        "configured",
        "cost_ns",
        "count",
        "heard",
        "is_lined",
        "key",
        "kind",
        "line",
        "spare_ns",
    )

    def __init__(self, kind: int, key: int, count: int, headroom_ns: int, arrival: Arrival) -> None:
        self.kind: int = kind
        """REQUESTS, TOKENS, INPUT or OUTPUT."""
        self.key: int = key
        self._arrival: Arrival = arrival
        self._burst_ns: int = MINUTE_NS - headroom_ns
        self.count: int = count
        """A minute: the smaller one of the two that follow."""
        self._has_changed: bool = False
        """It was another one before."""
        self.configured: int = count
        """0: none is."""
        self.heard: int = 0
        """What the provider says it is; 0: it does not."""
        self.cost_ns: int = 0
        """Of the last `ask`; nothing comes between it and its `charge`."""
        self.spare_ns: int = 0
        """What would be left after that; below 0: so much is missing."""
        self.line: Allowance | None = None
        """What promise.py has beside it, once it was looked at."""
        self.is_lined: bool = False
        """That is charged, too; of the last `ask` as well."""
        self._largest_ns: int = 0
        """The most that this worker has promised somebody in the time until a moment, and in the same time before."""
        self._largest_before_ns: int = 0
        self._largest_until_ns: int = 0

    def limit(self, configured: int, heard: int) -> None:
        """Set the limit; one of the two is not 0."""
        self.configured = configured
        self.heard = heard
        count = configured if heard == 0 or 0 < configured < heard else heard
        if count != self.count:
            self.count = count
            self._has_changed = True
            self.line = None

    def with_line(self, key: int, arrivals: ArrivalTable) -> Allowance:
        """Its line, another one of the same size, which stands at this key."""
        line = self.line
        if line is None:
            line = Allowance(self.kind, key, self.count, MINUTE_NS - self._burst_ns, arrivals.arrival())
            self.line = line
        return line

    def ask(self, amount: int, now_ns: int) -> int:
        """Would so much be admitted now? Charges nothing. Returns: nanoseconds until it would, 0 for now."""
        cost_ns = self._time_of(amount)
        if cost_ns > _DEBT_NS:
            cost_ns = _DEBT_NS
        self.cost_ns = cost_ns
        burst_ns = self._burst_ns
        if cost_ns > burst_ns:
            cost_ns = burst_ns  # let in alone
        spare_ns = burst_ns - cost_ns - self.ahead_ns(now_ns)
        self.spare_ns = spare_ns
        self.is_lined = False
        return -spare_ns if spare_ns < 0 else 0

    def spare_at_most_ns(self) -> int:
        """What would be left of all of it after what was asked for last."""
        return max(0, self._burst_ns - self.cost_ns)

    def charge(self, now_ns: int) -> int:
        """What was asked for last. Returns what that is."""
        cost_ns = self.cost_ns
        self._arrival.charge(cost_ns, now_ns, self.count)
        line = self.line
        if self.is_lined and line is not None:
            line.charge(now_ns)
        return cost_ns

    def promised(self, cost_ns: int, now_ns: int) -> None:
        """Somebody was told to come for so much, within `PROMISED_NS`."""
        if now_ns >= self._largest_until_ns:
            self._largest_before_ns = self.most_promised_ns(now_ns)
            self._largest_ns = 0
            self._largest_until_ns = now_ns + PROMISED_NS
        if cost_ns > self._largest_ns:
            self._largest_ns = cost_ns

    def most_promised_ns(self, now_ns: int) -> int:
        """The most that any of those were told to come for who may still do so."""
        since_ns = now_ns - self._largest_until_ns
        if since_ns >= PROMISED_NS:
            return 0
        return self._largest_ns if since_ns >= 0 else max(self._largest_ns, self._largest_before_ns)

    def correct(self, charged_ns: int, reserved: int, amount: int, now_ns: int) -> None:
        """It was so much, instead of what was reserved and charged."""
        ahead_ns = self.ahead_ns(now_ns)
        if self._has_changed and ahead_ns > MINUTE_NS:
            # What lies beyond the minute is a debt, which is one of tokens, whatever the limit was then. It was charged
            # last, for all that is known; the rest of what was charged counts by its part of the minute, as then.
            debt_ns = ahead_ns - MINUTE_NS
            now_worth_ns = self._time_of(reserved)
            if now_worth_ns <= debt_ns:
                charged_ns = now_worth_ns
            else:
                charged_ns = debt_ns + charged_ns * (now_worth_ns - debt_ns) // now_worth_ns
        more_ns = self._time_of(amount) - charged_ns
        line = self.line
        if line is not None:
            behind_ns = ahead_ns - line.ahead_ns(now_ns)
            if behind_ns <= 0:
                line.move(more_ns, now_ns)
            elif more_ns + behind_ns < 0:
                line.move(more_ns + behind_ns, now_ns)
        self.move(more_ns, now_ns)

    def move(self, more_ns: int, now_ns: int) -> None:
        """So much more was used than was charged; below 0: less. Nothing comes between this and an `ahead_ns`."""
        if more_ns > 0:
            room_ns = _DEBT_NS - self.ahead_ns(now_ns)
            if more_ns > room_ns:
                more_ns = room_ns
            self._arrival.charge(more_ns, now_ns, self.count)
        elif more_ns < 0:
            self._arrival.refund(-more_ns, now_ns, self.count)

    def remaining(self, now_ns: int) -> int:
        """What may be used at once."""
        return self.left(self.ahead_ns(now_ns))

    def left(self, ahead_ns: int) -> int:
        """The same, where it is known how long it is until the bucket is full again."""
        left_ns = self._burst_ns - ahead_ns
        return int(left_ns * float(self.count) / _MINUTE_NS) if left_ns > 0 else 0

    def ahead_ns(self, now_ns: int) -> int:
        """How long until the bucket is full again."""
        ahead_ns = self._arrival.read(self.key, now_ns + _DEBT_NS) - now_ns
        if ahead_ns > MINUTE_NS:
            ahead_ns = self._arrival.convert(self.count, now_ns) - now_ns
        return ahead_ns if ahead_ns > 0 else 0  # noqa: FURB136 - a call when compiled

    def owed(self, now_ns: int) -> int:
        """The debt: what was used, or is reserved, beyond a whole minute's."""
        debt_ns = self.ahead_ns(now_ns) - MINUTE_NS
        return debt_ns * self.count // MINUTE_NS if debt_ns > 0 else 0

    def at_most(self, amount: int, now_ns: int) -> None:
        """No more than so much is left: the provider says so. Below 0: so much is about to be paid back, of which no
        more than an hour's was charged."""
        left_ns = max(self._time_of(amount), -_DEBT_NS) - _HEARD_MARGIN_NS
        self.delay(now_ns + self._burst_ns - left_ns, now_ns)

    def delay(self, at_ns: int, now_ns: int) -> None:
        """It is full again at this time, or later. What of that is a debt is one of this limit, whatever it was
        before."""
        self._arrival.read(self.key, now_ns + _DEBT_NS)
        self._arrival.convert(self.count, now_ns)
        self._arrival.delay(at_ns)

    def hasten(self, at_ns: int) -> None:
        """It is full again at this time, not as late as `ahead_ns` has just found."""
        self._arrival.hasten(at_ns)

    def _time_of(self, amount: int) -> int:
        """In how many nanoseconds so much comes back."""
        return int(amount * _MINUTE_NS / self.count)


class Meter:
    """One subject in one worker."""

    __slots__ = (
        "_changed_ns",
        "_day_key",
        "_ending",
        "_entry",
        "_month_key",
        "allowances",
        "books",
        "concurrent",
        "day_micro",
        "degraded",
        "in_flight",
        "key",
        "kind",
        "limits",
        "month_micro",
        "name",
        "pinned",
        "refused",
        "reserved_micro",
        "resource",
        "used_at",
        "whose",
    )

    def __init__(self, kind: int, name: str, limits: TokenLimits, books: Books) -> None:
        """Args: kind is TENANT .. TEAM. The name of a tenant or key is not told in names of resources, and so neither
        what follows the name of a prompt."""
        self.kind: int = kind
        self.name = name
        told = name.partition(":")[0] if kind == PROMPT else name
        self.resource = f"{KINDS[kind]}/{told}" if kind in (MODEL, TARGET, PROMPT) else KINDS[kind]
        self.whose: str = _whose(kind, name)
        """For the one who is refused: himself by no name that [tenant] may have from a credential."""
        self.books: Books = books
        self.key: int = key_hash(b"llm", KINDS[kind].encode(), name.encode())
        self._day_key: int = key_hash(b"llm day", KINDS[kind].encode(), name.encode())
        self._month_key: int = key_hash(b"llm month", KINDS[kind].encode(), name.encode())
        self._entry: Entry | None = None
        self.limits: TokenLimits = limits
        self.allowances: list[Allowance] = []
        self.concurrent: int = 0
        self.day_micro: int = 0
        self.month_micro: int = 0
        self.in_flight: int = 0
        """Of this worker, as are those that follow."""
        self.reserved_micro: int = 0
        self._ending: int = 0
        """How many of these would end in a billion seconds, if each went on at the pace that is expected of it."""
        self._changed_ns: int = 0
        """When one of them began, or ended, for the last time."""
        self.refused: int = 0
        self.degraded: int = 0
        """Of those that would have been: a smaller model was asked instead."""
        self.pinned: bool = False
        """Somebody keeps it: the ledger must not let it go."""
        self.used_at: float = 0.0
        self._apply(limits)

    def resize(self, limits: TokenLimits) -> None:
        """Take over other limits; what runs and what was used stays counted. What has been let in is not cut."""
        if limits != self.limits:
            self._apply(limits)
        self.limits = limits

    def _apply(self, limits: TokenLimits) -> None:
        self._allow(REQUESTS, limits.requests_per_minute)
        self._allow(TOKENS, limits.tokens_per_minute)
        self._allow(INPUT, limits.input_tokens_per_minute)
        self._allow(OUTPUT, limits.output_tokens_per_minute)
        self.concurrent = limits.concurrent
        self.day_micro = int(limits.money_per_day * 1e6)
        self.month_micro = int(limits.money_per_month * 1e6)
        if self.concurrent or self.day_micro or self.month_micro:
            self._open()
        else:
            self.close()

    def _allow(self, kind: int, count: int) -> None:
        known = self.allowance(kind)
        if known is not None:
            if count or known.heard:
                known.limit(count, known.heard)
            else:
                self.allowances.remove(known)
        elif count:
            self._new_allowance(kind, count)

    def _new_allowance(self, kind: int, count: int) -> Allowance:
        headroom_ns = _HEADROOM_NS if self.kind == TARGET else 0
        made = Allowance(kind, (self.key ^ (kind + 1)) or 1, count, headroom_ns, self.books.arrivals.arrival())
        self.allowances.append(made)
        return made

    def allowance(self, kind: int) -> Allowance | None:
        """The one of a kind, if there is a limit."""
        for one in self.allowances:
            if one.kind == kind:
                return one
        return None

    def hear_limit(self, kind: int, count: int) -> None:
        """The provider says what its limit is: the smaller one of it and ours holds from now on."""
        known = self.allowance(kind)
        if known is None:
            made = self._new_allowance(kind, count)
            made.limit(0, count)
        elif known.heard != count:
            known.limit(known.configured, count)

    def forget_limit(self, kind: int) -> None:
        """What was heard of it was none: ours holds, if there is one."""
        known = self.allowance(kind)
        if known is not None and known.heard:
            if known.configured:
                known.limit(known.configured, 0)
            else:
                self.allowances.remove(known)

    def _open(self) -> None:
        if self._entry is None:
            self._entry = Entry(self.books.own, self.books.others, self.key, METER_CELLS - 2)
        self._show(self._entry)

    def close(self) -> None:
        """Leave the board: nothing is counted there any more. The next reservation comes back to it."""
        entry = self._entry
        if entry is not None:
            entry.close()
            self._entry = None

    def _show(self, entry: Entry) -> None:
        entry.put(_E_IN_FLIGHT, self.in_flight)
        if self.day_micro or self.month_micro:  # else nobody asks
            entry.put(_E_RESERVED, self.reserved_micro)
        if self.kind != TARGET:  # its gate has a queue, and knows how fast that gets shorter
            entry.put(_E_ENDING, self._ending)
            entry.put(_E_CHANGED_NS, self._changed_ns)

    # -- one request --------------------------------------------------------------------------------------------------

    def ask(self, estimate: Estimate, now: float) -> Refusal | None:
        """Would it be admitted now? Charges nothing. None: it would; else what keeps it for longest."""
        now_ns = int(now * 1e9)
        longest_ns = 0
        longest: Allowance | None = None
        for one in self.allowances:
            wait_ns = one.ask(amount_of(one.kind, estimate), now_ns)
            if one.cost_ns > MINUTE_NS and one.kind != OUTPUT and estimate.input > one.count:
                return self._never(one, estimate)
            if wait_ns > longest_ns:
                longest_ns = wait_ns
                longest = one
        if self._entry is None and (self.concurrent or self.day_micro or self.month_micro):
            self._open()
        entry = self._entry
        if entry is not None:
            refusal = self._ask_entry(entry, estimate, now)
            if refusal is not None:
                return refusal
        if longest is None:
            return None
        detail = f"{self.whose}: {too_many(longest, estimate, now_ns)}"
        if self.kind != TARGET and _has_room_for_less(longest, estimate, now_ns):
            detail += _LESS
        return Refusal(self, longest.kind, longest.count, longest_ns / 1e9, detail)

    def _never(self, one: Allowance, estimate: Estimate) -> Refusal:
        detail = f"{self.whose}: its input has some {estimate.input} tokens, more than {one.count}"
        detail += ", the limit of a whole minute"
        return Refusal(self, one.kind, one.count, NEVER, detail)

    def _ask_entry(self, entry: Entry, estimate: Estimate, now: float) -> Refusal | None:
        limit = self.concurrent
        if limit and self.in_flight + entry.others_total(_E_IN_FLIGHT) >= limit:
            return Refusal(
                self, CONCURRENT, limit, _CONCURRENT_WAIT_S, f"{self.whose}: {limit} in flight, as many as may be"
            )
        return self._ask_money(entry, estimate.cost_micro, estimate.output, now)

    def _ask_money(self, entry: Entry, cost: int, output: int, now: float) -> Refusal | None:
        if cost and (self.day_micro or self.month_micro):
            books = self.books
            reserved = self.reserved_micro + entry.others_total(_E_RESERVED)
            refusal: Refusal | None = None
            if self.month_micro:
                left = self.month_micro - books.spent.spent(self._month_key, books.month_until_s)
                if cost > left - reserved:
                    refusal = self._too_dear(
                        self.month_micro, left, reserved, cost, output, books.month_until_s, now, "month"
                    )
            if self.day_micro and (refusal is None or refusal.what == RESERVED):
                left = self.day_micro - books.spent.spent(self._day_key, books.day_until_s)
                if cost > left - reserved:
                    refusal = self._too_dear(
                        self.day_micro, left, reserved, cost, output, books.day_until_s, now, "day"
                    )
            return refusal
        return None

    def _too_dear(
        self, limit: int, left: int, reserved: int, cost: int, output: int, until_s: int, now: float, period: str
    ) -> Refusal:
        """left: of the limit after what was spent, of which so much is reserved."""
        what = BUDGET
        if cost > limit:
            wait_s = NEVER
        elif cost > left:
            wait_s = until_s - (now + self.books.wall_ahead_s)
            self._tell_used_up(period, limit, limit - left, wait_s, now)
        else:
            what = RESERVED
            wait_s = _CONCURRENT_WAIT_S
        detail = f"{self.whose}: the budget of a {period} is {money(limit)}"
        if left - reserved < limit:
            detail += f", {money(limit - left + reserved)} of it spent or reserved"
        detail += f", and this request may cost {money(cost)}"
        if output and left > 0:
            detail += f" with {output} tokens of output{_LESS}"
        return Refusal(self, what, limit, wait_s, detail)

    def _tell_used_up(self, period: str, limit: int, spent: int, left_s: float, now: float) -> None:
        """Once in a period of this budget, by whichever worker is the first; of a month, once a day. Once more when
        hardly anything is left: before, it may have been one large request that was refused."""
        books = self.books
        if books.log is None:
            return
        now_ns = int(now * 1e9)
        which = f"{period} {limit} {(limit - spent) * _HARDLY < limit}".encode()
        told = key_hash(b"llm budget told", KINDS[self.kind].encode(), self.name.encode(), which)
        if books.arrivals.get(told, now_ns + _DAY_NS) > now_ns:
            return
        books.arrivals.delay(told, now_ns + min(int(left_s * 1e9), _DAY_NS))
        is_caller = self.kind in (KEY, TEAM) or (self.kind == TENANT and ":" not in self.name)
        books.log.warning(
            "budget_exhausted",
            resource=f"{KINDS[self.kind]}/{self.name}" if is_caller else self.resource,
            detail=f"{money(spent)} of {money(limit)} a {period} is spent, and what is left is less than a request may"
            " cost, which is refused",
        )

    def begin(self, cost_micro: int, ending: int, now: float, now_ns: int) -> None:
        """A request is in flight. Its allowances are charged by who reserves. ending: of such ones so many end in a
        billion seconds."""
        self.in_flight += 1
        self.reserved_micro += cost_micro
        self._ending += ending
        self._changed_ns = now_ns
        self.used_at = now
        entry = self._entry
        if entry is not None:
            self._show(entry)

    def affords(self, more_micro: int, now: float) -> bool:
        """May one that is in flight cost so much more?"""
        entry = self._entry
        return entry is None or self._ask_money(entry, more_micro, 0, now) is None

    def reserve_more(self, more_micro: int) -> None:
        """For one that is in flight; `end` is told of all."""
        self.reserved_micro += more_micro
        entry = self._entry
        if entry is not None:
            self._show(entry)

    def end(self, reserved_micro: int, spent_micro: int, ending: int, now: float, now_ns: int) -> None:
        """It is not any more, and has cost this. ending: as `begin` was told."""
        self.in_flight -= 1
        self.reserved_micro -= reserved_micro
        self._ending -= ending
        self._changed_ns = now_ns
        self.used_at = now
        entry = self._entry
        if entry is not None:
            self._show(entry)
            if spent_micro and (self.day_micro or self.month_micro):  # both, so that each is known when it gets a limit
                books = self.books
                now_s = int(now + books.wall_ahead_s)
                books.spent.add(self._day_key, books.day_until_s, spent_micro, now_s)
                books.spent.add(self._month_key, books.month_until_s, spent_micro, now_s)

    def refuse(self, now: float) -> None:
        """Somebody was turned away by it."""
        self.refused += 1
        self.used_at = now

    def degrade(self, now: float) -> None:
        """Somebody would have been, and is answered by a smaller model."""
        self.degraded += 1
        self.used_at = now

    def next_end_s(self, takes_s: float, now: float) -> float:
        """In how long one of those in flight will have ended, whose ever they are and in whatever worker, as far as
        anybody can tell. takes_s: for how long they are in flight, if nobody knows.

        What they take is the harmonic mean of what is expected of each, as one that is slow keeps nobody from the
        places of those that are fast. Of that has passed what has since any of them began or ended: the age of the one,
        at a limit of one. The rest is taken for no less than the half: that is left on average of what always takes the
        same, and more of what varies (E[S^2] / 2E[S] of times S). Who takes longer than he should is expected to do so
        for as long again, so that nobody who comes again in vain is told ever shorter times.
        """
        entry = self._entry
        if entry is None:
            return takes_s
        in_flight = entry.total(_E_IN_FLIGHT)
        ending = entry.total(_E_ENDING)
        if in_flight == 0 or ending == 0:
            return takes_s
        expected_s = in_flight * 1e9 / ending
        since_s = now - entry.newest(_E_CHANGED_NS) / 1e9
        half_s = expected_s / 2.0
        return max(expected_s - since_s, half_s, since_s - half_s)

    # -- for people ---------------------------------------------------------------------------------------------------

    def machine_in_flight(self) -> int:
        """Requests of all workers; of this one only, if nothing limits them."""
        entry = self._entry
        return self.in_flight + (0 if entry is None else entry.others_total(_E_IN_FLIGHT))

    def spent_at_least(self, day_micro: int, month_micro: int, now: float) -> None:
        """What the store of accounts knows to be spent in the day and the month that run."""
        books = self.books
        now_s = int(now + books.wall_ahead_s)
        books.spent.at_least(self._day_key, books.day_until_s, day_micro, now_s)
        books.spent.at_least(self._month_key, books.month_until_s, month_micro, now_s)

    def spent_micro(self) -> tuple[int, int]:
        """In this day, and in this month, as far as there is a budget of either."""
        books = self.books
        day = books.spent.spent(self._day_key, books.day_until_s)
        return day, books.spent.spent(self._month_key, books.month_until_s)

    def snapshot(self, now: float) -> dict[str, object]:
        """What is limited, what is left, who holds it."""
        now_ns = int(now * 1e9)
        day, month = self.spent_micro()
        limits: dict[str, object] = {WHATS[one.kind]: one.count for one in self.allowances}
        remaining = {WHATS[one.kind]: one.remaining(now_ns) for one in self.allowances}
        in_flight = self.machine_in_flight()
        is_counted = self.day_micro or self.month_micro
        if self.concurrent:
            limits[WHATS[CONCURRENT]] = self.concurrent
            remaining[WHATS[CONCURRENT]] = max(0, self.concurrent - in_flight)
        if self.day_micro:
            limits["per_day"] = self.day_micro / 1e6
        if self.month_micro:
            limits["per_month"] = self.month_micro / 1e6
        return {
            "meter": KINDS[self.kind],
            "name": self.name,
            "limits": limits,
            "remaining": remaining,
            "heard": {WHATS[one.kind]: one.heard for one in self.allowances if one.heard},
            "in_flight": in_flight,
            "concurrent": self.concurrent,
            "spent_day": day / 1e6 if is_counted else None,
            "spent_month": month / 1e6 if is_counted else None,
            "refused": self.refused,
            "degraded": self.degraded,
        }


def _whose(kind: int, name: str) -> str:
    if kind == KEY:
        return "this key"
    if kind == TARGET:
        return "the provider"
    route, separator, _ = name.partition(":")
    if kind == TENANT and separator:
        return f"each tenant of route {route}"
    if kind == PROMPT:
        return f"each tenant of prompt {route}"
    return f"{KINDS[kind]} {name}"


def too_many(one: Allowance, estimate: Estimate, now_ns: int) -> str:
    """Why it has to wait, in words."""
    if one.kind == REQUESTS:
        return f"more than {one.count} request{'s' if one.count > 1 else ''} a minute"
    wanted = f"{amount_of(one.kind, estimate)} {WHATS[one.kind].replace('_', ' ')}, of {one.count} a minute"
    owed = one.owed(now_ns)
    return f"{wanted}; {owed} that earlier requests have taken or reserved beyond it come first" if owed else wanted


def _has_room_for_less(one: Allowance, estimate: Estimate, now_ns: int) -> bool:
    """Is it only its output that a request has to wait for?"""
    kind = one.kind
    if kind not in (TOKENS, OUTPUT) or estimate.output <= 1:
        return False
    return one.remaining(now_ns) > (estimate.input if kind == TOKENS else 0)


def amount_of(kind: int, estimate: Estimate) -> int:
    if kind == TOKENS:
        return estimate.input + estimate.output
    if kind == REQUESTS:
        return 1
    return estimate.input if kind == INPUT else estimate.output
