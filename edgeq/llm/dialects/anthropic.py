"""Anthropic messages, and the count of their tokens."""

from edgeq.llm.dialects.anthropic_answer import decode_answer as decode_answer
from edgeq.llm.dialects.anthropic_answer import decode_count as decode_count
from edgeq.llm.dialects.anthropic_answer import encode_answer as encode_answer
from edgeq.llm.dialects.anthropic_answer import encode_count as encode_count
from edgeq.llm.dialects.anthropic_request import decode_request as decode_request
from edgeq.llm.dialects.anthropic_request import encode_count_request as encode_count_request
from edgeq.llm.dialects.anthropic_request import encode_request as encode_request
from edgeq.llm.dialects.anthropic_stream import AnthropicStreamDecoder as StreamDecoder
from edgeq.llm.dialects.anthropic_stream import AnthropicStreamEncoder as StreamEncoder

__all__ = [
    "StreamDecoder",
    "StreamEncoder",
    "decode_answer",
    "decode_count",
    "decode_request",
    "encode_answer",
    "encode_count",
    "encode_count_request",
    "encode_request",
]
