"""Every dialect by its name, and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.llm.dialects import anthropic, gemini, openai_chat, responses
from edgeq.llm.dialects.base import ANTHROPIC, GEMINI, OPENAI, RESPONSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeq.llm.dialects.base import StreamDecoder, StreamEncoder
    from edgeq.llm.message import Answer, Losses, Request


class Dialect:
    """The functions of one dialect."""

    __slots__ = ("decode_answer", "decode_request", "decoder", "encode_answer", "encode_request", "encoder", "name")

    def __init__(
        self,
        name: str,
        decode_request: Callable[[bytes], Request],
        encode_request: Callable[[Request, Losses, int], bytes],
        decode_answer: Callable[[bytes], Answer],
        encode_answer: Callable[[Answer, Request | None], bytes],
        decoder: Callable[[], StreamDecoder],
        encoder: Callable[[str, bool, int, int], StreamEncoder],
    ) -> None:
        self.name: str = name
        self.decode_request: Callable[[bytes], Request] = decode_request
        """Raises Unmappable for what makes no sense in the dialect."""
        self.encode_request: Callable[[Request, Losses, int], bytes] = encode_request
        """Of a request, its losses, and the max_tokens of a target that must be told. Raises Unmappable."""
        self.decode_answer: Callable[[bytes], Answer] = decode_answer
        """Raises ValueError if it is none."""
        self.encode_answer: Callable[[Answer, Request | None], bytes] = encode_answer
        self.decoder: Callable[[], StreamDecoder] = decoder
        self.encoder: Callable[[str, bool, int, int], StreamEncoder] = encoder
        """Of model, wants_usage, input_tokens, created."""


def _no_client_request(body: bytes) -> Request:
    raise NotImplementedError("no client speaks this dialect")


def _no_client_answer(answer: Answer, request: Request | None) -> bytes:
    raise NotImplementedError("no client speaks this dialect")


def _no_client_stream(model: str, wants_usage: bool, input_tokens: int, created: int) -> StreamEncoder:
    raise NotImplementedError("no client speaks this dialect")


def _no_provider_request(request: Request, losses: Losses, max_tokens: int) -> bytes:
    raise NotImplementedError("no provider speaks this dialect")


def _no_provider_answer(body: bytes) -> Answer:
    raise NotImplementedError("no provider speaks this dialect")


def _no_provider_stream() -> StreamDecoder:
    raise NotImplementedError("no provider speaks this dialect")


_ROWS: Final = (
    Dialect(
        OPENAI,
        openai_chat.decode_request,
        openai_chat.encode_request,
        openai_chat.decode_answer,
        openai_chat.encode_answer,
        openai_chat.StreamDecoder,
        openai_chat.StreamEncoder,
    ),
    Dialect(
        ANTHROPIC,
        anthropic.decode_request,
        anthropic.encode_request,
        anthropic.decode_answer,
        anthropic.encode_answer,
        anthropic.StreamDecoder,
        anthropic.StreamEncoder,
    ),
    Dialect(
        RESPONSES,
        responses.decode_request,
        _no_provider_request,
        _no_provider_answer,
        responses.encode_answer,
        _no_provider_stream,
        responses.StreamEncoder,
    ),
    Dialect(
        GEMINI,
        _no_client_request,
        gemini.encode_request,
        gemini.decode_answer,
        _no_client_answer,
        gemini.StreamDecoder,
        _no_client_stream,
    ),
)

DIALECTS: Final[dict[str, Dialect]] = {row.name: row for row in _ROWS}
