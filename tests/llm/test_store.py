"""The store: what was used adds up, whatever is written twice or cut short; and what it refuses to open."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import Account, Conversation, Entry, Snapshot, Team, Tenant, digest_of
from edgeq.llm.store_io import Store, StoreError, check_store
from edgeq.llm.sums import Spending, Sum, day_of, month_of

NOW = 1_795_700_000.0
"""2026-11-26."""
DAY_S = 86400.0
ENTRIES = st.builds(
    Entry,
    at=st.sampled_from([NOW, NOW - DAY_S, NOW - 40 * DAY_S]),
    tenant=st.sampled_from(["a", "b"]),
    key=st.sampled_from(["", "k1", "k2"]),
    model=st.sampled_from(["m", "n"]),
    target=st.sampled_from(["p/m", "q/m", ""]),
    input=st.integers(0, 10**12),
    output=st.integers(0, 10**6),
    cached=st.integers(0, 9),
    cache_write=st.integers(0, 9),
    reasoning=st.integers(0, 9),
    cost_micro=st.integers(0, 10**12),
    status=st.sampled_from([200, 400, 503]),
    seconds=st.floats(0, 100),
    first_token_s=st.floats(-1, 100),
)
TEAMS = {"k1": "core"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "accounts.sqlite")


@contextlib.contextmanager
def opened(path: str) -> Iterator[Store]:
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.tuples(st.lists(ENTRIES, max_size=8), st.booleans(), st.booleans()), max_size=6))
def test_sums_are_those_of_the_requests(path: str, batches: list[tuple[list[Entry], bool, bool]]) -> None:
    """By every group, after batches that come again and a store that was opened anew in between."""
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    told: list[Entry] = []
    store = Store(path)
    spending = store.spending(day_of(NOW))
    try:
        for number, (entries, again, restart) in enumerate(batches, 1):
            sums = store.add("w", number, entries, TEAMS, NOW, 0.0)
            spending.add(sums)
            told += entries
            if again:
                assert store.add("w", number, entries, TEAMS, NOW, 0.0) == {}
            if restart:
                store.close()
                store = Store(path)
                spending = store.spending(day_of(NOW))
        costs: Counter[tuple[str, str]] = Counter()
        for one in told:
            costs[one.tenant, one.key] += one.cost_micro
        found = {(row["tenant"], row["key"]): row["cost_micro"] for row in store.usage(["tenant", "key"])}
        assert found == dict(costs)
        for whole in store.usage([]):
            refused = sum(one.status >= 400 and not one.target for one in told)
            assert whole["refused"] == refused
            assert whole["requests"] == len(told) - refused
            assert whole["errors"] == sum(one.status >= 400 for one in told) - refused
            assert whole["input"] == sum(one.input for one in told)
            assert whole["reasoning"] == sum(one.reasoning for one in told)
        day, month = day_of(NOW), month_of(day_of(NOW))
        today = [one for one in told if day_of(one.at) == day]
        this_month = [one for one in told if month_of(day_of(one.at)) == month]
        for tenant in "ab":
            assert spending.of(f"tenant/{tenant}") == (
                sum(one.cost_micro for one in today if one.tenant == tenant),
                sum(one.cost_micro for one in this_month if one.tenant == tenant),
            )
        assert spending.of("team/a/core")[0] == sum(
            one.cost_micro for one in today if (one.tenant, one.key) == ("a", "k1")
        )
        assert store.spending(day).whole() == spending.whole()
    finally:
        store.close()


def entry(at: float = NOW, cost_micro: int = 1) -> Entry:
    """One request."""
    return Entry(at, "a", "k1", "m", "p/m", 1, 1, 0, 0, 0, cost_micro, 200, 0.1, 0.1)


def test_a_day_and_a_month_begin() -> None:
    """Then everybody has spent nothing again, and workers are told of all of it, else of what has changed."""
    spending = Spending("2026-11-29")
    assert spending.told() is not None
    assert spending.told() is None
    spending.add({("2026-11-29", "a", "", "k", "m", "t"): _sum(5)})
    told = spending.told()
    assert told is not None
    assert (told.is_whole, told.by_day) == (False, dict.fromkeys(("tenant/a", "key/k", "model/m", "target/t"), 5))
    spending.turn("2026-11-30")
    assert spending.of("tenant/a") == (0, 5)
    spending.add({("2026-11-29", "a", "", "k", "m", "t"): _sum(2)})  # told late
    assert spending.of("tenant/a") == (0, 7)
    told = spending.told()
    assert told is not None
    assert (told.is_whole, told.day, told.by_day, told.by_month["key/k"]) == (True, "2026-11-30", {}, 7)
    spending.turn("2026-12-01")
    assert spending.of("tenant/a") == (0, 0)


def _sum(cost_micro: int) -> Sum:
    return Sum(requests=1, cost_micro=cost_micro)


def test_single_requests_are_kept_for_a_time(path: str) -> None:
    """Sums by day stay."""
    with opened(path) as store:
        store.add("w", 1, [entry(NOW - 10), entry(NOW)], {}, NOW, NOW - 5)
        store.add("w", 2, [entry(NOW + 10)], {}, NOW + 10, NOW + 5)
        assert store.usage([])[0]["requests"] == 3
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT at FROM requests").fetchall() == [(NOW + 10,)]


def test_conversations_are_stored_without_secrets(path: str) -> None:
    """Whatever a worker has told."""
    with opened(path) as store:
        told = Conversation(NOW, "r", "a", "k", "m", "my key is sk-0123456789abcdef", "ask joe@example.com")
        store.add("w", 1, [], {}, NOW, 0.0, [told])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT prompt, answer FROM conversations").fetchone() == ("my key is [key]", "ask [mail]")


def test_a_batch_is_whole_or_not_there(path: str) -> None:
    """One that fails in the middle leaves nothing, and goes in the next time."""
    with opened(path) as store:
        bad = Entry(NOW, "a", "k", "m", "t", 1 << 70, 0, 0, 0, 0, 0, 200, 0.0, 0.0)
        with pytest.raises(OverflowError):
            store.add("w", 1, [entry(), bad], {}, NOW, 0.0)
        assert store.usage([]) == []
        assert store.add("w", 1, [entry()], {}, NOW, 0.0)
        assert store.usage([])[0]["requests"] == 1


def test_what_cannot_be_stored_is_no_fault_of_the_store(path: str) -> None:
    """It would be tried again for ever, and all other batches wait behind it."""
    with opened(path) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.add("w", 1, [Entry(NOW, "a", "k", "m", "t", 0, 0, 0, 0, 0, 0, 200, float("nan"), 0.0)], {}, NOW, 0.0)
        assert store.usage([]) == []


def test_keys_come_back_as_they_were(path: str) -> None:
    """With limits, models, and both digests; a change replaces."""
    account = Account(
        "k",
        digest_of(b"s"),
        "a",
        "core",
        "n",
        ("gpt-*",),
        TokenLimits(tokens_per_minute=5, money_per_day=1.5),
        1.0,
        2.0,
    )
    other = Account("l", digest_of(b"t"), "a", old_digest=digest_of(b"u"), created=2.0, old_until=3.0, revoked=4.0)
    snapshot = Snapshot((account, other), (Tenant("a", 3),), (Team("a", "core", TokenLimits(concurrent=2)),))
    with opened(path) as store:
        store.put(snapshot)
    with opened(path) as store:
        assert store.snapshot() == snapshot
        store.put(Snapshot((), (Tenant("a", 4),), (), is_whole=False))
        assert store.snapshot().tenants == (Tenant("a", 4),)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_one_writer(path: str) -> None:
    """A second one is refused; who reads is not."""
    with opened(path), pytest.raises(StoreError, match="another edgeq has it open"):
        Store(path)
    with opened(path):
        reader = Store(path, writes=False)
        assert reader.snapshot() == Snapshot()
        reader.close()
    with opened(path):
        pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no database" * 100, "file is not a database"),
        ("CREATE TABLE t (a)", "a database of something else"),
        ("PRAGMA application_id = 1701078897; PRAGMA user_version = 99", "written by a newer edgeq"),
    ],
)
def test_what_is_no_store(path: str, content: bytes | str, says: str) -> None:
    """Both the check of a configuration and the opening say so, and leave it as it is."""
    if isinstance(content, bytes):
        Path(path).write_bytes(content)
    else:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(content)
    before = Path(path).read_bytes()
    assert says in check_store(path)
    with pytest.raises(StoreError, match=says):
        Store(path)
    assert Path(path).read_bytes() == before


def test_what_a_check_says(tmp_path: Path, path: str) -> None:
    """Of a store that is not there yet, nothing; of places where it cannot be, why; and it makes no file."""
    assert check_store(path) == ""
    assert check_store(str(tmp_path / "no" / "s")) == f'the directory "{tmp_path}/no" does not exist'
    assert "is a directory" in check_store(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with opened(path):
        assert check_store(path) == ""  # or a reload would be refused, and a start after a crash
    assert check_store(path) == ""


def test_a_check_takes_no_lock_away(path: str) -> None:
    """Of a store that is open: while others come and go, what is written stays in the log that they see."""
    store = Store(path)
    store.put(Snapshot(tenants=(Tenant("first"),)))
    assert check_store(path) == ""  # as each reload does
    look = f"import sqlite3; db = sqlite3.connect({path!r}); print(db.execute('SELECT name FROM tenants').fetchall())"
    for name in ("second", "third"):
        subprocess.run([sys.executable, "-c", f"{look}; db.close()"], check=True, capture_output=True)
        store.put(Snapshot(tenants=(Tenant(name),)))
    told = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[('first',), ('second',), ('third',)]"
    store.close()
    assert check_store(path) == ""
