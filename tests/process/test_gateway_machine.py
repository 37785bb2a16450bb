"""Limits hold for the machine, whatever the number of workers: real workers, looked at from outside."""

from __future__ import annotations

import json
import re
import signal
import threading
import time

import pytest

from tests.support.gateway import Settings, Value
from tests.support.kernel import select_pause
from tests.support.machine import Machine, machine
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer
from tests.support.supervised import wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
QUEUE: dict[str, Value] = {"max": 100, "timeout": "60s", "discipline": "fifo"}


def settings(workers: int, limit: int | str = 1, **upstream: Value) -> Settings:
    """A limit on the only upstream."""
    return Settings(workers=workers, limit=limit, extra={"upstream": {"u": {"queue": QUEUE, **upstream}}})


def status(client: RawClient) -> int:
    return client.read_answers([Asked()], 60)[0].status


@pytest.mark.parametrize("workers", [2, 4])
def test_a_limit_is_the_machines(workers: int) -> None:
    """Many clients at all workers: the upstream gets as many requests at a time as the limit says, and not more than
    one for each further worker beyond."""
    limit = 4
    with machine(settings(workers, limit)) as made:
        clients = [made.client_of(slot) for slot in range(workers) for _ in range(12 // workers)]
        for client in clients:
            client.send(GET)
        wait_for("each to be somewhere", lambda: made.reading().queued + made.at_work == len(clients))
        assert limit <= made.at_work <= limit + workers - 1
        made.let_all_go()
        assert [status(client) for client in clients] == [200] * len(clients)
        made.most_at_work = 0

        def run(client: RawClient) -> None:
            for _ in range(40):
                client.received.clear()
                assert client.ask(GET, timeout_s=60).status == 200

        threads = [threading.Thread(target=run, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made.most_at_work <= limit + workers - 1
        wait_for("nothing in flight", lambda: made.reading().in_flight == 0)


def test_a_routes_limit_is_the_machines() -> None:
    """The same for the limit of a route, whose requests wait before their upstream's limit."""
    route: Value = [{"name": "r", "upstream": "u", "limit": 1, "queue": QUEUE}]
    with machine(Settings(workers=2, limit=0, extra={"route": route})) as made:
        first = made.ask(0)
        made.wait_seen(1)
        second = made.ask(1)
        made.wait_queued(1, "route/r")
        made.let_go()
        made.wait_seen(2)
        made.let_go()
        assert [status(first), status(second)] == [200, 200]


def test_who_has_waited_longest_is_next() -> None:
    """Places go by arrival across workers. A worker that does not look in time is passed over, so on a busy machine
    it may take another round."""
    with machine(settings(2)) as made:
        for _ in range(5):
            seen = len(made.paths)
            held = made.ask(0, "/held")
            made.wait_seen(seen + 1)
            waiting = []
            for number in range(6):
                waiting.append(made.ask(1 - number % 2, f"/{number}"))
                made.wait_queued(number + 1)
            for number in range(7):
                made.wait_seen(seen + number + 1)
                made.let_go()
            assert [status(client) for client in (held, *waiting)] == [200] * 7
            if made.paths[seen + 1 :] == [f"/{number}".encode() for number in range(6)]:
                return
    pytest.fail("never in order")


def test_a_killed_worker_takes_no_place_with_it() -> None:
    """kill -9 of the worker that has all places: who waits at the other one is let in, and all places are there."""
    with machine(settings(2, 2)) as made:
        for _ in range(2):
            made.ask(0)
        made.wait_seen(2)
        waiting = [made.ask(1, f"/{number}") for number in range(3)]
        made.wait_queued(3)
        made.kill(0)
        made.wait_seen(4)
        made.wait_queued(1)
        made.let_all_go()
        assert [status(client) for client in waiting] == [200] * 3
        wait_for("nothing in flight", lambda: made.reading().in_flight == 0)
        made.open = False
        seen = len(made.paths)
        for slot in (0, 1, 0):
            made.ask(slot)
        made.wait_seen(seen + 2)
        made.wait_queued(1)


def test_a_queues_bound_is_the_machines() -> None:
    """A worker may use what the others leave of it, and has its share in any case."""
    queue: dict[str, Value] = {**QUEUE, "max": 4}
    with machine(Settings(workers=2, limit=1, extra={"upstream": {"u": {"queue": queue}}})) as made:
        made.ask(0)
        made.wait_seen(1)
        for number in range(4):
            made.ask(0)
            made.wait_queued(number + 1)
        assert status(made.ask(0)) == 503
        for number in range(2):
            made.ask(1)
            made.wait_queued(5 + number)
        assert [status(made.ask(slot)) for slot in (0, 1)] == [503, 503]


def test_a_name_that_comes_back_goes_on() -> None:
    """A reload takes an upstream or a route's limit away under requests, the next one brings it back: they count."""
    route: dict[str, Value] = {"name": "r", "upstream": "u", "limit": 2, "queue": QUEUE}
    other: dict[str, Value] = {"endpoints": ["http://127.0.0.1:9"]}
    with machine(Settings(workers=2, limit=0, extra={"route": [route]})) as made:
        gateway = made.gateway
        held = [made.ask(slot) for slot in (0, 1)]
        made.wait_seen(2)
        gateway.reload({"route": [{"name": "r", "upstream": "u"}]})
        gateway.reload({"route": [{"name": "v", "upstream": "v"}], "upstream": {"v": other}})
        gateway.reload({"route": [route]})
        late = made.ask(0, "/late")
        made.wait_queued(1, "route/r")
        made.let_go()
        made.wait_seen(3)
        made.let_all_go()
        assert [status(client) for client in (*held, late)] == [200] * 3
        wait_for("nothing in flight", lambda: made.reading("route/r").in_flight == 0)


def test_an_upstream_that_comes_back_goes_on() -> None:
    """The same for the limit of an upstream itself, in both workers; connections are dialed anew."""
    route: dict[str, Value] = {"name": "r", "upstream": "u"}
    other: dict[str, Value] = {"u": {"queue": QUEUE}, "v": {"endpoints": ["http://127.0.0.1:9"]}}
    with machine(Settings(workers=2, limit=2, extra={"route": [route], "upstream": other})) as made:
        gateway = made.gateway
        held = [made.ask(slot) for slot in (0, 1)]
        made.wait_seen(2)
        waiting = made.ask(1)
        made.wait_queued(1)
        text = (gateway.directory / "edgeq.toml").read_text()
        only = f'upstream = {{ v = {{ endpoints = ["{made.upstream.url}"] }} }}'
        gone = re.sub("^upstream = .*", only, text, flags=re.MULTILINE).replace('"upstream" = "u"', '"upstream" = "v"')
        (gateway.directory / "edgeq.toml").write_text(gone)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_event("configuration applied")
        assert made.reading().in_flight == 2
        made.let_go()
        made.wait_seen(3)  # who waited there goes on there
        gateway.reload({})
        late = made.ask(0, "/late")
        made.wait_queued(1)
        made.let_all_go()
        assert [status(client) for client in (*held, waiting, late)] == [200] * 4
        wait_for("nothing in flight", lambda: made.reading().in_flight == 0)


def test_a_leaving_worker_counts_until_its_last_request() -> None:
    """The number of workers goes down under requests and up again: their places are taken until they end."""
    with machine(settings(2, 2)) as made:
        gateway = made.gateway
        leaving = made.ask(1, "/leaving")
        made.wait_seen(1)
        gateway.reload({"server": {"workers": 1, "drain_timeout": 60}})
        made.ask(0)
        made.wait_seen(2)
        waiting = made.ask(0)
        made.wait_queued(1)
        made.let_all_go()
        assert [status(leaving), status(waiting)] == [200, 200]
        wait_for("the worker's row to be empty", lambda: made.board.row(1).pid == 0)
        gateway.reload({"server": {"workers": 2, "drain_timeout": 60}})
        made.open = False
        seen = len(made.paths)
        for slot in (0, 1, 0):
            made.ask(slot)
        made.wait_seen(seen + 2)
        made.wait_queued(1)


def learned(made: Machine) -> int:
    return made.board.learned_limit(made.board.resource_index("upstream/u"))


def test_one_worker_learns_for_all() -> None:
    """A limit is learned from what both workers send; when the one that learns dies, another goes on with it."""
    slots = threading.Semaphore(6)

    with machine(settings(2, "adaptive")) as made:

        def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
            with slots:
                select_pause(0.01)
            connection.send(answer(b"ok"))

        made.running.handle(handler)
        clients = [made.client_of(slot) for slot in (0, 1) for _ in range(20)]
        over = threading.Event()
        bad: list[int] = []

        def run(client: RawClient) -> None:
            while not over.is_set():
                client.received.clear()
                got = client.ask(GET, timeout_s=60).status
                if got != 200:
                    bad.append(got)

        threads = [threading.Thread(target=run, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            wait_for("a limit that uses the slots", lambda: learned(made) >= 6, 40)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not bad
        before = learned(made)
        made.kill(0)
        assert made.client_of(1).ask(GET, timeout_s=60).status == 200
        assert learned(made) == before


@pytest.mark.parametrize("slot", [0, 1])
def test_what_hangs_at_the_start_keeps_nobody_out(slot: int) -> None:
    """While nothing has come back a learned limit is a guess: who would be refused for it is let in instead, also if
    all of it is at a worker that does not learn."""
    queue: dict[str, Value] = {"timeout": "1s"}
    with machine(Settings(workers=2, limit="adaptive", extra={"upstream": {"u": {"queue": queue}}})) as made:
        clients = [made.client_of(slot) for _ in range(6)]
        for client in clients:
            client.send(GET)
        made.wait_seen(6)
        made.let_all_go()
        assert [status(client) for client in clients] == [200] * 6


def test_streams_that_have_begun_keep_nobody_out() -> None:
    """No stream ends before all have begun; those heard of before took long. A learned limit lets all of them in."""
    count = 24
    begun = threading.Barrier(count)

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        if request.target == b"/alone":
            select_pause(0.5)
        else:
            begun.wait(20)
        connection.send(b"0\r\n\r\n")

    with machine(settings(1, "adaptive")) as made:
        made.running.handle(handler)
        assert status(made.ask(0, "/alone")) == 200
        clients = [made.ask(0) for _ in range(count)]
        assert [status(client) for client in clients] == [200] * count


def test_an_open_breaker_is_open_everywhere() -> None:
    """One worker has seen the failures, the other one refuses."""
    breaker: Value = {"min_requests": 5, "open": "60s"}
    with machine(settings(2, 0, breaker=breaker)) as made:
        made.running.handle(lambda connection, request: connection.send(answer(b"", b"500 Internal Server Error")))
        one, other = made.client_of(0), made.client_of(1)
        assert [one.ask(GET).status for _ in range(5)] == [500] * 5
        assert one.ask(GET).status == 503
        wait_for("the news", lambda: other.ask(GET).status == 503)


def test_retries_are_counted_together() -> None:
    """What one worker has used of the budget is not there for the other one."""
    retry: Value = {"on": ["500"]}
    extra: dict[str, Value] = {
        "upstream": {"u": {"retry_budget": {"share": 0.0, "reserve": 0.5}}},
        "route": [{"name": "r", "upstream": "u", "retry": retry}],
    }
    with machine(Settings(workers=2, extra=extra)) as made:
        made.running.handle(lambda connection, request: connection.send(answer(b"", b"500 Internal Server Error")))
        began_s = time.monotonic()
        one, other = made.client_of(0), made.client_of(1)
        for client in (one, other):
            for _ in range(8):
                assert client.ask(GET).status == 500
        if time.monotonic() - began_s < 9:  # or the first ones are forgotten
            assert len(made.upstream.requests) == 16 + 5


def test_one_worker_checks_for_all() -> None:
    """An endpoint that fails its checks is left out by both workers, although only one of them asks it."""
    health: Value = {"interval": "100ms"}
    with machine(settings(2, 0, health=health, panic_threshold=0.0)) as made:
        sick = threading.Event()

        def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
            connection.send(answer(b"", b"500 Internal Server Error" if sick.is_set() else b"200 OK"))

        made.running.handle(handler)
        clients = [made.client_of(slot) for slot in (0, 1)]

        def wait_all(status: int) -> None:
            wait_for(f"both say {status}", lambda: {client.ask(GET).status for client in clients} == {status})

        wait_all(200)  # it may have been checked before there was a handler
        sick.set()
        wait_all(503)
        assert len(made.gateway.wait_event("endpoint_unhealthy", 2)) > 0
        made.kill(0)
        sick.clear()
        wait_for("it is back", lambda: clients[1].ask(GET).status == 200)


def test_a_tenant_has_a_limit_of_the_machine() -> None:
    """One who has all he may have in flight waits, then gets 429, at any worker; another one is served meanwhile. A
    reload lets in who waits for himself, and counts who is there."""
    tenant: Value = {"key": "header:x-tenant", "limit": 2, "queue": {"max": 1, "timeout": "60s"}}
    made_with = Settings(workers=2, limit=3, extra={"tenant": tenant, "upstream": {"u": {"queue": QUEUE}}})
    with machine(made_with) as made:
        noisy = [made.ask(slot, "/noisy", "X-Tenant: noisy") for slot in (0, 1)]
        made.wait_seen(2)
        noisy.append(made.ask(1, "/noisy", "X-Tenant: noisy"))
        # At the same worker, so it comes after the one that waits.
        (got,) = made.ask(1, "/noisy", "X-Tenant: noisy").read_answers([Asked()], 60)
        assert got.status == 429
        assert json.loads(got.body)["reason"] == "concurrency_limit_client"
        assert int(got.get(b"retry-after") or b"0") >= 1
        gateway = made.gateway
        gateway.reload({"tenant": {"key": "header:x-tenant", "limit": 0}})  # who waited for himself is let in
        made.wait_queued(0)
        made.wait_seen(3)
        gateway.reload({"tenant": tenant})
        polite = made.ask(0, "/polite", "X-Tenant: polite")
        made.wait_queued(1)
        more = made.ask(0, "/noisy", "X-Tenant: noisy")  # waits for himself, and not in the upstream's queue
        made.let_go()
        made.wait_seen(4)
        assert made.paths[3] == b"/polite"
        made.let_all_go()
        assert [status(client) for client in (*noisy, polite, more)] == [200] * 5
        wait_for("nothing in flight", lambda: made.reading().in_flight == 0)
