"""Who is set aside, who comes back, who is given up: the table with a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeq.supervisor.stuck import CALM_S, CROWDED_S, MOST_STEP_S, Moves, Sight, StuckTable, Why, crowded

AFTER_S = 2.0
RESTART_S = 10.0
LOOK_S = 0.1


class Workers:
    """Workers that beat at each look, unless a test says otherwise."""

    def __init__(self, count: int) -> None:
        self.table = StuckTable()
        self.now_s = 0.0
        self.beats = dict.fromkeys(range(count), 0)
        self.pids = {slot: 100 + slot for slot in range(count)}
        self.silent: set[int] = set()
        self.full: set[int] = set()
        self.traced: set[int] = set()
        self.after_s = AFTER_S
        self.restart_s = RESTART_S
        self.look(0.0)

    def look(self, seconds: float = LOOK_S) -> Moves:
        self.now_s += seconds
        for slot in self.beats.keys() - self.silent:
            self.beats[slot] += 1
        sights = {
            slot: Sight(self.pids[slot], beat, slot in self.full, slot in self.traced)
            for slot, beat in self.beats.items()
        }
        return self.table.look(sights, self.now_s, self.after_s, self.restart_s)

    def pass_time(self, seconds: float) -> list[Moves]:
        """Look as often as the supervisor does. Returns what was moved."""
        return [moves for _ in range(round(seconds / LOOK_S)) if (moves := self.look())]


def test_stuck_then_given_up() -> None:
    """Set aside after `after`, given up after `restart` and only once, and its successor begins anew."""
    workers = Workers(2)
    workers.silent = {0}
    assert workers.pass_time(AFTER_S - LOOK_S) == []
    assert workers.pass_time(2 * LOOK_S) == [Moves(stuck=(0,))]
    assert workers.table.aside() == {0: Why.STUCK}
    assert workers.pass_time(RESTART_S - AFTER_S - 2 * LOOK_S) == []
    assert workers.pass_time(10.0) == [Moves(given_up=(0,))]
    workers.table.forget(0)
    assert workers.table.aside() == {}
    workers.pids[0] = 200
    assert not workers.look()
    assert workers.table.aside() == {}
    none = {"crowded": 0, "back": 0, "alone": 0, "revived": 0}
    assert workers.table.counts == {"stuck": 1, "given_up": 1, **none}


def test_a_sign_of_life_brings_it_back() -> None:
    """At once; and a worker that is busy for less than `after` at a time is never noticed."""
    workers = Workers(2)
    workers.silent = {0}
    workers.pass_time(5.0)
    workers.silent = set()
    assert workers.look() == Moves(back=(0,))
    for _ in range(20):
        workers.silent = {0}
        assert workers.pass_time(AFTER_S - 2 * LOOK_S) == []
        workers.silent = set()
        assert not workers.look()


def test_nobody_is_to_blame_when_all_are_silent() -> None:
    """Neither set aside nor given up, which is told once; and once another one is well, the one that is not is noticed
    at once."""
    workers = Workers(3)
    workers.silent = {0, 1, 2}
    assert workers.pass_time(60.0) == [Moves(alone=(0, 1, 2))]
    assert (workers.table.aside(), workers.table.alone()) == ({}, {0, 1, 2})
    workers.silent = {1}
    assert workers.look() == Moves(stuck=(1,), revived=(0, 2))
    assert workers.table.alone() == set()
    workers.silent = set()
    assert workers.look() == Moves(back=(1,))
    alone = Workers(1)
    for _ in range(2):
        alone.silent = {0}
        assert alone.pass_time(60.0) == [Moves(alone=(0,))]
        alone.silent = set()
        assert alone.look() == Moves(revived=(0,))
    alone.silent = {0}
    alone.pass_time(60.0)
    alone.after_s = 0.0
    assert alone.look() == Moves(revived=(0,))


def test_who_is_set_aside_is_not_given_up_once_all_are_silent() -> None:
    """What looked like one worker's trouble was the machine's."""
    workers = Workers(2)
    workers.silent = {0}
    assert workers.pass_time(3.0) == [Moves(stuck=(0,))]
    workers.silent = {0, 1}
    assert [one for one in workers.pass_time(60.0) if one.stuck or one.given_up] == []


def test_nobody_watches_while_the_machine_stands_still() -> None:
    """After an hour's suspension no worker has been silent for longer than a look."""
    workers = Workers(2)
    workers.silent = {0, 1}
    assert not workers.look(3600.0)
    workers.silent = {1}
    assert not workers.look()
    assert workers.table.silent_s(1) <= MOST_STEP_S + LOOK_S


def test_a_debugger_is_left_alone() -> None:
    """Set aside, but not killed, until it lets go and the worker is still silent."""
    workers = Workers(2)
    workers.silent = workers.traced = {0}
    assert workers.pass_time(100.0) == [Moves(stuck=(0,))]
    workers.traced = set()
    assert workers.look() == Moves(given_up=(0,))


def test_switched_off() -> None:
    """`after` 0: nobody is set aside, and who was comes back; `restart` 0: nobody is given up."""
    workers = Workers(2)
    workers.silent = {0}
    workers.restart_s = 0
    assert workers.pass_time(100.0) == [Moves(stuck=(0,))]
    workers.after_s = 0
    assert workers.pass_time(100.0) == [Moves(back=(0,))]
    workers.after_s = AFTER_S
    assert workers.look() == Moves(stuck=(0,))


def test_crowded() -> None:
    """A full queue has others serve for its worker until it has been calm for a while; being stuck counts more."""
    workers = Workers(2)
    workers.full = {0}
    assert workers.pass_time(CROWDED_S - LOOK_S) == []
    assert workers.pass_time(2 * LOOK_S) == [Moves(crowded=(0,))]
    workers.full = set()
    assert workers.pass_time(CALM_S - LOOK_S) == []
    assert workers.pass_time(2 * LOOK_S) == [Moves(back=(0,))]
    workers.full = workers.silent = {0}
    assert workers.pass_time(AFTER_S + LOOK_S) == [Moves(crowded=(0,)), Moves(stuck=(0,))]
    workers.full = workers.silent = set()
    assert workers.look() == Moves(back=(0,))


def test_a_full_queue_beside_an_empty_one() -> None:
    """Of the same listener, and not one that gets no connections: that proves nothing."""
    assert crowded({"a": {0: 0.9, 1: 0.1}, "b": {0: 0.0, 1: 0.0}}) == {0}
    assert crowded({"a": {0: 0.9, 1: 0.5}, "b": {0: 0.0, 1: 0.0}}) == set()
    assert crowded({"a": {0: 0.9, 1: 0.0, 2: 0.9}}, aside={1}) == set()
    assert crowded({}) == set()


@given(st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.integers(0, 4), st.floats(0, 2))))
def test_never_all_are_crowded(fills: dict[str, dict[int, float]]) -> None:
    """Of one listener's queues at least one is not full."""
    for shards in fills.values():
        assert not shards or crowded({"one": shards}) < shards.keys()


class Walk(RuleBasedStateMachine):
    """Whatever workers do, come and go: what the table says it never does, it never does."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = Workers(4)
        self.watched_s = dict.fromkeys(range(4), 0.0)
        """Since a worker's last sign of life: real time, at most MOST_STEP_S a look."""

    @rule(silent=st.frozensets(st.integers(0, 3)), full=st.frozensets(st.integers(0, 3)))
    def behave(self, silent: frozenset[int], full: frozenset[int]) -> None:
        self.workers.silent, self.workers.full = set(silent), set(full)

    @rule(after_s=st.sampled_from((0.0, 1.0, 2.0)), restart_s=st.sampled_from((0.0, 2.0, 10.0)))
    def configure(self, after_s: float, restart_s: float) -> None:
        self.workers.after_s, self.workers.restart_s = after_s, restart_s

    @rule(slot=st.integers(0, 3))
    def replace(self, slot: int) -> None:
        self.workers.pids[slot] += 1000
        self.watched_s[slot] = -3600.0  # until it is seen

    @rule(seconds=st.sampled_from((0.0, LOOK_S, LOOK_S, LOOK_S, 5.0, 3600.0)), times=st.integers(1, 40))
    def look(self, seconds: float, times: int) -> None:
        workers = self.workers
        for _ in range(times):
            before = workers.table.aside()
            moves = workers.look(seconds)
            for slot in range(4):
                is_new = self.watched_s[slot] < 0
                beats = slot not in workers.silent
                self.watched_s[slot] = 0.0 if beats or is_new else self.watched_s[slot] + min(seconds, MOST_STEP_S)
                assert workers.table.silent_s(slot) <= self.watched_s[slot] + 1e-6
            for slot in moves.stuck:
                assert self.watched_s[slot] + 1e-6 >= workers.after_s > 0
            for slot in moves.given_up:
                assert self.watched_s[slot] + 1e-6 >= workers.restart_s > 0
                assert before.get(slot) is Why.STUCK
            for slot in moves.alone:
                assert self.watched_s[slot] + 1e-6 >= workers.after_s > 0
                assert slot not in workers.table.aside()
            for slot in (*moves.stuck, *moves.crowded, *moves.given_up):
                well = [one for one in range(4) if one not in workers.table.aside() and one != slot]
                assert any(self.watched_s[one] < workers.after_s for one in well)

    @invariant()
    def never_all(self) -> None:
        assert len(self.workers.table.aside()) < 4

    @invariant()
    def who_is_alone_is_silent_and_not_set_aside(self) -> None:
        for slot in self.workers.table.alone():
            assert self.workers.table.silent_s(slot) > 0
            assert slot not in self.workers.table.aside()

    @invariant()
    def who_beats_is_not_stuck(self) -> None:
        for slot, why in self.workers.table.aside().items():
            assert why is Why.CROWDED or self.workers.table.silent_s(slot) > 0


TestWalk = Walk.TestCase
