"""Streams with slow clients and slow providers: what is held is bounded, and what takes too long ends."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from tests.llm.gateway.support import (
    BEGIN_ANTHROPIC,
    CHAT,
    FLOOD_BYTES,
    MESSAGES,
    STREAM_HEAD,
    Stand,
    ask_for,
    events,
    flood,
    framed,
    request,
    said,
    sse,
    wait_for,
)
from tests.support import kernel
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection


def test_who_reads_slowly_slows_the_provider_down(stand: Stand) -> None:
    """A megabyte or so of each stream is on its way, in sockets' buffers most of it, and not all that there will be;
    and when he reads on, it goes on."""
    stand.play(flood)
    for path in (CHAT, MESSAGES):
        before = stand.scripted.sent_bytes
        with stand.client(receive_buffer_bytes=4096) as client:
            client.send(request(ask_for("scripted", True), path))
            stuck = stand.wait_stuck(before + 100_000)
            assert stuck - before < FLOOD_BYTES // 4
            while len(client.received) < stuck - before + 1_000_000:
                assert client.read_some(), "it does not go on"
        stand.wait_idle()


def test_a_slow_client_does_not_make_a_provider_late(stand: Stand) -> None:
    """While nobody reads, no time passes for the provider; once he reads, it does."""
    stand.play(flood)
    for path in (CHAT, MESSAGES):
        before = stand.scripted.sent_bytes
        client = stand.client(receive_buffer_bytes=4096)
        client.send(request(ask_for("scripted", True), "/quick" + path[3:]))
        stand.wait_stuck(before + 100_000)
        kernel.select_pause(2.0)  # twice as long as may pass between tokens
        wait_for(
            lambda: stand.active("scripted") == 1, lambda: f"given up: {stand.gateway.log_lines()[-1:]}"
        )  # by the next report
        client.close()
        stand.wait_idle()


def test_after_a_pause_the_provider_has_its_time_again(stand: Stand) -> None:
    """A client that had not read for a while reads all, and then the provider falls silent: it has as long as between
    any two tokens, and no longer."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD)
        piece = framed(sse(said("x" * 1000)) * 64)
        for _ in range(200):
            connection.send(piece)
        connection.stall()

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        before = stand.scripted.sent_bytes
        with stand.client(receive_buffer_bytes=4096) as client:
            client.send(request(ask_for("scripted", True), "/quick" + path[3:]))
            stand.wait_stuck(before + 100_000)
            while b'"error"' not in client.received[-2000:]:
                assert client.read_some(), client.received[-200:]
            (got,) = client.read_answers([Asked(b"POST")])
            assert got.complete
            assert events(got.body)[-1][1]["error"]["message"] == "no token came for 1 s"
        stand.wait_idle()


@pytest.mark.parametrize("model", ["slow-oa", "slow-an", "long-oa", "long-ge"])
def test_all_of_it_takes_too_long(stand: Stand, model: str) -> None:
    """route.timeout: 504 while nothing has come, an error within the stream after that."""
    clients = []
    for path, stream in product((CHAT, MESSAGES), (False, True)):
        client = stand.client()
        client.send(request(ask_for(model, stream), "/timed" + path[3:]))
        clients.append((path, stream, client))
    for path, stream, client in clients:
        (answer,) = client.read_answers([Asked(b"POST")])
        if stream and model.startswith("long"):
            assert answer.status == 200
            name, last = events(answer.body)[-1]
            assert last["error"]["message"], last
            assert (name == "error") is (path == MESSAGES)
        else:
            assert answer.status == 504, answer
            told: dict[str, Any] = json.loads(answer.body)
            assert told["error"]["message"]
    stand.wait_counts(stand.called(model), open=0)
    stand.wait_idle()


def test_comments_go_on_between_tokens(stand: Stand) -> None:
    """A provider that thinks for long within its answer: comments stand between whole events only."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD + framed(sse(said("a"))) + framed(sse(said("b"))[:20]))
        connection.wait(stand.opened)
        connection.send(framed(sse(said("b"))[20:] + sse(said("", "stop"), "[DONE]")) + b"0\r\n\r\n")

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        stand.opened.clear()
        with stand.client() as client:
            client.send(request(ask_for("scripted", True), "/beat" + path[3:]))
            while client.received.count(b": waiting") < 3:
                assert client.read_some(), bytes(client.received)
            stand.opened.set()
            (got,) = client.read_answers([Asked(b"POST")])
        found = events(got.body)
        assert found[-1][1] in ("[DONE]", {"type": "message_stop"})
        assert sum('"b"' in json.dumps(one) for _, one in found) == 1


@pytest.mark.parametrize("who", ["", "-an"])
def test_between_tokens_signs_of_life_are_none(stand: Stand, who: str) -> None:
    """A provider that only says that it is there, after its first words, does not say anything for too long."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        begin = BEGIN_ANTHROPIC if who else sse(said("a"))
        connection.send(STREAM_HEAD + framed(begin))
        while not connection.gateway_has_closed():
            connection.send(framed(b'event: ping\ndata: {"type": "ping"}\n\n' if who else b": ping\r\n\r\n"))
            kernel.select_pause(0.05)

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        got = stand.ask(ask_for(f"scripted{who}", True), "/quick" + path[3:])
        assert got.complete
        assert events(got.body)[-1][1]["error"]["message"] == "no token came for 1 s"
    stand.wait_idle()


def test_interim_answers_stay_here(stand: Stand) -> None:
    """103 and 100 of a provider, before its answer, and after our own head has been sent."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        connection.wait(stand.opened)
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(STREAM_HEAD + framed(sse(said("a"), said("", "stop"), "[DONE]")) + b"0\r\n\r\n")

    stand.play(answer)
    stand.opened.clear()
    with stand.client() as client:
        client.send(request(ask_for("scripted", True), "/beat" + CHAT[3:]))
        while client.received.count(b": waiting") < 2:
            assert client.read_some(), bytes(client.received)
        stand.opened.set()
        (got,) = client.read_answers([Asked(b"POST")])
    assert got.interim == []
    assert events(got.body)[-1] == ("", "[DONE]")


def test_memory_of_a_client_that_never_reads(stand: Stand) -> None:
    """Forty streams that nobody reads: the workers' memory stays what it is, but for a little of each."""
    stand.play(flood)
    before = sum(one["memory_bytes"] for one in stand.show("workers"))
    clients = [stand.client(receive_buffer_bytes=4096) for _ in range(40)]
    for number, client in enumerate(clients):
        client.send(request(ask_for("scripted", True), (CHAT, MESSAGES)[number % 2]))
    sent = stand.scripted.sent_bytes
    stand.wait_stuck(sent + 100_000 * len(clients))
    after = sum(one["memory_bytes"] for one in stand.show("workers"))
    assert after - before < len(clients) * 1024 * 1024, (before, after)
    for client in clients:
        client.reset()
    stand.wait_idle()


def test_what_came_with_an_error_is_not_lost(stand: Stand) -> None:
    """The last words and the error are in one piece: the client gets both. In the log it is what the provider has said,
    and no connection that was cut."""
    since = len(stand.gateway.log_lines())

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD + framed(sse(said("a"))))
        connection.wait(stand.opened)
        connection.send(framed(sse(said("last words"), {"error": {"message": "oh no", "type": "server_error"}})))
        connection.stall()

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        stand.opened.clear()
        with stand.client() as client:
            client.send(request(ask_for("scripted", True), path))
            while b'"a"' not in client.received:
                assert client.read_some(), bytes(client.received)
            stand.opened.set()
            (got,) = client.read_answers([Asked(b"POST")])
        assert b"last words" in got.body
        assert events(got.body)[-1][1]["error"]["message"]
        assert b"message_stop" not in got.body
        assert b"[DONE]" not in got.body
        assert got.body.count(b"oh no") == 1
    lines = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "scripted", since, 2)
    assert [line["edgeq.reason"] for line in lines] == ["upstream_error"] * 2


def test_a_stream_that_fails_before_a_slow_client_leaves_a_connection_that_is_read(stand: Stand) -> None:
    """Its last piece, with the error, is more than the client takes, so the provider is not read; whose request is next
    on that connection gets his answer all the same."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD + framed(sse(said("hi"))))
        if b"well" in seen.body:
            connection.send(framed(sse(said("", "stop"), "[DONE]")) + b"0\r\n\r\n")
            return
        piece = framed(sse(said("x" * 1000)) * 64)
        for _ in range(64):
            connection.send(piece)
        error = {"error": {"message": "oh no", "type": "server_error"}}
        connection.send(framed(sse(said("x" * 120_000), error)) + b"0\r\n\r\n")

    stand.play(answer)
    for path in (CHAT, MESSAGES, CHAT, MESSAGES):  # where the last piece begins is chance
        with stand.client(receive_buffer_bytes=4096) as client:
            before = stand.scripted.sent_bytes
            client.send(request(ask_for("scripted", True), path))
            stand.wait_stuck(before + 100_000)
            while not client.received.endswith(b"\r\n0\r\n\r\n"):
                assert client.read_some(), bytes(client.received[-500:])
            assert b"oh no" in client.received[-1000:]
            client.received.clear()
            client.send(request(ask_for("scripted", True, "well"), path))
            (got,) = client.read_answers([Asked(b"POST")])
        assert got.complete
        assert events(got.body)[-1][1] in ("[DONE]", {"type": "message_stop"})
    stand.wait_idle()
