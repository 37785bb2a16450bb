"""What is charged of answers that were given up."""

from __future__ import annotations

import pytest

from edgeq.llm.estimate import Estimate
from edgeq.llm.incoming import Incoming
from edgeq.llm.message import Usage
from edgeq.llm.operation import ANTHROPIC, OPENAI
from edgeq.llm.passing import PassThrough
from edgeq.llm.unfinished import used_until
from edgeq.wire.h1_response import parse_response

EXPECTED = Estimate(100, 900)


def answer(status: int, dialect: str = "", body: bytes = b"") -> Incoming:
    """One of which this has come; a stream, if it has a dialect."""
    head = b"HTTP/1.1 %d X\r\ncontent-length: 1000\r\n\r\n" % status
    incoming = Incoming(parse_response(head))
    if dialect:
        incoming.passes(PassThrough(dialect, False))
    incoming.feed(body)
    return incoming


@pytest.mark.parametrize(("seconds", "output"), [(0.005, 0), (1.5, 150), (9.0, 900), (600.0, 900)])
def test_a_whole_answer(seconds: float, output: int) -> None:
    """Nothing of it is seen: as much as was expected, if it can have been written in that time."""
    assert used_until(EXPECTED, None, False, seconds) == Usage(input=100, output=output)
    assert used_until(EXPECTED, answer(200, body=b'{"id"'), False, seconds) == Usage(input=100, output=output)


def test_several_at_once() -> None:
    """Each of three is written at that speed."""
    expected = Estimate(100, 900)
    expected.answers = 3
    assert used_until(expected, None, False, 1.5) == Usage(input=100, output=450)


def test_a_stream() -> None:
    """What has come of it, and what it has told."""
    assert used_until(EXPECTED, None, True, 600.0) == Usage(input=100, output=0)
    assert used_until(EXPECTED, answer(200, OPENAI, b": ping\n\n"), True, 600.0) == Usage(input=100, output=0)
    told = (
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":'
        b'{"input_tokens":70,"cache_read_input_tokens":10,"output_tokens":1}}}\n\n'
    )
    assert used_until(EXPECTED, answer(200, ANTHROPIC, told), True, 600.0) == Usage(input=80, output=1, cached=10)


def test_a_refusal() -> None:
    """Whose body was still to come: nothing."""
    assert used_until(EXPECTED, answer(429), False, 600.0) is None
    assert used_until(EXPECTED, answer(500), True, 600.0) is None
