"""A named service: its endpoints' pools, taken in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.config.schema import Upstream as UpstreamConfig

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.upstream.pool import Pool
    from edgeq.worker.wheel import Wheel


class Upstream:
    """Limits are this worker's share of the machine's; time-outs are seconds, 0 for none."""

    __slots__ = (
        "_next",
        "body_s",
        "default_host",
        "first_byte_s",
        "host",
        "hosts_differ",
        "idle_s",
        "max_connecting",
        "max_connections",
        "max_idle",
        "max_lifetime_s",
        "max_waiting",
        "name",
        "pools",
        "queue_timeout_s",
        "resource",
        "tunnel_s",
        "unresolved",
        "wheel",
    )

    def __init__(self, name: str, wheel: Wheel) -> None:
        self.name = name
        self.resource = f"upstream/{name}"
        self.wheel: Wheel = wheel
        self.pools: list[Pool] = []
        self.unresolved = "upstream_none_healthy"
        """Why there are no pools: dns_error, dns_timeout or upstream_none_healthy."""
        self.host = b""
        """Host header instead of the client's; empty: the client's."""
        self.hosts_differ: bool = False
        """Each endpoint gets a Host of its own (`Pool.host`): what is sent is settled when the endpoint is."""
        self.default_host = b""
        """Host header for HTTP/1.0 requests that have none."""
        self._next: int = 0
        self.configure(UpstreamConfig(endpoints=()), 1)

    def configure(self, config: UpstreamConfig, workers: int) -> None:
        """Take over limits and time-outs; connections that are open see them at their next step."""
        timeouts = config.timeouts
        self.first_byte_s: float = float(timeouts.first_byte)
        self.body_s: float = float(timeouts.body)
        self.tunnel_s: float = float(timeouts.tunnel)
        pool = config.pool
        self.max_connections: int = -(-pool.max_connections // workers)
        self.max_idle: int = -(-pool.max_idle // workers)
        self.max_connecting: int = -(-pool.max_connecting // workers)
        self.max_waiting: int = -(-pool.queue // workers)
        self.idle_s: float = float(pool.idle_timeout)
        self.max_lifetime_s: float = float(pool.max_lifetime)
        self.queue_timeout_s: float = float(pool.queue_timeout)

    def submit(self, exchange: Exchange) -> None:
        """Give a request to the next endpoint."""
        pools = self.pools
        count = len(pools)
        if count == 1:
            pools[0].submit(exchange, False)
            return
        if count == 0:
            exchange.fail(self.unresolved, self.resource, "")
            return
        index = self._next
        if index >= count:
            index = 0
        self._next = index + 1
        pools[index].submit(exchange, False)

    def submit_after(self, exchange: Exchange, failed: Pool) -> None:
        """Give a request to the endpoint that follows one which could not be reached: never to the same one again."""
        pools = self.pools
        index = pools.index(failed) + 1 if failed in pools else 0
        if index >= len(pools):
            index = 0
        self._next = index + 1  # so the others share what was meant for it
        pools[index].submit(exchange, False)
