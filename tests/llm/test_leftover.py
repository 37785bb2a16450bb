"""The file for what nobody took: each message once, whatever is cut off or comes at the same time."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.llm import leftover_io
from edgeq.llm.account import Conversation
from edgeq.llm.leftover_io import Leftover, append, leftover_path, open_leftover, take
from edgeq.llm.redact import redacted
from edgeq.supervisor.messages import UsageTold, decode_from_worker


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 20))
def test_messages_come_back(tmp_path: Path, payloads: list[bytes], cut: int) -> None:
    """In order, once; one that was cut off is given up, and those before it are not."""
    fd = open_leftover(str(tmp_path / "s"))
    os.ftruncate(fd, 0)
    for payload in payloads:
        append(fd, payload)
    size = os.fstat(fd).st_size
    left = max(0, size - cut)
    os.ftruncate(fd, left)
    found: list[bytes] = []
    rest = take(fd, found.append)
    assert found == payloads[: len(found)]
    assert sum(4 + len(one) for one in found) + rest == left
    if cut == 0:
        assert found == payloads
    assert os.fstat(fd).st_size == 0
    assert take(fd, found.append) == 0
    os.close(fd)


def test_what_fails_stays(tmp_path: Path) -> None:
    """A store that cannot take them: all are there the next time."""
    fd = open_leftover(str(tmp_path / "s"))
    append(fd, b"a")
    append(fd, b"b")
    found: list[bytes] = []

    def use(payload: bytes) -> None:
        found.append(payload)
        if payload == b"b" and len(found) == 2:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        take(fd, use)
    take(fd, use)
    assert found == [b"a", b"b", b"a", b"b"]
    os.close(fd)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """It tells who has used what; and no link leads elsewhere."""
    os.close(open_leftover(str(tmp_path / "s")))
    path = leftover_path(str(tmp_path / "s"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    os.unlink(path)
    os.symlink(tmp_path / "x", path)
    with pytest.raises(OSError, match="symbolic links"):
        open_leftover(str(tmp_path / "s"))


def test_other_processes_append_meanwhile(tmp_path: Path) -> None:
    """Nothing is lost between reading and emptying."""
    fd = open_leftover(str(tmp_path / "s"))
    count = 300
    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                for one in range(count):
                    append(fd, b"%d %d" % (number, one))
            finally:
                os._exit(0)
        pids.append(pid)
    found: list[bytes] = []
    while pids:
        take(fd, found.append)
        if os.waitpid(pids[0], os.WNOHANG)[0]:
            pids.pop(0)
    take(fd, found.append)
    assert sorted(found) == sorted(b"%d %d" % (number, one) for number in range(3) for one in range(count))
    os.close(fd)


class Turns:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self._ready: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)

    def take_one(self) -> bool:
        """Returns: whether there was something to do."""
        if self._ready:
            self._ready.popleft()()
            return True
        return False


def batch(number: int, count: int) -> UsageTold:
    """Of so many conversations, each with two addresses."""
    one = Conversation(1.0, "r", "t", "k", "m", "from ann@example.com", "to bob@example.com")
    return UsageTold("mark", number, (), (one,) * count, 0)


@pytest.mark.parametrize("turns", [0, 2, 1000])
def test_texts_are_redacted_one_in_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """A worker that drains serves others meanwhile; what its last turn has not left is left after it."""
    fd = open_leftover(str(tmp_path / "s"))
    seen: list[str] = []

    def counted(text: str) -> str:
        seen.append(text)
        return redacted(text)

    monkeypatch.setattr(leftover_io, "redacted", counted)
    loop = Turns()
    taken: list[int] = []
    leftover = Leftover(cast("asyncio.AbstractEventLoop", loop), fd, taken.append)
    for number in (1, 2, 2):
        leftover.put(batch(number, 3))
    assert not seen
    for _ in range(turns):
        before = len(seen)
        if not loop.take_one():
            break
        assert len(seen) <= before + 1
    leftover.finish()
    loop.take_one()
    assert not loop.take_one()
    assert taken == [1, 2]
    assert len(seen) == 12
    found: list[bytes] = []
    take(fd, found.append)
    for payload, number in zip(found, (1, 2), strict=True):
        told = decode_from_worker(payload)
        assert isinstance(told, UsageTold)
        assert told.number == number
        assert {(one.prompt, one.answer) for one in told.conversations} == {("from [mail]", "to [mail]")}
    os.close(fd)


def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """What cannot be left is lost; the worker goes on."""
    loop = Turns()
    taken: list[int] = []
    leftover = Leftover(cast("asyncio.AbstractEventLoop", loop), os.open("/dev/full", os.O_RDWR), taken.append)
    leftover.put(batch(7, 0))
    while loop.take_one():
        pass
    assert taken == [7]
