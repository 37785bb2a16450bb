"""What a request has used whose answer edgeq has given up: its client has left, or time has passed.

The provider has had all of its input, and may work on. So it is charged, to the caller and at the provider's gate:

    input   what was told so far, else what was estimated
    output  what was told; of a stream what has come of it; of a whole answer, of which nothing comes before its end,
            what was expected, but no more than is written in that time (`WRITTEN_A_SECOND`)

Nothing is charged where the provider itself has ended it: with an error, or by closing the connection; nor where it
was not sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.llm.message import Usage

if TYPE_CHECKING:
    from edgeq.llm.estimate import Estimate
    from edgeq.llm.incoming import Incoming

GIVEN_UP: Final = frozenset(
    ("client_gone", "client_stalled", "draining", "deadline_expired", "upstream_timeout", "answer_too_large")
)
"""Reasons by which edgeq lets go of an answer that may still come."""
WRITTEN_A_SECOND: Final = 100
"""Tokens, by most models of 2026. Without this bound somebody who leaves at once would pay for all of `max_tokens`."""


def used_until(estimate: Estimate, incoming: Incoming | None, streams: bool, seconds: float) -> Usage | None:
    """By an answer that was given up so long after its request was sent. None: nothing, it is a refusal.

    Args: incoming is what has come of it; streams: a stream was asked for.
    """
    usage = Usage()
    written = 0
    if incoming is not None:
        if incoming.head.status >= 300:
            return None
        if incoming.is_stream():
            usage = incoming.usage()
            written = incoming.written()
    if usage.input < 0:
        usage.input = estimate.input
    if usage.output < 0:
        usage.output = written if streams else min(estimate.output, int(seconds * WRITTEN_A_SECOND) * estimate.answers)
    usage.bound()
    return usage
