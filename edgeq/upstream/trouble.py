"""Which failures to reach an endpoint are told: the changes, and a reminder while one lasts.

A dead endpoint fails thousands of times a second, each time for the same reason; the operator wants to read once that
it began, why, and when it was over. An endpoint that fails now and then (no port left, a full backlog) changes all the
time, so there is a least time between two words on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_S: Final = 1.0
REMIND_S: Final = 60.0


@dataclass(slots=True)
class _Trouble:
    reason: str
    detail: str
    failures: int
    """Since it was last told that all is well."""
    told_s: float


class Troubles:
    """Of the endpoints of one upstream, by name. Times are monotonic seconds."""

    __slots__ = ("_last_s", "_troubles")

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}
        self._last_s: dict[str, float] = {}
        """When there was a last word on an endpoint that is well now."""

    def __bool__(self) -> bool:
        return bool(self._troubles)

    def failed(self, endpoint: str, reason: str, detail: str, now_s: float) -> int:
        """A connection could not be opened. Returns the number of failures if that is to be told, else 0."""
        trouble = self._troubles.get(endpoint)
        if trouble is None:
            told_s = self._last_s.get(endpoint, now_s - LEAST_S)
            trouble = self._troubles[endpoint] = _Trouble("", "", 0, told_s)
        trouble.failures += 1
        is_news = (trouble.reason, trouble.detail) != (reason, detail)
        if now_s - trouble.told_s < (LEAST_S if is_news else REMIND_S):
            return 0
        trouble.reason, trouble.detail, trouble.told_s = reason, detail, now_s
        return trouble.failures

    def reached(self, endpoint: str, now_s: float) -> int:
        """A connection was opened. Returns how many failures went before if it is to be told that they are over."""
        trouble = self._troubles.get(endpoint)
        if trouble is None:
            return 0
        del self._troubles[endpoint]
        if not trouble.reason:  # nobody has heard of it
            self._last_s[endpoint] = trouble.told_s
            return 0
        self._last_s[endpoint] = now_s
        return trouble.failures

    def keep(self, endpoints: set[str]) -> None:
        """Forget all others: they are not used any more."""
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in endpoints}
        self._last_s = {name: told_s for name, told_s in self._last_s.items() if name in endpoints}
