"""Errors: Failed <-> the shapes of the dialects, as the body of an answer and within a stream.

    OpenAI      {"error": {"message", "type", "param", "code"}}; within a stream the same as data, then no [DONE]
    Anthropic   {"type": "error", "error": {"type", "message"}, "request_id"}; within a stream an event "error"
    Gemini      {"error": {"code", "message", "status", "details"}}, of a stream perhaps in a list

Source: shared reference, llm.md 4.4; docs.claude.com/en/api/errors; google.rpc.Code. Compatible servers are less exact:
{"error": "text"} (Ollama), {"object": "error", "message"} (vLLM, Mistral), {"detail": ..} (FastAPI): all are read.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.dialects.base import ANTHROPIC, GEMINI, RESPONSES, known_object
from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    BROKEN,
    FAILURE,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    TIMEOUT,
    TOO_LARGE,
    Event,
    Failed,
)
from edgeq.llm.redact import without_keys

_STATUSES: Final[dict[str, int]] = {
    INVALID: 400,
    AUTHENTICATION: 401,
    BILLING: 429,
    PERMISSION: 403,
    NOT_FOUND: 404,
    TOO_LARGE: 413,
    RATE: 429,
    OVERLOADED: 503,
    TIMEOUT: 504,
    INTERNAL: 500,
    BROKEN: 502,
}
_ANTHROPIC_STATUSES: Final[dict[str, int]] = {BILLING: 402, OVERLOADED: 529}
_STATUS_FREE: Final = frozenset((INVALID, INTERNAL))
"""Kinds that several statuses belong to: Failed.status says which."""

_KINDS_BY_STATUS: Final[dict[int, str]] = {
    401: AUTHENTICATION,
    402: BILLING,
    403: PERMISSION,
    404: NOT_FOUND,
    408: TIMEOUT,
    413: TOO_LARGE,
    429: RATE,
    503: OVERLOADED,
    504: TIMEOUT,
    529: OVERLOADED,
}

_OPENAI_TYPES: Final[dict[str, str]] = {
    INVALID: "invalid_request_error",
    AUTHENTICATION: "authentication_error",
    BILLING: "insufficient_quota",
    PERMISSION: "permission_error",
    NOT_FOUND: "not_found_error",
    TOO_LARGE: "invalid_request_error",
    RATE: "rate_limit_error",
    OVERLOADED: "server_error",
    TIMEOUT: "server_error",
    INTERNAL: "server_error",
    BROKEN: "server_error",
}
_ANTHROPIC_TYPES: Final[dict[str, str]] = {
    INVALID: "invalid_request_error",
    AUTHENTICATION: "authentication_error",
    BILLING: "billing_error",
    PERMISSION: "permission_error",
    NOT_FOUND: "not_found_error",
    TOO_LARGE: "request_too_large",
    RATE: "rate_limit_error",
    OVERLOADED: "overloaded_error",
    TIMEOUT: "timeout_error",
    INTERNAL: "api_error",
    BROKEN: "api_error",
}
_GEMINI_STATUSES: Final[dict[str, str]] = {
    INVALID: "INVALID_ARGUMENT",
    AUTHENTICATION: "UNAUTHENTICATED",
    BILLING: "RESOURCE_EXHAUSTED",
    PERMISSION: "PERMISSION_DENIED",
    NOT_FOUND: "NOT_FOUND",
    TOO_LARGE: "INVALID_ARGUMENT",
    RATE: "RESOURCE_EXHAUSTED",
    OVERLOADED: "UNAVAILABLE",
    TIMEOUT: "DEADLINE_EXCEEDED",
    INTERNAL: "INTERNAL",
    BROKEN: "INTERNAL",
}

TOO_LONG: Final = "context_length_exceeded"
"""OpenAI's code of a request for which the window of the model is too small, here of all providers."""
_KINDS_BY_WORD: Final[dict[str, str]] = {
    # Types and codes of OpenAI and who follows it.
    "invalid_api_key": AUTHENTICATION,
    "insufficient_quota": BILLING,
    "billing_hard_limit_reached": BILLING,
    "model_not_found": NOT_FOUND,
    "rate_limit_exceeded": RATE,
    "requests": RATE,
    "tokens": RATE,
    "overloaded": OVERLOADED,
    "engine_overloaded": OVERLOADED,
    TOO_LONG: INVALID,
    # Anthropic's types, some of them OpenAI's, too.
    "invalid_request_error": INVALID,
    "authentication_error": AUTHENTICATION,
    "billing_error": BILLING,
    "permission_error": PERMISSION,
    "not_found_error": NOT_FOUND,
    "request_too_large": TOO_LARGE,
    "rate_limit_error": RATE,
    "overloaded_error": OVERLOADED,
    "timeout_error": TIMEOUT,
    "api_error": INTERNAL,
    "server_error": INTERNAL,
    # Google's statuses.
    "INVALID_ARGUMENT": INVALID,
    "FAILED_PRECONDITION": INVALID,
    "OUT_OF_RANGE": INVALID,
    "UNAUTHENTICATED": AUTHENTICATION,
    "PERMISSION_DENIED": PERMISSION,
    "NOT_FOUND": NOT_FOUND,
    "RESOURCE_EXHAUSTED": RATE,
    "UNAVAILABLE": OVERLOADED,
    "DEADLINE_EXCEEDED": TIMEOUT,
    "INTERNAL": INTERNAL,
}

_SAY_TOO_LONG: Final = (
    "prompt is too long",
    "exceed context limit",
    "maximum context length",
    "exceeds the maximum number of",
    "exceeds the available context size",
    "longer than the model's context length",
)
"""How providers without a code for it say the same: Anthropic, vLLM, Gemini, llama.cpp, SGLang."""

_NO_CREDIT: Final = "credit balance is too low"
"""Anthropic says it with a status of 400, though it is about our account and not about the request."""
_WRONG_KEY: Final = "API_KEY_INVALID"
"""Of a google.rpc.ErrorInfo: Gemini says 400 of a key that it does not know."""


def status_of(dialect: str, failed: Failed) -> int:
    """The status with which a client of the dialect is told: 529 is only Anthropic's, and 402 nobody else's habit."""
    if failed.kind in _STATUS_FREE and failed.status >= 400:
        return failed.status
    if dialect == ANTHROPIC and failed.kind in _ANTHROPIC_STATUSES:
        return _ANTHROPIC_STATUSES[failed.kind]
    return _STATUSES[failed.kind]


def encode_error(dialect: str, failed: Failed, request_id: str) -> bytes:
    """The body of an answer. Args: request_id may be empty."""
    if dialect == ANTHROPIC:
        error: dict[str, Any] = {"type": _ANTHROPIC_TYPES[failed.kind], "message": failed.message}
        if failed.details:
            error["details"] = orjson.Fragment(failed.details)
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id or None})
    if dialect == GEMINI:
        status = _GEMINI_STATUSES[failed.kind]
        return orjson.dumps(
            {"error": {"code": status_of(dialect, failed), "message": failed.message, "status": status}}
        )
    return orjson.dumps({"error": _openai_error(failed)})


def encode_stream_error(dialect: str, failed: Failed, request_id: str) -> bytes:
    """The last event of a stream that has failed."""
    if dialect == ANTHROPIC:
        return b"event: error\ndata: " + encode_error(dialect, failed, request_id) + b"\n\n"
    if dialect == RESPONSES:
        event = {"type": "error", "sequence_number": 0, **responses_error(failed)}
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"
    return b"data: " + encode_error(dialect, failed, request_id) + b"\n\n"


def responses_error(failed: Failed) -> dict[str, Any]:
    """The event "error" of a stream of responses, without its type and number.

    The SDKs pass on an event of this type like any other, and raise only at one with an `error`: a cut answer must not
    be taken for a whole one.
    """
    error = _openai_error(failed)
    return {"code": error["code"], "message": error["message"], "param": error["param"], "error": error}


def encode_failure(dialect: str, event: Event, request_id: str) -> bytes:
    """The same of a FAILURE."""
    kind = event.name if event.name in _STATUSES else INTERNAL
    return encode_stream_error(dialect, Failed(_STATUSES[kind], kind, event.text), request_id)


def failure(kind: str, message: str) -> Event:
    """A FAILURE."""
    event = Event(FAILURE, text=message)
    event.name = kind
    return event


def _openai_error(failed: Failed) -> dict[str, Any]:
    word = failed.unit if failed.kind == RATE and failed.unit else _OPENAI_TYPES[failed.kind]
    return {"message": failed.message, "type": word, "param": failed.param or None, "code": failed.code or None}


def failed_within(kind: str, message: str) -> Failed:
    """An error that a provider has told within its stream."""
    return Failed(_STATUSES.get(kind, 500), kind, message, is_within=True)


def decode_error(dialect: str, status: int, body: bytes) -> Failed:
    """What a provider says in an answer with an error's status."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        # A proxy's page in HTML, or nothing: it says less than the status, and is nobody's business.
        return Failed(status, kind_of(status), "")
    if isinstance(said, list) and said:
        said = said[0]
    whole = known_object(said)
    if whole is None:
        return Failed(status, kind_of(status), "")
    return decode_error_object(dialect, status, whole.get("error") or whole.get("detail") or whole)


def decode_error_object(dialect: str, status: int, said: Any) -> Failed:
    """The `error` of an answer, or of an event in a stream. Args: status 0: it came within an answer of 200."""
    error = known_object(said)
    is_within = status == 0
    if error is None:
        return Failed(status or 500, kind_of(status), _text(said), is_within=is_within)
    word = _text(error.get("status" if dialect == GEMINI else "type"))
    code = error.get("code")
    if not status and isinstance(code, int) and 400 <= code < 600:
        status = code
    named = code if isinstance(code, str) else ""
    kind = _KINDS_BY_WORD.get(named) or _KINDS_BY_WORD.get(word, "")
    known = _KINDS_BY_STATUS.get(status, "")
    if not kind or (kind in _STATUS_FREE and known):
        # OpenAI says invalid_request_error of a wrong key, too: there the status is the better word.
        kind = known or kind or kind_of(status)
    message = _text(error.get("message")) or _text(error.get("msg"))
    if kind == INVALID and _NO_CREDIT in message:
        kind = BILLING
    failed = Failed(status or _STATUSES[kind], kind, message, named, _text(error.get("param")), is_within=is_within)
    if dialect == ANTHROPIC:
        failed.details = _details(error.get("details"))
    if dialect == GEMINI and kind == INVALID and _WRONG_KEY in _text(error.get("details")):
        failed.kind = AUTHENTICATION
    if kind == RATE and word in ("requests", "tokens"):
        failed.unit = word
    if kind == INVALID and not failed.code and any(words in message for words in _SAY_TOO_LONG):
        failed.code = TOO_LONG
    return failed


def _details(said: object) -> str:
    """As JSON; empty if there are none, or if they are none any more without their keys."""
    text = _text(said) if isinstance(said, dict) else ""
    try:
        return text if isinstance(orjson.loads(text), dict) else ""
    except orjson.JSONDecodeError:
        return ""


def _text(said: object) -> str:
    """What a provider says, as a text; empty for nothing, and for what is nested too deeply to be told. Keys are
    masked: some providers repeat the one that they were given, which is ours."""
    if not said:
        return ""
    if isinstance(said, str):
        return without_keys(said)
    try:
        return without_keys(orjson.dumps(said).decode())
    except TypeError:
        return ""


def kind_of(status: int) -> str:
    """What a status says by itself. 0: there is none."""
    known = _KINDS_BY_STATUS.get(status)
    if known is not None:
        return known
    return INVALID if 400 <= status < 500 else INTERNAL
