"""By which names somebody ends rests of providers' keys, and of models at them."""

from __future__ import annotations

import pytest

from edgeq.board.gcra_table import GcraTable
from edgeq.board.keyed import Entry
from edgeq.board.layout import METER_CELLS, Board
from edgeq.config.load import load_text
from edgeq.config.providers import provider_keys, upstream_name
from edgeq.llm.meter import INPUT
from edgeq.llm.rests import (
    TIMES,
    end_heard,
    end_rests,
    moments,
    names,
    of_forgotten,
    of_heard,
    of_key,
    of_target,
    way_of,
)

TEXT = """
[[listener]]
address = "127.0.0.1:0"
[provider.oa]
url = "http://127.0.0.1:9/v1"
keys = [{ key = "first", name = "a" }, { key = "second", name = "b" }]
[provider.oa-b]
url = "http://127.0.0.1:8/v1"
keys = [{ key = "first", name = "c" }, { key = "second", name = "d" }]
[provider.one]
url = "http://127.0.0.1:7/v1"
[model.m]
targets = [{ provider = "oa" }, { provider = "oa-b" }, { provider = "one" }]
"""
A_B = ["upstream/oa-a", "target/oa-a/m", "upstream/oa-b", "target/oa-b/m"]


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("oa", A_B),
        ("provider/oa", A_B),
        ("oa/m", A_B),
        ("target/oa/m", A_B),
        ("oa-a", A_B[:2]),
        ("target/oa-a/m", A_B[:2]),
        ("oa-b", A_B[2:]),
        ("oa-b/m", A_B[2:]),
        ("one", ["upstream/one", "target/one/m"]),
    ],
)
def test_names(board: Board, text: str, ended: list[str]) -> None:
    """A provider's own name means all its keys, but for one that is a key's: of another provider here."""
    config = load_text(TEXT, "f.toml").config
    arrivals = GcraTable(board, 0)
    for name, provider in config.provider.items():
        for key in provider_keys(provider):
            full, way = upstream_name(name, provider, key), way_of(provider, key)
            arrivals.delay(of_key(full, way), 2_000_000)
            arrivals.delay(of_target(f"{full}/m", way), 2_000_000)
    assert text in names(config)
    assert end_rests(config, arrivals, text, 1_000_000) == ended
    assert end_rests(config, arrivals, text, 1_000_000) == []
    assert end_rests(config, arrivals, "nobody", 1_000_000) is None


def test_what_was_told_of_limits_is_forgotten_by_name(board: Board) -> None:
    """Of the models of which some worker has heard it; a rest is not needed for that."""
    config = load_text(TEXT, "f.toml").config
    arrivals = GcraTable(board, 0)
    provider = config.provider["oa"]
    way = way_of(provider, provider_keys(provider)[0])
    rows = [board.row(slot).meters for slot in range(2)]
    shown = Entry(rows[1], [rows[0]], of_heard("oa-a/m", way), METER_CELLS - 2)
    shown.put(INPUT, 5000)
    assert end_heard(config, arrivals, rows, "oa-b", 1_000_000) == []
    assert end_heard(config, arrivals, rows, "oa", 1_000_000) == ["target/oa-a/m"]
    assert arrivals.get(of_forgotten("oa-a/m", way)) == 1_000_000
    assert end_rests(config, arrivals, "oa", 1_000_000) == []
    shown.close()
    assert end_heard(config, arrivals, rows, "oa-a/m", 2_000_000) == []


def test_one_that_fails_after_its_rest_is_woken_too(board: Board) -> None:
    """Whoever knows that it is well need not wait for the next request to find out."""
    config = load_text(TEXT, "f.toml").config
    arrivals = GcraTable(board, 0)
    provider = config.provider["one"]
    arrivals.delay(of_target("one/m", way_of(provider, provider_keys(provider)[0])), 800_000 | 2)
    assert moments(config, arrivals)["one/m"][0] & TIMES == 2
    assert end_rests(config, arrivals, "one/m", 1_000_000) == ["target/one/m"]
    assert moments(config, arrivals)["one/m"] == (800_000, 0)
    assert end_rests(config, arrivals, "one/m", 1_000_000) == []
