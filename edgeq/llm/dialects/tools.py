"""Tools of a request, in whatever dialect: read one by one, and found again by their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeq.llm.dialects.base import about_element, objects_at
from edgeq.llm.message import Unmappable

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeq.llm.message import Tool


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
