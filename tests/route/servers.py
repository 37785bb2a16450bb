"""How servers read a path: from the bytes on the wire to the decoded path that they serve, each as plainly as possible.

They stand for kinds, not for versions: each line of a docstring names programs that read so, at least if told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

Server = Callable[[bytes], bytes]


def _walk(path: bytes, merge: bool) -> bytes:
    """Dot segments resolved (RFC 3986 5.2.4); with `merge` empty segments do not count."""
    stack: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del stack[-1:]
        elif segment not in ((b".", b"") if merge else (b".",)):
            stack.append(segment)
    if segments[-1] in (b".", b"..") or (merge and not segments[-1]):
        stack.append(b"")
    return b"/" + b"/".join(stack)


def _without_parameters(path: bytes) -> bytes:
    return b"/".join(segment.split(b";")[0] for segment in path.split(b"/"))


def literal(path: bytes) -> bytes:
    """Decoded once, nothing resolved: most WSGI and ASGI frameworks."""
    return unquote_to_bytes(path)


def cleaned(path: bytes) -> bytes:
    """Decoded, then resolved and merged: nginx's locations, Go's ServeMux, static file servers."""
    return _walk(unquote_to_bytes(path), True)


def strict(path: bytes) -> bytes:
    """Decoded, then resolved as RFC 3986 says, empty segments counting."""
    return _walk(unquote_to_bytes(path), False)


def resolved_first(path: bytes) -> bytes:
    """Resolved as it came, then decoded, then opened as a file."""
    return _walk(unquote_to_bytes(_walk(path, False)), True)


def merged_first(path: bytes) -> bytes:
    """Slashes merged by one hop (HAProxy's path-merge-slashes), then `strict`."""
    while b"//" in path:
        path = path.replace(b"//", b"/")
    return strict(path)


def tomcat(path: bytes) -> bytes:
    """Parameters dropped, then decoded, backslashes turned, resolved (encodedSolidusHandling=decode)."""
    return _walk(unquote_to_bytes(_without_parameters(path)).replace(b"\\", b"/"), True)


def undertow(path: bytes) -> bytes:
    """Decoded, then parameters dropped, then resolved."""
    return _walk(_without_parameters(unquote_to_bytes(path)), True)


def iis(path: bytes) -> bytes:
    """Decoded, "%u002f" as well, backslashes turned, resolved."""
    path = path.replace(b"%u00", b"%").replace(b"%U00", b"%")
    return _walk(unquote_to_bytes(path).replace(b"\\", b"/"), True)


def twice(path: bytes) -> bytes:
    """Decoded by two hops: allowDoubleEscaping, a proxy that forwards what it has decoded."""
    return _walk(unquote_to_bytes(unquote_to_bytes(path)), True)


def thrice(path: bytes) -> bytes:
    """By three, resolved and merged by each of them."""
    for _ in range(3):
        path = _walk(unquote_to_bytes(path), True)
    return path


def c_string(path: bytes) -> bytes:
    """Decoded into a string that ends at NUL."""
    return _walk(unquote_to_bytes(path).split(b"\0")[0], True)


def parsed_again(path: bytes) -> bytes:
    """Decoded and handed to a second parser of URLs, for whom "?" and "#" end the path."""
    return _walk(unquote_to_bytes(path).split(b"?")[0].split(b"#")[0], True)


SERVERS: tuple[Server, ...] = (
    literal,
    cleaned,
    strict,
    resolved_first,
    merged_first,
    tomcat,
    undertow,
    iis,
    twice,
    thrice,
    c_string,
    parsed_again,
)


def served(path: bytes) -> Iterator[tuple[str, bytes]]:
    """What each of them serves, percent-encoded again (everything but "/" that is not visible ASCII)."""
    for server in SERVERS:
        found = server(path)
        shown = b"".join(
            bytes((byte,)) if 0x20 < byte < 0x7F and byte not in b"%?#" else b"%%%02X" % byte for byte in found
        )
        yield server.__name__, shown
