"""gunicorn's and llhttp's corpora of requests: how many invalid ones pass, how many valid ones do not.

gunicorn: tests/requests/{valid,invalid}/*.http (of the valid ones those which need no special configuration).
llhttp: the Markdown files of test/request; a case is invalid when its log ends in an error.
Where Host is missing it is added. An invalid request is accepted when it is answered 2xx. Many "invalid" requests are
invalid only for one of the two parsers, and some only by its default settings: the number is to be compared, not to be
zero.
Run: python3 -m benchmarks.suites.corpora --gateway nginx --gunicorn ../gunicorn --llhttp ../llhttp
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.suites.common_io import Address, Verdict, arguments, exchange, report, status_of, target

_WAIT_S = 0.7
_LLHTTP_FILES = ("sample", "method", "uri", "connection", "content-length", "transfer-encoding", "invalid")
_CASE = re.compile(r"<!-- meta=(\{.*?\}) -->\s*```http\n(.*?)\n?```\s*```log\n(.*?)```", re.DOTALL)


@dataclasses.dataclass(slots=True)
class CorpusCase:
    """One request of a corpus."""

    name: str
    request: bytes
    valid: bool


def gunicorn(checkout: Path) -> Iterator[CorpusCase]:
    """gunicorn's files: newlines are layout, escapes are bytes."""
    for kind in ("invalid", "valid"):
        for path in sorted((checkout / "tests" / "requests" / kind).glob("*.http")):
            data = path.read_bytes().replace(b"\n", b"")
            for escape, byte in ((b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\t", b"\t")):
                data = data.replace(escape, byte)
            data = re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), data)
            config = path.with_suffix(".py").read_text()
            if kind == "valid" and "cfg.set(" in config:
                continue  # valid only with a special setting of gunicorn
            yield CorpusCase(f"gunicorn/{kind}/{path.stem}", data, kind == "valid")


def llhttp(checkout: Path) -> Iterator[CorpusCase]:
    """llhttp's Markdown: newlines are CRLF, escapes are bytes."""
    for name in _LLHTTP_FILES:
        text = (checkout / "test" / "request" / f"{name}.md").read_text()
        for match in _CASE.finditer(text):
            meta = json.loads(match[1])
            if meta.get("type", "") != "request":
                continue  # lenient modes
            line = text.count("\n", 0, match.start()) + 1
            raw = re.sub(r"\\\n", "", match[2]).replace("\n", "\r\n")
            for escape, byte in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\\f", "\f")):
                raw = raw.replace(escape, byte)
            raw = re.sub(r"\\x([0-9a-fA-F]+)", lambda found: chr(int(found[1], 16)), raw)
            raw = re.sub(r"\\([0-7]{1,3})", lambda found: chr(int(found[1], 8)), raw)
            raw = re.sub(r"\$\{'(.)'\.repeat\((\d+)\)\}", lambda found: found[1] * int(found[2]), raw)
            valid = "error code=" not in match[3] or "code=22" in match[3]  # 22: paused for an upgrade
            yield CorpusCase(f"llhttp/{name}:{line}", raw.encode("latin-1", "replace"), valid)


def with_host(request: bytes) -> bytes:
    """The parsers of both corpora do not ask for Host; without one, most requests would be refused for that alone."""
    at = len(request) - len(request.lstrip(b"\r\n"))  # empty lines may stand before it
    at = max(0, request.find(b"\r\n", at))
    start, newline, rest = request[:at], request[at : at + 2], request[at + 2 :]
    head = rest.partition(b"\r\n\r\n")[0].lower()
    if not re.search(rb" HTTP/1\.[0-9]\Z", start) or re.search(rb"(\A|\n)\s*host[ \t]*:", head):
        return request
    return start + newline + b"Host: localhost\r\n" + rest


def run(address: Address, case: CorpusCase) -> Verdict:
    """One request: an invalid one must not be answered 2xx, a valid one must not be answered 4xx or 5xx."""
    received, _ = exchange(address, with_host(case.request), _WAIT_S)
    status = status_of(received)
    accepted = 200 <= status < 300
    return Verdict(case.name, accepted if case.valid else not accepted, f"status {status}: {case.request[:100]!r}")


def main() -> int:
    """Entry point."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--gunicorn", type=Path, metavar="DIR", help="a copy of github.com/benoitc/gunicorn")
    parser.add_argument("--llhttp", type=Path, metavar="DIR", help="a copy of github.com/nodejs/llhttp")
    options = parser.parse_args()
    cases = [*(gunicorn(options.gunicorn) if options.gunicorn else ())]
    cases += llhttp(options.llhttp) if options.llhttp else ()
    with target(options) as address, ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(lambda case: run(address, case), cases))
    name = options.gateway or options.target
    invalid = [verdict for case, verdict in zip(cases, verdicts, strict=True) if not case.valid]
    valid = [verdict for case, verdict in zip(cases, verdicts, strict=True) if case.valid]
    report(f"valid requests accepted, {name}", valid, options.verbose)
    return report(f"invalid requests refused, {name}", invalid, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
