"""Limits on requests in flight and the queues before them, through the real gateway."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings, Value
from tests.support.machine import UPSTREAM, Machine, machine
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer
from tests.support.supervised import wait_for

LIMIT = 2
QUEUE = 3


class Held:
    """A gateway whose upstream keeps answers back until they are let go."""

    def __init__(self, running: Bench, made: Machine | None = None, where: str = UPSTREAM) -> None:
        """`made` and `where`: of the machine, and the resource, in whose queue it is seen who waits."""
        self.running = running
        self.made = made
        self.where = where
        self.go = threading.Event()
        self.clients: list[RawClient] = []

        def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
            connection.wait(self.go)
            connection.send(answer(request.target))

        running.handle(handler)

    def ask(self, path: str, *fields: str) -> RawClient:
        client = self.running.connect(timeout_s=30)
        self.clients.append(client)
        client.send(head("GET", path, *fields))
        return client

    def fill(self, count: int) -> list[RawClient]:
        """So many requests, in this order: the first ones are at the upstream, the others wait before it."""
        return [self.next(f"/{number}", number + 1) for number in range(count)]

    def next(self, path: str, count: int) -> RawClient:
        """One more, and with it so many are there: a worker reads those that come at once in any order."""
        asked = self.ask(path)

        def waiting() -> int:
            return self.made.reading(self.where).queued if self.made is not None else 0

        wait_for(f"{path} is there", lambda: len(self.running.upstream.requests) + waiting() == count)
        return asked

    def reason_of(self, client: RawClient) -> str:
        (got,) = client.read_answers([Asked()])
        assert got.status == 503
        assert 1 <= int(got.get(b"retry-after") or b"0") <= 60
        return str(json.loads(got.body)["reason"])


def settings(where: str, **queue: int | str) -> Settings:
    """A limit on the upstream or on the only route."""
    table: dict[str, Value] = {"limit": LIMIT, "queue": {"max": QUEUE, "timeout": "20s", "discipline": "fifo", **queue}}
    if where == "route":
        return Settings(extra={"route": [{"name": "r", "upstream": "u", **table}]})
    return Settings(limit=LIMIT, extra={"upstream": {"u": table}})


@pytest.fixture(params=["upstream", "route"])
def held(request: pytest.FixtureRequest) -> Iterator[Held]:
    with machine(settings(request.param)) as made:
        held = Held(made.running, made, UPSTREAM if request.param == "upstream" else "route/r")
        try:
            yield held
        finally:
            held.go.set()
            for client in held.clients:
                client.close()


def test_no_more_than_the_limit(held: Held) -> None:
    """Two are at the upstream, three wait, and each gets its own answer once there is room."""
    asked = held.fill(LIMIT + QUEUE)
    full = held.ask("/full")
    assert held.reason_of(full) == "queue_full"
    assert len(held.running.upstream.requests) == LIMIT
    held.go.set()
    for number, client in enumerate(asked):
        assert client.read_answers([Asked()])[0].body == f"/{number}".encode()
    seen = [seen.target for seen in held.running.upstream.requests]
    assert sorted(seen) == [f"/{number}".encode() for number in range(LIMIT + QUEUE)]
    log = held.running.gateway.log_lines
    wait_for("the waits in the log", lambda: sum('"edgeq.queue_ms"' in line for line in log()) >= QUEUE)


def test_who_leaves_gives_up_its_place(held: Held) -> None:
    """A client that goes while it waits makes room in the queue at once, and its request is never sent."""
    asked = held.fill(LIMIT + QUEUE)
    asked[LIMIT].reset()
    gone = wait_for(
        "its line in the log", lambda: [line for line in held.running.gateway.log_lines() if '"client_gone"' in line]
    )
    assert isinstance(gone, list)
    late = held.ask("/late")
    held.go.set()
    assert late.read_answers([Asked()])[0].body == b"/late"
    assert f"/{LIMIT}".encode() not in [seen.target for seen in held.running.upstream.requests]


def test_a_reload_lets_more_in(held: Held) -> None:
    """A higher limit holds at once, also for those who wait."""
    asked = held.fill(LIMIT + QUEUE)
    gateway = held.running.gateway
    extra = dict(gateway.settings.extra)
    if "route" in extra:
        extra["route"] = [{"name": "r", "upstream": "u"}]
    gateway.reload(extra if "route" in extra else {"upstream": {"u": {"limit": 0}}}, limit=1 << 20)
    upstream = held.running.upstream
    upstream.wait_for(lambda: len(upstream.requests) == LIMIT + QUEUE, 20, "all are at the upstream")
    held.go.set()
    assert all(client.read_answers([Asked()])[0].status == 200 for client in asked)


def test_a_wait_ends() -> None:
    """Who waits for too long is told so."""
    with bench(settings("upstream", timeout="300ms")) as running:
        held = Held(running)
        held.fill(LIMIT)
        try:
            assert held.reason_of(held.ask("/late")) == "queue_timeout"
        finally:
            held.go.set()
            for client in held.clients:
                client.close()


def test_a_learned_limit_refuses_nothing_that_can_be_served() -> None:
    """From the first request on, many clients at an upstream that answers at once: every one is served."""
    with bench(Settings(limit="adaptive")) as running:
        running.handle()
        clients = [running.connect() for _ in range(30)]
        for round_number in range(20):
            for number, client in enumerate(clients):
                client.send(head("GET", f"/{round_number}/{number}"))
            for client in clients:
                client.read_answers([Asked()] * (round_number + 1))
        answers = [client.read_answers([Asked()] * 20) for client in clients]
        assert all(len(got) == 20 and all(one.status == 200 for one in got) for got in answers)
        for client in clients:
            client.close()


def test_what_hangs_at_the_start_keeps_nobody_out() -> None:
    """While nothing has come back a learned limit is a guess: who would be refused for it is let in instead."""
    with bench(Settings(limit="adaptive")) as running:
        held = Held(running)
        asked = [held.ask(f"/{number}") for number in range(8)]
        upstream = running.upstream
        upstream.wait_for(lambda: len(upstream.requests) == 8, 20, "all are at the upstream")
        held.go.set()
        assert all(client.read_answers([Asked()])[0].status == 200 for client in asked)
        for client in asked:
            client.close()


def test_who_waited_for_a_worker_to_be_replaced_may_still_wait_for_the_limit() -> None:
    """Longer than a queue allows, since nobody was there: the successor serves all of them, one after the other."""
    with bench(
        Settings(limit=1, extra={"upstream": {"u": {"queue": {"timeout": "2s", "discipline": "fifo"}}}})
    ) as running:
        running.handle()
        pid = running.gateway.wait_event("worker ready")["worker_pid"]
        os.kill(pid, signal.SIGSTOP)
        clients = [running.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(head("GET", f"/{number}"))
        for client in clients:
            kernel.wait_until_sent_ms(client.socket, 2100)
        os.kill(pid, signal.SIGKILL)
        for number, client in enumerate(clients):
            (got,) = client.read_answers([Asked()])
            assert (got.status, got.get(b"x-path")) == (200, b"/%d" % number)
            client.close()
