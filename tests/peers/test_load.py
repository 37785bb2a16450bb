"""Load tools of others: not for speed, but every one of many requests must succeed."""

from __future__ import annotations

import re
import subprocess

from tests.peers.conftest import Site
from tests.peers.programs import need, run

REQUESTS = 20_000
EVENTS = 30


def test_h2load(site: Site) -> None:
    """Twenty thousand requests of 32 clients to nginx: none failed, none timed out, all 200."""
    command = [need("h2load", "nghttp2-client"), "--h1", "-n", str(REQUESTS), "-c", "32", "-t", "1"]
    text = run([*command, f"{site.url}/static/small.txt"]).text
    expected = f"requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed"
    assert expected in text, text
    assert re.search(rf"status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx", text), text


def test_events_come_one_by_one_to_curl(site: Site) -> None:
    """`curl -N` prints each event before the next one is sent."""
    command = [need("curl", "curl"), "-q", "-sS", "-N", "--noproxy", "*", "--max-time", "60"]
    with subprocess.Popen([*command, f"{site.url}/events/curl/{EVENTS}"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = []
        for line in process.stdout:
            if line.startswith(b"data: "):
                found.append(line.decode().strip())
                site.app.confirm("curl")
    assert process.returncode == 0
    assert found == [f"data: curl {number}" for number in range(EVENTS)]
