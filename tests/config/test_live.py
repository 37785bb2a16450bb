"""Live changes on top of a file: what holds, what ends, what is kept. Time is a number here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.base import Duration
from edgeq.config.change import Change, ChangeError, NotSet, parse_value, toml
from edgeq.config.changes_io import read_changes, write_changes
from edgeq.config.live import MAX_CHANGES, Live, endpoints_named
from edgeq.config.load import load_text, read_text
from edgeq.config.schema import Config, Endpoint
from edgeq.errors import ConfigError, Problem

A, B = "http://10.0.0.7:9000", "http://10.0.0.8:9000"
FILE = f"""
[[listener]]
address = "127.0.0.1:8080"
[upstream.api]
endpoints = ["{A}", {{ url = "{B}", weight = 3 }}]
limit = 20
queue = {{ max = 5 }}
[upstream.other]
endpoints = ["{A}"]
[[route]]
name = "checkout"
upstream = "api"
[[route]]
name = "rest"
match = {{ path = "/rest/*" }}
upstream = "other"
[[rate]]
name = "plan"
by = "client"
limits = ["10/s"]
[tenant]
key = "header:x-tenant"
"""


MODELS = """
[[listener]]
address = "127.0.0.1:8080"
[provider.openai]
url = "http://127.0.0.1:9/v1"
keys = ["env:HOME"]
[provider.many]
url = "http://127.0.0.1:9/v1"
keys = [{ key = "x", name = "a" }, { key = "y", name = "b" }]
[model."gpt-4o"]
aliases = ["cheap"]
balance = "weighted"
targets = [{ provider = "openai" }, { provider = "many" }]
[model."org/gpt-4.1"]
targets = [{ provider = "many" }, { provider = "many", model = "other" }]
[[prompt]]
name = "sum"
path = "/p/sum"
route = "default"
model = "gpt-4o"
messages = [{ role = "user", text = "Sum {{text}}" }]
variables.text = {}
[[route]]
name = "default"
llm = {}
"""


class File:
    """What is read at the next reload."""

    def __init__(self, text: str = FILE, kept: tuple[Change, ...] = ()) -> None:
        self.text = text
        self.live = Live(lambda: read_text(self.text, "edgeq.toml"), lambda _: kept, 0.0)

    @property
    def config(self) -> Config:
        return self.live.config

    def set(self, resource: str, key: str, value: str, until: float | None = None, persisted: bool = False) -> Config:
        plan = self.live.plan(Change(resource, key, None, until=until, persisted=persisted), value)
        self.live.commit(plan)
        return plan.config

    def unset(self, resource: str, key: str) -> Config:
        plan = self.live.plan(Change(resource, key, None), None)
        self.live.commit(plan)
        return plan.config

    def reload(self, text: str, now: float = 0.0) -> list[str]:
        """Returns what ended."""
        self.text = text
        plan = self.live.reload(now)
        self.live.commit(plan)
        return [one.why for one in plan.ended]


@pytest.mark.parametrize(
    ("resource", "key", "value", "look", "expected"),
    [
        ("upstream/api", "limit", "64", lambda c: c.upstream["api"].limit, 64),
        ("upstream/api", "limit", "adaptive", lambda c: c.upstream["api"].limit, "adaptive"),
        ("upstream/api", "queue.max", "9", lambda c: c.upstream["api"].queue.max, 9),
        ("upstream/api", "pool.idle_timeout", "250ms", lambda c: c.upstream["api"].pool.idle_timeout, Duration(0.25)),
        ("upstream/api", "breaker", "{}", lambda c: c.upstream["api"].breaker is not None, True),
        ("upstream/api", f"endpoints.{A}.weight", "0", lambda c: c.upstream["api"].weights(), {A: 0, B: 3}),
        ("upstream/api", f"endpoints.{B}.enabled", "false", lambda c: c.upstream["api"].weights(), {A: 1}),
        ("upstream/api", "endpoints", f'["{B}"]', lambda c: c.upstream["api"].weights(), {B: 1}),
        ("route/rest", "paused", "true", lambda c: [one.paused for one in c.route], [False, True]),
        ("rate/plan", "limits", '["7/s burst 9"]', lambda c: c.rate[0].limits, ("7/s burst 9",)),
        ("listener/127.0.0.1:8080", "backlog", "7", lambda c: c.listener[0].backlog, 7),
        ("log", "level", "debug", lambda c: c.log.level, "debug"),
        ("explain", "slow", "250ms", lambda c: c.explain.slow, Duration(0.25)),
        ("tenant", "weights.gold", "4", lambda c: c.tenant.weights, {"gold": 4}),
    ],
)
def test_any_key_of_any_resource(
    resource: str, key: str, value: str, look: Callable[[Config], Any], expected: object
) -> None:
    """Written as in its table, with or without quotes; taking it back restores all."""
    file = File()
    before = file.config
    assert look(file.set(resource, key, value)) == expected
    assert file.unset(resource, key) == before
    assert file.live.changes == ()


@pytest.mark.parametrize(
    ("resource", "key", "value", "look", "expected"),
    [
        ("provider/openai", "limit", "4", lambda c: (c.provider["openai"].limit, c.upstream["openai"].limit), (4, 4)),
        ("provider/many", "queue.max", "9", lambda c: [one.queue.max for one in c.upstream.values()], [256, 9, 9]),
        (
            "provider/openai",
            "url",
            "http://127.0.0.1:8",
            lambda c: c.upstream["openai"].weights(),
            {"http://127.0.0.1:8": 1},
        ),
        (
            "provider/openai",
            "limits.tokens_per_minute",
            "9",
            lambda c: c.provider["openai"].limits.tokens_per_minute,
            9,
        ),
        ("model/gpt-4o", "hedge", "2s", lambda c: c.model["gpt-4o"].hedge, "2s"),
        ("model/gpt-4o", "degrade", "org/gpt-4.1", lambda c: c.model["gpt-4o"].degrade, "org/gpt-4.1"),
        ("model/gpt-4o", "targets.many.weight", "3", lambda c: [t.weight for t in c.model["gpt-4o"].targets], [1, 3]),
        (
            "model/org/gpt-4.1",
            "targets.many/org/gpt-4.1.weight",
            "9",
            lambda c: [t.weight for t in c.model["org/gpt-4.1"].targets],
            [9, 1],
        ),
        (
            "model/org/gpt-4.1",
            "targets.many/other.limits.tokens_per_minute",
            "9",
            lambda c: [t.limits and t.limits.tokens_per_minute for t in c.model["org/gpt-4.1"].targets],
            [None, 9],
        ),
        ("model/org/gpt-4.1", "aliases", '["new"]', lambda c: c.model["org/gpt-4.1"].aliases, ("new",)),
        ("route/default", "llm.first_token", "5s", lambda c: c.route[0].llm.first_token, Duration(5)),
        ("route/default", "llm.cache", "{}", lambda c: c.route[0].llm.cache is not None, True),
        ("prompt/sum", "max_tokens", "50", lambda c: c.prompt[0].max_tokens, 50),
    ],
)
def test_any_key_of_models(
    resource: str, key: str, value: str, look: Callable[[Config], Any], expected: object
) -> None:
    """A provider's holds for each upstream that is made of it; names of models have dots and slashes of their own."""
    file = File(MODELS)
    before = file.config
    assert look(file.set(resource, key, value)) == expected
    assert file.unset(resource, key) == before


@pytest.mark.parametrize(
    ("resource", "key", "value", "says"),
    [
        ("upstream/openai", "limit", "4", "upstream/openai limit: it is made of a provider: set provider/openai"),
        ("upstream/many-b", "limit", "4", "it is made of a provider: set provider/many"),
        ("provider/opena", "limit", "4", "there is no provider 'opena'"),
        ("provider/openai", "limitt", "4", "set: provider/openai limitt: unknown key (did you mean limit?)"),
        ("provider/openai", "url", "nowhere", "set: provider/openai url: expected"),
        ("provider/openai", "keys", '["sk-1"]', "holds secrets; change the file and reload"),
        ("provider/openai", "headers.api-key", "sk-1", "holds secrets; change the file and reload"),
        ("provider", "openai.keys", '["sk-1"]', "holds secrets; change the file and reload"),
        ("provider", "openai", '{ keys = ["sk-1"] }', "provider/NAME: which provider?"),
        ("model/gpt-4o", "degrade", "gpt-4o", "is this model itself"),
        ("model/cheap", "hedge", "2s", "'cheap' is another name of model 'gpt-4o': set model/gpt-4o"),
        ("model/gpt-4o", "targets.none.weight", "2", "model/gpt-4o has no target of provider 'none'"),
        ("model/gpt-4o", "targets.many", "2", "targets.PROVIDER.weight"),
        ("model/gpt-4o", "targets.many.weight", "0", "must be 1 at least"),
        (
            "model/org/gpt-4.1",
            "targets.many.weight",
            "2",
            "several targets of provider 'many': which one? targets.many/org/gpt-4.1.weight or targets.many/other.w",
        ),
        ("model/org/gpt-4.1", "targets.many/none.weight", "2", "has no target of provider 'many/none'"),
        ("model/org/gpt-4.1", "targets.many/other", "2", "targets.PROVIDER.weight"),
        (
            "model/gpt-4o",
            "targets.many.weight",
            "0.1",
            "expected an integer, got a float: weights are compared, so 9 and 1 are 90 % and 10 %",
        ),
        ("model/gpt-4o", "price", "3", "model/gpt-4o price: unknown key (did you mean price of one of targets?)"),
        ("route/default", "llm.first_tokenn", "5s", "unknown key (did you mean first_token?)"),
    ],
)
def test_what_cannot_be_of_models(resource: str, key: str, value: str, says: str) -> None:
    """Nothing changes, it says why, and no secret is told."""
    file = File(MODELS)
    before = file.config
    with pytest.raises((ChangeError, ConfigError)) as caught:
        file.set(resource, key, value)
    assert says in str(caught.value)
    assert "sk-1" not in str(caught.value)
    assert file.config is before


def test_the_route_of_a_file_of_models_alone() -> None:
    """It serves them, and can be spoken of."""
    text = MODELS.partition("[[prompt]]")[0]
    assert File(text).set("route/default", "llm.attempts", "2").route[0].llm.attempts == 2  # type: ignore[union-attr]


def test_endpoints_of_providers_are_not_drained() -> None:
    """They have no weights that could be set."""
    assert endpoints_named(File(MODELS).config, "127.0.0.1:9") == []


def test_the_route_that_no_file_names() -> None:
    """With one upstream and no route there is the route "default", which can be spoken of."""
    file = File(f'[[listener]]\naddress = "127.0.0.1:1"\n[upstream.api]\nendpoints = ["{A}"]\n')
    assert file.set("route/default", "limit", "3").route[0].limit == 3


@pytest.mark.parametrize(
    ("resource", "key", "value", "says"),
    [
        ("upstream/api", "limit", "many", "set: upstream/api limit: expected one of"),
        ("upstream/api", "queue.max", "-1", "set: upstream/api queue.max: must not be negative"),
        ("upstream/api", "queue.maxx", "1", "set: upstream/api queue.maxx: unknown key (did you mean max?)"),
        ("upstream/api", "limit.max", "1", "upstream/api limit.max: there is no such key"),
        ("upstream/api", "", "1", "'' is no key"),
        ("upstream/apl", "limit", "1", "there is no upstream 'apl'"),
        ("route/x", "limit", "1", "there is no route 'x'"),
        ("listener/x", "backlog", "1", "there is no listener 'x'"),
        ("cache", "limit", "1", "'cache' is no resource; there are upstream/NAME"),
        ("key/k3v8n2pq", "tpm", "3", "'key/k3v8n2pq' is no resource of the configuration: keys set k3v8n2pq"),
        ("keys/k3v8n2pq", "tpm", "3", "'keys/k3v8n2pq' is no resource of the configuration: keys set k3v8n2pq"),
        ("tenant/acme", "limit", "3", "'tenant/acme' is no resource of the configuration: tenants set acme"),
        ("team/acme/core", "rpm", "3", "is no resource of the configuration: tenants set acme --team core"),
        ("access_log", "file", "x", "set: access_log file: unknown key (there are target, format)"),
        ("upstream/api", "max_idle", "3", "set: upstream/api max_idle: unknown key (did you mean pool.max_idle?)"),
        ("upstream/api", "endpoints.http://x.weight", "1", "upstream/api has no endpoint http://x"),
        ("upstream/api", f"endpoints.{A}.limit", "1", "an endpoint has weight and enabled"),
        ("upstream/api", f"endpoints.{A}.weight", "2000", "must be from 0 to 1000"),
        ("route/rest", "name", "x", "that is what it is found by"),
        ("listener/main", "backlog", "1", "there is no listener 'main'; there are 127.0.0.1:8080"),
        ("route/rset", "paused", "true", "there is no route 'rset' (did you mean rest?)"),
        ("upstream/apj", "limit", "1", "there is no upstream 'apj' (did you mean api?)"),
        (
            "upstream/api",
            "endpoints.http://10.0.0.7:900.weight",
            "0",
            f"no endpoint http://10.0.0.7:900 (did you mean {A}?)",
        ),
        ("upstreams/api", "limit", "1", "'upstreams/api' is no resource (did you mean upstream/api?)"),
        ("route", "paused", "true", "route/NAME: which route?"),
        ("route/rest", "upstream", "x", 'set: route/rest upstream: there is no upstream "x"'),
        ("rate/plan", "limits", '["0/s"]', "set: rate/plan limits: expected"),
        ("server", "changes", "/tmp/x", "only read from the file"),
        ("listener/127.0.0.1:8080", "send_buffer", "2GiB", "send_buffer: may be 2147483647B at most"),
        ("listener/127.0.0.1:8080", "receive_buffer", "4GiB", "receive_buffer: may be 2147483647B at most"),
        ("upstream/api", "receive_buffer", "4GiB", "receive_buffer: may be 2147483647B at most"),
        ("protect", "memory", "9" * 400, "set: protect memory: may be 2147483647 at most"),
        ("explain", "slow", "9" * 400 + "s", "set: explain slow: a duration may be 366 days at most"),
        ("upstream/api", "endpoints", "[]", "set: upstream/api endpoints: an upstream needs an endpoint at least"),
    ],
)
def test_a_wrong_value_changes_nothing(resource: str, key: str, value: str, says: str) -> None:
    """It gets the message that the file would get, in the words of who typed it."""
    file = File()
    before = file.config
    with pytest.raises((ConfigError, ChangeError)) as caught:
        file.set(resource, key, value)
    assert says in str(caught.value)
    assert file.config is before
    assert file.live.changes == ()


def test_names_that_are_secrets_are_not_set() -> None:
    """Tenants that are known by a credential are not spoken of, nor turned into names that can be."""
    file = File(FILE.replace('"header:x-tenant"', '"header:authorization"\nweights = { hunter1 = 2 }'))
    with pytest.raises(ChangeError, match=r"the names in tenant\.weights are secrets"):
        file.set("tenant", "key", "route")
    with pytest.raises(ChangeError, match="tenant weights: holds secrets") as caught:
        file.set("tenant", "weights.hunter2", "4")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ChangeError, match=r"tenant \*\*\* is not set: show changes"):
        file.unset("tenant", "weights.hunter2")
    with pytest.raises(ChangeError, match="trace headers: holds secrets"):
        file.set("trace", "headers.authorization", "hunter3")


def test_time_to_live() -> None:
    """A change ends at its time, and not before; the others stay."""
    file = File()
    file.set("upstream/api", "limit", "64", until=100.0)
    file.set("upstream/api", "queue.max", "7")
    assert file.live.next_end() == 100.0
    assert file.live.expired(99.9) is None
    plan = file.live.expired(100.0)
    assert plan is not None
    assert (plan.config.upstream["api"].limit, plan.config.upstream["api"].queue.max) == (20, 7)
    assert [one.why for one in plan.ended] == ["its time is over"]
    file.live.commit(plan)
    assert file.live.next_end() is None


def test_a_reload_keeps_what_it_does_not_touch() -> None:
    """The file has the last word where it says something new; everywhere else changes stay."""
    file = File()
    file.set("upstream/api", "limit", "64")
    file.set("upstream/api", "queue.max", "7")
    file.set("route/rest", "limit", "3")
    assert file.reload(FILE.replace("max = 5", "max = 6")) == [
        "the file says something else there than when it was set"
    ]
    api = file.config.upstream["api"]
    assert (api.limit, api.queue.max, file.config.route[1].limit) == (64, 6, 3)
    assert file.reload(FILE.replace('name = "rest"', 'name = "last"')) == [
        "there is no route 'rest'; there are checkout, last"
    ]
    assert [one.name for one in file.live.changes] == ["upstream/api limit"]


def test_a_reload_of_a_wrong_file_changes_nothing() -> None:
    """The file is to blame, not what is set."""
    file = File()
    file.set("upstream/api", "limit", "64")
    with pytest.raises(ConfigError, match=r"edgeq\.toml"):
        file.reload(FILE.replace("limit = 20", "limit = -20"))
    assert file.config.upstream["api"].limit == 64


@pytest.mark.parametrize(
    "text",
    [
        "upstream = 5",
        "upstream = { api = 5 }",
        "upstream = { api = { endpoints = 5 } }",
        f'upstream = {{ api = {{ endpoints = ["{A}"], queue = 5 }} }}',
        "route = 5",
        "route = [5]",
        "route = { name = 'rest' }",
        "listener = 5",
        "tenant = 5",
        "",
    ],
)
def test_a_reload_of_what_is_no_configuration(text: str) -> None:
    """Where a table should be there is something else: the file is to blame, whatever is set."""
    file = File()
    file.set("upstream/api", "queue.max", "64")
    file.set("upstream/api", f"endpoints.{B}.weight", "0")
    file.set("route/rest", "limit", "3")
    file.set("listener/127.0.0.1:8080", "backlog", "3")
    file.set("tenant", "limit", "3")
    with pytest.raises(ConfigError, match=r"edgeq\.toml"):
        file.reload(text)
    assert len(file.live.changes) == 5


def test_what_does_not_go_with_a_new_file_ends() -> None:
    """A change that would make a good file wrong is dropped, with the reason, and only that one."""
    file = File()
    file.set("rate/plan", "routes", '["rest"]')
    file.set("upstream/api", "limit", "64")
    (why,) = file.reload(FILE.replace('name = "rest"', 'name = "last"'))
    assert why.startswith('set: rate/plan routes: there is no route "rest"')
    assert file.config.upstream["api"].limit == 64


def test_a_change_for_a_while_ends_in_the_persisted_one() -> None:
    """Two layers: what outlives a restart, and what does not."""
    file = File()
    file.set("upstream/api", "limit", "64", persisted=True)
    assert file.set("upstream/api", "limit", "32", until=10.0).upstream["api"].limit == 32
    plan = file.live.expired(10.0)
    assert plan is not None
    assert plan.config.upstream["api"].limit == 64
    assert file.set("upstream/api", "limit", "50", persisted=True).upstream["api"].limit == 50
    assert len(file.live.changes) == 1
    assert file.unset("upstream/api", "limit").upstream["api"].limit == 20


def test_a_table_as_a_whole() -> None:
    """It replaces what was set within it; what is set within it later stays, and endpoints keep their states."""
    file = File()
    file.set("upstream/api", "queue.max", "7")
    assert file.set("upstream/api", "queue", '{ timeout = "2s" }').upstream["api"].queue.max == 256
    assert file.set("upstream/api", "queue.max", "8").upstream["api"].queue.timeout == Duration(2)
    file.set("upstream/api", f"endpoints.{A}.weight", "0")
    config = file.set("upstream/api", "endpoints", f'["{A}", "http://10.0.0.9:9000"]')
    assert config.upstream["api"].weights() == {A: 0, "http://10.0.0.9:9000": 1}


def test_undoing_what_the_file_says() -> None:
    """`undrain` takes a change back; where the file itself drains, it sets a weight."""
    key = f"endpoints.{B}.weight"
    file = File()
    file.set("upstream/api", key, "0")
    assert file.live.plan(Change("upstream/api", key, None), "1", "0").config.upstream["api"].weights()[B] == 3
    file = File(FILE.replace("weight = 3", "weight = 0"))
    plan = file.live.plan(Change("upstream/api", key, None), "1", "0")
    assert plan.config.upstream["api"].weights()[B] == 1
    assert len(plan.changes) == 1
    # Drained by a list that was set as a whole: there is no change of the weight to take back.
    file = File()
    file.set("upstream/api", "endpoints", f'["{A}", {{ url = "{B}", weight = 0 }}]')
    file.live.commit(file.live.plan(Change("upstream/api", key, None), "1", "0"))
    assert file.config.upstream["api"].weights() == {A: 1, B: 1}
    with pytest.raises(NotSet):
        file.live.plan(Change("upstream/api", f"endpoints.{A}.weight", None), "1", "0")
    for wish in (Change("route/nowhere", "paused", None), Change("upstream/apj", key, None)):
        with pytest.raises(ChangeError, match=r"there is no (route|upstream) '"):
            file.live.plan(wish, None)


def test_changes_are_bounded() -> None:
    """What is forgotten there is nobody's configuration any more."""
    routes = "".join(
        f'[[route]]\nname = "r{n}"\nmatch = {{ path = "/{n}" }}\nupstream = "api"\n' for n in range(MAX_CHANGES + 1)
    )
    file = File(FILE + routes)
    changes = tuple(Change(f"route/r{n}", "limit", 1) for n in range(MAX_CHANGES))
    file.live.commit(replace(file.live.reload(0.0), changes=changes))
    with pytest.raises(ChangeError, match="256 changes are set already"):
        file.set(f"route/r{MAX_CHANGES}", "limit", "1")


def test_which_endpoint_is_meant() -> None:
    """By URL or address; who says which upstream means only that one's."""
    config = load_text(FILE, "f").config
    assert endpoints_named(config, "10.0.0.8:9000") == [("api", B)]
    assert endpoints_named(config, A) == [("api", A), ("other", A)]
    assert endpoints_named(config, f"upstream/other#{A}") == [("other", A)]
    assert endpoints_named(config, "other#10.0.0.7:9000") == [("other", A)]
    assert endpoints_named(config, "nobody") == []
    text = FILE.replace(
        f'endpoints = ["{A}"]', 'endpoints = ["http://10.0.0.9", "https://[0::1]", "unix:///run/a.sock"]'
    )
    config = load_text(text, "f").config
    for shown, url in (  # as `show endpoints` and refusals write addresses
        ("10.0.0.9:80", "http://10.0.0.9"),
        ("[::1]:443", "https://[0::1]"),
        ("unix:/run/a.sock", "unix:///run/a.sock"),
    ):
        assert endpoints_named(config, f"upstream/other#{shown}") == [("other", url)]
    assert isinstance(config.upstream["api"].endpoints[1], Endpoint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("1s", "1s"),
        ('"1s"', "1s"),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("a b", "a b"),
        ("", ""),
        ("[" * 3000, "[" * 3000),  # deeper than tomllib can go
        ("9" * 5000, "9" * 5000),  # longer than int() takes
    ],
)
def test_values_as_they_are_typed(text: str, value: object) -> None:
    """TOML, or else a word."""
    assert parse_value(text) == value


def test_a_value_is_one_value() -> None:
    """A line break brings no second key in."""
    assert parse_value("1\nb = 2") == "1\nb = 2"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_values_are_written_as_they_are_read(value: object) -> None:
    """Whatever a key may have as its value."""
    assert parse_value(toml(value)) == value


def test_the_file_of_changes(tmp_path: Path) -> None:
    """What is written is read again; rights stay; a folder is made; what is no such file is an error that names it."""
    path = str(tmp_path / "edgeq.toml.d" / "changes.toml")
    assert read_changes(path) == ()
    changes = (
        Change("upstream/api", "limit", 64, 20, 0, 0, 1000.0, 2000.0, 'a "sale"\u2028', True),
        Change("upstream/api", f"endpoints.{A}.weight", 0, None, 1, 0, 1000.5, None, "", True),
    )
    write_changes(path, changes)
    assert read_changes(path) == changes
    os.chmod(path, 0o604)
    write_changes(path, changes[:1])
    assert read_changes(path) == changes[:1]
    assert os.stat(path).st_mode & 0o777 == 0o604
    assert os.listdir(os.path.dirname(path)) == ["changes.toml"]
    target = tmp_path / "elsewhere.toml"
    os.rename(path, target)
    os.symlink(target, path)
    write_changes(path, changes)
    assert os.path.islink(path)
    assert read_changes(str(target)) == changes
    Path(path).write_text('[[change]]\nresource = "upstream/api"\nkey = "limit"\nvalue = 1\n')
    with pytest.raises(ConfigError, match="a change in it has no 'since'; move it away to start without"):
        read_changes(path)
    for text in ("[[change]]\nkey = 1\n", "change = 5\n", "nonsense", "a = " + "[" * 5000):
        Path(path).write_text(text)
        with pytest.raises(ConfigError, match="no file of edgeq's live changes"):
            read_changes(path)


def test_a_reload_reads_what_is_kept_too() -> None:
    """With a file of changes that is none nobody could start again: who reloads is told."""
    kept: list[ConfigError] = []

    def read(_path: str) -> tuple[Change, ...]:
        if kept:
            raise kept[0]
        return ()

    live = Live(lambda: read_text(FILE, "edgeq.toml"), read, 0.0)
    live.reload(0.0)
    kept.append(ConfigError([Problem("changes.toml", 0, "", "no file of edgeq's live changes")]))
    with pytest.raises(ConfigError, match="no file of edgeq's live changes"):
        live.reload(0.0)


def test_what_was_kept_holds_after_a_start(tmp_path: Path) -> None:
    """As long as the file says the same as before and its time is not over."""
    kept = (
        Change("upstream/api", "limit", 64, 20, persisted=True),
        Change("upstream/api", "queue.max", 6, 4, persisted=True),
        Change("route/rest", "limit", 6, until=-1.0, persisted=True),
    )
    file = File(kept=kept)
    assert file.live.changes == kept[:1]
    assert [one.why for one in file.live.ended] == [
        "the file says something else there than when it was set",
        "its time is over",
    ]
    assert file.config.upstream["api"].limit == 64
