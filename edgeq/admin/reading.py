"""What commands of the admin socket do that change no configuration: the handlers of rows in `commands.py`."""

from __future__ import annotations

from typing import Final

from edgeq.admin import accounts
from edgeq.admin.arguments import MOST_EVENTS
from edgeq.admin.command import STREAM, Answer, Arguments, Run
from edgeq.admin.control import Client, Control
from edgeq.admin.render import Column, Record, render_text
from edgeq.config.change import LIVE, NAMED
from edgeq.config.lines import show_path
from edgeq.explain import names
from edgeq.llm.registry import id_of
from edgeq.observe.history import ALL

_EVENT: Final = (Column("timestamp"), Column("level"), Column("event"), Column("more"))
HISTORY_ROWS: Final = 3600
"""An hour in seconds, six minutes in tenths: the supervisor makes them at one go."""


def subject(name: str, keys: tuple[str, ...] = (), is_tagged: bool = False) -> Run:
    """The handler of a subject; `keys` are those in which its filter looks. `is_tagged`: it tells of the configuration,
    whose ETag it has."""

    async def run(control: Control, arguments: Arguments, _client: Client) -> Answer:
        records = accounts.with_owners(control.show(name), control.accounts)
        text = arguments.get("match", "")
        if text:
            texts = (text, _in_full(text))
            records = [one for one in records if any(each in str(one.get(key, "")) for key in keys for each in texts)]
        if arguments.get("diff", "false") == "true":
            records = [one for one in records if one["source"] == LIVE]
        return Answer(200, records, etag=control.etag if is_tagged else "")

    return run


def _in_full(text: str) -> str:
    """What `set` calls KIND/NAME, as the names of keys begin with it."""
    kind, _, name = text.partition("/")
    return show_path((kind, name)) if kind in NAMED and name else text


def history_of(arguments: Arguments) -> tuple[str, float, float]:
    """The name, the seconds, and those of a row: all of them where all names are asked for."""
    resource = arguments.get("resource", ALL)
    seconds = float(arguments.get("seconds", "10" if resource == ALL else "60"))
    step_s = max(float(arguments.get("step", "1")), seconds / HISTORY_ROWS)
    return resource, seconds, seconds if resource == ALL else step_s


async def history(control: Control, arguments: Arguments, _client: Client) -> Answer:
    found = await control.history(*history_of(arguments))
    return Answer(404, {"ok": False, "error": found}) if isinstance(found, str) else Answer(200, found)


async def events(control: Control, arguments: Arguments, _client: Client) -> Answer:
    text = arguments.get("match", "")
    if not text or text.isdigit():
        return Answer(200, control.events(int(arguments.get("count", text or "50"))))
    last = control.events(int(arguments.get("count", str(MOST_EVENTS))))
    return Answer(200, [one for one in last if any(text in str(value) for value in one.values())])


async def connections(control: Control, arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, await control.connections(int(arguments.get("count", "50"))))


def event_line(event: Record) -> str:
    """For people."""
    known = ("timestamp", "level", "event")
    more = {key: value for key, value in event.items() if key not in known}
    return render_text([{**{key: event.get(key) for key in known}, "more": more}], _EVENT, 0).partition("\n")[2]


async def follow_events(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, (), media=STREAM, stream=control.follow_events())


async def metrics(control: Control, _arguments: Arguments, client: Client) -> Answer:
    media, text = control.metrics(client.accept)
    return Answer(200, (), text, media)


async def explain(control: Control, arguments: Arguments, _client: Client) -> Answer:
    what = arguments.get("what", "")
    found = None if _is_no_caller(what, control) else control.explain(what)
    if found is not None:
        return Answer(200, found)
    known = {**{one: [one] for one in control.resources()}, **accounts.callers(control.accounts)}
    may_be = names.meant(what, known) or names.meant(id_of(what), known)
    found = control.explain(may_be[0]) if len(may_be) == 1 else None
    if found is not None:
        return Answer(200, found)
    return Answer(404, {"ok": False, "error": names.unknown(what, known, may_be, control.remembered())})


def _is_no_caller(what: str, control: Control) -> bool:
    """Is it the name of a tenant, team or key that there is not?"""
    listed = ("key/", "team/", "tenant/") if control.tenants_are_listed else ("key/", "team/")
    if not what.startswith(listed):
        return False
    return what not in control.resources() and accounts.callers(control.accounts).get(what) != [what]


async def version(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, control.version())


async def reset(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    control.begin_highs()
    return Answer(200, {"ok": True})


async def live(_control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, {"ok": True})


async def ready(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    if control.is_ready():
        return Answer(200, {"ok": True})
    return Answer(503, {"ok": False, "error": "not ready: edgeq starts or drains, or every worker hangs"})
