"""Gemini as the provider: requests for chat completions as generateContent, its answers and streams as chat
completions. Fields: google-genai 3.6, types.py."""

from __future__ import annotations

from typing import Any, Final

from edgeq.llm.conformance.row import Row, StreamRow, StreamTable, Table, lost, refused, said, silent
from edgeq.llm.conformance.streams import DONE

_HI: Final = {"role": "user", "content": "hi"}
_HI_THERE: Final = {"role": "user", "parts": [{"text": "hi"}]}
_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
_CALL_THERE: Final = {"functionCall": {"id": "c1", "name": "look", "args": {"at": 1}}}
_SCHEMA: Final = {"type": "object", "properties": {"at": {"type": "integer"}}, "additionalProperties": False}
_TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": _SCHEMA}}
_TOOLS_THERE: Final = [{"functionDeclarations": [{"name": "look", "parametersJsonSchema": _SCHEMA}]}]


def _user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def _user_there(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts)}]}


def _choose(name: str, choice: Any, mode: str, **there: Any) -> Row:
    """tool_choice, which needs tools."""
    calling = {"functionCallingConfig": {"mode": mode, **there}}
    return said(name, {"tools": [_TOOL], "tool_choice": choice}, {"tools": _TOOLS_THERE, "toolConfig": calling})


def _configured(name: str, example: dict[str, Any], note: str = "", **there: Any) -> Row:
    """A field of generationConfig."""
    return said(name, example, {"generationConfig": there}, note)


_MESSAGES: Final = (
    said(
        "messages: system, developer",
        {"messages": [{"role": "system", "content": "a"}, _HI, {"role": "developer", "content": "b"}]},
        {"systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]}},
        "in their order, before all turns",
    ),
    said(
        "messages: neighbours of one role",
        {"messages": [_HI, {"role": "user", "content": "ho"}]},
        _user_there({"text": "hi"}, {"text": "ho"}),
        "one content",
    ),
    lost("messages.name", {"messages": [{**_HI, "name": "ann"}]}),
    said(
        "content: image_url, data",
        _user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        _user_there({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    ),
    said(
        "content: image_url",
        _user({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}),
        _user_there({"fileData": {"fileUri": "https://x.example/a.png", "mimeType": "image/png"}}),
        "the type by the end of the path",
    ),
    lost(
        "content: image_url.detail",
        _user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}),
        "messages.content.image_url.detail",
        **_user_there({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    ),
    said(
        "content: file",
        _user({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}),
        _user_there({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}),
    ),
    said(
        "content: input_audio",
        _user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        _user_there({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}),
    ),
    refused("content: file_id", _user({"type": "file", "file": {"file_id": "f"}}), "messages.content.file"),
    said(
        "messages: tool_calls and tool",
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
                {"role": "user", "content": "go on"},
            ]
        },
        {
            "contents": [
                _HI_THERE,
                {"role": "model", "parts": [_CALL_THERE]},
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "c1", "name": "look", "response": {"output": "seen"}}},
                        {"text": "go on"},
                    ],
                },
            ]
        },
        "a result has the name of its call; all of a turn's results in one content, and first",
    ),
    said(
        "messages: assistant, reasoning_content",
        {"messages": [_HI, {"role": "assistant", "content": "a", "reasoning_content": "hm"}, _HI]},
        {"contents": [_HI_THERE, {"role": "model", "parts": [{"text": "a"}]}, _HI_THERE]},
        "thoughts are not told again",
    ),
)

CHAT_TO_GEMINI: Final = Table(
    "openai",
    "gemini",
    "gemini-2.5-flash",
    {"model": "m", "messages": [_HI]},
    (
        *_MESSAGES,
        silent("model", {"model": "x"}, "the target's, in the path"),
        _configured("max_tokens", {"max_tokens": 7}, maxOutputTokens=7),
        _configured(
            "max_completion_tokens",
            {"max_tokens": 7, "max_completion_tokens": 9},
            "of both the larger",
            maxOutputTokens=9,
        ),
        _configured("temperature", {"temperature": 1.5}, temperature=1.5),
        _configured("top_p", {"top_p": 0.5}, topP=0.5),
        _configured("stop", {"stop": "x"}, stopSequences=["x"]),
        _configured("seed", {"seed": 7}, seed=7),
        lost("frequency_penalty", {"frequency_penalty": 0.5}, note="from Gemini 2.5 on; 0 is the default"),
        lost("presence_penalty", {"presence_penalty": 0.5}, note="from Gemini 2.5 on; 0 is the default"),
        _configured(
            "response_format: json_object",
            {"response_format": {"type": "json_object"}},
            responseMimeType="application/json",
        ),
        _configured(
            "response_format: json_schema",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}},
            "the schema as it is",
            responseMimeType="application/json",
            responseJsonSchema=_SCHEMA,
        ),
        lost(
            "response_format and tools",
            {"response_format": {"type": "json_object"}, "tools": [_TOOL]},
            "response_format",
            "before Gemini 3",
            tools=_TOOLS_THERE,
            toolConfig={"functionCallingConfig": {"mode": "AUTO"}},
        ),
        _configured(
            "reasoning_effort",
            {"reasoning_effort": "medium"},
            "from Gemini 3 on thinkingLevel, the least that the model takes for minimal and none",
            thinkingConfig={"thinkingBudget": 8192, "includeThoughts": True},
        ),
        _configured("reasoning_effort: none", {"reasoning_effort": "none"}, thinkingConfig={"thinkingBudget": 0}),
        silent("stream, stream_options", {"stream": True, "stream_options": {"include_usage": True}}, "in the path"),
        _choose("tools, tool_choice: auto", "auto", "AUTO"),
        _choose("tool_choice: none", "none", "NONE"),
        _choose("tool_choice: required", "required", "ANY"),
        _choose(
            "tool_choice: named",
            {"type": "function", "function": {"name": "look"}},
            "ANY",
            allowedFunctionNames=["look"],
        ),
        said(
            "tools: strict",
            {"tools": [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}]},
            {
                "tools": [{"functionDeclarations": [{"name": "f", "description": "d"}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
            },
        ),
        lost("tools: custom", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.custom"),
        lost("parallel_tool_calls", {"parallel_tool_calls": False}),
        refused("functions", {"functions": []}, "functions", "use tools"),
        refused("function_call", {"function_call": "auto"}, "functions", "use tools"),
        silent("service_tier: auto", {"service_tier": "auto"}, "the default"),
        silent("modalities: text", {"modalities": ["text"]}, "the default"),
        silent("store: false", {"store": False}, "the default"),
        *[
            lost(name, {name: value})
            for name, value in (
                ("n", 2),
                ("user", "u"),
                ("logit_bias", {"1": 1}),
                ("logprobs", True),
                ("metadata", {"a": "b"}),
                ("audio", {"voice": "v"}),
                ("moderation", {"model": "m"}),
                ("prediction", {"type": "content", "content": "a"}),
                ("prompt_cache_key", "k"),
                ("prompt_cache_options", {"mode": "implicit"}),
                ("prompt_cache_retention", "24h"),
                ("service_tier", "flex"),
                ("store", True),
                ("verbosity", "low"),
                ("web_search_options", {}),
            )
        ],
        lost("safety_identifier", {"safety_identifier": "u"}, "user"),
        lost("top_logprobs", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
    ),
)


def _candidate(*parts: dict[str, Any], finish: str = "STOP") -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}]}


def _choice(finish: str = "stop", **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": "hi", "refusal": None, **message}
    return {"choices": [{"index": 0, "message": whole, "logprobs": None, "finish_reason": finish}]}


def _finished(reason: str, finish_reason: str) -> Row:
    there = {} if finish_reason == "stop" else _choice(finish_reason)
    return said(f"finishReason: {reason}", _candidate({"text": "hi"}, finish=reason), there)


_IMAGE_THERE: Final = {"index": 0, "type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

_USAGE: Final = {
    "choices": [],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}

GEMINI_ANSWERS: Final = Table(
    "gemini",
    "openai",
    "",
    {"responseId": "r1", "modelVersion": "m", **_candidate({"text": "hi"})},
    (
        said("responseId", {"responseId": "r2"}, {"id": "chatcmpl-r2"}),
        said("modelVersion", {"modelVersion": "n"}, {"model": "n"}, "as the client calls it"),
        said("parts: text", _candidate({"text": "a"}, {"text": "b"}), _choice(content="ab")),
        said(
            "parts: thought",
            _candidate({"text": "hm", "thought": True}, {"text": "hi"}),
            _choice(reasoning_content="hm"),
        ),
        said(
            "parts: functionCall",
            _candidate({"functionCall": {"id": "c1", "name": "look", "args": {"at": 1}}}),
            _choice("tool_calls", content=None, tool_calls=[_CALL]),
        ),
        said(
            "parts: functionCall without an id",
            _candidate({"functionCall": {"name": "look", "args": {"at": 1}}}),
            _choice("tool_calls", content=None, tool_calls=[{**_CALL, "id": "call_r1_0"}]),
        ),
        *[
            _finished(reason, finish_reason)
            for reason, finish_reason in (
                ("STOP", "stop"),
                ("FINISH_REASON_UNSPECIFIED", "stop"),
                ("MAX_TOKENS", "length"),
                ("SAFETY", "content_filter"),
                ("RECITATION", "content_filter"),
                ("LANGUAGE", "content_filter"),
                ("BLOCKLIST", "content_filter"),
                ("PROHIBITED_CONTENT", "content_filter"),
                ("SPII", "content_filter"),
                ("OTHER", "content_filter"),
                ("IMAGE_SAFETY", "content_filter"),
            )
        ],
        said(
            "promptFeedback.blockReason",
            {"candidates": [], "promptFeedback": {"blockReason": "SAFETY"}},
            _choice("content_filter", content=""),
        ),
        said(
            "finishMessage",
            {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "SAFETY", "finishMessage": "no"}]},
            _choice("content_filter", refusal="no"),
            "of a refusal; promptFeedback.blockReasonMessage, too",
        ),
        silent("safetyRatings, citationMetadata", {"safetyRatings": []}, "there is none"),
        said(
            "parts: inlineData, an image",
            _candidate({"text": "hi"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
            _choice(images=[_IMAGE_THERE]),
            "as OpenRouter tells it; to responses image_generation_call; for clients of messages there is no word",
        ),
        silent(
            "parts: executableCode, codeExecutionResult, inlineData that is no image",
            _candidate({"text": "hi"}, {"executableCode": {"language": "PYTHON", "code": "1"}}),
            "dropped: nobody can ask for them here",
        ),
        silent(
            "parts: thoughtSignature of a text",
            _candidate({"text": "hi", "thoughtSignature": "s"}),
            "Gemini does not ask for it back",
        ),
        silent(
            "candidates: groundingMetadata, urlContextMetadata, avgLogprobs",
            {"candidates": [{**_candidate({"text": "hi"})["candidates"][0], "avgLogprobs": -0.1}]},
            "there is none",
        ),
        said(
            "usageMetadata",
            {
                "usageMetadata": {
                    "promptTokenCount": 4,
                    "toolUsePromptTokenCount": 1,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 3,
                    "cachedContentTokenCount": 1,
                }
            },
            {"usage": _USAGE["usage"]},
            "output with thoughts, input with results of the provider's own tools",
        ),
    ),
)


def _piece(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, **more}
    return {"responseId": "r1", "modelVersion": "m", "candidates": [candidate]}


def _delta(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


_FIRST: Final = _piece({"text": ""})
_COUNTED: Final = {
    "promptTokenCount": 5,
    "candidatesTokenCount": 2,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 1,
}
PIECES: Final = StreamTable(
    "gemini",
    "openai",
    (
        StreamRow("the first", (), (_FIRST,), (_delta(role="assistant"),)),
        StreamRow("parts: text", (_FIRST,), (_piece({"text": "a"}),), (_delta(content="a"),)),
        StreamRow(
            "parts: thought", (_FIRST,), (_piece({"text": "a", "thought": True}),), (_delta(reasoning_content="a"),)
        ),
        StreamRow(
            "parts: functionCall",
            (_FIRST,),
            (_piece({"functionCall": {"id": "c1", "name": "look", "args": {}}}),),
            (
                _delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look"}}]),
                _delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
            ),
        ),
        StreamRow(
            "parts: inlineData, an image",
            (_FIRST,),
            (_piece({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),),
            (_delta(images=[_IMAGE_THERE]),),
        ),
        StreamRow(
            "finishReason, usageMetadata",
            (_FIRST,),
            ({**_piece(finishReason="STOP"), "usageMetadata": _COUNTED},),
            (_delta("stop"), _USAGE, DONE),
            "thought is no part of candidatesTokenCount, but of completion_tokens",
        ),
        StreamRow(
            "error",
            (_FIRST,),
            ({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}},),
            ({"error": {"message": "busy"}},),
            "nothing follows",
        ),
    ),
)
