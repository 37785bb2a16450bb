"""Embeddings: OpenAI's for clients, Gemini's for providers."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest

from edgeq.llm.dialects.embeddings import (
    EmbeddingAnswer,
    EmbeddingRequest,
    decode_gemini,
    decode_request,
    encode_answer,
    encode_gemini,
)
from edgeq.llm.message import Losses, Unmappable


def decoded(**fields: Any) -> EmbeddingRequest:
    """A request with these fields."""
    return decode_request(orjson.dumps({"model": "m", "input": "a"} | fields))


@pytest.mark.parametrize(
    ("said", "texts", "tokens"),
    [
        ("a", ["a"], []),
        (["a", "b"], ["a", "b"], []),
        ([1, 2], [], [[1, 2]]),
        ([[1, 2], [3]], [], [[1, 2], [3]]),
    ],
)
def test_every_kind_of_input(said: Any, texts: list[str], tokens: list[list[int]]) -> None:
    """One text or several, one list of tokens or several."""
    request = decoded(input=said)
    assert (request.texts, request.tokens) == (texts, tokens)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [[1], 2]}, "input"),
        ({"input": [True]}, "input"),
        ({"model": 1}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], param: str) -> None:
    """With the field's name."""
    with pytest.raises(Unmappable) as caught:
        decoded(**said)
    assert caught.value.param == param


def test_gemini_is_asked_for_all_at_once() -> None:
    """Each text is a request of its own in it."""
    request = decoded(input=["a", "b"], dimensions=64)
    common = {"model": "models/m", "outputDimensionality": 64}
    assert orjson.loads(encode_gemini(request, Losses(strict=True))) == {
        "requests": [
            common | {"content": {"parts": [{"text": "a"}]}},
            common | {"content": {"parts": [{"text": "b"}]}},
        ]
    }


def test_what_gemini_cannot_be_told() -> None:
    """The user may be dropped; tokens of OpenAI's never."""
    losses = Losses(strict=False)
    encode_gemini(decoded(user="ann", of_tomorrow=1), losses)
    assert losses.dropped == ["user", "of_tomorrow"]
    with pytest.raises(Unmappable):
        encode_gemini(decoded(input=[1]), Losses(strict=False))


def test_vectors_come_back_in_order_and_as_asked() -> None:
    """As numbers, or packed as 32 bit floats in base64."""
    request = decoded(input=["a", "b"])
    body = b'{"embeddings": [{"values": [0.5, -1.25]}, {"values": [2]}], "usageMetadata": {"promptTokenCount": 7}}'
    answer = decode_gemini(body, request)
    said = orjson.loads(encode_answer(answer, request))
    assert said == {
        "object": "list",
        "model": "m",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.25]},
            {"object": "embedding", "index": 1, "embedding": [2.0]},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    request.base64 = True
    packed = orjson.loads(encode_answer(answer, request))["data"][0]["embedding"]
    assert struct.unpack("<2f", b64decode(packed)) == (0.5, -1.25)


def test_tokens_that_nobody_has_counted_are_none() -> None:
    """An estimate would be taken for a count."""
    said = orjson.loads(encode_answer(EmbeddingAnswer("m", []), decoded()))
    assert said["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"embeddings": []}', b'{"embeddings": [{"values": ["a"]}]}'])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    """One vector for each input, or it is none."""
    with pytest.raises(ValueError):
        decode_gemini(body, decoded())
