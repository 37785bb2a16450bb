"""Server-sent events come out the same, however their bytes are cut and their lines end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.sse import EventReader, is_sign_of_life

LINES = st.lists(
    st.sampled_from(
        [
            b"data: {}",
            b"data:x",
            b"data",
            b"data:  two spaces",
            b"event: ping",
            b"event:",
            b": a comment",
            b":",
            b"",
            b"",
            b"",
            b"id: 7",
            b"retry: 10",
            b"data: \xc3\xa9",
            b"unknown",
        ]
    ),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def read(pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What a reader makes of them."""
    reader = EventReader()
    return [(event.event, event.data) for piece in pieces for event in reader.feed(piece)]


def by_the_standard(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """WHATWG HTML 9.2.6, line by line as it is written there."""
    events: list[tuple[bytes, bytes]] = []
    name, data = b"", b""
    for line in lines:
        if line == b"":
            if data:
                events.append((name, data[:-1]))
            name, data = b"", b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                name = value
    return events


@given(LINES, st.data())
def test_events_are_those_of_the_standard(lines: list[bytes], data: st.DataObject) -> None:
    """Any lines, ended in any of three ways, with a BOM or without, cut anywhere."""
    stream = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for line in lines:
        stream += line + data.draw(ENDS)
    # CR and LF that follow one another are one end of a line, not two.
    parsed = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    expected = by_the_standard(parsed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    assert read([stream]) == expected
    assert read([stream[start:end] for start, end in pairwise(edges)]) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected


def test_an_event_without_an_end_is_left() -> None:
    """What no empty line has ended is no event, but can be asked for when the stream is over."""
    reader = EventReader()
    assert reader.feed(b"data: [DONE]\n") == []
    assert [event.data for event in reader.rest()] == [b"[DONE]"]
    assert reader.rest() == []


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_event_is_bounded(size: int) -> None:
    """A provider that never ends an event does not fill the memory."""
    reader = EventReader(max_event_bytes=1000)
    for _ in range(1000 // size):
        reader.feed(b"x" * size)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        reader.feed(b"x" * size)


@pytest.mark.parametrize(
    ("data", "is_sign"),
    [
        (b": hello\n\n", True),
        (b":\r\n\r\n: a\n\n", True),
        (b'event: ping\ndata: {"type": "ping"}\n\n', True),
        (b'event: ping\r\ndata: {"type":"ping"}\r\n\r\n: a\r\n\r\n', True),
        (b"", False),
        (b": hello\n\ndata: a\n\n", False),
        (b'event: ping\ndata: {"type": "text"}\n\n', False),
        (b": never ends", False),
    ],
)
def test_signs_of_life(data: bytes, is_sign: bool) -> None:
    """Comments and pings say that somebody is there, and nothing else."""
    assert is_sign_of_life(data) is is_sign
