"""Reserve what a request will use, before it is sent; settle what it has used, after it.

    reserve(meters, estimate, now) -> Refusal: nothing was charged, by nobody
                                   -> Reservation --settle(usage, cost, now)--> the rest is paid back, a debt charged
                                                  --cancel(now)---------------> all is paid back
                                                  (a dearer target: `affords`, then `reserve_up_to`)

Invariants
- All or nothing: all meters are asked before any is charged.
- A reservation ends once; `settle` or `cancel` after that do nothing. Whoever holds it ends it, whatever happens to the
  request; if his worker dies, its row is zeroed, and what was charged to rates for tokens fills up again with time.
- What a rate has let in exceeds its limit by no more than what was reserved too little for the running requests, and
  that is carried over as a debt, which later ones wait for.

`Ledger` makes the meters: the same subject has the same one, as long as anything of it runs and `IDLE_S` longer. What
is limited stands on the board, so a meter that is made again goes on where it was.
"""

from __future__ import annotations

from time import gmtime
from typing import Any, Final

from edgeq.board.gcra_table import ArrivalTable
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.estimate import Estimate
from edgeq.llm.message import Usage
from edgeq.llm.meter import INPUT, MINUTE_NS, REQUESTS, TOKENS, Allowance, Books, Meter, Refusal, amount_of
from edgeq.llm.promise import kept_for_others

IDLE_S: Final = 60.0
MANY: Final = 4096
"""Meters from which on the idle ones are let go at once."""
_DAY_S: Final = 86_400


class Reservation:
    """What one request has reserved, by all of its meters."""

    __slots__ = ("_allowances", "_charged_ns", "_ending", "_meters", "_reserved_micro", "estimate", "is_open")

    def __init__(self, meters: list[Meter], estimate: Estimate, now: float) -> None:
        """Charges what has been asked last of each meter; for `reserve` only."""
        self.estimate: Estimate = estimate
        self.is_open: bool = True
        self._meters: list[Meter] = meters
        self._reserved_micro: int = estimate.cost_micro
        self._allowances: list[Allowance] = []
        self._charged_ns: list[int] = []
        self._ending: int = int(1e9 / estimate.takes_s)
        now_ns = int(now * 1e9)
        for meter in meters:
            meter.begin(estimate.cost_micro, self._ending, now, now_ns)
            for one in meter.allowances:
                self._allowances.append(one)
                self._charged_ns.append(one.charge(now_ns))

    def beyond_ns(self, allowance: Allowance) -> int:
        """What it holds of one beyond all of it, for an output that is a guess: how much later it is told to be whole
        again than it would be for the largest request that has its place in a minute."""
        for at, one in enumerate(self._allowances):
            if one is allowance:
                return max(0, self._charged_ns[at] - MINUTE_NS)
        return 0

    def affords(self, cost_micro: int, now: float) -> bool:
        """May it come to so much (in millionths), although perhaps less is reserved?"""
        more = cost_micro - self._reserved_micro
        if more <= 0 or not self.is_open:
            return True
        return all(meter.affords(more, now) for meter in self._meters)

    def reserve_up_to(self, cost_micro: int) -> None:
        """It may come to so much, which `affords` has just found to be there."""
        more = cost_micro - self._reserved_micro
        if more > 0 and self.is_open:
            self._reserved_micro = cost_micro
            for meter in self._meters:
                meter.reserve_more(more)

    def settle(self, usage: Usage, cost_micro: int, now: float) -> None:
        """The request has ended, and this is what it used and cost; where nobody has told (UNKNOWN) it is what was
        expected."""
        if not self.is_open:
            return
        estimate = self.estimate
        total_input = estimate.input if usage.input < 0 else usage.input
        counted_input = total_input if usage.input < 0 else usage.input - usage.cached
        output = estimate.output if usage.output < 0 else usage.output
        self._end(total_input + output, counted_input, output, cost_micro, now, False)

    def cancel(self, now: float, sent: bool = False) -> None:
        """Nothing was used. The request itself counts only if it was sent."""
        if self.is_open:
            self._end(0, 0, 0, 0, now, not sent)

    def _end(self, total: int, counted_input: int, output: int, cost_micro: int, now: float, uncount: bool) -> None:
        self.is_open = False
        now_ns = int(now * 1e9)
        estimate = self.estimate
        reserved_micro = self._reserved_micro
        for meter in self._meters:
            meter.end(reserved_micro, cost_micro, self._ending, now, now_ns)
        for at, one in enumerate(self._allowances):
            kind = one.kind
            if kind == REQUESTS:
                if uncount:
                    one.correct(self._charged_ns[at], 1, 0, now_ns)
            else:
                amount = total if kind == TOKENS else counted_input if kind == INPUT else output
                one.correct(self._charged_ns[at], amount_of(kind, estimate), amount, now_ns)


def reserve(meters: list[Meter], estimate: Estimate, now: float, comes_again: bool = False) -> Reservation | Refusal:
    """Reserve what the request is expected to use of all meters (each once, all of one ledger), or of none.

    comes_again: as he was told to; who comes new leaves what was promised to others. now in monotonic seconds. A
    refusal is that of the meter for which it would have to wait longest; whoever passes it on counts it there.
    """
    refusal: Refusal | None = None
    for meter in meters:
        found = meter.ask(estimate, now)
        if found is not None and (refusal is None or found.wait_s > refusal.wait_s):
            refusal = found
    if refusal is None and not comes_again:
        for meter in meters:
            refusal = kept_for_others(meter, estimate, now)
            if refusal is not None:
                break
    return Reservation(meters, estimate, now) if refusal is None else refusal


class Ledger:
    """All meters of one worker."""

    __slots__ = ("_board", "_meters", "_neighbours", "_rows", "books")

    def __init__(
        self,
        arrivals: ArrivalTable,
        board: Board | None = None,
        neighbours: Neighbours | None = None,
        log: Any = None,
    ) -> None:
        """No board or no neighbours: this worker is alone. `tick` must be called before anything else. log: for
        events, if they are to be told."""
        self._board: Board | None = board
        self._neighbours: Neighbours | None = neighbours
        self._rows: int = 0
        self._meters: dict[tuple[int, str], Meter] = {}
        self.books: Books = Books(arrivals, board, 0 if neighbours is None else neighbours.slot, log)

    def meter(self, kind: int, name: str, limits: TokenLimits) -> Meter:
        """The one of a subject; with other limits than before it takes them over. Ask again for each request."""
        key = (kind, name)
        found = self._meters.get(key)
        if found is None:
            found = Meter(kind, name, limits, self.books)
            self._meters[key] = found
        elif found.limits is not limits:
            found.resize(limits)
        return found

    def resize(self, kind: int, name: str, limits: TokenLimits, now: float) -> None:
        """The limits of a subject have changed: whoever runs keeps to them from now on, and is counted by them, and
        a debt is paid at their pace, also if nobody has used it lately."""
        found = self._meters.get((kind, name))
        if found is not None:
            found.resize(limits)
        else:
            found = Meter(kind, name, limits, self.books)
            found.close()  # a debt is all that there may be of it
        now_ns = int(now * 1e9)
        for one in found.allowances:
            one.ahead_ns(now_ns)

    def spent(self, kind: int, name: str, day_micro: int, month_micro: int, now: float) -> None:
        """The store of accounts knows what a subject has spent, at least, in the day and month that run."""
        found = self._meters.get((kind, name))
        if found is None:
            found = Meter(kind, name, TokenLimits(), self.books)
        found.spent_at_least(day_micro, month_micro, now)

    def tick(self, now: float, wall_s: float) -> None:
        """Now and then: look who else is there, what day it is, and let go of meters that nobody uses.

        wall_s: unix seconds of the same moment.
        """
        books = self.books
        books.arrivals.look()
        books.spent.look()
        books.wall_ahead_s = wall_s - now
        if wall_s >= books.day_until_s or wall_s < books.day_until_s - _DAY_S:
            books.day_until_s = day_end_s(wall_s)
            books.month_until_s = month_end_s(wall_s)
        neighbours = self._neighbours
        board = self._board
        if neighbours is not None and board is not None and neighbours.rows != self._rows:
            self._rows = neighbours.rows
            books.others[:] = [board.row(slot).meters for slot in neighbours.others()]
        idle_s = IDLE_S if len(self._meters) <= MANY else 0.0
        gone = [key for key, one in self._meters.items() if is_idle(one, now, idle_s)]
        for key in gone:
            self._meters.pop(key).close()

    def busiest(self, most: int, but: int) -> list[Meter]:
        """So many meters, those with the most requests first; `but` is a kind that is left out."""
        found = [one for one in self._meters.values() if one.kind != but]
        found.sort(key=lambda one: -one.in_flight)
        return found[:most]

    def __len__(self) -> int:
        return len(self._meters)


def is_idle(meter: Meter, now: float, idle_s: float) -> bool:
    """Has nobody used it for so long?"""
    return meter.in_flight == 0 and not meter.pinned and now - meter.used_at >= idle_s


def day_end_s(wall_s: float) -> int:
    """When the day (of UTC) ends, in unix seconds."""
    return (int(wall_s) // _DAY_S + 1) * _DAY_S


def month_end_s(wall_s: float) -> int:
    """When the month (of UTC) ends, in unix seconds."""
    today = gmtime(wall_s)
    day = int(wall_s) // _DAY_S - today.tm_mday + 1
    following = gmtime((day + 31) * _DAY_S)  # 1 to 4 days into the next one
    return (day + 31 - following.tm_mday + 1) * _DAY_S
