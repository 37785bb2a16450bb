"""Failures before the first event move on to the next target; later ones are told within the stream, as its dialect has
it; and nobody learns of a key of ours by a status that would be about his own."""

from __future__ import annotations

import gzip
import json
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest

from tests.llm.gateway.support import (
    CHAT,
    HEDGES,
    MESSAGES,
    MOVES,
    RESPONSES,
    STREAM_HEAD,
    TAKES_TIME,
    Stand,
    ask_for,
    events,
    explained,
    framed,
    request,
    said,
    sse,
    wait_for,
)
from tests.support import kernel
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, reply, reply_then

RESTS = ("429", "401", "403", "402", "quota")
"""After these the provider's key is left alone for a while."""
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\r\n<h1>Oh no.</h1>"


@pytest.mark.parametrize("failure", MOVES)
def test_another_target_answers(stand: Stand, failure: str) -> None:
    """Whatever fails before the first event, in each of the dialects: the client sees an answer, and who gave it."""
    stand.play(reply(BAD_GATEWAY))
    route = "/quick" if failure in TAKES_TIME else "/v1"
    for path in (CHAT, MESSAGES):
        for stream in (False, True):
            if failure in ("failed", "failed-later") and not stream:
                continue
            kind = f"{'chat' if path == CHAT else 'messages'}-{'stream' if stream else 'whole'}"
            answer = stand.ask(ask_for(f"moves-{failure}-{kind}", stream), route + path[3:])
            assert answer.status == 200, (path, stream, answer)
            assert answer.complete
            assert (answer.get(b"x-edgeq-target") or b"").startswith(b"an/"), answer.headers
            if stream:
                found = events(answer.body)
                assert found[-1] == (("", "[DONE]") if path == CHAT else ("message_stop", {"type": "message_stop"}))
            else:
                assert json.loads(answer.body)["usage"]
            if failure in RESTS:
                name = stand.called(f"moves-{failure}-{kind}")
                asked = stand.counts(name)["requests"]
                assert asked >= 1
                assert stand.ask(ask_for(f"moves-{failure}-{kind}", stream), path).status == 200
                assert stand.counts(name)["requests"] == asked, "its key rests"
    stand.wait_idle()


def test_the_shortest_rest_is_told(stand: Stand) -> None:
    """Of several that rest for longer than anybody waits; also if the one that was asked now rests for the longest."""
    waits = []
    for name in ("rest-both", "rest-both", "rest-after"):
        answer = stand.ask(ask_for(name))
        assert answer.status == 503
        assert json.loads(answer.body)["error"]["code"] == "upstream_rate_limit"
        waits.append(int(answer.get(b"retry-after-ms") or b"0"))
    assert all(0 < wait <= 41_000 for wait in waits), waits
    assert stand.counts(stand.called("rest-after", 1))["requests"] == 1, "it was asked"


@pytest.mark.parametrize("who", ["oa", "an", "ge", "narrow", "narrow-keys"])
def test_a_larger_window_is_the_next_targets(stand: Stand, who: str) -> None:
    """Where the model has it so: whatever the dialects, with another key of the same target left out, and without the
    budget for failures, as it is none. What is too long for all is told in the words of the last one."""
    for path, stream in product((CHAT, MESSAGES), (False, True)):
        for model, words, target in ((f"longer-{who}", 80, b"an/"), (f"longer-{who}", 8, who.encode())):
            answer = stand.ask(ask_for(model, stream, "word " * words), path)
            assert (answer.status, (answer.get(b"x-edgeq-target") or b"")[: len(target)]) == (200, target), answer
        for model, words, largest in ((f"longer-{who}", 800, "500"), (f"not-longer-{who}", 80, "50")):
            answer = stand.ask(ask_for(model, stream, "word " * words), path)
            assert answer.status == 400, answer
            assert largest in json.loads(answer.body)["error"]["message"]
            if path == CHAT:
                assert json.loads(answer.body)["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_the_callers_own_fault_is_told(stand: Stand, status: str) -> None:
    """Nobody else is asked, and the client is told in his dialect."""
    for path in (CHAT, MESSAGES):
        for stream in (False, True):
            for who in ("oa", "an"):
                before = stand.counts(stand.called("plain-an"))["requests"]
                answer = stand.ask(ask_for(f"stays-{status}-{who}", stream), path)
                assert answer.status == int(status), answer
                told = json.loads(answer.body)
                assert told["error"]["message"]
                assert ("request_id" in told) is (path == MESSAGES)
                assert stand.counts(stand.called("plain-an"))["requests"] == before


@pytest.mark.parametrize("status", ["401", "403", "402", "quota"])
def test_our_keys_are_no_business_of_the_client(stand: Stand, status: str) -> None:
    """If nobody else can answer he gets 502 or 503, and no word of the provider's about keys."""
    for path in (CHAT, MESSAGES):
        for who in ("oa", "an", "ge"):
            answer = stand.ask(ask_for(f"only-{status}-{who}"), path)
            assert answer.status in (500, 502, 503, 529), answer
            assert b"API key" not in answer.body
            assert b"sk-" not in answer.body
            assert b"credit" not in answer.body
            if who != "ge":  # Gemini has the same words for a limit of a minute
                assert b"your current quota" not in answer.body, "whose?"
                assert b"the gateway" in answer.body, answer.body
            if (who, status) != ("ge", "quota"):  # by whom it is found out, and while the key rests
                assert answer.get(b"x-should-retry") == b"false", answer.headers
                assert answer.get(b"retry-after") is None


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("kind", ["fail", "cut", "reset", "hang"])
@pytest.mark.parametrize("who", ["oa", "an", "ge"])
def test_a_stream_that_breaks_says_so(stand: Stand, path: str, kind: str, who: str) -> None:
    """After the first event: an error of the dialect, and nothing that would make it complete."""
    body: dict[str, Any] = ask_for(f"broken-{kind}-{who}", True)
    if path == RESPONSES:
        body = {"model": body["model"], "stream": True, "input": "hello"}
    answer = stand.ask(body, ("/quick" if kind in TAKES_TIME else "/v1") + path[3:])
    assert answer.status == 200
    assert answer.complete, "HTTP's framing is whole"
    found = events(answer.body)
    assert len(found) > 1
    name, last = found[-1]
    if path == CHAT:
        assert last["error"]["message"]
    else:
        assert name == "error"
        assert last["error"]["message"]
    kinds = [one.get("type") if isinstance(one, dict) else one for _, one in found]
    assert "[DONE]" not in kinds
    assert "message_stop" not in kinds
    assert "response.completed" not in kinds
    if path == RESPONSES:
        assert kinds[-2:] == ["response.failed", "error"]
        assert [one["sequence_number"] for _, one in found] == list(range(len(found)))
    stand.wait_idle()


def test_who_will_answer_is_not_foretold(stand: Stand) -> None:
    """A comment needs a head while the first target is waited for, and another one answers then."""
    answer = stand.ask(ask_for("late", True), "/beat" + CHAT[3:])
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.startswith(b":")
    assert events(answer.body)[-1] == ("", "[DONE]")
    assert answer.get(b"x-edgeq-target") is None


def test_all_have_failed(stand: Stand) -> None:
    """The client hears of the last one, and nothing of names and addresses; who was asked before is in the log."""
    since = len(stand.gateway.log_lines())
    answer = stand.ask(ask_for("all-fail"))
    assert answer.status == 503, answer
    error = json.loads(answer.body)["error"]
    assert error["code"] == "upstream_overloaded"
    assert error["message"].startswith("the provider said 529: ")
    assert b"bad-oa" not in answer.body
    assert b"127.0.0.1" not in answer.body
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "all-fail", since)
    assert line["edgeq.before"].startswith("upstream_error at upstream/bad-oa#127.0.0.1:")
    stand.ask(ask_for("moves-500-chat-whole"))
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "moves-500-chat-whole", since)
    assert "upstream_error at " in line["edgeq.before"], "of a good answer, too"


def test_the_retry_budget_is_spent(stand: Stand) -> None:
    """Another target would have answered: who has kept the request from it is told to the client, and in the log, apart
    from what has failed; a provider's budget can be set."""
    since = len(stand.gateway.log_lines())
    answer = stand.ask(ask_for("stingy"))
    assert answer.status == 502, answer
    assert json.loads(answer.body)["error"]["message"].endswith("; not tried again: retry_budget_exhausted")
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "stingy", since)
    assert line["edgeq.second_reason"] == "retry_budget_exhausted"
    assert "edgeq.before" not in line, "nobody was asked before"


def test_who_is_late(stand: Stand) -> None:
    """Said in words that mean something to who has not written the configuration."""
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for("slow-oa", True), "/quick" + path[3:])
        assert answer.status == 504
        assert json.loads(answer.body)["error"]["message"] == "no token came within 1 s"


def test_no_more_attempts_than_the_route_allows(stand: Stand) -> None:
    """Three of four."""
    names = [stand.called("four", number) for number in range(4)]
    before = [stand.counts(name)["requests"] for name in names]
    assert stand.ask(ask_for("four")).status == 502
    assert [stand.counts(name)["requests"] - was for name, was in zip(names, before, strict=True)] == [1, 1, 1, 0]


def test_after_a_comment_another_target_still_answers(stand: Stand) -> None:
    """The head has gone, as nobody had said anything for so long; the first target is late, and the second one answers
    in the same stream."""
    for answer in stand.ask_all([("/beat" + path[3:], ask_for("late", True)) for path in (CHAT, MESSAGES)]):
        assert answer.status == 200
        assert answer.body.startswith(b": "), answer.body[:100]
        found = events(answer.body)
        assert found[-1][1] in ("[DONE]", {"type": "message_stop"})
        assert not any("error" in one for _, one in found if isinstance(one, dict))


def test_after_a_comment_a_failure_is_told_in_band(stand: Stand) -> None:
    """All targets are late, and then one refuses."""
    cases = list(product((CHAT, MESSAGES), ("late-all", "late-400")))
    answers = []
    for two in (cases[:2], cases[2:]):  # more retries at once are not allowed
        answers += stand.ask_all([("/beat" + path[3:], ask_for(model, True)) for path, model in two])
    for (path, model), answer in zip(cases, answers, strict=True):
        assert answer.status == 200
        assert answer.body.startswith(b": "), answer.body[:100]
        (found,) = events(answer.body)
        assert found[0] == ("" if path == CHAT else "error")
        assert found[1]["error"]["message"]
        if model == "late-400":
            assert found[1]["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("who", ["", "-an"])
def test_after_a_comment_an_error_of_the_stream_is_told(stand: Stand, who: str) -> None:
    """The provider begins with an error, in the client's own dialect or in another one: nothing of it has gone to the
    client yet, and an empty stream that ends in order would be an answer."""
    text = json.dumps(SORRY[who]).encode()

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.wait(stand.opened)
        connection.send(STREAM_HEAD + framed((b"event: error\n" if who else b"") + b"data: " + text + b"\n\n"))
        connection.send(b"0\r\n\r\n")

    stand.play(answer)
    for path in (CHAT, RESPONSES, MESSAGES):
        stand.opened.clear()
        asked = {"model": f"scripted{who}", "stream": True, "input": "hello"} if path == RESPONSES else None
        with stand.client() as client:
            client.send(request(asked or ask_for(f"scripted{who}", True), "/beat" + path[3:]))
            while b": waiting" not in client.received:
                assert client.read_some(), bytes(client.received)
            stand.opened.set()
            (got,) = client.read_answers([Asked(b"POST")])
        assert got.complete
        (found,) = events(got.body)
        assert found[0] == ("" if path == CHAT else "error")
        assert "bad thing" in found[1]["error"]["message"]
    stand.wait_idle()


def test_comments_while_queued(stand: Stand) -> None:
    """Who waits for tokens hears that somebody is there."""
    with stand.client() as first:
        first.send(request(ask_for("alone", True)))
        stand.wait_counts(stand.called("alone"), open=1)
        with stand.client() as second:
            second.send(request(ask_for("alone", True), "/beat" + CHAT[3:]))
            while second.received.count(b": waiting") < 3:
                assert second.read_some(), second.received
    stand.wait_idle()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_what_is_too_large_for_a_target_waits_for_another(stand: Stand, path: str) -> None:
    """The first one never takes so many tokens; the second one has no place now, and so is not asked first."""
    with stand.client() as first:
        first.send(request(ask_for("fits", True, "some words " * 200)))
        stand.wait_counts(stand.called("fits", 1), open=1)
        answer = stand.ask(ask_for("fits", text="other words " * 200), path)
        assert answer.status == 200, answer
        assert answer.get(b"x-edgeq-target") == b"roomy/" + stand.called("fits", 1).encode()
    stand.wait_idle()


def test_what_is_too_large_for_a_target_may_come_again_for_another(stand: Stand) -> None:
    """That one rests, as it has just said itself, or since before."""
    asked = stand.counts(stand.called("fits-later", 1))["requests"]
    for path in (CHAT, CHAT, MESSAGES):
        answer = stand.ask(ask_for("fits-later", text="some words " * 200), path)
        assert b"edgeq-reason=upstream_rate_limit" in (answer.get(b"proxy-status") or b""), answer
        assert answer.get(b"x-should-retry") == b"true"
        assert 20_000 < float(answer.get(b"retry-after-ms") or 0) <= 41_000
    assert stand.counts(stand.called("fits-later", 1))["requests"] == asked + 1
    assert stand.ask(ask_for("fits-later")).status == 200
    stand.wait_idle()


def test_a_long_rest_is_told_to_all(stand: Stand) -> None:
    """SDKs are told not to come again: the first, who hears it of the provider, and those whom nobody asks for."""
    asked = stand.counts(stand.called("rests"))["requests"]
    for path in (CHAT, MESSAGES, CHAT, MESSAGES):
        answer = stand.ask(ask_for("rests"), path)
        assert answer.get(b"x-should-retry") == b"false", answer.headers
        assert answer.get(b"retry-after") is None
        assert b"edgeq-reason=upstream_rate_limit" in (answer.get(b"proxy-status") or b"")
    assert b"it is not asked for another " in answer.body
    assert b" for another 2 h" in answer.body or b" for another 1 h 59 min" in answer.body
    assert stand.counts(stand.called("rests"))["requests"] == asked + 1


@pytest.mark.parametrize(
    ("model", "at_most_ms"),
    [("broke-first", 40_000), ("broke-last", 40_000), ("broke-well", 2000), ("locked-well", 2000)],
)
def test_a_key_that_is_of_no_use_keeps_nobody_from_coming_again_to_another(
    stand: Stand, model: str, at_most_ms: int
) -> None:
    """The time is that of the target that will be back of itself, or was only not asked."""
    answer = stand.ask(ask_for(model))
    assert answer.get(b"x-should-retry") == b"true", answer.headers
    assert 0 < float(answer.get(b"retry-after-ms") or 0) <= at_most_ms
    assert any(reason in answer.body for reason in (b"_rate_limit", b"quota", b"upstream_auth"))
    if model.endswith("well"):
        assert stand.ask(ask_for(model)).status == 200, "who comes again is answered"


@pytest.mark.parametrize("status", [401, 402])
def test_a_target_that_knows_no_word_of_it_is_none_to_come_again_for(stand: Stand, status: int) -> None:
    """Nobody who is well makes embeddings: coming again would not help before somebody does something."""
    for _ in range(2):
        answer = stand.ask({"model": f"no-{status}-deaf", "input": "hello"}, "/v1/embeddings")
        assert answer.status in (502, 503)
        assert answer.get(b"x-should-retry") == b"false", answer.headers


@pytest.mark.parametrize("name", ["provider/{}", "{}", "upstream/{}", "{}/{}", "target/{}/{}"])
def test_a_rest_is_ended_by_an_operator(stand: Stand, name: str) -> None:
    """By any name of what rests: the next request is sent to the provider, in whichever worker it comes."""
    for model in ("woken-429", "woken-401"):
        called = stand.called(model)
        asked = stand.counts(called)["requests"]
        stand.ask(ask_for(model))
        stand.ask(ask_for(model))
        assert stand.counts(called)["requests"] <= asked + 1, "it rests"
        asked = stand.counts(called)["requests"]
        target = quote(name.format(model, called))
        status, told = stand.admin("POST", f"/v1/wake?name={target}")
        assert (status, told["ok"]) == (200, True), told
        stand.ask(ask_for(model))
        assert stand.counts(called)["requests"] == asked + 1
    status, told = stand.admin("POST", "/v1/wake?name=nobody")
    assert status == 404
    status, told = stand.admin("POST", "/v1/wake?name=provider/ge")
    assert (status, told["error"]) == (
        422,
        "nothing rests at provider/ge, or keeps to what it was told: show targets",
    )


def test_a_hedge_answers(stand: Stand) -> None:
    """The first is late, and the second is asked as well; it answers in the words of the client. The log says so."""
    since = len(stand.gateway.log_lines())
    for path in (CHAT, MESSAGES):
        for stream in (False, True):
            answer = stand.ask(ask_for("hedge-wins", stream), path)
            assert answer.status == 200
            assert answer.get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=wins"
    lines = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "hedge-wins", since, 4)
    assert [line["edgeq.hedge"] for line in lines] == ["won"] * 4
    assert {(line["edgeq.attempts"], line["edgeq.hedge_other"]) for line in lines} == {
        (2, "oa/mock/latency=25s,tag=wins")
    }
    assert not any("edgeq.before" in line for line in lines), "it has not failed"
    answer = stand.ask(ask_for("hedge-500"))
    assert answer.status == 200
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "hedge-500", since)
    assert (line["edgeq.hedge"], line["edgeq.attempts"]) == ("lost", 2)
    assert line["edgeq.hedge_other"].startswith("hedge-500/")
    assert line["edgeq.before"].startswith("upstream_error at upstream/hedge-500#"), line
    told = explained(stand, answer)
    assert told["cause"] == "failed_over"
    assert any(
        one.startswith(f"attempt 1, {line['edgeq.hedge_other']}: upstream_error") and "status 500" in one
        for one in told["evidence"]
    ), told
    stand.wait_counts(stand.called("hedge-wins"), open=0)
    stand.wait_idle()


def test_a_hedge_is_one_of_the_attempts(stand: Stand) -> None:
    """Where a request may be asked for once only, nobody else is asked, however late the first one is."""
    second = stand.called("hedge-dropped", 1)
    before = stand.counts(second)["requests"]
    for stream in (False, True):
        answer = stand.ask(ask_for("hedge-dropped", stream), "/once" + CHAT[3:])
        assert answer.status == 200
    stand.wait_idle()
    assert stand.counts(second)["requests"] == before


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_goes_on_alone(stand: Stand, stream: bool) -> None:
    """The first target fails while the second one is at work: it is waited for, not asked once more. If it fails, too,
    the third one is asked."""
    for model, last in (("hedge-alone", 1), ("hedge-lost", 2)):
        before = stand.counts(stand.called(model, 1))["requests"]
        answer = stand.ask(ask_for(model, stream))
        assert answer.status == 200, answer.body
        name = stand.called(model, last)
        assert name.encode() in (answer.get(b"x-edgeq-target") or b"")
        assert stand.counts(stand.called(model, 1))["requests"] == before + 1


def test_a_hedge_that_fails_is_not_seen(stand: Stand) -> None:
    """Refusals, cuts and resets of the second are nobody's business."""
    cases = list(product(HEDGES, (False, True)))
    answers = []
    for failure in HEDGES:
        answers += stand.ask_all([(CHAT, ask_for(f"hedge-{failure}", stream)) for stream in (False, True)])
    for case, answer in zip(cases, answers, strict=True):
        assert answer.status == 200, (case, answer)
        assert (answer.get(b"x-edgeq-target") or b"").startswith(b"oa/"), (case, answer.headers)
        assert answer.complete
    stand.wait_idle()


def test_a_hedge_at_a_key_that_is_refused(stand: Stand) -> None:
    """It rests, like that of a first target: it is not asked for each late answer."""
    name = stand.called("hedge-key", 1)
    for client in stand.clients_of_one_worker(3):
        answer = client.ask(request(ask_for("hedge-key")), b"POST")
        assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"oa/mock/latency=600ms,tokens=5,tag=hedge")
    assert stand.counts(name)["requests"] == 1
    stand.wait_idle()


ONLY = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: "


@pytest.mark.parametrize(
    "sent",
    [
        STREAM_HEAD + framed(ONLY) + b"0\r\n\r\n",
        STREAM_HEAD + framed(ONLY + b"\n") + b"0\r\n\r\n",
        UNTIL_CLOSE + b"text/event-stream\r\n\r\n" + ONLY,
        UNTIL_CLOSE + b'application/json\r\n\r\n{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}',
    ],
)
def test_a_hedge_whose_end_is_that_of_its_bytes(stand: Stand, sent: bytes) -> None:
    """Its only event has no empty line after it, or nothing but the connection's end ends it: it is an answer."""
    stand.play(reply_then(sent, "close" if sent.startswith(UNTIL_CLOSE) else "keep"))
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for("hedge-ends", b"event-stream" in sent), path)
        assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"scripted/mock/plain")
        assert b'"hi"' in answer.body
        assert answer.complete
        assert "error.type" not in stand.line_of(answer)
    stand.wait_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_asks_who_can_be_told(stand: Stand, stream: bool) -> None:
    """The second target does not know a word of the request: the third one is asked in its place."""
    answer = stand.ask(ask_for("hedge-deaf", stream, n=2), "/strict/chat/completions")
    assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"hears/mock/tokens=5,tag=deaf")
    stand.wait_idle()


@pytest.mark.parametrize("model", ["fails-dropped", "hedge-dropped-wins"])
def test_what_another_target_would_have_dropped_is_not_told(stand: Stand, model: str) -> None:
    """The first target has no word for a seed; the one that answers in its place has had it."""
    answer = stand.ask(ask_for(model, seed=7))
    assert answer.status == 200
    assert (answer.get(b"x-edgeq-target") or b"").startswith(b"oa/")
    assert answer.get(b"x-edgeq-dropped") is None
    stand.wait_idle()


@pytest.mark.parametrize("full", ["big", "big-alone", "big-tight"])
def test_a_smaller_model_while_the_first_is_saturated(stand: Stand, full: str) -> None:
    """Whatever there is none of, places or tokens: the first one to find no room is answered by it. Its answer says
    so."""
    asked = ask_for(full, True, max_tokens=1000)
    with stand.client() as first:
        first.send(request(asked))
        stand.wait_counts(stand.called(full), open=1)
        for stream in (False, True):
            answer = stand.ask({**asked, "stream": stream})
            assert answer.get(b"x-edgeq-model") == b"plain-oa"
            assert answer.status == 200
        assert stand.counts(stand.called(full))["requests"] == 1
    stand.wait_idle()


def test_keys_share_the_requests(stand: Stand) -> None:
    """By their weights, 3 to 1; and who is refused is replaced by the other."""
    name = stand.called("keys")
    for _ in range(60):
        assert stand.ask(ask_for("keys")).status == 200
    counts = [stand.counts(name, key)["requests"] for key in ("sk-heavy", "sk-light")]
    assert sum(counts) == 60
    assert counts[0] > counts[1] > 0, counts


def test_targets_share_the_requests(stand: Stand) -> None:
    """Weighted targets, of two dialects."""
    names = [stand.called("weighted", number) for number in range(2)]
    for _ in range(60):
        assert stand.ask(ask_for("weighted")).status == 200
    counts = [stand.counts(name)["requests"] for name in names]
    assert sum(counts) == 60
    assert counts[0] > counts[1] > 0, counts


def test_who_comes_again_stands_behind(stand: Stand) -> None:
    """An SDK's retry waits for those who come for the first time, though it came before them."""
    order: list[bytes] = []

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        text = json.loads(seen.body)["messages"][0]["content"].encode()
        order.append(text)
        if text == b"blocks":
            connection.wait(stand.opened)
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "x"}}], "usage": None}).encode()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        connection.send(b"content-length: %d\r\n\r\n" % len(body) + body)

    stand.opened.clear()
    stand.play(answer)
    clients = stand.clients_of_one_worker(3)
    assert len(clients) == 3
    free = iter(clients)

    def send(text: str, fields: dict[str, str], waiting: int) -> None:
        next(free).send(request(ask_for("in-turn", text=text), fields=fields))
        wait_for(
            lambda: (
                sum(one["queued"] for one in stand.show("targets") if one["target"].startswith("in-turn/")) == waiting
            ),
            lambda: f"{text} does not wait: {stand.show('targets')}",
        )

    send("blocks", {}, 0)
    stand.scripted.wait_for(lambda: order == [b"blocks"], 30)
    send("again", {"x-stainless-retry-count": "1"}, 1)
    send("first", {"x-stainless-retry-count": "0"}, 2)
    stand.opened.set()
    for client in clients:
        (got,) = client.read_answers([Asked(b"POST")], 30)
        assert got.status == 200, got
        client.close()
    assert order == [b"blocks", b"first", b"again"]


def test_a_server_that_does_not_end_its_stream(stand: Stand) -> None:
    """It has said [DONE] and keeps the connection open, without the end of HTTP's framing: the answer is whole."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD + framed(sse(said("hi"), said("", "stop"), "[DONE]")))
        connection.stall()

    stand.play(answer)
    for got in stand.ask_all([("/v1" + path[3:], ask_for("scripted", True)) for path in (CHAT, MESSAGES)]):
        assert got.complete
        assert events(got.body)[-1][1] in ("[DONE]", {"type": "message_stop"})
    stand.wait_idle()


SORRY = {
    "": {"error": {"message": "bad thing", "type": "server_error"}},
    "-an": {"type": "error", "error": {"type": "overloaded_error", "message": "bad thing"}},
}
"""Errors of OpenAI's providers, and of Anthropic's."""


@pytest.mark.parametrize("who", SORRY)
@pytest.mark.parametrize("how", ["whole", "whole-for-stream", "stream"])
def test_an_error_within_a_good_answer(stand: Stand, who: str, how: str) -> None:
    """With a status of 200, as a whole or in a stream: in each dialect the client is told what the provider has said,
    and no status that it has not; another target answers if there is one."""
    text = json.dumps(SORRY[who]).encode()
    head = STREAM_HEAD if how == "stream" else STREAM_HEAD.replace(b"text/event-stream", b"application/json")
    body = (b"event: error\n" if who else b"") + b"data: " + text + b"\n\n" if how == "stream" else text
    stand.play(reply(head + framed(body) + b"0\r\n\r\n"))
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for(f"scripted{who}", how != "whole"), path)
        assert answer.status == (502 if not who else 503 if path == CHAT else 529), (path, answer)
        assert json.loads(answer.body)["error"]["message"] == "the provider's answer was an error: bad thing"
        reason = b"upstream_overloaded" if who else b"upstream_error"
        assert b"edgeq-reason=" + reason in (answer.get(b"proxy-status") or b"")
        answer = stand.ask(ask_for(f"pinged{who}", how != "whole"), path)
        assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"an/mock/tokens=5,tag=moved")
    stand.wait_idle()


def test_an_error_that_is_the_callers_own_within_a_stream(stand: Stand) -> None:
    """It is told as his in each dialect, and nobody else is asked."""
    said = sse({"error": {"message": "bad thing", "type": "invalid_request_error", "param": None, "code": None}})
    stand.play(reply(STREAM_HEAD + framed(said) + b"0\r\n\r\n"))
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for("pinged", True), path)
        assert answer.status == 400, (path, answer)
        assert json.loads(answer.body)["error"]["message"] == "bad thing"
    stand.wait_idle()


@pytest.mark.parametrize("begins", [True, False])
def test_an_error_that_is_the_callers_own_after_the_head(stand: Stand, begins: bool) -> None:
    """It keeps its type, but is no success of the log: an answer that had begun has failed, by the provider."""
    told = {"error": {"message": "bad thing", "type": "invalid_request_error", "param": None, "code": None}}

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD + (framed(sse(said("hi"))) if begins else b""))
        connection.wait(stand.opened)
        connection.send(framed(sse(told)) + b"0\r\n\r\n")

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        stand.opened.clear()
        with stand.client() as client:
            client.send(request(ask_for("scripted", True), "/beat" + path[3:]))
            while (b'"hi"' if begins else b": waiting") not in client.received:
                assert client.read_some(), bytes(client.received)
            stand.opened.set()
            (got,) = client.read_answers([Asked(b"POST")])
        assert events(got.body)[-1][1]["error"]["type"] == "invalid_request_error"
        line = stand.line_of(got)
        assert line["error.type"] == ("upstream_error" if begins else "model_request_invalid")
    stand.wait_idle()


def test_a_status_that_says_all(stand: Stand) -> None:
    """A page, or a redirection: its status is told once. JSON in place of a stream is none."""
    for head in (b"302 Found", b"500 Internal Server Error"):
        stand.play(reply(b"HTTP/1.1 " + head + b"\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<h1>"))
        answer = stand.ask(ask_for("scripted"))
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["message"] == f"the provider said {head[:3].decode()}"
    stand.play(reply(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"))
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for("scripted", True), path)
        assert answer.status == 502
        told = json.loads(answer.body)["error"]["message"]
        assert told == "the provider's answer cannot be used: a stream was asked for, and none came"
    stand.wait_idle()


@pytest.mark.parametrize(
    ("body", "path", "why"),
    [
        (b"<h1>oh</h1>", CHAT, "it is no JSON"),
        (b"<h1>oh</h1>", MESSAGES, "it is no JSON (unexpected character"),
        (b"[]", MESSAGES, "it is no JSON object"),
        (b"{}", MESSAGES, "it has no message"),
    ],
)
def test_what_is_wrong_with_an_answer_is_a_sentence(stand: Stand, body: bytes, path: str, why: str) -> None:
    """For a programmer who has never heard of providers."""
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    stand.play(reply(b"HTTP/1.1 200 OK\r\n" + head + body))
    answer = stand.ask(ask_for("scripted"), path)
    assert answer.status == 502
    told = json.loads(answer.body)["error"]["message"]
    assert told.startswith(f"the provider's answer cannot be used: {why}")
    stand.wait_idle()


def test_a_compressed_answer(stand: Stand) -> None:
    """Nobody is asked for one, and who sends it all the same is told of by that, and not by its bytes."""
    body = gzip.compress(b"{}")
    for kind, stream in ((b"application/json", False), (b"text/event-stream", True)):
        head = b"content-type: %b\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
        stand.play(reply(b"HTTP/1.1 200 OK\r\n" + head + body))
        for path in (CHAT, MESSAGES):
            answer = stand.ask(ask_for("scripted", stream), path)
            assert answer.status == 502
            told = json.loads(answer.body)["error"]["message"]
            assert told == "the provider's answer cannot be used: it is compressed (gzip), which was not asked for"
            assert stand.scripted.requests[-1].get(b"accept-encoding") == b"identity"
    stand.wait_idle()


ROLE = {**said(""), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
START = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
EMPTY = {
    "done": ("", sse("[DONE]")),
    "done-after-comment": ("", b": hello\n\n" + sse("[DONE]")),
    "done-after-role": ("", sse(ROLE, "[DONE]")),
    "nothing": ("", b""),
    "role": ("", sse(ROLE)),
    "stop": ("-an", STOP),
    "stop-after-ping": ("-an", b'event: ping\ndata: {"type":"ping"}\n\n' + STOP),
    "stop-after-start": ("-an", START + STOP),
    "start": ("-an", START),
}
"""Streams without an answer, by OpenAI's providers and by Anthropic's."""


@pytest.mark.parametrize("what", EMPTY)
def test_a_stream_without_an_answer_is_none(stand: Stand, what: str) -> None:
    """It has its last word, or its connection ends in order, and nothing else: another target answers, or it is
    refused, alike in each dialect."""
    who, body = EMPTY[what]
    stand.play(reply(STREAM_HEAD + (framed(body) if body else b"") + b"0\r\n\r\n"))
    for path in (CHAT, MESSAGES):
        answer = stand.ask(ask_for(f"pinged{who}", True), path)
        assert answer.status == 200, (path, answer)
        assert answer.get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=moved"
        assert events(answer.body)[-1][1] in ("[DONE]", {"type": "message_stop"})
        answer = stand.ask(ask_for(f"scripted{who}", True), path)
        assert answer.status == 502, (path, answer)
        assert b"edgeq-reason=upstream_protocol_error" in (answer.get(b"proxy-status") or b"")
        assert json.loads(answer.body)["error"]["message"]
    stand.wait_idle()


def test_signs_of_life_are_no_tokens(stand: Stand) -> None:
    """A server that sends comments and empty chunks for ever has not begun: the time for its first token passes."""

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.send(STREAM_HEAD)
        while not connection.gateway_has_closed():
            connection.send(framed(b": ping\n\n" + sse(said(""))))
            kernel.select_pause(0.05)

    stand.play(answer)
    for path in (CHAT, MESSAGES):
        got = stand.ask(ask_for("pinged", True), "/quick" + path[3:])
        assert got.status == 200
        assert got.get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=moved"
    stand.wait_idle()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/strict/chat/completions", ask_for("fails-deaf", n=2)),
        ("/v1/embeddings", {"model": "fails-deaf", "input": "a"}),
    ],
)
def test_who_cannot_be_told_is_not_the_answer_to_a_failure(stand: Stand, path: str, body: dict[str, Any]) -> None:
    """The first target knows the word, and has failed; that the next one does not know it is no mistake of the
    client's. He is told of the failure, and the one after is asked, if there is one."""
    answer = stand.ask(body, path)
    assert answer.status == 502, answer.body
    assert json.loads(answer.body)["error"]["code"] == "upstream_error"
    answer = stand.ask({**body, "model": "fails-deaf-well"}, path)
    assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"oa/mock/tokens=5,tag=deaf")
