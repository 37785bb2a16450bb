"""Who gets the next request, by each way to balance; and what a member's answers make of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sim_balance import NO_EJECTION, Endpoint, make_upstream, simulate
from edgeq.config.base import Duration
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.balancer import by_share, make_balancer
from edgeq.upstream.member import DECAY_S, MAX_RISE, PENALTY_MAX_S, Member
from edgeq.upstream.pool import Pool
from edgeq.upstream.shared import BAD, GOOD
from edgeq.upstream.upstream import Upstream

BALANCES = ["p2c-ewma", "least-requests", "round-robin", "consistent-hash"]


def made(weights: list[float] | int, **keys: Any) -> tuple[Upstream, list[Member]]:
    """An upstream with so many endpoints; no ejections unless they are asked for."""
    if isinstance(weights, int):
        weights = [1.0] * weights
    upstream = make_upstream(UpstreamConfig(**{"endpoints": (), "eject": NO_EJECTION, **keys}), weights)
    return upstream, upstream.members


def chosen(upstream: Upstream, count: int, key: bytes = b"", now: float = 1.0, busy: bool = False) -> list[str]:
    """The names of the next choices; `busy`: nothing ends meanwhile."""
    names = []
    for _ in range(count):
        member = upstream.balancer.choose(key, now)
        member.pool.opened += busy
        names.append(member.name)
    return names


# -- every balancer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", BALANCES)
def test_saturated_ones_are_skipped(balance: str) -> None:
    """A member without room gets nothing while another one has room; if none has, somebody's queue gets it."""
    upstream, members = made(4, balance=balance)
    upstream.max_connections = 3
    for member in members[:3]:
        member.pool.opened = 3
    assert set(chosen(upstream, 20, b"key")) == {"e3"}
    members[3].pool.opened = 3
    assert set(chosen(upstream, 20, b"key")) <= {"e0", "e1", "e2", "e3"}
    assert all(member.ejected_until == 0 for member in members)


@pytest.mark.parametrize("balance", BALANCES)
def test_others_than_those_that_were_tried(balance: str) -> None:
    """A second try never meets the same endpoint, and ends when all have been tried."""
    upstream, members = made(3, balance=balance)
    tried = [upstream.balancer.choose(b"key", 1.0).pool]
    for _ in range(2):
        other = upstream.balancer.choose_other(tried, b"key", 1.0)
        assert other is not None
        assert other.pool not in tried
        tried.append(other.pool)
    assert {pool.name for pool in tried} == {member.name for member in members}
    assert upstream.balancer.choose_other(tried, b"key", 1.0) is None


@given(
    balance=st.sampled_from(BALANCES),
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ok", "error", "end", "eject", "sick", "well"]))),
)
def test_whatever_happens_somebody_is_chosen(balance: str, weights: list[int], steps: list[tuple[int, str]]) -> None:
    """Any history: the choice is one of those in use, and there is always one with the usual panic threshold."""
    upstream, members = made([float(weight) for weight in [*weights, 1]], balance=balance)
    now = 1.0
    for index, what in steps:
        now += 0.3
        member = members[index % len(members)]
        if what == "ok":
            member.took(0.02 * (index + 1), now)
            member.succeeded()
        elif what == "error":
            member.punish(0.02, now)
        elif what == "eject":
            member.ejected_until = now + 1e9
        elif what == "end":
            member.pool.opened = max(0, member.pool.opened - 1)
        else:
            member.health = 2 if what == "sick" else 1
        upstream.review(now)
        choice = upstream.balancer.choose(b"k%d" % index, now)
        choice.pool.opened += 1
        in_use = [one for one in members if not one.ejected_until and one.health != 2]
        if len(in_use) >= len(members) / 2:
            assert choice in in_use
        else:
            assert upstream.panics


# -- p2c-ewma ----------------------------------------------------------------------------------------------------------


def test_of_two_the_less_loaded() -> None:
    """Cost times pending, so a fast member may have more of them than a slow one."""
    upstream, (fast, slow) = made(2)
    fast.took(0.02, 1.0)
    slow.took(0.1, 1.0)
    assert Counter(chosen(upstream, 12, busy=True)) == {"e0": 10, "e1": 2}


def test_an_unknown_member_gets_one_request_at_a_time() -> None:
    """Nobody knows yet what it costs: one request finds out, the others do not wait for that."""
    upstream, (known, _new) = made(2)
    known.took(0.02, 1.0)
    assert Counter(chosen(upstream, 20, busy=True)) == {"e0": 19, "e1": 1}


def test_one_that_only_fails_does_not_draw_who_would_wait_to_find_out() -> None:
    """The first answer of one takes long, the other one fails at once: the few who come meanwhile go where
    nobody knows yet, not where it is known. After some seconds it is tried again."""
    upstream, (slow, failing) = made(2)
    slow.pool.opened += 1
    failing.punish(0.0, 1.0)
    assert Counter(chosen(upstream, 5, busy=True)) == {"e0": 5}
    assert upstream.balancer.choose(b"", 1.0 + DECAY_S) is failing
    failing.succeeded()  # what has been good is no such case: it has failed now and then
    failing.punish(0.0, 1.0)
    assert upstream.balancer.choose(b"", 1.0) is failing


def test_weights_divide_the_load() -> None:
    """Members of the same speed have requests in proportion to their weights, also when there are many."""
    upstream, members = made([1.0, 1.0, 1.0, 9.0, 1.0, 1.0])
    for member in members:
        member.took(0.02, 1.0)
    counts = Counter(chosen(upstream, 140, busy=True))
    assert 80 <= counts["e3"] <= 100
    assert all(5 <= counts[name] <= 16 for name in counts if name != "e3")


def test_a_cost_rises_in_steps_falls_slowly_and_fades() -> None:
    """One slow answer is not believed whole; a fast one does not make a slow member fast; no answer is no knowledge."""
    _, (member, _other) = made(2)
    member.took(0.02, 1.0)
    member.took(5.0, 1.0)
    assert member.cost(1.0) == pytest.approx(0.02 * MAX_RISE)
    for _ in range(6):
        member.took(5.0, 1.0)
    assert member.cost(1.0) == 5.0
    member.took(0.02, 1.1)
    assert 4.9 < member.cost(1.1) < 5.0
    assert member.cost(1.1 + DECAY_S) == pytest.approx(member.cost(1.1) / 2.71828, rel=1e-3)


def test_who_is_given_up_has_cost_at_least_that() -> None:
    """A request whose client leaves tells a lower bound: it may raise the cost, never lower it."""
    _, (member, _other) = made(2)
    member.took(0.1, 1.0)
    member.took_longer(0.01, 1.0)
    assert member.cost(1.0) == 0.1
    member.took_longer(0.2, 1.0)
    assert member.cost(1.0) == 0.2


def test_failures_double_a_penalty_and_good_answers_halve_it() -> None:
    """Ten times what an answer costs elsewhere at first, up to a bound; it goes as it came."""
    _, (member, _other) = made(2)
    seen = []
    for _ in range(8):
        member.punish(0.02, 1.0)
        seen.append(member.penalty(1.0))
    assert seen[:3] == [0.2, 0.4, 0.8]
    assert seen[-1] == PENALTY_MAX_S
    for _ in range(20):
        member.succeeded()
    assert member.penalty(1.0) == 0


def test_slow_peers_make_a_penalty_that_still_deters() -> None:
    """Where an answer takes 3 s, a fast failure must look worse than that."""
    _, (member, _other) = made(2)
    member.punish(3.0, 1.0)
    assert member.load(1.0) > 3.0


def test_busy_follows_retry_after_within_bounds() -> None:
    """Busy for as long as it said; that is no failure."""
    _, (member, _other) = made(2)
    member.busy(-1.0, 1.0)
    assert member.penalty(1.0) == 1.0
    member.busy(20.0, 1.0)
    assert member.penalty(1.0) == 20.0
    member.busy(1e9, 1.0)
    assert member.penalty(1.0) == 300.0
    assert (member.failed, member.consecutive) == (0, 0)


@pytest.mark.parametrize("rate", [200.0, 2000.0])
def test_simulated_fast_failure(rate: float) -> None:
    """One of four fails in 1 ms: less than 2 % of the first second's requests, and next to nothing after it."""
    result = simulate([Endpoint(fails=1.0), Endpoint(), Endpoint(), Endpoint()], rate, 3.0, config())
    assert result.shares(0, 1)[0] < 0.02
    assert result.shares(1, 3)[0] < 0.002


def test_simulated_rare_errors_cost_no_share() -> None:
    """One error in 1,000 answers is nothing to balance."""
    result = simulate([Endpoint(fails=0.001), Endpoint(), Endpoint(), Endpoint()], 2000.0, 3.0, config())
    assert 0.22 < result.shares()[0] < 0.27


def test_simulated_slow_member() -> None:
    """One of four is ten times slower. With little to do it is not needed; at the limit it carries a tenth of each."""
    four = [Endpoint(service_s=0.2), Endpoint(), Endpoint(), Endpoint()]
    light = simulate(four, 200.0, 3.0, config())
    assert light.shares(1, 3)[0] < 1 / 31
    four = [Endpoint(service_s=0.2, exponential=True), *(Endpoint(exponential=True) for _ in range(3))]
    full = simulate(four, 2480.0, 6.0, config())  # 3 x 16 / 0.02 + 16 / 0.2
    assert 0.5 / 31 < full.shares(2, 6)[0] < 1.5 / 31


def test_simulated_pause_of_one() -> None:
    """One answer of 5 s takes nothing from an endpoint that goes on answering."""
    result = simulate([Endpoint(pause_at=1.0), Endpoint(), Endpoint(), Endpoint()], 2000.0, 4.0, config())
    assert result.shares(1, 4)[0] > 0.2


def config(**keys: Any) -> UpstreamConfig:
    return UpstreamConfig(**{"endpoints": (), "eject": NO_EJECTION, **keys})


# -- the others --------------------------------------------------------------------------------------------------------


def test_least_requests() -> None:
    """Who has the fewest, for its weight; equals in turn; who fails is not taken for idle."""
    upstream, members = made([1.0, 1.0, 2.0], balance="least-requests")
    assert Counter(chosen(upstream, 40, busy=True)) == {"e0": 10, "e1": 10, "e2": 20}
    upstream, members = made(3, balance="least-requests")
    assert chosen(upstream, 6) == ["e0", "e1", "e2"] * 2
    members[0].punish(0.02, 1.0)
    members[0].punish(0.02, 1.0)
    assert set(chosen(upstream, 10)) == {"e1", "e2"}


def test_round_robin_by_weight_is_smooth() -> None:
    """nginx's example: a of weight 5 is not asked five times in a row."""
    upstream, _ = made([5.0, 1.0, 1.0], balance="round-robin")
    assert "".join(name[1] for name in chosen(upstream, 14)) == "0010200" * 2


@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_round_robin_by_weight_is_exact(weights: list[int]) -> None:
    """After as many requests as the weights' sum each has had exactly its weight."""
    upstream, _ = made([float(weight) for weight in weights], balance="round-robin")
    counts = Counter(chosen(upstream, sum(weights)))
    assert [counts[f"e{index}"] for index in range(len(weights))] == weights


def test_hash_moves_only_the_keys_of_who_leaves() -> None:
    """All other keys stay where they are, and those come back with their endpoint; keys are spread by weight."""
    upstream, members = made([1.0, 1.0, 1.0, 1.0, 4.0], balance="consistent-hash")
    keys = [b"key-%d" % number for number in range(2000)]
    before = [upstream.balancer.choose(key, 1.0).name for key in keys]
    counts = Counter(before)
    assert all(190 <= counts[f"e{index}"] <= 310 for index in range(4)), counts
    assert 910 <= counts["e4"] <= 1090, counts
    members[2].health = 2
    upstream.review(1.0)
    during = [upstream.balancer.choose(key, 1.0).name for key in keys]
    assert all(old == new for old, new in zip(before, during, strict=True) if old != "e2")
    assert "e2" not in during
    members[2].health = 1
    upstream.review(1.0)
    assert [upstream.balancer.choose(key, 1.0).name for key in keys] == before


def test_hash_bounds_the_load() -> None:
    """One hot key fills its endpoint to 125 % of the average, then others."""
    upstream, members = made(4, balance="consistent-hash")
    chosen(upstream, 400, b"hot", busy=True)
    counts = sorted(member.pool.opened for member in members)
    assert sum(counts) == 400
    assert counts[-1] <= 1.25 * 400 / 4 + 1
    assert counts[-1] > 110


def test_draw_by_share() -> None:
    """Each member in proportion, and at least once."""
    _, members = made([1.0, 3.0, 1000.0])
    counts = Counter(member.name for member in by_share(members))
    assert counts["e0"] >= 1
    assert counts["e2"] > 50 * counts["e1"]


def test_every_name_of_the_configuration_has_a_balancer() -> None:
    """No name falls through to another's class by accident."""
    kinds = {name: type(make_balancer(name, 1)).__name__ for name in [*BALANCES, "sticky"]}
    assert kinds == {
        "p2c-ewma": "Balancer",
        "sticky": "Balancer",
        "least-requests": "LeastRequests",
        "round-robin": "RoundRobin",
        "consistent-hash": "ConsistentHash",
    }


# -- what the upstream makes of it -------------------------------------------------------------------------------------


def test_slow_start() -> None:
    """A new endpoint begins with a tenth of its weight; at the start of the gateway all are equal."""
    upstream, members = made(3, balance="round-robin", slow_start=Duration(10))
    assert [member.share for member in members] == [1, 1, 1]
    first, second, new = upstream.pools
    upstream.set_pools([first, second], {}, 5.0)
    upstream.set_pools([first, second, new], {}, 10.0)
    shares = []
    for now in (10.0, 12.5, 15.0, 19.9, 20.1, 30.0):
        upstream.tick(now)
        shares.append(round(upstream.members[2].share, 2))
    assert shares == [0.1, 0.25, 0.5, 0.99, 1, 1]


def test_slow_start_beside_a_single_one() -> None:
    """The second endpoint begins slowly, too, although nobody kept books on the first one; which is not new by that."""
    upstream, _ = made(2, balance="round-robin", slow_start=Duration(10))
    first, second = upstream.pools
    upstream.set_pools([first], {}, 5.0)
    upstream.set_pools([first, second], {}, 10.0)
    assert [member.share for member in upstream.members] == [1, 0.1]
    upstream.tick(15.0)
    assert [member.share for member in upstream.members] == [1, 0.5]


def test_a_reload_keeps_what_is_known() -> None:
    """Weights may change; costs stay."""
    upstream, (first, second) = made(2)
    first.took(0.5, 1.0)
    upstream.set_pools(upstream.pools, {first.pool: 4.0}, 2.0)
    assert upstream.members == [first, second]
    assert (first.cost_s, first.share) == (0.5, 4.0)


def test_one_endpoint_needs_no_choice() -> None:
    """Nobody keeps books on a single endpoint, unless checks or a breaker ask for it."""
    upstream, members = made(1)
    assert upstream.only is upstream.pools[0]
    assert members == []
    assert upstream.pools[0].member is None
    upstream, members = made(2)
    upstream.set_pools(upstream.pools[:1], {}, 1.0)
    assert upstream.only is members[0].pool
    assert members[0].pool.member is None


# -- who comes first ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", BALANCES)
def test_a_worse_priority_is_used_while_the_better_ones_are_not_well(balance: str) -> None:
    """Of SRV records (RFC 2782): nobody goes to the second while enough of the first are well, and all do otherwise."""
    upstream, members = made(4, balance=balance)
    for member, priority in zip(members, (0, 0, 1, 2), strict=True):
        member.pool.priority = priority
    keys = [b"%d" % number for number in range(20)]

    def used() -> set[str]:
        upstream.review(1.0)
        assert not upstream.panics
        return {name for key in keys for name in chosen(upstream, 2, key)}

    assert used() <= {"e0", "e1"}
    members[0].health = BAD
    assert used() == {"e1"}
    members[1].health = BAD
    assert used() == {"e2"}
    members[2].health = BAD
    assert used() == {"e3"}
    members[1].health = GOOD
    assert used() == {"e1"}
    for member in members:
        member.health = BAD
    upstream.review(1.0)
    assert upstream.panics
    assert upstream.balancer.members == members


def test_another_try_goes_to_the_next_priority() -> None:
    """Who could not be reached is not ejected yet: who comes after it is asked, in the order of priorities."""
    upstream, (first, third, second, bad) = made(4)
    for member, priority in ((first, 0), (third, 2), (second, 1), (bad, 1)):
        member.pool.priority = priority
    bad.health = BAD
    upstream.review(1.0)
    tried: list[Pool] = []
    for member in (first, second, third):
        assert upstream.has_other(tried)
        assert upstream.other(tried, b"", 1.0) is member
        tried.append(member.pool)
    assert not upstream.has_other(tried)
    assert upstream.other(tried, b"", 1.0) is None


# -- drained -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", BALANCES)
def test_a_drained_endpoint_gets_nobody(balance: str) -> None:
    """Weight 0: never chosen, not even in a panic or for another try; with its weight it is back, and what was known of
    it is known still."""
    upstream, members = made([1.0, 1.0, 1.0], balance=balance)
    pools = [member.pool for member in members]
    members[0].took(0.5, 1.0)
    upstream.set_pools(pools, {pools[0]: 0.0}, 1.0)
    assert set(chosen(upstream, 50, b"key", busy=True)) <= {"e1", "e2"}
    assert set(chosen(upstream, 50, busy=True)) == {"e1", "e2"}
    assert upstream.balancer.choose_other([pools[1], pools[2]], b"key", 1.0) is None
    members[1].ejected_until = members[2].ejected_until = 9.0
    upstream.review(1.0)
    assert upstream.panics
    assert set(chosen(upstream, 20, b"key")) <= {"e1", "e2"}
    members[1].ejected_until = members[2].ejected_until = 0.0
    for pool in pools:
        pool.opened = 0
    upstream.set_pools(pools, {}, 2.0)
    assert upstream.members[0] is members[0]
    assert members[0].cost_s == 0.5
    assert "e0" in {one.name for one in upstream.balancer.members}


def test_a_single_endpoint_that_is_drained() -> None:
    """There is nobody to choose, which is not panic."""
    upstream, members = made(2)
    pool = members[0].pool
    upstream.set_pools([pool], {pool: 0.0}, 1.0)
    assert (upstream.only, upstream.balancer.members, upstream.panics) == (None, [], False)
    upstream.set_pools([pool], {pool: 1.0}, 2.0)
    assert upstream.only is pool


# -- a preferred member ------------------------------------------------------------------------------------------------


def test_a_preferred_member_may_have_a_few_more() -> None:
    """Until it has much more to do than the others, is full, or is not in use."""
    upstream, members = made(2)
    balancer = upstream.balancer
    assert balancer.prefer("e1", 1.0) is members[1]
    assert balancer.prefer("e9", 1.0) is None
    members[1].pool.opened = 4
    assert balancer.prefer("e1", 1.0) is members[1]
    members[1].pool.opened = 20
    assert balancer.prefer("e1", 1.0) is None
    members[0].pool.opened = 20
    assert balancer.prefer("e1", 1.0) is members[1]
    upstream.max_connections = 20
    assert balancer.prefer("e1", 1.0) is None
    upstream.max_connections = 100
    members[1].engine_load, members[1].engine_until = 50.0, 2.0  # its engine has a queue
    assert balancer.prefer("e1", 1.0) is None
