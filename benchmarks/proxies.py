"""How each proxy is told to do the same work: configuration files and command lines, as plain text.

The same features everywhere: one worker, kept connections to the upstream without limit of requests, a request id that
is made, forwarded and returned, X-Forwarded-For and X-Forwarded-Proto, an access log that is written in batches with
about the same fields, nothing buffered to disk. Where a proxy offers several ways, the one that is cheapest for it is
taken and the choice is explained here, so that no ratio flatters edgeq.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks.rows import ROUTE_PREFIXES, route_host

MAX_CONNECTIONS = 12_000
"""More than any row opens; HAProxy wants twice as many descriptors, and is told not to insist."""
IDLE_TIMEOUT_S = 3600
"""Longer than any row: connections that are held must not be closed meanwhile."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a proxy has to do in one variant of a row."""

    port: int
    upstream_port: int
    directory: str
    certificate: str = ""
    key: str = ""
    """With a certificate the listener speaks TLS 1.3 only."""
    routes: int = 1
    streaming: bool = False
    bulk: bool = False
    """Bodies are large."""
    limits: bool = False
    """Limits of rates and of requests in flight are on, by client address, and high enough to refuse nothing."""

    @property
    def log_path(self) -> str:
        return os.path.join(self.directory, "access.log")

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def route_hosts(self) -> range:
        return range(self.routes // len(ROUTE_PREFIXES))


@dataclass(frozen=True, slots=True)
class Plan:
    """Files to write (absolute path to content), the command to run, additions to its environment."""

    files: dict[str, str]
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = 15.0
    """Until it listens."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are; empty: not there."""

    nginx: str = ""
    haproxy: str = ""
    envoy: str = ""
    edgeq_python: str = ""
    edgeq_pure_python: str = ""


def nginx_plan(scenario: Scenario, programs: Programs) -> Plan:
    """nginx: request bodies are streamed (its default, a temporary file for 1 MiB, would cost it more).

    With its default buffers (8 of 4 KiB) a large body costs it 1.5 to 2 times what it costs with larger ones, so where
    bodies are large it gets larger ones; `nginx-defaults` shows the difference.
    """
    location = [
        "proxy_pass http://upstream;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Request-Id $request_id;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "add_header X-Request-Id $request_id;",
        "proxy_request_buffering off;",
        "proxy_max_temp_file_size 0;",
        f"proxy_buffering {'off' if scenario.streaming else 'on'};",
    ]
    zones = ""
    if scenario.limits:
        zones = (
            "limit_req_zone $binary_remote_addr zone=rates:10m rate=1000000r/s;"
            " limit_conn_zone $binary_remote_addr zone=places:10m;"
        )
        location += ["limit_req zone=rates burst=100000 nodelay;", "limit_conn places 10000;"]
    if scenario.bulk:
        location += ["proxy_buffer_size 16k;", "proxy_buffers 16 16k;", "client_body_buffer_size 256k;"]
    body = " ".join(location)
    listen = f"listen 127.0.0.1:{scenario.port} backlog=4096"
    tls = ""
    if scenario.certificate:
        listen += " ssl"
        tls = (
            f"ssl_certificate {scenario.certificate}; ssl_certificate_key {scenario.key};"
            " ssl_protocols TLSv1.3; ssl_session_tickets on;"
        )
    if scenario.routes == 1:
        servers = f"server {{ {listen}; location / {{ {body} }} }}"
    else:
        # The directives are inherited from the http block, all but proxy_pass, as an operator would write it.
        inherited = " ".join(location[1:])
        servers = f"{inherited}\nserver {{ {listen} default_server; location / {{ return 404; }} }}\n" + "\n".join(
            f"server {{ listen 127.0.0.1:{scenario.port}; server_name {route_host(host)};"
            + "".join(f" location /{prefix}/ {{ {location[0]} }}" for prefix in ROUTE_PREFIXES)
            + " }"
            for host in scenario.route_hosts()
        )
    text = f"""
daemon off;
{"user root;" if os.getuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {scenario.path("nginx.pid")};
error_log {scenario.path("error.log")} warn;
events {{ worker_connections 16384; }}
http {{
  log_format fields '$remote_addr [$time_iso8601] "$request" $status $body_bytes_sent $request_time '
    '$upstream_addr $upstream_response_time $host "$http_user_agent" $request_id';
  access_log {scenario.log_path} fields buffer=64k flush=1s;
  keepalive_timeout {IDLE_TIMEOUT_S}s;
  keepalive_requests 1000000000;
  client_max_body_size 16m;
  client_body_temp_path {scenario.path("body")};
  proxy_temp_path {scenario.path("proxy")};
  fastcgi_temp_path {scenario.path("fastcgi")};
  uwsgi_temp_path {scenario.path("uwsgi")};
  scgi_temp_path {scenario.path("scgi")};
  server_names_hash_max_size 4096;
  tcp_nodelay on;
  upstream upstream {{
    server 127.0.0.1:{scenario.upstream_port} max_fails=0;
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout {IDLE_TIMEOUT_S}s;
  }}
  {zones}
  {tls}
  {servers}
}}
"""
    path = scenario.path("nginx.conf")
    return Plan({path: text}, (programs.nginx, "-p", scenario.directory, "-e", scenario.path("error.log"), "-c", path))


def haproxy_plan(scenario: Scenario, programs: Programs) -> Plan:
    """HAProxy: it cannot write a file in batches; a ring backed by a mapped file costs it no system call at all.

    `http-reuse always` lets every request use a kept connection (its default opens one for each new client), and the
    descriptor ratios keep it from closing upstream connections because many clients are open (2.7 times the cost).
    """
    files: dict[str, str] = {}
    bind = f"bind 127.0.0.1:{scenario.port} backlog 4096"
    if scenario.certificate:
        pem = scenario.path("haproxy.pem")
        with open(scenario.certificate, encoding="ascii") as certificate, open(scenario.key, encoding="ascii") as key:
            files[pem] = certificate.read() + key.read()
        bind += f" ssl crt {pem} ssl-min-ver TLSv1.3 alpn http/1.1"
    if scenario.routes == 1:
        choose = "default_backend api"
    else:
        table = scenario.path("routes.map")
        files[table] = "".join(
            f"{route_host(host)}/{prefix}/ api\n" for host in scenario.route_hosts() for prefix in ROUTE_PREFIXES
        )
        choose = f"use_backend %[base,map_beg({table})]"
    rates, places = "", "pool-max-conn 1024 pool-purge-delay 3600s"
    if scenario.limits:
        rates = (
            "stick-table type ip size 100k expire 30s store http_req_rate(10s),conn_cur\n"
            "  http-request track-sc0 src\n"
            "  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 10000000 } or { sc_conn_cur(0) gt 10000 }"
        )
        places += " maxconn 10000"
    text = f"""
global
  nbthread 1
  no strict-limits
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
  maxconn {MAX_CONNECTIONS}
  log ring@access local0
ring access
  format raw
  maxlen 1200
  size 8388608
  backing-file {scenario.log_path}
defaults
  mode http
  log global
  timeout connect 2s
  timeout client {IDLE_TIMEOUT_S}s
  timeout server {IDLE_TIMEOUT_S}s
  timeout http-keep-alive {IDLE_TIMEOUT_S}s
  timeout http-request 10s
  http-reuse always
  {"option http-no-delay" if scenario.streaming else ""}
frontend in
  {bind}
  log-format '%ci [%tr] "%HM %HU %HV" %ST %B %Ta %si:%sp %Tr %[capture.req.hdr(0)] "%[capture.req.hdr(1)]" %ID'
  http-request capture req.hdr(host) len 64
  http-request capture req.hdr(user-agent) len 128
  unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-response set-header X-Request-Id %[unique-id]
  option forwardfor
  http-request set-header X-Forwarded-Proto {"https" if scenario.certificate else "http"}
  {rates}
  {choose}
backend api
  server one 127.0.0.1:{scenario.upstream_port} {places}
"""
    path = scenario.path("haproxy.cfg")
    files[path] = text
    return Plan(files, (programs.haproxy, "-db", "-f", path))


def envoy_plan(scenario: Scenario, programs: Programs) -> Plan:
    """Envoy: one worker thread beside its main thread; its file log is flushed in batches by its own thread."""
    action = {"cluster": "api", "timeout": "0s"}
    if scenario.routes == 1:
        hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]
    else:
        hosts = [
            {
                "name": route_host(host),
                "domains": [route_host(host)],
                "routes": [{"match": {"prefix": f"/{prefix}/"}, "route": action} for prefix in ROUTE_PREFIXES],
            }
            for host in scenario.route_hosts()
        ]
    types = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{types}.access_loggers.file.v3.FileAccessLog",
                    "path": scenario.log_path,
                    "log_format": {
                        "text_format_source": {
                            "inline_string": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% [%START_TIME%] "
                            '"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_SENT% %DURATION% '
                            "%UPSTREAM_HOST% %RESPONSE_DURATION% %REQ(:AUTHORITY)% "
                            '"%REQ(USER-AGENT)%" %REQ(X-REQUEST-ID)%\n'
                        }
                    },
                },
            }
        ],
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_TIMEOUT_S}s"},
        "route_config": {"name": "routes", "virtual_hosts": hosts},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
            }
        ],
    }
    chain: dict[str, object] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if scenario.certificate:
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                    "alpn_protocols": ["http/1.1"],
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": scenario.certificate},
                            "private_key": {"filename": scenario.key},
                        }
                    ],
                },
            },
        }

    def address(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    config = {
        "static_resources": {
            "listeners": [{"name": "in", "address": address(scenario.port), "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "api",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "circuit_breakers": {
                        "thresholds": [
                            {
                                "max_connections": MAX_CONNECTIONS,
                                "max_pending_requests": MAX_CONNECTIONS,
                                "max_requests": MAX_CONNECTIONS,
                            }
                        ]
                    },
                    "load_assignment": {
                        "cluster_name": "api",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(scenario.upstream_port)}}]}],
                    },
                }
            ],
        }
    }
    path = scenario.path("envoy.json")
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Plan({path: json.dumps(config, indent=1)}, (programs.envoy, *options, "-c", path))


def edgeq_plan(scenario: Scenario, python: str) -> Plan:
    """edgeq: Via and traceparent, which the others do not add, are off; it adds X-Forwarded-Host beyond them.

    Where limits are on it has more of them than the others: the learned limit of its upstream, one of its route, fair
    queues between tenants, a deadline, retries, a breaker, checks; and it tells clients what is left of their rate.
    """

    def text(value: str) -> str:
        return json.dumps(value)

    lines = [
        "[server]",
        "workers = 1",
        "[[listener]]",
        f'address = "127.0.0.1:{scenario.port}"',
        f"max_connections = {MAX_CONNECTIONS}",
        f'timeouts = {{ keepalive = "{IDLE_TIMEOUT_S}s" }}',
    ]
    if scenario.certificate:
        certificate = f"{{ certificate = {text(scenario.certificate)}, key = {text(scenario.key)} }}"
        lines.append(f'tls = {{ certificates = [{certificate}], min_version = "1.3" }}')
    lines += [
        "[upstream.api]",
        f'endpoints = ["http://127.0.0.1:{scenario.upstream_port}"]',
        "[forward]",
        "via = false",
        'trace = "off"',
        "[access_log]",
        f"target = {text(scenario.log_path)}",
        "[log]",
        'level = "warning"',
    ]
    if scenario.limits:
        lines += [
            "[upstream.api.breaker]",
            "[upstream.api.health]",
            "[tenant]",
            'key = "client-address"',
            "[[rate]]",
            'name = "rates"',
            'by = "tenant"',
            'limits = ["1000000/s burst 1000000"]',
            "[[route]]",
            'name = "all"',
            'upstream = "api"',
            'timeout = "60s"',
            "limit = 10000",
            'retry = { on = ["reset", "timeout", "503"] }',
        ]
    if scenario.routes > 1:
        for host in scenario.route_hosts():
            for prefix in ROUTE_PREFIXES:
                lines += [
                    "[[route]]",
                    f'name = "{host}-{prefix}"',
                    f'match = {{ host = "{route_host(host)}", path = "/{prefix}/*" }}',
                    'upstream = "api"',
                ]
    path = scenario.path("edgeq.toml")
    # -P keeps the current directory off the module path: the installed, compiled package runs, never the source tree.
    return Plan({path: "\n".join(lines) + "\n"}, (python, "-P", "-m", "edgeq", "serve", "--config", path))


PLANS: dict[str, Callable[[Scenario, Programs], Plan]] = {
    "nginx": nginx_plan,
    "nginx-defaults": lambda scenario, programs: nginx_plan(replace(scenario, bulk=False), programs),
    "haproxy": haproxy_plan,
    "envoy": envoy_plan,
    "edgeq": lambda scenario, programs: edgeq_plan(scenario, programs.edgeq_python),
    "edgeq-pure": lambda scenario, programs: edgeq_plan(scenario, programs.edgeq_pure_python),
}
"""Every proxy that can take part, in the order of the table."""

ONLY_WHERE_NAMED = ("nginx-defaults", "edgeq-pure")
"""These take part in the rows that ask for them, or when they are named on the command line."""


def upstream_plan(port: int, directory: str, nginx: str, small_bytes: int, large_bytes: int, stream: str = "") -> Plan:
    """The static upstream: `small_bytes` (or this stream of events) for any path, `large_bytes` at /large; /_echo shows
    what arrived."""
    media, small = ("text/event-stream", stream) if stream else ("text/plain", "x" * small_bytes)
    assert not set("'$\\") & set(small)
    shown = "$http_x_request_id|$http_x_forwarded_for|$http_x_forwarded_proto|$connection_requests"
    text = f"""
daemon off;
{"user root;" if os.getuid() == 0 else ""}
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/upstream.pid;
error_log {directory}/upstream.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout {IDLE_TIMEOUT_S}s;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/ubody;
  proxy_temp_path {directory}/uproxy;
  fastcgi_temp_path {directory}/ufastcgi;
  uwsgi_temp_path {directory}/uuwsgi;
  scgi_temp_path {directory}/uscgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {directory};
    default_type {media};
    location / {{ return 200 '{small}'; }}
    location = /large {{ }}
    location = /_status {{ stub_status; }}
    location ~ /_echo$ {{ return 200 "{shown}"; }}
  }}
}}
"""
    files = {f"{directory}/upstream.conf": text, f"{directory}/large": "x" * large_bytes}
    command = (nginx, "-p", directory, "-e", f"{directory}/upstream.log", "-c", f"{directory}/upstream.conf")
    return Plan(files, command)
