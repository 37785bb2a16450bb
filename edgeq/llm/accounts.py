"""Who may use models: a worker's picture of all virtual keys, in memory.

No request ever waits for the store: the supervisor tells the whole picture before a worker accepts, and each change
after that. `Accounts` is never changed but replaced, so whoever has taken it sees one state of it. If the store fails
the last picture serves on, so our own fault never looks like a wrong key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import (
    ACTIVE,
    EXPIRED,
    NO_LIMITS,
    REPLACED,
    REVOKED,
    Account,
    Snapshot,
    Team,
    Tenant,
    digest_of,
    key_subject,
    team_subject,
    tenant_subject,
)
from edgeq.llm.usage import Batch, UsageLog
from edgeq.supervisor.messages import AccountsTold, Message, UsageTaken, UsageTold

_MAX_RECENT: Final = 4096
UNKNOWN: Final = "unknown"
MESSAGES: Final = {
    UNKNOWN: "no such key: it was mistyped, or belongs to another gateway",
    REVOKED: "this key was revoked",
    EXPIRED: "this key has expired",
    REPLACED: "this key was replaced by a new one, and works no more",
}
"""What the client is told, by what `Accounts.verdict` says."""


class Accounts:
    """All virtual keys with their tenants and teams."""

    __slots__ = ("_by_digest", "_by_id", "_limits", "_recent", "is_on", "teams", "tenants", "weights")

    def __init__(
        self,
        by_id: dict[str, Account],
        tenants: dict[str, Tenant],
        teams: dict[str, Team],
        is_on: bool = True,
    ) -> None:
        """`teams` by their subject (account.team_subject). The dictionaries are taken over."""
        self.is_on: bool = is_on
        """False: there is no [accounts], and everybody may use everything."""
        self._by_id: dict[str, Account] = by_id
        self.tenants: dict[str, Tenant] = tenants
        self.teams: dict[str, Team] = teams
        self._by_digest: dict[bytes, Account] = {}
        for one in by_id.values():
            self._by_digest[one.digest] = one
            if one.old_digest:
                ends = min(one.expires, one.old_until) if one.expires else one.old_until
                self._by_digest[one.old_digest] = msgspec.structs.replace(one, expires=ends, is_old=True)
        self._recent: dict[bytes, Account] = {}
        """By secret, of keys that are known: strangers cannot fill it. It saves the digest of each request."""
        self._limits: dict[str, list[tuple[str, TokenLimits]]] = {}
        """By account, once somebody has asked: this picture does not change."""
        self.weights: dict[bytes, float] = {
            one.name.encode(): float(one.weight) for one in tenants.values() if one.weight != 1
        }
        """Shares of tenants in fair queues; others have 1."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Accounts:
        """All that there is."""
        return NOBODY.changed(snapshot)

    def changed(self, snapshot: Snapshot) -> Accounts:
        """The next picture: `snapshot` in place of all this, or on top of it."""
        whole = snapshot.is_whole
        by_id: dict[str, Account] = {} if whole else dict(self._by_id)
        tenants: dict[str, Tenant] = {} if whole else dict(self.tenants)
        teams: dict[str, Team] = {} if whole else dict(self.teams)
        for account in snapshot.accounts:
            by_id[account.id] = account
        for tenant in snapshot.tenants:
            tenants[tenant.name] = tenant
        for team in snapshot.teams:
            teams[team_subject(team.tenant, team.name)] = team
        for subject in snapshot.gone:
            kind, _, name = subject.partition("/")
            if kind == "key":
                by_id.pop(name, None)
            elif kind == "tenant":
                tenants.pop(name, None)
            else:
                teams.pop(subject, None)
        return Accounts(by_id, tenants, teams)

    def find(self, secret: bytes) -> Account | None:
        """Whose secret this is; `verdict` says whether it may still be used."""
        account = self._recent.get(secret)
        if account is None:
            account = self._by_digest.get(digest_of(secret))
            if account is not None and len(self._recent) < _MAX_RECENT:
                self._recent[secret] = account
        return account

    def verdict(self, account: Account | None, now: float) -> str:
        """Empty if what `find` said may be used, else a key of MESSAGES; `now` in seconds since 1970."""
        if account is None:
            return UNKNOWN
        state = account.state(now)
        return "" if state == ACTIVE else state

    def limits_of(self, subject: str) -> TokenLimits:
        """Those of one subject (account.key_subject and its like)."""
        kind, _, name = subject.partition("/")
        if kind == "team":
            team = self.teams.get(subject)
            return team.limits if team is not None else NO_LIMITS
        if kind == "tenant":
            tenant = self.tenants.get(name)
            return tenant.limits if tenant is not None else NO_LIMITS
        account = self._by_id.get(name) if kind == "key" else None
        return account.limits if account is not None else NO_LIMITS

    def limits(self, account: Account) -> list[tuple[str, TokenLimits]]:
        """The limits that an account has to keep to, each with its subject: its own, its tenant's, its team's."""
        known = self._limits.get(account.id)
        if known is None:
            known = []
            for subject in account.subjects():
                limits = self.limits_of(subject)
                if limits is not NO_LIMITS and limits != NO_LIMITS:
                    known.append((subject, limits))
            if self._by_id.get(account.id) is account:  # not one that a request has from an earlier picture
                self._limits[account.id] = known
        return known


NOBODY: Final = Accounts({}, {}, {}, is_on=False)


class AccountsHolder:
    """What of accounts a worker has: the picture that holds now, what was spent, and the log of what is used."""

    __slots__ = ("budgets", "current", "day", "on_limits", "on_spent", "send", "spent_day", "spent_month", "usage")

    def __init__(self) -> None:
        self.send: Callable[[Message], None] | None = None
        """To the supervisor."""
        self.on_spent: Callable[[str, int, int], None] | None = None
        """For budgets: called with a subject that has one, and what it has spent this day and month, when any of it
        has changed."""
        self.on_limits: Callable[[str, TokenLimits], None] | None = None
        """Called with a subject, and the limits that it has from now on, if it may have had others."""
        self.budgets: frozenset[str] = frozenset()
        """Subjects that have one by the configuration: models, targets."""
        self.current: Accounts = NOBODY
        self.usage: UsageLog = UsageLog()
        self.day: str = ""
        """To which `spent_day` belongs, "2026-11-26"."""
        self.spent_day: dict[str, int] = {}
        """Micro units by subject, as it is stored: later by accounts.flush than `usage` has it."""
        self.spent_month: dict[str, int] = {}

    def configure(self, flush_s: float, log_prompts: bool) -> None:
        """As [accounts] says."""
        self.usage.flush_s = flush_s
        self.usage.log_prompts = log_prompts

    def hear(self, message: AccountsTold | UsageTaken) -> None:
        """What the supervisor tells: who may use models, what was spent; or that a batch of usage is stored."""
        if isinstance(message, UsageTaken):
            self._tell(self.usage.taken(message.number))
            return
        snapshot, spent = message.snapshot, message.spent
        subjects: list[str] = []
        if snapshot is not None:
            was_on = self.current.is_on
            self.current = self.current.changed(snapshot)
            subjects += [key_subject(one.id) for one in snapshot.accounts]
            subjects += [tenant_subject(one.name) for one in snapshot.tenants]
            subjects += [team_subject(one.tenant, one.name) for one in snapshot.teams]
            subjects += snapshot.gone
            if self.on_limits is not None and was_on:
                for subject in subjects:
                    self.on_limits(subject, self.current.limits_of(subject))
        if spent is not None:
            subjects += spent.by_month
            self.day = spent.day
            if spent.is_whole:
                self.spent_day, self.spent_month = dict(spent.by_day), dict(spent.by_month)
            else:
                self.spent_day.update(spent.by_day)
                self.spent_month.update(spent.by_month)
        self._tell_spent(subjects)

    def has_budgets(self, subjects: Iterable[str]) -> None:
        """The configuration that holds from now on gives these one."""
        self.budgets = frozenset(subjects)
        self._tell_spent(self.budgets)

    def _tell_spent(self, subjects: Iterable[str]) -> None:
        if self.on_spent is None:
            return
        for subject in subjects:
            limits = self.current.limits_of(subject)
            month = self.spent_month.get(subject, 0)
            if month and (limits.money_per_day or limits.money_per_month or subject in self.budgets):
                self.on_spent(subject, self.spent_day.get(subject, 0), month)

    def tick(self, now: float, wall_s: float) -> None:
        """Called often; `now` is monotonic, `wall_s` since 1970."""
        self._tell(self.usage.tick(now, wall_s))

    def finish(self) -> None:
        """Tell all that is left: this worker ends."""
        for batch in self.usage.rest():
            self._tell(batch)

    def _tell(self, batch: Batch | None) -> None:
        if batch is not None and self.send is not None:
            entries, conversations = tuple(batch.entries), tuple(batch.conversations)
            self.send(UsageTold(self.usage.mark, batch.number, entries, conversations, batch.dropped))

    def spent(self, subject: str, per_month: bool) -> int:
        """What a subject has spent this month, or this day, in micro units."""
        return (self.spent_month if per_month else self.spent_day).get(subject, 0)

    def tenant_of(self, secret: bytes) -> bytes:
        """The tenant's name of whoever has this secret; empty if nobody has."""
        account = self.current.find(secret)
        return account.tenant.encode() if account is not None else b""
