"""Anthropic messages."""

from edgeq.llm.dialects.anthropic_answer import decode_answer as decode_answer
from edgeq.llm.dialects.anthropic_answer import encode_answer as encode_answer
from edgeq.llm.dialects.anthropic_request import decode_request as decode_request
from edgeq.llm.dialects.anthropic_request import encode_request as encode_request
from edgeq.llm.dialects.anthropic_stream import AnthropicStreamDecoder as StreamDecoder
from edgeq.llm.dialects.anthropic_stream import AnthropicStreamEncoder as StreamEncoder

__all__ = [
    "StreamDecoder",
    "StreamEncoder",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_request",
]
