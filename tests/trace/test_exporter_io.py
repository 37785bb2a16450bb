"""The queue before a collector and the thread that sends from it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.config.schema import Trace
from edgeq.trace import exporter_io
from edgeq.trace.exporter_io import Exporter
from edgeq.trace.spans import Ids
from edgeq.trace.spans import Trace as Spans
from tests.support.collector import Collector, collecting
from tests.support.exchanges import exchange
from tests.support.supervised import wait_for


class Log:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    info = warning = error

    def names(self) -> list[str]:
        return [event for event, _ in self.told]


class Clock:
    """Does not move by itself."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@contextlib.contextmanager
def exporting(collector: Collector, log: Log | None = None, **table: Any) -> Iterator[Exporter]:
    made = Exporter(Trace(endpoint=collector.url, **table), 3, log or Log())
    wait_for("it can encode", lambda: made.ready)
    try:
        yield made
    finally:
        collector.open.set()
        made.close(5.0)


def put(exporter: Exporter, count: int = 1, **fields: Any) -> None:
    """So many finished requests, as the tracer hands them on."""
    for _ in range(count):
        one = exchange(**fields)
        one.down.requests = 1
        trace = one.trace = Spans(Ids(), b"%032x" % 7, b"", b"")
        trace.end(one, one.ended_at)
        if exporter.takes(1):
            exporter.put(exporter.encode([one], 0.0), 1)


def test_what_is_said_of_a_request(collector: Collector) -> None:
    """From the fields of the exchange to what the collector reads; the wait to be accepted is within the span."""
    with exporting(collector, service="shop") as exporter:
        put(exporter, reason="queue_full", resource="upstream/api:queue", status=503)
        (span,) = collector.wait(1)
    assert span.raw.name == "GET checkout"
    assert span.resource["service.name"] == "shop"
    assert str(span.resource["service.instance.id"]).endswith("/3")
    expected = {
        "url.path": "/cart/7",
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "203.0.113.7",
        "error.type": "queue_full",
        "edgeq.reason": "queue_full",
        "edgeq.resource": "upstream/api:queue",
        "http.response.status_code": 503,
        "http.route": "checkout",
    }
    assert span.attributes.items() >= expected.items()
    assert span.is_error
    assert span.raw.end_time_unix_nano - span.raw.start_time_unix_nano == pytest.approx(12.034e6 + 9.02e6, abs=1e3)
    assert span.waits()["edgeq.wait.accept"] == {"edgeq.wait_ms": 9.02, "edgeq.resource": "listener/127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("method", "name", "attributes"),
    [
        (b"BREW", "HTTP checkout", {"http.request.method": "_OTHER", "http.request.method_original": "BREW"}),
        (b"POST", "POST checkout", {"http.request.method": "POST"}),
    ],
)
def test_methods(collector: Collector, method: bytes, name: str, attributes: dict[str, str]) -> None:
    """Names stay few whatever clients send."""
    with exporting(collector) as exporter:
        put(exporter, method=method)
        (span,) = collector.wait(1)
    assert span.raw.name == name
    assert span.attributes.items() >= attributes.items()


def test_bytes_that_are_no_text(collector: Collector) -> None:
    """What clients send need not be UTF-8; a span must be."""
    with exporting(collector) as exporter:
        put(exporter, target=b"/\xff\x00\xe4", host=b"\xfe", user_agent=b"\xc3\x28")
        (span,) = collector.wait(1)
    assert span.attributes["url.path"] == "/\xff\x00\xe4"


def test_long_values_are_cut(collector: Collector) -> None:
    """What waits is bounded in spans, so each span must be as well."""
    with exporting(collector) as exporter:
        put(exporter, target=b"/" + b"a" * 8000, user_agent=b"b" * 8000)
        (span,) = collector.wait(1)
    assert span.attributes["url.path"] == "/" + "a" * 1023
    assert span.attributes["user_agent.original"] == "b" * 1024


def test_it_is_tried_again_when_that_may_help(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 says later: nothing is lost, and nothing is sent twice that was taken."""
    monkeypatch.setattr(exporter_io, "_FIRST_PAUSE_S", 0.01)
    log = Log()
    collector.status = 503
    with exporting(collector, log) as exporter:
        put(exporter)
        collector.wait_posted(3)
        exporter.tick()
        exporter.tick()
        collector.status = 200
        collector.wait(1)
        wait_for("it is done", lambda: exporter.waiting() == 0)
        exporter.tick()
        assert exporter.lost() == 0
    assert log.names() == ["trace.failed", "trace.recovered"]
    assert log.told[0][1]["problem"] == "it answers 503"
    assert len(collector.accepted) == 1


def test_retry_after_is_heeded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a number of seconds, bounded; nothing comes before."""
    paused: list[float | None] = []
    with exporting(collector) as exporter:
        real = exporter._ends.wait

        def wait(timeout: float | None = None) -> bool:
            paused.append(timeout)
            collector.status = 200
            return real(0.0)

        monkeypatch.setattr(exporter._ends, "wait", wait)
        collector.status, collector.retry_after = 429, "7"
        put(exporter)
        collector.wait(1)
        assert paused == [7.0]
        collector.status, collector.retry_after = 429, "99999"
        put(exporter)
        collector.wait(2)
        assert paused == [7.0, 30.0]


def test_what_the_collector_rejects_is_counted(collector: Collector) -> None:
    """Its answer may be 200 and say that it has not taken some (OTLP, "Partial Success")."""
    collector.rejects = 2
    with exporting(collector) as exporter:
        put(exporter, 3)
        collector.wait(3)
        wait_for("all are done", lambda: exporter.waiting() == 0)
        assert exporter.lost() >= 2


def test_the_queue_is_bounded(collector: Collector) -> None:
    """While the collector hangs no more than `queue` spans are held, the one on its way included."""
    collector.open.clear()
    clock, log = Clock(), Log()
    exporter = Exporter(Trace(endpoint=collector.url, queue=64), 0, log, clock)
    wait_for("it can encode", lambda: exporter.ready)
    put(exporter, 100)
    assert exporter.waiting() == 64
    assert exporter.dropped == 36
    assert exporter.snapshot()["waiting"] == 64
    exporter.tick()
    put(exporter, 10)
    exporter.tick()  # told once a minute, or it would be told for each
    clock.now_s += 60
    exporter.tick()
    assert [(event, fields["spans"], fields["total"]) for event, fields in log.told] == [
        ("trace.dropped", 36, 36),
        ("trace.dropped", 10, 46),
    ]
    exporter.retire()
    assert not exporter.finish()
    exporter.close(0.0)  # on the loop, by a second reload: it does not wait
    assert log.told[-1][1]["total"] == 46 + 64
    collector.open.set()


def test_a_connection_that_was_closed_meanwhile(collector: Collector) -> None:
    """A kept connection may have been closed by the collector: that is no failure, and costs no pause."""
    log = Log()
    with exporting(collector, log) as exporter:
        put(exporter)
        collector.wait(1)
        wait_for("it is done", lambda: exporter.waiting() == 0)
        connection = exporter._connection
        assert connection is not None
        connection.sock.shutdown(2)
        put(exporter)
        collector.wait(2)
        exporter.tick()
    assert log.told == []


def test_nobody_waits_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end each message is tried once at most, however long its next pause would have been."""
    log = Log()
    with collecting() as collector:
        url = collector.url
    exporter = Exporter(Trace(endpoint=url), 0, log)
    wait_for("it can encode", lambda: exporter.ready)
    put(exporter, 5)
    wait_for("it has been tried", lambda: exporter.snapshot()["problem"])
    done = threading.Thread(target=exporter.close, args=(60.0,))
    done.start()
    done.join(20)
    assert not done.is_alive()
    assert exporter.lost() == 5
    assert log.names() == ["trace.failed", "trace.dropped"]


def test_a_secret_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has begun when it fails, and the error names the variable."""
    monkeypatch.delenv("EDGEQ_GONE", raising=False)
    before = threading.active_count()
    with pytest.raises(ValueError, match='no variable "EDGEQ_GONE"'):
        Exporter(Trace(headers={"a": "env:EDGEQ_GONE"}), 0, Log())
    assert threading.active_count() == before
