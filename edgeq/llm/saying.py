"""How edgeq speaks for itself to a client of a dialect: its refusals' kinds and statuses, and the heads of answers."""

from __future__ import annotations

from typing import Final

from edgeq.llm.dialects.errors import kind_of
from edgeq.llm.message import BILLING, Failed
from edgeq.reasons import BLANK, REASONS
from edgeq.response.rescue import status_line
from edgeq.wire.date import date_line

_BILLING: Final = frozenset(("budget_exhausted",))
"""429 by their row: OpenAI's clients know an exhausted budget so; Anthropic's know 402."""
_UNTHREADED: Final = '{"error_code":"thread_unsupported_request","unsupported":["thread"]}'
"""By which Anthropic's SDK sends all of a conversation, where it may."""
_STREAM: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"


def failed_of(reason: str, detail: str, param: str) -> Failed:
    """A refusal of edgeq's own, in no dialect. Of one for load the detail is numbers: what of comes first."""
    row = REASONS[reason]
    if detail and row.fault != "U" and row.problem != BLANK:
        detail = f"{row.title}: {detail}"
    kind = BILLING if reason in _BILLING else kind_of(row.status)
    failed = Failed(row.status, kind, detail or row.says or f"{row.title}: {row.hint}", reason, param)
    if param == "thread" and reason == "model_request_invalid":
        failed.details = _UNTHREADED
    return failed


def answer_start(status: int, length: int, extra: bytes, keep_alive: bool, minor: int, request_id: bytes) -> bytes:
    """The head of an answer, with its empty line. `length`: bytes of a JSON body; -1: a stream of events follows."""
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
    first = status_line(status).encode("ascii") + date_line()
    return b"".join((first, kind, kept, extra, b"x-request-id: ", request_id, b"\r\n\r\n"))
