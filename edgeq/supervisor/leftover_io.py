"""The last resort for connections whose accept queue no worker empties: an answer, so that nobody sees a reset.

Only where a socket is about to be closed and its worker is dead or hangs, and no other worker can take it over.
Invariants: never blocks, and takes at most what the queue may hold.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from edgeq.config.schema import Listener
from edgeq.listener.refuse_io import Refuser
from edgeq.response.rescue import refusal

DRAINING: Final = "draining"
_LINGER_S: Final = 0.3
"""A little longer than the refuser leaves connections open for what may still come."""


async def refuse_waiting(sock: socket.socket, listener: Listener, node: bytes) -> int:
    """Accept all that waits and refuse it with `draining`; who expects TLS just sees the end of the connection.

    Returns how many there were, when their connections are closed.
    """
    loop = asyncio.get_running_loop()
    answer = b"" if listener.tls is not None else _answer(listener, node)
    refuser = Refuser(loop, lambda _reason, _resource: answer)
    count = 0
    while count <= listener.backlog:  # the kernel holds one more
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            break
        except OSError:  # this one has left; or descriptors are short, and then it cannot be helped
            count += 1
            continue
        refuser.refuse(connection, DRAINING, resource_of(listener))
        count += 1
    if len(refuser):
        await asyncio.sleep(_LINGER_S)
    refuser.close()
    return count


def resource_of(listener: Listener) -> str:
    """As refusals name it."""
    return f"listener/{listener.name or listener.address}"


def _answer(listener: Listener, node: bytes) -> bytes:
    return refusal(DRAINING, resource_of(listener), "", b"", node, False, False)
