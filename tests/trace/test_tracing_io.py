"""The traces of a worker over reloads."""

from __future__ import annotations

from edgeq.config.schema import Config, Listener, Trace
from edgeq.trace.tracing_io import Tracing
from tests.support.collector import collecting
from tests.trace.test_exporter_io import Log

LISTENERS = (Listener(address="127.0.0.1:1"),)


def test_no_reload_takes_back_what_was_dropped() -> None:
    """The count goes on over exporters that are replaced."""
    with collecting() as collector:
        collector.open.clear()
        config = Config(listener=LISTENERS, trace=Trace(endpoint=collector.url, queue=64))
        tracing = Tracing(0, Log())
        seen = []
        for _ in range(4):
            tracing.configure(config)
            exporter = tracing._exporter
            assert exporter is not None
            exporter.drop(5)
            seen.append(tracing.snapshot()["trace"]["dropped"])
        assert seen == [5, 10, 15, 20]
        tracing.configure(Config(listener=LISTENERS))
        assert tracing.snapshot() == {}
        tracing.configure(config)
        assert tracing.snapshot()["trace"]["dropped"] == 20
        collector.open.set()
        tracing.close()
