"""The traces of one worker, over reloads: who notes the spans, and who sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeq.config.schema import Config
from edgeq.trace.spans import Tracer

if TYPE_CHECKING:
    from edgeq.trace.exporter_io import Exporter


class Tracing:
    """Off until `configure` finds a [trace]."""

    def __init__(self, worker: int, log: Any) -> None:
        self._worker = worker
        self._log = log
        self.tracer: Tracer | None = None
        """None: off."""
        self._exporter: Exporter | None = None
        self._old_exporter: Exporter | None = None
        """The one that a reload has replaced, while spans wait in it."""
        self._lost = 0
        """Spans, of exporters that are gone: the count goes on over reloads."""

    def configure(self, config: Config) -> None:
        """Begin, change or end. Raises ValueError if a secret cannot be read; then nothing has changed."""
        trace = config.trace
        exporter = None
        tracer = None
        if trace is not None:
            from edgeq.trace.exporter_io import Exporter  # a worker without [trace] does not pay for http.client

            exporter = Exporter(trace, self._worker, self._log)
            tracer = Tracer(trace.ratio, config.forward.trace == "begin", exporter, self._log)
        if self._exporter is not None:
            self._flush(last=True)
            if self._old_exporter is not None:
                self._old_exporter.close(0.0)
                self._lost += self._old_exporter.lost()
            self._old_exporter = self._exporter
            self._old_exporter.retire()
        self._exporter = exporter
        self.tracer = tracer

    def tick(self) -> None:
        """Hand on what has ended, and tell what has come of it."""
        self._flush()
        if self._old_exporter is not None and self._old_exporter.finish():
            self._lost += self._old_exporter.lost()
            self._old_exporter = None

    def snapshot(self) -> dict[str, Any]:
        """For the worker's report; empty if it is off."""
        if self._exporter is None:
            return {}
        before = self._lost + (self._old_exporter.lost() if self._old_exporter is not None else 0)
        return {"trace": {**self._exporter.snapshot(), "dropped": before + self._exporter.lost()}}

    def close(self) -> None:
        """The worker ends: what waits is sent, within a bound."""
        self._flush(last=True)
        if self._exporter is not None:
            self._exporter.close()
        if self._old_exporter is not None:
            self._old_exporter.close(0.0)

    def _flush(self, last: bool = False) -> None:
        if self.tracer is not None and self._exporter is not None:
            self.tracer.flush(last)
            self._exporter.tick()
