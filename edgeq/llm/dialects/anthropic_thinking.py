"""How much a model of Anthropic's shall think, and what it then takes of temperature, top_p and top_k.

Newer ones are told an effort and decide by themselves (adaptive), older ones have a budget of tokens, and the oldest do
not think. From Claude 4.7 on thoughts are shown only if that is asked for, and sampling is refused; from Claude 5 on
they think unless they are told not to, which Fable and Mythos refuse. Who thinks refuses a temperature, and before
Claude 4.8 a forced tool; since Claude 4.1 temperature and top_p are not taken together.

Source: docs.claude.com/en/docs/build-with-claude, adaptive-thinking, effort, extended-thinking; whats-new-claude-4-7.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import ANTHROPIC, GEMINI_SIGNATURE, as_object, known_object
from edgeq.llm.dialects.inputs import keep_digits
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
_SHOWN: Final = {"type": "adaptive", "display": "summarized"}
_ALWAYS_THINK: Final = ("claude-fable", "claude-mythos")
_DEFAULTS: Final = {"temperature": 1.0, "top_p": 1.0}
"""They need no word."""
_THINKS_FROM: Final = 0.95
"""The least top_p of a model that thinks."""
_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_FOREIGN: Final = re.compile(rb'"signature"\s*:\s*"(?:%b|")' % GEMINI_SIGNATURE.encode())
_FOREIGN_RESULT: Final = re.compile(rb'"tool_use_id"\s*:\s*"(?!\w*toolu_)')
_OWN_CALL: Final = re.compile(r"\w*toolu_")
"""How Anthropic's models begin the ids of their calls: `toolu_`, `srvtoolu_`, `mcptoolu_`."""
_THOUGHTS: Final = frozenset(("thinking", "redacted_thinking"))


def without_foreign_thoughts(body: bytes, model: str, dropped: list[str]) -> bytes:
    """A request that passes as it is, but for thoughts of other providers that have answered earlier turns: what nobody
    has signed is refused by Anthropic's own models, and what Gemini has signed is for nobody else. (Those that speak
    Anthropic's dialect and are not its own sign nothing, and may want their thoughts back.)

    Args: dropped: "thinking", if the model may then not think in this turn, see `encode_thinking`: its thoughts were
        removed, or the provider that has called a tool in the last one has shown none.
    """
    is_named = _is_named(model)
    if (body.find(b'"signature"') < 0 or _FOREIGN.search(body) is None) and not (
        is_named and body.find(b'"budget_tokens"') >= 0 and _FOREIGN_RESULT.search(body) is not None
    ):
        return body
    asked = as_object(body)
    messages = asked.get("messages")
    if not isinstance(messages, list):
        return body
    keep_digits(body, None, messages)
    said: list[Any] = []
    removed = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            kept = [block for block in content if not _is_foreign(block, is_named)]
            if len(kept) < len(content):
                removed += len(content) - len(kept)
                if not kept:
                    continue
                message["content"] = kept
        said.append(message)
    thinking = known_object(asked.get("thinking"))
    calls = _thoughtless_calls(said) if thinking is not None and thinking.get("type") == "enabled" else []
    if calls and (removed or (is_named and not all(_OWN_CALL.match(call) for call in calls))):
        del asked["thinking"]
        dropped.append("thinking")
    elif not removed:
        return body
    asked["messages"] = said
    return orjson.dumps(asked)


def _is_foreign(block: Any, is_named: bool) -> bool:
    if not isinstance(block, dict) or block.get("type") != "thinking":
        return False
    signature = block.get("signature")
    return (is_named and not signature) or (isinstance(signature, str) and signature.startswith(GEMINI_SIGNATURE))


def _thoughtless_calls(messages: list[Any]) -> list[str]:
    """As `_has_thoughtless_call`, of messages as the client has them: the ids of the calls."""
    for message in messages[::-1]:
        if isinstance(message, dict) and message.get("role") == "assistant":
            content = message.get("content")
            blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
            if blocks and blocks[0].get("type") in _THOUGHTS:
                return []
            return [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
    return []


def encode_thinking(request: Request, losses: Losses, asked: dict[str, Any], turns: list[Message]) -> None:
    """How much it shall think: as an effort for models that know it, as a budget for those before.

    A model that thinks by budget refuses a last turn that called tools without its thoughts, which only a client of
    this dialect has kept: then it does not think, rather than fail.
    """
    if request.dialect != ANTHROPIC:
        _encode_effort(request, losses, asked, turns)
        _drop_sampling(request, losses, asked)
        return
    if request.effort:
        asked["output_config"] = {"effort": request.effort}
    if request.thinking_tokens == 0:
        asked["thinking"] = {"type": "disabled"}
    elif request.thinking_tokens == -1:
        asked["thinking"] = _ADAPTIVE
    elif request.thinking_tokens is not None:
        asked["thinking"] = {"type": "enabled", "budget_tokens": request.thinking_tokens}


def _encode_effort(request: Request, losses: Losses, asked: dict[str, Any], turns: list[Message]) -> None:
    """What clients of other dialects want, who know efforts only."""
    effort = request.effort
    if not effort:
        return
    version = version_of(request.model)
    if effort == "none":
        if any(name in request.model for name in _ALWAYS_THINK):
            losses.lose("reasoning_effort")
        elif _is_named(request.model) and version >= (5, 0):
            asked["thinking"] = {"type": "disabled"}
        return
    is_forced = request.tool_choice in ("any", "tool")
    if version >= (4, 6):
        if is_forced and version <= (4, 7):
            losses.lose("reasoning_effort")
            return
        asked["thinking"] = _SHOWN if _is_named(request.model) and version >= (4, 7) else _ADAPTIVE
        if effort == "minimal":
            effort = "low"
        elif effort == "xhigh" and version < (4, 7):
            effort = "high"
        asked["output_config"] = {"effort": effort}
        return
    budget = min(_BUDGETS.get(effort, _BUDGETS["medium"]), asked["max_tokens"] // 2)
    may_think = version >= (3, 7) and budget >= _LEAST_BUDGET
    if not may_think or is_forced or _has_thoughtless_call(turns):
        losses.lose("reasoning_effort")
        return
    asked["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _drop_sampling(request: Request, losses: Losses, asked: dict[str, Any]) -> None:
    """What this model refuses of it, as it thinks, or at all."""
    if not _is_named(request.model):
        return
    version = version_of(request.model)
    refused: tuple[str, ...] = ()
    if version >= (4, 7):
        refused = ("temperature", "top_p", "top_k")
    elif asked.get("thinking"):
        refused = (
            ("temperature", "top_k", "top_p") if asked.get("top_p", 1.0) < _THINKS_FROM else ("temperature", "top_k")
        )
    elif version >= (4, 1) and "temperature" in asked and "top_p" in asked:
        refused = ("temperature",) if asked["temperature"] == _DEFAULTS["temperature"] else ("top_p",)
    for name in refused:
        value = asked.pop(name, None)
        if value is not None and value != _DEFAULTS.get(name):
            losses.lose(name, f"{name} cannot be said to this model as it is asked")


def _is_named(model: str) -> bool:
    """It is one of Anthropic's own; others speak the dialect, too, and have rules of their own."""
    return "claude" in model


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
