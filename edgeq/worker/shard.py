"""What all connections of one worker share on the hot path: plain attributes, replaced in place by a reload."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeq.admission.pressure import Pressure
from edgeq.listener.accept_policy import LogPace
from edgeq.listener.splice_io import Splicer
from edgeq.llm.measures import Measures
from edgeq.observe.refusals import Refusals
from edgeq.policy.headers import ForwardPolicy, RequestIds
from edgeq.route.table import RouteTable
from edgeq.trace.spans import Tracer
from edgeq.wire.head import RequestHead
from edgeq.worker.wheel import FineWheel, Timed, Wheel

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange

TICK_S: Final = 0.1
_BUCKETS: Final = 1024
NEVER_SLOW_S: Final = 1e18
MAX_KEPT: Final = 64
"""Of a tick."""


class Shard:
    """One worker's share of the gateway."""

    __slots__ = (
        "_pace",
        "bodies_refused",
        "call_soon",
        "collected",
        "downstreams",
        "draining",
        "fine_wheel",
        "forward",
        "gather_log",
        "generation",
        "heads",
        "ids",
        "in_flight",
        "kept",
        "kept_refused",
        "left",
        "log",
        "log_enabled",
        "max_collected",
        "measures",
        "node",
        "prepared",
        "pressure",
        "refusals",
        "requests",
        "ring",
        "routes",
        "serving_since",
        "slow_s",
        "splicer",
        "tracer",
        "unpolled",
        "wheel",
    )

    def __init__(
        self, forward: ForwardPolicy, ring: list[Any], log: Any, call_soon: Any, call_later: Any = None
    ) -> None:
        """Args: call_soon and call_later are the loop's; without the latter nothing can be tried again."""
        self.wheel: Wheel = Wheel(monotonic(), TICK_S, _BUCKETS)
        self.fine_wheel: FineWheel = FineWheel(_now, call_later)
        self.routes: RouteTable = RouteTable(())
        self.forward: ForwardPolicy = forward
        self.ids: RequestIds = RequestIds()
        self.ring: list[Any] = ring
        """Access records of this worker, written in batches."""
        self.log_enabled: bool = True
        self.gather_log: Any = None
        self.log: Any = log
        """structlog logger of events."""
        self.tracer: Tracer | None = None
        """None unless [trace] is configured."""
        self.call_soon: Any = call_soon
        self.splicer: Splicer | None = None
        """None: bodies are copied."""
        self.downstreams: set[Timed] = set()
        self.left: set[Exchange] = set()
        """Those whose client has left, and whose answer is read on for what it says of its usage."""
        self.unpolled: set[Timed] = set()
        """Those to which the loop does not listen just now: reading is paused, or their FIN has been read."""
        self.generation: int = 0
        """Of the configuration; also says when a remembered route is stale."""
        self.heads: dict[bytes, RequestHead] = {}
        """Heads with which connections have begun, by their bytes; bounded."""
        self.draining: bool = False
        self.serving_since: float = 0.0
        """When this worker began to accept."""
        self.pressure: Pressure = Pressure(0.0, 0.0, 0.0)
        self.prepared: dict[str, bytes] = {}
        """Refusals for when there is no time to write one, by reason and whether the connection is kept."""
        self.refusals: Refusals = Refusals()
        self.measures: Measures = Measures()
        """Of requests to models."""
        self.collected: int = 0
        """Bytes of bodies of requests for models."""
        self.max_collected: int = 0
        """Of these; 0: any number."""
        self.bodies_refused: int = 0
        """How many had no room."""
        self.requests: int = 0
        self.in_flight: int = 0
        self.slow_s: float = NEVER_SLOW_S
        """From when on an answer's beginning is late enough to be remembered."""
        self.kept_refused: list[Any] = []
        """Requests since the last tick that were refused or have failed."""
        self.kept: list[Any] = []
        """Those that were answered, but slow, degraded or failed over."""
        self._pace: LogPace = LogPace()

    def keep(self, exchange: Any) -> None:
        """Remember a request that was refused, slow, degraded or failed over, for `edgeq explain`; of many the
        newest."""
        kept = self.kept_refused if exchange.reason else self.kept
        if kept and kept[-1] is exchange:  # more than one of these
            return
        kept.append(exchange)
        if len(kept) >= 2 * MAX_KEPT:
            del kept[:MAX_KEPT]

    def tell_defect(self, error: Exception, resource: str) -> None:
        """For the event log, with the traceback; not each of many."""
        left_out = self._pace.allow("internal_error", monotonic())
        if left_out >= 0:
            self.log.error("internal_error", resource=resource, exc_info=error, left_out=left_out)


def _now() -> float:
    return monotonic()
