"""A message: Anthropic's JSON <-> Answer.

Source: shared reference, llm.md 4.2; anthropics/anthropic-sdk-python, types/message.py, usage.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import answer_id, count_told, known_object, tokens
from edgeq.llm.dialects.inputs import keep_digits
from edgeq.llm.dialects.turns import NO_ARGUMENTS
from edgeq.llm.message import (
    REFUSAL,
    STOP_CONTEXT,
    STOP_END,
    STOP_LENGTH,
    STOP_PAUSE,
    STOP_REFUSAL,
    STOP_SEQUENCE,
    STOP_TOOL,
    TEXT,
    THINKING,
    TOOL_USE,
    UNKNOWN,
    Answer,
    Part,
    Usage,
)

if TYPE_CHECKING:
    from edgeq.llm.message import Request

STOP_REASONS: Final[dict[str, str]] = {
    STOP_END: "end_turn",
    STOP_SEQUENCE: "stop_sequence",
    STOP_LENGTH: "max_tokens",
    STOP_TOOL: "tool_use",
    STOP_REFUSAL: "refusal",
    STOP_PAUSE: "pause_turn",
    STOP_CONTEXT: "model_context_window_exceeded",
}
STOPS: Final[dict[str, str]] = {word: stop for stop, word in STOP_REASONS.items()}


def decode_usage(said: dict[str, Any]) -> Usage:
    """A `usage` of a whole answer, or what several of a stream together have told."""
    cached = tokens(said, "cache_read_input_tokens")
    cache_write = tokens(said, "cache_creation_input_tokens")
    read = count_told(said.get("input_tokens"))
    return Usage(
        UNKNOWN if read == UNKNOWN else read + cached + cache_write,
        count_told(said.get("output_tokens")),
        cached,
        cache_write,
        tokens(known_object(said.get("output_tokens_details")), "thinking_tokens"),
    ).bound()


def encode_usage(usage: Usage) -> dict[str, Any]:
    """What nobody has told is 0 here, as the dialect must name a number."""
    said: dict[str, Any] = {
        "input_tokens": max(usage.input - usage.cached - usage.cache_write, 0),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": max(usage.output, 0),
    }
    if usage.reasoning:
        said["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return said


def decode_tier(usage: dict[str, Any]) -> str:
    """By which service tier it was answered, as `Answer` has it."""
    tier = str(usage.get("service_tier") or "")
    return "default" if tier == "standard" else tier


def encode_tier(tier: str, usage: dict[str, Any]) -> None:
    """The other way; what the dialect has no word for is left out."""
    if tier == "default":
        usage["service_tier"] = "standard"
    elif tier in ("priority", "batch"):
        usage["service_tier"] = tier


def decode_answer(body: bytes) -> Answer:
    """Raises: ValueError if it is no message: the provider's fault."""
    said = known_object(orjson.loads(body))
    content = said.get("content") if said is not None else None
    if said is None or not isinstance(content, list):
        raise ValueError("it is no message")
    keep_digits(body, content)
    answer = Answer(str(said.get("id") or ""), str(said.get("model") or ""), [])
    for block in content:
        part = decode_block(block) if isinstance(block, dict) else None
        if part is not None:
            answer.parts.append(part)
    answer.stop = STOPS.get(str(said.get("stop_reason") or ""), STOP_END)
    answer.stop_sequence = str(said.get("stop_sequence") or "")
    why = why_refused(said)
    if why:
        answer.parts.append(Part(REFUSAL, why))
    usage = known_object(said.get("usage"))
    if usage is not None:
        answer.usage = decode_usage(usage)
        answer.service_tier = decode_tier(usage)
    return answer


def why_refused(said: dict[str, Any]) -> str:
    """What people are told of a refusal, in an answer or what ends it; empty: nothing, or it is none."""
    details = known_object(said.get("stop_details"))
    return str(details.get("explanation") or "") if details is not None else ""


def decode_block(block: dict[str, Any]) -> Part | None:
    """A block of an answer, or the beginning of one in a stream. Returns: None for what no other dialect can say, such
    as results of the provider's own tools."""
    kind = block.get("type")
    if kind == "text":
        return Part(TEXT, str(block.get("text") or ""))
    if kind == "tool_use":
        part = Part(TOOL_USE, id=str(block.get("id") or ""), name=str(block.get("name") or ""))
        given = block.get("input")
        part.arguments = orjson.dumps(given).decode() if given else ""
        return part
    if kind == "thinking":
        return Part(THINKING, str(block.get("thinking") or ""), data=str(block.get("signature") or ""))
    if kind == "redacted_thinking":
        return Part(THINKING, data=str(block.get("data") or ""), detail="redacted")
    return None


def encode_answer(answer: Answer, request: Request | None) -> bytes:
    """`answer.model` as the client shall see it."""
    content: list[dict[str, Any]] = []
    for part in answer.parts:
        if part.kind in (TEXT, REFUSAL):
            content.append({"type": "text", "text": part.text})
        elif part.kind == TOOL_USE:
            content.append({"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part.arguments)})
        elif part.kind == THINKING and part.detail == "redacted":
            content.append({"type": "redacted_thinking", "data": part.data})
        elif part.kind == THINKING:
            content.append({"type": "thinking", "thinking": part.text, "signature": part.data})
    usage = encode_usage(answer.usage)
    encode_tier(answer.service_tier, usage)
    return orjson.dumps(
        {
            "id": answer_id("msg_", answer.id),
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": STOP_REASONS[answer.stop],
            "stop_sequence": answer.stop_sequence or None,
            "usage": usage,
        }
    )


def _input(arguments: str) -> orjson.Fragment | dict[str, Any]:
    """The object that the model has written, character by character; or what it has written, if it is none (a model
    that was cut short): an SDK would fail at anything but an object."""
    if arguments.strip() in NO_ARGUMENTS:
        return {}
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        value = None
    return orjson.Fragment(arguments.encode()) if isinstance(value, dict) else {"arguments": arguments}
