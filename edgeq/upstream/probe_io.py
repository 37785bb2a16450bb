"""What the kernel knows of an upstream connection that its transport does not tell."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any, Final

_READ: Final = 256 * 1024
_MAX_READS: Final = 16


def probe(transport: Any) -> Callable[[int], object]:
    """Whom to ask, with how long to wait (0), whether something (a FIN, a reset, bytes that nobody asked for) waits to
    be read on an idle connection. As long as it is open: descriptors are used again.

    One poll(2), asked before a request that must not be sent twice.
    """
    fd = _descriptor(transport)
    if fd < 0:
        return lambda _wait_ms: True
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLRDHUP)
    return poll.poll


def unread(transport: Any) -> bytes:
    """What waits in the receive queue of a connection that was reset; to be called within connection_lost.

    Linux keeps that queue at a reset, and uvloop 0.23 the descriptor until connection_lost returns.
    """
    fd = _descriptor(transport)
    parts: list[bytes] = []
    while fd >= 0 and len(parts) < _MAX_READS:
        try:
            data = os.read(fd, _READ)
        except OSError:  # the reset itself, or nothing is there
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def _descriptor(transport: Any) -> int:
    extra = transport.get_extra_info("socket")
    return -1 if extra is None else int(extra.fileno())
