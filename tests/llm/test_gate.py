"""Token gates: who waits is let in at the moment there are tokens, in turn, and a pause is heard by all workers."""

from __future__ import annotations

import pytest

from edgeq.admission.ticket import SHEDDABLE
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.message import Usage
from edgeq.llm.provider_limits import INPUT, REQUESTS, TOKENS, Heard, hear
from edgeq.llm.rests import of_forgotten, of_heard, of_target
from edgeq.worker.wheel import NEVER
from tests.llm.gates import Machine, claim_of

MINUTE = TokenLimits(tokens_per_minute=6000)


def test_who_waits_is_let_in_when_there_are_tokens() -> None:
    """At that moment, to the precision of the wheel, without a tick."""
    machine = Machine(1, MINUTE)
    machine.ask(1, 2250, 2250)
    machine.ask(2, 500, 500)
    machine.loop.run(9.98)
    assert machine.granted == [1]
    machine.loop.run(0.04)
    assert machine.granted == [1, 2]
    assert machine.loop.now == pytest.approx(1010.02)


def test_what_is_paid_back_lets_in_at_once() -> None:
    """In the same call."""
    machine = Machine(1, MINUTE)
    first = machine.ask(1, 2250, 2250)
    machine.ask(2, 500, 500)
    gate = machine.gates[0]
    claim_of(first).settle(Usage(input=3000, output=100), 0, machine.loop.now)
    assert machine.granted == [1, 2]
    claim_of(first).settle(Usage(input=3000, output=100), 0, machine.loop.now)
    claim_of(first).give_back(machine.loop.now, False)
    assert gate.snapshot(machine.loop.now)["remaining"] == {"tokens": 400}


def test_what_is_paid_back_lets_in_at_another_worker() -> None:
    """By its bell."""
    machine = Machine(2, MINUTE)
    first = machine.ask(1, 2250, 2250)
    machine.ask(2, 500, 500, worker=1)
    claim_of(first).settle(Usage(input=3000, output=100), 0, machine.loop.now)
    machine.loop.run(0.001)
    assert machine.granted == [1, 2]


def test_nobody_overtakes() -> None:
    """A small one waits behind a large one of the same tenant, here, and in another worker by the tag."""
    machine = Machine(2, MINUTE)
    machine.ask(1, 1800, 1800, b"a")
    machine.ask(2, 1000, 1000, b"a")
    machine.loop.run(0.002)
    machine.ask(3, 1, 1, b"a")
    machine.ask(4, 1, 1, b"a", worker=1)
    machine.loop.run(10.0)
    assert machine.granted == [1]
    machine.loop.run(20.0)
    assert machine.granted[:2] == [1, 2]
    assert sorted(machine.granted) == [1, 2, 3, 4]


def test_one_who_leaves_lets_the_next_go_on() -> None:
    """In whichever worker that is."""
    machine = Machine(2, MINUTE)
    machine.ask(1, 2000, 2000, b"a")
    large = machine.ask(2, 2000, 2000, b"a")
    machine.loop.run(0.01)
    machine.ask(3, 1, 1, b"a", worker=1)
    machine.loop.run(1.0)
    assert machine.granted == [1]
    machine.gates[0].cancel(large, machine.loop.now)
    machine.gates[0].cancel(large, machine.loop.now)
    machine.loop.run(1.0)
    assert machine.granted == [1, 3]
    assert all(gate.queue.queued == 0 for gate in machine.gates)


def test_waits_are_bounded() -> None:
    """By time, by number, and by what the limit grants in that time; what never fits is told at once."""
    machine = Machine(1, MINUTE, max_wait_s=10.0, max_queued=3)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 200, 200, b"a")
    machine.ask(3, 300, 300, b"a")
    machine.ask(4, 6001, 0, b"a")
    machine.ask(5, 1, 1, b"a")
    assert [one[:2] for one in machine.refused] == [(4, "request_over_limit"), (5, "token_limit_shared")]
    machine.gates[0].configure(2, 1 << 30, 20.0)
    machine.ask(7, 1, 1, b"a")
    assert machine.refused[2][:2] == (7, "queue_full")
    machine.gates[0].configure(3, 1 << 30, 10.0)
    machine.gates[0].pause(5.0, machine.loop.now)
    machine.loop.run(10.5)
    assert (2, "queue_timeout") not in [one[:2] for one in machine.refused]
    assert machine.granted[1] == 2
    assert {number for number, reason, _ in machine.refused if reason == "queue_timeout"} <= {3}


def test_a_request_a_minute_is_not_waited_for_in_vain() -> None:
    """No request that was sent is given back: when the next one is let in is known, and told at once, each his own."""
    machine = Machine(1, TokenLimits(requests_per_minute=4), max_wait_s=14.0)
    machine.tick()
    for number in range(5):
        machine.ask(number, 10, 10)
    assert machine.granted == [0, 1, 2]
    assert machine.refused == [(3, "rate_limited_shared", 16), (4, "rate_limited_shared", 31)]
    assert machine.gates[0].last_refusal == "rate_limited_shared: the provider: more than 4 requests a minute"
    machine.loop.run(2.0)
    machine.ask(5, 10, 10)
    machine.ask(6, 10, 10)
    machine.loop.run(13.1)
    assert machine.granted == [0, 1, 2, 5]
    assert machine.refused[2:] == [(6, "rate_limited_shared", 31)]


def test_tokens_that_nobody_can_pay_back_in_time_are_not_waited_for() -> None:
    """While nothing runs, in no worker, it is known when there will be enough: who may not wait for so long is told at
    once, for another target may do. So is who waits, once the last one that ran has used what it had."""
    machine = Machine(2, MINUTE, max_wait_s=5.0)
    machine.tick()
    first = machine.ask(1, 2000, 2000)
    machine.ask(2, 1500, 1000, worker=1)
    machine.loop.run(1.0)
    assert machine.refused == []
    claim_of(first).settle(Usage(2000, 2000), 0, machine.loop.now)
    machine.loop.run(0.2)
    assert machine.refused == [(2, "token_limit_shared", 20)]
    machine.ask(3, 1500, 1000)
    assert machine.refused[1:] == [(3, "token_limit_shared", 44)]  # after the one who was told 20
    assert machine.gates[0].last_refusal == "token_limit_shared: the provider: 2500 tokens, of 6000 a minute"
    fourth = machine.ask(4, 500, 400, worker=1)
    machine.loop.run(5.0)
    assert machine.granted == [1, 4]
    claim_of(fourth).settle(Usage(500, 20_000), 0, machine.loop.now)
    machine.ask(5, 500, 400)
    assert machine.refused[2:] == [(5, "token_limit_shared", 203)]


def test_who_has_waited_too_long_is_told_for_what() -> None:
    """And when there will be enough, however short the queue is by then."""
    machine = Machine(1, MINUTE, max_wait_s=5.0)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 1500, 1500)
    machine.loop.run(5.2)
    assert [one[:2] for one in machine.refused] == [(2, "queue_timeout")]
    assert machine.refused[0][2] == 26
    told = machine.gates[0].last_refusal
    assert told.startswith("queue_timeout: the provider: 3000 tokens, of 6000 a minute; 0 of at most 10000 wait;")


def test_a_queue_is_not_called_full_of_requests_for_want_of_tokens() -> None:
    """Who would not get his in time is turned away, however few wait."""
    machine = Machine(1, MINUTE, max_wait_s=5.0)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 100, 100)
    machine.ask(3, 150, 150)
    machine.ask(4, 200, 200)
    assert [one[:2] for one in machine.refused] == [(4, "token_limit_shared")]
    told = machine.gates[0].last_refusal
    assert "; 2 wait, for 500 tokens, and no more than 500 come free within 5 s;" in told


@pytest.mark.parametrize(
    ("before", "most", "told"),
    [
        (b"", 10_000, "queue_displaced; 3 wait, for 510 tokens, and no more than 500 come free within 5 s;"),
        (b"", 3, "queue_displaced; 3 of at most 3 wait, for 510 tokens;"),
        (b"b", 10_000, "fair_share_exceeded; 3 wait, for 420 tokens, and no more than 500 come free within 5 s;"),
    ],
)
def test_whose_place_another_takes_is_told_what_the_queue_was_full_of(before: bytes, most: int, told: str) -> None:
    """Of tokens: then it matters little how many might wait."""
    machine = Machine(1, MINUTE, max_wait_s=5.0, max_queued=most)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 100, 100, b"a")
    machine.ask(3, 100, 100, b"a")
    machine.ask(4, 55, 55, before or b"a")
    machine.ask(5, 55, 55, b"c")
    reason, _, words = told.partition(";")
    assert [one[1] for one in machine.refused] == [reason]
    assert f";{words}" in machine.gates[0].last_refusal


def test_a_queue_for_places_speaks_of_no_tokens() -> None:
    """Where none are counted: "0 of 0" would be read as the cause."""
    machine = Machine(1, TokenLimits(concurrent=1), max_wait_s=5.0)
    machine.tick()
    machine.ask(1, 10, 10)
    machine.ask(2, 10, 10)
    machine.loop.run(5.2)
    told = machine.gates[0].last_refusal
    assert told.startswith(
        "queue_timeout: the provider: 1 in flight, as many as may be; 0 of at most 10000 wait; waited 5"
    )


SHORT = {
    "requests": TokenLimits(requests_per_minute=1),
    "tokens": TokenLimits(tokens_per_minute=60),
    "input_tokens": TokenLimits(input_tokens_per_minute=30),
    "output_tokens": TokenLimits(output_tokens_per_minute=30),
    "concurrent": TokenLimits(concurrent=1),
    "budget": TokenLimits(money_per_day=10.0),
}


@pytest.mark.parametrize("what", SHORT)
def test_a_refusal_names_the_limit_that_was_short(what: str) -> None:
    """Who is turned away at once, and who waited in vain; and so is who asks what a waiting one is short of."""
    machine = Machine(1, SHORT[what], max_wait_s=5.0, max_queued=1)
    machine.tick()
    machine.ask(1, 20, 20, cost=6_000_000)
    waits = machine.ask(2, 20, 20, cost=6_000_000)
    assert machine.gates[0].short_of(waits, machine.loop.now) == f"target/acme:big:{what}"
    machine.ask(3, 20, 20, cost=6_000_000)
    machine.loop.run(5.2)
    assert sorted(number for number, _, _ in machine.refused) == [2, 3]
    assert machine.refused_by == [f"target/acme:big:{what}"] * 2


def test_a_pause_is_the_targets() -> None:
    """No limit of ours is short then; nor is one for who waits behind others."""
    machine = Machine(1, TokenLimits(), max_wait_s=1.0)
    heard = Heard()
    heard.retry_after_s = 9.0
    machine.gates[0].heard(heard, 429, machine.loop.now)
    refused = machine.ask(1, 20, 20)
    assert machine.refused_by == ["target/acme:big"]
    machine.loop.run(10.0)
    assert machine.gates[0].short_of(refused, machine.loop.now) == "target/acme:big:queue"


def test_a_large_one_waits_alone() -> None:
    """Though it has more tokens than may wait."""
    machine = Machine(1, MINUTE, max_wait_s=10.0)
    machine.ask(1, 500, 400)
    machine.ask(2, 3000, 2800)
    machine.loop.run(9.5)
    assert machine.granted == [1, 2]


def test_a_429_pauses_all_workers() -> None:
    """Until the moment that the provider says; then it goes on by itself."""
    machine = Machine(2, MINUTE)
    heard = Heard()
    heard.retry_after_s = 3.0
    machine.gates[0].heard(heard, 429, machine.loop.now)
    machine.ask(1, 10, 10)
    machine.ask(2, 10, 10, worker=1)
    machine.loop.run(2.9)
    assert machine.granted == []
    assert machine.gates[1].snapshot(machine.loop.now)["paused_for"] == "upstream_rate_limit"
    machine.loop.run(0.2)
    assert sorted(machine.granted) == [1, 2]


def test_after_a_429_not_all_rush_in() -> None:
    """What the provider has left then is what has come since, not what we thought was left."""
    machine = Machine(1, MINUTE)
    heard = Heard()
    heard.retry_after_s = 3.0
    machine.gates[0].heard(heard, 429, machine.loop.now)
    for number in range(10):
        machine.ask(number, 100, 0)
    machine.loop.run(3.1)
    assert len(machine.granted) == 2
    machine.loop.run(4.0)
    assert len(machine.granted) == 6


@pytest.mark.parametrize("left", [-1, 50])
def test_what_a_refused_request_has_reserved_is_not_left_after_a_429(left: int) -> None:
    """It is given back, but the provider has nothing left, or what it says: a request of which nobody knows how long
    its answer is reserves thousands."""
    machine = Machine(1, MINUTE)
    first = machine.ask(0, 10, 2000)
    heard = Heard()
    heard.retry_after_s = 3.0
    heard.remaining[TOKENS] = left
    assert first.claim is not None
    machine.gates[0].heard(heard, 429, machine.loop.now, first.claim)
    first.claim.give_back(machine.loop.now, True)
    for number in range(1, 11):
        machine.ask(number, 100, 0)
    machine.loop.run(3.1)
    assert len(machine.granted) == 1 + 2
    machine.loop.run(4.0)
    assert len(machine.granted) == 1 + 6


@pytest.mark.parametrize("workers", [1, 4])
def test_after_a_429_without_limits_not_all_rush_in(workers: int) -> None:
    """One, of all workers, and twice as many each quarter of a second; another 429 keeps back who is here, and it
    begins anew."""
    machine = Machine(workers, TokenLimits())
    gate = machine.gates[0]
    heard = Heard()
    heard.retry_after_s = 3.0
    gate.heard(heard, 429, machine.loop.now)
    for number in range(40):
        machine.ask(number, 100, 0, worker=number % workers)
    for seconds, granted in ((2.99, 0), (0.02, 1), (0.25, 2), (0.25, 4), (0.25, 8)):
        machine.loop.run(seconds)
        assert len(machine.granted) == granted
    gate.heard(heard, 429, machine.loop.now)
    machine.loop.run(2.99)
    assert len(machine.granted) == 8
    machine.loop.run(0.02)
    assert len(machine.granted) == 9
    machine.loop.run(2.0)
    assert len(machine.granted) == 40
    assert machine.refused == []
    assert gate.would_admit(machine.loop.now)


def test_who_comes_after_a_429_is_counted_by_all_workers() -> None:
    """Also who finds nobody waiting."""
    machine = Machine(2, TokenLimits())
    heard = Heard()
    heard.retry_after_s = 3.0
    machine.gates[0].heard(heard, 429, machine.loop.now)
    machine.loop.run(3.01)
    machine.ask(1, 100, 0)
    machine.ask(2, 100, 0, worker=1)
    assert machine.granted == [1]
    machine.loop.run(0.25)
    assert machine.granted == [1, 2]


def test_a_pause_longer_than_one_may_wait_refuses() -> None:
    """Who waits and who comes; honestly, and other targets may do."""
    machine = Machine(1, MINUTE, max_wait_s=5.0)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 10, 10)
    machine.gates[0].pause(20.0, machine.loop.now)
    machine.ask(3, 10, 10)
    assert [one[:2] for one in machine.refused] == [(2, "upstream_rate_limit"), (3, "upstream_rate_limit")]
    assert [retry_s for _, _, retry_s in machine.refused] == [21, 21]


@pytest.mark.parametrize(("said_s", "kept_s"), [(7200.0, 7200.0), (48 * 3600.0, 24 * 3600.0)])
def test_a_long_pause_is_kept_and_told(said_s: float, kept_s: float) -> None:
    """To who waits and to who comes, all of it; the provider is asked again after a day at last."""
    machine = Machine(1, MINUTE, max_wait_s=5.0)
    gate = machine.gates[0]
    machine.ask(1, 2250, 2250)
    machine.ask(2, 10, 10)
    heard = Heard()
    heard.retry_after_s = said_s
    gate.heard(heard, 429, machine.loop.now)
    machine.loop.run(kept_s - 61.0)
    machine.ask(3, 10, 10)
    assert machine.refused == [(2, "upstream_rate_limit", kept_s + 1), (3, "upstream_rate_limit", 62)]
    assert (
        gate.last_refusal
        == "upstream_rate_limit: the provider's rate limit is reached; it is not asked for another 61 s"
    )
    machine.loop.run(62.0)
    machine.ask(4, 10, 10)
    assert machine.granted == [1, 4]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89.1, "90 s"),
        (120.0, "120 s"),
        (120.1, "2 min 1 s"),
        (600.0, "10 min"),
        (600.1, "11 min"),
        (3600.0, "1 h"),
        (7199.5, "2 h"),
        (5400.0, "1 h 30 min"),
    ],
)
def test_how_long_a_pause_is_in_words(seconds: float, words: str) -> None:
    """Nobody reads 3.6e+03 s."""
    machine = Machine(1, MINUTE, max_wait_s=0.1)
    machine.gates[0].pause(seconds, machine.loop.now)
    machine.ask(1, 10, 10)
    assert machine.gates[0].last_refusal.endswith(f" for another {words}")


def test_a_key_without_credit_stops_all_its_models() -> None:
    """For a while; why is known in all workers."""
    machine = Machine(2, MINUTE)
    machine.gates[0].disable_key(False, machine.loop.now)
    machine.ask(1, 10, 10, worker=1)
    assert machine.refused[0][1] == "upstream_quota"
    machine.loop.run(61.0)
    machine.gates[0].disable_key(True, machine.loop.now)
    machine.ask(2, 10, 10, worker=1)
    assert machine.refused[1][1] == "upstream_auth"
    machine.loop.run(61.0)
    machine.ask(3, 10, 10)
    assert machine.granted == [3]


def test_one_that_fails_rests_for_itself() -> None:
    """After three in a row, in all workers; then one request finds out, and each failure doubles the rest."""
    machine = Machine(2, MINUTE)
    gate, other = machine.gates
    for number in range(3):
        machine.ask(number, 10, 10)
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert machine.granted == [0, 1, 2]
    machine.ask(3, 10, 10)
    machine.ask(4, 10, 10, worker=1)
    assert machine.refused == [(3, "circuit_open", 6), (4, "circuit_open", 6)]
    assert machine.refused_by == ["target/acme:big"] * 2
    assert other.snapshot(machine.loop.now)["paused_for"] == "circuit_open"
    fields = {"resource": "target/acme:big", "reason": "circuit_open"}
    detail = "it fails (upstream_error), and is not asked for 5 s"
    assert machine.events == [("provider_model_rests", {**fields, "detail": detail})]
    for rests_s in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        assert gate.pause_s(machine.loop.now) == pytest.approx(rests_s)
        machine.loop.run(rests_s + 0.001)
        seen = [one.snapshot(machine.loop.now) for one in machine.gates]
        assert [one["paused_for"] for one in seen] == ["", ""]
        assert seen[0]["fails_by"] == ("upstream_error" if rests_s == 5.0 else seen[0]["fails_by"])
        assert all(one["fails_by"] for one in seen), "it is not well before an answer has come"
        machine.ask(5, 10, 10, worker=1)
        assert machine.granted.pop() == 5
        machine.ask(6, 10, 10)
        assert machine.refused.pop()[:2] == (6, "circuit_open"), "one at a time"
        machine.loop.run(0.5)
        other.failed("upstream_timeout", machine.loop.now - 0.5, machine.loop.now)


def test_a_good_answer_ends_the_rest_of_one_that_failed() -> None:
    """In all workers; and the next rest is a short one again."""
    machine = Machine(2, MINUTE)
    gate, other = machine.gates
    for _ in range(3):
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    machine.loop.run(5.001)
    machine.ask(1, 10, 10)
    machine.loop.run(1.0)
    gate.failed("upstream_error", machine.loop.now - 1.0, machine.loop.now)
    machine.loop.run(10.001)
    machine.ask(2, 10, 10)
    assert other.pause_s(machine.loop.now) > 9.0
    gate.pauses.answered(machine.loop.now)
    assert (gate.pause_s(machine.loop.now), other.pause_s(machine.loop.now)) == (0.0, 0.0)
    assert [one.snapshot(machine.loop.now)["fails_by"] for one in machine.gates] == ["", ""]
    machine.ask(3, 10, 10, worker=1)
    assert machine.granted == [1, 2, 3]
    machine.loop.run(2.0)
    for _ in range(3):
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(5.0)


def test_a_probe_that_tells_nothing_is_followed_by_another() -> None:
    """Its client has left, say: at once; and at last if it never ends. What was sent before a rest doubles none."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    sent_at = machine.loop.now
    for _ in range(7):
        gate.failed("upstream_error", sent_at, machine.loop.now + 0.1)
    assert gate.pause_s(machine.loop.now + 0.1) == pytest.approx(5.0), "a volley"
    machine.loop.run(5.2)
    probe = machine.ask(1, 10, 10)
    machine.loop.run(1.0)
    machine.ask(2, 10, 10)
    claim_of(probe).give_back(machine.loop.now, True)
    machine.loop.run(0.3)
    machine.ask(3, 10, 10)
    machine.loop.run(5.1)
    machine.ask(4, 10, 10)
    assert machine.granted == [1, 3, 4]
    assert [one[:2] for one in machine.refused] == [(2, "circuit_open")]


def test_some_that_fail_between_good_answers_are_no_reason_to_rest() -> None:
    """A few in a row are chance where there are many, until they are many in a row."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    for _ in range(5):
        gate.pauses.answered(machine.loop.now)
        machine.loop.run(0.5)
        for _ in range(9):
            gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == 0.0
    gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(5.0)


def test_failures_in_a_row_are_those_of_all_workers() -> None:
    """Where few requests come, three workers would else let six fail before one target rests. A good answer that any of
    them has had ends the row."""
    machine = Machine(3, MINUTE)
    first, second, third = machine.gates
    for gate in (first, second):
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
        machine.loop.run(2.0)
    third.pauses.answered(machine.loop.now)
    machine.loop.run(2.0)
    for gate in (first, second):
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
        machine.loop.run(2.0)
    assert first.pause_s(machine.loop.now) == 0.0
    third.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert first.pause_s(machine.loop.now) == pytest.approx(5.0)


def test_it_never_rests_if_that_is_configured() -> None:
    """And a rest that a provider has asked for is no sign of a failure."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    gate.configure(10, 1 << 20, 30.0, rest_after=0)
    for _ in range(99):
        gate.failed("upstream_error", machine.loop.now, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == 0.0
    gate.pause(20.0, machine.loop.now)
    gate.pauses.answered(machine.loop.now)
    assert gate.snapshot(machine.loop.now)["paused_for"] == "upstream_rate_limit"
    assert gate.pause_s(machine.loop.now) == pytest.approx(20.0)


def test_another_secret_is_another_key() -> None:
    """What a provider has said of one does not hold for the one that a reload brings; nor is it forgotten."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    gate.pauses.use_key(b"old")
    gate.disable_key(True, machine.loop.now)
    gate.pause(20.0, machine.loop.now)
    gate.pauses.use_key(b"new")
    assert gate.pause_s(machine.loop.now) == 0.0
    machine.ask(1, 10, 10)
    assert machine.granted == [1]
    gate.pauses.use_key(b"old")
    assert gate.pause_s(machine.loop.now) > 50.0


def test_a_limit_that_is_told_no_more_is_none() -> None:
    """After some minutes of answers without it; while nobody asks it stays."""
    machine = Machine(1, TokenLimits())
    gate = machine.gates[0]
    heard = Heard()
    heard.limits[TOKENS] = heard.remaining[TOKENS] = 5000
    gate.heard(heard, 200, machine.loop.now)
    machine.loop.run(200.0)
    gate.heard(None, 200, machine.loop.now)
    assert gate.meter.allowance(TOKENS) is not None
    machine.loop.run(101.0)
    assert gate.meter.allowance(TOKENS) is not None
    gate.heard(None, 429, machine.loop.now)
    assert gate.meter.allowance(TOKENS) is not None
    gate.heard(None, 200, machine.loop.now)
    assert gate.meter.allowance(TOKENS) is None


def test_what_one_worker_has_heard_all_keep_to() -> None:
    """Also one that has had no answer yet: it would send more than the provider takes. Until the provider tells it no
    more, and each has heard that."""
    machine = Machine(3, TokenLimits())
    machine.ask(1, 100, 100, worker=1)
    heard = Heard()
    heard.limits[TOKENS] = 6000
    heard.remaining[TOKENS] = 0
    heard.limits[INPUT] = 5000
    heard.limits[REQUESTS] = 50
    machine.gates[0].heard(heard, 200, machine.loop.now)
    machine.loop.run(0.1)
    for worker in (1, 2):
        machine.ask(1 + worker, 300, 300, worker=worker)
        machine.loop.run(0.1)
        kept = machine.gates[worker].meter
        assert [one.heard for kind in (TOKENS, INPUT) if (one := kept.allowance(kind)) is not None] == [6000, 5000]
        assert kept.allowance(REQUESTS) is None  # of which nothing says that it is one of a minute
        assert machine.gates[worker].queue.max_cost == machine.gates[0].queue.max_cost > 0
    assert machine.granted == [1]
    machine.loop.run(20.0)
    assert machine.granted == [1, 2, 3]

    for gate in machine.gates[:2]:
        machine.loop.run(301.0)
        gate.heard(None, 200, machine.loop.now)
        assert gate.meter.allowance(TOKENS) is None
    machine.ask(4, 3000, 3000, worker=1)
    assert machine.granted == [1, 2, 3, 4]
    machine.gates[2].close()
    machine.gates[2].close()


@pytest.mark.parametrize("configured", [0, 5000])
def test_a_request_that_never_fits_finds_out_whether_that_is_still_so(configured: int) -> None:
    """If all are larger than what was told once, no answer would ever tell that it is more now."""
    machine = Machine(1, TokenLimits(tokens_per_minute=configured))
    gate = machine.gates[0]
    heard = Heard()
    heard.limits[TOKENS] = heard.remaining[TOKENS] = 1000
    gate.heard(heard, 200, machine.loop.now)
    machine.ask(1, 3000, 10)
    machine.loop.run(59.0)
    machine.ask(2, 3000, 10)
    assert [number for number, _, _ in machine.refused] == [1, 2]
    machine.loop.run(2.0)
    machine.ask(3, 3000, 10)
    assert machine.granted == [3]
    assert gate.queue.max_cost == configured / 60 * gate.queue.max_wait_s
    gate.heard(heard, 429, machine.loop.now)
    machine.loop.run(59.0)
    machine.ask(4, 3000, 10)
    assert [number for number, _, _ in machine.refused] == [1, 2, 4]
    machine.loop.run(300.0)
    assert gate.wait_s(claim_of(machine.ask(5, 6000, 10)).estimate, machine.loop.now) == (NEVER if configured else 0.0)


def told_tokens(limit: int, remaining: int) -> Heard:
    """What a provider says of its tokens."""
    heard = Heard()
    heard.limits[TOKENS] = limit
    heard.remaining[TOKENS] = remaining
    return heard


@pytest.mark.parametrize("configured", [0, 5000])
def test_what_was_told_is_forgotten_when_somebody_says_so(configured: int) -> None:
    """In all workers, also in those that have it from another one; what the provider tells after it counts again."""
    machine = Machine(3, TokenLimits(tokens_per_minute=configured))
    machine.tick()
    machine.gates[0].heard(told_tokens(1, 1), 429, machine.loop.now)
    for worker in range(3):
        machine.ask(worker, 30, 10, worker=worker)
    machine.loop.run(0.2)
    assert [number for number, _, _ in machine.refused] == [0, 1, 2]
    machine.arrivals.delay(of_forgotten("acme:big", b""), int(machine.loop.now * 1e9))
    machine.arrivals.hasten(of_target("acme:big", b""), 0)
    machine.loop.run(0.2)
    for worker in range(3):
        machine.ask(3 + worker, 30, 10, worker=worker)
    machine.loop.run(5.0)
    assert sorted(machine.granted) == [3, 4, 5]
    kept = [one.count for gate in machine.gates for one in gate.meter.allowances]
    assert kept == ([configured] * 3 if configured else [])

    machine.gates[0].heard(told_tokens(9000, 8000), 200, machine.loop.now)
    machine.ask(6, 30, 10, worker=1)
    machine.loop.run(0.5)
    assert [gate.snapshot(machine.loop.now)["heard"] for gate in machine.gates[:2]] == [{"tokens": 9000}] * 2


def test_what_is_forgotten_is_not_taken_from_who_has_not_looked_yet() -> None:
    """By a worker that was never asked before: the first request after `edgeq wake` may be its first of all."""
    machine = Machine(2, TokenLimits())
    machine.tick()
    machine.gates[0].heard(told_tokens(1, 1), 200, machine.loop.now)
    machine.loop.run(0.05)
    machine.arrivals.delay(of_forgotten("acme:big", b""), int(machine.loop.now * 1e9))
    machine.loop.run(0.01)
    machine.ask(1, 30, 10, worker=1)
    machine.loop.run(2.0)
    machine.ask(2, 30, 10, worker=1)
    assert (machine.granted, machine.refused) == ([1, 2], [])


def test_who_keeps_to_what_another_one_was_told_shows_that() -> None:
    """Or `edgeq wake` would find nobody to forget it, once the worker is gone that has heard it."""
    machine = Machine(2, TokenLimits())
    machine.gates[0].heard(told_tokens(1, 1), 200, machine.loop.now)
    machine.ask(1, 30, 10, worker=1)
    machine.gates[0].hearing.close()
    assert machine.refused == [(1, "request_over_limit", 60)]
    shown = machine.ledgers[1].books.own
    assert shown.value(of_heard("acme:big", b""), TOKENS) == 1
    machine.tick()
    machine.arrivals.delay(of_forgotten("acme:big", b""), int(machine.loop.now * 1e9) + 1)
    machine.loop.run(0.2)
    assert shown.value(of_heard("acme:big", b""), TOKENS) == 0


def test_a_limit_that_the_provider_does_not_keep_is_none() -> None:
    """It has answered a request of many more tokens than it says that it takes in a minute: whatever the number means,
    it is no limit of a minute, also where a small request hears of it. Another number may be one."""
    machine = Machine(2, TokenLimits())
    gate = machine.gates[0]
    gate.heard(told_tokens(1, 0), 200, machine.loop.now, claim_of(machine.ask(1, 30, 10)))
    gate.heard(told_tokens(1, 0), 200, machine.loop.now, claim_of(machine.ask(2, 1, 10)))
    machine.gates[1].heard(told_tokens(1, 0), 200, machine.loop.now, claim_of(machine.ask(3, 1, 10, worker=1)))
    machine.loop.run(0.1)
    machine.ask(4, 30, 10)
    assert machine.granted == [1, 2, 3, 4]
    gate.heard(told_tokens(1000, 900), 200, machine.loop.now, claim_of(machine.ask(5, 1500, 10)))
    assert gate.snapshot(machine.loop.now)["heard"] == {"tokens": 1000}, "an estimate may be so wrong"


def test_a_refusal_that_tells_a_small_limit_is_believed() -> None:
    """It is kept to: until a minute later one finds out whether that is still so."""
    machine = Machine(1, TokenLimits())
    gate = machine.gates[0]
    gate.heard(told_tokens(1, 0), 429, machine.loop.now, claim_of(machine.ask(1, 30, 10)))
    machine.loop.run(59.0)
    machine.ask(2, 30, 10)
    machine.loop.run(2.0)
    machine.ask(3, 30, 10)
    assert machine.granted == [1, 3]


def test_what_another_url_or_key_was_told_does_not_hold() -> None:
    """After a reload: it is another provider's word."""
    machine = Machine(2, TokenLimits())
    machine.gates[0].heard(told_tokens(1000, 900), 200, machine.loop.now)
    machine.gates[0].use_key(b"new")
    assert machine.gates[0].snapshot(machine.loop.now)["heard"] == {}
    machine.gates[1].use_key(b"new")
    machine.ask(1, 3000, 10, worker=1)
    assert machine.granted == [1]
    machine.gates[1].heard(told_tokens(9000, 9000), 200, machine.loop.now)
    machine.loop.run(0.1)
    machine.ask(2, 30, 10)
    assert machine.gates[0].snapshot(machine.loop.now)["heard"] == {"tokens": 9000}


def test_a_key_that_is_refused_is_an_event() -> None:
    """Once, not for each request that was on its way with it."""
    machine = Machine(2, MINUTE)
    for gate in machine.gates:
        gate.disable_key(True, machine.loop.now)
    detail = "the provider does not let the gateway in; no model is asked with this key of the provider for 60 s"
    fields = {"resource": "provider/acme", "reason": "upstream_auth", "detail": detail}
    assert machine.events == [("provider_key_rests", fields)]
    machine.loop.run(61.0)
    machine.gates[1].disable_key(False, machine.loop.now)
    assert [fields["reason"] for _, fields in machine.events] == ["upstream_auth", "upstream_quota"]


def test_a_pause_after_a_429_is_an_event() -> None:
    """Once for each pause, whichever worker hears of it; not one that is over at once, nor for each refusal in it."""
    machine = Machine(2, MINUTE)
    for _ in range(2):
        for gate in machine.gates:
            heard = Heard()
            heard.retry_after_s = 20.0
            gate.heard(heard, 429, machine.loop.now)
        machine.loop.run(21.0)
    detail = "the provider's rate limit is reached (429), and it is not asked for 20 s"
    fields = {"resource": machine.gates[0].meter.resource, "reason": "upstream_rate_limit", "detail": detail}
    assert machine.events == [("provider_model_rests", fields)] * 2
    heard = Heard()
    heard.retry_after_s = 0.5
    machine.gates[0].heard(heard, 429, machine.loop.now)
    assert len(machine.events) == 2


def test_429s_that_say_nothing_pause_for_longer_each_time() -> None:
    """Until something is answered."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    seen = []
    for _ in range(7):
        gate.heard(None, 429, machine.loop.now)
        seen.append(gate.pause_s(machine.loop.now))
        machine.loop.run(seen[-1] + 1.0)
    assert seen == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    gate.heard(None, 200, machine.loop.now)
    gate.heard(None, 429, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(1.0)


def test_a_volley_of_429s_is_one_pause() -> None:
    """Those that were on their way together say the same thing; a long time without any begins anew."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    for _ in range(10):
        gate.heard(None, 429, machine.loop.now)
        machine.loop.run(0.01)
    assert gate.pause_s(machine.loop.now) == pytest.approx(0.9)
    machine.loop.run(1.0)
    gate.heard(None, 429, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(2.0)
    machine.loop.run(300.0)
    gate.heard(None, 429, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(1.0)


def test_what_the_provider_has_left_counts() -> None:
    """If it is less than we know of; and its limit, if it is lower than ours or we know none."""
    machine = Machine(1, TokenLimits())
    gate = machine.gates[0]
    machine.ask(1, 10**6, 0)
    heard = Heard()
    heard.limits[TOKENS] = 3000
    heard.remaining[TOKENS] = 1000
    gate.heard(heard, 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["remaining"] == {"tokens": 950}
    heard.remaining[TOKENS] = 2000
    gate.heard(heard, 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["remaining"] == {"tokens": 950}
    machine.ask(2, 500, 500)
    machine.loop.run(0.9)
    assert machine.granted == [1]
    machine.loop.run(0.2)
    assert machine.granted == [1, 2]


def told_requests(limit: int, remaining: int, reset_s: float) -> Heard:
    """What a provider says of its requests."""
    heard = Heard()
    heard.limits[REQUESTS] = limit
    heard.remaining[REQUESTS] = remaining
    heard.resets_s[REQUESTS] = reset_s
    return heard


def test_requests_a_minute_are_learned() -> None:
    """And kept to, as tokens are: three quarters of them at once, and then evenly."""
    machine = Machine(2, TokenLimits())
    gate = machine.gates[0]
    gate.heard(told_requests(60, 59, 1.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["heard"] == {"requests": 60}
    assert gate.pause_s(machine.loop.now) == 0.0
    for number in range(60):
        machine.ask(number, 10, 10)
    machine.loop.run(0.5)
    assert len(machine.granted) == 45
    machine.loop.run(10.0)
    assert len(machine.granted) == 55
    gate.heard(told_requests(60, 0, 59.5), 200, machine.loop.now)
    machine.loop.run(1.4)
    assert len(machine.granted) == 55
    machine.loop.run(0.7)
    assert len(machine.granted) == 56


@pytest.mark.parametrize("said", [b"x-ratelimit-reset-requests: 59.5s\r\n", b""])
def test_a_refusal_that_tells_lower_limits(said: bytes) -> None:
    """They hold from then on, of requests also where nothing says how they are counted: it is known of him."""
    machine = Machine(1, TokenLimits(), max_wait_s=100.0)
    gate = machine.gates[0]
    requests = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
    tokens = b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n"
    first = requests % (60, 59) + b"x-ratelimit-reset-requests: 1s\r\n" + tokens % (6000, 5900)
    gate.heard(hear(first, 0.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 60, "tokens": 6000}
    refusal = requests % (30, 0) + tokens % (3000, 2000) + b"retry-after: 2\r\n" + said
    gate.heard(hear(refusal, 0.0), 429, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 30, "tokens": 3000}
    for number in range(20):
        machine.ask(number, 10, 10)
    machine.loop.run(2.5)
    before = len(machine.granted)
    machine.loop.run(20.0)
    assert len(machine.granted) == before + 10
    gate.heard(hear(requests % (40, 40), 0.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 40, "tokens": 3000}


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_s", "held_s"),
    [(10, 0, 3.0, 3.0), (10_000, 0, 8.64, 8.64), (200, 0, 86_400.0, 60.0), (60, 0, 30.0, 30.0)],
)
def test_the_last_request_is_the_last(limit: int, remaining: int, reset_s: float, held_s: float) -> None:
    """Whatever it is that the provider counts by: all workers wait for its reset, or a minute."""
    machine = Machine(2, TokenLimits(), max_wait_s=100.0)
    machine.gates[0].heard(told_requests(limit, remaining, reset_s), 200, machine.loop.now)
    assert machine.gates[0].snapshot(machine.loop.now)["paused_for"] == "upstream_rate_limit"
    machine.ask(1, 10, 10)
    machine.ask(2, 10, 10, worker=1)
    machine.loop.run(held_s - 0.1)
    assert machine.granted == []
    machine.loop.run(0.2)
    assert len(machine.granted) == 1
    machine.loop.run(0.2)
    assert sorted(machine.granted) == [1, 2]


def test_a_window_is_not_taken_for_a_minute_for_long() -> None:
    """60 in ten seconds, of which ten have gone at once, look like 60 a minute; then they do not, and never again."""
    machine = Machine(1, TokenLimits())
    gate = machine.gates[0]
    gate.heard(told_requests(60, 50, 10.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 60}
    gate.heard(told_requests(60, 30, 5.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {}
    gate.heard(told_requests(60, 50, 10.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {}
    gate.heard(told_requests(60, 0, 2.0), 200, machine.loop.now)
    assert gate.pause_s(machine.loop.now) == pytest.approx(2.0)


def test_our_own_limit_of_requests_stays() -> None:
    """Where the provider's is one of a day: both are kept to."""
    machine = Machine(1, TokenLimits(requests_per_minute=100))
    gate = machine.gates[0]
    gate.heard(told_requests(10_000, 9999, 8.64), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 100}
    gate.heard(told_requests(20, 19, 3.0), 200, machine.loop.now)
    assert gate.snapshot(machine.loop.now)["limits"] == {"requests": 100}


def test_no_last_request_is_missed() -> None:
    """While few are left every answer is read."""
    machine = Machine(1, TokenLimits())
    gate = machine.gates[0]
    gate.heard(told_requests(10_000, 31, 8.64), 200, machine.loop.now)
    assert gate.hearing.is_due(machine.loop.now)
    gate.heard(told_requests(10_000, 32, 8.64), 200, machine.loop.now)
    assert not gate.hearing.is_due(machine.loop.now)


def test_not_every_answer_is_read() -> None:
    """Of many within a moment one is enough, also where nothing is said."""
    machine = Machine(1, MINUTE)
    gate = machine.gates[0]
    for heard in (None, Heard()):
        assert gate.hearing.is_due(machine.loop.now)
        gate.heard(heard, 200, machine.loop.now)
        assert not gate.hearing.is_due(machine.loop.now)
        machine.loop.run(0.051)
    assert gate.hearing.is_due(machine.loop.now)


def test_retries_of_clients_wait_behind_first_tries() -> None:
    """Whoever came first."""
    machine = Machine(1, MINUTE)
    machine.ask(1, 2250, 2250)
    retry = machine.ask(2, 1500, 0)
    machine.gates[0].cancel(retry, machine.loop.now)
    retry.priority = SHEDDABLE
    machine.enter(retry)
    machine.ask(3, 500, 0)
    machine.loop.run(60.0)
    assert machine.granted == [1, 3, 2]


def test_a_budget_that_is_spent_is_not_waited_for() -> None:
    """Nobody waits until midnight."""
    machine = Machine(1, TokenLimits(money_per_day=1.0))
    claim_of(machine.ask(1, 1, 1, cost=900_000)).settle(Usage(1, 1), 900_000, machine.loop.now)
    machine.ask(2, 1, 1, cost=200_000)
    assert machine.refused == [(2, "budget_exhausted_shared", 60)]


def test_a_budget_that_is_reserved_is_waited_for() -> None:
    """Who runs may give it back: at once, then, or nobody knows when."""
    machine = Machine(1, TokenLimits(money_per_day=1.0), max_wait_s=10.0)
    machine.tick()
    first = machine.ask(1, 1, 1, cost=900_000)
    machine.ask(2, 1, 1, cost=200_000)
    machine.loop.run(3.0)
    assert machine.granted == [1]
    claim_of(first).settle(Usage(1, 1), 300_000, machine.loop.now)
    assert machine.granted == [1, 2]
    machine.ask(3, 1, 1, cost=600_000)
    machine.loop.run(11.0)
    assert [one[:2] for one in machine.refused] == [(3, "queue_timeout")]


def test_a_limit_that_grows_lets_in() -> None:
    """At the next look."""
    machine = Machine(1, MINUTE)
    machine.tick()
    machine.ask(1, 2250, 2250)
    machine.ask(2, 3000, 2000)
    machine.gates[0].meter.resize(TokenLimits(tokens_per_minute=600_000))
    machine.loop.run(1.5)
    assert machine.granted == [1, 2]
