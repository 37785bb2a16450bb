"""Channels on a loop: never blocking, nothing lost, the end reported once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine

from edgeq.supervisor.changes_io import Changes
from edgeq.supervisor.channel_io import Channel, pair
from edgeq.supervisor.frames import Frame

TIMEOUT_S = 20


class End:
    """Collects what a channel reports."""

    def __init__(self, sock: socket.socket, max_bytes: int = 1 << 26) -> None:
        self.frames: list[Frame] = []
        self.ends = 0
        self.changes = Changes()
        loop = asyncio.get_running_loop()
        self.channel = Channel(loop, sock, self.on_frame, self.on_end, with_fds=True, max_bytes=max_bytes)

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.changes.notify()

    def on_end(self) -> None:
        self.ends += 1
        self.changes.notify()


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a coroutine function on a fresh loop."""
    asyncio.run(test())


def test_sending_to_one_who_does_not_read_does_not_block() -> None:
    """Messages and duplicates of their descriptors wait until the peer reads; all arrive in order."""

    async def scenario() -> None:
        ours, theirs = pair()
        sender = End(ours)
        payload = b"x" * 300_000
        for number in range(10):
            fd = os.memfd_create(f"n{number}")
            os.write(fd, b"%d" % number)
            sender.channel.send(payload, [fd])
            os.close(fd)
        receiver = End(theirs)
        assert await receiver.changes.until(lambda: len(receiver.frames) == 10, TIMEOUT_S)
        for number, frame in enumerate(receiver.frames):
            assert frame.payload == payload
            assert os.pread(frame.fds[0], 10, 0) == b"%d" % number
            os.close(frame.fds[0])
        sender.channel.close()
        receiver.channel.close()

    run(scenario)


def test_what_was_said_before_the_end_arrives() -> None:
    """The last message of a dying peer is delivered, then the end, once; sending into it is harmless."""

    async def scenario() -> None:
        ours, theirs = pair()
        sender, receiver = End(ours), End(theirs)
        sender.channel.send(b"last words")
        sender.channel.close()
        assert await receiver.changes.until(lambda: receiver.ends == 1, TIMEOUT_S)
        assert [frame.payload for frame in receiver.frames] == [b"last words"]
        assert receiver.channel.closed
        receiver.channel.send(b"too late")
        receiver.channel.close()
        assert receiver.ends == 1
        assert sender.ends == 0

    run(scenario)


def test_nonsense_ends_the_channel_and_frees_what_waits() -> None:
    """A message beyond the bound is the end of the channel; queued descriptors are closed."""

    async def scenario() -> None:
        before = len(os.listdir("/proc/self/fd"))
        ours, theirs = pair()
        strict = End(theirs, max_bytes=1000)
        sender = End(ours)
        for _ in range(5):
            with socket.socket() as extra:
                sender.channel.send(b"x" * 500_000, [extra.fileno()])
        assert await strict.changes.until(lambda: strict.ends == 1, TIMEOUT_S)
        assert await sender.changes.until(lambda: sender.ends == 1, TIMEOUT_S)
        assert len(os.listdir("/proc/self/fd")) <= before

    run(scenario)


def test_changes_report_the_condition_or_the_end_of_time() -> None:
    """`until` sees what `notify` announces, and gives up when it was told to."""

    async def scenario() -> None:
        changes = Changes()
        state: list[int] = []
        assert not await changes.until(lambda: bool(state), 0)
        waiting = asyncio.ensure_future(changes.until(lambda: len(state) == 2, TIMEOUT_S))
        for number in range(2):
            await asyncio.sleep(0)
            state.append(number)
            changes.notify()
        assert await waiting

    run(scenario)


def test_last_words_arrive() -> None:
    """What waits in memory is sent after the loop has ended, and read though the end is known from elsewhere."""

    async def scenario() -> None:
        ours, theirs = pair()
        sender, receiver = End(ours), End(theirs)
        count = 40
        for _ in range(count):
            sender.channel.send(b"x" * 100_000)
        loop = asyncio.get_running_loop()
        loop.remove_writer(ours.fileno())  # as if it had ended: nobody else sends
        reading = loop.run_in_executor(None, sender.channel.send_rest, TIMEOUT_S)
        assert await receiver.changes.until(lambda: len(receiver.frames) > count // 2, TIMEOUT_S)
        await reading
        sender.channel.close()
        receiver.channel.read_rest()
        assert len(receiver.frames) == count
        assert receiver.ends == 1
        receiver.channel.read_rest()
        assert receiver.ends == 1

    run(scenario)


def test_nobody_waits_for_ever_for_last_words_to_be_taken() -> None:
    """A supervisor that does not read keeps no worker from its end."""

    async def scenario() -> None:
        ours, theirs = pair()
        sender = End(ours)
        sender.channel.send(b"x" * 10_000_000)
        sender.channel.send_rest(0.0)
        sender.channel.close()
        theirs.close()

    run(scenario)
