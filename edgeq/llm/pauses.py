"""When one model at one key of a provider is not asked: by what the provider says, and as it fails.

A 429 stops this model at this key until the provider's limit resets, but for `_LONGEST_PAUSE_S` at most, and so does an
answer that tells that no request is left. 402 and 401 stop all models at the key for `DISABLED_S`. Pauses are moments
in the table of arrival times, so all workers know. After a pause of a target without a limit nobody knows how many it
takes: one goes first, and twice as many each `_DOUBLING_S`, of all workers (they are counted in the same table), so
that another 429 keeps the rest here; with a limit they are paced by it.

Failures. A model at a key that fails so often in a row as is configured rests, too, and for itself: others at the key
may be well. The moment in the table tells by its last bits (`rests.TIMES`) how often it has done so, so all workers
know, and after it whoever is let in first moves it on, and is the only one until he is answered: that ends the rest, or
doubles it. Failures in a row are counted in that table as well, from the last good answer that any worker has had on;
while there are good answers each worker counts its own, exactly.

Invariants
- A moment only moves on, but for: an answer that ends a rest, a probe that told nothing, `edgeq wake`.
- What was sent before a rest began says nothing of it: a volley counts once.

Source: reference llm.md 4.4, 5.1.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Any, Final

from edgeq.board.layout import key_hash
from edgeq.llm.meter import Meter
from edgeq.llm.provider import NOT_LET_IN, QUOTA_GONE
from edgeq.llm.rests import TIMES, of_key, of_target
from edgeq.worker.wheel import NEVER

DISABLED_S: Final = 60.0
"""How long a key is left alone whose account has no credit, or that the provider refuses. Somebody has to do something
about it; a request a minute finds out that he has."""
PAUSED_SINCE: Final = {
    "upstream_rate_limit": "the provider's rate limit is reached",
    "upstream_auth": NOT_LET_IN,
    "upstream_quota": QUOTA_GONE,
    "circuit_open": "the last requests for this model with the provider's key have failed",
}
"""By the reason of the refusals meanwhile, in words."""
OF_OPERATORS: Final = ("upstream_auth", "upstream_quota")
"""Those that end by somebody's doing: the time of the pause is only when it is looked whether he has."""
_FIRST_REST_NS: Final = 5_000_000_000
_MOST_REST_NS: Final = 60_000_000_000
"""Of one that fails. Both have none of the bits of `TIMES`."""
_MOST_TIMES: Final = 5
"""Then it is the longest."""
_MANY_FAILURES: Final = 10
_ANSWERS_NS: Final = 1_000_000_000
"""Who has answered so lately rests after many failures in a row only: some fail now and then, and a few in a row are
chance where there are many."""
_TELL_EVERY_S: Final = 0.1
"""Good answers are told to the other workers."""
_MOST_COUNTED: Final = 1 << 20
"""Of failures in a row: more are those since an answer that has been forgotten."""
_LONGEST_PAUSE_S: Final = 86_400.0
"""Limits by the day have the longest ones. Whatever a provider says, it is asked again after so long."""
_FAILURE_EVERY_S: Final = 60.0
"""One failure of a kind is told in so long of those that a worker sees,"""
_FAILURE_LEAST_S: Final = 1.0
"""and one of another kind after so long."""
_MOST_SAID: Final = 200
"""Characters of what a provider has said."""
_TOLD_PAUSE_S: Final = 1.0
"""A shorter one is no event: so there is one a second of a target at most."""
_FIRST_PAUSE_S: Final = 1.0
_MOST_PAUSE_S: Final = 30.0
"""Of a 429 that says nothing of when to come back: twice as long each time, until something is answered."""
_FORGET_PAUSE_S: Final = 60.0
"""Or there has been none for so long."""
_DOUBLING_S: Final = 0.25
"""A refusal is there sooner, and sooner than most answers."""
_RESUME_S: Final = 4.0
"""After so long nobody is held back any more."""
_MOST_RESUMED: Final = 1 << 17
"""2^16 may have gone by then."""
_NS: Final = 1e9
_IN_SECONDS: Final = 120
_TO_THE_SECOND: Final = 600
"""Beyond it a minute more is little of it."""


def in_words(seconds: float) -> str:
    """A time for people: "90 s", "2 min 1 s", "20 min", "1 h 59 min"; rounded up."""
    whole = ceil(seconds)
    if whole <= _IN_SECONDS:
        return f"{whole} s"
    if whole < _TO_THE_SECOND:
        minutes = whole // 60
        return f"{minutes} min {whole - minutes * 60} s" if whole > minutes * 60 else f"{minutes} min"
    minutes = (whole + 59) // 60
    hours = minutes // 60
    minutes -= hours * 60
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def paused_for(reason: str, left_s: float) -> str:
    """Why somebody is not let in, and for how long, in words; by the reason of refusals meanwhile."""
    return f"{PAUSED_SINCE[reason]}; it is not asked for another {in_words(left_s)}"


def _rest_ns(times: int) -> int:
    """How long one that fails rests, if it does so many times in a row."""
    return min(_MOST_REST_NS, _FIRST_REST_NS << (times - 1))


class Pauses:
    """Of one model at one key, in one worker: it reads and moves the moments, and counts what this worker has seen."""

    __slots__ = (
        "_answered",
        "_failed",
        "_failure_at",
        "_failure_told",
        "_failures",
        "_key",
        "_key_pause",
        "_key_said",
        "_key_said_ns",
        "_log",
        "_meter",
        "_pause",
        "_pause_s",
        "_probe_until_ns",
        "_resumed",
        "_resuming_ns",
        "_said_by",
        "_silent_until",
        "_told_at",
        "count",
        "failed_by",
        "failed_detail",
        "rest_after",
        "rested",
    )

    def __init__(self, meter: Meter, key: str, log: Any) -> None:
        """Args: meter is that of the target; key is the name of the provider's key; log for events, if they are to be
        told."""
        self._meter: Meter = meter
        self._key: str = key
        self._log: Any = log
        self._pause: int = 0
        self._key_pause: int = 0
        self._answered: int = 0
        """Of when there was a good answer last."""
        self._failed: int = 0
        """Of how many have failed since: one for each nanosecond after that."""
        self.use_key(b"")
        self._pause_s: float = _FIRST_PAUSE_S
        """Of the next 429 that does not say how long."""
        self._silent_until: float = 0.0
        """When the pause of the last one of these ends."""
        self._resumed: int = key_hash(b"llm resumed", meter.name.encode())
        """Of how many have been let in since the last pause: one for each nanosecond after its end."""
        self._resuming_ns: int = 0
        """Whoever is let in counts there, since it ended at this moment; 0: nobody does."""
        self.rest_after: int = 0
        """Failures in a row; 0: it never rests for any."""
        self._failures: int = 0
        """In a row, in this worker."""
        self._told_at: float = -NEVER
        """When this worker has told of a good answer last."""
        self.rested: int = 0
        """How often in a row it has rested as it failed, when that was looked at last; also after the rest, until a
        good answer comes."""
        self.failed_by: str = ""
        """The last failure that this worker has heard of, by its reason; empty: a good answer was later."""
        self.failed_detail: str = ""
        """What it was, if that says more: what the provider has said."""
        self._said_by: str = ""
        """Of which reason that is."""
        self._key_said: str = ""
        """What the provider has said of the key, when this worker has left it alone last."""
        self._key_said_ns: int = 0
        """Until when it did."""
        self._failure_told: str = ""
        self._failure_at: float = -NEVER
        """Which failure has been told, and when."""
        self._probe_until_ns: int = 0
        """Until when nobody else finds out how it is."""
        self.count: int = 0
        """How often it has been paused, by what this worker heard."""

    def use_key(self, way: bytes) -> None:
        """How it is asked from now on (`rests.way_of`): what was said, or failed, in another way does not hold."""
        self._pause = of_target(self._meter.name, way)
        self._key_pause = of_key(self._key, way)
        name = self._meter.name.encode()
        self._answered = key_hash(b"llm answered", name, way)
        self._failed = key_hash(b"llm failed", name, way)

    # -- now ----------------------------------------------------------------------------------------------------------

    def left_s(self, now: float) -> float:
        """How long nobody is let in; 0.0: it is not paused."""
        now_ns = int(now * _NS)
        until_ns = self._until_ns(now_ns)
        return (until_ns - now_ns) / _NS if until_ns > now_ns else 0.0

    def _until_ns(self, now_ns: int) -> int:
        """When the pause ends that is now, or was last."""
        latest_ns = now_ns + int(_LONGEST_PAUSE_S * _NS)
        table = self._meter.books.arrivals
        until_ns = table.get(self._pause, latest_ns)
        self.rested = until_ns & TIMES
        return max(until_ns, table.get(self._key_pause, latest_ns))

    def hold_s(self, now: float) -> float:
        """How long nobody is let in, whatever the limits: in a pause, and soon after one for those who went first."""
        now_ns = int(now * _NS)
        until_ns = self._until_ns(now_ns)
        since_s = (now_ns - until_ns) / _NS
        if since_s < 0.0:
            return -since_s
        if since_s >= _RESUME_S or self._meter.allowances:
            self._resuming_ns = 0
            return 0.0
        self._resuming_ns = until_ns
        resumed = self._meter.books.arrivals.get(self._resumed, until_ns + _MOST_RESUMED) - until_ns
        return max(0.0, log2(resumed + 1) * _DOUBLING_S - since_s) if resumed > 0 else 0.0

    def reason(self, now: float) -> str:
        """Why it is paused: of a key that is disabled, the last bit of the moment says whether it was refused."""
        until_ns = self._meter.books.arrivals.get(self._key_pause, 2**62)
        if until_ns <= int(now * _NS):
            return "circuit_open" if self.rested else "upstream_rate_limit"
        return "upstream_auth" if until_ns & 1 else "upstream_quota"

    def key_said(self) -> str:
        """What the provider has said of the key that rests, to this worker; empty: another one has heard it."""
        return self._key_said if self._meter.books.arrivals.get(self._key_pause) == self._key_said_ns else ""

    # -- who is let in after one --------------------------------------------------------------------------------------

    def let_in(self, now: float) -> bool:
        """Somebody is, as `hold_s` was 0.0. Returns: does he find out how it is, alone? Then `probed` is to be called
        when he has ended."""
        if self._resuming_ns:
            self._meter.books.arrivals.charge(self._resumed, 1, self._resuming_ns)
        if not self.rested:
            return False
        self._probe_until_ns = self._rest_again(self.rested, now)
        return True

    def probed(self, now: float) -> None:
        """Who was to find out has ended. If nothing has come of it (its client has left, say), another one may try."""
        arrivals = self._meter.books.arrivals
        if arrivals.get(self._pause) == self._probe_until_ns:
            arrivals.hasten(self._pause, int(now * _NS) & ~TIMES | self._probe_until_ns & TIMES)

    # -- what has come of a request -----------------------------------------------------------------------------------

    def pause(self, seconds: float, now: float) -> None:
        """By the provider's word. A longer pause stays."""
        self.count += 1
        self._meter.books.arrivals.delay(self._pause, int((now + min(seconds, _LONGEST_PAUSE_S)) * _NS) & ~TIMES)

    def tell_limited(self, seconds: float, now: float) -> None:
        """A 429 is about to pause it for so long. Told is that it begins, of what is not over at once."""
        if self._log is None or seconds < _TOLD_PAUSE_S or self.left_s(now) > 0.0:
            return
        reason = "upstream_rate_limit"
        pause_s = min(seconds, _LONGEST_PAUSE_S)
        detail = f"{PAUSED_SINCE[reason]} (429), and it is not asked for {in_words(pause_s)}"
        self._log.warning("provider_model_rests", resource=self._meter.resource, reason=reason, detail=detail)

    def silent_s(self, now: float) -> float:
        """A 429 has come that says nothing of when to come back. Returns: how long to pause; negative: it is one of a
        volley, which has paused it."""
        if now < self._silent_until:
            return -1.0
        if now > self._silent_until + _FORGET_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        pause_s = self._pause_s
        self._pause_s = min(_MOST_PAUSE_S, 2 * pause_s)
        self._silent_until = now + pause_s
        return pause_s

    def not_limited(self) -> None:
        """An answer has come that is no 429."""
        self._pause_s = _FIRST_PAUSE_S

    def disable_key(self, is_refused: bool, now: float, seconds: float, said: str = "") -> None:
        """The provider refuses our key (401, 403), or its account has no credit left: all models at it are paused.
        `said`: how it did so."""
        self.count += 1
        arrivals = self._meter.books.arrivals
        until_ns = int((now + seconds) * _NS) & ~1
        if self._log is not None and arrivals.get(self._key_pause, until_ns) <= int(now * _NS):
            reason = "upstream_auth" if is_refused else "upstream_quota"
            why = f"{PAUSED_SINCE[reason]} ({said[:_MOST_SAID]})" if said else PAUSED_SINCE[reason]
            detail = f"{why}; no model is asked with this key of the provider for {in_words(seconds)}"
            self._log.warning("provider_key_rests", resource=f"provider/{self._key}", reason=reason, detail=detail)
        self._key_said, self._key_said_ns = said[:_MOST_SAID], until_ns | (1 if is_refused else 0)
        arrivals.delay(self._key_pause, self._key_said_ns)

    def answered(self, now: float) -> None:
        """A good answer has begun: it is well."""
        arrivals = self._meter.books.arrivals
        if self._failures or now - self._told_at >= _TELL_EVERY_S:
            self._failures = 0
            self._told_at = now
            arrivals.delay(self._answered, int(now * _NS))
        self.failed_by = self.failed_detail = ""
        if self.rested:
            self.rested = 0
            until_ns = arrivals.get(self._pause)
            if until_ns & TIMES:
                arrivals.hasten(self._pause, min(int(now * _NS), until_ns) & ~TIMES)

    def failed(self, reason: str, sent_at: float, now: float) -> bool:
        """A request that was sent then has failed at this target, by a reason of `edgeq.reasons`. What was sent before
        it rested says nothing new. Returns: does it rest for that?"""
        if not self.rest_after:
            return False
        self.failed_by = reason
        if reason != self._said_by:
            self.failed_detail = ""
        arrivals = self._meter.books.arrivals
        until_ns = arrivals.get(self._pause)
        times = until_ns & TIMES
        if times:
            if int(sent_at * _NS) < until_ns - times - _rest_ns(times):
                return False
        else:
            now_ns = int(now * _NS)
            answered_ns = arrivals.get(self._answered, now_ns)
            self._failures += 1
            in_a_row = arrivals.charge(self._failed, 1, answered_ns) - answered_ns
            if now_ns - answered_ns < _ANSWERS_NS:
                if self._failures < max(self.rest_after, _MANY_FAILURES):
                    return False
            elif self._failures < self.rest_after and not self.rest_after <= in_a_row < _MOST_COUNTED:
                return False
            arrivals.hasten(self._failed, answered_ns)
        self.count += 1
        self._failures = 0
        self.rested = times = min(times + 1, _MOST_TIMES)
        self._rest_again(times, now)
        if self._log is not None:
            resource = self._meter.resource
            detail = f"it fails ({reason}), and is not asked for {in_words(_rest_ns(times) / _NS)}"
            self._log.warning("provider_model_rests", resource=resource, reason="circuit_open", detail=detail)
        return True

    def tell_failed(self, reason: str, detail: str, now: float) -> None:
        """What the failure is: the client may be the only one to hear of it, or nobody if another target answers."""
        self.failed_detail = detail = detail[:_MOST_SAID]
        self._said_by = reason
        if self._log is None or now - self._failure_at < _FAILURE_LEAST_S:
            return
        if reason == self._failure_told and now - self._failure_at < _FAILURE_EVERY_S:
            return
        self._failure_told = reason
        self._failure_at = now
        self._log.warning("provider_model_fails", resource=self._meter.resource, reason=reason, detail=detail)

    def _rest_again(self, times: int, now: float) -> int:
        """As it fails, from now on, for as long as the times have come to. Returns: the moment in the table."""
        until_ns = (int(now * _NS) & ~TIMES) + _rest_ns(times) | times
        self._meter.books.arrivals.delay(self._pause, until_ns)
        return until_ns
