"""Files that the service manager hands to this service alone: "credential:NAME" wherever a certificate or key is named.

systemd (LoadCredential=, LoadCredentialEncrypted=) puts them into a folder that only the service can read, and names it
in $CREDENTIALS_DIRECTORY; they are read when the service starts, so a reload sees what the start saw.
Source: systemd.exec(5), "Credentials".
"""

from __future__ import annotations

import os
import re
from typing import Final

from msgspec.structs import replace

from edgeq.config.findings import Findings
from edgeq.config.lines import Path
from edgeq.config.schema import Certificate, Config, ListenerTls

PREFIX: Final = "credential:"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_USUAL: Final = "/run/credentials/edgeq.service"


def find_credentials(config: Config, findings: Findings) -> Config:
    """The same configuration with paths instead of names. What cannot be found is added to `findings`."""
    listeners = tuple(
        replace(one, tls=_listener_tls(one.tls, ("listener", number, "tls"), findings)) if one.tls is not None else one
        for number, one in enumerate(config.listener)
    )
    upstreams = {
        name: replace(
            one,
            tls=replace(
                one.tls,
                **{
                    key: _path(getattr(one.tls, key), ("upstream", name, "tls", key), findings)
                    for key in ("ca", "certificate", "key")
                },
            ),
        )
        for name, one in config.upstream.items()
    }
    return replace(config, listener=listeners, upstream=upstreams)


def _listener_tls(tls: ListenerTls, path: Path, findings: Findings) -> ListenerTls:
    pairs = tuple(
        Certificate(
            certificate=_path(one.certificate, (*path, "certificates", number, "certificate"), findings),
            key=_path(one.key, (*path, "certificates", number, "key"), findings),
        )
        for number, one in enumerate(tls.certificates)
    )
    return replace(tls, certificates=pairs, client_ca=_path(tls.client_ca, (*path, "client_ca"), findings))


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
    elif not os.path.exists(os.path.join(folder, name)):
        findings.add(path, f'there is no credential "{name}": LoadCredential={name}:FILE in the unit')
    return os.path.join(folder, name)
