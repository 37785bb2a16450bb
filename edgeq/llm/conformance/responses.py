"""OpenAI's responses as the client's dialect: its requests as requests for chat completions, and chat completions as
its answers and streams. Fields: openai/openai-python 3.57, types/responses."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import Row, StreamRow, StreamTable, Table, lost, refused, said, silent
from edgeq.llm.conformance.streams import DONE

_HI: Final = {"role": "user", "content": "hi"}
_HO: Final = {"role": "assistant", "content": "ho"}
_CALL: Final = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
_OUTPUT: Final = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
_CALL_THERE: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_SCHEMA: Final = {"type": "object", "properties": {"at": {"type": "integer"}}}
_TOOL: Final = {"type": "function", "name": "look", "description": "d", "parameters": _SCHEMA, "strict": True}
_TOOL_THERE: Final = {
    "type": "function",
    "function": {"name": "look", "description": "d", "parameters": _SCHEMA, "strict": True},
}


def _user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(content)}]}


def _user_there(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def _choose(name: str, choice: Any, there: Any) -> Row:
    """tool_choice, which needs tools."""
    return said(name, {"tools": [_TOOL], "tool_choice": choice}, {"tools": [_TOOL_THERE], "tool_choice": there})


_INPUT: Final = (
    silent("input: text", {"input": "hi"}, "one message of the user's"),
    said(
        "input: messages",
        {"input": [_HI, {"role": "assistant", "content": "ho"}, _HI]},
        {"messages": [_HI, {"role": "assistant", "content": "ho"}, _HI]},
    ),
    said(
        "input: developer",
        {"input": [{"role": "developer", "content": "a"}, _HI]},
        {"messages": [{"role": "system", "content": "a"}, _HI]},
    ),
    said("instructions", {"instructions": "a"}, {"messages": [{"role": "system", "content": "a"}, _HI]}),
    said("input_text", _user({"type": "input_text", "text": "a"}), {"messages": [{"role": "user", "content": "a"}]}),
    said(
        "input_image",
        _user({"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"}),
        _user_there({"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}),
    ),
    said(
        "input_file",
        _user({"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}),
        _user_there({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}),
    ),
    refused(
        "input_file: file_url",
        _user({"type": "input_file", "file_url": "https://x.example/a.pdf"}),
        "input.content.document",
        "Anthropic and Gemini fetch it",
    ),
    refused(
        "input_file: file_id",
        _user({"type": "input_file", "file_id": "f"}),
        "input.content.input_file",
        "files are not stored here",
    ),
    said(
        "function_call, function_call_output",
        {"input": [_HI, _CALL, _OUTPUT]},
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": None, "tool_calls": [_CALL_THERE]},
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
            ]
        },
    ),
    refused(
        "function_call_output of no call",
        {"input": [_OUTPUT]},
        "input.call_id",
    ),
    said(
        "input: reasoning",
        {"input": [_HI, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, _HO, _HI]},
        {"messages": [_HI, _HO, _HI]},
        "thoughts are for who has thought them: Anthropic, Gemini, DeepSeek and Kimi get their own back",
    ),
    said(
        "refusal",
        {"input": [_HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, _HI]},
        {"messages": [_HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, _HI]},
    ),
    lost("input: phase", {"input": [{**_HI, "phase": "commentary"}]}, "input.phase"),
    lost(
        "output_text: annotations",
        {
            "input": [
                _HI,
                {"role": "assistant", "content": [{"type": "output_text", "text": "ho", "annotations": [{}]}]},
                _HI,
            ]
        },
        "input.content.annotations",
        messages=[_HI, _HO, _HI],
    ),
    lost(
        "input_file: detail",
        _user({"type": "input_file", "filename": "a", "detail": "low", "file_data": "data:application/pdf;base64,AA"}),
        "input.content.detail",
        messages=_user_there(
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a"}}
        )["messages"],
    ),
    refused(
        "input_image: file_id",
        _user({"type": "input_image", "file_id": "f"}),
        "input.content.input_image",
        "files are not stored here",
    ),
    lost(
        "function_call: namespace",
        {"input": [_HI, {**_CALL, "namespace": "n"}, _HI]},
        "input.namespace",
        messages=[_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL_THERE]}, _HI],
    ),
    lost(
        "function_call: async",
        {"input": [_HI, {**_CALL, "async": True}, _HI]},
        "input.async",
        messages=[_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL_THERE]}, _HI],
    ),
    lost(
        "function_call: caller",
        {"input": [_HI, {**_CALL, "caller": {"type": "program", "caller_id": "p"}}, _HI]},
        "input.caller",
        "unless it is the model itself (direct)",
        messages=[_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL_THERE]}, _HI],
    ),
    lost(
        "input: calls of OpenAI's own tools",
        {"input": [_HI, {"type": "web_search_call", "id": "w", "status": "completed"}, _HO, _HI]},
        "input.web_search_call",
        messages=[_HI, {"role": "assistant", "content": [{"type": "text", "text": "ho"}]}, _HI],
    ),
    refused(
        "input: results for OpenAI's own tools",
        {"input": [_HI, {"type": "computer_call_output", "call_id": "c", "output": {}}]},
        "input.computer_call_output",
    ),
    refused(
        "input: compaction",
        {"input": [{"type": "compaction", "encrypted_content": "e"}, _HI]},
        "input",
        "what was said can only be read by OpenAI",
    ),
    refused("item_reference", {"input": [{"type": "item_reference", "id": "m"}]}, "input", "nothing is stored here"),
    lost(
        "item_reference, to a thought",
        {"input": [_HI, {"type": "item_reference", "id": "rs_1"}, _CALL, _OUTPUT]},
        "input.item_reference",
        messages=[
            _HI,
            {"role": "assistant", "content": None, "tool_calls": [_CALL_THERE]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ],
    ),
)

RESPONSES_TO_CHAT: Final = Table(
    "responses",
    "openai",
    "gpt-5.2",
    {"model": "m", "input": [_HI]},
    (
        *_INPUT,
        silent("model", {"model": "x"}, "the target's"),
        said("stream", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        silent("stream_options", {"stream_options": {"include_obfuscation": False}}, "there is none"),
        said("max_output_tokens", {"max_output_tokens": 7}, {"max_completion_tokens": 7}),
        said("temperature", {"temperature": 0.5}, {"temperature": 0.5}),
        said("top_p", {"top_p": 0.5}, {"top_p": 0.5}),
        lost("top_logprobs", {"top_logprobs": 2}),
        lost(
            "include: logprobs",
            {"include": ["message.output_text.logprobs"]},
            "include.message.output_text.logprobs",
        ),
        silent("include: reasoning.encrypted_content", {"include": ["reasoning.encrypted_content"]}, "always told"),
        lost(
            "include: of tools of OpenAI's own",
            {"include": ["file_search_call.results"]},
            "include.file_search_call.results",
        ),
        _choose("tools, tool_choice: auto", "auto", "auto"),
        _choose("tool_choice: none", "none", "none"),
        _choose("tool_choice: required", "required", "required"),
        _choose(
            "tool_choice: named",
            {"type": "function", "name": "look"},
            {"type": "function", "function": {"name": "look"}},
        ),
        refused("tool_choice: web_search", {"tool_choice": {"type": "web_search"}}, "tool_choice"),
        lost(
            "tools: allowed_callers, defer_loading, output_schema",
            {"tools": [{**_TOOL, "output_schema": _SCHEMA}]},
            "tools.output_schema",
            tools=[_TOOL_THERE],
        ),
        lost("tools: async", {"tools": [{**_TOOL, "async": True}]}, "tools.async", tools=[_TOOL_THERE]),
        lost("tools: web_search", {"tools": [{"type": "web_search"}]}, "tools.web_search"),
        said(
            "parallel_tool_calls",
            {"tools": [_TOOL], "parallel_tool_calls": False},
            {"tools": [_TOOL_THERE], "parallel_tool_calls": False},
        ),
        silent("text.format: text", {"text": {"format": {"type": "text"}}}, "the default"),
        said(
            "text.format: json_object",
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        said(
            "text.format: json_schema",
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": _SCHEMA, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": _SCHEMA, "strict": True},
                }
            },
        ),
        said("text.verbosity", {"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        said("reasoning.effort", {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        silent("reasoning.summary", {"reasoning": {"summary": "auto"}}, "what is told of thoughts is passed on"),
        silent("reasoning.generate_summary", {"reasoning": {"generate_summary": "auto"}}, "its old name"),
        lost("reasoning.context", {"reasoning": {"context": "all_turns"}}),
        said("service_tier", {"service_tier": "flex"}, {"service_tier": "flex"}),
        lost("metadata", {"metadata": {"a": "b"}}, note="of a chat completion it is refused unless that is stored"),
        said(
            "metadata and store",
            {"metadata": {"a": "b"}, "store": True},
            {"metadata": {"a": "b"}, "store": True},
        ),
        said("user", {"user": "u"}, {"user": "u"}),
        said("safety_identifier", {"safety_identifier": "u"}, {"user": "u"}),
        silent("store: false", {"store": False}, "nothing is stored here"),
        silent("truncation: disabled", {"truncation": "disabled"}, "the default"),
        silent("background: false", {"background": False}, "the default"),
        said("store", {"store": True}, {"store": True}, "as a chat completion"),
        said("prompt_cache_key", {"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
        said("prompt_cache_retention", {"prompt_cache_retention": "24h"}, {"prompt_cache_retention": "24h"}),
        said(
            "prompt_cache_options",
            {"prompt_cache_options": {"mode": "implicit"}},
            {"prompt_cache_options": {"mode": "implicit"}},
        ),
        refused("background", {"background": True}, "background", "nothing is stored here"),
        refused(
            "previous_response_id", {"previous_response_id": "r"}, "previous_response_id", "nothing is stored here"
        ),
        refused("conversation", {"conversation": "c"}, "conversation", "nothing is stored here"),
        refused("prompt", {"prompt": {"id": "p"}}, "prompt", "nothing is stored here"),
        *[
            lost(name, {name: value})
            for name, value in (
                ("access_programs", {"cyber": "standard"}),
                ("background_options", {"completion_window": "soonest"}),
                ("context_management", [{"type": "compaction"}]),
                ("image", {"context_compression": "auto"}),
                ("max_tool_calls", 3),
                ("moderation", {"model": "m"}),
                ("truncation", "auto"),
            )
        ],
    ),
)


def _completion(finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": "hi", **message}
    return {"choices": [{"index": 0, "message": whole, "finish_reason": finish_reason}]}


def _item(kind: str, place: int = 0, status: str = "completed", **content: Any) -> dict[str, Any]:
    prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}[kind]
    item = {"id": f"{prefix}_1_{place}", "type": kind, **content}
    return item if kind == "reasoning" else item | {"status": status}


def _message(text: str, place: int = 0, status: str = "completed") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return _item("message", place, status, role="assistant", content=content)


def _incomplete(finish_reason: str, reason: str) -> Row:
    there = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    output = [_message("hi", status="incomplete")]
    return said(f"finish_reason: {finish_reason}", _completion(finish_reason), {**there, "output": output})


_CALLED: Final[dict[str, Any]] = {"call_id": "c1", "name": "look", "arguments": "{}"}

CHAT_ANSWERS_THERE: Final = Table(
    "openai",
    "responses",
    "",
    {"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m", **_completion()},
    (
        said("created", {"created": 8}, {"created_at": 8}),
        said("model", {"model": "n"}, {"model": "n"}, "as the client calls it"),
        said("service_tier", {"service_tier": "flex"}, {"service_tier": "flex"}),
        said("message.content", _completion(content="a"), {"output": [_message("a")]}),
        said(
            "message.refusal",
            _completion(content=None, refusal="no"),
            {
                "output": [
                    _item(
                        "message",
                        role="assistant",
                        content=[{"type": "refusal", "refusal": "no"}],
                    )
                ]
            },
        ),
        said(
            "message.reasoning_content",
            _completion(reasoning_content="hm"),
            {
                "output": [
                    _item("reasoning", summary=[{"type": "summary_text", "text": "hm"}]),
                    _message("hi", 1),
                ]
            },
            "of compatible servers",
        ),
        said(
            "message.tool_calls",
            _completion("tool_calls", content=None, tool_calls=[_CALL_THERE]),
            {"output": [_item("function_call", **_CALLED)]},
        ),
        said(
            "message.images",
            _completion(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
            {
                "output": [
                    _message("hi"),
                    {
                        "id": "ig_1_1",
                        "type": "image_generation_call",
                        "status": "completed",
                        "result": "AAAA",
                        "output_format": "png",
                    },
                ]
            },
            "of OpenRouter and who follows it",
        ),
        _incomplete("length", "max_output_tokens"),
        said(
            "usage",
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 1},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            {
                "usage": {
                    "input_tokens": 5,
                    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
                    "output_tokens": 4,
                    "output_tokens_details": {"reasoning_tokens": 2},
                    "total_tokens": 9,
                }
            },
        ),
    ),
)


def _chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice]}


def _event(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{name}", **fields}


_BEGIN: Final = _chunk(role="assistant", content="")
_TEXT: Final = _chunk(content="a")
_AT: Final = {"item_id": "msg_1_0", "output_index": 0, "content_index": 0}

CHUNKS_THERE: Final = StreamTable(
    "openai",
    "responses",
    (
        StreamRow(
            "delta.role",
            (),
            (_BEGIN,),
            (
                _event("created", sequence_number=0, response={"id": "resp_1", "status": "in_progress", "output": []}),
                _event("in_progress", sequence_number=1, response={"id": "resp_1"}),
            ),
        ),
        StreamRow(
            "service_tier",
            (),
            ({**_BEGIN, "service_tier": "flex"},),
            (
                _event("created", response={"service_tier": "flex"}),
                _event("in_progress", response={"service_tier": "flex"}),
            ),
            "of the first chunk",
        ),
        StreamRow(
            "delta.content",
            (_BEGIN,),
            (_TEXT,),
            (
                _event("output_item.added", output_index=0, item={"id": "msg_1_0", "status": "in_progress"}),
                _event("content_part.added", **_AT, part={"type": "output_text", "text": ""}),
                _event("output_text.delta", **_AT, delta="a"),
            ),
        ),
        StreamRow(
            "delta.reasoning_content",
            (_BEGIN,),
            (_chunk(reasoning_content="a"),),
            (
                _event("output_item.added", output_index=0, item={"id": "rs_1_0", "summary": []}),
                _event("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""}),
                _event("reasoning_summary_text.delta", summary_index=0, delta="a"),
            ),
        ),
        StreamRow(
            "delta.refusal",
            (_BEGIN,),
            (_chunk(refusal="a"),),
            (
                _event("output_item.added", output_index=0),
                _event("content_part.added", **_AT, part={"type": "refusal", "refusal": ""}),
                _event("refusal.delta", **_AT, delta="a"),
            ),
        ),
        StreamRow(
            "delta.images",
            (_BEGIN,),
            (
                _chunk(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
                _chunk("stop"),
            ),
            (
                _event("output_item.added", output_index=0, item={"id": "ig_1_0", "result": None}),
                _event("image_generation_call.in_progress", item_id="ig_1_0", output_index=0),
                _event("image_generation_call.completed", item_id="ig_1_0", output_index=0),
                _event("output_item.done", output_index=0, item={"id": "ig_1_0", "result": "AAAA"}),
                _event("completed", response={"output": [{"result": "AAAA"}]}),
            ),
        ),
        StreamRow(
            "delta.tool_calls",
            (_BEGIN, _TEXT),
            (_chunk(tool_calls=[{"index": 0, **_CALL_THERE}]),),
            (
                _event("output_text.done", **_AT, text="a"),
                _event("content_part.done", **_AT, part={"type": "output_text", "text": "a"}),
                _event("output_item.done", output_index=0, item=_message("a")),
                _event(
                    "output_item.added",
                    output_index=1,
                    item={"id": "fc_1_1", "type": "function_call", "call_id": "c1", "name": "look", "arguments": ""},
                ),
                _event("function_call_arguments.delta", item_id="fc_1_1", output_index=1, delta="{}"),
            ),
        ),
        StreamRow(
            "finish_reason: stop",
            (_BEGIN, _TEXT),
            (_chunk("stop"), DONE),
            (
                _event("output_text.done", **_AT, text="a"),
                _event("content_part.done", **_AT),
                _event("output_item.done", output_index=0),
                _event("completed", response={"status": "completed", "output": [_message("a")]}),
            ),
        ),
        StreamRow(
            "finish_reason: length, usage",
            (_BEGIN,),
            (_chunk("length"), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}, DONE),
            (
                _event(
                    "incomplete",
                    response={
                        "incomplete_details": {"reason": "max_output_tokens"},
                        "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
                    },
                ),
            ),
        ),
        StreamRow(
            "error",
            (_BEGIN,),
            ({"error": {"message": "busy", "type": "server_error"}},),
            (
                _event("failed", response={"status": "failed", "error": {"code": "server_error", "message": "busy"}}),
                {"type": "error", "message": "busy", "error": {"message": "busy", "type": "server_error"}},
            ),
            "the second at which the SDKs raise",
        ),
    ),
)
