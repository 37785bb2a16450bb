"""The circuit breaker's states, walked by hand and by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeq.config.base import Duration
from edgeq.config.schema import Breaker as BreakerConfig
from edgeq.upstream.breaker import CLOSED, HALF_OPEN, MAX_LONGER, OPEN, Breaker
from edgeq.upstream.shared import LocalCells

CONFIG = BreakerConfig(failures=0.5, min_requests=10, window=Duration(10), open=Duration(5), probes=2)


def opened(at: float = 100.0) -> Breaker:
    breaker = Breaker(CONFIG, LocalCells(), 0.0)
    for _ in range(10):
        breaker.failed(at, at)
    assert breaker.state == OPEN
    return breaker


def test_it_opens_at_the_rate_and_not_before_there_is_enough_to_judge() -> None:
    """Nine failures are not enough requests; of 20 requests ten failures are enough, nine are not."""
    breaker = Breaker(CONFIG, LocalCells(), 0.0)
    for _ in range(9):
        assert not breaker.failed(1.0, 1.0)
    assert breaker.admit(1.0)
    breaker = Breaker(CONFIG, LocalCells(), 0.0)
    for _ in range(10):
        breaker.succeeded(1.0, 1.0)
    for _ in range(9):
        assert not breaker.failed(1.0, 1.0)
    assert breaker.failed(1.0, 1.0)
    assert not breaker.admit(1.0)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    """Failures leave with their bucket."""
    breaker = Breaker(CONFIG, LocalCells(), 0.0)
    for second in range(9):
        breaker.failed(0.0, float(second))
    assert not breaker.failed(0.0, 25.0)
    assert breaker.snapshot(25.0)["failed"] == 1


def test_probes_close_it() -> None:
    """After `open` so many requests are let through, and their answers decide."""
    breaker = opened()
    assert not breaker.admit(104.9)
    assert breaker.retry_after_s(104.0) == 1.0
    assert [breaker.admit(105.0) for _ in range(4)] == [True, True, False, False]
    assert breaker.state == HALF_OPEN
    assert not breaker.succeeded(105.0, 105.1)
    assert breaker.succeeded(105.0, 105.2)
    assert breaker.state == CLOSED
    assert breaker.admit(105.3)


def test_a_failed_probe_opens_it_for_longer() -> None:
    """5, 10, 20 s, and so on to a bound; closing makes it forget."""
    breaker = opened()
    now = 100.0
    lengths = []
    for _ in range(6):
        length = breaker.retry_after_s(now)
        lengths.append(length)
        now += length
        assert breaker.admit(now)
        breaker.failed(now, now)
    assert lengths == [5, 10, 20, 40, 50, 50]
    assert lengths[-1] == MAX_LONGER * 5
    now += 50
    for _ in range(2):
        assert breaker.admit(now)
        breaker.succeeded(now, now)
    for _ in range(10):
        breaker.failed(now, now)
    assert breaker.retry_after_s(now) == 5


def test_late_answers_are_no_probes() -> None:
    """What was sent before it was half-open says nothing about now."""
    breaker = opened()
    assert breaker.admit(105.0)
    breaker.failed(99.0, 105.1)
    assert breaker.state == HALF_OPEN
    breaker.succeeded(99.0, 105.1)
    breaker.succeeded(99.0, 105.1)
    assert breaker.state == HALF_OPEN


def test_probes_that_tell_nothing_are_replaced() -> None:
    """A probe whose client left must not keep it half-open for ever."""
    breaker = opened()
    assert [breaker.admit(105.0) for _ in range(3)] == [True, True, False]
    assert breaker.retry_after_s(106.0) == 4.0
    assert [breaker.admit(110.0) for _ in range(3)] == [True, True, False]


def test_one_worker_opens_it_for_all() -> None:
    """Cells in common: the other one opens, half-opens and closes along, and nobody reopens what is closed."""
    cells = LocalCells()
    first, second = Breaker(CONFIG, cells, 0.0), Breaker(CONFIG, cells, 0.0)
    for _ in range(10):
        first.failed(1.0, 1.0)
    assert second.adopt()
    assert not second.admit(2.0)
    assert not second.adopt()
    assert second.admit(6.0)
    second.succeeded(6.0, 6.1)
    second.admit(6.1)
    second.succeeded(6.1, 6.2)
    assert first.adopt()
    assert first.state == second.state == CLOSED
    assert Breaker(CONFIG, cells, 7.0).state == CLOSED


def test_two_that_close_it_are_told_once() -> None:
    """Each sends its probes, and has closed it by itself before it hears of the other."""
    cells = LocalCells()
    first, second = Breaker(CONFIG, cells, 0.0), Breaker(CONFIG, cells, 0.0)
    for _ in range(10):
        first.failed(1.0, 1.0)
    assert second.adopt()
    for at, breaker in ((6.0, first), (6.1, second)):
        for _ in range(2):
            assert breaker.admit(at)
        assert [breaker.succeeded(at, at) for _ in range(2)] == [False, True]
    assert not first.adopt()
    assert first.state == second.state == CLOSED


class Walk(RuleBasedStateMachine):
    """Any requests with any ends at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1.0
        self.breaker = Breaker(CONFIG, LocalCells(), self.now)
        self.running: list[float] = []

    @rule(seconds=st.sampled_from([0.01, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 12))
    def ask(self, count: int) -> None:
        for _ in range(count):
            if self.breaker.admit(self.now):
                self.running.append(self.now)

    @rule(good=st.booleans(), count=st.integers(1, 12), tells=st.booleans())
    def end(self, good: bool, count: int, tells: bool) -> None:
        for _ in range(min(count, len(self.running))):
            begun_at = self.running.pop()
            if tells:
                (self.breaker.succeeded if good else self.breaker.failed)(begun_at, self.now)

    @invariant()
    def is_sound(self) -> None:
        assert self.breaker.state in (CLOSED, OPEN, HALF_OPEN)
        assert self.breaker.retry_after_s(self.now) <= 5 * MAX_LONGER

    def teardown(self) -> None:
        """Whatever has happened: if all is well from now on, it closes."""
        self.now += 60
        for _ in range(4):
            for _ in range(2):
                if self.breaker.admit(self.now):
                    self.breaker.succeeded(self.now, self.now)
            self.now += 6
        assert self.breaker.state == CLOSED


TestWalk = Walk.TestCase
