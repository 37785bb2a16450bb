"""How the wire layer says no."""

from __future__ import annotations


class Refused(Exception):
    """A message that is not taken. `reason` is a token of `edgeq.reasons`; `detail` is a sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
