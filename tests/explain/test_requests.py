"""`edgeq explain REQUEST-ID`: why one request was refused or slow, from what its worker has left on the board."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.explain.recall import Before, before, before_that, told
from edgeq.observe.history import Moment
from tests.explain.scene import Scene
from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings, Value
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer
from tests.support.supervised import wait_for

SLOW_S = 0.05
_RELEASED = threading.Event()


class Asking(Scene):
    """A gateway with a limit of one, where `/u/late` is slow."""

    def __init__(self, running: Bench, admin: Path) -> None:
        super().__init__(running.gateway, admin)
        self.running = running

    def ask(self, path: str, request_id: str) -> int:
        """Ask with an id. Returns the status."""
        with self.running.connect() as client:
            return client.ask(head("GET", path, f"X-Request-Id: {request_id}")).status

    def upstream(self, key: str) -> object:
        """What is shown of it now."""
        return json.loads(self.tell("show upstreams json"))[0][key]

    def is_sampled(self) -> bool:
        """Has the last sample of it one in flight?"""
        moments = json.loads(self.tell("show history upstream/u 1 0.1 json"))
        return isinstance(moments, list) and bool(moments) and moments[-1]["in_flight"] == 1

    def told(self, request_id: str) -> dict[str, Any]:
        """What is told, once the worker has written it."""
        wait_for(request_id, lambda: "error" not in self.explain(request_id))
        return self.explain(request_id)


def _serve(connection: UpstreamConnection, request: SeenRequest) -> None:
    if request.target == b"/u/held":
        _RELEASED.wait(20)
    if request.target.startswith(b"/u/late"):
        kernel.select_pause(2 * SLOW_S)
    connection.send(answer(b"ok"))


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    admin = tmp_path_factory.mktemp("requests") / "admin.sock"
    queue: dict[str, Value] = {"max": 0}
    extra: dict[str, Value] = {
        "server": {"admin": str(admin)},
        "upstream": {"u": {"queue": queue}},
        "route": [{"name": "all", "upstream": "u", "match": {"path": "/u/*"}}],
        "listener": {"trusted": ["127.0.0.0/8"]},
        "explain": {"slow": f"{int(SLOW_S * 1000)}ms"},
    }
    with bench(Settings(limit=1, extra=extra)) as running:
        running.gateway.wait_event("serving")
        running.handle(_serve)
        yield Asking(running, admin)


def test_a_refused_request(asking: Asking) -> None:
    """Reason, resource, the request itself, what it was told, and how the resource did before that."""
    with asking.running.connect() as first:
        first.send(head("GET", "/u/held"))
        wait_for("the one that has the place, in a sample", asking.is_sampled)
        assert asking.ask("/u/x?token=secret", "refused-1") == 503
        _RELEASED.set()
        first.read_answers([Asked()])
        _RELEASED.clear()
    found = asking.told("refused-1")
    assert (found["cause"], found["resource"]) == ("queue_full", "upstream/u:queue")
    assert "GET /u/x -> 503" in found["evidence"][0]
    assert "secret" not in str(found)
    assert found["next"] == "edgeq explain upstream/u"
    assert found["evidence"][1].startswith("it was told: 0 of at most 0 wait, the limit is 1; waited ")
    assert "before that upstream/u had 1 of 1 in flight" in found["evidence"][-1]


def test_a_moment_without_an_answer() -> None:
    """Of what nobody has seen nothing is told: an answer did not take 0 ms."""
    seen = Before(0.06, 2, 2, 3, 4000.0, 0.0, 1500.0)
    told = "60 ms before that upstream/u had 2 of 2 in flight, 3 waited"
    told += "; in the second before 4000/s arrived, 0/s were refused"
    assert before_that("upstream/u", seen) == f"{told}, an answer took 1.5 s"
    assert before_that("upstream/u", seen._replace(service_ms=0.0)) == told


def test_what_was_seen_after_a_refusal_is_not_of_it() -> None:
    """Whoever had the only place has left a moment later: the sample before it is the one that tells."""
    moments = [
        Moment(8.0, 0, 1, 1, 0.0, 0.0, 0.0, 0.0, 0.0),
        Moment(9.875, 0, 1, 1, 10.0, 0.0, 4.0, 0.0, 20.0),
        Moment(10.01, 0, 1, 0, 10.0, 10.0, 10.0, 0.0, 0.0),
    ]
    assert before(moments, 10.0) == Before(0.125, 1, 1, 0, 10.0, 4.0, 20.0)
    assert before(moments[2:], 10.0) is None


def test_what_a_model_was_short_of() -> None:
    """What follows shows all its limits: `explain` knows a target only while it refuses."""
    line = {
        "timestamp": "2026-11-27T13:06:55.690501Z",
        "edgeq.reason": "rate_limited_shared",
        "edgeq.resource": "target/ollama/llama3:8b:requests",
    }
    answer = told(line, "abc", None)
    assert answer["verdict"].startswith("abc: it was refused or has failed, by target/ollama/llama3:8b:requests: ")
    assert answer["next"] == "edgeq show targets ollama/llama3:8b"


def test_whose_budget_it_was() -> None:
    """The key, what it was told, and a command that shows its limits."""
    line = {
        "timestamp": "2026-11-27T13:06:55.690501Z",
        "edgeq.reason": "budget_exhausted",
        "edgeq.resource": "key:budget",
        "edgeq.key": "abc",
        "edgeq.detail": "the budget of a day is 5",
    }
    answer = told(line, "id", None)
    assert answer["evidence"][0].endswith(", key abc")
    assert "it was told: the budget of a day is 5" in answer["evidence"]
    assert answer["next"].startswith("edgeq explain key/abc ")


def test_which_model_has_answered() -> None:
    """By the target, and why it was not the one that was asked for, or asked first."""
    record = {
        "timestamp": "2026-11-27T12:00:00Z",
        "edgeq.total_ms": 100,
        "edgeq.target": "b/m",
        "gen_ai.request.model": "large",
    }

    def evidence(**more: str) -> str:
        return str(told({**record, **{f"edgeq.{name}": text for name, text in more.items()}}, "id", None)["evidence"])

    assert "asked for as large; a/m was asked as well when it was late'" in evidence(hedge="lost", hedge_other="a/m")
    assert "asked for as large, asked as well when a/m was late'" in evidence(hedge="won", hedge_other="a/m")
    assert "the model was b/m, asked for as large'" in evidence(hedge="lost")
    assert "the model was b/m, in place of large'" in evidence(model="small")
    short = {"model": "small", "degraded_reason": "queue_full", "degraded_resource": "model/large:concurrent"}
    assert "the model was b/m, in place of large (queue_full)'" in evidence(**short)
    assert "large had no room for it: 3 in flight'" in evidence(**short, degraded_detail="3 in flight")
    assert "the model was b/m, asked for as large, asked as well when the first one was late, after x'" in evidence(
        hedge="won", before="x"
    )
    del record["edgeq.target"]
    assert "the model that was asked for is large'" in evidence()


def test_who_was_asked_in_vain() -> None:
    """Each in its order, with what it said and how long it took; one that had no room has not failed."""
    record: dict[str, Any] = {
        "timestamp": "2026-11-27T12:00:00Z",
        "edgeq.total_ms": 100,
        "edgeq.target": "b/m",
        "edgeq.before": "upstream_error at upstream/a",
        "gen_ai.request.model": "large",
    }
    failed = {"target": "a/m", "reason": "upstream_error", "ms": 12.5, "status": 500, "detail": "the provider said: no"}
    full = {"target": "c/m", "reason": "queue_full", "ms": 0.0}
    answer = told({**record, "edgeq.tried": [failed, full]}, "abc", None)
    assert (answer["cause"], answer["what"]) == ("failed_over", "Answered by another target")
    assert answer["verdict"] == (
        "abc: it took 100 ms, 12 ms of it with a/m in vain; b/m has answered, as a/m (upstream_error) failed before"
    )
    assert answer["next"] == "edgeq explain model/large"
    first = "attempt 1, a/m: upstream_error after 12 ms, status 500: the provider said: no"
    at = answer["evidence"].index(first)
    assert answer["evidence"][at + 1] == "attempt 2, c/m: queue_full after 0 ms"
    assert "the model was b/m, asked for as large" in answer["evidence"]
    assert told({**record, "edgeq.tried": [full]}, "abc", None)["cause"] == "slow"
    late = {"target": "c/m", "reason": "queue_timeout", "ms": 5000.0}
    waited = {**record, "edgeq.total_ms": 7000, "edgeq.queue_ms": 1700.0, "edgeq.tried": [late]}
    answer = told(waited, "abc", None)
    assert answer["verdict"] == "abc: it took 7.0 s, 5.0 s of it with c/m in vain"
    assert answer["next"] == "edgeq show targets c/m"
    refused = {**record, "edgeq.reason": "upstream_error", "edgeq.resource": "upstream/b", "edgeq.tried": [failed]}
    answer = told(refused, "abc", None)
    assert answer["cause"] == "upstream_error"
    assert first in answer["evidence"]


def test_one_that_was_degraded_and_then_refused() -> None:
    """Refused is what it was, by whom it was refused; the other thing is told beside it."""
    record = {"timestamp": "2026-11-27T12:00:00Z", "gen_ai.request.model": "large", "edgeq.model": "small"}
    record |= {"edgeq.degraded_reason": "queue_full", "edgeq.degraded_resource": "model/large:concurrent"}
    record |= {"edgeq.target": "b/m", "edgeq.degraded_detail": "3 in flight"}
    answer = told(record, "abc", None)
    assert (answer["cause"], answer["resource"]) == ("degraded", "model/large:concurrent")
    assert answer["next"] == "edgeq explain model/large"
    answer = told({**record, "edgeq.reason": "upstream_error", "edgeq.resource": "upstream/b"}, "abc", None)
    assert (answer["cause"], answer["resource"]) == ("upstream_error", "upstream/b")
    assert "large had no room for it: 3 in flight" in answer["evidence"]


def test_why_it_was_not_tried_again() -> None:
    """In a sentence, and not among those that were asked."""
    record = {"timestamp": "2026-11-27T12:00:00Z", "edgeq.reason": "upstream_error", "edgeq.resource": "upstream/a"}
    answer = told({**record, "edgeq.second_reason": "retry_budget_exhausted"}, "id", None)
    assert answer["evidence"][-1].startswith(
        "not tried again: of the requests of the upstream that failed, as many as "
    )


def test_what_follows_can_be_asked() -> None:
    """A rule of the gateway, or a mistake of a client, is no resource that could be saturated."""
    line = {"timestamp": "2026-11-27T13:06:55.690501Z"}
    for reason, resource, following in (
        ("rate_limited", "rate/plan", "edgeq show rates"),
        ("concurrency_limit_client", "tenant:queue", "edgeq show tenants"),
        ("token_limit", "tenant:tokens", "edgeq show meters tenant    # whose it is, and what is left of it"),
        ("no_route", "listener/:80", "edgeq show reasons no_route"),
        ("queue_full", "upstream/api:queue", "edgeq explain upstream/api"),
    ):
        assert told({**line, "edgeq.reason": reason, "edgeq.resource": resource}, "abc", None)["next"] == following


def test_which_queue_a_request_has_waited_in() -> None:
    """The limit of a tenant, a route or a model may be the one, and not its upstream."""
    line = {"timestamp": "2026-11-27T13:06:55.690501Z", "edgeq.upstream": "api", "edgeq.total_ms": 2100.0}
    for place, following in (
        ("target/ollama/llama3:8b:queue", "edgeq show targets ollama/llama3:8b"),
        ("tenant:queue", "edgeq show tenants"),
        ("route/checkout:queue", "edgeq explain route/checkout"),
    ):
        waited = {**line, "edgeq.queue_ms": 2000.0, "edgeq.first_byte_ms": 90.0, "edgeq.waited_in": place}
        answer = told(waited, "abc", None)
        assert answer["verdict"] == f"abc: it took 2.1 s, 2.0 s of it for its turn at {place}, and a connection"
        assert answer["next"] == following
        late = told({**waited, "edgeq.queue_ms": 40.0}, "abc", None)
        assert late["next"] == "edgeq explain upstream/api"


def test_a_request_that_has_waited(asking: Asking) -> None:
    """The line of the access log says where, and so does the answer."""
    asking.gateway.reload({"upstream": {"u": {"queue": {"max": 8, "timeout": "60s", "discipline": "fifo"}}}})
    with asking.running.connect() as first, asking.running.connect() as second:
        first.send(head("GET", "/u/held"))
        wait_for("one runs", lambda: asking.upstream("in_flight") == 1)
        second.send(head("GET", "/u/late", "X-Request-Id: waits-1"))
        wait_for("one waits", lambda: asking.upstream("queued") == 1)
        _RELEASED.set()
        first.read_answers([Asked()])
        second.read_answers([Asked()])
    found = asking.told("waits-1")
    assert any(" for its turn at upstream/u:queue, and a connection" in one for one in found["evidence"]), found
    assert found["next"] == "edgeq explain upstream/u"
    asking.gateway.reload({})


def test_a_slow_request(asking: Asking) -> None:
    """Where its time went."""
    assert asking.ask("/u/late", "slow-1") == 200
    found = asking.told("slow-1")
    assert (found["cause"], found["resource"]) == ("slow", "upstream/u")
    assert "for the first byte of the upstream's answer" in found["verdict"]
    assert f"it was sent to 127.0.0.1:{asking.running.upstream.port}" in found["evidence"]


def test_a_request_that_went_well_is_not_remembered(asking: Asking) -> None:
    """Nobody pays for it, and nothing is told of it. Slow is here what no machine is for one request."""
    asking.gateway.reload({"explain": {"slow": "30s"}})
    assert asking.ask("/u/quick", "quick-1") == 200
    assert asking.ask("/nowhere", "bad-0") == 404
    asking.told("bad-0")
    told = asking.explain("quick-1")["error"]
    assert told.startswith(
        "error: no resource and no remembered request is called 'quick-1'; of requests only the last are"
    )
    assert re.search(
        r"that were refused or have failed \([1-9]\d*, since 20\d\d-\S+\) and those that were degraded", told
    )
    assert told.endswith("; others are in the access log\n")
    asking.gateway.reload({})


def test_slow_is_changed_by_a_reload(asking: Asking) -> None:
    """0: only what was refused."""
    asking.gateway.reload({"explain": {"slow": 0}})
    assert asking.ask("/u/late", "slow-3") == 200
    assert asking.ask("/nowhere", "bad-1") == 404
    asking.told("bad-1")
    assert "error" in asking.explain("slow-3")
    asking.gateway.reload({})


def test_what_a_dead_worker_remembered(asking: Asking) -> None:
    """It hangs, then it is killed: its requests are told all the same."""
    assert asking.ask("/u/late", "slow-4") == 200
    asking.told("slow-4")
    (worker,) = asking.gateway.workers
    with kernel.stopped(worker):
        assert asking.explain("slow-4")["cause"] == "slow"
    os.kill(worker, signal.SIGKILL)
    wait_for("its successor", lambda: asking.gateway.workers not in ([worker], [asking.gateway.pid]))
    assert asking.told("slow-4")["cause"] == "slow"


def test_many_refusals_in_a_moment(asking: Asking) -> None:
    """A storm leaves the newest ones, and the next request is remembered as ever."""
    count = 1000
    with asking.running.connect(60) as client:
        client.send(b"".join(head("GET", "/nowhere", f"X-Request-Id: storm-{number}") for number in range(count)))
        assert {one.status for one in client.read_answers([Asked()] * count)} == {404}
    assert asking.told(f"storm-{count - 1}")["cause"] == "no_route"
    assert asking.ask("/u/late", "slow-5") == 200
    asking.told("slow-5")


def test_a_refusal_is_remembered_beside_many_that_are_slow(asking: Asking) -> None:
    """As many as there is room for push out the ones before them, but none that was refused."""
    assert asking.ask("/nowhere", "refused-9") == 404
    asking.told("refused-9")
    asking.gateway.reload({"explain": {"slow": "1us"}})
    path = f"/u/{'x' * 200}"
    with asking.running.connect(60) as client:
        for number in range(10):  # no more at a time than are kept of a moment
            ids = [f"slow-{number}-{each}" for each in range(60)]
            client.send(b"".join(head("GET", path, f"X-Request-Id: {one}") for one in ids))
            assert {one.status for one in client.read_answers([Asked()] * 60)} == {200}
            asking.told(ids[-1])
    assert "error" in asking.explain("slow-0-0")
    assert asking.told("refused-9")["cause"] == "no_route"
    asking.gateway.reload({})
