"""Errors of every provider are understood, and told in the client's dialect."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from edgeq.llm import speech
from edgeq.llm.dialects.errors import decode_error, encode_error, encode_stream_error, status_of
from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    TIMEOUT,
    TOO_LARGE,
    Failed,
    Losses,
    Unmappable,
)
from edgeq.llm.operation import ANTHROPIC, GEMINI, OPENAI, operation_of
from edgeq.llm.provider import has_no_model, judge
from edgeq.llm.sse import EventReader

KINDS = {
    INVALID: 400,
    AUTHENTICATION: 401,
    BILLING: 402,
    PERMISSION: 403,
    NOT_FOUND: 404,
    TOO_LARGE: 413,
    RATE: 429,
    OVERLOADED: 503,
    TIMEOUT: 504,
    INTERNAL: 500,
}


def openai(kind: str, code: str | None = None, message: str = "m") -> dict[str, Any]:
    """OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("dialect", "status", "body", "kind", "code"),
    [
        ("openai", 401, openai("invalid_request_error", "invalid_api_key"), AUTHENTICATION, "invalid_api_key"),
        ("openai", 401, openai("invalid_request_error"), AUTHENTICATION, ""),
        ("openai", 404, openai("invalid_request_error", "model_not_found"), NOT_FOUND, "model_not_found"),
        ("openai", 429, openai("insufficient_quota", "insufficient_quota"), BILLING, "insufficient_quota"),
        ("openai", 429, openai("tokens", "rate_limit_exceeded"), RATE, "rate_limit_exceeded"),
        (
            "openai",
            400,
            openai("invalid_request_error", "context_length_exceeded"),
            INVALID,
            "context_length_exceeded",
        ),
        ("openai", 503, openai("server_error"), OVERLOADED, ""),
        ("openai", 500, openai("server_error"), INTERNAL, ""),
        ("openai", 400, {"error": "m"}, INVALID, ""),
        ("openai", 422, {"detail": [{"msg": "m", "loc": ["body"]}]}, INVALID, ""),
        ("openai", 404, {"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, NOT_FOUND, ""),
        (
            "anthropic",
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            OVERLOADED,
            "",
        ),
        ("anthropic", 402, {"type": "error", "error": {"type": "billing_error", "message": "m"}}, BILLING, ""),
        ("anthropic", 413, {"type": "error", "error": {"type": "request_too_large", "message": "m"}}, TOO_LARGE, ""),
        (
            "gemini",
            429,
            {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": []}},
            RATE,
            "",
        ),
        ("gemini", 400, [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], INVALID, ""),
        ("gemini", 503, {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}, OVERLOADED, ""),
    ],
)
def test_what_providers_say(dialect: str, status: int, body: Any, kind: str, code: str) -> None:
    """The kind, whatever is exact in it: code, type, or only the status."""
    failed = decode_error(dialect, status, orjson.dumps(body))
    assert (failed.kind, failed.code, failed.status) == (kind, code, status)
    assert "m" in failed.message


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'"x"', b"{}", b'{"error":null}', b'{"error":[1]}'])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 529])
def test_what_proxies_say(body: bytes, status: int) -> None:
    """There is always something to tell."""
    failed = decode_error("openai", status, body)
    assert failed.status == status
    assert judge(failed).detail.startswith(f"the provider said {status}")
    assert judge(failed).detail.count(str(status)) == 1


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(dialect: str, kind: str) -> None:
    """What edgeq tells in a dialect, edgeq understands in it; but Google has one word for all that is used up."""
    failed = Failed(KINDS[kind], kind, "m", param="p")
    back = decode_error(dialect, status_of(dialect, failed), encode_error(dialect, failed, "id"))
    assert back.kind == (RATE if (dialect, kind) == ("gemini", BILLING) else kind)
    assert back.message == "m"


@pytest.mark.parametrize(
    ("kind", "status", "openai_status", "anthropic_status"),
    [
        (OVERLOADED, 529, 503, 529),
        (OVERLOADED, 503, 503, 529),
        (BILLING, 402, 429, 402),
        (INVALID, 422, 422, 422),
        (INTERNAL, 502, 502, 502),
        (RATE, 429, 429, 429),
        (TIMEOUT, 408, 504, 504),
    ],
)
def test_statuses(kind: str, status: int, openai_status: int, anthropic_status: int) -> None:
    """Each dialect has its own."""
    failed = Failed(status, kind, "m")
    assert status_of("openai", failed) == openai_status
    assert status_of("anthropic", failed) == anthropic_status


def test_what_ran_out() -> None:
    """OpenAI's clients are told whether it was requests or tokens."""
    failed = Failed(429, RATE, "m", "rate_limit_exceeded", unit="tokens")
    said = orjson.loads(encode_error("openai", failed, ""))["error"]
    assert said == {"message": "m", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
    assert decode_error("openai", 429, orjson.dumps({"error": said})).unit == "tokens"


def test_anthropic_has_no_code_for_a_full_window() -> None:
    """OpenAI's clients look for it."""
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}}
    assert decode_error("anthropic", 400, orjson.dumps(body)).code == "context_length_exceeded"


@pytest.mark.parametrize(("status", "code"), [(404, "thread_not_found"), (400, "thread_continue_in_flight")])
def test_details_that_an_sdk_acts_on(status: int, code: str) -> None:
    """Anthropic's says by them that the whole conversation is to be sent: no other target is asked for what it has not.
    A key in them is masked."""
    details = {"error_code": code, "hint": "sk-ant-0123456789abcdef"}

    def told_with(details: Any) -> Failed:
        error = {"type": "x", "message": "m", "details": details}
        return decode_error(ANTHROPIC, status, orjson.dumps({"type": "error", "error": error}))

    failed = told_with(details)
    assert judge(failed).reason == ""
    told = orjson.loads(encode_error(ANTHROPIC, failed, ""))["error"]
    assert told["details"] == {"error_code": code, "hint": "[key]"}
    assert status_of(ANTHROPIC, failed) == status
    assert "details" not in orjson.loads(encode_error(OPENAI, failed, ""))["error"]
    nothings: tuple[Any, ...] = (None, [], "x")
    assert [told_with(nothing).details for nothing in nothings] == [""] * 3


def test_an_error_in_a_stream() -> None:
    """One event, in the client's shape, with the id of the request where there is room for it."""
    failed = Failed(503, OVERLOADED, "busy", "queue_full")
    (event,) = EventReader().feed(encode_stream_error("anthropic", failed, "r1"))
    assert event.event == b"error"
    assert orjson.loads(event.data) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy"},
        "request_id": "r1",
    }
    (event,) = EventReader().feed(encode_stream_error("openai", failed, "r1"))
    assert event.event == b""
    assert orjson.loads(event.data)["error"]["code"] == "queue_full"
    (event,) = EventReader().feed(encode_stream_error("responses", failed, "r1"))
    assert event.event == b"error"
    assert orjson.loads(event.data)["type"] == "error"


def test_wrong_keys_and_no_credit_are_ours() -> None:
    """Gemini and Anthropic say 400 of what is wrong with our account: it is not told as the client's fault."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    body: dict[str, Any] = {
        "error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}
    }
    assert judge(decode_error("gemini", 400, orjson.dumps(body))).reason == "upstream_auth"
    said = "Your credit balance is too low to access the Anthropic API."
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    assert judge(decode_error("anthropic", 400, orjson.dumps(body))).reason == "upstream_quota"


NO_MODEL = [
    (404, "openai", {"message": "The model `gpt-9` does not exist", "code": "model_not_found"}, "upstream_error"),
    (403, "openai", {"message": "Project `p` does not have access to it", "code": "model_not_found"}, "upstream_error"),
    (
        404,
        "openai",
        {"message": "The model `qwen` does not exist.", "type": "NotFoundError", "code": 404},
        "upstream_error",
    ),
    (404, "openai", {"message": 'model "llama9" not found, try pulling it first'}, "upstream_error"),
    (404, "anthropic", {"type": "not_found_error", "message": "model: claude-9"}, "upstream_error"),
    (
        404,
        "gemini",
        {"status": "NOT_FOUND", "message": "models/gemini-9 is not found for API v1beta"},
        "upstream_error",
    ),
    (404, "openai", None, "upstream_error"),
    (403, "openai", None, "upstream_error"),
    (
        404,
        "openai",
        {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."},
        "upstream_error",
    ),
]
FLAGGED = 'x-ai/grok requires moderation on xAI. Your input was flagged for "violence". The model was not asked.'
VIOLATES = "Content violates usage guidelines. Team: t-1, API key ID: k-1, Model: grok-4, Failed check: SAFETY_CHECK"
THERE = [
    (403, "openai", VIOLATES, ""),
    (403, "openai", {"code": 403, "message": FLAGGED, "metadata": {"reasons": ["violence"]}}, ""),
    (
        403,
        "gemini",
        {
            "status": "PERMISSION_DENIED",
            "message": "You do not have permission to access the File x or it may not exist.",
        },
        "",
    ),
    (404, "openai", {"message": "No allowed providers are available for the selected model."}, "upstream_error"),
    (404, "openai", {"message": "No such File object: file-model"}, "upstream_error"),
    (403, "openai", {"message": "Your organization has been disabled."}, "upstream_auth"),
    (500, "openai", {"message": "The model has crashed"}, "upstream_error"),
    (401, "openai", {"message": "no key for this model"}, "upstream_auth"),
]


@pytest.mark.parametrize(
    ("status", "dialect", "error", "reason", "is_gone"),
    [*((*one, True) for one in NO_MODEL), *((*one, False) for one in THERE)],
)
def test_a_model_that_is_not_there(
    status: int, dialect: str, error: dict[str, Any] | str | None, reason: str, is_gone: bool
) -> None:
    """As the providers say it, or the page of a wrong URL; not a file, nor what is said of the key, nor of what this
    request says, which would take the key from all."""
    body = b"<html>Not Found</html>" if error is None else orjson.dumps({"type": "error", "error": error})
    failed = decode_error(dialect, status, body)
    assert (judge(failed).reason, has_no_model(failed)) == (reason, is_gone)
    assert "Project" not in judge(failed).detail


def test_what_one_request_is_refused_for_is_told_its_client() -> None:
    """As his own fault, without whose key it was."""
    failed = decode_error("openai", 403, orjson.dumps({"code": "no permission", "error": VIOLATES}))
    assert judge(failed).reason == ""
    assert (status_of("openai", failed), failed.message) == (400, "Content violates usage guidelines.")


def test_keys_in_messages_are_masked() -> None:
    """Some providers repeat the key that they were given."""
    body = orjson.dumps({"error": {"message": "Incorrect API key provided: sk-proj-4AbcdEfghIjklMnop."}})
    assert decode_error("openai", 500, body).message == "Incorrect API key provided: [key]."


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]
ARGUMENTS = "messages[2].tool_calls[0].function.arguments"
FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f"}
UNASKED = {"type": "tool_result", "tool_use_id": "c", "content": "x"}
ASKED: list[tuple[bytes, str, dict[str, Any], str]] = [
    (b"/chat/completions", ANTHROPIC, {"role": "user", "content": [IMAGE]}, "messages[2].content[0].image"),
    (b"/chat/completions", ANTHROPIC, {"role": "assistant", "tool_calls": CALLS}, ARGUMENTS),
    (b"/chat/completions", GEMINI, {"role": "assistant", "tool_calls": CALLS}, ARGUMENTS),
    (b"/chat/completions", GEMINI, {"role": "tool", "tool_call_id": "c", "content": "x"}, "messages[2].tool_call_id"),
    (
        b"/messages",
        OPENAI,
        {"role": "user", "content": [{"type": "search_result"}]},
        "messages[2].content[0].search_result",
    ),
    (
        b"/responses",
        ANTHROPIC,
        {"role": "user", "content": [{"type": "input_audio"}]},
        "input[2].content[0].input_audio",
    ),
    (b"/responses", ANTHROPIC, {**FUNCTION_CALL, "arguments": "{"}, "input[2].arguments"),
    (b"/responses", GEMINI, {**FUNCTION_CALL, "arguments": "[]"}, "input[2].arguments"),
    (b"/messages", GEMINI, {"role": "user", "content": [UNASKED]}, "messages[2].content[0].tool_use_id"),
]


@pytest.mark.parametrize(("path", "target", "last", "param"), ASKED)
def test_what_cannot_be_said_is_found_in_the_clients_list(
    path: bytes, target: str, last: dict[str, Any], param: str
) -> None:
    """By the number of its message, though the target's list is another one: turns are joined, the system is none."""
    name = "input" if path == b"/responses" else "messages"
    said = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}, last]
    operation = operation_of(path)
    assert operation is not None
    asked = speech.asked(operation, orjson.dumps({"model": "m", name: said}))
    with pytest.raises(Unmappable) as caught:
        speech.words(target, asked, "m", Losses(strict=False), 100)
    assert caught.value.param == param
    assert "function" in param or "function" not in caught.value.message


TEXT = {"type": "text", "text": "a"}
HI = {"role": "user", "content": "hi"}
SMALL = {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"}
LOW = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}
USE = {"role": "assistant", "content": [TEXT, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True}
LOST: list[tuple[bytes, str, dict[str, Any], str]] = [
    (
        b"/chat/completions",
        ANTHROPIC,
        {"messages": [HI, {"role": "user", "content": [TEXT, LOW]}]},
        "messages[1].content[1].image_url.detail",
    ),
    (
        b"/chat/completions",
        GEMINI,
        {"messages": [HI, {"role": "user", "content": [TEXT, LOW]}]},
        "messages[1].content[1].image_url.detail",
    ),
    (b"/chat/completions", ANTHROPIC, {"messages": [HI, {**HI, "name": "ann"}]}, "messages[1].name"),
    (b"/chat/completions", GEMINI, {"messages": [HI, {**HI, "name": "ann"}]}, "messages[1].name"),
    (
        b"/chat/completions",
        ANTHROPIC,
        {"messages": [HI, {"role": "assistant", "content": "x", "audio": {"id": "a"}}]},
        "messages[1].audio",
    ),
    (
        b"/chat/completions",
        ANTHROPIC,
        {"messages": [HI, {"role": "assistant", "tool_calls": [CALL, {"id": "d", "type": "custom"}]}]},
        "messages[1].tool_calls[1].custom",
    ),
    (
        b"/chat/completions",
        GEMINI,
        {"messages": [HI], "tools": [FUNCTION, {"type": "custom", "custom": {"name": "g"}}]},
        "tools[1].custom",
    ),
    (
        b"/messages",
        OPENAI,
        {"messages": [{"role": "user", "content": [TEXT, {**TEXT, "citations": [{}]}]}]},
        "messages[0].content[1].citations",
    ),
    (b"/messages", OPENAI, {"system": [{**TEXT, "citations": [{}]}], "messages": [HI]}, "system[0].citations"),
    (
        b"/messages",
        OPENAI,
        {"messages": [HI, USE, {"role": "user", "content": [TEXT, RESULT]}]},
        "messages[2].content[1].is_error",
    ),
    (
        b"/messages",
        OPENAI,
        {"messages": [HI], "tools": [{"name": "f"}, {"name": "g", "defer_loading": True}]},
        "tools[1].defer_loading",
    ),
    (
        b"/messages",
        GEMINI,
        {"messages": [HI], "tools": [{"name": "f"}, {"type": "web_search_20250305", "name": "g"}]},
        "tools[1].web_search_20250305",
    ),
    (b"/responses", ANTHROPIC, {"input": [HI, {"type": "web_search_call", "id": "a"}]}, "input[1].web_search_call"),
    (b"/responses", OPENAI, {"input": [HI], "tools": [{"type": "web_search"}]}, "tools[0].web_search"),
    (
        b"/responses",
        GEMINI,
        {"input": [HI, {"role": "user", "content": [{"type": "input_text", "text": "a"}, SMALL]}]},
        "input[1].content[1].detail",
    ),
    (b"/responses", ANTHROPIC, {"input": [HI], "text": {"format": {"type": "json_object"}}}, "text.format"),
    (b"/responses", ANTHROPIC, {"input": [HI], "text": {"verbosity": "low"}}, "text.verbosity"),
    (b"/messages", GEMINI, {"messages": [HI], "metadata": {"user_id": "u"}}, "metadata.user_id"),
    (
        b"/messages",
        GEMINI,
        {"messages": [HI], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        "tool_choice.disable_parallel_tool_use",
    ),
]


@pytest.mark.parametrize(("path", "target", "body", "param"), LOST)
def test_what_is_lost_is_found_in_the_clients_list(path: bytes, target: str, body: dict[str, Any], param: str) -> None:
    """A refusal names the place in each list. What is dropped is named once, however often it is."""
    operation = operation_of(path)
    assert operation is not None
    whole = orjson.dumps({"model": "m", **body})
    with pytest.raises(Unmappable) as caught:
        speech.words(target, speech.asked(operation, whole), "m", Losses(strict=True), 100)
    assert caught.value.param == param
    if param != "text.format":  # of which something else is to be told
        assert caught.value.message == f"{param} cannot be said to the model's provider"
    losses = Losses(strict=False)
    speech.words(target, speech.asked(operation, whole), "m", losses, 100)
    assert losses.dropped == [re.sub(r"\[\d+\]", "", param)]


@pytest.mark.parametrize("target", [ANTHROPIC, GEMINI])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (b"/chat/completions", {"messages": [{"role": "user", "content": ""}]}, "messages"),
        (b"/chat/completions", {"messages": []}, "messages"),
        (b"/messages", {"messages": [{"role": "user", "content": ""}]}, "messages"),
        (b"/responses", {"input": ""}, "input"),
        (b"/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": ""}]}]}, "input"),
    ],
)
def test_an_empty_conversation(path: bytes, target: str, body: dict[str, Any], param: str) -> None:
    """Neither of them takes an empty text, so nothing would be left: the client is told in its own words, not that
    the provider misses a list that it has never heard of."""
    operation = operation_of(path)
    assert operation is not None
    if path == b"/messages" and target == ANTHROPIC:
        return  # the bytes are passed, and the provider knows what to say
    asked = speech.asked(operation, orjson.dumps({"model": "m", **body}))
    with pytest.raises(Unmappable) as caught:
        speech.words(target, asked, "m", Losses(strict=False), 100)
    assert (caught.value.param, caught.value.message) == (param, f"{param} must say something: all of it is empty")


@pytest.mark.parametrize("target", [ANTHROPIC, GEMINI])
@pytest.mark.parametrize(
    ("arguments", "there"),
    [
        ('{"id": 123456789012345678901234567890, "rate": 1.0}', '{"id": 123456789012345678901234567890, "rate": 1.0}'),
        (" null", "{}"),
        ("", "{}"),
    ],
)
def test_arguments_stay_as_they_were_written(target: str, arguments: str, there: str) -> None:
    """Numbers larger than others can hold, too, character by character; and null is what some models write for none."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    said = [HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    operation = operation_of(b"/chat/completions")
    assert operation is not None
    asked = speech.asked(operation, orjson.dumps({"model": "m", "messages": said}))
    name = "input" if target == ANTHROPIC else "args"
    assert f'"{name}":{there}'.encode() in speech.words(target, asked, "m", Losses(strict=True), 100)


def test_what_a_model_refuses_has_the_clients_name() -> None:
    """Of messages stop_sequences, though all others say stop."""
    operation = operation_of(b"/messages")
    assert operation is not None
    whole = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [HI], "stop_sequences": ["x"]})
    losses = Losses(strict=False)
    speech.words(OPENAI, speech.asked(operation, whole), "o3", losses, 100)
    assert losses.dropped == ["stop_sequences"]
