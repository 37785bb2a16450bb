"""Ending a connection so that the other side sees an error: a reset, not a FIN.

Kernel fact: close(2) sends a FIN, whatever was still to be said; with SO_LINGER on and a time of 0 it sends a reset
(socket(7)). uvloop's `abort` is a plain close(2). To who reads until the end of the connection a FIN would say that an
answer is complete. Unix sockets know no reset, there the FIN is all that can be said; TLS shows the cut by itself,
because its closing alert is missing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Final

_RESET: Final = struct.pack("ii", 1, 0)


def reset(transport: Any) -> None:
    """Close the transport at once, by a reset if there is one in its protocol."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
