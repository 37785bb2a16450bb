"""Which traces are sampled, and how a context is told onwards."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.response.relay import Exchange
from edgeq.trace.spans import BATCH, Ids, Trace, Tracer
from edgeq.upstream.connection import UpstreamConnection
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream
from tests.support.exchanges import FIELDS, downstream, exchange, request_head

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"b7ad6b7169203331"


class Exported:
    """Stands in for the exporter: counts, and keeps what it is given."""

    def __init__(self, room: int = 1 << 20, ready: bool = True) -> None:
        self.room = room
        self.ready = ready
        self.batches: list[list[Exchange]] = []
        self.spans: list[int] = []
        self.dropped = 0

    def takes(self, spans: int) -> bool:
        if self.ready and spans <= self.room:
            return True
        self.drop(spans)
        return False

    def drop(self, spans: int) -> None:
        self.dropped += spans

    def encode(self, exchanges: list[Exchange], wall_offset_s: float) -> list[Exchange]:
        return list(exchanges)

    def put(self, message: list[Exchange], spans: int) -> None:
        self.batches.append(message)
        self.spans.append(spans)


def begun(traceparent: bytes = b"", trusted: bool = False) -> Exchange:
    """A request with this field, of a client that is trusted or not."""
    down = downstream(FIELDS)
    down.trusted = trusted
    head = request_head(FIELDS)
    head.fields.traceparent = traceparent
    head.fields.tracestate = b"a=1"
    return Exchange(down, head, None, 0.0)


def tracer(ratio: float, exporter: Any = None) -> Tracer:
    return Tracer(ratio, True, Exported() if exporter is None else exporter, None)


def lines_of(one: Exchange, tracer: Tracer) -> bytes:
    """What the upstream is told of a request that is sent on a connection of nobody else."""
    up = UpstreamConnection(Pool(Upstream("api", one.down.shard.wheel), None, "10.0.0.7:9000", None, None))
    one.up = up
    return tracer.lines(one, up, 1.0)


def test_all_or_nothing() -> None:
    """0 samples none and 1 each of what begins here."""
    assert all(tracer(0.0).of(begun()) is None for _ in range(100))
    assert all(tracer(1.0).of(begun()) is not None for _ in range(100))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_id_alone_decides(one: float, other: float) -> None:
    """By the lower 56 bits of the id, so whoever samples a larger share samples all that the other does (OTEP 235)."""
    low, high = sorted((one, other))
    for _ in range(20):
        request = begun()
        trace = tracer(low).of(request)
        number = int(request.trace_id, 16) & ((1 << 56) - 1)
        assert (trace is not None) == (number >= (1 << 56) - int(low * (1 << 56)))
        if trace is not None:
            assert number >= (1 << 56) - int(high * (1 << 56))


def test_the_share_is_what_was_asked_for() -> None:
    """Of 20,000 a tenth: the chance of being 300 off is below one in a million million."""
    one = tracer(0.1)
    sampled = sum(one.of(begun()) is not None for _ in range(20_000))
    assert abs(sampled - 2000) < 300


def test_ids_are_all_different() -> None:
    """Of traces and spans, over many fillings of the pool."""
    ids = Ids()
    made = [ids.make(32 if number % 3 else 16) for number in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(len(one) in (16, 32) and int(one, 16) for one in made)


@pytest.mark.parametrize("flags", [b"00", b"01", b"02", b"03", b"ff"])
def test_a_trusted_callers_flag(flags: bytes) -> None:
    """Its lowest bit decides; the others mean nothing here, so they are not passed on (W3C, level 1, 2.2.3)."""
    one = begun(b"00-%b-%b-%b" % (TRACE, PARENT, flags), True)
    told = lines_of(one, tracer(0.5))
    trace = one.trace
    assert (trace is not None) == bool(int(flags, 16) & 1)
    parent = PARENT
    if trace is not None:
        assert (trace.trace_id, trace.parent_id, trace.link) == (TRACE, PARENT, None)
        parent = trace.tries[0].span_id
    flag = int(flags, 16) & 1
    assert told == b"traceparent: 00-%b-%b-%02x\r\ntracestate: a=1\r\n" % (TRACE, parent, flag)


def test_a_later_version() -> None:
    """Of a version that is not known the first four fields are read, and version 00 is written (W3C, 2.2.4)."""
    one = begun(b"cc-%b-%b-01-more" % (TRACE, PARENT), True)
    assert lines_of(one, tracer(0.0)).startswith(b"traceparent: 00-%b-" % TRACE)
    assert one.trace is not None


def test_tries_of_one_that_is_not_sampled() -> None:
    """All tell the same trace, which upstreams are not to sample either."""
    one = begun()
    told = lines_of(one, tracer(0.0))
    assert told == b"traceparent: 00-%b-%b-00\r\n" % (one.trace_id, one.trace_id[16:])
    assert lines_of(one, tracer(1.0)) == told


def test_it_is_decided_once() -> None:
    """A request keeps its trace, whatever a reload says meanwhile."""
    one, other = begun(), begun()
    trace = tracer(1.0).of(one)
    assert trace is not None
    assert tracer(0.0).of(one) is trace
    assert tracer(0.0).of(other) is tracer(1.0).of(other) is None


def test_batches() -> None:
    """What has ended goes on in batches, and at the next tick."""
    exported = Exported()
    one = tracer(1.0, exported)
    for _ in range(BATCH + 3):
        one.ended(exchange(trace_id=b""), 1.0)
    assert exported.spans == [BATCH]
    one.flush()
    one.flush()
    assert exported.spans == [BATCH, 3]
    assert exported.dropped == 0


def test_nothing_is_kept_without_end() -> None:
    """While the exporter begins some wait; many more are dropped, and counted, as at the end."""
    exported = Exported(ready=False)
    one = tracer(1.0, exported)
    for _ in range(600):
        one.ended(exchange(trace_id=b""), 1.0)
    assert 500 < exported.dropped <= 600
    one.flush(last=True)
    assert exported.dropped == 600
    assert exported.batches == []


def test_a_defect_costs_spans_only() -> None:
    """An encoder that fails is told of, and those spans are counted as dropped."""
    told: list[str] = []

    class Log:
        def error(self, event: str, **fields: object) -> None:
            told.append(event)

    class Broken(Exported):
        def encode(self, exchanges: list[Exchange], wall_offset_s: float) -> list[Exchange]:
            raise TypeError

    exported = Broken()
    one = Tracer(1.0, True, exported, Log())
    one.ended(exchange(trace_id=b""), 1.0)
    one.flush()
    assert told == ["trace.span_invalid"]
    assert exported.dropped == 1


def test_waits_of_zero_length_end() -> None:
    """Who never gets his permit has waited until the end."""
    one = exchange()
    trace = one.trace = Trace(Ids(), TRACE, b"", b"")
    trace.begin_wait("upstream/u", 1.0)
    trace.end(one, 2.0)
    (wait,) = trace.waits
    assert (wait.begun_at, wait.ended_at, trace.ended_at) == (1.0, 2.0, 2.0)
