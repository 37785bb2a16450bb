"""TLS of a listener: which certificate, how strict, how it fails, how it is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeq.config.base import Duration
from edgeq.config.schema import AcceptQueue, Certificate, Listener, ListenerTimeouts, ListenerTls
from edgeq.listener.peer import Peer
from edgeq.listener.tcp_info_io import taken_bytes
from edgeq.listener.tls_io import TlsContexts, TlsError
from tests.listener.certificates import RSA, Made, make
from tests.listener.harness import TIMEOUT_S, LocalGate, Site, run, soon, trusting


@dataclass(frozen=True)
class Certificates:
    """Made once for all tests."""

    first: Made
    second: Made
    second_rsa: Made
    other: Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates with disjoint, equal and wildcard names."""
    directory = tmp_path_factory.mktemp("certificates")
    return Certificates(
        first=make(directory, "first", "first.example"),
        second=make(directory, "second", "second.example", "*.second.example"),
        second_rsa=make(directory, "second_rsa", "*.second.example", "second.example", algorithm=RSA),
        other=make(directory, "other", "first.example"),
    )


def contexts(*certificates: Made, **changes: str) -> TlsContexts:
    """Of a listener with these certificates."""
    config = ListenerTls(certificates=tuple(item.config for item in certificates), **changes)  # type: ignore[arg-type]
    return TlsContexts(config)


def listener(handshake_s: float = 60, **changes: object) -> Listener:
    """A listener."""
    timeouts = ListenerTimeouts(handshake=Duration(handshake_s))
    return Listener(address="test", timeouts=timeouts, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def connected(
    site: Site, context: ssl.SSLContext, name: str | None, preface: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TLS client that has read the greeting; leaves in an orderly way."""
    client = site.client()
    if preface:
        await client.send(preface)
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(sock=client.socket, ssl=context, server_hostname=name or "")
        assert await reader.readexactly(6) == b"hello\n"
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def no_name(certificate: Made) -> ssl.SSLContext:
    """A client that sends no server name."""
    context = trusting(certificate.path)
    context.check_hostname = False
    return context


def test_what_a_client_has_taken_is_known_through_tls(made: Certificates) -> None:
    """Its kernel's acknowledgements, of encrypted bytes: what limits.min_answer_rate is measured by."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first))
        site.acceptor.start()
        async with connected(site, trusting(made.first.path), "first.example") as (reader, writer):
            transport = site.connected[-1].transport
            before = taken_bytes(transport)
            assert before > 0
            writer.write(b"x" * 10_000)
            assert await reader.readexactly(10_000) == b"x" * 10_000
            await soon(lambda: taken_bytes(transport) >= before + 10_000)
        await site.until(lambda: len(site.lost) == 1)
        site.acceptor.close()

    run(scenario)


def test_sni_chooses_the_certificate(made: Certificates) -> None:
    """Exact name, one wildcard label, unknown name and no name get their certificate; Peer says what was asked for."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first, made.second))
        site.acceptor.start()
        cases = [
            (made.first, "first.example", True),
            (made.second, "SECOND.example", True),
            (made.second, "www.second.example", True),
            (made.first, "a.www.second.example", False),
            (made.first, "unknown.example", False),
            (made.first, None, False),
        ]
        for expected, name, named in cases:
            context = trusting(expected.path) if named else no_name(expected)
            async with connected(site, context, name) as (reader, writer):
                writer.write(b"over TLS")
                assert await reader.readexactly(8) == b"over TLS"
                connection = writer.get_extra_info("ssl_object")
                assert connection.selected_alpn_protocol() is None
                assert connection.version() == "TLSv1.3"
                peer = site.connected[-1].peer
                assert peer.server_name == (name or "").lower()
                assert (peer.tls, peer.proxied, peer.client_host) == (True, False, "127.0.0.1")
        await site.until(lambda: len(site.lost) == len(cases))
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_same_names_with_two_key_algorithms(made: Certificates) -> None:
    """An ECDSA and an RSA certificate of one name are both served: to each client the one that it can use."""

    async def scenario() -> None:
        tls = contexts(made.first, made.second, made.second_rsa)
        assert len(tls.snapshot()) == 3
        site = Site(listener(), tls=tls)
        site.acceptor.start()
        for certificate, ciphers in ((made.second, "ECDHE+ECDSA"), (made.second_rsa, "ECDHE+aRSA")):
            context = trusting(certificate.path)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            async with connected(site, context, "second.example"):
                pass
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_alpn_and_session_tickets(made: Certificates) -> None:
    """http/1.1 is agreed on, and a session is resumed."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first))
        site.acceptor.start()
        context = trusting(made.first.path)
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there when the handshake is done
        async with connected(site, context, "first.example") as (_, writer):
            connection = writer.get_extra_info("ssl_object")
            assert connection.selected_alpn_protocol() == "http/1.1"
            assert connection.compression() is None
            session = connection.session
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        resumed = context.wrap_bio(incoming, outgoing, server_hostname="first.example", session=session)
        client = site.client()
        while True:
            try:
                resumed.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client.send(outgoing.read())
                incoming.write(await client.read())
        assert resumed.session_reused
        await client.send(outgoing.read())
        client.close()
        await site.until(lambda: len(site.lost) >= 1)
        await site.until(lambda: site.gate.open.total() == 0)
        site.acceptor.close()

    run(scenario)


@pytest.mark.parametrize(
    ("minimum", "weaken"),
    [
        ("1.2", {"maximum_version": ssl.TLSVersion.TLSv1_1, "minimum_version": ssl.TLSVersion.TLSv1}),
        ("1.3", {"maximum_version": ssl.TLSVersion.TLSv1_2}),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(made: Certificates, minimum: str, weaken: dict[str, ssl.TLSVersion]) -> None:
    """Below the minimum version there is no connection, and the log says why."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first, min_version=minimum))
        site.acceptor.start()
        context = trusting(made.first.path)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        for attribute, value in weaken.items():
            setattr(context, attribute, value)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(site, context, "first.example"):
                pass
        await failed(site, 1)
        assert site.log.events[0][2]["why"] in ("unsupported protocol", "version too low")
        site.acceptor.close()

    run(scenario)


def test_no_certificate() -> None:
    """TLS without any certificate is an error."""
    with pytest.raises(TlsError):
        TlsContexts(ListenerTls(certificates=()))


def test_ciphers_and_options(made: Certificates) -> None:
    """ECDHE with AEAD only, the client's order, no renegotiation, tickets on."""
    context = contexts(made.first).default
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
    assert all("GCM" in name or "CHACHA20" in name for name in names)
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert not context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def failed(site: Site, count: int) -> None:
    """Wait until so many handshakes have failed, and given back their places."""
    await soon(lambda: site.refused().get("handshake_failed", 0) >= count)
    assert site.log.reasons() == ["handshake_failed"] * count
    assert site.connected == []
    assert site.gate.open.total() == 0
    assert site.acceptor.snapshot()["handshakes"] == 0


@pytest.mark.parametrize("how", ["plain http", "garbage", "leave", "half a hello", "reset"])
def test_failed_handshakes_leak_nothing(made: Certificates, how: str) -> None:
    """However a client spoils its handshake: closed, logged with the reason, place freed, no stack trace."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first))
        site.acceptor.start()
        client = site.client()
        if how == "plain http":
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        elif how == "garbage":
            await client.send(b"\x00" * 100)
        elif how == "half a hello":
            await client.send(b"\x16\x03\x01\x02\x00\x01")
            client.close()
        elif how == "leave":
            client.close()
        else:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await failed(site, 1)
        level, _, fields = site.log.events[0]
        assert (level, fields["client"]) == ("info", "127.0.0.1")
        assert fields["why"]
        if how == "plain http":
            assert fields["why"] == "http request"
        client.close()
        site.acceptor.close()

    run(scenario)


def test_handshake_timeout(made: Certificates) -> None:
    """A client that sends nothing is closed when its time is over."""

    async def scenario() -> None:
        site = Site(listener(0.05), tls=contexts(made.first))
        site.acceptor.start()
        client = site.client()
        assert await client.read() == b""
        await failed(site, 1)
        client.close()
        site.acceptor.close()

    run(scenario)


def test_client_certificates(made: Certificates) -> None:
    """With client_ca, a client needs a certificate of that CA."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first, made.second, client_ca=str(made.other.path)))
        site.acceptor.start()
        for name, certificate in (("first.example", made.first), ("second.example", made.second)):
            context = trusting(certificate.path)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 the client learns of its refusal too late
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connected(site, context, name):
                    pass
        await failed(site, 2)
        for name, certificate in (("first.example", made.first), ("second.example", made.second)):
            context = trusting(certificate.path)
            context.load_cert_chain(made.other.path, made.other.key)
            async with connected(site, context, name):
                pass
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_reload_while_a_connection_is_open(made: Certificates) -> None:
    """New connections get the new certificate, the open one goes on."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first))
        site.acceptor.start()
        async with connected(site, trusting(made.first.path), "first.example") as (reader, writer):
            site.acceptor.update(listener(), contexts(made.other))
            async with connected(site, trusting(made.other.path), "first.example"):
                writer.write(b"still here")
                assert await reader.readexactly(10) == b"still here"
        await site.until(lambda: len(site.lost) == 2)
        site.acceptor.close()

    run(scenario)


def test_behind_a_proxy(made: Certificates) -> None:
    """The PROXY header comes before the handshake, also in one segment with it."""

    async def scenario() -> None:
        site = Site(listener(proxy_protocol=True, proxy_protocol_from=("127.0.0.1",)), tls=contexts(made.first))
        site.acceptor.start()
        preface = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"
        async with connected(site, trusting(made.first.path), "first.example", preface):
            assert site.connected[0].peer == Peer("192.0.2.1", 1, "192.0.2.2", 443, True, True, "first.example")
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_refused_connections_are_just_closed(made: Certificates) -> None:
    """Nobody can read a plain-text answer in a TLS connection."""

    async def scenario() -> None:
        site = Site(listener(queue=AcceptQueue(max=0)), LocalGate(max_connections=1), contexts(made.first))
        site.acceptor.start()
        async with connected(site, trusting(made.first.path), "first.example"):
            surplus = site.client()
            assert await surplus.read_all() == b""
            surplus.close()
            assert site.refused() == {"conn_limit_listener": 1}
        await site.until(lambda: bool(site.lost))
        site.acceptor.close()

    run(scenario)


def test_retire_waits_for_handshakes(made: Certificates) -> None:
    """Who is in its handshake when the retirement begins still gets its protocol before on_empty."""

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first))
        site.acceptor.start()
        client = site.client()
        await soon(lambda: site.acceptor.snapshot()["handshakes"] == 1)
        site.acceptor.retire(site.emptied.set)
        await soon(lambda: site.acceptor.snapshot()["state"] == "closed")
        async with asyncio.timeout(TIMEOUT_S):
            assert not site.emptied.is_set()
            _, writer = await asyncio.open_connection(
                sock=client.socket, ssl=trusting(made.first.path), server_hostname="first.example"
            )
            await site.emptied.wait()
            await site.until(lambda: bool(site.connected))
            writer.close()
            await writer.wait_closed()
        await site.until(lambda: bool(site.lost))

    run(scenario)


def test_a_protocol_that_cannot_be_made(made: Certificates) -> None:
    """A defect behind the factory costs its own connection only."""

    def make_none(site: Site, peer: Peer) -> asyncio.BaseProtocol:
        raise LookupError("defect")

    async def scenario() -> None:
        site = Site(listener(), tls=contexts(made.first), make=make_none)
        site.acceptor.start()
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with connected(site, trusting(made.first.path), "first.example"):
                pass
        await soon(lambda: bool(site.refused()))
        assert site.refused() == {"internal_error": 1}
        assert site.gate.open.total() == 0
        site.acceptor.close()

    run(scenario)


def test_unusable_files(made: Certificates, tmp_path: Path) -> None:
    """Each unusable file is named, with the reason, and no passphrase is asked for."""
    (tmp_path / "empty.pem").write_text("nothing")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", made.first.key, "-out", encrypted],
        check=True,
        capture_output=True,
    )
    for certificate, key, words in [
        (tmp_path / "missing.pem", "", "missing.pem: No such file"),
        (tmp_path / "empty.pem", "", "empty.pem: no PEM certificate"),
        (tmp_path / "broken.pem", "", "broken.pem: not a certificate"),
        (made.first.path, str(made.other.key), "first.pem: cannot be used with key .*: key values mismatch"),
        (made.first.path, str(tmp_path / "missing.key"), "first.pem: .*missing.key: No such file"),
        (made.first.path, str(encrypted), "encrypted.key: the key is encrypted"),
    ]:
        config = ListenerTls(certificates=(Certificate(certificate=str(certificate), key=key),))
        with pytest.raises(TlsError, match=words):
            TlsContexts(config)
    with pytest.raises(TlsError, match=r"empty\.pem: cannot be used as client_ca"):
        contexts(made.first, client_ca=str(tmp_path / "empty.pem"))


def test_certificate_and_key_in_one_file(made: Certificates, tmp_path: Path) -> None:
    """Without `key` the certificate's file has both; the second of two equal certificates is checked but not used."""
    both = tmp_path / "both.pem"
    both.write_text(made.first.key.read_text() + made.first.path.read_text())
    config = ListenerTls(certificates=(Certificate(certificate=str(both)), made.other.config))
    tls = TlsContexts(config)
    assert tls.select("first.example") is tls.default
    assert [item["names"] for item in tls.snapshot()] == [["first.example"], ["first.example"]]
