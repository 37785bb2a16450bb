"""Embeddings: OpenAI's, which clients speak, and Gemini's batchEmbedContents. Anthropic has none.

A client and a provider that both speak OpenAI's are never taken apart.

Source: the openai SDK's types, embedding_create_params.py, create_embedding_response.py; ai.google.dev/api/embeddings.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from edgeq.llm.dialects.base import as_object, count_at, text_at
from edgeq.llm.dialects.gemini_request import model_name
from edgeq.llm.dialects.gemini_shapes import Embedded
from edgeq.llm.message import UNKNOWN, Losses, Unmappable, Usage


@dataclass
class EmbeddingRequest:
    """What shall be embedded: texts, or tokens of OpenAI's own, never both."""

    model: str
    texts: list[str] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    dimensions: int | None = None
    base64: bool = False
    """Vectors are wanted as base64 of little-endian floats of 32 bits."""
    user: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class EmbeddingAnswer:
    """One vector for each input, in their order."""

    model: str
    vectors: list[list[float]]
    input_tokens: int = UNKNOWN


_READ: Final = frozenset(("model", "input", "dimensions", "encoding_format", "user"))
_embedded = msgspec.json.Decoder(Embedded)


def decode_request(body: bytes) -> EmbeddingRequest:
    """OpenAI's.

    Raises: Unmappable.
    """
    asked = as_object(body)
    request = EmbeddingRequest(text_at(asked, "model", "model"))
    _decode_input(asked, request)
    request.dimensions = count_at(asked, "dimensions", "dimensions", 1)
    form = text_at(asked, "encoding_format", "encoding_format")
    if form not in ("", "float", "base64"):
        raise Unmappable("encoding_format", "encoding_format must be float or base64")
    request.base64 = form == "base64"
    request.user = text_at(asked, "user", "user")
    for name, value in asked.items():
        if name not in _READ and value is not None:
            request.extra[name] = value
    return request


def encode_answer(answer: EmbeddingAnswer, request: EmbeddingRequest) -> bytes:
    """OpenAI's. Tokens that the provider has not told are 0: an estimate would be taken for a count."""
    data: list[dict[str, Any]] = []
    for index, vector in enumerate(answer.vectors):
        data.append({"object": "embedding", "index": index, "embedding": _packed(vector) if request.base64 else vector})
    tokens = max(answer.input_tokens, 0)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": answer.model, "usage": usage})


def encode_gemini(request: EmbeddingRequest, losses: Losses) -> bytes:
    """The body for batchEmbedContents, of one input, too.

    Raises: Unmappable.
    """
    if request.tokens:
        raise Unmappable("input", "input must be text: the model's provider does not know OpenAI's tokens")
    if request.user:
        losses.lose("user")
    for name in request.extra:
        losses.lose(name)
    common: dict[str, Any] = {"model": model_name(request.model)}
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    return orjson.dumps({"requests": [common | {"content": {"parts": [{"text": said}]}} for said in request.texts]})


def decode_gemini(body: bytes, request: EmbeddingRequest) -> EmbeddingAnswer:
    """Raises: ValueError if it is none, or has too few or too many vectors."""
    try:
        told = _embedded.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"Gemini's embeddings cannot be read: {error}") from error
    if len(told.embeddings) != len(request.texts):
        raise ValueError(f"Gemini has answered {len(request.texts)} inputs with {len(told.embeddings)} embeddings")
    answer = EmbeddingAnswer(request.model, [embedding.values for embedding in told.embeddings])
    if told.usage_metadata is not None and told.usage_metadata.prompt_token_count is not None:
        answer.input_tokens = Usage(told.usage_metadata.prompt_token_count).bound().input
    return answer


def _decode_input(asked: dict[str, Any], request: EmbeddingRequest) -> None:
    """A text, texts, tokens, or lists of tokens."""
    said = asked.get("input")
    if isinstance(said, str):
        said = [said]
    if not isinstance(said, list) or not said:
        raise Unmappable("input", "input must be a string, or a list of strings or of tokens, and not empty")
    if isinstance(said[0], str):
        for text in said:
            if not isinstance(text, str) or not text:
                raise Unmappable("input", "input must be strings that are not empty, or tokens")
        request.texts = said
        return
    for tokens in said if isinstance(said[0], list) else [said]:
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise Unmappable("input", "input must be strings, or tokens, which are whole numbers")
        request.tokens.append(tokens)


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
