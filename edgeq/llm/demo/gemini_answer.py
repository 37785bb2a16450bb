"""Google's Gemini, answered: whole, as a stream, embeddings, and errors."""

from __future__ import annotations

from typing import Final

from edgeq.llm.demo.behaviour import Behaviour
from edgeq.llm.demo.checks import Json, a_count, a_list, a_text, an_object, count_tokens, names
from edgeq.llm.demo.content import Ask, Content
from edgeq.llm.demo.embeddings import vector
from edgeq.llm.demo.frames import Frame, data
from edgeq.llm.demo.gemini import plain
from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    STOP_LENGTH,
    STOP_REFUSAL,
    TIMEOUT,
    TOO_LARGE,
    Failed,
)

WRONG_KEY: Final = "API_KEY_INVALID"
"""Code of a refusal, of which only `details` tell that it is about the key: the status is that of a bad request."""
_STOPS: Final = {STOP_LENGTH: "MAX_TOKENS", STOP_REFUSAL: "SAFETY"}
_STATUSES: Final = {
    INVALID: (400, "INVALID_ARGUMENT"),
    AUTHENTICATION: (401, "UNAUTHENTICATED"),
    BILLING: (429, "RESOURCE_EXHAUSTED"),
    PERMISSION: (403, "PERMISSION_DENIED"),
    NOT_FOUND: (404, "NOT_FOUND"),
    TOO_LARGE: (413, "INVALID_ARGUMENT"),
    RATE: (429, "RESOURCE_EXHAUSTED"),
    OVERLOADED: (503, "UNAVAILABLE"),
    TIMEOUT: (504, "DEADLINE_EXCEEDED"),
    INTERNAL: (500, "INTERNAL"),
}


def usage(content: Content) -> Json:
    """The tokens of an answer; thoughts are counted apart from candidates."""
    found: Json = {
        "promptTokenCount": content.input_tokens,
        "candidatesTokenCount": content.output_tokens - content.reasoning_tokens,
        "totalTokenCount": content.input_tokens + content.output_tokens,
    }
    if content.cached:
        found["cachedContentTokenCount"] = content.cached
    if content.reasoning_tokens:
        found["thoughtsTokenCount"] = content.reasoning_tokens
    return found


def whole(ask: Ask, content: Content, behaviour: Behaviour) -> Json:
    """The body of an answer that is no stream."""
    parts: list[Json] = []
    if content.thoughts:
        parts.append({"text": content.thought, "thought": True})
    if content.words:
        parts.append({"text": content.text})
    parts += _calls(content)
    return _chunk(ask, content, behaviour, parts, last=True)


def events(ask: Ask, content: Content, behaviour: Behaviour) -> list[Frame]:
    """The events of a stream with alt=sse. There is no end but the end of the body; calls come whole."""
    pieces: list[list[Json]] = [[{"text": word, "thought": True}] for word in content.thoughts]
    pieces += [[{"text": word}] for word in content.words]
    pieces += [[call] for call in _calls(content)]
    if not pieces:
        pieces.append([{"text": ""}])
    end = len(pieces) - 1
    return [data(_chunk(ask, content, behaviour, parts, index == end), True) for index, parts in enumerate(pieces)]


def _calls(content: Content) -> list[Json]:
    return [
        {"functionCall": {"name": call.name, "args": call.arguments}, "thoughtSignature": f"c2ln{content.key}"}
        for call in content.calls
    ]


def _chunk(ask: Ask, content: Content, behaviour: Behaviour, parts: list[Json], last: bool) -> Json:
    candidates: list[Json] = []
    for index in range(ask.choices):
        candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
        if last:
            candidate["finishReason"] = _STOPS.get(content.stop, "STOP")
        candidates.append(candidate)
    chunk: Json = {"candidates": candidates, "modelVersion": ask.model, "responseId": content.key}
    if behaviour.usage != "off":
        told = usage(content)
        if not last:  # the output so far is a guess, as it is there
            told = {"promptTokenCount": content.input_tokens, "totalTokenCount": content.input_tokens}
        chunk["usageMetadata"] = told
    return chunk


def array(frames: list[Frame]) -> list[Frame]:
    """The same events as one JSON array: what is sent without alt=sse."""
    found = [((b",\r\n" if index else b"[") + data[6:-2], token) for index, (data, token) in enumerate(frames)]
    return [*found, (b"]" if found else b"[]", False)]


def embed(body: Json, model: str) -> tuple[Ask, Json]:
    """embedContent: the request, and its whole answer."""
    known = plain(body, names("content model taskType title outputDimensionality config"), "")
    size = a_count(known, "outputDimensionality") or 768
    text = _text(known.get("content"))
    return Ask(model, input_tokens=count_tokens(text)), {"embedding": {"values": vector(text, size)}}


def embed_batch(body: Json, model: str) -> tuple[Ask, Json]:
    """batchEmbedContents."""
    tokens, found = 0, []
    for each in a_list(plain(body, names("requests"), "").get("requests"), "requests", 1):
        ask, answer = embed(an_object(each, "requests"), model)
        tokens += ask.input_tokens
        found.append(answer["embedding"])
    return Ask(model, input_tokens=tokens), {"embeddings": found}


def _text(content: object) -> str:
    parts = a_list(an_object(content, "content").get("parts"), "content.parts", 1)
    return " ".join(a_text(an_object(part, "content.parts").get("text"), "content.parts.text") for part in parts)


def error_object(failed: Failed, retry_after_s: float) -> Json:
    """{"error": {...}}: body of a refusal, and event of a stream. When to come again stands in it."""
    status, name = _STATUSES[failed.kind]
    error: Json = {"code": failed.status or status, "message": failed.message, "status": name}
    if failed.kind == RATE and retry_after_s:
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{retry_after_s:.3f}".rstrip("0").rstrip(".") + "s",
            }
        ]
    if failed.code == WRONG_KEY:
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": WRONG_KEY,
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        ]
    return {"error": error}
