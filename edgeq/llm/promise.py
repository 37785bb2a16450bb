"""When to come again: whoever is turned away by a limit is told a time of his own.

    come_again_s --of limits of a minute--> when there will be tokens for all who were told before, and for him
    place_s ------of requests at once-----> when so many will have ended, as long as requests take

If all were told when there is room for the next one, all would come then, and all but one in vain; SDKs give up after
their third try. So beside each limit, in the table of arrival times, stands its *line*: the limit as it would be if all
had come who were told to. Whoever is turned away stands at its end, in whatever worker, and is told when his turn is.

It is no reservation: who comes meanwhile, and finds room, has it. Nor does it last: the time of a line passes as any
other, so who never comes has kept nobody out, and is forgotten within two minutes. More than `MOST_S` ahead nobody is
promised anything, as some will not come; who comes again then has what is left free by them.
"""

from __future__ import annotations

from typing import Final

from edgeq.llm.estimate import Estimate
from edgeq.llm.meter import MINUTE_NS, Allowance, Meter, amount_of

MOST_S: Final = 60.0
"""SDKs keep to no longer wait."""
_MOST_NS: Final = 60_000_000_000
_LINE: Final = 0x1F5D_3A96_C4E8_7B21
"""What tells the key of a line from that of its limit."""


def come_again_s(meters: list[Meter], estimate: Estimate, now: float, queued_s: float = 0.0) -> float:
    """In how many seconds one who was turned away is to come again: at the end of the lines of all these limits that
    are of minutes, in which it stands from now on. At most `MOST_S`.

    queued_s: for how long what comes free is for those who wait in a queue.
    """
    now_ns = int(now * 1e9)
    queued_ns = int(queued_s * 1e9)
    longest_ns = queued_ns
    lines: list[Allowance] = []
    for meter in meters:
        for one in meter.allowances:
            line = one.like((one.key ^ _LINE) or 1, meter.books.arrivals.arrival())
            line.delay(now_ns + one.ahead_ns(now_ns) + queued_ns, now_ns)
            wait_ns = line.ask(amount_of(one.kind, estimate), now_ns)
            if line.cost_ns > MINUTE_NS:  # who needs more than all of it owes the rest once he has come
                line.cost_ns = MINUTE_NS
            if wait_ns > longest_ns:
                longest_ns = wait_ns
            lines.append(line)
    if longest_ns >= _MOST_NS:
        return MOST_S
    for line in lines:
        line.charge(now_ns)
    return longest_ns / 1e9


def place_s(meter: Meter, limit: int, took_s: float, now: float) -> float:
    """In how many seconds one is to come again who has found as many requests in flight as may be: once one of these
    has ended, as far as is known, and a place is free that nobody was told of before. At most `MOST_S`.

    took_s: how long requests take.
    """
    table = meter.books.arrivals
    key = (meter.key ^ _LINE) or 1
    now_ns = int(now * 1e9)
    took_ns = int(took_s * 1e9)
    latest_ns = now_ns + _MOST_NS
    if took_ns >= _MOST_NS or table.get(key, latest_ns) >= latest_ns:
        return MOST_S
    each_ns = took_ns * 21 // (20 * limit)  # a little more, or each would come at the very moment at which one ends
    return (table.charge(key, each_ns, now_ns + took_ns) - each_ns - now_ns) / 1e9
