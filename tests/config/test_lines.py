"""Lines of keys."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.lines import Path, index, show_path

DOCUMENT = '''\
# a comment with [brackets] and "quotes"
title = "a # in a string" # and a comment

[[listener]]
address = "0.0.0.0:1"
trusted = [
  "10.0.0.0/8",   # [[listener]]
  "x",
]
[listener.tls]
min_version = "1.2"
[[listener.tls.certificates]]
certificate = "a"
[[listener.tls.certificates]]
certificate = "b"
key = \'\'\'
[[listener]]
\'\'\'

[[listener]]
address = """
[no.header]
\\"""
"""
timeouts = { head = "1s", "body" = "2s" }
limits.header_count = 5
[listener.queue]
max = 1
[upstream."a.b"]
endpoints = ["u", [ {x = 1},
  {y = 2} ]]
'with space' . key = 1979-05-27 07:32:00
[upstream.api.pool]
max_idle = 3
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("listener",), 4),
        (("listener", 0), 4),
        (("listener", 0, "address"), 5),
        (("listener", 0, "trusted", 0), 7),
        (("listener", 0, "trusted", 1), 8),
        (("listener", 0, "tls"), 10),
        (("listener", 0, "tls", "min_version"), 11),
        (("listener", 0, "tls", "certificates", 0, "certificate"), 13),
        (("listener", 0, "tls", "certificates", 1, "certificate"), 15),
        (("listener", 0, "tls", "certificates", 1, "key"), 16),
        (("listener", 1, "address"), 21),
        (("listener", 1, "timeouts", "body"), 25),
        (("listener", 1, "limits", "header_count"), 26),
        (("listener", 1, "queue", "max"), 28),
        (("upstream", "a.b"), 29),
        (("upstream", "a.b", "endpoints", 1, 0, "x"), 30),
        (("upstream", "a.b", "endpoints", 1, 1, "y"), 31),
        (("upstream", "a.b", "with space", "key"), 32),
        (("upstream", "api"), 33),
        (("upstream", "api", "pool", "max_idle"), 34),
        (("upstream", "api", "pool", "not_written"), 33),
        (("nowhere",), 0),
    ],
)
def test_lines(path: Path, line: int) -> None:
    """Each shape of key and header is found on its line, and what is not written on its nearest ancestor's."""
    tomllib.loads(DOCUMENT)
    assert index(DOCUMENT, "f").line(path) == line


def test_paths_are_shown_as_toml_writes_them() -> None:
    """A key that TOML would quote is quoted."""
    assert show_path(("upstream", "a.b", "endpoints", 0, "k")) == 'upstream."a.b".endpoints[0].k'


def _paths(value: object, path: Path = ()) -> set[Path]:
    """Every path of a parsed document."""
    here: set[Path] = {path} if path else set()
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return here.union(*(_paths(item, (*path, key)) for key, item in items))


_KEYS = st.one_of(
    st.text("abc_-9", min_size=1, max_size=3),
    st.text('a.# []="\\é', max_size=4).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    st.text('a.# []="\\', max_size=4).map(lambda text: f"'{text}'"),
)
_SCALARS = st.sampled_from(
    [
        "1",
        "true",
        '"a"',
        "''",
        '"#]}\\""',
        '"""\n[x]\n"" """',
        "'''\n]]'''",
        '""""a"""""',
        "1979-05-27 07:32:00",
        "-0.5",
    ]
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n # ]\n".join(items) + "\n]"),
        st.dictionaries(_KEYS, inner, max_size=3).map(
            lambda d: "{ " + ", ".join(f"{k} = {v}" for k, v in d.items()) + " }"
        ),
    ),
    max_leaves=6,
)
_DOTTED = st.lists(_KEYS, min_size=1, max_size=3).map(" . ".join)
_STATEMENTS = st.one_of(
    st.tuples(_DOTTED, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]} # end"),
    _DOTTED.map(lambda keys: f"[{keys}]"),
    _DOTTED.map(lambda keys: f"[[ {keys} ]]"),
    st.just("# [x]"),
    st.just(""),
)


@given(st.lists(_STATEMENTS, max_size=8))
def test_every_key_has_a_line(statements: list[str]) -> None:
    """Whatever tomllib accepts, the scanner finds exactly the same keys in it, each on a line of the document."""
    kept: list[str] = []
    for statement in statements:  # drop what contradicts an earlier statement
        try:
            tomllib.loads("\n".join([*kept, statement]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(statement)
    text = "\n".join(kept)
    lines = index(text, "f")
    paths = _paths(tomllib.loads(text))
    assert {path for path in paths if lines.line(path) != lines.line(path[:-1]) or lines.line(path)} == paths
    assert set(lines._lines) == paths
    first = 1
    for statement in kept:  # a key is written within the statement that holds it
        last = first + statement.count("\n")
        for path in _paths(tomllib.loads(statement)):
            assert first <= index(statement, "f").line(path) + first - 1 <= last
        first = last + 1
