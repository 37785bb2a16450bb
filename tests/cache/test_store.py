"""The bounded memory of answers: its bound holds whatever happens, and what is in use stays."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeq.cache.entry import Entry, freshened, make_entry
from edgeq.cache.fields import fields_of
from edgeq.cache.rules import CacheSettings, judge
from edgeq.cache.sieve import COLLECTING_SHARE, Kept
from edgeq.cache.store import MAX_VARIANTS, Store
from edgeq.cache.wish import Wish
from edgeq.wire.h1_request import parse_request
from edgeq.wire.head import HeadLimits

LIMITS = HeadLimits(8192, 32768, 100)
SETTINGS = CacheSettings(1 << 30, 1 << 20)
WALL = 1_800_000_000.0


def wish(*lines: bytes) -> Wish:
    raw = b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return Wish(parse_request(raw, None, LIMITS), b"")


PLAIN = wish()


def entry(key: bytes, size: int = 0, vary: bytes = b"", of: Wish = PLAIN) -> Entry:
    forward = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n" + (b"Vary: " + vary + b"\r\n" if vary else b"")
    judgement = judge(200, fields_of(forward), False, False, SETTINGS, WALL, 0.0)
    return make_entry(key, of, 200, forward, b"x" * size, judgement, SETTINGS, WALL, 0.0)


def test_find_and_forget() -> None:
    """By key; a newer answer takes the place of the older one."""
    store = Store(1 << 20)
    first, second = entry(b"k", 10), entry(b"k", 20)
    assert store.put(first)
    assert store.find(b"k", PLAIN) is first
    assert store.put(second)
    assert store.find(b"k", PLAIN) is second
    assert (store.entries, store.size_bytes) == (1, second.size_bytes)
    assert store.forget(b"k")
    assert not store.forget(b"k")
    assert (store.entries, store.size_bytes, store.find(b"k", PLAIN)) == (0, 0, None)


def test_variants() -> None:
    """The fields in Vary choose; how a list is written does not count; another Vary replaces all of them."""
    store = Store(1 << 20)
    zipped, plain = wish(b"Accept-Encoding: gzip,br"), wish()
    one, other = entry(b"k", 1, b"Accept-Encoding", zipped), entry(b"k", 2, b"accept-encoding", plain)
    store.put(one)
    store.put(other)
    assert store.find(b"k", wish(b"Accept-Encoding:  gzip , br")) is one
    assert store.find(b"k", wish(b"Accept-Encoding: gzip", b"Accept-Encoding: br")) is one
    assert store.find(b"k", plain) is other
    assert store.find(b"k", wish(b"Accept-Encoding: br")) is None
    third = entry(b"k", 3, b"Accept-Language", plain)
    store.put(third)
    assert store.find(b"k", zipped) is third
    assert store.entries == 1


def test_variants_are_bounded() -> None:
    """The oldest goes; the rest of the store is not touched."""
    store = Store(1 << 20)
    store.put(entry(b"other"))
    for number in range(MAX_VARIANTS + 5):
        store.put(entry(b"k", 0, b"X", wish(b"X: %d" % number)))
    assert store.entries == MAX_VARIANTS + 1
    assert store.find(b"k", wish(b"X: 4")) is None
    assert store.find(b"k", wish(b"X: 5")) is not None


def test_a_scan_does_not_empty_it() -> None:
    """Ten entries that are asked for stay while a thousand others pass through once."""
    size = entry(b"0000", 1000).size_bytes
    store = Store(size * 50)
    for number in range(10):
        store.put(entry(b"hot%d" % number, 1000))
    for number in range(1000):
        store.put(entry(b"%04d" % number, 1000))
        if number % 20 == 0:
            for hot in range(10):
                assert store.find(b"hot%d" % hot, PLAIN) is not None, (number, hot)
    assert store.size_bytes <= store.max_bytes


def test_an_answer_larger_than_all_of_it_is_not_stored() -> None:
    """And nothing else has to go for it."""
    store = Store(10_000)
    store.put(entry(b"k", 100))
    assert not store.put(entry(b"large", 20_000))
    assert store.entries == 1


def test_answers_on_their_way_have_a_part_of_the_room() -> None:
    """What is stored makes room for them, up to their share."""
    store = Store(40_000)
    for number in range(40):
        store.put(entry(b"%d" % number, 1000))
    assert store.collect(40_000 // COLLECTING_SHARE)
    assert not store.collect(1)
    assert store.size_bytes <= store.max_bytes
    store.collected(40_000 // COLLECTING_SHARE)
    assert store.collect(1)


@pytest.mark.parametrize("body", [0, 300, 5000])
def test_the_count_of_bytes_is_honest(body: int) -> None:
    """What the entries take, as tracemalloc sees it, is not more than what is counted, and not much less."""
    store = Store(1 << 30)
    forward = b'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: "abc"\r\nVary: X\r\n'
    forward += b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    judgement = judge(200, fields_of(forward), False, False, SETTINGS, WALL, 0.0)
    asked = [wish(b"X: %d" % number) for number in range(500)]
    gc.collect()
    tracemalloc.start()
    try:
        for number, one in enumerate(asked):
            body_bytes = bytes(body)
            key = b"http a.example /some/path/%d" % number
            store.put(make_entry(key, one, 200, forward, body_bytes, judgement, SETTINGS, WALL, 1.5 + number))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= store.size_bytes
    assert taken >= store.size_bytes * (0.5 if body < 1000 else 0.8)


class StoreModel(RuleBasedStateMachine):
    """Any order of what can be done to a store, beside a dictionary that forgets nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(20_000)
        self.collecting = 0
        self.known: dict[tuple[bytes, bytes], Entry] = {}

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d"]), size=st.integers(0, 9000), x=st.integers(0, 20))
    def put(self, key: bytes, size: int, x: int) -> None:
        made = entry(key, size, b"X" if key in (b"a", b"b") else b"", wish(b"X: %d" % x))
        if self.store.put(made):
            self.known[key, made.variant] = made

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d"]), x=st.integers(0, 20))
    def find(self, key: bytes, x: int) -> None:
        asked = wish(b"X: %d" % x)
        found = self.store.find(key, asked)
        if found is not None:
            assert self.known[key, found.variant] is found

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def forget(self, key: bytes) -> None:
        self.store.forget(key)
        assert self.store.resource(key) is None

    @rule(max_bytes=st.integers(3000, 30_000))
    def resize(self, max_bytes: int) -> None:
        self.store.resize(max_bytes)

    @rule(size=st.integers(0, 6000))
    def collect(self, size: int) -> None:
        if self.store.collect(size):
            self.collecting += size

    @precondition(lambda self: self.collecting > 0)
    @rule()
    def collected(self) -> None:
        self.store.collected(self.collecting)
        self.collecting = 0

    @rule()
    def clear(self) -> None:
        self.store.clear()
        assert self.store.entries == 0

    @invariant()
    def sums_hold(self) -> None:
        store = self.store
        kept = [
            one
            for key in (b"a", b"b", b"c", b"d")
            if (resource := store.resource(key)) is not None
            for one in resource.variants.values()
        ]
        assert store.entries == len(kept)
        assert store.size_bytes == sum(one.size_bytes for one in kept) + self.collecting
        assert store.size_bytes <= max(store.max_bytes, self.collecting)
        in_order: list[Kept] = []
        one = store._oldest if hasattr(store, "_oldest") else None  # not to be seen once it is compiled
        while one is not None:
            in_order.append(one)
            one = one.newer
        assert not in_order or len(in_order) == len(kept)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_304_makes_an_entry_fresh() -> None:
    """RFC 9111 3.2: its lines replace the stored ones, but not those about the content; the age begins anew."""
    forward = b'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: "a"\r\nX: 1\r\nDate: old\r\nContent-Type: t/a\r\n'
    judgement = judge(200, fields_of(forward), False, False, SETTINGS, WALL, 0.0)
    old = make_entry(b"k", PLAIN, 200, forward, b"body", judgement, SETTINGS, WALL, 0.0)
    answer = (
        b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=90\r\nX: 2\r\nX: 3\r\nContent-Type: t/b\r\nAge: 7\r\n"
    )
    new, judgement = freshened(old, PLAIN, answer, SETTINGS, WALL, 0.5, 100.0)
    assert judgement.refusal == ""
    fields = fields_of(new.head)
    assert (new.status, new.body, new.lifetime_s, new.age_s(101.0)) == (200, b"body", 90.0, 8.5)
    assert (fields[b"x"], fields[b"content-type"], fields[b"content-length"]) == (b"2, 3", b"t/a", b"4")
    assert fields[b"date"] != b"old"
    assert new.head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert new.head.count(b"content-length") == 1
    assert old.lifetime_s == 60.0


@given(st.binary(max_size=300))
def test_a_304_may_say_anything(junk: bytes) -> None:
    """What is kept of it are whole lines."""
    old = entry(b"k", 3)
    lines = junk.replace(b"\r", b"").replace(b"\n", b"")
    new, _ = freshened(old, PLAIN, b"HTTP/1.1 304 N\r\nX: " + lines + b"\r\n", SETTINGS, WALL, 0.0, 1.0)
    assert new.head.endswith(b"\r\n")
    assert b"\r\n\r\n" not in new.head
