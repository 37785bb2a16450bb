"""What a reload changes."""

from __future__ import annotations

import pytest

from edgeq.config.diff import Changes, diff
from edgeq.config.load import load_text

OLD = """
[server]
workers = 2
[[listener]]
name = "web"
address = "127.0.0.1:1"
[[listener]]
address = "127.0.0.1:2"
[upstream.api]
endpoints = ["http://127.0.0.1:9"]
[upstream.old]
endpoints = ["http://127.0.0.1:8"]
[[route]]
name = "a"
upstream = "api"
[[route]]
name = "b"
upstream = "old"
match.path = "/b/*"
"""


MODELS = """
[[listener]]
address = "127.0.0.1:1"
[provider.p]
url = "http://127.0.0.1:9/v1"
keys = ["sk-first"]
[model.m]
targets = [{ provider = "p" }]
"""


def change(*replacements: tuple[str, str]) -> Changes:
    """The difference after some edits."""
    text = OLD
    for before, after in replacements:
        assert before in text
        text = text.replace(before, after)
    return diff(load_text(OLD, "old").config, load_text(text, "new").config)


def test_nothing() -> None:
    """Equal configurations have no difference."""
    changes = change()
    assert not changes
    assert changes.summary == ()
    assert changes.workers is None


def test_values_in_place() -> None:
    """Limits of a listener and of an upstream change in place, and are shown as the file writes them."""
    changes = change(
        ('address = "127.0.0.1:2"', 'address = "127.0.0.1:2"\ntimeouts.head = "250ms"\nlimits.header_bytes = "64KiB"'),
        ("[upstream.old]", "[upstream.api.pool]\nmax_idle = 64\n[upstream.old]"),
        ("[server]", '[access_log]\ntarget = "off"\n[server]'),
    )
    assert [pair[1].name for pair in changes.listeners_changed] == ["127.0.0.1:2"]
    assert not changes.listeners_rebound
    assert changes.upstreams_changed == ("api",)
    assert changes.tables_changed == ("access_log",)
    assert not changes.routes_changed
    assert changes.summary == (
        'listener."127.0.0.1:2".timeouts.head: 10s -> 250ms',
        'listener."127.0.0.1:2".limits.header_bytes: 32KiB -> 64KiB',
        "upstream.api.pool.max_idle: 256 -> 64",
        'access_log.target: "stdout" -> "off"',
    )


def test_sockets() -> None:
    """Addresses and backlogs need the supervisor: a named listener is rebound, an unnamed one is another."""
    changes = change(("127.0.0.1:1", "127.0.0.1:3"), ("127.0.0.1:2", "127.0.0.1:4"))
    assert [(old.address, new.address) for old, new in changes.listeners_rebound] == [("127.0.0.1:1", "127.0.0.1:3")]
    assert [one.name for one in changes.listeners_added] == ["127.0.0.1:4"]
    assert [one.name for one in changes.listeners_removed] == ["127.0.0.1:2"]
    changes = change(('"127.0.0.1:2"', '"127.0.0.1:2"\nbacklog = 5'))
    assert [new.backlog for _, new in changes.listeners_rebound] == [5]


def test_upstreams_and_routes() -> None:
    """What comes and goes is named; an order alone is a change too."""
    changes = change(("[upstream.old]", "[upstream.new]"), ('upstream = "old"', 'upstream = "new"'))
    assert (changes.upstreams_added, changes.upstreams_removed) == (("new",), ("old",))
    assert changes.routes_changed
    assert changes.summary == (
        "upstream.old: removed",
        "upstream.new: added",
        'route.b.upstream: "old" -> "new"',
    )
    changes = change(('name = "a"', 'name = "x"'), ('name = "b"', 'name = "a"'), ('name = "x"', 'name = "b"'))
    assert changes.routes_changed
    assert "route: order changed" in changes.summary


def test_workers_and_what_needs_a_start() -> None:
    """The number of workers is reported as a pair; the admin socket's path only takes effect at the next start."""
    changes = change(("workers = 2", 'workers = 4\nadmin = "/run/a"'))
    assert changes.workers == (2, 4)
    assert changes.restart == ("server.admin",)
    assert changes.summary == ("server.workers: 2 -> 4", 'server.admin: "" -> "/run/a"')


def test_rates_and_tenants() -> None:
    """A rate is known by its name; routes are made anew for it."""
    rate = '[[rate]]\nname = "r"\nby = "client"\nlimits = ["1/s"]\n'
    changes = change(
        ('[[route]]\nname = "a"', f'[tenant]\nkey = "route"\nweights = {{ a = 2 }}\n{rate}[[route]]\nname = "a"')
    )
    assert changes.routes_changed
    assert changes.tables_changed == ("tenant",)
    assert changes.summary == (
        "rate.r: added",
        'tenant.key: "" -> "route"',
        "tenant.weights: {} -> {a = 2}",
    )


def test_caches_and_fallbacks() -> None:
    """They come, change and go with their routes."""
    old = OLD.replace('name = "a"', 'name = "a"\ncache = { join = "1s" }')
    new = OLD.replace('name = "a"', 'name = "a"\ncache = { join = "2s" }\nfallback.answer.status = 200')
    changes = diff(load_text(old, "old").config, load_text(new, "new").config)
    assert changes.routes_changed
    assert changes.summary == ("route.a.cache.join: 1s -> 2s", "route.a.fallback: added")


def test_credentials_are_not_shown() -> None:
    """Who has a weight by his credential is known by it; the summary goes to the log."""
    text = '[tenant]\nkey = "{}"\nweights = {{ "{}" = {} }}\n[server]'
    for key in ("key", "header:X-Api-Key", "header:authorization"):
        for name, weight in (("sk-other", 2), ("sk-first", 3)):
            old, new = text.format(key, "sk-first", 2), text.format(key, name, weight)
            changes = diff(
                load_text(OLD.replace("[server]", old), "old").config,
                load_text(OLD.replace("[server]", new), "new").config,
            )
            assert changes.tables_changed == ("tenant",)
            assert changes.summary
            assert "sk-" not in str(changes.summary)


def test_stuck_workers_are_judged_anew_after_a_reload() -> None:
    """The supervisor asks for these times at each look."""
    changes = change(("[server]", '[server]\nstuck.after = "5s"'))
    assert changes.restart == ()
    assert "server.stuck.after: 2s -> 5s" in changes.summary


def test_headers_of_the_collector_are_not_shown() -> None:
    """That they have changed is told, and what they were and are is not."""
    text = '[trace]\nratio = {}\nheaders = {{ a = "{}" }}\n[server]'
    old, new = (OLD.replace("[server]", text.format(*one)) for one in ((0.1, "s3cret"), (0.5, "s3cret-too")))
    changes = diff(load_text(old, "old").config, load_text(new, "new").config)
    assert changes.tables_changed == ("trace",)
    assert changes.summary == ("trace.headers: changed", "trace.ratio: 0.1 -> 0.5")
    added = diff(load_text(OLD, "old").config, load_text(new, "new").config)
    assert added.summary == ("trace: added",)


def test_admin_rights_change_in_place() -> None:
    """Mode and group of the admin socket follow a reload; its path and the address of metrics need a start."""
    changes = change(("[server]", '[server]\nadmin = "/x"\nadmin_mode = "0600"\nmetrics = "127.0.0.1:9"'))
    assert changes.restart == ("server.admin", "server.metrics")
    assert 'server.admin_mode: "0660" -> "0600"' in changes.summary


def test_history_needs_no_start() -> None:
    """Its length and the place of its files follow a reload."""
    changes = change(("[server]", '[server]\nhistory = "1m"\ndumps = "/x"'))
    assert changes.restart == ()
    assert changes.summary == ("server.history: 5m -> 1m", 'server.dumps: "" -> "/x"')


def test_providers_and_models_are_told_without_secrets() -> None:
    """What changed of a provider is told once, of the provider, and never what its keys are."""
    new = MODELS.replace("sk-first", "sk-second").replace("\n[model.m]", '\nlimit = 4\n[model.m]\naliases = ["n"]')
    found = diff(load_text(MODELS, "old").config, load_text(new, "new").config)
    assert found.summary == (
        "provider.p.keys: changed",
        "provider.p.limit: 1000 -> 4",
        'model.m.aliases: [] -> ["n"]',
    )
    assert found.upstreams_changed == ("p",)
    gone = diff(
        load_text(MODELS, "old").config,
        load_text(MODELS.replace("provider.p", "provider.q").replace('"p"', '"q"'), "new").config,
    )
    assert gone.summary == ("provider.p: removed", "provider.q: added", "model.m.targets: changed")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("/v1?key=first", "/v1?key=second", ("url: changed",)),
        ("/v1?key=first", "/b?key=first", ('url: "http://127.0.0.1:9/v1?key=***" -> "http://127.0.0.1:9/b?key=***"',)),
    ],
)
def test_a_secret_in_the_url_of_a_provider_is_not_told(before: str, after: str, told: tuple[str, ...]) -> None:
    """These lines are logged."""
    old, new = (load_text(MODELS.replace("/v1", one), "f").config for one in (before, after))
    found = diff(old, new)
    assert tuple(one.removeprefix("provider.p.") for one in found.summary) == told
