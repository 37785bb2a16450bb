"""uNetworking/h1spec: its cases are read out of http_test.ts and judged by its rules.

A case is a request, the ranges of statuses that are right, perhaps the body, or that the server must wait.
Run: python3 -m benchmarks.suites.h1spec --gateway nginx --checkout ../h1spec
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.suites.common_io import Address, Verdict, arguments, exchange, report, status_of, target

_WAIT_S = 0.5
_CASE = re.compile(
    r'request:\s*(?P<request>"(?:[^"\\]|\\.)*"),\s*'
    r'description:\s*(?P<description>"(?:[^"\\]|\\.)*"),\s*'
    r"expectedStatus:\s*(?P<status>\[\[.*?\]\]),?\s*"
    r'(?:expectedTimeout:\s*(?P<waits>true),?\s*)?(?:expectedBody:\s*(?P<body>"(?:[^"\\]|\\.)*"),?\s*)?\}'
)


@dataclasses.dataclass(slots=True)
class SpecCase:
    """One case of the suite."""

    request: bytes
    description: str
    ranges: list[tuple[int, int]]
    waits: bool
    body: bytes | None


def _string(literal: str) -> str:
    return str(json.loads(re.sub(r"\\x([0-9A-Fa-f]{2})", r"\\u00\1", literal)))


def load(checkout: Path) -> list[SpecCase]:
    """All cases. Raises SystemExit when the file is not as expected."""
    text = (checkout / "http_test.ts").read_text()
    cases = []
    for match in _CASE.finditer(text):
        ranges = [(int(low), int(high)) for low, high in json.loads(match["status"])]
        body = _string(match["body"]).encode("latin-1") if match["body"] else None
        cases.append(
            SpecCase(
                _string(match["request"]).encode("latin-1"),
                _string(match["description"]),
                ranges,
                bool(match["waits"]),
                body,
            )
        )
    if len(cases) != len(re.findall(r"\brequest: \"", text)):
        raise SystemExit(f"{checkout}/http_test.ts: only {len(cases)} cases could be read")
    return cases


def run(address: Address, case: SpecCase) -> Verdict:
    """One case."""
    received, ended = exchange(address, case.request, _WAIT_S)
    if case.waits:
        return Verdict(case.description, not received and not ended, f"got {received[:40]!r}, ended {ended}")
    status = status_of(received)
    good = any(low <= status <= high for low, high in case.ranges)
    if good and status == 200 and case.body is not None:
        good = received.partition(b"\r\n\r\n")[2] == case.body
    return Verdict(case.description, good, f"status {status}, expected {case.ranges}")


def main() -> int:
    """Entry point."""
    options = arguments(__doc__ or "", "github.com/uNetworking/h1spec").parse_args()
    cases = load(options.checkout)
    with target(options) as address, ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(lambda case: run(address, case), cases))
    return report(f"h1spec, {options.gateway or options.target}", verdicts, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
