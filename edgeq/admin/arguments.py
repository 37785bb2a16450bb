"""Arguments and options that several commands of the admin socket have, and what is right for them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

from edgeq.admin.command import Argument
from edgeq.config.change import NAMED, TABLES, parse_value
from edgeq.config.units import parse_duration
from edgeq.observe.history import EVERY_S

MAX_COMMENT: Final = 200
MOST_EVENTS: Final = 1000


def is_count(text: str) -> str:
    is_right = text.isascii() and text.isdigit() and 0 < int(text) <= MOST_EVENTS
    return "" if is_right else f"a number from 1 to {MOST_EVENTS}"


def is_text_or_count(text: str) -> str:
    return is_count(text) if text.isdigit() else ""


def ttl_s(text: str) -> float:
    """Seconds; 0 for none. Raises ValueError."""
    return float(parse_duration(parse_value(text))) if text else 0.0


def _is_ttl(text: str) -> str:
    with contextlib.suppress(ValueError):
        if ttl_s(text) > 0:
            return ""
    return 'a duration such as "10m", "90s" or "1h", a year at most'


def _is_comment(text: str) -> str:
    return "" if len(text) <= MAX_COMMENT and text.isprintable() else f"{MAX_COMMENT} printable characters at most"


def is_flag(text: str) -> str:
    return "" if text in ("true", "false") else "true or false"


def is_seconds(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 3600 else "a number from 1 to 3600"


def is_step(text: str) -> str:
    is_number = text.isascii() and text.replace(".", "", 1).isdigit()
    return "" if is_number and EVERY_S <= float(text) <= 3600 else f"a number from {EVERY_S} to 3600"


def _is_etag(text: str) -> str:
    """Nothing would be no condition: of a script, a variable that is empty."""
    return "" if text.strip() else "an ETag, or *"


def match(what: str) -> tuple[Argument, ...]:
    return (Argument("match", f"only those that have this text in their {what}"),)


IF_MATCH: Final = Argument("if-match", "only if the configuration is still the one with this ETag, else 412", _is_etag)
_COMMENT: Final = Argument("comment", f"why, for whoever looks later; {MAX_COMMENT} characters at most", _is_comment)
TAKE_BACK: Final = (_COMMENT, IF_MATCH)
CHANGE: Final = (
    Argument("ttl", "for how long; then what is kept by --persist, or in the file, holds again", _is_ttl),
    _COMMENT,
    Argument("persist", "write it to server.changes, so that it outlives a restart", is_flag, is_flag=True),
    IF_MATCH,
)
RESOURCE: Final = (
    Argument(
        "resource",
        ", ".join((*(f"{one}/NAME" for one in NAMED), *TABLES)),
        required=True,
    ),
    Argument("key", "as in its table: limit, queue.max, endpoints.URL.weight", required=True),
)
OF_ENDPOINT: Final = (Argument("endpoint", "URL, or host and port; UPSTREAM#URL where several have it", required=True),)
OF_PART: Final = (
    replace(
        OF_ENDPOINT[0],
        help=f"{OF_ENDPOINT[0].help}; or provider/NAME, a key of one as in `show upstreams`, a model as in"
        " `show targets`",
    ),
)
OF_ROUTE: Final = (Argument("route", "its name", required=True),)
