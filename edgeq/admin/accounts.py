"""The commands of accounts: keys, tenants, usage. Rows of the table in `commands.py`."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias

from edgeq.admin.arguments import is_flag
from edgeq.admin.command import Answer, Argument, Arguments, Command, Run
from edgeq.admin.control import Client, Control
from edgeq.admin.render import Column, Record
from edgeq.config.findings import did_you_mean
from edgeq.config.scarce import Offered
from edgeq.config.schema_llm import SHORT_LIMITS
from edgeq.config.units import money, parse_duration
from edgeq.llm import meter
from edgeq.llm.account import key_subject, means, team_subject, tenant_subject
from edgeq.llm.registry import Made, NoSuch, Registry, key_told, limits_told
from edgeq.llm.sums import KEY, TOLD, Spending, day_of

Make: TypeAlias = Callable[[Registry, float], Made]
"""From what there is and the time (seconds since 1970) to what shall become of it. Raises NoSuch, ValueError."""

ACCOUNTS: Final = "accounts"
"""What `explain` calls the store."""
_NONE: Final = "there are no accounts: the configuration has no table [accounts]"
_KEY: Final = meter.KINDS[meter.KEY]
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MODELS: Final = re.compile(r"[!-+\--~]{1,128}(?:,[!-+\--~]{1,128})*", re.ASCII)
_GROUPS: Final = (*KEY[:1], "month", *KEY[1:])
_MAX_LIMIT: Final = 10**15
_MAX_NAMES: Final = 8
"""So many targets are named."""
_NO_MODEL: Final = "none"
"""A name that no model has, for keys that may use none."""
_LIMITS: Final = {
    "rpm": (SHORT_LIMITS["rpm"], "requests in a minute"),
    "tpm": (SHORT_LIMITS["tpm"], "tokens in a minute, input and output"),
    "itpm": (SHORT_LIMITS["itpm"], "input tokens in a minute"),
    "otpm": (SHORT_LIMITS["otpm"], "output tokens in a minute"),
    "concurrent": (SHORT_LIMITS["concurrent"], "requests in flight"),
    "per-day": (SHORT_LIMITS["per-day"], "money in a day of UTC"),
    "per-month": (SHORT_LIMITS["per-month"], "money in a month of UTC"),
}


class AccountsControl(Protocol):
    """What these commands act on: the supervisor, or a store without one."""

    registry: Registry
    spending: Spending
    models: Mapping[str, Offered]
    """Of those that there are, by name; none: nobody knows."""

    async def change(self, make: Make) -> tuple[Made, Sequence[int]]:
        """Write a change, and tell the workers. Returns it, and the slots of workers that do not know of it yet.

        Raises what `make` raises; StoreError: nothing was changed.
        """

    def trouble(self) -> str:
        """What is wrong with the store, so that usage waits; empty: nothing is."""

    async def usage(self, by: Sequence[str], since: str, until: str, tenant: str) -> list[dict[str, Any]]:
        """`Store.usage`. Raises StoreError."""


Act: TypeAlias = Callable[[AccountsControl, Arguments], Awaitable[Answer]]


def _run(act: Act) -> Run:
    """The handler of a command; what goes wrong is told."""

    async def run(control: Control, arguments: Arguments, _client: Client) -> Answer:
        from edgeq.llm.store_io import StoreError

        accounts = control.accounts
        if accounts is None:
            return _error(404, _NONE)
        try:
            return await act(accounts, arguments)
        except NoSuch as error:
            return _error(404, str(error))
        except ValueError as error:
            return _error(422, str(error))
        except StoreError as error:
            return _error(503, f"nothing was changed: {error}")

    return run


def _error(status: int, text: str) -> Answer:
    return Answer(status, {"ok": False, "error": text})


def callers(accounts: AccountsControl | None) -> dict[str, list[str]]:
    """Tenants, teams and keys, as resources, by all names that are printed of them: a key's own one, too."""
    if accounts is None:
        return {}
    registry = accounts.registry
    subjects = [
        *map(tenant_subject, registry.tenants),
        *(team_subject(*one) for one in registry.teams),
        *map(key_subject, registry.accounts),
    ]
    found = {one: [one] for one in subjects}
    for key in registry.accounts.values():
        if key.name and key.name not in registry.accounts:
            found.setdefault(f"{_KEY}/{key.name}", []).append(key_subject(key.id))
    return found


def with_owners(records: Sequence[Record], accounts: AccountsControl | None) -> Sequence[Record]:
    """Meters, those of keys with whose they are: an id says nothing to people. Others as they are."""
    if accounts is None or not any(one.get("meter") == _KEY for one in records):
        return records
    keys = accounts.registry.accounts
    told: list[Record] = []
    for one in records:
        key = keys.get(str(one["name"])) if one.get("meter") == _KEY else None
        told.append(one if key is None else {**one, "tenant": key.tenant, "key_name": key.name})
    return told


async def _changed(
    accounts: AccountsControl,
    make: Make,
    secret_note: str = "",
    note: str = "",
    warning: str = "",
    tells_limits: bool = False,
) -> Answer:
    """`tells_limits`: those that hold now, whichever of them were said."""
    made, behind = await accounts.change(make)
    said: dict[str, Any] = {"ok": True}
    if made.account is not None:
        said["id"] = made.account.id
    if tells_limits:
        subjects = (made.account,) if made.account is not None else made.change.teams or made.change.tenants
        said["limits"] = limits_told(subjects[0].limits)
    if made.secret:
        said["key"] = made.secret
        once = f"this is the only time that the key is shown{secret_note}"
        note = f"{once}; {note}" if note else once
    if note:
        said["note"] = note
    if warning:
        said["warning"] = warning
    if behind:
        said["behind"] = list(behind)
    return Answer(200, said)


async def _create(accounts: AccountsControl, arguments: Arguments) -> Answer:
    from edgeq.config.schema_llm import TokenLimits

    limits = TokenLimits(**_limits(arguments))
    now_s = time.time()
    if 0.0 < _instant(arguments.get("expires", "never"), now_s) <= now_s:
        raise ValueError("expires: a key ends when that day begins, and it has begun")

    def make(registry: Registry, now: float) -> Made:
        changes = {**_attributes(arguments, now), "limits": limits}
        changes.pop("team", None)
        return registry.create(now, arguments["tenant"], arguments.get("team", ""), changes)

    return await _changed(
        accounts, make, note=_all_or_none(accounts, arguments), warning=_of_no_use(accounts, arguments, ())
    )


async def _set(accounts: AccountsControl, arguments: Arguments) -> Answer:
    limits = _limits(arguments)
    if len(arguments) < 2:
        raise ValueError("what shall be set? name an option")

    def make(registry: Registry, now: float) -> Made:
        return registry.change(arguments["id"], _attributes(arguments, now), limits)

    warning = _of_no_use(accounts, arguments, accounts.registry.account(arguments["id"]).models)
    note = _all_or_none(accounts, arguments)
    return await _changed(accounts, make, note=note, warning=warning, tells_limits=True)


async def _rotate(accounts: AccountsControl, arguments: Arguments) -> Answer:
    grace_s = _seconds(arguments.get("grace", "0"))
    note = f"; the one before works for {arguments['grace']} more" if grace_s else "; the one before has ended"
    return await _changed(accounts, lambda registry, now: registry.rotate(now, arguments["id"], grace_s), note)


async def _revoke(accounts: AccountsControl, arguments: Arguments) -> Answer:
    note = "it was revoked before" if accounts.registry.account(arguments["id"]).revoked else ""
    return await _changed(accounts, lambda registry, now: registry.revoke(now, arguments["id"]), note=note)


async def _list(accounts: AccountsControl, arguments: Arguments) -> Answer:
    return Answer(200, accounts.registry.keys_told(time.time(), accounts.spending, arguments.get("match", "")))


async def _show(accounts: AccountsControl, arguments: Arguments) -> Answer:
    account = accounts.registry.account(arguments["id"])
    return Answer(200, key_told(account, time.time(), accounts.spending))


async def _tenants(accounts: AccountsControl, arguments: Arguments) -> Answer:
    return Answer(200, accounts.registry.tenants_told(accounts.spending, arguments.get("match", "")))


async def _set_tenant(accounts: AccountsControl, arguments: Arguments) -> Answer:
    limits = _limits(arguments)
    weight = int(arguments["weight"]) if "weight" in arguments else None
    tenant = arguments["tenant"]
    team = arguments.get("team", "")
    return await _changed(
        accounts,
        lambda registry, _now: registry.change_tenant(tenant, team, weight, limits),
        note=_new_one(accounts.registry, tenant, team),
        warning=_of_budget(accounts, arguments, ()),
        tells_limits=True,
    )


async def _delete_tenant(accounts: AccountsControl, arguments: Arguments) -> Answer:
    tenant, team = arguments["tenant"], arguments.get("team", "")
    with_keys = arguments.get("with-keys", "false") == "true"
    gone: list[str] = []

    def make(registry: Registry, now: float) -> Made:
        made = registry.delete_tenant(now, tenant, team, with_keys)
        gone.extend(made.change.gone)
        return made

    answer = await _changed(accounts, make)
    if isinstance(answer.body, dict):
        kinds = {kind: sum(one.startswith(f"{kind}/") for one in gone) for kind in ("key", "team", "tenant")}
        told = ", ".join(f"{kind}s: {count}" for kind, count in kinds.items() if count)
        answer.body["note"] = f"deleted {told}; what was used stays in edgeq usage, and counts for whoever has the name"
    return answer


def _all_or_none(accounts: AccountsControl, arguments: Arguments) -> str:
    """What is to be told of names that there are none of: perhaps a variable is empty."""
    models = arguments.get("models")
    if models == "":
        return "no models are named: the key may use all of them"
    return "the key may use no model" if models == _NO_MODEL and models not in accounts.models else ""


def _of_no_use(accounts: AccountsControl, arguments: Arguments, models: Sequence[str]) -> str:
    """What is to be told of what a key is given; `models` are those that it has already."""
    told = (_unknown_models(accounts, arguments), _of_budget(accounts, arguments, models))
    return "; ".join(one for one in told if one)


def _of_budget(accounts: AccountsControl, arguments: Arguments, models: Sequence[str]) -> str:
    """What is to be told of a budget: where it does not hold, and where it is too small. `models`: names that are
    meant; none: all."""
    budgets = [value for field, value in _limits(arguments).items() if field.startswith("money") and value]
    if not budgets:
        return ""
    if "models" in arguments:
        models = [one for one in arguments["models"].split(",") if one]
    targets: dict[str, None] = {}
    dear: dict[str, str] = {}
    for model, one in accounts.models.items():
        if not models or any(means(name, model) for name in models):
            targets.update(dict.fromkeys(one.unpriced))
            if one.least_micro > min(budgets) * 1e6:
                dear[one.model] = f"{one.model} ({money(one.least_micro)}, of {one.tokens} tokens)"
    told = []
    if targets:
        told.append(f"without a price nothing is spent, and no budget holds, at {_some(list(targets))}: edgeq check")
    if dear:
        told.append(
            f"{min(budgets):g} is less than one request may reserve that names no max_tokens, until it is known how"
            f" long answers are: {_some(list(dear.values()))}"
        )
    return "; ".join(told)


def _some(names: Sequence[str]) -> str:
    return ", ".join((*names[:_MAX_NAMES], *(["..."] if len(names) > _MAX_NAMES else [])))


def _unknown_models(accounts: AccountsControl, arguments: Arguments) -> str:
    """What is to be told of models that there are not, or not yet: perhaps a name was mistyped."""
    known = list(accounts.models)
    named = [one for one in arguments.get("models", "").split(",") if one and known]
    unknown = [one for one in named if one != _NO_MODEL and not any(means(one, model) for model in known)]
    told = [f"there is no model {one}{did_you_mean(one, known)}" for one in unknown]
    return f"{'; '.join(told)}: the key has no use of that until there is one" if told else ""


def _new_one(registry: Registry, tenant: str, team: str) -> str:
    """What is to be told if there is no such tenant or team yet: perhaps a name was mistyped."""
    if tenant not in registry.tenants:
        return f"tenant {tenant} is new{did_you_mean(tenant, list(registry.tenants))}"
    teams = [name for whose, name in registry.teams if whose == tenant]
    return f"team {team} of {tenant} is new{did_you_mean(team, teams)}" if team and team not in teams else ""


async def _usage(accounts: AccountsControl, arguments: Arguments) -> Answer:
    by = [one for one in arguments.get("by", "tenant,model").split(",") if one]
    now = time.time()
    since, until = _day(arguments.get("since", ""), now), _day(arguments.get("until", ""), now)
    rows = await accounts.usage(by, since, until, arguments.get("tenant", ""))
    if "key" in by:  # an id says nothing to people
        place = by.index("key") + 1
        by.insert(place, "key_name")
        rows = [_named(row, place, accounts.registry) for row in rows]
    is_csv = arguments.get("csv", "false") == "true"
    for row in rows:
        micro = row.pop("cost_micro")
        row["cost"] = money(micro) if is_csv else micro / 1e6
    return Answer(200, (), _csv(rows, by), "text/csv") if is_csv else Answer(200, rows)


def _named(row: dict[str, Any], place: int, registry: Registry) -> dict[str, Any]:
    """With the key's name, at a place; empty if it has none, or is deleted."""
    key = registry.accounts.get(row["key"])
    told = list(row.items())
    return dict([*told[:place], ("key_name", key.name if key is not None else ""), *told[place:]])


def _csv(rows: Sequence[dict[str, Any]], by: Sequence[str]) -> bytes:
    text = io.StringIO()
    names = [*dict.fromkeys(by), *TOLD[:-1], "cost"]
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


# -- arguments --------------------------------------------------------------------------------------------------------


def _limits(arguments: Arguments) -> dict[str, Any]:
    """Those that are said, as TokenLimits has them."""
    said = {field: arguments[option] for option, (field, _help) in _LIMITS.items() if option in arguments}
    return {field: float(text) if field.startswith("money") else int(text) for field, text in said.items()}


def _attributes(arguments: Arguments, now: float) -> dict[str, Any]:
    """Of Account."""
    found: dict[str, Any] = {key: arguments[key] for key in ("name", "team") if key in arguments}
    if "models" in arguments:
        found["models"] = tuple(one for one in arguments["models"].split(",") if one)
    if "expires" in arguments:
        found["expires"] = _instant(arguments["expires"], now)
    return found


def _seconds(text: str) -> float:
    return float(parse_duration(float(text) if text.isascii() and text.isdigit() else text))


def _instant(text: str, now: float) -> float:
    """Seconds since 1970, 0 for never. Raises ValueError."""
    if text in ("never", "0"):
        return 0.0
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return now + _seconds(text)


def _day(text: str, now: float) -> str:
    """A day of UTC; empty for none. Raises ValueError."""
    if not text:
        return ""
    if text in ("today", "yesterday"):
        return day_of(now - (86400 if text == "yesterday" else 0))
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).strftime("%Y-%m-%d")
    except ValueError:
        ago_s = _seconds(text)
        if ago_s % 86400:
            raise ValueError("usage is kept by days") from None
        return (datetime.fromtimestamp(now, UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%d")


def _checked(parse: Callable[[str], Any], wanted: str) -> Callable[[str], str]:
    """Says what is wanted if `parse` raises ValueError."""

    def check(text: str) -> str:
        try:
            parse(text)
        except (ValueError, OverflowError):
            return wanted
        return ""

    return check


def _is_name(text: str) -> str:
    return "" if _NAME.fullmatch(text) else "at most 64 letters, digits, dots, dashes and underscores"


def _is_title(text: str) -> str:
    return "" if len(text) <= 128 and text.isprintable() else "at most 128 printable characters"


def _is_models(text: str) -> str:
    return "" if not text or _MODELS.fullmatch(text) else 'names of models, "gpt-*" for several, with commas between'


def _is_count(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and int(text) <= _MAX_LIMIT else "a whole number; 0 for no limit"


def _is_money(text: str) -> str:
    wanted = "an amount of money such as 12.50; 0 for no limit"
    if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", text, re.ASCII):
        return wanted
    return ""


def _is_weight(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 1000 else "a number from 1 to 1000"


def _is_by(text: str) -> str:
    groups = [one for one in text.split(",") if one]
    known = len(set(groups)) == len(groups) and all(one in _GROUPS for one in groups)
    return "" if known else f"some of {', '.join(_GROUPS)}, with commas between"


_is_instant: Final = _checked(lambda text: _instant(text, 0.0), 'a duration ("30d"), a day ("2027-01-31"), or "never"')
_is_grace: Final = _checked(_seconds, 'a duration such as "1h"')
_is_day: Final = _checked(lambda text: _day(text, 1e9), 'a day ("2026-11-26", "today") or whole days ago ("7d")')

_LIMIT_OPTIONS: Final = tuple(
    Argument(option, f"{text}; 0: no limit", _is_money if field.startswith("money") else _is_count)
    for option, (field, text) in _LIMITS.items()
)
_IN_SHORT: Final = tuple((field, option) for option, (field, _help) in _LIMITS.items())
_SPENT: Final = (Column("spent_day", "spent/d", "money"), Column("spent_month", "spent/m", "money"))
_OF_KEY: Final = (
    Argument("name", "for people", _is_title),
    Argument("models", 'names of models that it may use, "gpt-*" for several; empty: all; none: no model', _is_models),
    *_LIMIT_OPTIONS,
    Argument("expires", 'a duration ("30d"), a day, or "never"', _is_instant),
)
_TEAM: Final = Argument("team", "a part of the tenant", lambda text: _is_name(text) if text else "")
_ID: Final = (Argument("id", "of the key: the part after eq-", required=True),)
_N: Final = "count"

COMMANDS: Final = (
    Command(
        "keys list",
        "GET",
        "/v1/keys",
        "viewer",
        "virtual keys, with what they have spent",
        _run(_list),
        (Argument("match", "only those that have this text in id, tenant, team or name"),),
        (
            Column("id"),
            Column("tenant", gives_way=True),
            Column("team", gives_way=True, is_rare=True),
            Column("name", gives_way=True, is_rare=True),
            Column("state"),
            Column("expires", "", "day", is_rare=True, can_go=True),
            Column("models", gives_way=True, is_rare=True, can_go=True),
            Column("limits", gives_way=True, is_rare=True, can_go=True, short=_IN_SHORT),
            *_SPENT,
        ),
        "keys list acme",
    ),
    Command(
        "keys show",
        "GET",
        "/v1/keys/show",
        "viewer",
        "one virtual key",
        _run(_show),
        _ID,
        (),
        "keys show k3v8n2pq",
    ),
    Command(
        "keys create",
        "POST",
        "/v1/keys",
        "admin",
        "make a virtual key, and a tenant or team that is new; its secret is shown this once, only its digest is kept",
        _run(_create),
        (),
        (),
        "keys create --tenant acme --name batch --models 'gpt-*' --rpm 600 --per-day 50 --expires 30d",
        (Argument("tenant", "who pays", _is_name, required=True), _TEAM, *_OF_KEY),
    ),
    Command(
        "keys set",
        "PUT",
        "/v1/keys",
        "admin",
        "change a virtual key; what is not said stays as it is",
        _run(_set),
        _ID,
        (),
        "keys set k3v8n2pq --tpm 200000",
        (_TEAM, *_OF_KEY),
    ),
    Command(
        "keys rotate",
        "POST",
        "/v1/keys/rotate",
        "admin",
        "give a virtual key a new secret",
        _run(_rotate),
        _ID,
        (),
        "keys rotate k3v8n2pq --grace 1h",
        (Argument("grace", "for how long the secret that it had works, too", _is_grace),),
    ),
    Command(
        "keys revoke",
        "DELETE",
        "/v1/keys",
        "admin",
        "have a virtual key refused from now on; that cannot be taken back",
        _run(_revoke),
        _ID,
        (),
        "keys revoke k3v8n2pq",
    ),
    Command(
        "tenants list",
        "GET",
        "/v1/accounts/tenants",
        "viewer",
        "tenants of virtual keys and their teams, with limits and what they have spent",
        _run(_tenants),
        (Argument("match", "only those that have this text in their name"),),
        (
            Column("tenant", gives_way=True),
            Column("team", gives_way=True, is_rare=True),
            Column("keys", "", _N),
            Column("weight", "", _N),
            Column("limits", gives_way=True, is_rare=True, short=_IN_SHORT),
            *_SPENT,
        ),
        "tenants list acme",
        also="tenants",
    ),
    Command(
        "tenants set",
        "PUT",
        "/v1/accounts/tenants",
        "admin",
        "give a tenant, or one of its teams, limits for all of its keys together; or a weight in fair queues; one "
        "that is new is made, and the answer says so",
        _run(_set_tenant),
        (Argument("tenant", "its name", _is_name, required=True),),
        (),
        "tenants set acme --per-month 2000 --weight 3",
        (_TEAM, Argument("weight", "share of a queue; others have 1", _is_weight), *_LIMIT_OPTIONS),
    ),
    Command(
        "tenants delete",
        "DELETE",
        "/v1/accounts/tenants",
        "admin",
        "delete a tenant with its teams, or one of these, and with the keys that they had, which nobody knows any "
        "more; refused while one of these can be used. What was used stays in `edgeq usage`",
        _run(_delete_tenant),
        (Argument("tenant", "its name", _is_name, required=True),),
        (),
        "tenants delete acme --team research",
        (_TEAM, Argument("with-keys", "also keys that can be used", is_flag, is_flag=True)),
    ),
    Command(
        "usage",
        "GET",
        "/v1/usage",
        "viewer",
        "requests, tokens and cost, as stored (accounts.flush late at most); errors are those of the requests that have"
        " failed, refused (no part of them) those that no target was asked for: by a limit, or for want of room",
        _run(_usage),
        (),
        (
            *(Column(one, gives_way=True) for one in _GROUPS[: _GROUPS.index("key") + 1]),
            Column("key_name", gives_way=True, is_rare=True),
            *(Column(one, gives_way=True) for one in _GROUPS[_GROUPS.index("key") + 1 :]),
            *(Column(one, "", _N) for one in ("requests", "errors", "refused", "input", "output")),
            *(Column(one, "", _N, is_rare=True, can_go=True) for one in ("cached", "cache_write", "reasoning")),
            Column("cost", "", "money"),
        ),
        "usage --by tenant,model --since 7d",
        (
            Argument("by", f"some of {', '.join(_GROUPS)} (tenant,model); empty: all in one", _is_by),
            Argument("since", 'the first day: "2026-11-26", "today", or so long ago ("7d")', _is_day),
            Argument("until", "the last day", _is_day),
            Argument("tenant", "of this one only", _is_name),
            Argument("csv", "as comma-separated values", is_flag, is_flag=True),
        ),
        as_asked=True,
    ),
)
