"""An answer as OpenAI's responses tell it, whole; its items are those of its stream, too.

Each part is an item of its own, with the answer's id and its number in its own id. What the client has sent is told
back where it is short; tools and instructions are not.

Source: the openai SDK's types, responses/response.py.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.dialects.base import REDACTED, answer_id
from edgeq.llm.dialects.responses_input import REASONING
from edgeq.llm.message import (
    IMAGE,
    REFUSAL,
    STOP_CONTEXT,
    STOP_LENGTH,
    STOP_REFUSAL,
    THINKING,
    TOOL_USE,
    UNKNOWN,
    Answer,
    Part,
    Request,
    Usage,
)

_INCOMPLETE: Final[dict[str, str]] = {
    STOP_LENGTH: "max_output_tokens",
    STOP_CONTEXT: "max_output_tokens",
    STOP_REFUSAL: "content_filter",
}

_CHOICES: Final[dict[str, str]] = {"": "auto", "auto": "auto", "none": "none", "any": "required"}


def encode_answer(answer: Answer, request: Request | None) -> bytes:
    """Args: request that it answers, if it is known."""
    name = answer_name(answer.id)
    items = [item(name, index, part) for index, part in enumerate(answer.parts)]
    response = head(name, answer.model, answer.created)
    if answer.service_tier:
        response["service_tier"] = answer.service_tier
    if request is not None:
        echo(response, request)
    finish(response, items, answer.stop, answer.usage)
    return orjson.dumps(response)


def answer_name(provider_id: str) -> str:
    """What is common to the ids of an answer and its items: the provider's id of it, without its prefix."""
    return answer_id("resp_", provider_id.removeprefix("chatcmpl-").removeprefix("msg_")).removeprefix("resp_")


def head(name: str, model: str, created: int) -> dict[str, Any]:
    """An answer that has just begun."""
    return {
        "id": "resp_" + name,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
    }


def finish(response: dict[str, Any], items: list[dict[str, Any]], stop: str, usage: Usage | None) -> None:
    """Make an answer that has begun one that has ended: complete, or not."""
    reason = _INCOMPLETE.get(stop)
    if reason is None or (stop == STOP_REFUSAL and _declines(items)):
        response["status"] = "completed"
    else:
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": reason}
        if items and items[-1]["type"] != "image_generation_call":
            items[-1]["status"] = "incomplete"
    response["output"] = items
    if usage is not None and usage.output != UNKNOWN:
        read = max(usage.input, 0)
        response["usage"] = {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": read + usage.output,
        }


def _declines(items: list[dict[str, Any]]) -> bool:
    """The model has said itself that it will not: that is a whole answer, and not one that was withheld."""
    return any(done["type"] == "message" and done["content"][0]["type"] == "refusal" for done in items)


def item(name: str, index: int, part: Part) -> dict[str, Any]:
    """An item that is done."""
    if part.kind == TOOL_USE:
        return {
            "id": f"fc_{name}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": part.id,
            "name": part.name,
            "arguments": part.arguments or "{}",
        }
    if part.kind == THINKING:
        reasoning: dict[str, Any] = {
            "id": f"{REASONING}{name}_{index}",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": part.text}] if part.text else [],
        }
        if part.data:
            reasoning["encrypted_content"] = REDACTED + part.data if part.detail == "redacted" else part.data
        return reasoning
    if part.kind == IMAGE:
        return {
            "id": f"ig_{name}_{index}",
            "type": "image_generation_call",
            "status": "completed",
            "result": part.data,
            "output_format": part.media_type.removeprefix("image/"),
        }
    return {
        "id": f"msg_{name}_{index}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [content(part)],
    }


def content(part: Part) -> dict[str, Any]:
    """What is in an item that is a message."""
    if part.kind == REFUSAL:
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}


def echo(response: dict[str, Any], request: Request) -> None:
    """Tell the client what it has asked."""
    response["max_output_tokens"] = request.max_tokens
    response["temperature"] = request.temperature
    response["top_p"] = request.top_p
    response["parallel_tool_calls"] = request.parallel_tools is not False
    if request.metadata:
        response["metadata"] = request.metadata
    if request.tool_choice == "tool":
        response["tool_choice"] = {"type": "function", "name": request.tool_name}
    else:
        response["tool_choice"] = _CHOICES[request.tool_choice]
    if request.response_format == "json":
        response["text"] = {"format": {"type": "json_object"}}
    elif request.response_format == "schema":
        form = {"type": "json_schema", "name": request.schema_name, "schema": request.schema}
        response["text"] = {"format": form | {"strict": request.schema_strict}}
    if request.effort:
        response["reasoning"] = {"effort": request.effort, "summary": None}
