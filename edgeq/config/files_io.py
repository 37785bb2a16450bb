"""What only the file system can tell: certificates that can be read and fit their keys, a log that can be written,
packages that are installed.

Runs with the rights of the process that checks. `edgeq check` as another user than the service may therefore complain
where the service would not; the message says what could not be read.
"""

from __future__ import annotations

import grp
import os
import pwd
import ssl
from importlib.util import find_spec
from typing import Final

from edgeq.config.findings import Findings
from edgeq.config.lines import Path
from edgeq.config.schema import Config, UpstreamTls


def check_files(config: Config, findings: Findings) -> None:
    """Add every file that will not do to `findings`. Opens for reading only; creates nothing."""
    for number, listener in enumerate(config.listener):
        if listener.tls is None:
            continue
        path: Path = ("listener", number, "tls")
        _check_ca(listener.tls.client_ca, (*path, "client_ca"), findings)
        for item, pair in enumerate(listener.tls.certificates):
            here = (*path, "certificates", item)
            _check_pair(pair.certificate, pair.key, (*here, "certificate"), (*here, "key"), findings)
    good: set[UpstreamTls] = set()
    """Each is read once, however many upstreams there are: CAs take 35 ms."""
    tables: list[tuple[Path, UpstreamTls]] = [
        *((("upstream", name, "tls"), one.tls) for name, one in config.upstream.items()),
        *((("provider", name, "tls"), one.tls) for name, one in config.provider.items()),
    ]
    for path, tls in tables:
        if tls in good:
            continue
        _check_ca(tls.ca, (*path, "ca"), findings)
        _check_pair(tls.certificate, tls.key, (*path, "certificate"), (*path, "key"), findings)
        if not any(findings.blames((*path, key)) for key in ("ca", "certificate", "key")):
            good.add(tls)
    if config.access_log.target not in ("stdout", "off"):
        _check_log(config.access_log.target, findings)
    if config.trace is not None and not _can_trace():
        findings.add(("trace",), "needs the extra \"otel\", which is not installed: pip install 'edgeq[otel]'")
    if config.accounts is not None and not findings.blames(_STORE):
        from edgeq.llm.store_io import check_store  # and with it SQLite

        if problem := check_store(config.accounts.store):
            findings.add(_STORE, problem)
    _check_user(config.server.user, findings)
    _check_group(config.server.admin_group, findings)


def names_files(path: Path) -> bool:
    """Is this a key that only `check_files` can judge?"""
    return path in (_LOG, _STORE, ("server", "user"), ("server", "admin_group")) or "tls" in path


def _check_pair(certificate: str, key: str, path: Path, key_path: Path, findings: Findings) -> None:
    if not certificate or findings.blames(path) or findings.blames(key_path):
        return
    if not _readable(certificate, path, findings):
        return
    if key and not _readable(key, key_path, findings):
        return
    if not _holds_certificate(certificate):
        findings.add(path, f'"{certificate}" holds no certificate in PEM form')
        return
    blame = key_path if key else path
    key_file = key or certificate
    asked = _Asked()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key or None, password=asked)
    except ssl.SSLError as error:
        if asked.yes:
            findings.add(
                blame, f'the private key in "{key_file}" is encrypted: it cannot be used without its pass phrase'
            )
        elif error.reason == "KEY_VALUES_MISMATCH":
            findings.add(blame, f'the private key in "{key_file}" does not belong to the certificate "{certificate}"')
        elif error.reason is None or "PEM" in error.reason or "NO_START_LINE" in error.reason:
            findings.add(blame, f'"{key_file}" holds no private key in PEM form')
        else:
            findings.add(path, f'"{certificate}" is refused: {error.reason.lower().replace("_", " ")}')
    except (OSError, ValueError) as error:
        findings.add(blame, f'"{key_file}" cannot be used: {error}')


def _can_trace() -> bool:
    try:
        return find_spec("opentelemetry.proto.trace.v1") is not None
    except ModuleNotFoundError:
        return False


class _Asked:
    """Stands in for the prompt that OpenSSL would show for an encrypted key: notes the question, answers nothing."""

    def __init__(self) -> None:
        self.yes = False

    def __call__(self) -> str:
        self.yes = True
        return ""


def _check_ca(file: str, path: Path, findings: Findings) -> None:
    if file and not findings.blames(path) and _readable(file, path, findings) and not _holds_certificate(file):
        findings.add(path, f'"{file}" holds no certificate in PEM form')


def _holds_certificate(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (ssl.SSLError, OSError):
        return False
    return True


def _readable(file: str, path: Path, findings: Findings) -> bool:
    try:
        with open(file, "rb") as stream:
            stream.read(1)
    except OSError as error:
        findings.add(path, f'"{file}" cannot be read: {error.strerror}')
        return False
    return True


_STORE: Final[Path] = ("accounts", "store")
_LOG: Final[Path] = ("access_log", "target")


def _check_log(target: str, findings: Findings) -> None:
    folder = os.path.dirname(target) or "."
    if os.path.isdir(target):
        findings.add(_LOG, f'"{target}" is a directory')
    elif not os.path.isdir(folder):
        findings.add(_LOG, f'the directory "{folder}" does not exist')
    elif os.path.exists(target):
        if not os.access(target, os.W_OK):
            findings.add(_LOG, f'"{target}" cannot be written')
    elif not os.access(folder, os.W_OK | os.X_OK):
        findings.add(_LOG, f'no file can be created in the directory "{folder}"')


def _check_user(user: str, findings: Findings) -> None:
    if user:
        try:
            pwd.getpwnam(user)
        except KeyError:
            findings.add(("server", "user"), f'there is no user "{user}"')


def _check_group(group: str, findings: Findings) -> None:
    if group:
        try:
            grp.getgrnam(group)
        except KeyError:
            findings.add(("server", "admin_group"), f'there is no group "{group}"')
