"""The path that routes are matched against, and what else an upstream may read in it.

A gateway decides by the path and an upstream serves by it. Where they read it differently, a request reaches what
another route governs: "/public/../admin", "/%61dmin" and "/caf%c3%a9" if raw bytes are compared; "/public/..;/admin"
before a servlet container (Tomcat drops path parameters first); "/public/..%2fadmin" before whoever decodes and then
resolves (nginx with a URI in proxy_pass, most file servers); "/public/..%5cadmin" before IIS;
"/public/%252e%252e/admin" behind two hops that decode.

Matching uses one normal form (RFC 3986 6.2.2): each byte spelled in one way, dot segments resolved, slashes merged. In
it an encoded slash is data ("/projects/group%2Fname" is legitimate: GitLab, npm), and so are ";" and "\\". What is
forwarded stays as it came. The other ways to read a path are neither repaired nor forbidden as such: `readings` lists
them, and `table` refuses what would belong to another route in one of them. Others forbid characters (Spring's
StrictHttpFirewall, Jetty's UriCompliance, Envoy's path_with_escaped_slashes_action, Traefik's encodedCharacters) and
break ids that hold them; what a gateway has to guard is the route.

Not looked for: letter case, and the blanks and dots at the end of a name that Windows ignores. Routes to an upstream
that takes those for the same must not rely on the difference.
"""

from __future__ import annotations

import re
from typing import Final

_USUAL_MAP: Final = bytes(0 if byte in b"%;\\" else byte for byte in range(256))

_STRUCTURE: Final = re.compile(rb"%2F|%25|%00|%3F|%23|;|\\|/\.|//")
"""The same for a spelled path: what others may take for structure. The rest that is encoded is data to everybody."""
_PARAMETERS: Final = re.compile(rb";[^/]*")
_SLASHES: Final = re.compile(rb"//+")
_END: Final = re.compile(rb"%(?:00|3F|23)")
"""NUL ends a C string; a decoded "?" or "#" ends the path for a second parser."""
_MICROSOFT: Final = re.compile(rb"%25u00([0-9A-Fa-f]{2})")
"""IIS decodes "%u002f" too."""

MAX_READ_BYTES: Final = 32 * 1024
"""Of all steps to the readings of one path together: 3 ms at most. What people send has two or three readings."""
_READING_BYTES: Final = 1024
"""What a step counts at least."""


def _digits(byte: int) -> list[bytes]:
    """The two hex digits of a byte, in every mixture of cases."""
    low, high = b"%02x" % byte, b"%02X" % byte
    return [low, high, low[:1] + high[1:], high[:1] + low[1:]]


_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_PLAIN: Final[dict[bytes, bytes]] = {digits: bytes((byte,)) for byte in _UNRESERVED for digits in _digits(byte)}
_SPELLED: Final[dict[bytes, bytes]] = {
    digits: bytes((byte,)) if 0x20 < byte < 0x7F and byte not in b"/%?#" else b"%%%02X" % byte
    for byte in range(256)
    for digits in _digits(byte)
}


def _decoded(path: bytes, table: dict[bytes, bytes], keep: bool) -> bytes:
    """Escapes replaced as `table` says, others kept if so told; "%" without two digits means itself: "%25".

    Not by re.sub: its callback took 4 ms for a path of 8 KiB.
    """
    parts = path.split(b"%")
    out = [parts[0]]
    for part in parts[1:]:
        digits = part[:2]
        text = table.get(digits)
        if text is not None:
            out.append(text + part[2:])
        elif keep and digits in _SPELLED:
            out.append(b"%" + part)
        else:
            out.append(b"%25" + part)
    return b"".join(out)


def resolved(path: bytes, merge: bool = True) -> bytes:
    """Dot segments resolved; with `merge` empty segments are none (else ".." takes one back, as in RFC 3986 5.2.4)."""
    out: list[bytes] = []
    segments = path.split(b"/")
    last = segments[-1]
    for segment in segments[1:]:
        if segment == b"..":
            if out:
                out.pop()
        elif segment != b"." and (segment or not merge):
            out.append(segment)
    if not merge and not last and out:
        out.pop()  # the slash at the end comes below
    result = b"/" + b"/".join(out)
    if out and last in (b"", b".", b".."):
        result += b"/"
    return result


def is_usual(path: bytes) -> bool:
    """Is `path` in its normal form already, without any other reading? (Half of what a regular expression costs.)

    By find: `b"//" in path` takes the left side for a number first, and the exception that is raised for it and thrown
    away costs more than all the rest (CPython 3.11, bytes.__contains__).
    """
    return 0 not in path.translate(_USUAL_MAP) and path.find(b"//") < 0 and path.find(b"/.") < 0


def spelled(path: bytes) -> bytes:
    """Each byte in one spelling: visible ASCII as it is, anything else and "/%?#" (as data) percent-encoded."""
    return _decoded(path, _SPELLED, False)


def normalized(path: bytes) -> bytes:
    """The form in which paths are compared. What does not begin with "/" ("*") stays as it is."""
    return resolved(spelled(path)) if path[:1] == b"/" else path


def plain(path: bytes) -> bytes:
    """What may be forwarded instead of `path`: unreserved characters decoded, dot segments resolved, slashes merged.

    It has the same segments as the normal form, but its bytes mean the same to every reader of RFC 3986.
    """
    return resolved(_decoded(path, _PLAIN, True), True) if path[:1] == b"/" else path


def has_one_reading(spelling: bytes) -> bool:
    """Is there nothing in a spelled path that anybody could take for structure?"""
    return _STRUCTURE.search(spelling) is None


def readings(path: bytes) -> list[bytes]:
    """The normal forms of everything that an upstream may take `path` for; the gateway's own comes first.

    They are what any sequence of these steps leads to: path parameters dropped, backslashes taken for slashes, slashes
    merged, dot segments resolved with or without merging (each before decoding, after it, or both); encoded slashes
    decoded, cut at NUL, "?" or "#", decoded once more. Returns an empty list if there are too many to tell.
    """
    spelling = spelled(path)
    todo = [spelling]
    seen = {spelling}
    found: dict[bytes, None] = {resolved(spelling): None}
    budget = MAX_READ_BYTES
    if b"%" in path:
        # Who looks at structure before decoding takes "%2e%2e" for a name.
        raw = [path]
        seen_raw = {path}
        while raw:
            path = raw.pop()
            budget -= len(path) + _READING_BYTES
            if budget < 0:
                return []
            _add(spelled(path), todo, seen)
            _restructure(path, raw, seen_raw)
    while todo:
        path = todo.pop()
        budget -= len(path) + _READING_BYTES
        if budget < 0:
            return []
        found[resolved(path)] = None
        if has_one_reading(path):
            continue
        _restructure(path, todo, seen)
        if b"%" in path:
            _add(path.replace(b"%2F", b"/"), todo, seen)
            _add(spelled(_MICROSOFT.sub(rb"%\1", path)), todo, seen)
            _add(spelled(path.replace(b"%25", b"%")), todo, seen)
            end = _END.search(path)
            if end is not None:
                _add(path[: end.start()], todo, seen)
    return list(found)


def _restructure(path: bytes, todo: list[bytes], seen: set[bytes]) -> None:
    """The steps that only look at characters which are not encoded."""
    if b"\\" in path:
        _add(path.replace(b"\\", b"/"), todo, seen)
    if b";" in path:
        _add(_PARAMETERS.sub(b"", path), todo, seen)
    if b"//" in path:
        _add(_SLASHES.sub(b"/", path), todo, seen)
    if b"/." in path:
        _add(resolved(path, False), todo, seen)


def _add(path: bytes, todo: list[bytes], seen: set[bytes]) -> None:
    if path not in seen:
        seen.add(path)
        todo.append(path)
