"""Errors as OpenAI words them; vLLM and the many that are compatible do the same."""

from __future__ import annotations

from typing import Final

import orjson

from edgeq.llm.message import (
    AUTHENTICATION,
    BILLING,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    OVERLOADED,
    PERMISSION,
    RATE,
    TIMEOUT,
    TOO_LARGE,
    Failed,
)

_TYPES: Final = {
    INVALID: "invalid_request_error",
    AUTHENTICATION: "invalid_request_error",
    BILLING: "insufficient_quota",
    PERMISSION: "invalid_request_error",
    NOT_FOUND: "invalid_request_error",
    TOO_LARGE: "invalid_request_error",
    RATE: "tokens",
    OVERLOADED: "server_error",
    TIMEOUT: "server_error",
    INTERNAL: "server_error",
}
_CODES: Final = {
    AUTHENTICATION: "invalid_api_key",
    BILLING: "insufficient_quota",
    NOT_FOUND: "model_not_found",
    RATE: "rate_limit_exceeded",
}


def error_object(failed: Failed) -> dict[str, object]:
    """{"error": {...}}."""
    kind = _TYPES[failed.kind]
    if failed.kind == RATE and failed.param in ("requests", "tokens"):
        kind = failed.param  # what is short
    code = failed.code or _CODES.get(failed.kind) or None
    param = failed.param if failed.kind == INVALID else ""
    return {"error": {"message": failed.message, "type": kind, "param": param or None, "code": code}}


def error_body(failed: Failed) -> bytes:
    """The whole body of a refusal."""
    return orjson.dumps(error_object(failed), option=orjson.OPT_INDENT_2)
