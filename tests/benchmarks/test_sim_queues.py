"""The simulated queues, in small: what is promised of them holds."""

from __future__ import annotations

import pytest

from benchmarks.sim_queues import ADAPTIVE, Load, Policy, Simulation, merged, quantile, run
from benchmarks.slots import Service, Shape
from edgeq.admission.queue import deal

SIXTEEN = Service(16, 0.020)


@pytest.mark.parametrize("factor", [2.0, 4.0])
@pytest.mark.parametrize("kind", ["constant", "exponential", "bimodal"])
def test_overload_serves_the_capacity_quickly(kind: Shape, factor: float) -> None:
    """Twice and four times the capacity: it is served in full, as quickly as without load, refusals at once."""
    shape = Service(16, 0.020, kind)
    tally = run(shape, ADAPTIVE, [Load(b"", shape.capacity * factor)], 4.0, 1)[b""]
    assert tally.share(tally.capacity) >= 0.98
    assert quantile(tally.good, 0.5) <= 0.045
    assert quantile(tally.refused, 0.95) <= 0.020
    assert tally.late == 0


@pytest.mark.parametrize("kind", ["constant", "exponential"])
def test_below_capacity_nothing_is_refused(kind: Shape) -> None:
    """0.8 of the capacity, with the chance that Poisson arrivals have."""
    shape = Service(16, 0.020, kind)
    tally = run(shape, ADAPTIVE, [Load(b"", shape.capacity * 0.8)], 6.0, 2)[b""]
    assert len(tally.good) == tally.offered


def test_a_polite_tenant_beside_a_noisy_one() -> None:
    """80/s beside 2,400/s: all of it is answered, quickly, and the capacity is used."""
    loads = [Load(b"polite", 80.0), Load(b"noisy", 2400.0)]
    tallies = run(SIXTEEN, ADAPTIVE, loads, 5.0, 3)
    polite, noisy = tallies[b"polite"], tallies[b"noisy"]
    assert polite.share(polite.offered) >= 0.99
    assert quantile(polite.good, 0.5) <= 0.045
    assert len(polite.good) + len(noisy.good) >= 0.98 * polite.capacity


@pytest.mark.parametrize("noisy", [1000.0, 2400.0])
@pytest.mark.parametrize("workers", [4, 8])
def test_a_polite_tenant_at_any_of_several_workers(workers: int, noisy: float) -> None:
    """Between the workers' queues he goes before the noisy one's older requests, too: hardly later than at a single
    worker, and at no time behind what waits at another one."""
    loads = [Load(b"polite", 80.0), Load(b"noisy", noisy)]
    tallies = Simulation(SIXTEEN, ADAPTIVE, 1, workers).run(loads, 4.0)
    polite, others = tallies[b"polite"], tallies[b"noisy"]
    assert len(polite.good) == polite.offered
    assert quantile(polite.good, 0.5) <= 0.029
    assert quantile(polite.good, 0.99) <= 0.060
    assert len(polite.good) + len(others.good) >= 0.98 * polite.capacity


def first_card(tenant: bytes) -> int:
    """Of the hand that the queue deals him, in this process."""
    return deal(hash(tenant) & 0xFFFFFFFFFFFF)[0]


def test_a_tenant_whose_place_a_noisy_one_has_left_congested() -> None:
    """The same card is the first of both: whoever finds it empty takes it, but not what has been there before."""
    polite = next(
        name for name in (b"polite-%d" % n for n in range(10_000)) if first_card(name) == first_card(b"noisy")
    )
    loads = [Load(polite, 80.0), Load(b"noisy", 1000.0)]
    tally = Simulation(SIXTEEN, ADAPTIVE, 1, 4).run(loads, 4.0)[polite]
    assert len(tally.good) == tally.offered
    assert quantile(tally.good, 0.5) <= 0.029
    assert quantile(tally.good, 0.99) <= 0.060


def test_four_workers_refuse_alike() -> None:
    """Twice the capacity: no worker stays calm, serves its own, and leaves the others those places only that it does
    not need. Whoever comes is served as quickly as by a single worker."""
    simulation = Simulation(SIXTEEN, ADAPTIVE, 1, 4)
    tally = simulation.run([Load(b"", 1600.0)], 4.0)[b""]
    assert tally.share(tally.capacity) >= 0.98
    assert quantile(tally.good, 0.5) <= 0.029
    refused = [sum(bulkhead.refusals.values()) for bulkhead in simulation.bulkheads]
    assert max(refused) <= 1.3 * min(refused)


def test_a_burst_is_over_when_it_is_over() -> None:
    """Five times 0.8 of the capacity for a second: all are answered again within a second of its end."""
    tally = run(SIXTEEN, ADAPTIVE, [Load(b"", 640.0, (1.0, 2.0, 5.0))], 4.0, 1)[b""]
    assert max(tally.bad_at) <= 3.0


def test_few_slow_places() -> None:
    """One place of 200 ms and two of half a second: close to what they can do."""
    for shape in (Service(1, 0.2), Service(2, 0.5)):
        tally = merged(shape, ADAPTIVE, [Load(b"", shape.capacity * 2.0)], 60.0, 2)[b""]
        assert tally.share(tally.capacity) >= 0.93


def test_a_long_queue_in_order_of_arrival_serves_hardly_anybody() -> None:
    """Why the default is another one: the same load, the same limit."""
    policy = Policy("fifo", "fifo", 1024, 60.0)
    tally = run(SIXTEEN, policy, [Load(b"", 1600.0)], 8.0, 1)[b""]
    assert tally.share(tally.capacity) < 0.7
