"""When models at providers' keys are asked again: nobody does anything at that moment, so it is seen from outside.

    rests (told by the worker that hears of it) --time is over, or somebody has ended it--> Ended, once

A rest that is followed by another one at once is one. What is shorter than a second begins without an event
(llm/pauses.py), and its end is none.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from edgeq.observe.reports import Records

_LOOKS: Final = 2
_TOLD_S: Final = 1.0
"""What lasts for two looks, or has so long before it when it is seen, was told when it began."""
_MORE_S: Final = 0.05
"""So much longer than when it was seen last, what is left is of another one."""
_OF_KEYS: Final = ("upstream_auth", "upstream_quota")
"""Why all models at a key rest."""


class Ended(NamedTuple):
    """A rest that is over."""

    resource: str
    """As when it began: target/KEY/MODEL, or provider/KEY."""
    reason: str
    lasted_s: float
    is_whole_key: bool
    times: int = 1
    """So many rests, one after the other: in between it was asked, and rested again."""


class _Rest:
    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.looks = 0
        self.is_told = False
        self.left_s = 0.0
        self.times = 0
        self.reason = ""


class RestEnds:
    """Of one gateway."""

    def __init__(self) -> None:
        self._resting: dict[str, _Rest] = {}

    def look(self, now_s: float, targets: Records, known: Collection[str]) -> list[Ended]:
        """To be called twice a second. `targets` as `show targets`; `known`: those that there are. Of a target that no
        worker tells of now it is not known."""
        ended: dict[str, Ended] = {}
        for one in targets:
            name, reason = one["target"], one["paused_for"]
            if reason:
                rest = self._resting.setdefault(name, _Rest(now_s))
                rest.looks += 1
                rest.is_told |= rest.looks >= _LOOKS or one["paused_s"] >= _TOLD_S
                if one["paused_s"] > rest.left_s + _MORE_S:
                    rest.times += 1
                rest.left_s = one["paused_s"]
                rest.reason = reason
            elif (rest_over := self._resting.pop(name, None)) is not None and rest_over.is_told:
                of_key = rest_over.reason in _OF_KEYS
                resource = f"provider/{name.partition('/')[0]}" if of_key else f"target/{name}"
                ended[resource] = Ended(
                    resource, rest_over.reason, now_s - rest_over.since_s, of_key, max(1, rest_over.times)
                )
        for name in self._resting.keys() - set(known):
            del self._resting[name]
        return list(ended.values())

    def woken(self, resources: Collection[str]) -> list[tuple[str, bool]]:
        """Somebody has ended these (`rests.end_rests`), which are forgotten. Returns each as it is told, and whether it
        is a whole key."""
        told = []
        for resource in resources:
            kind, _, name = resource.partition("/")
            of_key = kind == "upstream"
            told.append((f"provider/{name}" if of_key else resource, of_key))
            for target in [one for one in self._resting if one == name or (of_key and one.startswith(f"{name}/"))]:
                del self._resting[target]
        return told
