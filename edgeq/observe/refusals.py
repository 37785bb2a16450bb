"""How often this worker has refused or failed, by reason and resource: the one place where all of it is counted.

Counted are requests where they end (`Exchange`), connections that never became any (`Reception`), and what the kernel
has dropped (`Acceptor`). What was tried again and went well is no refusal.

Invariants: counts only grow. Reasons are a closed table, and resources come from the configuration and from names of
endpoints, which may change for ever: so each reason keeps MAX_RESOURCES of them, and what comes later counts as OTHER.
"""

from __future__ import annotations

from typing import Final

MAX_RESOURCES: Final = 256
"""Of one reason. Together some 2 MB at the very most."""
OTHER: Final = "other"


class Refusals:
    """Of one worker, since it began."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    def count(self, reason: str, resource: str, times: int = 1) -> None:
        """So many more; `reason` is a token of edgeq.reasons."""
        resources = self._counts.get(reason)
        if resources is None:
            resources = self._counts[reason] = {}
        before = resources.get(resource, 0)
        if before == 0 and len(resources) >= MAX_RESOURCES:
            resource = OTHER
            before = resources.get(OTHER, 0)
        resources[resource] = before + times

    def total(self) -> int:
        """Of all reasons and resources."""
        total = 0
        for resources in self._counts.values():
            total += sum(resources.values())
        return total

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Reason to resource to count; without what has never happened."""
        return {reason: dict(resources) for reason, resources in self._counts.items()}
