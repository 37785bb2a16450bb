"""Body framing (RFC 9112 6, 7): where a message ends. Payload bytes are never looked at, only counted.

A chunked body passes as it came, without chunk extensions; what is held back is at most one unfinished chunk-size line
or the trailer section, so that nothing reaches the other side before it is known to be well formed:

    SIZE --size > 0--> DATA --all bytes--> DATA_END --CRLF--> SIZE
    SIZE --size = 0--> TRAILER --empty line--> DONE

Strict where smuggling lives: a line ends with CRLF and nothing else, a size is 1 to 15 hex digits, an extension has no
control characters, white space stands only where RFC 9112 7.1.1 allows it ("funky chunks", CVE-2025-22871,
CVE-2025-43859: the two bytes after a chunk are checked, not skipped).
"""

from __future__ import annotations

import re
from typing import Final

from edgeq.wire.chars import HEX_DIGITS, VALUE_OBS
from edgeq.wire.errors import Refused
from edgeq.wire.fields import FORBIDDEN_TRAILERS, parse_line

# How a body is delimited.
NO_BODY: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4

# chunk-size and chunk-ext of RFC 9112 7.1.1; a quoted string is closed on its line or it is none (CVE-2026-2332).
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENDED_SIZE: Final = re.compile(
    rb"([0-9a-fA-F]+)(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)+"
)
_PLAIN_DIGITS: Final = 6
_CR: Final = 13
_LF: Final = 10
_DIGIT: Final = bytes(int(chr(byte), 16) if chr(byte) in "0123456789abcdefABCDEF" else 255 for byte in range(256))
"""What a byte is worth as a hex digit; 255: it is none."""
_MAX_SIZE_LINE: Final = 256
_LAST: Final = b"0\r\n\r\n"


class ChunkedFramer:
    """Follows one chunked body.

    `decode`: give out the payload without chunk framing (for a peer that only speaks HTTP/1.0).
    `keep_trailers`: pass on trailer fields that may be merged or forwarded; otherwise all are dropped.
    """

    __slots__ = (
        "_decode",
        "_held",
        "_keep_trailers",
        "_max_trailer_bytes",
        "_state",
        "done",
        "excess",
        "payload_bytes",
        "remaining",
    )

    def __init__(self, decode: bool, keep_trailers: bool, max_trailer_bytes: int) -> None:
        self._decode = decode
        self._keep_trailers = keep_trailers
        self._max_trailer_bytes = max_trailer_bytes
        self._state = _SIZE
        self.remaining: int = 0
        """Payload bytes of the current chunk that have been announced and not come yet."""
        self._held = b""
        self.done = False
        self.excess = b""
        self.payload_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return what to pass on (often the same object).

        After the end `done` is true and `excess` holds the bytes that follow the message.
        Raises: Refused for a malformed body or too large a trailer section.
        """
        seen = 0
        if self._held:
            seen = len(self._held)
            data = self._held + data
            self._held = b""
        pos = 0
        size = len(data)
        out: list[bytes] | None = [] if self._decode else None
        start = 0  # data[start:pos] is to be passed on as it came
        while pos < size:
            state = self._state
            if state == _DATA:
                take = size - pos
                if take > self.remaining:
                    take = self.remaining
                if out is not None and self._decode:
                    out.append(data[pos : pos + take])
                pos += take
                self.remaining -= take
                self.payload_bytes += take
                if self.remaining:
                    break
                self._state = _DATA_END
            elif state == _DATA_END:
                if data[pos] != _CR or (size - pos >= 2 and data[pos + 1] != _LF):
                    raise Refused("request_malformed", "a chunk is longer than its size says")
                if size - pos < 2:
                    break
                pos += 2
                self._state = _SIZE
            elif state == _SIZE:
                # The plain case, a few digits: read byte by byte, which compiled is a tenth of finding and cutting.
                length = 0
                end = pos
                last = pos + _PLAIN_DIGITS
                if last > size - 2:
                    last = size - 2
                while end < last:
                    digit = _DIGIT[data[end]]
                    if digit > 15:
                        break
                    length = length * 16 + digit
                    end += 1
                if length and data[end] == _CR and data[end + 1] == _LF:
                    self.remaining = length
                    pos = end + 2
                    self._state = _DATA
                    continue
                end = data.find(b"\r\n", pos, pos + _MAX_SIZE_LINE + 2)
                if end < 0:
                    self._check_partial_size_line(data[pos : pos + _MAX_SIZE_LINE + 2])
                    break
                line = data[pos:end]
                self.remaining = parse_chunk_size(line)
                if self.remaining == 0:
                    # The last chunk's line is passed on together with the trailer section that follows it.
                    self._state = _TRAILER
                    continue
                if not self._decode and b";" in line:
                    # Extensions end here: nobody on the other side shall read them in another way.
                    if out is None:
                        out = []
                    out.append(data[start:pos])
                    out.append(b"%x" % self.remaining)
                    start = end
                pos = end + 2
                self._state = _DATA
            else:
                return self._trailer(data, seen, start, pos, out)
        if pos < size:
            self._held = data[pos:]
        return self._passed(data, start, pos, out)

    def _passed(self, data: bytes, start: int, pos: int, out: list[bytes] | None) -> bytes:
        """What goes on: the collected parts and, undecoded, the rest as it came."""
        if out is None:
            return data if pos == len(data) else data[:pos]
        if not self._decode:
            out.append(data[start:pos])
        return b"".join(out)

    def _trailer(self, data: bytes, seen: int, start: int, pos: int, out: list[bytes] | None) -> bytes:
        """From the start of the last chunk's line at `pos` to the end of the message, if it is all there.

        `seen`: how much of `data` was looked at the last time; a section that comes byte by byte is read once.
        """
        fields = data.find(b"\r\n", pos) + 2
        if data.startswith(b"\r\n", fields):
            end = fields + 2
            tail = _LAST
        else:
            last = data.find(b"\r\n\r\n", max(fields, seen - 3))
            size = (last + 2 if last >= 0 else len(data) - 3) - fields
            if size > self._max_trailer_bytes:
                raise Refused(
                    "trailer_bytes_exceeded", f"the trailer section is larger than {self._max_trailer_bytes} bytes"
                )
            if last < 0:
                if data.count(b"\n", max(fields, seen)) != data.count(b"\r\n", max(fields, seen - 1)):
                    raise Refused("request_malformed", "a bare LF in the trailer section")
                self._held = data[pos:]
                return self._passed(data, start, pos, out)
            end = last + 4
            tail = b"0\r\n" + self._kept_trailers(data[fields:last]) + b"\r\n"
        self._state = _DONE
        self.done = True
        self.excess = data[end:]
        if out is None:
            if end == len(data) and data.endswith(tail) and len(tail) == end - pos:
                return data
            return data[:pos] + tail
        if not self._decode:
            out.append(data[start:pos])
            out.append(tail)
        return b"".join(out)

    def _kept_trailers(self, section: bytes) -> bytes:
        kept: list[bytes] = []
        for line in section.split(b"\r\n"):
            field = parse_line(line)  # validated even if it is dropped: a malformed one is never harmless
            if self._keep_trailers and field.name not in FORBIDDEN_TRAILERS:
                kept.append(line + b"\r\n")
        return b"".join(kept)

    def _check_partial_size_line(self, part: bytes) -> None:
        if part.endswith(b"\r"):
            part = part[:-1]
        if len(part) > _MAX_SIZE_LINE:
            raise Refused("request_malformed", "a chunk size line is too long")
        if part.translate(None, VALUE_OBS):
            raise Refused("request_malformed", "a chunk size line has a bare CR, a bare LF or a control character")


def parse_chunk_size(line: bytes) -> int:
    """The size in a chunk-size line without its CRLF; extensions are checked and otherwise ignored.

    Raises: Refused(request_malformed).
    """
    digits = line
    if line.translate(None, HEX_DIGITS):
        match = _EXTENDED_SIZE.fullmatch(line)
        if match is None:
            raise Refused("request_malformed", "a chunk size line is malformed")
        digits = match.group(1)
    if not digits or len(digits) > 15:
        raise Refused("request_malformed", "a chunk size is missing or too large")
    return int(digits, 16)


def chunk(data: bytes) -> bytes:
    """`data` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = _LAST
