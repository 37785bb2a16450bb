"""The accept loop on real sockets: budget, limits, backlog, PROXY header, shortage of descriptors, retirement."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq.config.base import Duration, Size
from edgeq.config.schema import AcceptQueue, Listener, ListenerTimeouts
from edgeq.listener.connection import Downstream
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.peer import Peer, plain_host
from edgeq.supervisor.bpf_io import is_refusing, refuse_new
from tests.listener.harness import TIMEOUT_S, Client, Echo, LocalGate, Site, refusal, run, soon
from tests.listener.test_proxy_protocol import INVALID, V4, VALID, v2
from tests.support import kernel
from tests.support.fake_transport import World, frozen_time

ROOT = Path(__file__).resolve().parents[2]


def config(**changes: object) -> Listener:
    """A listener with some keys changed."""
    return Listener(address="test", **changes)  # type: ignore[arg-type]


def test_serves_and_names_both_ends() -> None:
    """A connection gets its protocol with the right addresses, works both ways, and gives its place back."""

    async def scenario() -> None:
        site = Site(config())
        site.acceptor.start()
        client = site.client()
        await client.expect(b"hello\n")
        await client.send(b"x" * 100_000)
        await client.expect(b"x" * 100_000)
        assert site.connected[0].peer == Peer("127.0.0.1", client.port, "127.0.0.1", site.address[1], False, False, "")
        assert site.connected[0].peer.waited_us == 0
        client.close()
        await site.until(lambda: bool(site.lost))
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def route_waits(world: World) -> list[float]:
    """How much of the 60 s that its route gives each request had used up when it began."""
    exchanges = [down.exchange for down in world.shard.downstreams if isinstance(down, Downstream)]
    return [one.begun_at + 60 - one.deadline_at for one in exchanges if one is not None]


def leave(site: Site, *clients: Client) -> None:
    """Clients reset, and this is noticed: two ticks later the loop watches also who is served early."""
    for _ in range(2):
        site.acceptor.tick()
    for client in clients:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_what_waited_in_the_kernel_counts(proxied: bool) -> None:
    """A listening socket that is inherited full: the request that lies there counts from when it came. Who has sent
    nothing yet is not late, and his request counts from when it comes."""
    with frozen_time():
        world = World(route_timeout_s=60)

        async def scenario() -> None:
            site = Site(
                config(**PROXY) if proxied else config(),
                make=lambda site, peer: Downstream(world.shard, world.settings, peer, site.acceptor.released),  # type: ignore[return-value,arg-type]
            )
            head = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" if proxied else b""
            early, silent = site.client(), site.client()
            await early.send(head + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            kernel.wait_until_sent_ms(early.socket, 30)
            site.acceptor.start()
            await soon(lambda: len(world.dials) == 1)
            await silent.send(head + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await soon(lambda: len(world.dials) == 2)
            prompt_s, waited_s = sorted(route_waits(world))
            assert prompt_s == 0
            assert 0.030 - kernel.TICK_MS / 1000 <= waited_s < 30
            leave(site, early, silent)
            await soon(lambda: not world.shard.downstreams)
            site.acceptor.close()

        run(scenario)


def test_who_waited_for_a_place_counts_as_well() -> None:
    """The listener was full, and the request lay in the kernel meanwhile."""
    with frozen_time():
        world = World(route_timeout_s=60)

        async def scenario() -> None:
            gate = LocalGate(max_connections=1)
            site = Site(
                config(queue=AcceptQueue(max=10, timeout=Duration(60))),
                gate,
                make=lambda site, peer: Downstream(world.shard, world.settings, peer, site.acceptor.released),  # type: ignore[return-value,arg-type]
            )
            site.acceptor.start()
            first = site.client()
            await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await soon(lambda: len(world.dials) == 1)
            second = site.client()
            await second.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await soon(lambda: site.acceptor.snapshot()["waiting"] == 1)
            kernel.wait_until_sent_ms(second.socket, 30)
            leave(site, first)
            await soon(lambda: site.acceptor.snapshot()["waited"] == 1 and len(world.shard.downstreams) == 1)
            await soon(lambda: len(route_waits(world)) == 1)
            assert route_waits(world)[0] >= 0.030 - kernel.TICK_MS / 1000
            leave(site, second)
            await soon(lambda: not world.shard.downstreams)
            site.acceptor.close()

        run(scenario)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
def test_wildcard_listener_knows_the_local_address(bind: str) -> None:
    """Behind a wildcard each connection has its own local address, and IPv4 on a dual-stack socket is IPv4."""

    async def scenario() -> None:
        site = Site(config(), bind=bind)
        site.acceptor.start()
        host = "127.0.0.3" if bind == "0.0.0.0" else "::ffff:127.0.0.3"
        client = site.client(host)
        await client.expect(b"hello\n")
        peer = site.connected[0].peer
        assert (plain_host(peer.local_host), peer.local_port) == ("127.0.0.3", site.address[1])
        assert peer.client_host == "127.0.0.1" or peer.client_host == "127.0.0.3"
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_ipv6() -> None:
    """IPv6 addresses are given as text without brackets or scope."""

    async def scenario() -> None:
        site = Site(config(), bind="::1")
        site.acceptor.start()
        client = site.client()
        await client.expect(b"hello\n")
        peer = site.connected[0].peer
        assert (peer.client_host, peer.local_host, peer.local_port) == ("::1", "::1", site.address[1])
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_unix(tmp_path: Path) -> None:
    """A Unix socket serves; its peers have one name."""

    async def scenario() -> None:
        site = Site(config(), bind=str(tmp_path / "http.sock"))
        site.acceptor.start()
        client = site.client()
        await client.expect(b"hello\n")
        assert site.connected[0].peer == Peer("unix:", 0, "unix:", 0, False, False, "")
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_half_close_and_reset_reach_the_protocol() -> None:
    """FIN and RST mean to the protocol what they mean on any transport of the loop."""

    class Listening(Echo):
        def eof_received(self) -> bool:
            assert self.transport is not None
            self.transport.write(b"bye\n")
            self.transport.close()
            return True

    async def scenario() -> None:
        site = Site(config(), make=Listening)
        site.acceptor.start()
        client = site.client()
        client.socket.shutdown(socket.SHUT_WR)
        assert await client.read_all() == b"hello\nbye\n"
        client.close()
        other = site.client()
        await other.expect(b"hello\n")
        other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_options_are_inherited() -> None:
    """What is set once on the listening socket holds for each connection, and follows a reload."""

    async def scenario() -> None:
        site = Site(config(send_buffer=Size(54321)))
        site.acceptor.start()
        client = site.client()
        await client.expect(b"hello\n")
        transport = site.connected[0].transport
        assert transport is not None
        accepted = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, 25) == 54321
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert not accepted.getblocking() or os.get_blocking(accepted.fileno()) is False
        accepted.close()
        site.acceptor.update(config(send_buffer=Size(65432)), None)
        assert site.sock.getsockopt(socket.IPPROTO_TCP, 25) == 65432
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


@pytest.mark.parametrize(("lag_s", "expected"), [(0.0, 5), (0.5, 2)])
def test_budget(lag_s: float, expected: int) -> None:
    """A turn of the loop accepts no more than the budget, less while it lags, and the next turn goes on."""

    async def scenario() -> None:
        site = Site(config(accept_budget=5, accept_budget_lagging=2), lag_s=lambda: lag_s)
        clients = [site.client() for _ in range(12)]
        counts: list[int] = []

        def watch() -> None:
            accepted = site.acceptor.snapshot()["accepted"]
            assert isinstance(accepted, int)
            counts.append(accepted)
            if accepted < 12:
                loop.call_soon(watch)
            else:
                done.set()

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        site.acceptor.start()
        loop.call_soon(watch)
        await asyncio.wait_for(done.wait(), TIMEOUT_S)
        steps = [after - before for before, after in zip([0, *counts], counts, strict=False)]
        assert max(steps) == expected
        await asyncio.gather(*(client.expect(b"hello\n") for client in clients))
        for client in clients:
            client.close()
        await site.until(lambda: len(site.lost) == 12)
        site.acceptor.close()

    run(scenario)


def test_pause_and_resume() -> None:
    """While paused, newcomers wait in the kernel's queue; resumed, they are served."""

    async def scenario() -> None:
        site = Site(config())
        site.acceptor.start()
        site.acceptor.pause()
        site.acceptor.pause()
        client = site.client()
        first = asyncio.ensure_future(client.expect(b"hello\n"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert site.acceptor.snapshot()["accepted"] == 0
        assert site.acceptor.snapshot()["state"] == "paused"
        site.acceptor.resume()
        await first
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_client_limit_is_refused_at_once() -> None:
    """One client's surplus gets its answer and a clean end, with bytes already sent or not."""

    async def scenario() -> None:
        site = Site(config(), LocalGate(max_per_client=1))
        site.acceptor.start()
        first = site.client()
        await first.expect(b"hello\n")
        for request in (b"", b"GET / HTTP/1.1\r\n\r\n"):
            surplus = site.client()
            if request:
                await surplus.send(request)
            expected = refusal("conn_limit_client", "listener/test:max_connections_per_client")
            assert await surplus.read_all() == expected
            surplus.close()
        assert site.refused() == {"conn_limit_client": 2}
        assert site.log.reasons() == ["conn_limit_client"] * 2
        first.close()
        await site.until(lambda: bool(site.lost))
        again = site.client()
        await again.expect(b"hello\n")
        again.close()
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_late_request_of_a_refused_client_gets_no_reset() -> None:
    """A request that comes after the answer meets an open socket for a moment."""

    async def scenario() -> None:
        site = Site(config(queue=AcceptQueue(max=0)), LocalGate(max_connections=1))
        site.acceptor.start()
        first = site.client()
        await first.expect(b"hello\n")
        surplus = site.client()
        answer = await surplus.read_all()
        await surplus.send(b"GET / HTTP/1.1\r\n\r\n")
        assert answer == refusal("conn_limit_listener", "listener/test:max_connections")
        assert site.acceptor.snapshot()["lingering"] == 1
        assert surplus.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        surplus.close()
        first.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_full_listener_lets_wait_in_order() -> None:
    """Beyond max_connections clients wait in order of arrival, and a freed place is for the oldest."""

    async def scenario() -> None:
        site = Site(config(queue=AcceptQueue(max=10, timeout=Duration(60))), LocalGate(max_connections=1))
        site.acceptor.start()
        clients = [site.client() for _ in range(4)]
        await clients[0].expect(b"hello\n")
        assert site.acceptor.snapshot()["waiting"] == 3
        for client in clients:
            await client.expect(b"hello\n") if client is not clients[0] else None
            assert site.connected[-1].peer.client_port == client.port
            client.close()
        await site.until(lambda: len(site.lost) == 4)
        snapshot = site.acceptor.snapshot()
        assert (snapshot["waited"], snapshot["waiting"]) == (3, 0)
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_place_freed_by_another_worker() -> None:
    """A place that is freed elsewhere is found without any event here."""

    async def scenario() -> None:
        gate = LocalGate(max_connections=1)
        assert gate.try_open("test", "another worker's") is None
        site = Site(config(queue=AcceptQueue(max=10, timeout=Duration(60))), gate)
        site.acceptor.start()
        client = site.client()
        asyncio.get_running_loop().call_later(0.05, gate.close, "test", "another worker's")
        await client.expect(b"hello\n")
        peer = site.connected[0].peer
        assert peer.waited_us >= 40_000  # the loop's clock has whole milliseconds
        assert peer.named("a").waited_us == peer.waited_us
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_backlog_is_bounded_and_has_a_deadline() -> None:
    """Without room in the backlog, or after its time-out, the answer is conn_limit_listener."""

    async def scenario() -> None:
        site = Site(config(queue=AcceptQueue(max=1, timeout=Duration(60))), LocalGate(max_connections=1))
        site.acceptor.start()
        first = site.client()
        await first.expect(b"hello\n")
        waiting, surplus = site.client(), site.client()
        expected = refusal("conn_limit_listener", "listener/test:max_connections")
        assert await surplus.read_all() == expected
        assert site.acceptor.snapshot()["waiting"] == 1
        site.acceptor.update(config(queue=AcceptQueue(max=1, timeout=Duration(0.001))), None)
        assert await waiting.read_all() == expected
        assert site.refused() == {"conn_limit_listener": 2}
        for client in (first, waiting, surplus):
            client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_clients_of_a_unix_socket_have_no_limit_each(tmp_path: Path) -> None:
    """They all have one name, so the limit per client does not hold for those who wait either."""

    async def scenario() -> None:
        terms = config(queue=AcceptQueue(max=10, timeout=Duration(60)), max_connections_per_client=1)
        site = Site(terms, LocalGate(max_connections=1), bind=str(tmp_path / "http.sock"))
        site.acceptor.start()
        clients = [site.client() for _ in range(4)]
        for client in clients:
            await client.expect(b"hello\n")
            client.close()
        await site.until(lambda: len(site.lost) == 4)
        assert site.refused() == {}
        site.acceptor.close()

    run(scenario)


def test_a_new_name_is_used_at_once() -> None:
    """Refusals name a listener as it is called now, and its places are given back under what the gate knows it by."""

    async def scenario() -> None:
        no_queue = AcceptQueue(max=0, timeout=Duration(1))
        site = Site(config(name="old", queue=no_queue), LocalGate(max_connections=1))
        site.acceptor.start()
        client = site.client()
        await client.expect(b"hello\n")
        site.acceptor.update(config(name="new", queue=no_queue), None)
        refused = site.client()
        assert await refused.read_all() == refusal("conn_limit_listener", "listener/new:max_connections")
        refused.close()
        assert site.acceptor.snapshot()["listener"] == "new"
        client.close()
        await site.until(lambda: bool(site.lost))
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_who_left_the_backlog_takes_no_place() -> None:
    """A client that hung up while it waited is passed over."""

    async def scenario() -> None:
        site = Site(config(queue=AcceptQueue(max=10, timeout=Duration(60))), LocalGate(max_connections=1))
        site.acceptor.start()
        first, second, third = (site.client() for _ in range(3))
        await first.expect(b"hello\n")
        second.close()
        first.close()
        await third.expect(b"hello\n")
        assert [echo.peer.client_port for echo in site.connected] == [first.port, third.port]
        assert site.acceptor.snapshot()["abandoned"] == 1
        third.close()
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_close_leaves_nothing_behind() -> None:
    """Giving up closes the listening socket, the backlog, and unread PROXY headers."""

    async def scenario() -> None:
        gate = LocalGate(max_connections=1)
        gate.try_open("test", "x")
        keys = {"proxy_protocol": True, "proxy_protocol_from": ("127.0.0.1",)}
        site = Site(config(queue=AcceptQueue(max=10, timeout=Duration(60)), **keys), gate)
        site.acceptor.start()
        silent, queued = site.client(), site.client()
        await queued.send(b"PROXY UNKNOWN\r\n")
        await soon(lambda: site.acceptor.snapshot()["waiting"] == 1)
        assert site.acceptor.snapshot()["proxy_headers_awaited"] == 1
        site.acceptor.close()
        assert await silent.read_all() == b""
        assert await queued.read_all() == b""
        silent.close()
        queued.close()

    run(scenario)


PROXY = {"proxy_protocol": True, "proxy_protocol_from": ("127.0.0.0/8", "unix:")}


@pytest.mark.parametrize(
    ("name", "bytewise"),
    [(name, False) for name in VALID] + [(name, True) for name in VALID if len(VALID[name][0]) <= 300],
)
def test_proxy_header(name: str, bytewise: bool) -> None:
    """The header is taken off exactly, whole or byte by byte, and its addresses are the client's."""
    header, addresses, _ = VALID[name]

    async def scenario() -> None:
        site = Site(config(**PROXY))
        site.acceptor.start()
        client = site.client()
        data = header + b"GET"
        for piece in [data[at : at + 1] for at in range(len(data))] if bytewise else [data]:
            await client.send(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await client.expect(b"hello\nGET")
        peer = site.connected[0].peer
        own = (("127.0.0.1", client.port), site.address)
        assert ((peer.client_host, peer.client_port), (peer.local_host, peer.local_port)) == (addresses or own)
        assert peer.proxied is (addresses is not None)
        assert site.gate.open == {peer.client_host: 1}
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


@pytest.mark.parametrize("name", ["http", "v1 bare lf", "v2 wrong checksum", "v1 endless"])
def test_invalid_proxy_header(name: str) -> None:
    """A wrong header ends the connection, is logged with its reason, and took no place."""

    async def scenario() -> None:
        site = Site(config(**PROXY))
        site.acceptor.start()
        client = site.client()
        await client.send(INVALID[name])
        with contextlib.suppress(ConnectionResetError):  # unread bytes make the kernel reset
            assert await client.read() == b""
        assert site.log.reasons() == ["proxy_header_invalid"]
        assert site.log.events[0][2]["why"]
        client.close()
        assert site.connected == []
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_late_and_missing_proxy_header() -> None:
    """Half a header in time is too late, half a header and FIN is invalid, and FIN alone (a check) is nothing."""

    async def scenario() -> None:
        site = Site(config(timeouts=ListenerTimeouts(proxy_header=Duration(0.05)), **PROXY))
        site.acceptor.start()
        late, cut, checked = (site.client() for _ in range(3))
        await late.send(b"PROXY TCP4 ")
        await cut.send(b"PROXY TCP4 ")
        cut.socket.shutdown(socket.SHUT_WR)
        checked.socket.shutdown(socket.SHUT_WR)
        for client in (late, cut, checked):
            assert await client.read() == b""
            client.close()
        whys = sorted(fields["why"] for _, _, fields in site.log.events)
        assert whys == ["closed within the header", "timeouts.proxy_header"]
        assert site.refused() == {"proxy_header_invalid": 2}
        site.acceptor.close()

    run(scenario)


def test_plain_client_beside_proxies() -> None:
    """An address that is not listed is a plain client: what it sends is not taken for a header."""

    async def scenario() -> None:
        site = Site(config(proxy_protocol=True, proxy_protocol_from=("192.0.2.0/24",)))
        site.acceptor.start()
        client = site.client()
        header = v2(1, 0x11, V4)
        await client.send(header)
        await client.expect(b"hello\n" + header)
        assert not site.connected[0].peer.proxied
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_proxy_header_over_unix(tmp_path: Path) -> None:
    """A proxy on the same machine may speak through a Unix socket."""

    async def scenario() -> None:
        site = Site(config(**PROXY), bind=str(tmp_path / "http.sock"))
        site.acceptor.start()
        client = site.client()
        await client.send(v2(1, 0x11, V4))
        await client.expect(b"hello\n")
        assert site.connected[0].peer == Peer("192.0.2.1", 56324, "198.51.100.2", 443, False, True, "")
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_client_limit_counts_the_proxied_client() -> None:
    """Behind a proxy the limit per client is the real client's, not the proxy's."""

    async def scenario() -> None:
        site = Site(config(**PROXY), LocalGate(max_per_client=1))
        site.acceptor.start()
        clients = [site.client() for _ in range(3)]
        for client, host in zip(clients, (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"), strict=True):
            await client.send(b"PROXY TCP4 " + host + b" 192.0.2.9 1 2\r\n")
            await client.expect(b"hello\n" if client is not clients[2] else b"HTTP/1.1 503 conn_limit_client\r\n")
        for client in clients:
            client.close()
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


@pytest.mark.parametrize("budget", [3, 1000])
def test_retire_loses_nobody(budget: int) -> None:
    """Who waited in the kernel's queue is served; then the socket is closed, and only then on_empty is called."""

    async def scenario() -> None:
        site = Site(config(accept_budget=budget))
        clients = [site.client() for _ in range(20)]
        site.acceptor.start()
        site.acceptor.retire(site.emptied.set)
        await asyncio.wait_for(site.emptied.wait(), TIMEOUT_S)
        assert len(site.connected) == 20
        assert site.sock.fileno() == -1
        assert site.acceptor.snapshot()["state"] == "closed"
        await asyncio.gather(*(client.expect(b"hello\n") for client in clients))
        for client in clients:
            await client.send(b"still served")
            await client.expect(b"still served")
            client.close()
        await site.until(lambda: len(site.lost) == 20)

    run(scenario)


@pytest.mark.parametrize("before", ["nothing", "start", "pause"])
def test_retire_with_an_empty_queue(before: str) -> None:
    """With nobody waiting, and from any state, retirement is over at once."""

    async def scenario() -> None:
        site = Site(config())
        if before != "nothing":
            site.acceptor.start()
        if before == "pause":
            site.acceptor.pause()
        site.acceptor.retire(site.emptied.set)
        site.acceptor.pause()
        site.acceptor.resume()
        await asyncio.wait_for(site.emptied.wait(), TIMEOUT_S)
        again = asyncio.Event()
        site.acceptor.retire(again.set)
        await asyncio.wait_for(again.wait(), TIMEOUT_S)

    run(scenario)


def test_retire_waits_for_the_backlog() -> None:
    """While somebody waits for a place, on_empty is not called; they are served after the retirement began."""

    async def scenario() -> None:
        site = Site(config(queue=AcceptQueue(max=10, timeout=Duration(60))), LocalGate(max_connections=1))
        site.acceptor.start()
        first, second = site.client(), site.client()
        await first.expect(b"hello\n")
        site.acceptor.retire(site.emptied.set)
        await soon(lambda: site.acceptor.snapshot()["state"] == "closed")
        assert not site.emptied.is_set()
        first.close()
        await second.expect(b"hello\n")
        await asyncio.wait_for(site.emptied.wait(), TIMEOUT_S)
        second.close()
        await site.until(lambda: len(site.lost) == 2)

    run(scenario)


def test_queue_survives_in_another_descriptor() -> None:
    """The supervisor keeps its own descriptor: who comes after the retirement waits there and is lost to nobody."""

    async def scenario() -> None:
        site = Site(config())
        keeper = site.sock.dup()
        site.acceptor.start()
        site.acceptor.retire(site.emptied.set)
        await asyncio.wait_for(site.emptied.wait(), TIMEOUT_S)
        client = Client(socket.create_connection(site.address))
        client.socket.setblocking(False)
        accepted, _ = keeper.accept()
        accepted.sendall(b"hello\n")
        await client.expect(b"hello\n")
        accepted.close()
        client.close()
        keeper.close()

    run(scenario)


def test_a_protocol_that_cannot_be_made() -> None:
    """A defect behind the factory costs its own connection only: closed, place freed, logged."""

    async def scenario() -> None:
        def make(site: Site, peer: Peer) -> Echo:
            if not site.log.events:
                raise ValueError("defect")
            return Echo(site, peer)

        site = Site(config(), make=make)
        site.acceptor.start()
        client = site.client()
        assert await client.read_all() == b""
        client.close()
        assert site.gate.open.total() == 0
        assert site.log.reasons() == ["internal_error"]
        client = site.client()
        await client.expect(b"hello\n")
        client.close()
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_abort_within_connection_made() -> None:
    """A protocol may refuse its transport at once."""

    class Aborting(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.abort()  # type: ignore[attr-defined]

    async def scenario() -> None:
        site = Site(config(), make=Aborting)
        site.acceptor.start()
        client = site.client()
        assert await client.read_all() == b""
        client.close()
        await site.until(lambda: bool(site.lost))
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_broken_listening_socket() -> None:
    """A socket that no longer listens ends the acceptor with one line in the log, not with a spinning loop."""

    async def scenario() -> None:
        site = Site(config())
        site.acceptor.start()
        site.sock.shutdown(socket.SHUT_RD)
        await soon(lambda: site.acceptor.snapshot()["state"] == "closed")
        assert [event for _, event, _ in site.log.events] == ["listener_broken"]

    run(scenario)


def test_listen_backlog_follows_a_reload() -> None:
    """The kernel's queue is resized in place, and nobody in it is lost."""

    async def scenario() -> None:
        site = Site(config(backlog=1), backlog=1)
        clients = [site.client(), site.client()]
        site.acceptor.update(config(backlog=100), None)
        assert struct.unpack_from("6I", site.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 8)[5] == 100
        clients += [site.client() for _ in range(10)]
        site.acceptor.start()
        await asyncio.gather(*(client.expect(b"hello\n") for client in clients))
        for client in clients:
            client.close()
        await site.until(lambda: len(site.lost) == 12)
        site.acceptor.close()

    run(scenario)


def test_short_of_descriptors() -> None:
    """Without descriptors, clients get an answer or wait; when descriptors are free again, all who wait are served."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.listener.short_of_descriptors", "10"],
        cwd=ROOT,
        # The edgeq that is tested first, then the tests themselves.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        clients = [socket.create_connection(("127.0.0.1", port), TIMEOUT_S) for _ in range(30)]
        served = refused = 0
        for client in clients:
            # Each is served or refused, in order of arrival; closing it frees the descriptor that the next ones need.
            first = client.recv(4096)
            if first == b"hello\n":
                served += 1
            else:
                assert first == refusal("fd_exhausted", "listener/test:accept")
                assert client.recv(1) == b""
                refused += 1
            client.close()
        process.stdin.close()
        snapshot = json.loads(process.stdout.read())
        assert process.wait(TIMEOUT_S) == 0
    assert served >= 10
    assert served + refused == 30
    assert snapshot["refused"] == {"fd_exhausted": refused}
    assert snapshot["shortages"] >= 1
    assert refused >= 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.EMFILE, "fd_exhausted"),
        (errno.ENFILE, "fd_exhausted"),
        (errno.ENOBUFS, "memory_pressure"),
        (errno.ENOMEM, "memory_pressure"),
    ],
)
@pytest.mark.parametrize("helps", [True, False])
def test_a_shortage_is_told_by_what_is_short(error: int, reason: str, helps: bool) -> None:
    """One is answered if the spare descriptor makes room; if it does not (all processes are short, or the kernel's
    memory is), those who wait are served when the shortage is over, and that there was one is counted as well."""

    async def scenario() -> None:
        site = Site(Listener(address="test"))
        accept = site.acceptor._accept
        fails = [True, not helps]

        def short() -> tuple[int, Any]:
            if fails and fails.pop(0):
                raise OSError(error, os.strerror(error))
            return accept()

        site.acceptor._accept = short
        clients = [site.client(), site.client()]
        site.acceptor.start()
        await clients[1].expect(b"hello\n")
        expected = refusal(reason, "listener/test:accept") if helps else b"hello\n"
        await clients[0].expect(expected)
        assert site.refused() == {reason: 1}
        assert [fields["reason"] for _, event, fields in site.log.events if event == "accept_shortage"] == [reason]
        for client in clients:
            client.close()
        await site.until(lambda: len(site.lost) == len(site.connected))
        site.acceptor.close()

    run(scenario)


def test_what_the_kernel_drops_is_counted() -> None:
    """Five clients, and room for two in the accept queue: the others are dropped without a word, and then told of."""

    async def scenario() -> None:
        site = Site(Listener(address="test", name="front"), backlog=1)
        clients = [socket.socket() for _ in range(5)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(site.address)
        site.acceptor.tick()
        site.acceptor.tick()
        counts = site.refusals.snapshot()
        dropped = counts["accept_backlog_overflow"]["listener/front:accept"]
        assert dropped >= 3  # more, if they have had the time to try again
        assert list(counts) == ["accept_backlog_overflow"]
        told = [fields["count"] for _, event, fields in site.log.events if event == "accept_overflow"]
        assert sum(told) == dropped
        for client in clients:
            client.close()
        site.acceptor.close()
        site.acceptor.tick()

    run(scenario)


def test_who_is_kept_out_on_purpose_is_no_overflow() -> None:
    """Nobody new may enter a socket that goes: that is not what a backlog is for, and no queue was full."""

    async def scenario() -> None:
        site = Site(config())
        refuse_new(site.sock)
        if not is_refusing(site.sock):
            site.acceptor.close()
            pytest.skip("this kernel grants it only to CAP_NET_ADMIN")
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(site.address)
        await soon(lambda: drops_of(site.sock) > 0)
        site.acceptor.tick()
        assert not site.refusals.snapshot()
        assert not site.log.events
        client.close()
        site.acceptor.close()

    run(scenario)
