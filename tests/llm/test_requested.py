"""A request passes to its provider with another model's name, and nothing else changed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.message import Unmappable
from edgeq.llm.requested import output_tokens, requested, wants_usage, with_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.text(max_size=8), st.text(max_size=8), st.dictionaries(st.sampled_from(["a", "messages"]), JSON), st.booleans()
)
def test_any_body(old: str, new: str, rest: dict[str, Any], is_first: bool) -> None:
    """Whatever stands around it, the model is the new one, and all else means what it did."""
    asked = {"model": old, **rest} if is_first else {**rest, "model": old}
    body = orjson.dumps(asked)
    assert orjson.loads(with_model(body, requested("openai", body), new, False)) == {**asked, "model": new}


def test_bytes_stay() -> None:
    """Spaces, numbers and escapes are the client's."""
    body = b'{ "messages":[{"role":"user","content":"\\u00e9 1e5"}],\n "model" :  "a", "temperature": 1.0e0 }'
    peek = requested("openai", body)
    assert with_model(body, peek, "b", False) == body.replace(b'"a"', b'"b"')
    assert with_model(body, peek, "a", True) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"cheap","model":"dear"}',
        b'{"mo\\u0064el":"dear","model":"cheap"}',
        b'{"tools":[{"model":"x"}],"mo\\u0064el":"cheap"}',
        b'{"tools":[{"model":"cheap"}],"model":"cheap"}',
        b"{}",
    ],
)
def test_nobody_is_deceived(body: bytes) -> None:
    """Two parsers of two minds see one model, since there is only one left; a request without any gets one."""
    made = with_model(body, requested("openai", body), "mine", False)
    assert orjson.loads(made)["model"] == "mine"
    assert made.count(b"dear") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        # vLLM's, which means nothing there without include_usage: else each chunk would tell a usage nobody asked for.
        ({"stream_options": {"continuous_usage_stats": True}}, {"include_usage": True}),
        (
            {"stream_options": {"continuous_usage_stats": True, "include_usage": True}},
            {"continuous_usage_stats": True, "include_usage": True},
        ),
        (
            {"stream_options": {"include_obfuscation": False}},
            {"include_obfuscation": False, "include_usage": True},
        ),
    ],
)
def test_usage_is_asked_for(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Of streams, whatever the client has said of it."""
    body = orjson.dumps({"model": "m", "stream": True, **options})
    made = orjson.loads(with_model(body, requested("openai", body), "m", True))
    assert made == {"model": "m", "stream": True, "stream_options": expected}
    whole = orjson.dumps({"model": "m"})
    assert with_model(whole, requested("openai", whole), "m", True) == whole


def test_what_is_seen() -> None:
    """The longer of two limits, and who is asking."""
    peek = requested("openai", b'{"model":"m","max_tokens":5,"max_completion_tokens":9,"n":2,"user":"u","stream":true}')
    assert (peek.model, output_tokens(peek), peek.n, peek.user_id, peek.stream) == ("m", 9, 2, "u", True)
    assert not wants_usage(peek)
    peek = requested("anthropic", b'{"model":"m","max_tokens":5,"metadata":{"user_id":"u"}}')
    assert (output_tokens(peek), peek.user_id) == (5, "u")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b'{"model":3}', "model"),
        (b'{"model":"m","stream":"yes"}', "stream"),
        (b'{"model":"m","stream_options":{"include_usage":1}}', "stream_options.include_usage"),
        (b'{"model":"\xff"}', ""),
    ],
)
def test_what_makes_no_sense(body: bytes, param: str) -> None:
    """The field is named."""
    with pytest.raises(Unmappable) as caught:
        requested("openai", body)
    assert caught.value.param == param
    assert caught.value.message
