"""OpenAI's chat completions, answered: whole, and as a stream."""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.demo.behaviour import Behaviour
from edgeq.llm.demo.checks import Json
from edgeq.llm.demo.content import CREATED, Ask, Call, Content
from edgeq.llm.demo.frames import DONE, Frame, data, halves
from edgeq.llm.message import STOP_LENGTH, STOP_REFUSAL, STOP_TOOL

_FINISH: Final = {STOP_LENGTH: "length", STOP_TOOL: "tool_calls", STOP_REFUSAL: "content_filter"}


def usage(content: Content) -> Json:
    """The tokens of an answer."""
    return {
        "prompt_tokens": content.input_tokens,
        "completion_tokens": content.output_tokens,
        "total_tokens": content.input_tokens + content.output_tokens,
        "prompt_tokens_details": {"cached_tokens": content.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": content.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def whole(ask: Ask, content: Content, behaviour: Behaviour) -> Json:
    """The body of an answer that is no stream."""
    message: Json = {"role": "assistant", "content": content.text if not content.calls else None, "refusal": None}
    if content.thoughts:
        message["reasoning_content"] = content.thought
    if content.stop == STOP_REFUSAL:
        message["content"], message["refusal"] = None, content.text
    if content.calls:
        message["tool_calls"] = [
            {"id": f"call_{call.id}", "type": "function", "function": {"name": call.name, "arguments": _json(call)}}
            for call in content.calls
        ]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH.get(content.stop, "stop")}
        for index in range(ask.choices)
    ]
    answer = {**_outer(ask, content, "chat.completion"), "choices": choices}
    if behaviour.usage != "off":
        answer["usage"] = usage(content)
    return answer


def events(ask: Ask, content: Content, behaviour: Behaviour) -> list[Frame]:
    """The events of a stream."""
    outer = _outer(ask, content, "chat.completion.chunk")
    told = behaviour.usage != "off"
    nothing: Json = {"usage": None} if ask.include_usage and told else {}
    found: list[Frame] = []

    def delta(index: int, value: Json, token: bool, finish: str | None = None, **more: Any) -> None:
        choice = {"index": index, "delta": value, "logprobs": None, "finish_reason": finish}
        found.append(data({**outer, "choices": [choice], **nothing, **more}, token))

    for index in range(ask.choices):
        delta(index, {"role": "assistant", "content": None if content.calls else "", "refusal": None}, False)
    for index in range(ask.choices):
        for word in content.thoughts:
            delta(index, {"reasoning_content": word}, True)
        field = "refusal" if content.stop == STOP_REFUSAL else "content"
        for word in content.words:
            delta(index, {field: word}, True)
        for number, call in enumerate(content.calls):
            start = {"name": call.name, "arguments": ""}
            delta(
                index,
                {"tool_calls": [{"index": number, "id": f"call_{call.id}", "type": "function", "function": start}]},
                True,
            )
            for piece in halves(_json(call)):
                delta(index, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}, True)
        last = {"usage": usage(content)} if behaviour.usage == "last" else {}
        delta(index, {}, False, _FINISH.get(content.stop, "stop"), **last)
    if ask.include_usage and told:
        found.append(data({**outer, "choices": [], "usage": usage(content)}))
    found.append(DONE)
    return found


def _outer(ask: Ask, content: Content, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{content.key}",
        "object": kind,
        "created": CREATED,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _json(call: Call) -> str:
    return orjson.dumps(call.arguments).decode()
