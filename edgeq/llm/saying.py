"""How edgeq speaks for itself to a client of a dialect: its refusals' kinds and statuses, and the heads of answers."""

from __future__ import annotations

from typing import Final

from edgeq.llm import message
from edgeq.llm.message import Failed
from edgeq.reasons import REASONS
from edgeq.response.rescue import date_line

_KINDS: Final[dict[int, str]] = {
    400: message.INVALID,
    401: message.AUTHENTICATION,
    402: message.BILLING,
    403: message.PERMISSION,
    404: message.NOT_FOUND,
    405: message.INVALID,
    408: message.TIMEOUT,
    413: message.TOO_LARGE,
    429: message.RATE,
    500: message.INTERNAL,
    502: message.INTERNAL,
    503: message.OVERLOADED,
    504: message.TIMEOUT,
}
_BILLING: Final = frozenset(("budget_exhausted",))
"""429 by their row: OpenAI's clients know an exhausted budget so; Anthropic's know 402."""
_STREAM: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_PHRASES: Final[dict[int, bytes]] = {200: b"200 OK"}


def failed_of(reason: str, detail: str, param: str) -> Failed:
    """A refusal of edgeq's own, in no dialect."""
    row = REASONS[reason]
    kind = message.BILLING if reason in _BILLING else _KINDS.get(row.status, message.INVALID)
    return Failed(row.status, kind, detail or row.hint, reason, param)


def answer_start(status: int, length: int, extra: bytes, keep_alive: bool, minor: int, request_id: bytes) -> bytes:
    """The head of an answer, with its empty line. `length`: bytes of a JSON body; -1: a stream of events follows."""
    first = b"HTTP/1.1 " + (_PHRASES.get(status) or b"%d " % status)
    if length >= 0:
        kind = b"content-type: application/json\r\ncontent-length: %d\r\n" % length
    elif minor:
        kind = _STREAM + b"transfer-encoding: chunked\r\n"
    else:
        kind = _STREAM
    if not keep_alive:
        kept = b"connection: close\r\n"
    else:
        kept = b"" if minor else b"connection: keep-alive\r\n"
    return b"".join(
        (first, b"\r\n", date_line().encode("ascii"), kind, kept, extra, b"x-request-id: ", request_id, b"\r\n\r\n")
    )
