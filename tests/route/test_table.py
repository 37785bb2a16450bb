"""The table of routes against a slow reference, and rewriting."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeq.route.path import normalized, readings
from edgeq.route.table import Route, RouteTable
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel
from tests.route.servers import served

UPSTREAM = Upstream("up", Wheel(0.0, 0.1, 16))


def route(host: str, path: str, rewrite: str = "", name: str = "r", any_reading: bool = False) -> Route:
    return Route(name, host.encode(), path.encode(), UPSTREAM, rewrite.encode(), 0.0, -1, 0, any_reading)


def host_rank(pattern: str, host: str) -> tuple[int, int] | None:
    """How well a host pattern matches; None: not at all. Higher is more specific."""
    if pattern == "*":
        return (0, 0)
    if pattern.startswith("*."):
        return (1, len(pattern)) if host.endswith(pattern[1:]) else None
    return (2, 0) if host == pattern else None


def path_rank(pattern: str, path: str) -> tuple[int, int] | None:
    """How well a path pattern matches: exact, then by the length of its literal text."""
    if "*" not in pattern:
        return (1, 0) if pattern == path else None
    wanted = pattern.split("/")
    got = path.split("/")
    if wanted[-1] == "*":
        if len(got) < len(wanted):
            return None
        got = got[: len(wanted) - 1]
        wanted = wanted[:-1]
    if len(got) != len(wanted) or any(want not in ("*", have) for want, have in zip(wanted, got, strict=True)):
        return None
    return (0, len(pattern) - pattern.count("*"))


def slow_find(routes: list[Route], host: str, path: str) -> Route | None:
    """Every route tried; the best rank wins, then the first in order."""
    path = normalized(path.encode()).decode()
    best: tuple[tuple[tuple[int, int], tuple[int, int]], Route] | None = None
    for candidate in routes:
        by_host = host_rank(candidate.host.decode(), host)
        by_path = path_rank(candidate.path.decode(), path)
        if by_host is not None and by_path is not None and (best is None or (by_host, by_path) > best[0]):
            best = ((by_host, by_path), candidate)
    return best[1] if best else None


segments = st.sampled_from(["a", "b", "ab", "c"])
route_paths = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end if parts else "/" + end.lstrip("/"),
    st.lists(segments | st.just("*"), max_size=4),
    st.sampled_from(["", "/", "/*"]),
)
route_hosts = st.sampled_from(["*", "*", "a.x", "b.x", "*.x", "*.b.x", "x"])
request_paths = st.lists(segments | st.sampled_from(["", ".", "..", "%61"]), max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
request_hosts = st.sampled_from(["a.x", "b.x", "c.b.x", "x", "y", ""])


def slow_find_unless_ambiguous(routes: list[Route], host: str, path: str) -> Route | None:
    """The same for a request that may be refused."""
    found = slow_find(routes, host, path)
    others = [slow_find(routes, host, reading.decode()) for reading in readings(path.encode())]
    return found if all(other is found for other in others) else None


@given(
    st.lists(st.builds(route, route_hosts, route_paths), max_size=8),
    st.lists(st.tuples(request_hosts, request_paths), max_size=6),
)
@example([route("*", "/*/")], [("", "/a/a//..")])  # one route, but not for everything: "/a/" is its, "/a/a/" nobody's
@settings(max_examples=500)
def test_against_trying_every_route(routes: list[Route], requests: list[tuple[str, str]]) -> None:
    """Dictionaries and early ends change nothing about which route wins."""
    table = RouteTable(routes)
    for host, path in requests:
        found = table.find(host.encode(), path.encode())
        expected = slow_find_unless_ambiguous(routes, host, path)
        assert found is expected, (host, path, found and found.path, expected and expected.path)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("a.x", "a"),
        ("a.x:8080", "a"),
        ("a.x.", "a"),
        ("[::1]:80", "six"),
        ("[::1]", "six"),
        ("b.x:1", "any"),
        ("", "any"),
    ],
)
def test_a_port_does_not_matter(host: str, found: str) -> None:
    """Nor does the dot of a full name."""
    table = RouteTable([route("a.x", "/*", name="a"), route("[::1]", "/*", name="six"), route("*", "/*", name="any")])
    got = table.find(host.encode(), b"/")
    assert got is not None
    assert got.name == found


def test_a_host_without_a_matching_path_leaves_the_request_to_others() -> None:
    """The next specific host is asked."""
    table = RouteTable([route("a.x", "/only", name="a"), route("*.x", "/*", name="wild")])
    assert table.find(b"a.x", b"/other") is table.routes[1]


def test_options_asterisk_goes_to_who_takes_everything() -> None:
    """It has no path."""
    table = RouteTable([route("*", "/a/*"), route("*", "/*", rewrite="/new")])
    found = table.find(b"a", b"*")
    assert found is table.routes[1]
    assert found.target(b"*", b"*") == b"*"


def test_a_single_route_that_takes_not_everything() -> None:
    """The short cut is for those that do."""
    assert RouteTable([route("a.x", "/*")]).find(b"b.x", b"/") is None
    assert RouteTable([route("*", "/a/*")]).find(b"b.x", b"/") is None
    assert RouteTable([]).find(b"b.x", b"/") is None


@pytest.mark.parametrize(
    ("path", "rewrite", "target", "expected"),
    [
        ("/api/*", "", "/api/x?q", "/api/x?q"),
        ("/api/*", "/v2/", "/api/x?q", "/v2/x?q"),
        ("/api/*", "/v2", "/api/x/y", "/v2/x/y"),
        ("/api/*", "/", "/api/x", "/x"),
        ("/api/*", "/v2/", "/api/", "/v2/"),
        ("/api/*", "/v2/", "/api/?q", "/v2/?q"),
        ("/api/*", "/v2", "/api/?q", "/v2?q"),
        ("/*", "/v2/", "/x", "/v2/x"),
        ("/old", "/new", "/old?q", "/new?q"),
        ("/users/*/posts/*", "/p/", "/users/7/posts/9/x?q", "/p/9/x?q"),
        ("/users/*/name", "/n", "/users/7/name?q", "/n?q"),
        ("/api/*", "/v2/", "/%61pi/x%2Fy", "/v2/x%2Fy"),
        ("/api/*", "/v2/", "//api/x", "/v2/x"),
        ("/api/*", "/v2/", "/api/../api/x?a=/../", "/v2/x?a=/../"),
        ("/api/*", "/in/api/", "/api/../../api/x", "/in/api/x"),
        ("/api/*", "/in/api/", "/api/a/../../api/x", "/in/api/x"),
    ],
)
def test_rewriting(path: str, rewrite: str, target: str, expected: str) -> None:
    """The matched prefix is replaced; nothing in the target climbs out of what replaces it."""
    table = RouteTable([route("*", path, rewrite), route("*", "/else/*")])
    raw = target.encode()
    found = table.find(b"a", raw.split(b"?")[0])
    assert found is table.routes[0]
    assert found.target(raw, raw.split(b"?")[0]) == expected.encode()


@given(request_paths, st.sampled_from(["/v2/", "/v2", "/in/api/"]))
def test_a_rewritten_path_stays_below_its_new_prefix(path: str, rewrite: str) -> None:
    """Whatever the upstream resolves."""
    table = RouteTable([route("*", "/a/*", rewrite), route("*", "/else/*")])
    found = table.find(b"x", path.encode())
    if found is not None:
        assert normalized(found.target(path.encode(), path.encode())).startswith(rewrite.encode())


ODD = r"a b .. . a;b ; ..; ..;a=b a%2fb ..%2f %2f %2e%2e ..%5c ..\ a\b %252e%252e %252f %25252e%25252e %%32%65. a%00"
ODD += " a%3fb %3b %u002f.. a% %61 %c3%a9 a%3bb;c ..%2f%2f.."
odd_segments = st.sampled_from(["", *ODD.split()])
odd_paths = st.lists(odd_segments, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))
ODD_ROUTES = "/* /a/* /b/* /a/b/* /a /b /*/b/* /*/b /a/*/b /%C3%A9/* /a;b/*"
odd_routes = st.sampled_from(ODD_ROUTES.split())


@given(st.lists(odd_routes, min_size=1, max_size=5, unique=True), st.lists(odd_paths, min_size=1, max_size=8))
@settings(max_examples=600)
def test_no_server_reads_a_path_as_another_route_s(patterns: list[str], requests: list[str]) -> None:
    """What passes belongs to one route, whoever reads it: this is what authorisation by route stands on."""
    routes = [route("*", pattern, name=pattern) for pattern in patterns]
    table = RouteTable(routes)
    for path in requests:
        found = table.find(b"x", path.encode())
        if found is None:
            continue
        for server, shown in served(path.encode()):
            governs = slow_find(routes, "x", shown.decode())
            assert governs is found, (server, path, found.path, shown, governs and governs.path)


@given(st.sampled_from(["/v2/", "/v2", "/in/api/", "/"]), st.sampled_from(["/a/*", "/*"]), odd_paths)
@settings(max_examples=600)
def test_no_server_reads_a_rewritten_path_as_one_outside(rewrite: str, pattern: str, path: str) -> None:
    """What replaces a prefix holds, whoever reads it; also where a single route takes everything."""
    table = RouteTable([route("*", pattern, rewrite)])
    found = table.find(b"x", path.encode())
    if found is None:
        return
    target = found.target(path.encode(), path.encode())
    for server, shown in served(target):
        within = normalized(shown) + b"/"
        assert within.startswith(rewrite.rstrip("/").encode() + b"/"), (server, path, target, shown)


PUBLIC_AND_ADMIN = [route("*", "/*", name="public"), route("*", "/admin/*", name="admin"), route("*", "/admin")]


@pytest.mark.parametrize(
    "path",
    [
        "/public/..;/admin/x",
        "/public/..%2fadmin/x",
        "/public/..%5cadmin/x",
        "/public\\..\\admin\\x",
        "/%2fadmin/x",
        "/admin;a=b/x",
        "/admin%2fx",
        "/admin%00",
        "/public/%252e%252e/admin/x",
        "/admin//../x",
    ],
)
def test_ways_to_another_route_are_refused(path: str) -> None:
    """The reason is not that there is no route, and says which one it would have been."""
    table = RouteTable(PUBLIC_AND_ADMIN)
    assert table.find(b"x", path.encode()) is None
    reason, resource, detail = table.refusal(b"x", path.encode())
    assert (reason, resource) == ("request_ambiguous", f"{slow_find(table.routes, 'x', path).resource}:path")  # type: ignore[union-attr]
    assert detail


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v4/projects/a%2Fb/issues", "public"),
        ("/a;v=1/b;v=2", "public"),
        ("/cart;jsessionid=1A2B", "public"),
        ("/a/../admin/x", "admin"),
        ("//admin/x", "admin"),
        ("/%61dmin/x", "admin"),
        ("/admin/a%2Fb", "admin"),
        ("/admin/x;v=1", "admin"),
        ("/proxy/https%3A%2F%2Fexample.com%2F%3Fq", "public"),
        ("/wiki/100%25_%00", "public"),
        ("/a\\b", "public"),
    ],
)
def test_unusual_paths_of_one_route_pass(path: str, name: str) -> None:
    """An unusual byte is no crime: only another route is."""
    found = RouteTable(PUBLIC_AND_ADMIN).find(b"x", path.encode())
    assert found is not None
    assert found.name == name


def test_a_route_may_say_that_its_upstream_reads_as_the_gateway_does() -> None:
    """Then "a%2Fb" is one segment there, whatever others would make of it."""
    project = "/projects/*/issues"
    request = b"/projects/a%2Fb/issues"
    rest = route("*", "/*")
    assert RouteTable([route("*", project), rest]).find(b"x", request) is None
    passing = route("*", project, any_reading=True)
    assert RouteTable([passing, rest]).find(b"x", request) is passing


def test_why_nothing_was_found() -> None:
    """No route at all is another reason."""
    assert RouteTable([route("*", "/a/*")]).refusal(b"x", b"/..%2fb") == ("no_route", "", "")


def test_a_route_is_found_by_each_spelling_of_its_path() -> None:
    """As an upstream that decodes would find it."""
    cafe = route("*", "/caf%c3%a9/*")
    bang = route("*", "/a%21/*")
    table = RouteTable([cafe, bang, route("*", "/*")])
    for path in (b"/caf%C3%A9/x", b"/caf%c3%a9/x", b"/c%61f%C3%a9/x"):
        assert table.find(b"x", path) is cafe
    for path in (b"/a!/x", b"/a%21/x"):
        assert table.find(b"x", path) is bang
