"""Identical requests on their way: one goes to the upstream, the others wait for its answer.

    leader's answer is stored         -> all that it fits are answered from the cache, the others look again
    leader's answer is not storable   -> each goes on its own, and for a while nobody waits for this key
    leader's client leaves            -> the one who waits longest leads on
    leader fails                      -> a stale answer for all, if there is one that may be used for that; else the one
                                         who waits longest leads on, once; if that fails too, each goes on its own
    a wait is too long                -> that one goes on its own

So nobody waits for more than two upstream requests of others one after the other (the "serialisation" that Varnish's
hit-for-miss objects are for), and nobody longer than `join` from his arrival (nginx's proxy_cache_lock_timeout).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.worker.wheel import NEVER, Timed, Wheel

if TYPE_CHECKING:
    from edgeq.cache.cache import RouteCache
    from edgeq.response.relay import Exchange

MAX_JOINED: Final = 4096
"""Who comes when so many wait goes on alone."""


class Flight(Timed):
    """One request to the upstream and who waits for its answer."""

    __slots__ = ("_wheel", "cache", "joined", "key", "leader", "taken_over")

    def __init__(self, cache: RouteCache, key: bytes, leader: Exchange, wheel: Wheel) -> None:
        super().__init__()
        self.cache: RouteCache = cache
        self.key = key
        """Of the cache's flights: what is asked for, and the variant, once it is known by what answers vary."""
        self.leader: Exchange = leader
        self.joined: dict[Exchange, float] = {}
        """Since when, the longest first."""
        self.taken_over: bool = False
        """A leader has failed, and another one has taken its place."""
        self._wheel: Wheel = wheel

    def join(self, exchange: Exchange, now: float) -> bool:
        """Wait for the leader's answer. Returns: False if too many do."""
        if len(self.joined) >= MAX_JOINED:
            return False
        if not self.joined:
            self._wheel.schedule(self, now + self.cache.settings.join_s)
        self.joined[exchange] = now
        return True

    def leave(self, exchange: Exchange) -> None:
        """Somebody does not wait any more."""
        self.joined.pop(exchange, None)

    def on_expire(self, now: float) -> None:
        """Let go who has waited too long."""
        join_s = self.cache.settings.join_s
        late: list[Exchange] = []
        expire_at = NEVER
        for exchange, since in self.joined.items():
            if now - since < join_s:
                expire_at = since + join_s
                break
            late.append(exchange)
        if expire_at < NEVER:
            self._wheel.schedule(self, expire_at)
        for exchange in late:
            if exchange in self.joined:
                del self.joined[exchange]
                self.cache.go_on(exchange, None, now)

    def landed(self, is_stored: bool, now: float) -> None:
        """The leader's answer is there: stored and fresh, or nothing that may be shared."""
        for exchange in self._close():
            if exchange.ended:
                continue
            if is_stored:
                self.cache.look_again(exchange, now)
            else:
                self.cache.go_on(exchange, None, now)

    def landed_stale(self, now: float) -> None:
        """The upstream has failed the leader, who got what is stored all the same."""
        for exchange in self._close():
            if not exchange.ended:
                self.cache.use_stale(exchange, now)

    def lost(self, failed: bool, now: float) -> None:
        """The leader has ended without an answer: its client has left, or it has failed."""
        if failed and self.taken_over:
            self.landed(False, now)
            return
        self.taken_over = self.taken_over or failed
        for exchange in self.joined:
            del self.joined[exchange]
            self.leader = exchange
            self.cache.go_on(exchange, self, now)
            return
        self._close()

    def _close(self) -> list[Exchange]:
        """Nobody can join any more. Returns: who waits."""
        self.cache.flights.pop(self.key, None)
        self._wheel.remove(self)
        waiting = list(self.joined)
        self.joined.clear()
        return waiting

    def snapshot(self, now: float) -> dict[str, float | int]:
        """Who waits, and for how long."""
        oldest_s = 0.0
        for since in self.joined.values():
            oldest_s = now - since
            break
        return {"joined": len(self.joined), "oldest_wait_s": oldest_s}
