"""Who has used which model in the last minute, for `edgeq explain`: from what is stored anyway, in the supervisor.

A limit of tokens a minute that answers use up fast is one before which nobody waits, nor runs when somebody looks; who
has used it up only what was used can tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from edgeq.llm.sums import Key, Sum

_MINUTE_S: Final = 60.0
_PART_S: Final = 5.0
_MAX_USERS: Final = 1024
"""Pairs of model and key in a part of the minute; what others have used then is told of nobody."""
_Who: TypeAlias = tuple[str, str, str]
"""Model, tenant, id of key."""


class Used(NamedTuple):
    """What one key has used of a model."""

    tenant: str
    key: str
    """Its id, and its name after a space if it has one; empty: none."""
    requests: int = 0
    """That a target has had: they count for a limit, also those that have failed there."""
    input: int = 0
    output: int = 0


class Lately:
    """The last minute, in parts."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, dict[_Who, list[int]]]] = deque()
        """Each with when it began."""

    def add(self, sums: Mapping[Key, Sum], now: float) -> None:
        """What was stored now."""
        parts = self._parts
        while parts and parts[0][0] <= now - _MINUTE_S:
            parts.popleft()
        if not parts or parts[-1][0] <= now - _PART_S:
            parts.append((now, {}))
        users = parts[-1][1]
        for (_day, tenant, _team, key, model, target), one in sums.items():
            if not target:  # refused before, or answered by what was stored
                continue
            who = (model, tenant, key)
            counts = users.get(who)
            if counts is None:
                if len(users) >= _MAX_USERS:
                    continue
                counts = users[who] = [0] * 3
            for at, count in enumerate((one.requests, one.input, one.output)):
                counts[at] += count

    def of(self, model: str, names: Mapping[str, str], now: float) -> list[Used]:
        """Of one model; `names` of keys by id."""
        total: dict[_Who, list[int]] = {}
        for at, users in self._parts:
            for who, counts in users.items():
                if who[0] == model and at > now - _MINUTE_S:
                    total[who] = [one + more for one, more in zip(total.get(who, [0] * 3), counts, strict=True)]
        return [
            Used(tenant, f"{key} {names.get(key, '')}".rstrip(), *counts) for (_, tenant, key), counts in total.items()
        ]
