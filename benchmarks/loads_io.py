"""Put load on one proxy and say what came of it: wrk for closed loops, own peers for streams and held connections.

Invariant: a result counts only complete answers; `errors` is the number of answers that were wrong in any way.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import random
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import processes_io
from benchmarks.rows import (
    MIB,
    REQUEST_HEADERS,
    ROUTE_HOSTS,
    ROUTE_PREFIXES,
    SSE_EVENTS,
    SSE_GAP_S,
    Row,
    StreamLoad,
    Variant,
    WrkLoad,
    route_host,
)


class LoadFailed(Exception):
    """The load generator itself failed, or an answer was wrong before any measurement."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One window of load."""

    requests: int
    seconds: float
    errors: int
    details: dict[str, float] = field(default_factory=dict)


def get_json(port: int, path: str) -> Any:
    """What a server of this machine answers to a GET. Raises: OSError, ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def _quoted(text: str) -> str:
    return json.dumps(text)


def _head_lines(replaced: dict[str, str]) -> str:
    """The request's header lines as a Lua expression; `replaced` maps a header to the Lua expression of its value."""
    parts = [
        f"{_quoted(name + ': ')} .. {replaced[name]} .. '\\r\\n'"
        if name in replaced
        else _quoted(f"{name}: {value}\r\n")
        for name, value in REQUEST_HEADERS
    ]
    return " .. ".join(parts)


def wrk_script(load: WrkLoad, start: int) -> str:
    """The Lua script for wrk. `start` makes varied requests differ from those of every earlier window."""
    if load.requests in ("same", "upload"):
        headers = "".join(f"wrk.headers[{_quoted(name)}] = {_quoted(value)}\n" for name, value in REQUEST_HEADERS)
        text = f"wrk.path = {_quoted(load.path)}\n{headers}"
        if load.close:
            text += 'wrk.headers["Connection"] = "close"\n'
        if load.requests == "upload":
            text += f"wrk.method = 'POST'\nwrk.body = string.rep('x', {MIB})\n"
    elif load.requests == "varied":
        replaced = {"Cookie": "'session=' .. token .. '; theme=dark; cart=18'", "X-Client-Step": "n"}
        text = f"""
local n = {start}
request = function()
  n = n + 1
  local token = string.format('%08x%08x', n * 2654435761 % 4294967296, n * 40503 % 4294967296)
  return 'GET /catalogue/item-' .. n .. '?ref=' .. token .. ' HTTP/1.1\\r\\n' .. {_head_lines(replaced)} .. '\\r\\n'
end
"""
    else:
        hosts = ", ".join(_quoted(route_host(host)) for host in range(ROUTE_HOSTS))
        prefixes = ", ".join(_quoted(prefix) for prefix in ROUTE_PREFIXES)
        # 7 and 500 have no common divisor: every host is asked, and neighbours in time are none in the table.
        text = f"""
local hosts, prefixes, n = {{ {hosts} }}, {{ {prefixes} }}, 0
request = function()
  n = n + 1
  local host = hosts[n * 7 % {ROUTE_HOSTS} + 1]
  local prefix = prefixes[math.floor(n / {ROUTE_HOSTS}) % {len(ROUTE_PREFIXES)} + 1]
  return 'GET /' .. prefix .. '/item HTTP/1.1\\r\\n' .. {_head_lines({"Host": "host"})} .. '\\r\\n'
end
"""
    return text + WRK_REPORT


WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"bytes":%d,"duration_us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
"""The end of each script: what wrk has counted, as JSON."""


def run_tool(command: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a load generator on its processor; returns the JSON object that it prints last."""
    # A session of its own: Ctrl-C reaches the harness only, which then stops everything in order.
    process = subprocess.Popen(
        ["taskset", "-c", str(processes_io.LOAD_CORE), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=processes_io.ROOT,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{command[0]} did not end within {timeout_s:g} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    try:
        result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise LoadFailed(f"{command[0]} failed: {output.strip()[-400:]}") from error
    return result


def run_wrk(row: Row, load: WrkLoad, port: int, seconds: float, directory: str) -> LoadResult:
    """A closed loop with wrk."""
    script = wrk_script(load, start=random.randrange(1, 2_000_000))
    url = f"{'https' if row.tls else 'http'}://127.0.0.1:{port}{load.path}"
    return run_wrk_script(script, url, load.connections, seconds, row.answer_bytes, directory)


def run_wrk_script(
    text: str, url: str, connections: int, seconds: float, answer_bytes: int, directory: str
) -> LoadResult:
    """A closed loop with wrk and a script; an answer has at least `answer_bytes`."""
    script = Path(directory, "wrk.lua")
    script.write_text(text, encoding="utf-8")
    times = [f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    found = run_tool(["wrk", "-t1", f"-c{connections}", *times, "-s", str(script), url], seconds + 60)
    requests, errors = int(found["requests"]), int(found["errors"])
    if found["bytes"] < requests * answer_bytes:
        errors += requests - int(found["bytes"]) // max(1, answer_bytes)
    return LoadResult(
        requests, found["duration_us"] / 1e6, errors, {"p50_us": found["p50_us"], "p99_us": found["p99_us"]}
    )


def run_streams(load: StreamLoad, port: int, seconds: float, python: str, request: Sequence[str] = ()) -> LoadResult:
    """Whole event streams, about `seconds` of them. `request`: of the peer, where it is another than its own."""
    answers = max(1, round(seconds / (SSE_EVENTS * SSE_GAP_S)))
    arguments = [port, load.connections, answers, SSE_EVENTS, SSE_GAP_S * 1000, *request]
    found = run_tool(
        [python, "-m", "benchmarks.peer_streams_io", *(str(argument) for argument in arguments)], 120 + 4 * seconds
    )
    expected = load.connections * answers
    errors = int(found["errors"]) + abs(expected - int(found["answers"]))
    merged = found["merged_reads"] / max(1.0, found["reads"])
    return LoadResult(int(found["answers"]), found["seconds"], errors, {"merged_reads_share": merged})


class HeldConnections:
    """Connections that each made one request and are then kept open, by a process of their own, until `close`."""

    __slots__ = ("_process",)

    def __init__(self, python: str, port: int, count: int, answer_bytes: int) -> None:
        arguments = ["-m", "benchmarks.peer_holder_io", str(port), str(count), str(answer_bytes)]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(processes_io.LOAD_CORE), python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=processes_io.ROOT,
        )
        try:
            opened = self._line()
        except BaseException:
            self.close()
            raise
        if "error" in opened:
            self.close()
            raise LoadFailed(str(opened["error"]))

    def _line(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed("the process that holds connections ended")
        found: dict[str, object] = json.loads(line)
        return found

    def close(self) -> int:
        """Close all; returns how many the proxy had closed before."""
        if self._process.poll() is not None:
            return 0
        output = ""
        try:
            output, _ = self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        # Interrupted while it was opening, it still says that first.
        last = output.splitlines()[-1] if output else "{}"
        return int(json.loads(last).get("closed", 0))


def parse_accepts(text: str) -> int:
    """Connections that an upstream has accepted so far, from the page of nginx's stub_status."""
    return int(text.splitlines()[2].split()[0])


def upstream_accepts(port: int) -> int:
    """Connections that the upstream has accepted so far, the one that asks included."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/_status")
        return parse_accepts(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
        raise LoadFailed(f"the upstream's state cannot be read: {error}") from error
    finally:
        connection.close()


def _connect(row: Row, port: int) -> http.client.HTTPConnection:
    if not row.tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a certificate that was made for this run
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)


def _exchange(
    connection: http.client.HTTPConnection, path: str, host: str, body: bytes | None, length: int
) -> tuple[http.client.HTTPResponse, bytes]:
    headers = {**dict(REQUEST_HEADERS), "Host": host}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200 or (length and len(content) != length):
        raise LoadFailed(f"{path} of {host}: status {answer.status}, {len(content)} bytes instead of {length}")
    return answer, content


def verify(row: Row, variant: Variant, port: int) -> dict[str, str]:
    """Ask a few requests and check that the proxy does all that the comparison asks of it.

    Returns what was negotiated; raises LoadFailed with the first difference.
    """
    connection = _connect(row, port)
    prefix = f"/{ROUTE_PREFIXES[0]}" if variant.routes > 1 else ""
    host = route_host(0) if variant.routes > 1 else dict(REQUEST_HEADERS)["Host"]
    try:
        shown = []
        for _ in range(3):
            answer, content = _exchange(connection, f"{prefix}/_echo", host, None, 0)
            shown = content.decode().split("|")
        request_id, forwarded_for, forwarded_proto, number = shown
        if not request_id or answer.getheader("X-Request-Id") != request_id:
            raise LoadFailed(f"request id {request_id!r} upstream, {answer.getheader('X-Request-Id')!r} in the answer")
        # Envoy puts its own address in the place of a loopback client's, so any address must do.
        ipaddress.ip_address(forwarded_for)
        if forwarded_proto != ("https" if row.tls else "http"):
            raise LoadFailed(f"X-Forwarded-Proto is {forwarded_proto!r}")
        if int(number) < 2:
            raise LoadFailed("the connection to the upstream is not kept")
        if isinstance(row.load, StreamLoad):
            _, content = _exchange(connection, "/events", host, None, 0)
            if content.count(b"\n\n") != SSE_EVENTS:
                raise LoadFailed(f"{content.count(b'data: ')} events instead of {SSE_EVENTS}")
        elif isinstance(row.load, WrkLoad):
            body = b"x" * MIB if row.load.requests == "upload" else None
            _exchange(connection, f"{prefix}{row.load.path}", host, body, row.answer_bytes)
            if variant.routes > 1:
                for number_of_host in range(ROUTE_HOSTS):
                    for one in ROUTE_PREFIXES:
                        _exchange(connection, f"/{one}/item", route_host(number_of_host), None, row.answer_bytes)
        if isinstance(connection.sock, ssl.SSLSocket):
            cipher = connection.sock.cipher()
            return {"tls": f"{connection.sock.version()} {cipher[0] if cipher else ''}"}
        return {}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LoadFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
