"""History in files: what is read is what was written, files are few, what goes wrong is told; and who writes them."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from edgeq.board.ring import VALUES, Ring, size_bytes
from edgeq.observe import dumps_io, storm_watch_io
from edgeq.observe.dumps_io import EVERY_S, KEPT, DumpError, Dumps, read, records
from edgeq.observe.history import ALL, History, Moment
from edgeq.observe.storm_watch_io import StormWatch
from tests.observe.recorded import Bench

NOW_S = 1_800_000_000.0


def copy_of(value: int) -> bytearray:
    ring = Ring.begin(memoryview(bytearray(size_bytes(4, 3))), 4, 3)
    lane = ring.use(["upstream/u"])[0]
    for at in (1, 2):
        ring.write(lane, [value] * VALUES)
        ring.commit(at * 10**9)
    return History(ring, NOW_S).copy({"resource": "upstream/u"})


def write(dumps: Dumps, now_s: float, value: int = 7) -> Path:
    path = dumps.name(now_s, "upstream/u")
    dumps.write(path, copy_of(value))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """With its note and the times of day; only its owner and group may read it."""
    path = write(Dumps(str(tmp_path)), NOW_S)
    assert path.name == "storm-20270115T080000Z-upstream-u.history"
    assert path.stat().st_mode & 0o137 == 0
    history, note = read(str(path))
    assert note == {"resource": "upstream/u", "wall_s": NOW_S}
    found = history.records("upstream/u", 60)
    assert isinstance(found, list)
    assert [(one["at"], one["depth"], one["in_flight"]) for one in found] == [
        ("2027-01-15T08:00:01.000Z", 7, 7),
        ("2027-01-15T08:00:02.000Z", 7, 7),
    ]
    assert history.records("upstream/x", 60) == "no history of 'upstream/x'; did you mean upstream/u?"


def test_files_are_few(tmp_path: Path) -> None:
    """The newest remain; what another run has left half-written goes; what is not ours stays."""
    dumps = Dumps(str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "storm-1-x.part").write_text("half")
    paths = [write(dumps, NOW_S + number) for number in range(KEPT + 3)]
    assert sorted(tmp_path.glob("*")) == [tmp_path / "notes.txt", *paths[3:]]


def test_files_of_a_clock_that_was_ahead(tmp_path: Path) -> None:
    """They do not push out what is written after it was put right, not even the file that is just written."""
    dumps = Dumps(str(tmp_path))
    ahead = [write(dumps, NOW_S + 1e8 + number) for number in range(KEPT)]
    right = [write(dumps, NOW_S + number) for number in range(KEPT - 1)]
    assert sorted(tmp_path.glob("*")) == [*right, ahead[-1]]


def test_one_in_a_while(tmp_path: Path) -> None:
    """Also for the next run, which only sees the file; not for a clock that was put back."""
    dumps = Dumps(str(tmp_path))
    assert dumps.due(NOW_S)
    path = write(dumps, NOW_S)
    os.utime(path, (NOW_S, NOW_S))
    for one in (dumps, Dumps(str(tmp_path))):
        assert not one.due(NOW_S + EVERY_S - 1)
        assert one.due(NOW_S + EVERY_S)
        assert one.due(NOW_S - 1)
    assert not Dumps("").due(NOW_S)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A link that somebody has put in its place is not followed, but removed; a directory that went is an error."""
    dumps = Dumps(str(tmp_path))
    path = dumps.name(NOW_S, "upstream/u")
    (tmp_path / "precious").write_text("here")
    path.with_suffix(".part").symlink_to(tmp_path / "precious")
    dumps.write(path, copy_of(1))
    assert (tmp_path / "precious").read_text() == "here"
    assert not path.is_symlink()
    with pytest.raises(OSError, match="No such file"):
        Dumps(str(tmp_path)).write(tmp_path / "gone" / "storm-1.history", copy_of(1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[: len(data) // 2], "is cut off: its end is missing"),
        (lambda data: data[:-1], "is cut off"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], "is no history that edgeq has written, or is damaged: CRC"),
        (lambda data: b"some text", "is no history that edgeq has written, or is damaged: Not a gzipped file"),
        (lambda data: gzip.compress(b"x" * 5000), "is no history that edgeq has written: it is no history"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-40]), "its history is cut off"),
        (lambda data: gzip.compress(bytes(gzip.decompress(data)).replace(b"wall_s", b"xall_s")), "has no time"),
        (lambda data: b"", "is no history"),
    ],
)
def test_a_file_that_will_not_do(change: Any, says: str, tmp_path: Path) -> None:
    """Each is a sentence with the file's name."""
    path = write(Dumps(str(tmp_path)), NOW_S)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DumpError, match=says) as error:
        read(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "wall_s", "left_at"),
    [("worker/first", NOW_S, 0), ("upstream/u", 1e300, 0), ("upstream/u", NOW_S, 2**64 - 1)],
)
def test_a_file_whose_content_is_made_up(name: str, wall_s: float, left_at: int, tmp_path: Path) -> None:
    """Its checksum is right, and what it says cannot be: that is a sentence as well."""
    memory = memoryview(bytearray(size_bytes(4, 1)))
    ring = Ring.begin(memory, 4, 1)
    ring.write(ring.use([name])[0], [1] * VALUES)
    ring.commit(10**9)
    ring.note(orjson.dumps({"wall_s": wall_s}))
    memory[size_bytes(4, 0) + 8 :][:8] = left_at.to_bytes(8, "little")
    path = tmp_path / "made-up.history"
    path.write_bytes(gzip.compress(memory))
    with pytest.raises(DumpError, match=f"{path} is no history that edgeq has written"):
        records(str(path), ALL, 60, 60)


def test_a_file_that_is_not_there() -> None:
    """Or is a directory."""
    with pytest.raises(DumpError, match="cannot read /nowhere/x: No such file or directory"):
        read("/nowhere/x")
    with pytest.raises(DumpError, match="cannot read /: Is a directory"):
        read("/")


class Log:
    """Takes the events of the modules."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, _level: str) -> Any:
        return lambda event, **facts: self.events.append((event, facts))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    for module in (dumps_io, storm_watch_io):
        monkeypatch.setattr(module, "_log", log)
    return log


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.board.close()


class Clock:
    """Of the wall."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def time(self) -> float:
        return self.now_s


def test_a_storm_is_told_and_written(bench: Bench, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file's name at its beginning and its end; the file has what was before; a second storm that comes soon
    has its file later."""
    clock = Clock()
    monkeypatch.setattr(storm_watch_io, "time", clock)
    watch = StormWatch(bench.recorder)
    watch.configure(str(tmp_path))

    def seconds(count: int, refused: int) -> None:
        for _ in range(count):
            for _ in range(10):
                bench.work(served=3, refused=refused)
                bench.tick()
            watch.look(bench.now)

    async def story() -> None:
        seconds(3, 0)
        assert log.take() == []
        seconds(2, 4)
        await watch.close()

    asyncio.run(story())
    ((event, facts),) = log.take()
    (file,) = tmp_path.glob("*")
    assert (event, facts["resource"], facts["file"]) == ("storm_began", "upstream/u", str(file))
    assert 10 <= facts["refused_per_s"] <= 40
    history, note = read(str(file))
    assert note["resource"] == "upstream/u"
    moments = history.of_resource("upstream/u", 60, 1.0)
    assert isinstance(moments[0], Moment)
    assert moments[0].refused_per_s == 0
    assert moments[-1].refused_per_s == pytest.approx(40, rel=0.01)
    seconds(12, 0)
    ((event, facts),) = log.take()
    assert (event, facts["resource"], facts["file"]) == ("storm_ended", "upstream/u", str(file))
    assert facts["peak_per_s"] == pytest.approx(40, rel=0.01)
    seconds(2, 4)
    ((event, facts),) = log.take()
    assert (event, facts["file"]) == ("storm_began", "")
    seconds(2, 4)
    assert list(tmp_path.glob("*")) == [file]
    watch.configure(str(tmp_path))  # a reload
    clock.now_s += dumps_io.EVERY_S

    async def later() -> None:
        seconds(2, 4)
        await watch.close()

    asyncio.run(later())
    ((event, facts),) = log.take()
    (second,) = {*tmp_path.glob("*")} - {file}
    assert (event, facts["resource"], facts["file"]) == ("storm_written", "upstream/u", str(second))
    assert read(str(second))[1]["refused_per_s"] >= 10
    seconds(14, 0)
    ((event, facts),) = log.take()
    assert (event, facts["file"]) == ("storm_ended", str(second))


def test_a_directory_that_will_not_do(bench: Bench, log: Log, tmp_path: Path) -> None:
    """It is told at once; a storm is told without a file; a reload after it was made is enough."""
    watch = StormWatch(bench.recorder)
    directory = tmp_path / "made later"
    watch.configure(str(directory))
    ((event, facts),) = log.take()
    assert (event, facts["why"]) == ("history of refusal storms is not written", "there is no such directory")
    for _ in range(20):
        bench.work(served=0, refused=5)
        bench.tick()
    watch.look(bench.now)
    ((event, facts),) = log.take()
    assert (event, facts["file"]) == ("storm_began", "")
    directory.mkdir()
    watch.configure(str(directory))
    assert log.take() == []


def test_a_write_that_fails_is_told(bench: Bench, log: Log, tmp_path: Path) -> None:
    """The disk is full, or the directory went since the start. The next storm gets a file."""
    watch = StormWatch(bench.recorder)
    directory = tmp_path / "dumps"
    directory.mkdir()
    watch.configure(str(directory))
    directory.rmdir()

    async def seconds(count: int, refused: int) -> None:
        for _ in range(count):
            for _ in range(10):
                bench.work(served=0, refused=refused)
                bench.tick()
            watch.look(bench.now)
        await watch.close()
        await asyncio.sleep(0)  # the callback

    asyncio.run(seconds(1, 5))
    began, failed = log.take()
    assert began[0] == "storm_began"
    assert failed[0] == "history of a refusal storm not written"
    assert "No such file" in failed[1]["why"]
    assert failed[1]["file"] == began[1]["file"]
    asyncio.run(seconds(13, 0))
    ((event, facts),) = log.take()
    assert (event, facts["file"]) == ("storm_ended", "")
    directory.mkdir()
    asyncio.run(seconds(2, 5))
    ((event, facts),) = log.take()
    assert (event, [facts["file"]]) == ("storm_began", [str(one) for one in directory.iterdir()])
