"""Bodies of requests for models are bounded together: who comes when they fill the worker is refused, and told so."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from edgeq.cli import admin_client_io
from tests.support import demo_llm, gateway
from tests.support.gateway import Settings
from tests.support.supervised import wait_for


def asked(size: int) -> bytes:
    """A request of about so many bytes."""
    return json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * size}]}).encode()


def test_a_body_that_has_no_room(tmp_path: Any) -> None:
    """While one is half there the next is too much; once the first has gone it is not."""
    admin = str(tmp_path / "admin.sock")
    with demo_llm.running("tokens=3") as provider:
        extra: dict[str, Any] = {
            "server": {"admin": admin},
            "protect": {"model_bodies": "64KiB"},
            "provider": {"p": {"url": f"{provider.url}/v1"}},
            "model": {"m": {"targets": [{"provider": "p", "model": "mock/tokens=3"}]}},
            "route": [{"name": "models", "llm": {}}],
        }
        with gateway.running(provider.port, Settings(extra=extra)) as edge:

            def ask() -> tuple[int, bytes]:
                connection = http.client.HTTPConnection(*edge.address, timeout=20)
                connection.request("POST", "/v1/chat/completions", asked(40_000))
                answer = connection.getresponse()
                found = answer.status, answer.read()
                connection.close()
                return found

            def held() -> dict[str, Any]:
                status, _, text = admin_client_io.get(admin, "/v1/queues?match=models:bodies", 20)
                assert status == 200, text
                return dict(*json.loads(text))  # of the one worker, once it has told something

            assert ask()[0] == 200
            with socket.create_connection(edge.address, timeout=20) as slow:
                whole = asked(50_000)
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(whole)}\r\n\r\n"
                slow.sendall(head.encode() + whole[:-5])
                wait_for("its bytes are seen", lambda: held().get("depth") == len(whole) - 5)
                assert held()["limit"] == 64 * 1024
                status, body = ask()
                assert status == 503
                assert json.loads(body)["error"]["code"] == "memory_pressure"
                assert "model_bodies" not in json.loads(body)["error"]["message"]  # how to mend it is not for clients
                slow.sendall(whole[-5:])
                assert slow.recv(15).startswith(b"HTTP/1.1 200")
            assert ask()[0] == 200
            wait_for("all are gone", lambda: held()["depth"] == 0)
            assert held()["refused"] == {"memory_pressure": 1}
            assert held()["high_water"] > 50_000
