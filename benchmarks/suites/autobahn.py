"""Autobahn's fuzzing client through the tunnel to an echo server (cases 1 to 7 and 10; 9, 12, 13 are about speed and
compression between the peers).

The echo server is the `websockets` library, so compare with ``--direct``, which leaves the gateway out.
Run: python3 -m benchmarks.suites.autobahn --gateway nginx --wstest /path/to/venv/bin/wstest
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.suites.common_io import Address, Verdict, arguments, report
from benchmarks.suites.websocket_echo import echo_server
from tests.support.gateway import Settings, running

_GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")


def run(wstest: str, address: Address) -> list[Verdict]:
    """All cases; reads the index that the client writes."""
    with tempfile.TemporaryDirectory(prefix="autobahn-") as name:
        directory = Path(name)
        specification = {
            "outdir": str(directory / "reports"),
            "servers": [{"agent": "gateway", "url": f"ws://{address[0]}:{address[1]}"}],
            "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (directory / "client.json").write_text(json.dumps(specification))
        command = [wstest, "-m", "fuzzingclient", "-s", str(directory / "client.json")]
        subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL, timeout=1200)
        index = json.loads((directory / "reports" / "index.json").read_text())
    results = next(iter(index.values()))
    return [
        Verdict(case, result["behavior"] in _GOOD, f"{result['behavior']}, close {result['behaviorClose']}")
        for case, result in sorted(results.items())
    ]


def main() -> int:
    """Entry point."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--wstest", default="wstest", metavar="FILE", help="the program of PyPI's autobahntestsuite")
    parser.add_argument("--direct", action="store_true", help="without the gateway, to see what the echo server gets")
    options = parser.parse_args()
    if options.target:
        host, _, port = options.target.rpartition(":")
        verdicts = run(options.wstest, (host, int(port)))
    else:
        with echo_server() as port:
            if options.direct:
                verdicts = run(options.wstest, ("127.0.0.1", port))
            else:
                with running(port, Settings(access_log=False), options.gateway) as gateway:
                    verdicts = run(options.wstest, gateway.address)
    name = "direct" if options.direct else options.gateway or options.target
    return report(f"Autobahn, {name}", verdicts, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
