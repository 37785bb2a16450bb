"""In a worker: which requests `edgeq explain REQUEST-ID` can tell of, the last ones that were refused, or slow, or
answered by a smaller model than was asked for, or by another target than the first as that has failed.

A request that is none of these costs one comparison. The others are put aside, and on the tick their access-log lines,
which say all that is known of them, go to two rings on the board, one for those that were refused or have failed:
MAX_KEPT of each at most, the newest, so that a storm of refusals costs the same as a few: 3 us each, half a percent of
a processor. There they can be read while the worker hangs.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Final

from edgeq.reasons import may_be_told
from edgeq.response.access_log import render
from edgeq.worker.shard import MAX_KEPT

_MOST: Final = 500
"""Characters of a detail."""

if TYPE_CHECKING:
    from edgeq.board.page import Lines
    from edgeq.response.relay import Exchange


def write(kept: list[Exchange], lines: Lines, wall_offset_s: float) -> None:
    """To the ring; `kept` is empty after it. `wall_offset_s`: as in `access_log.render`."""
    for exchange in kept[-MAX_KEPT:]:
        down = exchange.down
        waited = down.waited
        line = render([exchange], "json", wall_offset_s).removesuffix(b"\n")
        down.waited = waited  # rendering takes it back, and the access log has not had it yet
        if exchange.detail and may_be_told(exchange.reason):
            detail = encode_basestring_ascii(exchange.detail[:_MOST]).encode("ascii")
            line = b'%b,"edgeq.detail":%b}' % (line[:-1], detail)
        more = exchange.kept_fields()
        if more:
            line = b"%b%b}" % (line[:-1], more)
        if len(line) <= lines.max_line_bytes:
            lines.append(line)
    kept.clear()
