"""[provider], [model] and [route.llm]: what they stand for, and every mistake in them named with its line and key."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edgeq.config.load import load_file, load_text
from edgeq.config.schema_llm import Accounts, Prompt, PromptMessage, RouteLlm, Variable
from edgeq.config.shown import MASK, leaves, masked_value
from edgeq.errors import ConfigError

BASE = """
[[listener]]
address = "127.0.0.1:0"
[provider.p]
url = "http://127.0.0.1:9/v1"
[model.m]
targets = [{ provider = "p" }]
"""


def problems(text: str) -> list[str]:
    """What is wrong, each with its place."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f.toml")
    return [str(one) for one in caught.value.problems]


def test_models_without_a_route_are_served_at_every_path() -> None:
    """The smallest file: a provider, a model."""
    config = load_text(BASE, "f.toml").config
    assert [(route.name, route.match.path, route.llm) for route in config.route] == [("default", "/*", RouteLlm())]
    assert list(config.upstream) == ["p"]
    assert config.upstream["p"].endpoints == ("http://127.0.0.1:9",)


def test_each_key_is_an_upstream() -> None:
    """Keys have limits and a state of their own."""
    text = BASE.replace(
        '/v1"\n', '/v1"\nkeys = ["secret-a", { key = "secret-b", name = "b", weight = 2 }]\nlimit = 7\n'
    )
    config = load_text(text, "f.toml").config
    assert list(config.upstream) == ["p-1", "p-b"]
    assert {one.limit for one in config.upstream.values()} == {7}


def test_secrets_are_masked_wherever_the_configuration_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of secrets are told, secrets are not."""
    monkeypatch.setenv("P_KEY", "x-secret")
    text = BASE.replace(
        '/v1"\n', '/v1"\nkeys = ["x-secret", { key = "env:P_KEY", name = "b" }]\nheaders = { api-key = "x-secret" }\n'
    )
    shown = [leaf.value for leaf in leaves(load_text(text, "f.toml").config)]
    assert not [value for value in shown if "x-secret" in value]
    assert [value for value in shown if MASK in value]
    assert [value for value in shown if "env:P_KEY" in value]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://x/v1beta?key=s3cret", "https://x/v1beta?key=***"),
        ("https://x/v1?a=s3cret&b=s3cret=&api-version=2024-10-21", "https://x/v1?a=***&b=***&api-version=2024-10-21"),
        ("https://x/v1?s3cret", "https://x/v1?***"),
        ("https://x/v1?key=&api-version=s3", "https://x/v1?***&api-version=s3"),
        ("https://x/a&b/v1", "https://x/a&b/v1"),
    ],
)
def test_values_in_the_query_of_a_url_are_masked(url: str, shown: str) -> None:
    """Gemini's own examples have their key there."""
    config = load_text(BASE.replace("http://127.0.0.1:9/v1", url), "f.toml").config
    assert [leaf.value for leaf in leaves(config) if leaf.key == "provider.p.url"] == [f'"{shown}"']
    assert masked_value(("provider", "p", "url"), url) == shown
    assert masked_value(("provider", "p", "engine"), url) == url


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('provider = "p"', 'provider = "q"', 'f.toml:7: model.m.targets[0].provider: there is no provider "q"'),
        ('"http://127.0.0.1:9/v1"', '"ftp://x"', "f.toml:5: provider.p.url: expected"),
        ('"http://127.0.0.1:9/v1"', '"http://x/v1#a"', "f.toml:5: provider.p.url: a provider's URL is visible ASCII"),
        (
            '/v1"\n',
            '/v1"\nkeys = ["env:EDGEQ_NO_SUCH"]\n',
            'f.toml:6: provider.p.keys[0]: there is no variable "EDGEQ_NO_SUCH" in this environment: a service that',
        ),
        ('/v1"\n', '/v1"\nkeys = ["credential:k"]\n', "f.toml:6: provider.p.keys[0]: there are no credentials here"),
        ('/v1"\n', '/v1"\nkeys = ["$MY_KEY"]\n', "f.toml:6: provider.p.keys[0]: would be sent as it is: a variable"),
        ('/v1"\n', '/v1"\nkeys = ["os.environ/MY_KEY"]\n', "f.toml:6: provider.p.keys[0]: would be sent as it is"),
        ('/v1"', '/v1/chat/completions"', 'f.toml:5: provider.p.url: is where the API begins: leave out "/chat/'),
        ('/v1"\n', '/v1"\nkeys = [{ key = "k", weight = 0 }]\n', "f.toml:6: provider.p.keys[0].weight: must be 1"),
        ('/v1"\n', '/v1"\ntls.key = "/x"\n', "f.toml:6: provider.p.tls.key: a key without a certificate"),
        ('/v1"\n', '/v1"\ntls.ca = "/nope"\n', 'f.toml:6: provider.p.tls.ca: "/nope" cannot be read'),
        ('/v1"\n', '/v1"\npool.max_connections = 0\n', "f.toml:6: provider.p.pool.max_connections: must be"),
        ('/v1"\n', '/v1"\nbreaker.failures = 5.0\n', "f.toml:6: provider.p.breaker.failures: a share is"),
        ('/v1"\n', '/v1"\nretry_budget.concurrent = 2\n', "f.toml:6: provider.p.retry_budget.concurrent: "),
        ('/v1"\n', '/v1"\nheaders = { Host = "x" }\n', "f.toml:6: provider.p.headers.Host: is no name of a header"),
        ('/v1"\n', '/v1"\ndialect = "cohere"\n', "f.toml:6: provider.p.dialect: "),
        ('provider = "p" }]', 'provider = "p", weight = 0 }]', "f.toml:7: model.m.targets[0].weight: must be 1"),
        (
            'provider = "p" }]',
            (
                'provider = "p" }]\ndegrade = "n"\n[model.n]\ntargets = [{ provider = "p" }]\ndegrade = "o"\n'
                '[model.o]\ntargets = [{ provider = "p" }]\ndegrade = "n"'
            ),
            "f.toml:11: model.n.degrade: goes in a circle: n -> o -> n",
        ),
        ('provider = "p" }]', 'provider = "p" }]\ndegrade = "n"', 'f.toml:8: model.m.degrade: there is no model "n"'),
        ('/v1"\n', '/v1"\nlimits.tpm = 5\n', "f.toml:6: provider.p.limits.tpm: unknown key (did you mean tokens_per_m"),
        ('/v1"\n', '/v1"\ntpm = 5\n', "f.toml:6: provider.p.tpm: unknown key (did you mean limits.tokens_per_minute?)"),
        (
            'provider = "p" }]',
            'provider = "p", rpm = 5 }]',
            "f.toml:7: model.m.targets[0].rpm: unknown key (did you mean limits.requests_per_minute?)",
        ),
        (
            'provider = "p" }]',
            'provider = "p" }]\nfallbacks = ["n"]',
            "f.toml:8: model.m.fallbacks: unknown key (further targets of [model.NAME] answer when the",
        ),
        ('provider = "p" }]', 'provider = "p" }]\nhedge = "soon"', "f.toml:8: model.m.hedge: expected"),
        (
            'provider = "p" }]',
            'provider = "p" }]\nlimits.tokens_per_min = 5',
            "f.toml:8: model.m.limits.tokens_per_min",
        ),
        ('targets = [{ provider = "p" }]', "targets = []", "f.toml:7: model.m.targets: a model needs a target"),
    ],
)
def test_single_problems(old: str, new: str, says: str) -> None:
    """Each mistake is blamed once, on its own line and key."""
    found = problems(BASE.replace(old, new, 1))
    assert len(found) == 1, found
    assert found[0].startswith(says)


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ('upstream = "u"\nllm = {}', "route[0].upstream: a route with llm is answered by providers"),
        ("llm = {}\ncache = {}", "route[0].cache: does not go with llm"),
        ('llm = {}\nretry = { on = ["reset"] }', "route[0].retry: does not go with llm"),
        ('llm = {}\nrewrite = "/x"', "route[0].rewrite: does not go with llm"),
        ('llm = { models = ["x"] }', 'route[0].llm.models[0]: there is no model "x"'),
        ('llm = { model = "mm" }', 'route[0].llm.model: there is no model "mm" (did you mean m?)'),
        ("llm = { attempts = 0 }", "route[0].llm.attempts: must be 1 at least"),
        ("", "route[0].upstream: missing"),
    ],
)
def test_routes_with_models(route: str, says: str) -> None:
    """What does not go together is said."""
    text = f'{BASE}\n[upstream.u]\nendpoints = ["http://127.0.0.1:9"]\n[[route]]\nname = "r"\n{route}\n'
    found = problems(text)
    assert any(says in one for one in found), found


def test_a_name_that_two_models_have() -> None:
    """An alias is a name, too."""
    found = problems(BASE + '[model.n]\naliases = ["m"]\ntargets = [{ provider = "p" }]\n')
    assert found == ['f.toml:8: model.n: "m" is a name of model "m" already']


def test_a_provider_that_is_called_like_an_upstream() -> None:
    """Both would be one queue."""
    found = problems(BASE + '[upstream.p]\nendpoints = ["http://127.0.0.1:9"]\n[[route]]\nname = "r"\nllm = {}\n')
    assert any('there is an upstream "p" already' in one for one in found)


def test_the_example_of_models_is_right(tmp_path: Path) -> None:
    """It passes, and every key that it shows commented out exists with that default."""
    example = Path(__file__).parents[2] / "llm.toml.example"
    config = load_file(str(example)).config
    shown = "\n".join(
        line.removeprefix("# ") if " = " in line.partition("#")[2] and line.startswith("# ") else line
        for line in example.read_text().splitlines()[6:]
        if not line.startswith(("# cache", "# endpoints", "# accounts"))
    )
    assert load_text(shown, "shown").config == config
    (accounts,) = (line for line in example.read_text().splitlines() if line.startswith("# accounts"))
    assert Accounts().store in accounts
    store = str(tmp_path / "accounts.sqlite")
    there = f"{accounts.removeprefix('# ').replace(Accounts().store, store)}\n{shown}"
    assert load_text(there, "shown").config.accounts == Accounts(store=store)
    words = set(re.findall(r"\w+", example.read_text()))
    for table in (Accounts, Prompt, PromptMessage, Variable):
        assert not {field.encode_name for field in msgspec.structs.fields(table)} - words
