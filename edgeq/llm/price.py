"""What tokens cost, in millionths of the currency. A price per million tokens is millionths per token, so no number is
divided."""

from __future__ import annotations

from edgeq.config.schema_llm import Price
from edgeq.llm.message import Usage


class Tariff:
    """A target's `Price`, made ready."""

    __slots__ = ("cache_write", "cached", "input", "output")

    def __init__(self, price: Price) -> None:
        self.input: float = price.input
        self.output: float = price.output
        self.cached: float = price.input if price.cached < 0 else price.cached
        self.cache_write: float = price.input if price.cache_write < 0 else price.cache_write

    def expected(self, input_tokens: int, output_tokens: int) -> int:
        """Of what was estimated: nothing of it from a cache. Rounded up."""
        cost = input_tokens * self.input + output_tokens * self.output
        return -int(-cost // 1)

    def of_usage(self, usage: Usage) -> int:
        """Of what was used; what nobody has told costs nothing. Rounded up."""
        plain = usage.input - usage.cached - usage.cache_write
        cost = usage.cached * self.cached + usage.cache_write * self.cache_write
        if plain > 0:
            cost += plain * self.input
        if usage.output > 0:
            cost += usage.output * self.output
        return -int(-cost // 1)
