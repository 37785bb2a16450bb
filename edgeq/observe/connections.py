"""The client connections of all workers as one list of records. Unlike all else that `edgeq show` tells, the workers
are asked for it; one that does not answer has a record that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from edgeq.supervisor.messages import SeenConnection

NO_ANSWER: Final = "no answer"
"""The state in the record of a worker that hangs."""


def merged(told: Mapping[int, Sequence[SeenConnection] | None], count: int) -> list[dict[str, Any]]:
    """At most `count` connections by what each worker has told, None if it has not answered.

    Workers without an answer come first, then the requests that run longest, then the oldest connections.
    """
    silent = [{"worker": slot, **_UNKNOWN, "state": NO_ANSWER} for slot, seen in sorted(told.items()) if seen is None]
    found = [{"worker": slot, **msgspec.structs.asdict(one)} for slot, seen in told.items() for one in seen or ()]
    found.sort(key=lambda one: (one["request_ms"] is None, -(one["request_ms"] or 0.0), -one["age_ms"]))
    return silent + found[:count]


_UNKNOWN: Final = dict.fromkeys(SeenConnection.__struct_fields__)
