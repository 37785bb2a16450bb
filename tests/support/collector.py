"""A small OpenTelemetry collector: takes spans by OTLP over HTTP, decodes them by opentelemetry's own classes, and can
be told to fail, to hang, or to answer anything."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.supervised import wait_for

pytest.importorskip("opentelemetry.proto", reason='the extra "otel" is not installed')

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

CLIENT = Span.SPAN_KIND_CLIENT
SERVER = Span.SPAN_KIND_SERVER
Value = str | int | float | bool


def values(attributes: Sequence[KeyValue]) -> dict[str, Value]:
    """Attributes by their key."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@dataclass
class Seen:
    """One span, made easy to look at."""

    raw: Span
    resource: dict[str, Value]
    attributes: dict[str, Value] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = values(self.raw.attributes)

    @property
    def trace_id(self) -> str:
        return self.raw.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.raw.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.raw.parent_span_id.hex()

    @property
    def is_error(self) -> bool:
        return self.raw.status.code == Status.STATUS_CODE_ERROR

    def waits(self) -> dict[str, dict[str, Value]]:
        """Events by their name."""
        return {event.name: values(event.attributes) for event in self.raw.events}


@dataclass
class Posted:
    """One request to the collector."""

    path: str
    headers: dict[str, str]
    spans: list[Seen]


class Collector:
    """`status` is what it answers; while `open` is clear it answers nothing; it rejects `rejects` spans of each."""

    def __init__(self) -> None:
        self.status = 200
        self.retry_after = ""
        self.rejects = 0
        self.open = threading.Event()
        self.open.set()
        self.posted: list[Posted] = []
        self.accepted: list[Seen] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self, body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Tests look at `posted`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        spans = [
            Seen(span, values(of_resource.resource.attributes))
            for of_resource in message.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posted.append(Posted(request.path, headers, spans))
        self.open.wait(30)
        if self.status == 200:
            self.accepted.extend(spans)
        rejects = ExportTracePartialSuccess(rejected_spans=self.rejects)
        answer = ExportTraceServiceResponse(partial_success=rejects).SerializeToString()
        with contextlib.suppress(OSError):  # who has not waited
            request.send_response(self.status)
            if self.retry_after:
                request.send_header("retry-after", self.retry_after)
            request.send_header("content-length", str(len(answer)))
            request.end_headers()
            request.wfile.write(answer)

    def wait(self, count: int) -> list[Seen]:
        """All spans so far, once there are so many, in the order of their beginning."""
        wait_for(f"{count} spans", lambda: len(self.accepted) >= count)
        return sorted(self.accepted, key=lambda one: one.raw.start_time_unix_nano)

    def wait_posted(self, count: int = 1) -> None:
        """Until it has been asked so often."""
        wait_for(f"{count} requests of the exporter", lambda: len(self.posted) >= count)

    def clear(self) -> None:
        """Forget what has come."""
        self.posted.clear()
        self.accepted.clear()

    def stop(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on loopback."""
    made = Collector()
    try:
        yield made
    finally:
        made.stop()
