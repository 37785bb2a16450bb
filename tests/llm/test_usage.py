"""The log of usage in a worker: bounded, in batches, each entry once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm import usage
from edgeq.llm.message import UNKNOWN, Usage
from edgeq.llm.usage import BATCH, MAX_BATCH, MAX_TEXT, MAX_WAITING, USUAL_BATCH, Batch, UsageLog, clipped


def record(log: UsageLog, count: int, first: int = 0) -> None:
    """So many entries, whose cost is their number."""
    for number in range(first, first + count):
        log.record("t", "k", "m", "p/m", Usage(1, 2), number, 200, 0.5, 0.1)


@given(st.lists(st.one_of(st.integers(1, 2 * MAX_BATCH), st.sampled_from(["tick", "taken"])), max_size=30))
def test_each_entry_is_in_one_batch(steps: list[int | str]) -> None:
    """Whatever comes between recording, ticks and answers: one batch at a time, numbered, in order, nothing lost."""
    log = UsageLog()
    now, recorded, on_its_way = 0.0, 0, 0
    told: list[int] = []

    def sent(batch: Batch | None) -> None:
        nonlocal on_its_way
        if batch is not None:
            assert not on_its_way
            assert len(batch.entries) <= MAX_BATCH
            on_its_way = batch.number
            told.extend(one.cost_micro for one in batch.entries)

    for step in [*steps, *["taken", "tick"] * (MAX_WAITING // BATCH + 1)]:
        if isinstance(step, int):
            count = min(step, MAX_WAITING - log.waiting)
            record(log, count, recorded)
            recorded += count
        elif step == "tick":
            now += log.flush_s
            sent(log.tick(now, 0.0))
        else:
            number, on_its_way = on_its_way, 0
            sent(log.taken(number))
    assert told == list(range(recorded))
    assert log.dropped == 0


def test_a_slow_store_makes_no_worker_grow() -> None:
    """What does not fit is counted, and the next batch tells of it, once."""
    log = UsageLog()
    record(log, 1)
    first = log.tick(0.0, 0.0)
    assert first is not None
    record(log, MAX_WAITING + 3)
    assert log.waiting == MAX_WAITING
    assert log.dropped == 3
    assert log.tick(5.0, 0.0) is None, "the first one is not stored yet"
    assert log.taken(first.number + 1) is None
    assert log.tick(6.0, 0.0) is None, "nor is this the answer to it"
    second = log.taken(first.number)
    assert second is not None, "what waits for want of room does not wait for its time"
    assert (second.dropped, len(second.entries)) == (3, MAX_BATCH)
    third = log.taken(second.number)
    assert third is not None
    assert third.dropped == 0


def test_a_full_batch_does_not_wait_for_its_time() -> None:
    """So no batch is large, however much comes: while the supervisor stores one, requests wait."""
    log = UsageLog()
    record(log, 1)
    first = log.tick(0.0, 0.0)
    assert first is not None
    record(log, BATCH - 1)
    assert log.taken(first.number) is None
    assert log.tick(0.1, 0.0) is None
    record(log, USUAL_BATCH + 1)
    second = log.tick(0.1, 0.0)
    assert second is not None
    third = log.taken(second.number)
    assert third is not None
    assert (len(second.entries), len(third.entries), log.waiting) == (USUAL_BATCH, BATCH, 0)


def test_what_is_noted() -> None:
    """Unknown tokens count nothing, nonsense is bounded, the time is that of the last tick."""
    log = UsageLog()
    assert log.tick(0.0, 1000.0) is None
    log.record("t" * 1000, "k", "m", "p", Usage(UNKNOWN, 1 << 80), -5, 500, 1.0, -1.0)
    (batch,) = log.rest()
    (entry,) = batch.entries
    assert (entry.at, entry.input, entry.output, entry.cost_micro) == (1000.0, 0, 10**12, 0)
    assert len(entry.tenant) == usage.MAX_NAME


def test_prompts_only_where_wanted() -> None:
    """And so many at a time that a message can take them."""
    log = UsageLog()
    log.converse("r", "t", "k", "m", "hello", "hi")
    assert log.rest() == []
    log.log_prompts = True
    for number in range(100):
        log.converse(f"r{number}", "t", "k", "m", "p" * 1000 + " x" * 100_000, "a" * 10)
    assert log.dropped > 0
    found = []
    for batch in log.rest():
        assert sum(len(one.prompt) + len(one.answer) for one in batch.conversations) <= usage.MAX_TEXT_BATCH
        found += [one.request for one in batch.conversations]
    assert found == [f"r{number}" for number in range(len(found))]
    assert len(found) + log.dropped == 100


@given(st.integers(MAX_TEXT - 40, MAX_TEXT + 40))
def test_no_half_of_a_secret(at: int) -> None:
    """Where a text is cut, a word that is cut with it goes as a whole."""
    text = "x " * (at // 2) + "sk-0123456789abcdef0123456789" + " y" * 50
    kept = clipped(text)
    assert len(kept) <= MAX_TEXT
    assert "sk-0123456789abcdef0123456789" in kept or "sk-" not in kept


def test_half_a_surrogate_pair_is_no_text() -> None:
    """It could be encoded neither for the supervisor nor for the store."""
    clipped("a\ud800b").encode()
