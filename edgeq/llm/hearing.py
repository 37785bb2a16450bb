"""What answers of a provider say of its limits, and what that changes at the meter of one model at one key.

What is left of the provider's limits, if it is less than is left of ours, is what is left of ours, too. Its limits are
kept to as if they were configured; those that its answers tell no more are forgotten. What one worker has heard the
others keep to from their next request on: it stands in the rows of all who do on the board, beside what meters have
there, and is read by who has heard nothing yet. `edgeq wake` ends it in all of them, and so does a reload that asks
otherwise.

A limit that it does not keep to itself is none: who answers a request of several times as many tokens as he says that
he takes in a minute means something else by it.

Source: reference llm.md 4.4; `provider_limits.hear` reads the fields.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.keyed import Entry
from edgeq.board.layout import METER_CELLS
from edgeq.llm.estimate import Estimate
from edgeq.llm.meter import INPUT, OUTPUT, REQUESTS, TOKENS, Meter, amount_of
from edgeq.llm.pauses import Pauses
from edgeq.llm.provider_limits import NO, UNKNOWN, YES, Heard
from edgeq.llm.rests import HEARD_KINDS, of_forgotten, of_heard
from edgeq.worker.wheel import NEVER

NO_PAUSE: Final = -1.0
_FORGET_LIMITS_S: Final = 300.0
"""So long after a provider has told its limits an answer that tells none says that there are none."""
_DOUBT_S: Final = 60.0
"""So long after it a request that never fits one of them is asked all the same, as with a key that is refused: nobody
else has come from whose answer it would have been heard that it is another one now."""
_FORGET_TOGETHER_S: Final = 1.0
"""In which each worker has looked whether something is to be forgotten; before, none takes it from another one."""
_SURELY: Final = 4
"""So many times more than a limit is more, though it is an estimate."""
_LISTEN_EVERY_S: Final = 0.05
_ASK_EVERY_S: Final = 0.05
_FEW_REQUESTS: Final = 32
"""That a provider has left: the answer that says 0 must not be missed."""
_NS: Final = 1e9


class Hearing:
    """Of one model at one key, in one worker."""

    __slots__ = (
        "_counts_minutes",
        "_forgotten",
        "_key",
        "_listen_at",
        "_meter",
        "_no_limits",
        "_pauses",
        "_shown",
        "_told_at",
        "ask_others_at",
    )

    def __init__(self, meter: Meter, pauses: Pauses) -> None:
        self._meter: Meter = meter
        self._pauses: Pauses = pauses
        self._counts_minutes: bool = True
        """The provider's limit of requests may be one of a minute."""
        self._listen_at: float = 0.0
        self._told_at: float = 0.0
        """When the provider has told its limits last; 0.0: it does not."""
        self._key: int = of_heard(meter.name, b"")
        self._forgotten: int = of_forgotten(meter.name, b"")
        self._no_limits: list[int] = [0, 0, 0, 0]
        """By kind, the number that was told as a limit, and is none; 0: there was none."""
        self._shown: Entry | None = None
        """What the other workers see, by kind; None while nothing was heard."""
        self.ask_others_at: float = 0.0
        """When `ask_others` is due; NEVER: something was heard here."""

    def use_key(self, way: bytes) -> None:
        """How it is asked from now on (`rests.way_of`): what was told in another way does not hold."""
        key = of_heard(self._meter.name, way)
        if key != self._key:
            self._forget()
            self.close()
            self._key = key
            self._forgotten = of_forgotten(self._meter.name, way)
            self._counts_minutes = True
            self._no_limits = [0, 0, 0, 0]
            self.ask_others_at = 0.0

    def look(self, now: float) -> None:
        """Now and then: has somebody said that nothing holds which was told before?"""
        if not self._told_at:
            return
        until_ns = self._meter.books.arrivals.get(self._forgotten)
        if int(self._told_at * _NS) < until_ns <= int(now * _NS):
            self._forget()
            self.ask_others_at = now

    def _forget(self) -> None:
        """Of its limits nothing is known."""
        self._told_at = 0.0
        for kind in HEARD_KINDS:
            self._meter.forget_limit(kind)
        self._show()

    def ask_others(self, now: float) -> None:
        """Keep to what other workers have heard, as long as this one has heard nothing."""
        self.ask_others_at = now + _ASK_EVERY_S
        if self._meter.books.arrivals.get(self._forgotten) > int((now - _FORGET_TOGETHER_S) * _NS):
            return  # it may be what is forgotten
        for kind in HEARD_KINDS:
            count = 0
            for table in self._meter.books.others:
                count = max(count, table.value(self._key, kind))
            if count and count != self._no_limits[kind]:
                self._meter.hear_limit(kind, count)
                self._told_at = now
                self.ask_others_at = NEVER
        if self._told_at:
            self._show()

    def _show(self) -> None:
        """Tell the other workers what is kept to here."""
        meter = self._meter
        shown = self._shown
        if shown is None:
            if not any(one.heard for one in meter.allowances):
                return
            books = meter.books
            shown = self._shown = Entry(books.own, books.others, self._key, METER_CELLS - 2)
        for kind in HEARD_KINDS:
            known = meter.allowance(kind)
            shown.put(kind, 0 if known is None else known.heard)

    def close(self) -> None:
        """Nothing is asked here any more."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def is_due(self, now: float) -> bool:
        """Is what the head of a good answer says of limits worth reading? It takes longer than all the rest of the
        gate, and says little new within `_LISTEN_EVERY_S`. Refusals always are."""
        return now >= self._listen_at

    def take(self, heard: Heard | None, status: int, now: float, sent: Estimate | None) -> float:
        """An answer has come, with these limits in its head (None: with none). `sent`: what its request has reserved,
        if that is known; one that is refused is about to give it back: the provider has never counted it, so no more is
        left for that. Returns: how long to pause this model at this key; negative: not at all."""
        now_ns = int(now * _NS)
        meter = self._meter
        refused = sent if status == 429 else None
        if heard is not None:
            self._disbelieve(heard, None if status >= 400 else sent)
        if heard is not None and max(heard.limits) > 0:
            self._told_at = now
            self.ask_others_at = NEVER
        elif self._told_at and status < 400 and now - self._told_at >= _FORGET_LIMITS_S:
            self._forget()
        if heard is None or not 0 <= heard.remaining[REQUESTS] < _FEW_REQUESTS:
            self._listen_at = now + _LISTEN_EVERY_S
        pause_s = NO_PAUSE
        if heard is not None:
            self._take_limits(heard, now_ns, refused)
            self._show()
            requests = meter.allowance(REQUESTS)
            wait_s = heard.requests_wait_s()
            if wait_s > 0 and (requests is None or not requests.heard):
                pause_s = wait_s
        if status == 429:
            for one in meter.allowances:
                if heard is None or heard.remaining[one.kind] < 0:
                    # Or all would rush in when the pause ends.
                    one.at_most(-_given_back(refused, one.kind), now_ns)
            pause_s = NO_PAUSE if heard is None else heard.pause_s()
            return pause_s if pause_s >= 0 else self._pauses.silent_s(now)
        if status < 400:
            self._pauses.not_limited()
        return pause_s

    def doubts(self, kind: int, now: float) -> bool:
        """A request can never be let in by its limit of this kind. Returns: is that forgotten now, as it is what the
        provider said long ago?"""
        known = self._meter.allowance(kind)
        if known is None or not known.heard or now - self._told_at < _DOUBT_S:
            return False
        self._meter.forget_limit(kind)
        self._show()
        return True

    def _disbelieve(self, heard: Heard, answered: Estimate | None) -> None:
        """Leave out of what was told what is no limit of a minute, as this request, or one before, was answered."""
        for kind in (TOKENS, INPUT):
            count = heard.limits[kind]
            if answered is not None and 0 < count * _SURELY < answered.input:
                self._no_limits[kind] = count
                self._meter.forget_limit(kind)
            if 0 < count == self._no_limits[kind]:
                heard.limits[kind] = heard.remaining[kind] = UNKNOWN

    def _take_limits(self, heard: Heard, now_ns: int, refused: Estimate | None) -> None:
        meter = self._meter
        self._take_requests(heard)
        for kind in (TOKENS, INPUT, OUTPUT):
            count = heard.limits[kind]
            known = meter.allowance(kind)
            if count > 0 and (known is None or known.heard != count):
                meter.hear_limit(kind, count)
        for one in meter.allowances:
            remaining = heard.remaining[one.kind]
            is_last = remaining == 0 and one.kind == REQUESTS  # we may think of a part of one
            held = _given_back(refused, one.kind)
            if is_last or 0 <= remaining < one.remaining(now_ns) + held:
                one.at_most(remaining - held, now_ns)

    def _take_requests(self, heard: Heard) -> None:
        """A limit of requests is kept to as one of tokens, if it is one of a minute; another one that is told then, by
        a refusal above all, is one, too, if nothing says that it is not. What looked so once, by chance, and then does
        not, is not looked at again."""
        said = heard.counts_minutes()
        meter = self._meter
        known = meter.allowance(REQUESTS)
        count = heard.limits[REQUESTS]
        if said == NO:
            self._counts_minutes = False
            meter.forget_limit(REQUESTS)
        elif (said == YES and self._counts_minutes) or (count > 0 and known is not None and known.heard):
            meter.hear_limit(REQUESTS, count)


def _given_back(refused: Estimate | None, kind: int) -> int:
    """How much of a limit a refused request gives back; it has been sent, and counts as a request."""
    return 0 if refused is None or kind == REQUESTS else amount_of(kind, refused)
