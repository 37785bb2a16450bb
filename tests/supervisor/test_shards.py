"""The kernel's numbering of a SO_REUSEPORT group, and the programs that use it, against real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.supervisor import bpf_io
from edgeq.supervisor.bpf import steer
from edgeq.supervisor.shards import ShardOrder

FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def listening(family: socket.AddressFamily, host: str, port: int = 0) -> socket.socket:
    """A member of a group, non-blocking."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    sock.listen(256)
    return sock


def accept_all(sock: socket.socket) -> list[socket.socket]:
    """Until the queue is empty."""
    accepted = []
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted.append(sock.accept()[0])
    return accepted


def spread(members: dict[int, socket.socket], connections: int) -> dict[int, int]:
    """Connect so often. Returns how many each member got."""
    address = next(iter(members.values())).getsockname()[:2]
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(socket.create_connection(address, timeout=10))
        counts = {}
        for slot, sock in members.items():
            accepted = accept_all(sock)
            counts[slot] = len(accepted)
            for one in accepted:
                one.close()
    return counts


@pytest.fixture(params=FAMILIES, ids=["ipv4", "ipv6"])
def group(request: pytest.FixtureRequest) -> Iterator[dict[int, socket.socket]]:
    """Four members, by slot."""
    family, host = request.param
    first = listening(family, host)
    members = {0: first, **{slot: listening(family, host, first.getsockname()[1]) for slot in (1, 2, 3)}}
    yield members
    for sock in members.values():
        sock.close()


def test_steering_reaches_exactly_the_chosen(group: dict[int, socket.socket]) -> None:
    """A shard that is left out gets nothing, all others get their share."""
    bpf_io.steer_group(group[0], [0, 2, 3])
    counts = spread(group, 90)
    assert counts[1] == 0
    assert all(counts[slot] > 5 for slot in (0, 2, 3))
    bpf_io.steer_group(group[0], [1])
    assert spread(group, 20) == {0: 0, 1: 20, 2: 0, 3: 0}
    bpf_io.steer_group(group[0], None)
    bpf_io.steer_group(group[0], None)
    assert sum(spread(group, 60).values()) == 60


def test_numbering_follows_the_kernel_when_members_close(group: dict[int, socket.socket]) -> None:
    """After each close the last member has the hole's index; the order that we keep agrees with the kernel's."""
    order = ShardOrder()
    for slot in group:
        order.listened(slot)
    for leaving in (1, 0):
        staying = {slot: sock for slot, sock in group.items() if slot != leaving}
        bpf_io.steer_group(group[3], order.steering(staying))
        assert spread(group, 30)[leaving] == 0
        bpf_io.steer_group(group[3], order.steering_while_closing(leaving, staying))
        with group.pop(leaving) as gone, socket.socket(fileno=os.dup(gone.fileno())):
            gone.shutdown(socket.SHUT_RDWR)  # for every process that has the socket
        order.closed(leaving)
        for index, slot in enumerate(order.slots):
            bpf_io.steer_group(group[3], [index])
            assert spread(group, 5)[slot] == 5
    assert sorted(order.slots) == [2, 3]


def test_refusing_keeps_the_queue_and_lets_nothing_in(group: dict[int, socket.socket]) -> None:
    """What waited before the filter is served without a reset; a newcomer gets no answer, and no reset either."""
    address = group[0].getsockname()[:2]
    waiting = [socket.create_connection(address, timeout=10) for _ in range(40)]
    for sock in waiting:
        sock.sendall(b"request")
    for sock in group.values():
        bpf_io.refuse_new(sock)
    if not bpf_io.is_refusing(group[0]):
        for sock in waiting:
            sock.close()
        pytest.skip("this kernel grants it only to CAP_NET_ADMIN")
    with socket.socket(group[0].family) as newcomer:
        newcomer.setblocking(False)
        with pytest.raises(BlockingIOError):
            newcomer.connect(address)
        accepted = [one for sock in group.values() for one in accept_all(sock)]
        for sock in group.values():
            sock.close()
        assert len(accepted) == len(waiting)
        for one in accepted:
            assert one.recv(100) == b"request"
            one.sendall(b"answer")
            one.close()
        for sock in waiting:
            assert sock.recv(100) == b"answer"
            assert sock.recv(100) == b""
            sock.close()
        assert newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_closing_with_a_queue_resets_without_all_this(group: dict[int, socket.socket]) -> None:
    """The reason for the order of things: a plain close resets who waits."""
    sock = group[0]
    bpf_io.steer_group(sock, [0])
    with socket.create_connection(sock.getsockname()[:2], timeout=10) as waiting:
        waiting.sendall(b"request")
        sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)


def test_nothing_to_choose_is_no_program() -> None:
    """All or none of the members: the kernel's own choice."""
    order = ShardOrder()
    assert order.steering({0}) is None
    order.listened(0)
    order.listened(7)
    assert order.steering({0, 7}) is None
    assert order.steering(set()) is None
    assert order.steering({7}) == [1]
    assert order.steering_while_closing(0, {7}) is None
    with pytest.raises(ValueError):
        steer([])


@given(st.lists(st.integers(0, 9), unique=True, min_size=2), st.data())
def test_indices_while_closing_are_right_before_and_after(slots: list[int], data: st.DataObject) -> None:
    """What is steered to during a close is a serving member under both numberings."""
    order = ShardOrder()
    for slot in slots:
        order.listened(slot)
    leaving = data.draw(st.sampled_from(slots))
    serving = set(data.draw(st.lists(st.sampled_from(slots)))) - {leaving}
    indices = order.steering_while_closing(leaving, serving) or []
    before = order.slots
    order.closed(leaving)
    assert all(before[index] == order.slots[index] and before[index] in serving for index in indices)
    assert sorted([*order.slots, leaving]) == sorted(slots)
