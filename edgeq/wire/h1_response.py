"""Response heads from upstreams, read strictly (RFC 9112 4, 5, 6.3). What is wrong becomes upstream_protocol_error."""

from __future__ import annotations

from typing import Final

from edgeq.wire.chars import VALUE_OBS
from edgeq.wire.errors import Refused
from edgeq.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DROP,
    END_TO_END,
    REQUEST_ID,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    connection_options,
    parse_content_length,
    parse_line,
)
from edgeq.wire.framing import CHUNKED, LENGTH, UNTIL_CLOSE
from edgeq.wire.head import ResponseHead

MAX_RESPONSE_HEAD: Final = 256 * 1024


def find_response_end(data: bytes, seen: int) -> int:
    """The length of the head at the start of `data`, or -1 while it is incomplete. Raises: Refused."""
    start = seen - 3
    end = data.find(b"\r\n\r\n", max(0, start))
    if end >= 0:
        return end + 4
    if len(data) > MAX_RESPONSE_HEAD:
        raise _wrong(f"the response head is larger than {MAX_RESPONSE_HEAD} bytes")
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise _wrong("the answer does not begin with HTTP/1")
    if data.count(b"\n", seen) != data.count(b"\r\n", max(0, seen - 1)):  # or each byte costs all before it
        raise _wrong("a line ends with a bare LF")
    return -1


def parse_response(raw: bytes) -> ResponseHead:
    """Parse a complete response head (with its empty line). Raises: Refused(upstream_protocol_error)."""
    lines = raw[:-4].split(b"\r\n")
    status_line = lines[0]
    version = status_line[:9]
    code = status_line[9:12]
    if version == b"HTTP/1.1 ":
        minor = 1
    elif version == b"HTTP/1.0 ":
        minor = 0
    else:
        raise _wrong("the status line does not begin with HTTP/1.1 or HTTP/1.0")
    if len(code) != 3 or not code.isdigit() or status_line[12:13] not in (b" ", b"") or code[:1] == b"0":
        raise _wrong("the status line has no three-digit status")
    if status_line[12:].translate(None, VALUE_OBS):
        raise _wrong("the status line has a control character")
    head = ResponseHead(raw, int(code), minor)
    kept: list[bytes] = [b"HTTP/1.1 " + (status_line[9:] if len(status_line) > 12 else code + b" ")]
    options: list[bytes] = []
    lengths = 0
    codings = b""
    upgrade_lines: list[bytes] = []
    try:
        for line in lines[1:]:
            field = parse_line(line)
            kind = field.kind
            if kind == CONTENT_LENGTH:
                length = parse_content_length(field.value)
                if length < 0 or (lengths and length != head.content_length):
                    raise _wrong("Content-Length is not one plain number")
                lengths += 1
                head.content_length = length
                if lengths == 1 and head.status >= 200 and head.status != 204:  # RFC 9110 8.6: those have none
                    kept.append(line)
            elif kind == TRANSFER_ENCODING:
                codings = codings + b"," + field.value.lower() if codings else field.value.lower() or b","
            elif kind == CONNECTION:
                options.extend(connection_options(field.value))
            elif kind == UPGRADE:
                head.upgrade = field.value.lower()
                upgrade_lines.append(line)
            elif kind == TRAILER:
                head.trailers = True
                kept.append(line)
            elif kind in (DROP, REQUEST_ID, TE):
                pass
            else:
                kept.append(line)
    except Refused as error:
        raise _wrong(error.detail) from error
    if codings:
        if lengths:
            raise _wrong("Content-Length beside Transfer-Encoding")
        if minor == 0:
            raise _wrong("Transfer-Encoding in an HTTP/1.0 answer")
        if codings != b"chunked":
            raise _wrong("a transfer coding other than chunked")
        head.body_kind = CHUNKED
    elif lengths:
        head.body_kind = LENGTH
    else:
        head.body_kind = UNTIL_CLOSE
    head.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    if head.status == 204 and (codings or head.content_length):
        head.keep_alive = False  # should the body that it announces come, nobody must take it for the next answer
    if options:
        named = {option for option in options if option not in END_TO_END}
        if named:
            kept = [kept[0]] + [line for line in kept[1:] if parse_line(line).name not in named]
    if upgrade_lines and (head.status in (101, 426)):
        kept.extend(upgrade_lines)
        kept.append(b"connection: upgrade")
    head.forward = b"\r\n".join(kept) + b"\r\n"
    return head


def _wrong(detail: str) -> Refused:
    return Refused("upstream_protocol_error", detail)
