"""The configuration that runs: what the file says, and what operators have set since, on top of it.

    Live --set, unset, reload, expired--> Plan --(all workers run it)--> commit

Plans are proposals: nothing is changed until one is committed, so a value that is wrong, or that a worker cannot run,
changes nothing. A change ends when it is unset, when its time is over, when its resource is gone, or when the file,
read again, says something else there than it did when the change was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from edgeq.config.change import Change, ChangeError, NotSet, changed, parse_value, said, superseded
from edgeq.config.files_io import names_files
from edgeq.config.providers import provider_of
from edgeq.config.schema import Config
from edgeq.config.shown import MASK, is_secret, masked_tenant
from edgeq.errors import ConfigError, Problem
from edgeq.upstream.endpoint import parse_endpoint

MAX_CHANGES: Final = 256
"""Each is built again with each of the others."""
MAX_TTL_S: Final = 366 * 86400.0
_FILE_SAYS_SO: Final = "the file says something else there than when it was set"
_IS_OVER: Final = "its time is over"


class Document(Protocol):
    """What `load.py` reads."""

    @property
    def tables(self) -> Mapping[str, Any]: ...

    @property
    def changes_file(self) -> str: ...

    def build(self, changes: Sequence[Change] = (), files: bool = True) -> Config: ...

    def idle(self, config: Config) -> Sequence[Problem]: ...


class Ended(NamedTuple):
    """A change that does not hold any more, and why."""

    change: Change
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall run."""

    document: Document
    config: Config
    changes: tuple[Change, ...]
    ended: tuple[Ended, ...] = ()
    rereads: bool = False
    """The files that it names (certificates) are read again, too."""


class Live:
    """Keeps the document that was read last, and the changes."""

    def __init__(self, read: Callable[[], Document], kept: Callable[[str], tuple[Change, ...]], now: float) -> None:
        """`read` reads the file, `kept` the changes that outlive a restart. Raises ConfigError."""
        self._read = read
        self._kept = kept
        document = read()
        self._plan = _settled(document, kept(document.changes_file), now)

    @property
    def config(self) -> Config:
        """What runs."""
        return self._plan.config

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is set, the oldest first."""
        return self._plan.changes

    @property
    def ended(self) -> tuple[Ended, ...]:
        """What the last step has ended."""
        return self._plan.ended

    @property
    def changes_file(self) -> str:
        """Where changes are kept that shall outlive a restart."""
        return self._plan.document.changes_file

    def idle(self) -> Sequence[Problem]:
        """What has no effect in what runs."""
        return self._plan.document.idle(self.config)

    def commit(self, plan: Plan) -> None:
        """It runs."""
        self._plan = plan

    def reload(self, now: float) -> Plan:
        """Read the file again. Raises ConfigError, also for a file of kept changes with which nobody could start."""
        document = self._read()
        self._kept(document.changes_file)
        return replace(_settled(document, self.changes, now), rereads=True)

    def plan(self, wish: Change, text: str | None, undoes: str | None = None) -> Plan:
        """Set the key of `wish` to the value that somebody has typed; None: to what holds without a change of its own;
        unless that is just what is to be undone. Raises ChangeError or ConfigError."""
        if text is None or (undoes is not None and self._without(wish) != parse_value(undoes)):
            return self._unset(wish)
        return self._set(wish, text)

    def _set(self, wish: Change, text: str) -> Plan:
        document = self._plan.document
        if is_secret(wish.path, self.config):
            raise ChangeError(f"{' '.join(map(str, wish.path[:2]))}: holds secrets; change the file and reload")
        if wish.path == ("tenant", "key") and masked_tenant(self.config.tenant) is not self.config.tenant:
            # With another key they would be taken for plain names, and shown.
            raise ChangeError("tenant key: the names in tenant.weights are secrets; change the file and reload")
        change = replace(wish, value=parse_value(text), was=_was(document, wish))
        changes = (*(one for one in self.changes if not superseded(one, change)), change)
        if len(changes) > MAX_CHANGES:
            raise ChangeError(f"{MAX_CHANGES} changes are set already: write them into the file")
        return Plan(document, document.build(changes, names_files(change.path)), changes)

    def _unset(self, wish: Change) -> Plan:
        changes = tuple(one for one in self.changes if one.name != wish.name)
        document = self._plan.document
        if changes == self.changes:
            said(changed(document.tables, changes)[0], wish)
            key = MASK if is_secret(wish.path, self.config) else wish.key
            raise NotSet(f"{wish.resource} {key} is not set: show changes")
        return Plan(document, document.build(changes, False), changes)

    def _without(self, wish: Change) -> Any:
        """What holds of a key without the change of it."""
        others = [one for one in self.changes if one.name != wish.name]
        return said(changed(self._plan.document.tables, others)[0], wish)

    def next_end(self) -> float | None:
        """When the next change is over."""
        return min((one.until for one in self.changes if one.until is not None), default=None)

    def expired(self, now: float) -> Plan | None:
        """Without those whose time is over; None: there are none."""
        if all(one.until is None or one.until > now for one in self.changes):
            return None
        return _settled(self._plan.document, self.changes, now, False)


def _was(document: Document, change: Change) -> Any:
    """What the file says there; nothing of what only a change has brought (an endpoint)."""
    try:
        return said(document.tables, change)
    except ChangeError:
        return None


def _settled(document: Document, changes: Sequence[Change], now: float, files: bool = True) -> Plan:
    """The document with those changes that still hold; `files`: look at those that it names, too. Raises ConfigError
    for what is wrong without any change."""
    held: list[Change] = []
    ended: list[Ended] = []
    for change in changes:
        if change.until is not None and change.until <= now:
            ended.append(Ended(change, _IS_OVER))
        elif _was(document, change) != change.was:
            ended.append(Ended(change, _FILE_SAYS_SO))
        else:
            held.append(change)
    try:
        return Plan(document, document.build(held, files), tuple(held), tuple(ended))
    except (ConfigError, ChangeError):
        config = document.build(
            (), files
        )  # the file itself is wrong, or one of the changes does not go with it any more
    candidates, held = held, []
    for change in candidates:
        try:
            config = document.build((*held, change), files)
            held.append(change)
        except (ConfigError, ChangeError) as error:
            ended.append(Ended(change, str(error)))
    return Plan(document, config, tuple(held), tuple(ended))


def endpoints_named(config: Config, text: str) -> list[tuple[str, str]]:
    """Upstream and URL of the endpoints that somebody may mean: by their URL, host and port, either with the upstream
    before it (api#10.0.0.7:9000, as refusals write it). A provider's are none: they have no weights."""
    upstream, sign, where = text.removeprefix("upstream/").partition("#")
    if not sign:
        upstream, where = "", text
    return [
        (name, url)
        for name, url in _endpoints(config)
        if upstream in ("", name) and where in (url, url.removeprefix("unix:"), *_short(url))
    ]


def endpoint_names(config: Config) -> list[str]:
    """What an endpoint may be called, the short names first."""
    urls = [url for _, url in _endpoints(config)]
    return list(dict.fromkeys((*(name for url in urls for name in _short(url)), *urls)))


def _endpoints(config: Config) -> Iterator[tuple[str, str]]:
    made = provider_of(config)
    for name, one in config.upstream.items():
        for endpoint in one.endpoints if name not in made else ():
            yield name, endpoint if isinstance(endpoint, str) else endpoint.url


def _short(url: str) -> list[str]:
    """Without the scheme, and as `show endpoints` writes an address."""
    address = parse_endpoint(url).literal()
    names = (url.partition("://")[2], str(address) if address else "")
    return [one for one in dict.fromkeys(names) if one]
