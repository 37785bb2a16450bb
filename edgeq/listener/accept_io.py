"""The accept loop on the listening socket: in a budget, pausable, and alive when descriptors run out.

Invariants:
- a turn of the loop accepts at most a budget; the rest stays readable (the descriptor is watched level-triggered), so
  the next turn goes on, and all other work had its turn before;
- every accepted descriptor goes to the reception, which closes it exactly once;
- `on_empty` of `retire` is called when nothing that was accepted still waits for its protocol.

Who waits in the kernel's queue has no deadline, no order and no answer. So accepting stops only for a shortage of
descriptors or memory, or when the operator says so; a full listener accepts, and lets wait or refuses.

What a request has waited in the kernel's queue counts (deadline, age in our queues, access log). It cannot be longer
than since the queue was last found empty, so the kernel is only asked when that is WAIT_S ago: for each connection of a
worker that is behind or has little to do, and for none of one that is busy and keeps up.

Inherited from the listening socket by accept(2) on Linux, hence set once: TCP_NODELAY, TCP_NOTSENT_LOWAT, SO_RCVBUF
(not O_NONBLOCK: libuv sets it). SO_KEEPALIVE stays off: the time-outs of HTTP find dead peers sooner.

Why not loop.create_server on a duplicate: it is the cheapest, but a budget, a pause that keeps the handle, a PROXY
header before the transport, and our own order and answers when the listener is full are not to be had with it.
Measured 2026-11-23 with benchmarks/micro_accept.py (Linux 6.18, 2 shared CPUs, Python 3.11.7, uvloop 0.23.0,
interpreted; CPU microseconds per connection, user and system, medians of 15 alternating rounds of 3000, 32 at once; the
machine was not idle, so only differences within one run mean something):

    create_server(sock=dup)                        50.8   1.00
    add_reader, Task per connection                67.2   1.32
    add_reader, stepped, future's callback         63.7   1.25
    add_reader, stepped, one callback a turn       61.0   1.20
    this class, all included                       56.4   1.11

In another run create_server took 46.1 and this class 53.1; with TCP handles instead of plain stream handles (open_io)
55.8, with socket.accept() instead of bare descriptors (descriptor_io) 62.7.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from edgeq.admission.pressure import Pressure
from edgeq.config.schema import Listener
from edgeq.listener.accept_policy import AcceptPolicy, Event, LogPace, State, Verdict, verdict
from edgeq.listener.descriptor_io import bound_address, descriptor_accept, drops_of, open_spare
from edgeq.listener.open_io import MakeProtocol
from edgeq.listener.peer import UNIX_HOST, Peer, plain_host
from edgeq.listener.reception_io import FD_EXHAUSTED, ConnectionGate, EventLog, Reception
from edgeq.listener.tcp_info_io import queue_fill
from edgeq.listener.tls_io import TlsContexts
from edgeq.observe.refusals import Refusals
from edgeq.supervisor.bpf_io import is_refusing

__all__ = ["Acceptor", "ConnectionGate", "EventLog"]

OVERFLOW: Final = "accept_backlog_overflow"
MEMORY_PRESSURE: Final = "memory_pressure"
_TCP_NOTSENT_LOWAT: Final = 25
"""linux/tcp.h; the socket module has no name for it in Python 3.11."""

WAIT_S: Final = 0.005
"""A shorter wait in the kernel's queue is not asked for, and not counted (nor is one over a Unix socket, which does not
tell). To ask costs 0.6 microseconds, a connection 60 to 100."""


def _no_lag() -> float:
    return 0.0


class Acceptor:
    """Accepts on one listening socket. All methods are called in the loop's thread."""

    __slots__ = (
        "_accept",
        "_accepted",
        "_config",
        "_drops",
        "_emptied_at",
        "_is_unix",
        "_lag_s",
        "_log",
        "_loop",
        "_name",
        "_on_empty",
        "_pace",
        "_policy",
        "_pressure",
        "_reception",
        "_refusals",
        "_rest_timer",
        "_skipped",
        "_sock",
        "_spare",
        "_watched",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Listener,
        sock: socket.socket,
        make_protocol: MakeProtocol,
        gate: ConnectionGate,
        refusal: Callable[[str, str], bytes],
        tls: TlsContexts | None,
        log: EventLog,
        refusals: Refusals,
        lag_s: Callable[[], float] = _no_lag,
        pressure: Pressure | None = None,
    ) -> None:
        """Take over a bound, listening socket of this process; `refusal(reason, resource)` makes an HTTP response.

        `lag_s()` tells how much the loop lags; under `pressure` fewer connections are accepted in a turn. For the gate
        a listener is its address, which never changes.
        """
        self._loop = loop
        self._config = config
        self._name = config.name or config.address
        self._sock = sock
        self._log = log
        self._refusals = refusals
        self._lag_s = lag_s
        self._pressure = pressure
        self._is_unix = sock.family == socket.AF_UNIX
        self._accept = descriptor_accept(sock)
        self._policy = AcceptPolicy(config.accept_budget, config.accept_budget_lagging)
        self._pace = LogPace()
        self._spare = open_spare()
        self._watched = False
        self._rest_timer: asyncio.TimerHandle | None = None
        self._on_empty: Callable[[], None] | None = None
        self._accepted = 0
        self._skipped = 0
        self._drops: int = drops_of(sock)
        self._emptied_at: float = 0.0
        """When the queue was last found empty, or a moment before: it may be inherited full."""
        sock.setblocking(False)
        self._set_options()
        self._reception = Reception(
            loop,
            config,
            int(sock.family),
            bound_address(sock),
            make_protocol,
            gate,
            refusal,
            tls,
            log,
            refusals,
            self._tell_if_empty,
        )

    # -- what the worker asks for

    def start(self) -> None:
        """Begin to accept."""
        self._move(Event.START)

    def pause(self) -> None:
        """Leave newcomers in the kernel's queue. Nothing happens to a listener that retires or is closed."""
        if not self._policy.retiring() and self._policy.state is not State.CLOSED:
            self._stop_resting()
            self._move(Event.PAUSE)

    def resume(self) -> None:
        """Accept again."""
        if not self._policy.retiring() and self._policy.state is not State.CLOSED:
            self._move(Event.RESUME)

    def update(self, config: Listener, tls: TlsContexts | None) -> None:
        """Take over a new configuration in place: newcomers see it, who is connected keeps what it has."""
        backlog, self._config = self._config.backlog, config
        self._name = config.name or config.address
        self._policy.budget_calm = config.accept_budget
        self._policy.budget_lagging = config.accept_budget_lagging
        if self._policy.state is not State.CLOSED:
            if config.backlog != backlog:
                # listen(2) on a listening socket changes its queue's length and loses nobody who waits in it.
                self._sock.listen(config.backlog)
            self._set_options()
        self._reception.update(config, tls)

    def retire(self, on_empty: Callable[[], None]) -> None:
        """Accept until the kernel's queue is empty, then stop watching and close this process's descriptor.

        `on_empty()` is called once, afterwards, when no accepted connection waits for its protocol any more (the
        backlog, PROXY headers and TLS handshakes have time-outs, so this is soon).
        """
        self._on_empty = on_empty
        self._reception.retire()
        if self._policy.state is State.CLOSED:
            self._loop.call_soon(self._tell_if_empty)
            return
        self._stop_resting()
        if not self._policy.retiring():
            self._move(Event.RETIRE)
        self._loop.call_soon(self._on_readable)  # an empty queue makes no event

    def close(self) -> None:
        """Give up at once: close the listening socket and all that wait. TLS handshakes go on to their time-out."""
        if self._policy.state is not State.CLOSED:
            self._leave(Event.CLOSE)
        self._stop_resting()
        self._reception.close()
        self._tell_if_empty()

    def tick(self) -> None:
        """Called by the worker now and then."""
        self._reception.tick()
        if self._policy.state is not State.CLOSED:
            drops = drops_of(self._sock)
            if drops != self._drops:
                if not is_refusing(self._sock):
                    self._tell_drops((drops - self._drops) & 0xFFFF_FFFF)
                self._drops = drops

    def _tell_drops(self, count: int) -> None:
        """The kernel had no room for connections: their clients try again, and see nothing but a delay."""
        resource = f"listener/{self._name}:accept"
        self._refusals.count(OVERFLOW, resource, count)
        if (left_out := self._pace.allow(OVERFLOW, self._loop.time())) >= 0:
            self._log.warning("accept_overflow", reason=OVERFLOW, resource=resource, count=count, left_out=left_out)

    def fill(self) -> float:
        """How full the kernel's accept queue is, as a share of its limit (0 for Unix sockets, which do not tell)."""
        if self._is_unix or self._policy.state is State.CLOSED:
            return 0.0
        return queue_fill(self._sock)

    def released(self, peer: Peer) -> None:
        """A protocol has lost its connection: its place is free, and the next in the backlog may have it."""
        self._reception.released(peer)

    def admit_waiting(self) -> None:
        """Another worker has freed a place: who waits may have it. (Without this call it is seen at the next tick.)"""
        self._reception.admit_waiting()

    def snapshot(self) -> dict[str, object]:
        """What is held, who waits, since when, and why the last one was refused."""
        return {
            "listener": self._name,
            "state": self._policy.state.value,
            "accepted": self._accepted,
            "skipped": self._skipped,
            "shortages": self._policy.shortages,
        } | self._reception.snapshot()

    # -- state

    def _set_options(self) -> None:
        if not self._is_unix:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, int(self._config.send_buffer))
            if self._config.receive_buffer:  # the kernel doubles what it is asked for (socket(7))
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(self._config.receive_buffer) // 2)

    def _move(self, event: Event) -> None:
        self._policy.fire(event)
        self._watch()

    def _watch(self) -> None:
        """Watch the socket or not, as the state wants it."""
        watching = self._policy.watching()
        if watching and not self._watched:
            self._loop.add_reader(self._sock.fileno(), self._on_readable)
        elif self._watched and not watching:
            self._loop.remove_reader(self._sock.fileno())
        self._watched = watching

    def _leave(self, event: Event) -> None:
        self._move(event)
        self._sock.close()
        self._close_spare()
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if self._on_empty is None or self._policy.state is not State.CLOSED or self._reception.pending():
            return
        on_empty = self._on_empty
        self._on_empty = None
        on_empty()

    # -- the accept loop

    def _on_readable(self) -> None:
        if not self._watched:
            return
        accept = self._accept
        receive = self._reception.receive
        budget = self._policy.budget(self._lag_s())
        if self._pressure is not None:
            budget = self._pressure.budget(budget)
        now = monotonic()
        late = now - self._emptied_at >= WAIT_S and not self._is_unix
        for _ in range(budget):
            try:
                fd, address = accept()
            except BlockingIOError:
                self._emptied_at = now
                if self._policy.retiring():
                    self._leave(Event.DRAINED)
                return
            except OSError as exc:
                if self._on_accept_error(exc):
                    continue
                return
            self._accepted += 1
            receive(fd, address, late)
            if not self._policy.watching():  # who was received may have had a reason to stop us
                return
        if self._policy.retiring():
            self._loop.call_soon(self._on_readable)  # also when the queue has just become empty

    def _on_accept_error(self, exc: OSError) -> bool:
        """Returns whether to go on in this turn."""
        what = verdict(exc.errno or 0)
        if what is Verdict.SKIP:
            self._skipped += 1
            return True
        if what is Verdict.BROKEN:
            self._log.error("listener_broken", listener=self._name, error=exc.strerror)
            self._leave(Event.CLOSE)
            return False
        now = self._loop.time()
        if what is Verdict.SHED:
            self._shed_one(exc, now)
        elif (left_out := self._pace.allow("accept_failed", now)) >= 0:
            self._log.error("accept_failed", listener=self._name, error=exc.strerror, left_out=left_out)
        rest_s = self._policy.exhausted(now)
        self._watch()
        self._rest_timer = self._loop.call_later(rest_s, self._on_rested)
        return False

    def _shed_one(self, shortage: OSError, now: float) -> None:
        """Use the spare descriptor to give one connection an answer instead of a silence. If that does not help it is
        counted as well: who waits in the kernel's queue is told of by nothing else."""
        reason = MEMORY_PRESSURE if shortage.errno in (errno.ENOMEM, errno.ENOBUFS) else FD_EXHAUSTED
        self._close_spare()
        try:
            fd, address = self._accept()
        except BlockingIOError:
            pass
        except OSError:
            self._refusals.count(reason, f"listener/{self._name}:accept")
        else:
            self._accepted += 1
            host = UNIX_HOST if self._is_unix else plain_host(address[0])
            with contextlib.suppress(OSError):
                self._reception.refuse(fd, host, reason, linger=False)
        self._spare = open_spare()
        if (left_out := self._pace.allow("accept_shortage", now)) >= 0:
            self._log.error(
                "accept_shortage",
                listener=self._name,
                error=shortage.strerror or "",
                reason=reason,
                left_out=left_out,
            )

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _on_rested(self) -> None:
        self._rest_timer = None
        if self._spare < 0:
            self._spare = open_spare()
        self._move(Event.RESTED)
        if self._policy.retiring():
            self._loop.call_soon(self._on_readable)

    def _stop_resting(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
            if self._policy.state is State.RETIRING_BACKING_OFF:
                self._move(Event.RESTED)
