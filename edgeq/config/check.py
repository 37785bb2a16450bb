"""What types cannot say: names that must exist, names that must differ, addresses and paths that must make sense.

Looks at the configuration alone; what only the file system can tell is in `files_io.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, TypeVar

import msgspec

from edgeq.cache.sieve import COLLECTING_SHARE
from edgeq.config.address import (
    check_host_header,
    check_match_host,
    check_match_path,
    check_network,
    check_path,
    check_unix_path,
    parse_collector,
    parse_listen,
)
from edgeq.config.check_llm import check_llm
from edgeq.config.check_prompts import check_prompts
from edgeq.config.convert import MAX_INT
from edgeq.config.findings import Findings, did_you_mean
from edgeq.config.lines import Path
from edgeq.config.schema import (
    Config,
    Endpoint,
    Forward,
    Listener,
    Provider,
    Rate,
    Route,
    RouteCache,
    RouteFallback,
    Trace,
    Upstream,
)
from edgeq.config.schema_llm import PromptCache
from edgeq.config.units import parse_duration, parse_rate
from edgeq.policy.fallback import CHOICES, STATUSES
from edgeq.policy.hedge import LEAST_S as HEDGE_LEAST_S
from edgeq.policy.tenant import TenantKey
from edgeq.route.path import normalized
from edgeq.upstream.endpoint import parse_endpoint, parse_nameserver
from edgeq.wire.fields import END_TO_END, KINDS, PRIVATE

MAX_WORKERS: Final = 1024
STUCK_LEAST_S: Final = 1.0
MAX_HISTORY_S: Final = 3600
MAX_REPLAY: Final = 1 << 20
MAX_WEIGHT: Final = 1000
MAX_PREPARED: Final = 64 * 1024
"""Bytes of an answer in the configuration file."""
MIN_SPANS: Final = 256
"""As many as one batch may have, with several tries of each request."""
MAX_SPANS: Final = 1 << 16
"""That wait in one worker; encoded, each takes about 400 bytes."""
_CONTENT_TYPE: Final = re.compile(r"[!-~][ -~]{0,255}", re.ASCII)

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_NOT_READ: Final = frozenset(KINDS) - {b"host", b"user-agent", b"referer"}
_NOT_WRITTEN: Final = frozenset(KINDS) | END_TO_END | PRIVATE
"""Of others' messages: a second Host is no request any more, and a client's Accept or Cookie would be lost."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_LISTENER_NAME: Final = re.compile(r"[!#-~]{1,128}", re.ASCII)


def check(config: Config, findings: Findings) -> None:
    """Add everything that is wrong to `findings`."""
    if not config.listener:
        findings.add(("listener",), 'no listener: write [[listener]] and address = "0.0.0.0:8080"')
    if not config.upstream and not config.provider:
        findings.add(("upstream",), 'no upstream: write [upstream.NAME] and endpoints = ["http://HOST:PORT"]')
    _server(config, findings)
    for number, listener in enumerate(config.listener):
        _listener(listener, ("listener", number), findings)
    _distinct_listeners(config.listener, findings)
    for name, upstream in config.upstream.items():
        _upstream(name, upstream, ("upstream", name), findings)
    for name, provider in config.provider.items():
        _service(provider, ("provider", name), findings)
    for number, route in enumerate(config.route):
        _route(route, ("route", number), config, findings)
    _distinct_routes(config.route, findings)
    check_llm(config, findings)
    check_prompts(config, findings)
    for number, prompt in enumerate(config.prompt):
        if prompt.cache is not None:
            _cache(prompt.cache, ("prompt", number, "cache"), findings)
    _tenant(config, findings)
    _rates(config, findings)
    if not config.route and len(config.upstream) > 1:
        names = ", ".join(config.upstream)
        findings.add(("route",), f"no route: with several upstreams ({names}) a [[route]] must say which one to use")
    _rest(config, findings)


def _server(config: Config, findings: Findings) -> None:
    if config.server.workers > MAX_WORKERS:
        findings.add(("server", "workers"), f"may be {MAX_WORKERS} at most")
    server = config.server
    _try(check_unix_path, server.admin, ("server", "admin"), findings)
    stuck = server.stuck
    if 0 < stuck.after < STUCK_LEAST_S:
        findings.add(
            ("server", "stuck", "after"),
            f"must be {STUCK_LEAST_S:g}s at least, or 0: workers tell four times a second that they live",
        )
    if stuck.restart and stuck.restart < stuck.after:
        findings.add(("server", "stuck", "restart"), "must be server.stuck.after at least, or 0")
    if not _MODE.fullmatch(server.admin_mode):
        findings.add(("server", "admin_mode"), 'a mode is written in octal: "0660"')
    if server.metrics:
        _try(parse_listen, server.metrics, ("server", "metrics"), findings)
        if server.metrics.startswith("unix:"):
            findings.add(("server", "metrics"), "the admin socket has /metrics: this is for a TCP address")
    if server.history and not 1 <= server.history <= MAX_HISTORY_S:
        findings.add(("server", "history"), "must be from 1s to 1h; 0 keeps nothing")
    if server.dumps and not server.history:
        findings.add(("server", "dumps"), "there is nothing to write: server.history is 0")
    if server.dumps and not server.dumps.startswith("/"):
        findings.add(("server", "dumps"), 'must be an absolute path: "/var/lib/edgeq"')
    for key in ("memory", "descriptors"):
        if not 0.0 <= getattr(config.protect, key) <= 1.0:
            findings.add(("protect", key), "is a share, from 0 (off) to 1")


def _listener(listener: Listener, path: Path, findings: Findings) -> None:
    _try(parse_listen, listener.address, (*path, "address"), findings)
    if listener.name and not _LISTENER_NAME.fullmatch(listener.name):
        findings.add((*path, "name"), "a name has at most 128 visible ASCII characters, without quotes")
    _positive(listener, ("backlog", "accept_budget", "accept_budget_lagging", "send_buffer"), path, findings)
    _kernel_sizes(listener, ("send_buffer", "receive_buffer"), path, findings)
    if not 1 <= listener.ipv6_client_prefix <= 128:
        findings.add((*path, "ipv6_client_prefix"), "must be from 1 to 128")
    _positive(listener.limits, ("request_line", "header_bytes", "header_count"), (*path, "limits"), findings)
    _positive(listener.timeouts, ("head",), (*path, "timeouts"), findings)
    for key, networks in (("proxy_protocol_from", listener.proxy_protocol_from), ("trusted", listener.trusted)):
        for number, network in enumerate(networks):
            _try(check_network, network, (*path, key, number), findings)
    if listener.proxy_protocol and not listener.proxy_protocol_from:
        findings.add(
            (*path, "proxy_protocol"),
            "say who is trusted to send the PROXY header: "
            'proxy_protocol_from = ["10.0.0.0/8"]; whoever may send it can claim any client address',
        )
    if listener.tls is not None:
        if not listener.tls.certificates:
            findings.add((*path, "tls", "certificates"), "TLS needs a certificate at least")
        for number, certificate in enumerate(listener.tls.certificates):
            if not certificate.certificate:
                findings.add((*path, "tls", "certificates", number, "certificate"), "an empty path")


def _distinct_listeners(listeners: tuple[Listener, ...], findings: Findings) -> None:
    names: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for number, listener in enumerate(listeners):
        name = listener.name or listener.address
        first = names.setdefault(name, number)
        if first != number and listener.name:
            findings.add(("listener", number, "name"), f'listener[{first}] has the name "{name}" already')
        try:
            where = parse_listen(listener.address)
        except ValueError:
            continue
        if where.family != "unix" and where.port == 0:
            continue  # the kernel chooses another port for each
        first = addresses.setdefault(f"{where.host} {where.port} {where.path}", number)
        if first != number:
            findings.add(("listener", number, "address"), f"listener[{first}] has the same address")


def _upstream(name: str, upstream: Upstream, path: Path, findings: Findings) -> None:
    if not _NAME.fullmatch(name):
        findings.add(path, "a name has at most 64 letters, digits, dots, dashes and underscores")
    if not upstream.endpoints:
        findings.add((*path, "endpoints"), "an upstream needs an endpoint at least")
    seen: dict[str, int] = {}
    tls = False
    for number, one in enumerate(upstream.endpoints):
        url = one.url if isinstance(one, Endpoint) else one
        if isinstance(one, Endpoint) and one.weight > MAX_WEIGHT:
            findings.add((*path, "endpoints", number, "weight"), f"must be from 0 to {MAX_WEIGHT}")
        where = _try(parse_endpoint, url, (*path, "endpoints", number), findings)
        if where is None:
            continue
        tls = tls or where.tls
        first = seen.setdefault(str(where), number)
        if first != number:
            findings.add((*path, "endpoints", number), f"the same endpoint as endpoints[{first}]")
    if upstream.host not in ("preserve", "upstream"):
        _try(check_host_header, upstream.host, (*path, "host"), findings)
    _positive(upstream, ("receive_buffer",), path, findings)
    _kernel_sizes(upstream, ("receive_buffer",), path, findings)
    _service(upstream, path, findings)
    _balance(upstream, path, findings)


def _service(one: Upstream | Provider, path: Path, findings: Findings) -> None:
    """The tables that both have."""
    if one.tls.server_name:
        _try(check_host_header, one.tls.server_name, (*path, "tls", "server_name"), findings)
    if one.tls.key and not one.tls.certificate:
        findings.add((*path, "tls", "key"), "a key without a certificate")
    _positive(one.timeouts, ("connect",), (*path, "timeouts"), findings)
    _positive(one.pool, ("max_connections", "max_connecting"), (*path, "pool"), findings)
    _share(one.retry_budget, "concurrent", (*path, "retry_budget"), findings)
    if one.breaker is not None:
        where = (*path, "breaker")
        _share(one.breaker, "failures", where, findings)
        _positive(one.breaker, ("failures", "min_requests", "window", "open", "probes"), where, findings)


def _balance(upstream: Upstream, path: Path, findings: Findings) -> None:
    kind, colon, name = upstream.hash_key.partition(":")
    if not (
        upstream.hash_key in ("client-address", "path") or (kind in ("header", "cookie") and _TOKEN.fullmatch(name))
    ):
        findings.add(
            (*path, "hash_key"),
            'expected "client-address", "path", "header:NAME" or "cookie:NAME"'
            + did_you_mean(kind + colon, ["client-address", "path", "header:", "cookie:"]),
        )
    if not _TOKEN.fullmatch(upstream.sticky_cookie):
        findings.add((*path, "sticky_cookie"), "a cookie's name is one word of letters, digits, dashes, underscores")
    if upstream.engine and upstream.balance == "round-robin":
        findings.add((*path, "engine"), "what engines say of their queues does not count in round-robin")
    _share(upstream, "panic_threshold", path, findings)
    _share(upstream.eject, "max_share", (*path, "eject"), findings)
    _positive(upstream.eject, ("time", "interval", "max_time"), (*path, "eject"), findings)
    if upstream.health is not None:
        where = (*path, "health")
        _positive(upstream.health, ("interval", "timeout", "healthy", "unhealthy"), where, findings)
        if (
            not upstream.health.path.startswith("/")
            or not upstream.health.path.isascii()
            or " " in upstream.health.path
        ):
            findings.add((*where, "path"), 'a path begins with "/" and has no space')
        if upstream.health.host:
            _try(check_host_header, upstream.health.host, (*where, "host"), findings)
        for number, status in enumerate(upstream.health.status):
            if not 200 <= status <= 599:
                findings.add((*where, "status", number), "must be from 200 to 599")


def _share(table: msgspec.Struct, key: str, path: Path, findings: Findings) -> None:
    if getattr(table, key) > 1:
        findings.add((*path, key), "a share is from 0 to 1")


def _route(route: Route, path: Path, config: Config, findings: Findings) -> None:
    if not _NAME.fullmatch(route.name):
        findings.add((*path, "name"), "a name has at most 64 letters, digits, dots, dashes and underscores")
    if not route.upstream:
        if route.llm is None:
            findings.add((*path, "upstream"), "missing")
    elif route.upstream not in config.upstream:
        hint = did_you_mean(route.upstream, list(config.upstream))
        findings.add((*path, "upstream"), f'there is no upstream "{route.upstream}"{hint}')
    _try(check_match_host, route.match.host, (*path, "match", "host"), findings)
    _try(check_match_path, route.match.path, (*path, "match", "path"), findings)
    if route.rewrite:
        _try(check_path, route.rewrite, (*path, "rewrite"), findings)
        if "*" in route.rewrite:
            findings.add((*path, "rewrite"), '"*" is not expanded here: what it matched is appended by itself')
    _positive(route, ("cost",), path, findings)
    if route.retry.body > MAX_REPLAY:
        findings.add((*path, "retry", "body"), "may be 1MiB at most: every request in flight may hold so much")
    if route.retry.attempts < 2 and (route.retry.on or route.retry.hedge != "off"):
        findings.add((*path, "retry", "attempts"), "the first try counts: must be 2 at least")
    if route.retry.max_backoff < route.retry.backoff:
        findings.add((*path, "retry", "max_backoff"), "must be retry.backoff at least")
    _hedge(route.retry.hedge, (*path, "retry", "hedge"), findings)
    if route.cache is not None:
        _cache(route.cache, (*path, "cache"), findings)
    if route.llm is not None and route.llm.cache is not None:
        _cache(route.llm.cache, (*path, "llm", "cache"), findings)
    if route.fallback is not None:
        _fallback(route, route.fallback, (*path, "fallback"), config, findings)


def _hedge(hedge: str, path: Path, findings: Findings) -> None:
    if hedge in ("off", "p95"):
        return
    try:
        after_s = float(parse_duration(hedge))
    except ValueError:
        findings.add(path, 'expected "off", "p95" or a duration such as "150ms"')
        return
    if after_s < HEDGE_LEAST_S:
        findings.add(path, "must be 1ms at least")


def _cache(cache: RouteCache | PromptCache, path: Path, findings: Findings) -> None:
    _positive(cache, ("max_bytes", "max_object"), path, findings)
    if cache.max_bytes and cache.max_object > cache.max_bytes // COLLECTING_SHARE:
        findings.add(
            (*path, "max_object"),
            f"may be 1/{COLLECTING_SHARE} of max_bytes at most: so much may be taken by answers that are on their way",
        )


def _fallback(route: Route, fallback: RouteFallback, path: Path, config: Config, findings: Findings) -> None:
    for number, one in enumerate(fallback.on):
        if one not in CHOICES:
            hint = did_you_mean(one, list(CHOICES))
            findings.add(
                (*path, "on", number),
                f'"{one}" is neither "shed", "failed", a reason that can be replaced, nor '
                f"one of {', '.join(sorted(STATUSES))}{hint}",
            )
    if not fallback.on:
        findings.add((*path, "on"), "an empty list: it would replace nothing")
    if not fallback.upstream and fallback.answer is None:
        findings.add(path, "says what to replace, but not by what: upstream or answer is missing")
    if fallback.upstream == route.upstream:
        findings.add((*path, "upstream"), "the upstream of the route itself")
    elif fallback.upstream and fallback.upstream not in config.upstream:
        hint = did_you_mean(fallback.upstream, list(config.upstream))
        findings.add((*path, "upstream"), f'there is no upstream "{fallback.upstream}"{hint}')
    answer = fallback.answer
    if answer is None:
        return
    where = (*path, "answer")
    if not 200 <= answer.status <= 599 or answer.status in (204, 205, 206, 304):
        findings.add((*where, "status"), "must be from 200 to 599, and one whose answer may have a body")
    if not _CONTENT_TYPE.fullmatch(answer.content_type):
        findings.add((*where, "content_type"), "a media type, in visible ASCII characters")
    if len(answer.body.encode()) > MAX_PREPARED:
        findings.add((*where, "body"), f"may be {MAX_PREPARED // 1024}KiB at most")


def _distinct_routes(routes: tuple[Route, ...], findings: Findings) -> None:
    names: dict[str, int] = {}
    matches: dict[tuple[str, bytes], int] = {}
    for number, route in enumerate(routes):
        first = names.setdefault(route.name, number)
        if first != number:
            findings.add(("route", number, "name"), f'route[{first}] has the name "{route.name}" already')
        first = matches.setdefault((route.match.host.lower(), normalized(route.match.path.encode())), number)
        if first != number:
            findings.add(
                ("route", number, "match"), f'is never reached: route "{routes[first].name}" matches the same before it'
            )


def _tenant(config: Config, findings: Findings) -> None:
    tenant = config.tenant
    if tenant.key:
        key = _try(TenantKey, tenant.key, ("tenant", "key"), findings)
        if key is not None and tenant.key.startswith("header:"):
            _header_name(key.name.decode(), ("tenant", "key"), findings, _NOT_READ)
    else:
        for name, is_used in (("limit", tenant.limit > 0), ("queue_share", tenant.queue_share < 1.0)):
            if is_used:
                findings.add(("tenant", name), "nothing says who a tenant is: tenant.key is missing")
    _share(tenant, "queue_share", ("tenant",), findings)
    for name, weight in tenant.weights.items():
        if weight < 1:
            findings.add(("tenant", "weights", name), "must be more than 0")


def _rates(config: Config, findings: Findings) -> None:
    names: dict[str, int] = {}
    routes = [route.name for route in config.route] or ["default"]
    for number, rate in enumerate(config.rate):
        path: Path = ("rate", number)
        if not _NAME.fullmatch(rate.name):
            findings.add((*path, "name"), "a name has at most 64 letters, digits, dots, dashes and underscores")
        first = names.setdefault(rate.name, number)
        if first != number:
            findings.add((*path, "name"), f'rate[{first}] has the name "{rate.name}" already')
        if rate.by == "tenant" and not config.tenant.key:
            findings.add((*path, "by"), "nothing says who a tenant is: tenant.key is missing")
        for index, name in enumerate(rate.routes):
            if name not in routes:
                findings.add((*path, "routes", index), f'there is no route "{name}"{did_you_mean(name, routes)}')
        _limits(rate, path, config, findings)


def _limits(rate: Rate, path: Path, config: Config, findings: Findings) -> None:
    if not rate.limits:
        findings.add((*path, "limits"), "a rate needs a limit at least")
    dearest = max((route.cost for route in config.route if not rate.routes or route.name in rate.routes), default=1)
    seen: dict[float, int] = {}
    for index, text in enumerate(rate.limits):
        limit = _try(parse_rate, text, (*path, "limits", index), findings)
        if limit is None:
            continue
        count, window_s, burst = limit
        first = seen.setdefault(window_s, index)
        if first != index:
            findings.add((*path, "limits", index), f"the same window as limits[{first}]")
        if (burst or count) < dearest:
            findings.add(
                (*path, "limits", index), f"admits nothing of a route whose cost is {dearest}: burst must be as much"
            )


def _header_name(name: str, path: Path, findings: Findings, taken: Collection[bytes]) -> None:
    if not _HEADER.fullmatch(name):
        findings.add(path, "not the name of a header field (RFC 9110 5.1)")
    elif name.encode() in taken:
        findings.add(path, f"{name} has another purpose")


def _rest(config: Config, findings: Findings) -> None:
    for number, server in enumerate(config.dns.nameservers):
        _try(parse_nameserver, server, ("dns", "nameservers", number), findings)
    _positive(config.dns, ("timeout", "retry", "max_ttl"), ("dns",), findings)
    if config.dns.min_ttl > config.dns.max_ttl:
        findings.add(("dns", "min_ttl"), "is larger than max_ttl")
    if config.forward.node and not _NAME.fullmatch(config.forward.node):
        findings.add(("forward", "node"), "a name has at most 64 letters, digits, dots, dashes and underscores")
    for key in ("deadline", "priority"):
        name = getattr(config.forward, key)
        if name:
            _header_name(name.lower(), ("forward", key), findings, _NOT_WRITTEN)
    if config.forward.deadline and config.forward.deadline.lower() == config.forward.priority.lower():
        findings.add(("forward", "priority"), "the same header as forward.deadline")
    if config.accounts is not None:
        _positive(config.accounts, ("flush",), ("accounts",), findings)
        if not config.accounts.store.startswith("/"):  # commands that look into it run elsewhere
            findings.add(("accounts", "store"), 'must be an absolute path: "/var/lib/edgeq/accounts.sqlite"')
    if config.trace is not None:
        _trace(config.trace, config.forward, findings)
    target = config.access_log.target
    if target not in ("stdout", "off") and "/" not in target:
        findings.add(
            ("access_log", "target"),
            f'expected "stdout", "off" or the path of a file{did_you_mean(target, ["stdout", "off"])}; '
            f'a file in the working directory is written "./{target}"',
        )


def _trace(trace: Trace, forward: Forward, findings: Findings) -> None:
    _try(parse_collector, trace.endpoint, ("trace", "endpoint"), findings)
    if not 0.0 <= trace.ratio <= 1.0:
        findings.add(("trace", "ratio"), "is a share, from 0 to 1")
    if not trace.service:
        findings.add(("trace", "service"), "must not be empty: it is how the collector knows this gateway")
    if not MIN_SPANS <= trace.queue <= MAX_SPANS:
        findings.add(("trace", "queue"), f"must be from {MIN_SPANS} to {MAX_SPANS}")
    for name in trace.headers:
        if not _HEADER.fullmatch(name):
            findings.add(("trace", "headers", name), "not the name of a header field (RFC 9110 5.1)")
        elif name.lower() in ("host", "content-type", "content-length", "transfer-encoding", "connection"):
            findings.add(("trace", "headers", name), "is written by edgeq itself")
    if forward.trace == "pass":
        findings.add(
            ("forward", "trace"),
            'with [trace] it must be "begin" (or "off"): spans here are parents of the upstream\'s',
        )


def _positive(table: msgspec.Struct, keys: tuple[str, ...], path: Path, findings: Findings) -> None:
    """Keys for which 0 would mean that nothing works at all."""
    for key in keys:
        if getattr(table, key) <= 0:
            findings.add((*path, key), "must be more than 0")


def _kernel_sizes(table: msgspec.Struct, keys: tuple[str, ...], path: Path, findings: Findings) -> None:
    """Keys that a worker hands to the kernel, which takes an int."""
    for key in keys:
        if getattr(table, key) > MAX_INT:
            findings.add((*path, key), f"may be {MAX_INT}B at most")


def _try(function: Callable[[str], T], text: str, path: Path, findings: Findings) -> T | None:
    try:
        return function(text)
    except ValueError as error:
        findings.add(path, str(error))
        return None
