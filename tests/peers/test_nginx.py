"""nginx as an upstream: whole files whatever the client does, its own error pages, its connections used again."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from pathlib import Path

import pytest

from tests.peers.conftest import BIG_BYTES, MISSING, SMALL, TEXT, Site
from tests.peers.programs import curl
from tests.support import kernel
from tests.support.raw_client import RawClient

MIB = 1024 * 1024


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway.test", *fields, "", ""]).encode()


def test_a_large_file(site: Site, tmp_path: Path) -> None:
    """64 MiB arrive byte for byte, and the worker holds none of it afterwards."""
    copy = tmp_path / "copy"
    curl("-o", str(copy), f"{site.url}/static/big.bin")
    assert copy.stat().st_size == BIG_BYTES
    assert digest_of(copy) == digest_of(site.root / "static/big.bin")
    copy.unlink()


def test_a_slow_client_stops_nginx(site: Site) -> None:
    """Who reads nothing for a while costs bounded memory, disturbs nobody, and gets the whole file in the end."""
    workers = site.gateway.workers
    before = sum(map(kernel.private_memory_bytes, workers))
    slow = [RawClient(("127.0.0.1", site.port), 30, 65536) for _ in range(4)]
    for client in slow:
        client.send(get("/static/big.bin"))
    for client in slow:
        while b"\r\n\r\n" not in client.received:
            assert client.read_some()
    # nginx has filled what there is to fill once others have been served many times over.
    for _ in range(50):
        assert curl(f"{site.url}/static/small.txt").out == SMALL
    grown = sum(map(kernel.private_memory_bytes, workers)) - before
    assert grown < 16 * MIB, "four slow readers of 64 MiB each"
    hurried, *others = slow
    for client in others:
        client.reset()
    total = hashlib.sha256()
    head, _, first = bytes(hurried.received).partition(b"\r\n\r\n")
    assert f"content-length: {BIG_BYTES}" in head.decode().lower()
    total.update(first)
    left = BIG_BYTES - len(first)
    while left and (data := hurried.socket.recv(MIB)):
        total.update(data)
        left -= len(data)
    hurried.close()
    assert left == 0
    assert total.hexdigest() == digest_of(site.root / "static/big.bin")


def test_gzip_in_chunks(site: Site) -> None:
    """nginx compresses on the fly, so without a length; the gateway leaves the coding alone."""
    with RawClient(("127.0.0.1", site.port)) as client:
        answer = client.ask(get("/static/text.txt", "Accept-Encoding: gzip"))
        assert answer.get(b"content-encoding") == b"gzip"
        assert answer.get(b"transfer-encoding") == b"chunked"
        plain = client.ask(get("/static/text.txt"))
        assert plain.get(b"content-encoding") is None
        assert plain.body == TEXT
    ran = curl("--http1.0", "--compressed", f"{site.url}/static/text.txt")
    assert ran.out == TEXT


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/static/missing", 404, MISSING),
        ("/static/teapot", 418, b"short and stout"),
        ("/static/nothing", 204, b""),
        ("/static/moved", 302, None),
    ],
)
def test_its_answers_are_its_own(site: Site, path: str, status: int, body: bytes | None) -> None:
    """Error pages of the upstream pass as they are, with the gateway's request id."""
    with RawClient(("127.0.0.1", site.port)) as client:
        for _ in range(2):
            answer = client.ask(get(path))
            assert answer.status == status
            assert body is None or answer.body == body
            assert (answer.get(b"server") or b"").startswith(b"nginx/")
            assert answer.get(b"x-request-id")


def test_nginx_hangs_up(site: Site) -> None:
    """An upstream that closes instead of answering is a 502 with its reason, and the client may go on."""
    with RawClient(("127.0.0.1", site.port)) as client:
        answer = client.ask(get("/static/hang-up"))
        assert (answer.status, answer.get(b"connection")) == (502, b"keep-alive")
        assert client.ask(get("/static/small.txt")).body == SMALL
    assert site.log_line("/static/hang-up")["edgeq.reason"] == "upstream_reset"


def test_what_nginx_refuses(site: Site) -> None:
    """nginx refuses a POST to a file at its head: the answer comes whole, whatever becomes of the body."""
    with RawClient(("127.0.0.1", site.port)) as client:
        body = b"x" * 100_000
        request = get("/static/small.txt", f"Content-Length: {len(body)}").replace(b"GET", b"POST", 1) + body
        answer = client.ask(request)
        assert answer.status == 405
        if answer.get(b"connection") != b"close":  # all of the body was there before the answer
            assert client.ask(get("/static/small.txt")).body == SMALL


def test_many_clients_share_few_connections(site: Site) -> None:
    """A thousand requests of twenty clients need no more connections to nginx than clients, in all workers."""
    failures: list[str] = []

    def ask(number: int) -> None:
        with RawClient(("127.0.0.1", site.port)) as client:
            for _ in range(50):
                answer = client.ask(get(f"/static/small.txt?shared={number}"))
                if answer.body != SMALL:
                    failures.append(f"{answer.status}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    with contextlib.ExitStack() as stack:
        last = stack.enter_context(RawClient(("127.0.0.1", site.port)))
        assert last.ask(get("/static/small.txt?last")).body == SMALL

    def lines() -> list[bool]:
        found = [line for line in site.log_lines() if str(line.get("url.query", "")).startswith("shared=")]
        return [line["edgeq.reused"] for line in found]

    kernel.wait_until(lambda: len(lines()) == 1000, 20, "the log")
    assert lines().count(False) <= 20


def test_half_closed_client_gets_its_file(site: Site) -> None:
    """A client that sends its FIN right after the request still gets 4 MiB."""
    with RawClient(("127.0.0.1", site.port), 30) as client:
        client.send(get("/static/big.bin", "Range: bytes=0-4194303", "Connection: close"))
        client.socket.shutdown(socket.SHUT_WR)
        raw = client.read_to_end(30)
    assert len(raw.partition(b"\r\n\r\n")[2]) == 4 * MIB
