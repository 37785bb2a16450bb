"""A worker as its supervisor has it: what is known of its process, and what it was told and asked.

It begins before the process exists: the request for it is under way, and it may never be forked.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from edgeq.supervisor.channel_io import Channel
from edgeq.supervisor.messages import ListConnections, Message, SeenConnection, encode_message
from edgeq.supervisor.process_io import send_signal

_MAX_WHERE_BYTES: Final = 64 * 1024

Told: TypeAlias = tuple[SeenConnection, ...] | None
"""Connections of a worker; None if it does not tell."""


class Worker:
    """One process, from the request for it to its end."""

    __slots__ = (
        "accounts",
        "addresses",
        "bells",
        "channel",
        "emptying",
        "generation",
        "pid",
        "pidfd",
        "questions",
        "slot",
        "start_timer",
        "started",
        "was_ready",
        "where_fd",
    )

    def __init__(self, slot: int, addresses: Iterable[str]) -> None:
        self.slot = slot
        self.addresses = set(addresses)
        """Listeners that it accepts from, as far as we know."""
        self.accounts = 0
        """The last change of accounts that it knows of."""
        self.bells = 0
        """How many it has: those of the lowest slots."""
        self.emptying = 0
        """Queues of others that it empties."""
        self.pid = 0
        self.pidfd = -1
        self.started = 0
        """The process, as Mate has it."""
        self.generation = 0
        """What it confirmed."""
        self.was_ready = False
        self.where_fd = os.memfd_create("edgeq-where", os.MFD_CLOEXEC)
        """A file for its word of where it is."""
        self.questions: dict[int, asyncio.Future[Told]] = {}
        """Not answered yet, by how many connections were asked for: who asks for as many waits for the same answer, so
        what waits for a worker that hangs is bounded."""
        self.channel: Channel
        self.start_timer: asyncio.TimerHandle

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tell it something."""
        self.channel.send(encode_message(message), fds)

    def ask(self, count: int) -> asyncio.Future[Told]:
        """Ask for so many connections. Returns what will be the answer; cancelled if the worker ends before."""
        answer = self.questions.get(count)
        if answer is None:
            answer = self.questions[count] = asyncio.get_running_loop().create_future()
            self.send(ListConnections(count))
        return answer

    def answered(self, count: int, connections: Told) -> None:
        """It has told what it was asked."""
        if (answer := self.questions.pop(count, None)) is not None:
            answer.set_result(connections)

    def kill(self) -> None:
        """Without a chance to finish."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Unless it is gone, or is no process yet."""
        if self.pidfd >= 0:
            send_signal(self.pidfd, number)

    def told_where(self) -> str:
        """Take what it has written to its file."""
        told = os.pread(self.where_fd, _MAX_WHERE_BYTES, 0)
        if told:
            os.ftruncate(self.where_fd, 0)
            os.lseek(self.where_fd, 0, os.SEEK_SET)  # for the worker as well: it is the same open file
        return told.decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of what is left of it."""
        self.start_timer.cancel()
        self.channel.close()
        os.close(self.where_fd)
        for answer in self.questions.values():
            answer.cancel()
