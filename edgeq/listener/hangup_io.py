"""Clients that leave while the loop does not listen to them.

The loop polls no connection whose reading is paused (a slow upstream, a full tunnel), nor one whose FIN has been read.
So it would not hear that such a client has reset, and what runs for it would go on until a time-out. Here these few are
asked now and then, many by one poll(2); it costs nothing where nobody is held up, and nothing for a request.

What Linux says (net/ipv4/tcp.c tcp_poll, net/unix/af_unix.c unix_poll):

    POLLERR     a reset: whatever the client has sent before it, it takes no answer. Gone.
    POLLHUP     closed both ways. Without a FIN of ours: gone; only Unix sockets say so without POLLERR. With our FIN,
                which a tunnel passes on, it is the client's FIN, perhaps behind bytes that the upstream shall have.
    POLLRDHUP   the client's FIN, perhaps behind unread bytes: legal, its answer may be wanted.

A FIN follows `timeouts.half_close`, as when it is read: if no answer has begun, the request may stand still for so long
and is then cancelled. It stands still while the upstream takes nothing of it; as long as it moves, the rest of it is
waited for, and then its FIN is read and the same time begins again.

Connections to upstreams need none of this. One whose reading is paused has a client that is slow: what waits in the
kernel stays there after a reset and may hold the end of the answer, so to cut it would harm who reads on; and a client
that does not read on is cut off by `timeouts.write`, which ends the upstream's connection as well.
"""

from __future__ import annotations

import select
from typing import Any, Final

from edgeq.listener.connection import Downstream
from edgeq.response.relay import Exchange
from edgeq.worker.wheel import Timed

LOOK_S: Final = 0.5
"""Between two looks at the same connection."""
MAX_AT_ONCE: Final = 256
"""In one tick, for 0.1 ms of it (measured with 256 socket pairs); 5,000 are then seen in each second."""


class HangupWatch:
    """Looks after `Shard.unpolled`; called on each tick."""

    __slots__ = ("_at", "_left", "_still")

    def __init__(self) -> None:
        self._at = 0.0
        self._left: list[Timed] = []
        """Whose turn comes in this round."""
        self._still: dict[Downstream, tuple[Exchange, int, float]] = {}
        """Requests whose client has sent its FIN: what had been taken of them at the last look, and since when."""

    def look(self, unpolled: set[Timed], now: float) -> None:
        """Ask the kernel about some of these connections; all have their turn in LOOK_S."""
        left = self._left
        if not left:
            if now < self._at:
                return
            self._at = now + LOOK_S
            left.extend(unpolled)
            if self._still:
                self._still = {down: seen for down, seen in self._still.items() if down in unpolled}
        poll = select.poll()
        asked: dict[int, Downstream] = {}
        for connection in left[-MAX_AT_ONCE:]:
            if isinstance(connection, Downstream) and connection in unpolled and not connection.closing:
                fd = _descriptor(connection.transport)
                if fd >= 0:
                    asked[fd] = connection
                    poll.register(fd, select.POLLRDHUP)
        del left[-MAX_AT_ONCE:]
        if asked:
            for fd, events in poll.poll(0):
                self._judge(asked[fd], events, now)

    def _judge(self, down: Downstream, events: int, now: float) -> None:
        exchange = down.exchange
        if exchange is None or events & select.POLLNVAL:  # ended in this turn, or about to be lost
            return
        if events & select.POLLERR or (events & select.POLLHUP and not exchange.has_passed_fin()):
            down.leave()
        elif not exchange.tunnel and not exchange.answer_started and not down.half_closed:
            self._fin_waits(down, exchange, now)

    def _fin_waits(self, down: Downstream, exchange: Exchange, now: float) -> None:
        """The FIN has not been read, and no answer has begun: does anything move?"""
        taken = exchange.taken_bytes()
        seen = self._still.get(down)
        if seen is None or seen[0] is not exchange or seen[1] != taken:
            self._still[down] = (exchange, taken, now)
        elif now - seen[2] >= down.settings.half_close_s:
            del self._still[down]
            down.leave()


def _descriptor(transport: Any) -> int:
    extra = transport.get_extra_info("socket")
    return -1 if extra is None else int(extra.fileno())
