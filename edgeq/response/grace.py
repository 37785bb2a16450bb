"""Degrading with grace: what an exchange knows of its route's cache and fallback, and what it gets from them.

An exchange has a `Grace` if its route has a cache or a fallback; all others have None, and the relay asks no more than
that. The relay calls it at the joints of an exchange's life:

    request           answers()      from the cache, or it waits for an identical one; else on to the upstream
    begin             prefix()       ask the upstream for what can be stored, or whether what is stored is still good
    head of answer    replaces()     304 to our own question, or a failure for which something better is here
                      passes()       else the answer goes on to the client, and is collected for the cache
    bytes of answer   body()
    failure           instead()      a stale answer, another upstream, a prepared answer; in this order
    client reads on   resume()       an answer from the cache was held back while it had not read the one before
    end               end()          store what was collected, let go who waits for it

Only before the first byte of an answer has gone to the client is anything replaced. What is served so is said in the
answer (Cache-Status, RFC 9211; Proxy-Status, RFC 9209) and in the access log, which keeps the first reason.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.policy.headers import without
from edgeq.reasons import REASONS
from edgeq.response.rescue import UNKNOWN, prepared, proxy_status_line, pseudonym

if TYPE_CHECKING:
    from edgeq.cache.cache import RouteCache
    from edgeq.cache.collector import Collector
    from edgeq.cache.entry import Entry
    from edgeq.cache.flight import Flight
    from edgeq.cache.wish import Wish
    from edgeq.policy.fallback import Fallback
    from edgeq.response.relay import Exchange
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.wire.head import ResponseHead

_ERRORS: Final = frozenset((500, 502, 503, 504))
"""For which a stale answer may be used (RFC 5861 4)."""
_ABANDONED: Final = frozenset(("client_gone", "client_stalled", "draining", "internal_error"))
"""Ends of a leader that say nothing about the upstream."""
_FINAL: Final = frozenset(("draining", "internal_error"))
"""After which the connection is to end, so nothing else is served."""
_BIG: Final = 16 * 1024

HIT: Final = "hit"
STALE: Final = "stale"
JOINED: Final = "joined"
REVALIDATED: Final = "revalidated"
STALE_IF_ERROR: Final = "stale-if-error"
MISS: Final = "miss"
BYPASS: Final = "bypass"


class Grace:
    """Of one exchange."""

    __slots__ = (
        "_asked",
        "_fallback",
        "_held",
        "_served",
        "alone",
        "cache",
        "collapsed",
        "collector",
        "entry",
        "fetches",
        "first_reason",
        "first_resource",
        "forwarded_for",
        "how",
        "key",
        "leads",
        "served",
        "silent",
        "waits",
        "whole",
        "wish",
    )

    def __init__(self, cache: RouteCache | None, fallback: Fallback | None) -> None:
        self.cache: RouteCache | None = cache
        self._fallback: Fallback | None = fallback
        self.wish: Wish | None = None
        """What the request asks of a cache, once that has been looked at."""
        self.key = b""
        self.entry: Entry | None = None
        """What is stored, but may not be used as it is."""
        self.fetches: bool = False
        """The upstream's answer may be stored."""
        self.forwarded_for = ""
        """Why it goes on to the upstream, in the words of RFC 9211 2.2."""
        self.collector: Collector | None = None
        self.whole: bool = False
        """The last byte of the answer has come."""
        self.leads: Flight | None = None
        self.waits: Flight | None = None
        self.collapsed: bool = False
        """It has waited for another's answer."""
        self.alone: bool = False
        """It waits for nobody any more."""
        self.silent: bool = False
        """There is no client: it refreshes what is stored."""
        self.how = ""
        """How the cache has answered, for the log."""
        self.served = ""
        """What was served in place of a refusal, for the log."""
        self.first_reason = ""
        self.first_resource = ""
        """Why it has turned to another upstream."""
        self._asked: bool = False
        """The upstream was asked whether `entry` is still good."""
        self._held: Entry | None = None
        """To be served once the client has read what it got before."""
        self._served: Entry | None = None

    # -- the request --------------------------------------------------------------------------------------------------

    def answers(self, exchange: Exchange, now: float) -> bool:
        """A request has come, and is on no way yet. Returns: True if it is answered, or waits for another's answer."""
        cache = self.cache
        return cache is not None and cache.answer(exchange, self, now)

    def prefix(self, prefix: bytes) -> bytes:
        """The first part of the head to forward: with our conditions in place of the client's, because the whole answer
        is wanted for others as well."""
        if not self.fetches:
            return prefix
        prefix = without(without(prefix, b"if-none-match"), b"if-modified-since")
        entry = self.entry
        conditions = entry.conditions() if entry is not None else b""
        self._asked = len(conditions) > 0
        return prefix + conditions

    # -- the answer ---------------------------------------------------------------------------------------------------

    def replaces(self, exchange: Exchange, up: UpstreamConnection, answer: ResponseHead, size: int, now: float) -> bool:
        """The head of an answer is here, with `size` bytes of its body. Returns: True if it is not to be passed on,
        because this has seen to the client."""
        cache = self.cache
        entry = self.entry
        status = answer.status
        if status == 304 and self._asked and cache is not None:
            exchange.put_back(up, answer, size, now)
            fresh = cache.freshen(exchange, self, answer, now)
            if fresh is not None:
                self.serve(exchange, fresh, REVALIDATED, now)
            else:  # about something that is not here: ask for all of it
                self.entry = None
                exchange.again()
            return True
        if self.silent:
            return False
        fallback = self._fallback
        stale = status in _ERRORS and entry is not None and entry.may_replace_error(now)
        if not stale and (
            fallback is None
            or status not in fallback.statuses
            or (fallback.answer is None and not self._may_turn(exchange, fallback, now))
        ):
            return False
        exchange.put_back(up, answer, size, now)
        exchange.reason = "upstream_shed" if status in (429, 503) else "upstream_failed"
        exchange.resource = up.pool.resource
        if not stale or not self.serve_stale(exchange, now):
            detail = f"the upstream answered {status}"
            if fallback is not None:
                self._fall_back(exchange, fallback, exchange.reason, exchange.resource, detail, UNKNOWN, now)
        return True

    def passes(self, exchange: Exchange, answer: ResponseHead, kind: int, now: float) -> bytes:
        """The answer goes on to the client; collect it if it may be stored. `kind`: how its body is framed.

        Returns: lines for its head.
        """
        forward = exchange.down.shard.forward
        node = forward.node
        if self.first_reason:
            return proxy_status_line(node, self.first_reason, forward.told(self.first_resource), self.served)
        cache = self.cache
        wish = self.wish
        if cache is None or wish is None:
            return b""
        if wish.unsafe:
            if 200 <= answer.status < 400:
                cache.invalidate(self.key, exchange, answer)
            return b""
        self.how = BYPASS if wish.passes else MISS
        if self.fetches:
            cache.collect(exchange, self, answer, kind, now)
        stored = "; stored" if self.collector is not None else ""
        if self.collector is None and self.leads is not None:
            self._let_go(answer.status, now)
        return f"cache-status: {pseudonym(node)}; fwd={self.forwarded_for}{stored}\r\n".encode("latin-1")

    def body(self, exchange: Exchange, data: bytes) -> None:
        """Bytes of the answer, as they go to the client."""
        collector = self.collector
        cache = self.cache
        if collector is None or cache is None or collector.add(data):
            return
        self.collector = None
        cache.release(collector)
        if exchange.down.write_blocked:  # up to now it was read on for the cache
            exchange.pause_answer()
        self._let_go(exchange.status, monotonic())

    def _let_go(self, status: int, now: float) -> None:
        """The answer is nobody else's: do not let the others wait for its end."""
        flight = self.leads
        cache = self.cache
        if flight is None or cache is None:
            return
        self.leads = None
        if status >= 500:
            flight.lost(True, now)
            return
        cache.mark(self.key, now)
        flight.landed(False, now)

    # -- from the cache -----------------------------------------------------------------------------------------------

    def serve(self, exchange: Exchange, entry: Entry, how: str, now: float) -> None:
        """Answer from the cache; `how` is HIT, STALE, REVALIDATED or STALE_IF_ERROR."""
        down = exchange.down
        self.how = JOINED if self.collapsed and how == HIT else how
        self._served = entry
        if down.write_blocked:
            # Many pipelined requests must not fill the memory with answers that nobody reads.
            self._held = entry
            exchange.give_up(now)
            self._land(exchange, entry if how == REVALIDATED else None, now)
            return
        exchange.keep_alive = down.may_keep(exchange)
        wish = self.wish
        if wish is not None and wish.has(entry):
            head = entry.not_modified()
            exchange.status = 304
            body = b""
        else:
            head = entry.head
            exchange.status = entry.status
            body = entry.body if exchange.head.method != b"HEAD" else b""
        exchange.answer_bytes = len(body)
        connection = b""
        if not exchange.keep_alive:
            connection = b"connection: close\r\n"
        elif exchange.head.minor == 0:
            connection = b"connection: keep-alive\r\n"
        parts = (
            head,
            self._status_line(exchange, entry, now),
            exchange.answer_lines,
            connection,
            b"x-request-id: ",
            exchange.request_id,
            b"\r\n\r\n",
        )
        if len(body) <= _BIG:
            down.transport.write(b"".join((*parts, body)))
        else:  # the body is not copied: many clients read the same bytes
            down.transport.writelines((b"".join(parts), body))
        exchange.finish_here()

    def resume(self, exchange: Exchange) -> None:
        """The client has read what it got before."""
        entry = self._held
        if entry is not None:
            self._held = None
            how = HIT if self.how == JOINED else self.how
            self.serve(exchange, entry, how, monotonic())

    def _status_line(self, exchange: Exchange, entry: Entry, now: float) -> bytes:
        """Age and Cache-Status (RFC 9111 5.1, RFC 9211)."""
        age_s = int(entry.age_s(now))
        name = pseudonym(exchange.down.shard.forward.node)
        how = self.how
        if how == HIT:
            said = "hit"
        elif how == STALE:
            said = "hit; detail=stale-while-revalidate"
        elif how == JOINED:
            said = f"fwd={self.forwarded_for}; collapsed"
        elif how == REVALIDATED:
            said = f"fwd={self.forwarded_for}; fwd-status=304"
        else:
            said = f"fwd={self.forwarded_for}; detail=stale-if-error"
        line = f"age: {age_s}\r\ncache-status: {name}; {said}; ttl={int(entry.lifetime_s - entry.age_s(now))}\r\n"
        if how == STALE_IF_ERROR and exchange.reason:
            forward = exchange.down.shard.forward
            resource = forward.told(exchange.resource)
            return line.encode("latin-1") + proxy_status_line(forward.node, exchange.reason, resource, "stale")
        return line.encode("latin-1")

    def serve_stale(self, exchange: Exchange, now: float) -> bool:
        """Who led has failed: answer with what is stored, as far as it may be used for that."""
        entry = self.entry
        if entry is None or self._held is not None or self.silent or not entry.may_replace_error(now):
            return False
        self.serve(exchange, entry, STALE_IF_ERROR, now)
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(self, exchange: Exchange, now: float) -> None:
        """The exchange has ended."""
        if self.silent:
            exchange.keep_alive = False
        self._stop_waiting(exchange)
        self._held = None
        cache = self.cache
        if cache is None:
            return
        entry: Entry | None = None
        collector = self.collector
        if collector is not None:
            self.collector = None
            if self.whole and self.wish is not None:
                entry = cache.keep(collector, self.wish)
            cache.release(collector)
        elif self.how == REVALIDATED:
            entry = self._served
        self._land(exchange, entry, now)

    def _stop_waiting(self, exchange: Exchange) -> None:
        waits = self.waits
        if waits is not None:
            self.waits = None
            waits.leave(exchange)

    def _land(self, exchange: Exchange, entry: Entry | None, now: float) -> None:
        """Tell those who wait how it went. `entry`: what is stored now, if anything."""
        cache = self.cache
        if cache is None:
            return
        is_fresh = entry is not None and entry.is_fresh(now)
        if is_fresh:
            cache.unmark(self.key)
        flight = self.leads
        if flight is None:
            return
        self.leads = None
        if is_fresh:
            flight.landed(True, now)
        elif self.how == STALE_IF_ERROR:
            flight.landed_stale(now)
        elif entry is not None or self.whole:
            cache.mark(self.key, now)
            flight.landed(False, now)
        else:
            flight.lost(exchange.reason not in _ABANDONED, now)

    # -- something better than a refusal ------------------------------------------------------------------------------

    def instead(self, exchange: Exchange, reason: str, resource: str, detail: str, retry_after_s: float) -> bool:
        """A request is about to be refused; nothing of an answer has gone to the client. Returns: True if it got, or
        will get, something better. Arguments are those of `rescue.refusal`."""
        if self.silent:
            return False
        self._stop_waiting(exchange)
        now = monotonic()
        if reason not in _FINAL and REASONS[reason].fault != "C" and self.serve_stale(exchange, now):
            return True
        fallback = self._fallback
        if fallback is None or reason not in fallback.reasons or self._held is not None:
            return False
        return self._fall_back(exchange, fallback, reason, resource, detail, retry_after_s, now)

    def _may_turn(self, exchange: Exchange, fallback: Fallback, now: float) -> bool:
        """May the request go to the other upstream: in time, and because none has had it, or it may be sent twice?"""
        if fallback.route is None or now >= exchange.deadline_at:
            return False
        return exchange.attempts == 0 or exchange.is_replayable()

    def _fall_back(
        self,
        exchange: Exchange,
        fallback: Fallback,
        reason: str,
        resource: str,
        detail: str,
        retry_after_s: float,
        now: float,
    ) -> bool:
        """The other upstream, else the prepared answer. Returns: False if there is neither."""
        other = fallback.route
        answer = fallback.answer
        if other is not None and self._may_turn(exchange, fallback, now):
            self.first_reason = reason
            self.first_resource = resource
            self.served = other.upstream.resource
            self._fallback = other.fallback
            self._step_aside(now)
            exchange.turn(other, now)
            return True
        if answer is None:
            return False
        self.served = "answer"
        down = exchange.down
        exchange.keep_alive = down.may_keep(exchange)
        exchange.status = answer.status
        forward = down.shard.forward
        text = prepared(
            answer,
            self.first_reason or reason,
            forward.told(self.first_resource or resource),
            detail,
            exchange.request_id,
            forward.node,
            exchange.keep_alive,
            exchange.head.method == b"HEAD",
            retry_after_s,
            exchange.answer_lines,
        )
        down.transport.write(text)
        exchange.answer_bytes = len(text) - text.find(b"\r\n\r\n") - 4
        exchange.finish_here()
        return True

    def _step_aside(self, now: float) -> None:
        """The request turns to another upstream, whose answer is not for the cache."""
        self.fetches = False
        self.entry = None
        flight = self.leads
        if flight is not None:
            self.leads = None
            flight.lost(True, now)
