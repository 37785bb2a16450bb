"""One stored answer: the bytes to send, and what decides whether they may be sent. Times are monotonic seconds."""

from __future__ import annotations

from time import gmtime, strftime
from typing import Final

from edgeq.cache.fields import fields_of, parse_date
from edgeq.cache.rules import CacheSettings, Judgement, judge
from edgeq.cache.sieve import Kept
from edgeq.cache.wish import Wish

OVERHEAD_BYTES: Final = 1100
"""Of an entry beside its key, head and body: the object, its numbers, its places in two dictionaries. Measured with
tracemalloc on CPython 3.11 as 900 bytes, interpreted: see tests/cache/test_store.py."""

_NOT_STORED: Final = frozenset((b"age", b"content-length", b"trailer"))
"""Made anew for each answer, or about the message that came and not about what it holds."""
_NOT_UPDATED: Final = frozenset((b"content-length", b"content-encoding", b"content-range", b"content-type"))
"""What a 304 says of these is about itself (RFC 9111 3.2)."""
_IN_304: Final = frozenset(b"cache-control content-location date etag expires vary last-modified".split())
"""RFC 9110 15.4.5, and Last-Modified, without which some clients forget theirs."""


class Entry(Kept):
    """An answer that may be used again. `head`: status line, lines and Content-Length, without the empty line."""

    __slots__ = (
        "body",
        "etag",
        "for_anyone",
        "head",
        "initial_age_s",
        "key",
        "last_modified",
        "lifetime_s",
        "modified_at",
        "no_cache",
        "stale_if_error_s",
        "stale_while_revalidate_s",
        "status",
        "stored_at",
        "variant",
        "vary",
    )

    def __init__(self, key: bytes, variant: bytes, status: int, lines: bytes, body: bytes) -> None:
        """Args: lines are status line and field lines, each with its CRLF."""
        super().__init__()
        self.key = key
        self.variant = variant
        self.vary: list[bytes] = []
        self.status: int = status
        self.body = body
        self.head = lines
        self.etag = b""
        self.last_modified = b""
        self.modified_at: float = -1.0
        self.stored_at: float = 0.0
        self.initial_age_s: float = 0.0
        self.lifetime_s: float = 0.0
        self.no_cache: bool = False
        self.for_anyone: bool = False
        self.stale_while_revalidate_s: float = 0.0
        self.stale_if_error_s: float = 0.0

    def settle(self, judgement: Judgement, fields: dict[bytes, bytes], now: float) -> None:
        """Take over what was judged of the answer's fields; `now` is when it came."""
        self.stored_at = now
        self.initial_age_s = judgement.age_s
        self.lifetime_s = judgement.lifetime_s
        self.no_cache = judgement.no_cache
        self.for_anyone = judgement.for_anyone
        self.stale_while_revalidate_s = judgement.stale_while_revalidate_s
        self.stale_if_error_s = judgement.stale_if_error_s
        self.etag = fields.get(b"etag", b"")
        self.last_modified = fields.get(b"last-modified", b"")
        self.modified_at = parse_date(self.last_modified)
        self.size_bytes = OVERHEAD_BYTES + len(self.key) + len(self.variant) + len(self.head) + len(self.body)

    def age_s(self, now: float) -> float:
        """current_age of RFC 9111 4.2.3."""
        return self.initial_age_s + (now - self.stored_at)

    def is_fresh(self, now: float) -> bool:
        return not self.no_cache and self.age_s(now) < self.lifetime_s

    def may_refresh_behind(self, now: float) -> bool:
        """May it be used while it is asked whether it is still good (RFC 5861 3)?"""
        return self.age_s(now) < self.lifetime_s + self.stale_while_revalidate_s

    def may_replace_error(self, now: float) -> bool:
        """May it be used in place of a failure (RFC 5861 4)?"""
        return self.age_s(now) < self.lifetime_s + self.stale_if_error_s

    def conditions(self) -> bytes:
        """The lines that ask the upstream whether this is still good; nothing if it has no validator."""
        lines = b"if-none-match: " + self.etag + b"\r\n" if self.etag else b""
        if self.last_modified:
            lines += b"if-modified-since: " + self.last_modified + b"\r\n"
        return lines

    def not_modified(self) -> bytes:
        """The head of a 304 (RFC 9110 15.4.5), without the empty line."""
        lines = self.head.split(b"\r\n")
        kept = [line for line in lines[1:] if line.partition(b":")[0].lower() in _IN_304]
        return b"\r\n".join([b"HTTP/1.1 304 Not Modified", *kept, b""])


def make_entry(
    key: bytes,
    wish: Wish,
    status: int,
    forward: bytes,
    body: bytes,
    judgement: Judgement,
    settings: CacheSettings,
    wall: float,
    now: float,
) -> Entry:
    """A complete answer as an entry. `forward`: status line and lines as they are passed on; `now` and `wall` are when
    its head came, on both clocks."""
    fields = fields_of(forward)
    vary = vary_of(fields)
    entry = Entry(key, wish.variant(vary), status, _stored_lines(forward, len(body), fields, settings, wall), body)
    entry.vary = vary
    entry.settle(judgement, fields, now)
    return entry


def vary_of(fields: dict[bytes, bytes]) -> list[bytes]:
    """The names in Vary, in lower case, each once."""
    names = [name.strip(b" \t").lower() for name in fields.get(b"vary", b"").split(b",")]
    return sorted({name for name in names if name})


def _stored_lines(forward: bytes, size: int, fields: dict[bytes, bytes], settings: CacheSettings, wall: float) -> bytes:
    lines = forward.split(b"\r\n")
    kept = [lines[0]]
    for line in lines[1:]:
        name = line.partition(b":")[0].lower()
        if not line or name in _NOT_STORED or (name == b"set-cookie" and settings.strip_cookies):
            continue
        kept.append(line)
    if b"date" not in fields:  # RFC 9110 6.6.1
        kept.append(strftime("date: %a, %d %b %Y %H:%M:%S GMT", gmtime(wall)).encode())
    if not lines[0].startswith(b"HTTP/1.1 204"):
        kept.append(b"content-length: %d" % size)
    kept.append(b"")
    return b"\r\n".join(kept)


def agrees(entry: Entry, fields: dict[bytes, bytes]) -> bool:
    """Is a 304 with these fields about this entry (RFC 9111 4.3.4)? One without validators is about what was asked."""
    etag = fields.get(b"etag", b"")
    if etag and entry.etag:
        return etag.removeprefix(b"W/") == entry.etag.removeprefix(b"W/")
    modified = fields.get(b"last-modified", b"")
    return not modified or not entry.last_modified or modified == entry.last_modified


def freshened(
    entry: Entry,
    wish: Wish,
    forward: bytes,
    settings: CacheSettings,
    wall: float,
    delay_s: float,
    now: float,
) -> tuple[Entry, Judgement]:
    """The entry as a 304 has updated it (RFC 9111 3.2), in a new object: the old one may be on its way to somebody."""
    update: dict[bytes, list[bytes]] = {}
    for line in forward.split(b"\r\n")[1:]:
        name = line.partition(b":")[0].lower()
        if line and name not in _NOT_UPDATED and name not in _NOT_STORED:
            update.setdefault(name, []).append(line)
    old = entry.head.split(b"\r\n")
    gone = {*update, b"date"}  # its age counts from this answer on, also if that has no Date
    lines = [old[0], *[line for line in old[1:] if line and line.partition(b":")[0].lower() not in gone]]
    for added in update.values():
        lines.extend(added)
    joined = b"\r\n".join([*lines, b""])
    fields = fields_of(joined)
    age = fields_of(forward).get(b"age")
    if age is not None:
        fields[b"age"] = age
    judgement = judge(entry.status, fields, wish.credentials, wish.cookie, settings, wall, delay_s)
    return make_entry(entry.key, wish, entry.status, joined, entry.body, judgement, settings, wall, now), judgement
