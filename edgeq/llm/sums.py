"""Sums of what was used: by day, tenant, team, key, model and target; and what was spent in a day and a month."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from edgeq.llm.account import Entry, Spent, key_subject, model_subject, target_subject, team_subject, tenant_subject

_FIRST_ERROR: Final = 400
_DAY_S: Final = 86400
KEY: Final = ("day", "tenant", "team", "key", "model", "target")
VALUES: Final = ("requests", "errors", "input", "output", "cached", "cache_write", "reasoning", "cost_micro")
TOLD: Final = ("requests", "errors", "refused", *VALUES[2:])
"""What is told of them: requests that a target has had or failed, or that were answered; those of them that failed;
and apart, who was refused, or left, before a target was asked."""
Key: TypeAlias = tuple[str, str, str, str, str, str]


@dataclass
class Sum:
    """VALUES of one KEY."""

    requests: int = 0
    errors: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost_micro: int = 0

    def add(self, entry: Entry) -> None:
        """One more request."""
        self.requests += 1
        self.errors += entry.status >= _FIRST_ERROR
        self.input += entry.input
        self.output += entry.output
        self.cached += entry.cached
        self.cache_write += entry.cache_write
        self.reasoning += entry.reasoning
        self.cost_micro += entry.cost_micro

    def values(self) -> tuple[int, ...]:
        """In the order of VALUES."""
        return (
            self.requests,
            self.errors,
            self.input,
            self.output,
            self.cached,
            self.cache_write,
            self.reasoning,
            self.cost_micro,
        )


def summed(entries: Iterable[Entry], teams: Mapping[str, str]) -> dict[Key, Sum]:
    """Sums of some entries; `teams` by id of key."""
    sums: dict[Key, Sum] = {}
    for one in entries:
        key = (day_of(one.at), one.tenant, teams.get(one.key, ""), one.key, one.model, one.target)
        found = sums.get(key)
        if found is None:
            found = sums[key] = Sum()
        found.add(one)
    return sums


def day_of(at: float) -> str:
    """The day of UTC in which an instant lies: "2026-11-26"."""
    return _name(int(at // _DAY_S))


@lru_cache(maxsize=4)
def _name(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_S))


def month_of(day: str) -> str:
    """The month of a day: "2026-11"."""
    return day[:7]


class Spending:
    """What each tenant, team and key has spent this day and this month, and what each model and target has cost."""

    def __init__(self, day: str, costs: Iterable[tuple[str, str, str, str, str, str, int]] = ()) -> None:
        """`costs`: KEY and micro units, of all of this month."""
        self.day = day
        self._by_day: dict[str, int] = {}
        self._by_month: dict[str, int] = {}
        self._changed: set[str] = set()
        self._is_whole = True
        """The next `told` has to be whole: a day has begun."""
        for one in costs:
            self._add(*one)

    def add(self, sums: Mapping[Key, Sum]) -> None:
        """What was stored now."""
        for key, one in sums.items():
            self._add(*key, one.cost_micro)

    def turn(self, day: str) -> None:
        """Go on to another day, if it is another one."""
        if day == self.day:
            return
        self._by_day.clear()
        if month_of(day) != month_of(self.day):
            self._by_month.clear()
        self.day = day
        self._is_whole = True

    def whole(self) -> Spent:
        """All of it."""
        return Spent(self.day, dict(self._by_day), dict(self._by_month))

    def told(self) -> Spent | None:
        """What has changed since the last call; None if nothing has."""
        changed, self._changed = self._changed, set()
        if self._is_whole:
            self._is_whole = False
            return self.whole()
        if not changed:
            return None
        by_day = {one: self._by_day[one] for one in changed if one in self._by_day}
        return Spent(self.day, by_day, {one: self._by_month[one] for one in changed}, is_whole=False)

    def of(self, subject: str) -> tuple[int, int]:
        """This day and this month."""
        return self._by_day.get(subject, 0), self._by_month.get(subject, 0)

    def _add(self, day: str, tenant: str, team: str, key: str, model: str, target: str, cost_micro: int) -> None:
        if not cost_micro or month_of(day) != month_of(self.day):
            return
        subjects = [tenant_subject(tenant)]
        if key:
            subjects.append(key_subject(key))
        if team:
            subjects.append(team_subject(tenant, team))
        if model:
            subjects.append(model_subject(model))
        if target:
            subjects.append(target_subject(target))
        for subject in subjects:
            if day == self.day:
                self._by_day[subject] = self._by_day.get(subject, 0) + cost_micro
            self._by_month[subject] = self._by_month.get(subject, 0) + cost_micro
            self._changed.add(subject)
