"""The limits that are learned, by the name that the configuration has for them."""

from __future__ import annotations

from edgeq.admission.adaptive import Adaptive
from edgeq.admission.limits import Aimd, Gradient2, Limit
from edgeq.admission.observer import Observer


def learned(name: str) -> Limit:
    """A new limit: adaptive, aimd, gradient2 or observe.

    Raises: ValueError for any other name.
    """
    if name == "adaptive":
        return Adaptive()
    if name == "aimd":
        return Aimd()
    if name == "gradient2":
        return Gradient2()
    if name == "observe":
        return Observer()
    raise ValueError(f"no limit is called {name!r}")
