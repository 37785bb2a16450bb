"""Events of streams: chunks of a chat completion as events of a message, and back. What ends a stream is "[DONE]" in a
chat completion, which is written here as an event of its own."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import StreamRow, StreamTable

DONE: Final = {"": "[DONE]"}


def _chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice]}


def _call(index: int, arguments: str, call_id: str = "", name: str = "") -> dict[str, Any]:
    """A chunk with a piece of a call."""
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id:
        call["id"] = call_id
        call["function"]["name"] = name
    return _chunk(tool_calls=[call])


def _start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


_BEGIN: Final = _chunk(role="assistant", content="")
_TEXT: Final = _chunk(content="a")
_TEXT_THERE: Final = (_start(0, type="text", text=""), _delta(0, type="text_delta", text="a"))
_ARGUMENTS: Final = {"type": "input_json_delta", "partial_json": '{"a":1}'}
_USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
_USAGE_THERE: Final = {"input_tokens": 4, "cache_read_input_tokens": 1, "output_tokens": 2}


def _ended(reason: str, there: str) -> StreamRow:
    message = {"type": "message_delta", "delta": {"stop_reason": there, "stop_sequence": None}}
    return StreamRow(
        f"finish_reason: {reason}",
        (_BEGIN,),
        (_chunk(reason), DONE),
        (message, {"type": "message_stop"}),
        "told once the usage may have come",
    )


CHUNKS: Final = StreamTable(
    "openai",
    "anthropic",
    (
        StreamRow(
            "delta.role",
            (),
            (_BEGIN,),
            ({"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 33}}},),
            "with an estimate of the input's tokens, as nobody has told them",
        ),
        StreamRow("delta.content", (_BEGIN,), (_TEXT,), _TEXT_THERE),
        StreamRow("delta.content, more", (_BEGIN, _TEXT), (_TEXT,), _TEXT_THERE[1:]),
        StreamRow(
            "delta.content: parts",
            (_BEGIN,),
            (_chunk(content=[{"type": "text", "text": "a"}]),),
            _TEXT_THERE,
            "of Mistral; thinking among them is a thought",
        ),
        StreamRow("delta.refusal", (_BEGIN,), (_chunk(refusal="a"),), _TEXT_THERE),
        StreamRow(
            "delta.reasoning_content",
            (_BEGIN,),
            (_chunk(reasoning_content="a"), _TEXT),
            (
                _start(0, type="thinking", thinking="", signature=""),
                _delta(0, type="thinking_delta", thinking="a"),
                _stop(0),
                _start(1, type="text"),
                _delta(1, type="text_delta", text="a"),
            ),
            "of compatible servers; delta.reasoning, too",
        ),
        StreamRow(
            "delta.tool_calls",
            (_BEGIN,),
            (_call(0, "", "c1", "f"), _call(0, '{"a":1}')),
            (_start(0, type="tool_use", id="c1", name="f", input={}), _delta(0, **_ARGUMENTS)),
        ),
        StreamRow(
            "delta.tool_calls after text",
            (_BEGIN, _TEXT),
            (_call(0, "", "c1", "f"),),
            (_stop(0), _start(1, type="tool_use", id="c1", name="f")),
        ),
        StreamRow(
            "delta.tool_calls, several",
            (_BEGIN, _call(0, '{"a":1}', "c1", "f")),
            (_call(1, '{"a":1}', "c2", "g"),),
            (_stop(0), _start(1, type="tool_use", id="c2", name="g"), _delta(1, **_ARGUMENTS)),
        ),
        StreamRow(
            "delta.tool_calls, in turn",
            (_BEGIN, _call(0, '{"a"', "c1", "f"), _call(1, '{"a":', "c2", "g")),
            (_call(1, "1}"), _call(0, ":1}")),
            (
                _delta(0, partial_json=":1}"),
                _stop(0),
                _start(1, type="tool_use", id="c2", name="g"),
                _delta(1, **_ARGUMENTS),
            ),
            "a call waits until the one before it is whole",
        ),
        StreamRow(
            "delta.tool_calls, one index for all",
            (_BEGIN, _call(0, '{"a":1}', "c1", "f")),
            (_call(0, '{"a":1}', "c2", "f"),),
            (_stop(0), _start(1, type="tool_use", id="c2", name="f"), _delta(1, **_ARGUMENTS)),
            "of some compatible servers",
        ),
        _ended("stop", "end_turn"),
        _ended("length", "max_tokens"),
        _ended("tool_calls", "tool_use"),
        _ended("function_call", "tool_use"),
        _ended("content_filter", "refusal"),
        StreamRow(
            "finish_reason: stop after calls",
            (_BEGIN, _call(0, "{}", "c1", "f")),
            (_chunk("stop"), DONE),
            (_stop(0), {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}),
        ),
        StreamRow(
            "usage",
            (_BEGIN, _chunk("stop")),
            ({"choices": [], "usage": _USAGE}, DONE),
            ({"type": "message_delta", "usage": _USAGE_THERE}, {"type": "message_stop"}),
        ),
        StreamRow(
            "usage beside a choice",
            (_BEGIN,),
            ({**_chunk("stop"), "usage": _USAGE}, DONE),
            ({"type": "message_delta", "usage": _USAGE_THERE}, {"type": "message_stop"}),
        ),
        StreamRow(
            "service_tier",
            (),
            ({**_BEGIN, "service_tier": "default"},),
            ({"type": "message_start", "message": {"usage": {"service_tier": "standard"}}},),
            "of the first chunk; flex, scale and fast are dropped",
        ),
        StreamRow("obfuscation, system_fingerprint", (_BEGIN,), ({**_chunk(), "obfuscation": "x"},), ()),
        StreamRow("logprobs, audio", (_BEGIN,), (_chunk(audio={"data": "x"}),), (), "dropped"),
        StreamRow(
            "delta.function_call", (_BEGIN,), (_chunk(function_call={"name": "f"}),), (), "functions are not asked for"
        ),
        StreamRow(
            "delta.images",
            (_BEGIN, _TEXT, _chunk(images=[{"image_url": {"url": "data:image/png;base64,AAAA"}}])),
            (_chunk(content="b"),),
            (_start(1, type="text"), _delta(1, type="text_delta", text="b")),
            "dropped: there is no word for what a model draws",
        ),
        StreamRow("moderation", (_BEGIN,), ({**_chunk(), "moderation": {}},), (), "it is not asked for"),
        StreamRow(
            "finish_reason: error, abort",
            (_BEGIN,),
            (_chunk("error"),),
            ({"type": "error", "error": {"type": "api_error"}},),
            "of compatible servers",
        ),
        StreamRow("choices beyond the first", (_BEGIN,), ({"choices": [{"index": 1, "delta": {"content": "b"}}]},), ()),
        StreamRow(
            "error",
            (_BEGIN,),
            ({"error": {"message": "no", "type": "server_error", "code": None}},),
            ({"type": "error", "error": {"type": "api_error", "message": "no"}},),
            "then nothing",
        ),
    ),
)

_MESSAGE: Final = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 4, "cache_read_input_tokens": 1}},
}


def _choice(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _message_delta(stop_reason: str, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}


def _stopped(reason: str, there: str) -> StreamRow:
    return StreamRow(
        f"message_delta: {reason}",
        (_MESSAGE,),
        (_message_delta(reason, output_tokens=2), {"type": "message_stop"}),
        (_choice(there), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}, DONE),
        "the chunk of usage only if the client has asked for it",
    )


_CALL_START: Final = _start(0, type="tool_use", id="c1", name="f", input={})

EVENTS: Final = StreamTable(
    "anthropic",
    "openai",
    (
        StreamRow("message_start", (), (_MESSAGE,), (_choice(role="assistant", content=""),)),
        StreamRow(
            "message_start: service_tier",
            (),
            ({"type": "message_start", "message": {"id": "msg_1", "usage": {"service_tier": "priority"}}},),
            ({**_choice(role="assistant", content=""), "service_tier": "priority"},),
            "in each chunk; batch is dropped",
        ),
        StreamRow("content_block_start: text", (_MESSAGE,), (_start(0, type="text", text=""),), ()),
        StreamRow(
            "content_block_delta: text_delta",
            (_MESSAGE, _start(0, type="text", text="")),
            (_delta(0, type="text_delta", text="a"),),
            (_choice(content="a"),),
        ),
        StreamRow(
            "content_block_delta: citations_delta",
            (_MESSAGE, _start(0, type="text", text="")),
            (_delta(0, type="citations_delta", citation={}),),
            (),
            "dropped",
        ),
        StreamRow("content_block_start: thinking", (_MESSAGE,), (_start(0, type="thinking", thinking=""),), ()),
        StreamRow(
            "content_block_delta: thinking_delta",
            (_MESSAGE, _start(0, type="thinking", thinking="")),
            (_delta(0, type="thinking_delta", thinking="a"),),
            (_choice(reasoning_content="a"),),
        ),
        StreamRow(
            "content_block_delta: signature_delta",
            (_MESSAGE, _start(0, type="thinking", thinking="")),
            (_delta(0, type="signature_delta", signature="s"),),
            (),
            "dropped",
        ),
        StreamRow(
            "content_block_start: redacted_thinking",
            (_MESSAGE,),
            (_start(0, type="redacted_thinking", data="d"),),
            (),
            "dropped",
        ),
        StreamRow(
            "content_block_start: tool_use",
            (_MESSAGE,),
            (_CALL_START,),
            (
                _choice(
                    tool_calls=[
                        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
                    ]
                ),
            ),
        ),
        StreamRow(
            "content_block_delta: input_json_delta",
            (_MESSAGE, _CALL_START),
            (_delta(0, type="input_json_delta", partial_json='{"a":1}'),),
            (_choice(tool_calls=[{"index": 0, "function": {"arguments": '{"a":1}'}}]),),
        ),
        StreamRow(
            "content_block_start: of the provider's own tools",
            (_MESSAGE,),
            (
                _start(0, type="server_tool_use", id="s", name="n", input={}),
                _delta(0, type="input_json_delta", partial_json="{}"),
                _stop(0),
            ),
            (),
            "dropped",
        ),
        StreamRow("content_block_stop", (_MESSAGE, _start(0, type="text", text="")), (_stop(0),), ()),
        StreamRow(
            "content_block_stop: of a tool_use without input",
            (_MESSAGE, _CALL_START),
            (_stop(0),),
            (_choice(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),),
            "arguments are JSON, always",
        ),
        _stopped("end_turn", "stop"),
        _stopped("stop_sequence", "stop"),
        _stopped("pause_turn", "stop"),
        _stopped("max_tokens", "length"),
        _stopped("model_context_window_exceeded", "length"),
        _stopped("tool_use", "tool_calls"),
        _stopped("refusal", "content_filter"),
        StreamRow(
            "message_delta: stop_details.explanation",
            (_MESSAGE,),
            (
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "no"}},
                    "usage": {"output_tokens": 2},
                },
                {"type": "message_stop"},
            ),
            (_choice(refusal="no"), _choice("content_filter"), {"choices": []}, DONE),
        ),
        StreamRow(
            "message_delta, twice",
            (_MESSAGE, _message_delta("end_turn", output_tokens=1)),
            (
                {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 6, "output_tokens": 3}},
                {"type": "message_stop"},
            ),
            (_choice("stop"), {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}, DONE),
            "usage is cumulative: set, not added",
        ),
        StreamRow("ping", (_MESSAGE,), ({"type": "ping"},), (), "a comment"),
        StreamRow(
            "error",
            (_MESSAGE,),
            ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},),
            ({"error": {"message": "busy", "type": "server_error"}},),
            "then nothing, without [DONE]",
        ),
        StreamRow("an event that is not known", (_MESSAGE,), ({"type": "future"},), ()),
    ),
)
