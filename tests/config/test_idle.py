"""Settings without effect: each is told with its line, and is no error."""

from __future__ import annotations

from typing import Final

import pytest

from edgeq.config.change import Change
from edgeq.config.live import Live
from edgeq.config.load import read_text

_FILE: Final = """\
[[listener]]
address = "127.0.0.1:1"
{listener}
[upstream.a]
endpoints = {endpoints}
{upstream}
[[route]]
name = "r"
upstream = "a"
{route}
{rest}
"""
_PLAIN: Final = '["http://127.0.0.1:1"]'
_PROVIDER: Final = """\
[provider.p]
url = "http://127.0.0.1:1/v1"
tls.server_name = "a"
[model.m]
targets = [{ provider = "p" }]
[[route]]
name = "m"
llm = {}
match.path = "/v1/*"
"""
_MODELS: Final = """\
[provider.p]
url = "http://127.0.0.1:1/v1"
keys = [{keys}]
[model.m]
targets = [{{ provider = "p", model = "a" }}, {{ provider = "p", model = "b" }}]
{model}
[model.s]

targets = [{{ provider = "p" }}]
[[route]]
name = "m"
llm.models = [{models}]
match.path = "/v1/*"
"""
_PRICED: Final = """\
[provider.p]
url = "http://127.0.0.1:1/v1"
[model.m]
targets = [{ provider = "p", model = "a", price = { input = 1 } }, { provider = "p" }, { provider = "p", price = {} }]
[[route]]
name = "m"
llm = {}
match.path = "/v1/*"
"""
_DEAR: Final = (
    _PRICED.replace('provider = "p"', 'provider = "p", price = { output = 25 }', 3)
    .replace('model = "a", price = { input = 1 }', 'model = "a"')
    .replace("price = { output = 25 }, price = {}", "price = { output = 25 }")
)


_PROMPT: Final = """
[[prompt]]
name = "p"
path = "/p/p"
route = "m"
model = "m"
messages = [{ role = "user", text = "Hello" }]
"""


def idle(**places: str) -> list[str]:
    """What is told of a file with these lines."""
    text = _FILE.format(**{"listener": "", "endpoints": _PLAIN, "upstream": "", "route": "", "rest": "", **places})
    document = read_text(text, "f")
    return [str(one) for one in document.idle(document.build(files=False))]


CASES: Final[list[tuple[str, str, str]]] = [
    ("listener", 'proxy_protocol_from = ["::/0"]', "f:3: listener[0].proxy_protocol_from: no PROXY header is expected"),
    (
        "listener",
        "max_connections = 9\nmax_connections_per_client = 10",
        "f:4: listener[0].max_connections_per_client: is never reached: max_connections is 9",
    ),
    (
        "listener",
        'limits.min_body_rate = "1KiB"\ntimeouts.body = 0',
        "f:3: listener[0].limits.min_body_rate: is not looked at: timeouts.body is 0",
    ),
    ("upstream", "tls.verify = false", "f:6: upstream.a.tls.verify: is not used: no endpoint is https"),
    ("upstream", 'hash_key = "path"', "f:6: upstream.a.hash_key: is for balance = consistent-hash, which is p2c-ewma"),
    ("upstream", 'sticky_cookie = "c"', "f:6: upstream.a.sticky_cookie: is for balance = sticky, which is p2c-ewma"),
    ("upstream", "queue.max = 3\nlimit = 0", "f:6: upstream.a.queue.max: nobody waits there: limit is 0"),
    (
        "upstream",
        "pool = { max_connections = 4, max_idle = 5 }",
        "f:6: upstream.a.pool.max_idle: so many are never idle: pool.max_connections is 4",
    ),
    (
        "upstream",
        'eject = { time = "1m", max_time = "9s" }',
        "f:6: upstream.a.eject.time: no ejection is longer than eject.max_time, 9s",
    ),
    ("endpoints", '[{ url = "http://127.0.0.1:1", weight = 0 }]', "f:5: upstream.a.endpoints: nobody new is served"),
    ("endpoints", '[{ url = "http://127.0.0.1:1", enabled = false }]', "f:5: upstream.a.endpoints: nobody new is"),
    ("route", "retry.attempts = 3", "f:10: route[0].retry.attempts: nothing is tried again: retry.on is empty"),
    (
        "route",
        'timeout = "1s"\nretry = { on = ["reset"], per_try_timeout = "2s" }',
        "f:11: route[0].retry.per_try_timeout: is never reached: the route's timeout is 1s",
    ),
    ("rest", "[tenant]\nweights.acme = 3", "f:12: tenant.weights: nothing says who a tenant is"),
    ("rest", '[tenant]\nkey = "route"\nqueue.max = 3', "f:13: tenant.queue.max: nobody waits there: tenant.limit is 0"),
    ("rest", '[forward]\npriority = "x-p"', "f:12: forward.priority: nobody is believed: no listener has trusted"),
    ("rest", '[server]\nadmin_group = "root"', "f:12: server.admin_group: there is no admin socket"),
    ("rest", '[server]\nstuck = { after = 0, restart = "9s" }', "f:12: server.stuck.restart: nobody is stuck"),
    ("rest", '[access_log]\ntarget = "off"\nformat = "combined"', "f:13: access_log.format: nothing is written"),
    ("rest", f"[upstream.b]\nendpoints = {_PLAIN}", "f:11: upstream.b: no route leads here, and no fallback"),
    (
        "rest",
        _PROVIDER,
        "f:13: provider.p.tls.server_name: is not used: no endpoint is https",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model="", models="") + '[provider.lazy]\nurl = "http://127.0.0.1:1/v1"',
        "f:24: provider.lazy: no model has a target there",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model="", models="") + '[tenant]\nkey = "key"',
        "f:25: tenant.key: verifies nobody: without [accounts] any key",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model='hedge = "2s"', models=""),
        "f:16: model.m.hedge: there is no second to ask: all targets are at one key",
    ),
    (
        "rest",
        _MODELS.format(keys='"k", { key = "l", name = "l" }', model='hedge = "2s"', models="").replace(
            "match.path", "llm.attempts = 1\nmatch.path"
        ),
        "f:16: model.m.hedge: there is no second to ask: llm.attempts of every route is 1",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model="", models="")
        + '[model.o]\ntoo_long = "next"\ntargets = [{ provider = "p" }]',
        "f:25: model.o.too_long: there is no next one to ask: the model has one target",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model='too_long = "next"', models="").replace(
            "match.path", "llm.attempts = 1\nmatch.path"
        ),
        "f:16: model.m.too_long: there is no next one to ask: llm.attempts of every route is 1",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model="", models="").replace('model = "', 'weight = 3, model = "', 1),
        "f:15: model.m.targets[0].weight: is for balance = weighted, which is ordered",
    ),
    (
        "rest",
        _MODELS.format(keys='"k"', model='degrade = "s"', models='"m"'),
        "f:16: model.m.degrade: no route serves both m and s",
    ),
    (
        "rest",
        _PRICED + "[accounts]",
        "f:14: model.m.targets[1].price: is missing: what this target answers costs nothing, and no budget holds there",
    ),
    ("rest", _PRICED + "[model.m.limits]\nmoney_per_day = 1", "f:14: model.m.targets[1].price: is missing"),
    (
        "rest",
        _DEAR + "[model.m.limits]\nmoney_per_day = 0.1",
        "f:20: model.m.limits.money_per_day: is less than one request may reserve that names no max_tokens",
    ),
    (
        "rest",
        _DEAR.replace('model = "a"', 'model = "a", limits.money_per_day = 0.1'),
        "f:14: model.m.targets[0].limits.money_per_day: is less than one request may reserve that names no max_tokens",
    ),
    (
        "rest",
        _DEAR.replace("[model.m]", "limits.money_per_month = 0.1\n[model.m]"),
        "f:13: provider.p.limits.money_per_month: is less than one request may reserve that names no max_tokens",
    ),
    (
        "rest",
        _DEAR.replace(
            "[model.m]", 'keys = ["k", { key = "l", name = "l", limits = { money_per_day = 0.1 } }]\n[model.m]'
        ),
        "f:13: provider.p.keys[1].limits.money_per_day: is less than one request may reserve",
    ),
    (
        "rest",
        _DEAR.replace("llm = {}", "llm = { limits = { money_per_day = 0.1 } }"),
        "f:17: route[1].llm.limits.money_per_day: is less than one request may reserve that names no max_tokens",
    ),
    (
        "rest",
        _DEAR + _PROMPT + "max_tokens = 10000\nlimits.money_per_day = 0.2",
        "f:27: prompt[0].limits.money_per_day: is less than one request may reserve: 0.25, of 10000 tokens",
    ),
]


@pytest.mark.parametrize(("place", "lines", "told"), CASES, ids=[told.split(": ")[1] for _, _, told in CASES])
def test_each_is_told(place: str, lines: str, told: str) -> None:
    """With file, line, key and why; nothing else is."""
    (found,) = idle(**{place: lines})
    assert found.startswith(told)


def test_who_is_left_for_a_model_that_is_disabled() -> None:
    """Nobody, or a smaller one."""
    off = _MODELS.replace("keys = [{keys}]", 'disabled = {{ "p/a" = true, "p/b" = true }}')
    for degrade, told in (
        ("", "nobody answers for the model"),
        ('degrade = "s"', "s answers in its place, where it may"),
    ):
        (found,) = idle(rest=off.format(model=degrade, models=""))
        assert found == f"f:15: model.m.targets: {told}: all its targets are disabled"
    both = off.replace('"p/a" = true', '"p/a" = true, "p/s" = true')
    (found, small) = idle(rest=both.format(model='degrade = "s"', models=""))
    assert (
        found
        == "f:15: model.m.targets: nobody answers for the model: all its targets are disabled, and those of s, too"
    )
    assert small.endswith("model.s.targets: nobody answers for the model: all its targets are disabled")


def test_what_has_an_effect_is_not_told() -> None:
    """The same settings where they belong."""
    assert idle() == []
    assert idle(rest=_DEAR + "[model.m.limits]\nmoney_per_day = 0.11") == []
    assert idle(rest=_DEAR.replace("output = 25", "output = 250", 1) + "[model.m.limits]\nmoney_per_day = 0.11") == []
    assert idle(rest=_DEAR + "[model.m.limits]\noutput_tokens_per_minute = 100") == []  # such a one goes alone
    assert idle(rest=_DEAR + _PROMPT + "max_tokens = 1000\nlimits.money_per_day = 0.1") == []
    assert idle(rest=_PRICED) == []  # nobody counts money
    assert idle(rest='[tenant]\nkey = "key"') == []  # whose key it is, the upstream knows
    assert idle(endpoints='["https://localhost:1"]', upstream="tls.verify = false") == []
    assert idle(upstream='balance = "sticky"\nsticky_cookie = "c"\nlimit = 3\nqueue.max = 3') == []
    assert idle(route='retry = { on = ["reset"], attempts = 3 }\nlimit = 2\nqueue.max = 3') == []
    assert idle(upstream="eject.max_time = 10") == []  # the default of eject.time is nobody's fault
    assert (
        idle(upstream="timeouts.first_byte = 1", route='timeout = 2\nretry.per_try_timeout = 5\nretry.on = ["reset"]')
        == []
    )
    assert idle(route="queue.timeout = 30") == []  # for when the route is paused
    two = '"k", { key = "l", name = "l" }'
    for models in ("", '"m", "s"'):
        assert idle(rest=_MODELS.format(keys=two, model='hedge = "2s"\ndegrade = "s"', models=models)) == []
    assert idle(listener='trusted = ["::1/128"]', rest='[forward]\npriority = "x-p"') == []


def test_who_may_be_verified_is_told_once() -> None:
    """Trusted CAs where nobody is verified; the name is still sent."""
    found = idle(
        endpoints='["https://localhost:1"]', upstream='tls = { verify = false, ca = "/ca.pem", server_name = "a" }'
    )
    assert found == ["f:6: upstream.a.tls.ca: nothing is verified: tls.verify is false"]


def test_a_budget_without_retries() -> None:
    """Who wants retries and allows none."""
    (found,) = idle(upstream="retry_budget = { share = 0, reserve = 0 }", route='retry.on = ["reset"]')
    assert found == "f:10: route[0].retry: nothing is tried again: the retry_budget of upstream a allows none"


def test_what_a_change_leaves_without_effect_is_no_reason_to_refuse_it() -> None:
    """It is told then, and no more once the change is taken back."""
    text = _FILE.format(listener="", endpoints=_PLAIN, upstream="limit = 5\nqueue.max = 3", route="", rest="")
    live = Live(lambda: read_text(text, "f"), lambda _: (), 0.0)
    assert live.idle() == []
    live.commit(live.plan(Change("upstream/a", "limit", None), "0"))
    assert [one.key_path for one in live.idle()] == ["upstream.a.queue.max"]
    live.commit(live.plan(Change("upstream/a", "limit", None), None))
    assert live.idle() == []
