"""How many tokens a request will use, before it is sent: what is reserved of limits.

Input: a token for every four bytes of the request's body, attachments apart, times what this model's requests have
turned out to be in relation to that. An attachment is a long string of base64: providers count its picture or pages,
not its bytes, so it counts a token for a hundred bytes, within bounds; a document has pages without a bound.

Output: what the client allows (`max_tokens`), but no more than nearly all answers of this tenant and model were long:
the 95th percentile, rounded up, and a quarter more. While less than `KNOWN` answers of his are known, those of all
tenants count for him; while they are less, too, the longest of them counts, by as many times as there should be more.
Before the first one it is `max_tokens`, or what the caller gives as the usual maximum, and never more than that.

How the quantile is kept: counts of answers by length in buckets that grow by a quarter at most (four to an octave), so
it is never told too short, and up to a quarter too long. All counts are halved when there are `_WINDOW` of them, so
half of what is known is of the last 128 answers. Tenants and models that are kept: `MAX_PAIRS`, half a kilobyte each;
the one that has not been heard of for longest is forgotten. Each worker learns by itself; only how long requests for a
model take stands in its row of the board as well, for workers that have had no answer of it yet: who asks beside a slow
request is told by that when to come again. Lengths need no such thing: before the first answers more is reserved, not
less.

Some answers are longer than the estimate, by what `Reservation.settle` then charges; the margin is there so that these
debts are rare, not that they never come.

Source: reference llm.md 1d (who reserves what), 5.5. LiteLLM and TensorZero reserve `max_tokens` in full: a client that
always says 16,384 and gets 200 then has an eightieth of his limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgeq.board.histogram import bucket_floor, bucket_of
from edgeq.board.keyed import Entry
from edgeq.board.layout import METER_CELLS, key_hash
from edgeq.llm.message import BYTES_PER_TOKEN, Usage

if TYPE_CHECKING:
    from edgeq.llm.meter import Books

KNOWN: Final = 20
"""Answers after which their quantile means something: the longest of them."""
MAX_PAIRS: Final = 4096
MAX_MODELS: Final = 512
_WINDOW: Final = 256
_AGAIN_EVERY: Final = 8
"""Answers after which the quantile is looked up again."""
_QUANTILE_ABOVE: Final = 20
"""One answer in so many is longer."""
_MOST_TOKENS: Final = 2**20
_BUCKETS: Final = (bucket_of(_MOST_TOKENS) >> 2) + 1

_RATIO_OVER: Final = 20_000.0
"""Tokens of estimates over which the correction of a model forgets: some ten requests."""
_LEAST_RATIO: Final = 0.1
_MOST_RATIO: Final = 8.0
"""Embeddings take arrays of numbers, and JSON may escape each character by six bytes; beyond it is a mistake."""

_TAKES_S: Final = 2.0
"""A request for a model of which nothing is known."""
_LEAST_S: Final = 1e-4
"""None is taken for shorter: so many end in a second."""
_US: Final = 1e6
_RISES_BY: Final = 4
_FALLS_BY: Final = 8

_ATTACHMENT: Final = re.compile(rb'"(?:data:[^",]{0,128},)?[A-Za-z0-9+/=_\\-]{256}')
"""No text goes on for so long without a blank. Anchored at the quote, so that it is tried once for each string."""
_BYTES_PER_ATTACHED: Final = 100
_LEAST_ATTACHED: Final = 85
_MOST_ATTACHED: Final = 2000
"""OpenAI's smallest picture; a large one, by Anthropic's and OpenAI's formulas, is 1,600."""


class Estimate:
    """What one request is reckoned with. Tokens, and money in millionths."""

    __slots__ = ("answers", "cost_micro", "input", "model", "output", "raw_input", "takes_s", "tenant")

    def __init__(self, input_tokens: int, output_tokens: int, cost_micro: int = 0) -> None:
        self.input: int = input_tokens
        self.output: int = output_tokens
        self.cost_micro: int = cost_micro
        self.answers: int = 1
        """Of which `output` is the sum; they are written at the same time."""
        self.takes_s: float = _TAKES_S
        """From the request's arrival to its end, as most of its model are done by then."""
        # For `Estimator.learn`.
        self.raw_input: int = input_tokens
        """Before this model's correction."""
        self.model = ""
        self.tenant = b""


class Lengths:
    """How long answers were."""

    __slots__ = ("_counts", "_fresh", "_most", "count")

    def __init__(self) -> None:
        self._counts: list[int] = [0] * _BUCKETS
        self._fresh: int = 0
        self._most: int = 0
        self.count: int = 0

    def add(self, tokens: int) -> None:
        """One more answer."""
        if tokens > _MOST_TOKENS:
            tokens = _MOST_TOKENS
        counts = self._counts
        counts[bucket_of(tokens) >> 2] += 1
        self.count += 1
        self._fresh += 1
        if self.count >= _WINDOW:
            total = 0
            for bucket in range(_BUCKETS):
                half = counts[bucket] >> 1
                counts[bucket] = half
                total += half
            self.count = total

    def most(self) -> int:
        """The 95th percentile, as the end of its bucket; 0 if fewer than `KNOWN` answers are known."""
        if self.count < KNOWN:
            return 0
        if self._fresh >= _AGAIN_EVERY or self._most == 0:
            self._fresh = 0
            self._most = self._end_of(self.count // _QUANTILE_ABOVE)
        return self._most

    def first(self) -> int:
        """For the first few: what none of them has come near to; 0 if none is known. A guess of 4,096 tokens would let
        in one after the other where a limit is not much more, for twenty answers' time."""
        return self._end_of(0) * KNOWN // self.count if self.count else 0

    def _end_of(self, above: int) -> int:
        """The end of the bucket above which so many are."""
        bucket = _BUCKETS - 1
        seen = self._counts[bucket]
        while seen <= above and bucket > 0:
            bucket -= 1
            seen += self._counts[bucket]
        return bucket_floor((bucket + 1) << 2)


class ModelLengths:
    """What is known of one model."""

    __slots__ = ("estimated", "lengths", "real", "shown", "takes_s")

    def __init__(self) -> None:
        self.shown: Entry | None = None
        """Where other workers see `takes_s`."""
        self.lengths: Lengths = Lengths()
        self.takes_s: float = 0.0
        """A request, as most are done by then; 0.0: nobody knows."""
        # Sums of input, forgetting: real tokens, and those that bytes alone had let expect.
        self.real: float = _RATIO_OVER / 10
        self.estimated: float = _RATIO_OVER / 10

    def ratio(self) -> float:
        """Real tokens of input for an estimated one."""
        return min(_MOST_RATIO, max(_LEAST_RATIO, self.real / self.estimated))

    def learn_time(self, seconds: float) -> None:
        """One more request has taken so long. It rises faster than it falls: to what two of three do not exceed."""
        if seconds < _LEAST_S:
            seconds = _LEAST_S
        takes_s = self.takes_s
        if takes_s <= 0.0:
            self.takes_s = seconds
        else:
            self.takes_s = takes_s + (seconds - takes_s) / (_RISES_BY if seconds > takes_s else _FALLS_BY)
        shown = self.shown
        if shown is not None:
            shown.put(0, int(self.takes_s * _US))

    def learn_input(self, estimated: int, real: int) -> None:
        """One more request. By sums and not by ratios, or short requests would count as much as long ones. What a
        provider says beyond reason is forgotten as soon as anything else."""
        if estimated <= 0:
            return
        most = _RATIO_OVER + _MOST_RATIO * estimated
        if real > most:
            real = int(most)
        keep = _RATIO_OVER / (_RATIO_OVER + estimated)
        self.real = self.real * keep + real
        self.estimated = self.estimated * keep + estimated


class Estimator:
    """What one worker has learned of the lengths of requests and answers."""

    __slots__ = ("_books", "_models", "_pairs")

    def __init__(self, books: Books | None = None) -> None:
        """No books: it learns nothing from other workers."""
        self._books: Books | None = books
        self._models: dict[str, ModelLengths] = {}
        self._pairs: dict[tuple[str, bytes], Lengths] = {}
        """In the order in which they were heard of last."""

    def estimate(
        self, model: str, tenant: bytes, body: bytes, max_tokens: int, usual_max: int, answers: int = 1
    ) -> Estimate:
        """Of one request.

        Args: model as edgeq calls it; body as the client has sent it, max_tokens what it allows (0: it does not say),
        usual_max what is reserved while nothing is known or said (the model's max_tokens; 0 for what has no output,
        such as embeddings), answers what it asks for at once (`n`). Its cost is the caller's to set.
        """
        known = self._models.get(model)
        raw = input_tokens(body)
        found = Estimate(raw if known is None else int(raw * known.ratio()), 0)
        found.raw_input = raw
        found.model = model
        found.tenant = tenant
        takes_s = self._others_take_s(model) if known is None or known.takes_s <= 0.0 else known.takes_s
        if takes_s > 0.0:
            found.takes_s = takes_s
        if usual_max:
            most = 0
            pair = self._pairs.get((model, tenant))
            if pair is not None:
                most = pair.most()
            if most == 0 and known is not None:
                most = known.lengths.most()
            if most:
                most += most >> 2
                if 0 < max_tokens < most:
                    most = max_tokens
            else:
                most = max_tokens or usual_max
                first = 0 if known is None else known.lengths.first()
                if 0 < first < most:
                    most = first
            found.answers = max(1, answers)
            found.output = most * found.answers
        return found

    def learn(self, estimate: Estimate, usage: Usage, answers: int = 1, seconds: float = 0.0) -> None:
        """What it was in the end; UNKNOWN teaches nothing, nor does 0.0 s."""
        known = self._models.get(estimate.model)
        if known is None:
            if len(self._models) >= MAX_MODELS:
                forgotten = self._models.pop(next(iter(self._models)))
                if forgotten.shown is not None:
                    forgotten.shown.close()
            known = ModelLengths()
            self._models[estimate.model] = known
            books = self._books
            if books is not None:
                known.shown = Entry(books.own, books.others, _key_of(estimate.model), METER_CELLS - 2)
        if seconds > 0.0:
            known.learn_time(seconds)
        if usage.input > 0:
            known.learn_input(estimate.raw_input, usage.input)
        if usage.output >= 0 and estimate.output:
            length = usage.output // answers if answers > 1 else usage.output
            known.lengths.add(length)
            pairs = self._pairs
            key = (estimate.model, estimate.tenant)
            pair = pairs.pop(key, None)
            if pair is None:
                if len(pairs) >= MAX_PAIRS:
                    del pairs[next(iter(pairs))]
                pair = Lengths()
            pairs[key] = pair
            pair.add(length)

    def _others_take_s(self, model: str) -> float:
        """How long requests for it take in other workers, if any has had an answer: the longest, as who is told too
        short a time comes in vain. 0.0: nobody knows."""
        books = self._books
        if books is None:
            return 0.0
        key = _key_of(model)
        longest = 0
        for table in books.others:
            longest = max(longest, table.value(key, 0))
        return longest / _US

    def snapshot(self) -> dict[str, dict[str, float]]:
        """By model: what is known of it."""
        return {
            model: {"input_ratio": round(known.ratio(), 3), "output_p95": known.lengths.most()}
            for model, known in self._models.items()
        }

    def __len__(self) -> int:
        """Pairs of model and tenant that are kept."""
        return len(self._pairs)


def _key_of(model: str) -> int:
    return key_hash(b"llm takes", model.encode())


def input_tokens(body: bytes) -> int:
    """By bytes alone; at least 1."""
    # By far the most have none. In all dialects it stands in "data" or "file_data", or is a URL that begins so.
    if body.find(b"data") < 0 or (b"base64" not in body and b"_audio" not in body and b"_data" not in body):
        return len(body) // BYTES_PER_TOKEN + 1
    text = len(body)
    attached = 0
    start = 0
    while True:
        found = _ATTACHMENT.search(body, start)
        if found is None:
            break
        begin = found.start() + 1
        end = body.find(b'"', found.end())
        if end < 0:
            end = len(body)
        size = end - begin
        text -= size
        tokens = size // _BYTES_PER_ATTACHED
        if tokens < _LEAST_ATTACHED:
            tokens = _LEAST_ATTACHED
        elif tokens > _MOST_ATTACHED and b"pdf" not in body[begin - 100 if begin > 100 else 0 : begin + 40]:
            tokens = _MOST_ATTACHED
        attached += tokens
        start = end + 1
    return text // BYTES_PER_TOKEN + 1 + attached
