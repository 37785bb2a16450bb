"""Until when an answer is of use: what a trusted peer says, and what the upstream is told.

A deadline travels as the time that is left, because clocks of two machines differ (gRPC over HTTP2, "grpc-timeout").
The name of the header says its unit:

    grpc-timeout       digits and one of H, M, S, m (milli-), u (micro-), n (nanoseconds)
    ...-ms             whole milliseconds (Envoy's x-envoy-expected-rq-timeout-ms)
    any other          seconds, with or without a fraction

What cannot be read, or is longer than a day, is as good as none. A client that is not trusted sets no deadline and its
header is not forwarded: it could only shorten its own time, but what it says would reach the upstream as ours.
"""

from __future__ import annotations

from typing import Final

GRPC: Final = b"grpc-timeout"
_SECONDS: Final = 0
_MILLISECONDS: Final = 1
_GRPC: Final = 2
_GRPC_UNITS: Final[dict[bytes, float]] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_DIGITS: Final = 12
_MAX_S: Final = 86_400.0
NONE: Final = -1.0


class DeadlineHeader:
    """The header that tells how much time is left."""

    __slots__ = ("_form", "name")

    def __init__(self, name: bytes) -> None:
        """Args: name in lower case."""
        self.name = name
        self._form: int = _GRPC if name == GRPC else _MILLISECONDS if name.endswith(b"-ms") else _SECONDS

    def read(self, value: bytes) -> float:
        """Seconds that are left (0 is possible), or NONE."""
        form = self._form
        scale = 1.0
        fraction = b""
        if form == _GRPC:
            scale = _GRPC_UNITS.get(value[-1:], NONE)
            value = value[:-1]
        elif form == _MILLISECONDS:
            scale = 1e-3
        else:
            value, _, fraction = value.partition(b".")
        if scale < 0.0 or not value.isdigit() or len(value) > _MAX_DIGITS:
            return NONE
        left_s = int(value) * scale
        if fraction:
            fraction = fraction[:_MAX_DIGITS]
            if not fraction.isdigit():
                return NONE
            left_s += int(fraction) / 10.0 ** len(fraction)
        return left_s if left_s <= _MAX_S else NONE

    def line(self, left_s: float) -> bytes:
        """The line to forward, with its CRLF: rounded down, because the network takes its part, but never to nothing.

        A millisecond at least: 0 means "no time limit" to some.
        """
        left_ms = int(left_s * 1000.0 + 1e-6)  # 0.7 - 1 ulp s are 700 ms all the same
        if left_ms < 1:
            left_ms = 1
        form = self._form
        if form == _MILLISECONDS:
            return b"%b: %d\r\n" % (self.name, left_ms)
        if form == _GRPC:
            if left_ms > 99_999_999:  # eight digits at most
                return b"%b: %dS\r\n" % (self.name, left_ms // 1000)
            return b"%b: %dm\r\n" % (self.name, left_ms)
        return b"%b: %d.%03d\r\n" % (self.name, left_ms // 1000, left_ms % 1000)
