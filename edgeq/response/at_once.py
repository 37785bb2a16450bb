"""What somebody waits for is sent now.

uvloop sends what is written at the end of a turn of its loop. In a turn in which much has come, after a moment in which
nobody could be served, the first one would wait until all others have been worked on, and whoever is to work on it next
(a provider, a client) would have nothing to do meanwhile: of one in a hundred first tokens that was a millisecond.
"""

from __future__ import annotations

from typing import Any


def write_at_once(transport: Any, data: bytes, is_tls: bool) -> None:
    """Write it, and send it. If something else is to be sent before, or it is encrypted, it goes in its turn."""
    if is_tls or transport.get_write_buffer_size():
        transport.write(data)
        return
    transport.set_write_buffer_limits(0)  # what is more than that is sent at once (uvloop, UVStream._initiate_write)
    transport.write(data)
    transport.set_write_buffer_limits()  # as usual
