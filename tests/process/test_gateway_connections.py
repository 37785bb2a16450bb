"""`show connections`: what real clients do is told by the workers, and a worker that hangs is named."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.observe.connections import NO_ANSWER
from edgeq.worker.connections import MAX_TEXT
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings, Value
from tests.support.machine import machine
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import UpstreamConnection, answer
from tests.support.supervised import connect, read_all, wait_for

BIG = 16 << 20
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def script(connection: UpstreamConnection) -> None:
    """Each path has one way of not coming to an end."""
    request = connection.read_head()
    if request is None:
        return
    if request.target == b"/short":
        connection.send(answer(b"ok", b"200 OK", b"Connection: close"))
        return
    if request.target == b"/big":
        connection.send(answer(b"x" * BIG))
    if request.target == b"/tunnel":
        connection.send(SWITCH)
    connection.stall()


def ask_at_once(path: Path, times: int, count: int = 1000) -> list[list[dict[str, Any]]]:
    """The answers to several who ask at the same time."""
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(connect(f"unix:{path}")) for _ in range(times)]
        for sock in asking:
            sock.sendall(f"show connections {count} json\n".encode())
        return [json.loads(read_all(sock)) for sock in asking]


def ask(path: Path, count: int = 1000) -> list[dict[str, Any]]:
    return ask_at_once(path, 1, count)[0]


class Clients:
    """Of one gateway, each closed at the end of its test."""

    def __init__(self, running: Bench, admin: Path) -> None:
        self.running = running
        self.admin = admin
        self.open: list[RawClient] = []

    def connect(self, data: bytes = b"", receive_buffer_bytes: int = 0) -> RawClient:
        client = self.running.connect(60, receive_buffer_bytes)
        self.open.append(client)
        if data:
            client.send(data)
        return client

    def seen(self, client: RawClient) -> dict[str, Any]:
        """The record of this client's connection."""
        host, port = client.socket.getsockname()
        return next((one for one in ask(self.admin) if one["client"] == f"{host}:{port}"), {})

    def until(self, client: RawClient, state: str, so: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """Its record, once it is in this state."""

        def look() -> dict[str, Any] | None:
            one = self.seen(client)
            return one if one.get("state") == state and so(one) else None

        found = wait_for(f"a connection in state {state}", look)
        assert found is not None
        return found

    def close(self) -> None:
        while self.open:
            self.open.pop().close()
        wait_for("nobody", lambda: ask(self.admin) == [])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    admin = tmp_path_factory.mktemp("admin") / "admin.sock"
    queue: Value = {"timeout": "60s", "discipline": "fifo"}
    extra: dict[str, Value] = {
        "server": {"admin": str(admin)},
        "upstream": {"u": {"queue": queue}},
        "route": [{"name": "all", "upstream": "u"}],
    }
    with bench(Settings(head_s=60, limit=1, extra=extra)) as made:
        made.play(script)
        yield Clients(made, admin)


@pytest.fixture
def clients(running: Clients) -> Iterator[Clients]:
    yield running
    running.close()


def test_who_says_nothing(clients: Clients) -> None:
    """Before the first request, within its head, and between two requests."""
    silent = clients.until(clients.connect(), "new")
    assert (silent["requests"], silent["path"], silent["request_ms"]) == (0, "", None)
    assert silent["resource"].startswith("listener/")
    assert silent["age_ms"] >= 0
    assert clients.until(clients.connect(b"GET /secret HTTP/1.1\r\nAuthor"), "head")["path"] == ""
    kept = clients.connect(head("GET", "/short"))
    assert kept.read_answers([Asked()])[0].body == b"ok"
    idle = clients.until(kept, "idle", lambda one: one["sent_bytes"] > 0)
    assert (idle["requests"], idle["method"], idle["path"], idle["endpoint"]) == (1, "", "", "")
    assert idle["received_bytes"] == len(head("GET", "/short"))


def test_a_request_on_its_way(clients: Clients) -> None:
    """With its body, at the upstream; the next one waits before the limit; no query is told."""
    endpoint = f"127.0.0.1:{clients.running.gateway.upstream_port}"
    sending = clients.connect(head("POST", "/body?token=secret", "Content-Length: 9") + b"four")
    body = clients.until(sending, "body")
    assert (body["method"], body["path"], body["route"]) == ("POST", "/body", "all")
    assert (body["endpoint"], body["resource"]) == (endpoint, f"upstream/u#{endpoint}")
    waiting = clients.until(clients.connect(head("GET", f"/{'w' * 500}", "Cookie: secret")), "waiting")
    assert (waiting["resource"], waiting["endpoint"]) == ("upstream/u:queue", "")
    assert len(waiting["path"]) == MAX_TEXT
    sending.send(b"+five")
    assert clients.until(sending, "upstream")["request_ms"] >= body["request_ms"]
    assert "secret" not in json.dumps(ask(clients.admin))
    assert [one["state"] for one in ask(clients.admin, 1)] == ["upstream"]


def test_answers_and_what_follows(clients: Clients) -> None:
    """A client that does not take its answer, a tunnel, and one that is only awaited to close."""
    slow = clients.connect(head("GET", "/big"), receive_buffer_bytes=4096)
    # While the loop takes the connection over its counts are not known.
    taken = clients.until(slow, "answer", lambda one: one["stalled"] and one["sent_bytes"] is not None)
    assert 0 < taken["sent_bytes"] < BIG
    clients.open.remove(slow)
    slow.reset()
    tunnel = clients.connect(head("GET", "/tunnel", "Connection: Upgrade", "Upgrade: websocket"))
    assert clients.until(tunnel, "tunnel")["path"] == "/tunnel"
    wrong = clients.connect(b"GET / HTTP/1.1\r\n\r\n")
    assert clients.until(wrong, "closing")["requests"] == 1


def test_a_worker_that_hangs_is_named(tmp_path: Path) -> None:
    """The others' connections come all the same, each time; once it goes on, so do its own."""
    admin = tmp_path / "admin.sock"
    with machine(Settings(workers=2, extra={"server": {"admin": str(admin)}})) as made:
        clients = [made.client_of(0), made.client_of(1)]
        wait_for("two connections", lambda: len(ask(admin)) == 2)
        os.kill(made.pid(1), signal.SIGSTOP)
        try:
            for silent, seen in ask_at_once(admin, 6):  # of whom the later ones wait with the first
                assert (silent["worker"], silent["state"], silent["client"]) == (1, NO_ANSWER, None)
                assert (seen["worker"], seen["state"]) == (0, "new")
                assert silent.keys() == seen.keys()
        finally:
            os.kill(made.pid(1), signal.SIGCONT)
        wait_for("both again", lambda: {one["worker"] for one in ask(admin) if one["client"]} == {0, 1})
        assert len(clients) == 2
