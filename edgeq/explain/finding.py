"""What a cause finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SIGN: Final = 0
"""Nothing is lost, and nobody waits."""
OUT: Final = 1
"""Nobody has come yet who would be refused."""
PART: Final = 2
"""A part of it is out of use, and others do its work."""
WAITS: Final = 3
"""Somebody waits."""
LOST: Final = 4
"""Requests or connections are refused, or fail."""
STANDS_S: Final = 2.0
"""So long a refusal must go on, or somebody wait, to be told as it is: by then the cause of many is known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause at one resource."""

    cause: str
    resource: str
    harm: int
    since_s: float
    """For so long; 0 where that is not known."""
    says: str
    """Why, as the end of "RESOURCE is short, because .."."""
    evidence: Sequence[str] = ()
    next: str = ""
    """The command that comes next."""
    covers: Sequence[str] = ()
    """Other resources at which the same shows."""
