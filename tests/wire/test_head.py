"""Fields that a head is asked for by name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.wire.h1_request import parse_request
from edgeq.wire.head import HeadLimits, field_value

LIMITS = HeadLimits(8192, 32768, 100)
LINES = (b"X-Team: red", b"x-team:blue", b"A: b", b"a: c", b"X-Team:", b"X-Team2: y", b"B: \xff")


@given(st.lists(st.lists(st.sampled_from(LINES)), min_size=1, max_size=4))
def test_one_line_or_none(heads: list[list[bytes]]) -> None:
    """The value is that of the only line with the name, however the head was read, and whatever is remembered of the
    heads before it or of another name."""
    head = None
    for chosen in heads:
        head = parse_request(b"\r\n".join((b"GET / HTTP/1.1", b"Host: h", *chosen, b"", b"")), head, LIMITS)
        for name in (b"x-team", b"a", b"x-team"):
            mine = [line for line in chosen if line.lower().startswith(name + b":")]
            expected = mine[0].partition(b":")[2].strip() if len(mine) == 1 else b""
            assert field_value(head, name) == expected
