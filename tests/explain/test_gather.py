"""What the supervisor gathers, from a board that a test has written."""

from __future__ import annotations

import time

from edgeq.explain.gather import Gatherer
from tests.observe.test_overview import CONFIG, Bench


def test_a_worker_that_gives_no_sign_of_life_lags() -> None:
    """Its last report says nothing of it, and the next one comes when it is over."""
    bench = Bench()
    try:
        gatherer = Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: CONFIG)
        for slot, age_s in ((0, 0.0), (1, 5.0)):
            bench.tell(slot, max_lag_us=900)
            bench.board.row(slot).beat(time.monotonic_ns() - int(age_s * 1e9), 0, 0, 0)
        for _ in range(3):
            gatherer.look()
        assert gatherer.watch.standing_lag_ms(0) < 1000
        assert gatherer.watch.standing_lag_ms(1) >= 4000
    finally:
        bench.board.close()
