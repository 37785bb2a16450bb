"""What an answer costs that nobody waits for any more: the provider has had its input, whoever has left."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.llm.gateway.support import CHAT, MESSAGES, Stand, ask_for, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.gateway import free_port
from tests.support.scripted_upstream import ScriptedUpstream

TEXT: Final = "some words " * 6000
INPUT: Final = 16_000
"""Tokens of it, at least."""
LIMIT: Final = 100_000
"""A minute, of each target; three quarters of it may be used at once."""
PRICE: Final = {"input": 1000.0, "output": 1000.0}
MODELS: Final = {
    "slow": ["demo latency=25s,tag=slow"],
    "early": ["demo early,latency=25s,tag=early"],
    "mark": ["other tokens=5,tag=mark"],
    "refused": ["dead x"],
    "fails": ["bad error=500,tag=fails", "demo tokens=5,tag=after-failure"],
    "unreached": ["dead y", "demo tokens=5,tag=after-dead"],
    "late": ["demo latency=25s,tag=late", "demo tokens=5,tag=after-late"],
    "too-late": ["demo latency=25s,tag=too-late"],
    "error-only": ["bad error=500,tag=error-only"],
    "hedged": ["demo latency=25s,tag=hedged", "other tokens=5,tag=hedge"],
}


@pytest.fixture(scope="module")
def priced() -> Iterator[Stand]:
    """Models that cost something, at providers with limits."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        patient = {"breaker": {"min_requests": 1_000_000}, "limit": 1000, "limits": {"tokens_per_minute": LIMIT}}
        urls = {"demo": demo.url, "bad": demo.url, "other": demo.url, "dead": f"http://127.0.0.1:{free_port()}"}
        models: dict[str, Any] = {}
        for model, targets in MODELS.items():
            made = []
            for target in targets:
                who, _, behaviour = target.partition(" ")
                made.append({"provider": who, "model": f"mock/{behaviour}", "price": PRICE})
            models[model] = {"targets": made, "limits": {"money_per_day": 1e6}}
        models["hedged"]["hedge"] = "100ms"
        config: dict[str, Any] = {
            "provider": {who: {"url": f"{url}/v1", "keys": [f"sk-{who}"], **patient} for who, url in urls.items()},
            "model": models,
            "route": [
                {"name": "quick", "match": {"path": "/quick/*"}, "llm": {"first_token": "2s", "keepalive": "0s"}},
                {"name": "llm", "match": {"path": "/v1/*"}, "llm": {"keepalive": "0s"}},
            ],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, config, admin)


def wait_spent(stand: Stand, model: str, cost: float) -> None:
    """Of the model's budget: workers tell of it now and then."""

    def spent() -> list[float]:
        return [one["spent_day"] for one in stand.show("meters") if (one["meter"], one["name"]) == ("model", model)]

    wait_for(lambda: spent() == [pytest.approx(cost)], lambda: f"{cost} of {model}: {stand.show('meters')}")


def wait_told(stand: Stand) -> None:
    """Workers have told of all that was settled until now, as they have of a request that came later: a report is made
    part by part, and of the earlier one a part may know while another did not yet."""
    before = len(stand.gateway.log_lines())
    assert stand.ask(ask_for("mark")).status == 200
    lines = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "mark", before)
    assert len(lines) == 1
    marks = stand.wait_log(lambda one: one.get("gen_ai.request.model") == "mark")
    wait_spent(stand, "mark", sum(line["edgeq.cost"] for line in marks))


def left_of(stand: Stand, model: str, target: int = 0) -> int:
    """Tokens of a target's limit, with all that was settled until now."""
    wait_told(stand)
    name = stand.tables["model"][model]["targets"][target]
    wanted = f"{name['provider']}/{name['model']}"
    left: int = next(one["remaining"]["tokens"] for one in stand.show("targets") if one["target"] == wanted)
    return left


def lines_of(stand: Stand, model: str, lines: int = 1) -> list[dict[str, Any]]:
    """The access log's."""
    return stand.wait_log(lambda one: one.get("gen_ai.request.model") == model, count=lines)


WHOLE_LIMIT: Final = LIMIT * 3 // 4


@pytest.mark.parametrize("model", ["slow", "early"])
def test_a_client_leaves_before_the_first_event(priced: Stand, model: str) -> None:
    """Streams and whole answers, by FIN and by RST: the log, the budget and the provider's limit know of the input."""
    name = priced.called(model)
    begun = time.monotonic()
    costs = 0.0
    for number, (path, stream) in zip(count(1), [(CHAT, False), (CHAT, True), (MESSAGES, False)], strict=False):
        client = priced.client()
        client.send(request(ask_for(model, stream, TEXT), path))
        priced.wait_counts(name, open=1)
        (client.close if stream else client.reset)()
        priced.wait_counts(name, open=0)
        line = lines_of(priced, model, number)[-1]
        assert (line["http.response.status_code"], line["edgeq.reason"]) == (499, "client_gone")
        assert line["gen_ai.usage.input_tokens"] >= INPUT, line
        assert line["gen_ai.usage.output_tokens"] <= (0 if stream else 200), line
        assert line["edgeq.cost"] >= INPUT * PRICE["input"] / 1e6, line
        costs += line["edgeq.cost"]
    priced.wait_idle()
    wait_spent(priced, model, costs)
    left = left_of(priced, model)
    assert left <= WHOLE_LIMIT - 3 * INPUT + LIMIT * (time.monotonic() - begun) / 60


def test_time_passes(priced: Stand) -> None:
    """The same for who is told that nothing came in time."""
    begun = time.monotonic()
    assert priced.ask(ask_for("too-late", True, TEXT), "/quick" + CHAT[3:]).status == 504
    (line,) = lines_of(priced, "too-late")
    assert line["gen_ai.usage.input_tokens"] >= INPUT, line
    wait_spent(priced, "too-late", line["edgeq.cost"])
    assert left_of(priced, "too-late") <= WHOLE_LIMIT - INPUT + LIMIT * (time.monotonic() - begun) / 60


@pytest.mark.parametrize(("model", "status"), [("error-only", 502), ("refused", 502)])
def test_what_the_provider_has_ended_costs_nothing(priced: Stand, model: str, status: int) -> None:
    """Its error, or a connection that it did not take."""
    assert priced.ask(ask_for(model, text=TEXT)).status == status
    (line,) = lines_of(priced, model)
    assert "gen_ai.usage.input_tokens" not in line, line
    assert "edgeq.cost" not in line, line
    wait_spent(priced, model, 0.0)
    assert left_of(priced, model) == WHOLE_LIMIT


@pytest.mark.parametrize("model", ["fails", "unreached"])
def test_another_target_answers(priced: Stand, model: str) -> None:
    """Only that one is paid, and the first one's limit is whole."""
    assert priced.ask(ask_for(model, text=TEXT)).status == 200
    (line,) = lines_of(priced, model)
    assert line["gen_ai.usage.output_tokens"] == 5
    wait_spent(priced, model, line["edgeq.cost"])
    assert left_of(priced, model) == WHOLE_LIMIT


@pytest.mark.parametrize(("model", "path"), [("late", "/quick" + CHAT[3:]), ("hedged", CHAT)])
def test_another_target_answers_in_time(priced: Stand, model: str, path: str) -> None:
    """The caller pays for that one; the provider of the other counts what it was asked all the same."""
    begun = time.monotonic()
    assert priced.ask(ask_for(model, True, TEXT), path).status == 200
    (line,) = lines_of(priced, model)
    assert line["gen_ai.usage.output_tokens"] == 5
    wait_spent(priced, model, line["edgeq.cost"])
    assert left_of(priced, model) <= WHOLE_LIMIT - INPUT + LIMIT * (time.monotonic() - begun) / 60
    assert left_of(priced, model, 1) <= WHOLE_LIMIT - INPUT + LIMIT * (time.monotonic() - begun) / 60
