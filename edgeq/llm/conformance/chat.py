"""Requests for chat completions as requests for messages. Fields: openai/openai-python 3.57,
types/chat/completion_create_params.py."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import Row, Table, lost, refused, said, silent

MODEL: Final = "claude-opus-4-6"
_HI: Final = {"role": "user", "content": "hi"}
_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
_CALL_2: Final = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": ""}}
_USE: Final = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}
_USE_2: Final = {"type": "tool_use", "id": "c2", "name": "look", "input": {}}
_SCHEMA: Final = {"type": "object", "properties": {"at": {"type": "integer"}}}
_CLOSED: Final = {"type": "object", "additionalProperties": False}
_BOUND: Final = {"minProperties": 1}
_BOUND_THERE: Final = {"description": '{"minProperties":1}'}
_TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": _SCHEMA}}
_CALLED: Final[dict[str, Any]] = {
    "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "none"},
}
"""Calls without tools are refused: what was called is defined."""
_TOOL_THERE: Final = {"name": "look", "input_schema": _SCHEMA}


def _user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def _choose(choice: Any, there: Any, name: str) -> Row:
    """tool_choice, which needs tools."""
    return said(name, {"tools": [_TOOL], "tool_choice": choice}, {"tools": [_TOOL_THERE], "tool_choice": there})


_MESSAGES: Final = (
    said(
        "messages: system",
        {"messages": [{"role": "system", "content": "be kind"}, _HI]},
        {"system": "be kind"},
    ),
    said(
        "messages: developer",
        {"messages": [{"role": "system", "content": "one"}, _HI, {"role": "developer", "content": "two"}]},
        {"system": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        "in their order, before all turns",
    ),
    said(
        "messages: system alone",
        {"messages": [{"role": "system", "content": "say hello"}]},
        {"messages": [{"role": "user", "content": "say hello"}]},
        "a message needs a user",
    ),
    said(
        "messages: neighbours of one role",
        {"messages": [_HI, {"role": "user", "content": "ho"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "ho"}]}]},
        "one turn",
    ),
    lost("messages.name", {"messages": [{**_HI, "name": "ann"}]}),
    said(
        "content: text",
        _user({"type": "text", "text": "a"}, {"type": "text", "text": "b"}),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
    ),
    said(
        "content: prompt_cache_breakpoint",
        _user({"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
                }
            ]
        },
    ),
    said(
        "content: image_url, data",
        _user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"}}),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                        }
                    ],
                }
            ]
        },
    ),
    said(
        "content: image_url",
        _user({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}],
                }
            ]
        },
    ),
    lost(
        "content: image_url.detail",
        _user({"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}),
        "messages.content.image_url.detail",
        messages=[
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}],
            }
        ],
    ),
    refused(
        "content: image_url of another kind",
        _user({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}),
        "messages.content.image",
        "jpeg, png, gif and webp only",
    ),
    said(
        "content: file",
        _user({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                            "title": "a.pdf",
                        }
                    ],
                }
            ]
        },
    ),
    said(
        "content: file of text",
        _user({"type": "file", "file": {"file_data": "data:text/markdown;base64,aGk=", "filename": "a.md"}}),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
                            "title": "a.md",
                        }
                    ],
                }
            ]
        },
    ),
    refused(
        "content: file of another kind",
        _user({"type": "file", "file": {"file_data": "data:application/zip;base64,aGk=", "filename": "a"}}),
        "messages.content.document",
    ),
    refused(
        "content: file_id",
        _user({"type": "file", "file": {"file_id": "file-1"}}),
        "messages.content.file",
        "a file of one provider is none of another",
    ),
    refused(
        "content: input_audio",
        _user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        "messages.content.input_audio",
    ),
    said(
        "messages: assistant, tool_calls",
        {"messages": [_HI, {"role": "assistant", "content": "well", "tool_calls": [_CALL, _CALL_2]}, _HI]},
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [{"type": "text", "text": "well"}, _USE, _USE_2]},
                _HI,
            ],
            **_CALLED,
        },
        "arguments: text <-> object; empty <-> {}",
    ),
    refused(
        "messages: tool_calls that are no JSON",
        {"messages": [{"role": "assistant", "tool_calls": [{**_CALL, "function": {"name": "f", "arguments": "{"}}]}]},
        "messages.tool_calls.function.arguments",
    ),
    lost(
        "messages: tool_calls: custom",
        {"messages": [_HI, {"role": "assistant", "content": "x", "tool_calls": [{"id": "c", "type": "custom"}]}, _HI]},
        "messages.tool_calls.custom",
        messages=[_HI, {"role": "assistant", "content": "x"}, _HI],
    ),
    said(
        "messages: tool",
        {
            "messages": [
                _HI,
                {"role": "assistant", "tool_calls": [_CALL, _CALL_2]},
                {"role": "tool", "tool_call_id": "c1", "content": "one"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
                {"role": "user", "content": "go on"},
            ]
        },
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE, _USE_2]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                        {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
                        {"type": "text", "text": "go on"},
                    ],
                },
            ],
            **_CALLED,
        },
        "all results of a turn in one turn of the user, and first",
    ),
    said(
        "messages: assistant, refusal",
        {"messages": [_HI, {"role": "assistant", "content": None, "refusal": "no"}, _HI]},
        {"messages": [_HI, {"role": "assistant", "content": "no"}, _HI]},
    ),
    silent(
        "messages: assistant, reasoning_content",
        {"messages": [{"role": "assistant", "reasoning_content": "hm"}, _HI]},
        "thoughts of another provider are not shown to this one",
    ),
    lost(
        "messages: assistant, audio",
        {"messages": [_HI, {"role": "assistant", "content": "x", "audio": {"id": "a"}}, _HI]},
        "messages.audio",
        messages=[_HI, {"role": "assistant", "content": "x"}, _HI],
    ),
    refused(
        "messages: assistant, function_call",
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
        "messages.function_call",
        "use tools",
    ),
    refused("messages: function", {"messages": [{"role": "function", "name": "f", "content": ""}]}, "messages.role"),
)

_TOOLS: Final = (
    said("tools: function", {"tools": [_TOOL]}, {"tools": [_TOOL_THERE]}),
    said(
        "tools: function, description, strict, no parameters",
        {"tools": [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}]},
        {"tools": [{"name": "f", "input_schema": _CLOSED, "description": "d", "strict": True}]},
    ),
    lost(
        "tools: function, strict, bounds",
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {**_CLOSED, **_BOUND}, "strict": True}}
            ]
        },
        "tools.parameters.minProperties",
        "as of response_format",
        tools=[{"name": "f", "input_schema": {**_CLOSED, **_BOUND_THERE}, "strict": True}],
    ),
    lost("tools: custom", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.custom"),
    _choose("auto", {"type": "auto"}, "tool_choice: auto"),
    _choose("none", {"type": "none"}, "tool_choice: none"),
    _choose("required", {"type": "any"}, "tool_choice: required"),
    _choose({"type": "function", "function": {"name": "look"}}, {"type": "tool", "name": "look"}, "tool_choice: named"),
    said(
        "tool_choice: allowed_tools",
        {
            "tools": [_TOOL, {"type": "function", "function": {"name": "other"}}],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
        },
        {"tools": [_TOOL_THERE], "tool_choice": {"type": "any"}},
        "only the allowed ones are sent",
    ),
    said(
        "parallel_tool_calls",
        {"tools": [_TOOL], "parallel_tool_calls": False},
        {"tools": [_TOOL_THERE], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    refused("functions", {"functions": []}, "functions", "use tools"),
    refused("function_call", {"function_call": "auto"}, "functions", "use tools"),
)

_REST: Final = (
    said("model", {"model": "claude-x"}, {}, "the target's"),
    said("max_tokens", {"max_tokens": 7}, {"max_tokens": 7}, "neither: `max_tokens` of the target"),
    said(
        "max_completion_tokens",
        {"max_tokens": 7, "max_completion_tokens": 9},
        {"max_tokens": 9},
        "of both the larger",
    ),
    said("temperature", {"temperature": 0.5}, {"temperature": 0.5}),
    lost("temperature", {"temperature": 1.5}, note="above 1: 1 instead", temperature=1.0),
    said("top_p", {"top_p": 0.5}, {"top_p": 0.5}),
    lost(
        "temperature and top_p",
        {"temperature": 0.5, "top_p": 0.5},
        "top_p",
        "from Claude 4.1 on; from 4.7 on top_k and both, unless they are 1",
        temperature=0.5,
    ),
    said("stop", {"stop": "x"}, {"stop_sequences": ["x"]}),
    lost("stop: blanks", {"stop": ["x", "\n"]}, "stop", stop_sequences=["x"]),
    said("stop: a list", {"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
    said("stream", {"stream": True}, {"stream": True}),
    silent(
        "stream_options.include_usage",
        {"stream_options": {"include_usage": True}},
        "edgeq does it",
    ),
    silent("stream_options.include_obfuscation", {"stream_options": {"include_obfuscation": False}}, "there is none"),
    said(
        "response_format: json_schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {**_SCHEMA, "additionalProperties": False}}}},
        "objects are closed, which is a must there",
    ),
    lost(
        "response_format: json_schema, bounds",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {**_CLOSED, **_BOUND}}}},
        "response_format.json_schema.schema.minProperties",
        "told to the model in the description: minimum, maxLength, pattern, minItems beyond 1, and whatever else is "
        "not known there",
        output_config={"format": {"type": "json_schema", "schema": {**_CLOSED, **_BOUND_THERE}}},
    ),
    lost(
        "response_format: json_schema, properties of any name",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object", "additionalProperties": {"type": "string"}}},
            }
        },
        "response_format.json_schema.schema.additionalProperties",
        output_config={"format": {"type": "json_schema", "schema": _CLOSED}},
    ),
    lost("response_format: json_object", {"response_format": {"type": "json_object"}}, "response_format"),
    silent("response_format: text", {"response_format": {"type": "text"}}, "the default"),
    said(
        "reasoning_effort",
        {"reasoning_effort": "medium"},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
        "before Claude 4.6: thinking.budget_tokens, at most half of max_tokens; from 4.7 on with display: summarized",
    ),
    lost(
        "reasoning_effort and temperature",
        {"reasoning_effort": "medium", "temperature": 0.5},
        "temperature",
        "nor top_k, nor a top_p below 0.95",
        thinking={"type": "adaptive"},
        output_config={"effort": "medium"},
    ),
    lost(
        "reasoning_effort and a forced tool",
        {"reasoning_effort": "medium", "tools": [_TOOL], "tool_choice": "required"},
        "reasoning_effort",
        "before Claude 4.8",
        tools=[_TOOL_THERE],
        tool_choice={"type": "any"},
    ),
    silent("reasoning_effort: none", {"reasoning_effort": "none"}, "the default; thinking: disabled from Claude 5 on"),
    said("user", {"user": "u"}, {"metadata": {"user_id": "u"}}),
    said("safety_identifier", {"safety_identifier": "u"}, {"metadata": {"user_id": "u"}}),
    lost("safety_identifier", {"user": "v", "safety_identifier": "u"}, note="beside user", metadata={"user_id": "v"}),
    said("service_tier: auto", {"service_tier": "auto"}, {"service_tier": "auto"}),
    said("service_tier: default", {"service_tier": "default"}, {"service_tier": "standard_only"}),
    lost("service_tier: flex, scale, priority, fast", {"service_tier": "flex"}, "service_tier"),
    silent("n: 1", {"n": 1}, "the default"),
    lost("n", {"n": 2}, note="one answer instead"),
    lost("seed", {"seed": 7}),
    lost("frequency_penalty", {"frequency_penalty": 0.5}),
    lost("presence_penalty", {"presence_penalty": 0.5}),
    lost("logprobs", {"logprobs": True}),
    lost("top_logprobs", {"top_logprobs": 3}),
    lost("logit_bias", {"logit_bias": {"50256": -100}}),
    lost("metadata", {"metadata": {"a": "b"}}),
    silent("modalities: text", {"modalities": ["text"]}, "the default"),
    lost("modalities", {"modalities": ["text", "audio"]}),
    lost("audio", {"audio": {"format": "wav", "voice": "ash"}}),
    lost("moderation", {"moderation": {"model": "m"}}),
    lost("prediction", {"prediction": {"type": "content", "content": "x"}}),
    lost("prompt_cache_key", {"prompt_cache_key": "k"}),
    lost("prompt_cache_options", {"prompt_cache_options": {"mode": "implicit"}}),
    lost("prompt_cache_retention", {"prompt_cache_retention": "24h"}),
    silent("store: false", {"store": False}, "the default"),
    lost("store", {"store": True}),
    lost("verbosity", {"verbosity": "low"}),
    lost("web_search_options", {"web_search_options": {}}),
    said("top_k", {"top_k": 5}, {"top_k": 5}, "of compatible servers"),
    lost("anything else", {"repetition_penalty": 1.1}, "repetition_penalty"),
)

CHAT_TO_MESSAGES: Final = Table(
    "openai", "anthropic", MODEL, {"model": MODEL, "messages": [_HI]}, _MESSAGES + _TOOLS + _REST
)
