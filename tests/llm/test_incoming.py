"""A target's stream as it comes: when all of it has been said."""

from __future__ import annotations

import pytest

from edgeq.llm.dialects.base import StreamDecoder
from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.incoming import Incoming
from edgeq.wire.framing import CHUNKED, UNTIL_CLOSE
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
