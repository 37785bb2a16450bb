"""The table of routes: immutable, swapped whole on reload.

The most specific match wins: an exact host before a wildcard host (longest first) before any host; within a host an
exact path, then the path pattern with the most literal text; then the order in the file. Exact paths and prefixes are
looked up by dictionary (one look-up for each "/" in the path, longest first); only patterns with a "*" inside are tried
one by one.

A path that could be read as one of another route is refused (`path.readings` says how), and so is one whose rewritten
form could be read as a path outside of what its prefix was replaced by; a route may say that its upstream does not do
such a thing. With a single route for everything the path decides nothing, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgeq.route.path import has_one_reading, is_usual, normalized, plain, readings, resolved, spelled

if TYPE_CHECKING:
    from edgeq.admission.bulkhead import Bulkhead
    from edgeq.admission.tenants import Tenants
    from edgeq.cache.cache import RouteCache
    from edgeq.llm.route import ModelRoute
    from edgeq.policy.fallback import Fallback
    from edgeq.policy.retry import RetryPolicy
    from edgeq.policy.terms import Terms
    from edgeq.upstream.upstream import Upstream


class Route:
    """What to match and on what terms to forward. `prefix` is the literal part before the final "*"."""

    __slots__ = (
        "_below",
        "any_reading",
        "body_bytes",
        "bulkhead",
        "cache",
        "fallback",
        "generation",
        "graceful",
        "host",
        "llm",
        "log_text",
        "name",
        "path",
        "prefix",
        "resource",
        "retry",
        "rewrite",
        "tenants",
        "terms",
        "timeout_s",
        "upstream",
    )

    def __init__(
        self,
        name: str,
        host: bytes,
        path: bytes,
        upstream: Upstream,
        rewrite: bytes,
        timeout_s: float,
        body_bytes: int,
        generation: int = 0,
        any_reading: bool = False,
    ) -> None:
        self.name = name
        self.host = host
        path = spelled(path)
        self.path = path
        self.upstream = upstream
        self.rewrite = rewrite
        self.bulkhead: Bulkhead | None = None
        """The route's own limit, if it has one."""
        self.tenants: Tenants | None = None
        """The limits of tenants, if they have one."""
        self.timeout_s: float = timeout_s
        """Whole request; 0: no limit."""
        self.body_bytes: int = body_bytes
        """Limit of a request body; -1: the listener's."""
        self.prefix = path[:-1] if path.endswith(b"/*") else path
        self.resource = f"route/{name}"
        self.generation: int = generation
        """Of the configuration that made it."""
        self.any_reading: bool = any_reading
        """Paths are taken as they are read here, whatever else they may mean."""
        self.terms: Terms | None = None
        """Who asks, how urgent it is, how often: nothing to settle if there are none."""
        self.retry: RetryPolicy | None = None
        """When a request is tried again that has reached an upstream; None: never."""
        self.cache: RouteCache | None = None
        self.fallback: Fallback | None = None
        """What is served in place of refusals; None: nothing."""
        self.llm: ModelRoute | None = None
        """It serves models."""
        self.graceful: bool = False
        """It has a cache or a fallback."""
        self._below: list[bytes] = readings(rewrite) if rewrite else []
        self.log_text = b""
        """This route's part of an access-log line, once it has been rendered."""

    def target(self, target: bytes, path: bytes) -> bytes:
        """The target to forward: `rewrite` in place of the matched prefix (of the whole path of an exact match)."""
        if not self.rewrite or target == b"*":
            return target
        if not is_usual(path):
            # Dot segments must not climb out of what replaces the prefix; that was found in the normal form, which has
            # the same segments.
            clean = plain(path)
            target = clean + target[len(path) :]
            path = clean
            cut = _pattern_prefix_length(self.prefix, path)
        elif b"*" in self.prefix:
            cut = _pattern_prefix_length(self.prefix, path)
        else:
            cut = len(self.prefix) if path.startswith(self.prefix) else len(path)
        rest = target[cut:]
        if self.rewrite.endswith(b"/") or not rest or rest[:1] in (b"/", b"?"):
            return self.rewrite + rest
        return self.rewrite + b"/" + rest

    def stays_below(self, path: bytes) -> bool:
        """Can what is forwarded be read only as a path within `rewrite`?"""
        found = readings(self.target(path, path))
        for reading in found:
            if not any(_is_below(reading, prefix) for prefix in self._below):
                return False
        return bool(found)


def _is_below(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and (prefix.endswith(b"/") or path[len(prefix) : len(prefix) + 1] in (b"", b"/"))


def _pattern_prefix_length(prefix: bytes, path: bytes) -> int:
    """Length of the part of `path` that has as many segments as `prefix`."""
    at = 0
    for _ in range(prefix.count(b"/")):
        at = path.find(b"/", at) + 1
    return at if prefix.endswith(b"/") else len(path)


class _Pattern:
    """A path pattern with "*" inside."""

    __slots__ = ("order", "rest", "route", "segments", "weight")

    def __init__(self, route: Route, order: int) -> None:
        self.route = route
        self.order: int = order
        parts = route.path.split(b"/")
        self.rest = parts[-1] == b"*"
        self.segments: list[bytes] = parts[:-1] if self.rest else parts
        self.weight: int = sum(len(part) for part in parts if part != b"*") + len(parts) - 1

    def matches(self, segments: Sequence[bytes]) -> bool:
        mine = self.segments
        if len(segments) < len(mine) + (1 if self.rest else 0) or (not self.rest and len(segments) > len(mine)):
            return False
        for index in range(len(mine)):
            part = mine[index]
            if part != b"*" and part != segments[index]:
                return False
        return True


class _HostRoutes:
    """The routes of one host pattern."""

    __slots__ = ("_longest", "_orders", "catch_all", "exact", "patterns", "prefixes")

    def __init__(self) -> None:
        self._longest = 0
        self._orders: dict[bytes, int] = {}
        self.exact: dict[bytes, Route] = {}
        self.prefixes: dict[bytes, Route] = {}
        self.patterns: list[_Pattern] = []
        self.catch_all: Route | None = None

    def add(self, route: Route, order: int) -> None:
        path = route.path
        inner = path[:-1] if path.endswith(b"/*") else path
        if b"*" in inner:
            self.patterns.append(_Pattern(route, order))
            self.patterns.sort(key=_pattern_key)
        elif path.endswith(b"/*"):
            self.prefixes.setdefault(inner, route)
            self._orders.setdefault(inner, order)
            if len(inner) > self._longest:
                self._longest = len(inner)
            if inner == b"/":
                self.catch_all = self.prefixes[inner]
        else:
            self.exact.setdefault(path, route)

    def find(self, path: bytes) -> Route | None:
        if self.exact:
            route = self.exact.get(path)
            if route is not None:
                return route
        found: Route | None = self.catch_all
        weight = 1
        if len(self.prefixes) > 1 or found is None:
            end = min(self._longest, len(path))
            while end > 0:
                end = path.rfind(b"/", 0, end)
                if end < 0:
                    break
                route = self.prefixes.get(path[: end + 1])
                if route is not None:
                    found = route
                    weight = end + 1
                    break
        if self.patterns:
            segments = path.split(b"/")
            for pattern in self.patterns:
                if found is not None and pattern.weight < weight:
                    break
                if pattern.matches(segments):
                    if found is not None and pattern.weight == weight and self._orders[path[:weight]] < pattern.order:
                        break
                    return pattern.route
        return found


def _pattern_key(pattern: _Pattern) -> tuple[int, int]:
    return -pattern.weight, pattern.order


class RouteTable:
    """Host and path to a route, or None."""

    __slots__ = ("_any", "_hosts", "_only", "_wildcards", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: list[Route] = list(routes)
        self._hosts: dict[bytes, _HostRoutes] = {}
        self._wildcards: dict[bytes, _HostRoutes] = {}
        self._any: _HostRoutes = _HostRoutes()
        for order, route in enumerate(self.routes):
            host = route.host
            if host == b"*":
                self._any.add(route, order)
            elif host.startswith(b"*."):
                self._wildcards.setdefault(host[1:], _HostRoutes()).add(route, order)
            else:
                self._hosts.setdefault(host, _HostRoutes()).add(route, order)
        self._only: Route | None = None
        """The one route that takes everything, if there is no other."""
        if len(self.routes) == 1 and self._any.catch_all is not None:
            only = self._any.catch_all
            if only.any_reading or not only.rewrite:
                self._only = only

    def find(self, host: bytes, path: bytes) -> Route | None:
        """The route of a request. `host` in lower case, perhaps with a port; `path` as received, without the query.

        None: there is none, or the path could be one of another route; `refusal` says which.
        """
        only = self._only
        if only is not None:
            return only
        if is_usual(path):
            return self._find(host, path)
        spelling = spelled(path)
        route = self._find(host, resolved(spelling))
        if route is None or route.any_reading or has_one_reading(spelling) or self._has_one_route(host, path, route):
            return route
        return None

    def refusal(self, host: bytes, path: bytes) -> tuple[str, str, str]:
        """Why `find` has found nothing: reason, resource (empty: the listener's), detail."""
        route = self._find(host, normalized(path))
        if route is None:
            return "no_route", "", ""
        detail = "some servers would read this path as one outside of the route that it is for"
        return "request_ambiguous", f"{route.resource}:path", detail

    def _has_one_route(self, host: bytes, path: bytes, route: Route) -> bool:
        """Does `path` belong to `route` whoever reads it?"""
        found = readings(path)
        for reading in found:
            if self._find(host, reading) is not route:
                return False
        return bool(found) and (not route.rewrite or route.stays_below(path))

    def _find(self, host: bytes, path: bytes) -> Route | None:
        if self._hosts or self._wildcards:
            of_host = self._hosts.get(host)
            name = host
            if of_host is None:
                name = _without_port(host)
                of_host = self._hosts.get(name)
            if of_host is not None:
                route = of_host.find(path)
                if route is not None:
                    return route
            if self._wildcards:
                dot = name.find(b".")
                while dot >= 0:
                    of_host = self._wildcards.get(name[dot:])
                    if of_host is not None:
                        route = of_host.find(path)
                        if route is not None:
                            return route
                    dot = name.find(b".", dot + 1)
        return self._any.find(path)


def _without_port(host: bytes) -> bytes:
    if host[:1] == b"[":
        close = host.find(b"]")
        host = host[: close + 1]
    else:
        colon = host.find(b":")
        if colon >= 0:
            host = host[:colon]
    return host[:-1] if host.endswith(b".") else host
