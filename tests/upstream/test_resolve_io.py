"""Names against a scripted DNS server on loopback: TTLs, changes, failures, sharing, and a clean end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from structlog.typing import FilteringBoundLogger

from edgeq.config.base import Duration
from edgeq.config.schema import Dns
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream import lookup_io
from edgeq.upstream.endpoint import Address, parse_endpoint
from edgeq.upstream.resolve_io import Resolver, Watch
from edgeq.upstream.service_io import UpstreamService
from edgeq.worker.wheel import Wheel
from tests.support.dns_server import DnsServer

PATIENCE_S = 20
LONG_S = 3600


class Log:
    """Keeps events, and says which are there."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = info

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


class Seen:
    """An on_change that can be waited for."""

    def __init__(self) -> None:
        self.sets: list[tuple[Address, ...]] = []
        self._event = asyncio.Event()

    def __call__(self, addresses: tuple[Address, ...]) -> None:
        self.sets.append(addresses)
        self._event.set()

    async def times(self, count: int) -> list[str]:
        """The latest set, once there were `count`."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.sets) < count:
                self._event.clear()
                await self._event.wait()
        return [str(address) for address in self.sets[-1]]


class Bench:
    """A DNS server, a resolver that asks it, and what both tell."""

    def __init__(self, server: DnsServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.log = Log()
        self.problems: list[dict[str, Any]] = []
        self.resolver = self.make()
        loop.set_exception_handler(lambda _, context: self.problems.append(context))

    def make(self, **keys: float) -> Resolver:
        defaults = {"timeout": PATIENCE_S, "min_ttl": 0.01, "max_ttl": LONG_S, "retry": 0.01}
        durations: dict[str, Any] = {key: Duration(value) for key, value in (defaults | keys).items()}
        dns = Dns(nameservers=(self.server.address,), **durations)
        self.resolver = Resolver(self.loop, dns, cast(FilteringBoundLogger, self.log))
        return self.resolver

    def watch(self, url: str) -> tuple[Watch, Seen]:
        seen = Seen()
        return self.resolver.watch(parse_endpoint(url), seen), seen

    async def asked(self, name: str, count: int, qtype: str = "") -> None:
        assert await asyncio.to_thread(self.server.wait_for, name, count, qtype, PATIENCE_S)

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the loop turn until a fact holds that no callback tells."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110  # the facts are in other threads and in snapshots
                await asyncio.sleep(0.001)


Scenario = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def play() -> Callable[[Scenario], Bench]:
    """Run a scenario on a uvloop, close the resolver, and see that nothing was left or complained."""

    def run(scenario: Scenario) -> Bench:
        async def main() -> Bench:
            with DnsServer() as server:
                bench = Bench(server, asyncio.get_running_loop())
                await scenario(bench)
                bench.resolver.close()
                return bench

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bench = runner.run(main())
        gc.collect()
        assert bench.problems == []
        return bench

    return run


Play = Callable[[Scenario], Bench]


@pytest.fixture(autouse=True)
def has_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever routes the machine of the test has."""
    monkeypatch.setattr(lookup_io, "has_way", lambda _family, _number: True)


def test_literals_need_no_lookup(play: Play) -> None:
    """Numeric addresses and Unix sockets are delivered before watch returns, and c-ares is never started."""

    async def scenario(bench: Bench) -> None:
        for url, text in (
            ("http://127.0.0.1:81", "127.0.0.1:81"),
            ("http://[::1]", "[::1]:80"),
            ("unix:/a", "unix:/a"),
        ):
            watch, seen = bench.watch(url)
            assert list(map(str, watch.addresses)) == [text]
            assert len(seen.sets) == 1
            assert watch.last_error == ""
            assert watch.snapshot()["addresses"] == [text]
            watch.close()
        assert bench.resolver.snapshot() == []

    assert play(scenario).server.queries == []


def test_both_families(play: Play) -> None:
    """A and AAAA records come as one sorted set with the endpoint's port and name."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["::2", "127.0.0.3", "127.0.0.2"], ttl=LONG_S)
        watch, seen = bench.watch("https://api.test:8443")
        assert (len(watch.addresses), watch.last_error) == (0, "")
        assert await seen.times(1) == ["127.0.0.2:8443", "127.0.0.3:8443", "[::2]:8443"]
        assert {row.name for row in watch.addresses} == {"api.test"}
        assert bench.resolver.snapshot()[0]["answers"] == 3

    play(scenario)


@pytest.mark.parametrize(("family", "kept"), [("inet", ["127.0.0.2:80"]), ("inet6", ["[::2]:80"]), ("", None)])
def test_a_machine_without_a_family(
    play: Play, monkeypatch: pytest.MonkeyPatch, family: str, kept: list[str] | None
) -> None:
    """An address to which there is no way is none; but where there is none to any, it is told when they are tried."""
    monkeypatch.setattr(lookup_io, "has_way", lambda one, _number: one == family)

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["::2", "127.0.0.2"], ttl=LONG_S)
        _, seen = bench.watch("http://api.test")
        assert await seen.times(1) == (kept or ["127.0.0.2:80", "[::2]:80"])

    play(scenario)


def test_ttl_ends_and_the_set_changes(play: Play) -> None:
    """After the TTL the name is asked for again; on_change tells a different set, not a different order."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2", "127.0.0.3"])
        _, seen = bench.watch("http://api.test")
        await seen.times(1)
        bench.server.address_records("api.test", ["127.0.0.3", "127.0.0.2"])
        await bench.asked("api.test", bench.server.count("api.test", "A") + 3, "A")
        assert len(seen.sets) == 1
        bench.server.address_records("api.test", ["127.0.0.3", "127.0.0.4"])
        assert await seen.times(2) == ["127.0.0.3:80", "127.0.0.4:80"]

    play(scenario)


def test_max_ttl_beats_a_long_ttl(play: Play) -> None:
    """A TTL of an hour does not hide a change longer than max_ttl, whatever a cache below thinks of it."""

    async def scenario(bench: Bench) -> None:
        bench.make(max_ttl=0.01)
        bench.server.address_records("api.test", ["127.0.0.2"], ttl=LONG_S)
        _, seen = bench.watch("http://api.test")
        await seen.times(1)
        bench.server.address_records("api.test", ["127.0.0.3"], ttl=LONG_S)
        assert await seen.times(2) == ["127.0.0.3:80"]

    play(scenario)


def test_ttl_is_waited_for(play: Play) -> None:
    """Within its TTL a name is not asked for again: the next lookup is planned for its end, with little jitter."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"], ttl=100)
        _, seen = bench.watch("http://api.test")
        await seen.times(1)
        assert 95 < bench.resolver.snapshot()[0]["next_lookup_s"] <= 105

    play(scenario)


@pytest.mark.parametrize("failure", ["NXDOMAIN", "SERVFAIL", "REFUSED"])
def test_failure_keeps_the_last_good_set(play: Play, failure: Any) -> None:
    """Failed lookups take nothing away, are logged once, repeat after retry, and the recovery is logged once."""

    async def scenario(bench: Bench) -> None:
        bench.server.negative_ttl = LONG_S
        bench.server.address_records("api.test", ["127.0.0.2"])
        watch, seen = bench.watch("http://api.test")
        await seen.times(1)
        bench.server.fail("api.test", failure)
        await bench.until(lambda: bench.resolver.snapshot()[0]["failures"] >= 3)
        assert watch.last_error == "dns_error"
        assert watch.snapshot()["detail"] != ""
        assert [str(address) for address in watch.addresses] == ["127.0.0.2:80"]
        assert bench.log.names() == ["upstream_name_failed"]
        assert bench.log.events[0][1]["addresses"] == 1
        bench.server.address_records("api.test", ["127.0.0.2"])
        await bench.until(lambda: watch.last_error == "")
        assert bench.log.names() == ["upstream_name_failed", "upstream_name_recovered"]
        assert len(seen.sets) == 1

    play(scenario)


def test_name_that_appears_later(play: Play) -> None:
    """A name that does not resolve at start is tried until it does, though NXDOMAIN may be cached for an hour."""

    async def scenario(bench: Bench) -> None:
        bench.server.negative_ttl = LONG_S
        watch, seen = bench.watch("http://late.test")
        await bench.until(lambda: watch.last_error == "dns_error")
        assert seen.sets == []
        bench.server.address_records("late.test", ["127.0.0.2"])
        assert await seen.times(1) == ["127.0.0.2:80"]

    play(scenario)


def test_silence_is_a_timeout(play: Play) -> None:
    """A nameserver that does not answer ends in dns_timeout within the configured time."""

    async def scenario(bench: Bench) -> None:
        bench.make(timeout=0.05, retry=LONG_S)
        bench.server.fail("api.test", "SILENCE")
        watch, _ = bench.watch("http://api.test")
        await bench.until(lambda: watch.last_error != "")
        assert watch.last_error == "dns_timeout"

    play(scenario)


def test_dead_nameserver_is_an_error(play: Play) -> None:
    """A nameserver whose port is closed is dns_error, not a crash."""

    async def scenario(bench: Bench) -> None:
        with DnsServer() as gone:
            pass
        bench.server = gone
        bench.make(timeout=5)
        watch, _ = bench.watch("http://api.test")
        await bench.until(lambda: watch.last_error != "")
        assert watch.last_error == "dns_error"

    play(scenario)


def test_truncated_answer_comes_by_tcp(play: Play) -> None:
    """A truncated UDP answer is asked for again by TCP, on the configured port."""

    async def scenario(bench: Bench) -> None:
        bench.server.truncate_udp = True
        bench.server.address_records("big.test", ["127.0.0.2"], ttl=LONG_S)
        _, seen = bench.watch("http://big.test")
        assert await seen.times(1) == ["127.0.0.2:80"]
        assert {query.transport for query in bench.server.queries} == {"udp", "tcp"}

    play(scenario)


def test_one_family_is_enough(play: Play) -> None:
    """AAAA questions that a broken nameserver refuses do not cost the A records."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"], ttl=LONG_S)
        bench.server.fail("api.test", "SERVFAIL", "AAAA")
        _, seen = bench.watch("http://api.test")
        assert await seen.times(1) == ["127.0.0.2:80"]

    play(scenario)


def test_localhost_needs_no_server(play: Play) -> None:
    """localhost comes from the machine, even when the nameserver would say otherwise."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("localhost", ["127.6.6.6"], ttl=LONG_S)
        watch, seen = bench.watch("http://localhost:81")
        assert "127.0.0.1:81" in await seen.times(1)
        assert all(ip_address(row.host).is_loopback for row in watch.addresses)

    assert play(scenario).server.queries == []


def hosts_file_name() -> tuple[str, str] | None:
    for line in Path("/etc/hosts").read_text(errors="replace").splitlines():
        words = line.partition("#")[0].split()
        for name in words[1:]:
            if "localhost" not in name and "." in words[0]:
                return name.lower(), words[0]
    return None


@pytest.mark.skipif(hosts_file_name() is None, reason="/etc/hosts names nothing but localhost")
def test_hosts_file(play: Play) -> None:
    """A name of the hosts file needs no nameserver."""
    name, number = hosts_file_name() or ("", "")

    async def scenario(bench: Bench) -> None:
        _, seen = bench.watch(f"http://{name}")
        assert f"{number}:80" in await seen.times(1)

    assert play(scenario).server.queries == []


def test_srv(play: Play) -> None:
    """SRV records bring targets, ports, priorities and weights; Host and SNI stay with the service's domain."""

    async def scenario(bench: Bench) -> None:
        owner = "_http._tcp.api.test"
        bench.server.srv_records(owner, [(10, 1, 8001, "b.test"), (0, 5, 8000, "a.test")], ttl=LONG_S)
        bench.server.address_records("a.test", ["127.0.0.2", "::2"], ttl=LONG_S)
        bench.server.address_records("b.test", ["127.0.0.1"], ttl=50)
        watch, seen = bench.watch(f"http+srv://{owner}")
        assert await seen.times(1) == ["127.0.0.2:8000", "[::2]:8000", "127.0.0.1:8001"]
        assert [(row.priority, row.weight) for row in watch.addresses] == [(0, 5), (0, 5), (10, 1)]
        assert {row.name for row in watch.addresses} == {"api.test"}
        assert 45 < bench.resolver.snapshot()[0]["next_lookup_s"] <= 53  # the shortest TTL of all

    play(scenario)


def test_srv_target_that_fails_keeps_its_addresses(play: Play) -> None:
    """One broken target changes nothing for the others, keeps what it had, and is reported."""

    async def scenario(bench: Bench) -> None:
        bench.server.srv_records("s.test", [(0, 1, 80, "a.test"), (0, 1, 80, "b.test")])
        bench.server.address_records("a.test", ["127.0.0.2"])
        bench.server.address_records("b.test", ["127.0.0.3"])
        watch, seen = bench.watch("http+srv://s.test")
        await seen.times(1)
        bench.server.fail("b.test", "SERVFAIL")
        await bench.until(lambda: watch.last_error == "dns_error")
        bench.server.address_records("a.test", ["127.0.0.4"])
        assert await seen.times(2) == ["127.0.0.3:80", "127.0.0.4:80"]
        assert bench.log.names() == ["upstream_name_failed"]

    play(scenario)


@pytest.mark.parametrize("rows", [[], [(0, 0, 80, ".")], [(0, 0, 0, "a.test")], [(0, 0, 80, "none.test")]])
def test_srv_without_a_usable_target(play: Play, rows: Any) -> None:
    """No record, a target of ".", port 0 or an unknown target is a failed lookup."""

    async def scenario(bench: Bench) -> None:
        bench.server.srv_records("s.test", rows)
        bench.server.address_records("a.test", ["127.0.0.2"])
        watch, seen = bench.watch("http+srv://s.test")
        await bench.until(lambda: watch.last_error != "")
        assert watch.last_error == "dns_error"
        assert seen.sets == []

    play(scenario)


def test_watches_share_a_lookup(play: Play) -> None:
    """Three endpoints of one name ask once; a later one gets at once what is known; each has its own port."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"], ttl=LONG_S)
        first, second = bench.watch("http://api.test:81")[1], bench.watch("http://api.test:82")[1]
        assert await first.times(1) == ["127.0.0.2:81"]
        assert await second.times(1) == ["127.0.0.2:82"]
        watch, _ = bench.watch("http://api.test:83")
        assert [str(address) for address in watch.addresses] == ["127.0.0.2:83"]
        assert bench.server.count("api.test", "A") == 1

    play(scenario)


def test_closed_watch_hears_nothing(play: Play) -> None:
    """A closed watch is silent, also one closed by another's on_change; with the last one the name is forgotten."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"])
        silent, never = bench.watch("http://api.test:1")
        silent.close()
        watches: list[Watch] = []
        first = bench.resolver.watch(parse_endpoint("http://api.test:2"), lambda _: watches[0].close())
        second, also_never = bench.watch("http://api.test:3")
        watches.append(second)
        await bench.until(lambda: first.addresses != ())
        assert never.sets == also_never.sets == []
        first.close()
        first.close()
        assert bench.resolver.snapshot() == []

    play(scenario)


def test_defect_of_one_watcher_stays_its_own(play: Play) -> None:
    """An on_change that raises is reported to the loop, and the others still hear of the set."""

    def broken(_: tuple[Address, ...]) -> None:
        raise RuntimeError("broken")

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"], ttl=LONG_S)
        bench.resolver.watch(parse_endpoint("http://api.test"), broken)
        _, seen = bench.watch("http://api.test")
        await seen.times(1)
        assert [str(context["exception"]) for context in bench.problems] == ["broken"]
        bench.problems.clear()

    play(scenario)


def test_configure_moves_to_other_nameservers(play: Play) -> None:
    """A reload's nameservers are asked from the next lookup on."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"])
        _, seen = bench.watch("http://api.test")
        await seen.times(1)
        with DnsServer() as other:
            other.address_records("api.test", ["127.0.0.3"], ttl=LONG_S)
            dns = bench.resolver.dns
            bench.resolver.configure(Dns(nameservers=(other.address,), timeout=dns.timeout, min_ttl=dns.min_ttl))
            assert await seen.times(2) == ["127.0.0.3:80"]

    play(scenario)


def test_bad_nameserver_is_refused() -> None:
    """A nameserver that is a name is an error when the resolver is made, not at the first lookup."""
    loop = uvloop.new_event_loop()
    try:
        with pytest.raises(ValueError, match="not a name"):
            Resolver(loop, Dns(nameservers=("dns.example",)), cast(FilteringBoundLogger, Log()))
    finally:
        loop.close()


def test_close_while_asking_is_silent(play: Play) -> None:
    """Closing with questions open calls nobody, leaves no thread asking, and no future that complains."""

    async def scenario(bench: Bench) -> None:
        seen: list[Seen] = []
        for number in range(5):
            bench.server.fail(f"n{number}.test", "SILENCE")
            seen.append(bench.watch(f"http://n{number}.test")[1])
        seen.append(bench.watch("http+srv://n0.test")[1])
        await bench.asked("n4.test", 1)
        bench.resolver.close()
        bench.resolver.close()
        await asyncio.sleep(0)
        assert all(one.sets == [] for one in seen)
        assert bench.log.events == []
        with pytest.raises(RuntimeError, match="closed"):
            bench.watch("http://api.test")

    play(scenario)


def test_srv_priorities_and_weights_reach_the_pools(play: Play) -> None:
    """Priorities count within their name only, weights within their priority (RFC 2782); a change is followed."""

    async def scenario(bench: Bench) -> None:
        for name, address in (("a.test", "10.0.0.1"), ("b.test", "10.0.0.2"), ("c.test", "10.0.0.3")):
            bench.server.address_records(name, [address], ttl=LONG_S)
        bench.server.srv_records("s.test", [(20, 9, 80, "a.test"), (10, 3, 80, "b.test"), (10, 1, 80, "c.test")])
        service = UpstreamService("u", bench.loop, Wheel(0.0, 0.1, 16), bench.resolver, cast(Any, bench.log))
        service.apply(UpstreamConfig(endpoints=("http+srv://s.test", "http://10.0.0.4")), 1)

        def ranked() -> dict[str, tuple[int, float]]:
            upstream = service.upstream
            weights = {member.pool: member.weight for member in upstream.members}
            return {pool.name: (pool.priority, weights.get(pool, 1.0)) for pool in upstream.pools}

        others = {"10.0.0.4:80": (0, 1.0)}
        first = {"10.0.0.1:80": (1, 1.0), "10.0.0.2:80": (0, 1.5), "10.0.0.3:80": (0, 0.5)}
        await bench.until(lambda: ranked() == first | others)
        bench.server.srv_records("s.test", [(1, 1, 80, "a.test"), (2, 1, 80, "b.test")])
        await bench.until(lambda: ranked() == {"10.0.0.1:80": (0, 1.0), "10.0.0.2:80": (1, 1.0)} | others)
        service.close()

    play(scenario)


def test_close_at_every_turn(play: Play) -> None:
    """However many turns the loop has had since the start of a lookup, closing is silent."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("a.test", ["127.0.0.2"])
        bench.server.srv_records("s.test", [(0, 1, 80, "a.test"), (0, 1, 80, "no.test")])
        for turns in range(40):
            bench.make()
            for url in ("http://a.test", "http://no.test", "http+srv://s.test"):
                bench.watch(url)
            for _ in range(turns):
                await asyncio.sleep(0 if turns % 2 else 0.0005)
            bench.resolver.close()
            bench.log.events.clear()
        assert bench.problems == []

    play(scenario)


def test_nothing_stays_behind(play: Play) -> None:
    """Between lookups neither a c-ares thread nor a descriptor is kept."""

    async def scenario(bench: Bench) -> None:
        bench.server.address_records("api.test", ["127.0.0.2"])
        _, seen = bench.watch("http://api.test")
        await seen.times(1)  # pycares' one closing thread is started
        bench.resolver.close()

        def kept() -> tuple[int, int]:
            return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

        tasks, files = kept()
        bench.make()
        _, seen = bench.watch("http://api.test")
        await bench.asked("api.test", 50)
        bench.resolver.close()
        await bench.until(lambda: kept()[0] <= tasks + 1 and kept()[1] <= files)

    before = threading.active_count()
    play(scenario)
    assert threading.active_count() <= before + 1  # pycares' closing thread


def test_a_process_ends_cleanly() -> None:
    """A process that exits right after closing, with a lookup open, prints nothing and exits 0."""
    code = """
    import asyncio, uvloop, structlog
    from edgeq.config.schema import Dns
    from edgeq.upstream.endpoint import parse_endpoint
    from edgeq.upstream.resolve_io import Resolver
    async def main():
        resolver = Resolver(asyncio.get_running_loop(), Dns(nameservers=("127.0.0.1:9",)), structlog.get_logger())
        resolver.watch(parse_endpoint("http://localhost"), print_once)
        resolver.watch(parse_endpoint("http://api.test"), print_once)
        await asyncio.sleep(0)
        resolver.close()
    def print_once(addresses): pass
    uvloop.run(main())
    """
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
