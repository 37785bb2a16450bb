"""What vLLM 0.32.0 has sent, with fewer tokens: as it passes, and as clients of other dialects get it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edgeq.llm.dialects import openai_chat
from edgeq.llm.dialects.errors import decode_error, encode_error
from edgeq.llm.message import DELTA, FINISH, INVALID, PART_START, STOP_LENGTH, STOP_TOOL, THINKING, TOOL_USE, Usage
from edgeq.llm.passing import PassThrough, usage_of

HEAD = b'data: {"id":"chatcmpl-b8d6","object":"chat.completion.chunk","created":1795845155,"model":"tiny","choices":'
FIRST = HEAD + (
    b'[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],%s'
    b'"prompt_token_ids":null,"prompt_text":null}\n\n'
)
CHUNK = HEAD + b'[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s,"token_ids":null}]%s}\n\n'
USED = (
    b'"usage":{"prompt_tokens":150,"total_tokens":153,"completion_tokens":3,"prompt_tokens_details":'
    b'{"cached_tokens":128,"created_cache_tokens":0,"multimodal_tokens":null},"completion_tokens_details":null}'
)
LAST = HEAD + b"[]," + USED + b',"system_fingerprint":"vllm-0.32.0-903ca2d9"}\n\n'
DONE = b"data: [DONE]\n\n"
CALL = b'{"content":null,"tool_calls":[{"id":"chatcmpl-tool-99","type":"function","index":0,"function":{"name":"f"}}]}'
ARGUMENTS = b'{"content":null,"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}'
ENDED = b'"tool_calls","stop_reason":null'
CALLS = (
    FIRST % b"",
    CHUNK % (CALL, b"null", b""),
    CHUNK % (ARGUMENTS % b'{\\"b\\":', b"null", b""),
    CHUNK % (ARGUMENTS % b" true}", b"null", b""),
    CHUNK % (b"{}", ENDED, b""),
)
_SOFAR = b'"usage":{"prompt_tokens":9,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":%s}'
SO_FAR = _SOFAR % (9, 0, b"null"), _SOFAR % (10, 1, b"null"), _SOFAR % (11, 2, b'{"reasoning_tokens":2}')
THOUGHTS = (  # continuous_usage_stats
    FIRST % (SO_FAR[0] + b","),
    CHUNK % (b'{"reasoning":"hm"}', b"null", b"," + SO_FAR[1]),
    CHUNK % (b'{"reasoning":", so"}', b'"length","stop_reason":null', b"," + SO_FAR[2]),
)
REFUSED = (
    b'data: {"error": {"message": "Grammar error: Invalid type: nonsense", "type": "BadRequestError", "param": null,'
    b' "code": 400}}\n\n'
)
DIED = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b' "type": "InternalServerError", "param": null, "code": 500}}\n\n'
)
TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 1024 tokens. However, your prompt contains at least'
    b" 1025 input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the"
    b' input prompt. (parameter=input_tokens, value=1025)","type":"BadRequestError","param":"input_tokens","code":400}}'
)


def test_a_call_passes() -> None:
    """Byte for byte but for the usage, which is learned."""
    passing = PassThrough("openai", True)
    assert b"".join(map(passing.feed, (*CALLS, LAST, DONE))) == b"".join((*CALLS, DONE))
    assert (passing.finished, passing.done, passing.usage) == (True, True, Usage(150, 3, 128))


def test_a_call_is_translated() -> None:
    """It begins without arguments, and all chunks tell a content of null."""
    events = openai_chat.StreamDecoder().feed(b"".join((*CALLS, LAST, DONE)))
    assert [(one.part, one.id, one.name) for one in events if one.kind == PART_START] == [
        (TOOL_USE, "chatcmpl-tool-99", "f")
    ]
    assert "".join(one.text for one in events if one.kind == DELTA) == '{"b": true}'
    assert (events[-1].kind, events[-1].stop, events[-1].usage) == (FINISH, STOP_TOOL, Usage(150, 3, 128))


def test_a_named_call_ends_by_stop() -> None:
    """So vLLM says of a whole answer to a `tool_choice` that names the tool."""
    call = {"id": "chatcmpl-tool-a6", "type": "function", "function": {"name": "f", "arguments": '{"b": false}'}}
    message = {"role": "assistant", "content": "", "refusal": None, "tool_calls": [call], "reasoning": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    body = orjson.dumps({"id": "chatcmpl-8d", "choices": [choice]})[:-1] + b"," + USED + b"}"
    answer = openai_chat.decode_answer(body)
    assert (answer.stop, [part.kind for part in answer.parts]) == (STOP_TOOL, [TOOL_USE])
    assert answer.usage == usage_of("openai", body) == Usage(150, 3, 128)


def test_thoughts_with_a_usage_in_each_chunk() -> None:
    """For who has asked for that they pass; the last usage counts, also where the stream is cut."""
    passing = PassThrough("openai", False)
    for chunk in THOUGHTS:
        assert passing.feed(chunk) == chunk
    assert (passing.begun, passing.finished, passing.usage) == (True, True, Usage(9, 2, 0, 0, 2))
    events = openai_chat.StreamDecoder().feed(b"".join((*THOUGHTS, DONE)))
    assert [(one.part, one.text) for one in events if one.kind == DELTA] == [(THINKING, "hm"), (THINKING, ", so")]
    assert (events[-1].stop, events[-1].usage) == (STOP_LENGTH, Usage(9, 2, 0, 0, 2))


@pytest.mark.parametrize(("told", "status"), [(REFUSED, 400), (DIED, 500)])
def test_an_error_instead_of_a_stream(told: bytes, status: int) -> None:
    """With a status of 200, and [DONE] after it: the client's own fault is told as such, and neither passes."""
    passing = PassThrough("openai", True)
    assert passing.feed(told + DONE) == b""
    assert passing.failed is not None
    assert (passing.failed.status, passing.failed.kind == INVALID) == (status, status == 400)


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
def test_a_prompt_that_is_too_long(dialect: str) -> None:
    """Its code is a number, which is no code of OpenAI's."""
    failed = decode_error("openai", 400, TOO_LONG)
    said: Any = orjson.loads(encode_error(dialect, failed, ""))["error"]
    assert said["type"] == "invalid_request_error"
    assert said.get("code", "context_length_exceeded") == "context_length_exceeded"
