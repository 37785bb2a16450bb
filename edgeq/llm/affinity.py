"""Which target has answered last what begins with the same: its provider, or its engine, has the beginning cached.

Providers and engines keep what they have computed of a prompt's beginning for some minutes, and charge a tenth for it
or answer sooner; but each of their accounts and replicas keeps its own. So requests with the same beginning prefer the
target that served it last, unless that is saturated (the caller asks).

A prompt is known by a chain of hashes, one for each of its beginnings that ends at a boundary: the first after
`first_bytes`, then one every BLOCK_BYTES, twice as far apart after each BLOCKS of them. A conversation that grows, and
several that share a system prompt, are so known by the longest beginning that was seen. What is shorter than
`first_bytes` has no affinity (providers cache from 1,024 tokens on, about 4 KiB).

Source: OpenAI's and Anthropic's documentation of prompt caching (1,024 tokens; 5 to 10 minutes); vLLM's prefix caching
and the routers of llm-d and SGLang, which keep such a table of blocks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from edgeq.llm.shapes import as_beginning

BLOCK_BYTES: Final = 4096
BLOCKS: Final = 8
MAX_BLOCKS: Final = 32
"""Of one prompt, which are so 480 KiB. Beyond it prompts are told apart no more."""
KEEP_S: Final = 300.0
"""How long providers keep what is not used."""
MAX_KNOWN: Final = 16384
"""Beginnings in the table: 4 MiB or so in each worker. Who was served longest ago goes."""


def prefixes(model: str, system: bytes, messages: bytes, first_bytes: int) -> list[int]:
    """The beginnings of a prompt, the shortest first; empty: it is too short, or first_bytes is 0.

    Args: system and messages as they stand in the body, undecoded: tools and system prompt before the messages, as
    providers put them; the same bytes, the same prompt. The numbers mean something in this process only.
    """
    size = len(system) + len(messages)
    if first_bytes <= 0 or size < first_bytes:
        return []
    text = system + messages if system else messages
    found: list[int] = []
    chained = hash(model)
    at = 0
    block = first_bytes
    while at + block <= size:
        chained = hash((chained, text[at : at + block]))
        found.append(chained)
        if len(found) >= MAX_BLOCKS:
            break
        at += block
        block = BLOCK_BYTES << (len(found) // BLOCKS)
    return found


def beginnings_of(body: bytes, model: str, first_bytes: int) -> list[int]:
    """The same of a request's body, in any dialect that clients speak; empty also for what is none."""
    if first_bytes <= 0 or len(body) < first_bytes:
        return []
    try:
        said = as_beginning.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    before = bytes(said.tools) + bytes(said.system) + bytes(said.instructions)
    return prefixes(model, before, bytes(said.messages) or bytes(said.input), first_bytes)


class Served:
    """Who has served a beginning, and when (monotonic seconds)."""

    __slots__ = ("at", "target")

    def __init__(self, target: str, at: float) -> None:
        self.target = target
        self.at: float = at


class Affinity:
    """The table of one worker, for all its routes."""

    __slots__ = ("_served", "keep_s", "max_known", "preferred")

    def __init__(self, max_known: int = MAX_KNOWN, keep_s: float = KEEP_S) -> None:
        self.max_known: int = max_known
        self.keep_s: float = keep_s
        self.preferred: int = 0
        """How often it knew somebody."""
        self._served: dict[int, Served] = {}
        """In the order of their serving, the oldest first."""

    def prefer(self, beginnings: list[int], now: float) -> str:
        """The target that has served the longest of these beginnings; empty: nobody has, of late."""
        served = self._served
        for number in range(len(beginnings) - 1, -1, -1):
            known = served.get(beginnings[number])
            if known is not None and now - known.at < self.keep_s:
                self.preferred += 1
                return known.target
        return ""

    def served(self, beginnings: list[int], target: str, now: float) -> None:
        """A target has answered a prompt: it has all its beginnings cached now."""
        served = self._served
        for beginning in beginnings:
            known = served.pop(beginning, None)
            if known is None:
                known = Served(target, now)
            else:
                known.target = target
                known.at = now
            served[beginning] = known
        while len(served) > self.max_known:
            del served[next(iter(served))]

    def forget(self, target: str) -> None:
        """It is not there any more, or has lost its cache (an engine that was started anew)."""
        for beginning in [one for one, known in self._served.items() if known.target == target]:
            del self._served[beginning]

    def snapshot(self) -> dict[str, int]:
        """What is known."""
        return {"known": len(self._served), "max_known": self.max_known, "preferred": self.preferred}
