"""The only place that chooses a status: from a reason to the answer that a client gets (RFC 9457, RFC 9209).

An answer says the same thing three times, for who reads it: the status and Retry-After for clients, Proxy-Status for
gateways and tools between, a problem document for people and programs.

Under overload most answers are made here, so they are put together from text without an encoder in between; only the
parts that differ are made for each.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from math import ceil
from typing import TYPE_CHECKING, Final

from edgeq.reasons import REASONS
from edgeq.wire.date import date_line

if TYPE_CHECKING:
    from edgeq.policy.fallback import PreparedAnswer

_PHRASES: Final[dict[int, str]] = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    409: "Conflict",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Overloaded",
    505: "HTTP Version Not Supported",
}
UNKNOWN: Final = -1.0
"""Who refuses cannot tell when it would not."""
DEFAULT_RETRY_AFTER_S: Final = 1
MAX_RETRY_AFTER_S: Final = 60
"""Of an estimate. A moment that is known is told however far it is."""
_LASTING: Final = frozenset(("budget_exhausted_shared", "not_cached", "answer_too_large"))
"""They last until the day ends, somebody else asks, or less is asked for: by their status alone SDKs would come again
at once."""
_MAX_DETAILS: Final = 200


def refusal(
    reason: str,
    resource: str,
    detail: str,
    request_id: bytes,
    node: bytes,
    keep_alive: bool,
    head_only: bool,
    retry_after_s: float = UNKNOWN,
    policy: str = "",
    extra: bytes = b"",
) -> bytes:
    """The whole answer for a refused or failed request.

    Args: reason is a token with a status in `edgeq.reasons`; resource names what refused, or is empty if clients are
    not told; detail is a sentence, or nothing for the reason's own; request_id may be empty; node is this gateway's
    pseudonym; head_only for HEAD; retry_after_s is when the refusal would end, in seconds from now, for reasons that
    have a Retry-After (UNKNOWN: the shortest); policy is the quota that was violated, for reasons that are about one;
    extra are further header lines, each with its CRLF.
    Raises: KeyError for a token that is not in the table, or has no status.
    """
    row = REASONS[reason]
    status = row.status
    kind = row.retry_after
    detail = detail or row.told()
    identity = request_id.decode("latin-1")
    text = (
        f'{{"type":"{row.problem}","title":{encode_basestring_ascii(row.title)},"status":{status},'
        f'"detail":{encode_basestring_ascii(detail)},"reason":"{reason}"'
    )
    if resource:
        text += f',"resource":{encode_basestring_ascii(resource)}'
    if kind != "none":
        text += f',"retry_after_ms":{_wait_ms(kind, retry_after_s)}'
    if policy:
        text += f',"violated-policies":[{encode_basestring_ascii(policy)}]'
    if identity:
        text += f',"request_id":{encode_basestring_ascii(identity)}'
    body = f"{text}}}\n".encode("ascii")
    head = _head(status, "application/problem+json", len(body), reason, resource, detail, node)
    if kind != "none":
        head += f"retry-after: {_wait_s(kind, retry_after_s)}\r\n"
    if status == 405:
        head += "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    return _whole(head, request_id, extra, keep_alive, b"" if head_only else body)


def prepared(
    answer: PreparedAnswer,
    reason: str,
    resource: str,
    detail: str,
    request_id: bytes,
    node: bytes,
    keep_alive: bool,
    head_only: bool,
    retry_after_s: float = UNKNOWN,
    extra: bytes = b"",
) -> bytes:
    """The answer that a route has prepared for a refusal; it says in its head what it stands for. Arguments are those
    of `refusal`."""
    row = REASONS[reason]
    status = answer.status
    head = _head(
        status, answer.content_type, len(answer.body), reason, resource, detail, node, '; edgeq-fallback="answer"'
    )
    if row.retry_after != "none" and status in (429, 503):
        head += f"retry-after: {_wait_s(row.retry_after, retry_after_s)}\r\n"
    return _whole(head, request_id, extra, keep_alive, b"" if head_only else answer.body)


def spoken(
    status: int,
    body: bytes,
    reason: str,
    resource: str,
    detail: str,
    request_id: bytes,
    node: bytes,
    keep_alive: bool,
    head_only: bool,
    retry_after_s: float = UNKNOWN,
    extra: bytes = b"",
) -> bytes:
    """A refusal whose body is in the words of an API that the client speaks, as JSON; its head says what `refusal`
    would. Arguments are those of `refusal`, and the status, which such an API may have another one for.

    The official SDKs of OpenAI and Anthropic ask three fields: x-should-retry whether to come again, retry-after-ms and
    then retry-after when; and they keep to no wait above 60 s, so for a longer one they are told not to.
    """
    row = REASONS[reason]
    kind = row.retry_after
    head = _head(status, "application/json", len(body), reason, resource, detail, node)
    if kind != "none" and retry_after_s <= MAX_RETRY_AFTER_S:
        head += f"retry-after: {_wait_s(kind, retry_after_s)}\r\nretry-after-ms: {_wait_ms(kind, retry_after_s)}\r\n"
        head += "x-should-retry: true\r\n"
    elif kind != "none" or row.status < 500 or reason in _LASTING:
        head += "x-should-retry: false\r\n"
    return _whole(head, request_id, extra, keep_alive, b"" if head_only else body)


def _head(
    status: int, content_type: str, size: int, reason: str, resource: str, detail: str, node: bytes, told: str = ""
) -> str:
    """Field lines that all these answers have. `told`: more for Proxy-Status."""
    row = REASONS[reason]
    error = f"; error={row.proxy_status}" if row.proxy_status else ""
    return (
        f"{status_line(status)}{date_line().decode()}content-type: {content_type}\r\ncontent-length: {size}\r\n"
        f"cache-control: no-store\r\n"
        f"proxy-status: {pseudonym(node)}{error}; details={_details(detail or row.told())}; edgeq-reason={reason}"
        f"{_resource(resource)}{told}\r\n"
    )


def _whole(head: str, request_id: bytes, extra: bytes, keep_alive: bool, body: bytes) -> bytes:
    identity = b"x-request-id: " + request_id + b"\r\n" if request_id else b""
    last = b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n"
    return head.encode("latin-1") + identity + extra + last + body


def proxy_status_line(node: bytes, reason: str, resource: str, served: str) -> bytes:
    """The field line that tells, on a good answer, why it is not the one that was asked for. Without `error`: that is
    for answers which a gateway has made because of one (RFC 9209 2.1.1)."""
    return (
        f"proxy-status: {pseudonym(node)}; edgeq-reason={reason}{_resource(resource)}; "
        f"edgeq-fallback={_details(served)}\r\n"
    ).encode("latin-1")


def _resource(resource: str) -> str:
    return f"; edgeq-resource={_details(resource)}" if resource else ""


def _wait_s(kind: str, retry_after_s: float) -> int:
    """Whole seconds for Retry-After, rounded up: who comes at that moment is not refused for the same cause again."""
    if retry_after_s < 0.0:
        return DEFAULT_RETRY_AFTER_S
    wait_s = ceil(retry_after_s)
    if wait_s < 1:
        return 1
    return MAX_RETRY_AFTER_S if kind != "exact" and wait_s > MAX_RETRY_AFTER_S else wait_s


def _wait_ms(kind: str, retry_after_s: float) -> int:
    """The same for programs that know milliseconds; Retry-After has whole seconds only (RFC 9110 10.2.3)."""
    if retry_after_s <= 0.0:
        return _wait_s(kind, retry_after_s) * 1000
    wait_ms = ceil(retry_after_s * 1000)
    return wait_ms if kind == "exact" else min(wait_ms, MAX_RETRY_AFTER_S * 1000)


def status_line(status: int) -> str:
    """With its CRLF."""
    return f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n"


def pseudonym(node: bytes) -> str:
    """A structured field's token begins with a letter (RFC 8941 3.3.4), a container's name may not."""
    name = node.decode("latin-1")
    return name if name[:1].isalpha() else f'"{name}"'


def _details(text: str) -> str:
    """A structured field's string (RFC 8941 3.3.3): printable ASCII. What a peer sent may be part of `text`."""
    if len(text) > _MAX_DETAILS:
        text = text[:_MAX_DETAILS]
    if not text.isascii() or not text.isprintable():
        text = "".join([char if " " <= char <= "~" else "?" for char in text])
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def options_answer(request_id: bytes, keep_alive: bool) -> bytes:
    """The answer to OPTIONS that must not travel further (Max-Forwards: 0, RFC 9110 7.6.2)."""
    return (
        b"HTTP/1.1 200 OK\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\ncontent-length: 0\r\nx-request-id: "
        + request_id
        + (b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
    )
