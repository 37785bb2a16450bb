"""What becomes of keys, tenants and teams when somebody changes them: the rules, without store or sockets.

Every function returns what is to be written; `Registry` is the copy in memory of what the store has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import (
    ACTIVE,
    EXPIRED,
    Account,
    Snapshot,
    Team,
    Tenant,
    digest_of,
    key_subject,
    means,
    team_subject,
    tenant_subject,
)
from edgeq.llm.ledger import day_end_s, month_end_s
from edgeq.llm.sums import Spending

PREFIX: Final = "eq"
_ID_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that are mistaken for others: ids are read aloud."""
_ID_LENGTH: Final = 8
_SECRET_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SECRET_LENGTH: Final = 43
"""256 bits."""
_NOT_TOLD: Final = frozenset(("digest", "old_digest", "old_until", "is_old", "created"))
_TIMES: Final = frozenset(("expires", "revoked"))
_MAX_NAMES: Final = 8
"""So many keys are named."""


class NoSuch(LookupError):
    """There is no key, tenant or team of this name."""


class Budget(NamedTuple):
    """Of money, that somebody who asks for models has to keep to."""

    subject: str
    period: str
    """"day" or "month"."""
    limit: float
    spent: float
    until_s: int
    """When it begins anew, in unix seconds."""


class Made(msgspec.Struct, frozen=True):
    """A change, the key that it is about, and its secret, which is told once and kept nowhere."""

    change: Snapshot
    account: Account | None = None
    secret: str = ""

    def __repr__(self) -> str:
        return f"Made({self.account!r})"


class Registry:
    """All keys, tenants and teams."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.accounts = {one.id: one for one in snapshot.accounts}
        self.tenants = {one.name: one for one in snapshot.tenants}
        self.teams = {(one.tenant, one.name): one for one in snapshot.teams}
        self.team_of_key = {one.id: one.team for one in snapshot.accounts}

    def take(self, change: Snapshot) -> None:
        """What was written."""
        self.accounts.update((one.id, one) for one in change.accounts)
        self.tenants.update((one.name, one) for one in change.tenants)
        self.teams.update(((one.tenant, one.name), one) for one in change.teams)
        gone = set(change.gone)
        self.accounts = {name: one for name, one in self.accounts.items() if key_subject(name) not in gone}
        self.tenants = {name: one for name, one in self.tenants.items() if tenant_subject(name) not in gone}
        self.teams = {name: one for name, one in self.teams.items() if team_subject(*name) not in gone}
        # Of keys that are gone, too: what they have used may still come.
        # A new one: a thread may be reading the old one.
        self.team_of_key = self.team_of_key | {one.id: one.team for one in change.accounts}

    def differences(self, change: Snapshot) -> list[str]:
        """What a change that is not yet taken does to keys, tenants and teams, in words, without what is secret."""
        found: list[str] = []
        for account in change.accounts:
            old = self.accounts.get(account.id)
            if old is None:
                found.append(f"{key_subject(account.id)} is new")
            elif old.digest != account.digest:
                found.append(f"{key_subject(account.id)} has a new secret")
            found += _differences(key_subject(account.id), old or Account(account.id, b"", account.tenant), account)
        for tenant in change.tenants:
            subject, old_tenant = tenant_subject(tenant.name), self.tenants.get(tenant.name)
            found += [f"{subject} is new"] if old_tenant is None else []
            found += _differences(subject, old_tenant or Tenant(tenant.name), tenant)
        for team in change.teams:
            subject, old_team = team_subject(team.tenant, team.name), self.teams.get((team.tenant, team.name))
            found += [f"{subject} is new"] if old_team is None else []
            found += _differences(subject, old_team or Team(team.tenant, team.name), team)
        return found

    def snapshot(self) -> Snapshot:
        """All of it."""
        return Snapshot(tuple(self.accounts.values()), tuple(self.tenants.values()), tuple(self.teams.values()))

    def lost_models(self, before: Iterable[str], after: Iterable[str], now: float) -> list[str]:
        """What keys that can be used name of models that there were before, and are not any more, in words."""
        were, are = list(before), list(after)
        keys: dict[str, list[str]] = {}
        for account in self.accounts.values():
            for name in account.models if account.state(now) == ACTIVE else ():
                keys.setdefault(name, []).append(account.id)
        lost = [name for name in keys if _is_meant(name, were) and not _is_meant(name, are)]
        return [
            f"there is no model {name} any more, which keys name: {', '.join(keys[name][:_MAX_NAMES])}"
            + (f" and {len(keys[name]) - _MAX_NAMES} more" if len(keys[name]) > _MAX_NAMES else "")
            for name in lost
        ]

    def account(self, key_id: str) -> Account:
        """Raises NoSuch. A whole key will do as well as its id, for whoever has nothing else."""
        found = self.accounts.get(key_id) or self.accounts.get(id_of(key_id))
        if found is None:
            called = [f"{one.id} of {one.tenant}" for one in self.accounts.values() if one.name == key_id]
            told = f", but so is called: {', '.join(called[:_MAX_NAMES])}" if called else ": keys list"
            raise NoSuch(f"there is no key {id_of(key_id)[:64]!r}{told}")
        return found

    def create(self, now: float, tenant: str, team: str, changes: Mapping[str, Any]) -> Made:
        """A new key; a tenant or team that is new comes with it. `changes`: attributes of Account."""
        key_id = _new_id(self.accounts)
        secret = _secret(key_id)
        account = Account(key_id, digest_of(secret.encode()), tenant, team, created=now)
        account = msgspec.structs.replace(account, **changes)
        return Made(Snapshot((account,), *self._new(tenant, team), is_whole=False), account, secret)

    def change(self, key_id: str, changes: Mapping[str, Any], limits: Mapping[str, Any]) -> Made:
        """Other attributes, other `limits`. Raises NoSuch; ValueError if revoked."""
        account = self._not_revoked(key_id)
        account = msgspec.structs.replace(account, limits=_limited(account.limits, limits), **changes)
        return Made(Snapshot((account,), *self._new(account.tenant, account.team), is_whole=False), account)

    def _not_revoked(self, key_id: str) -> Account:
        account = self.account(key_id)
        if account.revoked:
            raise ValueError(f"key {account.id} was revoked: make a new one")
        return account

    def rotate(self, now: float, key_id: str, grace_s: float) -> Made:
        """A new secret for a key; the one before works for `grace_s` more. Raises NoSuch; ValueError if it could not be
        used either."""
        account = self._not_revoked(key_id)
        if account.state(now) == EXPIRED:
            raise ValueError(
                f"key {account.id} has expired, and so would its new secret: keys set {account.id} --expires"
            )
        secret = _secret(account.id)
        account = msgspec.structs.replace(
            account,
            digest=digest_of(secret.encode()),
            old_digest=account.digest,
            old_until=now + grace_s,
        )
        return Made(Snapshot((account,), is_whole=False), account, secret)

    def revoke(self, now: float, key_id: str) -> Made:
        """No use of a key any more, neither by its secret nor by an older one. Raises NoSuch."""
        account = self.account(key_id)
        account = msgspec.structs.replace(account, revoked=account.revoked or now)
        return Made(Snapshot((account,), is_whole=False), account)

    def change_tenant(self, tenant: str, team: str, weight: int | None, limits: Mapping[str, Any]) -> Made:
        """Weight and limits of a tenant, new or not; or limits of one of its teams."""
        if team:
            if weight is not None:
                raise ValueError("a weight is a tenant's, not a team's")
            old_team = self.teams.get((tenant, team), Team(tenant, team))
            new_team = msgspec.structs.replace(old_team, limits=_limited(old_team.limits, limits))
            return Made(Snapshot((), self._new(tenant, "")[0], (new_team,), is_whole=False))
        old = self.tenants.get(tenant, Tenant(tenant))
        new = msgspec.structs.replace(
            old, weight=old.weight if weight is None else weight, limits=_limited(old.limits, limits)
        )
        return Made(Snapshot((), (new,), (), is_whole=False))

    def delete_tenant(self, now: float, tenant: str, team: str, with_keys: bool) -> Made:
        """A tenant with its teams, or one of these, is no more, and neither are their keys. Raises NoSuch; ValueError
        if a key may still be used, unless `with_keys`."""
        if (tenant, team) not in self.teams if team else tenant not in self.tenants:
            raise NoSuch(
                f"there is no {f'team {team!r} of {tenant!r}' if team else f'tenant {tenant!r}'}: tenants list"
            )
        keys = [one for one in self.accounts.values() if one.tenant == tenant and team in ("", one.team)]
        live = [one.id for one in keys if one.state(now) == ACTIVE]
        if live and not with_keys:
            some = ", ".join((*live[:_MAX_NAMES], *(["..."] if len(live) > _MAX_NAMES else [])))
            raise ValueError(f"{len(live)} of its keys can be used ({some}): revoke them first, or say --with-keys")
        gone = [key_subject(one.id) for one in keys]
        gone += [team_subject(*one) for one in self.teams if one[0] == tenant and team in ("", one[1])]
        if not team:
            gone.append(tenant_subject(tenant))
        return Made(Snapshot(is_whole=False, gone=tuple(gone)))

    def _new(self, tenant: str, team: str) -> tuple[tuple[Tenant, ...], tuple[Team, ...]]:
        """What of these is not there yet."""
        tenants = () if tenant in self.tenants else (Tenant(tenant),)
        return tenants, (Team(tenant, team),) if team and (tenant, team) not in self.teams else ()

    def owners(self, subject: str) -> list[tuple[str, TokenLimits]]:
        """Whose limits hold for a key, a team or a tenant, each with them: its own, its team's, its tenant's."""
        kind, _, name = subject.partition("/")
        account = self.accounts.get(name) if kind == "key" else None
        tenant, _, team = name.partition("/") if kind == "team" else (name if kind == "tenant" else "", "", "")
        found = []
        if account is not None:
            found.append((subject, account.limits))
            tenant, team = account.tenant, account.team
        if (tenant, team) in self.teams:
            found.append((team_subject(tenant, team), self.teams[tenant, team].limits))
        if tenant in self.tenants:
            found.append((tenant_subject(tenant), self.tenants[tenant].limits))
        return found

    def budgets(self, subject: str, spending: Spending, now: float) -> list[Budget]:
        """All of theirs."""
        found = []
        for one, limits in self.owners(subject):
            day, month = spending.of(one)
            if limits.money_per_day:
                found.append(Budget(one, "day", limits.money_per_day, day / 1e6, day_end_s(now)))
            if limits.money_per_month:
                found.append(Budget(one, "month", limits.money_per_month, month / 1e6, month_end_s(now)))
        return found

    # -- for people ---------------------------------------------------------------------------------------------------

    def keys_told(self, now: float, spending: Spending, match: str = "") -> list[dict[str, Any]]:
        """All keys, without anything secret."""
        told = (key_told(one, now, spending) for one in self.accounts.values())
        return [one for one in told if not match or any(match in one[key] for key in ("id", "tenant", "team", "name"))]

    def tenants_told(self, spending: Spending, match: str = "") -> list[dict[str, Any]]:
        """Tenants, each followed by its teams."""
        keys: dict[tuple[str, str], int] = {}
        for one in self.accounts.values():
            for whose in {(one.tenant, ""), (one.tenant, one.team)}:
                keys[whose] = keys.get(whose, 0) + (not one.revoked)
        told: list[dict[str, Any]] = []
        for tenant in sorted(self.tenants.values(), key=lambda one: one.name):
            if match not in tenant.name:
                continue
            spent = spending.of(tenant_subject(tenant.name))
            told.append(_told(tenant.name, "", keys, spent, tenant.limits, tenant.weight))
            for team in sorted(self.teams.values(), key=lambda one: one.name):
                if team.tenant == tenant.name:
                    spent = spending.of(team_subject(tenant.name, team.name))
                    told.append(_told(tenant.name, team.name, keys, spent, team.limits, None))
        return told


def _is_meant(name: str, models: Iterable[str]) -> bool:
    return any(means(name, model) for model in models)


def key_told(one: Account, now: float, spending: Spending) -> dict[str, Any]:
    """A key for people: never its digest."""
    day, month = spending.of(key_subject(one.id))
    return {
        "id": one.id,
        "tenant": one.tenant,
        "team": one.team,
        "name": one.name,
        "state": one.state(now),
        "models": list(one.models),
        "limits": limits_told(one.limits),
        "created": _clock(one.created),
        "expires": _clock(one.expires),
        "revoked": _clock(one.revoked),
        "old_until": _clock(one.old_until if one.old_until > now else 0.0),
        "spent_day": day / 1e6,
        "spent_month": month / 1e6,
    }


def limits_told(limits: TokenLimits) -> dict[str, int | float]:
    """Those that are set."""
    return {name: value for name in limits.__struct_fields__ if (value := getattr(limits, name))}


def id_of(secret: str) -> str:
    """The id within a key, also within its beginning as logs have it (eq-ID); an id itself stays as it is."""
    parts = secret.split("-")
    return parts[1] if len(parts) > 1 and parts[0] == PREFIX else secret


def _clock(at: float) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else None


def _told(
    tenant: str,
    team: str,
    keys: Mapping[tuple[str, str], int],
    spent: tuple[int, int],
    limits: TokenLimits,
    weight: int | None,
) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "team": team,
        "keys": keys.get((tenant, team), 0),
        "weight": weight,
        "limits": limits_told(limits),
        "spent_day": spent[0] / 1e6,
        "spent_month": spent[1] / 1e6,
    }


def _differences(subject: str, old: msgspec.Struct, new: msgspec.Struct) -> list[str]:
    """Of two of one kind, field by field: "key/ID name: 'a' -> 'b'"."""
    found: list[str] = []
    for field in old.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before == after or field in _NOT_TOLD:
            continue
        if isinstance(before, msgspec.Struct):
            found += _differences(subject, before, after)
        elif field in _TIMES:
            found.append(f"{subject} {field}: {_clock(before) or 'never'} -> {_clock(after) or 'never'}")
        else:
            found.append(f"{subject} {field}: {before!r} -> {after!r}")
    return found


def _limited(old: TokenLimits, changes: Mapping[str, Any]) -> TokenLimits:
    return msgspec.structs.replace(old, **changes) if changes else old


def _new_id(taken: Iterable[str]) -> str:
    while True:
        key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
        if key_id not in taken:
            return key_id


def _secret(key_id: str) -> str:
    return f"{PREFIX}-{key_id}-" + "".join(secrets.choice(_SECRET_LETTERS) for _ in range(_SECRET_LENGTH))
