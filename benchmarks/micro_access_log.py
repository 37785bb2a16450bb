"""Nanoseconds to render one access log line: JSON and combined, identical and different requests, beside orjson.

Run: ``python benchmarks/micro_access_log.py``. The best of 20 rounds, median of 100 batches of 64 records (a batch is
what gathers in some milliseconds). Each request has its own request id and trace id; "different" changes the target,
too, and never repeats one.
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

from edgeq.response import access_log

_BATCH = 64
_BATCHES = 100
_ROUNDS = 20
_numbers = itertools.count(1)


def record(number: int, target: bytes) -> access_log.Record:
    """A plain successful request through a reused upstream connection."""
    return (
        1_790_000_000_000_000_000 + number * 31_000,
        b"GET",
        target,
        b"HTTP/1.1",
        b"shop.example:8080",
        "203.0.113.7",
        40_000 + number % 1000,
        "0.0.0.0:8080",
        "checkout",
        "api",
        "10.0.0.7:9000",
        200,
        0,
        1024,
        1_234 + number % 300,
        0,
        0,
        0,
        1_100 + number % 300,
        900 + number % 300,
        1,
        "",
        "",
        b"%032x" % number,
        b"%032x" % (number * 7919),
        b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        b"",
        False,
        3,
        True,
    )


def orjson_lines(records: list[access_log.Record], _format: str) -> bytes:
    """What a straightforward renderer would do: a dict for each record."""
    lines = []
    for entry in records:
        moment = datetime.datetime.fromtimestamp(entry[0] / 1e9, datetime.UTC)
        fields = {
            "timestamp": moment.isoformat(timespec="microseconds"),
            "http.request.method": entry[1].decode(),
            "url.path": entry[2].decode(),
            "url.scheme": "http",
            "server.address": entry[4].decode(),
            "network.protocol.version": entry[3].decode(),
            "client.address": entry[5],
            "client.port": entry[6],
            "edgeq.listener": entry[7],
            "http.route": entry[8],
            "edgeq.upstream": entry[9],
            "edgeq.endpoint": entry[10],
            "http.response.status_code": entry[11],
            "http.response.body.size": entry[13],
            "edgeq.total_ms": entry[14] / 1000,
            "edgeq.upstream_ms": entry[18] / 1000,
            "edgeq.first_byte_ms": entry[19] / 1000,
            "edgeq.attempts": entry[20],
            "edgeq.request_id": entry[23].decode(),
            "trace_id": entry[24].decode(),
            "user_agent.original": entry[25].decode(),
            "edgeq.generation": entry[28],
            "edgeq.reused": entry[29],
        }
        lines.append(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def batch(different: bool) -> list[access_log.Record]:
    """Fresh byte strings for each record, as a connection would deliver them."""
    numbers = [next(_numbers) for _ in range(_BATCH)]
    return [record(n, b"/checkout/cart/%d?item=%d" % ((n, n) if different else (1, 1))) for n in numbers]


def ns_per_line(render: Callable[[list[access_log.Record], str], bytes], log_format: str, different: bool) -> float:
    """CPU time of this thread: the best round's median batch."""
    best = float("inf")
    for _ in range(_ROUNDS):
        spent = []
        for _ in range(_BATCHES):
            work = batch(different)
            start = time.thread_time_ns()
            render(work, log_format)
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
    print(access_log.render([record(1, b"/checkout/cart/1?item=1")], "json").decode(), end="")
    print(access_log.render([record(1, b"/checkout/cart/1?item=1")], "combined").decode(), end="")


if __name__ == "__main__":
    main()
