"""What may be stored, and for how long it may be used (RFC 9111 3 and 4.2, RFC 5861); times are seconds.

    lifetime = s-maxage, else max-age, else Expires - Date, else the route's default_ttl
    age      = what it was when the answer came (the larger of Age plus the time the answer took, and of what its Date
               says) plus how long it has been here since

A shared cache's rules, the careful reading of each:
- An answer that says nothing of how long it may be used is stored only if its route has a default_ttl, and never if the
  request had a cookie or a credential: it may be about one user.
- Who asks with a credential gets, and gives, only what says `public`, `s-maxage` or `must-revalidate` (RFC 9111 3.5).
  Credentials are Authorization and the usual fields with an API key, and the field that names tenants.
- An answer that sets a cookie is not stored, or without its cookies if the route says so.
- Failures (5xx but 501) and what RFC 6585 excludes are not stored, nor are parts (206) and 304.
"""

from __future__ import annotations

from typing import Final

from edgeq.cache.directives import UNSAID, Directives, parse_directives, seconds, split_list
from edgeq.cache.fields import NO_DATE, parse_date
from edgeq.wire.fields import KINDS

STORABLE: Final = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501))
HEURISTIC: Final = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
"""Of those, the ones for which a default lifetime may be used (RFC 9110 15.1)."""
WRITTEN: Final = frozenset(KINDS) - frozenset(b"host user-agent referer x-forwarded-host x-forwarded-proto".split())
"""Fields that are not forwarded as they came: an answer that varies by one of those is for one request only. Of those
that are taken out here, user-agent and referer are forwarded, and the others belong to the key."""


class CacheSettings:
    """[route.cache], made ready; seconds and bytes."""

    __slots__ = (
        "default_ttl_s",
        "join_s",
        "max_bytes",
        "max_object",
        "obey_requests",
        "stale_if_error_s",
        "stale_while_revalidate_s",
        "strip_cookies",
        "tenant_field",
        "written",
    )

    def __init__(
        self,
        max_bytes: int,
        max_object: int,
        default_ttl_s: float = 0.0,
        stale_while_revalidate_s: float = 0.0,
        stale_if_error_s: float = 0.0,
        join_s: float = 5.0,
        strip_cookies: bool = False,
        obey_requests: bool = True,
        tenant_field: bytes = b"",
        written: frozenset[bytes] = frozenset(),
    ) -> None:
        self.max_bytes: int = max_bytes
        self.max_object: int = max_object
        self.default_ttl_s: float = default_ttl_s
        self.stale_while_revalidate_s: float = stale_while_revalidate_s
        self.stale_if_error_s: float = stale_if_error_s
        self.join_s: float = join_s
        self.strip_cookies: bool = strip_cookies
        self.obey_requests: bool = obey_requests
        self.written: frozenset[bytes] = written
        """Names, in lower case, of fields that the configuration lets this gateway write itself."""
        self.tenant_field = tenant_field
        """The name, in lower case, of the field that says who asks; empty: there is none."""


class Judgement:
    """Of one answer: may it be stored (`refusal` is empty, or says why not), and how long may it be used?"""

    __slots__ = (
        "age_s",
        "directives",
        "for_anyone",
        "lifetime_s",
        "must_revalidate",
        "no_cache",
        "refusal",
        "stale_if_error_s",
        "stale_while_revalidate_s",
    )

    def __init__(self, directives: Directives) -> None:
        self.directives: Directives = directives
        self.refusal = ""
        self.lifetime_s: float = 0.0
        self.age_s: float = 0.0
        """When it came."""
        self.no_cache: bool = directives.no_cache
        """To be validated before each use."""
        self.must_revalidate: bool = (
            directives.must_revalidate or directives.proxy_revalidate or directives.s_maxage != UNSAID
        )
        """Never to be used stale (RFC 9111 5.2.2.2, 5.2.2.8, 5.2.2.10)."""
        self.for_anyone: bool = directives.public or directives.s_maxage != UNSAID or directives.must_revalidate
        """Also for, and from, requests with a credential."""
        self.stale_while_revalidate_s: float = 0.0
        self.stale_if_error_s: float = 0.0


def judge(
    status: int,
    fields: dict[bytes, bytes],
    credentials: bool,
    cookie: bool,
    settings: CacheSettings,
    wall: float,
    delay_s: float,
) -> Judgement:
    """Args: fields of the answer; whether its request had credentials or a cookie; wall is the time (since 1970) at
    which its head came, delay_s how long after the request was sent."""
    judgement = Judgement(parse_directives(fields.get(b"cache-control", b"")))
    said = judgement.directives
    lifetime_s = explicit_lifetime(said, fields, wall)
    explicit = lifetime_s >= 0.0
    if not explicit:
        lifetime_s = settings.default_ttl_s if status in HEURISTIC else 0.0
    judgement.lifetime_s = lifetime_s
    judgement.age_s = initial_age(fields, wall, delay_s)
    _stale_use(judgement, settings)
    if status not in STORABLE:
        judgement.refusal = "status"
    elif said.no_store or said.private:
        judgement.refusal = "no-store" if said.no_store else "private"
    elif _is_for_one_request(fields.get(b"vary", b""), settings):
        judgement.refusal = "vary"
    elif b"set-cookie" in fields and not settings.strip_cookies:
        judgement.refusal = "set-cookie"
    elif credentials and not judgement.for_anyone:
        judgement.refusal = "credentials"
    elif not explicit and not said.public and not said.no_cache and (lifetime_s <= 0.0 or cookie):
        judgement.refusal = "no-freshness"
    elif not explicit and cookie:
        judgement.lifetime_s = 0.0
    if not judgement.refusal and not is_of_use(judgement, fields):
        judgement.refusal = "stale"
    return judgement


def _is_for_one_request(vary: bytes, settings: CacheSettings) -> bool:
    names = frozenset(split_list(vary.lower()))
    return b"*" in names or not names.isdisjoint(WRITTEN) or not names.isdisjoint(settings.written)


def _stale_use(judgement: Judgement, settings: CacheSettings) -> None:
    """How long it may be used after its time: what the answer says itself goes before what its route says."""
    said = judgement.directives
    if judgement.must_revalidate or judgement.no_cache:
        return
    while_s = float(said.stale_while_revalidate)
    if said.stale_while_revalidate == UNSAID:
        # An answer without a lifetime wants each use to be asked for; only itself may say otherwise.
        while_s = settings.stale_while_revalidate_s if judgement.lifetime_s > 0.0 else 0.0
    judgement.stale_while_revalidate_s = while_s
    error_s = float(said.stale_if_error)
    judgement.stale_if_error_s = settings.stale_if_error_s if said.stale_if_error == UNSAID else error_s


def is_of_use(judgement: Judgement, fields: dict[bytes, bytes]) -> bool:
    """Can it ever be used: because it is fresh, may be used stale, or can be validated?"""
    if b"etag" in fields or b"last-modified" in fields:
        return True
    stale_s = max(judgement.stale_while_revalidate_s, judgement.stale_if_error_s)
    return not judgement.no_cache and judgement.lifetime_s + stale_s > judgement.age_s


def explicit_lifetime(said: Directives, fields: dict[bytes, bytes], wall: float) -> float:
    """What an answer says of its lifetime; -1 if nothing. An Expires that is no date is in the past (RFC 9111 5.3)."""
    if said.s_maxage != UNSAID:
        return float(said.s_maxage)
    if said.max_age != UNSAID:
        return float(said.max_age)
    expires = fields.get(b"expires")
    if expires is None:
        return -1.0
    until = parse_date(expires)
    if until == NO_DATE:
        return 0.0
    date = parse_date(fields.get(b"date", b""))
    return max(0.0, until - (wall if date == NO_DATE else date))


def initial_age(fields: dict[bytes, bytes], wall: float, delay_s: float) -> float:
    """corrected_initial_age of RFC 9111 4.2.3."""
    date = parse_date(fields.get(b"date", b""))
    apparent_s = max(0.0, wall - date) if date != NO_DATE else 0.0
    # Several Age values are one too many: the first counts, as with a list (RFC 9111 5.1).
    said_s = float(seconds(fields.get(b"age", b"0").partition(b",")[0]))
    return max(apparent_s, said_s + delay_s)
