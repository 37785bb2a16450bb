"""Keys for TLS session tickets (RFC 5077, RFC 8446 4.6.1) which all workers share.

OpenSSL makes ticket keys of its own with each context, so a session resumes only on the worker that began it. Here each
listener's keys are derived (HKDF-Expand, RFC 5869) from one secret, which the supervisor gives to all workers, and from
everything that decides who may connect: a ticket is good only at the listener that gave it, and only as long as nothing
of that changes. With the same keys for all, a ticket of a listener that asks for no client certificate would open one
that does (CVE-2025-23419 was that).

Forward secrecy: who gets the keys can read TLS 1.2 sessions for which he has recorded tickets (in TLS 1.3 each
resumption has a key exchange of its own). So the supervisor makes a new secret every `Launch.ticket_life_s`, 4 hours,
which is twice the life of a ticket (OpenSSL's 7,200 s; RFC 9325 3.4), and the old one is gone; without all this, keys
live as long as a worker. A ticket under older keys leads to a full handshake. Secret and keys are never logged or
stored.

The ssl module has no call for it, so SSL_CTX_ctrl is called in the OpenSSL that the _ssl module uses. The SSL_CTX is
where every CPython since 3.2 has it: first in the object, after its head (struct PySSLContext in Modules/_ssl.c). That
is not believed but tried on a context made for it, in steps each of which is safe if those before it held: the pointer
points into writable memory, options that Python sets are seen there, the keys have the known length, and what is set is
read back. Otherwise nothing is shared, and `unavailable` says why.
"""

from __future__ import annotations

import ctypes
import functools
import hmac
import os
import ssl
import sys
from typing import Final

KEYS_BYTES: Final = 80
"""OpenSSL's: a name of 16 bytes, 32 for HMAC-SHA256, 32 for AES-256-CBC."""
_GET_KEYS: Final = 58
_SET_KEYS: Final = 59
"""SSL_CTRL_GET_TLSEXT_TICKET_KEYS, SSL_CTRL_SET_TLSEXT_TICKET_KEYS (openssl/ssl.h)."""
_LEAST_CONTEXT_BYTES: Final = 512
"""An SSL_CTX is larger; its options stand in the first part of it."""


class _Unavailable(Exception):
    """Why keys cannot be set."""


class _OpenSsl:
    """The functions of the OpenSSL behind the ssl module. Raises _Unavailable."""

    __slots__ = ("_control", "_get_options")

    def __init__(self) -> None:
        if sys.implementation.name != "cpython":
            raise _Unavailable(f"{sys.implementation.name} is not CPython")
        try:
            import _ssl

            # None: the module is built into the interpreter, and OpenSSL perhaps too.
            library = ctypes.CDLL(getattr(_ssl, "__file__", None))
            version = library.OpenSSL_version_num
            control = library.SSL_CTX_ctrl
            get_options = library.SSL_CTX_get_options
        except (ImportError, OSError, AttributeError) as error:
            raise _Unavailable(f"OpenSSL's functions are not found: {error}") from error
        version.restype = ctypes.c_ulong
        if version() != ssl.OPENSSL_VERSION_NUMBER:
            raise _Unavailable("another OpenSSL than that of the ssl module was found")
        control.restype = ctypes.c_long
        control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
        get_options.restype = ctypes.c_uint64
        get_options.argtypes = (ctypes.c_void_p,)
        self._control = control
        self._get_options = get_options
        self._try()

    def set_keys(self, context: ssl.SSLContext, keys: bytes) -> bool:
        """Whether this context has these keys now."""
        pointer = _pointer(context)
        buffer = ctypes.create_string_buffer(keys, KEYS_BYTES)
        try:
            if self._control(pointer, _SET_KEYS, KEYS_BYTES, buffer) != 1:
                return False
            ctypes.memset(buffer, 0, KEYS_BYTES)
            return self._control(pointer, _GET_KEYS, KEYS_BYTES, buffer) == 1 and hmac.compare_digest(buffer.raw, keys)
        finally:
            ctypes.memset(buffer, 0, KEYS_BYTES)

    def _try(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pointer = _pointer(context)
        if pointer % 8 or not _is_writable(pointer, _LEAST_CONTEXT_BYTES):
            raise _Unavailable("a context is not made as it is known")
        for option in (ssl.OP_NO_TICKET, ssl.OP_CIPHER_SERVER_PREFERENCE, ssl.OP_NO_RENEGOTIATION):
            context.options ^= option
            if self._get_options(pointer) & 0xFFFFFFFF != context.options & 0xFFFFFFFF:
                raise _Unavailable("a context is not made as it is known")
        if self._control(pointer, _GET_KEYS, 0, None) != KEYS_BYTES:
            raise _Unavailable("ticket keys have another length")
        if not self.set_keys(context, os.urandom(KEYS_BYTES)):
            raise _Unavailable("ticket keys cannot be set")


def unavailable() -> str:
    """Why ticket keys cannot be set here; empty if they can."""
    found = _find()
    return found if isinstance(found, str) else ""


def set_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """Have a context make and take its tickets with these keys from now on. Returns whether it does."""
    found = _find()
    return not isinstance(found, str) and found.set_keys(context, keys)


def derive_keys(secret: bytes, identity: bytes) -> bytes:
    """The keys of what is described by `identity`."""
    keys = block = b""
    number = 1
    while len(keys) < KEYS_BYTES:
        block = hmac.digest(secret, block + b"edgeq TLS tickets" + identity + bytes([number]), "sha256")
        keys += block
        number += 1
    return keys[:KEYS_BYTES]


@functools.cache
def _find() -> _OpenSsl | str:
    try:
        return _OpenSsl()
    except _Unavailable as error:
        return str(error)


def _pointer(context: ssl.SSLContext) -> int:
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value or 0


def _is_writable(address: int, size_bytes: int) -> bool:
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                where, rights = line.split(" ", 2)[:2]
                first, _, last = where.partition("-")
                if int(first, 16) <= address and address + size_bytes <= int(last, 16):
                    return rights.startswith("rw")
    except OSError:
        pass
    return False
