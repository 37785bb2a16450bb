"""Passive ejection: whom, for how long, how many at most, and how other workers learn of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sim_balance import ERROR, OK, Endpoint, make_upstream, simulate
from edgeq.config.base import Duration
from edgeq.config.schema import Eject
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.member import Member
from edgeq.upstream.upstream import Upstream
from edgeq.wire.h1_response import parse_response


def made(count: int, **keys: Any) -> tuple[Upstream, list[Member]]:
    upstream = make_upstream(UpstreamConfig(endpoints=(), eject=Eject(**keys)), [1.0] * count)
    return upstream, upstream.members


def answers(upstream: Upstream, member: Member, good: int, bad: int = 0, now: float = 1.0) -> None:
    for _ in range(good):
        upstream.answered(member, OK, now, True, now)
    for _ in range(bad):
        upstream.answered(member, ERROR, now, True, now)


def in_use(upstream: Upstream) -> list[str]:
    return [member.name for member in upstream.balancer.members]


def test_five_in_a_row() -> None:
    """The fifth ejects; a good answer between begins the count anew."""
    upstream, (member, *_) = made(4)
    answers(upstream, member, 0, 4)
    answers(upstream, member, 1, 4)
    assert in_use(upstream) == ["e0", "e1", "e2", "e3"]
    answers(upstream, member, 0, 1)
    assert in_use(upstream) == ["e1", "e2", "e3"]
    assert [name for name, _ in upstream.events] == ["endpoint_ejected"]


def test_each_time_longer() -> None:
    """30 s, then 60 s; a good interval makes it shorter again."""
    upstream, (member, other) = made(2)
    answers(upstream, member, 0, 5, now=100.0)
    assert member.ejected_until == 130.0
    upstream.tick(129.0)
    assert in_use(upstream) == ["e1"]
    upstream.tick(130.0)
    assert in_use(upstream) == ["e0", "e1"]
    answers(upstream, member, 0, 5, now=131.0)
    assert member.ejected_until == 191.0
    upstream.tick(191.0)
    for now in (202.0, 213.0, 224.0):
        answers(upstream, member, 3, now=now)
        upstream.tick(now)
    answers(upstream, member, 0, 5, now=230.0)
    assert member.ejected_until == 260.0
    assert other.ejected_until == 0


def test_never_too_many() -> None:
    """When everything fails the cause is elsewhere: a share of the endpoints at most, never the last one."""
    for count, most in ((2, 1), (3, 1), (4, 1), (7, 2), (10, 3)):
        upstream, members = made(count)
        for member in members:
            answers(upstream, member, 0, 50)
        assert len(in_use(upstream)) == count - most


def test_busy_is_no_failure() -> None:
    """429, and 503 with Retry-After, never eject; a plain 503 does, 501 is about the request."""
    for status, fields, ejects in (
        (429, b"", False),
        (503, b"Retry-After: 5\r\n", False),
        (503, b"", True),
        (502, b"", True),
        (501, b"", False),
        (404, b"", False),
    ):
        upstream, (member, _) = made(2)
        answer = parse_response(b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, fields))
        for _ in range(9):
            upstream.answered(member, answer, 1.0, True, 1.0)
        assert bool(member.ejected_until) is ejects, status


def test_what_is_whose_fault() -> None:
    """Resets and time-outs count against an endpoint; a client that leaves and a lack of our own ports do not."""
    for reason, ejects in (
        ("upstream_reset", True),
        ("upstream_timeout", True),
        ("upstream_truncated", True),
        ("client_gone", False),
        ("body_too_large", False),
    ):
        upstream, (member, _) = made(2)
        for _ in range(9):
            upstream.failed(member, reason, 0.5, False, 1.0)
        assert bool(member.ejected_until) is ejects, reason
    for reason, ejects in (
        ("upstream_connect_refused", True),
        ("upstream_tls_failed", True),
        ("upstream_backlog_full", False),
        ("upstream_port_exhausted", False),
        ("fd_exhausted", False),
    ):
        upstream, (member, _) = made(2)
        for _ in range(9):
            upstream.dial_failed(member, reason)
        assert bool(member.ejected_until) is ejects, reason


def test_success_rate() -> None:
    """One that is far below the others is ejected although it never fails five times in a row."""
    upstream, members = made(6, failures=0)
    upstream.tick(1.0)
    for member in members:
        for _ in range(50):
            answers(upstream, member, 4, 1 if member is members[2] else 0)
    upstream.tick(10.9)
    assert len(in_use(upstream)) == 6
    upstream.tick(11.0)
    assert in_use(upstream) == ["e0", "e1", "e3", "e4", "e5"]


def test_success_rate_needs_something_to_compare() -> None:
    """Few requests, or few endpoints, say nothing; and nobody is an outlier if all are alike."""
    for count, rounds, bad in ((6, 10, 1), (4, 50, 1), (6, 50, 6)):
        upstream, members = made(count, failures=0)
        upstream.tick(1.0)
        for member in members:
            for _ in range(rounds):
                answers(upstream, member, 4, 1 if members.index(member) < bad else 0)
        upstream.tick(11.0)
        assert len(in_use(upstream)) == count


def test_simulated_ejection() -> None:
    """With ejection a dead endpoint costs five requests for each time that it returns."""
    config = UpstreamConfig(endpoints=(), balance="round-robin", eject=Eject(time=Duration(2)))
    result = simulate([Endpoint(fails=1.0), Endpoint(), Endpoint(), Endpoint()], 200.0, 5.0, config)
    assert len(result.endpoints[0].served) <= 3 * (5 + 2)


class Machine:
    """Cells that several workers share: each has rows of its own."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], Cells] = {}

    def worker(self, slot: int) -> Any:
        return lambda resource: self.rows.setdefault((slot, resource), Cells(self, resource))

    def bury(self, slot: int) -> None:
        """A worker has died: its rows are zeroed."""
        for (of, _), cells in self.rows.items():
            if of == slot:
                cells.values = [0] * 8


class Cells:
    def __init__(self, machine: Machine, resource: str) -> None:
        self.machine = machine
        self.resource = resource
        self.values = [0] * 8

    def _all(self, cell: int) -> list[int]:
        return [one.values[cell] for (_, name), one in self.machine.rows.items() if name == self.resource]

    def put(self, cell: int, value: int) -> None:
        self.values[cell] = value

    def newest(self, cell: int) -> int:
        return max(self._all(cell))

    def total(self, cell: int) -> int:
        return sum(self._all(cell))

    def leads(self) -> bool:
        return self is next(one for (_, name), one in self.machine.rows.items() if name == self.resource)


def worker(machine: Machine, slot: int, now: float = 0.0) -> Upstream:
    upstream = make_upstream(UpstreamConfig(endpoints=()), [])
    upstream.make_cells = machine.worker(slot)
    other = make_upstream(UpstreamConfig(endpoints=()), [1.0] * 3)
    upstream.set_pools(other.pools, {}, now)
    return upstream


def test_an_ejection_holds_for_all_workers_and_outlives_who_decided() -> None:
    """One worker ejects, the others follow on their next tick; that survives the worker's death and a new start."""
    machine = Machine()
    first, second = worker(machine, 0), worker(machine, 1)
    answers(first, first.members[1], 0, 5, now=50.0)
    second.tick(50.1)
    assert in_use(second) == ["e0", "e2"]
    machine.bury(0)
    third = worker(machine, 2)
    assert in_use(third) == ["e0", "e2"]
    fourth = worker(machine, 3, now=81.0)
    assert in_use(fourth) == ["e0", "e1", "e2"]
    for upstream in (second, third):
        upstream.tick(79.9)
        assert in_use(upstream) == ["e0", "e2"]
        upstream.tick(80.0)
        assert in_use(upstream) == ["e0", "e1", "e2"]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["good", "bad", "tick", "wait"]))))
def test_in_the_end_everybody_is_back(steps: list[tuple[int, str]]) -> None:
    """Any history: never more out than allowed, and all are back once nothing fails any more."""
    upstream, members = made(5)
    now = 1.0
    for index, what in steps:
        if what in ("good", "bad"):
            answers(upstream, members[index], int(what == "good"), 5 * int(what == "bad"), now)
        now += {"tick": 0.1, "wait": 40.0}.get(what, 0.0)
        upstream.tick(now)
        assert len(in_use(upstream)) >= 4
    upstream.tick(now + 400)
    assert len(in_use(upstream)) == 5
