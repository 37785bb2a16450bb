"""Now and before: what the supervisor notes twice a second, with a clock of the test's own."""

from __future__ import annotations

from edgeq.board import resources
from edgeq.board.reading import Reading
from edgeq.explain.facts import Models
from edgeq.explain.watch import EVERY_S, NOW_S, Watch


class Looks:
    """One resource, looked at again and again."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.now_s = 100.0
        self.models: Models = {}
        self._counters = [0] * 2000

    def go(self, looks: int, rate: int, service_ms: float, waits: bool = False, limit: int = 8) -> None:
        """So many looks, between which `rate` requests a second came and went."""
        for _ in range(looks):
            self.now_s += EVERY_S
            done = int(rate * EVERY_S)
            self._counters[resources.ADMITTED] += done
            self._counters[resources.OK] += done
            self._counters[resources.SERVICE_US] += int(done * service_ms * 1000)
            self._counters[resources.BINDING_US] += int(EVERY_S * 1e6) if waits else 0
            reading = Reading(list(self._counters))
            self.watch.note_resources(self.now_s, [("upstream/api", limit, reading)], {"upstream/api": self.models})
            self.watch.note_counters(self.now_s, {})


def test_before_is_before_the_queue_began() -> None:
    """However long it lasts; and it is over once nobody waits for a while."""
    looks = Looks()
    looks.go(20, 100, 20.0)
    assert looks.watch.spell("upstream/api") is None
    looks.go(1000, 100, 200.0, waits=True)
    now, before, spell = (
        looks.watch.now("upstream/api"),
        looks.watch.before("upstream/api"),
        looks.watch.spell("upstream/api"),
    )
    assert before is not None
    assert spell is not None
    assert (round(now.service_ms or 0), round(before.service_ms or 0)) == (200, 20)
    assert (round(now.arrivals_per_s), round(before.arrivals_per_s), before.limit) == (100, 100, 8)
    assert spell.last_s - spell.began_s == 999 * EVERY_S
    looks.go(4, 100, 20.0)
    assert looks.watch.spell("upstream/api") is None


def test_a_pause_is_no_traffic_to_compare_with() -> None:
    """Before is when something came; without it there is none."""
    looks = Looks()
    looks.go(20, 0, 0.0)
    looks.go(4, 100, 20.0, waits=True)
    assert looks.watch.before("upstream/api") is None
    looks = Looks()
    looks.go(10, 100, 20.0)
    looks.go(20, 0, 0.0)
    looks.go(4, 100, 20.0, waits=True)
    before = looks.watch.before("upstream/api")
    assert before is not None
    assert round(before.arrivals_per_s) == 100


def test_models_are_told_now_from_before() -> None:
    """By what each answered in that time. Of a worker that has died nothing is subtracted."""
    looks = Looks()
    looks.models = {"small": (40, 2.0)}
    looks.go(1, 100, 20.0)
    looks.models = {"small": (100, 5.0), "large": (1, 4.0)}
    looks.go(20, 100, 20.0)
    looks.models = {"small": (90, 4.5), "large": (3, 12.0)}
    looks.go(1, 100, 200.0, waits=True)
    before = looks.watch.before("upstream/api")
    assert before is not None
    assert before.models == {"small": (60, 3.0), "large": (1, 4.0)}
    assert looks.watch.now("upstream/api").models == {"large": (2, 8.0)}


def test_the_history_is_bounded_and_forgets() -> None:
    """Minutes of it, and nothing of a resource that is gone."""
    looks = Looks()
    looks.go(2000, 10, 1.0)
    assert len(looks.watch.history("upstream/api", 1e6)) == 360
    assert len(looks.watch.history("upstream/api", NOW_S)) == NOW_S / EVERY_S + 1
    looks.watch.note_resources(looks.now_s + 1, [])
    assert looks.watch.history("upstream/api", 1e6) == []


def test_how_a_counter_grows() -> None:
    """What is new has begun at 0, what has fallen has begun again, and what is quiet for a while begins anew."""
    watch = Watch()
    watch.note_counters(1.0, {"kept": 50})
    watch.note_counters(2.0, {"kept": 50, "new": 10})
    assert (watch.per_s("kept"), watch.per_s("new"), watch.grows_for_s("new")) == (0.0, 10.0, 1.0)
    assert watch.growing("n") == ["new"]
    watch.note_counters(3.0, {"kept": 7, "new": 30})
    assert (watch.per_s("kept"), watch.per_s("new"), watch.grows_for_s("new")) == (0.0, 15.0, 2.0)
    for second in range(4, 20):
        watch.note_counters(float(second), {"kept": 7, "new": 30})
    assert watch.grows_for_s("new") == 0.0
    watch.note_counters(20.0, {"kept": 7, "new": 31})
    assert watch.grows_for_s("new") == 1.0
    watch.note_counters(21.0, {})
    assert (watch.per_s("new"), watch.growing("")) == (0.0, [])


def test_a_single_long_turn_is_no_standing_lag() -> None:
    """The least of the last looks counts, and of one look alone nothing."""
    watch = Watch()
    watch.note_lags({0: 300.0})
    assert watch.standing_lag_ms(0) == 0.0
    for lag_ms in (2.0, 300.0, 250.0):
        watch.note_lags({0: lag_ms})
    assert watch.standing_lag_ms(0) == 2.0
    watch.note_lags({0: 200.0})
    assert watch.standing_lag_ms(0) == 2.0
    watch.note_lags({0: 220.0})
    assert watch.standing_lag_ms(0) == 200.0


def test_who_asked_lately() -> None:
    """The sum over the last looks; who has not asked in any of them is forgotten."""
    watch = Watch()
    watch.note_asking({"upstream/api": {"acme": 3, "zeta": 1}})
    watch.note_asking({"upstream/api": {"acme": 2}})
    assert watch.asked("upstream/api") == {"acme": 5, "zeta": 1}
    for _ in range(6):
        watch.note_asking({})
    assert watch.asked("upstream/api") == {}
