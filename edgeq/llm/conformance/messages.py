"""Requests for messages as requests for chat completions. Fields: anthropics/anthropic-sdk-python 2.14,
types/message_create_params.py; and temperature, top_p, top_k of its earlier versions, which most models take."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import Row, Table, lost, refused, said, silent

MODEL: Final = "gpt-5.2"
_HI: Final = {"role": "user", "content": "hi"}
_CACHE: Final = {"type": "ephemeral"}
_USE: Final = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}
_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
_SCHEMA: Final = {"type": "object", "properties": {"at": {"type": "integer"}}}
_STRICT: Final = {**_SCHEMA, "required": ["at"], "additionalProperties": False}
_TOOL: Final = {"name": "look", "input_schema": _SCHEMA}
_TOOL_THERE: Final = {"type": "function", "function": {"name": "look", "parameters": _SCHEMA}}
_PNG: Final = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
_PDF: Final = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
_TEXT: Final = {"type": "text", "text": "a"}
_IMAGE_THERE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def _user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def _turns(*content: dict[str, Any]) -> dict[str, Any]:
    """An assistant's turn between two of the user."""
    return {"messages": [_HI, {"role": "assistant", "content": list(content)}, _HI]}


def _result(**more: Any) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": "c1", **more}
    return {"messages": [_HI, {"role": "assistant", "content": [_USE]}, {"role": "user", "content": [result]}]}


def _result_there(content: Any, *more: dict[str, Any]) -> dict[str, Any]:
    call = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
    return {"messages": [_HI, call, {"role": "tool", "tool_call_id": "c1", "content": content}, *more]}


def _choose(choice: Any, name: str, **there: Any) -> Row:
    return said(name, {"tools": [_TOOL], "tool_choice": choice}, {"tools": [_TOOL_THERE], **there})


_CONTENT: Final = (
    said("system", {"system": "be kind"}, {"messages": [{"role": "system", "content": "be kind"}, _HI]}),
    said(
        "system: blocks",
        {"system": [_TEXT, {"type": "text", "text": "b", "cache_control": _CACHE}]},
        {"messages": [{"role": "system", "content": [_TEXT, {"type": "text", "text": "b"}]}, _HI]},
    ),
    said(
        "messages: system",
        {"messages": [_HI, {"role": "system", "content": "now"}]},
        {"messages": [_HI, {"role": "system", "content": "now"}]},
    ),
    lost(
        "messages: system, clear_at",
        {"messages": [_HI, {"role": "system", "content": "now", "clear_at": "next_user_message"}]},
        "messages.clear_at",
        messages=[_HI, {"role": "system", "content": "now"}],
    ),
    lost(
        "messages: system, output_config",
        {"messages": [_HI, {"role": "system", "output_config": {"effort": "low"}}]},
        "messages.output_config",
    ),
    said("content: text", _user(_TEXT, _TEXT), _user(_TEXT, _TEXT)),
    silent(
        "content: cache_control",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": _CACHE}]}]},
        "these providers cache without being told",
    ),
    silent(
        "content: cache_control.ttl",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {**_CACHE, "ttl": "1h"}}]}
            ]
        },
        "as above",
    ),
    lost(
        "content: citations",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "citations": [{}]}]}]},
        "messages.content.citations",
    ),
    said("content: image, base64", _user({"type": "image", "source": _PNG}), _user(_IMAGE_THERE)),
    said(
        "content: image, url",
        _user({"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}),
        _user({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}),
    ),
    refused(
        "content: image, file",
        _user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
        "messages.content.image",
    ),
    lost(
        "content: image, transformations",
        _user({"type": "image", "source": _PNG, "transformations": {"x": 1}}),
        "messages.content.transformations",
        messages=_user(_IMAGE_THERE)["messages"],
    ),
    said(
        "content: document, base64",
        _user({"type": "document", "source": _PDF, "title": "a.pdf"}),
        _user({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}),
    ),
    said(
        "content: document, text",
        _user({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}, _TEXT),
        _user(_TEXT, _TEXT),
    ),
    lost(
        "content: document, title of a text",
        _user({"type": "document", "title": "t", "source": {"type": "text", "data": "a"}}, _TEXT),
        "messages.content.title",
        messages=_user(_TEXT, _TEXT)["messages"],
    ),
    refused(
        "content: document, url",
        _user({"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}}),
        "messages.content.document",
    ),
    refused(
        "content: document, content",
        _user({"type": "document", "source": {"type": "content", "content": "a"}}),
        "messages.content.document",
    ),
    lost(
        "content: document, context",
        _user({"type": "document", "source": _PDF, "title": "a", "context": "c"}),
        "messages.content.context",
        messages=_user({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a"}})[
            "messages"
        ],
    ),
    refused(
        "content: search_result",
        _user({"type": "search_result", "source": "s", "title": "t", "content": []}),
        "messages.content.search_result",
    ),
    refused(
        "content: container_upload",
        _user({"type": "container_upload", "file_id": "f"}),
        "messages.content.container_upload",
    ),
    said(
        "content: tool_use",
        _turns(_TEXT, _USE),
        {"messages": [_HI, {"role": "assistant", "content": "a", "tool_calls": [_CALL]}, _HI]},
    ),
    lost(
        "content: tool_use, caller",
        _turns({**_USE, "caller": {"type": "code_execution_20250825", "tool_id": "s"}}),
        "messages.content.caller",
        "unless it is the model itself (direct)",
        messages=[_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL]}, _HI],
    ),
    lost(
        "content: tool_use, tool_result, toolset_name",
        _turns({**_USE, "toolset_name": "browser"}),
        "messages.content.toolset_name",
        messages=[_HI, {"role": "assistant", "content": None, "tool_calls": [_CALL]}, _HI],
    ),
    said(
        "content: thinking, redacted_thinking",
        _turns(
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}, _TEXT
        ),
        {"messages": [_HI, {"role": "assistant", "content": "a"}, _HI]},
        "dropped: a thought is for the provider that has signed it; DeepSeek and Kimi, who do not, get theirs back",
    ),
    said(
        "content: compaction",
        _turns({"type": "compaction", "content": "so far", "signature": "s"}, _TEXT),
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [{"type": "text", "text": "so far"}, _TEXT]},
                _HI,
            ]
        },
        "it stands in place of all before it",
    ),
    lost(
        "content: server_tool_use and results of such",
        _turns(_TEXT, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        "messages.content.server_tool_use",
        messages=[_HI, {"role": "assistant", "content": [_TEXT]}, _HI],
    ),
    said("content: tool_result", _result(content="one"), _result_there("one")),
    said("content: tool_result, empty", _result(), _result_there("")),
    said("content: tool_result, blocks", _result(content=[_TEXT, _TEXT]), _result_there([_TEXT, _TEXT])),
    said(
        "content: tool_result, image",
        _result(content=[_TEXT, {"type": "image", "source": _PNG}]),
        _result_there("a", {"role": "user", "content": [_IMAGE_THERE]}),
        "the user shows it after all results: a tool's message has only text",
    ),
    lost(
        "content: tool_result, is_error",
        _result(content="no", is_error=True),
        "messages.content.is_error",
        messages=_result_there("no")["messages"],
    ),
)

_REST: Final = (
    said("model", {"model": "gpt-x"}, {}, "the target's"),
    said(
        "max_tokens", {"max_tokens": 7}, {"max_completion_tokens": 7}, "max_tokens for models that are not OpenAI's own"
    ),
    said("temperature", {"temperature": 0.5}, {"temperature": 0.5}),
    said("top_p", {"top_p": 0.5}, {"top_p": 0.5}),
    lost(
        "temperature, top_p, stop_sequences of a model that thinks",
        {"output_config": {"effort": "low"}, "temperature": 0.5},
        "temperature",
        "GPT-5.1 and later with an effort; o1, o3, o4 and GPT-5 always",
        reasoning_effort="low",
    ),
    lost("top_k", {"top_k": 5}, note="sent to models that are not OpenAI's own"),
    said("stop_sequences", {"stop_sequences": ["x", "y"]}, {"stop": ["x", "y"]}),
    said("stream", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    said("tools", {"tools": [_TOOL]}, {"tools": [_TOOL_THERE]}),
    said(
        "tools: description, strict, cache_control",
        {
            "tools": [
                {
                    "name": "look",
                    "input_schema": _STRICT,
                    "type": "custom",
                    "description": "d",
                    "strict": True,
                    "cache_control": _CACHE,
                }
            ]
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "look", "parameters": _STRICT, "description": "d", "strict": True},
                }
            ]
        },
    ),
    lost(
        "tools: allowed_callers, defer_loading, input_examples",
        {"tools": [{**_TOOL, "input_examples": [{"at": 1}]}]},
        "tools.input_examples",
        tools=[_TOOL_THERE],
    ),
    said(
        "tools: eager_input_streaming",
        {"tools": [{**_TOOL, "eager_input_streaming": True}]},
        {"tools": [_TOOL_THERE]},
        "a hint: the answer is the same without",
    ),
    lost(
        "tools: of the provider",
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tools.web_search_20250305",
    ),
    _choose({"type": "auto"}, "tool_choice: auto", tool_choice="auto"),
    _choose({"type": "none"}, "tool_choice: none", tool_choice="none"),
    _choose({"type": "any"}, "tool_choice: any", tool_choice="required"),
    _choose(
        {"type": "tool", "name": "look"},
        "tool_choice: tool",
        tool_choice={"type": "function", "function": {"name": "look"}},
    ),
    _choose(
        {"type": "auto", "disable_parallel_tool_use": True},
        "tool_choice: disable_parallel_tool_use",
        tool_choice="auto",
        parallel_tool_calls=False,
    ),
    said(
        "thinking: enabled",
        {"thinking": {"type": "enabled", "budget_tokens": 4000}},
        {"reasoning_effort": "medium"},
        "up to 1024 low, up to 8192 medium, above high; lost for models that never think (gpt-4)",
    ),
    silent("thinking: disabled", {"thinking": {"type": "disabled"}}, "most models refuse a word of it"),
    silent("thinking: adaptive", {"thinking": {"type": "adaptive"}}, "the default"),
    lost("thinking: between_tools", {"thinking": {"type": "between_tools"}}, "thinking"),
    lost("thinking.display", {"thinking": {"type": "adaptive", "display": "omitted"}}),
    lost("thinking.block_binding", {"thinking": {"type": "adaptive", "block_binding": {"x": 1}}}),
    said("output_config.effort", {"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    silent(
        "output_config.effort, thinking: disabled",
        {"output_config": {"effort": "high"}, "thinking": {"type": "disabled"}},
        "it shall not think",
    ),
    lost("output_config.task_budget", {"output_config": {"task_budget": {"type": "tokens", "total": 9}}}),
    said(
        "output_config.format",
        {"output_config": {"format": {"type": "json_schema", "schema": _STRICT}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": _STRICT, "strict": True},
            }
        },
    ),
    said(
        "output_format",
        {"output_format": {"type": "json_schema", "schema": _STRICT}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": _STRICT, "strict": True},
            }
        },
        "as `output_config.format` was called before",
    ),
    lost(
        "output_config.format, properties that may be left out",
        {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
        "output_config.format.strict",
        "asked for, but no longer enforced by OpenAI, which takes no such schema as strict",
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA}},
    ),
    lost(
        "tools: strict, properties that may be left out",
        {"tools": [{**_TOOL, "strict": True}]},
        "tools.strict",
        "the same",
        tools=[_TOOL_THERE],
    ),
    said("metadata.user_id", {"metadata": {"user_id": "u"}}, {"user": "u"}),
    said("service_tier: auto", {"service_tier": "auto"}, {"service_tier": "auto"}),
    said("service_tier: standard_only", {"service_tier": "standard_only"}, {"service_tier": "default"}),
    silent("cache_control", {"cache_control": _CACHE}, "these providers cache without being told"),
    lost("container", {"container": {"id": "c"}}),
    lost("diagnostics", {"diagnostics": {}}),
    lost("inference_geo", {"inference_geo": "eu"}),
    lost("speed", {"speed": "fast"}),
    lost("user_profile_id", {"user_profile_id": "p"}),
    lost("workspace_id", {"workspace_id": "w"}),
    lost("context_management", {"context_management": {"edits": []}}),
    lost("mcp_servers", {"mcp_servers": [{"type": "url", "name": "s", "url": "https://x.example"}]}),
    lost("fallbacks", {"fallbacks": "default"}),
    lost("fallback_credit_token", {"fallback_credit_token": "t"}),
    lost("billing_policy", {"billing_policy": {"type": "billing_policy"}}),
    refused("thread", {"thread": {"type": "create"}}, "thread", "as `thread_unsupported_request`: SDKs send all of it"),
    refused("compaction", {"compaction": {"type": "compaction"}}, "compaction"),
    lost("anything else", {"other": {}}, "other"),
)

MESSAGES_TO_CHAT: Final = Table(
    "anthropic", "openai", MODEL, {"model": MODEL, "max_tokens": 64, "messages": [_HI]}, _CONTENT + _REST
)
