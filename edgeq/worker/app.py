"""One worker: builds and wires all steps of a request's path, and changes them in place.

listener    an Acceptor for each listening socket, connections as protocols of the loop (listeners_io.py)
route       one RouteTable, swapped whole, and what outlives it: limits, rates, caches (routes.py)
policy      forwarding policy, trusted networks
upstream    an UpstreamService for each named upstream (upstreams.py)
response    access records in a ring, written on the tick
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Collection, Iterator
from time import monotonic, time
from typing import Any

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.pressure import BEGAN, ENDED, IDLE_FROM
from edgeq.board.gate import BoardGate
from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover_io import Doorbell
from edgeq.board.layout import STATE_DRAINING, STATE_SERVING, Board
from edgeq.board.resources import Resources
from edgeq.config.schema import Config, Protect
from edgeq.explain import keep
from edgeq.listener.connection import Downstream
from edgeq.listener.hangup_io import HangupWatch
from edgeq.listener.splice_io import Splicer
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.build import ModelBuilder
from edgeq.llm.ledger import Ledger
from edgeq.llm.till import Till
from edgeq.observe import log_io
from edgeq.observe.access_io import AccessLogWriter
from edgeq.policy.deadline import DeadlineHeader
from edgeq.policy.headers import (
    FORWARDED,
    OFF,
    TRACE_BEGIN,
    TRACE_OFF,
    TRACE_PASS,
    TRACE_SPANS,
    X_FORWARDED,
    ForwardPolicy,
)
from edgeq.supervisor.messages import AccountsTold, Message, SeenConnection, UsageTaken
from edgeq.trace.tracing_io import Tracing
from edgeq.worker import connections, report
from edgeq.worker.listeners_io import Listeners
from edgeq.worker.loop_io import WorkerLoop
from edgeq.worker.readings_io import Readings
from edgeq.worker.routes import Routes
from edgeq.worker.shard import NEVER_SLOW_S, Shard
from edgeq.worker.upstreams import Upstreams

_CLIENTS = {"x-forwarded": X_FORWARDED, "forwarded": FORWARDED, "off": OFF}
_TRACES = {"begin": TRACE_BEGIN, "pass": TRACE_PASS, "off": TRACE_OFF}
_SWEEP_S = 1.0
"""Under pressure: between two looks for idle connections."""


class App:
    """One worker's whole data plane. Built before the loop runs, started in it."""

    def __init__(
        self,
        slot: int,
        workers: int,
        generation: int,
        config: Config,
        ticket_secret: bytes,
        sockets: dict[str, socket.socket],
        board: Board,
    ) -> None:
        self._slot = slot
        self._workers = workers
        self._config = config
        self._ticket_secret = ticket_secret
        self._sockets = sockets
        """For the listeners, which `start` makes; so is the secret."""
        self._board = board
        self._row = board.row(slot)
        self._log: Any = log_io.get_logger(worker=slot)
        self._access = AccessLogWriter(config.access_log.target, config.access_log.format, log=self._log)
        self._old_access: AccessLogWriter | None = None
        """The one that a reload has replaced, while lines wait in it."""
        self._tracing = Tracing(slot, self._log)
        self._generation = generation
        self._doorbell = Doorbell(board, slot)
        self._resources = Resources(board, self._doorbell.neighbours)
        """By which limits, breakers and so on hold for all workers together."""
        self.accounts = AccountsHolder()
        """Whose virtual keys there are, and what is used: for routes that serve models."""
        self._arrivals = GcraTable(board, slot)
        """What rates know of their keys; stays when rates change."""
        self._ledger = Ledger(self._arrivals, board, self._doorbell.neighbours, self._log)
        self._till = Till(self.accounts, self._ledger)
        self._model_builder: ModelBuilder
        self._hangups = HangupWatch()
        self._drain_done: Callable[[], None] | None = None
        self._drain_deadline = 0.0
        self._readings = Readings(workers)
        self._sweep_at = 0.0
        self._told = report.RefusalsTold()
        self._loop: WorkerLoop
        self._shard: Shard
        self._listeners: Listeners
        self._upstreams: Upstreams
        self._routes: Routes

    def start(self, loop: WorkerLoop) -> None:
        """Begin to accept."""
        self._loop = loop
        config = self._config
        self._shard = Shard(_forward_policy(config), self._access.ring, self._log, loop.call_soon, loop.call_later)
        self._shard.splicer = Splicer()
        self._shard.gather_log = self._access.gather
        gate = BoardGate(self._board, self._slot)
        self._listeners = Listeners(loop, self._shard, gate, self._ticket_secret, self._sockets, self._log)
        self._ledger.tick(monotonic(), time())
        self.accounts.tick(monotonic(), time())  # what is used before the first tick is of today as well
        self._model_builder = ModelBuilder(self._till, self._resources, self._shard.fine_wheel, self._log)
        try:
            self._trace(config)
        except ValueError as error:  # as below
            self._log.error("trace.failed", problem=str(error))
        self._upstreams = Upstreams(loop, self._shard.wheel, config.dns, self._resources, self._log)
        self._routes = Routes(
            self._upstreams, self._model_builder, self._resources, self._arrivals, self.accounts, self._log
        )
        # A worker that replaces a dead one must not fail for what has happened to one upstream's files since then.
        self._configure(self._generation, config, self._board.started)
        self._shard.serving_since = monotonic()
        self._row.set_state(STATE_SERVING)
        loop.on_tick(self._tick_queues)
        loop.on_tick(self._tick_upstreams)
        loop.on_tick(self._tick_books)
        self._doorbell.start(loop, self._look)
        # Requests make no cycles, so collections only look in vain; what the rare paths leave is found all the same.
        gc.set_threshold(20_000, 50, 100)

    def apply(
        self,
        generation: int,
        workers: int,
        config: Config,
        sockets: dict[str, socket.socket],
        rereads: bool = True,
    ) -> None:
        """Take over a new configuration in place; `sockets` holds those of listeners that are new to this worker.

        rereads: certificates are read again, even where their names have not changed. It takes tens of milliseconds for
        each TLS of a listener and each different one of upstreams, in which nobody is served.
        """
        old = self._config
        same = set[str]()
        if not rereads and workers == self._workers:
            same = {name for name, one in config.upstream.items() if old.upstream.get(name) == one}
        self._workers = workers
        self._config = config
        self._listeners.add_sockets(sockets)
        if old.access_log != config.access_log:
            if self._old_access is not None:
                self._old_access.close(0.0)
            self._old_access = self._access
            self._old_access.retire()
            self._access = AccessLogWriter(config.access_log.target, config.access_log.format, log=self._log)
            self._shard.ring = self._access.ring
            self._shard.gather_log = self._access.gather
        if old.trace != config.trace or old.forward.trace != config.forward.trace:
            self._trace(config)
        if old.dns != config.dns:
            self._upstreams.configure_dns(config.dns)
        self._shard.forward = _forward_policy(config)
        self._configure(generation, config, False, rereads, same)

    def _configure(
        self,
        generation: int,
        config: Config,
        lenient: bool = False,
        rereads: bool = True,
        same: Collection[str] = (),
    ) -> None:
        """`same`: upstreams that have what they need."""
        shard = self._shard
        shard.log_enabled = config.access_log.target != "off"
        shard.slow_s = float(config.explain.slow) or NEVER_SLOW_S
        self._protect(config.protect)
        self._readings.configure(self._workers)
        self._upstreams.configure(config, self._workers, lenient, rereads, same)
        if config.accounts is not None:
            self.accounts.configure(float(config.accounts.flush), config.accounts.log_prompts)
        shard.routes = self._routes.build(config, generation, self._workers, shard.forward, lenient)
        shard.generation = generation
        self._routes.settle()
        self._upstreams.retire(config)
        for listener in config.listener:
            self._listeners.configure(listener, rereads)
        self._row.set_generation(generation)

    def _trace(self, config: Config) -> None:
        self._tracing.configure(config)
        self._shard.tracer = self._tracing.tracer

    def _protect(self, config: Protect) -> None:
        pressure = self._shard.pressure
        pressure.lag_full_s = float(config.loop_lag)
        pressure.memory_full = config.memory
        pressure.descriptors_full = config.descriptors
        self._shard.max_collected = int(config.model_bodies)
        self._shard.prepared.clear()

    def renew_tickets(self, secret: bytes) -> None:
        """Make and take TLS session tickets by this secret from now on."""
        self._listeners.renew_tickets(secret)

    def speak_by(self, send: Callable[[Message], None]) -> None:
        """How to tell the supervisor something, from now on."""
        self.accounts.send = send

    def hear(self, message: AccountsTold | UsageTaken) -> None:
        """What the supervisor tells of accounts."""
        self._ledger.tick(monotonic(), time())  # budgets are of a day, which it must know
        self.accounts.hear(message)

    # -- now and then -------------------------------------------------------------------------------------------------

    def _tick_queues(self, now: float) -> None:
        shard = self._shard
        shard.wheel.advance(now)
        self._resources.tick(now)
        self._listeners.tick()
        self._feel(now)
        if shard.unpolled:
            self._hangups.look(shard.unpolled, now)

    def _tick_upstreams(self, now: float) -> None:
        self._routes.tick(now)
        self._upstreams.tick(now)
        self._model_builder.tick(now)
        self._resources.flush()

    def _tick_books(self, now: float) -> None:
        shard = self._shard
        self._access.flush()
        if shard.kept_refused or shard.kept:
            refused, answered = self._board.requests(self._slot)
            keep.write(shard.kept_refused, refused, time() - monotonic())
            keep.write(shard.kept, answered, time() - monotonic())
        if self._old_access is not None and self._old_access.finish():
            self._old_access = None
        self._tracing.tick()
        wall_s = time()
        self._ledger.tick(now, wall_s)
        self.accounts.tick(now, wall_s)
        self._listeners.leave(now, float(self._config.server.drain_idle))
        if self._drain_done is not None:
            self._drain_step(now)

    def _look(self) -> None:
        """Another worker has left a place to one who waits here, or has moved a learned limit."""
        now = monotonic()
        self._routes.look(now)
        self._upstreams.look(now)

    def _feel(self, now: float) -> None:
        """Read how hard this worker is pressed, and close who has been idle for too long for that."""
        shard = self._shard
        pressure = shard.pressure
        fills = [acceptor.fill() for _, acceptor in self._listeners.acceptors()]
        descriptors = self._readings.descriptors(len(shard.downstreams) + self._upstreams.open_connections())
        pressure.update(self._loop.lag_s, self._readings.memory(now), descriptors, max(fills, default=0.0))
        news = pressure.news(now)
        if news == BEGAN:
            self._log.warning(BEGAN, resource=f"worker:{pressure.reason}")
        elif news:
            self._log.info(ENDED, resource=f"worker:{pressure.reason}")
        if pressure.value > IDLE_FROM and now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for connection in list(shard.downstreams):
                if isinstance(connection, Downstream):
                    connection.drain(now, pressure.idle_s(connection.settings.keepalive_s))

    # -- leaving ------------------------------------------------------------------------------------------------------

    def retire_listener(self, address: str, on_empty: Callable[[], None]) -> None:
        """Accept what waits in the kernel, stop watching, close our descriptor, then call back."""
        self._listeners.retire(address, float(self._config.server.drain_timeout), on_empty)

    def empty_queue(self, address: str, sock: socket.socket, on_empty: Callable[[], None]) -> None:
        """Serve what waits in the socket of a worker that is dead or stuck."""
        self._listeners.empty_queue(address, sock, on_empty)

    def drain(self, timeout_s: float, on_done: Callable[[], None]) -> None:
        """Finish what runs; idle connections are closed once they have been silent for `server.drain_idle`."""
        self._shard.draining = True
        self._row.set_state(STATE_DRAINING)
        self._drain_deadline = monotonic() + timeout_s
        self._drain_done = on_done
        self._drain_step(monotonic())

    def _drain_step(self, now: float) -> None:
        done = self._drain_done
        if done is None:
            return
        idle_s = float(self._config.server.drain_idle)
        for connection in list(self._shard.downstreams):
            if isinstance(connection, Downstream):
                connection.drain(now, idle_s)
        if self._shard.downstreams and now < self._drain_deadline:
            return
        if self._shard.downstreams:
            self._log.warning("drain_timeout", connections=len(self._shard.downstreams))
        self._drain_done = None
        done()

    def reopen_logs(self) -> None:
        """Open the access log's file again (log rotation)."""
        self._access.reopen()

    def stats(self) -> dict[str, int | float]:
        """Counters and gauges of this worker."""
        return {
            "connections": len(self._shard.downstreams),
            "requests": self._shard.requests,
            "in_flight": self._shard.in_flight,
            "lag_s": self._loop.lag_s,
            "refused": self._shard.refusals.total(),
        }

    def report(self) -> Iterator[dict[str, Any]]:
        """What the operator is told of this worker (report.py), in parts: each may have a turn of the loop of its own,
        so all is looked up when it is told."""
        yield {
            **self._tracing.snapshot(),
            "refusals": self._told.of(self._shard.refusals),
            "rates": report.rates(self._routes.rates()),
            "retries": report.retries(self._upstreams.budgets),
        }
        caches = self._routes.caches()
        yield {
            "caches": report.caches(caches) | report.model_caches(self._model_builder.caches),
            "stores": report.stores(caches) | report.model_stores(self._model_builder.caches),
            "listeners": [report.listener(address, acceptor) for address, acceptor in self._listeners.acceptors()],
        }
        yield {"upstreams": report.upstreams(self._upstreams.listed(), self._upstreams.budgets, monotonic())}
        yield {"queues": report.queues(self._bulkheads(), monotonic())}
        yield {
            "forecasts": report.forecasts(self._bulkheads()),
            **(report.asking(self._shard.downstreams) if self._has_tenants() else {}),
            "tenants": self._routes.tenants.busiest(report.MAX_TENANTS, monotonic()),
        }
        yield {"targets": report.targets(self._model_builder.gates.values(), monotonic())}
        yield {
            "meters": report.meters(self._ledger, monotonic()),
            "bodies": report.bodies(self._shard) if self._model_builder.gates else {},
        }
        yield {
            "llm": self._shard.measures.told(monotonic()),
            "log": self._access.snapshot(),
            "max_lag_us": self._max_lag_us(),
        }

    def _has_tenants(self) -> bool:
        """Does anything say who they are? Accounts do, where there are models."""
        return self._routes.tenant is not None or bool(self._model_builder.gates)

    def _bulkheads(self) -> list[Bulkhead]:
        return [*(upstream.bulkhead for upstream in self._upstreams.listed()), *self._routes.bulkheads()]

    def connections(self, count: int) -> tuple[SeenConnection, ...]:
        """So many of the clients' connections, those with a request first."""
        open_ones = (one for one in self._shard.downstreams if isinstance(one, Downstream))
        return connections.listed(open_ones, count, monotonic())

    def _max_lag_us(self) -> int:
        """The worst since the last report."""
        lag_s, self._loop.max_lag_s = self._loop.max_lag_s, 0.0
        return int(lag_s * 1e6)

    def refusals(self) -> dict[str, dict[str, int]]:
        """How often something was refused or has failed here: reason to resource to count."""
        return self._shard.refusals.snapshot()

    def close(self) -> None:
        """Cut what is left and write out the log."""
        self._doorbell.close()
        for connection in list(self._shard.downstreams):
            if isinstance(connection, Downstream):
                connection.stop()
        for exchange in list(self._shard.left):  # nobody waits for it: it is settled with what it has used
            exchange.fail("draining", exchange.resource, "the gateway stops")
        self._upstreams.close()
        refused = self.refusals()
        if refused:  # or nobody would ever know: they end with this worker
            self._log.info("refusals_of_worker", refused=refused)
        self.accounts.finish()
        self._access.flush()
        self._access.close()
        if self._old_access is not None:
            self._old_access.close(0.0)
        self._tracing.close()


def _forward_policy(whole: Config) -> ForwardPolicy:
    config = whole.forward
    node = config.node or socket.gethostname() or "gateway"
    deadline = DeadlineHeader(config.deadline.lower().encode()) if config.deadline else None
    return ForwardPolicy(
        _CLIENTS[config.client],
        config.via,
        node.encode(),
        _TRACES[config.trace] if whole.trace is None else TRACE_SPANS,
        deadline,
        config.priority.lower().encode(),
        config.tell_resource,
    )
