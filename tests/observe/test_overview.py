"""What is told is bounded, sums what the workers report, and does not lose what the dead have counted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.admin.commands import COMMANDS
from edgeq.board import resources
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read
from edgeq.board.resources import ResourceCells
from edgeq.config.schema import Config, Endpoint, Listener, Rate, Route, RouteCache, Upstream
from edgeq.observe.metrics import Metrics
from edgeq.observe.overview import Overview
from edgeq.observe.queues import Queues
from edgeq.observe.refusals import MAX_RESOURCES, OTHER, Refusals
from edgeq.observe.reports import MAX_REFUSALS
from edgeq.observe.sampler import Sampler
from edgeq.reasons import REASONS
from edgeq.supervisor.sockets_io import Queue
from edgeq.worker import report

CONFIG = Config(
    listener=(Listener(address="127.0.0.1:1"),), upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",), limit=3)}
)
(SHOW_UPSTREAMS,) = [one for one in COMMANDS if one.words == "show upstreams"]


class Processes:
    """This process in some slots; no sockets."""

    def __init__(self, slots: list[int]) -> None:
        self.slots = slots

    def pids(self) -> dict[int, int]:
        return dict.fromkeys(self.slots, os.getpid())

    def queues(self) -> list[Queue]:
        return []


class Bench:
    """A board of three workers that report what a test says."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.board = Board.create(3)
        for slot in range(3):
            self.board.use(slot)
        self.board.assign_resources(["upstream/u"])
        self.processes = Processes([0, 1, 2])
        self.overview = Overview(self.board, self.processes, self.processes, lambda: config)

    def tell(self, slot: int, **document: Any) -> None:
        self.board.report(slot).write(orjson.dumps(document))

    def bury(self, slot: int) -> None:
        """As the supervisor does it."""
        self.processes.slots.remove(slot)
        self.overview.bury(slot)
        self.board.bury(slot)

    def counts(self) -> dict[tuple[str, str], int]:
        # Anew, however often it is asked.
        fresh = Overview(self.board, self.processes, self.processes, lambda: CONFIG)
        return {(one["reason"], one["resource"]): one["count"] for one in fresh.reasons()}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.board.close()


def endpoint(name: str, **values: Any) -> dict[str, Any]:
    zeros = {"active": 0, "idle": 0, "connecting": 0, "waiting": 0, "oldest_ns": 0}
    return {"endpoint": name, **zeros, **values}


def target(name: str, **values: Any) -> dict[str, Any]:
    """As a worker reports one."""
    nothing = {"limits": {}, "remaining": {}, "heard": {}, "concurrent": 0, "refused": {}, "wait_ms": []}
    zeros = dict.fromkeys(("in_flight", "queued", "queued_tokens", "oldest_ns", "admitted", "paused_until_ns"), 0)
    return {"name": name, **nothing, **zeros, "paused_for": "", "last_refusal": "", **values}


def upstream(*endpoints: dict[str, Any], breaker: dict[str, Any] | None = None) -> dict[str, Any]:
    most = {"max_connections": 10, "max_connecting": 2, "max_waiting": 5}
    return {
        "upstream": "u",
        "endpoints": endpoints,
        "known": 2,
        "in_use": 2,
        "panic": False,
        "breaker": breaker,
        **most,
    }


def test_every_show_command_has_a_subject(bench: Bench) -> None:
    """Each answers on a board on which nobody has said anything yet, too."""
    wanted = {one.words.removeprefix("show ") for one in COMMANDS if one.words.startswith("show ")}
    assert set(bench.overview.subjects) == wanted - {"connections", "events", "history", "metrics", "version"}
    for subject in bench.overview.subjects.values():
        assert isinstance(subject(), list)


def test_columns_are_keys(bench: Bench) -> None:
    """A table never has a column that no record has; unknown is a dash, a misspelt key would be, too."""
    for slot in range(3):
        bench.tell(
            slot,
            refusals={"queue_full": {"upstream/u:queue": 1}},
            upstreams=[upstream(endpoint("a:1"))],
            tenants=[{"tenant": "t", "in_flight": 1, "queued": 0, "oldest_ms": 0, "refused": {}}],
        )
    for command in COMMANDS:
        records = bench.overview.subjects.get(command.words.removeprefix("show "), list)()
        for column in command.columns if records and command.words.startswith("show ") else ():
            value: Any = records[0]
            for step in column.key.split("."):
                assert step in value, (command.words, column.key)
                value = value[step]


def test_an_observed_limit_is_told(bench: Bench) -> None:
    """It is none, and what would be learned is beside it, once it is known."""
    configured = msgspec.structs.replace(
        CONFIG, upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",), limit="observe")}
    )

    def told() -> tuple[object, ...]:
        overview = Overview(bench.board, bench.processes, bench.processes, lambda: configured)
        (one,) = overview.upstreams()
        (limit,) = [row for row in overview.limits() if row["limit"] == "upstream.u.limit"]
        assert (one["limit"], one["limit_source"], limit["source"]) == (None, "observe", "observe")
        text = Metrics(bench.board, overview, 1, True, {}).expose("")[1].decode()
        assert 'edgeq_inflight_limit{upstream="u"}' not in text
        head, row = SHOW_UPSTREAMS.text([one]).splitlines()
        assert head.split()[:5] == ["upstream", "busy", "limit", "by", "obs"]
        assert row.split()[:5] == ["u", "0", "-", "observe", str(one["observed_limit"] or "-")]
        return one["observed_limit"], limit["value"], 'edgeq_inflight_limit_observed{upstream="u"} 12.0' in text

    assert told() == (None, "none", False)
    bench.board.set_learned_limit(bench.board.resource_index("upstream/u"), 12)
    assert told() == (12, "none; 12 would be learned", True)


def test_rates_count_what_they_would_refuse(bench: Bench) -> None:
    """Of all workers, the dead ones included; one that is enforced refuses, and would not."""
    rates = (
        Rate(name="plan", by="client", limits=("1/s", "9/h")),
        Rate(name="trial", by="route", limits=("1/s",), routes=("r",), enforce=False),
        Rate(name="new", by="route", limits=("1/s",), enforce=False),
    )
    configured = msgspec.structs.replace(CONFIG, rate=rates)
    counts = {"plan": {"refused": 2, "would_refuse": 0}, "trial": {"refused": 0, "would_refuse": 5}}
    for slot in range(3):
        bench.tell(slot, rates=counts)
    bench.bury(1)
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: configured)
    assert [(one["rate"], one["refused"], one["would_refuse"]) for one in overview.rates()] == [
        ("plan", 6, None),
        ("trial", 0, 15),
        ("new", 0, 0),
    ]
    text = Metrics(bench.board, overview, 1, True, {}).expose("")[1].decode()
    assert 'edgeq_rate_would_refuse_total{rate="trial"} 15.0' in text
    assert 'edgeq_rate_would_refuse_total{rate="plan"}' not in text


def test_retries_are_summed(bench: Bench) -> None:
    """What was counted is remembered of the dead; what is used of the budget is that of the living."""
    counted = {"retried": 4, "denied": 3, "hedges": 2, "hedges_won": 1}
    used = {"requests": 50, "retries": 6, "running": 1}
    for slot in range(3):
        bench.tell(slot, retries={"u": counted}, upstreams=[{**upstream(endpoint("a:1")), "budget": used}])
    bench.bury(1)
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: CONFIG)
    now = {"running": 2, "recent": 12, "allowed": 50}  # a fifth of 100 requests, and 3/s
    assert overview.retries() == [{"upstream": "u", **{key: 3 * count for key, count in counted.items()}, **now}]
    assert overview.upstreams()[0]["retrying"] == 2
    text = Metrics(bench.board, overview, 1, True, {}).expose("")[1].decode()
    assert 'edgeq_retries_total{upstream="u",what="hedges_won"} 3.0' in text


def test_caches_are_summed(bench: Bench) -> None:
    """How it went is remembered of the dead; what they held is gone with them."""
    routes = (
        Route(name="a", upstream="u", cache=RouteCache()),
        Route(name="b", upstream="u"),
        Route(name="new", upstream="u", cache=RouteCache()),
    )
    configured = msgspec.structs.replace(CONFIG, route=routes)
    went = {"hits": 5, "joined": 4, "stale": 3, "misses": 2, "stored": 1}
    held = {"entries": 1, "bytes": 100, "max_bytes": 1000, "waiting": 7}
    for slot in range(3):
        bench.tell(slot, caches={"a": went}, stores={"a": held})
    bench.bury(1)
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: configured)
    first, new = overview.caches()
    assert first == {
        "route": "a",
        **{key: 3 * count for key, count in went.items()},
        **{key: 2 * count for key, count in held.items()},
    }
    assert new == {"route": "new", **dict.fromkeys((*went, *held), 0)}
    text = Metrics(bench.board, overview, 1, True, {}).expose("")[1].decode()
    assert 'edgeq_cache_requests_total{outcome="joined",route="a"} 12.0' in text
    assert 'edgeq_cache_bytes{route="a"} 200.0' in text


def test_upstreams_fit_into_80_columns(bench: Bench) -> None:
    """With numbers as they are while a gateway is busy."""
    (one,) = bench.overview.upstreams()
    busy = {"in_flight": 1234, "limit": 1234, "limit_source": "learned", "observed_limit": 123, "queued": 256}
    times = {"service_ms": {"p50": 123.4, "p90": 123.4, "p99": 999.0}, "answers_per_s": 9999.0, "refused_per_s": 123.0}
    text = SHOW_UPSTREAMS.text(
        [{**one, "upstream": "a-service-with-a-long-name", "breaker": "closed", **busy, **times}]
    )
    assert max(map(len, text.splitlines())) <= 80


def test_workers_are_summed(bench: Bench) -> None:
    """Connections of an endpoint, of all workers; whoever has ejected it, it is ejected; the open breaker is told."""
    engine = {"engine_load": 5.0, "engine_running": 2.0, "engine_waiting": 1.0, "engine_cache": 0.5}
    bench.tell(0, upstreams=[upstream(endpoint("a:1", active=1, waiting=2, oldest_ns=1), endpoint("b:1", idle=1))])
    bench.tell(
        1,
        upstreams=[upstream(endpoint("a:1", active=3, ejected_s=4.5, failed=7, **engine), breaker={"state": "open"})],
    )
    one, other = bench.overview.endpoints()
    assert {key: one[key] for key in engine} == engine
    assert {other[key] for key in engine} == {None}
    assert (one["active"], one["waiting"], one["failed"], one["state"], one["ejected_s"]) == (4, 2, 7, "ejected", 4.5)
    assert one["oldest_ms"] > 0
    assert (other["endpoint"], other["idle"], other["state"]) == ("b:1", 1, "in use")
    (pool,) = [one for one in bench.overview.queues() if one["queue"] == "upstream/u#a:1:pool"]
    assert (pool["depth"], pool["limit"]) == (2, 10)
    assert bench.overview.upstreams()[0]["breaker"] == "open"


def test_a_disabled_endpoint_is_told(bench: Bench) -> None:
    """No worker knows of it; who looks for it finds it."""
    off = Endpoint("http://127.0.0.1:9", enabled=False), Endpoint("http://api.example", enabled=False)
    config = msgspec.structs.replace(CONFIG, upstream={"u": Upstream(endpoints=off)})
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: config)
    bench.tell(0, upstreams=[upstream(endpoint("a:1"))])
    told = [(one["endpoint"], one["state"]) for one in overview.endpoints()]
    # An upstream's only endpoint is not chosen, so its answers are not counted.
    assert {(one["answered"], one["failed"], one["cost_ms"]) for one in overview.endpoints()} == {(None, None, None)}
    assert told == [("a:1", "in use"), ("127.0.0.1:9", "disabled"), ("http://api.example:80", "disabled")]
    assert len({tuple(one) for one in overview.endpoints()}) == 1


def test_a_name_that_does_not_resolve_is_told(bench: Bench) -> None:
    """There is no pool for it: who looks for it finds it once, although each worker tells of it."""
    lost = {
        "name": "api.example",
        "url": "http://api.example",
        "reason": "dns_error",
        "detail": "Domain name not found",
    }
    for slot in (0, 1):
        bench.tell(slot, upstreams=[{**upstream(endpoint("a:1")), "unresolved": [lost]}])
    told = [(one["endpoint"], one["state"]) for one in bench.overview.endpoints()]
    assert told == [("a:1", "in use"), ("http://api.example:80", "unresolved")]


_REASONS = st.sampled_from(["queue_full", "client_gone"])
_STEPS = st.lists(st.tuples(st.integers(0, 2), _REASONS, st.sampled_from(["a", "b", "c"]), st.booleans()))


@settings(max_examples=30, deadline=None)
@given(_STEPS)
def test_refusals_are_never_lost(steps: list[tuple[int, str, str, bool]]) -> None:
    """Workers count, report, die and are replaced in any order: the machine's counts are all that was reported."""
    bench = Bench()
    workers = [Refusals() for _ in range(3)]
    told = report.RefusalsTold()
    expected: dict[tuple[str, str], int] = {}
    try:
        for slot, reason, resource, dies in steps:
            workers[slot].count(reason, resource)
            expected[reason, resource] = expected.get((reason, resource), 0) + 1
            bench.tell(slot, refusals=told.of(workers[slot]))
            if dies:
                bench.bury(slot)
                assert bench.counts() == expected
                workers[slot] = Refusals()
                bench.processes.slots.append(slot)
        assert bench.counts() == expected
    finally:
        bench.board.close()


def test_refusals_of_the_dead_are_bounded(bench: Bench) -> None:
    """Resources may be new for ever, such as names of endpoints: then the reason's sum is kept."""
    for number in range(MAX_REFUSALS // 1000 + 2):
        bench.tell(0, refusals={"upstream_reset": {f"upstream/u#{number}-{at}": 1 for at in range(1000)}})
        bench.bury(0)
        bench.processes.slots.append(0)
    counts = bench.counts()
    assert len(counts) <= MAX_REFUSALS
    assert sum(counts.values()) == 1000 * (MAX_REFUSALS // 1000 + 2)


def test_a_report_fits_its_page(bench: Bench) -> None:
    """As many names as there may be, each as long as it may be: what is left out is told, no count is lost."""
    counted = Refusals()
    for reason in REASONS:
        for at in range(MAX_RESOURCES + 5):
            counted.count(reason, f"{'x' * 200}{at}")
    told = report.RefusalsTold().of(counted)
    assert sum(map(len, told.values())) <= report.MAX_REFUSALS + len(REASONS)
    assert sum(sum(one.values()) for one in told.values()) == counted.total()
    assert OTHER in told["dns_error"]
    page = bench.board.report(0)
    page.write(report.encode({"refusals": told, "upstreams": [upstream()] * 1000}, page.max_bytes))
    assert sum(bench.counts().values()) == counted.total()
    document = {"refusals": {}, "upstreams": [upstream()], "tenants": ["t" * page.max_bytes]}
    shortened = orjson.loads(report.encode(document, page.max_bytes))
    assert shortened["left_out"] == ["tenants"]
    assert shortened["upstreams"]


def test_counts_never_go_back_because_a_name_is_new() -> None:
    """Who was told once is told again, however many names come after it."""
    counted = Refusals()
    telling = report.RefusalsTold()
    before: dict[str, dict[str, int]] = {}
    for number in range(2000):
        counted.count(list(REASONS)[number % 20], f"r{number}")
        if number % 100 == 0:
            now = telling.of(counted)
            for reason, counts in before.items():
                for resource, count in counts.items():
                    assert now[reason].get(resource, 0) >= count
            before = now


def test_queues_of_workers_have_all_columns(bench: Bench) -> None:
    """Of pools, connections being opened, places at listeners and the log: rates, waits, refusals by reason, drops."""

    def tell(count: int) -> None:
        of_pool = {"waited": count, "gave_up": count, "dials": 3 * count, "wait_ms": [1.0, 2.0, float(count)]}
        of_listener = {"accepted": 0, "waiting": 1, "waiting_max": 9, "oldest_wait_s": 0.5, "abandoned": 0}
        of_tenant = {"tenant": "t", "in_flight": 1, "queued": 1, "oldest_ms": 1, "wait_ms": [8.0, 9.0, 9.0 + count]}
        for slot in range(2):
            bench.tell(
                slot,
                upstreams=[upstream(endpoint("a:1", waiting=1, connecting=1, **of_pool))],
                listeners=[{"address": "127.0.0.1:1", **of_listener, "waited": count, "wait_ms": [5.0, 6.0, 7.0]}],
                refusals={
                    "queue_full": {"upstream/u#a:1:pool": count, "elsewhere": 1},
                    "conn_limit_listener": {"listener/127.0.0.1:1:max_connections": 2 * count},
                },
                tenants=[{**of_tenant, "admitted": 3 * count, "refused": {"tenant_limit": count}}],
                log={"waiting": 0, "pending_bytes": 100 * count, "limit_bytes": 1000, "dropped": count},
            )

    tell(0)
    bench.overview.sample()
    tell(10)
    overview = bench.overview
    overview.forget()
    found = {(one["queue"], one["worker"]): one for one in overview.queues()}
    pool = found["upstream/u#a:1:pool", None]
    assert (pool["refused"], pool["wait_ms"]) == ({"queue_full": 20}, {"p50": 1.0, "p90": 2.0, "p99": 10.0})
    # Told by two workers: 40 have left, 20 were refused.
    assert pool["arrival_per_s"] == pytest.approx(pool["drain_per_s"] + pool["refused_per_s"])
    assert pool["drain_per_s"] == pytest.approx(2 * pool["refused_per_s"])
    assert pool["refused_per_s"] > 0
    opening = found["upstream/u#a:1:connecting", None]
    assert opening["arrival_per_s"] == pytest.approx(opening["drain_per_s"])
    assert opening["arrival_per_s"] > 0
    places = found["listener/127.0.0.1:1:places", 1]
    assert (places["refused"], places["wait_ms"]["p90"]) == ({"conn_limit_listener": 20}, 6.0)
    assert places["refused_per_s"] == pytest.approx(2 * places["drain_per_s"])
    tenant = found["tenant/t", None]
    assert (tenant["high_water"], tenant["refused"], tenant["refused_per_s"] > 0) == (2, {"tenant_limit": 20}, True)
    assert (tenant["wait_ms"]["p99"], tenant["drain_per_s"] > tenant["refused_per_s"] > 0) == (19.0, True)
    assert tenant["arrival_per_s"] == pytest.approx(tenant["drain_per_s"] + tenant["refused_per_s"])
    log = found["log", 1]
    assert log["refused_per_s"] > 0
    assert (log["depth"], log["limit"], log["refused"], log["fill"]) == (1000, 1000, {"dropped": 10}, 1.0)
    overview.begin_highs()
    tell(1)
    overview.forget()
    assert next(one for one in overview.queues() if one["kind"] == "log")["high_water"] == 100


def test_who_waits_for_tokens_is_in_a_queue(bench: Bench) -> None:
    """The gate of a model at a key, of all workers; its limit is that of the upstream's queue."""
    of_machine: dict[str, dict[str, int]] = {"limits": {}, "remaining": {}, "heard": {}}
    own = {"in_flight": 1, "queued_tokens": 50, "admitted": 1, "refused": {"queue_full": 2}, "last_refusal": ""}
    own["wait_ms"] = [1.0, 2.0, 3.0]
    for slot in range(2):
        told = {"name": "u/m", "queued": 3, "oldest_ns": 1, **own, **of_machine}
        bench.tell(slot, targets=[{**told, "concurrent": 0, "paused_until_ns": 0, "paused_for": ""}])
    (found,) = (one for one in bench.overview.queues() if one["kind"] == "tokens")
    assert (found["queue"], found["depth"], found["limit"]) == ("target/u/m:queue", 6, 256)
    assert (found["refused"], found["high_water"]) == ({"queue_full": 4}, 6)
    assert found["wait_ms"] == {"p50": 1.0, "p90": 2.0, "p99": 3.0}
    assert found["oldest_ms"] > 0


def test_what_a_provider_has_told_one_worker_is_told(bench: Bench) -> None:
    """All keep to it from their next request on; until then only one of them knows."""
    known = {"limits": {"tokens": 6000}, "remaining": {"tokens": 50}, "heard": {"tokens": 6000}}
    for slot, told in enumerate(({}, known, {})):
        bench.tell(slot, targets=[target("oa/m", **told)])
    (found,) = bench.overview.targets()
    assert {key: found[key] for key in known} == known


def test_what_rests_at_a_key_is_told_with_it(bench: Bench) -> None:
    """All of its models, by the reason, or some; for as long as it still does."""
    nothing: dict[str, Any] = {"limits": {}, "remaining": {}, "heard": {}, "refused": {}, "wait_ms": []}
    zeros = dict.fromkeys(("in_flight", "queued", "queued_tokens", "oldest_ns", "admitted", "concurrent"), 0)
    for seconds, reason, rests in (
        (9.5, "upstream_rate_limit", {"big/m": 10}),
        (9.5, "upstream_auth", {"upstream_auth": 10}),
        (-1.0, "upstream_auth", {}),
    ):
        until_ns = time.monotonic_ns() + int(seconds * 1e9)
        told = {"name": "u/big/m", "paused_until_ns": until_ns, "paused_for": reason, "last_refusal": ""}
        bench.tell(0, targets=[{**nothing, **zeros, **told}])
        bench.overview.forget()
        (found,) = bench.overview.upstreams()
        assert found["rests"] == rests
        head, row = SHOW_UPSTREAMS.text([found], 0).splitlines()
        assert (head.split()[-1], row.split()[-1]) == (
            ("rests", " ".join(f"{what}={left}" for what, left in rests.items())) if rests else ("ref/s", "0")
        )


def test_what_has_just_come_and_what_never_was(bench: Bench) -> None:
    """An age is never below zero, also of who came while the board was being read; a time of which there is none is
    not told as 0."""

    def readings() -> dict[str, Reading]:
        found = read(bench.board, bench.board.resource_index("upstream/u"))
        found.queued, found.oldest_ns = 1, time.monotonic_ns()
        return {"upstream/u": found}

    queues = Queues(bench.processes, bench.overview.reports, Sampler(bench.board), lambda: CONFIG, readings)
    (one,) = queues.all()
    assert one["oldest_ms"] >= 0
    assert one["wait_ms"] == {"p50": None, "p90": None, "p99": None}
    (seen,) = bench.overview.upstreams()
    assert seen["service_ms"] == {"p50": None, "p90": None, "p99": None}
    assert SHOW_UPSTREAMS.text([seen]).splitlines()[1].split()[-4:-2] == ["-", "-"]
    cells = ResourceCells(bench.board, Neighbours(bench.board, 0, lambda _slot: None), "upstream/u")
    cells.admitted(0.0)
    cells.finished(0.012, resources.OK)
    cells.flush()
    (seen,) = Overview(bench.board, bench.processes, bench.processes, lambda: CONFIG).upstreams()
    assert seen["service_ms"]["p99"] == pytest.approx(12, rel=0.04)


def test_a_worker_that_beats_while_it_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not told as one that was never heard of, as the others are."""
    pids = bench.processes.pids

    def beat() -> dict[int, int]:
        bench.board.row(0).beat(time.monotonic_ns(), 0, 0, 0)
        return pids()

    monkeypatch.setattr(bench.processes, "pids", beat)
    first, *others = (one["beat_age_ms"] for one in bench.overview.workers())
    assert first >= 0
    assert others == [None, None]
