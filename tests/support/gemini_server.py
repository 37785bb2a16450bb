"""What Gemini does with a request, and how it answers: the other end of edgeq.llm.dialects.gemini."""

from __future__ import annotations

from typing import Any

import orjson

from edgeq.llm.message import (
    IMAGE,
    STOP_LENGTH,
    STOP_REFUSAL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Answer,
    Message,
    Part,
    Request,
    Tool,
)

_CHOICES = {"NONE": "none", "ANY": "any", "AUTO": "auto"}


def read_request(body: bytes) -> Request:
    """A body for generateContent as what it asks; the model stands in the path."""
    asked = orjson.loads(body)
    request = Request("")
    for part in asked.get("systemInstruction", {}).get("parts", []):
        request.messages.append(Message("system", [Part(TEXT, part["text"])]))
    for content in asked["contents"]:
        role = "assistant" if content["role"] == "model" else "user"
        request.messages.append(Message(role, [_read_part(part) for part in content["parts"]]))
    config = asked.get("generationConfig", {})
    request.max_tokens = config.get("maxOutputTokens")
    request.temperature = config.get("temperature")
    request.top_p = config.get("topP")
    request.top_k = config.get("topK")
    request.stop = config.get("stopSequences", [])
    request.seed = config.get("seed")
    if "responseMimeType" in config:
        request.response_format = "schema" if "responseJsonSchema" in config else "json"
        request.schema = config.get("responseJsonSchema")
        request.schema_strict = request.schema is not None
    for tools in asked.get("tools", []):
        for tool in tools["functionDeclarations"]:
            parameters = tool.get("parametersJsonSchema", {})
            request.tools.append(Tool(tool["name"], tool.get("description", ""), parameters))
        calling = asked["toolConfig"]["functionCallingConfig"]
        request.tool_choice = "tool" if "allowedFunctionNames" in calling else _CHOICES[calling["mode"]]
        request.tool_name = "".join(calling.get("allowedFunctionNames", []))
    return request


def _read_part(part: dict[str, Any]) -> Part:
    if "text" in part:
        return Part(TEXT, part["text"])
    if "inlineData" in part:
        return Part(IMAGE, media_type=part["inlineData"]["mimeType"], data=part["inlineData"]["data"])
    if "fileData" in part:
        return Part(IMAGE, url=part["fileData"]["fileUri"])
    if "functionCall" in part:
        call = part["functionCall"]
        return Part(TOOL_USE, id=call["id"], name=call["name"], arguments=orjson.dumps(call["args"]).decode())
    result = part["functionResponse"]
    (key, said) = next(iter(result["response"].items()))
    inner = [Part(TEXT, said)]
    return Part(TOOL_RESULT, id=result["id"], name=result["name"], parts=inner, is_error=key == "error")


def written(answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [_written_part(part) for part in answer.parts]},
                "finishReason": {STOP_LENGTH: "MAX_TOKENS", STOP_REFUSAL: "SAFETY"}.get(answer.stop, "STOP"),
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": answer.usage.input,
            "candidatesTokenCount": answer.usage.output - answer.usage.reasoning,
            "thoughtsTokenCount": answer.usage.reasoning,
            "cachedContentTokenCount": answer.usage.cached,
            "totalTokenCount": answer.usage.input + answer.usage.output,
        },
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def _written_part(part: Part) -> dict[str, Any]:
    if part.kind == TOOL_USE:
        return {"functionCall": {"id": part.id, "name": part.name, "args": orjson.loads(part.arguments)}}
    return {"text": part.text, "thought": True} if part.kind == THINKING else {"text": part.text}


def stream(*pieces: dict[str, Any]) -> bytes:
    """Answers as events: streamGenerateContent with alt=sse."""
    return b"".join(b"data: %b\r\n\r\n" % orjson.dumps(piece) for piece in pieces)


def piece(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One event's answer. Args: more: of the candidate; of the answer, if the name is one of the answer's."""
    whole: dict[str, Any] = {name: more.pop(name) for name in ("usageMetadata", "promptFeedback") if name in more}
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-test", **whole}
