"""What clients of other dialects call what chat completions have another name for.

Encoders name what they cannot say as chat completions do, with the place in the client's own lists; here it gets the
client's own name.
"""

from __future__ import annotations

from typing import Final

from edgeq.llm.dialects.base import ANTHROPIC, RESPONSES
from edgeq.llm.message import Unmappable

_NAMES: Final[dict[str, dict[str, str]]] = {
    ANTHROPIC: {
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "reasoning_effort": "thinking",
        "response_format": "output_config.format",
        "stop": "stop_sequences",
        "tool_call_id": "tool_use_id",
        "user": "metadata.user_id",
    },
    RESPONSES: {
        "function.arguments": "arguments",
        "image_url.detail": "detail",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "tool_call_id": "call_id",
        "verbosity": "text.verbosity",
    },
}


def own_name(dialect: str, param: str) -> str:
    """Of what encoders call `param`, "input[3].function.arguments", for a client of this dialect."""
    for name, own in _NAMES.get(dialect, {}).items():
        if param == name or param.endswith("." + name):
            return param[: len(param) - len(name)] + own
    return param


def own_names(dialect: str, params: list[str]) -> list[str]:
    """The same of several, each once."""
    return list(dict.fromkeys([own_name(dialect, param) for param in params]))


def in_own_words(dialect: str, error: Unmappable) -> Unmappable:
    """The same error about what the client calls it."""
    own = own_name(dialect, error.param)
    if own == error.param:
        return error
    return Unmappable(own, error.message.replace(error.param, own, 1))
