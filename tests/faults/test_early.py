"""Connections whose first request is there when they are accepted: served before the event loop watches them.

The workers are stopped while the client connects and sends, so that it is always so. The raw cases are played in this
way, too (wire_cases).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench, bench, head
from tests.support.raw_client import Asked, Ending, RawClient
from tests.support.scripted_upstream import (
    SeenRequest,
    UpstreamConnection,
    answer,
    chunked,
    reply,
    reply_then,
    serve,
    stalled,
    trickle,
)
from tests.support.supervised import wait_for

CLOSE = "Connection: close"
LARGE = b"l" * (8 << 20)
"""More than both kernels hold."""


@pytest.fixture(scope="module")
def patient() -> Iterator[Bench]:
    """A gateway with the default time-outs: nothing here may depend on them."""
    with bench() as running:
        yield running


def early(running: Bench, data: bytes, receive_buffer_bytes: int = 0) -> RawClient:
    """A client whose bytes are there before its connection is accepted."""
    with running.gateway.asleep():
        client = running.connect(receive_buffer_bytes=receive_buffer_bytes)
        client.send(data)
    return client


def watched(running: Bench) -> bool:
    """Does the worker poll the one client connection there is (or is it gone)?"""
    (pid,) = running.gateway.workers
    listening = f":{running.gateway.address[1]:04X}"
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {line[9] for line in lines if line[1].endswith(listening) and line[3] == "01"}
    fds = {
        name
        for name in os.listdir(f"/proc/{pid}/fd")
        if any(os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]" for inode in inodes)
    }
    polled = {
        line.split()[1]
        for info in Path(f"/proc/{pid}/fdinfo").iterdir()
        for line in info.read_text().splitlines()
        if line.startswith("tfd:")
    }
    return fds <= polled


def test_one_request(patient: Bench) -> None:
    """An answer, then the end of the connection, and one line in the log."""
    patient.handle(reply(answer(b"one")))
    before = len(patient.gateway.log_lines())
    with early(patient, head("GET", "/one", CLOSE)) as client:
        client.read_to_end()
        (got,) = client.read_answers([Asked()])
    assert (got.status, got.body, client.ending) == (200, b"one", Ending.FIN)
    wait_for("its line", lambda: len(patient.gateway.log_lines()) == before + 1)


def test_kept(patient: Bench) -> None:
    """A connection that is kept serves its next requests as any other, and an idle one ends with its client."""
    patient.handle()
    with early(patient, head("GET", "/1")) as client:
        assert client.read_answers([Asked()])[0].status == 200
        for number in range(3):
            assert client.ask(head("GET", f"/{number}")).get(b"x-path") == b"/%d" % number


def test_pipelined(patient: Bench) -> None:
    """Several requests in the first segment are answered in order."""
    patient.handle()
    paths = [f"/{number}" for number in range(5)]
    with early(patient, b"".join(head("GET", path) for path in paths)) as client:
        answers = client.read_answers([Asked()] * 5)
    assert [got.get(b"x-path") for got in answers] == [path.encode() for path in paths]


@pytest.mark.parametrize("size", [1, 100, 16 * 1024 - 1, 16 * 1024, 100_000])
@pytest.mark.parametrize("keep", [True, False])
def test_bodies(patient: Bench, size: int, keep: bool) -> None:
    """A body that comes with its head, or goes on after it, passes whole."""
    patient.handle()
    body = os.urandom(size)
    fields = (f"Content-Length: {size}",) if keep else (f"Content-Length: {size}", CLOSE)
    with early(patient, head("POST", "/p", *fields) + body) as client:
        (got,) = client.read_answers([Asked(b"POST")])
        assert (got.status, got.body) == (200, body)


@pytest.mark.parametrize("cut", [1, 10, 30, 60])
def test_rest_comes_later(patient: Bench, cut: int) -> None:
    """The first bytes of a request are there, the rest comes when it is accepted."""
    patient.handle()
    request = head("POST", "/p", "Content-Length: 5") + b"hello"
    with early(patient, request[:cut]) as client:
        client.send(request[cut:])
        (got,) = client.read_answers([Asked(b"POST")])
    assert got.body == b"hello"


@pytest.mark.parametrize("kind", ["length", "chunked", "until close"])
@pytest.mark.parametrize("fields", [(), (CLOSE,)])
def test_client_reads_late(patient: Bench, kind: str, fields: tuple[str, ...]) -> None:
    """An answer that the sockets cannot hold arrives whole."""
    if kind == "length":
        patient.handle(reply(answer(LARGE)))
    elif kind == "chunked":
        head_ = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        patient.handle(reply(head_ + chunked(LARGE[: 4 << 20], LARGE[4 << 20 :])))
    else:
        patient.handle(reply_then(b"HTTP/1.1 200 OK\r\n\r\n" + LARGE, "close"))
    with early(patient, head("GET", "/large", *fields), 64 * 1024) as client:
        got = client.read_large(len(LARGE))
    assert got.complete
    assert got.body == LARGE


def test_cut_answer_is_seen(patient: Bench) -> None:
    """An upstream that breaks off within its answer is no clean end for the client."""
    patient.handle(reply_then(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", "reset"))
    with early(patient, head("GET", "/", CLOSE)) as client:
        client.read_to_end()
        (got,) = client.read_answers([Asked()])
    assert not got.complete


def test_answer_in_parts(patient: Bench) -> None:
    """What comes before and after the loop has taken over comes in order."""
    gate = threading.Event()
    raw = answer(bytes(range(256)) * 8)
    patient.handle(trickle(raw, gate, 700))
    with early(patient, head("GET", "/", CLOSE)) as client:
        assert client.read_some()
        wait_for("the loop to watch it", lambda: watched(patient))
        gate.set()
        client.read_to_end()
        (got,) = client.read_answers([Asked()])
    assert got.body == bytes(range(256)) * 8


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_client_leaves(patient: Bench, how: str) -> None:
    """A client that leaves while its answer is awaited cancels the upstream request."""
    server = patient.play(stalled)
    client = early(patient, head("GET", "/wait"))
    server.wait_for(lambda: len(server.requests) == 1, what="the request")
    if how == "reset":
        client.reset()
    else:
        client.close()
    server.wait_for(lambda: all(c.ended.is_set() for c in server.connections), what="the request is cancelled")


def test_client_has_left_already(patient: Bench) -> None:
    """Request and FIN, or request and reset, are there together: the one is answered, the other leaves nothing."""
    patient.handle()
    with patient.gateway.asleep():
        client = patient.connect()
        client.send(head("GET", "/half"))
        client.half_close()
        gone = patient.connect()
        gone.send(head("GET", "/gone"))
        gone.reset()
        empty = patient.connect()
        empty.close()
    (got,) = client.read_answers([Asked()])
    assert got.get(b"x-path") == b"/half"
    client.read_to_end()
    client.close()
    assert patient.still_serves()


def test_tunnel(patient: Bench) -> None:
    """A connection that becomes a tunnel passes bytes at once, those that came with the handshake too."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(switch)
        while data := connection.read_bytes(1):
            connection.send(data)

    patient.play(script)
    handshake = head("GET", "/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==")
    with early(patient, handshake + b"before") as client:
        while b"before" not in client.received and client.read_some():
            pass
        client.send(b"after")
        while b"after" not in client.received and client.read_some():
            pass
    assert bytes(client.received).endswith(b"beforeafter")


def test_refused(patient: Bench) -> None:
    """A malformed first request is answered, and the connection closed without destroying the answer."""
    patient.handle()
    for data in (
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + b"x" * 8000,
        b"\x16\x03\x01\n" * 20,
        b"GET /\r\n\r\n",
    ):
        with early(patient, data) as client:
            client.read_to_end(5)
            (got,) = client.read_answers([Asked()])
            assert (got.status, client.ending) == (400, Ending.FIN)


def test_many_at_once(patient: Bench) -> None:
    """Hundreds of connections that waited are all served, each with its own answer."""
    patient.handle()
    with patient.gateway.asleep():
        clients = [patient.connect() for _ in range(300)]
        for number, client in enumerate(clients):
            client.send(head("GET", f"/{number}", *((CLOSE,) if number % 2 else ())))
    for number, client in enumerate(clients):
        (got,) = client.read_answers([Asked()])
        assert got.get(b"x-path") == b"/%d" % number
        client.close()


def test_stop_while_early(patient: Bench) -> None:
    """A gateway that is told to stop answers what has come with connections in its accept queue."""
    with bench() as running:
        gate = threading.Event()

        def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
            connection.wait(gate)
            connection.send(answer(b"done"))

        running.upstream.script = serve(handler)
        client = early(running, head("GET", "/"))
        running.upstream.wait_for(lambda: len(running.upstream.requests) == 1, what="the request")
        running.gateway.process.send_signal(signal.SIGTERM)
        running.gateway.wait_event("draining")
        gate.set()
        (got,) = client.read_answers([Asked()])
        assert got.body == b"done"
        client.close()
        assert running.gateway.process.wait(20) == 0
