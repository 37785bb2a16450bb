"""Clients leave at every stage of a request, by FIN and by RST, streamed and whole: nothing of it stays behind, here or
at the provider.

What is looked at afterwards (`Stand.leftover`): requests of workers, places at upstreams and in their queues,
connections, gates of tokens, limits, retries, and what the provider says is open.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.llm.gateway.support import (
    CHAT,
    MESSAGES,
    RESPONSES,
    STREAM_HEAD,
    Stand,
    ask_for,
    flood,
    framed,
    request,
    said,
    sse,
    wait_for,
)
from tests.support import kernel
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection

Leave = Callable[[RawClient], None]
LEAVES: tuple[Leave, ...] = (RawClient.close, RawClient.reset)
KINDS = (False, True)
PATHS = (CHAT, MESSAGES, RESPONSES)


def asked(path: str, model: str, stream: bool) -> bytes:
    """A request in the words of a path's dialect."""
    if path.endswith("/responses"):
        return request({"model": model, "stream": stream, "input": "hello there"}, path)
    return request(ask_for(model, stream), path)


def left(model: str) -> Callable[[dict[str, Any]], bool]:
    """Is a line of the log about a client who has left this model, as edgeq or the provider calls it?"""
    return lambda one: (
        one["edgeq.reason"] == "client_gone"
        and (one["gen_ai.request.model"] == model or one.get("edgeq.target", "").endswith(model))
    )


def leave_all(clients: list[RawClient]) -> None:
    """By turns with FIN and RST."""
    for number, client in enumerate(clients):
        LEAVES[number % 2](client)


def test_while_its_body_comes(stand: Stand) -> None:
    """Half of a request, then nothing."""
    clients = []
    for path, _ in product(PATHS, LEAVES):
        client = stand.client()
        whole = asked(path, "plain-oa", False)
        client.send_pieces([whole[: len(whole) - 10]])
        clients.append(client)
    leave_all(clients)
    stand.wait_idle()


@pytest.mark.parametrize("model", ["slow-oa", "slow-an", "slow-ge", "early-oa", "early-an", "early-ge"])
def test_before_the_first_event(stand: Stand, model: str) -> None:
    """Before the head of the answer, or between it and the first event: the provider sees that it is not wanted."""
    name = stand.called(model)
    cancelled = stand.counts(name)["cancelled"]
    clients = []
    for path, stream, _ in product(PATHS, KINDS, LEAVES):
        client = stand.client()
        client.send(asked(path, model, stream))
        clients.append(client)
    stand.wait_counts(name, open=len(clients))
    leave_all(clients)
    stand.wait_counts(name, open=0, cancelled=cancelled + len(clients))
    stand.wait_idle()


@pytest.mark.parametrize("model", ["long-oa", "long-an", "long-ge"])
def test_within_a_stream(stand: Stand, model: str) -> None:
    """After some events, of the client's dialect or another: what was used until then is told by the log."""
    name = stand.called(model)
    cancelled = stand.counts(name)["cancelled"]
    since = len(stand.gateway.log_lines())
    clients = []
    for path, _ in product(PATHS, LEAVES):
        client = stand.client()
        client.send(asked(path, model, True))
        clients.append(client)
    for client in clients:
        while len(client.received) < 2000:
            assert client.read_some(), client.received
    leave_all(clients)
    stand.wait_counts(name, open=0, cancelled=cancelled + len(clients))
    stand.wait_idle()
    lines = stand.wait_log(left(model), since, len(clients))
    for line in lines:
        assert 1 <= line["gen_ai.usage.output_tokens"] < 400, line
        assert line["gen_ai.usage.input_tokens"] >= 1, line


@pytest.mark.parametrize(
    ("model", "subject", "place"),
    [
        ("one", "upstreams", "one"),
        ("single", "endpoints", "single"),
        ("alone", "targets", "alone/mock/latency=55s,tag=alone"),
    ],
)
def test_while_it_waits(stand: Stand, model: str, subject: str, place: str) -> None:
    """For a place at the provider, a connection, tokens of the key: the one that runs before it does not notice, nor
    does the provider hear of it."""
    name = stand.called(model)
    before = stand.counts(name)["requests"]
    # What is one connection of each worker are two.
    runs = 2 if subject == "endpoints" else 1

    def waiting() -> int:
        key = "waiting" if subject == "endpoints" else "queued"
        return sum(one[key] for one in stand.show(subject) if place in (one.get("upstream"), one.get("target")))

    running = []
    while stand.counts(name)["open"] < runs:
        client = stand.client()
        client.send(asked(CHAT, model, True))
        running.append(client)
        wait_for(lambda: stand.counts(name)["open"] + waiting() >= len(running), lambda: f"lost: {stand.show(subject)}")
    clients = []
    for path, stream, _ in product(PATHS, KINDS, LEAVES):
        client = stand.client()
        client.send(asked(path, model, stream))
        clients.append(client)
    queued = len(clients) + len(running) - runs
    wait_for(lambda: waiting() == queued, lambda: f"{queued} should wait: {stand.show(subject)}")
    leave_all(clients)
    queued = len(running) - runs
    wait_for(lambda: waiting() == queued, lambda: f"they still wait: {stand.show(subject)}")
    assert stand.counts(name)["open"] == runs
    leave_all(running)
    stand.wait_idle()
    assert stand.counts(name)["requests"] <= before + runs + queued


@pytest.mark.parametrize("stream", KINDS, ids=["whole", "stream"])
def test_during_a_hedge(stand: Stand, stream: bool) -> None:
    """Two targets are asked, and both hear that nobody waits any more."""
    names = [stand.called("hedged"), stand.called("hedged", 1)]
    cancelled = [stand.counts(name)["cancelled"] for name in names]
    clients = []
    for _ in LEAVES:
        client = stand.client()
        client.send(request(ask_for("hedged", stream)))
        clients.append(client)
    for name in names:
        stand.wait_counts(name, open=2)
    leave_all(clients)
    for name, before in zip(names, cancelled, strict=True):
        stand.wait_counts(name, open=0, cancelled=before + 2)
    stand.wait_idle()


def test_at_the_path_of_a_prompt(stand: Stand) -> None:
    """Whoever filled in a template may leave as well."""
    name = stand.called("slow-oa")
    cancelled = stand.counts(name)["cancelled"]
    clients = []
    for _ in LEAVES:
        client = stand.client()
        client.send(request({"text": "a long story"}, "/p/sum"))
        clients.append(client)
    stand.wait_counts(name, open=2)
    leave_all(clients)
    stand.wait_counts(name, open=0, cancelled=cancelled + 2)
    stand.wait_idle()


def test_while_nothing_is_read(stand: Stand) -> None:
    """A client that has not read, so that the provider is not read either, leaves."""
    stand.play(flood)
    clients = []
    for path, _ in product((CHAT, MESSAGES), LEAVES):
        client = stand.client(receive_buffer_bytes=4096)
        client.send(asked(path, "scripted", True))
        clients.append(client)
    stand.wait_stuck(1_000_000)
    leave_all(clients)
    stand.wait_idle()


def asked_more(stand: Stand, count: int) -> None:
    """Wait until the scripted provider has had more requests than that."""
    stand.scripted.wait_for(lambda: len(stand.scripted.requests) > count)


def answer_when_opened(stand: Stand) -> None:
    """The scripted provider reads a request, and answers when a test says so."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.wait(stand.opened)
        if b'"stream": true' in seen.body:
            connection.send(STREAM_HEAD + framed(sse(said("hi"), said("", "stop"), "[DONE]")) + b"0\r\n\r\n")
            return
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": None}).encode()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        connection.send(b"content-length: %d\r\n\r\n" % len(body) + body)

    stand.opened.clear()
    stand.play(answer)


def test_the_leader_of_a_shared_answer_leaves(stand: Stand) -> None:
    """Those who joined it get all of it; the provider was asked once."""
    for stream, leave in product(KINDS, LEAVES):
        answer_when_opened(stand)
        before = len(stand.scripted.requests)
        text = f"leader {stream} {leave.__name__}"
        whole = request(ask_for("scripted", stream, text), "/cached" + CHAT[3:])
        leader = stand.client()
        leader.send(whole)
        asked_more(stand, before)
        # Flights are of a worker: some of these are in another one than the leader.
        followers = [stand.client() for _ in range(6)]
        for one in followers:
            one.send(whole)
        wait_for(lambda: sum(one["in_flight"] for one in stand.show("workers")) == 7, lambda: "not all are here")
        leave(leader)
        stand.opened.set()
        for one in followers:
            (answer,) = one.read_answers([Asked(b"POST")], 30)
            assert answer.complete, answer
            assert answer.status == 200
            assert (b"[DONE]" in answer.body) is stream
            one.close()
        stand.wait_idle()
        assert len(stand.scripted.requests) - before in (1, 2), "one of each worker"


def test_all_who_share_an_answer_leave(stand: Stand) -> None:
    """The leader first, and then the others: when the last one has gone nobody asks the provider any more."""
    name = stand.called("slow-oa")
    for stream, leave in product(KINDS, LEAVES):
        whole = request(ask_for("slow-oa", stream, f"all {stream} {leave.__name__}"), "/cached" + CHAT[3:])
        cancelled = stand.counts(name)["cancelled"]
        clients = [stand.client() for _ in range(6)]
        for one in clients:
            one.send(whole)
        wait_for(lambda: sum(one["in_flight"] for one in stand.show("workers")) == 6, lambda: "not all are here")
        opened = stand.counts(name)["open"]
        assert opened in (1, 2)
        for one in clients:
            leave(one)
        stand.wait_counts(name, open=0, cancelled=cancelled + opened)
        stand.wait_idle()


def test_followers_leave(stand: Stand) -> None:
    """The leader gets its answer."""
    for stream, leave in product(KINDS, LEAVES):
        answer_when_opened(stand)
        whole = request(ask_for("scripted", stream, f"followers {stream} {leave.__name__}"), "/cached" + CHAT[3:])
        clients = [stand.client() for _ in range(6)]
        for one in clients:
            one.send(whole)
        wait_for(lambda: sum(one["in_flight"] for one in stand.show("workers")) == 6, lambda: "not all are here")
        for one in clients[1:]:
            leave(one)
        stand.opened.set()
        (answer,) = clients[0].read_answers([Asked(b"POST")], 30)
        assert answer.complete
        assert answer.status == 200
        clients[0].close()
        stand.wait_idle()


def test_what_was_paid_for_is_drained(stand: Stand) -> None:
    """Where the route says so an answer is read to its end, and its usage is known; but not for longer than it says."""
    since = len(stand.gateway.log_lines())
    name = stand.called("shared-oa")
    cancelled = stand.counts(name)["cancelled"]
    clients = []
    for path, stream in product((CHAT, MESSAGES), KINDS):
        client = stand.client()
        client.send(asked("/drain" + path[3:], "shared-oa", stream))
        clients.append(client)
    stand.wait_counts(name, open=4)
    leave_all(clients)
    stand.wait_counts(name, open=0, cancelled=cancelled)
    for line in stand.wait_log(left(name), since, 4):
        assert line["gen_ai.usage.output_tokens"] == 20, line
    stand.wait_idle()

    since = len(stand.gateway.log_lines())
    name = stand.called("long-oa")
    cancelled = stand.counts(name)["cancelled"]
    clients = []
    for path, stream in product((CHAT, MESSAGES), KINDS):
        client = stand.client()
        client.send(asked("/drain" + path[3:], "long-oa", stream))
        clients.append(client)
    stand.wait_counts(name, open=4)
    assert all(
        clients[number].read_some() for number, (_, stream) in enumerate(product((CHAT, MESSAGES), KINDS)) if stream
    )
    leave_all(clients)
    stand.wait_counts(name, open=0, cancelled=cancelled + 4)
    lines = stand.wait_log(left(name), since, 4)
    # A stream that had begun has the status that its client was told, as wherever a client leaves.
    assert sorted(line["http.response.status_code"] for line in lines) == [200, 200, 499, 499]
    assert sum("gen_ai.usage.output_tokens" in line for line in lines) >= 2
    stand.wait_idle()


def cut_when_opened(stand: Stand) -> None:
    """The scripted provider reads a request, and closes its connection when a test says so."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.wait(stand.opened)
        connection.close()

    stand.opened.clear()
    stand.play(answer)


@pytest.mark.parametrize("late_s", [0.0, 2.5])
def test_nobody_else_is_asked_for_who_has_left(stand: Stand, late_s: float) -> None:
    """What has been paid for is read on; if it fails, or is later than a hedge waits, no other target is paid for
    nobody."""
    name = stand.called("left", 1)
    before = stand.counts(name)["requests"]
    cut_when_opened(stand)
    for path, stream in product((CHAT, MESSAGES), KINDS):
        asked_of = len(stand.scripted.requests)
        client = stand.client()
        client.send(asked("/drain-long" + path[3:], "left", stream))
        asked_more(stand, asked_of)
        client.close()
    wait_for(lambda: not stand.show("connections?count=1000"), lambda: "its client is still there")
    kernel.select_pause(late_s)
    assert stand.counts(name)["requests"] == before
    stand.opened.set()
    stand.wait_idle()
    assert stand.counts(name)["requests"] == before


def test_who_shares_an_answer_gets_it_from_another_target(stand: Stand) -> None:
    """The one who has asked first has left, and then his target fails: it is not asked for nobody."""
    cut_when_opened(stand)
    asked_of = len(stand.scripted.requests)
    whole = request(ask_for("left", True, "shared"), "/cached" + CHAT[3:])
    leader, *followers = stand.clients_of_one_worker(3)
    leader.send(whole)
    asked_more(stand, asked_of)
    for one in followers:
        one.send(whole)
    wait_for(lambda: sum(one["in_flight"] for one in stand.show("workers")) == 3, lambda: "not all are here")
    leader.close()
    stand.opened.set()
    for one in followers:
        (answer,) = one.read_answers([Asked(b"POST")], 30)
        assert answer.status == 200
        assert answer.get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=left"
    stand.wait_idle()


@pytest.mark.parametrize(("path", "model"), [("/v1", "left-second"), ("/drain-long", "left-second-soon")])
@pytest.mark.parametrize("stream", KINDS, ids=["whole", "stream"])
def test_when_only_a_hedge_is_left(stand: Stand, path: str, model: str, stream: bool) -> None:
    """The first target has failed while the second one is at work, and then the client leaves: it is about the second
    one's answer, which is given up, or read to its end."""
    name = stand.called(model, 1)
    before = stand.counts(name)
    since = len(stand.gateway.log_lines())
    cut_when_opened(stand)
    client = stand.client()
    client.send(asked(path + CHAT[3:], model, stream))
    stand.wait_counts(name, open=1)
    closed = len(stand.scripted.connections)
    stand.opened.set()
    stand.scripted.wait_for(lambda: stand.scripted.connections[closed - 1].over.is_set())
    wait_for(lambda: not stand.active("scripted"), lambda: "its failure is not seen")
    client.close()
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == model, since)
    assert line["edgeq.target"] == f"an/{name}"
    assert line["edgeq.before"].startswith("upstream_")
    assert "scripted" in line["edgeq.before"]
    is_drained = model == "left-second-soon"
    stand.wait_counts(name, open=0, cancelled=before["cancelled"] + (not is_drained))
    if is_drained:
        assert line["gen_ai.usage.output_tokens"] == 5
    stand.wait_idle()
