"""The core alone: one request and its answer through all steps, with transports that do nothing.

    python -m benchmarks.micro_request [--varied] [--policy] [--count 200000]

Prints nanoseconds per request (the best round: neighbours only ever add) for the whole walk: parse, route, forward,
parse the answer, relay, access record, and separately for rendering the access log. No sockets, no kernel: what is
measured is our own code.
"""

from __future__ import annotations

import argparse
from time import process_time
from typing import Any

from edgeq.config.schema import Listener, Upstream
from edgeq.listener.connection import Downstream
from edgeq.listener.peer import Peer
from edgeq.listener.settings import ListenerSettings
from edgeq.policy.headers import TRACE_BEGIN, X_FORWARDED, ForwardPolicy
from edgeq.policy.rate import BY_TENANT, HEADERS_IETF, LocalArrivals, Rate, RateSet, Window
from edgeq.policy.retry import RetryBudget, RetryPolicy
from edgeq.policy.tenant import TenantKey
from edgeq.policy.terms import Terms
from edgeq.response import access_log, relay
from edgeq.route.table import Route, RouteTable
from edgeq.upstream.connection import UpstreamConnection
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream as UpstreamState
from edgeq.worker.shard import Shard

HEAD = (
    b"GET /api/v1/items/%d?x=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: text/html,application/json\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Cookie: session=%016d; theme=dark\r\nCache-Control: no-cache\r\nX-Api-Version: %d\r\n"
    b"Referer: https://shop.example/cart\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 08:55:34 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)


class NullTransport:
    """Takes everything, does nothing."""

    def write(self, data: bytes) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def with_policy(route: Route) -> None:
    """A tenant by header, a rate of his that never refuses, and retries."""
    windows = [Window("r", 10**7, 1.0, 10**7)]
    rates = RateSet([Rate("r", BY_TENANT, windows, True, HEADERS_IETF)], 1, LocalArrivals())
    route.terms = Terms("default", "api", TenantKey("header:cookie"), 1, rates)
    route.retry = RetryPolicy(True, True, frozenset((503,)), 2, 0.0, 65536, RetryBudget(0.2, 3.0))


def build() -> tuple[Shard, Downstream, UpstreamConnection]:
    """One client connection, one idle upstream connection."""
    policy = ForwardPolicy(X_FORWARDED, True, b"node", TRACE_BEGIN)
    shard = Shard(policy, [], None, None)
    shard.gather_log = lambda: None
    upstream = UpstreamState("api", shard.wheel)
    upstream.configure(Upstream(endpoints=()), 1)
    pool = Pool(upstream, None, "127.0.0.1:9000", lambda pool: None, lambda transport: False)
    upstream.set_pools([pool], {}, 0.0)
    shard.routes = RouteTable([Route("default", b"*", b"/*", upstream, b"", 0.0, -1)])
    shard.generation = 1
    connection = UpstreamConnection(pool)
    connection.connection_made(NullTransport())
    pool.connecting += 1
    pool.dialed(connection, 0.0)
    settings = ListenerSettings(Listener(address="127.0.0.1:8080"))
    down = Downstream(shard, settings, Peer("127.0.0.1", 5000, "127.0.0.1", 8080, False, False, ""), None)
    down.connection_made(NullTransport())
    return shard, down, connection


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--varied", action="store_true", help="path, cookie and one header differ in each request")
    parser.add_argument("--policy", action="store_true", help="with tenant, rate and retries on the route")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    shard, down, up = build()
    if args.policy:
        with_policy(shard.routes.routes[0])
    heads = [HEAD % (number, number, number) if args.varied else HEAD % (7, 7, 7) for number in range(5000)]
    walk: list[float] = []
    render: list[float] = []
    for _ in range(args.rounds):
        batches: list[list[Any]] = []
        receive, answer = down.data_received, up.data_received
        spent = 0.0
        for _batch in range(max(1, args.count // len(heads))):
            begin = process_time()
            for head in heads:
                receive(head)
                answer(ANSWER)
            spent += process_time() - begin
            batches.append(list(shard.ring))
            shard.ring.clear()
        walk.append(spent / (len(batches) * len(heads)) * 1e9)
        begin = process_time()
        for batch in batches:
            access_log.render(batch, "json", 0.0)
        render.append((process_time() - begin) / (len(batches) * len(heads)) * 1e9)
    variant = "compiled" if relay.__file__.endswith(".so") else "interpreted"
    print(f"{variant}: walk {min(walk):.0f} ns, access log {min(render):.0f} ns per request")


if __name__ == "__main__":
    main()
