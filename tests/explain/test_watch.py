"""Now and before: what the supervisor notes twice a second, with a clock of the test's own."""

from __future__ import annotations

from edgeq.board import resources
from edgeq.board.reading import Reading
from edgeq.explain.facts import Models
from edgeq.explain.watch import BEFORE_S, EVERY_S, NOW_S, Watch


class Looks:
    """One resource, looked at again and again."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.now_s = 100.0
        self.models: Models = {}
        self.limit = 8
        self.others = 0
        self.learned: tuple[str, ...] = ()
        self._counters = [0] * 2000

    def go(
        self, looks: int, rate: int, service_ms: float, waits: bool = False, limit: int = 8, refused: int = 0
    ) -> None:
        """So many looks, between which `rate` requests a second came and went, and `refused` were refused."""
        for _ in range(looks):
            self.now_s += EVERY_S
            done = int(rate * EVERY_S)
            self._counters[resources.SCALARS] += int(refused * EVERY_S)
            self._counters[resources.ADMITTED] += done
            self._counters[resources.OK] += done
            self._counters[resources.SERVICE_US] += int(done * service_ms * 1000)
            self._counters[resources.BINDING_US] += int(EVERY_S * 1e6) if waits else 0
            self.limit = limit
            self.look(False)

    def look(self, is_passing: bool) -> None:
        """At what is there."""
        reading = Reading(list(self._counters))
        counts = {"refused": self._counters[resources.SCALARS]} | ({"other": self.others} if self.others else {})
        self.watch.note_counters(self.now_s, counts, is_passing)
        models = {"upstream/api": self.models}
        seen = [("upstream/api", self.limit, reading)]
        self.watch.note_resources(self.now_s, seen, models, is_passing, self.learned)

    def pass_by(self, after_s: float, refused: int) -> None:
        """A passing look, before which so many were refused."""
        self.now_s += after_s
        self._counters[resources.SCALARS] += refused
        self.look(True)


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
    assert spell.last_s - spell.began_s == 1000 * EVERY_S
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
    """A minute of what was before, and nothing of a resource that is gone."""
    looks = Looks()
    looks.go(2000, 10, 1.0)
    before = looks.watch.before("upstream/api")
    assert before is not None
    assert before.span_s == BEFORE_S
    assert looks.watch.now("upstream/api").span_s == NOW_S
    looks.watch.note_resources(looks.now_s + 1, [])
    assert looks.watch.before("upstream/api") is None
    assert looks.watch.now("upstream/api").span_s == 0


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


def test_what_grew_last() -> None:
    """Of counters that grow no more."""
    watch = Watch()
    for now_s, one, other in ((1.0, 0, 0), (2.0, 5, 5), (3.0, 5, 9), (30.0, 5, 9)):
        watch.note_counters(now_s, {"bad/one": one, "bad/other": other, "good": now_s})
    assert watch.grew_last("bad/") == {"bad/one": 2.0, "bad/other": 3.0}


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


def test_a_passing_look_is_replaced() -> None:
    """Whoever asks sees what is now; what is kept does not depend on it, however often somebody does."""
    looks = Looks()
    looks.go(20, 100, 20.0)
    watched = Looks()
    watched.go(20, 100, 20.0)
    for _ in range(30):
        looks.pass_by(0.01, 2)
    assert looks.watch.spell("upstream/api") is not None
    assert (round(looks.watch.per_s("refused")), round(looks.watch.grows_for_s("refused"), 3)) == (46, 0.3)
    assert round(looks.watch.now("upstream/api").refused_per_s) == 46
    watched.pass_by(0.3, 60)
    for one in (looks, watched):
        one.now_s += 0.2
        one.look(False)
    asked, alone = looks.watch.now("upstream/api"), watched.watch.now("upstream/api")
    assert (round(asked.refused_per_s, 6), round(asked.span_s, 6)) == (round(alone.refused_per_s, 6), 1.0)
    assert looks.watch.before("upstream/api") == watched.watch.before("upstream/api")


def test_all_rates_of_a_resource_are_of_one_time() -> None:
    """So they add up, from the first moment on, and are the same as those of its refusals."""
    looks = Looks()
    looks.go(20, 100, 20.0)
    for _ in range(8):
        looks.go(1, 100, 20.0, refused=200)
        now = looks.watch.now("upstream/api")
        assert round(now.arrivals_per_s - now.departures_per_s - now.refused_per_s, 6) == 0
        assert looks.watch.per_s("refused", looks.watch.since_s("upstream/api")) == now.refused_per_s
    assert round(now.refused_per_s) == 200


def test_a_reason_that_comes_later_has_the_same_time() -> None:
    """What was not there before was 0 then, for as long as the resource's other rates are of."""
    looks = Looks()
    looks.go(20, 100, 20.0)
    looks.go(4, 100, 20.0, waits=True)
    for more in (10, 20):
        looks.others = more
        looks.go(1, 100, 20.0, waits=True)
    since_s = looks.watch.since_s("upstream/api")
    assert (looks.now_s - since_s, looks.watch.now("upstream/api").span_s) == (3.0, 3.0)
    assert round(looks.watch.per_s("other", since_s), 3) == round(20 / 3.0, 3)


def test_what_was_before_is_calm() -> None:
    """Trouble that comes and goes is one, and what was before it is what was before all of it."""
    looks = Looks()
    looks.go(40, 100, 20.0)
    for _ in range(60):  # it comes and goes for minutes
        looks.go(6, 100, 200.0, waits=True)
        looks.go(8, 100, 200.0)
    looks.go(1, 100, 200.0, waits=True)
    spell, before = looks.watch.spell("upstream/api"), looks.watch.before("upstream/api")
    assert before is not None
    assert spell is not None
    assert before.service_ms == 20.0
    assert spell.last_s - spell.began_s == (60 * 14 + 1) * EVERY_S


def test_a_limit_at_the_beginning() -> None:
    """It is known whether it was lowered before somebody waited, or because somebody did."""
    looks = Looks()
    looks.go(20, 100, 20.0, limit=8)
    looks.go(2, 100, 20.0, waits=True, limit=8)
    looks.go(2, 100, 20.0, waits=True, limit=2)
    spell = looks.watch.spell("upstream/api")
    assert spell is not None
    assert (spell.limit, looks.watch.now("upstream/api").limit) == (8, 2)


def test_what_was_before_a_limit_was_changed() -> None:
    """Whether or not somebody waited; half a step back does not hide it, and what is now begins with it."""
    looks = Looks()
    looks.go(6, 960, 50.0, waits=True, limit=50)
    assert looks.watch.was("upstream/api") is None
    looks.go(2, 96, 50.0, waits=True, limit=5)
    was, now = looks.watch.was("upstream/api"), looks.watch.now("upstream/api")
    assert was is not None
    assert (was.limit, was.departures_per_s, now.departures_per_s) == (50, 960, 96)
    looks.go(8, 100, 50.0, waits=True, limit=7)
    was = looks.watch.was("upstream/api")
    assert was is not None
    assert (was.limit, was.departures_per_s) == (50, 960)
    looks.go(400, 100, 50.0, limit=7)
    looks.go(4, 200, 50.0, waits=True, limit=7)
    assert looks.watch.was("upstream/api") is None  # it was long before anybody waited


def test_a_raised_limit_ends_the_queue() -> None:
    """If nobody waits any more, at once: a part of that step was still below the old one."""
    looks = Looks()
    looks.go(20, 100, 20.0, limit=60)
    looks.go(8, 100, 20.0, waits=True, refused=50, limit=5)
    assert looks.watch.spell("upstream/api") is not None
    looks.go(1, 100, 20.0, waits=True, refused=10, limit=60)
    assert looks.watch.spell("upstream/api") is None
    looks.go(1, 100, 20.0, waits=True, limit=60)
    assert looks.watch.spell("upstream/api") is None
    looks.go(3, 100, 20.0, waits=True, limit=60)
    assert looks.watch.spell("upstream/api") is not None


def test_a_learned_limit_changes_of_itself() -> None:
    """Nobody has changed it."""
    looks = Looks()
    looks.learned = ("upstream/api",)
    for limit in range(20, 8, -1):
        looks.go(2, 100, 20.0, waits=True, limit=limit)
    looks.go(1, 100, 20.0, waits=True, limit=10)
    watch = looks.watch
    assert (watch.was("upstream/api"), watch.now("upstream/api").span_s) == (None, NOW_S)
    assert watch.spell("upstream/api") is not None


def test_what_is_over_does_not_grow() -> None:
    """Once several would have come, at the rate that it had; what comes seldom has its time."""
    watch = Watch()
    counts = {"often": 0, "seldom": 0}
    for look in range(1, 7):
        counts = {"often": counts["often"] + 50, "seldom": int(look >= 6)}
        watch.note_counters(look * EVERY_S, counts)
    assert watch.quiet_s("often") == 0
    watch.note_counters(3.5, counts)
    watch.note_counters(4.0, counts)
    assert (watch.quiet_s("often"), watch.quiet_s("seldom")) == (1.0, 0.0)


def test_how_long_something_is_so() -> None:
    """At all looks without a break."""
    watch = Watch()
    for now_s, holding in ((1.0, ["a"]), (1.5, ["a", "b"]), (2.0, ["a", "b"])):
        watch.note_states(now_s, holding)
    assert (watch.holds_for_s("a"), watch.holds_for_s("b"), watch.holds_for_s("c")) == (1.0, 0.5, 0.0)
    assert watch.held_ago_s("c", 2.0) is None
    watch.note_states(2.5, ["b"])
    assert (watch.held_ago_s("a", 2.5), watch.held_ago_s("b", 2.6)) == (0.5, 2.6 - 2.5)
    watch.note_states(3.0, ["a", "b"])
    assert (watch.holds_for_s("a"), watch.holds_for_s("b")) == (0.0, 1.5)
    watch.note_states(3.5, [])
    watch.note_states(9.0, [])
    assert watch.held_ago_s("b", 9.0) is None


def test_what_keeps_somebody_out_goes_on_after_a_breath() -> None:
    """Whoever is let in between is no end of it; after five seconds it is."""
    looks = Looks()
    for _ in range(4):
        looks.go(2, 10, 5.0)
        looks.watch.note_short(["target/p/m"])
        looks.go(6, 10, 5.0)
        looks.watch.note_short([])
    assert looks.watch.short_for_s("target/p/m") == 4 * 8 * EVERY_S - 2 * EVERY_S
    assert looks.watch.short_for_s("target/p/other") == 0.0
    looks.go(10, 10, 5.0)
    looks.watch.note_short([])
    assert looks.watch.short_for_s("target/p/m") == 0.0


def test_counters_that_have_grown_since_a_look() -> None:
    """Also in a passing look between."""
    watch = Watch()
    watch.note_counters(1.0, {"refused/a": 1, "refused/b": 1})
    watch.note_counters(1.5, {"refused/a": 2, "refused/b": 1})
    watch.note_short([])
    watch.note_counters(1.8, {"refused/a": 2, "refused/b": 2}, is_passing=True)
    watch.note_counters(2.0, {"refused/a": 2, "refused/b": 2})
    assert watch.grown("refused/") == ["refused/b"]
