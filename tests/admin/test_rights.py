"""Who may read and who may change."""

from __future__ import annotations

import os
import socket

import pytest

from edgeq.admin.rights import Level, Peer, Rights, peer_of

GROUP = Rights(uid=990, gid=77, mode=0o660)
EVERYBODY = Rights(uid=990, gid=77, mode=0o666)


@pytest.mark.parametrize("rights", [GROUP, EVERYBODY])
@pytest.mark.parametrize("level", ["viewer", "admin"])
def test_root_and_the_same_user_may_do_all(rights: Rights, level: Level) -> None:
    """Whatever groups they are in."""
    for uid in (0, 990):
        assert rights.refusal(Peer(1, uid, frozenset()), level) == ""


@pytest.mark.parametrize(
    ("rights", "groups", "reads"),
    [(GROUP, {77}, True), (GROUP, {5, 77}, True), (GROUP, {5}, False), (EVERYBODY, {5}, True)],
)
def test_others_read_at_most(rights: Rights, groups: set[int], reads: bool) -> None:
    """By the group, or because the mode lets everybody connect."""
    peer = Peer(1, 1000, frozenset(groups))
    assert (rights.refusal(peer, "viewer") == "") == reads
    assert "user 1000 may only read" in rights.refusal(peer, "admin")


def test_the_kernel_says_who_it_is() -> None:
    """Both ends of a pair are this process."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == Peer(os.getpid(), os.getuid(), frozenset((os.getgid(), *os.getgroups())))
