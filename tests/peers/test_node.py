"""Node's clients, as a browser-like library and as what most JavaScript services use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import MISSING, SMALL, TEXT, Site
from tests.peers.programs import need, run

SCRIPT = Path(__file__).with_name("node_client.mjs")
OLDEST = 18
"""The first with fetch."""


@pytest.fixture(scope="module")
def results(site: Site) -> dict[str, Any]:
    """What the script has seen."""
    node = need("node", "nodejs")
    version = run([node, "--version"]).text
    if int(version.strip("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node {version.strip()} has no fetch: {OLDEST} or later is needed")
    found = json.loads(run([node, str(SCRIPT), site.url, site.app.url]).out)
    assert isinstance(found, dict)
    return found


def test_http_agent(results: dict[str, Any]) -> None:
    """A keep-alive agent with four sockets: each is used again, uploads stream, 100 Continue comes."""
    got = results["agent"]
    assert got["targets"] == [f"/node/{number}/{index}" for number in range(5) for index in range(8)]
    assert got["sockets"] <= 4
    assert (got["head"], got["head_bytes"]) == (200, 0)
    assert got["missing"].encode() == MISSING
    assert (got["chunked"], got["expected"], got["framing"]) == (True, True, "chunked")


def test_fetch(results: dict[str, Any]) -> None:
    """Forty at once, gzip, a streamed upload, a range, a redirect, and an answer that is no longer wanted."""
    got = results["fetch"]
    assert got["targets"] == [f"/fetch/{number}?q={number}" for number in range(40)]
    assert got["text"] == hashlib.sha256(TEXT).hexdigest()
    assert got["upload"]
    assert got["range"] == [206, SMALL[6:12].decode()]
    assert got["moved"] == [True, SMALL.decode()]
    assert got["after"] == "AbortError"


def test_events_come_one_by_one(results: dict[str, Any]) -> None:
    """Each event of a stream is read by fetch and confirmed before the next one is sent."""
    assert results["events"] == [f"node {number}" for number in range(30)]
