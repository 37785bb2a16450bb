"""OpenAI's responses: only clients speak it, so that requests are read and answers are written."""

from __future__ import annotations

from edgeq.llm.dialects.responses_answer import encode_answer
from edgeq.llm.dialects.responses_request import decode_request
from edgeq.llm.dialects.responses_stream import ResponsesStreamEncoder as StreamEncoder

__all__ = ["StreamEncoder", "decode_request", "encode_answer"]
