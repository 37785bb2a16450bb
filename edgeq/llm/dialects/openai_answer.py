"""A chat completion: OpenAI's JSON <-> Answer.

Source: shared reference, llm.md 4.2; openai/openai-python, types/chat/chat_completion.py. Thoughts are no part of
OpenAI's own dialect: compatible servers call them reasoning_content (DeepSeek, vLLM) or reasoning (OpenRouter, Groq).
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import answer_id, known_object, tokens
from edgeq.llm.dialects.inputs import keep_digits_of_calls
from edgeq.llm.message import (
    IMAGE,
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

FINISH_REASONS: Final[dict[str, str]] = {
    STOP_END: "stop",
    STOP_SEQUENCE: "stop",
    STOP_PAUSE: "stop",
    STOP_LENGTH: "length",
    STOP_CONTEXT: "length",
    STOP_TOOL: "tool_calls",
    STOP_REFUSAL: "content_filter",
}

STOPS: Final[dict[str, str]] = {
    "stop": STOP_END,
    "length": STOP_LENGTH,
    "tool_calls": STOP_TOOL,
    "function_call": STOP_TOOL,
    "content_filter": STOP_REFUSAL,
}

_DRAWN: Final = re.compile(r"data:(image/[\w.+-]+);base64,([A-Za-z0-9+/=]*)")

FAILED: Final = frozenset(("error", "abort"))
"""Reasons to end of compatible servers (OpenRouter; vLLM, SGLang) by which an answer is none, or was cut."""


def made_up_id(answer: str, number: int) -> str:
    """Of a call that has none, as some servers send it: its result is found by it. OpenAI takes 40 characters."""
    return f"call_{answer[-24:] or secrets.token_hex(8)}_{number}"


def stop_of(finish_reason: str, has_calls: bool, has_refused: bool) -> str:
    """Why it ended. Some servers say "stop" after calls of tools (litellm 34692), OpenAI after a refusal."""
    stop = STOPS.get(finish_reason, STOP_END)
    if stop == STOP_END:
        if has_calls:
            return STOP_TOOL
        if has_refused:
            return STOP_REFUSAL
    return stop


def error_of_choices(choices: Any) -> Any:
    """What OpenRouter tells beside a finish_reason of error: of the first choice that has one; None: none has."""
    for choice in choices if isinstance(choices, list) else ():
        error = choice.get("error") if isinstance(choice, dict) else None
        if error:
            return error
    return None


def decode_usage(said: dict[str, Any] | None) -> Usage:
    """A `usage`, or what stands in its place."""
    if said is None:
        return Usage()
    read = known_object(said.get("prompt_tokens_details"))
    written = known_object(said.get("completion_tokens_details"))
    return Usage(
        tokens(said, "prompt_tokens") if "prompt_tokens" in said else UNKNOWN,
        tokens(said, "completion_tokens") if "completion_tokens" in said else UNKNOWN,
        tokens(read, "cached_tokens"),
        tokens(read, "cache_write_tokens"),
        tokens(written, "reasoning_tokens"),
    ).bound()


def encode_usage(usage: Usage) -> dict[str, Any]:
    """What nobody has told is 0 here, as the dialect must name a number."""
    read = max(usage.input, 0)
    written = max(usage.output, 0)
    said: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    details = {"cached_tokens": usage.cached}
    if usage.cache_write:
        details["cache_write_tokens"] = usage.cache_write
    said["prompt_tokens_details"] = details
    said["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return said


def tells_tier(tier: str) -> bool:
    """Is the tier told, and one that this dialect has a word for?"""
    return tier not in ("", "batch")


def decode_answer(body: bytes) -> Answer:
    """Of several choices the first.

    Raises: ValueError if it is no chat completion: the provider's fault.
    """
    said = known_object(orjson.loads(body))
    if said is None:
        raise ValueError("it is no JSON object")
    choices = said.get("choices")
    if not isinstance(choices, list):
        choices = []
    choice = known_object(choices[0]) if choices else None
    message = known_object(choice.get("message")) if choice is not None else None
    if choice is None or message is None:
        raise ValueError("it has no message")
    reason = str(choice.get("finish_reason") or "")
    if reason in FAILED:
        raise ValueError(f"it has failed: its finish_reason is {reason}")
    answer = Answer(str(said.get("id") or ""), str(said.get("model") or ""), [])
    keep_digits_of_calls(body, choices, "message")
    has_refused = _decode_message(message, answer.parts)
    for number, part in enumerate(answer.parts):
        if part.kind == TOOL_USE and not part.id:
            part.id = made_up_id(answer.id, number)
    has_calls = bool(answer.parts) and answer.parts[-1].kind == TOOL_USE
    answer.stop = stop_of(reason, has_calls, has_refused)
    matched = choice.get("stop_reason")
    if isinstance(matched, str) and answer.stop == STOP_END:
        # vLLM tells which of the request's stop sequences it was.
        answer.stop = STOP_SEQUENCE
        answer.stop_sequence = matched
    answer.usage = decode_usage(known_object(said.get("usage")))
    created = said.get("created")
    answer.created = created if isinstance(created, int) else 0
    answer.service_tier = str(said.get("service_tier") or "")
    return answer


def written(body: bytes) -> int:
    """About how many tokens all choices have together. Raises: ValueError."""
    said = known_object(orjson.loads(body)) or {}
    choices = said.get("choices")
    parts: list[Part] = []
    for choice in choices if isinstance(choices, list) else ():
        message = known_object(choice.get("message")) if isinstance(choice, dict) else None
        if message is not None:
            _decode_message(message, parts)
    return Answer("", "", parts).written()


def _decode_message(message: dict[str, Any], parts: list[Part]) -> bool:
    """Its parts: thoughts, text, refusal, calls. Returns: whether it refuses."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        parts.append(Part(THINKING, thought))
    content = message.get("content")
    if isinstance(content, str) and content:
        parts.append(Part(TEXT, content))
    elif isinstance(content, list):
        for part in content_parts(content):
            if parts and parts[-1].kind == part.kind:
                parts[-1].text += part.text
            else:
                parts.append(part)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.append(Part(REFUSAL, refusal))
    parts += images_in(message)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        for call in calls:
            function = known_object(call.get("function")) if isinstance(call, dict) else None
            if function is None:
                raise ValueError("it has a call of a tool that is no function")
            arguments = function.get("arguments")
            if not isinstance(arguments, str):
                # Ollama's habit: the object itself.
                arguments = "" if arguments is None else orjson.dumps(arguments).decode()
            name = str(function.get("name") or "")
            parts.append(Part(TOOL_USE, id=str(call.get("id") or ""), name=name, arguments=arguments))
    return bool(refusal)


def content_parts(content: list[Any]) -> list[Part]:
    """Mistral's way to tell thoughts: content in pieces, of which some are thoughts, and are in pieces themselves."""
    parts: list[Part] = []
    for piece in content:
        said = known_object(piece)
        if said is None:
            continue
        text = said.get("text")
        if text and isinstance(text, str):
            parts.append(Part(TEXT, text))
        thought = said.get("thinking")
        for inner in thought if isinstance(thought, list) else ():
            text = inner.get("text") if isinstance(inner, dict) else None
            if text and isinstance(text, str):
                parts.append(Part(THINKING, text))
    return parts


def images_in(message: dict[str, Any]) -> list[Part]:
    """Of a message or a delta: OpenRouter's way to tell what models draw, which others follow."""
    found: list[Part] = []
    images = message.get("images")
    for image in images if isinstance(images, list) else ():
        source = known_object(image.get("image_url")) if isinstance(image, dict) else None
        match = _DRAWN.fullmatch(str(source.get("url") or "")) if source is not None else None
        if match is not None:
            found.append(Part(IMAGE, media_type=match[1], data=match[2]))
    return found


def image_of(media_type: str, data: str, index: int) -> dict[str, Any]:
    """The same for a client."""
    return {"index": index, "type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def encode_answer(answer: Answer, request: Request | None) -> bytes:
    """`answer.model` and `answer.created` as the client shall see them."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    images: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in answer.parts:
        if part.kind == TEXT:
            texts.append(part.text)
        elif part.kind == TOOL_USE:
            function = {"name": part.name, "arguments": part.arguments or "{}"}
            calls.append({"id": part.id, "type": "function", "function": function})
        elif part.kind == THINKING:
            thoughts.append(part.text)
        elif part.kind == REFUSAL:
            refusals.append(part.text)
        elif part.kind == IMAGE:
            images.append(image_of(part.media_type, part.data, len(images)))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    thought = "".join(thoughts)
    if thought:
        message["reasoning_content"] = thought
    if images:
        message["images"] = images
    if calls:
        message["tool_calls"] = calls
    elif not texts and not refusals:
        message["content"] = ""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH_REASONS[answer.stop]}
    said: dict[str, Any] = {
        "id": answer_id("chatcmpl-", answer.id),
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [choice],
    }
    if answer.usage.input != UNKNOWN or answer.usage.output != UNKNOWN:
        said["usage"] = encode_usage(answer.usage)
    if tells_tier(answer.service_tier):
        said["service_tier"] = answer.service_tier
    return orjson.dumps(said)
