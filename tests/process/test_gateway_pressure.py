"""A worker that is pressed refuses some requests before it routes them, says why, and recovers."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.bench import bench, head
from tests.support.gateway import Settings
from tests.support.raw_client import Answer
from tests.support.supervised import wait_for

NOTHING = {"loop_lag": 0, "memory": 0, "descriptors": 0}


@pytest.mark.parametrize(
    ("protect", "reason"),
    [
        ({"loop_lag": 0.000_001}, "loop_lag"),  # no tick is that punctual
        ({"memory": 0.000_01}, "memory_pressure"),
        ({"descriptors": 0.000_01}, "fd_exhausted"),
    ],
)
def test_refused_and_served_again(protect: dict[str, float], reason: str) -> None:
    """503 with reason and Retry-After, a line in the log, one event, the connection kept; a reload that gives room ends
    it."""
    with bench(Settings(extra={"protect": {**NOTHING, **protect}})) as running, running.connect() as client:
        running.handle()

        def ask() -> Answer:
            return client.ask(head("GET", "/x"))

        refused = wait_for("a refusal", lambda: (answer := ask()).status == 503 and answer)
        assert isinstance(refused, Answer)
        problem = json.loads(refused.body)
        assert (problem["reason"], problem["resource"]) == (reason, f"worker:{reason}")
        assert refused.get(b"retry-after")
        told = f'"edgeq.reason":"{reason}"'
        lines = wait_for("its line", lambda: [line for line in running.gateway.log_lines() if told in line])
        assert json.loads(lines[0])["http.response.body.size"] == len(refused.body)
        assert [one["resource"] for one in running.gateway.events("shedding_began")] == [f"worker:{reason}"]
        bodyless = client.ask(head("HEAD", "/x"), b"HEAD")
        assert bodyless.status in (200, 503)
        running.gateway.reload({"protect": NOTHING})
        served = 0
        deadline = time.monotonic() + 20
        while served < 200 and time.monotonic() < deadline:
            served = served + 1 if ask().status == 200 else 0
        assert served == 200


def test_idle_connections_go_under_pressure() -> None:
    """Descriptors that are short are taken from those who are idle, long before their time-out."""
    settings = Settings(keepalive_s=3600, extra={"protect": {**NOTHING, "descriptors": 0.000_01}})
    with bench(settings) as running, running.connect() as client:
        running.handle()
        client.ask(head("GET", "/x"))
        client.read_to_end(20)
        assert client.ending.value == "fin"
