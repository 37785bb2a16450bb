"""Frames: the same messages whatever the cuts, and every descriptor with its message."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.supervisor.channel_io import pair, receive, send_blocking
from edgeq.supervisor.frames import FDS_PER_CALL, Frame, FrameError, FrameReader, encode

MESSAGES = st.lists(st.tuples(st.binary(max_size=300), st.lists(st.integers(0, 9), max_size=600)), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 50), max_size=30))
def test_any_cut_gives_the_same_messages(messages: list[tuple[bytes, list[int]]], cuts: list[int]) -> None:
    """Bytes cut anywhere, descriptors with the first byte of their piece or earlier: as the kernel may deliver them."""
    reader = FrameReader()
    frames = []
    sizes = iter(cuts)
    for payload, fds in messages:
        for piece in encode(payload, fds):
            assert piece.data
            assert len(piece.fds) <= FDS_PER_CALL
            data, riding = bytes(piece.data), piece.fds
            while data:
                size = next(sizes, len(data))
                frames += reader.feed(data[:size], riding)
                data, riding = data[size:], ()
    assert frames == [Frame(payload, fds) for payload, fds in messages]
    assert reader.leftover_fds() == []


def test_too_long_or_without_its_descriptors_is_an_error() -> None:
    """A peer that talks nonsense is named, and cannot make us collect without bound."""
    with pytest.raises(FrameError, match="a message of 4096 bytes, 100 allowed"):
        FrameReader(max_bytes=100).feed(bytes(encode(b"x" * 4096, ())[0].data))
    with pytest.raises(FrameError, match="with 2 descriptors came with 1"):
        FrameReader().feed(bytes(encode(b"x", (5, 6))[0].data), (5,))


def test_leftover_descriptors_are_handed_back() -> None:
    """Of a message that was cut off."""
    reader = FrameReader()
    piece = encode(b"whole", (7,))[0]
    assert reader.feed(bytes(piece.data[:3]), piece.fds) == []
    assert reader.leftover_fds() == [7]


def test_many_descriptors_cross_a_real_socket() -> None:
    """More than one SCM_RIGHTS message holds, and each arrives as a working duplicate."""
    ours, theirs = pair()
    read_end, write_end = os.pipe()
    reader = FrameReader()
    received: list[Frame] = []
    count = FDS_PER_CALL * 2 + 7
    with ours, theirs:
        send_blocking(ours, b"first", [write_end] * count)
        send_blocking(ours, b"second", [write_end])
        while len(received) < 2:
            received += receive(theirs, reader, with_fds=True) or []
        assert [(frame.payload, len(frame.fds)) for frame in received] == [(b"first", count), (b"second", 1)]
        fds = [fd for frame in received for fd in frame.fds]
        for fd in fds:
            os.write(fd, b".")
            assert not os.get_inheritable(fd)
            os.close(fd)
        assert os.read(read_end, 10_000) == b"." * len(fds)
    os.close(read_end)
    os.close(write_end)


def test_descriptors_that_are_not_expected_are_dropped() -> None:
    """A worker cannot fill the supervisor's table of descriptors."""
    ours, theirs = pair()
    with ours, theirs, socket.socket() as extra:
        send_blocking(ours, b"here", [extra.fileno()])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FrameError):
            receive(theirs, FrameReader(), with_fds=False)
        assert len(os.listdir("/proc/self/fd")) <= before
