"""Ticket keys: shared where it is meant, different everywhere else, and no risk where OpenSSL is not as it is known."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeq.config.schema import Config, Listener, ListenerTls, Upstream
from edgeq.listener import tickets_io
from edgeq.listener.tls_io import TlsContexts
from edgeq.supervisor import supervisor_io
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.supervisor_io import Supervisor
from tests.listener.certificates import Made, make
from tests.listener.harness import RecordingLog, trusting
from tests.support.given import live

SECRET = b"s" * 32
ADDRESS = "127.0.0.1:443"


@dataclass(frozen=True)
class Certificates:
    """Made once for all tests."""

    first: Made
    second: Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    return Certificates(make(directory, "first", "a.example"), make(directory, "second", "a.example"))


@pytest.fixture
def looked_for_anew() -> Iterator[None]:
    """What is known of OpenSSL is forgotten, before and after."""
    tickets_io._find.cache_clear()
    yield
    tickets_io._find.cache_clear()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """The client's end after a handshake and some bytes from the server, which bring the tickets of TLS 1.3."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server, server_hostname="a.example", session=session)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    far.write(b"x")
    assert near.read(1) == b"x"
    return near


def resumes(first: TlsContexts, second: TlsContexts, trusted: Made) -> bool:
    """Whether a session that began at one resumes at the other."""
    client = trusting(trusted.path)
    session = handshake(first.default, client, None).session
    assert session is not None
    return handshake(second.default, client, session).session_reused is True


def test_this_python_can() -> None:
    """Or all that follows would be tested in vain."""
    assert tickets_io.unavailable() == ""


def test_what_must_be_equal(made: Certificates, tmp_path: Path) -> None:
    """Secret, address, certificates, version, and the CA's content: with all of them a session resumes, else never."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(made.first.path.read_bytes())
    plain = ListenerTls(certificates=(made.first.config,))

    def contexts(config: ListenerTls = plain, address: str = ADDRESS, secret: bytes = SECRET) -> TlsContexts:
        made = TlsContexts(config)
        assert made.share_tickets(address, secret)
        return made

    one = contexts()
    assert resumes(one, one, made.first)
    assert resumes(one, contexts(), made.first)
    assert not resumes(one, TlsContexts(plain), made.first)
    assert not resumes(one, contexts(secret=b"t" * 32), made.first)
    assert not resumes(one, contexts(address="127.0.0.1:444"), made.first)
    assert not resumes(one, contexts(replace_(plain, min_version="1.3")), made.first)
    more = (made.first.config, made.second.config)
    assert not resumes(one, contexts(replace_(plain, certificates=more)), made.first)
    with_ca = contexts(replace_(plain, client_ca=str(ca)))
    ca.write_bytes(ca.read_bytes() + made.second.path.read_bytes())
    with_more = contexts(replace_(plain, client_ca=str(ca)))
    keys = {one._identity, with_ca._identity, with_more._identity}
    assert len(keys) == 3


def replace_(config: ListenerTls, **changes: object) -> ListenerTls:
    """With some keys changed."""
    values = {key: getattr(config, key) for key in config.__struct_fields__}
    return ListenerTls(**{**values, **changes})


def test_new_keys_for_a_context_in_use(made: Certificates) -> None:
    """Renewing them ends the old tickets on each worker, and the next ones are good on all of them."""
    one, two = (TlsContexts(ListenerTls(certificates=(made.first.config,))) for _ in range(2))
    client = trusting(made.first.path)
    for worker in (one, two):
        worker.share_tickets(ADDRESS, SECRET)
    old = handshake(one.default, client, None).session
    for worker in (one, two):
        worker.share_tickets(ADDRESS, b"n" * 32)
    for worker in (one, two):
        assert handshake(worker.default, client, old).session_reused is False
    new = handshake(one.default, client, None).session
    assert handshake(two.default, client, new).session_reused is True


def test_derived_keys() -> None:
    """As long as OpenSSL wants them, different for each secret and identity, without a repetition within."""
    keys = {tickets_io.derive_keys(secret, identity) for secret in (b"a", b"b") for identity in (b"", b"1", b"2")}
    assert len(keys) == 6
    for one in keys:
        assert len(one) == tickets_io.KEYS_BYTES
        assert len({one[at : at + 16] for at in range(0, 80, 16)}) == 5


@pytest.mark.usefixtures("looked_for_anew")
@pytest.mark.parametrize("what", ["implementation", "version", "null", "no object", "another", "length", "order"])
def test_what_is_not_as_it_is_known_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, made: Certificates, what: str
) -> None:
    """A reason instead of a crash, and TLS goes on with keys of each context's own."""
    if what == "implementation":
        monkeypatch.setattr(sys.implementation, "name", "other")
    elif what == "version":
        monkeypatch.setattr(ssl, "OPENSSL_VERSION_NUMBER", 0x10000000)
    elif what == "null":
        monkeypatch.setattr(tickets_io, "_pointer", lambda context: 0)
    elif what == "no object":
        monkeypatch.setattr(tickets_io, "_pointer", lambda context: 0x1000)
    elif what == "another":
        other = bytearray(4096)
        monkeypatch.setattr(tickets_io, "_pointer", lambda context: (id(other) + 15) & ~15)
    elif what == "length":
        monkeypatch.setattr(tickets_io, "KEYS_BYTES", 48)
    elif what == "order":
        monkeypatch.setattr(tickets_io, "_GET_KEYS", 0)
    why = tickets_io.unavailable()
    assert why
    assert tickets_io.unavailable() is why
    one, two = (TlsContexts(ListenerTls(certificates=(made.first.config,))) for _ in range(2))
    assert not one.share_tickets(ADDRESS, SECRET)
    assert not two.share_tickets(ADDRESS, SECRET)
    assert resumes(one, one, made.first)
    assert not resumes(one, two, made.first)


@pytest.mark.parametrize("tls", [False, True])
def test_the_operator_is_told_once(monkeypatch: pytest.MonkeyPatch, made: Certificates, tls: bool) -> None:
    """By the supervisor, at the first configuration that it concerns."""
    log = RecordingLog()
    monkeypatch.setattr(supervisor_io, "_log", log)
    monkeypatch.setattr(tickets_io, "unavailable", lambda: "a reason")
    config = Config(
        listener=(
            Listener(
                address="127.0.0.1:0", tls=ListenerTls(certificates=(made.first.config,)) if tls else None, backlog=1
            ),
        ),
        upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",))},
    )

    async def scenario() -> None:
        supervisor = Supervisor(asyncio.get_running_loop(), live(lambda: config), None, Launch())
        try:
            for _ in range(3):
                supervisor._prepare(config)
        finally:
            supervisor._listeners.close()
            supervisor._board.close()

    asyncio.run(scenario())
    told = [fields for level, event, fields in log.events if level == "warning" and "resume" in event]
    assert told == ([{"why": "a reason"}] if tls else [])
