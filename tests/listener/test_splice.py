"""The pipe between two sockets: what is moved, what is left over, and what is lost."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeq.listener.splice_io import PIPE_BYTES, Splicer


class Side:
    """As much of a transport as it asks for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.sock


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, neither of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def taken(sock: socket.socket) -> bytes:
    """All that can be read now."""
    found = bytearray()
    while True:
        try:
            part = sock.recv(1 << 20)
        except BlockingIOError:
            return bytes(found)
        if not part:
            return bytes(found)
        found += part


def sent(sock: socket.socket, data: bytes) -> int:
    """How many bytes of them the kernel takes."""
    count = 0
    try:
        while count < len(data):
            count += sock.send(data[count:])
    except BlockingIOError:
        pass
    return count


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_it_moves_what_there_is(size: int) -> None:
    """And no more than it was told to: what follows is for somebody else."""
    data = random.Random(size).randbytes(size)
    with pair() as (client, source), pair() as (sink, upstream):
        sent(client, data + b"next")
        assert Splicer().move(Side(source), Side(sink), size) == (size, b"", None)
        assert taken(upstream) == data
        assert taken(source) == b"next"


def test_nothing_has_come() -> None:
    """Nor does an end count: whoever reads next finds it."""
    splicer = Splicer()
    with pair() as (client, source), pair() as (sink, upstream):
        assert splicer.move(Side(source), Side(sink), 100) == (0, b"", None)
        client.close()
        assert splicer.move(Side(source), Side(sink), 100) == (0, b"", None)
        assert source.recv(1) == b""
        assert taken(upstream) == b""


def test_what_the_upstream_does_not_take_comes_back() -> None:
    """In order, and the pipe is empty for the next."""
    splicer = Splicer()
    data = random.Random(1).randbytes(8 << 20)
    with pair() as (client, source), pair() as (sink, upstream):
        got = bytearray()
        at = 0
        while len(got) < len(data):
            at += sent(client, data[at:])
            _moved, rest, _error = splicer.move(Side(source), Side(sink), len(data))
            got += taken(upstream)
            while rest:
                rest = rest[sent(sink, rest) :]
                got += taken(upstream)
        assert bytes(got) == data
        sent(client, b"more")
        assert splicer.move(Side(source), Side(sink), 4) == (4, b"", None)
        assert taken(upstream) == b"more"


def test_an_upstream_that_is_full() -> None:
    """It takes nothing: all comes back."""
    with pair() as (client, source), pair() as (sink, _upstream):
        sent(sink, b"f" * (32 << 20))
        sent(client, b"e" * 5000)
        assert Splicer().move(Side(source), Side(sink), 5000) == (0, b"e" * 5000, None)


def test_an_upstream_that_has_gone() -> None:
    """Who asks is told, what has been read counts as sent, and nothing of it is in the pipe for the next."""
    splicer = Splicer()
    with pair() as (client, source), pair() as (sink, upstream), pair() as (other, receiver):
        sent(client, b"lost")
        sink.shutdown(socket.SHUT_WR)
        moved, rest, error = splicer.move(Side(source), Side(sink), 100)
        assert (moved, rest) == (4, b"")
        assert isinstance(error, BrokenPipeError)
        sent(client, b"kept")
        assert splicer.move(Side(source), Side(other), 100) == (4, b"", None)
        assert taken(receiver) == b"kept"
        assert taken(upstream) == b""


def test_no_descriptor_for_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved; once there is one, it is."""

    def none(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    splicer = Splicer()
    with pair() as (client, source), pair() as (sink, upstream):
        sent(client, b"abc")
        with monkeypatch.context() as patched:
            patched.setattr(os, "pipe2", none)
            assert splicer.move(Side(source), Side(sink), 3) == (0, b"", None)
        assert splicer.move(Side(source), Side(sink), 3) == (3, b"", None)
        assert taken(upstream) == b"abc"


def test_a_turn_has_an_end() -> None:
    """However fast a client sends, the others have their turn."""
    splicer = Splicer()
    with pair() as (client, source), pair() as (sink, upstream):
        moved = 1
        total = 0
        while moved:
            sent(client, b"t" * (64 << 20))
            moved, rest, _error = splicer.move(Side(source), Side(sink), 1 << 40)
            total += moved + len(rest)
            assert moved + len(rest) <= 4 * PIPE_BYTES
            if total > 4 << 20:
                break
            taken(upstream)
