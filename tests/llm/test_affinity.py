"""Prompts that begin alike go where the last of them went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.affinity import BLOCK_BYTES, KEEP_S, MAX_BLOCKS, Affinity, beginnings_of, prefixes

FIRST = 4096


def of(messages: bytes, system: bytes = b"", model: str = "m", first: int = FIRST) -> list[int]:
    return prefixes(model, system, messages, first)


def test_short_prompts_have_no_affinity() -> None:
    """Providers do not cache them; nor does anybody where it is switched off."""
    assert of(b"x" * (FIRST - 1)) == []
    assert len(of(b"x" * FIRST)) == 1
    assert of(b"x" * FIRST, first=0) == []


def test_a_conversation_that_grows_keeps_its_beginnings() -> None:
    """Whatever comes behind; another system prompt or model is another one from the start."""
    start = b'[{"role":"user","content":"' + b"x" * 20_000
    longer = of(start + b'"},{"role":"assistant"}]')
    assert longer[: len(of(start))] == of(start)
    assert set(of(start, b"system")).isdisjoint(longer)
    assert set(of(start, model="other")).isdisjoint(longer)


def test_system_and_messages_are_one_text() -> None:
    """Split anywhere."""
    assert of(b"x" * 5000, b"y" * 3000) == of(b"y" * 3000 + b"x" * 5000)


def test_the_number_of_beginnings_is_bounded() -> None:
    """And the blocks grow, so that they reach far."""
    assert len(of(b"x" * 10_000_000)) == MAX_BLOCKS
    assert len(of(b"x" * 400_000)) < MAX_BLOCKS
    assert len(of(b"x" * 500_000)) == MAX_BLOCKS


def test_the_longest_known_beginning_wins() -> None:
    """Two conversations with one system prompt, each with a target of its own."""
    table = Affinity()
    system = b"s" * FIRST
    one, other = of(b"a" * 3 * BLOCK_BYTES, system), of(b"b" * 3 * BLOCK_BYTES, system)
    assert one[0] == other[0]
    assert table.prefer(one, 0.0) == ""
    table.served(one, "first", 0.0)
    assert table.prefer(other, 1.0) == "first"
    table.served(other, "second", 1.0)
    assert table.prefer(one, 2.0) == "first"
    assert table.prefer(other, 2.0) == "second"
    assert table.prefer(of(b"c" * BLOCK_BYTES, system), 2.0) == "second"


def test_what_is_not_used_is_forgotten() -> None:
    """After the time that providers keep it, which begins anew with each use; and once a target is gone."""
    table = Affinity()
    prompt = of(b"x" * FIRST)
    table.served(prompt, "t", 0.0)
    assert table.prefer(prompt, KEEP_S - 1) == "t"
    table.served(prompt, "t", KEEP_S - 1)
    assert table.prefer(prompt, KEEP_S + 1) == "t"
    assert table.prefer(prompt, 2 * KEEP_S) == ""
    table.served(prompt, "t", 1000.0)
    table.forget("t")
    assert table.prefer(prompt, 1000.0) == ""


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=60))
def test_the_table_is_bounded(steps: list[tuple[int, int]]) -> None:
    """Who was served last is always known."""
    table = Affinity(max_known=20)
    for now, (first, length) in enumerate(steps):
        beginnings = [first * 100 + number for number in range(length)]
        table.served(beginnings, str(first), float(now))
        assert table.snapshot()["known"] <= 20
        assert table.prefer(beginnings, float(now)) == str(first)


def test_what_a_body_begins_with() -> None:
    """Tools and system before messages, wherever they stand; what stands around them does not count."""
    messages = b'[{"role":"user","content":"' + b"x" * 9000 + b'"}]'
    one = beginnings_of(b'{"model":"a","system":"S","messages":' + messages + b"}", "m", FIRST)
    other = beginnings_of(b'{"temperature":1,"messages":' + messages + b',"system":"S","model":"b"}', "m", FIRST)
    assert len(one) == 2
    assert one == other
    assert beginnings_of(b'{"messages":' + messages + b"}", "m", FIRST) != one
    assert len(beginnings_of(b'{"input":' + messages + b"}", "m", FIRST)) == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":1}', b'{"text":"x"}', b"\xff"])
def test_bodies_without_a_beginning(body: bytes) -> None:
    """Have no affinity."""
    assert beginnings_of(body + b" " * FIRST, "m", FIRST) == []
    assert beginnings_of(body, "m", 0) == []
