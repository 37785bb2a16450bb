"""A stop in the middle of everything: streams end as they would, or say that they do not; and each is in the log."""

from __future__ import annotations

import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from tests.llm.gateway.support import CHAT, MESSAGES, RESPONSES, Stand, ask_for, events, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.gateway import Value
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream


def tables(port: int) -> dict[str, Any]:
    """A model that is never done, on a route that cancels and on one that reads on."""
    target = {"provider": "demo", "model": "mock/rate=20,tokens=400"}
    routes = [("llm", "/v1/*", {}), ("drain", "/drain/*", {"disconnect": "drain"})]
    return {
        "provider": {"demo": {"url": f"http://127.0.0.1:{port}/v1", "keys": ["sk-demo"]}},
        "model": {"long": {"targets": [target]}},
        "route": [{"name": name, "match": {"path": path}, "llm": llm} for name, path, llm in routes],
    }


def test_a_stop_in_the_middle() -> None:
    """Who still reads when the time is over gets the error of his dialect; what is only read on for its usage, because
    its client has left, is not waited for, and both are in the log with what was used."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        models = tables(demo.port)
        server: dict[str, Value] = {"admin": admin, "drain_timeout": 1}
        settings = gateway.Settings(workers=2, extra={"server": server, **models})
        with gateway.running(demo.port, settings) as found:
            stand = Stand(found, demo, scripted, models, admin)
            staying: list[RawClient] = []
            leaving: list[RawClient] = []
            for path, clients in product((CHAT, MESSAGES, RESPONSES), (staying, leaving)):
                body = ask_for("long", True) if path != RESPONSES else {"model": "long", "stream": True, "input": "a"}
                client = stand.client()
                client.send(request(body, path if clients is staying else "/drain" + path[3:]))
                while client.received.count(b"data: ") < 12:
                    assert client.read_some(), bytes(client.received)
                clients.append(client)
            for client in leaving:
                client.close()
            wait_for(lambda: len(stand.show("connections?count=10")) == 3, lambda: "they are still there")
            stand.wait_counts("mock/rate=20,tokens=400", open=6)
            found.stop()
            for client in staying:
                (answer,) = client.read_answers([Asked(b"POST")])
                assert answer.complete
                said = events(answer.body)[-1][1]["error"]["message"]
                assert said.endswith(" did not wait any longer")
            lines = [json.loads(line) for line in found.log_lines()]
            assert sorted(line["edgeq.reason"] for line in lines) == ["client_gone"] * 3 + ["draining"] * 3
            assert all(line["gen_ai.usage.output_tokens"] > 0 for line in lines), lines
            stand.wait_counts("mock/rate=20,tokens=400", open=0)
            stand.close_clients()
