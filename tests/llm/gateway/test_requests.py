"""Requests in every form that HTTP allows, and bodies that make no sense: each gets an answer in its dialect."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest

from tests.llm.gateway.support import CHAT, MESSAGES, RESPONSES, Stand, ask_for, events, request
from tests.support.raw_client import Answer, Asked, Ending
from tests.support.scripted_upstream import reply

EMBEDDINGS = "/v1/embeddings"
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def chunked_request(body: bytes, size: int, path: str = CHAT) -> bytes:
    """The same with a chunked body."""
    head = f"POST {path} HTTP/1.1\r\nhost: gateway.test\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def is_error(answer: Answer, path: str) -> dict[str, Any]:
    """The error of an answer, in the shape of a path's dialect."""
    told: dict[str, Any] = json.loads(answer.body)
    if "messages" in path:
        assert told["type"] == "error"
        assert told["request_id"]
    else:
        assert set(told["error"]) >= {"message", "type", "param", "code"}
    assert told["error"]["message"]
    found: dict[str, Any] = told["error"]
    return found


def test_in_odd_pieces(stand: Stand) -> None:
    """Cut anywhere, with a length or in chunks of any size."""
    body = json.dumps(ask_for("plain-oa")).encode()
    for whole in (request(body), chunked_request(body, 1), chunked_request(body, 7), chunked_request(body, 4096)):
        with stand.client() as client:
            assert client.send_pieces(whole[at : at + 61] for at in range(0, len(whole), 61))
            (answer,) = client.read_answers([Asked(b"POST")])
            assert answer.status == 200, answer


def test_azures_deployments(stand: Stand) -> None:
    """Below the path of one the key has a field of its own, which Azure wants there; and the version goes with each."""
    chat = {"id": "1", "model": "x", "choices": [{"message": {"content": "hi"}}], "usage": {}}
    vectors = {"object": "list", "data": [], "usage": {"prompt_tokens": 1}}
    for path, ask, answer in ((CHAT, ask_for("azure"), chat), (EMBEDDINGS, {"model": "azure", "input": "a"}, vectors)):
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        stand.play(reply(head + body))
        assert stand.ask(ask, path).status == 200
        seen = stand.scripted.requests[-1]
        assert seen.target.decode() == f"/openai/deployments/small{path[3:]}?api-version=2024-10-21"
        assert (seen.get(b"api-key"), seen.get(b"authorization")) == (b"sk-azure", None)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("asks", [True, False])
def test_mistral_is_not_asked_for_the_usage(stand: Stand, path: str, asks: bool) -> None:
    """It refuses a request with stream_options, whoever has put them there, and tells the usage of each stream."""
    last = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": USAGE}
    body = b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    stand.play(reply(head + body))
    said = ask_for("mistral", True)
    if path == RESPONSES:
        said = {"model": "mistral", "stream": True, "input": "hi"}
    if asks:
        said["stream_options"] = {"include_usage": True}
    answer = stand.ask(said, path)
    assert answer.status == 200, answer
    told = json.loads(stand.scripted.requests[-1].body)
    assert told["stream"] is True
    assert "stream_options" not in told
    assert b'tokens":3' in answer.body.replace(b" ", b""), "the usage"


def test_one_behind_the_other(stand: Stand) -> None:
    """Pipelined requests, streamed, whole and refused, are answered in their order."""
    bodies = [ask_for("plain-oa", True), ask_for("plain-an"), ask_for("nobody"), ask_for("plain-ge", True)]
    with stand.client() as client:
        client.send(b"".join(map(request, bodies)))
        answers = client.read_answers([Asked(b"POST")] * 4)
        assert [one.status for one in answers[:3]] == [200, 200, 404]
        assert events(answers[0].body)[-1] == ("", "[DONE]")
        if len(answers) == 4:
            assert events(answers[3].body)[-1] == ("", "[DONE]")
        else:
            assert answers[2].get(b"connection") == b"close"


def test_a_connection_is_kept(stand: Stand) -> None:
    """After a stream, after a whole answer, and after a refusal for load."""
    with stand.client() as client:
        for stream in (True, False, True):
            answer = client.ask(request(ask_for("plain-an", stream)), b"POST")
            assert answer.status == 200
            assert answer.complete
        assert client.ending is Ending.OPEN


def test_http_1_0(stand: Stand) -> None:
    """A stream without chunks, that ends with the connection; one that is cut is reset, after the error."""
    for path in (CHAT, MESSAGES):
        with stand.client() as client:
            client.send(request(ask_for("plain-oa", True), path, version="1.0"))
            raw = client.read_to_end()
            head, _, body = raw.partition(b"\r\n\r\n")
            assert client.ending is Ending.FIN
            assert b"chunked" not in head.lower()
            assert events(body)[-1][1] in ("[DONE]", {"type": "message_stop"})
        with stand.client() as client:
            client.send(request(ask_for("broken-cut-oa", True), path, version="1.0"))
            raw = client.read_to_end()
            assert b'"error"' in raw
        with stand.client() as client:  # proxies that wait for something to come speak it, too
            client.send(request(ask_for("late-all", True), "/beat" + path[3:], version="1.0"))
            _, _, body = client.read_to_end().partition(b"\r\n\r\n")
            assert body.startswith(b": waiting\n\n: waiting\n\n")
            assert events(body)[-1][1]["error"]["message"] == "no token came within 1 s"
        answer = stand.ask(ask_for("plain-oa"), path, version="1.0")
        assert answer.status == 200


def test_expect_continue(stand: Stand) -> None:
    """Who waits for 100 gets it, as nobody but edgeq reads the body before it is whole."""
    body = json.dumps(ask_for("plain-oa")).encode()
    whole = request(body, fields={"expect": "100-continue"})
    with stand.client() as client:
        client.send(whole[: -len(body)])
        assert client.read_some(5).startswith(b"HTTP/1.1 100 "), "it is not asked for its body"
        client.send(body)
        (answer,) = client.read_answers([Asked(b"POST")])
        assert answer.status == 200
        assert answer.interim == [100]
    with stand.client() as client:  # who does not wait needs none
        assert client.ask(whole, b"POST").status == 200
    # Nobody is asked for a body that would be refused.
    with stand.client() as client:
        client.send(request(b"x" * 2000, "/small" + CHAT[3:], fields={"expect": "100-continue"})[:-2000])
        (answer,) = client.read_answers([Asked(b"POST")])
        assert answer.status == 413
        assert answer.interim == []


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, EMBEDDINGS])
def test_a_body_that_is_too_large(stand: Stand, path: str) -> None:
    """Announced, or found out: 413 in the client's dialect."""
    body = json.dumps(ask_for("plain-oa", text="x" * 2000)).encode()
    way = "/small" + path[3:]
    for whole in (request(body, way), chunked_request(body, 100, way)):
        with stand.client() as client:
            client.send(whole)
            (answer,) = client.read_answers([Asked(b"POST")])
            assert answer.status == 413, answer
            is_error(answer, path)


DEEP = 5000
WRONG: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"model": "plain-oa", "messages": [',
    "text": b"hello",
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "latin": b'{"model": "plain-oa", "messages": "\xe9"}',
    "two": b'{"model": "plain-oa"}{"model": "plain-oa"}',
    "model": b'{"model": 1, "messages": []}',
    "surrogate": b'{"model": "\\ud800", "messages": []}',
    "no-model": b'{"messages": []}',
    "nobody": b'{"model": "nobody", "messages": []}',
    "stream": b'{"model": "plain-oa", "stream": "yes", "messages": []}',
    "huge-max": b'{"model": "plain-oa", "max_tokens": 1e400, "messages": []}',
    "deep": b'{"model": "plain-oa", "messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep-aside": b'{"model": "plain-oa", "x": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b', "messages": []}',
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense(stand: Stand, what: str) -> None:
    """It is the client's own fault, and told in his dialect; nothing of ours breaks."""
    for path in (CHAT, MESSAGES, RESPONSES, EMBEDDINGS, "/v1/messages/count_tokens", "/cached" + CHAT[3:]):
        for model in (b"plain-oa", b"plain-an", b"plain-ge"):
            if what == "latin" and "count" in path:
                continue  # about as many tokens, whatever they say
            answer = stand.ask(WRONG[what].replace(b"plain-oa", model), path)
            assert answer.status in (400, 404, 413, 422), (path, model, answer)
            is_error(answer, path)


@pytest.mark.parametrize(
    ("path", "said", "param", "told"),
    [
        (CHAT, {"stop": 5}, "stop", "stop must be a string or a list"),
        (CHAT, {"messages": 5}, "messages", "messages must be a list"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "must be a string or a list"),
        (MESSAGES, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "must be a string or a list"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text"}, {}]}]},
            "messages[1].content[1].type",
            "messages[1].content[1].type is missing",
        ),
        (
            MESSAGES,
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"a": 1}]}]},
                ]
            },
            "messages[1].content[0].content[0].type",
            "messages[1].content[0].content[0].type is missing",
        ),
        (CHAT, {"max_tokens": "x"}, "max_tokens", "max_tokens must be a whole number"),
        (MESSAGES, {"max_tokens": 1.5}, "max_tokens", "max_tokens must be a whole number"),
        (RESPONSES, {"max_output_tokens": []}, "max_output_tokens", "max_output_tokens must be a whole number"),
        (CHAT, {"stream": "yes"}, "stream", "stream must be true or false"),
        (CHAT, {"model": 5}, "model", "model must be a string"),
        (CHAT, {"stream_options": []}, "stream_options", "stream_options must be an object"),
        (
            CHAT,
            {"stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "stream_options.include_usage must be true or false",
        ),
        (MESSAGES, {"system": 5}, "system", "system must be a string or a list"),
        (RESPONSES, {"input": 5}, "input", "input must be a string or a list"),
        (RESPONSES, {"input": [{"role": "user", "content": 5}]}, "input[0].content", "must be a string or a list"),
        (RESPONSES, {"input": [{"role": "user", "content": "a"}, {"role": "bot"}]}, "input[1].role", "input[1].role"),
    ],
)
def test_what_is_wrong_is_named(stand: Stand, path: str, said: dict[str, Any], param: str, told: str) -> None:
    """By its place in the request, and what may stand there."""
    error = is_error(stand.ask({**ask_for("plain-ge"), **said}, path), path)
    assert told in error["message"]
    if path != MESSAGES:
        assert error["param"] == param
    assert error["message"].startswith((param, f"each of {param}"))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b'{"model": "plain-oa", "user": "\\ud800"}', "half of a surrogate pair (\\ud800 to \\udfff) alone: line 1"),
        (b'{"model": "plain-oa", "user": "\\udc00 "}', "half of a surrogate pair"),
        (b'{"model": "plain-oa", ', "the body is not JSON: "),
        (b'{"model": "\xff"}', "the body is not UTF-8"),
    ],
)
def test_what_is_no_json_is_told(stand: Stand, body: bytes, told: str) -> None:
    """What is wrong with it, for requests that pass, that are translated, and for prompts."""
    for path in (CHAT, MESSAGES, "/p/sum"):
        assert told in is_error(stand.ask(body, path), path)["message"]


def test_a_compressed_body(stand: Stand) -> None:
    """Nobody unpacks it, and the client is told so."""
    body = gzip.compress(json.dumps(ask_for("plain-oa")).encode())
    for path in (CHAT, MESSAGES, "/p/sum"):
        answer = stand.ask(body, path, fields={"content-encoding": "gzip"})
        assert answer.status == 400
        assert is_error(answer, path)["message"].startswith("content-encoding: bodies that are compressed (gzip)")
    plain = stand.ask(ask_for("plain-oa"), fields={"content-encoding": "identity"})
    assert plain.status == 200


NESTED = 300
"""More than orjson writes, less than it reads."""


@pytest.mark.parametrize("model", ["plain-oa", "plain-an", "plain-ge"])
def test_what_is_nested_deeply(stand: Stand, model: str) -> None:
    """A schema of a tool that is read but cannot be written anew is refused, or passed on as it is."""
    schema = b'{"type":"object","properties":{"a":' * NESTED + b'{"type":"string"}' + b"}}" * NESTED
    for path in (CHAT, MESSAGES, "/cached" + CHAT[3:]):
        tool = b'{"name":"f","input_schema":%b}' % schema
        if path.endswith("completions"):
            tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % schema
        for stream in (b"true", b"false"):
            body = b'{"model":"%b","stream":%b,"stream_options":{},"max_tokens":10,"tools":[%b],' % (
                model.encode(),
                stream,
                tool,
            )
            body += b'"messages":[{"role":"user","content":"model"}]}'
            if path == MESSAGES:
                body = body.replace(b'"stream_options":{},', b"")
            answer = stand.ask(body, path)
            assert answer.status in (200, 400), (path, model, answer)


@pytest.mark.parametrize("max_tokens", [0, -1, 2**31, 2**63, 2**64, 1.5, "8", True, None])
def test_odd_numbers_of_tokens(stand: Stand, max_tokens: object) -> None:
    """They are the provider's to judge, or refused here; neither a limit nor a process breaks."""
    for path in (CHAT, MESSAGES):
        for more in ({"max_tokens": max_tokens}, {"max_tokens": 5, "n": max_tokens}):
            for model in ("plain-oa", "plain-an", "counted"):
                answer = stand.ask({**ask_for(model), **more}, path)
                assert answer.status in (200, 400, 413, 422, 429), (path, model, more, answer)
    assert stand.ask(ask_for("counted")).status == 200


def test_strict_and_lenient(stand: Stand) -> None:
    """What a dialect cannot say is refused, or dropped and named; the target that answers counts."""
    asked = ask_for("plain-an", seed=7, logit_bias={"1": 2})
    for stream in (False, True):
        answer = stand.ask({**asked, "stream": stream})
        assert answer.status == 200
        assert b"seed" in (answer.get(b"x-edgeq-dropped") or b"")
        answer = stand.ask({**asked, "stream": stream}, "/strict" + CHAT[3:])
        assert answer.status == 400
        assert is_error(answer, CHAT)["param"] in ("seed", "logit_bias")
        answer = stand.ask({**asked, "model": "plain-oa", "stream": stream}, "/strict" + CHAT[3:])
        assert answer.status == 200
        assert answer.get(b"x-edgeq-dropped") is None


def test_what_a_second_target_would_have_dropped(stand: Stand) -> None:
    """It was asked, and has not answered: the answer has all that was asked for."""
    answer = stand.ask(ask_for("hedge-500", seed=7))
    assert answer.get(b"x-edgeq-dropped") is None
    answer = stand.ask(ask_for("hedge-dropped", seed=7))
    assert (answer.get(b"x-edgeq-target") or b"").startswith(b"oa/")
    assert answer.get(b"x-edgeq-dropped") is None


@pytest.mark.parametrize(("path", "target"), [(CHAT, "an"), (CHAT, "ge"), (MESSAGES, "oa"), (MESSAGES, "ge")])
def test_a_translated_answer_has_the_clients_name_of_the_model(stand: Stand, path: str, target: str) -> None:
    """Whole and streamed alike; whose answer it was is told in the head."""
    for stream in (False, True):
        answer = stand.ask(ask_for(f"plain-{target}", stream), path)
        assert answer.status == 200
        names = set(re.findall(rb'"model": ?"([^"]*)"', answer.body))
        assert names == {f"plain-{target}".encode()}
        assert f"{target}/".encode() in (answer.get(b"x-edgeq-target") or b"")


def test_models_are_listed(stand: Stand) -> None:
    """In both dialects, aliases as well, one by one, and by HEAD."""
    with stand.client() as client:
        answer = client.ask(request(b"", "/v1/models", method="GET"))
        names = {one["id"] for one in json.loads(answer.body)["data"]}
        assert {"plain-oa", "alias-plain-oa"} <= names
        answer = client.ask(request(b"", "/v1/models", method="GET", fields={"anthropic-version": "2023-06-01"}))
        assert json.loads(answer.body)["has_more"] is False
        answer = client.ask(request(b"", "/v1/models/plain-oa", method="GET"))
        assert json.loads(answer.body)["id"] == "plain-oa"
        for path in ("/v1/models/org/plain-oa", "/v1/models/org%2Fplain-oa"):  # as by hand, and as SDKs do
            assert json.loads(client.ask(request(b"", path, method="GET")).body)["id"] == "org/plain-oa"
        answer = client.ask(request(b"", "/v1/models", method="HEAD"), b"HEAD")
        assert answer.status == 200
        answer = client.ask(request(b"", "/v1/models/nobody", method="GET"))
        assert answer.status == 404
        assert is_error(answer, CHAT)["code"] == "model_not_found"
    answer = stand.ask(b"", "/v1/models/mod%C3%A8le", method="GET")  # names are ASCII: there is none
    assert is_error(answer, CHAT)["message"] == 'there is no model "mod\u00e8le" here'
    assert stand.ask(b"", "/v1/models/%ff", method="GET").status == 404
    for path in ("/v1/models/nobody", "/v1/nothing"):
        for fields, dialect in (({"anthropic-version": "2023-06-01"}, MESSAGES), ({}, CHAT)):
            answer = stand.ask(b"", path, method="GET", fields=fields)
            assert answer.status == 404
            message = is_error(answer, dialect)["message"]
            assert message == 'there is no model "nobody" here' or (
                "/chat/completions, " in message and "GET /models" in message
            )


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("GET", CHAT, b"POST"),
        ("TRACE", CHAT, b"POST"),
        ("PUT", MESSAGES, b"POST"),
        ("DELETE", "/v1/models", b"GET, HEAD"),
        ("POST", "/v1/models/plain-oa", b"GET, HEAD"),
    ],
)
def test_a_method_that_does_not_fit(stand: Stand, method: str, path: str, methods: bytes) -> None:
    """The answer names those that do (RFC 9110 10.2.1)."""
    answer = stand.ask({}, path, method=method)
    assert (answer.status, answer.get(b"allow")) == (405, methods)


def test_a_method_that_does_not_fit_a_prompt(stand: Stand) -> None:
    """It is named, and not the operation that comes of it."""
    answer = stand.ask({}, "/p/sum", method="DELETE")
    assert (answer.status, answer.get(b"allow")) == (405, b"GET, POST")
    assert is_error(answer, "/p/sum")["message"] == "the prompt sum is asked by POST, and described by GET"


def test_tokens_are_counted(stand: Stand) -> None:
    """By the provider where it can, else about."""
    for model in ("plain-oa", "plain-an", "plain-ge"):
        asked = {"model": model, "messages": [{"role": "user", "content": "hello there"}]}
        answer = stand.ask(asked, "/v1/messages/count_tokens")
        assert answer.status == 200, answer
        assert json.loads(answer.body)["input_tokens"] >= 1
        assert (answer.get(b"x-edgeq-estimated") == b"true") is (model == "plain-oa")


def test_tokens_are_counted_whoever_fails(stand: Stand) -> None:
    """The next one that can is asked; if none can, it is told about, and not that a provider has failed. What is the
    client's own fault stays that."""
    since = len(stand.gateway.log_lines())
    for model, is_estimated in (("counts", False), ("counts-not", True), ("counts-not", True), ("dead-an", True)):
        asked = {"model": model, "messages": [{"role": "user", "content": "hello there"}]}
        answer = stand.ask(asked, "/v1/messages/count_tokens")
        assert answer.status == 200, answer
        assert json.loads(answer.body)["input_tokens"] >= 1
        assert (answer.get(b"x-edgeq-estimated") == b"true") is is_estimated, model
        assert (answer.get(b"x-edgeq-target") is None) is is_estimated
    (line,) = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "dead-an", since)
    assert (line["http.response.status_code"], line.get("error.type")) == (200, None)
    assert line["edgeq.before"].startswith("upstream_connect_refused at ")
    asked = {"model": "stays-400-an", "messages": [{"role": "user", "content": "hello there"}]}
    assert stand.ask(asked, "/v1/messages/count_tokens").status == 400
    stand.wait_idle()


@pytest.mark.parametrize("name", ["oa", "an"])
def test_a_prompt_streams_its_chat(stand: Stand, name: str) -> None:
    """To whoever accepts a stream: the words and the usage of the whole answer, by the name of the prompt's model."""
    whole = json.loads(stand.ask({"text": "a"}, f"/p/chat-{name}").body)
    with stand.client() as client:
        fields = {"accept": "application/json;q=0.5, Text/Event-Stream"}
        answer = client.ask(request({"text": "a"}, f"/p/chat-{name}", fields=fields))
        assert (answer.status, answer.get(b"content-type")) == (200, b"text/event-stream; charset=utf-8")
        told = [value for _, value in events(answer.body)]
        assert told.pop() == "[DONE]"
        assert {one["model"] for one in told} == {whole["model"]} == {f"plain-{name}"}
        words = "".join(one["choices"][0]["delta"].get("content") or "" for one in told if one["choices"])
        assert words == whole["choices"][0]["message"]["content"]
        assert told[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("lines", "streams"),
    [
        ("accept: application/json\r\naccept: text/event-stream", True),
        ("Accept: text/event-stream; q=0.4", True),
        ("accept: text/event-stream;q=0", False),
        ("accept: text/event-stream; Q=0.00, application/json", False),
        ("accept: text/event-streamx", False),
    ],
)
def test_whether_an_event_stream_is_accepted(stand: Stand, lines: str, streams: bool) -> None:
    """Several lines are one list (RFC 9110 5.3), and a weight of nothing is a refusal (12.4.2)."""
    with stand.client() as client:
        asked = request({"text": "a"}, "/p/chat-oa").replace(b"\r\n", b"\r\n" + lines.encode() + b"\r\n", 1)
        answer = client.ask(asked)
    assert answer.status == 200
    assert (answer.get(b"content-type") == b"text/event-stream; charset=utf-8") == streams


def test_a_prompt_names_a_wrong_variable_once(stand: Stand) -> None:
    """In `param` for programs, in the message for people."""
    with stand.client() as client:
        answer = client.ask(request({}, "/p/sum"))
    assert answer.status == 400
    error = is_error(answer, "/p/sum")
    assert (error["param"], error["message"]) == ("text", "text is missing")


def test_who_was_not_asked_is_not_told(stand: Stand) -> None:
    """The log names the upstream of the target that was asked, and none where nobody was."""
    assert stand.line_of(stand.ask(ask_for("plain-an")))["edgeq.upstream"] == "an"
    for answer in (stand.ask({}, "/v1/nothing"), stand.ask(ask_for("nobody"))):
        line = stand.line_of(answer)
        assert (answer.status, line["http.route"]) == (404, line["edgeq.resource"].partition("/")[2])
        assert "edgeq.upstream" not in line


@pytest.mark.parametrize("who", ["oa", "ge", "an"])
def test_a_conversation_goes_on_at_another_provider(stand: Stand, who: str) -> None:
    """What another one has thought is of no use to Anthropic, which would refuse all of it, and for ever."""
    tool = {"name": "look", "input_schema": {"type": "object"}}
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    asked = {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}, "tools": [tool]}
    answer = stand.ask({"model": f"calls-{who}", "messages": messages, **asked}, MESSAGES)
    content = json.loads(answer.body)["content"]
    assert [block["type"] for block in content] == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": content[1]["id"], "content": "x"}
    messages += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    answer = stand.ask({"model": "claude", "messages": messages, **asked}, MESSAGES)
    assert answer.status == 200, answer.body
    shown = json.loads(json.loads(answer.body)["content"][0]["text"])
    is_own = who == "an"
    assert shown["messages"][1]["content"] == (content if is_own else content[1:])
    assert ("thinking" in shown) == is_own
    assert answer.get(b"x-edgeq-dropped") == (None if is_own else b"thinking")
