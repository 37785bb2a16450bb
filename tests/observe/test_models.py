"""Who answers for a model, from the configuration and what the workers tell of its targets."""

from __future__ import annotations

import msgspec

from edgeq.config.load import load_text
from edgeq.observe.models import model_records

TEXT = """
[[listener]]
address = "127.0.0.1:0"
[provider.first]
dialect = "anthropic"
url = "http://127.0.0.1:9/v1"
[provider.many]
url = "http://127.0.0.1:9/v1"
keys = [{ key = "x", name = "a", weight = 2 }, { key = "y", name = "b" }]
[model.smart]
aliases = ["best"]
targets = [{ provider = "first", model = "big", price = { input = 2.5, output = 10.0 } }, { provider = "many" }]
[model.drawn]
balance = "weighted"
targets = [{ provider = "many", weight = 3 }]
"""


def seen(target: str, paused_for: str = "") -> dict[str, object]:
    """As `show targets` has it."""
    left = {"tokens": 500}
    return {
        "target": target,
        "paused_for": paused_for,
        "paused_s": 5.0 if paused_for else 0.0,
        "paused_until": "2026-11-27T12:00:05+00:00" if paused_for else None,
        "in_flight": 3,
        "queued": 0,
        "limits": {"tokens": 1000},
        "remaining": left,
    }


def test_targets_stand_in_the_order_in_which_they_are_asked() -> None:
    """Each at each key, with its state, and what is not known is not made up."""
    config = load_text(TEXT, "f").config
    targets = [seen("first/big"), seen("many-a/smart", "upstream_rate_limit"), seen("many-b/drawn")]
    upstreams = [{"upstream": "first", "breaker": "closed"}, {"upstream": "many-b", "breaker": "open"}]
    found = list(model_records(config, targets, upstreams))
    assert [(one["model"], one["number"], one["target"], one["state"]) for one in found] == [
        ("smart", 1, "first/big", "ready"),
        ("smart", 2, "many-a/smart", "upstream_rate_limit"),
        ("smart", 2, "many-b/smart", "circuit_open"),
        ("drawn", 1, "many-a/drawn", "ready"),
        ("drawn", 1, "many-b/drawn", "circuit_open"),
    ]
    assert [one["in_flight"] for one in found] == [3, 3, None, None, 3]
    assert [one["weight"] for one in found] == [None, None, None, 6, 3]
    assert [one["price"] for one in found] == ["2.5/10", "", "", "", ""]
    assert found[0]["aliases"] == ["best"]
    assert found[0]["remaining"] == {"tokens": 500}


def test_a_budget_that_is_spent_is_short() -> None:
    """Half of one coin is not little of a budget of one."""
    config = load_text(TEXT, "f").config
    meter = {"meter": "model", "name": "smart", "limits": {"per_day": 1.0}, "remaining": {}}
    for spent, state, left in ((0.5, "ready", 0.5), (0.96, "short", 0.04), (1.2, "short", 0.0), (None, "ready", 1.0)):
        one = next(model_records(config, [seen("first/big")], [], [{**meter, "spent_day": spent}]))
        assert (one["state"], one["remaining"]) == (state, {"tokens": 500, "per_day": left})


def test_a_budget_that_is_too_small_is_named() -> None:
    """By its key: one request without max_tokens may reserve more than all of it, whoever is asked."""
    text = TEXT.replace('{ provider = "many" }]\n[model.drawn]', '{ provider = "many", PRICE }]\n[model.drawn]')
    for price, told in (("price = { output = 20.0 }", "money_per_day"), ("price = { output = 2.0 }", "")):
        config = load_text(f"{text.replace('PRICE', price)}[model.smart.limits]\nmoney_per_day = 0.04", "f").config
        found = list(model_records(config, [], []))
        assert {one["too_small"] for one in found if one["model"] == "smart"} == {told}
        assert {one["too_small"] for one in found if one["model"] != "smart"} == {""}


def test_who_answers_meanwhile() -> None:
    """The smaller model, as long as no target is ready: of a model that has one."""
    config = load_text(f'{TEXT}[model.tiny]\ntargets = [{{ provider = "first" }}]', "f").config
    for degrade, paused, told in (
        ("tiny", ("first/big", "many-a/smart", "many-b/smart"), "tiny"),
        ("tiny", ("first/big",), ""),
        ("", ("first/big", "many-a/smart", "many-b/smart"), ""),
    ):
        smart = msgspec.structs.replace(config.model["smart"], degrade=degrade)
        changed = msgspec.structs.replace(config, model={**config.model, "smart": smart})
        found = list(model_records(changed, [seen(one, "circuit_open") for one in paused], []))
        assert {one["degrades_to"] for one in found if one["model"] == "smart"} == {told}
        assert {one["degrades_to"] for one in found if one["model"] != "smart"} == {""}


def test_a_smaller_model_that_is_disabled_answers_for_nobody() -> None:
    """The next one does, if there is any."""
    text = (
        f'{TEXT}[model.tiny]\ntargets = [{{ provider = "first" }}]\n[model.last]\ntargets = [{{ provider = "last" }}]'
    )
    text += '\n[provider.last]\nurl = "http://c/v1"'
    config = load_text(text, "f").config
    first = msgspec.structs.replace(config.provider["first"], enabled=False)
    config = msgspec.structs.replace(config, provider={**config.provider, "first": first})
    for degrades, told in (({"smart": "tiny"}, ""), ({"smart": "tiny", "tiny": "last"}, "last")):
        models = {
            name: msgspec.structs.replace(one, degrade=degrades.get(name, "")) for name, one in config.model.items()
        }
        changed = msgspec.structs.replace(config, model=models)
        paused = [seen(one, "circuit_open") for one in ("many-a/smart", "many-b/smart")]
        found = list(model_records(changed, paused, []))
        assert {one["degrades_to"] for one in found if one["model"] == "smart"} == {told}


def test_one_that_has_failed_is_not_ready_before_a_good_answer() -> None:
    """After its rest, too: the next request may fail again, and where few ask that is most of the time."""
    config = load_text(TEXT, "f").config
    failing = {**seen("first/big"), "fails_by": "upstream_connect_refused"}
    assert next(model_records(config, [failing], []))["state"] == "failing"
    resting = {**failing, "paused_for": "circuit_open", "queued": 1}
    assert next(model_records(config, [resting], []))["state"] == "circuit_open"


def test_what_is_short_is_not_ready() -> None:
    """Somebody waits there, or next to nothing is left of a limit: also of one of the model, which is told where less
    is left of it."""
    config = load_text(TEXT, "f").config
    first = seen("first/big")
    meter = {"meter": "model", "name": "smart", "limits": {"tokens": 900, "requests": 9}}
    for changes, own, state, left in (
        ({}, {"tokens": 600, "requests": 5}, "ready", {"tokens": 500, "requests": 5}),
        ({"queued": 1}, {}, "short", {"tokens": 500}),
        ({"remaining": {"tokens": 49}}, {}, "short", {"tokens": 49}),
        ({"remaining": {"tokens": 50}}, {}, "ready", {"tokens": 50}),
        ({}, {"tokens": 44}, "short", {"tokens": 44}),
        ({}, {"requests": 0}, "short", {"tokens": 500, "requests": 0}),
        ({"limits": {}, "remaining": {}}, {}, "ready", {}),
    ):
        meters = [{**meter, "remaining": own}, {**meter, "meter": "tenant", "remaining": {"tokens": 0}}]
        one = next(model_records(config, [{**first, **changes}], [], meters))
        assert (one["state"], one["remaining"]) == (state, left)


def test_without_models_there_are_none() -> None:
    """A gateway before plain services."""
    text = '[[listener]]\naddress = "127.0.0.1:0"\n[upstream.u]\nendpoints = ["http://127.0.0.1:9"]\n'
    assert list(model_records(load_text(text, "f").config, [], [])) == []
