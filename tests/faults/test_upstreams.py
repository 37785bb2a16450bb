"""Upstreams that trickle, stall, reset, half-close, lie, and close what was kept."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings, Value, free_port, running
from tests.support.raw_client import Asked, Ending, RawClient
from tests.support.scripted_upstream import (
    Script,
    SeenRequest,
    UpstreamConnection,
    answer,
    chunked,
    early,
    echo,
    reply_then,
    serve,
    stalled,
)

PLAIN = answer(b"0123456789")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"01234", b"56789", trailers=(b"X: y",))
POST = head("POST", "/p", "Content-Length: 5") + b"hello"


@pytest.fixture(scope="module")
def quick() -> Iterator[Bench]:
    """A gateway that does not wait for its upstream for long: for an answer, so long that one comes that is sent."""
    with bench(Settings(first_byte_s=2, answer_body_s=0.5)) as running_bench:
        yield running_bench


@pytest.fixture(scope="module")
def patient() -> Iterator[Bench]:
    """A gateway with the default time-outs: nothing here may depend on them."""
    with bench() as running_bench:
        yield running_bench


@pytest.mark.parametrize("data", [PLAIN, CHUNKED], ids=["length", "chunked"])
def test_trickled_answer(patient: Bench, data: bytes) -> None:
    """An answer that arrives byte by byte is delivered like any other."""
    patient.handle(lambda connection, request: connection.send(data, 1))
    with patient.connect() as client:
        got = client.ask(head())
        assert (got.status, got.body) == (200, b"0123456789")
        assert client.ask(head()).complete, "the connection is kept"


def test_stall_before_answer(quick: Bench) -> None:
    """An upstream that does not answer in time leads to 504, and its connection is closed."""
    server = quick.play(stalled)
    with quick.connect() as client:
        got = client.ask(head("POST", "/", "Content-Length: 0"), b"POST")
    assert got.status == 504
    server.wait_for(lambda: server.connections[0].ended.is_set(), what="the connection is closed")


def test_stall_within_head(quick: Bench) -> None:
    """An upstream that stalls within its head leads to 504."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(PLAIN[:20])
        connection.stall()

    quick.play(script)
    with quick.connect() as client:
        assert client.ask(head("POST", "/", "Content-Length: 0"), b"POST").status == 504


@pytest.mark.parametrize("data", [PLAIN, CHUNKED], ids=["length", "chunked"])
def test_stall_within_body(quick: Bench, data: bytes) -> None:
    """An upstream that stalls within its body leads to a visible truncation."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.send(data[: data.index(b"01234") + 5])
        connection.stall()

    server = quick.play(script)
    with quick.connect() as client:
        client.send(head())
        client.read_to_end(5)
        (got,) = client.read_answers([Asked()])
        assert client.ending is not Ending.OPEN
    assert (got.status, got.complete) == (200, False)
    server.wait_for(lambda: server.connections[0].ended.is_set(), what="the connection is closed")


def _cut(data: bytes, count: int, end: str) -> Script:
    return serve(reply_then(data[:count], end))


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("data", [PLAIN, CHUNKED], ids=["length", "chunked"])
def test_cut_at_every_byte(patient: Bench, data: bytes, end: str) -> None:
    """An answer cut after any number of bytes is a 502 or visibly truncated, never a clean shorter answer."""
    for count in range(len(data)):
        patient.play(_cut(data, count, end))
        with patient.connect() as client:
            client.send(POST)
            (got,) = client.read_answers([Asked(b"POST")])
            truncated = got.status == 200 and not got.complete
            assert truncated or got.status == 502, f"after {count} bytes: {got}"
            if truncated:
                client.read_to_end(5)
                assert client.ending is not Ending.OPEN
            if count < data.index(b"\r\n\r\n") + 3:
                assert got.status == 502, f"after {count} bytes: {got}"


def test_kept_connection_closed_then_get(patient: Bench) -> None:
    """An idle connection that the upstream has closed costs the next GET nothing."""
    server = patient.handle()
    with patient.connect() as client:
        assert client.ask(head()).status == 200
        for connection in server.connections:
            connection.half_close()
        assert client.ask(head("GET", "/again")).status == 200


def test_kept_connection_closed_then_post(patient: Bench) -> None:
    """Neither does it cost a POST anything when the close was there before the request."""
    server = patient.handle()
    with patient.connect() as client:
        assert client.ask(head()).status == 200
        server.drop_idle()
        got = client.ask(POST, b"POST")
    assert (got.status, got.body) == (200, b"hello")
    assert sum(request.method == b"POST" for request in server.requests) == 1


@pytest.mark.parametrize("end", ["close", "reset"])
def test_kept_connection_closes_on_get(patient: Bench, end: str) -> None:
    """A kept connection that ends instead of answering: a GET goes again, once, on another connection."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if len(connection.requests) == 2 and connection.number == 0:
            reply_then(b"", end)(connection, request)
        else:
            echo(connection, request)

    server = patient.handle(handler)
    with patient.connect() as client:
        assert client.ask(head("GET", "/1")).status == 200
        assert client.ask(head("GET", "/2")).status == 200
    assert [request.target for request in server.requests] == [b"/1", b"/2", b"/2"]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_kept_connection_closes_on_post(patient: Bench, end: str) -> None:
    """A POST that the upstream may have seen is never sent twice: 502."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.method == b"POST":
            reply_then(b"", end)(connection, request)
        else:
            echo(connection, request)

    server = patient.handle(handler)
    with patient.connect() as client:
        assert client.ask(head("GET", "/1")).status == 200
        assert client.ask(POST, b"POST").status == 502
    assert sum(request.method == b"POST" for request in server.requests) == 1


def test_get_is_sent_twice_at_most(patient: Bench) -> None:
    """An upstream that closes on each request sees a GET twice at most, then the client gets 502."""
    server = patient.handle(reply_then(b"", "close"))
    with patient.connect() as client:
        assert client.ask(head()).status == 502
    assert len(server.requests) <= 2


def test_no_retry_after_the_first_byte(patient: Bench) -> None:
    """Once a byte of an answer came, nothing is sent again."""
    server = patient.handle(reply_then(b"H", "close"))
    with patient.connect() as client:
        assert client.ask(head()).status == 502
    assert len(server.requests) == 1


def test_unsolicited_bytes_on_idle_connection(patient: Bench) -> None:
    """An answer that comes while nothing was asked is not given to the next client."""
    server = patient.handle()
    with patient.connect() as client:
        assert client.ask(head("GET", "/1")).get(b"x-path") == b"/1"
        first = server.connections[0]
        first.send(answer(b"evil"))
        kernel.wait_until(first.gateway_has_closed, 5, "the poisoned connection is closed")
        got = client.ask(head("GET", "/2"))
    assert (got.get(b"x-path"), got.body) == (b"/2", b"")


def test_unsolicited_bytes_and_the_next_request_at_once(patient: Bench) -> None:
    """Both wait in the kernel when the worker looks, the bytes since before the request: they are not its answer."""
    server = patient.handle()
    with patient.connect() as client:
        assert client.ask(head("GET", "/1")).get(b"x-path") == b"/1"
        (worker,) = patient.gateway.workers
        with kernel.stopped(worker):
            server.connections[0].send(answer(b"evil"))
            client.socket.sendall(head("GET", "/2"))
        _, got = client.read_answers([Asked(), Asked()])
    assert (got.get(b"x-path"), got.body) == (b"/2", b"")


@pytest.mark.parametrize("tells", [b"Connection: close", b"Connection: close\r\nContent-Length: 4"])
def test_408_of_an_idle_connection_meets_a_request(patient: Bench, tells: bytes) -> None:
    """The one answer that a server may send unasked (RFC 9110 15.5.9): the request is sent on another connection."""
    server = patient.handle()
    with patient.connect() as client:
        assert client.ask(head("GET", "/1")).get(b"x-path") == b"/1"
        (worker,) = patient.gateway.workers
        with kernel.stopped(worker):
            client.socket.sendall(head("GET", "/2"))
            server.connections[0].send(b"HTTP/1.1 408 Request Timeout\r\n" + tells + b"\r\n\r\nlate")
            server.connections[0].half_close()
        _, got = client.read_answers([Asked(), Asked()])
    assert (got.status, got.get(b"x-path")) == (200, b"/2")
    assert len(server.connections) == 2


def test_early_refusal_of_a_large_upload(patient: Bench) -> None:
    """413 before the body is read reaches the client, although it is still sending."""
    server = patient.play(early(answer(b"too large", b"413 Content Too Large", b"Connection: close"), "keep"))
    with patient.connect() as client:
        client.send(head("POST", "/", "Content-Length: 100000000"))
        client.socket.settimeout(5)
        client.send(b"z" * 2_000_000)
        (got,) = client.read_answers([Asked(b"POST")])
    assert (got.status, got.body) == (413, b"too large")
    assert not any(request.complete for request in server.requests)


def test_early_success_of_an_unfinished_upload(patient: Bench) -> None:
    """An early 200 is delivered too; the upstream's connection is not used again with half a request in it."""
    server = patient.play(early(answer(b"ok"), "keep"))
    with patient.connect() as client:
        client.send(head("POST", "/", "Content-Length: 1000") + b"z" * 10)
        (got,) = client.read_answers([Asked(b"POST")])
    assert (got.status, got.body) == (200, b"ok")
    first = server.connections[0]
    kernel.wait_until(first.gateway_has_closed, 5, "the half-used connection is closed")


def test_nobody_listens() -> None:
    """A refused connection is 502."""
    with running(free_port()) as gateway, RawClient(gateway.address) as client:
        assert client.ask(head()).status == 502


def test_connect_time_out() -> None:
    """An upstream whose accept queue is full leads to 504 after the connect time-out."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with running(port, Settings(connect_s=0.3)) as gateway, RawClient(gateway.address) as client:
            assert client.ask(head()).status in (503, 504)
        for filler in fillers:
            filler.close()


def test_large_answer_is_exact(patient: Bench) -> None:
    """A large answer arrives byte for byte."""
    body = hashlib.shake_128(b"answer").digest(16 * 1024 * 1024)
    patient.handle(lambda connection, request: connection.send(answer(body)))
    with patient.connect() as client:
        client.send(head())
        got = client.read_large(len(body))
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_upload_is_exact(patient: Bench, framing: str) -> None:
    """A large upload reaches the upstream byte for byte, also if that reads slowly."""
    body = hashlib.shake_128(b"upload").digest(8 * 1024 * 1024)
    digests: list[bytes] = []

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        digests.append(hashlib.sha256(request.body).digest())
        connection.send(answer(b"ok"))

    patient.handle(handler)
    with patient.connect(timeout_s=30) as client:
        if framing == "length":
            client.send(head("POST", "/", f"Content-Length: {len(body)}") + body)
        else:
            pieces = [body[at : at + 100_003] for at in range(0, len(body), 100_003)]
            client.send(head("POST", "/", "Transfer-Encoding: chunked") + chunked(*pieces))
        (got,) = client.read_answers([Asked(b"POST")])
    assert got.body == b"ok"
    assert digests == [hashlib.sha256(body).digest()]


def test_uploads_at_once_are_not_mixed_up(patient: Bench) -> None:
    """Four large ones whose upstream does not read yet, each followed by a request in the same write."""
    count, size_bytes = 4, 4 * 1024 * 1024
    gate = threading.Event()
    all_stuck = threading.Barrier(count + 1)
    failed: list[str] = []

    def script(connection: UpstreamConnection) -> None:
        connection.wait(gate)
        while (request := connection.read_request()) is not None:
            connection.send(answer(hashlib.sha256(request.body).digest()))

    def upload(number: int) -> None:
        body = hashlib.shake_128(b"upload %d" % number).digest(size_bytes)
        after = hashlib.shake_128(b"after %d" % number).digest(300_000)
        second = head("POST", "/after", f"Content-Length: {len(after)}") + after
        with patient.connect(timeout_s=60) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            everything = head("POST", f"/{number}", f"Content-Length: {len(body)}") + body + second
            sent = client.send_until_stuck(len(everything), everything)
            all_stuck.wait(60)
            client.socket.settimeout(60)
            client.send(everything[sent:])
            answers = client.read_answers([Asked(b"POST"), Asked(b"POST")], 60)
            if [one.body for one in answers] != [hashlib.sha256(one).digest() for one in (body, after)]:
                failed.append(f"upload {number}")

    patient.play(script)
    threads = [threading.Thread(target=upload, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    all_stuck.wait(60)
    gate.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failed == []


def test_slow_upstream_stops_the_upload() -> None:
    """An upstream that does not read stops the client: the gateway does not swallow the upload."""
    gate = threading.Event()

    def script(connection: UpstreamConnection) -> None:
        connection.wait(gate)
        request = connection.read_request()
        assert request is not None
        connection.send(answer(b"%d" % len(request.body)))

    size_bytes = 32 * 1024 * 1024
    with bench() as running_bench:
        running_bench.play(script)
        with running_bench.connect(timeout_s=30) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            client.send(head("POST", "/", f"Content-Length: {size_bytes}"))
            sent = client.send_until_stuck(size_bytes)
            assert sent < 16 * 1024 * 1024, f"{sent} bytes were swallowed"
            gate.set()
            client.socket.settimeout(30)
            client.send(b"u" * (size_bytes - sent))
            (got,) = client.read_answers([Asked(b"POST")], 30)
    assert got.body == b"%d" % size_bytes


def test_half_closing_upstream(patient: Bench) -> None:
    """An upstream that sends FIN right after its answer is a good upstream."""
    patient.handle(reply_then(PLAIN, "half-close"))
    with patient.connect() as client:
        assert client.ask(head()).body == b"0123456789"
        assert client.ask(head()).body == b"0123456789"


def test_a_dial_into_nothing_holds_up_nobody_else() -> None:
    """Beside a connection that is in use, a dial whose SYN is dropped keeps only its own request waiting."""
    extra: dict[str, Value] = {"upstream": {"u": {"pool": {"max_connecting": 1, "queue_timeout": 0.3}}}}
    with contextlib.ExitStack() as closed:
        listener = closed.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        gateway = closed.enter_context(running(listener.getsockname()[1], Settings(connect_s=8, extra=extra)))
        busy, dialing, waiting = (closed.enter_context(RawClient(gateway.address)) for _ in range(3))
        busy.send(head())
        listener.settimeout(10)
        connection = closed.enter_context(listener.accept()[0])
        connection.settimeout(10)
        while not connection.recv(65536).endswith(b"\r\n\r\n"):
            pass
        # The accept queue has room for one: from now on the kernel drops what comes.
        closed.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
        dialing.send(head())
        kernel.wait_until(lambda: _is_dialing(listener.getsockname()[1]), 10, "the SYN that is dropped")
        waiting.send(head())
        (got,) = waiting.read_answers([Asked()], 6)
        assert got.status == 503
        assert b"queue_timeout" in got.body
        assert dialing.read_some(0) == b""
        connection.sendall(PLAIN)
        (got,) = busy.read_answers([Asked()])
        assert got.status == 200
        # The connection that has become free goes to the one who waits longest.
        while not connection.recv(65536).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(PLAIN)
        (got,) = dialing.read_answers([Asked()])
        assert got.status == 200


def _is_dialing(port: int) -> bool:
    """Whether a connection to this port is being opened (SYN_SENT)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(words[2].endswith(f":{port:04X}") and words[3] == "02" for words in map(str.split, lines))
