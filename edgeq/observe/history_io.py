"""The history as the admin socket tells it: in turns, so that others have some meanwhile.

Of hundreds of resources and an hour it takes seconds to read (7 ms for five minutes of one, interpreted, 26 November
2026), and the supervisor has workers and a watchdog to see to.
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgeq.observe.history import ALL
from edgeq.observe.recorder import Recorder


async def records(recorder: Recorder, resource: str, seconds: float, step_s: float) -> list[dict[str, Any]] | str:
    """`Recorder.records`, with a turn of the loop after each resource."""
    names = recorder.names() if resource == ALL else ()
    if not names:
        return recorder.records(resource, seconds, step_s)
    found: list[dict[str, Any]] = []
    for name in names:
        # Asked anew each time: a reload meanwhile may have replaced the ring, and then nobody may touch the old one.
        more = recorder.records(name, seconds, step_s)
        if not isinstance(more, str):  # gone
            found += more
        await asyncio.sleep(0)
    return found
