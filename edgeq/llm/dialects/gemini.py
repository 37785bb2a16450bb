"""Gemini (generativelanguage.googleapis.com): generateContent, streamGenerateContent, countTokens, batchEmbedContents.

Only providers speak it, so that requests are written and answers are read.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from edgeq.llm.dialects.gemini_answer import GeminiStreamDecoder as StreamDecoder
from edgeq.llm.dialects.gemini_answer import decode_answer, decode_count
from edgeq.llm.dialects.gemini_request import encode_count, encode_request, model_name

KEY_HEADER: Final = b"x-goog-api-key"

_METHODS: Final[dict[str, str]] = {
    "chat": "generateContent",
    "count": "countTokens",
    "embeddings": "batchEmbedContents",
}

__all__ = [
    "KEY_HEADER",
    "StreamDecoder",
    "decode_answer",
    "decode_count",
    "encode_count",
    "encode_request",
    "path",
]


def path(model: str, operation: str, stream: bool) -> str:
    """What follows the provider's URL: "/models/gemini-2.5-flash:streamGenerateContent?alt=sse".

    Args: operation: "chat", "count" or "embeddings".
    Raises: KeyError for any other.
    """
    resource = "/" + quote(model_name(model), safe="/=,@")
    if stream and operation == "chat":
        return resource + ":streamGenerateContent?alt=sse"
    return resource + ":" + _METHODS[operation]
