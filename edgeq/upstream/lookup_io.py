"""One lookup of one name: its SRV records if it owns some, then the addresses of each host, within one deadline.

Decides what counts as an answer and what as a failure. Invariants:

- A lookup ends exactly once, by its `ended` callback, in a later turn of the loop than its start; or not at all after
  `cancel`, which takes effect at once.
- A target of SRV records whose own lookup fails keeps the addresses it had.
- Of a host that has addresses of both families, those that this machine has no way to (no IPv6) are none, unless it has
  no way to any: each try there would fail (RFC 6724, section 6, rule 1).

Why a channel lives no longer than the lookups that begin together: c-ares (1.31 and later) caches each answer for its
TTL, up to an hour, and NXDOMAIN for the SOA's, and pycares cannot switch that off. With one long-lived channel
``dns.max_ttl`` and ``dns.retry`` would be lies. A new one costs less than a millisecond, reads a changed resolv.conf,
and leaves neither thread nor descriptor behind between lookups.

Sources: RFC 2181 8 (TTL), RFC 2782 (SRV); ares_getaddrinfo(3): hosts file, search domains, A and AAAA together, one
family is enough for success, names of the hosts file have a TTL of 0.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import aiodns
import pycares

from edgeq.upstream.endpoint import Family

CHANNEL_SHARED_S: Final = 1.0
"""Lookups that begin within this time share a channel, and so its cache; as long as the default min_ttl."""
TRIES: Final = 3
_AI_NOSORT: Final = 1 << 7
"""ares.h: no RFC 6724 sorting, which opens a socket for each address; addresses get an order of our own."""
_DISCARD: Final = 9
"""A port."""

HostAddresses = dict[str, tuple[tuple[Family, str], ...]]


class Answer(NamedTuple):
    """One address of a name; port 0 means the port of the endpoint."""

    family: Family
    host: str
    port: int
    weight: int
    priority: int


class Outcome(NamedTuple):
    """How a lookup ended. No answers: it failed. Answers and a reason: some targets of the SRV records failed."""

    answers: tuple[Answer, ...]
    ttl_s: int
    hosts: HostAddresses
    reason: str
    """"dns_error", "dns_timeout" or empty."""
    detail: str


def with_way(found: list[tuple[Family, str]]) -> tuple[tuple[Family, str], ...]:
    """Of the addresses of a host those that can be asked, as far as this machine's routes say; else all."""
    if len({family for family, _ in found}) > 1:
        found = [one for one in found if has_way(*one)] or found
    return tuple(found)


def has_way(family: Family, number: str) -> bool:
    """Has this machine a route and an address for it? To connect a socket of datagrams sends nothing."""
    try:
        with socket.socket(socket.AF_INET if family == "inet" else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((number, _DISCARD))
    except OSError:
        return False
    return True


class Channels:
    """Makes the channels for lookups; each is closed by the last lookup that uses it."""

    __slots__ = ("_current", "_nameservers", "loop", "timeout_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, nameservers: list[str], timeout_s: float) -> None:
        self.loop: Final = loop
        self.timeout_s: Final = timeout_s
        self._nameservers = nameservers
        self._current: Channel | None = None

    def take(self) -> Channel:
        """A channel to be released by its lookup. Raises: pycares.AresError when c-ares cannot start."""
        now = self.loop.time()
        channel = self._current
        if channel is None or channel.users == 0 or now - channel.born_s >= CHANNEL_SHARED_S:
            # Each try gets a share of the time, so that a lost packet or a dead server leaves time for another; the
            # deadline of the lookup is the bound, whatever the number of servers.
            dns = aiodns.DNSResolver(
                self._nameservers, self.loop, timeout=max(self.timeout_s / TRIES, 0.001), tries=TRIES
            )
            channel = self._current = Channel(dns, now)
        channel.users += 1
        return channel


class Channel:
    """One c-ares channel and the number of lookups that use it."""

    __slots__ = ("born_s", "dns", "users")

    def __init__(self, dns: aiodns.DNSResolver, now: float) -> None:
        self.dns: Final = dns
        self.born_s: Final = now
        self.users = 0

    def release(self) -> None:
        self.users -= 1
        if self.users > 0:
            return
        # close() of aiodns 4 is a coroutine that never waits: it ends in its first step, so it needs no task and the
        # loop may stop right after. Callbacks of open questions arrive within it; a thread of pycares frees the rest.
        closing = self.dns.close()
        try:
            closing.send(None)
        except StopIteration:
            return
        closing.close()


class Lookup:
    """One round of questions for one name."""

    __slots__ = (
        "_addresses",
        "_channel",
        "_channels",
        "_detail",
        "_ended",
        "_good",
        "_handle",
        "_host",
        "_pending",
        "_reason",
        "_rows",
        "_ttl_s",
    )

    def __init__(self, channels: Channels, host: str, good: HostAddresses, ended: Callable[[Outcome], None]) -> None:
        """`good` is `Outcome.hosts` of the last lookup that had answers."""
        self._channels = channels
        self._host = host
        self._good = good
        self._ended = ended
        self._channel: Channel | None = None
        self._handle: asyncio.Handle | None = None
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._rows: list[tuple[str, int, int, int]] = []
        self._addresses: HostAddresses = {}
        self._ttl_s = -1
        self._reason = ""
        self._detail = ""

    def start(self, srv: bool) -> None:
        loop = self._channels.loop
        try:
            self._channel = self._channels.take()
        except (OSError, pycares.AresError) as error:
            self._note("dns_error", f"the resolver cannot start: {error}")
            self._handle = loop.call_soon(self._finish)
            return
        self._handle = loop.call_later(self._channels.timeout_s, self._expired)
        if srv:
            self._ask(self._host, self._channel.dns.query_dns(self._host, "SRV"), self._on_srv)
        else:
            self._rows.append((self._host, 0, 1, 0))
            self._ask_addresses(self._host)

    def cancel(self) -> None:
        """End at once, without a word. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            future.cancel()  # before the channel: so what c-ares still answers finds nobody
        if self._channel is not None:
            self._channel.release()
            self._channel = None

    def _ask(self, key: str, future: asyncio.Future[Any], answered: Callable[[str, Any], None]) -> None:
        def done(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()  # always: else it is "never retrieved"
            if self._pending.get(key) is not future:
                return  # cancelled after it was answered
            del self._pending[key]
            if error is None:
                answered(key, future.result())
            else:
                self._note_exception(error)
            if not self._pending:
                self._finish()

        self._pending[key] = future
        future.add_done_callback(done)

    def _ask_addresses(self, host: str) -> None:
        assert self._channel is not None
        # The target of an SRV record is complete (RFC 2782): with its final dot it is not tried in the search domains.
        name = host if host == self._host else host.rstrip(".") + "."
        try:
            future = self._channel.dns.getaddrinfo(name, socket.AF_UNSPEC, type=socket.SOCK_STREAM, flags=_AI_NOSORT)
        except ValueError as error:  # a target that is no host name
            self._note("dns_error", str(error))
            return
        self._ask(host, future, self._on_addresses)

    def _on_srv(self, _: str, result: pycares.DNSResult) -> None:
        for record in result.answer:
            row = record.data
            # A target of "." says that there is no such service (RFC 2782); port 0 cannot be dialed.
            if isinstance(row, pycares.SRVRecordData) and row.target not in ("", ".") and row.port:
                self._note_ttl(record.ttl)
                self._rows.append((row.target.lower(), row.port, row.weight, row.priority))
        if not self._rows:
            self._note("dns_error", "no SRV record names a target")
        for host in {row[0] for row in self._rows}:
            self._ask_addresses(host)

    def _on_addresses(self, host: str, result: pycares.AddrInfoResult) -> None:
        found: list[tuple[Family, str]] = []
        for node in result.nodes:
            self._note_ttl(node.ttl)
            found.append(("inet" if node.family == socket.AF_INET else "inet6", node.addr[0].decode("ascii")))
        if found:
            self._addresses[host] = with_way(found)
        else:
            self._note("dns_error", "no address")

    def _expired(self) -> None:
        self._note("dns_timeout", f"no answer within {self._channels.timeout_s:g} s")
        self._finish()

    def _finish(self) -> None:
        self.cancel()
        if self._addresses:
            for host in {row[0] for row in self._rows} - self._addresses.keys() & self._good.keys():
                self._addresses[host] = self._good[host]
        answers = {
            Answer(family, number, port, weight, priority)
            for host, port, weight, priority in self._rows
            for family, number in self._addresses.get(host, ())
        }
        self._ended(Outcome(tuple(sorted(answers)), self._ttl_s, self._addresses, self._reason, self._detail))

    def _note_ttl(self, ttl_s: int) -> None:
        ttl_s = ttl_s if 0 <= ttl_s < 1 << 31 else 0  # RFC 2181 8: with the top bit set it counts as zero
        self._ttl_s = ttl_s if self._ttl_s < 0 else min(self._ttl_s, ttl_s)

    def _note_exception(self, error: BaseException) -> None:
        code = error.args[0] if isinstance(error, aiodns.error.DNSError) and error.args else None
        self._note("dns_timeout" if code == aiodns.error.ARES_ETIMEOUT else "dns_error", str((error.args or ("",))[-1]))

    def _note(self, reason: str, detail: str) -> None:
        if not self._reason:
            self._reason, self._detail = reason, detail
