"""Tools of a request, in whatever dialect: read one by one, and found again by their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeq.llm.dialects.base import about_element, objects_at
from edgeq.llm.message import Unmappable

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeq.llm.message import Request, Tool


def tools_of(asked: dict[str, Any], decode: Callable[[dict[str, Any]], Tool]) -> list[Tool]:
    """`asked["tools"]`, as `decode` reads one of the dialect's.

    Raises: Unmappable, with the number of the tool that is wrong.
    """
    tools: list[Tool] = []
    for number, said in enumerate(objects_at(asked, "tools", "tools")):
        try:
            tool = decode(said)
        except Unmappable as error:
            raise about_element(error, "tools", number) from None
        tool.place = f"tools[{number}]"
        tools.append(tool)
    return tools


def note_unsaid(asked: dict[str, Any], request: Request, words: tuple[str, ...]) -> None:
    """Keep what functions have that no other dialect knows, for whoever has to tell that it is lost."""
    for tool, said in zip(request.tools, asked.get("tools") or (), strict=True):
        if tool.raw is None:
            for word in words:
                if said.get(word):
                    request.extra[f"{tool.place}.{word}"] = said[word]


def is_of_program(call: dict[str, Any]) -> bool:
    """A call that a program of the provider's has made (`caller`), and not the model itself."""
    caller = call.get("caller")
    return caller is not None and not (isinstance(caller, dict) and caller.get("type") == "direct")
