"""A request of OpenAI's responses.

edgeq keeps no conversations: what refers to a stored one is refused, and `store` cannot be granted. Tools of OpenAI's
own (web search, files, computers) are kept as they came, so that they are dropped or refused as the route says.

Source: the openai SDK's types, responses/response_create_params.py.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.dialects.base import (
    RESPONSES,
    as_object,
    count_at,
    flag_at,
    list_at,
    number_at,
    object_at,
    objects_at,
    text_at,
)
from edgeq.llm.dialects.openai_request import decode_format, decode_user
from edgeq.llm.dialects.responses_input import decode_input
from edgeq.llm.dialects.tools import note_unsaid, tools_of
from edgeq.llm.message import TEXT, Message, Part, Request, Tool, Unmappable

_STATEFUL: Final[dict[str, str]] = {
    "previous_response_id": "no responses are stored here: send the whole conversation in input",
    "conversation": "no conversations are stored here: send the whole of it in input",
    "prompt": "no prompts of OpenAI's are stored here: send what it says in input",
    "background": "nothing is kept here of which to ask later: send it without",
}
"""What cannot be served without a memory, and cannot be dropped either: the answer would be another one."""

_READ: Final = frozenset(
    (
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "parallel_tool_calls",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    )
)
"""What has an attribute of its own, or no meaning here: stream_options is padding against eavesdroppers, of which
there is none."""

_CHOICES: Final[dict[str, str]] = {"auto": "auto", "none": "none", "required": "any"}

_ENCRYPTED: Final = "reasoning.encrypted_content"

_EFFORTS: Final = frozenset(("", "none", "minimal", "low", "medium", "high", "xhigh", "max"))


def _metadata(asked: dict[str, Any]) -> dict[str, Any] | None:
    """What is told again with the answer."""
    said = object_at(asked, "metadata", "metadata")
    if not said:
        return None
    try:
        orjson.dumps(said)
    except TypeError:  # orjson reads four times as deep as it writes
        raise Unmappable("metadata", "metadata is nested too deeply") from None
    return said


def decode_request(body: bytes) -> Request:
    """Raises: Unmappable for what is no request for a response, or needs a stored one, with the parameter."""
    asked = as_object(body)
    for name, why in _STATEFUL.items():
        if asked.get(name):
            raise Unmappable(name, why)
    request = Request(text_at(asked, "model", "model"), dialect=RESPONSES)
    instructions = text_at(asked, "instructions", "instructions")
    if instructions:
        request.messages.append(Message("system", [Part(TEXT, instructions)]))
    request.messages += decode_input(asked, request)
    request.stream = flag_at(asked, "stream", "stream") is True
    request.wants_usage = True
    request.max_tokens = count_at(asked, "max_output_tokens", "max_output_tokens", 1)
    request.temperature = number_at(asked, "temperature", "temperature", 0.0, 2.0)
    request.top_p = number_at(asked, "top_p", "top_p", 0.0, 1.0)
    if count_at(asked, "top_logprobs", "top_logprobs", 0):
        request.extra["top_logprobs"] = asked["top_logprobs"]  # which no answer of another dialect is read for
    _decode_tools(asked, request)
    _decode_text(asked, request)
    _decode_reasoning(asked, request)
    for included in list_at(asked, "include", "include"):
        # Signatures are always sent; the rest of what can be included belongs to tools of OpenAI's own, or is logprobs.
        if included != _ENCRYPTED:
            request.extra[f"include.{included}"] = True
    request.service_tier = text_at(asked, "service_tier", "service_tier")
    request.metadata = _metadata(asked)
    decode_user(asked, request)
    for name, value in asked.items():
        if name not in _READ and value is not None and not _says_nothing(name, value):
            request.extra[name] = value
    return request


def _says_nothing(name: str, value: Any) -> bool:
    """What the absence of the parameter means here, too."""
    return name in _STATEFUL or (name == "store" and value is False) or (name == "truncation" and value == "disabled")


def _decode_tools(asked: dict[str, Any], request: Request) -> None:
    """What it may call, and whether it must."""
    request.tools = tools_of(asked, _decode_tool)
    note_unsaid(asked, request, ("allowed_callers", "async", "defer_loading", "output_schema"))
    request.parallel_tools = flag_at(asked, "parallel_tool_calls", "parallel_tool_calls")
    choice = asked.get("tool_choice")
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise Unmappable("tool_choice", "tool_choice must be auto, none, required or an object")
        request.tool_choice = _CHOICES[choice]
        return
    named = object_at(asked, "tool_choice", "tool_choice") or {}
    kind = text_at(named, "type", "tool_choice.type")
    if kind == "allowed_tools":
        # The same as if there were no others: OpenAI has it so that its cache of prompts holds.
        allowed = objects_at(named, "tools", "tool_choice.tools")
        names = [text_at(tool, "name", "tool_choice.tools.name") for tool in allowed]
        request.tools = [tool for tool in request.tools if tool.name in names]
        request.tool_choice = "any" if named.get("mode") == "required" else "auto"
        return
    if kind != "function":
        raise Unmappable("tool_choice", f"{kind} is a tool of OpenAI's own")
    request.tool_choice = "tool"
    request.tool_name = text_at(named, "name", "tool_choice.name")


def _decode_tool(said: dict[str, Any]) -> Tool:
    tool = Tool(text_at(said, "name", "tools.name"))
    if text_at(said, "type", "tools.type") != "function":
        tool.raw = said
    elif not tool.name:
        raise Unmappable("tools.name", "tools.name is missing")
    else:
        tool.description = text_at(said, "description", "tools.description")
        tool.parameters = object_at(said, "parameters", "tools.parameters") or {}
        tool.strict = flag_at(said, "strict", "tools.strict") is True
    return tool


def _decode_text(asked: dict[str, Any], request: Request) -> None:
    """How the answer shall be written."""
    wanted = object_at(asked, "text", "text") or {}
    verbosity = text_at(wanted, "verbosity", "text.verbosity")
    if verbosity:
        request.extra["verbosity"] = verbosity  # as chat completions call it
    form = object_at(wanted, "format", "text.format")
    if form is not None:
        decode_format(form, "text.format", form, "text.format", request)


def _decode_reasoning(asked: dict[str, Any], request: Request) -> None:
    """A summary need not be asked for: whatever is told of the thoughts is passed on."""
    wanted = object_at(asked, "reasoning", "reasoning") or {}
    request.effort = text_at(wanted, "effort", "reasoning.effort")
    if request.effort not in _EFFORTS:
        raise Unmappable("reasoning.effort", "reasoning.effort must be one of none, minimal, low, medium, high, xhigh")
    for name in ("context", "mode"):
        if wanted.get(name) is not None:
            request.extra[f"reasoning.{name}"] = wanted[name]
