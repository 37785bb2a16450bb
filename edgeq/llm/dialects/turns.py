"""Turns of a conversation as those dialects want them in which the system is no turn and two neighbours never have the
same role (Anthropic, Gemini); and what becomes of a part that a dialect cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import param_of
from edgeq.llm.message import DOCUMENT, IMAGE, OTHER, THINKING, TOOL_RESULT, Message, Unmappable

if TYPE_CHECKING:
    from edgeq.llm.message import Losses, Part, Request

NO_ARGUMENTS: Final = ("", "null")
"""What models write where there are none, and not {}."""
_WORDS: Final = {IMAGE: "image", DOCUMENT: "document"}


def split_system(request: Request, foreign: str = "") -> tuple[list[Part], list[Message]]:
    """What the system says, in order; and the turns of user and assistant, neighbours of one role made one, results of
    tools first in theirs.

    Args: foreign: thoughts whose signature begins so are another provider's, and left out: they would be refused.

    If nobody but the system speaks, that is the user's turn: no such dialect takes a conversation without one.
    """
    system: list[Part] = []
    turns: list[Message] = []
    for message in request.messages:
        if message.role == "system":
            system.extend(message.parts)
        elif turns and turns[-1].role == message.role:
            turns[-1].parts.extend(message.parts)
        else:
            turns.append(Message(message.role, list(message.parts)))
    for turn in turns:
        if foreign and turn.role == "assistant":
            turn.parts = [part for part in turn.parts if part.kind != THINKING or not part.data.startswith(foreign)]
        if turn.role == "user" and len(turn.parts) > 1:
            turn.parts.sort(key=_results_first)
    if turns or not system:
        return system, turns
    return [], [Message("user", system)]


def unsayable(part: Part, role: str, losses: Losses) -> None:
    """A part that the dialect has no word for is dropped, and noted.

    Raises: Unmappable if it is the user's, even if losses are allowed: an answer to half a question is none.
    """
    word = str((part.raw or {}).get("type", "")) if part.kind == OTHER else _WORDS.get(part.kind, "")
    if part.media_type.startswith("audio/"):
        word = "input_audio"
    param = param_of(part, word)
    if role == "user":
        kind = f"{word} of {part.media_type}" if part.media_type else word or "this content"
        raise Unmappable(param, f"{kind} cannot be said to the model's provider")
    losses.lose(param)


def some_of(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same. Raises: Unmappable if nothing of the conversation is left, as these dialects take no empty text."""
    if not turns:
        raise Unmappable("messages", "messages must say something: all of it is empty")
    return turns


def arguments_of(part: Part) -> orjson.Fragment | dict[str, Any]:
    """Those of a call, for dialects in which they are an object: character by character, as large numbers shall stay
    what they are. Raises: Unmappable for what is none."""
    arguments = part.arguments
    if arguments.strip() in NO_ARGUMENTS:
        return {}
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        param = param_of(part, "function.arguments")
        raise Unmappable(param, f"{param} must be a JSON object, in a string")
    return orjson.Fragment(arguments.encode())


def _results_first(part: Part) -> int:
    return 0 if part.kind == TOOL_RESULT else 1
