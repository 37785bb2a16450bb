"""Configurations of the proxies and scripts of the load, as text."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.loads_io import parse_accepts, wrk_script
from benchmarks.proxies import PLANS, Plan, Programs, Scenario
from benchmarks.rows import REQUEST_HEADERS, ROWS, WrkLoad

PROGRAMS = Programs("nginx", "haproxy", "envoy", "python", "python-pure")


def plan(proxy: str, tmp_path: Path, **options: object) -> Plan:
    scenario = Scenario(port=18080, upstream_port=19090, directory=str(tmp_path), **options)  # type: ignore[arg-type]
    return PLANS[proxy](scenario, PROGRAMS)


@pytest.mark.parametrize("proxy", PLANS)
@pytest.mark.parametrize("routes", [1, 1000])
def test_every_plan_names_its_ports_and_all_routes(proxy: str, routes: int, tmp_path: Path) -> None:
    """Each proxy listens and forwards where it is told, logs, and knows every host of a thousand routes."""
    made = plan(proxy, tmp_path, routes=routes)
    text = "\n".join(made.files.values())
    assert "18080" in text
    assert "19090" in text
    assert "access.log" in text
    assert text.count("shop") >= (1000 if proxy not in ("nginx", "nginx-defaults") else 500) * (routes > 1)


def test_edgeq_file_is_toml(tmp_path: Path) -> None:
    """The file says what the scenario says, TLS included."""
    (content,) = plan("edgeq", tmp_path, routes=1000, certificate="/c.pem", key="/k.pem").files.values()
    document = tomllib.loads(content)
    assert document["listener"][0]["tls"]["certificates"] == [{"certificate": "/c.pem", "key": "/k.pem"}]
    assert len(document["route"]) == 1000
    assert document["server"]["workers"] == 1


def test_envoy_file_is_json(tmp_path: Path) -> None:
    """Envoy reads JSON, and every route leads to the one cluster."""
    (content,) = plan("envoy", tmp_path, routes=1000).files.values()
    listener = json.loads(content)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert len(manager["route_config"]["virtual_hosts"]) == 500


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("nginx", ("limit_req zone", "limit_conn places")),
        ("haproxy", ("track-sc0", "maxconn 10000")),
        ("edgeq", ("[[rate]]", "[tenant]", "breaker")),
    ],
)
def test_limits_are_on_where_a_row_wants_them(proxy: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """And off everywhere else."""
    for limits in (False, True):
        text = "\n".join(plan(proxy, tmp_path, limits=limits).files.values())
        assert [word in text for word in words] == [limits] * len(words)


def test_only_large_bodies_give_nginx_large_buffers(tmp_path: Path) -> None:
    """nginx-defaults keeps nginx's own buffers in the same scenario."""
    (tuned,) = plan("nginx", tmp_path, bulk=True).files.values()
    (plain,) = plan("nginx-defaults", tmp_path, bulk=True).files.values()
    assert "proxy_buffers" in tuned
    assert "proxy_buffers" not in plain


def test_a_plain_request_has_nine_headers() -> None:
    """The number that the row's title promises."""
    assert len(REQUEST_HEADERS) == 9
    assert len({name.lower() for name, _ in REQUEST_HEADERS}) == 9


def test_varied_requests_vary_path_cookie_and_one_header() -> None:
    """All else is constant, and the first number is the caller's choice, so that windows differ too."""
    script = wrk_script(WrkLoad("varied", 32), start=777)
    assert "local n = 777" in script
    assert script.count("token ..") + script.count(".. token") >= 2
    assert script.count('X-Client-Step: " .. n') == 1


def test_rows_have_distinct_ids_and_known_proxies() -> None:
    """The command line chooses by these names."""
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row.also) <= set(PLANS)
        assert all(target.proxy in PLANS for target in row.targets)


def test_accepts_of_stub_status() -> None:
    """The number of accepted connections, from the page as nginx writes it."""
    text = "Active connections: 33 \nserver accepts handled requests\n 170 170 99000 \nReading: 0 Writing: 1\n"
    assert parse_accepts(text) == 170
