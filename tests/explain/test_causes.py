"""Causes from made-up facts: one thing is wrong in each, and that is what is found."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.cli import make_parser
from edgeq.config.change import LIVE, Change
from edgeq.config.live import Live, endpoints_named
from edgeq.config.load import read_text
from edgeq.explain.causes import CAUSES, document, findings
from edgeq.explain.facts import (
    HEARD,
    Allowed,
    Degrading,
    Door,
    Endpoint,
    Facts,
    Forecast,
    Gate,
    Load,
    Machine,
    Pace,
    Refused,
    Rest,
    TakenOut,
    Unresolved,
    Waiting,
    Worker,
    whole_of,
)
from edgeq.explain.finding import LOST, OUT, PART, SIGN, WAITS
from edgeq.explain.verdict import explain, is_known, render
from edgeq.llm.lately import Used
from edgeq.llm.registry import Budget
from edgeq.reasons import REASONS
from edgeq.upstream.engine import EngineQueue

PAGE = Path(__file__).resolve().parents[2] / "docs/explain.md"
_BEFORE: Final = Pace(100, 100, 0, 20.0, 8)
CALM: Final = Load("upstream/api", "upstream/api", 8, "file", 2, 0, 64, 0.0, _BEFORE, _BEFORE, 0.0, "closed")
GOOD: Final = Endpoint("10.0.0.7:9000", "in use", 20.0, 50, 0)
OTHER: Final = Endpoint("10.0.0.8:9000", "in use", 21.0, 50, 0)
WORKERS: Final = (Worker(0, 100, False, 10, 1.0, 0.0, 0.2, 0.1, 3), Worker(1, 101, False, 10, 1.0, 0.0, 0.2, 0.1, 3))
DOOR: Final = Door("listener/:80", 0, 0, 4096, 4096, 0.0, 0.0, "accepting")
MACHINE: Final = Machine(4096, (32768, 60999), 7)
DEGRADING: Final = Degrading("model/big", "small", {"circuit_open": 1.0, "token_limit_shared": 4.0}, 9.0, ("is short",))
HEALTHY: Final = Facts((CALM,), WORKERS, (DOOR,), (), MACHINE)


def pressed(**changes: object) -> Load:
    """The upstream with a queue."""
    waits = {"in_flight": 8, "queued": 5, "oldest_ms": 300.0, "pressed_s": 12.0}
    return dataclasses.replace(CALM, **{**waits, **changes})  # type: ignore[arg-type]


def load(one: Load, *refused: Refused) -> Facts:
    return dataclasses.replace(HEALTHY, loads=(one,), refused=refused)


def refused(reason: str, resource: str = "upstream/api", per_s: float = 50.0) -> Refused:
    return Refused(reason, resource, per_s, 12.0)


def behind(*gates: Gate, **facts: object) -> Facts:
    """With models, of which these are short of something, or rest."""
    names = {"target/p/big": ["upstream/p"], "provider/p": ["upstream/p"], "model/big": ["target/p/big"]}
    parts = {"upstream/p": ["target/p/big"], "provider/p": ["target/p/big"], "route/models": ["model/big"]}
    made = {"gates": gates, "named": names, "parts": parts, **facts}
    return dataclasses.replace(HEALTHY, **made)  # type: ignore[arg-type]


FULL: Final = refused("queue_full", "upstream/api:queue")
TOKENS: Final = Allowed(
    "tokens", 6000, 136, "provider/p", "limits.tokens_per_minute", LIVE, file="60000", by="by user 0 since 12:00"
)
GATE: Final = Gate("target/p/big", "upstream/p", "provider/p", (TOKENS,), 2, 879.0, 2.0, 31.0)
UNTIL: Final = "2026-11-27T12:00:56+00:00"
CASES: Final[dict[str, tuple[Facts, str]]] = {
    "descriptors_exhausted": (
        dataclasses.replace(HEALTHY, refused=(refused("fd_exhausted", "listener/:80:accept"), FULL)),
        "listener/:80:accept",
    ),
    "ports_exhausted": (
        load(pressed(), refused("upstream_port_exhausted", "upstream/api#10.0.0.7:9000"), FULL),
        "upstream/api#10.0.0.7:9000",
    ),
    "memory_short": (
        dataclasses.replace(
            HEALTHY,
            workers=tuple(dataclasses.replace(one, memory_bytes=490 << 20) for one in WORKERS),
            refused=(refused("memory_pressure", "worker:memory_pressure"), FULL),
            machine=dataclasses.replace(MACHINE, memory_bytes=1 << 30, memory_of="the control group"),
            memory_share=0.95,
        ),
        "worker:memory_pressure",
    ),
    "worker_stuck": (
        dataclasses.replace(
            HEALTHY, workers=(WORKERS[0], dataclasses.replace(WORKERS[1], stuck=True, beat_age_ms=5000, running=0.0))
        ),
        "worker/1",
    ),
    "worker_busy": (
        dataclasses.replace(
            HEALTHY,
            workers=(WORKERS[0], dataclasses.replace(WORKERS[1], lag_ms=300.0, running=0.7, delayed=0.3)),
            doors=(dataclasses.replace(DOOR, slot=1, drops_per_s=5.0),),
        ),
        "worker/1",
    ),
    "worker_died": (
        dataclasses.replace(
            HEALTHY,
            workers=(WORKERS[0], dataclasses.replace(WORKERS[1], restarts=2, died_ago_s=5.2, died_by="SIGKILL")),
        ),
        "worker/1",
    ),
    "somaxconn": (
        dataclasses.replace(HEALTHY, doors=(dataclasses.replace(DOOR, granted=128, drops_per_s=9.0, dropping_s=3.0),)),
        "listener/:80:accept",
    ),
    "accept_overflow": (
        dataclasses.replace(HEALTHY, doors=(dataclasses.replace(DOOR, drops_per_s=9.0, dropping_s=3.0),)),
        "listener/:80:accept",
    ),
    "route_paused": (load(pressed(resource="route/checkout", limit=None, is_paused=True)), "route/checkout"),
    "model_degrades": (
        dataclasses.replace(HEALTHY, degrading=(DEGRADING,), named={"model/big": ["target/p/big"]}),
        "model/big",
    ),
    "endpoints_taken_out": (
        load(
            pressed(
                endpoints=(dataclasses.replace(GOOD, state="draining"),),
                taken_out=(
                    TakenOut("upstream/api#10.0.0.7:9000", False),
                    TakenOut("upstream/api#10.0.0.8:9000", True, "by user 0 since 2026-11-27T12:00:00Z (swap disks)"),
                ),
            ),
            refused("upstream_none_healthy"),
        ),
        "upstream/api",
    ),
    "key_rests": (
        behind(
            dataclasses.replace(GATE, rest=Rest("upstream_auth", 55.2, UNTIL, True)),
            refused=(refused("upstream_auth", "upstream/p#10.0.0.9:443"), refused("upstream_auth", "target/p/big")),
        ),
        "upstream/p",
    ),
    "endpoint_sick": (
        load(
            pressed(endpoints=(GOOD, dataclasses.replace(OTHER, answered_per_s=5, failed_per_s=20))),
            refused("upstream_reset", "upstream/api#10.0.0.8:9000"),
        ),
        "upstream/api#10.0.0.8:9000",
    ),
    "upstream_shedding": (
        load(pressed(endpoints=(GOOD, OTHER)), refused("upstream_shed", "upstream/api#10.0.0.8:9000", 20.0), FULL),
        "upstream/api",
    ),
    "upstream_dead": (
        load(pressed(endpoints=(GOOD,)), refused("upstream_connect_refused", "upstream/api#10.0.0.7:9000"), FULL),
        "upstream/api",
    ),
    "upstream_slower": (load(pressed(now=Pace(100, 40, 60, 200.0)), FULL), "upstream/api"),
    "noisy_tenant": (
        load(pressed(now=Pace(300, 100, 200, 20.0), tenants={"acme": 90, "zeta": 10}), FULL),
        "upstream/api",
    ),
    "budget_spent": (
        dataclasses.replace(HEALTHY, budgets=(Budget("tenant/acme", "day", 0.0004, 0.0168, 1795910400),)),
        "tenant/acme",
    ),
    "more_traffic": (load(pressed(now=Pace(300, 100, 200, 20.0)), FULL), "upstream/api"),
    "limit_too_low": (load(pressed(now=Pace(110, 100, 10, 20.0)), FULL), "upstream/api"),
    "limit_used_up": (behind(GATE, refused=(refused("queue_full", "target/p/big:tokens", 140.0),)), "target/p/big"),
    "other": (load(CALM, refused("upstream_tls_failed", "upstream/api#10.0.0.7:9000")), "upstream/api#10.0.0.7:9000"),
}


def test_every_cause_has_a_case() -> None:
    """And the table names each once."""
    assert [one.name for one in CAUSES] == list(CASES)


def test_a_worker_that_has_died() -> None:
    """Lately: it is told beside what is short, or that nothing is."""
    facts, resource = CASES["worker_died"]
    for name in ("", resource):
        told = explain(facts, name)
        assert told["cause"] is None
        (also,) = told["also"]
        assert (also["resource"], also["cause"]) == (resource, "worker_died")
        assert "has died 5 s ago, by SIGKILL, 2 times since the start" in also["says"]
    assert explain(facts, "worker/0")["also"] == []
    before = dataclasses.replace(facts.workers[1], died_ago_s=400.0)
    assert explain(dataclasses.replace(facts, workers=(before,)))["also"] == []


@pytest.mark.parametrize("cause", [one for one in CASES if one != "worker_died"])
def test_a_cause(cause: str) -> None:
    """It is the only one, it is told with evidence and what to do, and that fits a line of text."""
    facts, resource = CASES[cause]
    found = [(one.cause, one.resource) for one in findings(facts) if whole_of(one.resource) == whole_of(resource)]
    assert found == [(cause, resource)]
    told = explain(facts)
    assert (told["cause"], told["resource"]) == (cause, resource)
    assert told["evidence"]
    assert told["next"]
    lines = render(told).splitlines()
    assert lines[0].startswith(resource)
    assert f"next: {told['next']}" in lines


def test_a_model_that_degrades() -> None:
    """Why, what keeps it from its targets, and whom an operator has disabled. What it refuses all the same is told
    first: nobody answers that."""
    facts, _ = CASES["model_degrades"]
    told = explain(facts, "model/big")
    assert "is in trouble since 9 s ago: small answers in its place, 5.0/s: too many tokens" in told["verdict"]
    assert told["evidence"] == ["4.0/s token_limit_shared", "1.0/s circuit_open", "is short"]
    off = TakenOut("provider/p", True, "by user 0")
    told = explain(dataclasses.replace(facts, disabled={"model/big": (off,)}), "model/big")
    assert (told["cause"], told["evidence"][-1]) == ("model_degrades", "provider/p is disabled, by user 0")
    short = (refused("token_limit_shared", "model/big:tokens"),)
    assert explain(dataclasses.replace(facts, refused=short), "model/big")["cause"] != "model_degrades"


def test_a_budget_that_is_too_small() -> None:
    """Is told whatever else there is to tell of the model."""
    words = "model.big.limits.money_per_day is less than one request may reserve"
    facts = dataclasses.replace(HEALTHY, scarce={"model/big": [words]}, named={"model/big": []})
    assert words in explain(facts, "model/big")["evidence"]
    assert words in explain(dataclasses.replace(facts, degrading=(DEGRADING,)), "model/big")["evidence"]
    gate = dataclasses.replace(GATE, resource="model/big", upstream="")
    short = (refused("budget_exhausted_shared", "model/big:budget"),)
    told = explain(dataclasses.replace(facts, gates=(gate,), refused=short), "model/big")
    assert told["cause"] == "limit_used_up"
    assert words in told["evidence"]


def test_a_model_that_is_disabled_and_has_a_smaller_one() -> None:
    """Nobody is refused, whoever comes next."""
    off = (TakenOut("provider/p", True, "by user 0"),)
    facts = dataclasses.replace(HEALTHY, disabled={"model/big": off}, named={"model/big": []})
    assert explain(facts, "model/big")["verdict"].startswith("model/big refuses who comes next: all its targets were ")
    told = explain(dataclasses.replace(facts, smaller={"model/big": "small"}), "model/big")
    assert told["verdict"] == "model/big is not saturated"
    (also,) = told["also"]
    assert also["says"] == "all its targets were disabled by an operator: provider/p; small answers in its place"
    told = explain(dataclasses.replace(facts, smaller_disabled={"model/big": "small"}), "model/big")
    assert told["verdict"] == (
        "model/big refuses who comes next: all its targets were disabled by an operator: provider/p; small would answer"
        " in its place, but is disabled, too"
    )


def test_a_model_of_which_one_target_is_disabled() -> None:
    """Whoever asks for it, by any of its names, hears by whom, whatever else there is to tell; and how it is taken
    back."""
    off = (TakenOut("provider/q", True, "by user 0 (their incident)"),)
    names = {"target/p/big": ["upstream/p"], "model/big": ["target/p/big"], "model/alias": ["model/big"]}
    facts = behind(named=names, disabled_part={"model/big": off})
    for name in ("model/big", "model/alias"):
        told = explain(facts, name)
        assert told["verdict"] == f"{name} is not saturated"
        assert told["evidence"][-1] == "provider/q is disabled, by user 0 (their incident)"
        assert told["next"].startswith("edgeq enable provider/q ")
    facts = behind(
        GATE, named=names, disabled_part={"model/big": off}, refused=(refused("queue_full", "target/p/big:tokens"),)
    )
    told = explain(facts, "model/big")
    assert (told["cause"], told["evidence"][-1]) == (
        "limit_used_up",
        "provider/q is disabled, by user 0 (their incident)",
    )
    assert told["next"].startswith("edgeq set ")


def test_nothing_is_wrong() -> None:
    """Also not when much is used, or a client makes mistakes."""
    for facts in (
        HEALTHY,
        Facts(),
        load(dataclasses.replace(CALM, in_flight=8)),
        load(CALM, refused("no_route", "listener/:80"), refused("rate_limited", "rate/plan")),
        load(dataclasses.replace(CALM, endpoints=(GOOD, OTHER))),
    ):
        told = explain(facts)
        assert (told["cause"], told["next"], told["also"]) == (None, "", [])
        assert "nothing is saturated" in render(told)


def test_a_limit_of_tokens_is_told_with_what_it_is() -> None:
    """Also one that is set live, and by what word another one is set: whoever asks for the target, its key, provider
    or model. That those who would wait for too long are refused at once is no queue that is full."""
    facts = behind(GATE, refused=(refused("queue_full", "target/p/big:tokens", 140.0),))
    told = explain(facts)
    for resource in ("target/p/big", "upstream/p", "provider/p", "model/big", "route/models"):
        assert explain(facts, resource) == told, resource
    assert told["verdict"] == (
        "target/p/big refuses since 31 s ago: its limit of 6000 tokens a minute, set live, is used up"
    )
    assert told["evidence"] == [
        "provider/p limits.tokens_per_minute is 6000, set by user 0 since 12:00; the file has 60000",
        "2 wait, the oldest for 879 ms; who would for longer than provider/p wait, 2 s, is refused at once",
        "left of it now: 136",
        "140/s queue_full at target/p/big:tokens",
    ]
    assert told["next"] == (
        "edgeq set provider/p limits.tokens_per_minute 12000 --ttl 10m    # if the provider grants it; or as the file"
        " has it: edgeq unset provider/p limits.tokens_per_minute"
    )


def test_whose_limit_it_is() -> None:
    """The one that refuses; of those that only have somebody wait, the fullest. What the provider has told nobody can
    raise here, and what stands at a key only a reload."""
    requests = Allowed("requests", 60, 59, "provider/p", "limits.requests_per_minute")
    heard = dataclasses.replace(TOKENS, source=HEARD)
    of_key = dataclasses.replace(TOKENS, key="keys[0].limits.tokens_per_minute", source="file", can_set=False)
    money = Allowed("budget", 5.5, 0.001, "model/big", "limits.money_per_day")
    for limits, at, says, following in (
        (
            (requests, TOKENS),
            "target/p/big:requests",
            "its limit of 60 requests a minute is used up",
            "edgeq set provi",
        ),
        ((requests, TOKENS), "", "its limit of 6000 tokens a minute, set live, is used up", "edgeq set provider/p lim"),
        ((heard,), "", "the provider's limit of 6000 tokens a minute is used up", "edgeq show targets p/big "),
        ((of_key,), "", "its limit of 6000 tokens a minute is used up", "edgeq reload "),
        (
            (money,),
            "",
            "its limit of 5.5 a day is spent, or less of it is left than a request may cost",
            "edgeq set model/big limits.money_per_day 11 ",
        ),
    ):
        some = (refused("token_limit_shared", at),) if at else ()
        (found,) = findings(behind(dataclasses.replace(GATE, limits=limits), refused=some))
        assert (found.harm, found.says) == (LOST if at else WAITS, says)
        assert found.next.startswith(following)
    assert findings(behind(dataclasses.replace(GATE, short_s=1.0))) == []  # it is their turn in a moment
    assert findings(behind(dataclasses.replace(GATE, queued=0))) == []
    own = refused("token_limit", "target/p/big:tokens")  # what a tenant has done to himself
    assert findings(behind(dataclasses.replace(GATE, queued=0), refused=(own,))) == []


def test_a_told_limit_in_which_nothing_fits_is_told() -> None:
    """Of a provider, as the clients cannot know of it; whoever asks. The command has it forgotten."""
    heard = dataclasses.replace(TOKENS, count=1, source=HEARD)
    over = (refused("request_over_limit", "target/p/big:tokens", 5.0),)
    locked = dataclasses.replace(GATE, limits=(heard,), queued=0)
    for name in ("target/p/big", "model/big", "provider/p", ""):
        told = explain(behind(locked, refused=over), name)
        assert told["verdict"] == (
            "target/p/big refuses since 31 s ago: 5.0/s are larger than the provider's limit of 1 tokens a minute"
        )
        assert told["evidence"][-1] == "5.0/s request_over_limit at target/p/big:tokens"
        assert told["next"].startswith("edgeq wake p/big ")
    told = explain(behind(locked, refused=over, named=NAMES_OF_TWO | {"model/only": []}), "target/p/big")
    assert told["verdict"].startswith("target/p/big is in trouble ")
    own = dataclasses.replace(GATE, queued=0)  # one that is configured is what clients are to keep to
    assert explain(behind(own, refused=over), "target/p/big")["cause"] is None


def test_who_uses_up_a_limit_is_told() -> None:
    """A tenant who has more than half of what waits or runs there, and how he is to have less of it, if tenants are
    those of the accounts."""
    for tenants, has_accounts, evidence, following in (
        ({"night": 95, "data": 5}, True, "night has 95% .., data 5%", "edgeq tenants set night --tpm 500"),
        ({"n 1": 7, "": 3}, True, "n 1 has 70% ..", "edgeq tenants set 'n 1' --tpm 3000"),
        ({"night": 9}, True, "night has 100% ..", "edgeq tenants set night --tpm 500"),
        ({"night": 95, "data": 5}, False, "night has 95% .., data 5%", ""),
        ({"a": 5, "b": 5}, True, "", ""),
        ({"": 9, "b": 1}, True, "", ""),
        ({}, True, "", ""),
    ):
        meters = {"tenant/night": {"limits": {"requests": 7, "tokens": 1000}}, "tenant/n 1": {"limits": {}}}
        facts = behind(dataclasses.replace(GATE, tenants=tenants), has_accounts=has_accounts, meters=meters)
        told = explain(facts, "provider/p")
        said = [one for one in told["evidence"] if one.startswith("tenant ")]
        expected = evidence.replace("..", "of the requests that wait or run there")
        assert said == ([f"tenant {expected}"] if evidence else [])
        assert ("tenants set" in told["next"]) == bool(following)
        assert told["next"].endswith(following)


def test_which_key_uses_up_a_limit_is_told() -> None:
    """By its id and name, and where one has more than half it is given less, and not all of its tenant's. Nobody is
    told to give less to a tenant that is alone, and of whose keys none has most."""
    for keys, evidence, following in (
        ({"k1 of the night": 15, "k2": 5}, "k1 (of the night) 75%, k2 25%", "edgeq keys set k1 --tpm 400"),
        ({"k2": 19, "k3": 1}, "k2 95%, k3 5%", "edgeq keys set k2 --tpm 3000"),
        ({"k1": 10, "k2": 10}, "k1 50%, k2 50%", ""),
        ({"k1": 20}, "k1 100%", "edgeq keys set k1 --tpm 400"),
        ({"k1": 8, "k2": 5, "k3": 4, "k4": 2, "k5": 1}, "k1 40%, k2 25%, k3 20%, k4 10%", ""),
        ({}, "", "edgeq tenants set night --tpm 3000"),
    ):
        meters = {"key/k1": {"limits": {"tokens": 800}}}
        gate = dataclasses.replace(GATE, tenants={"night": 20}, keys=keys)
        told = explain(behind(gate, has_accounts=True, meters=meters), "provider/p")
        assert [one for one in told["evidence"] if one.startswith("by key: ")] == (
            [f"by key: {evidence}"] if evidence else []
        )
        assert told["next"].partition("; for others to have more: ")[2] == following
    few = dataclasses.replace(GATE, tenants={"night": 200}, keys={"k1": 9})
    assert not [one for one in explain(behind(few), "provider/p")["evidence"] if "by key" in one]


def test_who_has_used_up_what_nobody_waits_for() -> None:
    """Quick answers: nobody runs when somebody looks. Who has used it in the last minute is known from what is stored,
    and tells more than who waits; not of requests at once, nor of a budget, of which a minute says nothing."""
    used = (Used("acme", "k1 batch", 2, 10, 890), Used("acme", "k2", 6, 10, 40), Used("zeta", "k3", 1, 10, 40))
    tokens = Allowed("tokens", 2000, 0, "model/big", "limits.tokens_per_minute", "file")
    gate = dataclasses.replace(
        GATE, resource="model/big", upstream="", limits=(tokens,), tenants={"zeta": 1}, used=used
    )
    some = (refused("token_limit_shared", "model/big:tokens"),)
    told = explain(behind(gate, has_accounts=True, refused=some), "model/big")
    assert "tenant acme has 95% of what was used in the last minute, zeta 5%" in told["evidence"]
    assert "by key: k1 (batch) 90%, k2 5%, k3 5%" in told["evidence"]
    assert told["next"].endswith("; for others to have more: edgeq keys set k1 --tpm 1000")
    requests = dataclasses.replace(tokens, what="requests", key="limits.requests_per_minute")
    of_requests = dataclasses.replace(gate, limits=(requests,))
    some = (refused("rate_limited_shared", "model/big:requests"),)
    told = explain(behind(of_requests, has_accounts=True, refused=some), "model/big")
    assert "by key: k2 67%, k1 (batch) 22%, k3 11%" in told["evidence"]
    at_once = dataclasses.replace(
        gate, limits=(dataclasses.replace(tokens, what="concurrent", key="limits.concurrent"),)
    )
    told = explain(behind(at_once, refused=(refused("queue_full", "model/big:concurrent"),)), "model/big")
    assert "tenant zeta has 100% of the requests that wait or run there" in told["evidence"]


def test_a_noisy_key_is_told_where_its_tenant_is_alone() -> None:
    """Twenty keys may be one tenant's; where it is not alone the tenant is told, and the key is given less."""
    keys = {"k1 nightly": 90, "k2": 10}
    for tenants, says in (
        ({"acme": 100}, "key k1 (nightly) of tenant acme has 90% of the requests that wait or run"),
        ({"acme": 95, "zeta": 5}, "tenant acme has 95% of the requests that wait or run"),
    ):
        one = pressed(now=Pace(300, 100, 200, 20.0), tenants=tenants, keys=keys, limit=8, settings="provider/p")
        full = refused("queue_full", f"{one.resource}:queue")
        told = explain(dataclasses.replace(load(one, full), has_accounts=True))
        assert (told["cause"], told["next"]) == ("noisy_tenant", "edgeq keys set k1 --concurrent 4")
        assert told["verdict"].endswith(says)
        assert "by key: k1 (nightly) 90%, k2 10%" in told["evidence"]


def test_a_noisy_tenant_of_models_is_one_of_the_accounts() -> None:
    """Where there are any; `tenant.limit` holds only for those whom `tenant.key` tells."""
    one = pressed(now=Pace(300, 100, 200, 20.0), tenants={"acme": 90, "zeta": 10}, limit=8)
    for at, has_accounts, expected in (
        (dataclasses.replace(one, settings="provider/p"), True, "edgeq tenants set acme --concurrent 4"),
        (dataclasses.replace(one, resource="route/models"), True, "edgeq tenants set acme --concurrent 4"),
        (dataclasses.replace(one, settings="provider/p"), False, "edgeq set tenant limit 4 --ttl 10m"),
        (one, True, "edgeq set tenant limit 4 --ttl 10m"),
    ):
        full = refused("queue_full", f"{at.resource}:queue")
        facts = dataclasses.replace(load(at, full), has_accounts=has_accounts, leads={"route/models": ""})
        told = explain(facts)
        assert (told["cause"], told["next"]) == ("noisy_tenant", expected)


@pytest.mark.parametrize(
    ("what", "key", "count", "option"),
    [
        ("requests", "limits.requests_per_minute", 600, "--rpm 300"),
        ("input_tokens", "limits.input_tokens_per_minute", 600, "--itpm 300"),
        ("output_tokens", "limits.output_tokens_per_minute", 600, "--otpm 300"),
        ("concurrent", "limits.concurrent", 600, "--concurrent 300"),
        ("concurrent", "limits.concurrent", 1, ""),
        ("budget", "limits.money_per_day", 600, "--per-day 300"),
        ("budget", "limits.money_per_day", 0.5, "--per-day 0.25"),
        ("budget", "limits.money_per_month", 600, "--per-month 300"),
    ],
)
def test_who_uses_up_a_limit_is_given_less_of_that(what: str, key: str, count: float, option: str) -> None:
    """Half of it, if there is one."""
    limits = (Allowed(what, count, 0, "provider/p", key, HEARD),)
    gate = dataclasses.replace(GATE, limits=limits, tenants={"night": 95, "data": 5})
    _, _, told = explain(behind(gate, has_accounts=True))["next"].partition("; for others to have more: ")
    assert told == (f"edgeq tenants set night {option}" if option else "")


def test_what_was_refused_is_told_by_any_name() -> None:
    """Also when it is over; whoever asks for a provider hears of its keys."""
    over = Refused("token_limit_shared", "target/p/big:tokens", 5.0, 9.0, 2.0)
    facts = behind(over=(over,), loads=(dataclasses.replace(CALM, resource="upstream/p"), CALM))
    for resource in ("target/p/big", "upstream/p", "provider/p", "model/big"):
        assert "but requests were refused until 2 s ago" in explain(facts, resource)["verdict"], resource
    assert [one.split(":")[0] for one in explain(facts, "provider/p")["evidence"][1:]] == ["upstream/p"]


def test_a_key_that_rests_is_named_with_until_when() -> None:
    """A key that is refused, whoever asks: it is told before anybody comes. One model of it, which may be served by
    another one meanwhile, is told beside the rest, or first if somebody was refused for it."""
    key = dataclasses.replace(GATE, queued=0, rest=Rest("upstream_auth", 55.2, UNTIL, True))
    told = explain(behind(key), "upstream/p")
    assert told["verdict"] == (
        f"upstream/p refuses who comes next: the provider refuses the key, and no model is asked with it until {UNTIL}"
        " (for another 56 s)"
    )
    assert told["next"].startswith("edgeq reload ")
    other = dataclasses.replace(key, resource="target/p/small", queued=3, oldest_ms=25_000.0)
    told = explain(behind(dataclasses.replace(key, queued=1), gates=(dataclasses.replace(key, queued=1), other)))
    assert "4 wait for that, the oldest for 25.0 s" in told["evidence"]
    model = dataclasses.replace(key, rest=Rest("upstream_rate_limit", 20.0, UNTIL, False))
    told = explain(behind(model), "upstream/p")
    assert told["verdict"] == "upstream/p is not saturated"
    (beside,) = told["also"]
    assert (beside["resource"], beside["cause"]) == ("target/p/big", "key_rests")
    assert beside["says"].endswith(f"not asked until {UNTIL} (for another 20 s)")
    told = explain(behind(model, refused=(refused("upstream_rate_limit", "target/p/big"),)), "provider/p")
    assert told["resource"] == "target/p/big"
    assert told["next"].startswith("edgeq show targets p/big ")


def test_a_model_that_rests_as_it_fails_is_told() -> None:
    """Also if clients see nothing of it, since the next target answers; first, if somebody is refused for it."""
    gate = dataclasses.replace(GATE, queued=0, rest=Rest("circuit_open", 20.0, UNTIL, False))
    (beside,) = explain(behind(gate), "upstream/p")["also"]
    assert (beside["resource"], beside["cause"]) == ("target/p/big", "key_rests")
    assert beside["says"] == (
        "the last requests for it have failed, and this model at this key is not asked"
        f" until {UNTIL} (for another 20 s)"
    )
    told = explain(behind(gate, refused=(refused("circuit_open", "target/p/big"),)), "provider/p")
    assert (told["resource"], told["cause"]) == ("target/p/big", "key_rests")
    assert told["next"].endswith("edgeq wake p/big")


def test_a_target_that_fails_is_told_though_another_one_answers() -> None:
    """By what it fails, since when, and what to do: of everything, of its model and of its provider; also after its
    rest, until an answer is good. What waits or is refused goes before it."""
    refused_there = "the last requests for it have failed: upstream refused the connection: nothing listens there"
    resting = Rest("circuit_open", 20.0, UNTIL, False, "upstream_connect_refused", 75.0)
    names = {
        "target/p/big": ["upstream/p"],
        "target/q/big": ["upstream/q"],
        "model/big": ["target/p/big", "target/q/big"],
        "provider/p": ["upstream/p"],
    }
    for rest, ends in (
        (resting, f"; this model at this key is not asked until {UNTIL} (for another 20 s)"),
        (dataclasses.replace(resting, left_s=0.0), "; whether it is well now the next one finds out"),
    ):
        gate = dataclasses.replace(GATE, limits=(), queued=0, short_s=0.0, rest=rest)
        for asked in ("", "model/big", "provider/p", "target/p/big", "upstream/p"):
            told = explain(behind(gate, named=names), asked)
            assert told["verdict"] == f"target/p/big is in trouble since 75 s ago: {refused_there}{ends}", asked
            assert told["evidence"] == ["nobody is refused for it: the next target of a model answers in its place"]
            assert told["next"] == "edgeq show endpoints p    # if it is well now: edgeq wake p/big"
        late = dataclasses.replace(gate, rest=dataclasses.replace(rest, fails_by="upstream_timeout"))
        told = explain(behind(late))
        assert told["evidence"] == ["no model that has it has another target"]
        told = explain(dataclasses.replace(behind(late), smaller={"model/big": "small"}))
        assert told["evidence"] == ["no model that has it has another target; small answers in its place"]
        assert told["next"].startswith("edgeq show events provider_model_rests ")
        worse = behind(gate, named=names, loads=(pressed(now=Pace(100, 40, 60, 200.0)),))
        assert explain(worse)["resource"] == "upstream/api"
        assert [one["resource"] for one in explain(worse)["also"]] == ["target/p/big"]


def test_a_replica_where_nothing_listens_is_told_so() -> None:
    """Although nobody is refused there, and nobody has asked lately: the other one answers."""
    gone = dataclasses.replace(OTHER, answered_per_s=0.0, trouble_s=31.0, fails_by="upstream_connect_refused")
    told = explain(load(dataclasses.replace(CALM, endpoints=(GOOD, gone))))
    assert told["verdict"] == (
        f"upstream/api#{OTHER.name} is in trouble since 31 s ago: upstream refused the connection: nothing listens"
        " there; 1 of 2 endpoints are well"
    )
    assert any(one.endswith("the last one by upstream_connect_refused") for one in told["evidence"])
    idle = dataclasses.replace(GOOD, answered_per_s=0.0)
    at_night = dataclasses.replace(CALM, now=Pace(0, 0, 0, None), endpoints=(idle, gone))
    assert explain(load(at_night))["verdict"] == told["verdict"]
    out = dataclasses.replace(gone, state="ejected")
    says = explain(load(dataclasses.replace(CALM, endpoints=(GOOD, out))))["verdict"]
    assert "it is ejected: upstream refused the connection: nothing listens there; 1 of 2" in says


def test_who_waits_goes_before_what_nobody_asks_for() -> None:
    """A model of which all targets were disabled is told first only while nobody waits elsewhere."""
    off = {"model/unused": (TakenOut("provider/g", True, "by user 0 since 12:00"),)}
    assert explain(dataclasses.replace(HEALTHY, disabled=off))["resource"] == "model/unused"
    waits = (Waiting("target/p/big:queue", 3, 800.0),)
    told = explain(dataclasses.replace(HEALTHY, disabled=off, waiting=waits))
    assert told["verdict"] == "nothing is saturated, but 3 wait at target/p/big:queue, the oldest for 800 ms"
    assert [one["resource"] for one in told["also"]] == ["model/unused"]
    assert explain(dataclasses.replace(HEALTHY, disabled=off, waiting=waits), "model/unused")["cause"]


NAMES_OF_TWO: Final = {
    "target/p/big": ["upstream/p"],
    "target/q/big": ["upstream/q"],
    "model/big": ["target/p/big", "target/q/big"],
    "model/alias": ["model/big"],
    "prompt/sum": ["model/big"],
    "model/only": ["target/p/big"],
}


def test_a_target_that_rests_while_another_answers_is_told_beside() -> None:
    """Whoever asks for the model, by any of its names, meets neither the rest nor those who were refused by it; unless
    no other target is well."""
    limited = dataclasses.replace(GATE, queued=0, rest=Rest("upstream_rate_limit", 55.2, UNTIL, False))
    refusals = (refused("upstream_rate_limit", "target/p/big"),)
    for lately in ({"refused": refusals}, {"over": refusals}, {}):
        for name in ("model/big", "model/alias", "prompt/sum"):
            told = explain(behind(limited, named=NAMES_OF_TWO, **lately), name)
            assert told["verdict"] == f"{name} is not saturated"
            assert [one["resource"] for one in told["also"]] == ["target/p/big"]
    assert explain(behind(limited, named=NAMES_OF_TWO, refused=refusals), "model/only")["resource"] == "target/p/big"
    tokens = (refused("token_limit_shared", "target/p/big:tokens"),)
    told = explain(behind(GATE, named=NAMES_OF_TWO, refused=tokens), "model/big")
    assert told["resource"] == "target/p/big", "it may be these who are refused"


def test_a_refused_key_is_told_first_though_another_target_answers() -> None:
    """It does not end by itself, as a provider's limit does: with what to do next, of all and of whatever has a target
    there. Which models have no other target is told."""
    key = dataclasses.replace(GATE, limits=(), queued=0, short_s=0.0, rest=Rest("upstream_auth", 55.2, UNTIL, True))
    refusals = (refused("upstream_auth", "upstream/p#10.0.0.9:443"),)
    names = {name: targets for name, targets in NAMES_OF_TWO.items() if name != "model/only"}
    for lately in ({"refused": refusals}, {"over": refusals}, {}):
        for name in ("model/big", "model/alias", "prompt/sum", "upstream/p", ""):
            told = explain(behind(key, named=names, **lately), name)
            assert (told["resource"], told["cause"]) == ("upstream/p", "key_rests"), name
            assert "the provider refuses the key" in told["verdict"]
            assert told["next"].startswith("edgeq reload "), name
            if lately.get("refused") is None:
                assert told["verdict"].startswith("upstream/p is in trouble: ")
                assert told["evidence"] == ["nobody is refused for it: the next target of a model answers in its place"]
    for name in ("model/only", "upstream/p", ""):
        told = explain(behind(key, named=NAMES_OF_TWO, smaller={"model/only": "small"}), name)
        assert told["verdict"].startswith("upstream/p refuses who comes next: the provider refuses the key")
        assert told["evidence"] == ["model/only has no other target; small answers in its place"]
    other = dataclasses.replace(key, resource="target/q/big", upstream="upstream/q")
    told = explain(behind(key, other, named=names), "model/big")
    assert told["evidence"] == ["model/big has no other target"]


def test_what_has_just_begun_is_told_of_one_resource() -> None:
    """Its rate is not that of all."""
    new = [Refused("upstream_tls_failed", f"upstream/{name}#a:1", rate, 0.5) for name, rate in (("b", 5.0), ("c", 3.0))]
    told = explain(dataclasses.replace(HEALTHY, refused=tuple(new)))
    assert told["verdict"].startswith("upstream/b#a:1 refuses since a moment ago, 5.0/s: ")


def test_signs_are_told_beside() -> None:
    """What is slower, while nobody waits for it, is not called saturated."""
    told = explain(load(dataclasses.replace(CALM, now=Pace(100, 100, 0, 200.0))))
    assert told["cause"] is None
    assert [one["cause"] for one in told["also"]] == ["upstream_slower"]


SMALL: Final = {"small": (95, 0.95), "large": (5, 5.0)}
LARGE: Final = {"small": (5, 0.05), "large": (95, 95.0)}


def test_other_models_are_not_a_slower_provider() -> None:
    """Which is told by what each model took before: embeddings say nothing of conversations."""
    before = dataclasses.replace(_BEFORE, service_ms=60.0, models=SMALL)
    busy = pressed(before=before, now=Pace(100, 90, 0, 950.0, 8, models=LARGE))
    (found,) = findings(load(busy))
    assert (found.cause, found.says) == (
        "limit_too_low",
        "its limit of 8 is reached, and models are asked that take longer than those before",
    )
    assert "an answer takes 950 ms, before 60 ms; of the models that are asked now it took 958 ms" in found.evidence
    calm = dataclasses.replace(CALM, before=before, now=Pace(100, 90, 0, 950.0, 8, models=LARGE))
    assert findings(load(calm)) == []


def test_a_slower_provider_is_one_whatever_is_asked() -> None:
    """Also where the usual mix has become a faster one, and its answers take what the old ones took."""
    before = dataclasses.replace(_BEFORE, service_ms=950.0, models=LARGE)
    (found,) = findings(load(pressed(before=before, now=Pace(100, 90, 0, 600.0, 8, models=SMALL))))
    assert (found.cause, found.says) == ("upstream_slower", "it takes 10.1 times as long for an answer as before")
    new = {"other": (10, 60.0)}  # of which nobody knows what it should take
    assert [one.cause for one in findings(load(pressed(before=before, now=Pace(9, 9, 0, 6000.0, 8, models=new))))] == [
        "limit_too_low"
    ]


def test_what_is_lost_goes_first() -> None:
    """A queue that refuses goes before one in which somebody waits, whatever their causes."""
    waits = dataclasses.replace(pressed(now=Pace(100, 50, 0, 200.0)), resource="upstream/first")
    facts = dataclasses.replace(load(pressed(), FULL), loads=(waits, pressed()))
    assert [(one.cause, one.harm) for one in findings(facts)] == [("limit_too_low", LOST), ("upstream_slower", WAITS)]


def test_one_resource() -> None:
    """Only what concerns it is told, and parts are parts of it."""
    facts, _ = CASES["limit_too_low"]
    assert explain(facts, "upstream/api")["cause"] == "limit_too_low"
    assert explain(facts, "upstream/api:queue")["cause"] == "limit_too_low"
    assert explain(facts, "worker/0")["verdict"] == "worker/0 is not saturated"
    assert is_known(facts, "upstream/api")
    assert is_known(facts, "listener/:80")
    assert not is_known(facts, "upstream/apis")
    assert not is_known(facts, "4bf92f3577b34da6")


def test_routes_are_not_blamed_for_what_only_leads_there() -> None:
    """By which of several routes requests have come is not counted."""
    for routes, said in (
        (("a",), "(by route a)"),
        (("a", "b"), "(routes that lead here: a, b)"),
        (("a", "b", "c", "d"), "(routes that lead here: a, b, c, ..)"),
    ):
        (found,) = findings(load(pressed(routes=routes), FULL))
        assert any(one.endswith(said) for one in found.evidence)


def test_a_provider_that_sheds() -> None:
    """Its 429 and 503 have reasons of their own."""
    for reason in ("upstream_shed", "upstream_rate_limit", "upstream_overloaded"):
        (found,) = findings(load(CALM, refused(reason, "upstream/api#10.0.0.7:9000", 20.0)))
        assert (found.cause, found.resource) == ("upstream_shedding", "upstream/api")
        assert found.next.startswith("edgeq set upstream/api limit ") is (reason != "upstream_rate_limit")


def test_a_providers_rate_limit_is_no_matter_of_places() -> None:
    """Fewer requests at once have no more tokens: what it grants is to be said here."""
    provider = dataclasses.replace(CALM, settings="provider/api")
    for one in (provider, dataclasses.replace(provider, breaker="open", tripped_by="upstream_rate_limit")):
        (found,) = findings(load(one, refused("upstream_rate_limit", "upstream/api#10.0.0.7:9000", 20.0)))
        assert found.says.startswith("its rate limit is reached, it answers 429")
        assert found.next.startswith("edgeq show targets api ")
        assert "belongs into limits of provider/api" in found.next


def test_what_has_opened_the_circuit() -> None:
    """It is open, and next to nothing gets there: told is what has come before."""
    shut = refused("circuit_open", "upstream/api:breaker", 90.0)
    for tripped_by, cause, says in (
        ("upstream_overloaded", "upstream_shedding", "it answers 429 or 503 itself, so its circuit is open"),
        (
            "upstream_reset",
            "upstream_dead",
            "its circuit is open: upstream closed the connection: before or within its",
        ),
        ("", "upstream_dead", "circuit open: the upstream has failed too often"),
    ):
        one = dataclasses.replace(CALM, breaker="open", now=Pace(100, 1, 0, 20.0, 8), tripped_by=tripped_by)
        (found,) = findings(load(one, shut))
        assert (found.cause, found.harm) == (cause, LOST)
        assert found.says.startswith(says)
    part = dataclasses.replace(CALM, breaker="open", tripped_by="upstream_reset")  # in one of several workers
    assert [one.cause for one in findings(load(part, refused("circuit_open", "upstream/api:breaker", 20.0)))] == [
        "upstream_dead"
    ]
    spared = explain(load(part))  # others take what was for it
    assert spared["verdict"].startswith("upstream/api refuses who comes next: its circuit is open: upstream closed")
    # A few that are still refused, while the others are served.
    closed = dataclasses.replace(CALM, breaker="closed")
    over = load(closed, refused("circuit_open", "upstream/api:breaker", 2.0))
    assert explain(over)["verdict"] == "nothing is saturated: nobody waits, but 2.0/s were refused until a moment ago"


def test_a_queue_within_an_engine_is_told() -> None:
    """Of what a provider may have at once less is taken by its engine: nobody waits here, but they do wait there."""
    full = dataclasses.replace(GOOD, engine=EngineQueue(2.0, 4.0, 0.568))
    idle = dataclasses.replace(OTHER, engine=EngineQueue(1.0, 0.0, 0.25))
    crowded = load(dataclasses.replace(CALM, endpoints=(idle, full)))
    words = "the engine at 10.0.0.7:9000 runs 2, 4 wait in it, its cache is 57% full"
    named = {"target/api/big": ["upstream/api"], "model/big": ["target/api/big"]}
    facts = dataclasses.replace(crowded, named=named, parts={"route/models": ["model/big"]})
    for resource in ("upstream/api", "model/big", "route/models", ""):
        told = explain(facts, resource)
        assert told["verdict"] == f"{resource or 'nothing'} is{' not' * bool(resource)} saturated, but {words}"
        assert [one for one in told["evidence"] if "engine" in one] == [words]
        assert told["next"] == "edgeq set upstream/api limit 3 --ttl 10m    # who waits here has his fair turn"
    other = dataclasses.replace(crowded.loads[0], resource="upstream/by", settings="upstream/by", in_flight=0)
    told = explain(dataclasses.replace(crowded, loads=(other, *crowded.loads)), "")  # they are not its requests
    assert told["next"].startswith("edgeq set upstream/api limit 3 ")
    assert not explain(load(other), "upstream/by")["next"]
    found = explain(load(pressed(endpoints=(idle, full)), FULL), "upstream/api")
    assert words in found["evidence"]
    calm = explain(load(dataclasses.replace(CALM, endpoints=(idle, GOOD))), "upstream/api")
    assert "engine" not in render(calm)


def test_nothing_comes_back_from_the_start() -> None:
    """Nobody knows what it takes: a moment is none to tell it by, and that its limit is reached is not why."""
    silent = pressed(before=None, now=Pace(0, 0, 0, None, 8), pressed_s=2.0)
    assert findings(load(silent)) == []
    assert findings(load(dataclasses.replace(silent, pressed_s=3.0)))[0].cause == "upstream_slower"


def test_a_route_suffers_from_its_upstream() -> None:
    """Who asks about a route hears of what it leads to; each route is known, also without a limit."""
    facts = dataclasses.replace(CASES["limit_too_low"][0], leads={"route/checkout": "upstream/api", "route/models": ""})
    assert explain(facts, "route/checkout")["resource"] == "upstream/api"
    assert explain(facts, "route/models")["verdict"] == "route/models is not saturated"
    assert is_known(facts, "route/models")
    assert not is_known(facts, "route/other")


def test_a_model_suffers_from_its_targets_and_they_from_their_providers() -> None:
    """All of them are known, also while nothing is refused there."""
    named = {"model/big": ["target/api/big"], "target/api/big": ["upstream/api"], "provider/api": ["upstream/api"]}
    short = dataclasses.replace(CASES["limit_too_low"][0], named=named)
    for resource in named:
        assert explain(short, resource)["resource"] == "upstream/api"
    calm = dataclasses.replace(HEALTHY, named=named)
    for resource in (*named, "target/api/big:tokens"):
        assert is_known(calm, resource)
        assert explain(calm, resource)["verdict"] == f"{resource} is not saturated"
    assert not is_known(calm, "model/other")


def test_an_endpoint_that_the_balancer_avoids() -> None:
    """It has failed, gets nothing since, and nobody waits: that is told, for capacity is missing."""
    avoided = dataclasses.replace(OTHER, answered_per_s=0.0, penalty_ms=400.0)
    (found,) = findings(load(dataclasses.replace(CALM, endpoints=(GOOD, avoided))))
    assert (found.cause, found.resource, found.harm) == ("endpoint_sick", f"upstream/api#{OTHER.name}", PART)
    slow = dataclasses.replace(OTHER, cost_ms=300.0)
    (found,) = findings(load(dataclasses.replace(CALM, endpoints=(GOOD, slow))))
    assert (found.cause, found.harm) == ("endpoint_sick", SIGN)


def test_an_endpoint_that_answers_nothing_is_sick_however_little_it_gets() -> None:
    """On a busy machine the others cost so much that what it is avoided for is little beside that; and it is not asked
    often enough for a good part of all answers."""
    facts = load(
        dataclasses.replace(
            CALM, endpoints=(GOOD, dataclasses.replace(OTHER, answered_per_s=0.0, failed_per_s=0.3, penalty_ms=30.0))
        ),
        refused("upstream_reset", f"upstream/api#{OTHER.name}", 0.3),
    )
    told = explain(facts)
    assert (told["cause"], told["resource"]) == ("endpoint_sick", f"upstream/api#{OTHER.name}")
    endpoints = (GOOD, dataclasses.replace(OTHER, failed_per_s=0.3))
    assert findings(load(dataclasses.replace(CALM, endpoints=endpoints))) == []


def test_an_endpoint_that_somebody_drains_is_not_sick() -> None:
    """Whoever has taken it out knows: neither is it blamed, nor counted, nor are the others measured by it."""
    drained = dataclasses.replace(OTHER, state="draining", answered_per_s=0.0, penalty_ms=400.0)
    assert findings(load(dataclasses.replace(CALM, endpoints=(GOOD, drained)))) == []
    third = dataclasses.replace(GOOD, name="10.0.0.9:9000", state="ejected")
    (found,) = findings(load(dataclasses.replace(CALM, endpoints=(GOOD, drained, third))))
    assert (found.resource, "1 of 2 endpoints" in found.says) == ("upstream/api#10.0.0.9:9000", True)
    assert findings(load(dataclasses.replace(CALM, endpoints=(drained, third)))) == []  # nobody else is there


def test_who_has_taken_out_the_endpoints() -> None:
    """An operator, with his comment, or the file; what is next takes it back. While nobody comes it is a sign."""
    facts, _ = CASES["endpoints_taken_out"]
    told = explain(facts)
    assert told["verdict"] == (
        "upstream/api refuses since 12 s ago: all of its endpoints were disabled or drained by an operator:"
        " 10.0.0.7:9000, 10.0.0.8:9000"
    )
    assert told["evidence"][:2] == [
        "10.0.0.7:9000 is drained, as the file says",
        "10.0.0.8:9000 is disabled, by user 0 since 2026-11-27T12:00:00Z (swap disks)",
    ]
    assert told["next"].startswith("edgeq enable upstream/api#10.0.0.8:9000 ")
    one = dataclasses.replace(CALM, taken_out=(TakenOut("upstream/api#10.0.0.7:9000", False),))
    (found,) = findings(load(one, refused("circuit_open")))
    assert found.says == "its endpoint was drained by the file: 10.0.0.7:9000"
    assert found.next.startswith("edgeq undrain upstream/api#10.0.0.7:9000 ")
    (sign,) = findings(load(one))
    assert (sign.cause, sign.harm) == ("endpoints_taken_out", SIGN)


def test_a_provider_that_is_taken_out_refuses_nobody_while_others_answer() -> None:
    """It is told beside, and of itself if it is asked for; of a model with nobody left it is told first."""
    out = (TakenOut("provider/openai", True, "by user 0 since 2026-11-28T06:00:00Z"),)
    one = dataclasses.replace(CALM, resource="upstream/openai", taken_out=out)
    facts = dataclasses.replace(load(one), parts={"upstream/openai": ["target/openai/gpt"]})
    told = explain(facts)
    assert (told["cause"], told["verdict"].startswith("nothing is saturated")) == (None, True)
    assert [one["resource"] for one in told["also"]] == ["upstream/openai"]
    assert "refuses who comes next" in explain(facts, "upstream/openai")["verdict"]
    alone = dataclasses.replace(facts, disabled={"model/smart": out})
    assert explain(alone)["verdict"].startswith("model/smart refuses who comes next: all its targets were disabled")


def test_who_asks_next_is_refused() -> None:
    """Where an operator has taken out all endpoints that is said first, unless something is lost elsewhere, or begins
    to be."""
    out = dataclasses.replace(CALM, taken_out=(TakenOut("upstream/api#10.0.0.7:9000", False, "by user 0"),))
    for name in ("", "upstream/api"):
        told = explain(load(out), name)
        assert told["verdict"] == (
            "upstream/api refuses who comes next: its endpoint was drained by an operator: 10.0.0.7:9000"
        )
        assert told["next"].startswith("edgeq undrain upstream/api#10.0.0.7:9000 ")
    waits = dataclasses.replace(pressed(), resource="upstream/b")
    both = dataclasses.replace(HEALTHY, loads=(out, waits))
    assert [one.resource for one in findings(both)] == ["upstream/b", "upstream/api"]
    begins = dataclasses.replace(waits, pressed_s=0.5)
    assert explain(dataclasses.replace(both, loads=(out, begins)))["resource"] == "upstream/b"


def test_what_is_over() -> None:
    """Is not told as going on, but until when it did; and a queue that has ended refuses nobody."""
    over = dataclasses.replace(FULL, quiet_s=2.0)
    told = explain(dataclasses.replace(HEALTHY, over=(over,)))
    assert (told["cause"], told["verdict"]) == (
        None,
        "nothing is saturated: nobody waits, but requests were refused until 2 s ago",
    )
    assert told["evidence"][0] == "queue_full at upstream/api:queue, until 2 s ago"
    told = explain(dataclasses.replace(HEALTHY, over=(over,)), "worker/0")
    assert told["verdict"] == "worker/0 is not saturated"
    just_ended = explain(load(CALM, FULL))
    assert (just_ended["cause"], just_ended["verdict"].endswith("were refused until a moment ago")) == (None, True)


def test_a_name_that_does_not_resolve() -> None:
    """It is named, with what the resolver says, and what is next asks whom edgeq asks."""
    for nameservers, following in (
        ((), "getent ahosts api.internal    # "),
        (("10.0.0.2:53",), "dig @10.0.0.2 -p 53 api.internal"),
        (("[fd00::2]:5353",), "dig @fd00::2 -p 5353 api.internal"),
    ):
        lost = Unresolved("api.internal", "dns_error", "Domain name not found", nameservers)
        (found,) = findings(load(dataclasses.replace(CALM, unresolved=(lost,)), refused("dns_error")))
        assert (found.cause, found.resource) == ("upstream_dead", "upstream/api")
        assert found.says == "api.internal does not resolve: check the name and [dns]"
        assert "api.internal does not resolve (dns_error: Domain name not found)" in found.evidence
        assert found.next.startswith(following)


def test_few_answers_are_nothing_to_compare_with() -> None:
    """Neither is it slower than three others were, nor more than three."""
    few = Pace(1, 1, 0, 1.0, 8, span_s=3.0)
    (found,) = findings(load(pressed(before=few, now=Pace(100, 40, 60, 200.0)), FULL))
    assert found.cause == "limit_too_low"
    assert found.says == "its limit of 8 is reached, and too little came before to compare with"
    lone = Pace(0.3, 0.3, 0, 900.0, 8)
    assert findings(load(dataclasses.replace(CALM, now=lone))) == []


def test_a_limit_that_was_lowered_before_slow_requests() -> None:
    """That is when it began to refuse. A limit that is lowered because of a queue has not made it."""
    cut = pressed(limit=1, now=Pace(100, 1, 99, 1054.0, 1), before=Pace(100, 100, 0, 1.0, 32), began_limit=1)
    (found,) = findings(load(cut, FULL))
    assert (found.cause, found.says) == ("limit_too_low", "its limit was lowered from 32 to 1")
    assert "an answer takes 1.1 s, before 1 ms" in found.evidence
    silent = dataclasses.replace(cut, in_flight=1, now=Pace(100, 0, 100, None, 1))
    assert [one.cause for one in findings(load(silent, FULL))] == ["limit_too_low"]
    for began, limit in ((32, 1), (24, 24)):  # afterwards, or by little
        later = dataclasses.replace(cut, began_limit=began, limit=limit)
        assert [one.cause for one in findings(load(later, FULL))] == ["upstream_slower"]


def test_slow_answers_show_before_they_end() -> None:
    """Places are held, and few come back: what has ended took what it always did. A slow service has its time."""
    stalls = pressed(now=Pace(100, 20, 0, 20.0, 8, held_ms=400.0))
    assert [one.cause for one in findings(load(stalls))] == ["upstream_slower"]
    silent = pressed(now=Pace(5, 0, 5, None, 8), before=Pace(4, 4, 0, 2000.0, 8), pressed_s=3.0)
    assert findings(load(silent, FULL)) == []
    assert "the cause does not show yet" in explain(load(silent, FULL))["verdict"]
    longer = dataclasses.replace(silent, pressed_s=9.0)
    assert [one.cause for one in findings(load(longer, FULL))] == ["upstream_slower"]


def test_what_has_just_begun_is_told() -> None:
    """With its numbers, at once; which cause it has shows a moment later."""
    told = explain(load(pressed(pressed_s=0.5, now=Pace(300, 100, 200, 20.0)), FULL))
    assert told["verdict"] == "upstream/api refuses since a moment ago, 50/s: the cause does not show yet"
    assert (told["cause"], told["resource"]) == (None, "upstream/api")
    assert told["next"].startswith("edgeq explain upstream/api ")
    assert "300/s arrive, 100/s leave, 200/s are refused; before, 100/s arrived" in told["evidence"]
    waits = explain(load(pressed(pressed_s=0.5)))
    assert waits["verdict"] == "upstream/api has somebody waiting since a moment ago: the cause does not show yet"


def test_rates_add_up() -> None:
    """What neither leaves nor is refused waits or runs."""
    for now, words in (
        (Pace(215, 73, 142, 50.0), "215/s arrive, 73/s leave, 142/s are refused; before"),
        (Pace(300, 100, 100, 50.0), "300/s arrive, 100/s leave, 100/s are refused, 100/s more wait or run; before"),
        (Pace(100, 160, 0, 50.0), "100/s arrive, 160/s leave, 60/s fewer wait or run; before"),
    ):
        (line,) = [one for one in explain(load(pressed(now=now)))["evidence"] if "arrive" in one]
        assert line.startswith(words)


def test_one_address_of_a_name() -> None:
    """It cannot be drained alone, so that is not what comes next."""
    sick = dataclasses.replace(OTHER, state="ejected", is_configured=False)
    (found,) = findings(load(dataclasses.replace(CALM, endpoints=(GOOD, sick))))
    assert found.next.startswith("edgeq show endpoints api ")


def test_nobody_listens_at_the_other_address_of_localhost() -> None:
    """A name's two addresses of this machine: it is enough that a program listens at one of them."""
    here = dataclasses.replace(GOOD, name="127.0.0.1:9000", is_configured=False)
    other = Endpoint("[::1]:9000", "in use", None, 0, 0.9, penalty_ms=900.0, is_configured=False)
    for state in ("in use", "ejected"):
        calm = dataclasses.replace(CALM, endpoints=(here, dataclasses.replace(other, state=state)))
        assert findings(load(calm)) == []
        assert explain(load(calm))["verdict"].startswith("nothing is saturated")
    for different in (
        dataclasses.replace(other, is_configured=True),
        dataclasses.replace(other, name="[::1]:9001"),
    ):
        assert findings(load(dataclasses.replace(CALM, endpoints=(here, different))))[0].cause == "endpoint_sick"


def test_who_waits_elsewhere() -> None:
    """For a connection, a place at a listener, or one of its tenant: nobody may hear that nobody waits."""
    for resource in ("upstream/api#10.0.0.7:9000:pool", "listener/:80:places", "tenant/acme"):
        long = explain(dataclasses.replace(HEALTHY, waiting=(Waiting(resource, 3, 2100.0),)))
        assert long["verdict"] == f"{resource} is in trouble since 2 s ago: 3 wait there"
        assert long["next"] == f"edgeq show queues {resource}"
        # The cause may not be known yet.
        short = explain(dataclasses.replace(HEALTHY, waiting=(Waiting(resource, 3, 800.0),)))
        assert short["cause"] is None
        assert short["verdict"] == f"nothing is saturated, but 3 wait at {resource}, the oldest for 800 ms"
        moment = explain(dataclasses.replace(HEALTHY, waiting=(Waiting(resource, 3, 20.0),)))
        assert moment["verdict"] == "nothing is saturated: nobody waits or is refused"
    gate = Waiting("target/ollama/llama3:8b:queue", 3, 2100.0)
    assert explain(dataclasses.replace(HEALTHY, waiting=(gate,)))["next"] == "edgeq show targets ollama/llama3:8b"
    limit = refused("rate_limited_shared", "target/ollama/llama3:8b:requests")
    told = findings(dataclasses.replace(HEALTHY, waiting=(gate,), refused=(limit,)))
    assert [one.resource for one in told] == ["target/ollama/llama3:8b:requests"]
    slow = load(pressed(now=Pace(100, 40, 60, 200.0)), FULL)
    waits = Waiting("upstream/api#10.0.0.7:9000:pool", 3, 2800.0)
    assert [one.cause for one in findings(dataclasses.replace(slow, waiting=(waits,)))] == ["upstream_slower"]


def test_a_queue_that_is_never_empty() -> None:
    """Nobody waits for long there, but all do: of a tenant's, which has its limit, that is told."""
    waits = Waiting("tenant/acme", 8, 150.0, 2.5)
    told = explain(dataclasses.replace(HEALTHY, waiting=(waits,)))
    assert told["verdict"] == "tenant/acme is in trouble since 2 s ago: 8 wait there"
    known = dataclasses.replace(waits, why="tenant.limit is 2")
    assert explain(dataclasses.replace(HEALTHY, waiting=(known,)))["verdict"].endswith(" there: tenant.limit is 2")
    assert explain(dataclasses.replace(HEALTHY, waiting=(dataclasses.replace(waits, since_s=1.5),)))["cause"] is None


def test_since_when() -> None:
    """Also of an endpoint that nobody waits for, and of a worker that lags."""
    avoided = dataclasses.replace(OTHER, answered_per_s=0.0, penalty_ms=400.0, trouble_s=42.0)
    assert explain(load(dataclasses.replace(CALM, endpoints=(GOOD, avoided))))["since_s"] == 42.0
    facts, _ = CASES["worker_busy"]
    lagging = tuple(dataclasses.replace(one, lagging_s=7.0) for one in facts.workers)
    assert explain(dataclasses.replace(facts, workers=lagging))["since_s"] == 7.0


def test_too_many_connections_are_told_once() -> None:
    """Of the listener."""
    facts = dataclasses.replace(HEALTHY, refused=(refused("conn_limit_listener", "listener/:80:max_connections"),))
    assert [(one.cause, one.resource) for one in findings(facts)] == [("limit_too_low", "listener/:80")]


def test_a_paused_route() -> None:
    """Nobody waits: it is a sign, for somebody wanted it. Who waits, or is refused, is told why."""
    idle = dataclasses.replace(CALM, resource="route/checkout", limit=None, is_paused=True)
    assert [one["cause"] for one in explain(load(idle))["also"]] == ["route_paused"]
    told = explain(load(pressed(resource="route/checkout", limit=None, is_paused=True)))
    assert "it is paused, and 5 wait" in told["verdict"]
    assert told["next"].startswith("edgeq resume checkout ")


def test_who_is_refused_by_a_rule_is_not_hidden() -> None:
    """Nothing is short, but that nobody is refused would be wrong."""
    by_rule = (refused("rate_limited", "rate/plan"), refused("no_route", "listener/:80", 90.0), refused("client_gone"))
    told = explain(load(CALM, *by_rule))
    assert told["cause"] is None
    assert "140/s are refused by a rule, or for what clients do" in told["verdict"]
    assert told["evidence"][:2] == ["90/s no_route at listener/:80", "50/s rate_limited at rate/plan"]
    assert explain(load(CALM, refused("client_gone")))["verdict"].endswith("nobody waits or is refused")


def test_whose_limit_it_is_stands_elsewhere() -> None:
    """Names of keys and tenants are no resources."""
    for resource in ("key:tokens", "tenant:budget", "prompt/sum:requests"):
        told = explain(load(CALM, refused("token_limit", resource, 20.0), refused("token_limit", "tenant:queue", 9.0)))
        assert told["next"].startswith(f"edgeq show meters {resource.partition(':')[0].partition('/')[0]} ")
    assert explain(load(CALM, refused("no_route", "route/x:tokens", 20.0)))["next"] == ""
    for resource in ("tenant:concurrent", "tenant:budget"):  # which is not `tenant.limit`
        told = explain(load(CALM, refused("concurrency_limit_client", resource, 20.0)))
        assert told["cause"] is None
        assert told["next"].startswith("edgeq show meters tenant ")


def test_numbers_are_written_as_people_do() -> None:
    """However large they are."""
    told = explain(load(dataclasses.replace(CALM, now=Pace(4000, 4000, 0, 1500.0))))
    assert told["evidence"][0].endswith("4000/s arrive, an answer takes 1.5 s")


def test_what_has_just_begun_is_no_rule() -> None:
    """A refusal that is new has no cause yet, but it is not the client's doing."""
    new = Refused("upstream_tls_failed", "upstream/api#10.0.0.7:9000", 40.0, 1.0)
    told = explain(load(CALM, new, refused("rate_limited", "rate/plan")))
    verdict = "upstream/api#10.0.0.7:9000 refuses since a moment ago, 40/s: the cause does not show yet"
    assert (told["verdict"], told["cause"], told["resource"]) == (verdict, None, "upstream/api#10.0.0.7:9000")
    assert told["evidence"] == ["40/s upstream_tls_failed at upstream/api#10.0.0.7:9000"]
    for name in ("upstream/api", "upstream/api#10.0.0.7:9000"):
        assert explain(load(CALM, new), name)["verdict"] == verdict
    assert explain(load(CALM, new), "worker/0")["verdict"] == "worker/0 is not saturated"


def test_what_workers_refuse_for_their_own_sake() -> None:
    """It is counted for all of them, so it concerns each; and it is told once."""
    short = load(CALM, refused("memory_pressure", "worker:memory_pressure"))
    assert explain(short, "worker/0")["verdict"].startswith("worker:memory_pressure refuses since 12 s ago")
    assert explain(short, "upstream/api")["cause"] is None
    lags = load(CALM, refused("loop_lag", "worker:loop_lag"))
    assert explain(lags, "worker/1")["cause"] == "worker_busy"
    assert [one.cause for one in findings(lags)] == ["worker_busy"]


def test_which_memory_is_short() -> None:
    """That of a worker, of which bound; or what it holds of bodies for models."""
    told = explain(CASES["memory_short"][0])
    assert told["since_s"] == 12.0
    assert told["evidence"][:3] == [
        "worker 0 has 490 MiB",
        "worker 1 has 490 MiB",
        "each may have 486 MiB: 0.95 (protect.memory) of its part of the control group's 1.0 GiB",
    ]
    full = dataclasses.replace(WORKERS[0], bodies_bytes=250 << 20, max_bodies_bytes=256 << 20)
    scene = dataclasses.replace(load(CALM, refused("memory_pressure", "route/chat")), workers=(full,))
    told = explain(scene)
    assert (told["cause"], told["resource"]) == ("memory_short", "route/chat")
    assert told["evidence"][0] == "worker 0 holds 250 MiB of 256 MiB (protect.model_bodies)"
    assert told["next"].startswith("edgeq set protect model_bodies 512MiB --ttl 10m ")


@pytest.mark.parametrize("reason", ["fd_exhausted", "upstream_port_exhausted"])
def test_what_the_machine_is_short_of_is_told_once(reason: str) -> None:
    """Although it is refused at several places, which are all in the evidence."""
    places = ("worker:fd_exhausted", "upstream/api#10.0.0.7:9000", "upstream/b#10.0.0.9:9000")
    (found,) = findings(load(CALM, *(refused(reason, place) for place in places)))
    assert [place for place in places if any(place in line for line in found.evidence)] == list(places)


def test_files_of_a_worker_or_of_all_processes() -> None:
    """Which limit it is that is reached decides what to do."""
    short = load(CALM, refused("fd_exhausted", "listener/:80:accept"))
    for files, key in (((900, 100_000), "LimitNOFILE"), ((99_900, 100_000), "fs.file-max=200000")):
        (found,) = findings(dataclasses.replace(short, machine=dataclasses.replace(MACHINE, files=files)))
        assert key in found.next
        assert any("all processes have 99900 of 100000" in line for line in found.evidence) is (files[0] > 900)


def test_what_is_next_for_a_provider() -> None:
    """The upstream that is made of it has no keys of its own that could be set."""
    scene = pressed(resource="upstream/openai-b", settings="provider/openai")
    (found,) = findings(load(scene))
    assert (found.cause, found.next) == ("limit_too_low", "edgeq set provider/openai limit 11 --ttl 10m")


def test_what_is_next_for_a_route() -> None:
    """A route has no endpoints of its own, but its upstream has."""
    for upstream, following in (("", "edgeq show routes checkout"), ("api", "edgeq show endpoints api")):
        slow = pressed(resource="route/checkout", now=Pace(100, 40, 0, 200.0), upstream=upstream)
        (found,) = findings(load(slow))
        assert (found.cause, found.next) == ("upstream_slower", following)


def test_a_worker_that_nobody_replaces() -> None:
    """The supervisor kills none while no other worker is well, or if it may not: what is next does not say so."""
    hangs = dataclasses.replace(WORKERS[0], stuck=True, beat_age_ms=5000, running=0.0)
    for workers, replaced_s, why in (
        ((hangs, WORKERS[1]), 10.0, "it is killed after 10 s"),
        ((hangs, WORKERS[1]), 0.0, "server.stuck does not let it"),
        ((hangs,), 10.0, "no other worker is well"),
    ):
        (found,) = findings(dataclasses.replace(HEALTHY, workers=workers, replaced_s=replaced_s))
        assert found.cause == "worker_stuck"
        assert why in found.next


def test_a_lone_worker_that_runs_in_circles_hangs() -> None:
    """A turn of seconds is much work, one of ten is none."""
    busy = dataclasses.replace(WORKERS[0], stuck=True, beat_age_ms=3000, running=1.0)
    assert findings(dataclasses.replace(HEALTHY, workers=(busy,)))[0].cause == "worker_busy"
    circles = dataclasses.replace(busy, beat_age_ms=11_000)
    assert findings(dataclasses.replace(HEALTHY, workers=(circles,)))[0].cause == "worker_stuck"


def test_what_traffic_does_to_an_upstream() -> None:
    """It takes longer for each because it has more to do, and it does more: there is more traffic."""
    (found,) = findings(load(pressed(now=Pace(900, 300, 600, 200.0)), FULL))
    assert found.cause == "more_traffic"


def test_a_deadline_of_a_route_tells_of_its_upstream() -> None:
    """Answers that do not come within the route's time-out."""
    one = dataclasses.replace(CALM, routes=("checkout",))
    (found,) = findings(load(one, refused("deadline_expired", "route/checkout")))
    assert found.resource == "upstream/api"
    assert "50/s deadline_expired at route/checkout" in found.evidence


def test_deadlines_are_told_with_numbers() -> None:
    """What was left of the last that could not be met, and what was expected; of none nothing is told."""
    late = refused("deadline_infeasible", "upstream/api:queue")
    line = "300 ms left, 190 ms of wait and 129 ms of service (95th percentile; median 95 ms) expected"
    told = explain(load(pressed(forecast=Forecast(300.0, 190.0, 95.0, 129.0)), late))
    assert f"last refused for its deadline: {line}" in told["evidence"]
    assert not any("its deadline" in one for one in explain(load(pressed(), late))["evidence"])


def test_who_lowered_the_limit() -> None:
    """A limit that was higher before is the cause, even if more comes than before."""
    lowered = pressed(limit=2, now=Pace(300, 100, 200, 20.0, 2))
    for source in ("file", "live"):
        (found,) = findings(load(dataclasses.replace(lowered, limit_source=source), FULL))
        assert found.cause == "limit_too_low"
        assert "lowered from 8 to 2" in found.says
        following, _, hint = found.next.partition("    # ")
        assert following == "edgeq set upstream/api limit 8 --ttl 10m"  # 300/s x 20 ms x 1.2
        assert hint == ("or as before: edgeq unset upstream/api limit" if source == "live" else "")
    (found,) = findings(load(dataclasses.replace(lowered, now=Pace(3000, 100, 2900, 20.0, 2)), FULL))
    assert found.next == "edgeq set upstream/api limit 8 --ttl 10m"  # as it was: some come again and again


def test_a_limit_that_was_lowered_while_somebody_waited() -> None:
    """Whatever came before that, what is served has fallen with it."""
    was = Pace(950, 950, 0, 50.0, 50)
    lowered = pressed(limit=5, limit_source="live", file_limit="50", now=Pace(100, 95, 0, 50.0, 5), began_limit=50)
    for before in (None, Pace(20, 20, 0, 50.0, 50)):
        (found,) = findings(load(dataclasses.replace(lowered, before=before, was=was)))
        assert (found.cause, found.says) == ("limit_too_low", "its limit was lowered from 50 to 5")
        assert found.next == (
            "edgeq set upstream/api limit 50 --ttl 10m"
            f"    # or {'as before' if before else 'as the file has it (50)'}: edgeq unset upstream/api limit"
        )
    slow = dataclasses.replace(lowered, now=Pace(100, 95, 0, 500.0, 5), before=Pace(100, 100, 0, 50.0, 50))
    (found,) = findings(load(dataclasses.replace(slow, was=Pace(100, 100, 0, 500.0, 50))))
    assert found.cause == "upstream_slower"  # that has begun it
    more = dataclasses.replace(
        lowered, now=was, before=Pace(20, 20, 0, 50.0, 50), was=dataclasses.replace(was, limit=6)
    )
    assert [one.cause for one in findings(load(more))] == ["more_traffic"]


def test_what_the_file_has_is_not_what_was_before() -> None:
    """Where somebody had set another limit before."""
    lowered = pressed(limit=2, limit_source="live", file_limit="50", now=Pace(300, 100, 200, 20.0, 2))
    (found,) = findings(load(lowered, FULL))
    assert found.next.endswith("    # or as the file has it (50): edgeq unset upstream/api limit")


def test_who_waits_for_an_answer_comes_later() -> None:
    """The new limit is for what came before it was too low: clients that wait for a place ask less."""
    before = Pace(600, 600, 0, 20.0, 32)
    lowered = pressed(limit=4, now=Pace(150, 75, 75, 20.0, 4), before=before)
    assert findings(load(lowered, FULL))[0].next == "edgeq set upstream/api limit 15 --ttl 10m"  # 600/s x 20 ms x 1.2


def test_a_limit_that_was_set_live_is_not_learned() -> None:
    """It is a limit like one of the file: too low where neither traffic nor service time has changed."""
    (found,) = findings(load(pressed(limit_source="live", before=None), FULL))
    assert found.cause == "limit_too_low"


def test_a_learned_limit_is_not_too_low() -> None:
    """It is what the upstream can take: there is more traffic than that."""
    (found,) = findings(load(pressed(limit_source="learned", before=None), FULL))
    assert found.cause == "more_traffic"


def test_a_worker_in_a_long_turn_is_busy_if_all_are() -> None:
    """It gives no sign of life for seconds, but it runs, and so do the others: it does not hang."""
    long = dataclasses.replace(WORKERS[0], stuck=True, beat_age_ms=3000, running=1.0)
    busy = dataclasses.replace(WORKERS[1], lag_ms=500.0, running=1.0)
    assert findings(dataclasses.replace(HEALTHY, workers=(long, busy)))[0].cause == "worker_busy"
    assert findings(dataclasses.replace(HEALTHY, workers=(long, WORKERS[1])))[0].cause == "worker_stuck"


def test_drops_of_a_worker_that_hangs_are_its_doing() -> None:
    """Its accept queue overflows because nobody empties it: the backlog is not the cause."""
    facts = dataclasses.replace(CASES["worker_stuck"][0], doors=(dataclasses.replace(DOOR, slot=1, drops_per_s=9.0),))
    assert [one.cause for one in findings(facts)] == ["worker_stuck"]


_rates = st.floats(0, 1e4)
_paces = st.builds(Pace, _rates, _rates, _rates, st.none() | st.floats(0, 1e5), st.integers(0, 100))
_endpoints = st.builds(
    Endpoint,
    st.sampled_from(["a:1", "b:2"]),
    st.sampled_from(["in use", "ejected", "draining"]),
    st.none() | _rates,
    _rates,
    _rates,
)
_loads = st.builds(
    Load,
    st.sampled_from(["upstream/api", "upstream/b", "route/r"]),
    st.just("provider/b"),
    st.none() | st.integers(1, 100),
    st.sampled_from(["file", "learned", "observe"]),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    _rates,
    _paces,
    st.none() | _paces,
    _rates,
    st.none() | st.just("open"),
    st.lists(_endpoints, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["", "x", "y"]), st.integers(1, 9)),
    is_paused=st.booleans(),
)
_workers = st.builds(
    Worker,
    st.integers(0, 3),
    st.just(1),
    st.booleans(),
    _rates,
    _rates,
    _rates,
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 9),
)
_doors = st.builds(
    Door,
    st.just("listener/:80"),
    st.integers(0, 3),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    _rates,
    _rates,
)
_refused = st.builds(
    Refused,
    st.sampled_from(list(REASONS)) | st.just("other"),
    st.sampled_from(["upstream/api:queue", "upstream/api#a:1", "route/r", "worker:loop_lag", "tenant:queue", "other"]),
    st.floats(0.1, 1e4),
    _rates,
)


@given(
    st.builds(
        Facts,
        st.lists(_loads, max_size=3).map(tuple),
        st.lists(_workers, max_size=3).map(tuple),
        st.lists(_doors, max_size=2).map(tuple),
        st.lists(_refused, max_size=4).map(tuple),
    )
)
def test_any_facts_are_explained(facts: Facts) -> None:
    """Without an error, one cause for a resource, the worst first; whoever loses or waits hears a verdict."""
    found = findings(facts)
    wholes = [whole_of(one.resource) for one in found]
    assert len(set(wholes)) == len(wholes)
    assert [one.harm for one in found] == sorted((one.harm for one in found), reverse=True)
    told = explain(facts)
    if all(one.harm not in (OUT, PART) for one in found):  # what has just begun goes before that
        assert (told["cause"] is not None) == any(one.harm > SIGN for one in found)
    assert render(told)


def test_names_cannot_move_the_cursor() -> None:
    """Tenants and paths come from clients."""
    noisy = pressed(tenants={"\x1b[2Jevil": 90, "zeta": 10})
    text = render(explain(load(noisy, FULL)))
    assert "evil" in text
    assert "\x1b" not in text


def test_the_page_is_the_table() -> None:
    """docs/explain.md is made from the causes."""
    assert PAGE.read_text() == document(), "python -m edgeq.explain.causes > docs/explain.md"


_RUNNING: Final = """
[[listener]]
address = "127.0.0.1:8080"
name = ":80"
[upstream.api]
endpoints = ["http://10.0.0.7:9000", "http://10.0.0.8:9000"]
limit = 8
[tenant]
key = "header:x-tenant"
[provider.p]
url = "http://10.0.0.9:443/v1"
[model.big]
targets = [{ provider = "p" }]
[[route]]
name = "models"
match = { path = "/v1/*" }
llm = {}
"""


@pytest.mark.parametrize("cause", CASES)
def test_what_to_do_next_can_be_typed(cause: str) -> None:
    """Each command is one of this machine's, and what it changes can be changed."""
    live = Live(lambda: read_text(_RUNNING, "edgeq.toml"), lambda _: (), 0.0)
    for found in findings(CASES[cause][0]):
        for command in re.split(r"\s+#", found.next)[0].split(" && "):
            name, *words = shlex.split(command)
            if name != "edgeq":
                assert name in ("systemctl", "sysctl", "cat", "kill", "dig", "getent"), found.next
                continue
            typed = make_parser().parse_args(words)
            if words[0] == "set":
                live.plan(Change(typed.resource, typed.key, None), typed.value)
            elif words[0] in ("drain", "undrain", "enable"):
                assert len(endpoints_named(live.config, typed.endpoint)) == 1


def test_who_has_limits_of_his_own() -> None:
    """A key, a team or a tenant is known by its name: what is left, and where its limits stand."""
    meter = {
        "limits": {"requests": 60, "per_day": 0.00001},
        "remaining": {"requests": 12},
        "spent_day": 0.000009,
        "spent_month": 0.5,
        "refused": 3,
    }
    facts = dataclasses.replace(HEALTHY, meters={"key/abc": meter})
    assert is_known(facts, "key/abc")
    told = explain(facts, "key/abc")
    assert told["verdict"] == "key/abc is not saturated, but its own limits have refused 3 lately"
    assert told["evidence"] == ["requests: 12 of 60 left", "0.000009 of 0.00001 a day spent"]
    assert told["next"] == "edgeq keys show abc"
    assert is_known(facts, "team/acme/core")
    assert explain(facts, "team/acme/core")["next"] == "edgeq tenants list acme"


def test_whose_budget_is_spent() -> None:
    """Who asks about a key hears of those of its team and its tenant: of how much, until when, and how it is raised."""
    named = {"key/abc": ["team/acme/core", "tenant/acme"]}
    for subject, command in (
        ("key/abc", "edgeq keys set abc --per-month 4 "),
        ("team/acme/core", "edgeq tenants set acme --team core --per-month 4 "),
        ("tenant/acme", "edgeq tenants set acme --per-month 4 "),
    ):
        left = Budget("tenant/acme", "day", 2.0, 1.99, 1795910400)
        facts = dataclasses.replace(
            HEALTHY, named=named, budgets=(left, Budget(subject, "month", 2.0, 2.0, 1796083200))
        )
        told = explain(facts, "key/abc")
        assert told["verdict"] == (
            f"{subject} refuses who comes next: its budget of 2 a month is spent, until 2026-12-01T00:00:00+00:00"
        )
        assert told["evidence"] == ["2 of 2 a month spent"]
        assert told["next"].startswith(command)
    facts = dataclasses.replace(HEALTHY, named=named, budgets=(left,))
    assert explain(facts, "key/abc")["verdict"] == "key/abc is not saturated"
    # What a request may cost is reserved: the last of it is seldom spent.
    meter = {"limits": {"per_day": 2.0}, "remaining": {}, "spent_day": 1.99, "spent_month": 1.99, "refused": 1}
    facts = dataclasses.replace(facts, meters={"tenant/acme": meter})
    assert "is spent, or less of it is left than a request may cost, until" in explain(facts, "key/abc")["verdict"]
    large = dataclasses.replace(facts, budgets=(left._replace(spent=0.5),))
    assert explain(large, "key/abc")["cause"] is None
    for place, cause in (("tenant:budget", "budget_spent"), ("key:budget", None)):
        told = explain(dataclasses.replace(large, over=(refused("budget_exhausted", place),)), "key/abc")
        assert told["cause"] == cause


def test_what_begins_is_told_of_a_part_too() -> None:
    """Of a model by another name of it, and of what it is asked of."""
    begins = dataclasses.replace(
        HEALTHY,
        refused=(Refused("token_limit_shared", "model/small:tokens", 5.0, 0.5),),
        named={"model/tiny": ["model/small"], "model/small": ["target/p/m"]},
    )
    for name in ("", "model/small", "model/tiny"):
        assert "refuses since a moment ago" in explain(begins, name)["verdict"], name


def test_a_model_of_which_all_targets_are_disabled() -> None:
    """It is told of the model, and who has done so."""
    facts = dataclasses.replace(HEALTHY, refused=(refused("upstream_none_healthy", "model/small"),))
    told = explain(facts, "model/small")
    assert told["verdict"].startswith("model/small refuses since 12 s ago: no endpoint available: ")
    assert told["next"].startswith("edgeq show changes ")
