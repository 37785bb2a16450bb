"""What requests have used, on its way from a worker to the store.

    record -> list of the worker -> one message -> supervisor -> one transaction -> taken
              every accounts.flush, or once there are BATCH

A worker sends a batch, and the next one when that one is in the store (`taken`). So what waits is bounded everywhere:
one batch of each worker in the supervisor, MAX_WAITING entries in a worker; what comes on top is dropped, and counted.
A batch has the worker's mark and a number, by which the store knows it again: nothing is counted twice.

What a crash can lose: of a killed worker, the entries of the last accounts.flush (longer only while the store is slow);
of a killed supervisor, nothing, as long as its workers can finish: they leave what was not taken to its successor
(leftover_io.py).
"""

from __future__ import annotations

import secrets
from typing import Final

from edgeq.llm.account import Conversation, Entry
from edgeq.llm.message import Usage

BATCH: Final = 100
"""Entries that are sent before their time."""
USUAL_BATCH: Final = 300
"""Entries of a usual message. Where the supervisor may not stand back behind workers (process_io), one on its processor
waits for it: 1 ms, and 5 to 10 with a thousand. Fewer would be several messages after each tick under full load, each
of which costs as much as thirty entries."""
MAX_BATCH: Final = 1000
"""Of one when many wait, since the store is slow: 0.6 MiB with the longest names, and the supervisor takes 4 MiB."""
MAX_WAITING: Final = 50_000
MAX_NAME: Final = 128
MAX_TEXT: Final = 64 * 1024
"""Characters of a prompt, and of an answer, that are kept."""
MAX_TEXT_BATCH: Final = 512 * 1024
"""Characters of conversations in one message: 2 MiB where each takes four bytes."""
MAX_TEXT_WAITING: Final = 4 * 1024 * 1024
_MAX_TAIL: Final = 512
_MAX_COUNT: Final = 10**12
"""What a provider says may be nonsense; sums of it must still fit 64 bits."""


class Batch:
    """What one message takes."""

    __slots__ = ("conversations", "dropped", "entries", "number")

    def __init__(self, number: int, entries: list[Entry], conversations: list[Conversation], dropped: int) -> None:
        self.number: int = number
        self.entries: list[Entry] = entries
        self.conversations: list[Conversation] = conversations
        self.dropped: int = dropped


class UsageLog:
    """Of one worker."""

    __slots__ = (
        "_conversations",
        "_due_at",
        "_entries",
        "_number",
        "_sent",
        "_text_waiting",
        "_untold",
        "dropped",
        "flush_s",
        "log_prompts",
        "mark",
        "wall_s",
    )

    def __init__(self) -> None:
        self.mark: str = secrets.token_hex(8)
        """Of this worker's life: batches are counted from 1 in each."""
        self.flush_s: float = 1.0
        self.log_prompts: bool = False
        self.wall_s: float = 0.0
        """Seconds since 1970, as of the last tick: entries are stamped with it."""
        self.dropped: int = 0
        """Entries and conversations that did not fit, since the start."""
        self._untold: int = 0
        """Of these, what no batch has told of."""
        self._entries: list[Entry] = []
        self._conversations: list[Conversation] = []
        self._text_waiting: int = 0
        self._number: int = 0
        self._sent: Batch | None = None
        """On its way into the store."""
        self._due_at: float = 0.0

    def record(
        self,
        tenant: str,
        key_id: str,
        model: str,
        target: str,
        usage: Usage,
        cost_micro: int,
        status: int,
        seconds: float,
        first_token_s: float,
    ) -> None:
        """Note what a request has used. Tokens that nobody has told count 0; `first_token_s` -1: there was none."""
        if len(self._entries) >= MAX_WAITING:
            self._drop()
            return
        self._entries.append(
            Entry(
                self.wall_s,
                tenant[:MAX_NAME],
                key_id[:MAX_NAME],
                model[:MAX_NAME],
                target[:MAX_NAME],
                _count(usage.input),
                _count(usage.output),
                _count(usage.cached),
                _count(usage.cache_write),
                _count(usage.reasoning),
                _count(cost_micro),
                status,
                seconds,
                first_token_s,
            )
        )

    def converse(self, request: str, tenant: str, key_id: str, model: str, prompt: str, answer: str) -> None:
        """Note what was asked and answered, if that is wanted. It is redacted before it is stored."""
        if not self.log_prompts:
            return
        prompt, answer = clipped(prompt), clipped(answer)
        size = len(prompt) + len(answer)
        if self._text_waiting + size > MAX_TEXT_WAITING:
            self._drop()
            return
        self._text_waiting += size
        self._conversations.append(
            Conversation(
                self.wall_s, request[:MAX_NAME], tenant[:MAX_NAME], key_id[:MAX_NAME], model[:MAX_NAME], prompt, answer
            )
        )

    def tick(self, now: float, wall_s: float) -> Batch | None:
        """Called often. Returns what is to be sent now; `now` is monotonic."""
        self.wall_s = wall_s
        if self._sent is not None or (now < self._due_at and len(self._entries) < BATCH):
            return None
        self._due_at = now + self.flush_s
        return self._next(self._size())

    def rest(self) -> list[Batch]:
        """All that is not known to be stored; what was sent already is sent again."""
        batches = [self._sent] if self._sent is not None else []
        batch = self._next(MAX_BATCH)
        while batch is not None:
            batches.append(batch)
            batch = self._next(MAX_BATCH)
        return batches

    def _size(self) -> int:
        """Larger ones when many wait: a slow disk stores a hundred as slowly as a thousand."""
        return max(USUAL_BATCH, min(MAX_BATCH, len(self._entries) // 4))

    def _next(self, size: int) -> Batch | None:
        if not (self._entries or self._conversations or self._untold):
            return None
        self._number += 1
        conversations = self._take_conversations()
        entries, self._entries = self._entries[:size], self._entries[size:]
        dropped, self._untold = self._untold, 0
        self._sent = Batch(self._number, entries, conversations, dropped)
        return self._sent

    def taken(self, number: int) -> Batch | None:
        """A batch is in the store. Returns the next one, if there is enough for it already."""
        if number != self._number:
            return None
        self._sent = None
        return self._next(self._size()) if len(self._entries) >= BATCH else None

    @property
    def waiting(self) -> int:
        """Entries that are not sent."""
        return len(self._entries)

    def _take_conversations(self) -> list[Conversation]:
        size = 0
        count = 0
        for one in self._conversations:
            size += len(one.prompt) + len(one.answer)
            if size > MAX_TEXT_BATCH and count:
                break
            count += 1
            self._text_waiting -= len(one.prompt) + len(one.answer)
        taken, self._conversations = self._conversations[:count], self._conversations[count:]
        return taken

    def _drop(self) -> None:
        self.dropped += 1
        self._untold += 1


def _count(number: int) -> int:
    if number < 0:
        return 0
    return number if number < _MAX_COUNT else _MAX_COUNT  # noqa: FURB136 - a call when compiled


def clipped(text: str) -> str:
    """At most MAX_TEXT characters, without a word that was cut in two: the rest of a secret is not seen to be one."""
    text = text[: MAX_TEXT + 1].encode("utf-8", "replace").decode()  # half a surrogate pair can be sent to nobody
    if len(text) <= MAX_TEXT:
        return text
    text = text[:MAX_TEXT]
    for at in range(MAX_TEXT - 1, MAX_TEXT - 1 - _MAX_TAIL, -1):
        if text[at].isspace():
            return text[:at]
    return text[: MAX_TEXT - _MAX_TAIL]
