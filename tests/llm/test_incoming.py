"""A target's stream as it comes: when all of it has been said."""

from __future__ import annotations

import pytest

from edgeq.llm.dialects.base import StreamDecoder
from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.incoming import MAX_ANSWER, Incoming, TooLarge
from edgeq.llm.passing import PassThrough
from edgeq.wire.framing import CHUNKED, LENGTH, UNTIL_CLOSE
from edgeq.wire.head import ResponseHead

GEMINI = b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}\r\n\r\n'
CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'


def incoming(kind: int, dialect: str) -> Incoming:
    """A stream of this dialect for a client of messages."""
    head = ResponseHead(b"", 200, 1)
    head.body_kind = kind
    coming = Incoming(head)
    decoder: StreamDecoder = DIALECTS[dialect].decoder()
    coming.translates(decoder, DIALECTS["anthropic"].encoder("m", True, 1, 1))
    return coming


@pytest.mark.parametrize(("dialect", "said"), [("gemini", GEMINI), ("openai", CHAT)])
@pytest.mark.parametrize("kind", [CHUNKED, UNTIL_CLOSE])
def test_a_stream_without_a_last_word_ends_with_its_last_byte(kind: int, dialect: str, said: bytes) -> None:
    """Gemini has none, and some servers that speak OpenAI's leave out their [DONE]."""
    coming = incoming(kind, dialect)
    framed = b"%x\r\n%b\r\n" % (len(said), said) if kind == CHUNKED else said
    out = coming.feed(framed)
    assert b"text_delta" in out
    before = coming.stopped
    if kind == CHUNKED:
        coming.feed(b"0\r\n\r\n")
    coming.ended()
    assert (before, coming.stopped) == (False, True)
    assert b"message_stop" in coming.rest()


def test_a_stream_that_has_not_said_why_it_ends_was_cut() -> None:
    """Its end is a failure then."""
    coming = incoming(UNTIL_CLOSE, "gemini")
    coming.feed(GEMINI.replace(b',"finishReason":"STOP"', b""))
    coming.ended()
    assert not coming.stopped
    assert coming.failed is not None


def test_what_is_no_stream_is_held_up_to_a_bound() -> None:
    """Known by its length at once, else as it comes."""
    head = ResponseHead(b"", 200, 1)
    head.body_kind, head.content_length = LENGTH, MAX_ANSWER + 1
    with pytest.raises(TooLarge):
        Incoming(head).feed(b"{")
    head.content_length = MAX_ANSWER
    assert Incoming(head).feed(b"{") == b""
    head.body_kind = UNTIL_CLOSE
    coming = Incoming(head)
    half = bytes(MAX_ANSWER // 2)
    coming.feed(half)
    coming.feed(half)
    with pytest.raises(TooLarge):
        coming.feed(b"}")


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def block(kind: str) -> bytes:
    """The event with which a block of this kind begins."""
    data = b'{"type":"content_block_start","index":0,"content_block":{"type":"%b","%b":""}}' % (
        kind.encode(),
        kind.encode(),
    )
    return b"event: content_block_start\ndata: " + data + b"\n\n"


@pytest.mark.parametrize(("kind", "is_sign"), [("thinking", False), ("text", True)])
def test_while_it_thinks_a_ping_is_more_of_the_stream(kind: str, is_sign: bool) -> None:
    """Anthropic's models may not show what they think, for minutes; before and after it a ping is no word."""
    head = ResponseHead(b"", 200, 1)
    head.body_kind = UNTIL_CLOSE
    coming = Incoming(head)
    coming.passes(PassThrough("anthropic", False))
    found = []
    for data in (PING, block(kind), PING, b'event: content_block_stop\ndata: {"index":0}\n\n', PING):
        coming.feed(data)
        found.append(coming.is_sign)
    assert found == [True, False, is_sign, False, True]
