"""OpenAI chat completions, which most servers of models speak: Azure, vLLM, Ollama, llama.cpp, Groq, Mistral."""

from edgeq.llm.dialects.openai_answer import decode_answer as decode_answer
from edgeq.llm.dialects.openai_answer import encode_answer as encode_answer
from edgeq.llm.dialects.openai_request import decode_request as decode_request
from edgeq.llm.dialects.openai_request import encode_request as encode_request
from edgeq.llm.dialects.openai_stream import OpenAiStreamDecoder as StreamDecoder
from edgeq.llm.dialects.openai_stream import OpenAiStreamEncoder as StreamEncoder

__all__ = ["StreamDecoder", "StreamEncoder", "decode_answer", "decode_request", "encode_answer", "encode_request"]
