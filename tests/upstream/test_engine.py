"""What an engine says of its queue, and where requests go for it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.upstream.engine import CACHE_WEIGHT, WAITING_WEIGHT, parse_engine
from tests.upstream.test_balancer import chosen, made

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} c"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a {b} c"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="a {b} c"} 0.25
vllm:prompt_tokens_total{engine="0"} 1e+06
"""


def test_a_reading() -> None:
    """The three numbers, and nothing else of the document."""
    queue = parse_engine(VLLM)
    assert (queue.running, queue.waiting, queue.cache_used) == (3.0, 2.0, 0.25)


def test_forms() -> None:
    """Without labels, with the time, with CRLF, of an older release; several engines are added."""
    queue = parse_engine(
        b'vllm:num_requests_running 1 1700000000000\r\nvllm:num_requests_running{engine="1"} 2\r\n'
        b'vllm:num_requests_waiting 0\r\nvllm:gpu_cache_usage_perc 0.5\r\nvllm:gpu_cache_usage_perc{engine="1"} 1.5'
    )
    assert (queue.running, queue.waiting, queue.cache_used) == (3.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"vllm:num_requests_running 1\n",
        b"vllm:num_requests_running 1\nvllm:num_requests_waiting NaN\n",
        b"vllm:num_requests_running 1\nvllm:num_requests_waiting +Inf\n",
        b"vllm:num_requests_running 1\nvllm:num_requests_waiting -1\n",
        b"vllm:num_requests_running 1\nvllm:num_requests_waiting many\n",
        b"# vllm:num_requests_running 1\n# vllm:num_requests_waiting 1\n",
    ],
)
def test_nonsense(text: bytes) -> None:
    """Is an error, not a number."""
    with pytest.raises(ValueError):
        parse_engine(text)


@given(st.binary(max_size=60))
def test_any_bytes(text: bytes) -> None:
    """A reading or a ValueError."""
    try:
        queue = parse_engine(VLLM + text)
    except ValueError:
        return
    assert queue.load(0) >= 0.0


def test_what_counts() -> None:
    """Requests of others, those that wait four times, and a cache that is nearly full."""
    queue = parse_engine(VLLM)
    assert queue.load(0) == 3 + WAITING_WEIGHT * 2
    assert queue.load(2) == 1 + WAITING_WEIGHT * 2
    assert queue.load(9) == WAITING_WEIGHT * 2
    full = parse_engine(VLLM.replace(b"0.25", b"1"))
    assert full.load(9) == pytest.approx(WAITING_WEIGHT * 2 + CACHE_WEIGHT)


@pytest.mark.parametrize("balance", ["p2c-ewma", "least-requests"])
def test_requests_go_where_fewer_wait(balance: str) -> None:
    """As long as what was said is believed; then by what we know ourselves."""
    upstream, members = made(2, balance=balance)
    for member in members:
        member.took(0.1, 1.0)
        member.engine_until = 5.0
    members[0].engine_load = 20.0
    assert Counter(chosen(upstream, 15, busy=True)) == {"e1": 15}
    assert members[0].snapshot(1.0)["engine_load"] == 20.0
    assert "engine_load" not in members[0].snapshot(6.0)
    assert set(chosen(upstream, 5, now=6.0)) == {"e0"}
