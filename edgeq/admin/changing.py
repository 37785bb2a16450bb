"""What commands of the admin socket do that change something for a while or for good: the handlers of rows in
`commands.py`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from edgeq.admin.arguments import ttl_s
from edgeq.admin.command import Answer, Arguments, Run
from edgeq.admin.control import Client, Control, Wish
from edgeq.config.findings import did_you_mean

MAX_NAMES: Final = 8
"""So many are named to who has named none of them."""


async def reload(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    result = await control.reload()
    return Answer(200 if result.ok else 422, result._asdict())


async def _change(control: Control, wish: Wish, arguments: Arguments, client: Client) -> Answer:
    """Ask for a change, with what the options say of it."""
    wish = replace(
        wish,
        ttl_s=ttl_s(arguments.get("ttl", "")),
        comment=arguments.get("comment", ""),
        persists=arguments.get("persist", "false") == "true",
        if_match=arguments.get("if-match", "") or client.if_match,
        uid=client.uid,
        pid=client.pid,
    )
    done = await control.change(wish)
    if done.error:
        return Answer(done.status, {"ok": False, "error": done.error, "etag": done.etag}, etag=done.etag)
    said: dict[str, Any] = {"ok": True, "generation": done.generation, "etag": done.etag}
    if done.behind:
        said["behind"] = list(done.behind)
        slots = ", ".join(map(str, done.behind))
        said["note"] = f"not confirmed by worker {slots}: it holds there once that goes on"
    if done.idle:
        said["warning"] = "; ".join(done.idle)
    return Answer(done.status, said, etag=done.etag)


async def set_value(control: Control, arguments: Arguments, client: Client) -> Answer:
    resource, key, value = (arguments[one] for one in ("resource", "key", "value"))
    answer = await _change(control, Wish(resource, key, value), arguments, client)
    if key == "limit" and value == "0" and answer.status == 200 and isinstance(answer.body, dict):
        more = f"; to send nobody there: disable {resource}" if resource.startswith("provider/") else ""
        answer.body.setdefault("note", f"0 is no limit{more}")
    return answer


async def take_back(control: Control, arguments: Arguments, client: Client) -> Answer:
    return await _change(control, Wish(arguments["resource"], arguments["key"], None), arguments, client)


def endpoint(key: str, value: str, undoes: str | None = None, state: str = "") -> Run:
    """The handler of a change of an endpoint; one that `undoes` something takes it out of a state."""

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        text = arguments["endpoint"]
        found = control.endpoints(text)
        if len(found) != 1:
            several = "several upstreams have it: " + ", ".join(f"{upstream}#{url}" for upstream, url in found)
            error = several if found else _no_endpoint(text, control.endpoint_names())
            return Answer(422, {"ok": False, "error": error})
        ((upstream, url),) = found
        in_vain = f"{url} of {upstream} is not {state}" if state else ""
        wish = Wish(f"upstream/{upstream}", f"endpoints.{url}.{key}", value, undoes, in_vain)
        return await _change(control, wish, arguments, client)

    return run


def switch(is_on: bool) -> Run:
    """The handler of `enable` and `disable`: an endpoint; or a provider, one of its keys, or a model there."""
    of_endpoint = endpoint("enabled", "true", "false", "disabled") if is_on else endpoint("enabled", "false")

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        text = arguments["endpoint"]
        parts = control.parts()
        is_part = text.startswith(("provider/", "target/"))
        if text not in parts or (not is_part and control.endpoints(text)):
            if is_part:
                error = f"there is no {text[:200]}{did_you_mean(text, list(parts))}: show targets"
                return Answer(422, {"ok": False, "error": error})
            if not control.endpoints(text):
                return Answer(422, {"ok": False, "error": _no_switch_of(text, control)})
            return await of_endpoint(control, arguments, client)
        provider, part = parts[text]
        key, on, off = (f"disabled.{part}", "false", "true") if part else ("enabled", "true", "false")
        wish = Wish(f"provider/{provider}", key, off)
        if is_on:
            wish = replace(wish, value=on, undoes=off, in_vain=f"{text} is not disabled")
        return await _change(control, wish, arguments, client)

    return run


def _no_switch_of(text: str, control: Control) -> str:
    """What to say of what cannot be disabled, or is nothing."""
    kind, _, name = text[:200].partition("/")
    if name and kind == "key":
        return f"a virtual key cannot be disabled: keys revoke {name} ends it for good, keys set {name} limits it"
    if name and kind in ("route", "prompt"):
        return f"a {kind} cannot be disabled; a route's requests can wait: pause route/NAME"
    own = name if kind == "model" and name else text
    targets = [
        f"target/{one['target']}"
        for one in control.show("models")
        if own in (one.get("model"), *one.get("aliases", ()))
    ]
    if not targets:
        near = did_you_mean(text, [*control.parts(), *control.endpoint_names()])
        return (
            f"nothing is called {text[:200]} that can be disabled{near}: an endpoint (show endpoints), a provider, one"
            " of its keys, or a model there (show targets)"
        )
    return f"a model itself cannot be disabled, but its targets can: {some_of(targets)}"


def some_of(names: Sequence[str]) -> str:
    """The first ones, by commas."""
    return ", ".join((*names[:MAX_NAMES], *(["..."] if len(names) > MAX_NAMES else [])))


def _no_endpoint(text: str, names: Sequence[str]) -> str:
    said = f"there is no endpoint {text[:200]}"
    if near := difflib.get_close_matches(text, names):
        return f"{said}; did you mean {' or '.join(near)}?"
    of_provider = (
        "disable provider/NAME takes a provider out;"
        " of several endpoints of one, set provider/NAME endpoints leaves one out"
    )
    if not names:
        return f"{said}; all upstreams are made of providers' keys, whose endpoints cannot be drained ({of_provider})"
    return f"{said}; there are {some_of(names)} (what a name stands for is drained as a whole; {of_provider})"


def route(key: str, value: str, undoes: str | None = None, state: str = "") -> Run:
    """The handler of a change of a route."""

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        resource = "route/" + arguments["route"].removeprefix("route/")
        in_vain = f"{resource} is not {state}" if state else ""
        return await _change(control, Wish(resource, key, value, undoes, in_vain), arguments, client)

    return run


drain_endpoint: Final = endpoint("weight", "0")


async def drain(control: Control, arguments: Arguments, client: Client) -> Answer:
    if arguments.get("endpoint"):
        return await drain_endpoint(control, arguments, client)
    if arguments:  # an endpoint's name that was lost must not end it all
        return Answer(400, {"ok": False, "error": "an option without an endpoint: drain ENDPOINT"})
    control.drain()
    return Answer(202, {"ok": True, "draining": True})


async def wake(control: Control, arguments: Arguments, _client: Client) -> Answer:
    name = arguments["name"]
    woken = control.wake(name)
    if woken is None:
        near = did_you_mean(name, list(control.wake_names()))
        error = f"no provider, no key of one and no model at one is called {name[:200]}{near}: show targets"
        return Answer(404, {"ok": False, "error": error})
    ended, forgotten = woken
    if not ended and not forgotten:
        return Answer(
            422, {"ok": False, "error": f"nothing rests at {name}, or keeps to what it was told: show targets"}
        )
    return Answer(200, {"ok": True, "ended": ended, "forgotten": forgotten})
