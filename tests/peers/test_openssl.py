"""openssl s_client: which versions and protocols are agreed on, byte by byte of the handshake as others speak it."""

from __future__ import annotations

import re

import pytest

from tests.peers.conftest import SMALL, Site
from tests.peers.programs import Ran, need, run

REQUEST = b"GET /static/small.txt HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"


def s_client(site: Site, *arguments: str, stdin: bytes = REQUEST, name: str = "gateway.test") -> Ran:
    """Connect, send, read to the end."""
    command = [need("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{site.tls}", "-servername", name]
    command += ["-CAfile", str(site.certificate.path), "-verify_return_error", "-ign_eof", *arguments]
    return run(command, stdin, check=False)


@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_versions(site: Site, option: str, version: str) -> None:
    """TLS 1.2 and 1.3 serve, with a forward-secret AEAD cipher."""
    ran = s_client(site, option)
    assert ran.code == 0
    assert ran.out.count(SMALL) == 1
    found = re.search(r"New, (\S+), Cipher is (\S+)", ran.text)
    assert found
    assert found[1] == version
    assert re.match(r"TLS_|ECDHE-\w+-(AES\d+-GCM|CHACHA20)", found[2])
    assert "Compression: NONE" in ran.text


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(site: Site, option: str) -> None:
    """By an alert that names the cause: protocol version."""
    ran = s_client(site, option, "-cipher", "ALL:@SECLEVEL=0")
    assert ran.code != 0
    if b"unknown option" in ran.err.lower():
        pytest.skip(f"this openssl cannot speak {option} itself")
    assert b"alert protocol version" in ran.err
    assert SMALL not in ran.out


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"])
def test_weak_ciphers_are_refused(site: Site, cipher: str) -> None:
    """No static key exchange, no CBC, no DHE."""
    ran = s_client(site, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert ran.code != 0
    assert b"handshake failure" in ran.err


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("http/1.1", "ALPN protocol: http/1.1"), ("h2,http/1.1", "ALPN protocol: http/1.1"), ("h2", "No ALPN negotiated")],
)
def test_alpn(site: Site, offered: str, agreed: str) -> None:
    """http/1.1 is chosen wherever it is offered, nothing else ever is."""
    ran = s_client(site, "-alpn", offered)
    assert agreed in ran.text
    assert ran.out.count(SMALL) == 1


def test_no_renegotiation(site: Site) -> None:
    """A client that asks for a new handshake within the connection does not get one."""
    # -ign_eof takes lines as data; without it a line "R" asks for a renegotiation.
    command = [need("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{site.tls}", "-tls1_2"]
    ran = run([*command, "-CAfile", str(site.certificate.path)], b"R\n", check=False)
    assert b"RENEGOTIATING" in ran.err
    assert b"no renegotiation" in ran.err


def test_unknown_name_gets_the_first_certificate(site: Site) -> None:
    """Who asks for a name that nobody has sees the default certificate, and can decide."""
    ran = s_client(site, name="unknown.test")
    assert ran.code == 0
    assert "CN = gateway" in ran.text or "CN=gateway" in ran.text


def test_early_data_is_not_taken(site: Site) -> None:
    """Requests in 0-RTT could be replayed: none are offered."""
    ran = s_client(site, "-tls1_3")
    assert "Max Early Data: 0" in ran.text
