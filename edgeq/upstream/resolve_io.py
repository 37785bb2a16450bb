"""Names of endpoints become addresses, and stay current: looked up with their TTL, again in the background, for ever.

Decides when a name is asked for again and what a failure means. Invariants:

- The loop never blocks, and nothing is created before the first name is watched: c-ares answers from threads, so a
  `Resolver` asks only in the process that forked last.
- One lookup in flight per name, whatever the number of watches of it.
- A failed lookup never takes addresses away. It is tried again after ``dns.retry``; the first failure and the recovery
  are logged, not each attempt.
- `on_change` is called only when the set differs, and never after `Watch.close`.

::

    watch --> LOOKUP --answers--> WAIT (the TTL, within min_ttl and max_ttl) --> LOOKUP
                 |                                                                ^
                 +----failed---> WAIT (retry), the last good addresses stay ------+

Source: RFC 1035 3.2.1 (TTL). The lookup itself is in `lookup_io`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgeq.upstream.endpoint import Address, EndpointSpec, parse_nameserver, sort_addresses
from edgeq.upstream.lookup_io import Answer, Channels, HostAddresses, Lookup, Outcome

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from edgeq.config.schema import Dns

OnChange = Callable[[tuple[Address, ...]], None]

JITTER: Final = 0.05
"""Of a delay, so that workers and names do not ask in step."""


class Watch:
    """One endpoint's interest in its addresses."""

    __slots__ = ("_name", "_on_change", "addresses", "closed", "spec")

    def __init__(self, spec: EndpointSpec, on_change: OnChange, name: _Name | None) -> None:
        self.spec: Final = spec
        self.addresses: tuple[Address, ...] = ()
        self.closed = False
        self._on_change = on_change
        self._name = name

    @property
    def last_error(self) -> str:
        """ "dns_error" or "dns_timeout" while lookups fail, else empty. Empty without addresses: no answer yet."""
        return self._name.last_error if self._name is not None else ""

    @property
    def detail(self) -> str:
        """What the resolver said of the last lookup, if that has failed."""
        return self._name.detail if self._name is not None else ""

    def is_new(self) -> bool:
        """Has there been no answer yet?"""
        return not self.addresses and not self.last_error and not self.closed

    def close(self) -> None:
        """Lose interest. Idempotent; with a name's last watch its lookups end."""
        if not self.closed:
            self.closed = True
            if self._name is not None:
                self._name.unwatch(self)

    def deliver(self, addresses: tuple[Address, ...]) -> None:
        if not self.closed and addresses != self.addresses:
            self.addresses = addresses
            self._on_change(addresses)

    def snapshot(self) -> dict[str, Any]:
        base: dict[str, Any] = {"endpoint": str(self.spec), "addresses": [str(address) for address in self.addresses]}
        return base if self._name is None else base | self._name.snapshot()


class Resolver:
    """All names that one worker watches."""

    __slots__ = ("_closed", "_names", "_random", "channels", "dns", "log", "loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dns: Dns,
        log: FilteringBoundLogger,
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        """Raises: ValueError for a nameserver that is not an address."""
        self.loop: Final = loop
        self.log: Final = log
        self._random = random_unit
        self._names: dict[tuple[str, bool], _Name] = {}
        self._closed = False
        self.configure(dns)

    def configure(self, dns: Dns) -> None:
        """Take over a changed [dns] for lookups and delays that begin from now on. Raises: ValueError, as above."""
        self.channels = Channels(self.loop, [parse_nameserver(text) for text in dns.nameservers], float(dns.timeout))
        self.dns = dns

    def watch(self, spec: EndpointSpec, on_change: OnChange) -> Watch:
        """Follow the addresses of `spec`.

        `on_change` gets the whole set, sorted: before this returns when it is known already (a numeric address, a Unix
        socket, a name whose addresses another watch has), else from the loop.
        """
        if self._closed:
            raise RuntimeError("the resolver is closed")
        address = spec.literal()
        if address is not None:
            watch = Watch(spec, on_change, None)
            watch.deliver((address,))
            return watch
        key = (spec.host, spec.srv)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = _Name(self, spec.host, spec.srv)
        watch = Watch(spec, on_change, name)
        name.watch(watch)
        return watch

    def close(self) -> None:
        """Cancel every lookup and timer at once; no callback comes after this. Idempotent."""
        self._closed = True
        for name in list(self._names.values()):
            name.stop()
        self._names.clear()

    def forget(self, name: _Name) -> None:
        if self._names.get((name.host, name.srv)) is name:
            del self._names[name.host, name.srv]

    def jittered(self, delay_s: float) -> float:
        return delay_s * (1 + JITTER * self._random())

    def snapshot(self) -> list[dict[str, Any]]:
        """One row for each name."""
        return [{"name": host, "srv": srv} | name.snapshot() for (host, srv), name in self._names.items()]


class _Name:
    """One name: its last good answers, and either a lookup in flight or a timer for the next."""

    __slots__ = (
        "_answers",
        "_changed_s",
        "_failures",
        "_good",
        "_lookup",
        "_resolver",
        "_timer",
        "_watches",
        "detail",
        "host",
        "last_error",
        "srv",
    )

    def __init__(self, resolver: Resolver, host: str, srv: bool) -> None:
        self.host: Final = host
        self.srv: Final = srv
        self.last_error = ""
        self.detail = ""
        self._failures = 0
        self._resolver = resolver
        self._watches: list[Watch] = []
        self._answers: tuple[Answer, ...] = ()
        self._good: HostAddresses = {}
        self._changed_s: float | None = None
        self._lookup: Lookup | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watch: Watch) -> None:
        self._watches.append(watch)
        if self._answers:
            watch.deliver(self._addresses(watch.spec))
        if self._lookup is None and self._timer is None:
            self._begin()

    def unwatch(self, watch: Watch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)
        if not self._watches:
            self.stop()
            self._resolver.forget(self)

    def stop(self) -> None:
        for watch in self._watches:
            watch.closed = True
        self._watches.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None

    def snapshot(self) -> dict[str, Any]:
        now = self._resolver.loop.time()
        return {
            "answers": len(self._answers),
            "changed_ago_s": None if self._changed_s is None else round(now - self._changed_s, 3),
            "next_lookup_s": 0.0 if self._timer is None else round(max(0.0, self._timer.when() - now), 3),
            "last_error": self.last_error,
            "detail": self.detail,
            "failures": self._failures,
        }

    def _begin(self) -> None:
        self._timer = None
        self._lookup = Lookup(self._resolver.channels, self.host, self._good, self._ended)
        self._lookup.start(self.srv)

    def _ended(self, outcome: Outcome) -> None:
        dns = self._resolver.dns
        self._lookup = None
        delay_s = float(dns.retry)
        if outcome.answers:
            ttl_s = min(max(float(outcome.ttl_s), dns.min_ttl), dns.max_ttl)
            delay_s = min(ttl_s, max(delay_s, dns.min_ttl)) if outcome.reason else ttl_s
        self._timer = self._resolver.loop.call_later(self._resolver.jittered(delay_s), self._begin)
        self._judge(outcome)
        if outcome.answers:
            self._good = outcome.hosts
            if outcome.answers != self._answers:
                self._answers = outcome.answers
                self._changed_s = self._resolver.loop.time()
                for watch in list(self._watches):
                    self._deliver(watch)

    def _judge(self, outcome: Outcome) -> None:
        """Log the change between working and failing, and only that."""
        if outcome.reason:
            self._failures += 1
            if not self.last_error:
                self._resolver.log.warning(
                    "upstream_name_failed",
                    name=self.host,
                    reason=outcome.reason,
                    error=outcome.detail,
                    addresses=len(outcome.answers or self._answers),
                    retry_s=float(self._resolver.dns.retry),
                )
        elif self.last_error:
            self._resolver.log.info(
                "upstream_name_recovered", name=self.host, failures=self._failures, addresses=len(outcome.answers)
            )
            self._failures = 0
        self.last_error = outcome.reason
        self.detail = outcome.detail

    def _addresses(self, spec: EndpointSpec) -> tuple[Address, ...]:
        return sort_addresses(
            [
                Address(row.family, row.host, row.port or spec.port, spec.name, row.weight, row.priority)
                for row in self._answers
            ]
        )

    def _deliver(self, watch: Watch) -> None:
        try:
            watch.deliver(self._addresses(watch.spec))
        except Exception as error:  # one watcher's defect must not keep the others from their addresses
            self._resolver.loop.call_exception_handler(
                {"message": f"on_change of {watch.spec} failed", "exception": error}
            )
