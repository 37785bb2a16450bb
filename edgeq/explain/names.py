"""Which resource is meant by a name that is less than a whole one: as people say it, or as another place prints it.

smart -> model/smart            openai/gpt-4o -> target/openai/gpt-4o     listener/:8080 -> listener/0.0.0.0:8080
flaky -> provider/flaky         gpt-4o -> target/openai/gpt-4o            team/core -> team/acme/core
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgeq.config.findings import did_you_mean

_MOST: Final = 4096
"""So many names are compared with one that is none: it is done at one go."""
_MAX_NAMES: Final = 8


def meant(what: str, names: Mapping[str, Iterable[str]]) -> list[str]:
    """The resources that may be meant, of those that each full name stands for; those that are called just so, else
    those whose name ends so. Of a provider and its own key the provider."""
    kind, _, rest = what.partition("/")
    called = [one for one in names if what in (one, one.partition("/")[2])]
    if not called:
        called = [
            one
            for one in names
            if one.endswith(_end(what)) or (rest and one.startswith(f"{kind}/") and one.endswith(_end(rest)))
        ]
    found = {resource for one in called for resource in names[one]}
    return sorted(one for one in found if not _is_key_of(one, found))


def _end(name: str) -> str:
    """Of a full name; that of an address is its port."""
    return name if name.startswith(":") else f"/{name}"


def _is_key_of(resource: str, others: set[str]) -> bool:
    kind, _, name = resource.partition("/")
    return kind == "upstream" and f"provider/{name}" in others


def unknown(what: str, names: Iterable[str], may_be: Iterable[str], remembered: str = "") -> str:
    """That it is no name, and what it may be; or, if it is like none, which requests are `remembered`."""
    several = list(may_be)
    if several:
        more = ", ..." if len(several) > _MAX_NAMES else ""
        return f"{what[:200]!r} may be {', '.join(several[:_MAX_NAMES])}{more}"
    near = _near(what, list(names)[:_MOST])
    more = f"; {remembered}" if remembered and not near and "/" not in what else ""
    return f"no resource and no remembered request is called {what[:200]!r}{near}{more}"


def _near(what: str, names: list[str]) -> str:
    """Of the same kind, so that what all of them begin with says nothing; else of any."""
    kind, _, rest = what.partition("/")
    if rest and (of_kind := [one.partition("/")[2] for one in names if one.startswith(f"{kind}/")]):
        return did_you_mean(rest, of_kind).replace("mean ", f"mean {kind}/", 1)
    return did_you_mean(what, [*names, *(one.partition("/")[2] for one in names)])
