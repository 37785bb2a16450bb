"""Targets that were asked for a request, or had no room for it, before the one that its answer is of, or beside it (a
hedge that has failed): what became of each, for the access log and `edgeq explain`.

Most requests have none, and pay nothing for it.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from edgeq.reasons import REASONS, may_be_told
from edgeq.response.access_log import milliseconds

_MOST: Final = 300
"""Characters of a detail."""
_NOT_ASKED: Final = "circuit_open"
"""By the upstream's breaker: while that is open, all requests are like this one."""


class Attempt:
    """One target, in vain."""

    __slots__ = ("detail", "reason", "resource", "status", "target", "took_s")

    def __init__(self, target: str, reason: str, resource: str, detail: str, status: int, took_s: float) -> None:
        self.target: str = target
        """PROVIDER/MODEL."""
        self.reason: str = reason
        self.resource: str = resource
        self.detail: str = detail
        self.status: int = status
        """Of the provider's answer; 0: there was none."""
        self.took_s: float = took_s
        """Since it was this target's turn."""

    def has_failed(self) -> bool:
        """Or had it no room?"""
        return REASONS[self.reason].fault == "U" and self.reason != _NOT_ASKED


def fields_logged(attempts: list[Attempt]) -> bytes:
    """Their part of an access-log line."""
    text = "; ".join([f"{one.reason} at {one.resource}" for one in attempts])
    return f'"edgeq.before":{quoted(text)},'.encode("ascii")


def fields_kept(attempts: list[Attempt]) -> bytes:
    """What `edgeq explain` has to say beyond that, after a comma."""
    return b',"edgeq.tried":[%b]' % b",".join([_object(one) for one in attempts])


def _object(one: Attempt) -> bytes:
    text = f'"target":{quoted(one.target)},"reason":"{one.reason}"'
    if one.status:
        text += f',"status":{one.status}'
    if one.detail and may_be_told(one.reason):
        text += f',"detail":{quoted(one.detail[:_MOST])}'
    return b'{%b,"ms":%b}' % (text.encode("ascii"), milliseconds(one.took_s))
