"""Who may use models, as a worker sees it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import Entry, Snapshot, Spent, Team, Tenant, digest_of
from edgeq.llm.accounts import MESSAGES, NOBODY, Accounts, AccountsHolder
from edgeq.llm.message import Usage
from edgeq.llm.registry import NoSuch, Registry, id_of
from edgeq.supervisor.messages import (
    AccountsTold,
    Message,
    UsageTaken,
    UsageTold,
    decode_from_worker,
    decode_to_worker,
    encode_message,
)


def made(registry: Registry, now: float = 0.0, **changes: object) -> tuple[str, str]:
    """A new key: id and secret."""
    one = registry.create(now, "acme", "core", changes)
    registry.take(one.change)
    assert one.account is not None
    return one.account.id, one.secret


def verdict(registry: Registry, secret: str, now: float) -> str:
    accounts = Accounts.of(registry.snapshot())
    first = accounts.verdict(accounts.find(secret.encode()), now)
    assert accounts.verdict(accounts.find(secret.encode()), now) == first, "remembered as it was found"
    return first


def test_verdicts() -> None:
    """Each has its own words; an expired key is not an unknown one."""
    registry = Registry(Snapshot())
    key_id, secret = made(registry, expires=100.0)
    assert verdict(registry, secret, 99.9) == ""
    assert verdict(registry, secret, 100.0) == "expired"
    assert verdict(registry, secret[:-1] + "!", 0.0) == "unknown"
    assert verdict(registry, key_id, 0.0) == "unknown", "an id is no secret"
    assert verdict(registry, "", 0.0) == "unknown"
    registry.take(registry.revoke(50.0, key_id).change)
    assert verdict(registry, secret, 60.0) == "revoked"
    assert registry.revoke(70.0, key_id).account == registry.account(key_id), "since when stays as it was"
    assert set(MESSAGES) == {"unknown", "revoked", "expired", "replaced"}


def test_rotation() -> None:
    """Both secrets work for the time of grace, but not longer than the key itself; of three the first one has ended."""
    registry = Registry(Snapshot())
    key_id, first = made(registry, expires=100.0)
    rotated = registry.rotate(10.0, key_id, 20.0)
    registry.take(rotated.change)
    second = rotated.secret
    assert verdict(registry, first, 29.9) == verdict(registry, second, 99.9) == ""
    assert verdict(registry, first, 30.0) == "replaced"
    assert verdict(registry, second, 100.0) == "expired"
    again = registry.rotate(40.0, key_id, 1000.0)
    registry.take(again.change)
    assert verdict(registry, first, 41.0) == "unknown"
    assert verdict(registry, second, 99.9) == ""
    assert verdict(registry, second, 100.0) == "replaced"
    registry.take(registry.revoke(50.0, key_id).change)
    assert {verdict(registry, one, 51.0) for one in (second, again.secret)} == {"revoked"}
    with pytest.raises(ValueError, match="was revoked"):
        registry.rotate(60.0, key_id, 0.0)
    with pytest.raises(ValueError, match="was revoked"):
        registry.change(key_id, {"name": "other"}, {})


def test_one_that_has_expired_is_not_rotated() -> None:
    """Its new secret would have expired, too."""
    registry = Registry(Snapshot())
    key_id, _secret = made(registry, expires=100.0)
    with pytest.raises(ValueError, match=f"keys set {key_id} --expires"):
        registry.rotate(100.0, key_id, 0.0)
    registry.take(registry.change(key_id, {"expires": 200.0}, {}).change)
    assert registry.rotate(100.0, key_id, 0.0).secret


def test_what_a_change_does_is_told() -> None:
    """Each field with its old and new value; of a secret only that there is another one."""
    registry = Registry(Snapshot())
    first = registry.create(5.0, "acme", "core", {"name": "bot", "limits": TokenLimits(concurrent=2)})
    assert first.account is not None
    key = f"key/{first.account.id}"
    assert registry.differences(first.change) == [
        f"{key} is new",
        f"{key} team: '' -> 'core'",
        f"{key} name: '' -> 'bot'",
        f"{key} concurrent: 0 -> 2",
        "tenant/acme is new",
        "team/acme/core is new",
    ]
    registry.take(first.change)
    changed = registry.change(first.account.id, {"models": ("gpt-*",)}, {"money_per_day": 6.0}).change
    assert registry.differences(changed) == [f"{key} models: () -> ('gpt-*',)", f"{key} money_per_day: 0.0 -> 6.0"]
    rotated = registry.rotate(6.0, first.account.id, 60.0)
    assert registry.differences(rotated.change) == [f"{key} has a new secret"]
    tenant = registry.change_tenant("acme", "", 3, {"concurrent": 9}).change
    assert registry.differences(tenant) == ["tenant/acme weight: 1 -> 3", "tenant/acme concurrent: 0 -> 9"]
    team = registry.change_tenant("acme", "core", None, {"concurrent": 1}).change
    assert registry.differences(team) == ["team/acme/core concurrent: 0 -> 1"]
    expires = registry.change(first.account.id, {"expires": 1.8e9}, {}).change
    assert registry.differences(expires) == [f"{key} expires: never -> 2027-01-15T08:00:00+00:00"]
    revoked = registry.revoke(1.8e9, first.account.id).change
    assert registry.differences(revoked) == [f"{key} revoked: never -> 2027-01-15T08:00:00+00:00"]
    registry.take(revoked)
    assert registry.differences(registry.revoke(1.9e9, first.account.id).change) == [], "it was before"


def test_models_that_keys_name_and_that_are_no_more() -> None:
    """Of keys that can be used; not what was none before, nor a pattern that still means one."""
    registry = Registry(Snapshot())
    one, _ = made(registry, models=("best", "gpt-*", "slip", "old-*"))
    other, _ = made(registry, models=("best",))
    made(registry, models=("best",), expires=50.0)
    before = ("best", "gpt-4o", "gpt-4.1", "old-1", "small")
    assert registry.lost_models(before, before, 60.0) == []
    assert registry.lost_models(before, ("gpt-4.1", "old-1"), 60.0) == [
        f"there is no model best any more, which keys name: {one}, {other}"
    ]
    assert registry.lost_models(before, ("best", "gpt-4o"), 60.0) == [
        f"there is no model old-* any more, which keys name: {one}"
    ]
    for _ in range(9):
        made(registry, models=("best",))
    assert registry.lost_models(before, before[1:], 60.0)[0].endswith(" and 3 more")


def test_models() -> None:
    """By name or beginning; none means all."""
    registry = Registry(Snapshot())
    key_id, _secret = made(registry, models=("gpt-*", "claude"))
    account = registry.account(key_id)
    assert [account.allows(one) for one in ("gpt-5", "claude", "claude-2", "GPT-5")] == [True, True, False, False]
    key_id, _secret = made(registry)
    assert registry.account(key_id).allows("anything")


def test_limits_of_key_tenant_and_team() -> None:
    """Those that there are, each with the name by which it is counted."""
    registry = Registry(Snapshot())
    key_id, secret = made(registry, limits=TokenLimits(concurrent=1))
    registry.take(registry.change_tenant("acme", "", 3, {"money_per_day": 5.0}).change)
    accounts = Accounts.of(registry.snapshot())
    account = accounts.find(secret.encode())
    assert account is not None
    assert account.subjects() == (f"key/{key_id}", "tenant/acme", "team/acme/core")
    assert accounts.limits(account) == [
        (f"key/{key_id}", TokenLimits(concurrent=1)),
        ("tenant/acme", TokenLimits(money_per_day=5.0)),
    ]
    registry.take(registry.change_tenant("acme", "core", None, {"concurrent": 2}).change)
    assert Accounts.of(registry.snapshot()).limits(account)[2] == ("team/acme/core", TokenLimits(concurrent=2))
    assert accounts.weights == {b"acme": 3.0}
    with pytest.raises(ValueError, match="a tenant's"):
        registry.change_tenant("acme", "core", 2, {})


def test_a_change_is_a_picture_of_its_own() -> None:
    """Who holds the one before is not disturbed."""
    registry = Registry(Snapshot())
    _id, secret = made(registry)
    before = NOBODY.changed(registry.snapshot())
    one = registry.create(0.0, "other", "", {})
    after = before.changed(one.change)
    assert before.find(one.secret.encode()) is None
    assert after.find(one.secret.encode()) is not None
    assert after.find(secret.encode()) is before.find(secret.encode())
    assert not NOBODY.is_on
    assert before.is_on
    assert set(after.tenants) == {"acme", "other"}
    assert after.changed(Snapshot((), (Tenant("x"),), (Team("x", "y"),))).find(secret.encode()) is None, "whole"


def test_a_tenant_that_is_gone() -> None:
    """A worker knows neither it nor its keys any more, and forgets their limits; others stay."""
    registry = Registry(Snapshot())
    key_id, secret = made(registry)
    other = registry.create(0.0, "other", "core", {})
    registry.take(other.change)
    registry.take(registry.change_tenant("acme", "core", None, {"requests_per_minute": 3}).change)
    holder = AccountsHolder()
    limited: dict[str, TokenLimits] = {}
    holder.on_limits = limited.__setitem__
    holder.hear(AccountsTold(0, registry.snapshot()))
    one = registry.delete_tenant(0.0, "acme", "", True)
    registry.take(one.change)
    told = decode_to_worker(encode_message(AccountsTold(1, one.change)))
    assert isinstance(told, AccountsTold)
    holder.hear(told)
    assert holder.current.find(secret.encode()) is None
    assert holder.current.find(other.secret.encode()) is not None
    assert limited == dict.fromkeys((f"key/{key_id}", "team/acme/core", "tenant/acme"), TokenLimits())
    assert Accounts.of(registry.snapshot()).tenants.keys() == holder.current.tenants.keys() == {"other"}
    assert holder.current.teams.keys() == {"team/other/core"}
    assert registry.team_of_key[key_id] == "core", "what it has used may still come"


def test_a_worker_hears_and_tells() -> None:
    """Through the messages' own encoding."""
    registry = Registry(Snapshot())
    _id, secret = made(registry)
    holder = AccountsHolder()
    sent: list[Message] = []
    holder.send = sent.append

    def hear(message: Message) -> None:
        decoded = decode_to_worker(encode_message(message))
        assert isinstance(decoded, AccountsTold | UsageTaken)
        holder.hear(decoded)

    hear(AccountsTold(0, registry.snapshot(), Spent("2026-11-26", {"tenant/acme": 5}, {"tenant/acme": 7})))
    assert holder.tenant_of(secret.encode()) == b"acme"
    assert holder.tenant_of(b"x") == b""
    assert (holder.spent("tenant/acme", per_month=False), holder.spent("tenant/acme", per_month=True)) == (5, 7)
    spent: list[tuple[str, int, int]] = []
    holder.on_spent = lambda *one: spent.append(one)
    hear(AccountsTold(0, None, Spent("2026-11-26", {"tenant/acme": 6}, {"tenant/acme": 8, "key/l": 4}, is_whole=False)))
    assert not spent, "who has no budget"
    hear(AccountsTold(1, registry.change_tenant("acme", "", None, {"money_per_day": 1.0}).change))
    assert spent == [("tenant/acme", 6, 8)]
    assert holder.spent("tenant/acme", per_month=False) == 6
    costs = {"model/m": 3, "target/p/m": 4, "model/n": 5}
    hear(AccountsTold(1, None, Spent("2026-11-26", costs, costs, is_whole=False)))
    holder.has_budgets(["model/m", "target/p/m", "target/p/unused"])
    assert sorted(spent[1:]) == [("model/m", 3, 3), ("target/p/m", 4, 4)]
    hear(AccountsTold(1, None, Spent("2026-11-26", {"model/m": 9}, {"model/m": 9}, is_whole=False)))
    assert spent[3:] == [("model/m", 9, 9)]
    assert holder.current.find(secret.encode()) is not None
    holder.usage.record("acme", "k", "m", "t", Usage(1, 1), 1, 200, 0.1, 0.1)
    holder.tick(1.0, 1e9)
    holder.usage.record("acme", "k", "m", "t", Usage(1, 1), 1, 200, 0.1, 0.1)
    holder.tick(3.0, 1e9)
    assert len(sent) == 1
    hear(UsageTaken(1))
    holder.finish()
    assert [one.number for one in sent if isinstance(one, UsageTold)] == [1, 2]
    holder.finish()
    last = decode_from_worker(encode_message(sent[-1]))
    assert isinstance(last, UsageTold)
    assert (last.number, last.mark, len(last.entries)) == (2, holder.usage.mark, 1), "once more: it was not taken"
    holder.configure(1.0, log_prompts=True)
    holder.usage.converse("r", "acme", "k", "m", "hello", "hi")
    holder.finish()
    last = decode_from_worker(encode_message(sent[-1]))
    assert isinstance(last, UsageTold)
    assert [(one.request, one.prompt, one.answer) for one in last.conversations] == [("r", "hello", "hi")]


def test_nothing_secret_is_shown() -> None:
    """Neither by a message nor by what holds one."""
    registry = Registry(Snapshot())
    one = registry.create(0.0, "acme", "", {})
    told = AccountsTold(1, one.change)
    for thing in (one, one.account, told, [told], registry.snapshot()):
        assert one.secret not in repr(thing)
        assert repr(digest_of(one.secret.encode())) not in repr(thing)


def test_a_worker_cannot_spoil_the_sums() -> None:
    """What it says is bounded where it is read."""
    for number in (-1, 10**12 + 1):
        entry = Entry(0.0, "a", "k", "m", "t", number, 0, 0, 0, 0, 0, 200, 0.0, 0.0)
        with pytest.raises(msgspec.ValidationError):
            decode_from_worker(encode_message(UsageTold("m", 1, (entry,))))


def test_keys_differ() -> None:
    """Ids are never given twice, and an id is found within its key."""
    registry = Registry(Snapshot())
    keys = [made(registry) for _ in range(500)]
    assert len(dict(keys)) == len({secret for _id, secret in keys}) == 500
    for key_id, secret in keys:
        assert id_of(secret) == key_id == id_of(key_id)
        assert registry.account(secret).id == key_id
    with pytest.raises(NoSuch):
        registry.account("nobody")


@given(st.binary(max_size=80))
def test_strangers_are_not_remembered(secret: bytes) -> None:
    """Whatever they send."""
    assert NOBODY.find(secret) is None
    assert not NOBODY._recent
