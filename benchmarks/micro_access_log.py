"""Nanoseconds to render one access log line: JSON and combined, identical and different requests, beside orjson.

Run: ``python -m benchmarks.micro_access_log``. The best of 20 rounds, median of 100 batches of 64 exchanges (a batch is
what gathers in some milliseconds), which the real request path has made. "identical": each request's head is the one
before it; "different": path, cookie and one header never repeat.
"""

from __future__ import annotations

import datetime
import gc
import itertools
import platform
import statistics
import time
from collections.abc import Callable

import orjson

from benchmarks.micro_request import ANSWER, HEAD, build
from edgeq.listener.connection import Downstream
from edgeq.response import access_log
from edgeq.response.relay import Exchange
from edgeq.upstream.connection import UpstreamConnection
from edgeq.worker.shard import Shard

_BATCH = 64
_BATCHES = 100
_ROUNDS = 20
_numbers = itertools.count(1)


def orjson_lines(exchanges: list[Exchange], _format: str, wall_offset_s: float) -> bytes:
    """What a straightforward renderer would do: a dict for each exchange."""
    lines = []
    for done in exchanges:
        moment = datetime.datetime.fromtimestamp(done.ended_at + wall_offset_s, datetime.UTC)
        head, peer, route = done.head, done.down.peer, done.route
        fields = {
            "timestamp": moment.isoformat(timespec="microseconds"),
            "http.request.method": head.method.decode(),
            "url.path": head.path.decode(),
            "url.query": head.query[1:].decode(),
            "url.scheme": "https" if peer.tls else "http",
            "server.address": head.host.decode(),
            "network.protocol.version": head.version.removeprefix(b"HTTP/").decode(),
            "client.address": peer.client_host,
            "client.port": peer.client_port,
            "edgeq.listener": done.down.settings.name,
            "http.route": route.name if route is not None else "",
            "edgeq.upstream": route.upstream.name if route is not None else "",
            "edgeq.endpoint": done.endpoint,
            "http.response.status_code": done.status,
            "http.response.body.size": done.answer_bytes,
            "edgeq.total_ms": (done.ended_at - done.begun_at) * 1e3,
            "edgeq.upstream_ms": (done.ended_at - done.sent_at) * 1e3,
            "edgeq.first_byte_ms": (done.first_byte_at - done.sent_at) * 1e3,
            "edgeq.attempts": done.attempts,
            "edgeq.request_id": done.request_id.decode(),
            "trace_id": done.trace_id.decode(),
            "user_agent.original": head.fields.user_agent.decode(),
            "http.request.header.referer": [head.fields.referer.decode()],
            "edgeq.generation": route.generation if route is not None else 0,
            "edgeq.reused": done.reused,
        }
        lines.append(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def batch(path: tuple[Shard, Downstream, UpstreamConnection], different: bool) -> list[Exchange]:
    """Exchanges of requests that a connection has just delivered."""
    shard, down, up = path
    for _ in range(_BATCH):
        number = next(_numbers) if different else 0
        down.data_received(HEAD % (number, number, number))
        up.data_received(ANSWER)
    done = list(shard.ring)
    shard.ring.clear()
    return done


def ns_per_line(render: Callable[[list[Exchange], str, float], bytes], log_format: str, different: bool) -> float:
    """CPU time of this thread: the best round's median batch."""
    path = build()
    best = float("inf")
    for _ in range(_ROUNDS):
        spent = []
        for _ in range(_BATCHES):
            work = batch(path, different)
            start = time.thread_time_ns()
            render(work, log_format, 0.0)
            spent.append((time.thread_time_ns() - start) / _BATCH)
        best = min(best, statistics.median(spent))
    return best


def main() -> None:
    """Print a table."""
    gc.freeze()  # as a worker does
    compiled = not (access_log.__file__ or "").endswith(".py")
    print(f"Python {platform.python_version()}, {'compiled' if compiled else 'interpreted'}; ns per line")
    print(f"{'renderer':<24}{'identical':>12}{'different':>12}")
    for name, render, log_format in (
        ("json", access_log.render, "json"),
        ("combined", access_log.render, "combined"),
        ("orjson.dumps(dict)", orjson_lines, "json"),
    ):
        same, other = ns_per_line(render, log_format, False), ns_per_line(render, log_format, True)
        print(f"{name:<24}{same:>12.0f}{other:>12.0f}")
    example = batch(build(), False)[:1]
    wall_offset_s = time.time() - time.monotonic()
    print(access_log.render(example, "json", wall_offset_s).decode(), end="")
    print(access_log.render(example, "combined", wall_offset_s).decode(), end="")


if __name__ == "__main__":
    main()
