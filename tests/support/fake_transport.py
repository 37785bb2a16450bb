"""A worker without sockets: fake transports, a fake loop, scripted dialing; everything between them is the real core.

The core may be compiled, so nothing of it is replaced or subclassed: the fakes stand at its edges only. A transport
keeps to uvloop's rules, and is stricter where uvloop forgives: to write after `close`, `abort` or `write_eof` is an
error of the test.

Time stands still in `frozen_time` and moves by `World.advance` only, so that a script always has the same outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import edgeq.listener.connection
import edgeq.response.grace
import edgeq.response.relay
import edgeq.response.sending
import edgeq.response.tries
import edgeq.upstream.connection
import edgeq.upstream.pool
import edgeq.upstream.upstream
import edgeq.worker.shard
from edgeq.config.base import Duration
from edgeq.config.schema import Eject, ListenerLimits, ListenerTimeouts, UpstreamPool, UpstreamTimeouts
from edgeq.config.schema import Listener as ListenerConfig
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.listener.connection import Downstream
from edgeq.listener.peer import Peer
from edgeq.listener.settings import ListenerSettings
from edgeq.policy.headers import TRACE_OFF, X_FORWARDED, ForwardPolicy
from edgeq.response.relay import Exchange
from edgeq.route.table import Route, RouteTable
from edgeq.upstream.connection import UpstreamConnection
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream
from edgeq.worker.shard import Shard

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16
"""uvloop's own (bytes)."""


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.frozen = False

    def __call__(self) -> float:
        return self.now_s


CLOCK: Final = Clock()
_MODULES: Final[tuple[Any, ...]] = (
    edgeq.listener.connection,
    edgeq.response.grace,
    edgeq.response.relay,
    edgeq.response.sending,
    edgeq.response.tries,
    edgeq.upstream.connection,
    edgeq.upstream.pool,
    edgeq.upstream.upstream,
    edgeq.worker.shard,
)
"""Those that ask for the time. Names that a module has imported can be replaced, also if it is compiled."""


@contextmanager
def frozen_time() -> Iterator[None]:
    """The core's clock is ours."""
    CLOCK.now_s = 1000.0
    CLOCK.frozen = True
    known = [module.monotonic for module in _MODULES]
    for module in _MODULES:
        module.monotonic = CLOCK
    try:
        yield
    finally:
        CLOCK.frozen = False
        for module, clock in zip(_MODULES, known, strict=True):
            module.monotonic = clock


class FakeLoop:
    """Calls wait in order until `run`."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._later: list[tuple[float, Callable[[], object]]] = []

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        self._calls.append((call, args))

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        self._later.append((CLOCK.now_s + seconds, call))

    def run_due(self) -> None:
        """Those for later whose time has come."""
        due = [call for at, call in self._later if at <= CLOCK.now_s]
        self._later = [(at, call) for at, call in self._later if at > CLOCK.now_s]
        for call in due:
            call()

    def run(self) -> None:
        """Until nothing waits."""
        while self._calls:
            call, args = self._calls.popleft()
            call(*args)


class FakeSocket:
    """What a transport gives out as its socket: notes whether closing is to reset, and has no descriptor to ask."""

    def __init__(self) -> None:
        self.options: list[tuple[Any, ...]] = []

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *args: Any) -> None:
        self.options.append(args)


class FakeTransport:
    """One side of a connection. The peer of the core is the test: `data`, `eof`, `reset` arrive, `sent` left."""

    def __init__(self, loop: FakeLoop, protocol: Any, half_close: bool = True) -> None:
        self._loop = loop
        self._inbox: list[bytes | Exception | None] = []
        self._buffer = bytearray()
        self._half_close = half_close
        self._paused_protocol = False
        self._read_ended = False
        self._resume: list[None] = []
        self.protocol = protocol
        self.sent = bytearray()
        """What the peer got."""
        self.was_reset = False
        self.blocked = False
        """The peer does not read: what is written stays in the buffer."""
        # Any: mypy does not know that a call of another object's method changes these
        self.reading: Any = True
        self.closing: Any = False
        self.aborted: Any = False
        self.eof_written: Any = False
        self.lost: Any = False
        self.socket = FakeSocket()
        self.writes = 0
        protocol.connection_made(self)

    # -- what the core calls

    def write(self, data: bytes | memoryview) -> None:
        if self.was_reset:
            return  # the protocol has not been told yet; uvloop ignores it as well
        assert not self.closing, "write after close"
        assert not self.eof_written, "write after write_eof"
        self.writes += 1
        self._buffer += data
        self._flush()
        if len(self._buffer) > HIGH_WATER and not self._paused_protocol:
            self._paused_protocol = True
            self.protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        if self.was_reset:
            return
        assert not self.closing, "write_eof after close"
        assert self._half_close, "write_eof on a transport that cannot"
        self.eof_written = True

    def can_write_eof(self) -> bool:
        return self._half_close

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass  # it sends at once in any case

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.closing and not self._read_ended and not self.reading:
            self.reading = True
            self._loop.call_soon(self._deliver)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.reading = False
            if not self._buffer:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        if not self.aborted and not self.lost:
            self.closing = True
            self.aborted = True
            self.reading = False
            self._buffer.clear()
            self._loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return bool(self.closing)

    # -- what the peer does

    def data(self, data: bytes) -> None:
        """Bytes arrive."""
        self._arrive(data)

    def eof(self) -> None:
        """A FIN arrives."""
        self._arrive(None)

    def reset(self, error: Exception | None = None) -> None:
        """A reset arrives."""
        self._arrive(error or ConnectionResetError(104, "reset"))

    def block(self) -> None:
        """The peer stops reading."""
        self.blocked = True

    def drain(self, size: int = 1 << 40) -> None:
        """The peer reads so many of the bytes that wait; all of them: it reads on."""
        if size >= len(self._buffer):
            self.blocked = False
        out = self._buffer[:size]
        del self._buffer[:size]
        self.sent += out
        self._flush()

    def take(self) -> bytes:
        """What was sent since the last call."""
        out = bytes(self.sent)
        self.sent.clear()
        return out

    @property
    def is_reset(self) -> bool:
        """Does the peer see a reset rather than a FIN?"""
        return bool(self.aborted and self.socket.options)

    @property
    def fin_sent(self) -> bool:
        """Has the peer seen our FIN, after all bytes? That of an abort is no different (close(2))."""
        return bool(
            (self.eof_written or self.closing) and not self.is_reset and not self.was_reset and not self._buffer
        )

    def _arrive(self, item: bytes | Exception | None) -> None:
        self._inbox.append(item)
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and self.reading and not self.closing:
            item = self._inbox.pop(0)
            if isinstance(item, bytes):
                self.protocol.data_received(item)
            elif item is None:
                self._read_ended = True
                self.reading = False
                if not self.protocol.eof_received():
                    self.close()
            else:
                self.was_reset = True
                self.closing = True
                self.aborted = True
                self.reading = False
                self._buffer.clear()
                self._loop.call_soon(self._lose, item)

    def _flush(self) -> None:
        if not self.blocked:
            self.sent += self._buffer
            self._buffer.clear()
        if self._paused_protocol and len(self._buffer) <= LOW_WATER:
            self._paused_protocol = False
            self.protocol.resume_writing()
        if self.closing and not self._buffer and not self.aborted:
            self._loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.closing = True
            self.protocol.connection_lost(error)


class StrictLog:
    """Of events; a defect that would be logged is an error of the test, unless `defects` is a list that takes it."""

    def __init__(self) -> None:
        self.defects: list[Exception] | None = None

    def error(self, event: str, *, exc_info: Exception, **fields: Any) -> None:
        if self.defects is None:
            raise exc_info
        self.defects.append(exc_info)


class World:
    """One worker: a listener, a route to one upstream with some endpoints. What is dialed waits in `dials`."""

    def __init__(
        self,
        *,
        listener: dict[str, Any] | None = None,
        timeouts: dict[str, float] | None = None,
        limits: dict[str, int] | None = None,
        pool: dict[str, Any] | None = None,
        upstream_timeouts: dict[str, float] | None = None,
        forward: ForwardPolicy | None = None,
        endpoints: int = 1,
        route_timeout_s: float = 0.0,
        body_bytes: int = -1,
        balance: dict[str, Any] | None = None,
        rewrite: bytes = b"",
        path: bytes = b"/*",
        client_host: str = "192.0.2.7",
        tls: bool = False,
    ) -> None:
        assert CLOCK.frozen, "a World needs frozen_time"
        self.loop = FakeLoop()
        self.ring: list[Any] = []
        self.flushes = 0
        policy = forward or ForwardPolicy(X_FORWARDED, True, b"gw", TRACE_OFF)
        self.events = StrictLog()
        self.shard = Shard(policy, self.ring, self.events, self.loop.call_soon, self.loop.call_later)
        self.shard.gather_log = self._gather_log
        self.wheel = self.shard.wheel
        self.config = ListenerConfig(
            address="127.0.0.1:80",
            timeouts=ListenerTimeouts(**{name: Duration(value) for name, value in (timeouts or {}).items()}),
            limits=ListenerLimits(**(limits or {})),  # type: ignore[arg-type]
            **(listener or {}),
        )
        self.settings = ListenerSettings(self.config)
        self.upstream = Upstream("up", self.wheel)
        self.upstream.configure(
            UpstreamConfig(
                endpoints=(),
                limit=1 << 20,  # what is tested here does not wait for its turn
                **(balance or {"balance": "round-robin", "eject": Eject(failures=0, deviations=0.0)}),
                pool=UpstreamPool(**(pool or {})),
                timeouts=UpstreamTimeouts(
                    **{name: Duration(value) for name, value in (upstream_timeouts or {}).items()}
                ),
            ),
            1,
        )
        self.upstream.default_host = b"default.example"
        self.dials: list[Pool] = []
        self.stale: set[FakeTransport] = set()
        """Transports whose other side has closed without our knowing it yet."""
        names = [f"10.0.0.{index + 1}:80" for index in range(endpoints)]
        pools = [Pool(self.upstream, name, name, self.dials.append, self._probe) for name in names]
        self.upstream.set_pools(pools, {}, CLOCK.now_s)
        self.pool = self.upstream.pools[0] if endpoints else None
        self.shard.routes = RouteTable(
            [Route("r", b"*", path, self.upstream, rewrite, route_timeout_s, body_bytes)],
        )
        self.peer = Peer(client_host, 4711, "127.0.0.1", 80, tls, False, "")
        self.gone: list[Any] = []
        self.tls = tls
        self.clients: list[FakeTransport] = []
        self.servers: list[FakeTransport] = []

    def _gather_log(self) -> None:
        self.flushes += 1

    def _probe(self, transport: Any) -> Callable[[int], bool]:
        return lambda _wait_ms: transport in self.stale

    def connect(self) -> FakeTransport:
        """A client's connection; its protocol is a Downstream."""
        down = Downstream(self.shard, self.settings, self.peer, self.gone.append)
        transport = FakeTransport(self.loop, down, half_close=not self.tls)
        self.clients.append(transport)
        return transport

    def dial_ok(self, index: int = 0, made_only: bool = False) -> FakeTransport:
        """The connection that was asked for is there."""
        pool = self.dials.pop(index)
        connection = UpstreamConnection(pool)
        transport = FakeTransport(self.loop, connection)
        self.servers.append(transport)
        if not made_only:
            pool.dialed(connection, 0.001)
            self.loop.run()
        return transport

    def dial_failed(self, reason: str = "upstream_connect_refused", index: int = 0) -> None:
        """It could not be opened."""
        self.dials.pop(index).dial_failed(reason)
        self.loop.run()

    @property
    def now(self) -> float:
        return CLOCK.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass for the wheel."""
        CLOCK.now_s += seconds
        self.wheel.advance(CLOCK.now_s)
        self.loop.run_due()
        self.loop.run()

    def request(self, data: bytes, client: FakeTransport | None = None) -> tuple[FakeTransport, FakeTransport]:
        """A client sends `data` and an upstream connection gets it: (client, server)."""
        if client is None:
            client = self.connect()
        before = len(self.dials)
        client.data(data)
        self.loop.run()
        if len(self.dials) > before:
            return client, self.dial_ok()
        return client, next(server for server in self.servers if server.protocol.exchange is not None)

    @property
    def log(self) -> list[Exchange]:
        """The access log: exchanges that have ended, in order."""
        return list(self.ring)

    def check_settled(self) -> None:
        """Nothing runs: counters say so too."""
        assert self.shard.in_flight == 0
        assert len(self.ring) == self.shard.requests
        assert len({id(exchange) for exchange in self.ring}) == len(self.ring)
        for pool in self.upstream.pools:
            self.check_pool(pool)
            assert not pool.waiting
            assert pool.opened == len(pool.idle)

    def check_pool(self, pool: Pool) -> None:
        """Invariants that hold at any moment."""
        mine = [server for server in self.servers if server.protocol.pool is pool]
        counted = [server for server in mine if not server.protocol.lost]
        active = [server for server in counted if server.protocol.exchange is not None]
        assert pool.connecting == self.dials.count(pool)
        assert pool.opened == len(pool.idle) + len(active) == len(counted)
        for connection in pool.idle:
            assert connection.exchange is None
            assert not connection.lost
            assert connection.transport.reading or connection.transport.closing, "an idle connection that is not read"
        for server in mine:
            if server.protocol.lost:
                assert server.protocol.exchange is None
