"""What a request asks of a cache: found once for a head, and kept with it for the requests that repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.cache.directives import UNSAID, Directives, parse_directives, split_list
from edgeq.cache.fields import NO_DATE, fields_of, matches_any, parse_date
from edgeq.wire.fields import PRIVATE
from edgeq.wire.framing import NO_BODY

if TYPE_CHECKING:
    from edgeq.cache.entry import Entry
    from edgeq.listener.connection import Downstream
    from edgeq.wire.head import RequestHead

SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))  # RFC 9110 9.2.1
CREDENTIALS: Final = frozenset(PRIVATE - {b"cookie", b"set-cookie"})
_PASSING: Final = (b"range", b"if-match", b"if-unmodified-since", b"if-range")
"""A request with one of these is the upstream's to answer."""


class Wish:
    """A request head, as far as a cache is concerned."""

    __slots__ = (
        "cookie",
        "credentials",
        "directives",
        "fields",
        "if_modified_since",
        "if_none_match",
        "is_get",
        "passes",
        "tenant_field",
        "unsafe",
    )

    def __init__(self, head: RequestHead, tenant_field: bytes) -> None:
        method = head.method
        self.tenant_field = tenant_field
        self.unsafe: bool = method not in SAFE
        self.is_get: bool = method == b"GET"
        # Only what is forwarded: Connection may name a field to be removed, and then the answer does not depend on it.
        fields = fields_of(head.kept)
        self.fields: dict[bytes, bytes] = fields
        self.passes: bool = (
            method not in (b"GET", b"HEAD")
            or head.fields.body_kind != NO_BODY
            or len(head.fields.upgrade) > 0
            or any(name in fields for name in _PASSING)
        )
        self.credentials: bool = any(name in fields for name in CREDENTIALS) or tenant_field in fields
        self.cookie: bool = b"cookie" in fields
        said = fields.get(b"cache-control")
        self.directives: Directives = parse_directives(said or b"")
        if said is None and b"no-cache" in fields.get(b"pragma", b"").lower():  # RFC 9111 5.4
            self.directives.no_cache = True
        self.if_none_match = fields.get(b"if-none-match", b"")
        self.if_modified_since: float = parse_date(fields.get(b"if-modified-since", b""))

    def has(self, entry: Entry) -> bool:
        """Has the client what is stored, by its own conditions (RFC 9110 13.2.2)? Then 304 answers it."""
        if entry.status != 200:
            return False
        if self.if_none_match:
            return matches_any(self.if_none_match, entry.etag)
        since = self.if_modified_since
        return since != NO_DATE and entry.modified_at != NO_DATE and entry.modified_at <= since

    def variant(self, vary: list[bytes]) -> bytes:
        """What this request says in the fields by which answers vary (RFC 9111 4.1): the same for all that may share
        one. White space within a list does not count."""
        fields = self.fields
        return b"\n".join([b",".join(split_list(fields.get(name, b""))) for name in vary])

    def accepts(self, age_s: float, lifetime_s: float) -> bool:
        """Would it take an answer of this age? It may ask for a younger one than the upstream does (RFC 9111 5.2.1)."""
        said = self.directives
        if said.no_cache:
            return False
        if said.max_age != UNSAID and age_s > said.max_age:
            return False
        return said.min_fresh == UNSAID or lifetime_s - age_s >= said.min_fresh


def wish_of(head: RequestHead, tenant_field: bytes) -> Wish:
    """The wish of a head; made once. `tenant_field`: the field that says who asks, or nothing."""
    wish = head.wish
    if wish is None or wish.tenant_field != tenant_field:
        wish = Wish(head, tenant_field)
        head.wish = wish
    return wish


def key_of(head: RequestHead, down: Downstream) -> bytes:
    """What an answer is stored under: scheme, authority and target, as the upstream is told them.

    What a trusted peer says of the client's own scheme and host is part of it, because an upstream that builds links
    from that would answer in another way. Who is not trusted has no say: those fields are not forwarded.
    """
    scheme = b"https" if down.peer.tls else b"http"
    host = head.host
    if not down.trusted:
        return b"%b %b %b" % (scheme, host, head.target)
    fields = head.fields
    return b"%b %b %b %b %b" % (
        fields.x_forwarded_proto or scheme,
        fields.x_forwarded_host or host,
        head.target,
        host,
        _said_of_client(fields.forwarded),
    )


def _said_of_client(forwarded: bytes) -> bytes:
    """host and proto of Forwarded (RFC 7239), without the addresses."""
    if not forwarded:
        return b""
    pairs = [pair.strip(b" \t") for pair in forwarded.lower().replace(b",", b";").split(b";")]
    return b";".join([pair for pair in pairs if pair.startswith((b"host=", b"proto="))])
