"""A configuration that a test has made, in the place of one that was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeq.config.change import Change
from edgeq.config.live import Live
from edgeq.config.schema import Config
from edgeq.errors import Problem


class Given:
    """A document whose configuration is made already; nothing can be set in it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tables: Mapping[str, Any] = {}
        self.changes_file = ""

    def build(self, changes: Sequence[Change] = (), files: bool = True) -> Config:
        assert not changes
        return self._config

    def idle(self, config: Config) -> Sequence[Problem]:
        return ()


def live(make: Callable[[], Config]) -> Live:
    """What `make` returns, now and at each reload."""
    return Live(lambda: Given(make()), lambda file: (), 0.0)
