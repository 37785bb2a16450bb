"""Estimates: bytes count, pictures do not count by their bytes, and what is learned is bounded and near."""

from __future__ import annotations

import base64
import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.llm.estimate import KNOWN, MAX_PAIRS, Estimator, Lengths, input_tokens
from edgeq.llm.message import Usage


def chat(content: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def test_text_counts_by_its_bytes() -> None:
    """A token for four of them."""
    body = chat("a few words " * 1000)
    assert input_tokens(body) == len(body) // 4 + 1


def test_a_picture_counts_as_one() -> None:
    """Of any dialect, whatever its size; the text beside it counts as ever."""
    picture = base64.b64encode(random.Random(1).randbytes(3_000_000)).decode()
    text = "what is this? " * 100
    openai = chat(
        [
            {"type": "text", "text": text},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        ]
    )
    anthropic = chat(
        [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}},
            {"type": "text", "text": text},
        ]
    )
    audio = chat([{"type": "input_audio", "input_audio": {"data": picture, "format": "wav"}}, {"text": text}])
    escaped = openai.replace(b"/", b"\\/")
    for body in (openai, anthropic, audio, escaped):
        assert 300 < input_tokens(body) < 2600


def test_a_document_counts_by_its_size() -> None:
    """It has pages."""
    pages = base64.b64encode(random.Random(1).randbytes(3_000_000)).decode()
    file = chat([{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pages}"}}])
    source = {"type": "base64", "media_type": "application/pdf", "data": pages}
    document = chat([{"type": "document", "source": source}])
    for body in (file, document):
        assert 30_000 < input_tokens(body) < 50_000


@given(st.binary(max_size=4000))
def test_any_bytes_have_an_estimate(body: bytes) -> None:
    """Never less than one token, never more than one for each byte and an attachment's least."""
    assert 1 <= input_tokens(body + b'base64"') <= len(body) + 100


def test_nothing_known_reserves_what_is_allowed() -> None:
    """max_tokens, or the model's own maximum; nothing for what has no output; n answers are n times that."""
    estimator = Estimator()
    assert estimator.estimate("m", b"t", b"x" * 400, 500, 4096).output == 500
    assert estimator.estimate("m", b"t", b"x" * 400, 0, 4096).output == 4096
    assert estimator.estimate("m", b"t", b"x" * 400, 500, 4096, answers=3).output == 1500
    assert estimator.estimate("e", b"t", b"x" * 400, 0, 0).output == 0


def taught(estimator: Estimator, tenant: bytes, length: int, times: int = KNOWN) -> None:
    for _ in range(times):
        estimate = estimator.estimate("m", tenant, b"x" * 400, 0, 4096)
        estimator.learn(estimate, Usage(input=100, output=length))


def test_a_tenants_own_answers_count_first() -> None:
    """Then those of the model; a smaller max_tokens holds in any case."""
    estimator = Estimator()
    taught(estimator, b"short", 100)
    assert 100 < estimator.estimate("m", b"other", b"x", 16_000, 4096).output <= 100 * 1.25 * 1.25 + 2
    taught(estimator, b"long", 3000, 200)
    assert estimator.estimate("m", b"short", b"x", 16_000, 4096).output <= 100 * 1.25 * 1.25 + 2
    assert estimator.estimate("m", b"long", b"x", 16_000, 4096).output >= 3000
    assert estimator.estimate("m", b"long", b"x", 200, 4096).output == 200
    assert estimator.estimate("other", b"long", b"x", 0, 4096).output == 4096


def test_the_first_answers_count_for_more() -> None:
    """What is reserved comes down with each of them, and never below what they were; one that is long is heard at
    once."""
    estimator = Estimator()
    seen = []
    for _ in range(KNOWN):
        seen.append(estimator.estimate("m", b"t", b"x", 16_000, 4096).output)
        taught(estimator, b"t", 100, 1)
    assert seen[0] == 16_000
    assert seen[1] <= 100 * 1.25 * KNOWN + 40
    assert seen == sorted(seen, reverse=True)
    assert 100 < seen[-1] <= 140
    again = Estimator()
    taught(again, b"t", 100, 5)
    taught(again, b"t", 2000, 1)
    assert again.estimate("m", b"other", b"x", 16_000, 4096).output >= 2000 * KNOWN // 6
    assert again.estimate("m", b"other", b"x", 0, 4096).output == 4096
    assert again.estimate("m", b"other", b"x", 50, 4096).output == 50


def test_input_is_corrected_by_what_it_was() -> None:
    """A model whose tokens are twice as many is known after some requests; a single odd one changes little."""
    estimator = Estimator()
    for _ in range(50):
        estimate = estimator.estimate("m", b"t", b"x" * 8000, 0, 4096)
        estimator.learn(estimate, Usage(input=4000, output=10))
    assert 3800 <= estimator.estimate("m", b"t", b"x" * 8000, 0, 4096).input <= 4000
    tiny = estimator.estimate("m", b"t", b"x" * 8, 0, 4096)
    estimator.learn(tiny, Usage(input=3000, output=10))
    assert estimator.estimate("m", b"t", b"x" * 8000, 0, 4096).input <= 4600


def test_what_is_kept_is_bounded() -> None:
    """Who has not been heard of for longest goes first."""
    estimator = Estimator()
    taught(estimator, b"kept", 100)
    for number in range(MAX_PAIRS):
        estimate = estimator.estimate("m", b"%d" % number, b"x", 0, 4096)
        estimator.learn(estimate, Usage(input=1, output=4000))
        if number % 1000 == 0:
            taught(estimator, b"kept", 100, 1)
    assert len(estimator) == MAX_PAIRS
    assert estimator.estimate("m", b"kept", b"x", 0, 4096).output < 200


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50_000), min_size=KNOWN, max_size=250))
def test_the_quantile_is_at_most_a_quarter_too_long(lengths: list[int]) -> None:
    """And never shorter than the 95th percentile; of small numbers up to four tokens."""
    known = Lengths()
    for length in lengths:
        known.add(length)
    ordered = sorted(lengths)
    exact = ordered[len(ordered) - 1 - len(ordered) // 20]
    # It is looked up again after every few answers only: here it was not asked before.
    assert exact <= known.most() <= exact * 1.25 + 4


def test_it_forgets() -> None:
    """Half of what it knows is of the last 128 answers, so a change is known after them."""
    known = Lengths()
    for _ in range(2000):
        known.add(4000)
    for _ in range(2000):
        known.add(10)
    assert known.most() < 20


def test_a_count_beyond_reason_is_forgotten_soon() -> None:
    """A provider's mistake of a moment is not what thousands of requests are reserved by."""
    estimator = Estimator()
    taught(estimator, b"t", 5, 400)
    right = estimator.estimate("m", b"t", b"x" * 400, 0, 4096).input
    told = estimator.estimate("m", b"t", b"x" * 400, 0, 4096)
    estimator.learn(told, Usage(input=10**9, output=5))
    assert estimator.estimate("m", b"t", b"x" * 400, 0, 4096).input <= 3 * right
    taught(estimator, b"t", 5, 400)
    assert estimator.estimate("m", b"t", b"x" * 400, 0, 4096).input <= 1.2 * right
