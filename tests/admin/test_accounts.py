"""Commands of accounts, on a store without a supervisor."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgeq.admin.command import Answer, Found
from edgeq.admin.find import find_text
from edgeq.cli.store_control import StoreControl, answer
from edgeq.config.scarce import Offered
from edgeq.llm.account import Entry
from edgeq.llm.store_io import Store
from edgeq.llm.sums import day_of
from tests.admin.test_commands import run
from tests.support.fake_control import FakeControl


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "s"
    Store(str(path)).close()
    return str(path)


def ask(store: str, words: str) -> Any:
    """The body of an answer that went well."""
    found = said(store, words)
    assert found.status == 200, found.body
    return found.body


def said(store: str, words: str) -> Answer:
    found = find_text(words)
    assert isinstance(found, Found), found
    return answer(store, found.command, dict(found.arguments))


def test_the_life_of_a_key(store: str) -> None:
    """Created, changed in part, listed, revoked."""
    made = ask(
        store,
        "keys create --tenant acme --team core --name 'a b' --models gpt-*,o3 --rpm 5 --per-day 1.5 --expires never",
    )
    assert made["ok"]
    told = ask(store, f"keys set {made['id']} --tpm 7 --rpm 0 --expires 2030-01-31")
    assert told["limits"] == {"tokens_per_minute": 7, "money_per_day": 1.5}
    team = ask(store, "tenants set acme --team core --rpm 9")
    assert team["limits"] == {"requests_per_minute": 9}
    assert ask(store, "tenants set acme --weight 2")["limits"] == {}
    assert f"but so is called: {made['id']} of acme" in json.dumps(said(store, "keys revoke 'a b'").body)
    ask(store, "keys create --tenant other")
    shown = ask(store, f"keys show {made['id']}")
    assert shown["limits"] == {"tokens_per_minute": 7, "money_per_day": 1.5}
    assert shown["models"] == ["gpt-*", "o3"]
    assert shown["expires"] == "2030-01-31T00:00:00+00:00"
    assert made["key"] not in json.dumps(shown)
    listed = find_text("keys list")
    assert isinstance(listed, Found)
    head, row, _ = listed.command.text(ask(store, "keys list"), 0).splitlines()
    assert row[head.index("expires") :].startswith("2030-01-31")
    assert [one["id"] for one in ask(store, "keys list acme")] == [made["id"]]
    assert len(ask(store, "keys list")) == 2
    assert "may use all" in ask(store, f"keys set {made['id']} --models '' --team ''")["note"]
    assert ask(store, f"keys show {made['id']}")["models"] == []
    ask(store, f"keys revoke {made['id']}")
    assert ask(store, f"keys show {made['id']}")["state"] == "revoked"
    assert said(store, f"keys rotate {made['id']}").status == 422
    assert ask(store, f"keys revoke {made['id']}")["note"] == "it was revoked before"
    tenants = ask(store, "tenants")
    assert [(one["tenant"], one["team"], one["keys"]) for one in tenants] == [
        ("acme", "", 0),
        ("acme", "core", 0),
        ("other", "", 1),
    ]


def test_where_no_budget_holds(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the models that a key may use, or of all: what has no price."""
    models = {"small": Offered("small", ["openai/mini"]), "large": Offered("large"), "free": Offered("free")}
    monkeypatch.setattr(StoreControl, "models", models)
    told = "without a price nothing is spent, and no budget holds, at openai/mini: edgeq check"
    made = ask(store, "keys create --tenant acme --per-day 0.00001")
    assert made["warning"] == told
    assert ask(store, "keys create --tenant acme --per-month 5 --models sm*,large")["warning"] == told
    assert "warning" not in ask(store, "keys create --tenant acme --per-day 5 --models large")
    assert "warning" not in ask(store, "keys create --tenant acme --rpm 5 --per-day 0")
    assert "warning" not in ask(store, f"keys set {made['id']} --rpm 5 --models large,free")
    assert "warning" not in ask(store, f"keys set {made['id']} --per-day 2")
    assert ask(store, "tenants set acme --per-day 2")["warning"] == told


def test_a_budget_that_is_less_than_one_request(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the models that the key may use, or of all: who names no max_tokens is refused at first."""
    small_one = Offered("small", (), 2_461, 4096)
    models = {"small": small_one, "smaller": small_one, "large": Offered("large", (), 90_000, 9000)}
    monkeypatch.setattr(StoreControl, "models", models)
    told = "0.001 is less than one request may reserve that names no max_tokens, until it is known how long answers are"
    small = f"{told}: small (0.002461, of 4096 tokens)"
    made = ask(store, "keys create --tenant acme --models sm* --per-day 0.001 --per-month 5")
    assert made["warning"] == small
    assert "warning" not in ask(store, f"keys set {made['id']} --per-day 0.003")
    assert ask(store, f"keys set {made['id']} --per-day 0.001")["warning"] == small
    assert ask(store, "tenants set acme --per-day 0.001")["warning"] == f"{small}, large (0.09, of 9000 tokens)"
    assert "warning" not in ask(store, "tenants set acme --rpm 5")


def test_a_key_for_no_model(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said so, and is no slip."""
    monkeypatch.setattr(StoreControl, "models", {"small": Offered("small")})
    made = ask(store, "keys create --tenant acme --models none")
    assert "warning" not in made
    assert made["note"].endswith("; the key may use no model")
    assert "there is no model non:" in ask(store, f"keys set {made['id']} --models non")["warning"]


def test_a_key_that_could_never_be_used_is_not_made(store: str) -> None:
    """A day ends a key when it begins, so today is too late. One that is in use may be ended so."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    refused = said(store, f"keys create --tenant acme --expires {today}")
    assert refused.status == 422
    assert "it has begun" in json.dumps(refused.body)
    assert ask(store, "keys list") == []
    made = ask(store, "keys create --tenant acme --expires 1d")
    ask(store, f"keys set {made['id']} --expires {today}")
    assert ask(store, f"keys show {made['id']}")["state"] == "expired"


def test_tenants_and_teams(store: str) -> None:
    """Limits and weight, each left as it is where it is not said."""
    ask(store, "tenants set acme --weight 3 --per-month 100")
    ask(store, "tenants set acme --otpm 10")
    ask(store, "tenants set acme --team core --concurrent 2")
    acme, core = ask(store, "tenants")
    assert acme["weight"] == 3
    assert acme["limits"] == {"output_tokens_per_minute": 10, "money_per_month": 100.0}
    assert core["limits"] == {"concurrent": 2}
    assert said(store, "tenants set acme --team core --weight 2").status == 422
    assert ask(store, "tenants list") == [acme, core]
    assert ask(store, "tenants list other") == ask(store, "tenants other") == []


def test_a_tenant_is_deleted(store: str) -> None:
    """With its teams and keys, of which none can be used, unless that is said; in the store, too. Its usage stays."""
    ids = [ask(store, f"keys create --tenant acme {more}")["id"] for more in ("--team a", "--team b", "")]
    ask(store, "keys create --tenant other --team a")
    opened = Store(store)
    entry = Entry(1_795_700_000.0, "acme", ids[0], "m", "t", 10, 5, 0, 0, 0, 21, 200, 1.0, 0.1)
    opened.add("w", 1, [entry], {ids[0]: "a"}, 1_795_700_000.0, 0.0)
    opened.close()
    refused = said(store, "tenants delete acme --team a")
    assert (refused.status, refused.body) == (
        422,
        {"ok": False, "error": f"1 of its keys can be used ({ids[0]}): revoke them first, or say --with-keys"},
    )
    ask(store, f"keys revoke {ids[0]}")
    assert ask(store, "tenants delete acme --team a")["note"].startswith("deleted keys: 1, teams: 1; ")
    assert said(store, "tenants delete acme").status == 422
    assert ask(store, "tenants delete acme --with-keys")["note"].startswith("deleted keys: 2, teams: 1, tenants: 1; ")
    assert [(one["tenant"], one["team"]) for one in ask(store, "tenants")] == [("other", ""), ("other", "a")]
    assert [one["tenant"] for one in ask(store, "keys list")] == ["other"]
    assert [one["tenant"] for one in ask(store, "usage")] == ["acme"]
    assert said(store, f"keys show {ids[0]}").status == 404
    for words in ("acme", "other --team b"):
        assert said(store, f"tenants delete {words}").status == 404


def test_a_new_tenant_is_told(store: str) -> None:
    """It is made, as its limits may be there before its first key; whoever has mistyped a name sees it."""
    assert ask(store, "tenants set acme --rpm 3")["note"] == "tenant acme is new"
    assert "note" not in ask(store, "tenants set acme --rpm 4")
    assert ask(store, "tenants set acmee --rpm 4")["note"] == "tenant acmee is new (did you mean acme?)"
    assert ask(store, "tenants set acme --team core --rpm 3")["note"] == "team core of acme is new"
    assert "note" not in ask(store, "tenants set acme --team core --rpm 4")
    assert ask(store, "tenants set acme --team cor --rpm 4")["note"] == "team cor of acme is new (did you mean core?)"


def test_tables_fit_80_columns(store: str) -> None:
    """However much there is in them: limits are called as they are typed, what nobody has is no column, and what can be
    missed goes where there is no room. The id of a key is whole."""

    def table(words: str, width: int = 80) -> list[str]:
        found = find_text(words)
        assert isinstance(found, Found)
        return found.command.text(ask(store, words), width).splitlines()

    made = ask(store, "keys create --tenant acme --rpm 5 --tpm 20000 --per-day 1.5")
    assert [one.split() for one in table("keys list", 0)] == [
        ["id", "tenant", "state", "limits", "spent/d", "spent/m"],
        [made["id"], "acme", "active", "rpm=5", "tpm=20000", "per-day=1.5", "0", "0"],
    ]
    long = "a-very-long-name-of-somebody"
    more = "--expires 2030-01-31 --models gpt-4o,gpt-4o-mini,o3 --rpm 60 --tpm 20000 --per-day 5"
    other = ask(store, f"keys create --tenant {long} --team {long} --name '{long} of all' {more}")
    opened = Store(store)
    at, many = 1_795_700_000.0, 10**9
    entry = Entry(at, long, other["id"], long, "o/m", many, many, many, many, many, 12_345_678, 200, 1.0, 0.1)
    opened.add("w", 1, [entry], {other["id"]: long}, at, 0.0)
    opened.close()
    for words in ("keys list", "tenants", "usage", "usage --by model,tenant"):
        lines = table(words)
        assert max(map(len, lines)) <= 80, lines
    assert table("keys list")[0].split() == ["id", "tenant", "team", "name", "state", "spent/d", "spent/m"]
    head, *rows = table("keys list", 90)
    assert head.split() == ["id", "tenant", "team", "name", "state", "expires", "spent/d", "spent/m"]
    assert {row.split()[0] for row in rows} == {made["id"], other["id"]}
    assert any("  2030-01-31 " in row for row in rows)
    assert table("keys list", 120)[0].split()[-4:] == ["models", "limits", "spent/d", "spent/m"]
    head, row = table("usage --by model,tenant")
    assert head.split()[:3] == ["model", "tenant", "requests"]
    assert row.split()[-1] == "12.35"


def test_usage_of_keys_has_their_names(store: str) -> None:
    """Beside the id, which says nothing to people; one that is deleted has none."""
    made = ask(store, "keys create --tenant acme --name batch")
    opened = Store(store)
    day = 1_795_700_000.0
    entries = [Entry(day, "acme", key, "m", "t", 10, 5, 0, 0, 0, 1, 200, 1.0, 0.1) for key in (made["id"], "gone")]
    opened.add("w", 1, entries, {}, day, 0.0)
    opened.close()
    assert {one["key"]: one["key_name"] for one in ask(store, "usage --by key")} == {made["id"]: "batch", "gone": ""}
    assert said(store, "usage --by key,model --csv").text.startswith(b"key,key_name,model,requests")


def test_usage(store: str) -> None:
    """Grouped, from a day to another, as records and as CSV."""
    opened = Store(store)
    day = 1_795_700_000.0
    for number, (at, tenant) in enumerate([(day, "a"), (day, "b"), (day - 86400, "a"), (day - 40 * 86400, "a")], 1):
        cost_micro = 21 if tenant == "b" else 1_500_000
        entry = Entry(at, tenant, "k", "m", "t", 10, 5, 0, 0, 0, cost_micro, 200, 1.0, 0.1)
        opened.add("w", number, [entry], {"k": "core"}, day, 0.0)
    opened.close()
    by_tenant = {one["tenant"]: one for one in ask(store, "usage --by tenant")}
    assert (by_tenant["a"]["requests"], by_tenant["a"]["cost"]) == (3, 4.5)
    assert [one["day"] for one in ask(store, f"usage --by day,tenant --since {day_of(day - 86400)}")] == [
        "2026-11-25",
        "2026-11-26",
        "2026-11-26",
    ]
    assert [one["month"] for one in ask(store, "usage --by month,team")] == ["2026-10", "2026-11"]
    assert ask(store, "usage --until 2026-11-01")[0]["requests"] == 1
    assert [one["requests"] for one in ask(store, "usage --by '' --tenant a")] == [3]
    assert ask(store, "usage --tenant nobody") == []
    assert ask(store, "usage --since 2026-12-01") == []
    assert said(store, "usage --by tenant --csv").text.splitlines() == [
        b"tenant,requests,errors,refused,input,output,cached,cache_write,reasoning,cost",
        b"a,3,0,0,30,15,0,0,0,4.5",
        b"b,1,0,0,10,5,0,0,0,0.000021",
    ]
    assert said(store, "usage --by tenant --since 2026-12-01 --csv").text.splitlines() == [
        b"tenant,requests,errors,refused,input,output,cached,cache_write,reasoning,cost"
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("keys create", "--tenant is missing: keys create --tenant TENANT [--team TEAM]"),
        ("keys create --tenant ../x", "tenant: expected at most 64 letters"),
        ("keys create --tenant a --rpm -1", "rpm: expected a whole number"),
        ("keys create --tenant a --per-day nan", "per-day: expected an amount of money"),
        ("keys create --tenant a --expires soon", "expires: expected a duration"),
        ("keys create --tenant a --models 'a b'", "models: expected names of models"),
        ("keys rotate k --grace -5", "grace: expected a duration"),
        ("keys show", "ID is missing"),
        ("keys", "'keys' goes on: keys list, keys show"),
        ("usage --by planet", "by: expected some of day, month"),
        ("usage --by day,day", "by: expected some of day, month"),
        ("usage --since tomorrow", "since: expected a day"),
        ("usage --since 1h", "since: expected a day"),
        ("usage --since 36h", "since: expected a day"),
        ("tenants set a --weight 0", "weight: expected a number from 1"),
    ],
)
def test_wrong_words(words: str, says: str) -> None:
    """Each mistake is named before anything is done."""
    found = find_text(words)
    assert isinstance(found, str)
    assert says in found


def test_refusals(store: str) -> None:
    """Keys that are not there, nothing to set, and a gateway without accounts."""
    assert said(store, "keys show nobody").status == 404
    assert said(store, "keys revoke nobody").status == 404
    assert said(store, "keys set nobody --rpm 1").status == 404
    made = ask(store, "keys create --tenant a")
    assert said(store, f"keys set {made['id']}").status == 422
    none = run("keys list", FakeControl())
    assert none.status == 404
    assert isinstance(none.body, dict)
    assert "no accounts" in none.body["error"]


def explained(control: FakeControl, what: str) -> Any:
    """What is explained instead, or why nothing is."""
    found = run(f"explain {what}", control)
    assert isinstance(found.body, dict)
    return control.explained if found.status == 200 else found.body["error"]


def test_nothing_is_explained_of_callers_that_are_not_there(store: str) -> None:
    """A name with a slip in it is not called well. Where virtual keys do not say who tenants are, any may be one."""
    made = ask(store, "keys create --tenant acme --team core --name web")
    control = FakeControl()
    assert run(f"explain key/{made['id']}", control).status == 404, "nobody has keys here"
    assert run("explain team/acme/core", control).status == 404
    control.accounts = StoreControl(Store(store))  # type: ignore[assignment]
    for what in (f"key/{made['id']}", "team/acme/core", "tenant/acme", "tenant/anybody", "key"):
        assert explained(control, what) == what
    control.tenants_are_listed = True
    for what in (f"eq-{made['id']}", made["key"]):  # as logs of clients have it
        assert explained(control, what) == f"key/{made['id']}"
    assert explained(control, "tenant/acme") == "tenant/acme"
    assert explained(control, "tenant/nobody") == "no resource and no remembered request is called 'tenant/nobody'"
    assert explained(control, "tenant/acne").endswith("'tenant/acne' (did you mean tenant/acme?)")
    assert explained(control, "team/acme/cor").endswith("(did you mean team/acme/core?)")
    assert explained(control, "key/wbe").endswith("'key/wbe' (did you mean key/web?)")
    assert explained(control, "key/nosuch").endswith("'key/nosuch'")


def test_callers_are_explained_by_the_names_that_are_shown(store: str) -> None:
    """That of a key beside its id, and what of a name says enough; what says too little is told."""
    control = FakeControl()
    (web, one, two) = (
        ask(store, f"keys create --tenant acme --name {name} {more}")["id"]
        for name, more in (("web", "--team core"), ("batch", ""), ("batch", "--team core"))
    )
    control.accounts = StoreControl(Store(store))  # type: ignore[assignment]
    assert explained(control, "key/web") == f"key/{web}"
    assert explained(control, "web") == f"key/{web}"
    assert explained(control, web) == f"key/{web}"
    assert explained(control, "team/core") == explained(control, "core") == "team/acme/core"
    assert explained(control, "acme") == "tenant/acme"
    assert explained(control, "key/batch") == f"'key/batch' may be {', '.join(sorted((f'key/{one}', f'key/{two}')))}"
