"""nginx and HAProxy with the settings that the tests vary, to compare with and to test the test bench itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol


class Limits(Protocol):
    """The part of gateway.Settings that other gateways understand."""

    @property
    def workers(self) -> int: ...
    @property
    def head_s(self) -> float: ...
    @property
    def body_s(self) -> float: ...
    @property
    def write_s(self) -> float: ...
    @property
    def keepalive_s(self) -> float: ...
    @property
    def connect_s(self) -> float: ...
    @property
    def first_byte_s(self) -> float: ...
    @property
    def answer_body_s(self) -> float: ...
    @property
    def body_bytes(self) -> int: ...


def available(kind: str) -> bool:
    """Whether this gateway is installed."""
    return shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is not None


def command(kind: str, port: int, upstream_port: int, directory: Path, limits: Limits) -> list[str]:
    """Write a configuration and return the command that runs in the foreground."""
    path = directory / f"{kind}.conf"
    if kind == "nginx":
        path.write_text(nginx_config(port, upstream_port, directory, limits))
        return ["/usr/sbin/nginx", "-c", str(path), "-e", str(directory / "error.log")]
    if kind == "haproxy":
        path.write_text(haproxy_config(port, upstream_port, limits))
        return ["/usr/sbin/haproxy", "-db", "-f", str(path)]
    raise ValueError(f"unknown gateway {kind!r}")


def nginx_config(port: int, upstream_port: int, directory: Path, limits: Limits) -> str:
    """Keep-alive to the upstream, WebSocket upgrades, request id and X-Forwarded-For, buffered access log."""
    read_s = max(1, round(min(limits.first_byte_s, limits.answer_body_s)))
    temporary = "\n".join(
        f"  {name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off; worker_processes {limits.workers}; pid {directory}/nginx.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
{temporary}
  access_log {directory}/access.log combined buffer=32k flush=1s;
  client_header_timeout {max(1, round(limits.head_s))}s;
  client_body_timeout {max(1, round(limits.body_s))}s;
  send_timeout {max(1, round(limits.write_s))}s;
  keepalive_timeout {max(1, round(limits.keepalive_s))}s;
  keepalive_requests 1000000;
  client_max_body_size {limits.body_bytes};
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream u {{ server 127.0.0.1:{upstream_port} max_fails=0; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://u;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_connect_timeout {max(1, round(limits.connect_s))}s;
      proxy_read_timeout {read_s}s;
    }}
  }}
}}
"""


def haproxy_config(port: int, upstream_port: int, limits: Limits) -> str:
    """The same for HAProxy."""
    read_ms = round(min(limits.first_byte_s, limits.answer_body_s) * 1000)
    return f"""
global
  nbthread {limits.workers}
  maxconn 8000
defaults
  mode http
  timeout connect {round(limits.connect_s * 1000)}ms
  timeout client {round(limits.body_s * 1000)}ms
  timeout server {read_ms}ms
  timeout http-request {round(limits.head_s * 1000)}ms
  timeout http-keep-alive {round(limits.keepalive_s * 1000)}ms
  timeout tunnel 60s
  option forwardfor
  http-reuse always
  unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt
  unique-id-header X-Request-Id
  retries 1
frontend f
  bind 127.0.0.1:{port} backlog 4096
  default_backend b
backend b
  server u 127.0.0.1:{upstream_port}
"""
