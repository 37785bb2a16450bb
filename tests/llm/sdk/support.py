"""What the tests of SDKs share: an image, tools, and the upstreams that they go through."""

from __future__ import annotations

import json
from typing import Any, Final

from edgeq.llm.demo.content import words
from tests.support.llm_service import DIALECTS, DIRECT

UPSTREAMS: Final = (DIRECT, *DIALECTS)

TEXT: Final = "".join(words(8))
"""What the behaviour "plain" says."""
THOUGHT: Final = "".join(words(3))
IMAGE: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""
ARGUMENTS: Final = {"city": "sample", "days": 7}
"""What the demo provider makes up for SCHEMA."""
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "its name"}, "days": {"type": "integer"}},
    "required": ["city"],
}
NAMES: Final = ("weather", "tides")
CHAT_TOOLS: Final[list[Any]] = [
    {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": SCHEMA}}
    for name in NAMES
]
RESPONSES_TOOLS: Final[list[Any]] = [
    {"type": "function", "name": name, "description": f"The {name}.", "parameters": SCHEMA, "strict": False}
    for name in NAMES
]
CLAUDE_TOOLS: Final[list[Any]] = [
    {"name": name, "description": f"The {name}.", "input_schema": SCHEMA} for name in NAMES
]
HELLO: Final[list[Any]] = [{"role": "user", "content": "hello"}]
SYSTEM: Final = "You count queues."


def shown(text: str | None) -> dict[str, Any]:
    """The body that arrived at the provider, from an answer of the behaviour "show"."""
    assert text is not None
    found: dict[str, Any] = json.loads(text)
    return found
