"""Prompts in a configuration, right and wrong: what is wrong is named with its line's key."""

from __future__ import annotations

import pytest

from edgeq.config.load import load_text
from edgeq.errors import ConfigError

BASE = """
[[listener]]
address = "127.0.0.1:8080"
[provider.p]
url = "http://127.0.0.1:9000/v1"
[model.small]
targets = [{ provider = "p" }]
[model.large]
targets = [{ provider = "p" }]
[upstream.api]
endpoints = ["http://127.0.0.1:9001"]
[[route]]
name = "llm"
match = { path = "/v1/*" }
llm = { models = ["small"] }
[[route]]
name = "web"
upstream = "api"
"""

PROMPT: dict[str, str] = {
    "name": '"summarize"',
    "path": '"/p/summarize"',
    "route": '"llm"',
    "model": '"small"',
    "messages": '[{ role = "user", text = "{{text}}" }]',
    "variables": "{ text = {} }",
}


def problems(*prompts: dict[str, str]) -> list[str]:
    """What is wrong, without file and line."""
    text = BASE
    for one in prompts:
        text += "[[prompt]]\n" + "".join(f"{key} = {value}\n" for key, value in {**PROMPT, **one}.items())
    try:
        load_text(text, "f")
    except ConfigError as error:
        return [line.split(": ", 1)[1] for line in str(error).splitlines()]
    return []


def test_a_good_one() -> None:
    """Two versions may share a path."""
    assert problems() == []
    assert problems({}, {"version": '"2"'}) == []


def test_texts_have_lines() -> None:
    """And signs that are not seen; a JSON Schema, too."""
    lines = {
        "messages": """[{ role = "user", text = '''
        Summarize \U0001f469\u200d\U0001f4bb:
        \t{{text}}''' }]""",
        "json_schema": """'''
        {"type":
         "object"}'''""",
    }
    assert problems(lines) == []
    assert problems({"messages": '[{ role = "user", text = "{{text}}\\u0007" }]'}) == [
        "prompt[0].messages[0].text: contains a control character"
    ]
    assert problems({"messages": '[{ role = "user", text = 5 }]'}) == [
        "prompt[0].messages[0].text: expected a string, got an integer"
    ]


@pytest.mark.parametrize(
    "variable",
    [
        '{ type = "number", min = -5.5, max = -1, default = -2.5 }',
        '{ type = "integer", min = -5, default = -3 }',
        '{ type = "number", default = 0.5 }',
        '{ type = "boolean", default = true }',
        '{ default = "x" }',
        '{ type = "list", default = ["x", "y"] }',
        '{ type = "list", default = [] }',
        '{ type = "list", required = false, min = 1, max = 5 }',
    ],
)
def test_variables(variable: str) -> None:
    """Numbers may be negative, and a default of each kind."""
    assert problems({"variables": f"{{ text = {variable} }}"}) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": '"a b"'}, "name"),
        ({"path": '"p"'}, 'a path begins with "/"'),
        ({"path": '"/p/*"'}, "a prompt has one path"),
        ({"route": '"lm"'}, "did you mean llm?"),
        ({"route": '"web"'}, "serves no models"),
        ({"model": '"smal"'}, "did you mean small?"),
        ({"model": '"large"'}, "see its llm.models"),
        ({"max_tokens": "-1"}, "must not be negative"),
        ({"temperature": "3.0"}, "from 0 to 2"),
        ({"limits": "{ money_per_day = -1.0 }"}, "must not be negative"),
        ({"json_schema": "'{'"}, "is not valid JSON"),
        ({"json_schema": "'[]'"}, "must be a JSON object"),
        ({"messages": "[]", "variables": "{}"}, "a message of the user"),
        ({"messages": "[]"}, "a message of the user"),
        ({"messages": '[{ role = "system", text = "{{text}}" }]'}, "a message of the user"),
        ({"messages": '[{ role = "user", text = "{{tex}} {{text}}" }]'}, "did you mean text?"),
        ({"messages": '[{ role = "user", text = "{{text}} {{a b}}" }]'}, '"{{a b}}" is no variable'),
        ({"variables": "{ text = {}, more = {} }"}, "no message uses it"),
        ({"variables": "{ text = { max_length = 0 } }"}, "must be 1 at least"),
        ({"variables": "{ text = { min = 1.0 } }"}, "see max_length"),
        ({"variables": '{ text = { type = "integer", min = 2.0, max = 1.0 } }'}, "is above max"),
        ({"variables": '{ text = { type = "enum" } }'}, "what it may be"),
        ({"variables": '{ text = { values = ["a"] } }'}, "is for type"),
        ({"variables": '{ text = { type = "enum", values = ["a"], default = "b" } }'}, "text must be one of a"),
        ({"variables": '{ text = { type = "integer", default = true } }'}, "text must be an integer"),
        ({"variables": '{ text = { type = "list", default = ["a", 1] } }'}, "expected a string, got an integer"),
        ({"variables": '{ text = { type = "list", default = "a" } }'}, "text must be a list of strings"),
        ({"variables": '{ text = { default = ["a"] } }'}, "text must be a string"),
    ],
    ids=str,
)
def test_what_is_wrong(change: dict[str, str], expected: str) -> None:
    """One mistake, one message, at its key."""
    found = problems(change)
    assert len(found) == 1, found
    assert expected in found[0]


def test_a_version_twice() -> None:
    """At one path."""
    assert problems({}, {"name": '"other"'}) == ['prompt[1].version: /p/summarize has a version "1" already']


def test_the_room_of_a_prompt_cache() -> None:
    """As of any cache: what is on its way may take a fourth."""
    text = BASE.replace('models = ["small"]', 'cache = { max_bytes = "1MiB", max_object = "1MiB" }')
    with pytest.raises(ConfigError, match="1/4 of max_bytes"):
        load_text(text, "f")


def test_the_engine_of_a_provider() -> None:
    """Is that of the upstream for which each of its keys stands."""
    text = BASE.replace("[model.small]", 'engine = "vllm"\nendpoints = ["http://127.0.0.1:9002"]\n[model.small]')
    upstream = load_text(text, "f").config.upstream["p"]
    assert (upstream.engine, len(upstream.endpoints)) == ("vllm", 2)
