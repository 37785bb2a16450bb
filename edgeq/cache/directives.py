"""Cache-Control (RFC 9111 5.2, RFC 5861): a field value to what it says.

What is doubtful makes an answer older, never younger: of two values the smaller one holds, a number that cannot be read
is 0, and the forms of `private` and `no-cache` that name fields are taken for the whole answer (RFC 9111 5.2.2.4 and
5.2.2.7 allow that). Directives that are not known are passed over.
"""

from __future__ import annotations

from typing import Final

UNSAID: Final = -1
MAX_SECONDS: Final = 1 << 31
"""What is larger counts as this much (RFC 9111 1.2.2)."""


class Directives:
    """One Cache-Control. Seconds are UNSAID where the directive is missing."""

    __slots__ = (
        "max_age",
        "min_fresh",
        "must_revalidate",
        "no_cache",
        "no_store",
        "only_if_cached",
        "private",
        "proxy_revalidate",
        "public",
        "s_maxage",
        "stale_if_error",
        "stale_while_revalidate",
    )

    def __init__(self) -> None:
        self.no_store: bool = False
        self.no_cache: bool = False
        self.only_if_cached: bool = False
        self.private: bool = False
        self.public: bool = False
        self.must_revalidate: bool = False
        self.proxy_revalidate: bool = False
        self.max_age: int = UNSAID
        self.s_maxage: int = UNSAID
        self.min_fresh: int = UNSAID
        self.stale_while_revalidate: int = UNSAID
        self.stale_if_error: int = UNSAID


def parse_directives(value: bytes) -> Directives:
    """Args: value of all Cache-Control lines, joined by commas. Raises: nothing; anything may have been sent."""
    said = Directives()
    for part in split_list(value):
        name, _, argument = part.partition(b"=")
        name = name.strip(b" \t").lower()
        if name == b"no-store":
            said.no_store = True
        elif name == b"no-cache":
            said.no_cache = True
        elif name == b"private":
            said.private = True
        elif name == b"public":
            said.public = True
        elif name == b"must-revalidate":
            said.must_revalidate = True
        elif name == b"proxy-revalidate":
            said.proxy_revalidate = True
        elif name == b"max-age":
            said.max_age = _least(said.max_age, argument)
        elif name == b"s-maxage":
            said.s_maxage = _least(said.s_maxage, argument)
        elif name == b"min-fresh":
            said.min_fresh = _least(said.min_fresh, argument)
        elif name == b"stale-while-revalidate":
            said.stale_while_revalidate = _least(said.stale_while_revalidate, argument)
        elif name == b"stale-if-error":
            said.stale_if_error = _least(said.stale_if_error, argument)
        elif name == b"only-if-cached":
            said.only_if_cached = True
    return said


def split_list(value: bytes) -> list[bytes]:
    """The elements of a list (RFC 9110 5.6.1) without white space around them; a comma within quotes is none."""
    if b'"' not in value:
        return [part for part in [part.strip(b" \t") for part in value.split(b",")] if part]
    parts: list[bytes] = []
    start = 0
    quoted = False
    escaped = False
    for at in range(len(value)):
        byte = value[at]
        if escaped:
            escaped = False
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x5C:
            escaped = quoted
        elif byte == 0x2C and not quoted:
            parts.append(value[start:at].strip(b" \t"))
            start = at + 1
    parts.append(value[start:].strip(b" \t"))
    return [part for part in parts if part]


def seconds(argument: bytes) -> int:
    """delta-seconds (RFC 9111 1.2.2), also in quotes; 0 if it is none."""
    argument = argument.strip(b" \t")
    if len(argument) > 1 and argument[:1] == b'"' and argument[-1:] == b'"':
        argument = argument[1:-1]
    if not argument or not argument.isdigit():
        return 0
    if len(argument) > 10:
        argument = argument.lstrip(b"0")
        if len(argument) > 10:
            return MAX_SECONDS
    return min(int(argument or b"0"), MAX_SECONDS)


def _least(known: int, argument: bytes) -> int:
    value = seconds(argument)
    return value if known == UNSAID or value < known else known
