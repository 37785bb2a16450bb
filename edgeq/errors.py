"""What edgeq can fail with before it serves: a wrong configuration, or a start that the machine refuses.

Failures of single requests are no exceptions but reasons (see `reasons.py`). Exit codes follow sysexits.h where it has
a word for the case, so that a service manager can tell "try again" from "a person must look".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 69
"""The admin socket is not reachable."""
EXIT_TRY_AGAIN: Final = 75
"""The admin socket has not answered in time."""
EXIT_DENIED: Final = 77
"""The admin socket does not let this user do that."""
EXIT_CONFIG: Final = 78
"""The configuration is wrong; starting again will not help."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    `file` is the name the user gave, `line` counts from 1 (0: the file as a whole), `key_path` is written as in
    `upstream.api.pool.max_idle` or `listener[0].address` (empty: the file as a whole).
    """

    file: str
    line: int
    key_path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key_path}: {self.message}" if self.key_path else f"{place}: {self.message}"


class EdgeqError(Exception):
    """Everything that edgeq raises on purpose. `exit_code` is what the process should end with."""

    exit_code: int = EXIT_FAILED


class ConfigError(EdgeqError):
    """The configuration is wrong; carries every problem, in the order of the file."""

    exit_code = EXIT_CONFIG

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class StartError(EdgeqError):
    """The machine refuses what the configuration asks: a port in use, no right to bind it, no such user."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
