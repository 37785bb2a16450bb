"""What the recorder has noted of a board, as moments and steps, and that it is the same for a successor."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator

import msgspec
import pytest

from edgeq.board.resources import ResourceCells
from edgeq.config.base import Duration
from edgeq.config.schema import Server, Upstream
from edgeq.observe.history import EVERY_S
from tests.observe.recorded import CONFIG, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.board.close()


def test_moments_and_steps(bench: Bench) -> None:
    """Gauges as they are, rates of the time since the moment before; of a step the peaks, and the mean of the rest."""
    bench.tick()
    bench.cells[0].set_in_flight(2, 2)
    bench.cells[1].set_in_flight(1, 1)
    bench.cells[1].set_waiting(4, 100, bench.now - 0.5)
    bench.work(served=3, refused=2, service_s=0.02)
    bench.tick()
    bench.cells[1].set_waiting(1, 100, bench.now)
    bench.work(served=1, service_s=0.06)
    bench.tick()
    first, second, third = bench.recorder.history("upstream/u", 10)
    assert first == pytest.approx((1000.1, 0, 3, 0, 0, 0, 0, 0, 0))
    assert second == pytest.approx((1000.2, 4, 3, 3, 50, 30, 20, 600, 20))
    assert third == pytest.approx((1000.3, 1, 3, 3, 10, 10, 0, 100, 60))
    (step,) = bench.recorder.history("upstream/u", 10, 10)
    assert step == pytest.approx((1000.3, 4, 3, 3, 6 / 0.3, 4 / 0.3, 2 / 0.3, 600, 30))
    assert bench.recorder.history("upstream/u", 0.15) == [second, third]
    assert bench.recorder.history("upstream/nobody", 10) == []
    assert sorted(bench.recorder.resources()) == ["route/r", "target/p/m", "upstream/u", "upstream/v"]


def test_gates_of_models(bench: Bench) -> None:
    """Who waits for tokens, is let in, and is refused; by the target's name, or by any name of a model."""
    bench.tick()
    gate = ResourceCells(bench.board, bench.neighbours(0), "target/p/m")
    gate.set_in_flight(2, 2)
    gate.set_waiting(4, 100, bench.now - 0.5)
    gate.admitted(0.0)
    gate.refused("queue_full")
    gate.flush()
    bench.tick()
    _, moment = bench.recorder.history("target/p/m", 10)
    assert moment == pytest.approx((1000.2, 4, 0, 2, 20, 10, 10, 600, 0))
    rows = [bench.recorder.records(name, 10) for name in ("target/p/m", "model/smart", "model/best")]
    assert rows[0] == rows[1] == rows[2]
    assert [row["resource"] for row in rows[0] if isinstance(row, dict)] == ["target/p/m"]
    told = bench.recorder.records("model/smrt", 10)
    assert isinstance(told, str)
    assert "target/p/m" in told


def test_each_second_has_its_own_time(bench: Bench) -> None:
    """Rows of `show history` are a second apart, though a busy supervisor notes a moment too late now and then."""
    for late_s in (0.0, 0.03, 0.08, 0.01, 0.06) * 20:
        bench.now += late_s
        bench.tick()
    rows = bench.recorder.records("upstream/u", 8)
    assert isinstance(rows, list)
    times = [datetime.datetime.fromisoformat(row["at"]).timestamp() for row in rows]
    assert [later - at for at, later in itertools.pairwise(times)] == pytest.approx([1.0] * (len(rows) - 1), abs=0.002)


def test_a_learned_limit_is_what_was_learned_then(bench: Bench) -> None:
    """As it moves; 0 before it is known."""
    bench.tick()
    bench.board.set_learned_limit(bench.board.resource_index("upstream/v"), 17)
    bench.tick()
    bench.board.set_learned_limit(bench.board.resource_index("upstream/v"), 12)
    bench.tick()
    assert [one.limit for one in bench.recorder.history("upstream/v", 10)] == [0, 17, 12]


def test_workers(bench: Bench) -> None:
    """Connections, requests and lag; a new process in the slot has not served the requests of the old one."""
    row = bench.board.row(1)
    row.add_connection(0)
    row.beat(1, 2500, 40, 3)
    bench.tick()
    row.beat(2, 500, 50, 3)
    bench.tick()
    one, other = bench.recorder.worker_history(1, 10)
    assert one == pytest.approx((1000.1, 0, 0, 3, 0, 1, 2.5))
    assert other == pytest.approx((1000.2, 0, 0, 3, 100, 1, 0.5))
    assert bench.recorder.workers() == [0, 1]
    bench.pid += 1
    bench.board.bury(1)
    bench.board.row(1).beat(3, 0, 60, 0)
    bench.tick()
    assert bench.recorder.worker_history(1, 10)[-1] == pytest.approx((1000.3, 0, 0, 0, 0, 0, 0))


def test_a_successor_goes_on(bench: Bench) -> None:
    """On the same board: with what was before, and without taking all that was ever counted for its first moment's."""
    bench.work(served=100)
    bench.tick()
    bench.work(served=10)
    bench.tick()
    bench.recorder = bench.new_recorder()
    bench.now += 2
    bench.tick()
    bench.work(served=20)
    bench.tick()
    found = bench.recorder.history("upstream/u", 10)
    assert [round(one.at_s - 1000, 1) for one in found] == [0.1, 0.2, 2.3, 2.4]
    assert [round(one.departures_per_s) for one in found] == [0, 100, 0, 200]


def test_another_configuration(bench: Bench) -> None:
    """What leaves is told as far as it went, what comes begins; another length keeps what has room; 0 keeps nothing."""
    bench.tick(30)
    later = {"w": Upstream(endpoints=("http://h",), limit=1), "u": CONFIG.upstream["u"]}
    bench.config = msgspec.structs.replace(CONFIG, upstream=later, server=Server(history=Duration(3)))
    bench.board.assign_resources(["upstream/u", "upstream/w", "route/r"])
    bench.recorder.configure()
    bench.tick(10)
    assert set(bench.recorder.resources()) == {"route/r", "target/p/m", "upstream/u", "upstream/v", "upstream/w"}
    assert len(bench.recorder.history("upstream/u", 10)) == 29  # a moment is given up where one ring follows the other
    assert [len(bench.recorder.history(f"upstream/{name}", 10)) for name in "vw"] == [19, 10]
    bench.config = msgspec.structs.replace(bench.config, server=Server(history=Duration(0)))
    bench.recorder.configure()
    bench.tick()
    assert bench.recorder.resources() == []
    assert bench.recorder.history("upstream/u", 10) == []
    assert bench.board.annex() is None


def test_what_is_no_history_is_given_up(bench: Bench) -> None:
    """Of another version of edgeq, for instance: then it begins anew."""
    bench.tick()
    memory = bench.board.annex()
    assert memory is not None
    memory[8:16] = bytes(8)
    bench.recorder = bench.new_recorder()
    assert bench.recorder.resources() == []
    bench.tick()
    assert len(bench.recorder.history("upstream/u", 10)) == 1


def test_many_resources_do_not_take_the_supervisor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment that took 10 ms is followed by a pause that makes it a fiftieth of a core."""
    times = iter([5.0, 5.01, 6.0, 6.0001])
    monkeypatch.setattr("edgeq.observe.recorder.time.perf_counter", lambda: next(times))
    bench.tick()
    assert bench.recorder.pause_s == pytest.approx(0.5)
    bench.tick()
    assert bench.recorder.pause_s == EVERY_S


def test_more_names_than_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come first are noted, and nothing breaks for the others."""
    monkeypatch.setattr("edgeq.observe.recorder.LANES", 2)
    bench = Bench()
    bench.tick(2)
    assert list(bench.recorder.resources()) == ["route/r", "upstream/u"]
    assert len(bench.recorder.history("upstream/u", 10)) == 2
    assert bench.recorder.worker_history(0, 10) == []
    bench.board.close()
