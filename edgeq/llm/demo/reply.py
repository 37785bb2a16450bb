"""An answer as the bytes to send: a head, and a body in the pieces and at the times at which it is sent.

A `Plan` is made once for a request and serves all like it; lines of the head that change (limits, ids) come later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from edgeq.llm.demo.behaviour import NEVER, Behaviour
from edgeq.llm.demo.frames import Frame
from edgeq.wire.framing import LAST_CHUNK, chunk

# What becomes of the connection after the last piece.
KEEP: Final = 0
CLOSE: Final = 1
RESET: Final = 2
HANG: Final = 3

_SPLIT_GAP_S: Final = 0.001
"""Between segments, so that they are segments: what is written at once is sent at once."""
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream; charset=utf-8"


@dataclass
class Plan:
    """How an answer is sent."""

    head: bytes
    """Without the empty line."""
    pieces: list[bytes]
    """With the framing of the body; the head goes before the first of them."""
    first_s: float = 0.0
    """Until the first piece."""
    gap_s: float = 0.0
    """Between pieces."""
    end: int = KEEP
    early: bool = False
    """The head does not wait for the first piece."""


def head(status: int, content_type: bytes, length: int, more: bytes = b"") -> bytes:
    """A head without its empty line; `length` -1: the body is chunked. `more`: lines with their ends."""
    framing = b"transfer-encoding: chunked" if length < 0 else b"content-length: %d" % length
    phrase = _PHRASES.get(status, "Error").encode()
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b\r\n%b" % (status, phrase, content_type, framing, more)


def plain(status: int, body: bytes, content_type: bytes = JSON, more: bytes = b"") -> Plan:
    """An answer that is just sent."""
    return Plan(head(status, content_type, len(body), more), [body])


def whole(body: bytes, behaviour: Behaviour, output_tokens: int, more: bytes) -> Plan:
    """An answer that is no stream: when all of it has been made."""
    plan = plain(200, body, more=more)
    plan.first_s = behaviour.latency + (output_tokens / behaviour.rate if behaviour.rate else 0.0)
    plan.early = behaviour.early
    if behaviour.hang == 0:
        plan.pieces, plan.end = [], HANG
    elif behaviour.hang > 0 or behaviour.cut != NEVER or behaviour.reset != NEVER:
        plan.pieces = [body[: len(body) // 2]]
        plan.end = _ending(behaviour)
    return _split(plan, behaviour)


def stream(
    frames: list[Frame], behaviour: Behaviour, failure: Callable[[int], Frame], content_type: bytes, more: bytes
) -> Plan:
    """A stream of events. `failure`: the event of an error, by its number, for `fail`."""
    limits = [each for each in (behaviour.fail, behaviour.cut, behaviour.reset, behaviour.hang) if each != NEVER]
    broken = bool(limits) and min(limits) <= len(frames)
    if broken:
        frames = frames[: min(limits)]
        if behaviour.fail == min(limits):
            frames = [*frames, failure(len(frames))]
    end = _ending(behaviour) if broken and behaviour.fail != min(limits) else KEEP
    plan = Plan(head(200, content_type, -1, more), [], behaviour.latency, early=behaviour.early, end=end)
    plan.gap_s = 1 / behaviour.rate if behaviour.rate else 0.0
    if end == HANG and not frames:
        return plan
    plan.pieces = _paced(frames, behaviour)
    if end == KEEP:
        plan.pieces[-1] += LAST_CHUNK
    return _split(plan, behaviour)


def _ending(behaviour: Behaviour) -> int:
    ends = ((behaviour.cut, CLOSE), (behaviour.reset, RESET), (behaviour.hang, HANG))
    return min((after, end) for after, end in ends if after != NEVER)[1]


def _paced(frames: list[Frame], behaviour: Behaviour) -> list[bytes]:
    """Frames as chunks, and those in one piece that come at one time: up to the next token."""
    pieces: list[bytes] = []
    tokens = False
    for data, token in frames:
        if behaviour.comments:
            data = b": keep-alive\n\n" + data
        if behaviour.crlf:
            data = data.replace(b"\n", b"\r\n")
        if pieces and (not behaviour.rate or not (token and tokens)):
            pieces[-1] += chunk(data)
        else:
            pieces.append(chunk(data))
        tokens = tokens or token
    return pieces or [b""]


def _split(plan: Plan, behaviour: Behaviour) -> Plan:
    if behaviour.split:
        size = behaviour.split
        plan.pieces = [piece[at : at + size] for piece in plan.pieces for at in range(0, len(piece), size)]
        plan.gap_s = plan.gap_s or _SPLIT_GAP_S
    return plan
