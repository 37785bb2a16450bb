"""curl as a client: versions, connections, uploads, ranges, validation, addresses, TLS."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import BIG_BYTES, SMALL, TEXT, Site
from tests.peers.programs import Ran, curl

UPLOAD = b"".join(number.to_bytes(8, "big") for number in range(400_000))


def told(ran: Ran) -> dict[str, Any]:
    """What the app says that it got."""
    found = json.loads(ran.out)
    assert isinstance(found, dict)
    return found


def check_upload(got: dict[str, Any], body: bytes = UPLOAD) -> None:
    """The app got this body."""
    assert (got["size"], got["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_get(site: Site, version: str) -> None:
    """Both versions get the file, and the fields that say who else was there."""
    ran = curl(version, "-i", f"{site.url}/static/small.txt")
    head, _, body = ran.out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-request-id: " in head.lower()
    assert body == SMALL


def test_forwarded_fields(site: Site) -> None:
    """The upstream is asked in HTTP/1.1 and told who asks, what for and through whom; hop-by-hop fields stay here."""
    options = ["-H", "Connection: close, X-Mine", "-H", "X-Mine: 1", "-H", "X-Forwarded-For: 192.0.2.1"]
    fields = told(curl("--http1.0", *options, f"{site.url}/x"))["fields"]
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["x-forwarded-host"] == fields["host"] == f"127.0.0.1:{site.port}"
    assert fields["via"].startswith("1.0 ")
    assert "x-mine" not in fields
    assert fields.keys() >= {"traceparent", "x-request-id"}


@pytest.mark.parametrize("version", [["--http1.1"], ["--http1.0", "-H", "Connection: keep-alive"]])
def test_connections_are_kept(site: Site, version: list[str]) -> None:
    """One connection serves GET, HEAD, 304, 404, PUT and an empty file one after the other."""
    count = ["-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null"]
    steps = [
        ["/static/small.txt"],
        ["-I", "/static/big.bin"],
        ["-H", "If-None-Match: *", "/static/small.txt"],
        ["/static/missing"],
        ["-X", "PUT", "--data-binary", "abc", "/put"],
        ["/static/empty.bin"],
        ["/static/nothing"],
        ["/last"],
    ]
    arguments: list[str] = []
    for step in steps:
        arguments += ["--next", *version, *count, *step[:-1], site.url + step[-1]]
    lines = curl(*arguments[1:]).text.splitlines()
    assert lines == ["1 200", "0 200", "0 304", "0 404", "0 200", "0 200", "0 204", "0 200"]


def test_http_1_0_is_closed_unless_it_asks(site: Site) -> None:
    """Without keep-alive each answer of HTTP/1.0 ends its connection."""
    count = ["--http1.0", "-w", "%{num_connects}", "-o", "/dev/null"]
    assert curl(*count, f"{site.url}/a", "--next", *count, f"{site.url}/b").text == "11"


def test_chunked_upload_from_stdin(site: Site) -> None:
    """A body of unknown length is passed on in chunks, not collected."""
    got = told(curl("-T", "-", f"{site.url}/chunked", stdin=UPLOAD))
    check_upload(got)
    assert got["method"] == "PUT"
    assert got["fields"]["transfer-encoding"] == "chunked"
    assert "content-length" not in got["fields"]


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_expect_continue(site: Site, kind: str, tmp_path: Path) -> None:
    """The upstream's 100 reaches curl, which waits half a minute for it, and then the body the upstream."""
    path = tmp_path / "body"
    path.write_bytes(UPLOAD)
    upload = ["--data-binary", f"@{path}"] if kind == "length" else ["-X", "POST", "-T", "-"]
    options = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "--max-time", "20"]
    ran = curl(*options, *upload, f"{site.url}/expect", stdin=UPLOAD)
    assert b"< HTTP/1.1 100 Continue" in ran.err
    check_upload(told(ran))


def test_expectation_that_is_refused(site: Site, tmp_path: Path) -> None:
    """An upstream that does not want the body says so before any of it is sent."""
    path = tmp_path / "body"
    path.write_bytes(UPLOAD)
    options = ["-H", "Expect: 100-continue", "--expect100-timeout", "30", "-w", "\n%{http_code} %{size_upload}"]
    ran = curl(*options, "--data-binary", f"@{path}", f"{site.url}/refuse")
    assert ran.text.splitlines() == ['{"refused": true}', "413 0"]


@pytest.mark.parametrize("path", ["/refuse", "/reset"])
def test_refused_without_asking(site: Site, path: str) -> None:
    """The same for a client that does not ask: it gets the answer, not a reset, even if the upstream resets."""
    ran = curl("-H", "Expect:", "-T", "-", "-w", "\n%{http_code}", site.url + path, stdin=UPLOAD)
    assert ran.text.splitlines() == ['{"refused": true}', "413"]


def test_head(site: Site) -> None:
    """The length of a body that does not come."""
    head = curl("-I", f"{site.url}/static/big.bin").text.lower()
    assert f"content-length: {BIG_BYTES}\r\n" in head


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("6-11", 206, SMALL[6:12]),
        ("-5", 206, SMALL[-5:]),
        ("20-", 206, SMALL[20:]),
        ("5000-", 416, None),
    ],
)
def test_ranges(site: Site, wanted: str, status: int, body: bytes | None) -> None:
    """Parts of a file, and a part that is not there."""
    ran = curl("-r", wanted, "-w", "%{stderr}%{http_code}", f"{site.url}/static/small.txt")
    assert int(ran.err) == status
    assert body is None or ran.out == body


def test_several_ranges(site: Site) -> None:
    """Two parts in one multipart answer."""
    ran = curl("-i", "-r", "0-4,6-11", f"{site.url}/static/small.txt")
    assert ran.out.startswith(b"HTTP/1.1 206 ")
    assert b"multipart/byteranges" in ran.out
    assert ran.out.count(b"Content-Range: bytes") == 2
    assert b"\r\n\r\nsmall\r\n" in ran.out
    assert b"\r\n\r\nenough\r\n" in ran.out


def test_not_modified(site: Site, tmp_path: Path) -> None:
    """curl's own validation by entity tag, and by date: 304 without a body."""
    tag = str(tmp_path / "tag")
    url = f"{site.url}/static/text.txt"
    copy = tmp_path / "copy"
    curl("--etag-save", tag, "-R", "-o", str(copy), url)
    assert copy.read_bytes() == TEXT
    ran = curl("--etag-compare", tag, "-w", "%{stderr}%{http_code}", url)
    assert (ran.err, ran.out) == (b"304", b"")
    ran = curl("-z", str(copy), "-w", "%{stderr}%{http_code}", url)
    assert (ran.err, ran.out) == (b"304", b"")


def test_redirects_are_left_to_the_client(site: Site) -> None:
    """Location comes as the upstream wrote it, and leads through the gateway again, on the same connection."""
    ran = curl("-L", "-w", "%{stderr}%{num_redirects} %{num_connects}", f"{site.url}/static/moved")
    assert ran.out == SMALL
    assert ran.err == b"1 1"


@pytest.mark.parametrize(
    "target", ["/a/../b", "/a/./b//c", "/static/../escaped", "/%2e%2e/x%2Fy", "/?q=/../a&b=%00", "/a;b=c?d?e"]
)
def test_path_as_is(site: Site, target: str) -> None:
    """A target arrives as it was sent; which upstream it goes to is decided by what it means."""
    assert told(curl("--path-as-is", site.url + target))["target"] == target


def test_ipv6(site: Site) -> None:
    """An IPv6 client is named by its address."""
    if not site.ipv6:
        pytest.skip("this machine has no IPv6")
    fields = told(curl(f"http://[::1]:{site.ipv6}/v6"))["fields"]
    assert fields["x-forwarded-for"] == "::1"
    assert fields["host"] == f"[::1]:{site.ipv6}"
    assert site.log_line("/v6")["client.address"] == "::1"


def test_unix_socket(site: Site) -> None:
    """A Unix socket, with upload and a kept connection."""
    count = ["--unix-socket", str(site.unix), "-w", "%{stderr}%{num_connects}"]
    ran = curl(*count, "-T", "-", "http://gateway.test/u", "--next", *count, "http://gateway.test/v", stdin=UPLOAD)
    first, second = ran.text.replace("}{", "}\n{").splitlines()
    check_upload(json.loads(first))
    assert json.loads(second)["fields"]["host"] == "gateway.test"
    assert ran.err == b"10"


def test_tls(site: Site) -> None:
    """The certificate is verified; upload and answer pass; the upstream learns that it was https."""
    arguments = ["--cacert", str(site.certificate.path), "--resolve", f"gateway.test:{site.tls}:127.0.0.1"]
    ran = curl(*arguments, "-v", "-T", "-", f"https://gateway.test:{site.tls}/tls", stdin=UPLOAD)
    got = told(ran)
    check_upload(got)
    assert got["fields"]["x-forwarded-proto"] == "https"
    assert b"server accepted http/1.1" in ran.err
    assert site.log_line("/tls")["url.scheme"] == "https"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_tls_by_name(site: Site, version: str) -> None:
    """SNI decides which certificate is shown; under another CA the same name is refused by curl."""
    url = f"https://shop.test:{site.tls}/static/small.txt"
    options = [f"--tlsv{version}", "--tls-max", version, "--resolve", f"shop.test:{site.tls}:127.0.0.1"]
    assert curl(*options, "--cacert", str(site.shop.path), url).out == SMALL
    assert curl(*options, "--cacert", str(site.certificate.path), url, check=False).code == 60


def test_plain_http_to_a_tls_listener(site: Site) -> None:
    """It gets no answer that it could take for one, and nothing hangs."""
    assert curl("--max-time", "20", f"http://127.0.0.1:{site.tls}/", check=False).code in (52, 56)


def test_large_download_through_tls(site: Site) -> None:
    """Many records, byte for byte."""
    ran = curl(
        "--cacert", str(site.certificate.path), "-r", "0-16777215", f"https://127.0.0.1:{site.tls}/static/big.bin"
    )
    assert (
        hashlib.sha256(ran.out).digest()
        == hashlib.sha256((site.root / "static/big.bin").read_bytes()[: 1 << 24]).digest()
    )
