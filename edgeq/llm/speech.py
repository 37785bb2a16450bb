"""What a client says, in the words of a target, and what the target answers, in the client's.

The dialects know how; here stands which of them is meant, and where a target is asked. Embeddings are no chat and have
words of their own; the responses of OpenAI's newer API are chats of a provider.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

from edgeq.llm.dialects import embeddings, gemini, openai_answer
from edgeq.llm.dialects.names import in_own_words, own_names
from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.message import Answer, Losses, Request, Unmappable, Usage
from edgeq.llm.operation import ANTHROPIC, CHAT, COUNT_TOKENS, EMBEDDINGS, GEMINI, OPENAI, Operation
from edgeq.llm.requested import wants_usage

if TYPE_CHECKING:
    from edgeq.llm.dialects.base import StreamDecoder, StreamEncoder
    from edgeq.llm.dialects.embeddings import EmbeddingRequest
    from edgeq.llm.shapes import Peek

_OPENAI_PATHS: Final = {CHAT: b"/chat/completions", EMBEDDINGS: b"/embeddings"}
_ANTHROPIC_PATHS: Final = {CHAT: b"/messages", COUNT_TOKENS: b"/messages/count_tokens"}
_GEMINI_NAMES: Final = {CHAT: "chat", EMBEDDINGS: "embeddings", COUNT_TOKENS: "count"}

COUNTED_BY: Final = frozenset((ANTHROPIC, GEMINI))
"""Dialects in which a target can be asked how many tokens a request has."""


class Asked:
    """A request that was taken apart: for an answer, for a count of its tokens, or for embeddings."""

    __slots__ = ("counts", "embedding", "request")

    def __init__(self, request: Request | None, embedding: EmbeddingRequest | None, counts: bool = False) -> None:
        self.request: Request | None = request
        self.embedding: EmbeddingRequest | None = embedding
        self.counts: bool = counts


def asked(operation: Operation, body: bytes) -> Asked:
    """Take a request apart. Raises: Unmappable for what makes no sense in its own dialect."""
    if operation.kind == EMBEDDINGS:
        return Asked(None, embeddings.decode_request(body))
    return Asked(DIALECTS[operation.dialect].decode_request(body), None, operation.kind == COUNT_TOKENS)


def words(dialect: str, what: Asked, model: str, losses: Losses, max_tokens: int) -> bytes:
    """The body for a target of this dialect, which calls the model so. Raises: Unmappable."""
    embedding = what.embedding
    if embedding is not None:
        if dialect != GEMINI:
            raise Unmappable("model", "this model's provider has no embeddings")
        embedding.model = model
        return embeddings.encode_gemini(embedding, losses)
    request = what.request
    assert request is not None
    request.model = model
    try:
        if what.counts and dialect == GEMINI:
            body = gemini.encode_count(request, losses)
        else:
            body = DIALECTS[dialect].encode_request(request, losses, max_tokens)
    except Unmappable as error:
        raise in_own_words(request.dialect, error) from None
    losses.dropped = own_names(request.dialect, losses.dropped)
    return body


def path_of(dialect: str, operation: Operation, model: str, stream: bool) -> bytes:
    """Where a target of this dialect is asked for it, below its base path. Raises: KeyError if it is nowhere."""
    if dialect == GEMINI:
        return gemini.path(model, _GEMINI_NAMES[operation.kind], stream).encode()
    return (_ANTHROPIC_PATHS if dialect == ANTHROPIC else _OPENAI_PATHS)[operation.kind]


def vectors(body: bytes, embedding: EmbeddingRequest, model: str) -> tuple[bytes, Usage]:
    """Gemini's embeddings as OpenAI's, and what they have used. Raises: ValueError if they are none."""
    found = embeddings.decode_gemini(body, embedding)
    found.model = found.model or model
    return embeddings.encode_answer(found, embedding), Usage(found.input_tokens, 0)


def counted(body: bytes) -> bytes:
    """Gemini's count of tokens as Anthropic's. Raises: ValueError if it is none."""
    return b'{"input_tokens":%d}' % gemini.decode_count(body)


def heard(dialect: str, body: bytes, model: str) -> Answer:
    """A target's whole answer. `model`: what the client calls it, as its streams do; x-edgeq-target tells the rest.
    Raises: ValueError."""
    found = DIALECTS[dialect].decode_answer(body)
    found.model = model
    found.created = found.created or int(time())
    return found


def written(dialect: str, body: bytes) -> int:
    """About how many tokens a target's whole answer has, all its choices together. Raises: ValueError."""
    if dialect == OPENAI:  # others have one
        return openai_answer.written(body)
    return DIALECTS[dialect].decode_answer(body).written()


def said(dialect: str, answer: Answer, what: Asked, input_tokens: int) -> bytes:
    """It in the words of a client of this dialect. `input_tokens`: about as many as the request has."""
    if dialect == ANTHROPIC:  # which must name a number, where others leave out what nobody has told
        answer.usage = answer.usage.or_else(input_tokens, answer.written())
    return DIALECTS[dialect].encode_answer(answer, what.request)


def decoder(dialect: str) -> StreamDecoder:
    """For the stream of a target of this dialect."""
    return DIALECTS[dialect].decoder()


def encoder(dialect: str, peek: Peek, what: Asked | None, input_tokens: int, request_id: bytes) -> StreamEncoder:
    """For the stream of a client of this dialect. `input_tokens`: about as many as the request has."""
    tells_usage = wants_usage(peek) or dialect != OPENAI  # the other dialects have it in every stream
    made = DIALECTS[dialect].encoder(peek.model, tells_usage, input_tokens, int(time()))
    made.request_id = request_id.decode("latin-1")
    if what is not None and what.request is not None:
        made.answers(what.request)
    return made
