"""h2load over HTTP/1.1: half a million requests, none of which may fail.

The upstream is nginx, which answers 1 KiB. Run: python3 -m benchmarks.suites.h2load --gateway edgeq
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.suites.common_io import Address, arguments
from tests.support import kernel
from tests.support.gateway import Settings, free_port, running
from tests.support.raw_client import RawClient


@contextlib.contextmanager
def nginx_origin() -> Iterator[int]:
    """nginx as an origin that answers 1 KiB."""
    with tempfile.TemporaryDirectory(prefix="origin-") as name:
        port = free_port()
        configuration = Path(name) / "nginx.conf"
        temporary = " ".join(
            f"{kind}_temp_path {name};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration.write_text(
            f"daemon off; worker_processes 1; pid {name}/pid; events {{ worker_connections 4096; }}\n"
            f"http {{ access_log off; keepalive_requests 100000000; {temporary}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{'x' * 1024}'; }} }} }}\n"
        )
        process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(configuration), "-e", f"{name}/error.log"])
        try:
            kernel.wait_until(lambda: _accepts(port), 10, "nginx accepts")
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _accepts(port: int) -> bool:
    try:
        RawClient(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def run(address: Address, requests: int, connections: int) -> tuple[bool, str]:
    """Returns: whether all succeeded, and h2load's summary."""
    command = ["h2load", "--h1", "-n", str(requests), "-c", str(connections), f"http://{address[0]}:{address[1]}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200).stdout
    summary = "\n".join(
        line for line in output.splitlines() if line.startswith(("finished", "requests", "status codes"))
    )
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    good = re.search(r"status codes: (\d+) 2xx", output)
    return bool(found and good and int(found[1]) == requests == int(good[1])), summary


def main() -> int:
    """Entry point."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    if options.target:
        host, _, port = options.target.rpartition(":")
        good, summary = run((host, int(port)), options.requests, options.connections)
    else:
        with nginx_origin() as port, running(port, Settings(access_log=False), options.gateway) as gateway:
            good, summary = run(gateway.address, options.requests, options.connections)
    print(f"{summary}\nh2load, {options.gateway or options.target}: {'no failure' if good else 'FAILURES'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
