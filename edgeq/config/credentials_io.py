"""Secrets that do not stand in the file: "credential:NAME" wherever a certificate, a key or a header's value is named,
and for the latter also "env:NAME", a variable of the environment.

Credentials are files that the service manager hands to this service alone.
systemd (LoadCredential=, LoadCredentialEncrypted=) puts them into a folder that only the service can read, and names it
in $CREDENTIALS_DIRECTORY; they are read when the service starts, so a reload sees what the start saw.

systemd names the folder to ExecReload= as well, but (252) shows it to the main process alone. So `edgeq check` there
leaves credentials to the service, which judges them with the rest when it is told to reload.

A configuration never holds what such a name stands for: of certificates it has the path, of headers the name itself,
and `read_header` is called by whoever sends it.
Source: systemd.exec(5), "Credentials".
"""

from __future__ import annotations

import os
import re
from typing import Final

from msgspec.structs import replace

from edgeq.config.findings import Findings
from edgeq.config.lines import Path
from edgeq.config.schema import Certificate, Config, ListenerTls, UpstreamTls

PREFIX: Final = "credential:"
ENVIRONMENT: Final = "env:"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_USUAL: Final = "/run/credentials/edgeq.service"
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
"""Of a header."""
_MAX_VALUE: Final = 8192


def find_credentials(config: Config, findings: Findings) -> Config:
    """The same configuration with paths instead of names. What cannot be found is added to `findings`."""
    listeners = tuple(
        replace(one, tls=_listener_tls(one.tls, ("listener", number, "tls"), findings)) if one.tls is not None else one
        for number, one in enumerate(config.listener)
    )
    upstreams = {
        name: replace(one, tls=_upstream_tls(one.tls, ("upstream", name, "tls"), findings))
        for name, one in config.upstream.items()
    }
    providers = {
        name: replace(one, tls=_upstream_tls(one.tls, ("provider", name, "tls"), findings))
        for name, one in config.provider.items()
    }
    if config.trace is not None:
        for name, text in config.trace.headers.items():
            check_header(text, ("trace", "headers", name), findings)
    return replace(config, listener=listeners, upstream=upstreams, provider=providers)


def check_header(text: str, path: Path, findings: Findings) -> None:
    """Is it a header's value, or does it name one? If not, `findings` say why."""
    if text.startswith(PREFIX):
        _path(text, path, findings)
    if not findings.blames(path):
        try:
            read_header(text)
        except ValueError as error:
            findings.add(path, str(error))


def read_header(text: str) -> str:
    """What a header's value in the configuration stands for. Raises ValueError if that is none; never says it."""
    if text.startswith(ENVIRONMENT):
        name = text.removeprefix(ENVIRONMENT)
        if name not in os.environ:
            raise ValueError(
                f'there is no variable "{name}" in this environment: a service that runs has the one of its start, from'
                " its unit (EnvironmentFile=), so it takes a restart; what a shell exports does not reach it"
            )
        value, where = os.environ[name], f'the variable "{name}"'
    elif text.startswith(PREFIX):
        name = text.removeprefix(PREFIX)
        try:
            with open(os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), name), encoding="latin-1") as file:
                value = file.read(_MAX_VALUE + 1)
        except OSError as error:
            raise ValueError(f'the credential "{name}" cannot be read: {error.strerror}') from error
        where = f'the credential "{name}"'
    else:
        value, where = text, "this"
    value = value.strip()
    if not value:
        raise ValueError(f"{where} is empty")
    if not _VALUE.fullmatch(value) or len(value) > _MAX_VALUE:
        raise ValueError(f"{where} is no value of a header: visible ASCII characters, {_MAX_VALUE} at most")
    return value


def _listener_tls(tls: ListenerTls, path: Path, findings: Findings) -> ListenerTls:
    pairs = tuple(
        Certificate(
            certificate=_path(one.certificate, (*path, "certificates", number, "certificate"), findings),
            key=_path(one.key, (*path, "certificates", number, "key"), findings),
        )
        for number, one in enumerate(tls.certificates)
    )
    return replace(tls, certificates=pairs, client_ca=_path(tls.client_ca, (*path, "client_ca"), findings))


def _upstream_tls(tls: UpstreamTls, path: Path, findings: Findings) -> UpstreamTls:
    return replace(
        tls, **{key: _path(getattr(tls, key), (*path, key), findings) for key in ("ca", "certificate", "key")}
    )


def _path(text: str, path: Path, findings: Findings) -> str:
    if not text.startswith(PREFIX):
        return text
    name = text.removeprefix(PREFIX)
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        findings.add(path, f'"{name}" is no name of a credential: letters, digits, ".", "_" and "-"')
    elif not folder:
        findings.add(
            path,
            f"there are no credentials here ($CREDENTIALS_DIRECTORY is not set): LoadCredential={name}:FILE in the unit"
            f" gives it to the service; to check as root while that runs, set it to {_USUAL}",
        )
    elif "MAINPID" in os.environ and not os.path.isdir(folder):  # who has it is not the main process
        findings.leave(path)
    elif not os.path.exists(os.path.join(folder, name)):
        findings.add(path, f'there is no credential "{name}": LoadCredential={name}:FILE in the unit')
    return os.path.join(folder, name)
