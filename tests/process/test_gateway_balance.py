"""One gateway in front of several real endpoints: who gets how much when one fails, is slow, is sick, or is busy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.gateway import Gateway, Settings, Value, running
from tests.support.kernel import select_pause
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import Handler, ScriptedUpstream, SeenRequest, UpstreamConnection, answer, serve

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ERROR = answer(b"", b"500 Internal Server Error")
BUSY = answer(b"", b"503 Service Unavailable", b"Retry-After: 30")


@dataclasses.dataclass
class Farm:
    """A gateway and its endpoints; `served` counts requests by endpoint, checks apart."""

    gateway: Gateway
    endpoints: list[ScriptedUpstream]
    handlers: list[Handler]
    served: list[int]

    def reset(self) -> None:
        self.served[:] = [0] * len(self.served)

    def share(self, index: int) -> float:
        return self.served[index] / max(1, sum(self.served))

    def load(self, clients: int, enough: Callable[[], bool], timeout_s: float = 20.0) -> list[int]:
        """So many clients ask one after another until `enough()`. Returns the numbers of good and bad answers."""
        counts = [0, 0]
        lock = threading.Lock()
        deadline = time.monotonic() + timeout_s

        def run() -> None:
            with RawClient(self.gateway.address) as client:
                while not enough() and time.monotonic() < deadline:
                    good = client.ask(GET).status < 400
                    with lock:
                        counts[0 if good else 1] += 1

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return counts


def slow(seconds: float, slots: int = 1000) -> Handler:
    """An endpoint with so many slots, each answer takes so long."""
    gate = threading.Semaphore(slots)

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        with gate:
            select_pause(seconds)
        connection.send(answer(b"ok"))

    return handler


def says(data: bytes) -> Handler:
    return lambda connection, request: connection.send(data)


@contextlib.contextmanager
def farm(*handlers: Handler, retry: Value = (), **upstream: Value) -> Iterator[Farm]:
    """So many endpoints, behind one gateway with these keys of its upstream, and perhaps a route that tries again."""
    with contextlib.ExitStack() as stack:
        served = [0] * len(handlers)
        current = list(handlers)
        lock = threading.Lock()

        def counted(index: int) -> Handler:
            def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
                if request.target != b"/healthz":
                    with lock:
                        served[index] += 1
                current[index](connection, request)

            return handler

        endpoints = [stack.enter_context(ScriptedUpstream(serve(counted(i)))) for i in range(len(handlers))]
        keys: dict[str, Value] = {"endpoints": [one.url for one in endpoints], **upstream}
        extra: dict[str, Value] = {"upstream": {"u": keys}}
        if retry:
            extra["route"] = [{"name": "r", "upstream": "u", "retry": retry}]
        gateway = stack.enter_context(running(endpoints[0].port, Settings(extra=extra)))
        yield Farm(gateway, endpoints, current, served)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.mark.parametrize("eject", [{"failures": 5}, {"failures": 0, "deviations": 0}], ids=["ejected", "balanced"])
def test_who_fails_fast_attracts_nobody(eject: dict[str, Value]) -> None:
    """One of four answers 500 at once: a handful of requests finds out (two of each client at most: what is on its way
    when the first answer comes, and a draw or two), then nobody asks it, ejected or not."""
    with farm(slow(0.01), slow(0.01), says(ERROR), slow(0.01), eject=eject) as four:
        four.load(8, lambda: sum(four.served) >= 300)
        assert 1 <= four.served[2] <= 2 * 8, four.served
        four.reset()
        four.load(8, lambda: sum(four.served) >= 300)
        assert four.share(2) < 0.02, four.served
        # Not by halves: they are threads of this process, as quick as a busy machine lets each, and get work by speed.
        others = [count for index, count in enumerate(four.served) if index != 2]
        assert min(others) > 0.2 * max(others), four.served


def test_who_fails_fast_attracts_nobody_when_others_repair_it() -> None:
    """What is tried again at another endpoint is a failure of the first all the same: no client sees one, and the one
    that fails is asked no more than without retries. The budget is none that eight first requests can use up."""
    retry: dict[str, Value] = {"on": ["500"], "backoff": 0}
    none: dict[str, Value] = {"failures": 0, "deviations": 0}
    budget: dict[str, Value] = {"reserve": 100, "concurrent_min": 16}
    with farm(slow(0.01), slow(0.01), says(ERROR), slow(0.01), eject=none, retry=retry, retry_budget=budget) as four:
        assert four.load(8, lambda: sum(four.served) >= 400)[1] == 0
        assert 1 <= four.served[2] <= 2 * 8, four.served


def test_who_is_slow_gets_its_share_by_speed() -> None:
    """One of four is ten times slower, and all are needed: it gets a tenth of what each other one gets. Fast is what is
    still slow beside the time that a busy machine takes for a request."""
    with farm(slow(0.06, 4), slow(0.06, 4), slow(0.6, 4), slow(0.06, 4)) as four:
        four.load(48, lambda: sum(four.served) >= 300)
        four.reset()
        four.load(48, lambda: sum(four.served) >= 800)
        assert 0.5 / 31 < four.share(2) < 2 / 31, four.served


def test_who_is_slow_is_not_needed_when_there_is_little_to_do() -> None:
    """The same with fewer requests than the fast ones can serve: no more than its share, which is a draw."""
    with farm(slow(0.05), slow(0.05), slow(0.5), slow(0.05)) as four:
        four.load(3, lambda: sum(four.served) >= 200)
        share = 200 / 31
        assert 1 <= four.served[2] <= share + 3 * share**0.5, four.served


@pytest.mark.parametrize("balance", ["p2c-ewma", "least-requests", "round-robin"])
def test_a_dead_endpoint_costs_nobody_an_answer(balance: str) -> None:
    """Who cannot connect is sent elsewhere, and after five failures the endpoint is ejected; the log says so."""
    with farm(slow(0.0), slow(0.0), slow(0.0), balance=balance) as three:
        dead = f"127.0.0.1:{three.endpoints[1].port}"
        three.endpoints[1].stop()
        good, bad = three.load(2, lambda: sum(three.served) >= 100)
        assert (good >= 100, bad) == (True, 0)
        if balance == "round-robin":
            assert three.gateway.wait_event("endpoint_ejected")["endpoint"] == dead


def test_weights() -> None:
    """Round robin by weight is exact."""
    with farm(slow(0.0), slow(0.0), balance="round-robin") as two:
        first, second = (one.url for one in two.endpoints)
        with RawClient(two.gateway.address) as client:
            client.ask(GET)
            two.gateway.reload({"upstream": {"u": {"endpoints": [{"url": first, "weight": 3}, second]}}})
            two.reset()
            for _ in range(40):
                client.ask(GET)
        assert two.served == [30, 10]


def test_a_sick_endpoint_is_left_out_and_comes_back() -> None:
    """Active checks: bad ones take an endpoint out although it answers requests; good ones bring it back."""
    sick = threading.Event()

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        bad = request.target == b"/healthz" and sick.is_set()
        connection.send(answer(b"no" if bad else b"all is well"))

    health: dict[str, Value] = {"path": "/healthz", "body": "well", "interval": "50ms", "healthy": 1, "unhealthy": 2}
    with farm(handler, says(answer(b"well")), health=health, balance="round-robin") as two:
        two.load(1, lambda: two.served[0] >= 3)
        sick.set()
        event = two.gateway.wait_event("endpoint_unhealthy")
        assert "is not in the answer" in event["detail"]
        two.reset()
        _, bad = two.load(1, lambda: two.served[1] >= 20)
        assert (two.served[0], bad) == (0, 0)
        sick.clear()
        two.gateway.wait_event("endpoint_healthy", 2)  # the other one became healthy at the start, or this one did
        two.load(1, lambda: two.served[0] >= 3)
        assert two.served[0] >= 3


def test_all_sick_is_nobody_sick() -> None:
    """Panic: with every check bad the endpoints are used all the same; with panic_threshold = 0 there is nobody."""
    no = says(answer(b"no", b"404 Not Found"))
    health: dict[str, Value] = {"path": "/healthz", "interval": "50ms"}
    with farm(no, no, health=health) as two:
        two.gateway.wait_event("endpoint_unhealthy", 2)
        two.gateway.wait_event("upstream_panic")
        with RawClient(two.gateway.address) as client:
            assert client.ask(GET).status == 404
            two.gateway.reload({"upstream": {"u": {"panic_threshold": 0}}})
            refused = client.ask(GET)
        assert refused.status == 503
        assert b'"upstream_none_healthy"' in refused.body


def test_the_breaker_opens_and_closes() -> None:
    """While all answers are failures most requests are refused at once, and the upstream gets some peace."""
    breaker: dict[str, Value] = {"min_requests": 5, "open": "2s", "probes": 2}
    with farm(says(ERROR), breaker=breaker) as one, RawClient(one.gateway.address) as client:
        for _ in range(5):
            assert client.ask(GET).status == 500
        refused = client.ask(GET)
        assert refused.status == 503
        assert b'"circuit_open"' in refused.body
        assert refused.get(b"retry-after")
        assert one.served == [5]
        one.handlers[0] = says(answer(b"ok"))
        statuses = [client.ask(GET).status]
        while statuses[-1] != 200 or statuses.count(200) < 4:
            statuses.append(client.ask(GET).status)
            select_pause(0.01)
        # The first probe counts as well: its circuit is closed by two good answers, and nobody is refused in between.
        assert statuses == [503] * (len(statuses) - 4) + [200] * 4
        one.gateway.wait_event("circuit_closed")


def test_who_waits_is_told_when_the_circuit_opens() -> None:
    """The queue would last for a minute; those in it are refused as soon as the two before them have failed, with the
    moment of the next probe."""
    go = threading.Event()

    def held(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.wait(go)
        connection.send(ERROR)

    upstream: dict[str, Value] = {
        "limit": 1,
        "queue": {"timeout": "60s", "discipline": "fifo"},
        "breaker": {"min_requests": 2, "open": "30s"},
    }
    with farm(held, **upstream) as one, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(one.gateway.address)) for _ in range(6)]
        for client in clients:
            client.send(GET)
        one.endpoints[0].wait_for(lambda: len(one.endpoints[0].requests) == 1, what="the first has the place")
        go.set()
        answers = [client.read_answers([Asked()])[0] for client in clients]
        assert sorted(got.status for got in answers) == [500] * 2 + [503] * 4
        for got in answers:
            if got.status == 503:
                told = json.loads(got.body)
                assert (told["reason"], told["resource"]) == ("circuit_open", "upstream/u:breaker")
                assert 20_000 < told["retry_after_ms"] <= 30_000
                assert int(got.get(b"retry-after") or 0) == -(-told["retry_after_ms"] // 1000)
        assert one.served == [2]


@pytest.mark.parametrize("balance", ["p2c-ewma", "round-robin"])
def test_every_endpoint_is_full_and_none_is_dead(balance: str) -> None:
    """Two endpoints take a request each and keep one waiting: of five requests one is refused, as saturated, and four
    are served once the endpoints answer."""
    go = threading.Event()

    def held(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.wait(go)
        connection.send(answer(b"ok"))

    upstream: dict[str, Value] = {
        "balance": balance,
        "pool": {"max_connections": 1, "queue": 1, "queue_timeout": "60s"},
        "eject": {"failures": 1},
        "breaker": {"min_requests": 1},
    }
    with farm(held, held, **upstream) as two, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(two.gateway.address)) for _ in range(5)]
        for client in clients:
            client.send(GET)
        readable = select.select([client.socket for client in clients], [], [], 10)[0]
        (refused,) = [client for client in clients if client.socket in readable]
        (got,) = refused.read_answers([Asked()])
        told = json.loads(got.body)
        assert (got.status, told["reason"], told["resource"]) == (503, "upstream_saturated", "upstream/u:pool")
        assert got.get(b"retry-after")
        go.set()
        for client in clients:
            if client is not refused:
                assert client.read_answers([Asked()])[0].status == 200
        assert two.served == [2, 2]
        assert not two.gateway.events("endpoint_ejected")
        assert not two.gateway.events("circuit_open")


def test_busy_is_not_dead() -> None:
    """503 with Retry-After sends the others elsewhere, and never leads to an ejection."""
    with farm(says(BUSY), slow(0.0), eject={"failures": 2}) as two:
        two.load(1, lambda: min(two.served) >= 1)  # until it has answered, the other one is not known to be better
        two.reset()
        two.load(2, lambda: sum(two.served) >= 200)
        assert two.served[0] <= 50, two.served  # the penalty fades with time: of a busy machine, too
        assert not two.gateway.events("endpoint_ejected")


def test_the_same_client_to_the_same_endpoint() -> None:
    """Sticky: the cookie of the first answer brings a client back, also when its endpoint is drained and takes nobody
    else, until it is gone."""
    handlers = [says(answer(name)) for name in (b"a", b"b", b"c")]
    with (
        farm(*handlers, balance="sticky", sticky_cookie="where") as three,
        RawClient(three.gateway.address) as client,
    ):
        first = client.ask(GET)
        cookie = (first.get(b"set-cookie") or b"").partition(b";")[0]
        assert cookie.startswith(b"where=")
        again = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; " + cookie + b"\r\n\r\n"
        for _ in range(10):
            got = client.ask(again)
            assert (got.body, got.get(b"set-cookie")) == (first.body, None)
        urls: list[Value] = [one.url for one in three.endpoints]
        at = (b"a", b"b", b"c").index(first.body)
        drained: list[Value] = [*urls[:at], {"url": urls[at], "weight": 0}, *urls[at + 1 :]]
        three.gateway.reload({"upstream": {"u": {"endpoints": drained}}})
        assert client.ask(again).body == first.body
        assert first.body not in {client.ask(GET).body for _ in range(20)}
        urls.pop(at)
        three.gateway.reload({"upstream": {"u": {"endpoints": urls}}})
        moved = client.ask(again)
        assert moved.body != first.body
        assert (moved.get(b"set-cookie") or b"").startswith(b"where=")


def test_the_same_key_to_the_same_endpoint() -> None:
    """Consistent hash by a header."""
    handlers = [says(answer(name)) for name in (b"a", b"b", b"c")]
    with farm(*handlers, balance="consistent-hash", hash_key="header:X-Key") as three:
        where: dict[int, set[bytes]] = {}
        with RawClient(three.gateway.address) as client:
            for number in range(60):
                key = number % 20
                got = client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: key-%d\r\n\r\n" % key)
                where.setdefault(key, set()).add(got.body)
        assert all(len(bodies) == 1 for bodies in where.values())
        assert len(set.union(*where.values())) == 3
