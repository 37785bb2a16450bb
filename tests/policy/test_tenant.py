"""Who is asking: found in the head's own bytes, whatever the parser shares between requests."""

from __future__ import annotations

import pytest

from edgeq.llm.account import Snapshot
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.registry import Registry
from edgeq.policy.tenant import ANONYMOUS, TenantKey, key_of
from edgeq.supervisor.messages import AccountsTold
from edgeq.wire.h1_request import parse_request
from edgeq.wire.head import HeadLimits, RequestHead

LIMITS = HeadLimits(8192, 32768, 100)


def head(*lines: bytes, previous: RequestHead | None = None) -> RequestHead:
    """A parsed head with these field lines after Host."""
    return parse_request(b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *lines, b"", b"")), previous, LIMITS)


def test_a_header_names_the_tenant() -> None:
    """By any spelling of its name, without the white space around its value."""
    key = TenantKey("header:X-Team")
    assert key.of_head(head(b"x-team: red")) == b"red"
    assert key.of_head(head(b"X-TEAM:\t red \t", b"A: b")) == b"red"
    assert key.of_head(head(b"X-Team-2: red", b"A: x-team: red")) == ANONYMOUS
    assert key.of_head(head()) == ANONYMOUS


def test_requests_that_share_their_fields() -> None:
    """The next head on a connection has the fields of the one before, and a tenant of its own."""
    key = TenantKey("header:x-team")
    first = head(b"Accept: */*", b"X-Team: red")
    second = head(b"Accept: */*", b"X-Team: blue", previous=first)
    assert second.fields is first.fields
    assert (key.of_head(first), key.of_head(second)) == (b"red", b"blue")
    other = TenantKey("header:accept")  # a reload
    assert other.of_head(first) == b"*/*"


def test_who_says_it_twice_says_nothing() -> None:
    """Of two values the upstream might take the other one: then the quota of a made-up tenant would be used."""
    key = TenantKey("header:x-team")
    assert key.of_head(head(b"X-Team: made-up", b"x-team: red")) == ANONYMOUS


def test_a_head_that_is_not_plain() -> None:
    """Heads that h11 has read, with bytes above 0x7F and empty lines before them."""
    key = TenantKey("header:x-team")
    assert key.of_head(head(b"X-Other: \xe4", b"X-Team: red")) == b"red"
    assert key.of_head(head(b"X-Other: \xe4", b"X-Team: red", b"x-team: blue")) == ANONYMOUS
    late = parse_request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Team: red\r\n\r\n", None, LIMITS)
    assert key.of_head(late) == b"red"


def test_credentials_do_not_become_names() -> None:
    """A key's tenant is its digest: the same for the same key, and nothing that could be used."""
    key = TenantKey("key")
    bearer = key.of_head(head(b"Authorization: Bearer s3cret"))
    assert bearer == key.of_head(head(b"X-Api-Key: s3cret")) == key.called(b"s3cret")
    assert bearer.startswith(b"key-")
    assert b"s3cret" not in bearer
    assert key.of_head(head(b"Authorization: Basic s3cret")) not in (bearer, ANONYMOUS)
    assert key.of_head(head()) == ANONYMOUS
    assert TenantKey("header:x-api-key").of_head(head(b"X-Api-Key: s3cret")) == bearer


def test_long_names_are_not_kept() -> None:
    """Names are kept while somebody waits, so a peer must not choose their size."""
    assert len(TenantKey("header:x-team").of_head(head(b"X-Team: " + b"r" * 5000))) < 64


def test_what_is_no_key() -> None:
    """A mistake in the configuration is told."""
    with pytest.raises(ValueError, match="client-address"):
        TenantKey("cookie")


def test_keys_are_the_same_in_every_process() -> None:
    """The number does not depend on this process, and fits what compiled code holds without a box."""
    assert key_of(b"red") == 0x23480A2FAF17E90D < 1 << 62
    assert key_of(b"red") != key_of(b"blue")


def test_weights_are_found_by_what_requests_say() -> None:
    """A credential is written in the configuration as it is sent, and known by its digest."""
    key = TenantKey("header:x-api-key", {"gold": 4})
    assert key.weights == {key.of_head(head(b"X-Api-Key: gold")): 4.0}


def test_virtual_keys_are_known_by_their_tenants() -> None:
    """By whichever field a key comes; a credential that is none of edgeq's stays a digest."""
    registry = Registry(Snapshot())
    made = registry.create(0.0, "acme", "", {})
    registry.take(made.change)
    registry.take(registry.change_tenant("acme", "", 3, {}).change)
    holder = AccountsHolder()
    holder.hear(AccountsTold(1, registry.snapshot()))
    secret = made.secret.encode()
    key = TenantKey("key", {"big": 5}, holder)
    assert (
        key.of_head(head(b"Authorization: Bearer " + secret)) == key.of_head(head(b"X-Api-Key: " + secret)) == b"acme"
    )
    assert key.of_head(head(b"X-Api-Key: other")).startswith(b"key-")
    assert key.of_head(head()) == ANONYMOUS
    assert [key.weight(one) for one in (b"acme", b"big", b"other")] == [3.0, 5.0, 1.0]
    assert TenantKey("key").of_head(head(b"X-Api-Key: " + secret)).startswith(b"key-")
