"""Virtual keys, tenants and teams, and what was used, as they are stored and told from process to process.

    tenant   who pays: limits for all of its keys together, a weight in fair queues
    team     a part of a tenant, with limits for the keys of that team
    account  one virtual key, known by the digest of its secret

Money is counted in millionths of the currency in which prices are written (`_micro`); times are seconds since 1970.
These are plain records of msgspec, so this module stays interpreted.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Annotated, Final, TypeAlias

import msgspec

from edgeq.config.schema_llm import TokenLimits

NO_LIMITS: Final = TokenLimits()
MICRO: Final = 1_000_000
_PERSON: Final = b"edgeq-key"
_DIGEST_BYTES: Final = 32

ACTIVE: Final = "active"
REVOKED: Final = "revoked"
EXPIRED: Final = "expired"
REPLACED: Final = "replaced"


def digest_of(secret: bytes) -> bytes:
    """By which a secret is known.

    A fast hash is right here: secrets are 256 bits of a random generator, so nobody can try them all, and the slow
    hashes that passwords need (tens of milliseconds) would only let strangers stop the gateway. What is looked up is
    the digest, so how long a look-up takes says nothing about a secret.
    """
    return blake2b(secret, digest_size=_DIGEST_BYTES, person=_PERSON).digest()


def means(name: str, model: str) -> bool:
    """Is `model` meant by one of the names in `Account.models`?"""
    return name == model or ("*" in name and fnmatchcase(model, name))


class Account(msgspec.Struct, frozen=True, array_like=True):
    """A virtual key."""

    id: str
    digest: bytes
    tenant: str
    team: str = ""
    name: str = ""
    """For people."""
    models: tuple[str, ...] = ()
    """Names of models that it may use, "gpt-*" for all that begin so; empty: all."""
    limits: TokenLimits = NO_LIMITS
    created: float = 0.0
    expires: float = 0.0
    """0: never."""
    revoked: float = 0.0
    """Since when; 0: it is not."""
    old_digest: bytes = b""
    """Of the secret that it had before it was rotated."""
    old_until: float = 0.0
    """Until when that one works, too."""
    is_old: bool = False
    """Found by that one; `expires` is when it ends. Never stored."""

    def __repr__(self) -> str:
        return f"Account({self.id}, {self.tenant})"

    def state(self, now: float) -> str:
        """ACTIVE, or why it may not be used; `now` in seconds since 1970."""
        if self.revoked:
            return REVOKED
        if self.expires and now >= self.expires:
            return REPLACED if self.is_old else EXPIRED
        return ACTIVE

    def allows(self, model: str) -> bool:
        """May it use the model of this name?"""
        models = self.models
        return not models or model in models or any(means(one, model) for one in models)

    def subjects(self) -> tuple[str, ...]:
        """By whose names what it uses is counted: key, tenant, and team if it has one."""
        if self.team:
            return key_subject(self.id), tenant_subject(self.tenant), team_subject(self.tenant, self.team)
        return key_subject(self.id), tenant_subject(self.tenant)


class Tenant(msgspec.Struct, frozen=True, array_like=True):
    """Who pays."""

    name: str
    weight: int = 1
    """Its share in fair queues."""
    limits: TokenLimits = NO_LIMITS
    """Of all its keys together."""


class Team(msgspec.Struct, frozen=True, array_like=True):
    """A part of a tenant."""

    tenant: str
    name: str
    limits: TokenLimits = NO_LIMITS
    """Of all keys of the team together."""


def key_subject(key_id: str) -> str:
    """How a key is called in limits and in `Spent`."""
    return f"key/{key_id}"


def tenant_subject(tenant: str) -> str:
    """The same of a tenant."""
    return f"tenant/{tenant}"


def team_subject(tenant: str, team: str) -> str:
    """The same of a team."""
    return f"team/{tenant}/{team}"


def model_subject(model: str) -> str:
    """The same of a model, in `Spent`."""
    return f"model/{model}"


def target_subject(target: str) -> str:
    """The same of a model at a provider's key."""
    return f"target/{target}"


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What there is, or (`is_whole` false) what has changed of it."""

    accounts: tuple[Account, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    teams: tuple[Team, ...] = ()
    is_whole: bool = True
    gone: tuple[str, ...] = ()
    """Subjects of keys, tenants and teams that there are no more."""


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """What was spent in this day and this month of UTC, by subject, in micro units; or what has changed of it."""

    day: str = ""
    """"2026-11-26"."""
    by_day: dict[str, int] = {}
    by_month: dict[str, int] = {}
    is_whole: bool = True


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
"""Whatever a worker says: sums of these fit 64 bits."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request has used."""

    at: float
    tenant: str
    key: str
    """Its id; empty: none was asked for."""
    model: str
    target: str
    input: Count
    output: Count
    cached: Count
    cache_write: Count
    reasoning: Count
    cost_micro: Count
    status: int
    seconds: float
    first_token_s: float
    """-1: there was none."""


class Conversation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was asked and answered, where accounts.log_prompts is on."""

    at: float
    request: str
    """Its id."""
    tenant: str
    key: str
    model: str
    prompt: str
    answer: str

    def __repr__(self) -> str:
        return f"Conversation({self.request})"
