"""Which names a certificate serves, from real certificates and from damaged ones."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.listener.certificate_names import read_names
from tests.listener.certificates import EC, RSA, make

RSA_ENCRYPTION = "2a864886f70d010101"
EC_PUBLIC_KEY = "2a8648ce3d0201"


def der(path: Path) -> bytes:
    """A file's certificate."""
    return ssl.PEM_cert_to_DER_cert(path.read_text())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A certificate with several kinds of names."""
    directory = tmp_path_factory.mktemp("certificates")
    made = make(directory, "a", "Example.ORG", "*.example.org", extra=",IP:192.0.2.1,URI:https://x/,email:a@b.c")
    return der(made.path)


def test_alternative_names(certificate: bytes) -> None:
    """DNS names in lower case, in order; other kinds are not names of hosts."""
    found = read_names(certificate)
    assert found.names == ("example.org", "*.example.org")
    assert found.key_algorithm == EC_PUBLIC_KEY


@pytest.mark.parametrize(("algorithm", "identifier"), [(EC, EC_PUBLIC_KEY), (RSA, RSA_ENCRYPTION)])
def test_common_name_without_alternative_names(tmp_path: Path, algorithm: tuple[str, ...], identifier: str) -> None:
    """An old certificate is served by its common name; the key's algorithm is told."""
    found = read_names(der(make(tmp_path, "a", common_name="Old.example", algorithm=algorithm).path))
    assert found.names == ("old.example",)
    assert found.key_algorithm == identifier


def test_cut_at_every_byte(certificate: bytes) -> None:
    """A cut certificate is an error, not a guess."""
    for cut in range(len(certificate)):
        with pytest.raises(ValueError):
            read_names(certificate[:cut])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged(certificate: bytes, data: st.DataObject) -> None:
    """Any damage ends in names or in ValueError."""
    damaged = bytearray(certificate)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_names(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """What is no certificate at all is ValueError."""
    with pytest.raises(ValueError):
        read_names(data)
