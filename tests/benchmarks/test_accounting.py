"""What is read from /proc."""

from __future__ import annotations

from benchmarks.accounting_io import Stat, family, parse_rollup, parse_stat


def test_stat_with_a_hostile_name() -> None:
    """A process name with spaces and parentheses does not shift the fields."""
    text = "42 (a ) b (c) S 7 42 40 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 1 0 5000 1000000 500\n"
    assert parse_stat(text) == Stat(parent=7, session=40, ticks=375)


def test_rollup() -> None:
    """Pss and Rss are found and turned into bytes."""
    text = "55d000-7ffe000 ---p 00000000 00:00 0 [rollup]\nRss:      2048 kB\nPss:      1000 kB\nPss_Anon:  900 kB\n"
    memory = parse_rollup(text)
    assert (memory.rss_bytes, memory.pss_bytes) == (2048 * 1024, 1000 * 1024)


def test_family_finds_descendants_and_the_session() -> None:
    """Workers count, whether they descend from the root or were adopted by init within its session."""
    stats = {
        1: Stat(parent=0, session=1, ticks=0),
        10: Stat(parent=1, session=10, ticks=0),
        11: Stat(parent=10, session=10, ticks=0),
        12: Stat(parent=11, session=12, ticks=0),
        13: Stat(parent=1, session=10, ticks=0),
        20: Stat(parent=1, session=20, ticks=0),
    }
    assert family(stats, 10) == (10, 11, 12, 13)
