"""When to come again: whoever is turned away by a limit is told a time of his own, and has precedence then.

    come_again_s --of limits of a minute--> when there will be tokens for all who were told before, and for him
    kept_for_others --> is one who comes new to leave what is left to these?
    place_s ------of requests at once-----> when so many will have ended, by how long those in flight should take

If all were told when there is room for the next one, all would come then, and all but one in vain; SDKs give up after
their third try. So beside each limit, in the table of arrival times, stands its *line*: the limit as it would be if all
had come who were told to. Whoever is turned away stands at its end, in whatever worker, and is told when his turn is.

How far the line is ahead of its limit is how much was promised, and not fetched: so much is kept from those who come
new, and `_GRACE_NS` and the largest promise at most. For what is promised is what flows in from now on, but for a part
of the next one, and of those whose time has just come; if more is left than that, somebody has not come. So who never
comes costs nobody more than that for a while, and nothing of the flow; who polls, and is told the same time again and
again without obeying, has what others leave. Nobody is locked out: what is not fetched is anybody's, and once the time
of the last one who was told one is over by `_GRACE_NS`, nothing is kept: the line is where its limit is.

Who comes again is known by what SDKs say (`x-stainless-retry-count`), or as he asks the same as before (`Told`). Who
says so without having been told gets no more than without a line. The time of a line passes as any other, so it is
forgotten within two minutes. More than `MOST_S` ahead nobody is promised anything, as some will not come; who comes
again then has what is left free by them.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.gcra_table import ArrivalTable
from edgeq.board.layout import key_hash
from edgeq.llm.estimate import Estimate
from edgeq.llm.meter import MINUTE_NS, PROMISED_NS, Allowance, Meter, Refusal, amount_of, too_many

MOST_S: Final = 60.0
"""SDKs keep to no longer wait."""
_MOST_NS: Final = 60_000_000_000
_GRACE_NS: Final = PROMISED_NS - _MOST_NS
"""So much later than told one may come, over whatever network."""
_TWINS: Final = 4
"""Who polls, each time on another connection, has as many times, too."""
_LEAST_TOLD_NS: Final = MINUTE_NS // 1000
"""Who wants less of all limits is not remembered: of each limit no more than a thousand are, of the table's 65,536."""
_ENDS: Final = 16_384
"""Bytes of the beginning and the end of a request, by which it is known: one with images has millions in between."""
_LINE: Final = 0x1F5D_3A96_C4E8_7B21
"""What tells the key of a line from that of its limit."""
_LAST: Final = 0x2B66_90D7_1FA5_3EC8
"""What tells that of the time of its last one from the key of a line."""


class Told:
    """What one was told who does not say that he comes again: he is the same caller with the same request.

    There may be more who ask the same: up to `_TWINS` have a time each, which is kept in the table of arrival times, as
    an even moment until one was let in for it, and then an odd one. One more of them is told the last of these, and who
    asks again before his time, on the same connection, is told that once more.
    """

    __slots__ = ("_due", "_due_ns", "_free", "_here", "_left_ns", "_table")

    def __init__(
        self, table: ArrivalTable, caller: tuple[str, bytes], connection: int, body: bytes, now: float
    ) -> None:
        """Args: caller is known by key and tenant; connection by any number that no other one has."""
        self._table: ArrivalTable = table
        now_ns = int(now * 1e9)
        latest_ns = now_ns + _MOST_NS
        size = b"%d" % len(body)
        key = key_hash(b"llm told", caller[0].encode(), caller[1], size, body[:_ENDS], body[-_ENDS:])
        self._here: int = key_hash(b"llm told", b"%d %d" % (key, connection))
        self._due: int = 0
        self._due_ns: int = 0
        self._free: int = 0
        last_ns = 0
        for twin in range(_TWINS):
            one = (key ^ twin) or 1
            told_ns = table.get(one, latest_ns)
            if told_ns > now_ns:
                last_ns = max(last_ns, told_ns)
            elif told_ns & 1 or told_ns < now_ns - _GRACE_NS:
                self._free = one
            else:
                self._due = one
                self._due_ns = told_ns
        here_ns = table.get(self._here, latest_ns)
        if here_ns <= now_ns and not self._free:
            here_ns = last_ns
        self._left_ns: int = here_ns - now_ns

    def is_due(self) -> bool:
        """Has his time just come?"""
        return self._due != 0

    def redeem(self) -> None:
        """He has come then, and was let in."""
        self._table.delay(self._due, self._due_ns | 1)

    def left_s(self) -> float:
        """How long it is until the time that he is told once more; 0.0: he is to have one of his own."""
        return self._left_ns / 1e9 if self._left_ns > 0 and not self._due else 0.0

    def tell(self, wait_s: float, meters: list[Meter], now: float) -> None:
        """He is to come then, as `come_again_s` has said of these meters, which were asked last for him."""
        if wait_s >= MOST_S:
            return
        for meter in meters:
            for one in meter.allowances:
                if one.cost_ns >= _LEAST_TOLD_NS:
                    at_ns = int((now + wait_s) * 1e9) & ~1
                    self._table.delay(self._due or self._free, at_ns)
                    self._table.delay(self._here, at_ns)
                    return


def kept_for_others(meter: Meter, estimate: Estimate, now: float) -> Refusal | None:
    """Must one who comes new leave what is left to those who were told to come again, by a meter that has just been
    asked, and would admit him? `come_again_s` says when he may come."""
    now_ns = int(now * 1e9)
    for one in meter.allowances:
        spare_ns = one.spare_ns
        largest_ns = max(one.cost_ns, one.most_promised_ns(now_ns))
        if spare_ns >= min(_GRACE_NS + largest_ns, one.spare_at_most_ns() * 3 // 4):  # as nearly always
            continue
        line = _line_of(one, meter)
        if line.ask(amount_of(one.kind, estimate), now_ns) == 0:
            one.is_lined = line.spare_ns < spare_ns  # there is room for him and all others
        elif line.spare_ns < spare_ns and not _is_over(line, one, meter, now_ns):
            detail = f"{meter.whose}: {too_many(one, estimate, now_ns)}"
            detail += "; what is left is for those who were told to come again"
            return Refusal(meter, one.kind, one.count, 0.0, detail)
    return None


def come_again_s(meters: list[Meter], estimate: Estimate, now: float, queued_s: float = 0.0) -> float:
    """In how many seconds one who was turned away is to come again: at the end of the lines of all these limits that
    are of minutes, in which it stands from now on. At most `MOST_S`.

    queued_s: for how long what comes free is for those who wait in a queue.
    """
    now_ns = int(now * 1e9)
    queued_ns = int(queued_s * 1e9)
    longest_ns = queued_ns
    for meter in meters:
        for one in meter.allowances:
            line = _line_of(one, meter)
            _is_over(line, one, meter, now_ns)
            line.delay(now_ns + one.ahead_ns(now_ns) + queued_ns, now_ns)
            wait_ns = line.ask(amount_of(one.kind, estimate), now_ns)
            if line.cost_ns > MINUTE_NS:  # who needs more than all of it owes the rest once he has come
                line.cost_ns = MINUTE_NS
            if wait_ns > longest_ns:
                longest_ns = wait_ns
    if longest_ns >= _MOST_NS:
        return MOST_S
    for meter in meters:
        for one in meter.allowances:
            line = _line_of(one, meter)
            meter.books.arrivals.delay(_last_of(line), now_ns + longest_ns)
            one.promised(line.charge(now_ns), now_ns)
    return longest_ns / 1e9


def _line_of(one: Allowance, meter: Meter) -> Allowance:
    return one.with_line((one.key ^ _LINE) or 1, meter.books.arrivals)


def _last_of(line: Allowance) -> int:
    """Where it stands when the last one is to come."""
    return (line.key ^ _LAST) or 1


def _is_over(line: Allowance, one: Allowance, meter: Meter, now_ns: int) -> bool:
    """Is the time over of all who were told to come? Then the line begins anew where its limit is."""
    line_ns = line.ahead_ns(now_ns)  # before the time of the last one, which is written before his charge
    if meter.books.arrivals.get(_last_of(line), now_ns + _MOST_NS) >= now_ns - _GRACE_NS:
        return False
    ahead_ns = one.ahead_ns(now_ns)
    if line_ns > ahead_ns:
        line.hasten(now_ns + ahead_ns)
    return True


def place_s(meter: Meter, limit: int, takes_s: float, now: float) -> float:
    """In how many seconds one is to come again who has found as many requests in flight as may be: once one of these
    has ended, as far as is known, and a place is free that nobody was told of before. At most `MOST_S`.

    takes_s: how long his own request takes, for which those wait, too, who are told after him.
    """
    table = meter.books.arrivals
    key = (meter.key ^ _LINE) or 1
    now_ns = int(now * 1e9)
    first_s = meter.next_end_s(takes_s, now)
    latest_ns = now_ns + _MOST_NS
    if first_s >= MOST_S or table.get(key, latest_ns) >= latest_ns:
        return MOST_S
    # A little more, or each would come at the very moment at which one ends.
    each_ns = int(min(takes_s, MOST_S) * 1.05e9 / limit)
    return (table.charge(key, each_ns, now_ns + int(first_s * 1e9)) - each_ns - now_ns) / 1e9
