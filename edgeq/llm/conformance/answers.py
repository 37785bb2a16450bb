"""Answers: chat completions as messages, and messages as chat completions."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import Row, Table, said, silent

_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
_USE: Final = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}


def _message(**more: Any) -> dict[str, Any]:
    """A chat completion with this in its message."""
    finish_reason = more.pop("finish_reason", "stop")
    message = {"role": "assistant", "content": "hi", "refusal": None, **more}
    return {"choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _counted(read: int, cached: int, written: int) -> dict[str, Any]:
    """Anthropic's usage."""
    return {
        "input_tokens": read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written,
    }


def _finished(finish_reason: str, stop_reason: str) -> Row:
    return said(f"finish_reason: {finish_reason}", _message(finish_reason=finish_reason), {"stop_reason": stop_reason})


def _stopped(stop_reason: str, finish_reason: str) -> Row:
    there = {} if finish_reason == "stop" else _message(finish_reason=finish_reason)
    return said(f"stop_reason: {stop_reason}", {"stop_reason": stop_reason}, there, f"finish_reason {finish_reason}")


CHAT_ANSWERS: Final = Table(
    "openai",
    "anthropic",
    "",
    {"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m", **_message()},
    (
        said("id", {"id": "chatcmpl-2"}, {"id": "msg_chatcmpl-2"}),
        said("model", {"model": "n"}, {"model": "n"}, "as the client calls it"),
        silent("created", {"created": 8}, "there is none"),
        silent("object", {"object": "chat.completion"}, "type: message"),
        silent("system_fingerprint", {"system_fingerprint": "f"}, "there is none"),
        silent("metadata, moderation", {"metadata": {}, "moderation": {}}, "there is none"),
        said(
            "service_tier: priority",
            {"service_tier": "priority"},
            {"usage": {**_counted(0, 0, 0), "service_tier": "priority"}},
        ),
        said(
            "service_tier: default",
            {"service_tier": "default"},
            {"usage": {**_counted(0, 0, 0), "service_tier": "standard"}},
        ),
        silent("service_tier: flex, scale, fast", {"service_tier": "flex"}, "dropped"),
        said("content", _message(content="ho"), {"content": [_text("ho")]}),
        said("content: parts", _message(content=[_text("h"), _text("o")]), {"content": [_text("ho")]}, "of Mistral"),
        said(
            "content: parts, thinking",
            _message(content=[{"type": "thinking", "thinking": [_text("hm")]}, _text("hi")]),
            {"content": [{"type": "thinking", "thinking": "hm", "signature": ""}, _text("hi")]},
            "of Mistral",
        ),
        said("content: null", _message(content=None), {"content": []}),
        said(
            "refusal",
            _message(content=None, refusal="no"),
            {"content": [_text("no")], "stop_reason": "refusal"},
        ),
        said(
            "reasoning_content, reasoning",
            _message(reasoning_content="hm"),
            {"content": [{"type": "thinking", "thinking": "hm", "signature": ""}, _text("hi")]},
            "of compatible servers",
        ),
        said(
            "tool_calls",
            _message(content=None, tool_calls=[_CALL], finish_reason="tool_calls"),
            {"content": [_USE], "stop_reason": "tool_use"},
        ),
        said(
            "tool_calls after which it stopped",
            _message(content=None, tool_calls=[_CALL], finish_reason="stop"),
            {"content": [_USE], "stop_reason": "tool_use"},
            "some servers say stop",
        ),
        silent(
            "images",
            _message(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
            "dropped: there is no word for what a model draws",
        ),
        silent("annotations, audio, logprobs", _message(annotations=[], audio=None), "dropped"),
        silent(
            "choices beyond the first",
            {"choices": [*_message()["choices"], *_message(content="ho")["choices"]]},
            "dropped: there is one answer",
        ),
        _finished("length", "max_tokens"),
        _finished("tool_calls", "tool_use"),
        _finished("function_call", "tool_use"),
        _finished("content_filter", "refusal"),
        said("finish_reason: stop", _message(finish_reason="stop"), {}, "end_turn"),
        said(
            "usage",
            {
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 3},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            {"usage": {**_counted(6, 3, 4), "output_tokens_details": {"thinking_tokens": 2}}},
            "Anthropic's input is without what is cached",
        ),
    ),
)

_COUNT: Final = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 0},
}

MESSAGE_ANSWERS: Final = Table(
    "anthropic",
    "openai",
    "",
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [_text("hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _counted(1, 0, 1),
    },
    (
        said("id", {"id": "msg_2"}, {"id": "chatcmpl-msg_2"}),
        said("model", {"model": "n"}, {"model": "n"}, "as the client calls it"),
        silent("type, role", {"type": "message", "role": "assistant"}, "object: chat.completion"),
        silent("container, diagnostics", {"container": None, "diagnostics": None}, "dropped"),
        said(
            "stop_details.explanation",
            {
                "content": [],
                "stop_reason": "refusal",
                "stop_details": {"type": "refusal", "category": "bio", "explanation": "no"},
            },
            _message(content=None, refusal="no", finish_reason="content_filter"),
            "its category is dropped",
        ),
        said("content: text", {"content": [_text("h"), _text("o")]}, _message(content="ho"), "joined"),
        said("content: none", {"content": []}, _message(content="")),
        silent("content: citations", {"content": [{**_text("hi"), "citations": [{}]}]}, "dropped"),
        said(
            "content: thinking",
            {"content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, _text("hi")]},
            _message(reasoning_content="hm"),
            "without its signature",
        ),
        silent(
            "content: redacted_thinking",
            {"content": [{"type": "redacted_thinking", "data": "d"}, _text("hi")]},
            "dropped",
        ),
        said(
            "content: tool_use",
            {"content": [_USE], "stop_reason": "tool_use"},
            _message(content=None, tool_calls=[_CALL], finish_reason="tool_calls"),
        ),
        silent(
            "content: server_tool_use and results of such",
            {"content": [{"type": "server_tool_use", "id": "s", "name": "n", "input": {}}, _text("hi")]},
            "dropped",
        ),
        _stopped("end_turn", "stop"),
        _stopped("stop_sequence", "stop"),
        _stopped("pause_turn", "stop"),
        _stopped("max_tokens", "length"),
        _stopped("model_context_window_exceeded", "length"),
        _stopped("tool_use", "tool_calls"),
        _stopped("refusal", "content_filter"),
        silent("stop_sequence", {"stop_reason": "stop_sequence", "stop_sequence": "x"}, "which it was is not told"),
        said("usage", {"usage": _counted(6, 3, 4)}, {"usage": _COUNT}),
        said(
            "usage.cache_creation_input_tokens",
            {"usage": {**_counted(4, 3, 4), "cache_creation_input_tokens": 2}},
            {"usage": {**_COUNT, "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2}}},
        ),
        said(
            "usage.output_tokens_details",
            {"usage": {**_counted(6, 3, 4), "output_tokens_details": {"thinking_tokens": 2}}},
            {"usage": {**_COUNT, "completion_tokens_details": {"reasoning_tokens": 2}}},
        ),
        said(
            "usage.service_tier: priority",
            {"usage": {**_counted(1, 0, 1), "service_tier": "priority"}},
            {"service_tier": "priority"},
        ),
        said(
            "usage.service_tier: standard",
            {"usage": {**_counted(1, 0, 1), "service_tier": "standard"}},
            {"service_tier": "default"},
        ),
        silent("usage.service_tier: batch", {"usage": {**_counted(1, 0, 1), "service_tier": "batch"}}, "dropped"),
        silent(
            "usage.server_tool_use, cache_creation, inference_geo, speed",
            {"usage": {**_counted(1, 0, 1), "speed": "fast"}},
            "dropped",
        ),
    ),
)
