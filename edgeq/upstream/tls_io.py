"""The TLS context of an upstream: whom we trust, and who we are.

Decides what is verified. Invariants: TLS 1.2 or newer, ALPN http/1.1; without ``verify = false`` the chain and the name
are checked, always both; each error names the key of [upstream.NAME.tls] and the file, never a file's content; an
encrypted key is an error, not a prompt on the terminal.

Any certificate of the `ca` file is a trust anchor, an intermediate or a self-signed one too (X509_V_FLAG_PARTIAL_CHAIN,
the default of Python 3.13): who names a file means its content.

Sources: RFC 9325 (recommended use of TLS), RFC 7301 (ALPN).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.config.schema import UpstreamTls

_CERTIFICATE = "CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"


def upstream_context(tls: UpstreamTls) -> ssl.SSLContext:
    """The context for every connection of one upstream. Raises: ValueError, "tls.KEY: FILE: what is wrong"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    if tls.ca:
        _load_ca(context, tls.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        _load_certificate(context, tls.certificate, tls.key)
    elif tls.key:
        raise ValueError(f"tls.key: {tls.key}: a key needs tls.certificate beside it")
    return context


class Contexts:
    """Those of a worker: upstreams that say the same of TLS share one, as it takes 35 ms to read the system's CAs, in
    which nobody is served. What is read is kept until it is forgotten, or nobody wants it any more."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool, str, str], ssl.SSLContext] = {}

    def of(self, tls: UpstreamTls) -> ssl.SSLContext:
        """As `upstream_context`."""
        key = _read_from(tls)
        context = self._known.get(key)
        if context is None:
            context = self._known[key] = upstream_context(tls)
        return context

    def forget(self) -> None:
        """Files are read again."""
        self._known.clear()

    def keep(self, wanted: Iterable[UpstreamTls]) -> None:
        """Forget all others."""
        keys = set(map(_read_from, wanted))
        self._known = {key: context for key, context in self._known.items() if key in keys}


def _read_from(tls: UpstreamTls) -> tuple[str, bool, str, str]:
    """All that a context is made of: the name is that of each connection."""
    return tls.ca, tls.verify, tls.certificate, tls.key


def _load_ca(context: ssl.SSLContext, path: str) -> None:
    _check_pem("tls.ca", path, _CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"tls.ca: {path}: no certificates can be read from it ({_why(error)})") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _check_pem("tls.certificate", certificate, _CERTIFICATE, "certificate")
    key_name = "tls.key" if key else "tls.certificate"
    _check_pem(key_name, key or certificate, _KEY, "private key")
    encrypted = False

    def no_password() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(certificate, key or None, no_password)
    except (OSError, ssl.SSLError) as error:
        if encrypted:
            raise ValueError(f"{key_name}: {key or certificate}: the private key is encrypted") from None
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key_name}: {key or certificate}: the key is not that of {certificate}") from None
        files = f"{certificate}, {key}" if key else certificate
        raise ValueError(f"tls.certificate: {files}: certificate or key cannot be used ({_why(error)})") from None


def _check_pem(key: str, path: str, mark: str, what: str) -> None:
    """OpenSSL does not say which of two files it could not open or read; this does."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ValueError(f"{key}: {path}: {error.strerror}") from None
    if mark not in text:
        raise ValueError(f"{key}: {path}: holds no {what} in PEM form")


def _why(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
