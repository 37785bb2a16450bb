"""The live screen as text, in windows of any size."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeq.observe.queues import queue
from edgeq.top.model import History, Snapshot, View, arranged, key_of
from edgeq.top.screen import ASCII, BLOCKS, KEYS, main_screen, queue_page, share_out, spark, window

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=80)
COUNTS = st.integers(0, 10**9)
RATES = st.floats(0, 1e6)


def worker(slot: int, state: str = "serving", lag_us: int = 0) -> dict[str, Any]:
    return {
        "slot": slot,
        "state": state,
        "pid": 4_000_000 + slot,
        "requests_per_s": 20_000.0,
        "connections": 10_000,
        "in_flight": 256,
        "lag_us": lag_us,
        "max_lag_us": lag_us,
        "beat_age_ms": None,
        "memory_bytes": 30 << 20,
    }


def upstream(name: str, queued: int = 0, refused: float = 0.0, breaker: str | None = None) -> dict[str, Any]:
    return {
        "upstream": name,
        "in_flight": 16,
        "limit": 16,
        "queued": queued,
        "in_use": 1,
        "endpoints": 2,
        "panic": False,
        "breaker": breaker,
        "service_ms": {"p50": 20.0, "p99": 1234.5},
        "answers_per_s": 800.0,
        "refused_per_s": refused,
    }


def reason(name: str, resource: str, per_s: float = 1.0) -> dict[str, Any]:
    hint = "make it longer"
    return {"reason": name, "resource": resource, "status": 503, "count": 12, "per_s": per_s, "hint": hint}


QUEUES = st.builds(
    lambda name, slot, depth, limit, ms: queue(
        name, "limit", slot, depth=depth, limit=limit, oldest_ms=ms, wait_ms={"p99": ms}, arrival_per_s=ms
    ),
    NAMES,
    st.none() | st.integers(0, 255),
    st.none() | COUNTS,
    st.none() | COUNTS,
    RATES,
)
TOLD = st.builds(
    Snapshot,
    st.just("1.0"),
    st.lists(QUEUES, max_size=12, unique_by=key_of),
    st.lists(st.builds(upstream, NAMES, COUNTS, RATES, st.sampled_from([None, "open"])), max_size=4),
    st.lists(st.builds(reason, NAMES, NAMES, RATES), max_size=6),
    st.lists(st.builds(worker, st.integers(0, 255), st.sampled_from(["serving", "stuck"]), COUNTS), max_size=6),
)


@given(TOLD, st.integers(1, 200), st.integers(1, 60), st.integers(0, 12), st.sampled_from(["", "gone"]))
def test_any_size(told: Snapshot, width: int, height: int, moves: int, trouble: str) -> None:
    """No line is too long, there are not too many, the keys are at the end, and the selected queue is in sight."""
    history, view = History(), View()
    history.note(told.queues)
    history.note(told.queues)
    queues = arranged(told.queues, view)
    view.move(queues, moves)
    lines = main_screen(told, history, view, width, height, trouble)
    assert len(lines) == height
    assert all(len(line.text) <= width for line in lines)
    assert all(line.text.isprintable() for line in lines)
    assert lines[-1].text == KEYS[:width]
    if trouble and height > 2:
        assert (lines[1].text, lines[1].look) == ("gone"[:width], "alarm")
    if queues and height >= 5:
        (selected,) = [line for line in lines if line.selected]
        assert selected.text.startswith("▸")
    printed = main_screen(told, history, view, width)
    assert not any(line.selected for line in printed)
    sections = (told.queues, told.upstreams, told.reasons, told.workers)
    assert len(printed) == 2 + sum(len(one) + 1 for one in sections if one)


def test_columns_stand_still() -> None:
    """Whatever is in them."""

    def screen(depth: int) -> list[str]:
        queues = [queue("upstream/api:queue", "limit", depth=depth, limit=999, oldest_ms=depth * 1.0)]
        told = Snapshot("1", queues, [upstream("api")], [], [worker(0)])
        return [line.text for line in main_screen(told, History(), View(), 60, 20)]

    assert screen(0)[2] == screen(999)[2] == " queue                  fill depth limit oldest    p99 ref/s"
    assert screen(999)[3].split() == ["▸upstream/api:queue", "100%", "999", "999", "999ms", "-", "-"]


@given(st.integers(0, 80), st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_rows_fit(height: int, counts: list[int]) -> None:
    """With their heads; the queues come first; nothing stays empty that could be used."""
    rows = share_out(height, counts)
    used = sum(count + 1 for count in rows if count)
    if height == 0:
        assert rows == counts
        return
    assert used <= height
    assert all(0 <= got <= count for got, count in zip(rows, counts, strict=True))
    if counts[0] and height >= 2:
        assert rows[0] >= 1
    if rows != counts:
        assert used >= height - 1
    if height >= 24 and all(counts):
        assert all(rows)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 50))
def test_a_window_has_what_is_selected(selected: int, count: int, rows: int) -> None:
    """And no place beyond the end."""
    selected = min(selected, max(count - 1, 0))
    first = window(selected, count, rows)
    assert 0 <= first <= max(count - rows, 0)
    if count:
        assert first <= selected < first + rows


def test_trends() -> None:
    """Nothing, a little, full and beyond, unknown; the newest at the right."""
    assert spark([0.0, 0.001, 0.5, 1.0, 7.0, None], 8) == "  ▁▂▅██ "
    assert spark([0.0, 0.001, 0.5, 1.0, 7.0, None], 3) == "██ "
    assert spark([0.0, 1.0], 2, ASCII) == "_#"
    assert len(BLOCKS) == len(ASCII)


def test_what_is_marked() -> None:
    """A full queue, one that refuses, one that fills up; an open breaker; a stuck worker."""
    queues = [
        queue("full", "limit", depth=9, limit=10),
        queue("half", "limit", depth=5, limit=10),
        queue("refuses", "limit", depth=0, limit=10, refused_per_s=1.0),
        queue("calm", "limit", depth=1, limit=10),
    ]
    upstreams = [upstream("waits", queued=1), upstream("broken", breaker="open"), upstream("fine", breaker="closed")]
    told = Snapshot(
        "1", queues, upstreams, [reason("queue_full", "full")], [worker(0), worker(1, "stuck"), worker(2, lag_us=10**6)]
    )
    looks = {line.text.split()[0]: line.look for line in main_screen(told, History(), View(), 80)}
    assert [looks[name] for name in ("full", "half", "refuses", "calm")] == ["alarm", "warn", "alarm", "plain"]
    assert [looks[name] for name in ("waits", "broken", "fine")] == ["warn", "alarm", "plain"]
    assert [looks[name] for name in ("0", "1", "2", "queue_full")] == ["plain", "alarm", "warn", "warn"]


def test_one_queue() -> None:
    """All of it, and only what is refused there."""
    one = queue("upstream/api:queue", "limit", depth=3, limit=4, wait_ms={"p50": 1.0, "p99": 2.0}, by_tenant={"t": 3})
    reasons = [reason("queue_full", "upstream/api:queue"), reason("no_route", "listener/l")]
    history = History()
    history.note([one])
    text = queue_page(one, Snapshot("1", [one], [], reasons, []), history, 60)
    assert text.startswith("upstream/api:queue\n")
    assert "depth: 3\n" in text
    assert "by_tenant: t=3\n" in text
    assert "wait_ms.p99: 2\n" in text
    assert "queue_full" in text
    assert "make it longer" in text
    assert "no_route" not in text


def test_what_is_left_out_is_said() -> None:
    """How many there are, of which these are shown; nothing of it if all are."""
    told = Snapshot("1", [queue(f"q{number}", "limit", depth=0) for number in range(9)], [], [], [worker(0), worker(1)])
    lines = [line.text for line in main_screen(told, History(), View(), 60, 10)]
    assert lines[2].startswith(" queue 3 of 9 ")
    assert lines[6].startswith(" worker  ")
    last = View(selected="q8")
    lines = [line.text for line in main_screen(told, History(), last, 60, 10)]
    assert lines[2].startswith(" queue 7-9 of 9 ")


def test_a_long_name_is_told_once() -> None:
    """There is no room for it in its row, so the selected one is in the second line, unless something is wrong."""
    name = "upstream/a-service-with-a-long-name#192.168.100.200:20000:connecting"
    told = Snapshot("1", [queue(name, "connecting", depth=1, limit=2), queue("b", "limit", depth=0)], [], [], [])

    def second(width: int, selected: str = "", trouble: str = "") -> str:
        return main_screen(told, History(), View(selected=selected), width, 10, trouble)[1].text

    assert second(100) == f"2 of 2 queues by fill: {name}"
    assert second(200) == second(100, "b") == "2 of 2 queues by fill"
    assert second(60) == f"2 of 2 queues by fill: {name}"[:60]
    assert second(100, trouble="gone") == "gone"
