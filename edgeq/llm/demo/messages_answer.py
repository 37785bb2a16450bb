"""Anthropic's messages, answered: whole, as a stream, and errors."""

from __future__ import annotations

from typing import Final

import orjson

from edgeq.llm.demo.behaviour import Behaviour
from edgeq.llm.demo.checks import Json
from edgeq.llm.demo.content import Ask, Content
from edgeq.llm.demo.frames import Frame, halves, named
from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    STOP_LENGTH,
    STOP_PAUSE,
    STOP_REFUSAL,
    STOP_SEQUENCE,
    STOP_TOOL,
    TIMEOUT,
    TOO_LARGE,
    Failed,
)

_STOPS: Final = {
    STOP_LENGTH: "max_tokens",
    STOP_TOOL: "tool_use",
    STOP_REFUSAL: "refusal",
    STOP_PAUSE: "pause_turn",
    STOP_SEQUENCE: "stop_sequence",
}
_ERRORS: Final = {
    INVALID: "invalid_request_error",
    AUTHENTICATION: "authentication_error",
    BILLING: "billing_error",
    PERMISSION: "permission_error",
    NOT_FOUND: "not_found_error",
    TOO_LARGE: "request_too_large",
    RATE: "rate_limit_error",
    OVERLOADED: "overloaded_error",
    TIMEOUT: "timeout_error",
    INTERNAL: "api_error",
}


def usage(content: Content, output: int) -> Json:
    """Tokens: `input_tokens` is without what caches have read or written."""
    return {
        "input_tokens": content.input_tokens - content.cached - content.cache_write,
        "cache_creation_input_tokens": content.cache_write,
        "cache_read_input_tokens": content.cached,
        "output_tokens": output,
        "service_tier": "standard",
    }


def whole(ask: Ask, content: Content, behaviour: Behaviour) -> Json:
    """The body of an answer that is no stream."""
    blocks: list[Json] = []
    if content.thoughts:
        blocks.append({"type": "thinking", "thinking": content.thought, "signature": _signature(content)})
    if content.words:
        blocks.append({"type": "text", "text": content.text})
    blocks += [
        {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.arguments}
        for call in content.calls
    ]
    answer = _message(ask, content)
    answer["content"] = blocks
    answer["stop_reason"] = _STOPS.get(content.stop, "end_turn")
    answer["stop_sequence"] = content.stop_sequence or None
    answer["usage"] = usage(content, content.output_tokens)
    if behaviour.usage == "off":
        del answer["usage"]
    return answer


def events(ask: Ask, content: Content, behaviour: Behaviour) -> list[Frame]:
    """The events of a stream."""
    message = _message(ask, content)
    if behaviour.usage != "off":
        message["usage"] = usage(content, 1)
    found = [named("message_start", {"type": "message_start", "message": message})]
    index = 0

    def block(start: Json, deltas: list[Json]) -> None:
        nonlocal index
        found.append(
            named("content_block_start", {"type": "content_block_start", "index": index, "content_block": start})
        )
        if index == 0:
            found.append(named("ping", {"type": "ping"}))
        for delta in deltas:
            value = {"type": "content_block_delta", "index": index, "delta": delta}
            found.append(named("content_block_delta", value, delta["type"] != "signature_delta"))
        found.append(named("content_block_stop", {"type": "content_block_stop", "index": index}))
        index += 1

    if content.thoughts:
        thoughts: list[Json] = [{"type": "thinking_delta", "thinking": word} for word in content.thoughts]
        signature = {"type": "signature_delta", "signature": _signature(content)}
        block({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signature])
    if content.words:
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in content.words])
    for call in content.calls:
        pieces = halves(orjson.dumps(call.arguments).decode())
        block(
            {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": {}},
            [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)],
        )
    delta: Json = {
        "type": "message_delta",
        "delta": {"stop_reason": _STOPS.get(content.stop, "end_turn"), "stop_sequence": content.stop_sequence or None},
    }
    if behaviour.usage != "off":
        delta["usage"] = usage(content, content.output_tokens)
    found += [named("message_delta", delta), named("message_stop", {"type": "message_stop"})]
    return found


def error_object(failed: Failed, request_id: str = "") -> Json:
    """{"type": "error", ...}: body of a refusal, and event of a stream."""
    error: Json = {"type": _ERRORS[failed.kind], "message": failed.message}
    if failed.details:
        error["details"] = orjson.loads(failed.details)
    return {"type": "error", "error": error, **({"request_id": request_id} if request_id else {})}


def _message(ask: Ask, content: Content) -> Json:
    return {
        "id": f"msg_{content.key}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _signature(content: Content) -> str:
    return f"sig{content.key}=="
