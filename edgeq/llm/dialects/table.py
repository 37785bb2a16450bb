"""Every dialect by its name, and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.llm.dialects import anthropic, openai_chat
from edgeq.llm.dialects.base import ANTHROPIC, OPENAI

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
)

DIALECTS: Final[dict[str, Dialect]] = {row.name: row for row in _ROWS}
