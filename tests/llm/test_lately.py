"""Who has used which model in the last minute."""

from __future__ import annotations

from edgeq.llm.lately import Lately, Used
from edgeq.llm.sums import Key, Sum


def stored(key: str, model: str, tokens: int, errors: int = 0, target: str = "p/m") -> dict[Key, Sum]:
    return {("2026-11-28", "acme", "", key, model, target): Sum(2, errors, tokens, 10 * tokens)}


def test_the_last_minute_is_known_by_key() -> None:
    """Of one model, with names of keys. What has failed there counts as well, as it does for a limit of requests; not
    who was refused before, nor who has got an answer that was stored. What is older than a minute is gone."""
    lately = Lately()
    lately.add(stored("k1", "m", 1), 100.0)
    for at in range(4):
        lately.add(stored("k1", "m", 1, errors=1), 130.0 + 4 * at)
        lately.add(stored("k2", "m", 3), 130.0 + 4 * at)
        lately.add(stored("k1", "other", 9), 130.0 + 4 * at)
        lately.add(stored("k2", "m", 0, errors=at % 3, target=""), 130.0 + 4 * at)
    names = {"k1": "batch"}
    assert lately.of("m", names, 145.0) == [Used("acme", "k1 batch", 10, 5, 50), Used("acme", "k2", 8, 12, 120)]
    assert lately.of("m", names, 175.0) == [Used("acme", "k1 batch", 8, 4, 40), Used("acme", "k2", 8, 12, 120)]
    assert lately.of("m", names, 300.0) == []
    assert lately.of("none", names, 145.0) == []


def test_it_is_bounded() -> None:
    """Of more keys in one part of the minute nothing is told."""
    lately = Lately()
    for number in range(2000):
        lately.add(stored(f"k{number}", "m", 1), 100.0)
    assert len(lately.of("m", {}, 100.0)) == 1024
