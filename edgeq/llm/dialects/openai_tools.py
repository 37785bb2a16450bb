"""Tools of a chat completion, and whether they must be called: OpenAI's JSON <-> Request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.dialects.base import ANTHROPIC, OPENAI, flag_at, object_at, objects_at, text_at
from edgeq.llm.dialects.schemas import is_strict
from edgeq.llm.dialects.tools import tools_of
from edgeq.llm.message import Request, Tool, Unmappable

if TYPE_CHECKING:
    from edgeq.llm.message import Losses

EMPTY_SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {}}
"""Parameters of a tool that takes none."""

NOT_STRICT: Final = "of a strict schema the model's provider wants all properties required, and no others allowed"


def decode_tools(asked: dict[str, Any], request: Request) -> None:
    """What it may call, and whether it must."""
    request.tools = tools_of(asked, _decode_tool)
    request.parallel_tools = flag_at(asked, "parallel_tool_calls", "parallel_tool_calls")
    choice = asked.get("tool_choice")
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise Unmappable("tool_choice", "tool_choice must be auto, none, required or an object")
        request.tool_choice = "any" if choice == "required" else choice
        return
    if not isinstance(choice, dict):
        raise Unmappable("tool_choice", "tool_choice must be a string or an object")
    kind = text_at(choice, "type", "tool_choice.type")
    named = object_at(choice, kind, f"tool_choice.{kind}") or {}
    if kind == "allowed_tools":
        _allow_only(named, request)
        return
    request.tool_choice = "tool"
    request.tool_name = text_at(named, "name", f"tool_choice.{kind}.name")
    if not request.tool_name:
        raise Unmappable("tool_choice", "tool_choice names no tool")


def _decode_tool(said: dict[str, Any]) -> Tool:
    if text_at(said, "type", "tools.type") not in ("", "function"):
        custom = object_at(said, "custom", "tools.custom") or {}
        return Tool(text_at(custom, "name", "tools.custom.name"), raw=said)
    function = object_at(said, "function", "tools.function")
    if function is None:
        raise Unmappable("tools.function", "tools.function is missing")
    name = text_at(function, "name", "tools.function.name")
    if not name:
        raise Unmappable("tools.function.name", "tools.function.name is missing")
    return Tool(
        name,
        text_at(function, "description", "tools.function.description"),
        object_at(function, "parameters", "tools.function.parameters") or {},
        flag_at(function, "strict", "tools.function.strict") is True,
    )


def _allow_only(allowed: dict[str, Any], request: Request) -> None:
    """allowed_tools: the rest of the tools need not be sent. (OpenAI has it so that its cache of prompts holds.)"""
    where = "tool_choice.allowed_tools"
    request.tool_choice = "any" if text_at(allowed, "mode", f"{where}.mode") == "required" else "auto"
    names: list[str] = []
    for tool in objects_at(allowed, "tools", f"{where}.tools"):
        inner = object_at(tool, text_at(tool, "type", f"{where}.tools.type"), f"{where}.tools") or tool
        names.append(text_at(inner, "name", f"{where}.tools.name"))
    request.tools = [tool for tool in request.tools if tool.name in names]


def encode_tools(request: Request, losses: Losses, asked: dict[str, Any]) -> None:
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.raw is not None:
            if request.dialect == OPENAI:
                tools.append(tool.raw)
            else:
                losses.lose(f"{tool.place or 'tools'}.{tool.raw.get('type', '')}")
            continue
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters or EMPTY_SCHEMA}
        if tool.description:
            function["description"] = tool.description
        if tool.strict:
            if request.dialect == ANTHROPIC and not is_strict(function["parameters"]):
                losses.lose(f"{tool.place or 'tools'}.strict", NOT_STRICT)
            else:
                function["strict"] = True
        tools.append({"type": "function", "function": function})
    if tools:
        asked["tools"] = tools
        if request.parallel_tools is not None:
            asked["parallel_tool_calls"] = request.parallel_tools
        if request.tool_choice == "any":
            asked["tool_choice"] = "required"
        elif request.tool_choice == "tool":
            asked["tool_choice"] = _named(request)
        elif request.tool_choice:
            asked["tool_choice"] = request.tool_choice


def _named(request: Request) -> dict[str, Any]:
    kind = "function"
    for tool in request.tools:
        if tool.name == request.tool_name and tool.raw is not None:
            kind = str(tool.raw.get("type", kind))
    return {"type": kind, kind: {"name": request.tool_name}}
