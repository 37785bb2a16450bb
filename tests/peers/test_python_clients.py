"""Python's HTTP clients: http.client, urllib3, httpx and aiohttp, each with what it does in its own way."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import urllib3

from tests.peers.conftest import SMALL, TEXT, Site

PIECES = [b"%d," % number * 1000 for number in range(200)]
UPLOAD = b"".join(PIECES)
DIGEST = hashlib.sha256(UPLOAD).hexdigest()
TIMEOUT_S = 30


def check_upload(got: dict[str, Any], framing: str = "transfer-encoding") -> None:
    """The app got all pieces, framed as they were sent."""
    assert (got["size"], got["sha256"]) == (len(UPLOAD), DIGEST)
    assert len(got["fields"].keys() & {"transfer-encoding", "content-length"}) == 1
    assert framing in got["fields"]


def test_http_client(site: Site) -> None:
    """One connection for downloads, chunked uploads, HEAD and 304, in HTTP/1.1."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT_S)
    connection.connect()
    sock = connection.sock
    for _ in range(3):
        connection.request("GET", "/static/small.txt")
        answer = connection.getresponse()
        assert (answer.status, answer.version, answer.read()) == (200, 11, SMALL)
        tag = answer.getheader("ETag")
        assert tag
        connection.request("POST", "/upload", body=iter(PIECES), encode_chunked=True)
        check_upload(json.load(connection.getresponse()))
        connection.request("POST", "/upload", body=UPLOAD)
        check_upload(json.load(connection.getresponse()), "content-length")
        connection.request("HEAD", "/static/text.txt")
        answer = connection.getresponse()
        assert (answer.getheader("Content-Length"), answer.read()) == (str(len(TEXT)), b"")
        connection.request("GET", "/static/small.txt", headers={"If-None-Match": tag})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (304, b"")
        assert connection.sock is sock
    connection.close()


def test_http_client_in_http_1_0(site: Site) -> None:
    """What has no length comes close-delimited, and the connection ends."""

    class Old(http.client.HTTPConnection):
        _http_vsn = 10
        _http_vsn_str = "HTTP/1.0"

    connection = Old("127.0.0.1", site.port, timeout=TIMEOUT_S)
    connection.request("GET", "/static/text.txt", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.getheader("Transfer-Encoding") is None
    assert answer.will_close
    assert len(answer.read()) > 0
    connection.close()


def test_urllib3(site: Site) -> None:
    """A pool of one connection is enough; gzip is decoded; a body streams both ways; no retry is ever needed."""
    with urllib3.HTTPConnectionPool("127.0.0.1", site.port, maxsize=1, retries=False, timeout=TIMEOUT_S) as pool:
        for _ in range(5):
            assert pool.request("GET", "/static/small.txt").data == SMALL
            answer = pool.request("GET", "/static/text.txt", headers={"Accept-Encoding": "gzip"}, preload_content=False)
            assert answer.headers["Content-Encoding"] == "gzip"
            assert b"".join(answer.stream(1000, decode_content=True)) == TEXT
            answer.release_conn()
            check_upload(pool.request("PUT", "/upload", body=iter(PIECES), chunked=True).json())
        assert (pool.num_connections, pool.num_requests) == (1, 15)


def test_urllib3_through_tls(site: Site) -> None:
    """The same over TLS, by another certificate's name."""
    with urllib3.HTTPSConnectionPool(
        "127.0.0.1",
        site.tls,
        maxsize=1,
        retries=False,
        timeout=TIMEOUT_S,
        ca_certs=str(site.shop.path),
        server_hostname="shop.test",
        assert_hostname="shop.test",
    ) as pool:
        for _ in range(3):
            assert pool.request("GET", "/static/text.txt", headers={"Host": "shop.test"}).data == TEXT
            check_upload(pool.request("POST", "/upload", body=UPLOAD).json(), "content-length")
        assert pool.num_connections == 1


def test_httpx(site: Site) -> None:
    """One connection, as seen from outside; streaming both ways; forms, queries and cookies arrive as sent."""
    with httpx.Client(base_url=site.url, timeout=TIMEOUT_S, trust_env=False) as client:
        addresses = set()
        for _ in range(3):
            with client.stream("GET", "/static/text.txt") as answer:
                addresses.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                assert b"".join(answer.iter_bytes(777)) == TEXT
            check_upload(client.post("/upload", content=iter(PIECES)).json())
            got = client.post("/form?q=a%20b", data={"x": "ä"}, headers={"Cookie": "a=1; b=2", "X-Two": "1, 2"}).json()
            assert got["target"] == "/form?q=a%20b"
            assert got["size"] == len("x=%C3%A4")
            assert (got["fields"]["cookie"], got["fields"]["x-two"]) == ("a=1; b=2", "1, 2")
        assert len(addresses) == 1


def test_httpx_through_a_unix_socket(site: Site) -> None:
    """The same library over a Unix socket."""
    transport = httpx.HTTPTransport(uds=str(site.unix))
    with httpx.Client(base_url="http://gateway.test", transport=transport, timeout=TIMEOUT_S) as client:
        for _ in range(3):
            assert client.get("/static/small.txt").content == SMALL
            check_upload(client.post("/upload", content=iter(PIECES)).json())


async def _pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


def test_aiohttp(site: Site) -> None:
    """Fifty at once on at most ten connections, which are kept; chunked uploads that wait for 100 Continue."""
    made: list[int] = []

    async def on_made(*_: object) -> None:
        made.append(1)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        async with session.get(f"{site.url}/get/{number}") as answer:
            assert (await answer.json())["target"] == f"/get/{number}"
        async with session.get(f"{site.url}/static/text.txt") as answer:
            assert await answer.read() == TEXT
        async with session.post(f"{site.url}/upload", data=_pieces(), expect100=True) as answer:
            check_upload(await answer.json())

    async def main() -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(on_made)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=10),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            trace_configs=[trace],
        ) as session:
            await asyncio.gather(*(one(session, number) for number in range(50)))

    asyncio.run(main())
    assert len(made) <= 10


def test_aiohttp_through_tls(site: Site) -> None:
    """Concurrent requests over TLS."""

    async def main() -> None:
        context = ssl.create_default_context(cafile=site.certificate.path)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=5, ssl=context), timeout=timeout) as one:

            async def get() -> bytes:
                async with one.get(f"https://127.0.0.1:{site.tls}/static/text.txt") as answer:
                    return await answer.read()

            assert set(await asyncio.gather(*(get() for _ in range(30)))) == {TEXT}

    asyncio.run(main())


def _http_client_lines(site: Site, path: str) -> Iterator[str]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    while line := answer.readline():
        yield line.decode()
    connection.close()


def _httpx_lines(site: Site, path: str) -> Iterator[str]:
    with httpx.stream("GET", site.url + path, timeout=TIMEOUT_S, trust_env=False) as answer:
        yield from answer.iter_lines()


def _urllib3_lines(site: Site, path: str) -> Iterator[str]:
    with urllib3.HTTPConnectionPool("127.0.0.1", site.port, retries=False, timeout=TIMEOUT_S) as pool:
        answer = pool.request("GET", path, preload_content=False)
        for chunk in answer.read_chunked():  # chunks as they were sent
            yield from chunk.decode().splitlines()


EVENTS = 30
_names = itertools.count()


@pytest.mark.parametrize("lines", [_http_client_lines, _httpx_lines, _urllib3_lines])
def test_events_come_one_by_one(site: Site, lines: Any) -> None:
    """No event is held back: the next one is only sent after the client has confirmed the one before."""
    name = f"python-{next(_names)}"
    found = []
    for line in lines(site, f"/events/{name}/{EVENTS}"):
        if line.startswith("data: "):
            found.append(line.strip())
            site.app.confirm(name)
    assert found == [f"data: {name} {number}" for number in range(EVENTS)]


def test_events_come_one_by_one_to_aiohttp(site: Site) -> None:
    """The same, for ten streams at once."""

    async def read(session: aiohttp.ClientSession, name: str) -> list[str]:
        found = []
        async with session.get(f"{site.url}/events/{name}/{EVENTS}") as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    found.append(line.decode().strip())
                    site.app.confirm(name)
        return found

    async def main() -> None:
        names = [f"aiohttp-{next(_names)}" for _ in range(10)]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            found = await asyncio.gather(*(read(session, name) for name in names))
        assert found == [[f"data: {name} {number}" for number in range(EVENTS)] for name in names]

    asyncio.run(main())
