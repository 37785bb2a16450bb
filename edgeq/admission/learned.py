"""The limits that are learned, by the name that the configuration has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeq.admission.adaptive import Adaptive
from edgeq.admission.limits import Aimd, Gradient2, Limit
from edgeq.admission.observer import Observer

_KINDS: Final[dict[str, Callable[..., Limit]]] = {"adaptive": Adaptive, "aimd": Aimd, "gradient2": Gradient2}


def learned(name: str, initial: int = 0) -> Limit:
    """A new limit: adaptive, aimd, gradient2 or observe. `initial`: what to go on from, 0 for nothing.

    Raises: ValueError for any other name.
    """
    if name == "observe":
        return Observer()
    make = _KINDS.get(name)
    if make is None:
        raise ValueError(f"no limit is called {name!r}")
    limit = make()
    return make(min(initial, limit.maximum)) if initial else limit
