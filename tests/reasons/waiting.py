"""Who waits for a place, and why not everybody gets one."""

from __future__ import annotations

from tests.reasons.stage import PATIENCE, SOON, Seen, Stage, Tables, get, provokes
from tests.support.gateway import Settings
from tests.support.raw_client import Answer, Asked, RawClient


def _queue(limit: int, most: int, discipline: str = "fifo", timeout: str = PATIENCE) -> Tables:
    return {"limit": limit, "queue": {"max": most, "discipline": discipline, "timeout": timeout}}


def _take(stage: Stage, token: str, places: int, *fields: str) -> None:
    """Take all places at the upstream."""
    for _ in range(places):
        stage.send(get(token, "hold", *fields))
    stage.wait_seen(token, places)


def _answer(client: RawClient) -> Answer:
    (got,) = client.read_answers([Asked()])
    return got


@provokes("queue_full", upstream=_queue(1, 1))
def queue_full(stage: Stage) -> Seen:
    with stage.holding():
        _take(stage, "queue_full", 1)
        asked = [stage.send(get("queue_full", "hold")) for _ in range(2)]
        return Seen("upstream/queue_full:queue", stage.first_answer(asked))


@provokes("queue_timeout", upstream=_queue(1, 1, timeout=SOON))
def queue_timeout(stage: Stage) -> Seen:
    with stage.holding():
        _take(stage, "queue_timeout", 1)
        return Seen("upstream/queue_timeout:queue", stage.ask(get("queue_timeout")))


@provokes("queue_displaced", upstream=_queue(1, 1, "lifo"))
def queue_displaced(stage: Stage) -> Seen:
    with stage.holding():
        _take(stage, "queue_displaced", 1)
        asked = [stage.send(get("queue_displaced")) for _ in range(2)]
        return Seen("upstream/queue_displaced:queue", stage.first_answer(asked))


@provokes("queue_codel_drop", upstream=_queue(8, 3, "adaptive"))
def queue_codel_drop(stage: Stage) -> Seen:
    """A queue that is full turns around: the newest goes first, and who has waited for as long as the upstream has been
    silent is too old."""
    for _ in range(8):
        assert stage.ask(get("queue_codel_drop")).status == 200
    with stage.holding():
        _take(stage, "queue_codel_drop", 8)
        asked = [stage.send(get("queue_codel_drop")) for _ in range(5)]
        told = [stage.first_answer(asked) for _ in range(3)]
        return Seen("upstream/queue_codel_drop:queue", told[-1])


@provokes("priority_shed", upstream=_queue(1, 1))
def priority_shed(stage: Stage) -> Seen:
    """It does not matter which of the two comes first."""
    with stage.holding():
        _take(stage, "priority_shed", 1)
        asked = [stage.send(get("priority_shed", "", f"X-Priority: {one}")) for one in ("sheddable", "critical")]
        return Seen("upstream/priority_shed:queue", stage.first_answer(asked))


@provokes("fair_share_exceeded", upstream=_queue(1, 5))
def fair_share_exceeded(stage: Stage) -> Seen:
    """One tenant has four of five places in the queue, another one the fifth, and the first wants one more."""
    with stage.holding():
        _take(stage, "fair_share_exceeded", 1, "X-Tenant: greedy")
        stage.send(get("fair_share_exceeded", "", "X-Tenant: modest"))
        stage.settle()
        asked = [stage.send(get("fair_share_exceeded", "", "X-Tenant: greedy")) for _ in range(5)]
        return Seen("upstream/fair_share_exceeded:queue", stage.first_answer(asked))


@provokes("adaptive_limit", upstream={"limit": "adaptive", "queue": {"max": 0}})
def adaptive_limit(stage: Stage) -> Seen:
    with stage.holding():
        asked = [stage.send(get("adaptive_limit", "hold")) for _ in range(64)]
        return Seen("upstream/adaptive_limit:queue", stage.first_answer(asked))


@provokes("deadline_infeasible", upstream=_queue(8, 8))
def deadline_infeasible(stage: Stage) -> Seen:
    """Half of the time that the upstream usually takes is left, and all its places are taken."""
    asked = [stage.send(get("deadline_infeasible", "slow")) for _ in range(8)]
    assert [_answer(client).status for client in asked] == [200] * 8
    with stage.holding():
        _take(stage, "deadline_infeasible", 8)
        got = stage.ask(get("deadline_infeasible", "slow", "X-Deadline: 0.3"))
        return Seen("upstream/deadline_infeasible:queue", got)


@provokes("deadline_expired", route={"timeout": SOON})
def deadline_expired(stage: Stage) -> Seen:
    return Seen("route/deadline_expired", stage.ask(get("deadline_expired", "stall")))


@provokes("concurrency_limit_client")
def concurrency_limit_client(stage: Stage) -> Seen:
    tenant: Tables = {"key": "header:x-tenant", "limit": 1, "queue": {"max": 0}}
    started = stage.start(Settings(extra={"tenant": tenant}))
    with stage.holding(), RawClient(started.address) as first, RawClient(started.address) as second:
        first.send(get("concurrency_limit_client", "hold", "X-Tenant: greedy"))
        stage.wait_seen("concurrency_limit_client", 1)
        got = second.ask(get("concurrency_limit_client", "hold", "X-Tenant: greedy"))
    return Seen("tenant:queue", got)
