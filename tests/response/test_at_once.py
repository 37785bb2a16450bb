"""What is sent before the turn of the loop ends, on transports of uvloop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from edgeq.response.at_once import write_at_once

PART = bytes(64 * 1024)


class Protocol(asyncio.Protocol):
    """Whether it may write."""

    blocked: Any = False  # Any: mypy does not know that a call of another object's method changes it

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False


def test_it_is_sent_within_the_turn() -> None:
    """Also behind what was written before it, which then waits for its turn with it."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            write_at_once(transport, b"now", False)
            assert theirs.recv(100) == b"now"
            transport.write(b"later")
            write_at_once(transport, b", too", False)
            assert await loop.sock_recv(theirs, 100) == b"later, too"
            write_at_once(transport, b"now", False)
            assert theirs.recv(100) == b"now"
            transport.close()

    uvloop.run(run())


def test_a_peer_who_does_not_read() -> None:
    """What the kernel does not take waits, and the writer is told so, as always; nothing is lost or turned round."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(Protocol, sock=ours)
            sent = 0
            while not protocol.blocked:
                write_at_once(transport, PART, False)
                sent += len(PART)
            write_at_once(transport, b"end", False)
            got = b""
            while len(got) < sent + 3:
                got += await loop.sock_recv(theirs, 1 << 20)
            assert got == bytes(sent) + b"end"
            assert not protocol.blocked
            transport.close()

    uvloop.run(run())
