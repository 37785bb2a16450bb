"""What an engine of models says of its queue, and what that means to the balancer.

vLLM tells in /metrics how many requests it runs, how many wait for it, and how full its cache of keys and values is. A
request that waits there counts four times: it has not begun, while those that run share the engine well. A cache that
is nearly full counts like a queue, because the engine will soon push requests out of it and compute them again.

Source: vLLM, vllm/v1/metrics/loggers.py (kv_cache_usage_perc, called gpu_cache_usage_perc before 0.10; a share of 1);
llm-d and the Gateway API inference extension score replicas by the same three numbers.
"""

from __future__ import annotations

import re
from typing import Final

WAITING_WEIGHT: Final = 4.0
CACHE_FULL: Final = 0.9
"""From where on the cache counts; at 1 it counts as CACHE_WEIGHT requests."""
CACHE_WEIGHT: Final = 16.0
MAX_REQUESTS: Final = 1e6
"""What says more is not believed."""

_LINE: Final = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|gpu_cache_usage_perc)"
    rb"(?:\{[^\r\n]*\})?[ \t]+([^ \t\r\n]+)",
    re.MULTILINE,
)


class EngineQueue:
    """One reading. `cache_used`: 0 to 1."""

    __slots__ = ("cache_used", "running", "waiting")

    def __init__(self, running: float, waiting: float, cache_used: float) -> None:
        self.running: float = running
        self.waiting: float = waiting
        self.cache_used: float = cache_used

    def load(self, ours: int) -> float:
        """In requests, beside `ours` that run or wait there."""
        load = max(0.0, self.running - ours) + WAITING_WEIGHT * self.waiting
        if self.cache_used > CACHE_FULL:
            load += CACHE_WEIGHT * (self.cache_used - CACHE_FULL) / (1.0 - CACHE_FULL)
        return load


def parse_engine(text: bytes) -> EngineQueue:
    """The queue by the exposition of Prometheus. Of several engines behind one address requests are added, and the
    fullest cache counts.

    Raises: ValueError if it does not tell how many run and wait, or tells nonsense.
    """
    requests = {b"num_requests_running": -1.0, b"num_requests_waiting": -1.0}
    cache_used = 0.0
    for found in _LINE.finditer(text):
        name = found[1]
        value = float(found[2])
        if not 0.0 <= value <= MAX_REQUESTS:  # NaN is not, either
            raise ValueError(f"{name.decode()} is {value}")
        if name in requests:
            requests[name] = max(0.0, requests[name]) + value
        else:
            cache_used = max(cache_used, min(1.0, value))
    for name, value in requests.items():
        if value < 0.0:
            raise ValueError(f"vllm:{name.decode()} is not in the answer")
    return EngineQueue(requests[b"num_requests_running"], requests[b"num_requests_waiting"], cache_used)
