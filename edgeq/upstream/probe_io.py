"""Has the other side closed an idle connection? One poll(2), asked before a request that must not be sent twice."""

from __future__ import annotations

import select
from typing import Any

_poll = select.poll()


def readable(transport: Any) -> bool:
    """Whether something (a FIN, a reset, bytes that nobody asked for) waits to be read on an idle connection."""
    extra = transport.get_extra_info("socket")
    if extra is None:
        return True
    fd = extra.fileno()
    if fd < 0:
        return True
    _poll.register(fd, select.POLLIN | select.POLLRDHUP)
    try:
        return bool(_poll.poll(0))
    finally:
        _poll.unregister(fd)
