"""What a client of OpenAI's responses sends, and how it reads what comes: the other end of
edgeq.llm.dialects.responses, as the official SDK does it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson

from edgeq.llm.message import (
    IMAGE,
    REFUSAL,
    STOP_END,
    STOP_LENGTH,
    STOP_REFUSAL,
    STOP_TOOL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Answer,
    Message,
    Part,
    Request,
    Usage,
)
from edgeq.llm.sse import EventReader, SseEvent


def written(request: Request) -> bytes:
    """The body of a request."""
    items: list[dict[str, Any]] = []
    for message in request.messages:
        items += _items(message)
    body: dict[str, Any] = {"model": request.model, "input": items, "stream": request.stream}
    said = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user or None,
        "service_tier": request.service_tier or None,
        "reasoning": {"effort": request.effort} if request.effort else None,
        "parallel_tool_calls": request.parallel_tools,
    }
    body |= {name: value for name, value in said.items() if value is not None}
    if request.response_format:
        form = {"type": "json_schema", "name": request.schema_name, "schema": request.schema}
        body["text"] = {"format": form | {"strict": request.schema_strict}}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": tool.strict,
            }
            for tool in request.tools
        ]
        if request.tool_choice == "tool":
            body["tool_choice"] = {"type": "function", "name": request.tool_name}
        elif request.tool_choice:
            body["tool_choice"] = "required" if request.tool_choice == "any" else request.tool_choice
    return orjson.dumps(body)


def _items(message: Message) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    spoken = "output_text" if message.role == "assistant" else "input_text"
    for part in message.parts:
        if part.kind == TOOL_USE:
            call = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
            items.append(call)
        elif part.kind == TOOL_RESULT:
            output = [{"type": "input_text", "text": inner.text} for inner in part.parts]
            items.append({"type": "function_call_output", "call_id": part.id, "output": output})
        elif part.kind == THINKING:
            summary = [{"type": "summary_text", "text": part.text}]
            items.append({"type": "reasoning", "summary": summary, "encrypted_content": part.data})
        elif part.kind == IMAGE:
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            content.append({"type": "input_image", "image_url": url})
        elif message.role == "assistant":
            items.append({"role": "assistant", "content": [{"type": spoken, "text": part.text}]})
        else:
            content.append({"type": spoken, "text": part.text})
    if content:
        items.append({"role": message.role, "content": content})
    return items


def read_answer(response: dict[str, Any]) -> Answer:
    """A whole answer, or that of the last event of a stream."""
    answer = Answer(response["id"].removeprefix("resp_"), response["model"], [])
    for item in response["output"]:
        answer.parts.append(_read_item(item))
    reason = (response["incomplete_details"] or {}).get("reason", "")
    answer.stop = {"max_output_tokens": STOP_LENGTH, "content_filter": STOP_REFUSAL}.get(reason, STOP_END)
    if answer.stop == STOP_END and any(part.kind == TOOL_USE for part in answer.parts):
        answer.stop = STOP_TOOL
    told = response["usage"]
    if told is not None:
        assert told["total_tokens"] == told["input_tokens"] + told["output_tokens"]
        answer.usage = Usage(
            told["input_tokens"],
            told["output_tokens"],
            told["input_tokens_details"]["cached_tokens"],
            told["input_tokens_details"]["cache_write_tokens"],
            told["output_tokens_details"]["reasoning_tokens"],
        )
    answer.created = response["created_at"]
    return answer


def _read_item(item: dict[str, Any]) -> Part:
    if item["type"] == "function_call":
        return Part(TOOL_USE, id=item["call_id"], name=item["name"], arguments=item["arguments"])
    if item["type"] == "reasoning":
        text = "".join(piece["text"] for piece in item["summary"])
        return Part(THINKING, text, data=item.get("encrypted_content", ""))
    (content,) = item["content"]
    return Part(REFUSAL, content["refusal"]) if content["type"] == "refusal" else Part(TEXT, content["text"])


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each bears its name twice, and the next number."""
    read: list[SseEvent] = EventReader().feed(data)
    told: list[dict[str, Any]] = []
    for number, event in enumerate(read):
        said = orjson.loads(event.data)
        assert said["type"] == event.event.decode()
        assert said["sequence_number"] == number
        told.append(said)
    return told


def put_together(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of a stream, from its deltas alone."""
    items: list[dict[str, Any]] = []
    for event in told:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(deepcopy(event["item"]))
        elif kind == "response.content_part.added":
            items[-1]["content"].append(event["part"])
        elif kind == "response.reasoning_summary_part.added":
            items[-1]["summary"].append(event["part"])
        elif kind.endswith(".delta"):
            assert event["item_id"] == items[-1]["id"]
            if kind == "response.function_call_arguments.delta":
                items[-1]["arguments"] += event["delta"]
            elif kind == "response.reasoning_summary_text.delta":
                items[-1]["summary"][-1]["text"] += event["delta"]
            else:
                content = items[-1]["content"][-1]
                content["refusal" if content["type"] == "refusal" else "text"] += event["delta"]
    return items
