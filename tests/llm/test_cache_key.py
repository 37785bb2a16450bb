"""Which requests for a model are the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.llm.cache_key import request_key

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 1}


def key(body: dict[str, Any], operation: str = "chat", model: str = "m", tenant: str = "t") -> bytes:
    return request_key(body, operation, model, tenant)


@pytest.mark.parametrize(
    "more",
    [
        {"model": "an-alias"},
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"safety_identifier": "s"},
        {"service_tier": "flex"},
        {"prompt_cache_key": "k"},
        {"stream": False},
        {"stream_options": {"include_obfuscation": False}},
        {"store": False},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_same(more: dict[str, Any]) -> None:
    """What does not change the answer does not count."""
    assert key({**CHAT, **more}) == key(CHAT)


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0},
        {"max_tokens": 5},
        {"stream": True},
        {"n": 2},
        {"tools": []},
        {"messages": [{"role": "user", "content": "Hello!"}]},
        {"unknown": 1},
    ],
    ids=lambda more: next(iter(more)),
)
def test_another(more: dict[str, Any]) -> None:
    """All else does, what we do not know, too."""
    assert key({**CHAT, **more}) != key(CHAT)


def test_whose_and_what() -> None:
    """Tenants, models and operations have answers of their own."""
    assert len({key(CHAT), key(CHAT, tenant="u"), key(CHAT, model="n"), key(CHAT, operation="messages")}) == 4


def test_the_usage_of_a_stream_is_a_part_of_it() -> None:
    """Who has not asked for it must not get it, and who has must."""
    stream = {**CHAT, "stream": True}
    asked = {**stream, "stream_options": {"include_usage": True}}
    assert key(asked) != key(stream)
    assert key({**stream, "stream_options": {"include_usage": False}}) == key(stream)
    assert key({**stream, "stream_options": "?"}) == key(stream)
    assert key({**asked, "stream": False}) == key(CHAT)


def test_order_counts_below_the_top_only() -> None:
    """Models write an object in the order of its schema."""
    assert key(dict(reversed(list(CHAT.items())))) == key(CHAT)
    one = {**CHAT, "response_format": {"json_schema": {"a": 1, "b": 2}}}
    other = {**CHAT, "response_format": {"json_schema": {"b": 2, "a": 1}}}
    assert key(one) != key(other)


@pytest.mark.parametrize("name", ["store", "background", "conversation", "container"])
def test_what_leaves_something_behind_is_not_kept(name: str) -> None:
    """There is no key for it."""
    assert key({**CHAT, name: True}) == b""


def test_what_cannot_be_written_is_not_kept() -> None:
    """Rather than an error: the request itself is good."""
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    assert key({**CHAT, "x": deep}) == b""
    assert key({**CHAT, "x": 1 << 70}) == b""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), JSON), st.dictionaries(st.sampled_from("abcdef"), JSON))
def test_equal_keys_are_equal_requests(one: dict[str, Any], other: dict[str, Any]) -> None:
    """And the other way round, but for the order of what is inside."""
    same = orjson.dumps(sorted(one.items())) == orjson.dumps(sorted(other.items()))
    assert (key(one) == key(other)) == same
