"""Listening sockets: all or nothing, shards by slot, who holds a port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.config.schema import Listener
from edgeq.errors import StartError
from edgeq.supervisor import holder_io
from edgeq.supervisor.holder_io import parse_listening
from edgeq.supervisor.sockets_io import Listeners
from tests.support.gateway import free_port


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


def tcp() -> Listener:
    """On a free port."""
    return Listener(address=f"127.0.0.1:{free_port()}", backlog=5)


def connect(one: Listener) -> None:
    """Raises OSError if nobody listens."""
    host, _, port = one.address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def test_every_slot_has_a_socket_of_its_own(listeners: Listeners, tmp_path: Path) -> None:
    """TCP listeners have one shard per slot, Unix listeners one socket for all."""
    one, unix = tcp(), Listener(address=f"unix:{tmp_path}/s")
    listeners.ensure([one, unix], [0, 1])
    listeners.ensure([one, unix], [0, 1, 5])
    socks = [listeners.sockets_of(slot, [one.address, unix.address]) for slot in (0, 1, 5)]
    assert len({sock.fileno() for sock, _ in socks}) == 3
    assert len({sock.fileno() for _, sock in socks}) == 1
    assert len({sock.getsockname() for sock, _ in socks}) == 1
    listeners.remove_slot(1)
    with pytest.raises(KeyError):
        listeners.sockets_of(1, [one.address])


@pytest.mark.parametrize("name", ["", "shop"])
def test_a_port_in_use_names_listener_and_holder(
    listeners: Listeners, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if the holder cannot be seen, how to find it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = Listener(address=f"127.0.0.1:{port}", name=name or f"127.0.0.1:{port}")
        called = f"cannot listen on 127.0.0.1:{port}" + (" (listener shop)" if name else "") + ": the port is in use "
        with pytest.raises(StartError) as unseen:
            listeners.ensure([busy], [0])
        assert str(unseen.value) == (
            called + f"(by a process that cannot be seen from here; as root: ss -ltnp 'sport = :{port}')"
        )
        monkeypatch.setattr(holder_io, "holder_of", lambda inodes: holder_io.Holder(7, "python3") if inodes else None)
        with pytest.raises(StartError) as seen:
            listeners.ensure([busy], [0])
        assert str(seen.value) == called + "(by python3, pid 7)"
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(StartError, match="in use \\(nobody listens on it"):
            listeners.ensure([Listener(address=f"127.0.0.1:{port}")], [0])


def test_failure_leaves_all_as_it_was(listeners: Listeners) -> None:
    """Nothing new listens if one address cannot be had, and nothing old is lost."""
    kept, new = tcp(), tcp()
    listeners.ensure([kept], [0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = Listener(address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StartError, match="the port is in use"):
            listeners.ensure([kept, new, busy], [0, 1])
    assert listeners.addresses == (kept.address,)
    with pytest.raises(ConnectionRefusedError):
        connect(new)
    connect(kept)
    with pytest.raises(KeyError):
        listeners.sockets_of(1, [kept.address])


def test_wildcard_beside_an_address_of_our_own(listeners: Listeners) -> None:
    """What we hold ourselves is not "in use": 0.0.0.0 and 127.0.0.1 may share a port, also when one came later."""
    port = free_port()
    listeners.ensure([Listener(address=f"0.0.0.0:{port}")], [0])
    listeners.ensure([Listener(address=f"127.0.0.1:{port}")], [0])
    assert len(listeners.addresses) == 2


def test_new_shards_get_nothing_before_their_worker_serves(listeners: Listeners) -> None:
    """A slot without a worker is steered around from its first moment; without any worker all shards queue."""
    one = tcp()
    listeners.ensure([one], [0])
    listeners.steer({0})
    listeners.ensure([one], [0, 1])
    new = listeners.sockets_of(1, [one.address])[0]
    for _ in range(6):
        connect(one)
    with pytest.raises(BlockingIOError):
        new.accept()


def test_backlog_changes_live(listeners: Listeners) -> None:
    """A reload with another backlog is a second listen() on the same socket."""
    one = tcp()
    listeners.ensure([one], [0])
    bigger = Listener(address=one.address, backlog=77)
    listeners.ensure([bigger], [0])
    info = listeners.sockets_of(0, [one.address])[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert int.from_bytes(info[28:32], "little") == 77  # tcpi_sacked of a listening socket is its backlog


def test_foreign_unix_socket_is_not_unlinked(listeners: Listeners, tmp_path: Path) -> None:
    """If somebody else has taken the path meanwhile, it is theirs."""
    path = tmp_path / "s"
    listeners.ensure([Listener(address=f"unix:{path}")], [0])
    path.unlink()
    path.write_text("another's")
    listeners.close()
    assert path.exists()


def test_proc_net_tcp_is_read() -> None:
    """Inodes of listening sockets on the port, of no others."""
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0000000000000000 100 0
"""
    assert parse_listening(table, 8080) == {111}
    assert parse_listening(table, 80) == {333}
    assert parse_listening("", 80) == set()
