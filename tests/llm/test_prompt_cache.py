"""Answers of models that are given again, and flights that several share: all get the same bytes, nothing is kept that
must not be, and nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeq.config import schema_llm
from edgeq.config.base import Duration, Size
from edgeq.llm.flight import LAG_BYTES, Flight, Seat
from edgeq.llm.prompt_cache import OVERHEAD_BYTES, PromptCache

KIB = 1024


def cache_of(
    max_bytes: int = 4096 * KIB, max_object: int = 512 * KIB, ttl: float = 300.0, join: bool = True
) -> PromptCache:
    return PromptCache(
        schema_llm.PromptCache(max_bytes=Size(max_bytes), max_object=Size(max_object), ttl=Duration(ttl), join=join)
    )


class Client:
    """A party that takes all there is at once, unless it is slow."""

    def __init__(self, slow: bool = False) -> None:
        self.flight: Flight | None = None
        """That it leads, `seat`: that it follows."""
        self.seat: Seat | None = None
        self.slow = slow
        self.got: list[bytes] = []
        self.told: list[str] = []
        self.done = False

    @property
    def body(self) -> bytes:
        return b"".join(self.got)

    def pull(self, most: int = 1 << 30) -> None:
        assert self.seat is not None
        while most > 0 and (data := self.seat.take()):
            self.got.append(data)
            most -= len(data)
        self.done = self.seat.has_ended()

    def go(self) -> None:
        assert self.seat is not None
        self.seat.leave(0.0)

    def more(self, now: float) -> None:
        self.told.append("more")
        if not self.slow:
            self.pull()

    def lead(self, now: float) -> None:
        self.told.append("lead")

    def alone(self, now: float) -> None:
        self.told.append("alone")

    def refused(self, reason: str, detail: str, now: float) -> None:
        self.told.append(f"{reason}: {detail}")

    def broken(self, reason: str, now: float) -> None:
        self.told.append(reason)

    def unwanted(self, now: float) -> None:
        self.told.append("unwanted")

    def resume(self) -> None:
        self.told.append("resume")


def lead(cache: PromptCache, key: bytes = b"k") -> tuple[Client, Flight]:
    client = Client()
    client.flight = cache.lead(key, client)
    return client, client.flight


def join(cache: PromptCache, key: bytes = b"k", slow: bool = False) -> Client:
    client = Client(slow)
    client.seat = cache.join(key, client)
    assert client.seat is not None
    if not slow:
        client.pull()
    return client


def seat_of(client: Client) -> Seat:
    assert client.seat is not None
    return client.seat


def answer(cache: PromptCache, body: bytes, key: bytes = b"k", now: float = 0.0) -> None:
    _, flight = lead(cache, key)
    flight.begin(200, b"application/json", b"x-edgeq-model: m\r\n")
    flight.add(body, now)
    flight.finish(True, now)
    flight.leave(now)


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_an_answer_is_given_again_until_its_time_is_over() -> None:
    """With all that belongs to its head, and its age."""
    cache = cache_of(ttl=10.0)
    assert cache.look(b"k", 0.0) is None
    answer(cache, b"hello", now=1.0)
    found = cache.look(b"k", 10.9)
    assert found is not None
    assert (found.status, found.content_type, found.fields) == (200, b"application/json", b"x-edgeq-model: m\r\n")
    assert (found.body, found.age_s(10.9)) == (b"hello", 9)
    assert cache.look(b"k", 11.0) is None
    assert cache.snapshot()["entries"] == 0
    assert cache.size_bytes == 0


def test_what_is_too_old_does_not_lie_in_memory() -> None:
    """It goes when somebody looks at the time, at the latest with the next answer that is stored."""
    cache = cache_of(ttl=10.0)
    for number in range(5):
        answer(cache, b"hello", b"%d" % number, float(number))
    cache.expire(11.9)
    assert cache.entries == 3
    answer(cache, b"hello", b"new", 13.0)
    assert (cache.entries, cache.look(b"4", 13.0) is not None) == (2, True)


def test_a_stream_is_stored_as_it_was_sent() -> None:
    """All pieces in their order."""
    cache = cache_of()
    _, flight = lead(cache)
    flight.begin(200, b"text/event-stream")
    for number in range(5):
        assert flight.add(b"data: %d\n\n" % number, 0.0)
    flight.finish(True, 0.0)
    found = cache.look(b"k", 0.0)
    assert found is not None
    assert found.body == b"".join(b"data: %d\n\n" % number for number in range(5))


@pytest.mark.parametrize("end", ["not good", "lost", "failed", "left", "no head"])
def test_what_is_not_stored(end: str) -> None:
    """Errors, cut answers and those whose client has left; and no room is lost with them."""
    cache = cache_of()
    _, flight = lead(cache)
    if end != "no head":
        flight.begin(200, b"text/event-stream")
    flight.add(b"data: 1\n\n", 0.0)
    if end in ("not good", "no head"):
        flight.finish(end == "no head", 0.0)
    elif end == "left":
        assert not flight.leave(0.0)
    else:
        flight.lost(end == "failed", 0.0)
    assert cache.look(b"k", 0.0) is None
    assert cache.snapshot() == {**cache.snapshot(), "bytes": 0, "collecting_bytes": 0, "flights": 0}


def test_too_large() -> None:
    """Beyond max_object an answer passes, and nothing of it is kept."""
    cache = cache_of(max_object=100)
    answer(cache, b"x" * 101)
    assert cache.look(b"k", 0.0) is None
    answer(cache, b"x" * 100)
    assert cache.look(b"k", 0.0) is not None


def test_the_bound_holds() -> None:
    """Who was used stays."""
    cache = cache_of(max_bytes=10 * (1000 + OVERHEAD_BYTES + 40), max_object=2000)
    answer(cache, b"x" * 1000, b"used")
    for number in range(30):
        assert cache.look(b"used", 0.0) is not None
        answer(cache, b"x" * 1000, b"%d" % number)
        assert cache.size_bytes <= cache.max_bytes
    assert cache.snapshot()["evicted"] > 15
    cache.configure(schema_llm.PromptCache(max_bytes=Size(2000), max_object=Size(100)))
    assert cache.size_bytes <= 2000
    cache.clear()
    assert (cache.size_bytes, cache.entries) == (0, 0)


def test_a_newer_answer_takes_the_place_of_the_older_one() -> None:
    """Not beside it."""
    cache = cache_of()
    answer(cache, b"one")
    answer(cache, b"two")
    found = cache.look(b"k", 0.0)
    assert found is not None
    assert (found.body, cache.entries) == (b"two", 1)


# -- followers --------------------------------------------------------------------------------------------------------


def test_a_late_follower_gets_all() -> None:
    """What was sent before it came, then what comes, then the end."""
    cache = cache_of()
    _, flight = lead(cache)
    early = join(cache)
    flight.begin(200, b"text/event-stream")
    flight.add(b"1", 0.0)
    flight.add(b"2", 0.0)
    late = join(cache)
    assert late.got == [b"12"]
    flight.add(b"3", 0.0)
    assert early.got == [b"1", b"2", b"3"]
    assert not late.done
    flight.finish(True, 0.0)
    assert (early.body, late.body, early.done, late.done) == (b"123", b"123", True, True)
    assert cache.join(b"k", Client()) is None
    assert cache.look(b"k", 0.0) is not None


def test_nobody_joins_where_it_is_switched_off() -> None:
    """join = false."""
    cache = cache_of(join=False)
    lead(cache)
    assert cache.join(b"k", Client()) is None


def test_other_requests_do_not_join() -> None:
    """Another tenant's is another one."""
    cache = cache_of()
    lead(cache, b"k")
    assert cache.join(b"other", Client()) is None


def test_a_slow_follower_holds_nobody_and_gets_all() -> None:
    """It takes the rest after the end, from what was recorded."""
    cache = cache_of()
    _, flight = lead(cache)
    slow, quick = join(cache, slow=True), join(cache)
    flight.begin(200, b"text/event-stream")
    pieces = [b"%05d" % number * 2000 for number in range(20)]
    for piece in pieces:
        assert flight.add(piece, 0.0)
    flight.finish(True, 0.0)
    flight.leave(0.0)
    assert quick.done
    quick.go()
    for _ in pieces:
        slow.pull(1)
    assert slow.done
    assert slow.body == b"".join(pieces)
    slow.go()
    assert flight.snapshot()["kept_bytes"] == 0


def test_who_is_too_far_behind_is_broken() -> None:
    """Beyond max_object; the others go on, and only what they have not taken is kept."""
    cache = cache_of(max_object=200 * KIB)
    _, flight = lead(cache)
    slow, waiting, quick = join(cache, slow=True), join(cache, slow=True), join(cache)
    flight.begin(200, b"text/event-stream")
    flight.add(b"x" * 10 * KIB, 0.0)
    slow.pull()
    for _ in range(30):
        flight.add(b"x" * 10 * KIB, 0.0)
    assert slow.told[-1] == "slow"
    assert waiting.told[-1] == "alone"  # it had got nothing
    assert len(quick.body) == 310 * KIB
    assert flight.snapshot()["kept_bytes"] == 0
    assert cache.snapshot()["collecting_bytes"] == 0
    flight.finish(True, 0.0)
    assert quick.done
    assert cache.look(b"k", 0.0) is None


def test_a_little_lag_is_always_allowed() -> None:
    """Where the cache has no room to record, too."""
    cache = cache_of(max_bytes=40 * KIB, max_object=10 * KIB)
    _, flight = lead(cache)
    slow = join(cache, slow=True)
    flight.begin(200, b"text/event-stream")
    for _ in range(6):
        flight.add(b"x" * 10 * KIB, 0.0)
    assert slow.told[-1] == "more"
    slow.pull()
    assert len(slow.body) == 60 * KIB <= LAG_BYTES
    flight.finish(True, 0.0)
    slow.pull()
    assert slow.done


def test_late_in_a_long_answer_nobody_joins() -> None:
    """The next request for the same leads a flight of its own, which is joined from then on."""
    cache = cache_of(max_object=100)
    _, first = lead(cache)
    first.begin(200, b"text/event-stream")
    first.add(b"x" * 51, 0.0)
    assert cache.join(b"k", Client()) is None
    _, second = lead(cache)
    assert seat_of(join(cache)).flight is second
    first.finish(True, 0.0)
    assert cache.look(b"k", 0.0) is not None
    assert seat_of(join(cache)).flight is second


# -- who leaves, what fails -------------------------------------------------------------------------------------------


def test_a_leader_with_a_slow_client_reads_on_for_others() -> None:
    """It is told once, with the first of them."""
    cache = cache_of()
    leader, _ = lead(cache)
    join(cache)
    join(cache)
    assert leader.told == ["resume"]


def test_an_answer_of_no_use_is_that_of_all() -> None:
    """Nobody asks once more; one who leaves as he is told of it takes nobody along. Nothing is stored, nobody joins."""
    cache = cache_of()
    _, flight = lead(cache)
    followers = [join(cache), join(cache), join(cache)]
    flight.refuse("answer_not_json", "prose", "p/m", 0.0)
    assert [one.told for one in followers] == [["answer_not_json: prose"]] * 3
    assert (flight.ended, flight.snapshot()["followers"]) == (True, 0)
    flight.lost(True, 0.0)
    flight.refuse("answer_not_json", "prose", "p/m", 0.0)
    for one in followers:
        one.go()
    assert [len(one.told) for one in followers] == [1, 1, 1]
    assert cache.look(b"k", 0.0) is None
    assert cache.join(b"k", Client()) is None
    assert cache.snapshot()["collecting_bytes"] == 0


def test_a_leader_leaves_and_the_flight_goes_on() -> None:
    """Its upstream is not cancelled as long as there is a follower, and the answer is stored."""
    cache = cache_of()
    leader, flight = lead(cache)
    follower = join(cache)
    flight.begin(200, b"text/event-stream")
    flight.add(b"1", 0.0)
    assert flight.leave(0.0)
    assert not flight.is_led
    flight.add(b"2", 0.0)
    late = join(cache)
    flight.finish(True, 0.0)
    assert (follower.body, late.body) == (b"12", b"12")
    found = cache.look(b"k", 0.0)
    assert found is not None
    assert found.body == b"12"
    assert leader.told == ["resume"]


def test_after_the_leader_the_last_follower_leaves() -> None:
    """Then the upstream is cancelled."""
    cache = cache_of()
    leader, flight = lead(cache)
    one, two = join(cache), join(cache)
    flight.begin(200, b"text/event-stream")
    flight.add(b"1", 0.0)
    assert flight.leave(0.0)
    one.go()
    assert leader.told == ["resume"]
    two.go()
    assert leader.told == ["resume", "unwanted"]
    assert flight.ended
    assert cache.snapshot() == {**cache.snapshot(), "bytes": 0, "flights": 0}


class Leaving(Client):
    """Its connection breaks when it is written to."""

    def more(self, now: float) -> None:
        self.go()


def test_who_leaves_while_it_is_told() -> None:
    """The last one, from within add."""
    cache = cache_of()
    leader, flight = lead(cache)
    for _ in range(3):
        client = Leaving()
        client.seat = cache.join(b"k", client)
    flight.begin(200, b"text/event-stream")
    assert flight.leave(0.0)
    flight.add(b"1", 0.0)
    assert leader.told == ["resume", "unwanted"]
    assert cache.size_bytes == 0


def test_without_a_leader_the_fastest_follower_paces() -> None:
    """The upstream is read on once it has taken most."""
    cache = cache_of()
    leader, flight = lead(cache)
    slow = join(cache, slow=True)
    flight.begin(200, b"text/event-stream")
    assert flight.add(b"x" * (LAG_BYTES + 1), 0.0)
    assert flight.leave(0.0)
    assert not flight.add(b"y", 0.0)
    slow.pull(1)
    assert leader.told == ["resume", "resume"]
    slow.pull()
    assert flight.add(b"z", 0.0)


def test_a_leader_fails_before_the_first_byte() -> None:
    """Who waits longest leads on, once; then each goes on its own."""
    cache = cache_of()
    _, flight = lead(cache)
    first, second, third = join(cache), join(cache), join(cache)
    flight.lost(True, 0.0)
    assert (first.told, second.told) == (["lead"], [])
    assert flight.leader is first
    fourth = join(cache)
    flight.lost(True, 0.0)
    assert [one.told for one in (second, third, fourth)] == [["alone"]] * 3
    assert cache.snapshot()["flights"] == 0


def test_leaders_that_leave_before_they_have_asked_are_no_failures() -> None:
    """However many."""
    cache = cache_of()
    _, flight = lead(cache)
    clients = [join(cache) for _ in range(4)]
    for client in clients:
        flight.lost(False, 0.0)
        assert client.told == ["lead"]
    flight.lost(False, 0.0)
    assert flight.ended


def test_a_leader_fails_in_the_middle() -> None:
    """Who has got something cannot be helped; who has not goes on its own."""
    cache = cache_of()
    _, flight = lead(cache)
    quick, slow = join(cache), join(cache, slow=True)
    flight.begin(200, b"text/event-stream")
    flight.add(b"1", 0.0)
    flight.lost(True, 0.0)
    assert (quick.told[-1], slow.told[-1]) == ("lost", "alone")
    assert cache.size_bytes == 0


# -- everything at random ---------------------------------------------------------------------------------------------


class Flights(RuleBasedStateMachine):
    """Clients come, take, leave; leaders send, fail, leave; in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache_of(max_bytes=1024 * KIB, max_object=256 * KIB)
        self.leader: Client | None = None
        self.gone = False
        self.followers: list[Client] = []
        self.sent = b""
        self.pieces = 0
        self.paused = False

    @property
    def flight(self) -> Flight:
        assert self.leader is not None
        assert self.leader.flight is not None
        return self.leader.flight

    def tidy(self) -> None:
        """Take over what parties were told."""
        for client in list(self.followers):
            last = client.told[-1] if client.told else ""
            if last in ("alone", "slow", "lost", "no: use"):
                assert (last in ("alone", "no: use")) == (not client.got)
                self.followers.remove(client)
            elif last == "lead":
                client.told.clear()
                client.flight = seat_of(client).flight
                self.followers.remove(client)
                self.leader, self.gone = client, False
        assert self.leader is not None
        if "resume" in self.leader.told:
            self.paused = False
            self.leader.told.remove("resume")
        if "unwanted" in self.leader.told:
            assert self.gone
            assert not self.followers
        if self.flight.ended:
            for client in self.followers:
                client.pull()
                assert client.done
                assert client.body == self.sent
                client.go()
            self.followers = []
            self.leader = None

    @precondition(lambda self: self.leader is None)
    @rule()
    def begin(self) -> None:
        self.leader = Client()
        self.leader.flight = self.cache.lead(b"k", self.leader)
        self.gone = False
        self.sent = b""
        self.paused = False

    @precondition(lambda self: self.leader is not None)
    @rule(slow=st.booleans())
    def come(self, slow: bool) -> None:
        client = Client(slow)
        client.seat = self.cache.join(b"k", client)
        if client.seat is not None:
            self.followers.append(client)

    @precondition(lambda self: self.leader is not None and not self.paused)
    @rule(size=st.sampled_from([1, 100, 10_000, 70_000, 300_000]))
    def send(self, size: int) -> None:
        self.flight.begin(200, b"text/event-stream")
        self.pieces += 1
        data = (b"%d " % self.pieces * (size // 2 + 1))[:size]
        self.sent += data
        self.paused = not self.flight.add(data, 0.0)
        assert self.gone or not self.paused
        self.tidy()

    @precondition(lambda self: self.followers)
    @rule(data=st.data(), most=st.sampled_from([1, 1 << 30]))
    def take(self, data: Any, most: int) -> None:
        client = data.draw(st.sampled_from(self.followers))
        client.pull(most)
        assert self.sent.startswith(client.body)
        self.tidy()

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def go(self, data: Any) -> None:
        client = data.draw(st.sampled_from(self.followers))
        self.followers.remove(client)
        client.go()
        self.tidy()

    @precondition(lambda self: self.leader is not None and not self.gone)
    @rule()
    def leader_goes(self) -> None:
        assert self.leader is not None
        self.gone = True
        goes_on = self.flight.leave(0.0)
        assert goes_on == bool(self.followers)
        self.tidy()

    @precondition(lambda self: self.leader is not None)
    @rule(good=st.booleans())
    def finish(self, good: bool) -> None:
        self.flight.finish(good, 0.0)
        self.tidy()

    @precondition(lambda self: self.leader is not None and not self.sent)
    @rule()
    def refuse(self) -> None:
        self.flight.refuse("no", "use", "p/m", 0.0)
        self.tidy()

    @precondition(lambda self: self.leader is not None)
    @rule(failed=st.booleans())
    def fail(self, failed: bool) -> None:
        self.flight.lost(failed, 0.0)
        self.tidy()

    @invariant()
    def bounds(self) -> None:
        cache = self.cache
        assert cache.size_bytes <= cache.max_bytes
        if self.leader is None:
            assert cache.snapshot()["collecting_bytes"] == 0
            assert cache.snapshot()["flights"] == 0
        elif not self.flight.recorded and not self.followers:
            assert self.flight.snapshot()["kept_bytes"] == 0


Flights.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_flights = Flights.TestCase
