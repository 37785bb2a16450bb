"""Durations and sizes with units: "250ms", "1h30m", "64KiB"; and back again for people, as are numbers and money.

A duration is seconds, a size is bytes; a bare number is taken as just that. A size must be a whole number of bytes.
KiB, MiB, GiB are powers of 1024; kB, MB, GB are powers of 1000 (IEC 80000-13). A bare "K" or "M" is refused, because
programs disagree on which of the two it means.
"""

from __future__ import annotations

import math
import re
from typing import Final

from edgeq.config.base import Duration, Size

MAX_DURATION_S: Final = 366 * 86400
MAX_SIZE_BYTES: Final = 2**62

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)\s*", re.ASCII)


def parse_duration(value: object) -> Duration:
    """Seconds of "250ms", "1h30m", 5 or 0.5. Raises ValueError with a sentence for people."""
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        seconds = _sum(value, _SECONDS)
    if seconds is None:
        raise ValueError('expected a duration such as "250ms", "30s", "5m", "1h", or a number of seconds')
    if not _finite(seconds) or seconds > MAX_DURATION_S:
        raise ValueError("a duration may be 366 days at most (0 means no limit, where the key allows it)")
    return Duration(seconds)


def parse_size(value: object) -> Size:
    """Bytes of "64KiB", "10kB" or 4096. Raises ValueError with a sentence for people."""
    count = _number(value)
    if count is None and isinstance(value, str):
        count = _sum(value, _BYTES)
    if count is None:
        raise ValueError('expected a size such as "64KiB", "1MiB", "10kB", or a number of bytes')
    if not _finite(count) or count > MAX_SIZE_BYTES:
        raise ValueError("a size may be 2^62 bytes at most (0 means no limit, where the key allows it)")
    if count != int(count):
        raise ValueError("a size is a whole number of bytes")
    return Size(int(count))


_RATE: Final = re.compile(r"([1-9][0-9]*)\s*/\s*(\S+)(?:\s+burst\s+([1-9][0-9]*))?", re.ASCII)
_EXPECTED_RATE: Final = 'expected "COUNT/WINDOW" or "COUNT/WINDOW burst N", such as "100/s" or "10/15m burst 2"'
MAX_RATE: Final = 10**9


def parse_rate(text: str) -> tuple[int, float, int]:
    """Count, seconds of the window and burst (0: not said) of "100/s" or "10/15m burst 2". Raises ValueError."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(_EXPECTED_RATE)
    count, window, burst = found.groups()
    try:
        seconds = _SECONDS.get(window) or float(parse_duration(window))
    except ValueError:
        wrong = f'"{window}" is no window: one is s, m, h, d, or a duration as 15m, of 366 days at most'
        raise ValueError(f"{_EXPECTED_RATE}; {wrong}") from None
    if seconds <= 0:
        raise ValueError("the window must be more than 0")
    if int(count) > MAX_RATE or int(burst or 0) > MAX_RATE:
        raise ValueError(f"count and burst may be {MAX_RATE} at most")
    if int(count) / seconds > MAX_RATE / 100:
        raise ValueError(f"more than {MAX_RATE // 100} in a second cannot be told apart")
    return int(count), seconds, int(burst or 0)


def show(value: object) -> str:
    """A value as the configuration would write it: Duration(0.25) is 250ms, Size(65536) is 64KiB."""
    if isinstance(value, Duration):
        return _show_duration(float(value))
    if isinstance(value, Size):
        return _show_size(int(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(show, value)) + "]"
    return "none" if value is None else str(value)


def plain(value: float, digits: int = 3, decimals: int = 6) -> str:
    """A number by so many digits that tell something, none of them beyond so many decimals, and never an exponent."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{value:.{min(max(places, 0), decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(micro: int) -> str:
    """All of an amount in millionths: "12.5", "0.000021"."""
    return f"{micro // 10**6}.{micro % 10**6:06d}".rstrip("0").rstrip(".")


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def _finite(number: float | int) -> bool:
    # Not math.isfinite alone: it overflows for an integer of 400 digits, which TOML allows.
    return isinstance(number, int) or math.isfinite(number)


def _sum(text: str, units: dict[str, float] | dict[str, int]) -> float | int | None:
    """The sum of all "number unit" parts, or None if the text is not made of them."""
    if text.startswith("-"):
        raise ValueError("must not be negative")
    total: float | int = 0
    pos = 0
    while pos < len(text):
        part = _PART.match(text, pos)
        if part is None:
            return None
        number, unit = part.groups()
        if unit not in units:
            known = ", ".join(units)
            raise ValueError(
                f'unknown unit "{unit}" (known: {known})' if unit else f"a unit is missing (one of {known})"
            )
        size = units[unit]
        # A duration is a float in any case, and one of 400 digits is infinite, where an integer overflows.
        total += size * (float(number) if "." in number or isinstance(size, float) else int(number))
        pos = part.end()
    return total if pos else None


def _show_duration(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    if 0 < seconds < 1 and math.isclose(seconds * 1000, round(seconds * 1000), rel_tol=1e-12):
        return f"{round(seconds * 1000)}ms"
    return f"{seconds:.9g}s"


def _show_size(count: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return f"{count}B"
