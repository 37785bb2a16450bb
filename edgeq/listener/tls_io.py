"""TLS of a listener: one context for each certificate, chosen by the name that the client asks for (SNI, RFC 6066 3).

Decides which certificate answers, and how strict the handshake is. Invariants:
- all contexts of a listener differ in nothing but the certificate: when the SNI callback switches, OpenSSL keeps the
  verification of the first context and takes only the certificate of the second;
- a name is served by the first certificate that has it, exactly or by one wildcard label (RFC 9525 6.3);
  who asks for another name or for none gets the first certificate;
- the contexts are immutable: a reload makes new ones, and connections that are open keep theirs.

Certificates of the same names but another key algorithm (RSA beside ECDSA) share a context, and OpenSSL chooses.
Sessions resume on every worker once `share_tickets` was called (tickets_io.py); until then on the one that began them.
A handshake that fails is told to the client by an alert (RFC 8446 6.2): uvloop 0.23 closes without sending it, so it is
sent here, on the descriptor itself.
Defaults follow Mozilla's "intermediate" profile: TLS 1.2 and 1.3, ECDHE with AEAD, the client's order of ciphers
(who has no AES instructions knows it), no renegotiation, no compression.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from edgeq.config.schema import Certificate, ListenerTls
from edgeq.listener.certificate_names import CertificateNames, read_names
from edgeq.listener.tickets_io import derive_keys, set_keys

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM_END: Final = "-----END CERTIFICATE-----"


class TlsError(ValueError):
    """A certificate, key or CA that cannot be used; the message names the file."""


DESCRIPTOR: Final[ContextVar[int]] = ContextVar("edgeq_tls_descriptor", default=-1)
"""Of the connection whose transport is being made. uvloop runs all that belongs to a transport in the context in which
it was made, and has no other way from there to the connection."""


class NamedSSLObject(ssl.SSLObject):
    """A TLS connection that remembers which name the client asked for: the ssl module tells it only to the callback.

    Made through SSLContext.sslobject_class, the documented way to have attributes on connections.
    """

    requested_name: str = ""
    _descriptor: int = -1
    _outgoing: ssl.MemoryBIO | None = None

    def expect_handshake(self, outgoing: ssl.MemoryBIO) -> None:
        """Until the handshake is done: where OpenSSL writes, and where a last word of it can be sent."""
        self._outgoing = outgoing
        self._descriptor = DESCRIPTOR.get()

    def do_handshake(self) -> None:
        """Go on with the handshake. If it fails, the alert is sent: the transport is open, for it has just read."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self._outgoing is not None and self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._descriptor, self._outgoing.read())
            self._outgoing = None
            raise
        self._outgoing = None


class _Context(ssl.SSLContext):
    sslobject_class = NamedSSLObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As always, and the connection knows where its handshake is written."""
        connection = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(connection, NamedSSLObject):
            connection.expect_handshake(outgoing)
        return connection


class TlsContexts:
    """The certificates of one listener.

    Raises: TlsError, naming the file.
    """

    __slots__ = ("_certificates", "_exact", "_identity", "_wildcard", "default")

    def __init__(self, config: ListenerTls) -> None:
        if not config.certificates:
            raise TlsError("tls: at least one certificate is required")
        self._exact: dict[str, ssl.SSLContext] = {}
        self._wildcard: dict[str, ssl.SSLContext] = {}
        self._certificates: list[tuple[str, tuple[str, ...]]] = []
        by_names: dict[frozenset[str], tuple[ssl.SSLContext, set[str]]] = {}
        default: ssl.SSLContext | None = None
        identity = hashlib.sha256(config.min_version.encode())
        for certificate in config.certificates:
            der, found = _read_certificate(certificate.certificate)
            self._certificates.append((certificate.certificate, found.names))
            identity.update(hashlib.sha256(der).digest())
            context, algorithms = by_names.setdefault(frozenset(found.names), (_new_context(config), set()))
            if found.key_algorithm in algorithms:
                _load(_new_context(config), certificate)  # never chosen, but a bad file is still an error
                continue
            _load(context, certificate)
            algorithms.add(found.key_algorithm)
            default = default or context
            for name in found.names:
                table = self._wildcard if name.startswith("*.") else self._exact
                table.setdefault(name.removeprefix("*."), context)
        assert default is not None
        default.sni_callback = self._on_server_name
        self.default: ssl.SSLContext = default
        if config.client_ca:
            identity.update(hashlib.sha256(Path(config.client_ca).read_bytes()).digest())
        self._identity = identity.digest()
        """Of all that decides who may connect, and as whom we answer."""

    def select(self, server_name: str) -> ssl.SSLContext:
        """The context for a name in lower case; the default for a name that no certificate has."""
        context = self._exact.get(server_name)
        if context is None:
            _, _, parent = server_name.partition(".")
            context = self._wildcard.get(parent)
        return context or self.default

    def share_tickets(self, address: str, secret: bytes) -> bool:
        """Let sessions of this listener resume wherever the same is called with the same secret, and nowhere else.

        Returns: False where that cannot be had. OpenSSL asks only the context with which a connection began.
        """
        return set_keys(self.default, derive_keys(secret, self._identity + address.encode()))

    def snapshot(self) -> list[dict[str, object]]:
        """Files and the names they serve, in order."""
        return [{"certificate": path, "names": list(names)} for path, names in self._certificates]

    def _on_server_name(self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> None:
        if server_name is None:
            return
        name = server_name.lower().removesuffix(".")
        if isinstance(connection, NamedSSLObject):
            connection.requested_name = name
        context = self.select(name)
        if context is not self.default:
            connection.context = context


def _new_context(config: ListenerTls) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~(ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET)
    if config.client_ca:
        try:
            context.load_verify_locations(cafile=config.client_ca)
        except (OSError, ssl.SSLError) as exc:
            raise TlsError(f"{config.client_ca}: cannot be used as client_ca: {_why(exc)}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    key = certificate.key or certificate.certificate

    def no_password() -> str:
        # Without this OpenSSL would ask at the terminal, and a service would hang at its start.
        raise TlsError(f"{key}: the key is encrypted; edgeq needs it without a passphrase")

    try:
        context.load_cert_chain(certificate.certificate, certificate.key or None, no_password)
    except (OSError, ssl.SSLError) as exc:
        raise TlsError(f"{certificate.certificate}: cannot be used with key {key}: {_why(exc)}") from exc


def _read_certificate(path: str) -> tuple[bytes, CertificateNames]:
    """The first certificate in a file, which is the server's own (RFC 8446 4.4.2), and its names."""
    try:
        text = Path(path).read_text("latin-1")
    except OSError as exc:
        raise TlsError(f"{path}: {_why(exc)}") from exc
    start = text.find(_PEM_BEGIN)
    end = text.find(_PEM_END, start)
    if start < 0 or end < 0:
        raise TlsError(f"{path}: no PEM certificate in this file")
    try:
        der = ssl.PEM_cert_to_DER_cert(text[start : end + len(_PEM_END)])
        return der, read_names(der)
    except ValueError as exc:
        raise TlsError(f"{path}: {exc}") from exc


def _why(exc: OSError) -> str:
    """OpenSSL's own words for an error (ssl.SSLError is an OSError), or the system's."""
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.lower().replace("_", " ")
    return exc.strerror or str(exc)
