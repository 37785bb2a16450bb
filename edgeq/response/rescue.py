"""The only place that chooses a status: from a reason to the answer that a client gets (RFC 9457, RFC 9209)."""

from __future__ import annotations

import json
import time
from typing import Final

from edgeq.reasons import REASONS

_PHRASES: Final[dict[int, str]] = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
RETRY_AFTER_S: Final = 1


def refusal(
    reason: str, resource: str, detail: str, request_id: bytes, node: bytes, keep_alive: bool, head_only: bool
) -> bytes:
    """The whole answer for a refused or failed request.

    Args: reason is a token with a status in `edgeq.reasons`; resource names what refused; detail is a sentence;
    request_id may be empty; node is this gateway's pseudonym; head_only for HEAD.
    """
    row = REASONS[reason]
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": row.title,
        "status": row.status,
        "detail": detail or row.hint,
        "reason": reason,
        "resource": resource,
    }
    if request_id:
        problem["request_id"] = request_id.decode("latin-1")
    name = node.decode("latin-1")
    if not name[:1].isalpha():
        name = (
            f'"{name}"'  # a structured field's token begins with a letter (RFC 8941 3.3.4), a container's name may not
        )
    body = json.dumps(problem, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {row.status} {_PHRASES[row.status]}",
        time.strftime("date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        f"proxy-status: {name}; error={row.proxy_status}; edgeq-reason={reason}",
    ]
    if row.retry:
        lines.append(f"retry-after: {RETRY_AFTER_S}")
    if row.status == 405:
        lines.append("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    if request_id:
        lines.append(f"x-request-id: {request_id.decode('latin-1')}")
    lines.append("connection: keep-alive" if keep_alive else "connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body


def options_answer(request_id: bytes, keep_alive: bool) -> bytes:
    """The answer to OPTIONS that must not travel further (Max-Forwards: 0, RFC 9110 7.6.2)."""
    return (
        b"HTTP/1.1 200 OK\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\ncontent-length: 0\r\nx-request-id: "
        + request_id
        + (b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
    )
