"""The corpora of other parsers are asked with a Host, and are otherwise as they are."""

from __future__ import annotations

import pytest

from benchmarks.suites.corpora import with_host


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("fields", [b"", b"Accept: */*\r\n"])
def test_host_is_added_where_it_is_missing(before: bytes, fields: bytes) -> None:
    """Behind the request line, also where empty lines stand before that."""
    line = before + b"GET / HTTP/1.1\r\n"
    assert with_host(line + fields + b"\r\n") == line + b"Host: localhost\r\n" + fields + b"\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"\r\nGET / HTTP/1.0\r\nA: b\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"",
        b"\r\n",
    ],
)
def test_all_others_stay_as_they_are(request_bytes: bytes) -> None:
    """They have one, or have no head that could have one."""
    assert with_host(request_bytes) == request_bytes
