"""Spans on their way to a collector: a bounded queue, and a thread that sends from it, OTLP over HTTP.

    loop --put--> queue (spans bounded; the newest are dropped) --thread--> POST /v1/traces --> collector
                                                                  |-- 429, 502, 503, 504, no connection: again, later
                                                                  +-- any other answer: those spans are dropped

So a collector that is dead, slow or broken costs spans and never a request. What happens is told in the event log by
the loop, on its tick: a problem once until it is over, what was dropped with its count, at most once a minute.

Invariants
- The loop never waits. Each number is written by one side only: `_offered`, `dropped` by the loop, `_done`, `_lost` by
  the thread; what is waiting is their difference.
- What is being sent counts as waiting, so memory is bounded by `max_spans` whatever the collector does.
- The values of headers are read by `read_header` here and told to nobody.
Source: OTLP 1.x, "OTLP/HTTP": statuses that may be retried, and that pauses grow, with jitter, and heed Retry-After.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from random import random
from typing import TYPE_CHECKING, Any, Final

from edgeq import __version__
from edgeq.config.address import Collector, parse_collector
from edgeq.config.credentials_io import read_header
from edgeq.config.schema import Trace

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange

_AGAIN: Final = frozenset((429, 502, 503, 504))
_MAX_POST: Final = 512
"""Spans in one request: what OpenTelemetry's batch processor sends."""
_TIMEOUT_S: Final = 10.0
"""Of a connection, of a write, and of a read: OTLP's default."""
_FIRST_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 30.0
_MAX_ANSWER: Final = 64 * 1024
_TELL_S: Final = 60.0
RETIRED_S: Final = 2.0
"""For what waits when a worker ends, or a reload has replaced the exporter."""


class Exporter:
    """One worker's. Made after the fork: it starts its thread, which imports what encodes."""

    def __init__(self, config: Trace, worker: int, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises: ValueError for a header whose secret cannot be read."""
        self._collector: Collector = parse_collector(config.endpoint)
        self._endpoint = config.endpoint
        self._headers = {name: read_header(text) for name, text in config.headers.items()}
        self._headers |= {"content-type": "application/x-protobuf", "user-agent": f"edgeq/{__version__}"}
        self._service = config.service
        self._worker = worker
        self._max_spans = config.queue
        self._log = log
        self._clock = clock
        self.ready = False
        """It can encode."""
        self.encode: Callable[[list[Exchange], float], bytes] = _not_ready
        self.dropped = 0
        self._rejected: Callable[[bytes], int] = len
        self._offered = 0
        self._done = 0
        self._lost = 0
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._ends = threading.Event()
        self._problem = ""
        """As the thread sees it."""
        self._told_problem = ""
        self._told_lost = 0
        self._tell_at_s = 0.0
        self._retired_until_s = 0.0
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="edgeq-trace", daemon=True)
        self._thread.start()

    # -- the loop's side ----------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """Spans."""
        return self._offered - self._done

    def takes(self, spans: int) -> bool:
        """Is there room for so many? If not they are counted as dropped."""
        if self.ready and self.waiting() + spans <= self._max_spans:
            return True
        self.drop(spans)
        return False

    def drop(self, spans: int) -> None:
        """So many are not exported."""
        self.dropped += spans

    def put(self, message: bytes, spans: int) -> None:
        """A message with so many spans, for which there is room."""
        self._offered += spans
        self._queue.put((message, spans))

    def tick(self) -> None:
        """Tell what has happened."""
        problem = self._problem
        if problem != self._told_problem:
            self._told_problem = problem
            if problem:
                self._log.error("trace.failed", endpoint=self._endpoint, problem=problem)
            else:
                self._log.info("trace.recovered", endpoint=self._endpoint)
        lost = self.lost()
        if lost != self._told_lost and self._clock() >= self._tell_at_s:
            self._tell_at_s = self._clock() + _TELL_S
            why = problem or "the collector is too slow, or the queue too short"
            self._log.warning("trace.dropped", spans=lost - self._told_lost, total=lost, problem=why)
            self._told_lost = lost

    def lost(self) -> int:
        """Spans that the collector will never have."""
        return self.dropped + self._lost

    def retire(self, timeout_s: float = RETIRED_S) -> None:
        """Nothing more comes: what waits has so long to be sent. `finish` is to be called on ticks."""
        self._retired_until_s = self._clock() + timeout_s
        self._ends.set()
        self._queue.put(None)

    def finish(self) -> bool:
        """Is all sent, or the time over?"""
        if self._thread.is_alive() and self._clock() < self._retired_until_s:
            return False
        self._lost += self.waiting()  # its thread is over, or writes to nobody
        self._tell_at_s = 0.0
        self.tick()
        return True

    def close(self, timeout_s: float = RETIRED_S) -> None:
        """Send what waits, for so long. It waits itself, so unless that time is 0 it is for the end of a worker."""
        if not self._ends.is_set():
            self.retire(timeout_s)
        self._thread.join(timeout_s)
        self._retired_until_s = 0.0
        self.finish()

    def snapshot(self) -> dict[str, str | int]:
        """For SHOW."""
        return {
            "endpoint": self._endpoint,
            "waiting": self.waiting(),
            "limit": self._max_spans,
            "dropped": self.lost(),
            "problem": self._problem,
        }

    # -- the thread's side --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            from edgeq.trace import encode
        except ImportError as error:  # it was there when the configuration was checked
            self._problem = f'the extra "otel" is not there: {error}'
            return
        self._rejected = encode.rejected
        self.encode = encode.Encoder(self._service, self._worker, os.getpid(), socket.gethostname()).encode
        self.ready = True
        while True:
            item = self._queue.get()
            if item is None:
                break
            messages, spans = [item[0]], item[1]
            while spans < _MAX_POST and not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    break
                messages.append(item[0])
                spans += item[1]
            lost = self._deliver(b"".join(messages), spans)
            self._lost += lost
            self._done += spans
            if item is None:
                break
        self._disconnect()

    def _deliver(self, message: bytes, spans: int) -> int:
        """Returns: how many of the spans are lost."""
        pause_s = _FIRST_PAUSE_S
        while True:
            wished_s = 0.0
            try:
                status, answer, wished_s = self._post(message)
            except Exception as error:  # a thread that ends would export nothing more, and nobody would know why
                self._disconnect()
                # Others than the system's may quote what was to be sent.
                self._problem = (str(error) if isinstance(error, OSError) else "") or type(error).__name__
            else:
                if 200 <= status < 300:
                    self._problem = ""
                    return min(spans, max(0, self._rejected(answer)))
                self._problem = f"it answers {status}"
                if status not in _AGAIN:
                    self._ends.wait(_FIRST_PAUSE_S)  # the next ones will hardly do better
                    return spans
            # The end does not wait for who is not there; retiring has its own limit.
            if self._ends.wait(max(wished_s, pause_s * (0.5 + random() / 2))):
                return spans
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _post(self, message: bytes) -> tuple[int, bytes, float]:
        """Returns: status, body, and Retry-After in seconds."""
        connection = self._connection
        is_kept = connection is not None
        if connection is None:
            connection = self._connect()
        try:
            return self._ask(connection, message)
        except (OSError, http.client.HTTPException):
            if not is_kept:
                raise
        self._disconnect()  # it had been closed meanwhile
        return self._ask(self._connect(), message)

    def _ask(self, connection: http.client.HTTPConnection, message: bytes) -> tuple[int, bytes, float]:
        connection.request("POST", self._collector.path, message, self._headers)
        answer = connection.getresponse()
        body = answer.read(_MAX_ANSWER)
        if not answer.isclosed():
            self._disconnect()  # more than that nobody reads
        wished = answer.headers.get("retry-after", "")
        return answer.status, body, min(float(wished), _MAX_PAUSE_S) if wished.isdecimal() else 0.0

    def _connect(self) -> http.client.HTTPConnection:
        to = self._collector
        if to.tls:
            context = ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                to.host, to.port, timeout=_TIMEOUT_S, context=context
            )
        else:
            made = http.client.HTTPConnection(to.host, to.port, timeout=_TIMEOUT_S)
        self._connection = made
        return made

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _not_ready(exchanges: list[Exchange], wall_offset_s: float) -> bytes:
    raise RuntimeError("nothing is encoded before the exporter is ready")
