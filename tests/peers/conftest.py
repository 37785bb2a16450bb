"""One gateway for all peers: every kind of listener in front, nginx, http.server and a WebSocket server behind it."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.listener import certificates
from tests.listener.certificates import Made
from tests.peers.app import App, app
from tests.peers.chat import Chat, chat
from tests.peers.programs import nginx
from tests.support import gateway
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.supervised import wait_for

SMALL = b"small enough for one packet\n"
TEXT = b"".join(b"line %06d of a text that is worth compressing\n" % number for number in range(2000))
MISSING = b"<p>nginx's own page for what is missing</p>\n"
BIG_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(slots=True)
class Site:
    """Where everything is."""

    gateway: Gateway
    app: App
    chat: Chat
    root: Path
    """nginx's files; nginx serves what is below "static"."""
    nginx_pid: int
    certificate: Made
    """Of gateway.test, the default one."""
    shop: Made
    """Of shop.test."""
    port: int
    ipv6: int
    """0: this machine has no IPv6."""
    unix: Path
    tls: int
    proxied: int
    """Expects a PROXY header from 127.0.0.0/8."""
    proxied_tls: int
    trusting: int
    """Believes X-Forwarded-* of 127.0.0.1."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log_line(self, path: str) -> dict[str, Any]:
        """Wait for the access log's line of this path (which must be asked for once)."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log_lines() if line.get("url.path") == path]

        (line,) = wait_for(f"the log line of {path}", found)
        return line

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log so far, whole lines only."""
        lines = self.gateway.access_log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def has_ipv6() -> bool:
    """Whether ::1 can be bound."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def write_files(root: Path) -> None:
    """What nginx serves. In the big one each eight bytes say where they stand, so nothing can be exchanged unseen."""
    static = root / "static"
    static.mkdir(parents=True)
    (static / "small.txt").write_bytes(SMALL)
    (static / "text.txt").write_bytes(TEXT)
    (static / "missing.html").write_bytes(MISSING)
    (static / "empty.bin").write_bytes(b"")
    (static / "big.bin").write_bytes(array.array("Q", range(BIG_BYTES // 8)).tobytes())


def settings(nginx_port: int, chat_port: int) -> Settings:
    """Three upstreams, by path."""
    extra: dict[str, Value] = {
        "upstream": {
            "nginx": {"endpoints": [f"http://127.0.0.1:{nginx_port}"]},
            "chat": {"endpoints": [f"http://127.0.0.1:{chat_port}"]},
        },
        "route": [
            {"name": "static", "match": {"path": "/static/*"}, "upstream": "nginx"},
            {"name": "chat", "match": {"path": "/ws/*"}, "upstream": "chat"},
            {"name": "app", "upstream": "u"},
        ],
    }
    return Settings(workers=2, extra=extra)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All of it."""
    directory = tmp_path_factory.mktemp("peers")
    root = directory / "root"
    write_files(root)
    with contextlib.ExitStack() as stack:
        nginx_port = free_port()
        nginx_pid = stack.enter_context(nginx(directory, nginx_port, root))
        made_app = stack.enter_context(app())
        made_chat = stack.enter_context(chat())
        started = stack.enter_context(gateway.running(made_app.port, settings(nginx_port, made_chat.port)))
        started.wait_event("serving")
        made = Site(
            gateway=started,
            app=made_app,
            chat=made_chat,
            root=root,
            nginx_pid=nginx_pid,
            certificate=certificates.make(directory, "gateway", "gateway.test", extra=",IP:127.0.0.1"),
            shop=certificates.make(directory, "shop", "shop.test"),
            port=started.address[1],
            ipv6=free_port() if has_ipv6() else 0,
            unix=directory / "http.sock",
            tls=free_port(),
            proxied=free_port(),
            proxied_tls=free_port(),
            trusting=free_port(),
        )
        started.reload({"listener": listeners(made)})
        yield made
        assert not started.events("worker died"), started.describe()


def listeners(site: Site) -> list[Value]:
    """Every kind."""
    tls: Value = {
        "certificates": [
            {"certificate": str(made.path), "key": str(made.key)} for made in (site.certificate, site.shop)
        ]
    }
    proxied: dict[str, Value] = {"proxy_protocol": True, "proxy_protocol_from": ["127.0.0.0/8"]}
    found: list[Value] = [
        {"address": f"127.0.0.1:{site.port}", "name": "plain"},
        {"address": f"unix:{site.unix}", "name": "unix"},
        {"address": f"127.0.0.1:{site.tls}", "name": "tls", "tls": tls},
        {"address": f"127.0.0.1:{site.proxied}", "name": "proxied", **proxied},
        {"address": f"127.0.0.1:{site.proxied_tls}", "name": "proxied-tls", "tls": tls, **proxied},
        {"address": f"127.0.0.1:{site.trusting}", "name": "trusting", "trusted": ["127.0.0.1"]},
    ]
    if site.ipv6:
        found.append({"address": f"[::1]:{site.ipv6}", "name": "ipv6"})
    return found
