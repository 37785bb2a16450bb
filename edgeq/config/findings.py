"""What is wrong with a configuration so far: problems by path, each path once, nothing below a path that is wrong.

That rule lets the checks run over a configuration with stand-ins for what could not be read, and still blame each
mistake once: a missing `address` is reported as missing, and not a second time as an invalid address.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, NamedTuple

from edgeq.config.lines import Lines, Path, show_path
from edgeq.errors import Problem


class Label(NamedTuple):
    """What a path is called that does not come from the file: "--listen" of the command line."""

    source: str
    name: str


class Findings:
    """Collects problems; `labels` renames paths that do not come from the file."""

    __slots__ = ("_found", "_labels", "_left", "_lines")

    def __init__(self, lines: Lines, labels: Mapping[Path, Label]) -> None:
        self._lines: Final = lines
        self._labels: Final = labels
        self._found: Final[dict[Path, str]] = {}
        self._left: Final[set[Path]] = set()

    def add(self, path: Path, message: str) -> None:
        """Blame `path`, unless it or something above it is already to blame."""
        if not self.blames(path):
            self._found[path] = message

    def leave(self, path: Path) -> None:
        """Have nobody judge `path`: what it names cannot be seen from here."""
        self._left.add(path)

    def blames(self, path: Path) -> bool:
        """Is `path` itself, or a table above it, already to blame, or left to others?"""
        return path in self._left or any(path[:length] in self._found for length in range(1, len(path) + 1))

    def problems(self) -> list[Problem]:
        """All problems, in the order of the file."""
        found = [self._problem(path, message) for path, message in self._found.items()]
        return sorted(found, key=lambda problem: problem.line)

    def _problem(self, path: Path, message: str) -> Problem:
        for length in range(len(path), 0, -1):
            label = self._labels.get(path[:length])
            if label is not None:
                return Problem(label.source, 0, label.name, message)
        return Problem(self._lines.file, self._lines.line(path), show_path(path), message)


def did_you_mean(word: str, known: list[str]) -> str:
    """ " (did you mean max_idle?)", or nothing if no known word is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
