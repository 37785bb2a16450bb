"""A request for a message: Anthropic's JSON <-> Request.

Source: shared reference, llm.md 4.1; anthropics/anthropic-sdk-python, types/message_create_params.py;
docs.claude.com/en/docs/build-with-claude: extended-thinking, adaptive-thinking, effort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.anthropic_content import decode_blocks, encode_blocks
from edgeq.llm.dialects.anthropic_thinking import encode_thinking
from edgeq.llm.dialects.base import (
    ANTHROPIC,
    GEMINI_SIGNATURE,
    RESPONSES,
    about_element,
    as_object,
    count_at,
    flag_at,
    list_at,
    number_at,
    object_at,
    objects_at,
    text_at,
)
from edgeq.llm.dialects.inputs import keep_digits
from edgeq.llm.dialects.schemas import for_anthropic
from edgeq.llm.dialects.tools import note_unsaid, tools_of
from edgeq.llm.dialects.turns import some_of, split_system
from edgeq.llm.message import TOOL_USE, Message, Request, Tool, Unmappable

if TYPE_CHECKING:
    from edgeq.llm.message import Losses

_READ: Final = frozenset(
    [
        "model",
        "messages",
        "system",
        "max_tokens",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "output_format",
        "metadata",
        "service_tier",
        "cache_control",
    ]
)
"""What has an attribute of its own. The newest models have no temperature, top_p and top_k; the others do."""

_REFUSED: Final = {
    "thread": "no conversations are held here: send the whole of it in messages",
    "compaction": "conversations are not summarised here",
}
"""What asks for another kind of answer. The first is a beta of Anthropic's: its SDK's runner of tools asks for it, and
goes on without it if it is told `thread_unsupported_request`."""

_EFFORTS: Final = frozenset(("low", "medium", "high", "xhigh", "max"))


def decode_request(body: bytes) -> Request:
    """A request for a message, or for a count of its tokens, which has no max_tokens.

    Raises: Unmappable for what is none, with the parameter.
    """
    asked = as_object(body)
    request = Request(text_at(asked, "model", "model"), dialect=ANTHROPIC, wants_usage=True)
    for name, why in _REFUSED.items():
        if asked.get(name) is not None:
            raise Unmappable(name, why)
    if not isinstance(asked.get("messages"), list):
        raise Unmappable("messages", "messages must be a list")
    keep_digits(body, None, asked["messages"])
    names: dict[str, str] = {}
    system = decode_blocks(asked, "system", "system", "system", names, request)
    if system:
        request.messages.append(Message("system", system))
    for number, said in enumerate(objects_at(asked, "messages", "messages")):
        try:
            role = text_at(said, "role", "messages.role")
            if role not in ("user", "assistant", "system"):
                raise Unmappable("messages.role", "messages.role must be user, assistant or system")
            at = f"messages[{number}]"
            parts = decode_blocks(said, "content", "messages.content", f"{at}.content", names, request)
            for name in ("clear_at", "output_config"):  # of one turn of the system's
                if said.get(name) and said[name] != "never":
                    request.extra[f"{at}.{name}"] = said[name]
        except Unmappable as error:
            raise about_element(error, "messages", number) from None
        request.messages.append(Message(role, parts, place=at))
    request.stream = flag_at(asked, "stream", "stream") is True
    request.max_tokens = count_at(asked, "max_tokens", "max_tokens", 1)
    request.temperature = number_at(asked, "temperature", "temperature", 0.0, 1.0)
    request.top_p = number_at(asked, "top_p", "top_p", 0.0, 1.0)
    request.top_k = count_at(asked, "top_k", "top_k", 0)
    for stop in list_at(asked, "stop_sequences", "stop_sequences"):
        if not isinstance(stop, str):
            raise Unmappable("stop_sequences", "stop_sequences must be a list of strings")
        request.stop.append(stop)
    _decode_tools(asked, request)
    _decode_thinking(asked, request)
    metadata = object_at(asked, "metadata", "metadata") or {}
    request.user = text_at(metadata, "user_id", "metadata.user_id")
    tier = text_at(asked, "service_tier", "service_tier")
    request.service_tier = "default" if tier == "standard_only" else tier
    for name, value in asked.items():
        if name not in _READ and value is not None:
            request.extra[name] = value
    return request


def _decode_tools(asked: dict[str, Any], request: Request) -> None:
    request.tools = tools_of(asked, _decode_tool)
    note_unsaid(asked, request, ("allowed_callers", "defer_loading", "input_examples"))
    choice = object_at(asked, "tool_choice", "tool_choice")
    if choice is None:
        return
    kind = text_at(choice, "type", "tool_choice.type")
    if kind not in ("auto", "any", "tool", "none"):
        raise Unmappable("tool_choice.type", "tool_choice.type must be auto, any, tool or none")
    request.tool_choice = kind
    request.tool_name = text_at(choice, "name", "tool_choice.name")
    if kind == "tool" and not request.tool_name:
        raise Unmappable("tool_choice.name", "tool_choice.name is missing")
    serial = flag_at(choice, "disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use")
    if serial is not None:
        request.parallel_tools = not serial


def _decode_tool(said: dict[str, Any]) -> Tool:
    name = text_at(said, "name", "tools.name")
    if text_at(said, "type", "tools.type") not in ("", "custom"):
        return Tool(name, raw=said)
    if not name:
        raise Unmappable("tools.name", "tools.name is missing")
    tool = Tool(name, text_at(said, "description", "tools.description"))
    tool.parameters = object_at(said, "input_schema", "tools.input_schema") or {}
    tool.strict = flag_at(said, "strict", "tools.strict") is True
    tool.cache = said.get("cache_control") is not None
    return tool


def _decode_thinking(asked: dict[str, Any], request: Request) -> None:
    """thinking and output_config: how much, and in which form the answer is."""
    thinking = object_at(asked, "thinking", "thinking")
    if thinking is not None:
        kind = text_at(thinking, "type", "thinking.type")
        if kind == "enabled":
            request.thinking_tokens = count_at(thinking, "budget_tokens", "thinking.budget_tokens", 0)
        elif kind == "disabled":
            request.thinking_tokens = 0
        elif kind == "adaptive":
            request.thinking_tokens = -1
        else:
            request.extra["thinking"] = thinking
        for name in ("display", "block_binding"):
            if thinking.get(name) and kind in ("enabled", "adaptive"):
                request.extra[f"thinking.{name}"] = thinking[name]
    config = object_at(asked, "output_config", "output_config") or {}
    effort = text_at(config, "effort", "output_config.effort")
    if effort and effort not in _EFFORTS:
        raise Unmappable("output_config.effort", "output_config.effort must be low, medium, high, xhigh or max")
    request.effort = effort
    if config.get("task_budget"):
        request.extra["output_config.task_budget"] = config["task_budget"]
    param, form = "output_config.format", object_at(config, "format", "output_config.format")
    if form is None:  # as it was called when it was a beta
        param, form = "output_format", object_at(asked, "output_format", "output_format")
    if form is not None:
        request.response_format = "schema"
        request.schema = object_at(form, "schema", f"{param}.schema") or {}
        request.schema_strict = True


def encode_request(request: Request, losses: Losses, max_tokens: int) -> bytes:
    """`request.model` is the provider's name for it. Args: max_tokens stands where the client has not said any.

    Raises: Unmappable for what it cannot say, if that is not allowed, or if an answer would miss its question.
    """
    own = request.dialect == ANTHROPIC
    asked: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens or max_tokens}
    system, turns = split_system(request, GEMINI_SIGNATURE)
    if system:
        blocks = encode_blocks(system, "user", losses, own)
        if len(blocks) == 1 and len(blocks[0]) == 2:
            asked["system"] = blocks[0]["text"]
        elif blocks:
            asked["system"] = blocks
    asked["messages"] = some_of(_encode_turns(turns, losses, own))
    for message in request.messages:
        if message.name:
            losses.lose(f"{message.place or 'messages'}.name")
    if request.stream:
        asked["stream"] = True
    _encode_sampling(request, losses, asked, own)
    _encode_tools(request, losses, asked, own)
    if not own and "tools" not in asked:
        _define_called(turns, asked)
    encode_thinking(request, losses, asked, turns)
    if request.response_format == "schema":
        schema = request.schema or {}
        if not own:
            at = "text.format.schema" if request.dialect == RESPONSES else "response_format.json_schema.schema"
            schema = for_anthropic(schema, at, losses)
        form = {"type": "json_schema", "schema": schema}
        asked.setdefault("output_config", {})["format"] = form
    elif request.response_format == "json":
        losses.lose("response_format", "response_format json_object has no match: use json_schema")
    if request.user:
        asked["metadata"] = {"user_id": request.user}
    if request.service_tier == "auto":
        asked["service_tier"] = "auto"
    elif request.service_tier == "default":
        asked["service_tier"] = "standard_only"
    elif request.service_tier:
        losses.lose("service_tier")
    for name, value in request.extra.items():
        if own and "." not in name:
            asked[name] = value
        else:
            losses.lose(name)
    return orjson.dumps(asked)


def _encode_turns(turns: list[Message], losses: Losses, own: bool) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    for turn in turns:
        content = encode_blocks(turn.parts, turn.role, losses, own)
        if len(content) == 1 and content[0]["type"] == "text" and len(content[0]) == 2:
            said.append({"role": turn.role, "content": content[0]["text"]})
        elif content:
            said.append({"role": turn.role, "content": content})
    if said and said[-1]["role"] == "assistant":
        # The beginning of an answer, which may not end in blanks.
        begun = said[-1]["content"]
        if isinstance(begun, str):
            said[-1]["content"] = begun.rstrip()
        elif begun[-1]["type"] == "text":
            begun[-1]["text"] = begun[-1]["text"].rstrip()
    return said


def _encode_sampling(request: Request, losses: Losses, asked: dict[str, Any], own: bool) -> None:
    if request.temperature is not None:
        if request.temperature > 1.0:
            losses.lose("temperature", "the model's provider takes a temperature of 1 at most")
        asked["temperature"] = min(request.temperature, 1.0)
    if request.top_p is not None:
        asked["top_p"] = request.top_p
    if request.top_k is not None and request.top_k > 0:
        asked["top_k"] = request.top_k
    stops = request.stop if own else [stop for stop in request.stop if stop.strip()]
    if len(stops) < len(request.stop):
        losses.lose("stop", "the model's provider takes no stop that is nothing but blanks")
    if stops:
        asked["stop_sequences"] = stops
    if request.n > 1:
        losses.lose("n")
    if request.seed is not None:
        losses.lose("seed")
    if request.frequency_penalty:
        losses.lose("frequency_penalty")
    if request.presence_penalty:
        losses.lose("presence_penalty")
    if request.logprobs:
        losses.lose("logprobs")
    if request.top_logprobs:
        losses.lose("top_logprobs")
    if request.logit_bias:
        losses.lose("logit_bias")
    if request.metadata:
        losses.lose("metadata")


def _encode_tools(request: Request, losses: Losses, asked: dict[str, Any], own: bool) -> None:
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.raw is not None:
            if own:
                tools.append(tool.raw)
            else:
                losses.lose(f"{tool.place or 'tools'}.{tool.raw.get('type', '')}")
            continue
        schema = tool.parameters or {"type": "object"}
        if tool.strict and not own:
            schema = for_anthropic(schema, f"{tool.place or 'tools'}.parameters", losses)
        said: dict[str, Any] = {"name": tool.name, "input_schema": schema}
        if tool.description:
            said["description"] = tool.description
        if tool.strict:
            said["strict"] = True
        if tool.cache:
            said["cache_control"] = {"type": "ephemeral"}
        tools.append(said)
    if not tools:
        return
    asked["tools"] = tools
    kind = request.tool_choice or ("auto" if request.parallel_tools is not None else "")
    if not kind:
        return
    choice: dict[str, Any] = {"type": kind}
    if kind == "tool":
        choice["name"] = request.tool_name
    if request.parallel_tools is not None and kind != "none":
        choice["disable_parallel_tool_use"] = not request.parallel_tools
    asked["tool_choice"] = choice


def _define_called(turns: list[Message], asked: dict[str, Any]) -> None:
    """Calls and results are refused without tools that are defined, which other dialects do not ask for: those that
    were called are, and may not be called again."""
    names = {part.name for turn in turns for part in turn.parts if part.kind == TOOL_USE}
    if names:
        asked["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in sorted(names)]
        asked["tool_choice"] = {"type": "none"}
