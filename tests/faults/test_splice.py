"""Large uploads, whose bytes go from socket to socket without passing through the gateway's memory (splice_io)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings
from tests.support.raw_client import Asked, Ending
from tests.support.scripted_upstream import (
    SeenRequest,
    UpstreamConnection,
    answer,
)

MIB = 1 << 20
ANY = random.Random(7).randbytes(8 * MIB)
"""No two pieces of it are alike."""


@pytest.fixture(scope="module")
def patient() -> Iterator[Bench]:
    """A gateway with the default time-outs: nothing here may depend on them."""
    with bench() as running:
        yield running


def post(size: int, path: str = "/p") -> bytes:
    """The head of an upload."""
    return head("POST", path, f"Content-Length: {size}")


def opened(running: Bench) -> list[str]:
    """What the descriptors of the worker are."""
    (pid,) = running.gateway.workers
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(os.readlink(entry))
    return found


def pipes(running: Bench) -> int:
    """How many ends of pipes the worker has."""
    return sum(one.startswith("pipe:") for one in opened(running))


def connections(running: Bench) -> int:
    """How many TCP connections it has, those that wait to be accepted not counted."""
    (pid,) = running.gateway.workers
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    others = {f"socket:[{line[9]}]" for line in lines if line[3] != "0A"}
    return sum(one in others for one in opened(running))


def logged(running: Bench, path: str) -> dict[str, object]:
    """The access record of the one request with this path."""
    kernel.wait_until(lambda: any(f'"{path}"' in line for line in running.gateway.log_lines()), 10, "its line")
    (line,) = [json.loads(line) for line in running.gateway.log_lines() if f'"{path}"' in line]
    return dict(line)


def takes_all(connection: UpstreamConnection, request: SeenRequest) -> None:
    """Answer with nothing but 200; what came is in `request`."""
    connection.send(answer(b"taken"))


@pytest.mark.parametrize("size", [MIB // 4, MIB // 2 - 1, MIB, 5 * MIB + 17])
def test_a_large_body_arrives_whole(patient: Bench, size: int) -> None:
    """Also another on the same connections, and a request that follows at once in the same bytes."""
    server = patient.handle(takes_all)
    body = ANY[:size]
    with patient.connect() as client:
        sender = threading.Thread(target=client.send, args=((post(size) + body) * 2 + head("GET", "/next"),))
        sender.start()
        got = client.read_answers([Asked(b"POST"), Asked(b"POST"), Asked()])
        sender.join()
    assert [one.status for one in got] == [200, 200, 200]
    assert [(request.target, bytes(request.body) == body) for request in server.requests[:2]] == [(b"/p", True)] * 2
    assert (server.requests[2].target, bytes(server.requests[2].body)) == (b"/next", b"")


def test_it_goes_through_a_pipe() -> None:
    """Once a read fills the loop's buffer, which a fast client's soon does; the worker has one pipe for all."""
    with bench() as running:
        assert running.still_serves()
        running.handle(takes_all)
        before = pipes(running)
        with running.connect() as client:
            for _ in range(100):
                assert client.ask(post(8 * MIB) + ANY, b"POST").status == 200
                if pipes(running) > before:
                    break
            assert client.ask(post(8 * MIB) + ANY, b"POST").status == 200
        assert pipes(running) == before + 2
        assert all(bytes(request.body) == ANY for request in running.upstream.requests)


def test_it_waits_for_its_upstream(patient: Bench) -> None:
    """An upstream that reads nothing stops the client; then it reads on."""
    go_on = threading.Event()

    def script(connection: UpstreamConnection) -> None:
        assert connection.read_head() is not None
        connection.wait(go_on)
        body = connection.read_bytes(size)
        connection.send(answer(b"the same" if body == ANY * 8 else b"another"))

    size = 64 * MIB
    patient.play(script)
    with patient.connect() as client:
        client.send(post(size, "/waits"))
        sent = client.send_until_stuck(size, ANY * 8)
        assert sent < size
        go_on.set()
        client.send((ANY * 8)[sent:])
        (got,) = client.read_answers([Asked(b"POST")])
    assert (got.status, got.body) == (200, b"the same")
    assert logged(patient, "/waits")["http.request.body.size"] == size


@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_upstream_that_refuses_the_rest(patient: Bench, end: str) -> None:
    """Its answer, which comes before its end, reaches the client; without one it is 502. No descriptor is left."""

    def script(connection: UpstreamConnection) -> None:
        assert connection.read_head() is not None
        connection.read_bytes(MIB)
        if end == "close":
            connection.send(answer(b"enough", b"413 Content Too Large", b"Connection: close"))
            connection.close()
        else:
            connection.reset()

    patient.play(script)
    before = connections(patient)
    with patient.connect() as client:
        client.send(post(64 * MIB, f"/refuses/{end}"))
        client.send_until_stuck(8 * MIB, ANY)
        (got,) = client.read_answers([Asked(b"POST")])
        assert got.status == (413 if end == "close" else 502)
    assert MIB <= int(str(logged(patient, f"/refuses/{end}")["http.request.body.size"])) <= 8 * MIB
    kernel.wait_until(lambda: connections(patient) <= before, 10, "its sockets are closed")


@pytest.mark.parametrize("end", ["reset", "close", "half_close"])
def test_a_client_that_leaves(patient: Bench, end: str) -> None:
    """The upstream sees the end of the connection, never that of the request."""
    seen: list[int] = []

    def script(connection: UpstreamConnection) -> None:
        assert connection.read_head() is not None
        seen.append(len(connection.read_bytes(2 * MIB)))
        arrived.set()
        connection.read_to_end()

    arrived = threading.Event()
    server = patient.play(script)
    before = connections(patient)
    with patient.connect() as client:
        client.send(post(64 * MIB, f"/left/{end}") + ANY[: 4 * MIB])
        assert arrived.wait(10)
        getattr(client, end)()
        server.wait_for(lambda: server.connections[0].ended.is_set(), what="the upstream's connection is closed")
    kernel.wait_until(lambda: connections(patient) <= before, 10, "its sockets are closed")
    assert seen == [2 * MIB]
    assert not any(request.complete for request in server.requests)
    assert logged(patient, f"/left/{end}")["edgeq.reason"] == "client_gone"


@pytest.mark.parametrize("rate", [0, "1GiB"])
def test_a_body_that_stops(rate: int | str) -> None:
    """Its time-out and its least rate hold as for a body that is copied."""
    with bench(Settings(body_s=0.5, extra={"listener": {"limits": {"min_body_rate": rate}}})) as running:
        server = running.handle()
        before = connections(running)
        with running.connect() as client:
            client.send(post(64 * MIB) + ANY[: 2 * MIB])
            (got,) = client.read_answers([Asked(b"POST")])
            assert got.status == 408
            client.send(ANY[:MIB])
            client.read_to_end(10)
            assert client.ending is not Ending.OPEN
        server.wait_for(lambda: all(c.ended.is_set() for c in server.connections), what="the upstream's is closed")
        kernel.wait_until(lambda: connections(running) <= before, 10, "its sockets are closed")
