"""One route's cache in one worker: what a request gets from it, and what it learns from answers.

Invariants
- A request is answered here, waits in one flight, or goes on to its upstream; `Grace` on the exchange says what for.
- At most one flight for a key (and variant) takes others along. Requests with a credential neither lead nor join one:
  what they get is theirs.
- What was on its way when its resource was changed (an unsafe request that succeeded) is not stored.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

from edgeq.cache.collector import Collector
from edgeq.cache.entry import Entry, agrees, freshened, make_entry
from edgeq.cache.fields import fields_of
from edgeq.cache.flight import Flight
from edgeq.cache.rules import CacheSettings, judge
from edgeq.cache.store import Store
from edgeq.cache.wish import Wish, key_of, wish_of
from edgeq.response.grace import Grace
from edgeq.wire.date import date_line
from edgeq.wire.framing import CHUNKED, LENGTH, UNTIL_CLOSE

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.wire.head import ResponseHead

UNSHARED_S: Final = 120.0
"""How long a key is remembered for which waiting was in vain; Varnish's builtin.vcl has the same for hit-for-miss."""
_MARKS: Final = 1024


class RouteCache:
    """The cache of one route."""

    __slots__ = (
        "_collectors",
        "_marks",
        "_marks_until",
        "collapsed",
        "flights",
        "hits",
        "misses",
        "refreshes",
        "revalidated",
        "settings",
        "stale",
        "store",
        "stored",
    )

    def __init__(self, settings: CacheSettings) -> None:
        self.settings: CacheSettings = settings
        self.store: Store = Store(settings.max_bytes)
        self.flights: dict[bytes, Flight] = {}
        self._collectors: dict[Collector, None] = {}
        # Keys that nobody should wait for, by hash: a fixed size, and who is forgotten or mistaken is only not joined.
        self._marks: list[int] = [0] * _MARKS
        self._marks_until: list[float] = [0.0] * _MARKS
        self.hits: int = 0
        """Answered fresh, `collapsed` after waiting for it; `misses` went on to the upstream."""
        self.stale: int = 0
        self.misses: int = 0
        self.collapsed: int = 0
        self.revalidated: int = 0
        self.refreshes: int = 0
        self.stored: int = 0

    def configure(self, settings: CacheSettings) -> None:
        """Take over other settings; what is stored stays, as far as there is room."""
        self.settings = settings
        self.store.resize(settings.max_bytes)

    def count_on(self, before: RouteCache) -> None:
        """It stands in the place of that one, of which nothing but its counts is of use."""
        self.hits, self.stale, self.misses = before.hits, before.stale, before.misses
        self.collapsed, self.revalidated = before.collapsed, before.revalidated
        self.refreshes, self.stored = before.refreshes, before.stored

    # -- a request ----------------------------------------------------------------------------------------------------

    def answer(self, exchange: Exchange, grace: Grace, now: float) -> bool:
        """A request has come. Returns: True if it is answered, or waits; False: it goes on to its upstream."""
        head = exchange.head
        wish = wish_of(head, self.settings.tenant_field)
        grace.wish = wish
        grace.key = key_of(head, exchange.down)
        if wish.passes:
            grace.forwarded_for = "bypass"
            return False
        if self._answer(exchange, grace, wish, now):
            return True
        self.misses += 1
        return False

    def _answer(self, exchange: Exchange, grace: Grace, wish: Wish, now: float) -> bool:
        entry = self.store.find(grace.key, wish)
        if entry is not None and wish.credentials and not entry.for_anyone:
            entry = None
            grace.forwarded_for = "bypass"
        elif entry is None:
            grace.forwarded_for = "uri-miss" if self.store.resource(grace.key) is None else "vary-miss"
        else:
            age_s = entry.age_s(now)
            pleases = not self.settings.obey_requests or wish.accepts(age_s, entry.lifetime_s)
            if pleases and entry.is_fresh(now):
                self.hits += 1
                if grace.collapsed:
                    self.collapsed += 1
                grace.serve(exchange, entry, "hit", now)
                return True
            if pleases and not entry.no_cache and entry.may_refresh_behind(now):
                self.stale += 1
                self._refresh(exchange, grace, wish, entry, now)
                grace.serve(exchange, entry, "stale", now)
                return True
            grace.forwarded_for = "stale" if pleases else "request"
        grace.entry = entry
        if not wish.is_get or (wish.directives.no_store and self.settings.obey_requests):
            return False
        grace.fetches = True
        if wish.credentials or self.settings.join_s <= 0.0 or grace.alone:
            return False
        key = self._flight_key(grace.key, wish)
        flight = self.flights.get(key)
        if flight is None:
            if not self._is_marked(grace.key, now):
                flight = Flight(self, key, exchange, exchange.down.shard.wheel)
                self.flights[key] = flight
                grace.leads = flight
        elif not wish.directives.no_cache and flight.join(exchange, now):
            grace.waits = flight
            exchange.queued_at = now
            return True
        return False

    def _flight_key(self, key: bytes, wish: Wish) -> bytes:
        resource = self.store.resource(key)
        if resource is None or not resource.vary:
            return key
        return key + b"\n" + wish.variant(resource.vary)

    def _refresh(self, exchange: Exchange, grace: Grace, wish: Wish, entry: Entry, now: float) -> None:
        """Ask the upstream behind the back of who gets the stale answer, unless somebody does already."""
        if not wish.is_get or wish.credentials or exchange.down.shard.draining:
            return
        key = self._flight_key(grace.key, wish)
        if key in self.flights:
            return
        self.refreshes += 1
        shadow = exchange.down.shadow(exchange, now)
        behind = Grace(self, None)
        behind.wish = wish
        behind.key = grace.key
        behind.forwarded_for = "stale"
        behind.silent = True
        behind.fetches = True
        behind.entry = entry
        flight = Flight(self, key, shadow, exchange.down.shard.wheel)
        self.flights[key] = flight
        behind.leads = flight
        shadow.grace = behind
        shadow.enter(now)

    # -- called by flights --------------------------------------------------------------------------------------------

    def go_on(self, exchange: Exchange, leads: Flight | None, now: float) -> None:
        """The wait is over without an answer: on to the upstream, alone, or for those who still wait."""
        grace = exchange.grace
        if grace is None:
            return
        grace.waits = None
        grace.leads = leads
        grace.alone = leads is None
        self.misses += 1
        exchange.queued_at = now
        exchange.arrived_at = now
        exchange.enter(now)

    def look_again(self, exchange: Exchange, now: float) -> None:
        """An answer was stored: is it the one that this request selects? If not, it may wait once more, no more."""
        grace = exchange.grace
        if grace is None or grace.wish is None:
            return
        grace.waits = None
        grace.alone = grace.collapsed
        grace.collapsed = True
        if not self._answer(exchange, grace, grace.wish, now):
            self.go_on(exchange, grace.leads, now)

    def use_stale(self, exchange: Exchange, now: float) -> None:
        """The upstream has failed another one, who got what is stored: this one, too, if it may."""
        grace = exchange.grace
        if grace is None:
            return
        grace.waits = None
        if not grace.serve_stale(exchange, now):
            self.go_on(exchange, None, now)

    # -- an answer ----------------------------------------------------------------------------------------------------

    def collect(self, exchange: Exchange, grace: Grace, answer: ResponseHead, kind: int, now: float) -> None:
        """The head of an answer is on its way to the client: collect its body if it may be stored."""
        wall = time()
        wish = grace.wish
        if wish is None:
            return
        delay_s = now - exchange.sent_at
        fields = fields_of(answer.forward)
        judgement = judge(answer.status, fields, wish.credentials, wish.cookie, self.settings, wall, delay_s)
        if not judgement.refusal:
            if kind == UNTIL_CLOSE:
                judgement.refusal = "no-length"  # whether it came to its end cannot be told (RFC 9111 3.3)
            elif kind == LENGTH and answer.content_length > self.settings.max_object:
                judgement.refusal = "too-large"
        if judgement.refusal:
            old = grace.entry
            if old is not None and answer.status < 500:
                self.store.remove(old)  # it is not what the upstream says now
            return
        collector = Collector(
            self.store,
            self.settings.max_object,
            grace.key,
            answer.status,
            answer.forward if answer.is_dated() else answer.forward + date_line(),
            kind == CHUNKED and exchange.head.minor == 1,
            judgement,
            wall,
            now,
        )
        self._collectors[collector] = None
        grace.collector = collector

    def release(self, collector: Collector) -> None:
        """An answer is not collected any more."""
        self._collectors.pop(collector, None)
        if not collector.dropped:
            collector.drop()

    def keep(self, collector: Collector, wish: Wish) -> Entry | None:
        """An answer is complete. Returns: what was stored of it, if anything."""
        if collector.dropped:
            return None
        body = collector.take()
        entry = make_entry(
            collector.key,
            wish,
            collector.status,
            collector.forward,
            body,
            collector.judgement,
            self.settings,
            collector.wall,
            collector.now,
        )
        if not self.store.put(entry):
            return None
        self.stored += 1
        return entry

    def freshen(self, exchange: Exchange, grace: Grace, answer: ResponseHead, now: float) -> Entry | None:
        """A 304 to our own conditions. Returns: the entry as it has updated it; None if it is about another one."""
        old = grace.entry
        wish = grace.wish
        if old is None or wish is None or not agrees(old, fields_of(answer.forward)):
            return None
        entry, judgement = freshened(old, wish, answer.forward, self.settings, time(), now - exchange.sent_at, now)
        self.revalidated += 1
        # Not in place of nothing: it may have been dropped meanwhile because its resource was changed.
        if self.store.remove(old) and not judgement.refusal:
            self.store.put(entry)
        return entry

    def invalidate(self, key: bytes, exchange: Exchange, answer: ResponseHead) -> None:
        """An unsafe request has succeeded: what is stored of its resource is not good any more (RFC 9111 4.4)."""
        self._forget(key)
        fields = fields_of(answer.forward)
        for name in (b"location", b"content-location"):
            other = _same_origin(fields.get(name, b""), exchange.head.host)
            if other:
                self._forget(key.replace(b" " + exchange.head.target, b" " + other, 1))

    def _forget(self, key: bytes) -> None:
        self.store.forget(key)
        for collector in self._collectors:
            if collector.key == key and not collector.dropped:
                collector.drop()

    # -- keys for which waiting is in vain ----------------------------------------------------------------------------

    def mark(self, key: bytes, now: float) -> None:
        """An answer could not be shared."""
        mark = hash(key)
        index = mark & (_MARKS - 1)
        self._marks[index] = mark
        self._marks_until[index] = now + UNSHARED_S

    def unmark(self, key: bytes) -> None:
        """An answer could be shared, after all."""
        mark = hash(key)
        index = mark & (_MARKS - 1)
        if self._marks[index] == mark:
            self._marks_until[index] = 0.0

    def _is_marked(self, key: bytes, now: float) -> bool:
        mark = hash(key)
        index = mark & (_MARKS - 1)
        return self._marks[index] == mark and now < self._marks_until[index]

    def snapshot(self, now: float) -> dict[str, object]:
        """What is held, who waits, and how it went."""
        return {
            **self.store.snapshot(),
            "collecting": len(self._collectors),
            "hits": self.hits,
            "stale": self.stale,
            "misses": self.misses,
            "collapsed": self.collapsed,
            "revalidated": self.revalidated,
            "refreshes": self.refreshes,
            "stored": self.stored,
            "flights": [flight.snapshot(now) for flight in self.flights.values()],
        }


def _same_origin(reference: bytes, host: bytes) -> bytes:
    """The target that a Location names, if it is of the same authority; nothing for others, and for relative paths."""
    if reference.startswith(b"/") and not reference.startswith(b"//"):
        return reference.partition(b"#")[0]
    scheme, colon, rest = reference.partition(b"://")
    if not colon or scheme.lower() not in (b"http", b"https"):
        return b""
    authority, slash, path = rest.partition(b"/")
    return (slash + path).partition(b"#")[0] if slash and authority.lower() == host else b""
