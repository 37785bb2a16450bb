"""What is read of Gemini's answers, whole or as an event of a stream; everything else in them is skipped unread.

Never compiled: msgspec reads the annotations at run time.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Shape(msgspec.Struct, rename="camel", gc=False):
    """An object on the wire."""


class FunctionCall(Shape, gc=False):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")
    """Kept as it is written: arguments are text to the others."""


class Blob(Shape, gc=False):
    mime_type: str = ""
    data: str = ""


class ContentPart(Shape, gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None


class Content(Shape, gc=False):
    parts: list[ContentPart] | None = None


class Candidate(Shape, gc=False):
    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class UsageMetadata(Shape, gc=False):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class PromptFeedback(Shape, gc=False):
    block_reason: str | None = None
    block_reason_message: str | None = None


class Generated(Shape, gc=False):
    """GenerateContentResponse, or an error in its place."""

    response_id: str | None = None
    model_version: str | None = None
    candidates: list[Candidate] | None = None
    usage_metadata: UsageMetadata | None = None
    prompt_feedback: PromptFeedback | None = None
    error: Any = None


class Counted(Shape, gc=False):
    """CountTokensResponse."""

    total_tokens: int


class Embedding(Shape, gc=False):
    values: list[float]


class Embedded(Shape, gc=False):
    """BatchEmbedContentsResponse."""

    embeddings: list[Embedding]
    usage_metadata: UsageMetadata | None = None
