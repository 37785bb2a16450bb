"""What a command of the admin socket acts on, who asks, and what may come of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeq.admin.render import Record
from edgeq.config.change import Change

if TYPE_CHECKING:
    from edgeq.admin.accounts import AccountsControl


class Reloaded(NamedTuple):
    """What came of a reload. `generation` is what runs now; `error` is empty if all went well."""

    ok: bool
    generation: int
    error: str
    ended: Sequence[str] = ()
    """Live changes that do not hold any more, and why."""
    restart: Sequence[str] = ()
    """Keys of which the file says something that only a restart will bring."""
    lost: Sequence[str] = ()
    """Names of models that virtual keys are for, and that there are not any more; each with these keys."""


class Client(NamedTuple):
    """Who asks, and how."""

    accept: str = ""
    """The media types that it takes; empty for a text command."""
    if_match: str = ""
    """The ETag that it knows."""
    uid: int = -1
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """A live change that somebody asks for."""

    resource: str
    key: str
    value: str | None
    """As it was typed; None: what the file says."""
    undoes: str | None = None
    """Only if it is so without a change of this key is `value` set; else the change is taken back."""
    in_vain: str = ""
    """What to say if there is nothing to take back."""
    ttl_s: float = 0.0
    """0: it holds until it is taken back."""
    comment: str = ""
    persists: bool = False
    if_match: str = ""
    uid: int = -1
    pid: int = 0

    def is_of(self, etag: str) -> bool:
        """Was the configuration with this ETag meant, or any? `if_match` is a list (RFC 9110, 13.1.1)."""
        tags = [one.strip().strip('"') for one in self.if_match.split(",")]
        return self.if_match == "" or "*" in tags or etag in tags

    def change(self, now: float) -> Change:
        """As it is kept; `now` in seconds since 1970."""
        return Change(
            self.resource,
            self.key,
            None,
            uid=self.uid,
            pid=self.pid,
            since=now,
            until=now + self.ttl_s if self.ttl_s else None,
            comment=self.comment,
            persisted=self.persists,
        )

    def told(self) -> Record:
        """For the log."""
        return {
            "resource": self.resource,
            "key": self.key,
            "value": self.value,
            "uid": self.uid,
            "peer_pid": self.pid,
            "ttl_s": self.ttl_s or None,
            "comment": self.comment,
            "persist": self.persists,
        }


class Changed(NamedTuple):
    """What came of a live change."""

    status: int
    """As HTTP has it."""
    generation: int
    etag: str
    error: str = ""
    behind: Sequence[int] = ()
    """Workers that hang, or start, and do not run it yet."""
    idle: Sequence[str] = ()
    """What has had an effect before, or was not said, and has none now; each with why. And what keys name that is no
    more."""


class Control(Protocol):
    """What commands act on: the supervisor."""

    def show(self, subject: str) -> Sequence[Record]:
        """The records of one subject of `observe.overview`."""

    async def history(self, resource: str, seconds: float, step_s: float) -> Sequence[Record] | str:
        """The records of `observe.history`, each of `step_s`, or what is wrong with the name."""

    def events(self, count: int) -> Sequence[Record]:
        """The last events."""

    def follow_events(self) -> AsyncIterator[Record]:
        """Events as they happen."""

    async def connections(self, count: int) -> Sequence[Record]:
        """So many connections of clients, those with a request first; who does not answer in time is named."""

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Media type and text for Prometheus; `accept` is what the client takes."""

    def version(self) -> Record:
        """Of this program."""

    def explain(self, what: str) -> Record | None:
        """Why something is short, or a request was refused, degraded, failed over or slow; None if there is
        none of these."""

    def remembered(self) -> str:
        """Of which requests `explain` can tell, in words."""

    def resources(self) -> Sequence[str]:
        """What there is to explain, by full names, but for callers of whom nothing is known."""

    @property
    def tenants_are_listed(self) -> bool:
        """Virtual keys say who they are: there are no others."""

    def is_ready(self) -> bool:
        """New connections are served."""

    async def reload(self) -> Reloaded:
        """Read the configuration again; returns when all workers run it, or it was refused."""

    async def change(self, wish: Wish) -> Changed:
        """Change one key; returns when all workers run it, or it was refused."""

    def endpoints(self, text: str) -> Sequence[tuple[str, str]]:
        """Upstream and URL of the endpoints that somebody may mean."""

    def endpoint_names(self) -> Sequence[str]:
        """What endpoints may be called."""

    def parts(self) -> Mapping[str, tuple[str, str]]:
        """What of providers can be disabled (`config.providers.parts_of`)."""

    @property
    def accounts(self) -> AccountsControl | None:
        """Virtual keys and usage; None without [accounts]."""

    @property
    def etag(self) -> str:
        """Of the configuration that runs."""

    def wake(self, name: str) -> tuple[Sequence[str], Sequence[str]] | None:
        """End the rests of a provider's keys and of models at them, and what it has told of their limits. Returns: what
        rested, and what kept to such limits; None if nothing has that name."""

    def wake_names(self) -> Sequence[str]:
        """What that may be."""

    def begin_highs(self) -> None:
        """Begin the high-water of all queues anew."""

    def drain(self) -> None:
        """Begin to stop."""
