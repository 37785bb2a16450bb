"""How much a model of Anthropic's shall think.

Newer ones are told an effort and decide by themselves (adaptive), older ones have a budget of tokens, and the oldest do
not think. Source: docs.claude.com/en/docs/build-with-claude, adaptive-thinking, effort, extended-thinking.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.dialects.base import ANTHROPIC
from edgeq.llm.message import THINKING, TOOL_USE

if TYPE_CHECKING:
    from edgeq.llm.message import Losses, Message, Request

_BUDGETS: Final[dict[str, int]] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 32768,
}
"""Tokens of thought, for models that know no effort. Source: Google's table for OpenAI's dialect."""

_LEAST_BUDGET: Final = 1024
_ADAPTIVE: Final = {"type": "adaptive"}
_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")


def encode_thinking(request: Request, losses: Losses, asked: dict[str, Any], turns: list[Message]) -> None:
    """How much it shall think: as an effort for models that know it, as a budget for those before.

    A model that thinks by budget refuses a temperature, a forced tool, and a last turn that called tools without its
    thoughts, which only a client of this dialect has kept: then it does not think, rather than fail.
    """
    own = request.dialect == ANTHROPIC
    if own and request.effort:
        asked["output_config"] = {"effort": request.effort}
    if request.thinking_tokens == 0:
        asked["thinking"] = {"type": "disabled"}
        return
    if own:
        if request.thinking_tokens == -1:
            asked["thinking"] = _ADAPTIVE
        elif request.thinking_tokens is not None:
            asked["thinking"] = {"type": "enabled", "budget_tokens": request.thinking_tokens}
        return
    if request.effort in ("", "none") and request.thinking_tokens is None:
        return
    version = version_of(request.model)
    if version >= (4, 6):
        asked["thinking"] = _ADAPTIVE
        effort = request.effort or "high"
        if effort == "minimal":
            effort = "low"
        elif effort == "xhigh" and version < (4, 7):
            effort = "high"
        asked["output_config"] = {"effort": effort}
        return
    budget = max(request.thinking_tokens or 0, 0) or _BUDGETS.get(request.effort, _BUDGETS["medium"])
    budget = min(budget, asked["max_tokens"] // 2)
    may_think = version >= (3, 7) and budget >= _LEAST_BUDGET
    if not may_think or request.tool_choice in ("any", "tool") or _has_thoughtless_call(turns):
        losses.lose("reasoning_effort")
        return
    for refused in ("temperature", "top_k"):
        if refused in asked:
            losses.lose(refused, f"{refused} cannot be said to a model that thinks")
            del asked[refused]
    asked["thinking"] = {"type": "enabled", "budget_tokens": budget}


def version_of(model: str) -> tuple[int, int]:
    """Of a name: (3, 7) of "claude-3-7-sonnet-20250219", (4, 6) of "claude-opus-4-6"; one without is the newest."""
    match = _VERSION.search(model)
    if match is None:
        return 99, 0
    return int(match[1]), int(match[2] or 0)


def _has_thoughtless_call(turns: list[Message]) -> bool:
    """The last turn of the assistant calls a tool and does not begin with a thought that its provider has signed."""
    for turn in reversed(turns):
        if turn.role == "assistant":
            calls = any(part.kind == TOOL_USE for part in turn.parts)
            first = turn.parts[0] if turn.parts else None
            return calls and (first is None or first.kind != THINKING or not first.data)
    return False
