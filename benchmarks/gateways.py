"""How each gateway of the benchmark of overload is configured: with its defaults, or tuned as its manual says.

Everything that has to do with load is at its default unless the name says otherwise; connections to the upstream are
kept (nginx has to be told), and there is one worker. Access logs are off. edgeq gets addresses and nothing else, and in
rows with tenants the header that names them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.overload_rows import Upstream
from benchmarks.proxies import Plan, Programs

TENANT_FIELD = "x-api-key"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a gateway has to do in a row."""

    port: int
    directory: str
    upstreams: tuple[Upstream, ...]
    ports: tuple[tuple[int, ...], ...]
    """Of each upstream's endpoints."""
    tenants: bool = False

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def each(self) -> list[tuple[Upstream, tuple[int, ...]]]:
        return list(zip(self.upstreams, self.ports, strict=True))


def nginx_plan(setup: Setup, programs: Programs, tuned: bool) -> Plan:
    """nginx; tuned: `max_conns` is the number of slots of each endpoint. Its free version has no queue behind that."""
    upstreams, locations = "", ""
    for upstream, ports in setup.each():
        servers = " ".join(
            f"server 127.0.0.1:{port}{f' max_conns={service.slots}' if tuned else ''};"
            for port, service in zip(ports, upstream.endpoints, strict=True)
        )
        upstreams += f"  upstream {upstream.name} {{ {servers} keepalive 64; }}\n"
        locations += f"    location {upstream.prefix} {{ proxy_pass http://{upstream.name}; }}\n"
    text = f"""
daemon off;
{"user root;" if os.getuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {setup.path("nginx.pid")};
error_log {setup.path("error.log")} crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {setup.path("body")};
  proxy_temp_path {setup.path("proxy")};
  fastcgi_temp_path {setup.path("fastcgi")};
  uwsgi_temp_path {setup.path("uwsgi")};
  scgi_temp_path {setup.path("scgi")};
  proxy_http_version 1.1;
  proxy_set_header Connection "";
{upstreams}
  server {{
    listen 127.0.0.1:{setup.port};
{locations}
  }}
}}
"""
    path = setup.path("nginx.conf")
    return Plan({path: text}, (programs.nginx, "-p", setup.directory, "-e", setup.path("error.log"), "-c", path))


def haproxy_plan(setup: Setup, programs: Programs, tuned: bool) -> Plan:
    """HAProxy; tuned: `maxconn` is the number of slots of each endpoint, and who waits 500 ms for one is refused."""
    backends, rules = "", ""
    for upstream, ports in setup.each():
        servers = "".join(
            f"  server s{port} 127.0.0.1:{port}{f' maxconn {service.slots}' if tuned else ''}\n"
            for port, service in zip(ports, upstream.endpoints, strict=True)
        )
        backends += f"backend {upstream.name}\n  balance roundrobin\n{servers}"
        if upstream.prefix == "/":
            rules += f"  default_backend {upstream.name}\n"
        else:
            rules += f"  use_backend {upstream.name} if {{ path_beg {upstream.prefix} }}\n"
    text = f"""
global
  nbthread 1
  no strict-limits
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  {"timeout queue 500ms" if tuned else ""}
frontend in
  bind 127.0.0.1:{setup.port}
{rules}
{backends}
"""
    path = setup.path("haproxy.cfg")
    return Plan({path: text}, (programs.haproxy, "-db", "-f", path))


ENVOY_TYPES = "type.googleapis.com/envoy.extensions"


def envoy_plan(setup: Setup, programs: Programs, adaptive: bool) -> Plan:
    """Envoy; adaptive: the filter of adaptive concurrency with the values of the example in its manual."""
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{ENVOY_TYPES}.filters.http.router.v3.Router"},
    }
    gradient = {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
        "min_rtt_calc_params": {"jitter": {"value": 10}, "interval": "60s", "request_count": 50},
    }
    concurrency = {
        "name": "envoy.filters.http.adaptive_concurrency",
        "typed_config": {
            "@type": f"{ENVOY_TYPES}.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
            "gradient_controller_config": gradient,
            "enabled": {"default_value": True, "runtime_key": "adaptive_concurrency.enabled"},
        },
    }
    # The first route that matches is taken: the longest prefix goes first.
    routes = [
        {"match": {"prefix": upstream.prefix}, "route": {"cluster": upstream.name}}
        for upstream in sorted(setup.upstreams, key=lambda upstream: -len(upstream.prefix))
    ]
    manager = {
        "@type": f"{ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [concurrency, router] if adaptive else [router],
    }

    def address(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    clusters = [
        {
            "name": upstream.name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": upstream.name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in ports]}],
            },
        }
        for upstream, ports in setup.each()
    ]
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "in", "address": address(setup.port), "filter_chains": [chain]}
    path = setup.path("envoy.json")
    text = json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}, indent=1)
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Plan({path: text}, (programs.envoy, *options, "-c", path))


def edgeq_plan(setup: Setup, programs: Programs, tenant_key: bool) -> Plan:
    """edgeq: no limit, queue, rate or check is configured."""
    lines = ["[server]", "workers = 1", "[[listener]]", f'address = "127.0.0.1:{setup.port}"']
    for upstream, ports in setup.each():
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        lines += [f"[upstream.{upstream.name}]", f"endpoints = {json.dumps(addresses)}"]
    for upstream in setup.upstreams:
        match = f'match = {{ path = "{upstream.prefix}*" }}'
        lines += ["[[route]]", f'name = "{upstream.name}"', match, f'upstream = "{upstream.name}"']
    if tenant_key and setup.tenants:
        lines += ["[tenant]", f'key = "header:{TENANT_FIELD}"']
    lines += ["[access_log]", 'target = "off"', "[log]", 'level = "warning"']
    path = setup.path("edgeq.toml")
    # -P keeps the current directory off the module path: the installed, compiled package runs, never the source tree.
    command = (programs.edgeq_python, "-P", "-m", "edgeq", "serve", "--config", path)
    return Plan({path: "\n".join(lines) + "\n"}, command)


GATEWAYS: dict[str, Callable[[Setup, Programs], Plan]] = {
    "nginx": partial(nginx_plan, tuned=False),
    "nginx-max-conns": partial(nginx_plan, tuned=True),
    "haproxy": partial(haproxy_plan, tuned=False),
    "haproxy-tuned": partial(haproxy_plan, tuned=True),
    "envoy": partial(envoy_plan, adaptive=False),
    "envoy-adaptive": partial(envoy_plan, adaptive=True),
    "edgeq": partial(edgeq_plan, tenant_key=True),
    "edgeq-no-tenants": partial(edgeq_plan, tenant_key=False),
}
"""Every gateway that can take part, in the order of the table."""

DIRECT = "direct"
"""No gateway at all: the load goes to the upstream, where there is one and it is not overloaded."""
ONLY_WHERE_NAMED = ("edgeq-no-tenants",)
"""Takes part when it is named on the command line."""
EVERYTHING = (DIRECT, *GATEWAYS)


def takes_part(gateway: str, upstreams: tuple[Upstream, ...], offered: float) -> bool:
    """Whether a row means anything for it."""
    return gateway != DIRECT or (len(upstreams) == 1 and len(upstreams[0].endpoints) == 1 and 0 < offered < 1)
