"""Settings that have no effect, or none as long as another stands beside them. They are told, and never refused.

What cannot be meant is an error (check.py). What is here may be meant, or become so: `edgeq set upstream/api limit 0`
leaves the queue in the file without a purpose, and must work all the same. So `edgeq check` names it with file, line
and key, and a running edgeq in its log.

Looks at a configuration that has passed every check. A setting that says what holds without it is not told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from edgeq.config.findings import Findings, did_you_mean
from edgeq.config.lines import Path
from edgeq.config.providers import (
    has_enabled,
    is_budget,
    parts_of,
    provider_keys,
    provider_of,
    smaller_enabled,
    smaller_of,
    split_url,
    upstream_name,
)
from edgeq.config.scarce import scarce
from edgeq.config.schema import Config, Endpoint, Listener, Provider, Route, Upstream
from edgeq.config.schema_llm import Model
from edgeq.upstream.endpoint import parse_endpoint

_ONCE: Final = "llm.attempts of every route is 1"

MISSING: Final = "is missing"
"""So begins what is told of a setting that is not there, and so cannot be without effect."""


def idle(config: Config, findings: Findings) -> None:
    """Add every setting that has no effect to `findings`."""
    _server(config, findings)
    for number, listener in enumerate(config.listener):
        _listener(listener, ("listener", number), findings)
    used = {one.upstream for one in config.route} | {one.fallback.upstream for one in config.route if one.fallback}
    made = provider_of(config)
    for name, upstream in config.upstream.items():
        if name in made:
            continue
        path = ("upstream", name)
        if name not in used:
            findings.add(path, "no route leads here, and no fallback")
        _upstream(upstream, path, findings)
    _prices(config, findings)
    asked = {target.provider for model in config.model.values() for target in model.targets}
    for name, provider in config.provider.items():
        if name not in asked:
            findings.add(("provider", name), "no model has a target there")
        for part in provider.disabled:
            if parts_of(config).get(part, ("", ""))[0] != name:
                message = (
                    f"neither a key of it nor a model there is called so{did_you_mean(part, list(parts_of(config)))}"
                )
                findings.add(("provider", name, "disabled", part), message)
        urls = (split_url(provider.url)[0], *provider.endpoints)
        _tls(provider, urls, ("provider", name), findings)
    for name, model in config.model.items():
        _model(name, model, config, findings)
    for where, message in scarce(config):
        findings.add(where, message)
    for number, route in enumerate(config.route):
        _route(route, ("route", number), config, findings)
    if not config.tenant.key and config.tenant.weights:
        findings.add(("tenant", "weights"), "nothing says who a tenant is: tenant.key is missing")
    if config.tenant.key == "key" and config.model and config.accounts is None:
        message = "verifies nobody: without [accounts] any key that a client makes up is a tenant"
        findings.add(("tenant", "key"), message)
    if not config.tenant.limit:
        _unused(config.tenant.queue, ("tenant", "queue"), "nobody waits there: tenant.limit is 0", findings)
    if config.forward.priority and not any(one.trusted for one in config.listener):
        findings.add(("forward", "priority"), "nobody is believed: no listener has trusted addresses")


def _server(config: Config, findings: Findings) -> None:
    server = config.server
    if not server.admin:
        message = "there is no admin socket: server.admin is empty"
        _unused(server, ("server",), message, findings, "admin_mode", "admin_group")
    if not server.stuck.after:
        _unused(server.stuck, ("server", "stuck"), "nobody is stuck: server.stuck.after is 0", findings, "restart")
    if config.access_log.target == "off":
        _unused(config.access_log, ("access_log",), "nothing is written: access_log.target is off", findings, "format")


def _listener(listener: Listener, path: Path, findings: Findings) -> None:
    if not listener.proxy_protocol:
        message = "no PROXY header is expected: proxy_protocol is false"
        _unused(listener, path, message, findings, "proxy_protocol_from")
    if 0 < listener.max_connections < listener.max_connections_per_client:
        message = f"is never reached: max_connections is {listener.max_connections}"
        findings.add((*path, "max_connections_per_client"), message)
    for what, rate in (("body", "min_body_rate"), ("write", "min_answer_rate")):
        if not getattr(listener.timeouts, what):
            message = f"is not looked at: timeouts.{what} is 0"
            _unused(listener.limits, (*path, "limits"), message, findings, rate)


def _upstream(upstream: Upstream, path: Path, findings: Findings) -> None:
    _tls(upstream, [one.url if isinstance(one, Endpoint) else one for one in upstream.endpoints], path, findings)
    if not any(upstream.weights().values()):
        findings.add((*path, "endpoints"), "nobody new is served: all endpoints are drained (weight 0) or disabled")
    for balance, key in (("consistent-hash", "hash_key"), ("sticky", "sticky_cookie")):
        if upstream.balance != balance:
            _unused(upstream, path, f"is for balance = {balance}, which is {upstream.balance}", findings, key)
    if upstream.limit in (0, "observe"):
        _unused(upstream.queue, (*path, "queue"), f"nobody waits there: limit is {upstream.limit}", findings)
    if upstream.pool.max_connections < upstream.pool.max_idle:
        message = f"so many are never idle: pool.max_connections is {upstream.pool.max_connections}"
        _unused(upstream.pool, (*path, "pool"), message, findings, "max_idle")
    if upstream.eject.max_time < upstream.eject.time:
        message = f"no ejection is longer than eject.max_time, {upstream.eject.max_time:g}s"
        _unused(upstream.eject, (*path, "eject"), message, findings, "time")


def _tls(one: Upstream | Provider, urls: Iterable[str], path: Path, findings: Findings) -> None:
    if not any(parse_endpoint(url).tls for url in urls):
        _unused(one.tls, (*path, "tls"), "is not used: no endpoint is https", findings)
    elif not one.tls.verify:
        _unused(one.tls, (*path, "tls"), "nothing is verified: tls.verify is false", findings, "ca")


def _model(name: str, model: Model, config: Config, findings: Findings) -> None:
    asked = {
        upstream_name(target.provider, provider, key)
        for target in model.targets
        for provider in (config.provider[target.provider],)
        for key in provider_keys(provider)
    }
    if not has_enabled(config, name):
        smaller_one = next(iter(smaller_enabled(config, name)), "")
        who = f"{smaller_one} answers in its place, where it may" if smaller_one else "nobody answers for the model"
        too = f", and those of {model.degrade}, too" if model.degrade and not smaller_one else ""
        findings.add(("model", name, "targets"), f"{who}: all its targets are disabled{too}")
    if model.balance == "ordered":
        message = "is for balance = weighted, which is ordered: the targets are asked in turn"
        for number, target in enumerate(model.targets):
            _unused(target, ("model", name, "targets", number), message, findings, "weight")
    routes = [route.llm for route in config.route if route.llm is not None]
    once = bool(routes) and all(one.attempts < 2 for one in routes)
    if model.hedge != "off" and (once or len(asked) < 2):
        why = "all targets are at one key of one provider" if len(asked) < 2 else _ONCE
        findings.add(("model", name, "hedge"), f"there is no second to ask: {why}")
    if model.too_long == "next" and (once or len(model.targets) < 2):
        why = "the model has one target" if len(model.targets) < 2 else _ONCE
        findings.add(("model", name, "too_long"), f"there is no next one to ask: {why}")
    smaller = {*smaller_of(config, name)}
    if smaller and not any(not one.models or (name in one.models and smaller & {*one.models}) for one in routes):
        findings.add(("model", name, "degrade"), f"no route serves both {name} and {model.degrade}")


def _prices(config: Config, findings: Findings) -> None:
    """Who counts money, and what is not counted."""
    limits = [one.limits for one in config.model.values()]
    limits += [one.limits for one in config.provider.values()]
    limits += [one.limits for one in config.prompt]
    limits += [key.limits for one in config.provider.values() for key in provider_keys(one) if key.limits]
    limits += [target.limits for one in config.model.values() for target in one.targets if target.limits]
    limits += [one.llm.limits for one in config.route if one.llm is not None]
    tells = any(one.llm is not None and one.llm.tell_cost for one in config.route)
    if config.accounts is None and not tells and not any(map(is_budget, limits)):
        return
    for name, model in config.model.items():
        for number, target in enumerate(model.targets):
            if target.price is None:
                message = f"{MISSING}: what this target answers costs nothing, and no budget holds there (free: {{}})"
                findings.add(("model", name, "targets", number, "price"), message)


def _route(route: Route, path: Path, config: Config, findings: Findings) -> None:
    if route.llm is not None:
        return
    retry, where = route.retry, (*path, "retry")
    if not retry.on and retry.hedge == "off":
        _unused(retry, where, "nothing is tried again: retry.on is empty, retry.hedge is off", findings)
    elif not retry.per_try_timeout:  # that holds for the only try as well
        budget = config.upstream[route.upstream].retry_budget
        if not budget.share and not budget.reserve:
            findings.add(where, f"nothing is tried again: the retry_budget of upstream {route.upstream} allows none")
    first_byte = config.upstream[route.upstream].timeouts.first_byte  # in whose place it stands
    if 0 < route.timeout <= retry.per_try_timeout and not 0 < first_byte < route.timeout:
        findings.add((*where, "per_try_timeout"), f"is never reached: the route's timeout is {route.timeout:g}s")


def _unused(table: msgspec.Struct, path: Path, message: str, findings: Findings, *keys: str) -> None:
    """Blame what `table` says that is not the default: of all its keys, or of these."""
    for field in msgspec.structs.fields(table):
        if (not keys or field.name in keys) and getattr(table, field.name) != field.default:
            findings.add((*path, field.name), message)
