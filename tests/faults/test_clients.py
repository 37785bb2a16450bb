"""Clients that trickle, stall, reset, half-close and stop reading."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings, Value
from tests.support.raw_client import Asked, Ending
from tests.support.scripted_upstream import (
    SeenRequest,
    UpstreamConnection,
    answer,
    chunked,
    serve,
    stalled,
    trickle,
)

GRACE_S = 1.0
ENOUGH = 64 << 20
"""Several times what the kernels hold of a connection."""
BODY = b"b" * 300
POST = head("POST", "/p", f"Content-Length: {len(BODY)}") + BODY


@pytest.fixture(scope="module")
def quick() -> Iterator[Bench]:
    """A gateway with short time-outs."""
    settings = Settings(head_s=0.5, body_s=0.5, write_s=0.7, keepalive_s=0.6, half_close_s=GRACE_S)
    with bench(settings) as running:
        yield running


@pytest.fixture(scope="module")
def patient() -> Iterator[Bench]:
    """A gateway with the default time-outs: nothing here may depend on them."""
    with bench() as running:
        yield running


def test_trickled_request(patient: Bench) -> None:
    """A request that arrives byte by byte is served like any other."""
    patient.handle()
    with patient.connect() as client:
        client.send_pieces(bytes([byte]) for byte in POST)
        (got,) = client.read_answers([Asked(b"POST")])
    assert (got.status, got.body) == (200, BODY)


def test_head_stalls(quick: Bench) -> None:
    """A head that does not come to its end is answered 408, and the connection closed."""
    server = quick.handle()
    with quick.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        client.read_to_end(5)
        (got,) = client.read_answers([Asked()])
        assert got.status == 408
        assert client.ending is Ending.FIN
    assert server.requests == []


def test_nothing_is_sent(quick: Bench) -> None:
    """A connection on which nothing comes is closed, silently or with 408."""
    with quick.connect() as client:
        data = client.read_to_end(5)
        assert client.ending is not Ending.OPEN
    assert data == b"" or b" 408 " in data.split(b"\r\n")[0]


def test_idle_connection_closes_silently(quick: Bench) -> None:
    """After the keep-alive time-out the connection ends with FIN, without a byte that looks like an answer."""
    quick.handle()
    with quick.connect() as client:
        client.ask(head())
        before = len(client.received)
        client.read_to_end(5)
        assert client.ending is Ending.FIN
        assert len(client.received) == before


def test_body_stalls(quick: Bench) -> None:
    """A body that stops is answered 408, and the upstream request is cancelled, not completed."""
    server = quick.handle()
    with quick.connect() as client:
        client.send(POST[:-10])
        client.read_to_end(5)
        (got,) = client.read_answers([Asked(b"POST")])
        assert got.status == 408
    assert not any(request.complete for request in server.requests)
    server.wait_for(lambda: all(c.ended.is_set() for c in server.connections), what="the upstream request is cancelled")


def test_body_trickles() -> None:
    """A body that never stops, but is slower than limits.min_body_rate, is answered 408 and named so in the log; a
    reload takes the rate away, and the same body is served."""
    limits = {"min_body_rate": "1GiB"}  # nobody is that fast
    with bench(Settings(body_s=0.5, extra={"listener": {"limits": limits}})) as running:
        server = running.handle()
        with running.connect() as client:
            client.send(head("POST", "/p", "Content-Length: 1000000000"))
            while client.send_pieces([b"b"]) and not client.read_some(0.01):
                pass
            (got,) = client.read_answers([Asked(b"POST")])
        assert got.status == 408
        assert b"limits.min_body_rate" in got.body
        assert not any(request.complete for request in server.requests)
        running.gateway.reload({"listener": {"limits": {"min_body_rate": 0}}}, body_s=30)
        with running.connect() as client:
            client.send_pieces([POST[:-5], POST[-5:-2], POST[-2:]])
            (got,) = client.read_answers([Asked(b"POST")])
        assert (got.status, got.body) == (200, BODY)


@pytest.mark.parametrize("count", [1, 3, 17, 30, len(POST) - len(BODY) - 1])
def test_reset_within_head(patient: Bench, count: int) -> None:
    """A client that resets within its head leaves nothing behind."""
    server = patient.handle()
    with patient.connect() as client:
        client.send_pieces([POST[:count]])
        client.reset()
    assert patient.still_serves()
    assert all(request.target == b"/alive" for request in server.requests)


@pytest.mark.parametrize("missing", [len(BODY), len(BODY) - 1, 150, 1])
def test_reset_within_body(patient: Bench, missing: int) -> None:
    """A client that resets within its body cancels the upstream request, which never becomes complete."""
    server = patient.handle()
    with patient.connect() as client:
        client.send_pieces([POST[:-missing]])
        server.wait_for(lambda: bool(server.requests), what="the head reaches the upstream")
        client.reset()
    server.wait_for(lambda: all(c.ended.is_set() for c in server.connections), what="the upstream request is cancelled")
    assert not any(request.complete for request in server.requests)


@pytest.mark.parametrize("end", ["reset", "half_close"])
def test_leaves_while_its_upload_stands_still(quick: Bench, end: str) -> None:
    """A client that is not read, as the upstream takes nothing, is noticed all the same: a reset is the end, and so is
    a FIN that half_close does not bring forward."""
    server = quick.play(UpstreamConnection.stall)
    path = f"/still/{end}"
    with quick.connect() as client:
        client.send(head("POST", path, "Content-Length: 1000000000"))
        client.send_until_unread()
        getattr(client, end)()
        kernel.wait_until(lambda: any(path in line for line in quick.gateway.log_lines()), 5, "cancelled")
    (line,) = [line for line in quick.gateway.log_lines() if path in line]
    assert json.loads(line)["edgeq.reason"] == "client_gone"
    assert len(server.connections) == 1


def test_reset_while_waiting(patient: Bench) -> None:
    """A client that resets while its answer is awaited cancels the upstream request at once."""
    server = patient.play(stalled)
    with patient.connect() as client:
        client.send(head())
        server.wait_for(lambda: any(request.complete for request in server.requests), what="the request arrives")
        client.reset()
    server.wait_for(lambda: server.connections[0].ended.is_set(), 5, "the upstream connection is closed")


def test_reset_within_answer(patient: Bench) -> None:
    """A client that resets within its answer cancels the rest at the upstream."""
    gate = threading.Event()
    server = patient.handle(trickle(answer(b"x" * 1000), gate, 500))
    with patient.connect() as client:
        client.send(head())
        client.read_some()
        client.reset()
    kernel.wait_until(server.connections[0].gateway_has_closed, 5, "the upstream connection is closed")
    gate.set()


@pytest.mark.parametrize("how", ["cut", "refused", "max_requests"])
def test_what_is_sent_after_the_end_destroys_no_answer(how: str) -> None:
    """Bytes that were on their way when the gateway ended a connection do not reset it: what was complete arrives."""
    whole = answer(b"w" * 60_000)

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target == b"/whole":
            connection.send(whole)
        else:
            connection.send(answer(b"c" * 100)[:-50])
            connection.close()

    extra: dict[str, Value] = {"listener": {"max_requests": 1 if how == "max_requests" else 0}}
    # The window is small, so most of the answer is still in the gateway's kernel when the connection ends.
    with bench(Settings(extra=extra)) as running, running.connect(receive_buffer_bytes=4096) as client:
        running.handle(handler)
        second = {"cut": head("GET", "/cut"), "refused": b"NO REQUEST\r\n\r\n", "max_requests": b""}[how]
        client.send(head("GET", "/whole") + second)
        state = kernel.FarState(client.socket)
        kernel.wait_until(lambda: state.read() != kernel.ESTABLISHED, 10, "the gateway ends the connection")
        for _ in range(3):
            assert client.send(head("GET", "/late"))
        client.read_to_end(10)
        assert client.ending is Ending.FIN
        asked = [Asked()] if how == "max_requests" else [Asked(), Asked()]
        first, *rest = client.read_answers(asked)
    assert first.complete
    assert first.body == b"w" * 60_000
    assert [one.complete for one in rest] == {"cut": [False], "refused": [True], "max_requests": []}[how]
    assert not any(request.target == b"/late" for request in running.upstream.requests)


def test_half_close_gets_its_answer(patient: Bench) -> None:
    """A client that sends FIN after its request still gets an answer that begins within the grace."""
    gate = threading.Event()

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.wait(gate)
        connection.send(answer(b"late"))

    server = patient.handle(handler)
    with patient.connect() as client:
        client.send(head())
        client.half_close()
        server.wait_for(lambda: bool(server.requests), what="the request arrives")
        gate.set()
        (got,) = client.read_answers([Asked()])
    assert got.body == b"late"


def test_half_close_long_answer(quick: Bench) -> None:
    """An answer that has begun within the grace is delivered to its end, however long that takes."""
    gate = threading.Event()
    server = quick.handle(trickle(answer(b"y" * 1000), gate, 100))
    with quick.connect() as client:
        client.send(head())
        client.half_close()
        client.read_some()
        kernel.select_pause(1.5 * GRACE_S)
        gate.set()
        (got,) = client.read_answers([Asked()])
    assert got.body == b"y" * 1000
    assert len(server.requests) == 1


def test_half_close_without_answer(quick: Bench) -> None:
    """After the grace a half-closed client counts as gone: its upstream request is cancelled."""
    server = quick.play(stalled)
    with quick.connect() as client:
        client.send(head())
        client.half_close()
        server.wait_for(lambda: bool(server.connections) and server.connections[0].ended.is_set(), 5, "cancelled")


def test_half_close_within_upload(patient: Bench) -> None:
    """FIN within the body cancels the upstream request: what was announced can never come."""
    server = patient.handle()
    with patient.connect() as client:
        client.send(POST[:-10])
        server.wait_for(lambda: bool(server.requests), what="the head reaches the upstream")
        client.half_close()
        client.read_to_end(5)
        assert client.ending is not Ending.OPEN
    server.wait_for(lambda: all(c.ended.is_set() for c in server.connections), what="the upstream request is cancelled")
    assert not any(request.complete for request in server.requests)


def test_more_body_than_announced(patient: Bench) -> None:
    """What follows the announced body is read as the next request and refused."""
    server = patient.handle()
    with patient.connect() as client:
        client.send(POST + b"surplus\r\n\r\n")
        first, second = client.read_answers([Asked(b"POST"), Asked()])
        client.read_to_end(5)
        assert client.ending is not Ending.OPEN
    assert (first.status, second.status) == (200, 400)
    assert len(server.requests) == 1


def test_refusal_survives_a_large_upload(patient: Bench) -> None:
    """A refused upload does not lose the refusal to a reset: the rest is read away for a while (RFC 9112 9.6)."""
    with patient.connect() as client:
        client.send(head("POST", "/", "Content-Length: 4194304", "X : y") + b"z" * 1_000_000)
        (got,) = client.read_answers([Asked(b"POST")])
        client.read_to_end(5)
    assert got.status == 400
    assert got.complete


def test_reader_stalls(quick: Bench) -> None:
    """A client that stops reading is cut off after the write time-out, and the upstream with it."""
    server = quick.handle(lambda connection, request: connection.send(answer(b"r" * 20_000_000)))
    with quick.connect(receive_buffer_bytes=16 * 1024) as client:
        client.send(head())
        server.wait_for(lambda: bool(server.connections) and server.connections[0].ended.is_set(), 15, "cut off")
        client.read_to_end(15)
        assert client.ending is not Ending.OPEN
        assert len(client.received) < 20_000_000


def test_slow_reader_gets_everything(patient: Bench) -> None:
    """A slow reader loses nothing."""
    body = bytes(range(256)) * 16384
    patient.handle(lambda connection, request: connection.send(answer(body)))
    with patient.connect(receive_buffer_bytes=8 * 1024) as client:
        client.send(head())
        got = client.read_large(len(body))
    assert got.body == body


def test_expect_continue_is_prompt(patient: Bench) -> None:
    """A client that waits for 100 before its body gets it at once, and then its answer."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(answer(connection.read_bytes(5)))
        connection.read_to_end()

    patient.play(script)
    with patient.connect() as client:
        client.send(head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        while b"\r\n\r\n" not in client.received and client.read_some():
            pass
        assert client.received.startswith(b"HTTP/1.1 100 ")
        client.send(b"hello")
        (got,) = client.read_answers([Asked(b"POST")])
    assert got.body == b"hello"


def test_expect_refused_by_upstream(patient: Bench) -> None:
    """The upstream's refusal of an expectation reaches a client that still waits with its body."""

    def script(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.send(answer(b"no", b"403 Forbidden"))
        connection.read_to_end()

    patient.play(script)
    with patient.connect() as client:
        client.send(head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        (got,) = client.read_answers([Asked(b"POST")])
    assert got.status == 403


def test_pipelined_requests_wait_their_turn(patient: Bench) -> None:
    """The answer to a second request never overtakes the first, and both arrive."""
    gate = threading.Event()

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target == b"/first":
            connection.wait(gate)
        connection.send(answer(request.target))

    server = patient.play(serve(handler))
    with patient.connect() as client:
        client.send(head("GET", "/first") + head("GET", "/second"))
        server.wait_for(lambda: bool(server.requests), what="the first request arrives")
        gate.set()
        got = client.read_answers([Asked(), Asked()])
    assert [one.body for one in got] == [b"/first", b"/second"]


def test_endless_pipelining_that_reads_nothing(patient: Bench) -> None:
    """What this gateway answers by itself is not read without end either, and the others are served meanwhile."""
    asked = head("OPTIONS", "/", "Max-Forwards: 0") * 2000
    with patient.connect() as greedy, patient.connect() as other:
        greedy.socket.setblocking(False)
        sent = quiet = 0
        while quiet < 20:
            assert sent < ENOUGH, "it reads on"
            quiet += 1
            with contextlib.suppress(BlockingIOError):
                while sent < ENOUGH:
                    sent += greedy.socket.send(asked)
                    quiet = 0
            assert other.ask(head("OPTIONS", "/", "Max-Forwards: 0")).status == 200


def test_chunks_are_not_held_back(patient: Bench) -> None:
    """Each chunk of a stream reaches the client before the next is sent."""
    gates = [threading.Event() for _ in range(5)]

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, gate in enumerate(gates):
            connection.send(b"8\r\nevent %d\n\r\n" % number)
            connection.wait(gate)
        connection.send(chunked())

    patient.handle(handler)
    with patient.connect() as client:
        client.send(head())
        for number, gate in enumerate(gates):
            while b"event %d\n" % number not in client.received:
                assert client.read_some(5), f"event {number} is held back"
            gate.set()
        (got,) = client.read_answers([Asked()])
    assert got.complete
