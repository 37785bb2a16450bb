"""What a client asks for, and in which dialect: told by the end of the path, so that it may stand below any prefix.

/v1/chat/completions   /openai/deployments/x/chat/completions   /v1/messages   /anthropic/v1/messages/count_tokens
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from edgeq.llm.dialects.base import ANTHROPIC as ANTHROPIC
from edgeq.llm.dialects.base import GEMINI as GEMINI
from edgeq.llm.dialects.base import OPENAI as OPENAI
from edgeq.llm.dialects.base import RESPONSES as RESPONSES

# What is asked for.
CHAT: Final = 0
EMBEDDINGS: Final = 1
COUNT_TOKENS: Final = 2
MODELS: Final = 3


class Operation:
    """One thing that a client can ask for."""

    __slots__ = ("dialect", "kind", "name")

    def __init__(self, kind: int, dialect: str, name: str) -> None:
        self.kind: int = kind
        self.dialect = dialect
        self.name = name
        """OpenTelemetry's gen_ai.operation.name."""


_BY_END: Final[dict[bytes, Operation]] = {
    b"/chat/completions": Operation(CHAT, OPENAI, "chat"),
    b"/responses": Operation(CHAT, RESPONSES, "chat"),
    b"/embeddings": Operation(EMBEDDINGS, OPENAI, "embeddings"),
    b"/messages": Operation(CHAT, ANTHROPIC, "chat"),
    b"/messages/count_tokens": Operation(COUNT_TOKENS, ANTHROPIC, "count_tokens"),
}
MODELS_OPERATION: Final = Operation(MODELS, OPENAI, "models")
PROMPT_OPERATION: Final = Operation(CHAT, OPENAI, "chat")
"""Of a path that is a prompt's."""


PATHS: Final = f"POST {', '.join([end.decode() for end in _BY_END])}; GET /models, /models/NAME"
"""What there is, for who has asked for something else."""


def methods_of(operation: Operation | None) -> bytes:
    """Of HTTP, by which it can be asked for; a prompt is described by GET."""
    if operation is None or operation is PROMPT_OPERATION:
        return b"GET, POST"
    return b"GET, HEAD" if operation.kind == MODELS else b"POST"


def operation_of(path: bytes) -> Operation | None:
    """The operation that a path ends with. None: it is none of a model."""
    last = path.rfind(b"/")
    found = _BY_END.get(path[last:])
    if found is not None:
        return found
    found = _BY_END.get(path[path.rfind(b"/", 0, last) :]) if last > 0 else None
    if found is not None:
        return found
    return MODELS_OPERATION if b"/models" in path and model_of(path) is not None else None


def model_of(path: bytes) -> bytes | None:
    """Of `/models` and `/models/NAME`: the name, empty for all of them. None: it is neither. Names may have slashes,
    which SDKs write as "%2F"."""
    _, found, rest = path.partition(b"/models")
    if not found or (rest and rest[:1] != b"/"):
        return None
    return unquote_to_bytes(rest[1:])
