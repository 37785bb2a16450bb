"""Turns of a conversation as those dialects want them in which the system is no turn and two neighbours never have the
same role (Anthropic, Gemini); and what becomes of a part that a dialect cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import param_of
from edgeq.llm.message import DOCUMENT, IMAGE, OTHER, THINKING, TOOL_RESULT, Message, Unmappable

if TYPE_CHECKING:
    from edgeq.llm.message import Losses, Part, Request

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


def arguments_of(part: Part) -> dict[str, Any]:
    """Those of a call, for dialects in which they are no text. Raises: Unmappable for what is no JSON object."""
    if not part.arguments.strip():
        return {}
    try:
        arguments = orjson.loads(part.arguments)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        param = param_of(part, "function.arguments")
        raise Unmappable(param, f"{param} must be a JSON object, in a string")
    return arguments


def _results_first(part: Part) -> int:
    return 0 if part.kind == TOOL_RESULT else 1
